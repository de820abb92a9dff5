import { assert, describe, it } from "@effect/vitest"
import type { CryptoEngine, EventDecryptor, MatrixEvent } from "@twinloop/core"
import { Effect } from "effect"
import * as Kit from "./CryptoKit.ts"

/** Alice's and Bob's first devices, who know one another, in one encrypted room. */
const couple = Effect.gen(function* () {
  const sim = yield* Kit.openHomeserver
  const alice = yield* Kit.openDevice(sim, "alice", "ALICE")
  const bob = yield* Kit.openDevice(sim, "bob", "BOB")
  const room = yield* Kit.openRoom(sim, alice, bob)
  for (const one of [alice, bob]) yield* Kit.change(one, (engine, fence) => engine.track(fence, room.users))
  yield* Kit.settle(alice, bob)
  return { sim, alice, bob, room }
})

const bootstrap = (process: Kit.Process, reset = false) =>
  Kit.change(process, (engine, fence) => engine.bootstrapCrossSigning(fence, { reset }))

const kindsOf = (requests: ReadonlyArray<CryptoEngine.OutgoingRequest>) =>
  requests.map(({ request }) => (request._tag === "Keys" ? request.keys.kind : request._tag))

const masterKeyOf = (sim: Kit.Sim, process: Kit.Process) =>
  sim.model((state) => state.users.get(process.session.userId)!.crossSigning.master)

const shieldOf = (process: Kit.Process, { roomId }: Kit.Room, event: MatrixEvent.TimelineEvent) =>
  Effect.map(process.reader.decrypt(roomId, event), (answer): EventDecryptor.Shield | undefined =>
    answer._tag === "Decrypted" ? answer.shield : undefined
  )

const setTrust = (process: Kit.Process, of: Kit.Process, trust: CryptoEngine.LocalTrust) =>
  Kit.change(process, (engine, fence) =>
    engine.setLocalTrust(fence, { userId: of.session.userId, deviceId: of.session.deviceId, trust })
  )

const deviceOf = (process: Kit.Process, of: Kit.Process) =>
  Effect.map(process.reader.devices(of.session.userId), (devices) =>
    devices.find(({ deviceId }) => deviceId === of.session.deviceId)
  )

describe("Cross-signing", () => {
  it.live("is made, published, and verifies the own device", () =>
    Effect.gen(function* () {
      const { alice, sim } = yield* couple
      assert.deepInclude(yield* alice.reader.status, {
        crossSigning: { master: false, selfSigning: false, userSigning: false },
        isDeviceVerified: false
      })
      const requests = yield* bootstrap(alice)
      assert.deepStrictEqual(kindsOf(requests), ["deviceSigning", "signatures", "query"])
      yield* Kit.postAll(alice, requests)
      yield* Kit.settle(alice)
      assert.isDefined(yield* masterKeyOf(sim, alice))
      assert.deepInclude(yield* alice.reader.status, {
        crossSigning: { master: true, selfSigning: true, userSigning: true },
        isDeviceVerified: true
      })
      yield* alice.engine.reload(alice.fence)
      assert.isTrue((yield* alice.reader.status).isDeviceVerified)
    })
  )

  it.live("is published again until it was, and makes no other keys for that", () =>
    Effect.gen(function* () {
      const { alice, sim } = yield* couple
      const [lost] = yield* bootstrap(alice)
      // The process ends before anything was sent.
      yield* alice.engine.reload(alice.fence)
      const requests = yield* bootstrap(alice)
      assert.deepStrictEqual(kindsOf(requests), ["deviceSigning", "signatures", "query"])
      assert.deepStrictEqual(requests[0], lost)
      yield* Kit.postAll(alice, requests)
      yield* Kit.settle(alice)
      const master = yield* masterKeyOf(sim, alice)
      yield* Kit.postAll(alice, yield* bootstrap(alice))
      assert.deepStrictEqual(yield* masterKeyOf(sim, alice), master)
    })
  )

  it.live("is not replaced by a device that only lacks the keys, unless it is told to", () =>
    Effect.gen(function* () {
      const { alice, sim } = yield* couple
      yield* Kit.postAll(alice, yield* bootstrap(alice))
      const master = yield* masterKeyOf(sim, alice)
      const second = yield* Kit.openDevice(sim, "alice", "ALICE2")
      const before = yield* Kit.rows(second)
      const refused = yield* Effect.flip(bootstrap(second))
      assert.strictEqual(refused.reason._tag, "CryptoFailed")
      assert.include(refused.message, "reset")
      yield* second.engine.discard
      assert.deepStrictEqual(yield* Kit.rows(second), before)
      assert.deepStrictEqual(yield* masterKeyOf(sim, alice), master)
      yield* second.engine.reload(second.fence)
      assert.deepStrictEqual(kindsOf(yield* bootstrap(second, true)), ["deviceSigning", "signatures", "query"])
    })
  )

  it.live("is replaced by a reset, and others see that it was", () =>
    Effect.gen(function* () {
      const { alice, bob, room, sim } = yield* couple
      yield* Kit.postAll(bob, yield* bootstrap(bob))
      const event = yield* Kit.send(sim, bob, room, "hello")
      yield* Kit.settle(alice)
      const [first] = yield* bootstrap(bob)
      const [second] = yield* bootstrap(bob, true)
      assert.notDeepEqual(second, first)
      // The homeserver asks who this is before it takes other keys; here nobody asks.
      yield* sim.model((state) => delete state.users.get(bob.session.userId)!.crossSigning.master)
      yield* Kit.postAll(bob, yield* bootstrap(bob))
      yield* Kit.settle(bob, alice)
      assert.isTrue((yield* bob.reader.status).isDeviceVerified)
      assert.isTrue((yield* deviceOf(alice, bob))?.isCrossSigned)
      assert.deepInclude(yield* shieldOf(alice, room, event), { color: "none", code: "UnverifiedIdentity" })
    })
  )
})

describe("Shields", () => {
  it.live("say that a device isn't signed by its owner, until it is and its keys were asked for", () =>
    Effect.gen(function* () {
      const { alice, bob, room, sim } = yield* couple
      const event = yield* Kit.send(sim, bob, room, "hello")
      yield* Kit.settle(alice)
      const unsigned = { color: "red", code: "UnsignedDevice" } as const
      assert.deepInclude(yield* shieldOf(alice, room, event), unsigned)
      yield* Kit.postAll(bob, yield* bootstrap(bob))
      assert.deepInclude(yield* shieldOf(alice, room, event), unsigned)
      const { last } = yield* alice.store.encryptionNewsKept
      yield* Kit.settle(alice)
      const news = yield* alice.store.encryptionNews({ after: last, limit: 10 })
      assert.deepInclude(
        news.map((entry) => entry.news),
        { _tag: "Devices", userId: bob.session.userId }
      )
      assert.deepInclude(yield* shieldOf(alice, room, event), { color: "none", code: "UnverifiedIdentity" })
      const next = yield* Kit.send(sim, bob, room, "next", { rotationPeriodMessages: 1 })
      yield* Kit.settle(alice)
      assert.deepInclude(yield* shieldOf(alice, room, next), { color: "none", code: "UnverifiedIdentity" })
    })
  )

  it.live("say nothing of a message of one's own verified device", () =>
    Effect.gen(function* () {
      const { alice, room, sim } = yield* couple
      yield* Kit.postAll(alice, yield* bootstrap(alice))
      yield* Kit.settle(alice)
      const event = yield* Kit.send(sim, alice, room, "hello")
      assert.deepStrictEqual(yield* shieldOf(alice, room, event), { color: "none" })
    })
  )

  it.live("say that the event names another sender than the key's owner", () =>
    Effect.gen(function* () {
      const { alice, bob, room, sim } = yield* couple
      const event = yield* Kit.send(sim, bob, room, "hello")
      yield* Kit.settle(alice)
      const forged = { ...event, sender: alice.session.userId }
      assert.deepInclude(yield* shieldOf(alice, room, forged), { color: "red", code: "MismatchedSender" })
    })
  )

  it.live("say that the device is unknown when it says nothing of itself and the homeserver doesn't either", () =>
    Effect.gen(function* () {
      const { alice, bob, room, sim } = yield* couple
      const stranger = yield* Kit.openDevice(sim, "bob", "GONE")
      const event = yield* Kit.send(sim, stranger, room, "hello")
      yield* Kit.logOut(sim, stranger)
      yield* Kit.settle(alice, bob)
      const shield = yield* shieldOf(alice, room, event)
      assert.strictEqual(shield?.color, "red")
      assert.include(["UnknownDevice", "UnsignedDevice"], shield?.code)
    })
  )
})

describe("Local trust", () => {
  it.live("is kept, seen by every process, and told", () =>
    Effect.gen(function* () {
      const { alice, bob, sim } = yield* couple
      const other = yield* Kit.openProcess(sim, "alice", "ALICE", { filename: alice.filename })
      assert.deepInclude(yield* deviceOf(other, bob), { isVerified: false, isBlocked: false })
      const { last } = yield* alice.store.encryptionNewsKept
      for (const [trust, isVerified, isBlocked] of [
        ["verified", true, false],
        ["blocked", false, true],
        ["unset", false, false]
      ] as const) {
        yield* setTrust(alice, bob, trust)
        yield* alice.engine.reload(alice.fence)
        for (const process of [alice, other])
          assert.deepInclude(yield* deviceOf(process, bob), { isVerified, isBlocked })
      }
      const news = yield* alice.store.encryptionNews({ after: last, limit: 10 })
      assert.deepStrictEqual(
        news.map((entry) => entry.news),
        [1, 2, 3].map(() => ({ _tag: "Devices" as const, userId: bob.session.userId }))
      )
    })
  )

  it.live("decides who gets a room's key: nobody who is blocked, and who is verified where only such do", () =>
    Effect.gen(function* () {
      const { alice, bob, room, sim } = yield* couple
      yield* setTrust(alice, bob, "blocked")
      const secret = yield* Kit.send(sim, alice, room, "secret")
      yield* Kit.settle(bob)
      const answer = yield* bob.reader.decrypt(room.roomId, secret)
      assert.deepInclude(answer, { _tag: "Undecryptable", reason: "Withheld" })
      assert.strictEqual(answer._tag === "Undecryptable" ? answer.withheld?.code : "", "m.blacklisted")
      yield* setTrust(alice, bob, "verified")
      const open = yield* Kit.send(sim, alice, room, "open", { sharing: "trusted", rotationPeriodMessages: 1 })
      yield* Kit.settle(bob)
      assert.strictEqual(yield* Kit.read(bob, room, open), "open")
      // Blocked again: the key that it has is used no more.
      yield* setTrust(alice, bob, "blocked")
      const closed = yield* Kit.send(sim, alice, room, "closed")
      assert.notStrictEqual(closed.content.session_id, open.content.session_id)
      yield* Kit.settle(bob)
      assert.strictEqual(yield* Kit.read(bob, room, closed), "Withheld")
    })
  )

  it.live("can't be set for a device that isn't known", () =>
    Effect.gen(function* () {
      const { alice } = yield* couple
      for (const userId of ["@nobody:localhost", "not a user id", ""]) {
        const set = Kit.change(alice, (engine, fence) =>
          engine.setLocalTrust(fence, { userId, deviceId: "X", trust: "verified" })
        )
        const error = yield* Effect.flip(set)
        assert.strictEqual(error.reason._tag, "CryptoFailed")
        assert.include(error.message, "track")
      }
    })
  )
})
