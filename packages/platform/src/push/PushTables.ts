/**
 * The tables of the push queue: which devices are pushed to, what waits to be shown, what was seen, and the newest counts.
 *
 * Invariants: I1 (who shows writes under a fence), I10 (the queue has a limit, and so has what is remembered).
 *
 * Gotchas: an event is one row whichever device it was pushed to, since one account has one place to show it: two pushers of
 * the account don't show it twice.
 *
 * Not here: when it is committed and who is told (`PushQueue.ts`), the tables themselves (`Migrations.ts` of `sqlite`).
 */
import type { Lease, NotificationItem, PushNotification, Pusher } from "@twinloop/core"
import { Result } from "effect"
import type { StoreError } from "@twinloop/core"
import * as Fencing from "../sqlite/Fencing.ts"
import type { SyncReader, SyncTransaction } from "../sqlite/SqliteClient.ts"

/** The lease under which pushes are shown: one process of the account does, whichever. */
export const PUSH_LEASE = "notifications"

/**
 * Events that are remembered after they were shown. A homeserver tries one push at a time again, until it is answered, so
 * that what comes again is among the newest few; a pusher that is made anew can't go back behind its making.
 */
const SEEN_KEPT = 10_000

/** A device that pushes are taken for. */
export interface Registration extends Pusher.PusherId {
  readonly url: string
  readonly format: Pusher.Pusher["format"]
  readonly createdAtMillis: number
}

/** A push that waits to be shown. */
export interface QueuedPush {
  /** Ascending in the order in which they were accepted. */
  readonly sequence: number
  readonly appId: string
  readonly request: NotificationItem.NotificationRequest
  readonly receivedAtMillis: number
  /** How often it was put off (`later`). */
  readonly attempts: number
  /** It may have been shown already, by a process that died or a sink that failed: to be asked before it is shown again. */
  readonly isRepeated: boolean
}

/** What the homeserver counted last. */
export interface Badge extends PushNotification.PushCounts {
  readonly atMillis: number
}

/**
 * What became of a push for a device. `duplicate`: the event was accepted before, by this or another device. `unknown`: the
 * device isn't registered here, and its pusher is to be deleted.
 */
export type Outcome = "accepted" | "duplicate" | "unknown"

/** A device of a push, and what became of it. */
export interface Answered {
  readonly device: Pusher.PusherId
  readonly outcome: Outcome
}

interface RegistrationRecord {
  readonly app_id: string
  readonly push_key: string
  readonly url: string
  readonly format: Registration["format"]
  readonly created_at_millis: number
}

interface QueueRecord {
  readonly sequence: number
  readonly app_id: string
  readonly room_id: string
  readonly event_id: string
  readonly urgent: number
  readonly received_at_millis: number
  readonly state: "waiting" | "showing"
  readonly attempts: number
}

const replaceRegistration = `INSERT INTO push_registration (app_id, push_key, url, format, created_at_millis)
  VALUES (?, ?, ?, ?, ?) ON CONFLICT (app_id, push_key) DO UPDATE SET url = excluded.url, format = excluded.format`
const deleteRegistration = `DELETE FROM push_registration WHERE app_id = ? AND push_key = ?`
const selectRegistrations = `SELECT app_id, push_key, url, format, created_at_millis FROM push_registration
  ORDER BY created_at_millis, app_id, push_key`
const selectRegistered = `SELECT 1 FROM push_registration WHERE app_id = ? AND push_key = ?`
const insertQueued = `INSERT INTO push_queue
  (app_id, push_key, room_id, event_id, urgent, received_at_millis, state, attempts, not_before_millis)
  VALUES (?, ?, ?, ?, ?, ?, 'waiting', 0, 0)`
const selectKnown = `SELECT 1 FROM push_seen WHERE event_id = ? UNION ALL SELECT 1 FROM push_queue WHERE event_id = ?`
const insertSeen = `INSERT INTO push_seen (event_id) VALUES (?)`
const deleteSeen = `DELETE FROM push_seen WHERE sequence <= ?`
const selectCount = `SELECT COUNT(*) AS count FROM push_queue`
const selectDue = `SELECT sequence, app_id, room_id, event_id, urgent, received_at_millis, state, attempts FROM push_queue
  WHERE not_before_millis <= ? AND sequence NOT IN (SELECT value FROM json_each(?))
  ORDER BY urgent DESC, sequence LIMIT ?`
const selectNextDue = `SELECT MIN(not_before_millis) AS millis FROM push_queue
  WHERE sequence NOT IN (SELECT value FROM json_each(?))`
const markShowing = `UPDATE push_queue SET state = 'showing' WHERE sequence IN (SELECT value FROM json_each(?))`
const deleteQueued = `DELETE FROM push_queue WHERE sequence IN (SELECT value FROM json_each(?))`
const putOff = `UPDATE push_queue SET attempts = attempts + 1, not_before_millis = ? WHERE sequence = ?`
const replaceBadge = `INSERT OR REPLACE INTO push_badge (id, unread, missed_calls, at_millis) VALUES (1, ?, ?, ?)`
const selectBadge = `SELECT unread, missed_calls, at_millis FROM push_badge`

// --- devices

/** Takes pushes for a device from here on; for one that is known already, its address and format. */
export const register = (
  transaction: SyncTransaction,
  { appId, format, pushKey, url }: Pick<Pusher.Pusher, "appId" | "pushKey" | "url" | "format">,
  nowMillis: number
): void => {
  transaction.run(replaceRegistration, appId, pushKey, url, format, nowMillis)
}

/** Takes no more pushes for a device; what waits is still shown. */
export const unregister = (transaction: SyncTransaction, { appId, pushKey }: Pusher.PusherId): void => {
  transaction.run(deleteRegistration, appId, pushKey)
}

/** The devices that pushes are taken for, oldest first. */
export const registrations = (reader: SyncReader): ReadonlyArray<Registration> =>
  reader.all<RegistrationRecord>(selectRegistrations).map((record) => ({
    appId: record.app_id,
    pushKey: record.push_key,
    url: record.url,
    format: record.format,
    createdAtMillis: record.created_at_millis
  }))

// --- accepting

/** What a request comes to: `Full` when there was no room for all of it, and nothing was written. */
export type Accepting =
  | { readonly _tag: "Full"; readonly waiting: number }
  | {
      readonly _tag: "Answered"
      readonly answers: ReadonlyArray<Answered>
      /** Whether there is something new to show, or to tell. */
      readonly isNews: boolean
    }

interface NewRow {
  readonly device: Pusher.PusherId
  readonly request: NotificationItem.NotificationRequest
}

interface Plan {
  readonly answers: Array<Answered>
  readonly rows: Map<NotificationItem.NotificationRequest["eventId"], NewRow>
  counts: PushNotification.PushCounts | undefined
}

const isRegistered = (reader: SyncReader, { appId, pushKey }: Pusher.PusherId): boolean =>
  reader.get(selectRegistered, appId, pushKey) !== undefined

const isKnown = (reader: SyncReader, eventId: string): boolean =>
  reader.get(selectKnown, eventId, eventId) !== undefined

/** What becomes of a push for one of its devices; adds a row to the plan if it is new. */
const planFor = (
  reader: SyncReader,
  rows: Plan["rows"],
  push: PushNotification.Push,
  device: Pusher.PusherId
): Outcome => {
  if (!isRegistered(reader, device)) return "unknown"
  if (push._tag === "Badge") return "accepted"
  const { eventId } = push.request
  if (rows.has(eventId) || isKnown(reader, eventId)) return "duplicate"
  rows.set(eventId, { device, request: push.request })
  return "accepted"
}

const plan = (reader: SyncReader, pushes: ReadonlyArray<PushNotification.Push>): Plan => {
  const made: Plan = { answers: [], rows: new Map(), counts: undefined }
  for (const push of pushes) {
    for (const { appId, pushKey } of push.devices) {
      const device = { appId, pushKey }
      const outcome = planFor(reader, made.rows, push, device)
      made.answers.push({ device, outcome })
      if (outcome !== "unknown") made.counts = push.counts ?? made.counts
    }
  }
  return made
}

const insert = (transaction: SyncTransaction, { device, request }: NewRow, nowMillis: number): void => {
  const { eventId, isUrgent, roomId } = request
  transaction.run(insertQueued, device.appId, device.pushKey, roomId, eventId, isUrgent === false ? 0 : 1, nowMillis)
  const { lastInsertRowid } = transaction.run(insertSeen, eventId)
  transaction.run(deleteSeen, lastInsertRowid - SEEN_KEPT)
}

/** Puts what is new into the queue, and keeps the newest counts; writes nothing at all when the queue has no room for it. */
export const accept = (
  transaction: SyncTransaction,
  pushes: ReadonlyArray<PushNotification.Push>,
  { limit, nowMillis }: { readonly limit: number; readonly nowMillis: number }
): Accepting => {
  const { answers, counts, rows } = plan(transaction, pushes)
  const waiting = size(transaction)
  if (rows.size > 0 && waiting + rows.size > limit) return { _tag: "Full", waiting }
  for (const row of rows.values()) insert(transaction, row, nowMillis)
  if (counts !== undefined) transaction.run(replaceBadge, counts.unread, counts.missedCalls, nowMillis)
  return { _tag: "Answered", answers, isNews: rows.size > 0 || counts !== undefined }
}

// --- reading

/** How many wait. */
export const size = (reader: SyncReader): number => reader.get<{ count: number }>(selectCount)?.count ?? 0

/** What the homeserver counted last; `undefined` when it never did. */
export const badge = (reader: SyncReader): Badge | undefined => {
  const row = reader.get<{ unread: number; missed_calls: number; at_millis: number }>(selectBadge)
  return row && { unread: row.unread, missedCalls: row.missed_calls, atMillis: row.at_millis }
}

/** What is due and not in hand, urgent ones first, then the oldest. */
export const due = (
  reader: SyncReader,
  options: { readonly nowMillis: number; readonly limit: number; readonly inHand: ReadonlyArray<number> }
): ReadonlyArray<QueuedPush> =>
  reader
    .all<QueueRecord>(selectDue, options.nowMillis, JSON.stringify(options.inHand), options.limit)
    .map((record) => ({
      sequence: record.sequence,
      appId: record.app_id,
      request: { roomId: record.room_id, eventId: record.event_id, isUrgent: record.urgent !== 0 },
      receivedAtMillis: record.received_at_millis,
      attempts: record.attempts,
      isRepeated: record.state === "showing"
    }))

/** When the next one that isn't in hand is due, Unix milliseconds (0: since it was accepted); `undefined` when there is none. */
export const nextDueMillis = (reader: SyncReader, inHand: ReadonlyArray<number>): number | undefined =>
  reader.get<{ millis: number | null }>(selectNextDue, JSON.stringify(inHand))?.millis ?? undefined

// --- showing, under the fence

type Fenced = Result.Result<void, StoreError.StaleGeneration>

/** Runs a statement, unless the fence is stale. A fence of another lease is none. */
const fenced = (
  transaction: SyncTransaction,
  fencing: Fencing.Fencing,
  fence: Lease.Fence,
  sql: string,
  ...params: ReadonlyArray<string | number>
): Fenced => {
  const refusal = Fencing.check(transaction, fencing, { ...fence, name: PUSH_LEASE })
  if (refusal !== undefined) return Result.fail(refusal)
  transaction.run(sql, ...params)
  return Result.succeed(undefined)
}

/** Says of rows that they are about to be shown. */
export const begin = (
  transaction: SyncTransaction,
  fencing: Fencing.Fencing,
  fence: Lease.Fence,
  sequences: ReadonlyArray<number>
): Fenced => fenced(transaction, fencing, fence, markShowing, JSON.stringify(sequences))

/** Removes rows; their events stay known. */
export const done = (
  transaction: SyncTransaction,
  fencing: Fencing.Fencing,
  fence: Lease.Fence,
  sequences: ReadonlyArray<number>
): Fenced => fenced(transaction, fencing, fence, deleteQueued, JSON.stringify(sequences))

/** Puts a row off. What may have been shown stays so: a sink that failed may have shown it all the same. */
export const later = (
  transaction: SyncTransaction,
  fencing: Fencing.Fencing,
  fence: Lease.Fence,
  sequence: number,
  notBeforeMillis: number
): Fenced => fenced(transaction, fencing, fence, putOff, notBeforeMillis, sequence)
