import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Kit from "./CryptoKit.ts"

/** How many rows the process has ever changed through its connection. */
const changesOf = ({ client }: Kit.Process) =>
  Effect.sync(() => client.now.get<{ changes: number }>(`SELECT total_changes() AS changes`)?.changes)

/** Alice, Bob's owner and a process of Bob's device that only reads. */
const scene = Effect.gen(function* () {
  const sim = yield* Kit.openHomeserver
  const alice = yield* Kit.openDevice(sim, "alice", "ALICE")
  const bob = yield* Kit.openDevice(sim, "bob", "BOB")
  const reader = yield* Kit.openProcess(sim, "bob", "BOB", { filename: bob.filename })
  return { sim, alice, bob, reader, room: yield* Kit.openRoom(sim, alice, bob) }
})

describe("OlmReader", () => {
  it.live("I1: writes nothing, whatever it reads and whatever it would like to note down", () =>
    Effect.gen(function* () {
      const { alice, bob, reader, room, sim } = yield* scene
      const lost = yield* Kit.send(sim, alice, room, "lost")
      const changes = yield* changesOf(reader)
      const reads = (body: Effect.Effect<unknown, Kit.Failure>) =>
        Effect.gen(function* () {
          const before = yield* Kit.rows(bob)
          const answer = yield* body
          assert.deepStrictEqual(yield* Kit.rows(bob), before)
          return answer
        })
      // A missing key: the machine of an owner would ask for it.
      assert.strictEqual(yield* reads(Kit.read(reader, room, lost)), "MissingRoomKey")
      yield* Kit.receive(bob)
      assert.strictEqual(yield* reads(Kit.read(reader, room, lost)), "lost")
      // A sender who is known better since: the machine of an owner would store that.
      yield* Kit.change(bob, (engine, fence) => engine.track(fence, room.users))
      const keys = yield* Kit.change(alice, (engine, fence) => engine.bootstrapCrossSigning(fence, { reset: false }))
      yield* Kit.postAll(alice, keys)
      yield* Kit.settle(alice, bob)
      for (let time = 0; time < 3; time++) {
        const answer = yield* reader.reader.decrypt(room.roomId, lost)
        assert.strictEqual(answer._tag === "Decrypted" ? answer.shield.code : "", "UnverifiedIdentity")
      }
      yield* reads(reader.reader.status)
      yield* reads(reader.reader.devices(alice.session.userId))
      assert.strictEqual(yield* changesOf(reader), changes)
    })
  )

  it.live("answers before there is a store, and sees the store once another process has made it", () =>
    Effect.gen(function* () {
      const sim = yield* Kit.openHomeserver
      const alice = yield* Kit.openDevice(sim, "alice", "ALICE")
      const bob = yield* Kit.openProcess(sim, "bob", "BOB")
      const reader = yield* Kit.openProcess(sim, "bob", "BOB", { filename: bob.filename })
      const room = yield* Kit.openRoom(sim, alice, bob)
      const early = yield* Kit.send(sim, alice, room, "early")
      assert.strictEqual(yield* Kit.read(reader, room, early), "MissingRoomKey")
      assert.deepStrictEqual(yield* reader.reader.devices(alice.session.userId), [])
      assert.deepStrictEqual(yield* reader.reader.status, {
        crossSigning: { master: false, selfSigning: false, userSigning: false },
        isDeviceVerified: false,
        roomKeys: 0,
        trackedUsers: 0
      })
      assert.deepStrictEqual(yield* Kit.rows(reader), [])
      yield* Kit.take(bob)
      // Made in memory, and committed with the first turn.
      assert.isUndefined((yield* reader.reader.status).deviceKeys)
      yield* Kit.settle(bob)
      assert.isDefined((yield* reader.reader.status).deviceKeys)
      yield* Kit.settle(alice)
      const late = yield* Kit.send(sim, alice, room, "late")
      yield* Kit.settle(bob)
      assert.strictEqual(yield* Kit.read(reader, room, late), "late")
    })
  )

  it.live(
    "I6: gets ready before there is a store, and again; reads what is committed afterwards, and writes nothing",
    () =>
      Effect.gen(function* () {
        const sim = yield* Kit.openHomeserver
        const alice = yield* Kit.openDevice(sim, "alice", "ALICE")
        const bob = yield* Kit.openProcess(sim, "bob", "BOB")
        const reader = yield* Kit.openProcess(sim, "bob", "BOB", { filename: bob.filename })
        const { prepare = Effect.die("nothing to load") } = reader.reader
        const changes = yield* changesOf(reader)
        yield* prepare
        yield* Kit.take(bob)
        yield* Kit.settle(bob)
        yield* Effect.all([prepare, prepare], { concurrency: 2 })
        const room = yield* Kit.openRoom(sim, alice, bob)
        const sent = yield* Kit.send(sim, alice, room, "sent")
        yield* Kit.receive(bob)
        assert.strictEqual(yield* Kit.read(reader, room, sent), "sent")
        assert.strictEqual(yield* changesOf(reader), changes)
      })
  )

  it.live("gives the status and the devices as they are committed, each time", () =>
    Effect.gen(function* () {
      const { alice, bob, reader, room, sim } = yield* scene
      const before = yield* reader.reader.status
      assert.deepInclude(before, { roomKeys: 0, trackedUsers: 1, isDeviceVerified: false })
      yield* Kit.send(sim, alice, room, "hello")
      yield* Kit.settle(bob)
      yield* Kit.change(bob, (engine, fence) => engine.track(fence, room.users))
      yield* Kit.settle(bob)
      const after = yield* reader.reader.status
      assert.deepInclude(after, { roomKeys: 1, trackedUsers: 2 })
      assert.deepStrictEqual(after.deviceKeys, before.deviceKeys)
      const [device] = yield* reader.reader.devices(alice.session.userId)
      assert.deepStrictEqual(device, {
        userId: alice.session.userId,
        deviceId: "ALICE",
        fingerprint: (yield* alice.reader.status).deviceKeys!.ed25519,
        isVerified: false,
        isCrossSigned: false,
        isBlocked: false
      })
      assert.deepStrictEqual((yield* reader.reader.status).deviceKeys, (yield* bob.reader.status).deviceKeys)
    })
  )

  it.live("takes any number of events at once, and answers each", () =>
    Effect.gen(function* () {
      const { alice, bob, reader, room, sim } = yield* scene
      const bodies = Array.from({ length: 30 }, (_, index) => `${index}`)
      const events = yield* Effect.forEach(bodies, (body) => Kit.send(sim, alice, room, body))
      yield* Kit.receive(bob)
      const answers = yield* Effect.forEach(events, (event) => Kit.read(reader, room, event), {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(answers, bodies)
    })
  )
})
