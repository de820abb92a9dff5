/**
 * The lease: who owns a named resource, as rows, and the pure rules by which the rows change.
 *
 * Includes the row types and `decideTake`, `decideRenew`, `decideRelease`, `decideLeave`. Every `LeaseStore` adapter loads
 * the rows of one name, asks these functions, and writes what they return, in one transaction: the rules exist once.
 *
 * Invariants: I1 (the generation grows whenever ownership passes to another holder, and never else).
 *
 * Gotchas: time comes from the caller, in Unix milliseconds of this host; an expiry farther away than the lease that wrote
 * it (and the age that a reading of the clock can have) is a clock step and counts as expired. Permits that were taken
 * together are lost together.
 *
 * Not here: when to take, renew or give up (`LeaseMachine.ts`), waiting and signals (`DistributedSemaphore.ts`).
 */

/** How other processes of this host can see whether a holder lives. */
export interface Peer {
  /** Address of the holder's local socket, or absent when it has none. */
  readonly endpoint?: string
  readonly pid?: number
  /** When the process started, as the platform tells it; with `pid` it names a process for good. */
  readonly startedAt?: string
}

/** One permit of a name. The row stays when it is released, since it carries the generation. */
export interface LeaseRow {
  readonly slot: number
  /** role + random instance id, so that two processes can't be the same by accident. */
  readonly holder: string
  readonly generation: number
  /** Unix milliseconds; 0 when released. */
  readonly expiresAtMillis: number
  /** The lease that the holder took, in milliseconds; bounds how far away `expiresAtMillis` can be. */
  readonly leaseMillis: number
  readonly peer: Peer
}

/** A place in the queue for a name: first come, first served. */
export interface Waiter {
  /** Larger than every ticket in the queue when it was drawn. */
  readonly ticket: number
  readonly holder: string
  readonly count: number
  /** Unix milliseconds; a waiter that doesn't refresh its ticket loses its place. */
  readonly expiresAtMillis: number
  readonly ticketMillis: number
  readonly peer: Peer
  /** It needs the permits soon: holders learn of it and may yield. It overtakes nobody. */
  readonly urgent: boolean
}

/** Everything known about one name. */
export interface LeaseTable {
  readonly rows: ReadonlyArray<LeaseRow>
  /** By ticket, ascending. */
  readonly waiters: ReadonlyArray<Waiter>
}

/** What a store checks inside the transaction that writes (invariant I1). */
export interface Fence {
  readonly name: string
  readonly holder: string
  readonly generation: number
}

export interface TakeRequest {
  readonly name: string
  /** How many permits the name has in all, 1 or more. */
  readonly permits: number
  /** How many are wanted, 1..permits, all or none. */
  readonly count: number
  readonly holder: string
  readonly peer: Peer
  readonly nowMillis: number
  readonly leaseMillis: number
  /** When refused, take (or keep) a place in the queue that lasts this long without a refresh. Absent: try once, don't queue. */
  readonly enqueueMillis?: number
  /** Makes the place in the queue urgent; it stays so until it is served or given up. */
  readonly urgent?: boolean
  /** Holders and waiters that are known to be dead: what they hold can be taken before it expires, and nobody waits for them. */
  readonly presumedDead?: ReadonlyArray<string>
}

/** Who stands in the way, to be watched: the holder of the permit that frees first, or the waiter ahead. */
export interface Blocker {
  readonly kind: "holder" | "waiter"
  readonly holder: string
  readonly peer: Peer
  /** When it gives way by itself at the latest, Unix milliseconds. */
  readonly expiresAtMillis: number
}

export type TakeOutcome =
  | {
      readonly _tag: "Granted"
      readonly generation: number
      readonly slots: ReadonlyArray<number>
      /** For what was handed over, this is sooner than a lease from now: the first renewal confirms it. */
      readonly expiresAtMillis: number
    }
  | { readonly _tag: "Busy"; readonly blocker: Blocker }

export interface RenewRequest {
  readonly fence: Fence
  readonly nowMillis: number
  readonly leaseMillis: number
}

/** `wanted`: somebody waits who needs it soon. `NotHeld`: the lease is somebody else's by now. */
export type RenewOutcome =
  | { readonly _tag: "Renewed"; readonly expiresAtMillis: number; readonly wanted: boolean }
  | { readonly _tag: "NotHeld" }

export interface ReleaseRequest {
  readonly fence: Fence
  readonly nowMillis: number
  /** How long a waiter that is handed the lease has to confirm it, in milliseconds. */
  readonly handoverMillis: number
}

/** `handedTo` are the waiters that own the permits now. `NotHeld`: somebody else took it before; nothing was changed. */
export type ReleaseOutcome =
  | { readonly _tag: "Released"; readonly handedTo: ReadonlyArray<string> }
  | { readonly _tag: "NotHeld" }

/**
 * How much older than another's an asker's reading of the clock can be, in milliseconds: the time is read before the store
 * is asked, and a busy store may keep the asker waiting (`SyncConfig.storeBusyMillis`, and as much again for a busy process).
 * Without this slack a renewal that happened meanwhile would look like a clock step, and a healthy lease would be taken.
 */
export const STALE_CLOCK_MILLIS = 10_000

/** A name that nobody has ever taken. */
export const emptyTable: LeaseTable = { rows: [], waiters: [] }

/** Whether an expiry still counts at `nowMillis`: not passed, and not farther away than whoever wrote it can have meant. */
const counts = (expiresAtMillis: number, lengthMillis: number, nowMillis: number): boolean =>
  expiresAtMillis > nowMillis && expiresAtMillis <= nowMillis + lengthMillis + STALE_CLOCK_MILLIS

const isDead = (request: TakeRequest, holder: string): boolean => request.presumedDead?.includes(holder) === true

/** Whether a row is owned by somebody at `nowMillis`. */
export const isHeld = (row: LeaseRow, nowMillis: number): boolean =>
  counts(row.expiresAtMillis, row.leaseMillis, nowMillis)

/** Whether a fence still stands: what this holder took under this generation is still his. Expiry plays no part. */
export const stands = (table: LeaseTable, fence: Fence): boolean =>
  table.rows.some((row) => row.holder === fence.holder && row.generation === fence.generation)

/** The newest generation of a name; 0 when nobody has ever taken it. */
export const generationOf = (table: LeaseTable): number =>
  table.rows.reduce((newest, row) => Math.max(newest, row.generation), 0)

const liveWaiters = (table: LeaseTable, nowMillis: number): ReadonlyArray<Waiter> =>
  table.waiters.filter((waiter) => counts(waiter.expiresAtMillis, waiter.ticketMillis, nowMillis))

const freeSlot = (slot: number): LeaseRow => ({
  slot,
  holder: "",
  generation: 0,
  expiresAtMillis: 0,
  leaseMillis: 0,
  peer: {}
})

/** Rows for every permit, with an unowned one where none is stored. Rows beyond `permits` are kept as they are. */
const withAllSlots = (table: LeaseTable, permits: number): ReadonlyArray<LeaseRow> => {
  const bySlot = new Map(table.rows.map((row) => [row.slot, row]))
  return Array.from({ length: permits }, (_, slot) => bySlot.get(slot) ?? freeSlot(slot))
}

const replaceRows = (all: ReadonlyArray<LeaseRow>, rows: ReadonlyArray<LeaseRow>): ReadonlyArray<LeaseRow> => {
  const bySlot = new Map(all.map((row) => [row.slot, row]))
  for (const row of rows) bySlot.set(row.slot, row)
  return [...bySlot.values()].sort((a, b) => a.slot - b.slot)
}

interface Given {
  readonly rows: ReadonlyArray<LeaseRow>
  readonly granted: ReadonlyArray<LeaseRow>
  readonly generation: number
}

/**
 * Gives rows to a holder: the generation stays when they are exactly what he had under it last, and grows by one otherwise
 * (invariant I1).
 *
 * Rows that were taken together and are not among those given become free: nobody keeps a part of what he was granted as
 * a whole, nor does a fence of the whole stand for a part.
 */
const give = (
  table: LeaseTable,
  chosen: ReadonlyArray<LeaseRow>,
  to: { readonly holder: string; readonly peer: Peer; readonly expiresAtMillis: number; readonly leaseMillis: number }
): Given => {
  const first = chosen[0]
  const isLast = (row: LeaseRow): boolean => row.holder === to.holder && row.generation === first?.generation
  const same = chosen.every(isLast) && table.rows.filter(isLast).length === chosen.length
  const generation = same && first !== undefined ? first.generation : generationOf(table) + 1
  const granted = chosen.map((row) => ({ slot: row.slot, generation, ...to }))
  const cut = (row: LeaseRow): boolean =>
    chosen.some((taken) => taken.holder === row.holder && taken.generation === row.generation)
  const kept = table.rows.map((row) => (cut(row) ? { ...freeSlot(row.slot), generation: row.generation } : row))
  return { rows: replaceRows(kept, granted), granted, generation }
}

/** The rows that a holder should be given: his own first, so that their generation can stay. */
const choose = (rows: ReadonlyArray<LeaseRow>, holder: string, count: number): ReadonlyArray<LeaseRow> =>
  [...rows].sort((a, b) => Number(b.holder === holder) - Number(a.holder === holder) || a.slot - b.slot).slice(0, count)

const firstToExpire = (rows: ReadonlyArray<LeaseRow>): LeaseRow | undefined =>
  rows.reduce<LeaseRow | undefined>(
    (first, row) => (first === undefined || row.expiresAtMillis < first.expiresAtMillis ? row : first),
    undefined
  )

/** The queue with the asker in it. A ticket with more than half of its life left is not touched: no write per look. */
const queue = (table: LeaseTable, live: ReadonlyArray<Waiter>, request: TakeRequest): ReadonlyArray<Waiter> => {
  if (request.enqueueMillis === undefined) return live
  const expiresAtMillis = request.nowMillis + request.enqueueMillis
  const own = live.find((waiter) => waiter.holder === request.holder)
  const urgent = own?.urgent === true || request.urgent === true
  const { count, peer } = request
  const refreshed = { expiresAtMillis, ticketMillis: request.enqueueMillis, count, peer, urgent }
  if (own !== undefined) {
    const same = own.count === count && own.urgent === urgent
    const fresh = same && own.expiresAtMillis - request.nowMillis > own.ticketMillis / 2
    return fresh ? live : live.map((waiter) => (waiter === own ? { ...waiter, ...refreshed } : waiter))
  }
  const ticket = table.waiters.reduce((last, waiter) => Math.max(last, waiter.ticket), 0) + 1
  return [...live, { ticket, holder: request.holder, ...refreshed }]
}

/**
 * The grant of what is the asker's as it is: all that it wants was handed over at a release, and its ticket went with that.
 * So nothing has to be written before the work can begin.
 */
const handedOver = (
  table: LeaseTable,
  own: ReadonlyArray<LeaseRow>,
  { count, holder }: TakeRequest
): TakeOutcome | undefined => {
  const first = own[0]
  if (first === undefined || own.length !== count) return undefined
  if (own.some((row) => row.generation !== first.generation || row.expiresAtMillis !== first.expiresAtMillis)) {
    return undefined
  }
  if (table.waiters.some((waiter) => waiter.holder === holder)) return undefined
  const { expiresAtMillis, generation } = first
  return { _tag: "Granted", generation, slots: own.map((row) => row.slot), expiresAtMillis }
}

/**
 * Decides a take: granted when enough permits are free, expired, dead or the asker's own, and nobody waits ahead.
 *
 * A permit that is the asker's own already (handed over at a release, or kept from before) needs no queueing. Gives the
 * table as it is afterwards, and the outcome.
 */
export const decideTake = (table: LeaseTable, request: TakeRequest): readonly [LeaseTable, TakeOutcome] => {
  const { holder, nowMillis, leaseMillis, count } = request
  const rows = withAllSlots(table, request.permits)
  const live = liveWaiters(table, nowMillis).filter((waiter) => !isDead(request, waiter.holder))
  const own = rows.filter((row) => row.holder === holder && isHeld(row, nowMillis))
  const handed = handedOver(table, own, request)
  if (handed !== undefined) return [table, handed]
  const takeable = rows.filter((row) => row.holder === holder || !isHeld(row, nowMillis) || isDead(request, row.holder))
  const mayPass = own.length >= count || aheadOf(live, holder) === undefined
  if (mayPass && takeable.length >= count) {
    const expiresAtMillis = nowMillis + leaseMillis
    const given = give(table, choose(takeable, holder, count), {
      holder,
      peer: request.peer,
      expiresAtMillis,
      leaseMillis
    })
    return [
      { rows: given.rows, waiters: live.filter((waiter) => waiter.holder !== holder) },
      {
        _tag: "Granted",
        generation: given.generation,
        slots: given.granted.map((row) => row.slot),
        expiresAtMillis
      }
    ]
  }
  const waiters = queue(table, live, request)
  return [
    { rows: table.rows, waiters },
    { _tag: "Busy", blocker: blockerOf(rows, live, request) }
  ]
}

/** The first live waiter in front of a holder, or `undefined` when the holder is first (or when nobody waits). */
const aheadOf = (live: ReadonlyArray<Waiter>, holder: string): Waiter | undefined => {
  const first = live[0]
  return first === undefined || first.holder === holder ? undefined : first
}

/** Whom to watch: the holder whose permit frees first; when permits are free, the waiter ahead. */
const blockerOf = (rows: ReadonlyArray<LeaseRow>, live: ReadonlyArray<Waiter>, request: TakeRequest): Blocker => {
  const held = rows.filter(
    (row) => row.holder !== request.holder && isHeld(row, request.nowMillis) && !isDead(request, row.holder)
  )
  const row = firstToExpire(held)
  if (row !== undefined) {
    return { kind: "holder", holder: row.holder, peer: row.peer, expiresAtMillis: row.expiresAtMillis }
  }
  const ahead = aheadOf(live, request.holder)
  return ahead === undefined
    ? { kind: "waiter", holder: request.holder, peer: {}, expiresAtMillis: request.nowMillis }
    : { kind: "waiter", holder: ahead.holder, peer: ahead.peer, expiresAtMillis: ahead.expiresAtMillis }
}

/** Whether somebody else than the holder waits who needs permits soon, and has not given up. */
export const isWanted = (waiters: ReadonlyArray<Waiter>, holder: string, nowMillis: number): boolean =>
  waiters.some(
    (waiter) =>
      waiter.urgent && waiter.holder !== holder && counts(waiter.expiresAtMillis, waiter.ticketMillis, nowMillis)
  )

/**
 * Decides a renewal: the new expiry and whether the lease is wanted, unless it is somebody else's by now.
 *
 * A lease that expired and that nobody took is renewed: its generation has not moved, so nothing else can have been
 * committed in between.
 */
export const decideRenew = (table: LeaseTable, request: RenewRequest): readonly [LeaseTable, RenewOutcome] => {
  const { fence, nowMillis } = request
  if (!stands(table, fence)) return [table, { _tag: "NotHeld" }]
  const expiresAtMillis = nowMillis + request.leaseMillis
  const rows = table.rows.map((row) =>
    row.holder === fence.holder && row.generation === fence.generation
      ? { ...row, expiresAtMillis, leaseMillis: request.leaseMillis }
      : row
  )
  const wanted = isWanted(table.waiters, fence.holder, nowMillis)
  return [
    { rows, waiters: table.waiters },
    { _tag: "Renewed", expiresAtMillis, wanted }
  ]
}

/** Hands free rows to the waiters at the front, as far as they reach, each for `handoverMillis` until it confirms. */
const handOver = (
  table: LeaseTable,
  nowMillis: number,
  handoverMillis: number
): readonly [LeaseTable, ReadonlyArray<string>] => {
  let current: LeaseTable = { rows: table.rows, waiters: liveWaiters(table, nowMillis) }
  const handedTo: Array<string> = []
  for (const waiter of current.waiters) {
    const free = current.rows.filter((row) => !isHeld(row, nowMillis))
    if (free.length < waiter.count) break
    const given = give(current, choose(free, waiter.holder, waiter.count), {
      holder: waiter.holder,
      peer: waiter.peer,
      expiresAtMillis: nowMillis + handoverMillis,
      leaseMillis: handoverMillis
    })
    handedTo.push(waiter.holder)
    current = {
      rows: given.rows,
      waiters: current.waiters.filter((other) => other.ticket !== waiter.ticket)
    }
  }
  return [current, handedTo]
}

const free = (table: LeaseTable, owned: (row: LeaseRow) => boolean): LeaseTable => ({
  rows: table.rows.map((row) => (owned(row) ? { ...row, expiresAtMillis: 0 } : row)),
  waiters: table.waiters
})

/**
 * Decides a release: the permits go to the first waiters, who then own them under a new generation; without waiters they
 * are free, and the holder who takes them again finds his generation unchanged.
 */
export const decideRelease = (table: LeaseTable, request: ReleaseRequest): readonly [LeaseTable, ReleaseOutcome] => {
  const { fence, nowMillis } = request
  if (!stands(table, fence)) return [table, { _tag: "NotHeld" }]
  const freed = free(table, (row) => row.holder === fence.holder && row.generation === fence.generation)
  const [next, handedTo] = handOver(freed, nowMillis, request.handoverMillis)
  return [next, { _tag: "Released", handedTo }]
}

/** Decides that a waiter gives up: its ticket goes, and what was handed to it meanwhile is passed on. */
export const decideLeave = (
  table: LeaseTable,
  request: { readonly holder: string; readonly nowMillis: number; readonly handoverMillis: number }
): readonly [LeaseTable, ReleaseOutcome] => {
  const queued = table.waiters.some((waiter) => waiter.holder === request.holder)
  const owns = table.rows.some((row) => row.holder === request.holder && isHeld(row, request.nowMillis))
  if (!queued && !owns) return [table, { _tag: "NotHeld" }]
  const without: LeaseTable = {
    rows: table.rows,
    waiters: table.waiters.filter((waiter) => waiter.holder !== request.holder)
  }
  const freed = free(without, (row) => row.holder === request.holder)
  const [next, handedTo] = handOver(freed, request.nowMillis, request.handoverMillis)
  return [next, { _tag: "Released", handedTo }]
}
