import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Fence } from "../src/lease/Lease.ts"
import type { MatrixEvent } from "../src/matrix/MatrixEvent.ts"
import { CryptoEngine } from "../src/sync/CryptoEngine.ts"
import * as PassThroughCrypto from "../src/sync/PassThroughCrypto.ts"
import type { CryptoWrite } from "../src/sync/SyncStore.ts"
import { cryptoEngineContract } from "../src/testing/CryptoEngineContract.ts"

const fence: Fence = { name: "stream", holder: "main#1", generation: 1 }

const events: ReadonlyArray<MatrixEvent> = [
  { type: "m.room.encrypted", sender: "@a:x", content: { algorithm: "m.olm.v1.curve25519-aes-sha2" } },
  { type: "org.example.odd", sender: "@b:x", content: { deep: [{ a: null }] }, unknown: "kept" },
  { type: "m.room_key_request", sender: "@a:x", content: {} }
]

cryptoEngineContract("PassThroughCrypto", {
  clock: "test",
  open: Effect.gen(function* () {
    const durable: Array<CryptoWrite> = []
    return {
      engine: yield* CryptoEngine,
      commit: (writes: ReadonlyArray<CryptoWrite>) => Effect.sync(() => void durable.push(...writes)),
      stored: Effect.sync(() => [...durable])
    }
  }).pipe(Effect.provide(PassThroughCrypto.layer))
})

describe("PassThroughCrypto", () => {
  it.effect("I7: puts every event into the inbox as it came, in order, and says which can't be read", () =>
    Effect.gen(function* () {
      const engine = yield* CryptoEngine
      yield* engine.reload(fence)
      const received = yield* engine.receive(fence, { toDevice: events, fresh: true })
      assert.deepStrictEqual(received, {
        value: {
          inbox: [
            { type: "m.room.encrypted", sender: "@a:x", event: events[0]!, encryption: "undecryptable" },
            { type: "org.example.odd", sender: "@b:x", event: events[1]!, encryption: "none" },
            { type: "m.room_key_request", sender: "@a:x", event: events[2]!, encryption: "none" }
          ],
          quarantined: []
        },
        writes: [],
        news: []
      })
      yield* engine.committed
    }).pipe(Effect.provide(PassThroughCrypto.layer))
  )

  it.effect("keeps nothing: asks for nothing to be sent, and gives the same after a discard", () =>
    Effect.gen(function* () {
      const engine = yield* CryptoEngine
      const batch = { toDevice: events, e2ee: { oneTimeKeysCount: { signed_curve25519: 0 } }, fresh: false }
      const received = yield* engine.receive(fence, batch)
      assert.deepStrictEqual(yield* engine.outgoing(fence), { value: [], writes: [], news: [] })
      yield* engine.discard
      yield* engine.reload(fence)
      assert.deepStrictEqual(yield* engine.receive(fence, batch), received)
    }).pipe(Effect.provide(PassThroughCrypto.layer))
  )
})
