/**
 * The `quarantine` table: what arrived and can't be understood, inside the transaction of the response that brought it.
 *
 * Invariants: I7 (kept with raw JSON and reason, counted), I10 (`SyncConfig.quarantineKept` rows at most).
 */
import type { MatrixEvent, SyncStore } from "@twinloop/core"
import type { SyncReader, SyncTransaction } from "./SqliteClient.ts"

interface QuarantineRecord {
  readonly id: number
  readonly source: MatrixEvent.QuarantineSource
  readonly room_id: string | null
  readonly reason: string
  readonly raw: string
  readonly at_millis: number
}

/** When it happens, and how many rows stay. */
export interface QuarantineOptions {
  readonly nowMillis: number
  readonly kept: number
}

const insertRow = `INSERT INTO quarantine (source, room_id, reason, raw, at_millis) VALUES (?, ?, ?, ?, ?)`
const deleteOldest = `DELETE FROM quarantine WHERE id <= (SELECT MAX(id) FROM quarantine) - ?`
const selectNewest = `SELECT id, source, room_id, reason, raw, at_millis FROM quarantine ORDER BY id DESC LIMIT ?`
const selectCount = `SELECT seq AS count FROM sqlite_sequence WHERE name = 'quarantine'`

/** Adds things, and deletes the oldest ones beyond `kept`. */
export const insert = (
  transaction: SyncTransaction,
  things: ReadonlyArray<MatrixEvent.Quarantined>,
  { nowMillis, kept }: QuarantineOptions
): void => {
  for (const { source, roomId, reason, raw } of things) {
    // What isn't JSON at all has no text; `null` stands for it.
    transaction.run(insertRow, source, roomId ?? null, reason, JSON.stringify(raw) ?? "null", nowMillis)
  }
  if (things.length > 0) transaction.run(deleteOldest, kept)
}

/** The newest things, newest first. */
export const newest = (reader: SyncReader, limit: number): ReadonlyArray<SyncStore.QuarantineEntry> =>
  reader.all<QuarantineRecord>(selectNewest, limit).map((record) => ({
    id: record.id,
    source: record.source,
    ...(record.room_id === null ? {} : { roomId: record.room_id }),
    reason: record.reason,
    raw: JSON.parse(record.raw) as unknown,
    atMillis: record.at_millis
  }))

/** How many things were ever added. */
export const count = (reader: SyncReader): number => reader.get<{ count: number }>(selectCount)?.count ?? 0
