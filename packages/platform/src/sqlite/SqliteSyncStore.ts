/**
 * `SyncStore` in SQLite: each call is one transaction on the database that also holds the leases.
 *
 * Invariants: I1, I2 (fence, `since` and all effects in one synced transaction), I6 (a call returns after its COMMIT).
 *
 * Gotchas: fenced commits are synced to disk before they return (`synchronous=FULL`), since the next request acknowledges
 * what they hold and the homeserver then deletes it. Room data isn't: after a power loss `pos` goes back together with
 * what came with it, and the homeserver sends it again. Both run on one connection, which is switched before each BEGIN
 * (`SqliteClient.ts` says why).
 *
 * Not here: the statements (`ExtensionTables.ts`, `RoomTables.ts`, `QuarantineTable.ts`), the tables (`Migrations.ts`).
 */
import { SyncConfig, SyncStore } from "@twinloop/core"
import type { StoreError } from "@twinloop/core"
import { Clock, Effect, Layer, Result } from "effect"
import * as ExtensionTables from "./ExtensionTables.ts"
import * as Fencing from "./Fencing.ts"
import * as QuarantineTable from "./QuarantineTable.ts"
import * as RoomTables from "./RoomTables.ts"
import * as SqliteClient from "./SqliteClient.ts"
import * as StoreFault from "./StoreFault.ts"

const quarantineOptions: Effect.Effect<QuarantineTable.QuarantineOptions> = Effect.gen(function* () {
  const { quarantineKept } = yield* SyncConfig.SyncConfig
  return { nowMillis: yield* Clock.currentTimeMillis, kept: quarantineKept }
})

const make = Effect.gen(function* () {
  const client = yield* SqliteClient.SqliteClient
  const { filename } = client.config
  const fencing = Fencing.of(client.config)

  const read = <A>(operation: string, body: (reader: SqliteClient.SyncReader) => A) =>
    client.readSync(body).pipe(StoreFault.guard(filename, operation))

  const write = <A>(
    operation: string,
    durable: boolean,
    body: (
      transaction: SqliteClient.SyncTransaction,
      quarantine: QuarantineTable.QuarantineOptions
    ) => Result.Result<A, StoreError.StoreErrorReason>
  ) =>
    Effect.flatMap(quarantineOptions, (quarantine) =>
      client.transactionSync({ durable }, (transaction) => body(transaction, quarantine))
    ).pipe(StoreFault.guard(filename, operation))

  return SyncStore.SyncStore.of({
    extensionPosition: read("read the extension position", ExtensionTables.position),
    commitExtension: (fence, commit) =>
      write("commit the extension stream", true, (transaction, quarantine) =>
        ExtensionTables.commit(transaction, fencing, fence, commit, quarantine)
      ),
    commitCrypto: (fence, commit) =>
      write("commit the keys", true, (transaction) =>
        ExtensionTables.commitCrypto(transaction, fencing, fence, commit)
      ),
    encryptionNews: ({ after, limit }) =>
      read("read the encryption news", (reader) => ExtensionTables.readNews(reader, after, limit)),
    encryptionNewsKept: read("read the encryption news", ExtensionTables.newsKept),
    expireExtension: (fence) =>
      write("expire the extension connection", true, (transaction) =>
        ExtensionTables.expire(transaction, fencing, fence)
      ),

    mainPosition: (connId) => read("read the main position", (reader) => RoomTables.position(reader, connId)),
    loadMain: (connId) => read("load the rooms", (reader) => RoomTables.load(reader, connId)),
    commitMain: (commit) =>
      write("commit the rooms", false, (transaction, quarantine) => RoomTables.commit(transaction, commit, quarantine)),
    expireMain: (connId) =>
      write("expire the main connection", false, (transaction) =>
        Result.succeed(RoomTables.expire(transaction, connId))
      ),

    room: (connId, roomId) => read("read a room", (reader) => RoomTables.summary(reader, { connId, roomId })),
    timeline: (request) => read("read a timeline", (reader) => RoomTables.timeline(reader, request)),
    event: (connId, roomId, eventId) =>
      read("read an event", (reader) => RoomTables.event(reader, { connId, roomId }, eventId)),
    state: (request) => read("read state", (reader) => RoomTables.state(reader, request)),
    accountData: (request) => read("read account data", (reader) => RoomTables.accountData(reader, request)),

    readInbox: ({ after, limit }) =>
      read("read the inbox", (reader) => ExtensionTables.readInbox(reader, after, limit)),
    inboxCursor: (consumer) => read("read an inbox cursor", (reader) => ExtensionTables.cursor(reader, consumer)),
    // Not synced: a cursor that a power loss moves back makes its consumer see rows again, as a crash does.
    advanceInbox: (request) =>
      write("advance the inbox", false, (transaction) => Result.succeed(ExtensionTables.advance(transaction, request))),
    forgetConsumer: (consumer) =>
      write("forget an inbox consumer", false, (transaction) =>
        Result.succeed(ExtensionTables.forget(transaction, consumer))
      ),

    quarantine: (limit) => read("read the quarantine", (reader) => QuarantineTable.newest(reader, limit)),
    quarantineCount: read("count the quarantine", QuarantineTable.count)
  })
})

/** Sync state in the database of a {@link SqliteClient.SqliteClient} that has been migrated (`SqliteStores.layer`). */
export const layer: Layer.Layer<SyncStore.SyncStore, never, SqliteClient.SqliteClient> = Layer.effect(
  SyncStore.SyncStore,
  make
)
