/**
 * What a run of chaos comes to: what was done, what was sent against what is there, and what wasn't kept, in words.
 *
 * Pure: everything is computed from the schedule, the senders' records, and what was found in the database and in the file.
 */
import type * as Report from "../../packages/platform/src/story/Report.ts"
import type { Fault, Lane } from "./Schedule.ts"

/** How often each trouble came, by lane: `Kill main`. */
export type Done = { readonly [what in `${Fault} ${Lane}`]?: number }

/** A message that the homeserver was to push, and a line of the file in which it was shown. */
export interface Pushed {
  readonly eventId: string
  readonly body: string
}

export interface Shown {
  readonly eventId: string
  readonly result: string
  readonly body?: string
  readonly message?: string
}

export interface Pushes {
  readonly pushed: number
  /** Exactly once, in whatever words. */
  readonly shown: number
  readonly missing: number
  readonly duplicated: number
  readonly unasked: number
  /** Of those that were shown, how many without what was written; no fault, if the key or the homeserver could not be had in time. */
  readonly undecrypted: number
  /** Why, each reason once. */
  readonly reasons: ReadonlyArray<string>
}

/** Compares what was pushed with what was shown. */
export const pushes = (pushed: ReadonlyArray<Pushed>, shown: ReadonlyArray<Shown>): Pushes => {
  const lines = new Map<string, ReadonlyArray<Shown>>()
  for (const line of shown) lines.set(line.eventId, [...(lines.get(line.eventId) ?? []), line])
  const known = new Set(pushed.map(({ eventId }) => eventId))
  const times = pushed.map(({ eventId }) => lines.get(eventId)?.length ?? 0)
  const wordless = pushed.flatMap(({ body, eventId }) => {
    const first = lines.get(eventId)?.[0]
    return first === undefined || (first.result === "Event" && first.body?.endsWith(`: ${body}`)) ? [] : [first]
  })
  return {
    pushed: pushed.length,
    shown: times.filter((count) => count === 1).length,
    missing: times.filter((count) => count === 0).length,
    duplicated: times.filter((count) => count > 1).length,
    unasked: shown.filter(({ eventId }) => !known.has(eventId)).length,
    undecrypted: wordless.length,
    reasons: [...new Set(wordless.map(({ message, result }) => `${result}: ${message ?? "other words"}`))]
  }
}

export interface Verdict {
  readonly seed: number
  readonly minutes: number
  readonly homeserver: string
  /** Whether the disk could be filled here. */
  readonly canFill: boolean
  readonly done: Done
  /** Troubles that found nobody: no worker ran, or the process was starting. */
  readonly missed: number
  /** How often a loop backed off since the disk was full. */
  readonly refusedWrites: number
  /** How often a process ended by itself on a full disk, and was started again. */
  readonly restarts: number
  readonly toDevice: Report.ToDevice
  readonly encryption: Report.Encryption
  readonly pushes: Pushes
  readonly roomsBehind: number
  /** Suspensions that were not quiet by their deadline although nothing else was in trouble that could keep them. */
  readonly notQuiet: ReadonlyArray<string>
  /** Most TCP connections that a suspended process had. */
  readonly connectionsWhileSuspended: number
  readonly leaseIsFree: boolean
  readonly processesLeft: ReadonlyArray<string>
  readonly exitCodes: ReadonlyArray<number>
  /** What SQLite's own check says. */
  readonly integrity: string
  /** From the end of all trouble until everything was there. */
  readonly recoveryMillis: number
  readonly tookMillis: number
}

/** How often a kind of trouble came, in all lanes. */
export const count = (done: Done, fault: Fault): number =>
  Object.entries(done).reduce((sum, [what, times]) => (what.startsWith(fault) ? sum + (times ?? 0) : sum), 0)

/** What was not kept, in words; empty when all is well. */
export const failures = (verdict: Verdict): ReadonlyArray<string> => {
  const { encryption, exitCodes, integrity, processesLeft, pushes: push, toDevice } = verdict
  const none = (number: number, what: string): ReadonlyArray<string> => (number === 0 ? [] : [`${number} ${what}`])
  return [
    ...(count(verdict.done, "Kill") > 0 ? [] : ["nothing was killed"]),
    ...(toDevice.sent > 0 ? [] : ["no to-device event was sent"]),
    ...none(toDevice.lost, "to-device events were lost"),
    ...none(toDevice.duplicated, "to-device events were applied twice"),
    ...none(toDevice.outOfOrder, "to-device events were applied out of order"),
    ...(toDevice.applied === toDevice.sent
      ? []
      : [`${toDevice.applied} of ${toDevice.sent} to-device events are there`]),
    ...(encryption.sent > 0 ? [] : ["no encrypted message was sent"]),
    ...none(encryption.undecrypted, `encrypted messages can't be read: ${encryption.reasons.join(", ")}`),
    ...none(encryption.oneTimeKeyConflicts, "times a one-time key had the id of another one"),
    ...(push.pushed > 0 ? [] : ["nothing was pushed"]),
    ...none(push.missing, "pushes were never shown"),
    ...none(push.duplicated, "pushes were shown more than once"),
    ...none(push.unasked, "notifications were shown of what was not pushed"),
    ...none(verdict.roomsBehind, "rooms don't have their latest message"),
    ...verdict.notQuiet,
    ...none(verdict.connectionsWhileSuspended, "TCP connections were open while suspended"),
    ...(verdict.leaseIsFree ? [] : ["a lease is held although every process has ended"]),
    ...(processesLeft.length === 0 ? [] : [`processes are left: ${processesLeft.join("; ")}`]),
    ...(exitCodes.every((code) => code === 0) ? [] : [`the processes ended with exit codes ${exitCodes.join(", ")}`]),
    ...(integrity === "ok" ? [] : [`the database is damaged: ${integrity}`])
  ]
}

/** The table at the end, for people. */
export const table = (verdict: Verdict): ReadonlyArray<string> => {
  const { done, encryption, pushes: push, toDevice } = verdict
  const of = (fault: Fault): string => {
    const parts = Object.entries(done).flatMap(([what, times]) =>
      what.startsWith(fault) ? [`${what.split(" ")[1]} ${times}`] : []
    )
    return `${count(done, fault)}${parts.length > 1 ? ` (${parts.join(", ")})` : ""}`
  }
  const full = verdict.canFill
    ? `${of("Full")}; a loop backed off ${verdict.refusedWrites} times`
    : "none: no small disk here"
  const rows: ReadonlyArray<readonly [string, string]> = [
    ["minutes", `${verdict.minutes}, seed ${verdict.seed}, ${verdict.homeserver}`],
    ["killed", of("Kill")],
    ["stopped and continued", of("Stop")],
    ["suspended and resumed", of("Suspend")],
    ["cut off, slow", `${of("Cut")}, ${of("Slow")}`],
    ["answers lost", of("Lose")],
    ["disk full", full],
    ["that found nobody", `${verdict.missed} of ${sum(done) + verdict.missed}`],
    [
      "to-device events",
      `${toDevice.sent} sent, ${toDevice.lost} lost, ${toDevice.duplicated} twice, ${toDevice.outOfOrder} out of order`
    ],
    [
      "encrypted messages",
      `${encryption.sent} sent, ${encryption.undecrypted} unreadable, ${encryption.roomKeys} keys`
    ],
    ["one-time key conflicts", String(encryption.oneTimeKeyConflicts)],
    ["pushes", `${push.pushed}, ${push.shown} shown once, ${push.undecrypted} of them without words`],
    ["all there after the last trouble", `${(verdict.recoveryMillis / 1_000).toFixed(1)} s`]
  ]
  const width = Math.max(...rows.map(([what]) => what.length))
  return rows.map(([what, is]) => `  ${what.padEnd(width)}  ${is}`)
}

const sum = (done: Done): number => Object.values(done).reduce((all, times) => all + (times ?? 0), 0)
