import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Result } from "effect"
import { TestClock } from "effect/testing"
import type { Pusher } from "../src/matrix/Pusher.ts"
import type { SyncRequest } from "../src/matrix/SlidingSync.ts"
import { NetworkError, ServerError } from "../src/sync/HomeserverError.ts"
import { HomeserverSim, layer, type SimOptions } from "../src/testing/HomeserverSim.ts"
import * as Model from "../src/testing/HomeserverModel.ts"
import { syncConformance } from "../src/testing/SyncConformance.ts"

const harness = (options: SimOptions) =>
  Effect.gen(function* () {
    const sim = yield* HomeserverSim
    const alice = yield* sim.session("alice", "A")
    const clients = {
      alice: sim.homeserver(alice),
      bob: sim.homeserver(yield* sim.session("bob", "B")),
      stranger: sim.homeserver({ ...alice, accessToken: "made up" })
    }
    const act = <A>(f: Parameters<typeof sim.model<Model.Outcome<A>>>[0]) =>
      Effect.flatMap(sim.model(f), Effect.fromResult)
    return {
      ...clients,
      createRoom: (by: typeof clients.alice, room: Model.NewRoom) =>
        act((state, now) =>
          Result.map(
            Model.findUser(state, by.session.userId),
            (user) => Model.createRoom(state, user, room, now).roomId
          )
        ),
      joinRoom: (by: typeof clients.alice, roomId: string) =>
        Effect.asVoid(
          act((state, now) =>
            Result.flatMap(Model.findUser(state, by.session.userId), (user) => Model.join(state, user, roomId, now))
          )
        )
    }
  }).pipe(Effect.provide(layer(options)))

syncConformance("the simulated homeserver (unstable)", harness({ spelling: "unstable" }))
syncConformance("the simulated homeserver (v4)", harness({ spelling: "v4" }))

const extensionRequest = (timeoutMillis: number, pos?: string): SyncRequest => ({
  connId: "encryption",
  timeoutMillis,
  lists: {},
  roomSubscriptions: {},
  extensions: { toDevice: {} },
  ...(pos !== undefined && { pos })
})

const setUp = Effect.gen(function* () {
  const sim = yield* HomeserverSim
  const session = yield* sim.session("alice", "A")
  return { sim, session, client: sim.homeserver(session) }
})

const pusher: Pusher = {
  appId: "app",
  pushKey: "key",
  appDisplayName: "Test",
  deviceDisplayName: "Phone",
  lang: "en",
  url: "https://push.test/_matrix/push/v1/notify",
  format: "event_id_only"
}

const outage = new ServerError({ message: "on fire", status: 503 })

describe("HomeserverSim", () => {
  it.effect("I8: holds a poll in virtual time until it times out", () =>
    Effect.gen(function* () {
      const { client } = yield* setUp
      const { pos } = yield* client.sync(extensionRequest(30_000))
      const poll = yield* Effect.forkChild(client.sync(extensionRequest(30_000, pos)))
      yield* TestClock.adjust("29 seconds")
      assert.isUndefined(poll.pollUnsafe())
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual((yield* Fiber.join(poll)).extensions.toDevice?.events, [])
    }).pipe(Effect.provide(layer()))
  )

  it.effect("asks for the user's password before other cross-signing keys are taken", () =>
    Effect.gen(function* () {
      const { session, client } = yield* setUp
      const { userId } = session
      const body = (key: string) => ({
        master_key: { user_id: userId, usage: ["master"], keys: { [`ed25519:${key}`]: key } }
      })
      yield* client.keys({ kind: "deviceSigning", body: body("A") })
      const { reason } = yield* Effect.flip(client.keys({ kind: "deviceSigning", body: body("B") }))
      assert(reason._tag === "UserInteractiveAuth" && reason.session !== undefined)
      assert.isUndefined(reason.errcode)
      const auth = (password: string) => ({
        ...body("B"),
        auth: { type: "m.login.password", user: userId, password, session: reason.session }
      })
      const wrong = yield* Effect.flip(client.keys({ kind: "deviceSigning", body: auth("wrong") }))
      assert.deepInclude(wrong.reason, { _tag: "UserInteractiveAuth", errcode: "M_FORBIDDEN", session: reason.session })
      yield* client.keys({ kind: "deviceSigning", body: auth("alice") })
    }).pipe(Effect.provide(layer()))
  )

  it.effect("names who is in a room, or may come in", () =>
    Effect.gen(function* () {
      const { sim, session, client } = yield* setUp
      const [bob, carol] = [yield* sim.addUser("bob"), yield* sim.addUser("carol")]
      const roomId = yield* sim.addRoom({ members: [session.userId, bob], invited: [carol] })
      yield* sim.setMembership({ roomId, userId: bob, membership: "leave" })
      assert.deepStrictEqual(yield* client.members(roomId), [
        { userId: session.userId, membership: "join" },
        { userId: carol, membership: "invite" }
      ])
      yield* sim.inject({ operation: "members", effect: { _tag: "Fail", reason: outage } })
      assert.strictEqual((yield* Effect.flip(client.members(roomId))).operation, "members")
    }).pipe(Effect.provide(layer()))
  )

  it.effect("sets pushers, and gives what they push until it is answered", () =>
    Effect.gen(function* () {
      const { sim, session, client } = yield* setUp
      const bob = yield* sim.addUser("bob")
      const roomId = yield* sim.addRoom({ members: [bob, session.userId] })
      yield* client.setPusher(pusher)
      assert.deepStrictEqual(yield* client.pushers, [pusher])
      const waiting = yield* Effect.forkChild(sim.nextPush(session), { startImmediately: true })
      const eventId = yield* sim.sendMessage(roomId, bob, "hello")
      const first = yield* Fiber.join(waiting)
      assert.deepInclude(first, { url: pusher.url, appId: pusher.appId, pushKey: pusher.pushKey })
      assert.nestedPropertyVal(first.body, "notification.event_id", eventId)
      yield* first.fail
      // It comes again after a second.
      const again = yield* Effect.forkChild(sim.nextPush(session))
      yield* TestClock.adjust("999 millis")
      assert.isUndefined(again.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      const second = yield* Fiber.join(again)
      assert.deepStrictEqual(second.body, first.body)
      const lastId = yield* sim.sendMessage(roomId, bob, "hello again")
      const next = yield* Effect.forkChild(sim.nextPush(session), { startImmediately: true })
      assert.isUndefined(next.pollUnsafe(), "one at a time")
      yield* second.answer()
      const last = yield* Fiber.join(next)
      assert.nestedPropertyVal(last.body, "notification.event_id", lastId)
      yield* last.answer([pusher.pushKey])
      assert.deepStrictEqual(yield* client.pushers, [])
    }).pipe(Effect.provide(layer()))
  )

  it.effect("removes pushers, and refuses one whose URL is no gateway's", () =>
    Effect.gen(function* () {
      const { client } = yield* setUp
      yield* client.setPusher(pusher)
      yield* client.removePusher(pusher)
      assert.deepStrictEqual(yield* client.pushers, [])
      const { reason } = yield* Effect.flip(client.setPusher({ ...pusher, url: "https://push.test/" }))
      assert.deepInclude(reason, { _tag: "BadRequest", errcode: "M_MISSING_PARAM" })
    }).pipe(Effect.provide(layer()))
  )

  it.effect("says whether a thread is followed, and gives a context with the sender's membership alone", () =>
    Effect.gen(function* () {
      const { sim, session, client } = yield* setUp
      const bob = yield* sim.addUser("bob")
      const roomId = yield* sim.addRoom({ members: [session.userId, bob, yield* sim.addUser("carol")] })
      const root = yield* sim.sendMessage(roomId, bob, "root")
      assert.isFalse(yield* client.isThreadSubscribed(roomId, root))
      yield* sim.model((state, now) =>
        Result.flatMap(Model.authenticate(state, session.accessToken, now), (requester) =>
          Model.subscribeToThread(state, requester, { roomId, threadRootId: root }, undefined)
        )
      )
      assert.isTrue(yield* client.isThreadSubscribed(roomId, root))
      const { state } = yield* client.eventContext(roomId, root)
      assert.deepStrictEqual(
        state.filter(({ type }) => type === "m.room.member").map(({ state_key }) => state_key),
        [bob]
      )
      assert.isTrue(state.some(({ type }) => type === "m.room.power_levels"))
    }).pipe(Effect.provide(layer()))
  )

  it.effect("keeps waiting when what happened is no news for the connection", () =>
    Effect.gen(function* () {
      const { sim, session, client } = yield* setUp
      const { pos } = yield* client.sync(extensionRequest(30_000))
      const poll = yield* Effect.forkChild(client.sync(extensionRequest(30_000, pos)))
      const roomId = yield* sim.addRoom({ members: [session.userId] })
      yield* sim.sendMessage(roomId, session.userId, "not for you")
      yield* TestClock.adjust("1 second")
      assert.isUndefined(poll.pollUnsafe())
      yield* sim.sendNumbered(session, 1)
      assert.strictEqual((yield* Fiber.join(poll)).extensions.toDevice?.events.length, 1)
    }).pipe(Effect.provide(layer()))
  )

  it.effect("fails as often as a fault says, and then serves", () =>
    Effect.gen(function* () {
      const { sim, client } = yield* setUp
      const fault = yield* sim.inject({ operation: "sync", times: 2, effect: { _tag: "Fail", reason: outage } })
      for (const expected of ["ServerError", "ServerError", "none"]) {
        const tag = yield* Effect.match(client.sync(extensionRequest(0)), {
          onFailure: ({ reason }) => reason._tag,
          onSuccess: () => "none"
        })
        assert.strictEqual(tag, expected)
      }
      assert.strictEqual(yield* fault.hits, 2)
    }).pipe(Effect.provide(layer()))
  )

  it.effect("spoils only the connection and the operation that a fault names", () =>
    Effect.gen(function* () {
      const { sim, client } = yield* setUp
      yield* sim.inject({ connId: "main", effect: { _tag: "Hang" } })
      yield* client.sync(extensionRequest(0))
      yield* client.capabilities
      const hung = yield* Effect.forkChild(client.sync({ ...extensionRequest(0), connId: "main" }))
      yield* TestClock.adjust("1 hour")
      assert.isUndefined(hung.pollUnsafe())
      assert.strictEqual(yield* sim.inFlight("main"), 1)
      assert.strictEqual(yield* sim.inFlight("encryption"), 0)
    }).pipe(Effect.provide(layer()))
  )

  it.effect("notes an interrupted poll as aborted, and delivers nothing by it", () =>
    Effect.gen(function* () {
      const { sim, session, client } = yield* setUp
      const { pos } = yield* client.sync(extensionRequest(0))
      const poll = yield* Effect.forkChild(client.sync(extensionRequest(30_000, pos)))
      yield* TestClock.adjust("1 second")
      yield* Fiber.interrupt(poll)
      yield* sim.sendNumbered(session, 1)
      const [, seen] = yield* sim.syncs("encryption")
      assert.strictEqual(seen?.outcome, "aborted")
      assert.strictEqual(seen?.endedAtMillis, 1_000)
      assert.strictEqual((yield* sim.ledger(session))[0]?.deliveries, 0)
      assert.strictEqual(yield* sim.inFlight(), 0)
    }).pipe(Effect.provide(layer()))
  )

  it.effect("I2: counts a delivery whose answer never arrived, and delivers it again", () =>
    Effect.gen(function* () {
      const { sim, session, client } = yield* setUp
      yield* sim.sendNumbered(session, 1)
      yield* sim.inject({ operation: "sync", times: 1, effect: { _tag: "Late", millis: 5_000 } })
      const lost = yield* Effect.forkChild(client.sync(extensionRequest(0)))
      yield* TestClock.adjust("1 second")
      yield* Fiber.interrupt(lost)
      const { extensions } = yield* client.sync(extensionRequest(0))
      assert.strictEqual(extensions.toDevice?.events.length, 1)
      const [entry] = yield* sim.ledger(session)
      assert.strictEqual(entry?.deliveries, 2)
      assert.isUndefined(entry?.acknowledgedAtMillis)
      yield* client.sync({
        ...extensionRequest(0),
        extensions: { toDevice: { since: extensions.toDevice!.nextBatch } }
      })
      assert.strictEqual((yield* sim.ledger(session))[0]?.acknowledgedAtMillis, 1_000)
    }).pipe(Effect.provide(layer()))
  )

  it.effect("cuts polls when it becomes unreachable, and serves again afterwards", () =>
    Effect.gen(function* () {
      const { sim, client } = yield* setUp
      const { pos } = yield* client.sync(extensionRequest(0))
      const poll = yield* Effect.forkChild(Effect.flip(client.sync(extensionRequest(30_000, pos))))
      yield* TestClock.adjust("1 second")
      yield* sim.unreachable
      assert.instanceOf((yield* Fiber.join(poll)).reason, NetworkError)
      assert.instanceOf((yield* Effect.flip(client.capabilities)).reason, NetworkError)
      yield* sim.reachable
      yield* client.sync(extensionRequest(0, pos))
    }).pipe(Effect.provide(layer()))
  )

  it.effect("forgets positions on demand, also of an extension-only connection, and ends its poll", () =>
    Effect.gen(function* () {
      const { sim, session, client } = yield* setUp
      const { pos } = yield* client.sync(extensionRequest(0))
      const poll = yield* Effect.forkChild(Effect.flip(client.sync(extensionRequest(30_000, pos))))
      yield* TestClock.adjust("1 second")
      yield* sim.expirePositions(session, "encryption")
      assert.strictEqual((yield* Fiber.join(poll)).reason._tag, "UnknownPosition")
      assert.strictEqual((yield* Effect.flip(client.sync(extensionRequest(0, pos)))).reason._tag, "UnknownPosition")
      const fresh = yield* client.sync(extensionRequest(0))
      yield* client.sync(extensionRequest(0, fresh.pos))
    }).pipe(Effect.provide(layer()))
  )

  it.effect("I7: answers with whatever JSON a fault gives", () =>
    Effect.gen(function* () {
      const { sim, client } = yield* setUp
      yield* sim.inject({ times: 1, effect: { _tag: "Reply", json: "<html>" } })
      assert.strictEqual((yield* Effect.flip(client.sync(extensionRequest(0)))).reason._tag, "BadResponse")
      yield* sim.inject({ times: 1, effect: { _tag: "Reply", json: { pos: "1", rooms: { "!r": 3 } } } })
      assert.strictEqual((yield* client.sync(extensionRequest(0))).quarantined.length, 1)
    }).pipe(Effect.provide(layer()))
  )

  it.effect("ends sessions softly and for good", () =>
    Effect.gen(function* () {
      const { sim, session, client } = yield* setUp
      const other = yield* sim.session("alice", "B")
      const flipped = (of: typeof session) =>
        Effect.map(Effect.flip(sim.homeserver(of).sync(extensionRequest(0))), (e) => e.reason)
      yield* client.sync(extensionRequest(0))
      yield* sim.endSession(session, "soft")
      assert.deepInclude(yield* flipped(session), { _tag: "Unauthorized", softLogout: true })
      yield* sim.endSession(other, "hard")
      assert.deepInclude(yield* flipped(other), { _tag: "Unauthorized", softLogout: false })
    }).pipe(Effect.provide(layer()))
  )

  it.effect("offers no sliding sync when told so", () =>
    Effect.gen(function* () {
      const { client } = yield* setUp
      assert.isUndefined((yield* client.capabilities).slidingSync)
      assert.strictEqual((yield* Effect.flip(client.sync(extensionRequest(0)))).reason._tag, "Unsupported")
    }).pipe(Effect.provide(layer({ spelling: null })))
  )
})
