import { assert, describe, it } from "@effect/vitest"
import { SyncStore } from "@twinloop/core"
import { Effect } from "effect"
import * as ExtensionTables from "../src/sqlite/ExtensionTables.ts"
import * as SqliteClient from "../src/sqlite/SqliteClient.ts"
import { commit, own, temporaryStores } from "./SqliteKit.ts"

const rows = 12_000

describe("An inbox that nobody has read for long", () => {
  it.effect("I10: is counted to its end, without reading what is in it", () =>
    Effect.gen(function* () {
      const store = yield* SyncStore.SyncStore
      const client = yield* SqliteClient.SqliteClient
      yield* store.commitExtension(
        yield* own("a"),
        commit(
          "s1",
          Array.from({ length: rows }, (_, number) => number)
        )
      )
      const broken = client.transactionSync({ durable: false }, (transaction) => {
        transaction.run("UPDATE inbox SET event = 'not JSON'")
        return ExtensionTables.expire(transaction, "exclusive", { name: "", holder: "", generation: 0 })
      })
      yield* broken
      const count = client.readSync((reader) => ExtensionTables.countUnread(reader, "run-main"))
      assert.strictEqual(yield* count, rows)
      yield* store.advanceInbox({ consumer: "run-main", sequence: rows - 2, keep: 0 })
      assert.strictEqual(yield* count, 2)
    }).pipe(Effect.provide(temporaryStores))
  )
})
