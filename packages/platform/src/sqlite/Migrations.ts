/**
 * The tables, as numbered steps that `effect/sql`'s Migrator applies in one transaction.
 *
 * Gotchas: a step that was ever released never changes; what comes later is a new step. All text of tables and columns is
 * in the database too (`sqlite3 file .schema`), since SQLite keeps the comments of a CREATE TABLE.
 *
 * Not here: what the columns mean in TypeScript (`SyncStore`, `Lease` of core).
 */
import { StoreError } from "@twinloop/core"
import { Effect } from "effect"
import { Migrator, SqlClient } from "effect/sql"
import type { SqlError } from "effect/sql"

const table = "twinloop_migrations"

const leaseTables = [
  `CREATE TABLE lease (
    -- One row per permit of a name; it stays when the permit is released, since it carries the generation.
    name TEXT NOT NULL,
    slot INTEGER NOT NULL,
    holder TEXT NOT NULL,
    generation INTEGER NOT NULL,
    expires_at_millis INTEGER NOT NULL, -- 0 when released
    lease_millis INTEGER NOT NULL,
    peer TEXT NOT NULL, -- JSON: how others can see whether the holder lives
    PRIMARY KEY (name, slot)
  ) STRICT, WITHOUT ROWID`,
  `CREATE TABLE lease_waiter (
    -- The queue for a name, by ticket.
    name TEXT NOT NULL,
    ticket INTEGER NOT NULL,
    holder TEXT NOT NULL,
    count INTEGER NOT NULL,
    expires_at_millis INTEGER NOT NULL,
    ticket_millis INTEGER NOT NULL,
    peer TEXT NOT NULL, -- JSON
    PRIMARY KEY (name, ticket)
  ) STRICT, WITHOUT ROWID`
]

const extensionTables = [
  `CREATE TABLE extension_position (
    -- Where the extension stream stands: one row, changed only by fenced commits.
    id INTEGER PRIMARY KEY CHECK (id = 1),
    since TEXT, -- to-device token that acknowledges everything before it
    pos TEXT -- position of the extension connection
  ) STRICT`,
  `CREATE TABLE inbox (
    -- Applied to-device events. AUTOINCREMENT, so that a number never comes again after its row was deleted.
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    generation INTEGER NOT NULL, -- of the owner that applied it
    type TEXT NOT NULL,
    sender TEXT NOT NULL,
    encryption TEXT NOT NULL CHECK (encryption IN ('none', 'decrypted', 'undecryptable')),
    event TEXT NOT NULL -- JSON
  ) STRICT`,
  `CREATE TABLE inbox_cursor (
    -- Up to which row each consumer has read the inbox.
    consumer TEXT PRIMARY KEY,
    sequence INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID`,
  `CREATE TABLE crypto_record (
    -- Records of the crypto engine, opaque to everybody else.
    collection TEXT NOT NULL,
    key BLOB NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (collection, key)
  ) STRICT, WITHOUT ROWID`
]

const roomTables = [
  `CREATE TABLE connection (
    -- Connections of main loops and where they stand.
    id TEXT PRIMARY KEY,
    pos TEXT, -- NULL starts the connection afresh
    lists TEXT NOT NULL -- JSON object: rooms in each list, as counted by the homeserver
  ) STRICT, WITHOUT ROWID`,
  `CREATE TABLE room (
    -- One room as one connection sees it; its number keeps the tables below small.
    number INTEGER PRIMARY KEY,
    connection TEXT NOT NULL,
    room_id TEXT NOT NULL,
    summary TEXT NOT NULL, -- JSON of core's Room, without typing
    UNIQUE (connection, room_id)
  ) STRICT`,
  `CREATE TABLE state_event (
    -- Current state of a room.
    room INTEGER NOT NULL, -- room.number
    type TEXT NOT NULL,
    state_key TEXT NOT NULL,
    event TEXT NOT NULL, -- JSON as received
    PRIMARY KEY (room, type, state_key)
  ) STRICT, WITHOUT ROWID`,
  `CREATE TABLE timeline_entry (
    -- Events and gaps of a room's timeline, ascending by position; see core's TimelineOrder. A row has an event or is a gap.
    room INTEGER NOT NULL, -- room.number
    position INTEGER NOT NULL, -- may be negative
    event_id TEXT, -- NULL for a gap
    event TEXT, -- JSON as received, NULL for a gap
    prev_batch TEXT, -- of a gap: the token to fetch what is missing with
    CHECK ((event_id IS NULL) = (event IS NULL)),
    PRIMARY KEY (room, position)
  ) STRICT, WITHOUT ROWID`,
  `CREATE UNIQUE INDEX timeline_entry_event_id ON timeline_entry (room, event_id) WHERE event_id IS NOT NULL`,
  `CREATE TABLE account_data (
    -- Account data of a connection: global where room_id is '', else of one room.
    connection TEXT NOT NULL,
    room_id TEXT NOT NULL,
    type TEXT NOT NULL,
    event TEXT NOT NULL, -- JSON as received
    PRIMARY KEY (connection, room_id, type)
  ) STRICT, WITHOUT ROWID`
]

const otherTables = [
  `CREATE TABLE quarantine (
    -- What can't be understood, the newest SyncConfig.quarantineKept. AUTOINCREMENT, so that the last id counts all there ever were.
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    source TEXT NOT NULL,
    room_id TEXT,
    reason TEXT NOT NULL,
    raw TEXT NOT NULL, -- JSON as received
    at_millis INTEGER NOT NULL
  ) STRICT`,
  `CREATE TABLE account_session (
    -- The login: one row at most.
    id INTEGER PRIMARY KEY CHECK (id = 1),
    homeserver TEXT NOT NULL,
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    access_token TEXT NOT NULL,
    refresh_token TEXT,
    expires_at_millis INTEGER,
    revision INTEGER NOT NULL -- grows with every change, so that a refresh can see that another process was faster
  ) STRICT`
]

const deviceTables = [
  `CREATE TABLE account_device (
    -- Whose data is in this file: the first device that was logged in. Stays after a logout, as the data does.
    id INTEGER PRIMARY KEY CHECK (id = 1),
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL
  ) STRICT`,
  `INSERT INTO account_device (id, user_id, device_id) SELECT 1, user_id, device_id FROM account_session`
]

/**
 * Rows of a burst of news go to the end of two tables, whatever their rooms, and the indexes hold next to nothing: a commit
 * writes a third of the pages that it wrote when the rows were kept in the order of their rooms (ADR 0020).
 */
const appendedTables = [
  `CREATE TABLE appended_timeline_entry (
    -- Events and gaps of a room's timeline, ascending by position; see core's TimelineOrder. A row has an event or is a gap.
    number INTEGER PRIMARY KEY, -- in the order of arrival
    room INTEGER NOT NULL, -- room.number
    position INTEGER NOT NULL, -- may be negative
    event_id TEXT, -- NULL for a gap
    event TEXT, -- JSON as received, NULL for a gap
    prev_batch TEXT, -- of a gap: the token to fetch what is missing with
    CHECK ((event_id IS NULL) = (event IS NULL))
  ) STRICT`,
  `INSERT INTO appended_timeline_entry (room, position, event_id, event, prev_batch)
    SELECT room, position, event_id, event, prev_batch FROM timeline_entry ORDER BY room, position`,
  `DROP TABLE timeline_entry`,
  `ALTER TABLE appended_timeline_entry RENAME TO timeline_entry`,
  `CREATE UNIQUE INDEX timeline_entry_position ON timeline_entry (room, position)`,
  // A few characters of an id tell the events of one room apart, all but never wrongly: the row has the whole of it.
  `CREATE INDEX timeline_entry_event_id ON timeline_entry (room, substr(event_id, 2, 8)) WHERE event_id IS NOT NULL`,
  `CREATE TABLE appended_state_event (
    -- Current state of a room.
    number INTEGER PRIMARY KEY,
    room INTEGER NOT NULL, -- room.number
    type TEXT NOT NULL,
    state_key TEXT NOT NULL,
    event TEXT NOT NULL -- JSON as received
  ) STRICT`,
  `INSERT INTO appended_state_event (room, type, state_key, event)
    SELECT room, type, state_key, event FROM state_event ORDER BY room, type, state_key`,
  `DROP TABLE state_event`,
  `ALTER TABLE appended_state_event RENAME TO state_event`,
  `CREATE UNIQUE INDEX state_event_key ON state_event (room, type, state_key)`
]

const encryptionNewsTables = [
  `CREATE TABLE encryption_news (
    -- What commits changed about what can be decrypted or trusted, for every process that shows it. The newest are kept.
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    news TEXT NOT NULL -- JSON of core's EncryptionNews
  ) STRICT`
]

const urgentWaiters = [
  `ALTER TABLE lease_waiter ADD COLUMN
    urgent INTEGER NOT NULL /* 1 when it needs the permits soon, so that holders yield */ DEFAULT 0`
]

const cryptoRowTables = [
  // Without rowids a value of a room key's size goes to an overflow page of its own: 5.3 kB a key instead of 3.5.
  `CREATE TABLE crypto_row (
    -- Records of the crypto engine, opaque to everybody else.
    collection TEXT NOT NULL,
    key BLOB NOT NULL,
    value BLOB NOT NULL
  ) STRICT`,
  `INSERT INTO crypto_row (collection, key, value) SELECT collection, key, value FROM crypto_record`,
  `DROP TABLE crypto_record`,
  `ALTER TABLE crypto_row RENAME TO crypto_record`,
  `CREATE UNIQUE INDEX crypto_record_key ON crypto_record (collection, key)`
]

const pushTables = [
  `CREATE TABLE push_registration (
    -- The devices that pushes are taken for; every other push is rejected, and the homeserver forgets its pusher.
    app_id TEXT NOT NULL,
    push_key TEXT NOT NULL,
    url TEXT NOT NULL, -- where the homeserver sends them
    format TEXT NOT NULL, -- event_id_only or full
    created_at_millis INTEGER NOT NULL,
    PRIMARY KEY (app_id, push_key)
  ) STRICT, WITHOUT ROWID`,
  `CREATE TABLE push_queue (
    -- Pushes that were answered and are not shown yet. AUTOINCREMENT, so that a number never comes again after its row was deleted.
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    app_id TEXT NOT NULL,
    push_key TEXT NOT NULL,
    room_id TEXT NOT NULL,
    event_id TEXT NOT NULL UNIQUE,
    urgent INTEGER NOT NULL, -- 1 when the homeserver calls it urgent
    received_at_millis INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'showing')), -- showing: it may have been shown already
    attempts INTEGER NOT NULL, -- how often it was put off
    not_before_millis INTEGER NOT NULL -- 0 at first
  ) STRICT`,
  `CREATE TABLE push_seen (
    -- Events that were put into the queue, the newest, to know those that come again.
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL UNIQUE
  ) STRICT`,
  `CREATE TABLE push_badge (
    -- What the homeserver counted last: one row at most.
    id INTEGER PRIMARY KEY CHECK (id = 1),
    unread INTEGER NOT NULL,
    missed_calls INTEGER NOT NULL,
    at_millis INTEGER NOT NULL
  ) STRICT`
]

const create = (statements: ReadonlyArray<string>): Effect.Effect<void, SqlError.SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.forEach(statements, (statement) => sql.unsafe(statement), { discard: true })
  )

const steps = {
  "0001_initial": create([...leaseTables, ...extensionTables, ...roomTables, ...otherTables]),
  "0002_device": create(deviceTables),
  "0003_appended": create(appendedTables),
  "0004_encryption_news": create(encryptionNewsTables),
  "0005_urgent": create(urgentWaiters),
  "0006_crypto_rows": create(cryptoRowTables),
  "0007_push": create(pushTables)
}

/** The schema version that this software writes: the number of the last step. */
export const knownVersion = Object.keys(steps).length

/** The schema version of the opened database; 0 for an empty one. */
export const storedVersion: Effect.Effect<number, SqlError.SqlError, SqlClient.SqlClient> = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const found = yield* sql`SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ${table}`
  if (found.length === 0) return 0
  const rows = yield* sql<{ version: number | null }>`SELECT MAX(migration_id) AS version FROM ${sql(table)}`
  return rows[0]?.version ?? 0
})

const newer = (filename: string, version: number): StoreError.StoreError =>
  new StoreError.StoreError({
    operation: "open the database",
    reason: new StoreError.StoreNewer({
      message: `the database ${filename} has schema version ${version}, and this software knows ${knownVersion}; nothing was changed: update the software, or use another database`,
      storedVersion: version,
      knownVersion
    })
  })

/**
 * Brings the database to {@link knownVersion}. Safe when several processes do it at the same moment, if it is retried
 * while the database is locked.
 *
 * Fails with `StoreNewer` before anything is written when the database is newer than this software.
 */
export const migrate = (
  filename: string
): Effect.Effect<void, StoreError.StoreError | SqlError.SqlError | Migrator.MigrationError, SqlClient.SqlClient> =>
  Effect.gen(function* () {
    const version = yield* storedVersion
    if (version > knownVersion) return yield* newer(filename, version)
    if (version === knownVersion) return
    yield* Migrator.make({})({ loader: Migrator.fromRecord(steps), table })
  })
