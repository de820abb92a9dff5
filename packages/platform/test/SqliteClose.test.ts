import { assert, describe, it } from "@effect/vitest"
import { LeaseStore, SyncConfig, SyncStore } from "@twinloop/core"
import { Context, Deferred, Effect, Exit, Fiber, Layer, Scope } from "effect"
import { Reactivity } from "effect/reactivity"
import { SqlError } from "effect/sql"
import { TestClock } from "effect/testing"
import { existsSync } from "node:fs"
import * as SqliteClient from "../src/sqlite/SqliteClient.ts"
import { commit, own, storesAt, temporaryFile } from "./SqliteKit.ts"

/** A client that is closed by hand. */
const openClient = Effect.fnUntraced(function* (filename: string) {
  const scope = yield* Scope.make()
  yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
  const client = yield* SqliteClient.make({ filename }).pipe(Scope.provide(scope), Effect.provide(Reactivity.layer))
  return { client, close: Scope.close(scope, Exit.void) }
})

/** A client with an open transaction that has written a row, and goes on when it is told to. */
const writing = Effect.gen(function* () {
  const filename = yield* temporaryFile
  const { client, close } = yield* openClient(filename)
  yield* client`CREATE TABLE item (value INTEGER)`
  const written = yield* Deferred.make<void>()
  const goOn = yield* Deferred.make<void>()
  const transaction = yield* client`INSERT INTO item VALUES (1)`.pipe(
    Effect.andThen(Deferred.succeed(written, undefined)),
    Effect.andThen(Deferred.await(goOn)),
    Effect.andThen(client`INSERT INTO item VALUES (2)`),
    client.withTransaction,
    Effect.exit,
    Effect.forkChild
  )
  yield* Deferred.await(written)
  const stored = Effect.gen(function* () {
    const { client } = yield* openClient(filename)
    return yield* client<{ value: number }>`SELECT value FROM item ORDER BY value`
  })
  return { client, close, goOn: Deferred.succeed(goOn, undefined), transaction, stored }
})

const settle = TestClock.adjust(0)

describe("closing a database", () => {
  it.effect("waits for the transaction that is running, which commits", () =>
    Effect.gen(function* () {
      const { close, goOn, stored, transaction } = yield* writing
      const closing = yield* Effect.forkChild(close)
      yield* TestClock.adjust(SyncConfig.defaults.storeBusyMillis - 1)
      assert.isUndefined(closing.pollUnsafe())
      yield* goOn
      yield* Fiber.join(closing)
      assert.isTrue(Exit.isSuccess(yield* Fiber.join(transaction)))
      assert.deepStrictEqual(yield* stored, [{ value: 1 }, { value: 2 }])
    })
  )

  it.effect("I10: waits for storeBusyMillis at most, and leaves nothing of a transaction that goes on longer", () =>
    Effect.gen(function* () {
      const { close, goOn, stored, transaction } = yield* writing
      const closing = yield* Effect.forkChild(close)
      yield* settle
      yield* TestClock.adjust(SyncConfig.defaults.storeBusyMillis)
      yield* Fiber.join(closing)
      assert.deepStrictEqual(yield* stored, [])
      yield* goOn
      assert.isTrue(Exit.isFailure(yield* Fiber.join(transaction)))
      assert.deepStrictEqual(yield* stored, [])
    })
  )

  it.effect("is done once, however often it is asked for, and what comes later fails with a typed error", () =>
    Effect.gen(function* () {
      const { client, close } = yield* openClient(yield* temporaryFile)
      yield* Effect.all([close, close], { concurrency: "unbounded" })
      yield* close
      const asked = [
        client`SELECT 1`,
        client.withTransaction(client`SELECT 1`),
        client.readSync((reader) => reader.get("SELECT 1"))
      ]
      for (const one of asked) {
        const error = yield* Effect.flip<unknown, SqlError.SqlError, never>(one)
        assert.isTrue(SqlError.isSqlError(error))
      }
    })
  )

  it.effect(
    "leaves one file with everything in it, and the stores go on when it is opened again, time after time",
    () =>
      Effect.gen(function* () {
        const filename = yield* temporaryFile
        for (let cycle = 0; cycle < 5; cycle++) {
          const scope = yield* Scope.make()
          const stores = yield* Layer.buildWithScope(storesAt(filename), scope)
          const store = Context.get(stores, SyncStore.SyncStore)
          const fence = yield* Effect.provideService(
            own(`holder-${cycle}`, cycle),
            LeaseStore,
            Context.get(stores, LeaseStore)
          )
          const { since } = yield* store.extensionPosition
          yield* store.commitExtension(fence, {
            ...commit(`s${cycle}`, [cycle]),
            ...(since === undefined ? {} : { sentSince: since })
          })
          yield* Scope.close(scope, Exit.void)
          assert.strictEqual((yield* Effect.flip(store.extensionPosition))._tag, "StoreError")
          assert.isFalse(existsSync(`${filename}-wal`))
        }
        const stores = yield* Layer.build(storesAt(filename))
        const rows = yield* Context.get(stores, SyncStore.SyncStore).readInbox({ after: 0, limit: 10 })
        assert.deepStrictEqual(
          rows.map(({ event }) => event.body),
          [0, 1, 2, 3, 4]
        )
      })
  )
})
