/**
 * The tables of the main loop: connections, rooms, their state, timelines and account data.
 *
 * Gotchas: this is the ingest path. It runs prepared statements in a plain loop, without an Effect per row, and looks for
 * stored events only in rooms that were there before.
 *
 * Not here: where an event goes in a timeline (`TimelineOrder` of core).
 */
import { StoreError, TimelineOrder } from "@twinloop/core"
import type { MatrixEvent, Room, SyncStore } from "@twinloop/core"
import { Result } from "effect"
import * as QuarantineTable from "./QuarantineTable.ts"
import type { SyncReader, SyncTransaction } from "./SqliteClient.ts"

interface EntryRecord {
  readonly position: number
  readonly event: string | null
  readonly prev_batch: string | null
}

interface ConnectionRecord {
  readonly pos: string | null
  readonly lists: string
}

interface EventRecord {
  readonly event: string
}

/** A room's place in the database. */
interface RoomKey {
  readonly connId: string
  readonly roomId: MatrixEvent.RoomId
}

const selectConnection = `SELECT pos, lists FROM connection WHERE id = ?`
const replaceConnection = `INSERT OR REPLACE INTO connection (id, pos, lists) VALUES (?, ?, ?)`
const clearPos = `UPDATE connection SET pos = NULL WHERE id = ?`
const selectSummaries = `SELECT summary FROM room WHERE connection = ? ORDER BY room_id`
const selectSummary = `SELECT summary FROM room WHERE connection = ? AND room_id = ?`
const selectRoom = `SELECT number FROM room WHERE connection = ? AND room_id = ?`
const insertRoom = `INSERT INTO room (connection, room_id, summary) VALUES (?, ?, ?)`
const updateRoom = `UPDATE room SET summary = ? WHERE number = ?`
const deleteState = `DELETE FROM state_event WHERE room = ?`
const deleteTimeline = `DELETE FROM timeline_entry WHERE room = ?`
const replaceState = `INSERT OR REPLACE INTO state_event (room, type, state_key, event) VALUES (?, ?, ?, ?)`
const deleteStateEvent = `DELETE FROM state_event WHERE room = ? AND type = ? AND state_key = ?`
const selectState = `SELECT event FROM state_event WHERE room = ? AND type = ? ORDER BY state_key`
const selectStateEvent = `SELECT event FROM state_event WHERE room = ? AND type = ? AND state_key = ?`
const insertEvent = `INSERT INTO timeline_entry (room, position, event_id, event) VALUES (?, ?, ?, ?)`
const replaceGap = `INSERT OR REPLACE INTO timeline_entry (room, position, prev_batch) VALUES (?, ?, ?)`
const deleteEntry = `DELETE FROM timeline_entry WHERE room = ? AND position = ?`
/** By the index of the ids' beginnings. */
const hasId = `substr(event_id, 2, 8) = substr(?2, 2, 8) AND event_id = ?2`
const selectPosition = `SELECT position FROM timeline_entry WHERE room = ?1 AND ${hasId}`
const selectLast = `SELECT position, event_id IS NULL AS gap FROM timeline_entry
  WHERE room = ? AND position < ? ORDER BY position DESC LIMIT 1`
const selectEntries = `SELECT position, event, prev_batch FROM timeline_entry
  WHERE room = ? AND position < ? ORDER BY position DESC LIMIT ?`
const selectEvent = `SELECT event FROM timeline_entry WHERE room = ?1 AND ${hasId}`
const replaceAccountData = `INSERT OR REPLACE INTO account_data (connection, room_id, type, event) VALUES (?, ?, ?, ?)`
const selectAccountData = `SELECT event FROM account_data WHERE connection = ? AND room_id = ? AND type = ?`

/** Stands for no room in `account_data`; no room id is empty. */
const globalData = ""

const decode = <A>(json: string): A => JSON.parse(json) as A

const roomNumber = (reader: SyncReader, { connId, roomId }: RoomKey): number | undefined =>
  reader.get<{ number: number }>(selectRoom, connId, roomId)?.number

/** Typing isn't durable. */
const summaryOf = (room: Room.Room): string => JSON.stringify({ ...room, typing: [] })

const writeState = (
  transaction: SyncTransaction,
  room: number,
  state: ReadonlyArray<MatrixEvent.StateEvent | MatrixEvent.StateDeletion>
): void => {
  for (const event of state) {
    const { type, state_key } = event
    if ("content" in event) transaction.run(replaceState, room, type, state_key, JSON.stringify(event))
    else transaction.run(deleteStateEvent, room, type, state_key)
  }
}

const storedTimeline = (reader: SyncReader, room: number): TimelineOrder.StoredTimeline => ({
  indexOf: (eventId) => reader.get<{ position: number }>(selectPosition, room, eventId)?.position,
  last: (before = Number.MAX_SAFE_INTEGER) => {
    const row = reader.get<{ position: number; gap: number }>(selectLast, room, before)
    return row === undefined ? undefined : { index: row.position, isGap: row.gap === 1 }
  }
})

const writeTimeline = (
  transaction: SyncTransaction,
  room: number,
  stored: TimelineOrder.StoredTimeline,
  commit: SyncStore.RoomCommit
): void => {
  const { closed, gap, events } = TimelineOrder.place(stored, commit.timeline, commit.gap)
  for (const index of closed) transaction.run(deleteEntry, room, index)
  if (gap !== undefined) transaction.run(replaceGap, room, gap.index, gap.prevBatch ?? null)
  for (const { index, event } of events) {
    transaction.run(insertEvent, room, index, event.event_id, JSON.stringify(event))
  }
}

const writeAccountData = (
  transaction: SyncTransaction,
  connId: string,
  roomId: string,
  events: ReadonlyArray<MatrixEvent.EphemeralEvent>
): void => {
  for (const event of events) transaction.run(replaceAccountData, connId, roomId, event.type, JSON.stringify(event))
}

const writeRoom = (transaction: SyncTransaction, connId: string, commit: SyncStore.RoomCommit): void => {
  const { room, replace } = commit
  const known = roomNumber(transaction, { connId, roomId: room.roomId })
  const summary = summaryOf(room)
  if (known !== undefined) transaction.run(updateRoom, summary, known)
  const number = known ?? transaction.run(insertRoom, connId, room.roomId, summary).lastInsertRowid
  if (known !== undefined && replace) {
    transaction.run(deleteState, known)
    transaction.run(deleteTimeline, known)
  }
  writeState(transaction, number, commit.state)
  const stored = known === undefined || replace ? TimelineOrder.empty : storedTimeline(transaction, number)
  writeTimeline(transaction, number, stored, commit)
  writeAccountData(transaction, connId, room.roomId, commit.accountData)
}

/** Writes one page, unless the stored `pos` isn't the one that was sent. */
export const commit = (
  transaction: SyncTransaction,
  commit: SyncStore.MainCommit,
  quarantine: QuarantineTable.QuarantineOptions
): Result.Result<void, StoreError.Moved> => {
  const { connId, sentPos: sent, pos } = commit
  const stored = transaction.get<ConnectionRecord>(selectConnection, connId)?.pos ?? undefined
  if (stored !== sent) {
    const message = `the request of connection ${connId} was sent with pos ${sent ?? "absent"}, but ${stored ?? "absent"} is stored, nothing was written; drop the response and read the position again`
    return Result.fail(
      new StoreError.Moved({
        message,
        token: "pos",
        ...(sent === undefined ? {} : { sent }),
        ...(stored === undefined ? {} : { stored })
      })
    )
  }
  for (const room of commit.rooms) writeRoom(transaction, connId, room)
  writeAccountData(transaction, connId, globalData, commit.accountData)
  for (const [roomId, events] of Object.entries(commit.roomAccountData ?? {})) {
    writeAccountData(transaction, connId, roomId, events)
  }
  QuarantineTable.insert(transaction, commit.quarantined, quarantine)
  transaction.run(replaceConnection, connId, pos, JSON.stringify(commit.lists))
  return Result.succeed(undefined)
}

/** Drops a connection's `pos`. */
export const expire = (transaction: SyncTransaction, connId: string): void => {
  transaction.run(clearPos, connId)
}

/** Where a connection stands. */
export const position = (reader: SyncReader, connId: string): SyncStore.MainPosition => {
  const connection = reader.get<ConnectionRecord>(selectConnection, connId)
  return {
    ...(connection === undefined || connection.pos === null ? {} : { pos: connection.pos }),
    lists: connection === undefined ? {} : decode(connection.lists)
  }
}

/** What a connection knew when it last committed. */
export const load = (reader: SyncReader, connId: string): SyncStore.MainSnapshot => {
  const rooms = reader.all<{ summary: string }>(selectSummaries, connId).map((row) => decode<Room.Room>(row.summary))
  return { ...position(reader, connId), rooms }
}

/** One room as the connection last committed it. */
export const summary = (reader: SyncReader, { connId, roomId }: RoomKey): Room.Room | undefined => {
  const row = reader.get<{ summary: string }>(selectSummary, connId, roomId)
  return row === undefined ? undefined : decode(row.summary)
}

const toEntry = ({ position: index, event, prev_batch }: EntryRecord): SyncStore.TimelineEntry => {
  if (event !== null) return { _tag: "Event", index, event: decode(event) }
  return { _tag: "Gap", index, ...(prev_batch === null ? {} : { prevBatch: prev_batch }) }
}

/** The newest `limit` entries before an index, ascending. */
export const timeline = (
  reader: SyncReader,
  request: RoomKey & { readonly limit: number; readonly before?: number }
): ReadonlyArray<SyncStore.TimelineEntry> => {
  const room = roomNumber(reader, request)
  if (room === undefined) return []
  const before = request.before ?? Number.MAX_SAFE_INTEGER
  return reader.all<EntryRecord>(selectEntries, room, before, request.limit).map(toEntry).toReversed()
}

/** One timeline event by id. */
export const event = (
  reader: SyncReader,
  key: RoomKey,
  eventId: MatrixEvent.EventId
): MatrixEvent.TimelineEvent | undefined => {
  const room = roomNumber(reader, key)
  const row = room === undefined ? undefined : reader.get<EventRecord>(selectEvent, room, eventId)
  return row === undefined ? undefined : decode(row.event)
}

/** State of a type, by state key, or the one with this state key. */
export const state = (
  reader: SyncReader,
  request: RoomKey & { readonly type: string; readonly stateKey?: string }
): ReadonlyArray<MatrixEvent.StateEvent> => {
  const room = roomNumber(reader, request)
  if (room === undefined) return []
  const { type, stateKey } = request
  const rows =
    stateKey === undefined
      ? reader.all<EventRecord>(selectState, room, type)
      : reader.all<EventRecord>(selectStateEvent, room, type, stateKey)
  return rows.map((row) => decode(row.event))
}

/** Account data of a type, global or of one room. */
export const accountData = (
  reader: SyncReader,
  request: { readonly connId: string; readonly type: string; readonly roomId?: MatrixEvent.RoomId }
): MatrixEvent.EphemeralEvent | undefined => {
  const { connId, type, roomId } = request
  const row = reader.get<EventRecord>(selectAccountData, connId, roomId ?? globalData, type)
  return row === undefined ? undefined : decode(row.event)
}
