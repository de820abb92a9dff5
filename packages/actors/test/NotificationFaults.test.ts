import { assert, describe, it } from "@effect/vitest"
import {
  CryptoError,
  HomeserverError,
  type NotificationClient,
  type NotificationItem,
  StoreError,
  SyncConfig
} from "@twinloop/core"
import { SimulatedCrypto } from "@twinloop/core/testing"
import { Clock, Effect, Exit, Fiber, Scope } from "effect"
import { say, startChat } from "./support/Chat.ts"
import { addRoom, BOB, isStreamFree, reading, says, setUp as setUpRoom, startNotifier } from "./support/Notifier.ts"
import { makeWorld, type World } from "../src/testing/Simulation.ts"
import { advance, settle } from "../src/testing/Time.ts"

const NOTIFICATIONS = "notifications"
const ENCRYPTION = "encryption"
const DEADLINE_MILLIS = 20_000
const SECRET = says("secret")

const hang = { _tag: "Hang" } as const
const fail = (reason: HomeserverError.HomeserverErrorReason) => ({ _tag: "Fail", reason }) as const
const onFire = fail(new HomeserverError.ServerError({ message: "on fire", status: 500 }))
const busy = new StoreError.StoreBusy({ message: "database is locked" })
const unknownPosition = fail(new HomeserverError.UnknownPosition({ message: "unknown position" }))

/** Faults at Alice's device alone. */
const spoil = (world: World, effect: Parameters<World["sim"]["inject"]>[0]["effect"], more: object = {}) =>
  world.sim.inject({ deviceId: world.session.deviceId, effect, ...more })

type Client = NotificationClient.NotificationClient["Service"]

const begin = (client: Client, ...pushes: ReadonlyArray<NotificationItem.NotificationRequest>) =>
  Effect.tap(Effect.forkScoped(client.resolveMany(pushes)), () => settle)

/** What they came to: over by now, since the clock is not moved. */
const results = (resolving: Effect.Success<ReturnType<typeof begin>>) =>
  Effect.suspend(() => {
    assert.isDefined(resolving.pollUnsafe(), "the pushes are not resolved yet")
    return Fiber.join(resolving)
  })

const readings = (resolving: Effect.Success<ReturnType<typeof begin>>) =>
  Effect.map(results(resolving), (all) => all.map(reading))

/** A room in the clear with a message of Bob's. */
const setUp = Effect.gen(function* () {
  const room = yield* setUpRoom(false)
  const eventId = yield* room.world.sim.sendMessage(room.roomId, BOB, "hello")
  return { ...room, push: { roomId: room.roomId, eventId } }
})

/** An encrypted one, whose key waits at the homeserver while nobody owns the stream. */
const setUpSecret = Effect.gen(function* () {
  const room = yield* setUpRoom(true)
  const app = yield* startChat(room.world, "app")
  yield* app.service.suspend()
  return { ...room, app, push: { roomId: room.roomId, eventId: yield* say(room.bob, room.roomId, "secret") } }
})

/** Nothing of the client is left. */
const assertQuiet = Effect.fnUntraced(function* (
  world: World,
  notifier: Effect.Success<ReturnType<typeof startNotifier>>
) {
  yield* notifier.client.settled
  assert.strictEqual(yield* notifier.fibers, 0)
  assert.isTrue(yield* isStreamFree(world))
  const open = (yield* world.sim.requests).filter(
    ({ outcome, session }) => outcome === "pending" && session.userId === world.session.userId
  )
  assert.deepStrictEqual(open, [])
})

describe("Notifications: a homeserver that swallows everything", () => {
  it.effect("I4, I10: has a result at the deadline to the millisecond, and leaves nothing behind", () =>
    Effect.gen(function* () {
      const { push, world } = yield* setUp
      yield* spoil(world, hang)
      const notifier = yield* startNotifier(world)
      const resolving = yield* begin(notifier.client, push)
      yield* advance(DEADLINE_MILLIS - 1)
      assert.isUndefined(resolving.pollUnsafe())
      yield* advance(1)
      const [result] = yield* results(resolving)
      assert.deepStrictEqual(result?._tag === "Expired" ? result.missing : result, ["event"])
      yield* assertQuiet(world, notifier)
    })
  )

  it.effect("the deadline is the caller's when he has one", () =>
    Effect.gen(function* () {
      const { push, world } = yield* setUp
      yield* spoil(world, hang)
      const notifier = yield* startNotifier(world)
      const resolving = yield* Effect.forkScoped(notifier.client.resolve(push, { deadline: "2 seconds" }))
      yield* advance("2 seconds")
      assert.strictEqual(reading(yield* Fiber.join(resolving)), "Expired")
      yield* assertQuiet(world, notifier)
    })
  )

  it.effect("an encrypted one that the application has stored is shown as such, and no lease is left behind", () =>
    Effect.gen(function* () {
      const { app, bob, roomId, world } = yield* setUpSecret
      yield* app.service.resume()
      yield* settle
      yield* app.service.suspend()
      const other = yield* addRoom(world, "Hall", true)
      yield* app.service.resume()
      yield* settle
      const known = { roomId, eventId: yield* say(bob, roomId, "known") }
      yield* settle
      yield* app.service.suspend()
      const push = { roomId: other, eventId: yield* say(bob, other, "unknown") }
      yield* spoil(world, hang)
      const notifier = yield* startNotifier(world)
      const resolving = yield* begin(notifier.client, known, push)
      yield* advance(DEADLINE_MILLIS)
      assert.deepStrictEqual(yield* readings(resolving), [says("known"), "Expired"])
      yield* assertQuiet(world, notifier)
    })
  )

  it.effect(
    "I4: swallows the stream's requests: the event is shown without its key, at the deadline, and the lease is free",
    () =>
      Effect.gen(function* () {
        const { push, world } = yield* setUpSecret
        yield* spoil(world, hang, { connId: ENCRYPTION })
        const notifier = yield* startNotifier(world)
        const resolving = yield* begin(notifier.client, push)
        assert.isFalse(yield* isStreamFree(world))
        yield* advance(DEADLINE_MILLIS)
        assert.deepStrictEqual(yield* readings(resolving), [{ undecrypted: "MissingRoomKey" }])
        yield* assertQuiet(world, notifier)
      })
  )

  it.effect("syncs alone: the event comes by its surroundings after a second", () =>
    Effect.gen(function* () {
      const { push, world } = yield* setUp
      yield* spoil(world, hang, { connId: NOTIFICATIONS })
      const notifier = yield* startNotifier(world)
      const resolving = yield* begin(notifier.client, push)
      yield* advance(999)
      assert.isUndefined(resolving.pollUnsafe())
      yield* advance(1)
      assert.deepStrictEqual(yield* readings(resolving), [says("hello")])
      yield* assertQuiet(world, notifier)
    })
  )

  it.effect("one event's surroundings: the others are told at once", () =>
    Effect.gen(function* () {
      const { push, world } = yield* setUp
      yield* spoil(world, hang, { operation: "context" })
      const notifier = yield* startNotifier(world)
      const resolving = yield* begin(notifier.client, push, { ...push, eventId: "$old" })
      yield* advance(DEADLINE_MILLIS)
      assert.deepStrictEqual(yield* readings(resolving), [says("hello"), "Expired"])
      yield* assertQuiet(world, notifier)
    })
  )
})

describe("Notifications: a homeserver that swallows something", () => {
  it.effect("I4: the stream is given back when the keys are there, although another event is still looked for", () =>
    Effect.gen(function* () {
      const { push, world } = yield* setUpSecret
      yield* spoil(world, hang, { operation: "context" })
      const notifier = yield* startNotifier(world)
      const resolving = yield* begin(notifier.client, push, { ...push, eventId: "$old" })
      assert.isUndefined(resolving.pollUnsafe())
      assert.isTrue(yield* isStreamFree(world))
    })
  )
})

describe("Notifications: a homeserver that fails", () => {
  it.effect("I9: syncs with 500: the surroundings are asked for at once", () =>
    Effect.gen(function* () {
      const { push, world } = yield* setUp
      yield* spoil(world, onFire, { connId: NOTIFICATIONS })
      const notifier = yield* startNotifier(world)
      assert.deepStrictEqual(yield* readings(yield* begin(notifier.client, push)), [says("hello")])
      yield* assertQuiet(world, notifier)
    })
  )

  it.effect("I9: everything with 500 for five seconds: the event is there soon after", () =>
    Effect.gen(function* () {
      const { push, world } = yield* setUp
      const fault = yield* spoil(world, onFire)
      const notifier = yield* startNotifier(world)
      const resolving = yield* begin(notifier.client, push)
      yield* advance("5 seconds")
      yield* fault.remove
      yield* advance("8 seconds")
      assert.deepStrictEqual(yield* readings(resolving), [says("hello")])
      assert.isBelow(yield* fault.hits, 15)
      yield* assertQuiet(world, notifier)
    })
  )

  it.effect("I10: asks to wait for longer than there is: nothing more is asked, and it says so at the deadline", () =>
    Effect.gen(function* () {
      const { push, world } = yield* setUp
      const fault = yield* spoil(
        world,
        fail(new HomeserverError.RateLimited({ message: "slow down", retryAfterMillis: 60_000 }))
      )
      const notifier = yield* startNotifier(world)
      const resolving = yield* begin(notifier.client, push)
      yield* advance(DEADLINE_MILLIS)
      const [result] = yield* results(resolving)
      assert.include(result?._tag === "Expired" ? result.message : "", "slow down")
      assert.strictEqual(yield* fault.hits, 2)
      yield* assertQuiet(world, notifier)
    })
  )

  it.effect("I9: has forgotten the position when it is asked for the second time", () =>
    Effect.gen(function* () {
      const { push, world } = yield* setUp
      const notHere = fail(new HomeserverError.NotFound({ message: "not here" }))
      yield* spoil(world, notHere, { operation: "context", times: 1 })
      const notifier = yield* startNotifier(world)
      const resolving = yield* begin(notifier.client, { ...push, eventId: "$soon" })
      yield* world.sim.expirePositions(world.session, NOTIFICATIONS)
      yield* advance("3 seconds")
      assert.deepStrictEqual(yield* readings(resolving), ["NotFound"])
      const syncs = yield* world.sim.syncs(NOTIFICATIONS)
      assert.deepStrictEqual(
        syncs.map(({ outcome, request }) => [outcome, request.pos !== undefined]),
        [
          ["answered", false],
          ["failed", true],
          ["answered", false],
          ["answered", true]
        ]
      )
    })
  )

  it.effect("I9: doesn't know the position of the stream: it is read afresh, and nothing is lost", () =>
    Effect.gen(function* () {
      const { push, world } = yield* setUpSecret
      yield* spoil(world, unknownPosition, { connId: ENCRYPTION, times: 1 })
      const notifier = yield* startNotifier(world)
      assert.deepStrictEqual(yield* readings(yield* begin(notifier.client, push)), [SECRET])
      yield* assertQuiet(world, notifier)
    })
  )

  it.effect("has logged the user out: it says so at once, and shows what is known all the same", () =>
    Effect.gen(function* () {
      const { push, world } = yield* setUp
      const app = yield* startChat(world, "app")
      yield* app.service.stop()
      yield* world.sim.endSession(world.session, "hard")
      const notifier = yield* startNotifier(world)
      const resolving = yield* begin(notifier.client, { ...push, eventId: "$unknown" }, push)
      const [unknown, known] = yield* results(resolving)
      assert.strictEqual(unknown?._tag === "Failed" ? unknown.failure.class : unknown, "auth")
      assert.deepStrictEqual(reading(known), says("hello"))
      yield* assertQuiet(world, notifier)
    })
  )

  it.effect("has no sliding sync: events come by their surroundings", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld({ spelling: null })
      yield* world.sim.session("bob", "BOB")
      const roomId = yield* addRoom(world, "Kitchen", false)
      const eventId = yield* world.sim.sendMessage(roomId, BOB, "hello")
      const notifier = yield* startNotifier(world)
      const resolving = yield* begin(notifier.client, { roomId, eventId }, { roomId, eventId: "$unknown" })
      assert.deepStrictEqual(yield* readings(resolving), [says("hello"), "NotFound"])
      assert.strictEqual(yield* Clock.currentTimeMillis, 0)
    })
  )

  it.effect("I7: tells nonsense among the events: what can be read of it is shown", () =>
    Effect.gen(function* () {
      const { push, roomId, world } = yield* setUp
      const good = { type: "m.room.message", sender: BOB, content: { body: "good" } }
      const timeline = [
        null,
        { event_id: push.eventId },
        { ...good, event_id: 7 },
        { ...good, event_id: "$good" },
        { ...good, event_id: "$odd", content: { body: [1], "m.relates_to": "x", "m.mentions": 3 } }
      ]
      const json = { pos: "1/s1", rooms: { [roomId]: { initial: true, timeline, required_state: [{}, 1] }, "": 7 } }
      yield* spoil(world, { _tag: "Reply", json }, { connId: NOTIFICATIONS })
      const notifier = yield* startNotifier(world)
      const resolving = yield* begin(notifier.client, { roomId, eventId: "$good" }, { roomId, eventId: "$odd" }, push)
      yield* settle
      const all = (yield* results(resolving)).map((result) =>
        result._tag === "Event" ? result.item.event.content.body : result
      )
      assert.deepStrictEqual(all, ["good", [1], "hello"])
    })
  )
})

describe("Notifications: storage that can't be used", () => {
  it.effect("I9: busy at the lease: it is tried again", () =>
    Effect.gen(function* () {
      const { push, world } = yield* setUpSecret
      let tries = 0
      const leases: World["leases"] = {
        ...world.leases,
        take: (request) =>
          ++tries <= 2
            ? Effect.fail(new StoreError.StoreError({ operation: "take a lease", reason: busy }))
            : world.leases.take(request)
      }
      const notifier = yield* startNotifier({ ...world, leases })
      const resolving = yield* begin(notifier.client, push)
      yield* advance("3 seconds")
      assert.deepStrictEqual(yield* readings(resolving), [SECRET])
      assert.strictEqual(tries, 3)
      yield* assertQuiet(world, notifier)
    })
  )

  it.effect("I2, I9: busy or full at the commit: what was read is read again, and applied once", () =>
    Effect.gen(function* () {
      const { push, world } = yield* setUpSecret
      yield* world.faults.failNext("commitExtension", busy)
      yield* world.faults.failNext("commitExtension", new StoreError.StoreFull({ message: "disk full" }))
      const notifier = yield* startNotifier(world)
      const resolving = yield* begin(notifier.client, push)
      yield* advance("5 seconds")
      assert.deepStrictEqual(yield* readings(resolving), [SECRET])
      yield* assertQuiet(world, notifier)
    })
  )

  it.effect("I2: a commit whose answer is lost: it isn't applied twice", () =>
    Effect.gen(function* () {
      const { push, world } = yield* setUpSecret
      yield* world.faults.failNext("commitExtension", busy, "after")
      const notifier = yield* startNotifier(world)
      const resolving = yield* begin(notifier.client, push)
      yield* advance("5 seconds")
      assert.deepStrictEqual(yield* readings(resolving), [SECRET])
      yield* assertQuiet(world, notifier)
    })
  )

  it.effect("the rooms can't be read: the homeserver is asked", () =>
    Effect.gen(function* () {
      const { push, world } = yield* setUp
      yield* world.faults.failNext("room", new StoreError.StoreUnavailable({ message: "gone" }))
      const notifier = yield* startNotifier(world)
      assert.deepStrictEqual(yield* readings(yield* begin(notifier.client, push)), [says("hello")])
    })
  )

  it.effect(
    "I7: shows what another process brings the key of while the lease can't be asked for, soon after its commit",
    () =>
      Effect.gen(function* () {
        const { app, push, world } = yield* setUpSecret
        const reason = new StoreError.StoreFull({ message: "the disk is full" })
        const leases: World["leases"] = {
          ...world.leases,
          take: () => Effect.fail(new StoreError.StoreError({ operation: "take a lease", reason }))
        }
        const notifier = yield* startNotifier({ ...world, leases })
        const resolving = yield* begin(notifier.client, push)
        yield* advance("9 seconds")
        assert.isUndefined(resolving.pollUnsafe())
        yield* app.service.resume()
        yield* settle
        yield* advance(SyncConfig.defaults.waitPollMillis)
        assert.deepStrictEqual(yield* readings(resolving), [SECRET])
      })
  )

  it.effect("for good: it says so at once", () =>
    Effect.gen(function* () {
      const { push, world } = yield* setUpSecret
      const reason = new StoreError.StoreReadOnly({ message: "read-only" })
      const leases: World["leases"] = {
        ...world.leases,
        take: () => Effect.fail(new StoreError.StoreError({ operation: "take a lease", reason }))
      }
      const notifier = yield* startNotifier({ ...world, leases })
      const [result] = yield* results(yield* begin(notifier.client, push))
      assert.strictEqual(result?._tag === "Failed" ? result.failure.class : result, "storeTerminal")
    })
  )

  it.effect("I9: busy when the owner begins to be watched: he is watched again", () =>
    Effect.gen(function* () {
      const { app, push, world } = yield* setUpSecret
      yield* spoil(world, { _tag: "Late", millis: 3_000 }, { connId: ENCRYPTION, times: 1 })
      yield* app.service.resume()
      yield* settle
      yield* world.faults.failNext("encryptionNewsKept", busy)
      let tries = 0
      const leases: World["leases"] = {
        ...world.leases,
        take: (request) =>
          ++tries === 2
            ? Effect.fail(new StoreError.StoreError({ operation: "take a lease", reason: busy }))
            : world.leases.take(request)
      }
      const notifier = yield* startNotifier({ ...world, leases })
      const resolving = yield* begin(notifier.client, push)
      yield* advance("3 seconds")
      assert.deepStrictEqual(yield* readings(resolving), [SECRET])
      assert.isTrue(yield* app.isOwner)
    })
  )

  it.effect("I10: the lease can't be given back in time: the deadline holds for who waits for the result", () =>
    Effect.gen(function* () {
      const { push, world } = yield* setUpSecret
      yield* spoil(world, hang, { connId: ENCRYPTION })
      const leases: World["leases"] = {
        ...world.leases,
        release: (request) => Effect.delay(world.leases.release(request), "30 seconds")
      }
      const notifier = yield* startNotifier({ ...world, leases })
      const resolving = yield* begin(notifier.client, push)
      yield* advance("15 seconds")
      // Something goes wrong, and the lease is let go, or so it seems.
      yield* world.leases.take({
        name: "extension",
        permits: 1,
        count: 1,
        holder: "thief",
        peer: {},
        nowMillis: yield* Clock.currentTimeMillis,
        leaseMillis: 60_000,
        presumedDead: (yield* world.leases.inspect("extension")).rows.map(({ holder }) => holder)
      })
      yield* advance(DEADLINE_MILLIS - 15_000)
      assert.deepStrictEqual(yield* readings(resolving), [{ undecrypted: "MissingRoomKey" }])
      yield* advance("2 minutes")
      yield* notifier.client.settled
    })
  )
})

describe("Notifications: a machine that fails", () => {
  const trapped = new CryptoError.CryptoError({
    operation: "decrypt",
    reason: new CryptoError.CryptoTrapped({ message: "unreachable executed" })
  })

  it.effect("now and then: the event is tried again", () =>
    Effect.gen(function* () {
      const { push, world } = yield* setUpSecret
      const reader = SimulatedCrypto.makeDecryptor(world.session, world.faults.cryptoRecords)
      let calls = 0
      const decrypt: typeof reader.decrypt = (roomId, event) =>
        ++calls % 2 === 1 ? Effect.fail(trapped) : reader.decrypt(roomId, event)
      const notifier = yield* startNotifier(world, "notify", { decryptor: { ...reader, decrypt } })
      const resolving = yield* begin(notifier.client, push)
      yield* advance("5 seconds")
      assert.deepStrictEqual(yield* readings(resolving), [SECRET])
      yield* assertQuiet(world, notifier)
    })
  )

  it.effect("at one event always: it says so, and the others are shown", () =>
    Effect.gen(function* () {
      const { bob, push, roomId, world } = yield* setUpSecret
      const bad = { roomId, eventId: yield* say(bob, roomId, "bad") }
      const reader = SimulatedCrypto.makeDecryptor(world.session, world.faults.cryptoRecords)
      const decrypt: typeof reader.decrypt = (room, event) =>
        event.event_id === bad.eventId ? Effect.fail(trapped) : reader.decrypt(room, event)
      const notifier = yield* startNotifier(world, "notify", { decryptor: { ...reader, decrypt } })
      const resolving = yield* begin(notifier.client, bad, push)
      yield* advance("5 seconds")
      assert.deepStrictEqual(yield* readings(resolving), ["Failed", SECRET])
      yield* assertQuiet(world, notifier)
    })
  )

  it.effect("I7: with a defect: every push that is left is told as failed, and the lease is free", () =>
    Effect.gen(function* () {
      const { push, roomId, world } = yield* setUpSecret
      const reader = SimulatedCrypto.makeDecryptor(world.session, world.faults.cryptoRecords)
      const decrypt: typeof reader.decrypt = () => Effect.die(new Error("a bug"))
      const notifier = yield* startNotifier(world, "notify", { decryptor: { ...reader, decrypt } })
      const [result, other] = yield* results(yield* begin(notifier.client, push, { roomId, eventId: "$unknown" }))
      assert.strictEqual(result?._tag === "Failed" ? result.failure.class : result, "defect")
      assert.strictEqual(other?._tag === "Failed" ? other.failure.class : other, "defect")
      yield* assertQuiet(world, notifier)
    })
  )

  it.effect("I4: whoever waits when the client is closed is told so, and nothing is left", () =>
    Effect.gen(function* () {
      const { push, world } = yield* setUp
      yield* spoil(world, hang)
      const scope = yield* Scope.make()
      const notifier = yield* Scope.provide(startNotifier(world), scope)
      const resolving = yield* begin(notifier.client, push)
      yield* Scope.close(scope, Exit.void)
      yield* settle
      assert.deepStrictEqual(yield* readings(resolving), ["Expired"])
      assert.strictEqual(yield* notifier.process.fibers, 0)
    })
  )
})
