/**
 * The database and the homeserver of the model, with the rules of the product, and what must be true of each commit.
 *
 * Invariants checked here: I1 (a commit is the owner's, and each passing of the lease has a newer generation), I2 (the rows of
 * the inbox are the events 1 to n, the stored `since` is n, and nothing is deleted at the homeserver that isn't stored), I3
 * (a process that a push has started never queues for the lease), I5 (whoever commits has in memory what is stored).
 */
import { Result } from "effect"
import type * as Lease from "../../src/lease/Lease.ts"
import { emptyResponse, type SyncRequest, type SyncResponse } from "../../src/matrix/SlidingSync.ts"
import * as SyncStoreMemoryState from "../../src/testing/SyncStoreMemoryState.ts"
import type { ErrorClass } from "../../src/sync/SupervisionPolicy.ts"
import type { Rules } from "./Rules.ts"
import { NOW, PAST, type Process, processAt, spend, type System, withWorld } from "./System.ts"

/** Something that can happen: in words, whether it is a fault, what comes of it, and the invariant that it breaks, if any. */
export interface Move {
  readonly words: string
  /** Whether all goes well without it. */
  readonly isFault: boolean
  readonly next: System
  readonly violation?: string
}

/** What became of a commit; with `next` it is durable. */
export type Committed =
  | { readonly _tag: "Done"; readonly next: System; readonly violation: string | undefined }
  | { readonly _tag: "Refused"; readonly class: "stale" | "moved" }

/** What can become of a commit: it is done, refused, or fails before or after it had its effect. */
export const commitMoves = (
  system: System,
  words: string,
  transaction: (from: System) => Committed,
  after: (done: System) => System,
  refused: (from: System, one: ErrorClass) => System
): ReadonlyArray<Move> => {
  const moves: Array<Move> = []
  const result = transaction(system)
  if (result._tag === "Refused")
    moves.push({ words: `${words}: refused, ${result.class}`, isFault: false, next: refused(system, result.class) })
  else {
    const { next, violation } = result
    moves.push({ words, isFault: false, next: after(next), ...(violation && { violation }) })
  }
  if (system.world.budget.faults === 0) return moves
  const spent = spend(system, "faults")
  const durable = transaction(spent)
  const fault = (how: string, next: System): void => void moves.push({ words: `${words}: ${how}`, isFault: true, next })
  fault("fails before", refused(spent, "crypto"))
  fault("the store can't be used any more", refused(spent, "storeTerminal"))
  fault("done, and never heard of", refused(durable._tag === "Refused" ? spent : durable.next, "store"))
  return moves
}

/** Why a commit must not have been possible, or `undefined`. */
const misuse = (system: System, index: number, fence: Lease.Fence): string | undefined => {
  const { table } = system.world
  const { memory, name } = processAt(system, index)
  const row = table.rows[0]
  if (row === undefined || row.holder !== fence.holder || row.generation !== fence.generation)
    return `I1: ${name} commits under a lease that is another's`
  if (memory?.current !== true) return `I5: ${name} commits what it made of outdated memory`
  return undefined
}

/** What is wrong with what is stored, or `undefined`. */
const disorder = ({ world: { deleted, inbox, position } }: System): string | undefined => {
  const isInOrder = inbox.every((event, at) => event === at + 1)
  if (!isInOrder) return `I2: the inbox holds the events ${inbox.join(", ")}`
  if (Number(position.since ?? 0) !== inbox.length)
    return `I2: the stored since is ${position.since ?? "absent"} with ${inbox.length} events applied`
  if (deleted > inbox.length)
    return `I2: event ${inbox.length + 1} is deleted at the homeserver and stored nowhere: it is lost`
  return undefined
}

/** What is wrong with what a step has changed, or `undefined`. */
export const check = (before: System, after: System): string | undefined => {
  const [old, row] = [before.world.table.rows[0], after.world.table.rows[0]]
  if (old !== undefined && row !== undefined && old.holder !== row.holder && row.generation <= old.generation)
    return `I1: the lease passes from ${old.holder} to ${row.holder} under the same generation`
  const queued = after.processes.find(
    ({ holder, role }) =>
      role === "notification" && after.world.table.waiters.some((waiter) => waiter.holder === holder)
  )
  return queued === undefined ? disorder(after) : `I3: ${queued.name} waits in the queue, and holds others up`
}

/** A process whose memory isn't what is stored any more. */
export const outdated = (process: Process): Process =>
  process.memory?.current === true ? { ...process, memory: { ...process.memory, current: false } } : process

/** What all know after a commit: the memory of every other process is outdated. */
const afterCommit = (system: System, index: number, outgoing: boolean): System => ({
  world: { ...system.world, outgoing },
  processes: system.processes.map((process, at) =>
    at === index ? { ...process, memory: { current: true, touched: false, outgoing } } : outdated(process)
  )
})

const numberOf = (content: unknown): number => Number((content as { readonly n?: unknown }).n)

/** The fenced commit of a response. */
export const commitExtension = (
  rules: Rules,
  system: System,
  index: number,
  fence: Lease.Fence,
  sentSince: string | undefined,
  response: SyncResponse
): Committed => {
  const { world } = system
  if (!rules.stands(world.table, fence)) return { _tag: "Refused", class: "stale" }
  const { toDevice } = response.extensions
  const events = (toDevice?.events ?? []).map((event) => numberOf(event["content"]))
  const since = toDevice?.nextBatch ?? sentSince
  const stored = { ...SyncStoreMemoryState.empty, position: world.position, lastSequence: world.inbox.length }
  const step = rules.commit(
    stored,
    fence,
    {
      ...(sentSince === undefined ? {} : { sentSince }),
      position: { pos: response.pos, ...(since === undefined ? {} : { since }) },
      inbox: events.map((n) => ({
        type: "m.room_key",
        sender: "@b:x",
        event: { n },
        encryption: "decrypted" as const
      })),
      crypto: [],
      quarantined: []
    },
    { nowMillis: NOW, kept: 1 }
  )
  if (Result.isFailure(step)) return { _tag: "Refused", class: "moved" }
  const [entries, { position }] = step.success
  const inbox = [...world.inbox, ...entries.map(({ event }) => numberOf(event))]
  const outgoing = events.length > 0 || processAt(system, index).memory?.outgoing === true
  const next = afterCommit(withWorld(system, { inbox, position }), index, outgoing)
  return { _tag: "Done", next, violation: misuse(system, index, fence) }
}

/** The fenced commit after a request of the end-to-end machine was answered. */
export const commitCrypto = (rules: Rules, system: System, index: number, fence: Lease.Fence): Committed =>
  rules.stands(system.world.table, fence)
    ? { _tag: "Done", next: afterCommit(system, index, false), violation: misuse(system, index, fence) }
    : { _tag: "Refused", class: "stale" }

/** The homeserver's side of a request: it deletes what is acknowledged, and tells what comes after. */
export const answer = (
  rules: Rules,
  system: System,
  request: SyncRequest
): { readonly next: System; readonly response: SyncResponse } => {
  const since = Number(request.extensions.toDevice?.since ?? 0)
  const { arrived, deleted: before } = system.world
  const deleted = Math.max(before, since)
  const events = Array.from({ length: Math.max(0, arrived - deleted) }, (_, at) => ({
    type: "m.room_key",
    sender: "@b:x",
    content: { n: deleted + at + 1 }
  }))
  const response: SyncResponse = {
    ...emptyResponse("p"),
    extensions: { toDevice: { nextBatch: `${arrived}`, events }, unknown: {} }
  }
  return { response, next: withWorld(system, { deleted: rules.acknowledgesEarly ? arrived : deleted }) }
}

export type Row = Lease.LeaseRow

/** Whether a process lives that keeps the grant which this row is. */
export const isHeldBy = ({ grant }: Process, row: Row): boolean =>
  grant?.keeping._tag === "Held" && grant.fence.holder === row.holder && grant.fence.generation === row.generation

/** A process that keeps the grant whose end is over. */
export const expired = (process: Process, row: Row): Process => {
  const { grant } = process
  if (grant?.keeping._tag !== "Held" || !isHeldBy(process, row)) return process
  return { ...process, grant: { ...grant, keeping: { ...grant.keeping, expiresAtMillis: PAST } } }
}

/** The row whose end is over after a step of the world, if any. */
export const expiring = (before: System["world"], after: System["world"]): Row | undefined => {
  const [old, row] = [before.table.rows[0], after.table.rows[0]]
  return old !== row ? old : undefined
}

/** What time does to the lease and to the queue. */
const passing = (system: System): ReadonlyArray<Move> => {
  const { table } = system.world
  const moves: Array<Move> = []
  const row = table.rows[0]
  if (row !== undefined && row.expiresAtMillis > NOW) {
    const next = withWorld(system, { table: { ...table, rows: [{ ...row, expiresAtMillis: PAST }] } })
    const processes = system.processes.map((process) => expired(process, row))
    // Who lives and has it renews it in time, unless something is wrong.
    const isFault = system.processes.some((process) => isHeldBy(process, row))
    moves.push({ words: `the lease of ${row.holder} expires`, isFault, next: { ...next, processes } })
  }
  for (const waiter of table.waiters) {
    if (waiter.expiresAtMillis <= NOW) continue
    const waiters = table.waiters.map((one) => (one === waiter ? { ...waiter, expiresAtMillis: PAST } : one))
    const next = withWorld(system, { table: { ...table, waiters } })
    moves.push({ words: `the place of ${waiter.holder} in the queue lapses`, isFault: false, next })
  }
  return moves
}

/** What happens by itself: time passes, and a to-device event arrives. */
export const moves = (system: System, events: number): ReadonlyArray<Move> => {
  const { arrived } = system.world
  const arriving: ReadonlyArray<Move> =
    arrived < events
      ? [
          {
            words: `event ${arrived + 1} arrives at the homeserver`,
            isFault: false,
            next: withWorld(system, { arrived: arrived + 1 })
          }
        ]
      : []
  return [...arriving, ...passing(system)]
}
