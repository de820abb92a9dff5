import { assert, describe, it } from "@effect/vitest"
import { LeaseStore, SyncStore } from "@twinloop/core"
import { leaseStoreContract, syncStoreContract } from "@twinloop/core/testing"
import { Effect, Exit, Layer, Scope } from "effect"
import { SqlClient } from "effect/sql"
import * as fc from "fast-check"
import { SqliteStores } from "../src/sqlite/index.ts"
import { commit, own, storesAt, temporaryFile, temporaryStores } from "./SqliteKit.ts"

leaseStoreContract("SqliteLeaseStore", temporaryStores)
syncStoreContract("SqliteSyncStore", temporaryStores)

const cryptoRows = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql`SELECT collection, key, value FROM crypto_record ORDER BY collection, key`.values
)

describe("SqliteStores", () => {
  it.effect("keeps everything over a restart", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      const first = yield* Effect.provide(
        Effect.gen(function* () {
          const store = yield* SyncStore.SyncStore
          return yield* store.commitExtension(yield* own("a"), commit("s1", [1, 2]))
        }),
        storesAt(filename)
      )
      yield* Effect.provide(
        Effect.gen(function* () {
          const store = yield* SyncStore.SyncStore
          assert.deepStrictEqual(yield* store.extensionPosition, { since: "s1" })
          assert.deepStrictEqual(yield* store.readInbox({ after: 0, limit: 10 }), first)
          const leases = yield* LeaseStore
          assert.isTrue(yield* leases.holds({ name: "stream", holder: "a", generation: 1 }))
        }),
        storesAt(filename)
      )
    })
  )

  it.effect("I1: refuses the stale owner whichever connection its commit comes through", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      const scope = yield* Scope.Scope
      const [one, other] = yield* Effect.all([
        Layer.buildWithScope(storesAt(filename), scope),
        Layer.buildWithScope(storesAt(filename), scope)
      ])
      const stale = yield* Effect.provide(own("a"), one)
      const owner = yield* Effect.provide(own("b", 1), other)
      const late = Effect.flatMap(SyncStore.SyncStore, (store) => store.commitExtension(stale, commit("s1", [1])))
      const error = yield* Effect.flip(Effect.provide(late, one))
      assert.strictEqual(error.reason._tag, "StaleGeneration")
      const rows = yield* Effect.provide(
        Effect.flatMap(SyncStore.SyncStore, (store) => store.commitExtension(owner, commit("s1", [1]))),
        other
      )
      assert.deepStrictEqual(
        rows.map((row) => row.sequence),
        [1]
      )
    })
  )

  it.effect("I2: writes and deletes crypto records with the batch that they belong to", () =>
    Effect.gen(function* () {
      const store = yield* SyncStore.SyncStore
      const fence = yield* own("a")
      const record = (key: number, value: Uint8Array | null) => ({ collection: "c", key: Uint8Array.of(key), value })
      const crypto = [record(1, Uint8Array.of(7)), record(2, Uint8Array.of()), record(2, Uint8Array.of(8, 9))]
      yield* store.commitExtension(fence, { ...commit("s1", []), crypto })
      const deleting = { ...commit("s2", []), crypto: [record(1, null)] }
      yield* Effect.flip(store.commitExtension(fence, deleting))
      assert.strictEqual((yield* cryptoRows).length, 2)

      yield* store.commitExtension(fence, { ...deleting, sentSince: "s1" })
      assert.deepStrictEqual(yield* cryptoRows, [["c", Uint8Array.of(2), Uint8Array.of(8, 9)]])
    }).pipe(Effect.provide(temporaryStores))
  )

  it.effect("I2: leaves nothing of a batch when the database refuses its last row", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const store = yield* SyncStore.SyncStore
      const fence = yield* own("a")
      yield* sql`CREATE TRIGGER refuse BEFORE INSERT ON extension_position BEGIN SELECT RAISE(ABORT, 'refused'); END`
      const crypto = [{ collection: "c", key: Uint8Array.of(1), value: Uint8Array.of(1) }]
      assert.isTrue(Exit.isFailure(yield* Effect.exit(store.commitExtension(fence, { ...commit("s1", [1]), crypto }))))
      assert.deepStrictEqual(yield* store.readInbox({ after: 0, limit: 10 }), [])
      assert.deepStrictEqual(yield* cryptoRows, [])

      yield* sql`DROP TRIGGER refuse`
      const [row] = yield* store.commitExtension(fence, commit("s1", [1]))
      assert.strictEqual(row?.sequence, 1)
    }).pipe(Effect.provide(temporaryStores))
  )

  it.effect("syncs fenced commits to disk, and room data not", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const store = yield* SyncStore.SyncStore
      const synchronous = sql`PRAGMA synchronous`.values
      const fence = yield* own("a")
      yield* store.commitExtension(fence, commit("s1", []))
      assert.deepStrictEqual(yield* synchronous, [[2]])
      yield* store.commitMain({ connId: "m", pos: "p", lists: {}, rooms: [], accountData: [], quarantined: [] })
      assert.deepStrictEqual(yield* synchronous, [[1]])
    }).pipe(Effect.provide(temporaryStores))
  )

  it.effect("gives every JSON value back as it was", () =>
    Effect.gen(function* () {
      const store = yield* SyncStore.SyncStore
      const fence = yield* own("a")
      const values = fc.sample(fc.jsonValue({ stringUnit: "binary" }), { numRuns: 200, seed: 7 })
      const rows = yield* store.commitExtension(fence, commit("s1", values))
      // JSON has one zero, so the comparison is with what JSON says of the values.
      const expected = JSON.parse(JSON.stringify(rows)) as typeof rows
      assert.deepStrictEqual(yield* store.readInbox({ after: 0, limit: 1_000 }), expected)
    }).pipe(Effect.provide(temporaryStores))
  )

  it.effect("serves a database in memory", () =>
    Effect.gen(function* () {
      const store = yield* SyncStore.SyncStore
      yield* store.commitExtension(yield* own("a"), commit("s1", [1]))
      assert.deepStrictEqual(yield* store.extensionPosition, { since: "s1" })
    }).pipe(Effect.provide(SqliteStores.layer({ filename: ":memory:" })))
  )
})
