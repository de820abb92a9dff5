/**
 * The records of the end-to-end machine, read at once from the table that fenced commits write (`ExtensionTables.ts`).
 */
import type { RecordReader, Row } from "../crypto/indexeddb/RecordReader.ts"
import type { SyncReader } from "./SqliteClient.ts"

const selectOne = `SELECT value FROM crypto_record WHERE collection = ? AND key = ?`
const from = `FROM crypto_record WHERE collection = ? AND key >= ?`
const ascending = `SELECT key, value ${from} ORDER BY key LIMIT ?`
const descending = `SELECT key, value ${from} ORDER BY key DESC LIMIT ?`
const ascendingTo = `SELECT key, value ${from} AND key < ? ORDER BY key LIMIT ?`
const descendingTo = `SELECT key, value ${from} AND key < ? ORDER BY key DESC LIMIT ?`
const countFrom = `SELECT COUNT(*) AS count ${from}`
const countTo = `SELECT COUNT(*) AS count ${from} AND key < ?`
const selectAny = `SELECT 1 AS one FROM crypto_record LIMIT 1`

/** Reads records through a connection. Throws what SQLite throws. */
export const reader = (sql: SyncReader): RecordReader => ({
  get: (collection, key) => sql.get<{ value: Uint8Array }>(selectOne, collection, key)?.value,
  range: (collection, lower, upper, options) =>
    upper === undefined
      ? sql.all<Row>(options.descending ? descending : ascending, collection, lower, options.limit)
      : sql.all<Row>(options.descending ? descendingTo : ascendingTo, collection, lower, upper, options.limit),
  count: (collection, lower, upper) =>
    (upper === undefined
      ? sql.get<{ count: number }>(countFrom, collection, lower)
      : sql.get<{ count: number }>(countTo, collection, lower, upper)
    )?.count ?? 0
})

/** Whether there are none. */
export const areNone = (sql: SyncReader): boolean => sql.get(selectAny) === undefined
