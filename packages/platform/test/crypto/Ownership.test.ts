import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Kit from "./CryptoKit.ts"

/** Alice, two processes of Bob's device over one file, and a room. */
const scene = Effect.gen(function* () {
  const sim = yield* Kit.openHomeserver
  const alice = yield* Kit.openDevice(sim, "alice", "ALICE")
  const first = yield* Kit.openDevice(sim, "bob", "BOB")
  const second = yield* Kit.openProcess(sim, "bob", "BOB", { filename: first.filename })
  return { sim, alice, first, second, room: yield* Kit.openRoom(sim, alice, first) }
})

/** Everything in the database but the lease. */
const everything = (process: Kit.Process) =>
  Effect.gen(function* () {
    return [
      yield* Kit.rows(process),
      yield* process.store.extensionPosition,
      yield* process.store.readInbox({ after: 0, limit: 1_000_000 }),
      yield* process.store.encryptionNewsKept,
      yield* process.store.quarantineCount
    ]
  })

describe("Ownership of the keys", () => {
  it.live(
    "I1: a commit under a stale fence is refused, nothing is written, and the new owner takes the same batch",
    () =>
      Effect.gen(function* () {
        const { alice, first, room, second, sim } = yield* scene
        const event = yield* Kit.send(sim, alice, room, "hello")
        const polled = yield* Kit.poll(first)
        const late = yield* Kit.absorb(first, polled)
        assert.isAbove(late.crypto.length, 0)
        yield* Kit.own(second)
        const before = yield* everything(second)
        const refused = yield* Effect.flip(first.store.commitExtension(first.fence, late))
        assert.strictEqual(refused.reason._tag, "StaleGeneration")
        yield* first.engine.discard
        assert.deepStrictEqual(yield* everything(second), before)
        assert.strictEqual(yield* Kit.read(second, room, event), "MissingRoomKey")

        yield* second.engine.reload(second.fence)
        const batch = yield* Kit.absorb(second, polled)
        assert.deepStrictEqual(batch.inbox, late.inbox)
        yield* Kit.commitBatch(second, batch)
        for (const process of [first, second]) assert.strictEqual(yield* Kit.read(process, room, event), "hello")
      })
  )

  it.live("I1: whatever a stale owner asks its engine for, nothing of it becomes durable", () =>
    Effect.gen(function* () {
      const { alice, first, room, second } = yield* scene
      yield* Kit.share(first, room)
      yield* Kit.own(second)
      const before = yield* everything(second)
      const steps: ReadonlyArray<Parameters<typeof Kit.change>[1]> = [
        (engine, fence) => engine.track(fence, ["@carol:example.org"]),
        (engine, fence) =>
          engine.setLocalTrust(fence, { userId: alice.session.userId, deviceId: "ALICE", trust: "verified" }),
        (engine, fence) => engine.encrypt(fence, { roomId: room.roomId, type: "t", content: {} }),
        (engine, fence) => engine.bootstrapCrossSigning(fence, { reset: true })
      ]
      for (const step of steps) {
        const refused = yield* Effect.flip(Kit.change(first, step))
        assert.strictEqual(refused.reason._tag, "StaleGeneration")
      }
      assert.deepStrictEqual(yield* everything(second), before)
    })
  )

  it.live(
    "I1: changes hands a hundred times, each time the one before wakes too late, and every message is read",
    () =>
      Effect.gen(function* () {
        const { alice, first, room, second, sim } = yield* scene
        let [owner, other] = [first, second]
        for (let turn = 0; turn < 100; turn++) {
          // A new key each time, and by a new session every tenth time, since that uses one of Bob's one-time keys up.
          const sender = turn % 10 === 0 ? yield* Kit.openDevice(sim, "alice", `ALICE${turn}`) : alice
          const event = yield* Kit.send(sim, sender, room, `${turn}`, { rotationPeriodMessages: 1 })
          const polled = yield* Kit.poll(owner)
          const late = yield* Kit.absorb(owner, polled)
          yield* Kit.take(other)
          yield* Kit.commitBatch(other, yield* Kit.absorb(other, polled))
          yield* Kit.flush(other)
          const refused = yield* Effect.flip(owner.store.commitExtension(owner.fence, late))
          assert.strictEqual(refused.reason._tag, "StaleGeneration")
          yield* owner.engine.discard
          for (const process of [owner, other]) assert.strictEqual(yield* Kit.read(process, room, event), `${turn}`)
          ;[owner, other] = [other, owner]
        }
        yield* Kit.settle(owner)
        // A one-time key that is uploaded with two values is refused by the homeserver.
        const uploads = (yield* sim.requests).filter(
          ({ operation, session }) => operation === "keys/upload" && session.deviceId === "BOB"
        )
        assert.isAbove(uploads.length, 10)
        for (const { outcome } of uploads) assert.strictEqual(outcome, "answered")
      }),
    { timeout: 120_000 }
  )
})
