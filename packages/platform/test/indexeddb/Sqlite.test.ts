import { assert, describe, it } from "@effect/vitest"
import { SyncStore } from "@twinloop/core"
import { Effect } from "effect"
import type { Layer, Scope } from "effect"
import { DatabaseSync } from "node:sqlite"
import type { RecordReader, Row } from "../../src/crypto/indexeddb/index.ts"
import { own, storesAt, temporaryFile } from "../SqliteKit.ts"
import { Device, KeyServer } from "./CryptoKit.ts"
import { instanceOver, open, result, walk, write } from "./IndexedDbKit.ts"
import type { IdbDatabase } from "./IndexedDbKit.ts"

const behindEverything = Uint8Array.of(0xff)

/** Reads the rows of the stores' own table with a connection of its own. */
const readerOf = (filename: string): Effect.Effect<RecordReader, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => new DatabaseSync(filename, { readOnly: true })),
      (db) => Effect.sync(() => db.close())
    ),
    makeReader
  )

const makeReader = (db: DatabaseSync): RecordReader => {
  const where = "FROM crypto_record WHERE collection = ? AND key >= ? AND key < ?"
  const get = db.prepare("SELECT value FROM crypto_record WHERE collection = ? AND key = ?")
  const up = db.prepare(`SELECT key, value ${where} ORDER BY key LIMIT ?`)
  const down = db.prepare(`SELECT key, value ${where} ORDER BY key DESC LIMIT ?`)
  const count = db.prepare(`SELECT COUNT(*) AS count ${where}`)
  return {
    get: (collection, key) => get.get(collection, key)?.["value"] as Uint8Array | undefined,
    range: (collection, lower, upper, { descending, limit }) => {
      const rows = (descending ? down : up).all(collection, lower, upper ?? behindEverything, limit)
      return rows as unknown as ReadonlyArray<Row>
    },
    count: (collection, lower, upper) => Number(count.get(collection, lower, upper ?? behindEverything)?.["count"] ?? 0)
  }
}

const inStores = <A, E>(
  filename: string,
  effect: Effect.Effect<A, E, Layer.Success<ReturnType<typeof storesAt>> | Scope.Scope>
) => Effect.provide(effect, storesAt(filename))

describe("IndexedDb over SQLite", () => {
  it.effect("has in the table what a fenced commit wrote, in every order", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      yield* inStores(
        filename,
        Effect.gen(function* () {
          const fence = yield* own("one")
          const store = yield* SyncStore.SyncStore
          const instance = instanceOver(yield* readerOf(filename))
          const numbers = Array.from({ length: 200 }, (_, number) => number - 100)
          const database = yield* Effect.promise(() =>
            open(instance.indexedDB, "app", 1, (database: IdbDatabase) => {
              database.createObjectStore("numbers").createIndex("half", "half")
            })
          )
          yield* Effect.promise(() =>
            write(database, "numbers", (transaction) => {
              for (const number of numbers) {
                transaction.objectStore("numbers").put({ half: Math.floor(number / 2) }, number)
              }
            })
          )
          yield* store.commitCrypto(fence, { crypto: instance.writes() })
          instance.committed()

          const again = instanceOver(yield* readerOf(filename))
          const reopened = yield* Effect.promise(() => open(again.indexedDB, "app"))
          const objects = () => reopened.transaction("numbers").objectStore("numbers")
          assert.deepStrictEqual(yield* Effect.promise(() => result(objects().getAllKeys())), numbers)
          assert.strictEqual(yield* Effect.promise(() => result(objects().count(again.KeyRange.bound(-3, 5)))), 9)
          const walked = yield* Effect.promise(() => walk(objects().index("half").openCursor(null, "prev")))
          assert.deepStrictEqual(
            walked.map(([, primary]) => primary),
            numbers.toReversed()
          )
        })
      )
    })
  )

  it.effect("keeps a device of the crypto engine, and loses nothing with a process that dies before it commits", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      yield* inStores(
        filename,
        Effect.gen(function* () {
          const fence = yield* own("one")
          const store = yield* SyncStore.SyncStore
          const server = new KeyServer()
          const first = instanceOver(yield* readerOf(filename))
          const bob = yield* Effect.promise(() => Device.open(server, "@bob:hs", "BOB", first))
          const alice = yield* Effect.promise(() => Device.open(server, "@alice:hs", "ALICE"))
          yield* Effect.promise(() => bob.pump().then(() => alice.pump()))
          yield* Effect.promise(() => alice.track("@bob:hs").then(() => bob.track("@alice:hs")))
          yield* store.commitCrypto(fence, { crypto: first.writes() })
          first.committed()
          const event = yield* Effect.promise(() => alice.say("!room:hs", "@bob:hs", "hello"))
          const messages = server.take("@bob:hs", "BOB")

          // It has decrypted them, and dies: nothing of that is in the table.
          server.give("@bob:hs", "BOB", messages)
          assert.deepStrictEqual(yield* Effect.promise(() => bob.receive()), [0])
          assert.isTrue(first.hasWrites())

          // So the next one gets the same messages, and can decrypt them.
          server.give("@bob:hs", "BOB", messages)
          const second = instanceOver(yield* readerOf(filename))
          const next = yield* Effect.promise(() => Device.open(server, "@bob:hs", "BOB", second))
          assert.deepStrictEqual(yield* Effect.promise(() => next.receive()), [0])
          yield* store.commitCrypto(fence, { crypto: second.writes() })
          second.committed()
          assert.strictEqual(yield* Effect.promise(() => next.read(event)), "hello")
        })
      )
    })
  )
})
