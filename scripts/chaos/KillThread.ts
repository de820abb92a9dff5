/**
 * Kills a process at the moment at which a file changes, and tells whether there was one. If the file doesn't change in time, then, or
 * not at all.
 *
 * A thread of its own: what the process does next it does within a millisecond, and the main thread is at work on what Bob sends.
 */
import { watch } from "node:fs"
import { basename, dirname } from "node:path"
import { parentPort, workerData } from "node:worker_threads"
import * as Processes from "./Processes.ts"

export interface Order {
  readonly file: string
  /** A process, or the first that a process has started, whichever that is then. */
  readonly target: { readonly pid: number } | { readonly childOf: number }
  readonly limitMillis: number
  /** What to do when the file doesn't change in time. */
  readonly atLimit: "kill" | "spare"
}

const { atLimit, file, limitMillis, target } = workerData as Order

const finish = (isKilled: boolean): void => {
  watcher.close()
  clearTimeout(timer)
  parentPort?.postMessage(isKilled, [])
}

const strike = (): void => {
  const pid = "pid" in target ? target.pid : Processes.childrenOf(target.childOf)[0]
  finish(pid !== undefined && Processes.signal(pid, "SIGKILL"))
}

const watcher = watch(dirname(file), (_, name) => {
  if (name === basename(file)) strike()
})
// One that can't watch any more says nothing: the time is over, then.
watcher.on("error", () => {})
const timer = setTimeout(() => (atLimit === "kill" ? strike() : finish(false)), limitMillis)
