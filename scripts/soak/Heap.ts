/**
 * How much memory a Node process needs: its heap after everything that nobody refers to was collected, as its inspector tells.
 *
 * Resident memory doesn't say that of a process that does little: V8 lets garbage lie for an hour when there is no hurry.
 *
 * Gotchas: SIGUSR1 has Node open its inspector on a port of this host; `portOption` in `NODE_OPTIONS` lets each process take
 * another one, which it says on standard error.
 */
import { readFileSync } from "node:fs"

export const portOption = "--inspect-port=0"

/** How long a process may take to open its inspector, or to answer. */
const LIMIT_MILLIS = 10_000
const LOOK_MILLIS = 100

const urlIn = (log: string): string | undefined =>
  /^Debugger listening on (ws:\S+)$/m.exec(readFileSync(log, "utf8"))?.[1]

const sleep = (millis: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, millis))

/** Has the process open its inspector, unless it has, and finds where by what it said into its log. */
const addressOf = async (pid: number, log: string): Promise<string> => {
  const known = urlIn(log)
  if (known !== undefined) return known
  process.kill(pid, "SIGUSR1")
  for (let waited = 0; waited < LIMIT_MILLIS; waited += LOOK_MILLIS) {
    const url = urlIn(log)
    if (url !== undefined) return url
    await sleep(LOOK_MILLIS)
  }
  throw new Error(`process ${pid} did not open its inspector`)
}

type Answer = { readonly id: number; readonly result: { readonly usedSize?: number } }

const open = (url: string): Promise<WebSocket> =>
  new Promise((resolve, reject) => {
    const socket = new WebSocket(url)
    socket.addEventListener("open", () => resolve(socket))
    socket.addEventListener("error", () => reject(new Error(`the inspector at ${url} can't be reached`)))
  })

const call = (socket: WebSocket, id: number, method: string): Promise<Answer["result"]> =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`the inspector did not answer to ${method}`)), LIMIT_MILLIS)
    socket.addEventListener("message", ({ data }) => {
      const answer = JSON.parse(String(data)) as Answer
      if (answer.id !== id) return
      clearTimeout(timer)
      resolve(answer.result)
    })
    socket.send(JSON.stringify({ id, method }))
  })

/** Collects the garbage of a process, and gives the size of what is left, in MiB. */
export const liveMib = async (pid: number, log: string): Promise<number> => {
  const socket = await open(await addressOf(pid, log))
  try {
    await call(socket, 1, "HeapProfiler.collectGarbage")
    const { usedSize = 0 } = await call(socket, 2, "Runtime.getHeapUsage")
    return usedSize / 1_048_576
  } finally {
    socket.close()
  }
}
