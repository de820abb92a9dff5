/**
 * The tables of the extension stream: position, inbox with its cursors, crypto records. Everything that writes them for a
 * response does so under a fence.
 *
 * Invariants: I1 (the fence is checked against the lease rows in the transaction that writes), I2 (so is `since`).
 */
import { StoreError, SyncStore } from "@twinloop/core"
import type { Lease, MatrixEvent } from "@twinloop/core"
import { Result } from "effect"
import * as Fencing from "./Fencing.ts"
import * as QuarantineTable from "./QuarantineTable.ts"
import type { SyncReader, SyncTransaction } from "./SqliteClient.ts"

interface InboxRecord {
  readonly sequence: number
  readonly generation: number
  readonly type: string
  readonly sender: string
  readonly encryption: SyncStore.InboxEvent["encryption"]
  readonly event: string
}

type Refused<A> = Result.Result<A, StoreError.StaleGeneration | StoreError.Moved>

const selectPosition = `SELECT since, pos FROM extension_position`
const replacePosition = `INSERT OR REPLACE INTO extension_position (id, since, pos) VALUES (1, ?, ?)`
const clearPos = `UPDATE extension_position SET pos = NULL`
const insertInbox = `INSERT INTO inbox (generation, type, sender, encryption, event) VALUES (?, ?, ?, ?, ?)`
const selectInbox = `SELECT sequence, generation, type, sender, encryption, event
  FROM inbox WHERE sequence > ? ORDER BY sequence LIMIT ?`
const countAfter = `SELECT COUNT(*) AS count FROM inbox WHERE sequence > ?`
const selectLast = `SELECT seq AS sequence FROM sqlite_sequence WHERE name = 'inbox'`
const replaceCrypto = `INSERT INTO crypto_record (collection, key, value) VALUES (?, ?, ?)
  ON CONFLICT (collection, key) DO UPDATE SET value = excluded.value`
const deleteCrypto = `DELETE FROM crypto_record WHERE collection = ? AND key = ?`
const insertNews = `INSERT INTO encryption_news (news) VALUES (?)`
const deleteNews = `DELETE FROM encryption_news WHERE sequence <= ?`
const selectNews = `SELECT sequence, news FROM encryption_news WHERE sequence > ? ORDER BY sequence LIMIT ?`
const selectNewsKept = `SELECT COALESCE(MIN(sequence), 0) AS first, COALESCE(MAX(sequence), 0) AS last FROM encryption_news`
const selectCursor = `SELECT sequence FROM inbox_cursor WHERE consumer = ?`
const moveCursor = `INSERT INTO inbox_cursor (consumer, sequence) VALUES (?, ?)
  ON CONFLICT (consumer) DO UPDATE SET sequence = MAX(sequence, excluded.sequence)`
const deleteCursor = `DELETE FROM inbox_cursor WHERE consumer = ?`
const deleteRead = `DELETE FROM inbox WHERE sequence <= (SELECT MIN(sequence) FROM inbox_cursor) AND sequence <= ?`

/** Where the stream stands. */
export const position = (reader: SyncReader): SyncStore.ExtensionPosition => {
  const row = reader.get<{ since: string | null; pos: string | null }>(selectPosition)
  return {
    ...(row === undefined || row.since === null ? {} : { since: row.since }),
    ...(row === undefined || row.pos === null ? {} : { pos: row.pos })
  }
}

const checkSince = (reader: SyncReader, sent: string | undefined): StoreError.Moved | undefined => {
  const stored = position(reader).since
  if (stored === sent) return undefined
  return new StoreError.Moved({
    message: `the request was sent with since ${sent ?? "absent"}, but ${stored ?? "absent"} is stored, nothing was written; drop the response and read the position again`,
    token: "since",
    ...(sent === undefined ? {} : { sent }),
    ...(stored === undefined ? {} : { stored })
  })
}

const writeCrypto = (transaction: SyncTransaction, { collection, key, value }: SyncStore.CryptoWrite): void => {
  if (value === null) transaction.run(deleteCrypto, collection, key)
  else transaction.run(replaceCrypto, collection, key, value)
}

const appendInbox = (
  transaction: SyncTransaction,
  event: SyncStore.InboxEvent,
  generation: number
): SyncStore.InboxEntry => {
  const json = JSON.stringify(event.event)
  const { lastInsertRowid } = transaction.run(insertInbox, generation, event.type, event.sender, event.encryption, json)
  return { ...event, generation, sequence: lastInsertRowid }
}

const appendNews = (transaction: SyncTransaction, news: ReadonlyArray<SyncStore.EncryptionNews>): void => {
  let last = 0
  for (const piece of news) last = transaction.run(insertNews, JSON.stringify(piece)).lastInsertRowid
  if (last > SyncStore.ENCRYPTION_NEWS_KEPT) transaction.run(deleteNews, last - SyncStore.ENCRYPTION_NEWS_KEPT)
}

const writeEngine = (transaction: SyncTransaction, { crypto, news = [] }: SyncStore.CryptoCommit): void => {
  for (const write of crypto) writeCrypto(transaction, write)
  if (news.length > 0) appendNews(transaction, news)
}

/** Writes the engine's records, unless the fence is stale. */
export const commitCrypto = (
  transaction: SyncTransaction,
  fencing: Fencing.Fencing,
  fence: Lease.Fence,
  commit: SyncStore.CryptoCommit
): Refused<void> => {
  const refusal = Fencing.check(transaction, fencing, fence)
  if (refusal !== undefined) return Result.fail(refusal)
  writeEngine(transaction, commit)
  return Result.succeed(undefined)
}

/** News after a sequence number, ascending. */
export const readNews = (
  reader: SyncReader,
  after: number,
  limit: number
): ReadonlyArray<SyncStore.EncryptionNewsEntry> =>
  reader.all<{ sequence: number; news: string }>(selectNews, after, limit).map(({ news, sequence }) => ({
    sequence,
    news: JSON.parse(news) as SyncStore.EncryptionNews
  }))

/** Sequence numbers of the oldest and the newest news, 0 while there are none. */
export const newsKept = (reader: SyncReader): { readonly first: number; readonly last: number } =>
  reader.get<{ first: number; last: number }>(selectNewsKept) ?? { first: 0, last: 0 }

/** Writes a response's effects, unless the fence or `sentSince` is stale. */
export const commit = (
  transaction: SyncTransaction,
  fencing: Fencing.Fencing,
  fence: Lease.Fence,
  commit: SyncStore.ExtensionCommit,
  quarantine: QuarantineTable.QuarantineOptions
): Refused<ReadonlyArray<SyncStore.InboxEntry>> => {
  const refusal = Fencing.check(transaction, fencing, fence) ?? checkSince(transaction, commit.sentSince)
  if (refusal !== undefined) return Result.fail(refusal)
  writeEngine(transaction, commit)
  const entries = commit.inbox.map((event) => appendInbox(transaction, event, fence.generation))
  QuarantineTable.insert(transaction, commit.quarantined, quarantine)
  transaction.run(replacePosition, commit.position.since ?? null, commit.position.pos ?? null)
  return Result.succeed(entries)
}

/** Drops `pos`, unless the fence is stale. */
export const expire = (transaction: SyncTransaction, fencing: Fencing.Fencing, fence: Lease.Fence): Refused<void> => {
  const refusal = Fencing.check(transaction, fencing, fence)
  if (refusal !== undefined) return Result.fail(refusal)
  transaction.run(clearPos)
  return Result.succeed(undefined)
}

/** Rows after a sequence number, ascending. */
export const readInbox = (reader: SyncReader, after: number, limit: number): ReadonlyArray<SyncStore.InboxEntry> =>
  reader.all<InboxRecord>(selectInbox, after, limit).map((record) => ({
    sequence: record.sequence,
    generation: record.generation,
    type: record.type,
    sender: record.sender,
    encryption: record.encryption,
    event: JSON.parse(record.event) as MatrixEvent.JsonObject
  }))

/** Where a consumer stands, 0 at first. */
export const cursor = (reader: SyncReader, consumer: string): number =>
  reader.get<{ sequence: number }>(selectCursor, consumer)?.sequence ?? 0

/** How many rows a consumer has not read; their JSON is not touched. */
export const countUnread = (reader: SyncReader, consumer: string): number =>
  reader.get<{ count: number }>(countAfter, cursor(reader, consumer))?.count ?? 0

/** Moves a cursor forward, never beyond the last row, and deletes rows that all have read, except the newest `keep`. */
export const advance = (
  transaction: SyncTransaction,
  request: { readonly consumer: string; readonly sequence: number; readonly keep: number }
): void => {
  const last = transaction.get<{ sequence: number }>(selectLast)?.sequence ?? 0
  transaction.run(moveCursor, request.consumer, Math.min(request.sequence, last))
  transaction.run(deleteRead, last - request.keep)
}

/** Removes a cursor, so that rows no longer wait for it. */
export const forget = (transaction: SyncTransaction, consumer: string): void => {
  transaction.run(deleteCursor, consumer)
}
