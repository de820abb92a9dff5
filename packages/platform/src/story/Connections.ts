/**
 * How many TCP connections a process has, as the operating system sees it: the proof that a suspended process is quiet.
 *
 * Linux only, by `/proc`; elsewhere nothing can be said.
 */
import { Effect } from "effect"
import type { Option } from "effect"
import { readdirSync, readFileSync, readlinkSync } from "node:fs"

/** States of `/proc/net/tcp` in which nothing is said any more: the kernel keeps the entry, no process does. */
const OVER = new Set(["06", "07"])

const tcpInodes = (): ReadonlySet<string> => {
  const inodes = new Set<string>()
  for (const file of ["/proc/net/tcp", "/proc/net/tcp6"]) {
    for (const line of readFileSync(file, "utf8").split("\n").slice(1)) {
      const fields = line.trim().split(/\s+/)
      if (fields[9] !== undefined && !OVER.has(fields[3]!)) inodes.add(fields[9])
    }
  }
  return inodes
}

/** What a descriptor is, or `undefined` when it was closed since it was listed. */
const targetOf = (path: string): string | undefined => {
  try {
    return readlinkSync(path)
  } catch {
    return undefined
  }
}

/** The open TCP sockets of a process, or `None` where that can't be seen. */
export const count = (pid: number): Effect.Effect<Option.Option<number>> =>
  Effect.option(
    Effect.try(() => {
      const inodes = tcpInodes()
      return readdirSync(`/proc/${pid}/fd`).filter((fd) => {
        const match = /^socket:\[(\d+)\]$/.exec(targetOf(`/proc/${pid}/fd/${fd}`) ?? "")
        return match !== null && inodes.has(match[1]!)
      }).length
    })
  )
