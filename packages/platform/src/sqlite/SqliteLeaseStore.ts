/**
 * `LeaseStore` in SQLite, for processes that share a database file.
 *
 * Each call loads the rows of one name, asks the rules of `Lease.ts`, and writes the difference, in one transaction. When
 * there is no difference, a read was enough: waiters that only look, or find that the lease was handed to them, hold up
 * nobody's writes.
 *
 * Invariants: I1 (the fenced commit of `SqliteSyncStore` reads the very rows that are written here).
 *
 * Gotchas: leases aren't synced to disk one by one. A power loss can undo the last ones, but it also ends every holder on
 * this host; and a fenced commit syncs all that was committed before it, so that no generation that ever wrote is undone.
 */
import { Lease, LeaseStore } from "@twinloop/core"
import type { StoreError } from "@twinloop/core"
import { Effect, Layer, Result } from "effect"
import * as SqliteClient from "./SqliteClient.ts"
import * as StoreFault from "./StoreFault.ts"

interface LeaseRecord {
  readonly slot: number
  readonly holder: string
  readonly generation: number
  readonly expires_at_millis: number
  readonly lease_millis: number
  readonly peer: string
}

interface WaiterRecord {
  readonly ticket: number
  readonly holder: string
  readonly count: number
  readonly expires_at_millis: number
  readonly ticket_millis: number
  readonly peer: string
  readonly urgent: number
}

const toRow = (record: LeaseRecord): Lease.LeaseRow => ({
  slot: record.slot,
  holder: record.holder,
  generation: record.generation,
  expiresAtMillis: record.expires_at_millis,
  leaseMillis: record.lease_millis,
  peer: JSON.parse(record.peer) as Lease.Peer
})

const toWaiter = (record: WaiterRecord): Lease.Waiter => ({
  ticket: record.ticket,
  holder: record.holder,
  count: record.count,
  expiresAtMillis: record.expires_at_millis,
  ticketMillis: record.ticket_millis,
  peer: JSON.parse(record.peer) as Lease.Peer,
  urgent: record.urgent !== 0
})

const selectRows = `SELECT slot, holder, generation, expires_at_millis, lease_millis, peer
  FROM lease WHERE name = ? ORDER BY slot`
const selectWaiters = `SELECT ticket, holder, count, expires_at_millis, ticket_millis, peer, urgent
  FROM lease_waiter WHERE name = ? ORDER BY ticket`
const selectUrgent = `SELECT ticket, holder, count, expires_at_millis, ticket_millis, peer, urgent
  FROM lease_waiter WHERE name = ? AND urgent <> 0`
const replaceRow = `INSERT OR REPLACE INTO lease
  (name, slot, holder, generation, expires_at_millis, lease_millis, peer) VALUES (?, ?, ?, ?, ?, ?, ?)`
const replaceWaiter = `INSERT OR REPLACE INTO lease_waiter
  (name, ticket, holder, count, expires_at_millis, ticket_millis, peer, urgent) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`
const deleteWaiter = `DELETE FROM lease_waiter WHERE name = ? AND ticket = ?`
const updateExpiry = `UPDATE lease SET expires_at_millis = ?, lease_millis = ?
  WHERE name = ? AND holder = ? AND generation = ?`
const selectStanding = `SELECT 1 FROM lease WHERE name = ? AND holder = ? AND generation = ? LIMIT 1`
const selectGeneration = `SELECT MAX(generation) AS generation FROM lease WHERE name = ?`

const load = (transaction: SqliteClient.SyncReader, name: string): Lease.LeaseTable => ({
  rows: transaction.all<LeaseRecord>(selectRows, name).map(toRow),
  waiters: transaction.all<WaiterRecord>(selectWaiters, name).map(toWaiter)
})

/** Whether there is nothing to write. The rules return what they didn't change as the same objects. */
const isSame = (before: Lease.LeaseTable, after: Lease.LeaseTable): boolean =>
  before.waiters.length === after.waiters.length &&
  after.waiters.every((waiter) => before.waiters.includes(waiter)) &&
  after.rows.every((row) => before.rows.includes(row))

/** Writes what differs. */
const save = (
  transaction: SqliteClient.SyncTransaction,
  name: string,
  before: Lease.LeaseTable,
  after: Lease.LeaseTable
): void => {
  for (const row of after.rows.filter((row) => !before.rows.includes(row))) {
    const { slot, holder, generation, expiresAtMillis, leaseMillis, peer } = row
    transaction.run(replaceRow, name, slot, holder, generation, expiresAtMillis, leaseMillis, JSON.stringify(peer))
  }
  const tickets = new Set(after.waiters.map((waiter) => waiter.ticket))
  for (const { ticket } of before.waiters) if (!tickets.has(ticket)) transaction.run(deleteWaiter, name, ticket)
  for (const waiter of after.waiters.filter((waiter) => !before.waiters.includes(waiter))) {
    const { ticket, holder, count, expiresAtMillis, ticketMillis } = waiter
    const [peer, urgent] = [JSON.stringify(waiter.peer), waiter.urgent ? 1 : 0]
    transaction.run(replaceWaiter, name, ticket, holder, count, expiresAtMillis, ticketMillis, peer, urgent)
  }
}

/**
 * Whether a fence stands, as seen inside a transaction: the check of every fenced commit (invariant I1). Same rule as
 * `Lease.stands`.
 */
export const stands = (transaction: SqliteClient.SyncReader, fence: Lease.Fence): boolean =>
  transaction.get(selectStanding, fence.name, fence.holder, fence.generation) !== undefined

/** The newest generation of a name, as seen inside a transaction; `undefined` when nobody has ever taken it. */
export const generationOf = (transaction: SqliteClient.SyncReader, name: string): number | undefined =>
  transaction.get<{ generation: number | null }>(selectGeneration, name)?.generation ?? undefined

const make = Effect.gen(function* () {
  const client = yield* SqliteClient.SqliteClient
  const { filename } = client.config

  const read = <A>(operation: string, body: (reader: SqliteClient.SyncReader) => A) =>
    client.readSync(body).pipe(StoreFault.guard(filename, operation))

  const write = <A>(operation: string, body: (transaction: SqliteClient.SyncTransaction) => A) =>
    client
      .transactionSync({ durable: false }, (transaction) => Result.succeed(body(transaction)))
      .pipe(StoreFault.guard(filename, operation))

  const change = <A>(
    operation: string,
    name: string,
    rule: (table: Lease.LeaseTable) => readonly [Lease.LeaseTable, A]
  ) =>
    write(operation, (transaction) => {
      const before = load(transaction, name)
      const [after, outcome] = rule(before)
      save(transaction, name, before, after)
      return outcome
    })

  /** Looks first, and changes something only if the look says so. */
  const decide = Effect.fnUntraced(function* <A>(
    operation: string,
    name: string,
    rule: (table: Lease.LeaseTable) => readonly [Lease.LeaseTable, A]
  ): Effect.fn.Return<A, StoreError.StoreError> {
    const seen = yield* read(operation, (reader) => load(reader, name))
    const [wanted, outcome] = rule(seen)
    if (isSame(seen, wanted)) return outcome
    return yield* change(operation, name, rule)
  })

  return LeaseStore.of({
    take: (request) => decide("take a lease", request.name, (table) => Lease.decideTake(table, request)),
    renew: ({ fence, nowMillis, leaseMillis }) =>
      write("renew a lease", (transaction) => {
        const expiresAtMillis = nowMillis + leaseMillis
        const { name, holder, generation } = fence
        const { changes } = transaction.run(updateExpiry, expiresAtMillis, leaseMillis, name, holder, generation)
        if (changes === 0) return { _tag: "NotHeld" } as const
        const urgent = transaction.all<WaiterRecord>(selectUrgent, name).map(toWaiter)
        return { _tag: "Renewed", expiresAtMillis, wanted: Lease.isWanted(urgent, holder, nowMillis) } as const
      }),
    // A holder who gives up his lease has something to write, so no look comes first.
    release: (request) => change("release a lease", request.fence.name, (table) => Lease.decideRelease(table, request)),
    leave: (request) =>
      decide("leave the queue of a lease", request.name, (table) => Lease.decideLeave(table, request)),
    inspect: (name) => read("inspect a lease", (reader) => load(reader, name)),
    holds: (fence) => read("check a lease", (reader) => stands(reader, fence))
  })
})

/** Leases in the database of a {@link SqliteClient.SqliteClient} that has been migrated (`SqliteStores.layer`). */
export const layer: Layer.Layer<LeaseStore, never, SqliteClient.SqliteClient> = Layer.effect(LeaseStore, make)
