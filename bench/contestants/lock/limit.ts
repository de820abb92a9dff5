/**
 * The least that a machine has to do between two processes: `node limit.ts <LimitTask>`.
 *
 * One end of a pair listens on a local socket, the other one connects. Reads `wake COUNT SEED` (sends so many bytes, one
 * after the other, with pauses of 10 to 50 ms), `timer MILLIS` and `usage`.
 */
import { createConnection, createServer } from "node:net"
import type { Socket } from "node:net"
import { setTimeout as sleep } from "node:timers/promises"
import { Seeded } from "../../data/Seeded.ts"
import { nowMillis, task } from "../Figures.ts"
import { obey, say, usage, type Usage } from "./LockLine.ts"

export interface LimitTask {
  readonly end: "listens" | "connects"
  /** A path that doesn't exist yet. */
  readonly socket: string
}

/** `sent`: just before a byte was sent. `woken`: it came. `ended`: the other process is gone. `rang`: a timer's time has come. */
export type LimitLine =
  | { readonly event: "ready" }
  | { readonly event: "sent" | "woken" | "ended"; readonly atMillis: number }
  | { readonly event: "rang"; readonly lateMillis: number }
  | Usage

const { end, socket: path } = task<LimitTask>()

/** The other end. The listening end is ready before anybody has connected. */
const connected = new Promise<Socket>((resolve) => {
  if (end === "listens") {
    createServer(resolve).listen(path, () => say({ event: "ready" }))
  } else {
    const socket = createConnection(path, () => {
      say({ event: "ready" })
      resolve(socket)
    })
  }
})

const wake = async (count: number, seed: number): Promise<void> => {
  const seeded = new Seeded(seed)
  const socket = await connected
  const sent: Array<number> = []
  for (let byte = 0; byte < count; byte++) {
    await sleep(10 + seeded.int(40))
    sent.push(nowMillis())
    socket.write("w")
  }
  for (const atMillis of sent) say({ event: "sent", atMillis })
}

/** How late a timer is that is set for a moment on the wall clock, as the end of a lease is. */
const ring = async (millis: number): Promise<void> => {
  const due = Date.now() + millis
  await sleep(millis)
  say({ event: "rang", lateMillis: Date.now() - due })
}

obey((verb, [first, second]) => {
  if (verb === "usage") say(usage())
  if (verb === "wake") void wake(Number(first), Number(second))
  if (verb === "timer") void ring(Number(first))
})
void connected.then((socket) => {
  socket.on("data", (bytes: Buffer) => {
    const woken: LimitLine = { event: "woken", atMillis: nowMillis() }
    for (let byte = 0; byte < bytes.length; byte++) say(woken)
  })
  socket.once("close", () => say({ event: "ended", atMillis: nowMillis() }))
  // A process that is killed may reset the connection; `close` follows.
  socket.on("error", () => {})
})
