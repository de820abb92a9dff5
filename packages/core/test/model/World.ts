/**
 * The database and the homeserver of the model, with the rules of the product, and what must be true of each commit.
 *
 * Invariants checked here: I1 (a commit is the owner's, and each passing of the lease has a newer generation), I2 (the rows of
 * the inbox are the events 1 to n, the stored `since` is n, and nothing is deleted at the homeserver that isn't stored), I5
 * (whoever commits has in memory what is stored).
 */
import { Result } from "effect"
import type * as Lease from "../../src/lease/Lease.ts"
import { emptyResponse, type SyncRequest, type SyncResponse } from "../../src/matrix/SlidingSync.ts"
import * as SyncStoreMemoryState from "../../src/testing/SyncStoreMemoryState.ts"
import type { Rules } from "./Rules.ts"
import { NOW, PAST, processAt, type System, withProcess, withWorld } from "./System.ts"

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
  return disorder(after)
}

/** What all know after a commit: the memory of every other process is outdated. */
const afterCommit = (system: System, index: number, outgoing: boolean): System => ({
  world: { ...system.world, outgoing },
  processes: system.processes.map((process, at) => {
    if (at === index) return { ...process, memory: { current: true, touched: false, outgoing } }
    return process.memory === null || !process.memory.current
      ? process
      : { ...process, memory: { ...process.memory, current: false } }
  })
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

/** What time does to the lease and to the queue. */
const passing = (system: System): ReadonlyArray<Move> => {
  const { table } = system.world
  const moves: Array<Move> = []
  const row = table.rows[0]
  if (row !== undefined && row.expiresAtMillis > NOW) {
    let next = withWorld(system, { table: { ...table, rows: [{ ...row, expiresAtMillis: PAST }] } })
    system.processes.forEach(({ grant }, index) => {
      if (grant?.keeping._tag !== "Held") return
      if (grant.fence.holder !== row.holder || grant.fence.generation !== row.generation) return
      next = withProcess(next, index, { grant: { ...grant, keeping: { ...grant.keeping, expiresAtMillis: PAST } } })
    })
    moves.push({ words: `the lease of ${row.holder} expires`, isFault: false, next })
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
