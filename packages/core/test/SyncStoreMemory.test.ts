import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import { LeaseStore } from "../src/lease/LeaseStore.ts"
import { layerMemory } from "../src/lease/LeaseStoreMemory.ts"
import { StoreBusy } from "../src/sync/StoreError.ts"
import { SyncStore } from "../src/sync/SyncStore.ts"
import type { ExtensionCommit } from "../src/sync/SyncStore.ts"
import { syncStoreContract } from "../src/testing/SyncStoreContract.ts"
import * as SyncStoreMemory from "../src/testing/SyncStoreMemory.ts"

const layer = SyncStoreMemory.layer.pipe(Layer.provideMerge(layerMemory))

syncStoreContract("SyncStoreMemory", layer)

const busy = new StoreBusy({ message: "somebody else is writing" })
const commit: ExtensionCommit = { position: { since: "s1" }, inbox: [], crypto: [], quarantined: [] }

const setUp = Effect.gen(function* () {
  const store = yield* SyncStore
  const control = yield* SyncStoreMemory.SyncStoreMemory
  const leases = yield* LeaseStore
  const take = (holder: string, nowMillis: number) =>
    leases.take({ name: "stream", permits: 1, count: 1, holder, peer: {}, nowMillis, leaseMillis: 1_000 })
  yield* take("a", 0)
  return { store, control, take, fence: { name: "stream", holder: "a", generation: 1 } }
})

describe("SyncStoreMemory", () => {
  it.effect("fails the calls it is told to, in order, with nothing written", () =>
    Effect.gen(function* () {
      const { store, control, fence } = yield* setUp
      yield* control.failNext("commitExtension", busy)
      yield* control.failNext("commitExtension", busy)
      for (const _ of [1, 2]) {
        const error = yield* Effect.flip(store.commitExtension(fence, commit))
        assert.strictEqual(error.reason, busy)
        assert.strictEqual(error.message, "commitExtension: somebody else is writing")
      }
      assert.deepStrictEqual(yield* store.extensionPosition, {})
      yield* store.commitExtension(fence, commit)
    }).pipe(Effect.provide(layer))
  )

  it.effect("I2: loses only the answer of a commit that fails after it", () =>
    Effect.gen(function* () {
      const { store, control, fence } = yield* setUp
      yield* control.failNext("commitExtension", busy, "after")
      yield* Effect.flip(store.commitExtension(fence, commit))
      assert.deepStrictEqual(yield* store.extensionPosition, { since: "s1" })
      assert.strictEqual((yield* Effect.flip(store.commitExtension(fence, commit))).reason._tag, "Moved")
    }).pipe(Effect.provide(layer))
  )

  it.effect("I1: refuses a commit whose owner changes while it waits", () =>
    Effect.gen(function* () {
      const { store, control, take, fence } = yield* setUp
      yield* control.delayNext("commitExtension", 5_000)
      const late = yield* Effect.forkChild(Effect.flip(store.commitExtension(fence, commit)))
      yield* TestClock.adjust("4 seconds")
      yield* take("b", 4_000)
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(late)).reason._tag, "StaleGeneration")
    }).pipe(Effect.provide(layer))
  )

  it.effect("writes nothing for a commit that is interrupted before its transaction", () =>
    Effect.gen(function* () {
      const { store, control, fence } = yield* setUp
      yield* control.delayNext("commitExtension", 5_000)
      const interrupted = yield* Effect.forkChild(store.commitExtension(fence, commit))
      yield* TestClock.adjust("1 second")
      yield* Fiber.interrupt(interrupted)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* store.extensionPosition, {})
    }).pipe(Effect.provide(layer))
  )

  it.effect("I2: shows the crypto records that a commit wrote and deleted", () =>
    Effect.gen(function* () {
      const { store, control, fence } = yield* setUp
      const record = (key: number, value: Uint8Array | null) => ({
        collection: "sessions",
        key: Uint8Array.of(key),
        value
      })
      const crypto = [record(1, Uint8Array.of(1)), record(2, Uint8Array.of(2)), record(1, null)]
      yield* store.commitExtension(fence, { ...commit, crypto })
      assert.deepStrictEqual(yield* control.cryptoRecords, [
        { collection: "sessions", key: Uint8Array.of(2), value: Uint8Array.of(2) }
      ])
    }).pipe(Effect.provide(layer))
  )
})
