import { assert, describe, it } from "@effect/vitest"
import { type NotificationClient, type NotificationItem, SyncConfig, Wake } from "@twinloop/core"
import { SimulatedCrypto } from "@twinloop/core/testing"
import { Clock, Effect, Fiber, Stream } from "effect"
import { openChat, read, say, startChat } from "./support/Chat.ts"
import {
  addRoom,
  clientIn,
  deliverKeys,
  holdKeys,
  isStreamFree,
  reading,
  says,
  setUp as setUpRoom,
  startNotifier
} from "./support/Notifier.ts"
import type { World } from "../src/testing/Simulation.ts"
import { advance, settle } from "../src/testing/Time.ts"

const ENCRYPTION = "encryption"
const { leaseMillis } = SyncConfig.defaults
const SECRET = says("secret")

/** An encrypted room, and Alice's application, which owns the stream. */
const setUp = Effect.gen(function* () {
  const room = yield* setUpRoom(true)
  const app = yield* startChat(room.world, "app", { config: { notificationAppRole: "app" } })
  assert.isTrue(yield* app.isOwner)
  return { ...room, app }
})

/** Asks for a push, and lets everybody go as far as he gets. */
const begin = (client: NotificationClient.NotificationClient["Service"], push: NotificationItem.NotificationRequest) =>
  Effect.tap(Effect.forkScoped(client.resolve(push)), () => settle)

type Resolving = Effect.Success<ReturnType<typeof begin>>

const isPending = (resolving: Resolving) => Effect.sync(() => assert.isUndefined(resolving.pollUnsafe()))

/** What it came to: it must be over by now, since the clock is not moved. */
const result = (resolving: Resolving) =>
  Effect.suspend(() => {
    assert.isDefined(resolving.pollUnsafe(), "the push is not resolved yet")
    return Effect.map(Fiber.join(resolving), reading)
  })

/** What the homeserver still keeps for the device. */
const unacknowledged = (world: World) =>
  Effect.map(world.sim.ledger(world.session), (ledger) =>
    ledger.filter((entry) => entry.acknowledgedAtMillis === undefined)
  )

const generations = (world: World) =>
  Effect.map(world.store.readInbox({ after: 0, limit: 1_000 }), (entries) => entries.map((entry) => entry.generation))

describe("Notifications: the key isn't there, and nobody owns the stream", () => {
  it.effect("I4: takes it for two iterations, the second of which acknowledges, and gives it back", () =>
    Effect.gen(function* () {
      const { app, bob, roomId, world } = yield* setUp
      yield* app.service.suspend()
      const before = (yield* world.sim.syncs(ENCRYPTION)).length
      const eventId = yield* say(bob, roomId, "secret")
      const { client, fibers } = yield* startNotifier(world)
      const resolving = yield* begin(client, { roomId, eventId })
      assert.deepStrictEqual(yield* result(resolving), SECRET)
      yield* client.settled
      assert.strictEqual(yield* Clock.currentTimeMillis, 0)
      const mine = (yield* world.sim.syncs(ENCRYPTION))
        .slice(before)
        .filter(({ session }) => session.userId === world.session.userId)
      assert.lengthOf(mine, 2)
      assert.deepStrictEqual(
        mine.map(({ request }) => request.timeoutMillis),
        [0, 0]
      )
      assert.deepStrictEqual(yield* unacknowledged(world), [])
      assert.isTrue(yield* isStreamFree(world))
      assert.strictEqual(yield* fibers, 0)
    })
  )

  it.effect("waits for a key that comes after the push, and shows at that moment", () =>
    Effect.gen(function* () {
      const { app, bob, roomId, world } = yield* setUp
      yield* app.service.suspend()
      yield* holdKeys(world)
      const eventId = yield* say(bob, roomId, "secret")
      const { client } = yield* startNotifier(world)
      const resolving = yield* begin(client, { roomId, eventId })
      yield* advance(3_141)
      yield* isPending(resolving)
      yield* deliverKeys(world)
      yield* settle
      assert.deepStrictEqual(yield* result(resolving), SECRET)
      yield* client.settled
      assert.isTrue(yield* isStreamFree(world))
    })
  )

  it.effect("I10: shows that there is something at the deadline when the key never comes, and is quiet then", () =>
    Effect.gen(function* () {
      const { app, bob, roomId, world } = yield* setUp
      yield* app.service.suspend()
      yield* holdKeys(world)
      const eventId = yield* say(bob, roomId, "secret")
      const { client, fibers } = yield* startNotifier(world)
      const resolving = yield* begin(client, { roomId, eventId })
      yield* advance(19_999)
      yield* isPending(resolving)
      assert.isFalse(yield* isStreamFree(world))
      yield* advance(1)
      assert.deepStrictEqual(yield* result(resolving), { undecrypted: "MissingRoomKey" })
      yield* client.settled
      assert.isTrue(yield* isStreamFree(world))
      assert.strictEqual(yield* fibers, 0)
      assert.strictEqual(yield* world.sim.inFlight(ENCRYPTION), 1, "Bob's")
    })
  )

  it.effect("two messages with two keys, the second of which is late: each is told as soon as it can be", () =>
    Effect.gen(function* () {
      const { app, bob, roomId, world } = yield* setUp
      yield* app.service.suspend()
      const other = yield* addRoom(world, "Hall", true)
      const now = { roomId, eventId: yield* say(bob, roomId, "secret") }
      yield* holdKeys(world)
      yield* settle
      const later = { roomId: other, eventId: yield* say(bob, other, "later") }
      const { client } = yield* startNotifier(world)
      const told: Array<unknown> = []
      yield* Effect.forkScoped(
        Stream.runForEach(client.resolving([later, now]), (one) =>
          Effect.sync(() => void told.push(reading(one.result)))
        )
      )
      yield* settle
      assert.deepStrictEqual(told, [SECRET])
      yield* advance("5 seconds")
      yield* deliverKeys(world)
      yield* settle
      assert.deepStrictEqual(told, [SECRET, says("later", "Hall")])
    })
  )

  it.effect("I4: who interrupts it gets the stream back at once", () =>
    Effect.gen(function* () {
      const { app, bob, roomId, world } = yield* setUp
      yield* app.service.suspend()
      yield* holdKeys(world)
      const eventId = yield* say(bob, roomId, "secret")
      const { client, fibers } = yield* startNotifier(world)
      const resolving = yield* begin(client, { roomId, eventId })
      assert.isFalse(yield* isStreamFree(world))
      yield* Fiber.interrupt(resolving)
      assert.isTrue(yield* isStreamFree(world))
      assert.strictEqual(yield* fibers, 0)
      yield* client.settled
    })
  )

  it.effect("I4: the result doesn't wait for the work on the stream; settled does", () =>
    Effect.gen(function* () {
      const { app, bob, roomId, world } = yield* setUp
      yield* app.service.suspend()
      const eventId = yield* say(bob, roomId, "secret")
      const { client } = yield* startNotifier(world)
      // The second iteration's answer is under way for long.
      const late = { connId: ENCRYPTION, deviceId: "DEVICE", effect: { _tag: "Late", millis: 2_000 } } as const
      yield* world.sim.inject(late)
      const resolving = yield* begin(client, { roomId, eventId })
      const settled = yield* Effect.forkScoped(client.settled)
      yield* advance(2_000)
      assert.deepStrictEqual(yield* result(resolving), SECRET)
      assert.isUndefined(settled.pollUnsafe())
      assert.isFalse(yield* isStreamFree(world))
      yield* advance(2_000)
      assert.isDefined(settled.pollUnsafe())
      assert.isTrue(yield* isStreamFree(world))
    })
  )

  it.effect("two notification processes: one takes the stream, the other hears of the key from it", () =>
    Effect.gen(function* () {
      const { app, bob, roomId, world } = yield* setUp
      yield* app.service.suspend()
      yield* holdKeys(world)
      const eventId = yield* say(bob, roomId, "secret")
      const one = yield* startNotifier(world, "one")
      const two = yield* startNotifier(world, "two")
      const first = yield* begin(one.client, { roomId, eventId })
      const second = yield* begin(two.client, { roomId, eventId })
      yield* advance(1_234)
      yield* deliverKeys(world)
      yield* settle
      assert.deepStrictEqual([yield* result(first), yield* result(second)], [SECRET, SECRET])
      assert.isTrue(yield* isStreamFree(world))
    })
  )

  it.effect("two resolutions in one process: the second waits for what the first commits", () =>
    Effect.gen(function* () {
      const { app, bob, roomId, world } = yield* setUp
      yield* app.service.suspend()
      yield* holdKeys(world)
      const eventId = yield* say(bob, roomId, "secret")
      const { client, fibers } = yield* startNotifier(world)
      const first = yield* begin(client, { roomId, eventId })
      const second = yield* begin(client, { roomId, eventId })
      yield* advance(1_234)
      yield* deliverKeys(world)
      yield* settle
      assert.deepStrictEqual([yield* result(first), yield* result(second)], [SECRET, SECRET])
      assert.strictEqual(yield* fibers, 0)
    })
  )

  it.effect("two resolutions in one process: when the first is interrupted, the second takes the stream at once", () =>
    Effect.gen(function* () {
      const { app, bob, roomId, world } = yield* setUp
      yield* app.service.suspend()
      yield* holdKeys(world)
      const eventId = yield* say(bob, roomId, "secret")
      const { client } = yield* startNotifier(world)
      const first = yield* begin(client, { roomId, eventId })
      const second = yield* begin(client, { roomId, eventId })
      yield* Fiber.interrupt(first)
      yield* settle
      assert.isFalse(yield* isStreamFree(world))
      yield* deliverKeys(world)
      yield* settle
      assert.deepStrictEqual(yield* result(second), SECRET)
    })
  )
})

describe("Notifications: the key isn't there, and the application owns the stream", () => {
  it.effect("shows when the owner commits it, at that very moment, and never reads the stream itself", () =>
    Effect.gen(function* () {
      const { app, bob, roomId, world } = yield* setUp
      yield* holdKeys(world)
      const eventId = yield* say(bob, roomId, "secret")
      const { client } = yield* startNotifier(world)
      const resolving = yield* begin(client, { roomId, eventId })
      yield* advance(2_718)
      yield* isPending(resolving)
      const before = (yield* world.sim.syncs(ENCRYPTION)).length
      yield* world.faults.delayNext("commitExtension", 100)
      yield* deliverKeys(world)
      yield* advance(99)
      yield* isPending(resolving)
      yield* advance(1)
      assert.deepStrictEqual(yield* result(resolving), SECRET)
      assert.isTrue(yield* app.isOwner)
      assert.strictEqual((yield* world.sim.syncs(ENCRYPTION)).length - before, 1, "the owner's next")
      assert.isEmpty(new Set((yield* generations(world)).filter((generation) => generation !== 1)))
    })
  )

  it.effect("takes it at once when the owner is suspended while it is waited for", () =>
    Effect.gen(function* () {
      const { app, bob, roomId, world } = yield* setUp
      yield* holdKeys(world)
      const eventId = yield* say(bob, roomId, "secret")
      const { client } = yield* startNotifier(world)
      const resolving = yield* begin(client, { roomId, eventId })
      yield* advance(500)
      yield* app.service.suspend()
      yield* settle
      yield* deliverKeys(world)
      yield* settle
      assert.deepStrictEqual(yield* result(resolving), SECRET)
      yield* client.settled
      assert.isTrue(yield* isStreamFree(world))
    })
  )

  it.effect("takes it at once when the owner lets go just after it was found to have it", () =>
    Effect.gen(function* () {
      const { app, bob, roomId, world } = yield* setUp
      yield* holdKeys(world)
      const eventId = yield* say(bob, roomId, "secret")
      yield* deliverKeys(world).pipe(Effect.delay(100), Effect.forkScoped)
      let isFirst = true
      const leases: World["leases"] = {
        ...world.leases,
        // The owner lets go between the answer and whatever the one who asked does about it.
        take: (request) =>
          Effect.tap(world.leases.take(request), () => {
            if (!isFirst) return Effect.void
            isFirst = false
            return app.service.suspend()
          })
      }
      const { client } = yield* startNotifier({ ...world, leases })
      const resolving = yield* begin(client, { roomId, eventId })
      yield* advance(100)
      assert.deepStrictEqual(yield* result(resolving), SECRET)
    })
  )

  it.effect("takes it at once when the owner is killed", () =>
    Effect.gen(function* () {
      const { app, bob, roomId, world } = yield* setUp
      yield* holdKeys(world)
      const eventId = yield* say(bob, roomId, "secret")
      const { client } = yield* startNotifier(world)
      const resolving = yield* begin(client, { roomId, eventId })
      yield* advance(500)
      yield* app.kill
      yield* deliverKeys(world)
      yield* settle
      assert.deepStrictEqual(yield* result(resolving), SECRET)
    })
  )

  it.effect("takes it at once when the owner was killed before the push", () =>
    Effect.gen(function* () {
      const { app, bob, roomId, world } = yield* setUp
      yield* app.kill
      const eventId = yield* say(bob, roomId, "secret")
      const { client } = yield* startNotifier(world)
      const resolving = yield* begin(client, { roomId, eventId })
      assert.deepStrictEqual(yield* result(resolving), SECRET)
    })
  )

  it.effect("I1: takes it from a frozen owner when its lease is over; what the thawed one commits is refused", () =>
    Effect.gen(function* () {
      const { app, bob, roomId, world } = yield* setUp
      // Its answer has arrived, and its commit hasn't begun.
      yield* app.freeze
      const eventId = yield* say(bob, roomId, "secret")
      const { client } = yield* startNotifier(world)
      const resolving = yield* begin(client, { roomId, eventId })
      yield* advance("9 seconds")
      yield* isPending(resolving)
      yield* advance("1100 millis")
      assert.deepStrictEqual(yield* result(resolving), SECRET)
      yield* client.settled
      yield* app.thaw
      yield* advance("20 seconds")
      const inOrder = yield* generations(world)
      assert.deepStrictEqual(
        inOrder,
        inOrder.toSorted((one, two) => one - two)
      )
      assert.isTrue(yield* app.isOwner, "he has the stream again")
      yield* say(bob, roomId, "afterwards")
      yield* settle
      assert.deepStrictEqual(yield* read(app, roomId, 2), ["secret", "afterwards"])
      assert.deepStrictEqual(yield* unacknowledged(world), [])
    })
  )

  it.effect("is told by a frozen owner that goes on before its lease is over", () =>
    Effect.gen(function* () {
      const { app, bob, roomId, world } = yield* setUp
      yield* app.freeze
      const eventId = yield* say(bob, roomId, "secret")
      const { client } = yield* startNotifier(world)
      const resolving = yield* begin(client, { roomId, eventId })
      yield* advance("2 seconds")
      yield* app.thaw
      yield* settle
      // It could not be watched while it was frozen, so the store is looked at, once a second.
      yield* advance("1 second")
      assert.deepStrictEqual(yield* result(resolving), SECRET)
      assert.isTrue(yield* app.isOwner)
    })
  )

  it.effect("yields to an application that resumes and needs the stream; the key comes by it then", () =>
    Effect.gen(function* () {
      const { app, bob, roomId, world } = yield* setUp
      yield* app.service.suspend()
      yield* holdKeys(world)
      const eventId = yield* say(bob, roomId, "secret")
      const { client } = yield* startNotifier(world)
      const resolving = yield* begin(client, { roomId, eventId })
      yield* advance("1 second")
      assert.isFalse(yield* isStreamFree(world))
      yield* app.service.resume()
      yield* settle
      assert.isFalse(yield* app.isOwner, "who resumes waits for his turn")
      yield* Effect.forkScoped(say(app, roomId, "mine"))
      yield* advance("1 second")
      assert.isTrue(yield* app.isOwner)
      yield* isPending(resolving)
      yield* deliverKeys(world)
      yield* settle
      assert.deepStrictEqual(yield* result(resolving), SECRET)
    })
  )
})

describe("Notifications: the notification process is frozen while it owns the stream", () => {
  it.effect("I1: it stops reading when it learns that the lease is another's, and hears of the key from him", () =>
    Effect.gen(function* () {
      const { app, bob, roomId, world } = yield* setUp
      yield* app.service.suspend()
      yield* holdKeys(world)
      const eventId = yield* say(bob, roomId, "secret")
      const { client, process } = yield* startNotifier(world)
      const resolving = yield* begin(client, { roomId, eventId })
      yield* process.freeze
      yield* app.service.resume()
      yield* advance("12 seconds")
      assert.isTrue(yield* app.isOwner)
      yield* process.thaw
      yield* advance("4 seconds")
      const readers = (yield* world.sim.syncs(ENCRYPTION)).filter(
        ({ outcome, session }) => outcome === "pending" && session.deviceId === world.session.deviceId
      )
      assert.lengthOf(readers, 1, "the application's")
      yield* isPending(resolving)
      yield* deliverKeys(world)
      yield* settle
      assert.deepStrictEqual(yield* result(resolving), SECRET)
      assert.deepStrictEqual(new Set((yield* generations(world)).slice(-1)), new Set([3]))
    })
  )
})

describe("Notifications in the application's process share its grant", () => {
  it.effect("I1: while the loops run, the key comes by them, and nobody else reads the stream", () =>
    Effect.gen(function* () {
      const { app, bob, roomId, world } = yield* setUp
      const client = yield* clientIn(world, app)
      yield* holdKeys(world)
      const eventId = yield* say(bob, roomId, "secret")
      const resolving = yield* begin(client, { roomId, eventId })
      yield* advance("2 seconds")
      const before = (yield* world.sim.syncs(ENCRYPTION)).length
      yield* deliverKeys(world)
      yield* settle
      assert.deepStrictEqual(yield* result(resolving), SECRET)
      assert.strictEqual((yield* world.sim.syncs(ENCRYPTION)).length - before, 1, "the loop's next")
      assert.isTrue(yield* app.isOwner)
    })
  )

  it.effect("while the service is stopped, it takes the stream itself; when it is stopped meanwhile, at once", () =>
    Effect.gen(function* () {
      const { app, bob, roomId, world } = yield* setUp
      const client = yield* clientIn(world, app)
      yield* holdKeys(world)
      const eventId = yield* say(bob, roomId, "secret")
      const resolving = yield* begin(client, { roomId, eventId })
      yield* app.service.stop()
      yield* settle
      yield* deliverKeys(world)
      yield* settle
      assert.deepStrictEqual(yield* result(resolving), SECRET)
      yield* client.settled
      assert.isTrue(yield* isStreamFree(world))

      // Another room has another key.
      const other = yield* addRoom(world, "Hall", true)
      yield* settle
      const push = { roomId: other, eventId: yield* say(bob, other, "next") }
      assert.deepStrictEqual(reading(yield* client.resolve(push)), says("next", "Hall"))
    })
  )

  it.effect("I1: a service that starts meanwhile waits until it is given back, and loses nothing", () =>
    Effect.gen(function* () {
      const { app, bob, roomId, world } = yield* setUp
      const client = yield* clientIn(world, app)
      yield* app.service.stop()
      yield* holdKeys(world)
      const eventId = yield* say(bob, roomId, "secret")
      const resolving = yield* begin(client, { roomId, eventId })
      assert.isFalse(yield* isStreamFree(world))
      yield* app.service.start
      yield* settle
      assert.isFalse(yield* app.isOwner)
      // Started and stopped while it waits: the one who reads isn't disturbed.
      yield* app.service.stop()
      yield* app.service.start
      yield* deliverKeys(world)
      yield* settle
      assert.deepStrictEqual(yield* result(resolving), SECRET)
      yield* settle
      assert.isTrue(yield* app.isOwner)
      yield* say(bob, roomId, "afterwards")
      yield* settle
      assert.deepStrictEqual(yield* read(app, roomId, 2), ["secret", "afterwards"])
      assert.deepStrictEqual(yield* unacknowledged(world), [])
    })
  )

  it.effect("I5: a service that is started and stopped while it waits doesn't disturb who reads", () =>
    Effect.gen(function* () {
      const { app, bob, roomId, world } = yield* setUp
      const client = yield* clientIn(world, app)
      yield* app.service.stop()
      yield* holdKeys(world)
      const eventId = yield* say(bob, roomId, "secret")
      const resolving = yield* begin(client, { roomId, eventId })
      yield* app.service.start
      yield* settle
      yield* app.service.stop()
      const before = (yield* world.sim.syncs(ENCRYPTION)).length
      yield* deliverKeys(world)
      yield* settle
      assert.deepStrictEqual(yield* result(resolving), SECRET)
      assert.strictEqual((yield* world.sim.syncs(ENCRYPTION)).length, before, "what the poll brought was of use")
      assert.isTrue(yield* isStreamFree(world))
    })
  )

  it.effect(
    "without wake-ups, as in an application that is one process: by the loops at once, else after a lease",
    () =>
      Effect.gen(function* () {
        const { bob, roomId, world: host } = yield* setUpRoom(true)
        const world: World = { ...host, hub: { ...host.hub, process: () => Wake.layerNone } }
        const app = yield* startChat(world, "app", { config: { notificationAppRole: "app" } })
        const client = yield* clientIn(world, app)
        yield* holdKeys(world)
        const eventId = yield* say(bob, roomId, "secret")
        const resolving = yield* begin(client, { roomId, eventId })
        yield* advance("12 seconds")
        yield* isPending(resolving)
        yield* deliverKeys(world)
        yield* settle
        assert.deepStrictEqual(yield* result(resolving), SECRET)

        const hall = yield* addRoom(world, "Hall", true)
        yield* settle
        yield* holdKeys(world)
        const push = { roomId: hall, eventId: yield* say(bob, hall, "next") }
        const next = yield* begin(client, push)
        yield* app.service.stop()
        yield* deliverKeys(world)
        yield* advance(leaseMillis + 1)
        assert.deepStrictEqual(yield* result(next), says("next", "Hall"))
      })
  )

  it.effect("a process that has never synced is served as well", () =>
    Effect.gen(function* () {
      const { app, bob, roomId, world } = yield* setUp
      yield* app.service.stop()
      const idle = yield* openChat(world, "app", { config: { notificationAppRole: "app" } })
      const client = yield* clientIn(world, idle)
      const eventId = yield* say(bob, roomId, "secret")
      assert.deepStrictEqual(reading(yield* client.resolve({ roomId, eventId })), SECRET)
    })
  )
})

describe("Notifications: an event that is being decrypted", () => {
  it.effect("is tried again when the owner commits its key meanwhile", () =>
    Effect.gen(function* () {
      const { bob, roomId, world } = yield* setUp
      yield* holdKeys(world)
      const eventId = yield* say(bob, roomId, "secret")
      const reader = SimulatedCrypto.makeDecryptor(world.session, world.faults.cryptoRecords)
      let slow = 0
      const { client } = yield* startNotifier(world, "notify", {
        decryptor: {
          ...reader,
          // Reads at once, and answers late, the second time: then the owner is being watched.
          decrypt: (room, event) =>
            Effect.tap(reader.decrypt(room, event), () => (++slow === 2 ? Effect.sleep(300) : Effect.void))
        }
      })
      const resolving = yield* begin(client, { roomId, eventId })
      assert.strictEqual(slow, 2)
      yield* deliverKeys(world)
      yield* advance(300)
      assert.deepStrictEqual(yield* result(resolving), SECRET)
    })
  )
})
