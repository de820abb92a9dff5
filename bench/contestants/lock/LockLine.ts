/**
 * What processes that contend for a lock are given, are told, and say.
 *
 * They read commands from standard input, a line each, and print lines of JSON with the time at which something happened.
 */
import type { SyncConfig } from "@twinloop/core"
import { createInterface } from "node:readline"
import { nowMillis } from "../Figures.ts"

export interface LockTask {
  /** A file that the processes of a pair share; made by the first of them. */
  readonly database: string
  /** Of Twinloop, where it isn't the default; the peer has its constants. */
  readonly config: Partial<SyncConfig.SyncConfigShape>
}

/** A lock between processes, as both of them are used here. */
export interface Lock {
  /** Waits until this process holds the lock with a name; gives what releases it. A lock that is lost ends the process. */
  readonly take: (name: string) => Promise<() => Promise<void>>
}

/** A step of one turn at a lock: just before asking, just after the grant, just before releasing. */
export interface Step {
  readonly event: "asked" | "taken" | "released"
  readonly name: string
  readonly turn: number
  /** On the host's monotonic clock. */
  readonly atMillis: number
  /** On the wall clock, which leases are written in. */
  readonly atUnixMillis: number
}

/** What the process has used of a processor until then. */
export interface Usage {
  readonly event: "usage"
  readonly cpuMillis: number
  readonly atMillis: number
}

export type LockLine = { readonly event: "ready" } | Step | Usage

export const step = (event: Step["event"], name: string, turn: number): Step => ({
  event,
  name,
  turn,
  atMillis: nowMillis(),
  atUnixMillis: Date.now()
})

export const usage = (): Usage => {
  const { system, user } = process.cpuUsage()
  return { event: "usage", cpuMillis: (system + user) / 1_000, atMillis: nowMillis() }
}

export const say = (line: object): void => {
  process.stdout.write(`${JSON.stringify(line)}\n`)
}

/** Obeys every line, without waiting until the one before it is done. */
export const obey = (command: (verb: string, args: ReadonlyArray<string>) => void): void => {
  createInterface(process.stdin).on("line", (line) => {
    const [verb = "", ...args] = line.split(" ")
    command(verb, args)
  })
}

/** Ends the process loudly, so that whoever started it sees why. */
export const die = (message: string): never => {
  process.stderr.write(`${message}\n`)
  process.exit(1)
}
