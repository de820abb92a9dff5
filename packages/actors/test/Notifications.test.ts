import { assert, describe, it } from "@effect/vitest"
import { HomeserverError, type MatrixEvent } from "@twinloop/core"
import { HomeserverModel } from "@twinloop/core/testing"
import { Clock, Effect, Fiber, Result, Stream } from "effect"
import { startChat } from "./support/Chat.ts"
import { addRoom, BOB, itemOf, notifyAll, reading, says, setRules, setUp, startNotifier } from "./support/Notifier.ts"
import type { World } from "../src/testing/Simulation.ts"
import { advance, settle } from "../src/testing/Time.ts"

const ALICE = "@alice:localhost"
const NOTIFICATIONS = "notifications"

const notFound = new HomeserverError.NotFound({ message: "not here" })
const serverError = new HomeserverError.ServerError({ message: "out of order", status: 500 })

/** How often each operation was asked for since the last look. */
const calls = (world: World) =>
  Effect.map(world.sim.requests, (requests) => {
    const counts: Record<string, number> = {}
    for (const { operation, session } of requests)
      if (session.userId === world.session.userId) counts[operation] = (counts[operation] ?? 0) + 1
    return counts
  })

/** A message that the sync doesn't tell of, being too old. */
const sayLongAgo = Effect.fnUntraced(function* (world: World, roomId: string, body = "old") {
  const eventId = yield* world.sim.sendMessage(roomId, BOB, body)
  yield* Effect.forEach(Array.from({ length: 20 }), () => world.sim.sendMessage(roomId, BOB, "later"))
  return eventId
})

const content = (body: string, more: MatrixEvent.JsonObject = {}) => ({ msgtype: "m.text", body, ...more })

describe("Notifications find an event", () => {
  it.effect("by a sliding sync on a connection of their own, two of a room in one request", () =>
    Effect.gen(function* () {
      const { roomId, world } = yield* setUp(false)
      yield* setRules(world, notifyAll)
      const one = yield* world.sim.sendMessage(roomId, BOB, "one")
      const two = yield* world.sim.sendMessage(roomId, BOB, "two")
      const { client } = yield* startNotifier(world)
      const results = yield* client.resolveMany([
        { roomId, eventId: one },
        { roomId, eventId: two }
      ])
      assert.deepStrictEqual(results.map(reading), [says("one"), says("two")])
      assert.deepStrictEqual(yield* calls(world), { sync: 1 })

      const requiredState = [
        ["m.room.name", ""],
        ["m.room.encryption", ""],
        ["m.room.member", "$LAZY"],
        ["m.room.member", "$ME"],
        ["m.room.member", ALICE],
        ["m.room.topic", ""],
        ["m.room.avatar", ""],
        ["m.room.canonical_alias", ""],
        ["io.element.functional_members", ""],
        ["org.matrix.msc3401.call.member", "*"],
        ["m.room.power_levels", ""],
        ["m.room.join_rules", ""],
        ["m.room.create", ""]
      ]
      assert.deepStrictEqual(
        (yield* world.sim.syncs(NOTIFICATIONS)).map(({ request }) => request),
        [
          {
            connId: NOTIFICATIONS,
            timeoutMillis: 0,
            lists: { invites: { range: [0, 16], filters: { isInvite: true }, requiredState, timelineLimit: 1 } },
            roomSubscriptions: { [roomId]: { requiredState, timelineLimit: 16 } },
            extensions: { accountData: true }
          }
        ] as never
      )
      assert.deepStrictEqual(yield* itemOf(results[0]!), {
        kind: "message",
        event: {
          type: "m.room.message",
          sender: BOB,
          content: content("one"),
          event_id: one,
          origin_server_ts: 0
        },
        sender: { userId: BOB, name: "Bob", isNameAmbiguous: false },
        room: {
          roomId,
          name: "Kitchen",
          joinRule: "invite",
          isEncrypted: false,
          isDirect: false,
          joinedCount: 2,
          invitedCount: 0
        },
        actions: ["notify"],
        isNoisy: false,
        isMention: false,
        missing: []
      })
    })
  )

  it.effect(
    "by its surroundings, at once after the sync that doesn't have it, with the sender's profile from there",
    () =>
      Effect.gen(function* () {
        const { roomId, world } = yield* setUp(false)
        const eventId = yield* sayLongAgo(world, roomId)
        const { client } = yield* startNotifier(world)
        assert.deepStrictEqual(reading(yield* client.resolve({ roomId, eventId })), says("old"))
        assert.deepStrictEqual(yield* calls(world), { sync: 1, context: 1 })
        assert.strictEqual(yield* Clock.currentTimeMillis, 0)
      })
  )

  it.effect("one by the sync, the one that it misses by its surroundings", () =>
    Effect.gen(function* () {
      const { roomId, world } = yield* setUp(false)
      const old = yield* sayLongAgo(world, roomId)
      const eventId = yield* world.sim.sendMessage(roomId, BOB, "new")
      const { client } = yield* startNotifier(world)
      const results = yield* client.resolveMany([
        { roomId, eventId: old },
        { roomId, eventId }
      ])
      assert.deepStrictEqual(results.map(reading), [says("old"), says("new")])
      assert.deepStrictEqual(yield* calls(world), { sync: 1, context: 1 })
    })
  )

  it.effect("where the application has stored it, without asking the homeserver at all", () =>
    Effect.gen(function* () {
      const { roomId, world } = yield* setUp(false)
      const app = yield* startChat(world, "app")
      const eventId = yield* world.sim.sendMessage(roomId, BOB, "stored")
      yield* settle
      yield* app.service.stop()
      yield* world.sim.unreachable
      const before = yield* calls(world)
      const { client } = yield* startNotifier(world)
      assert.deepStrictEqual(reading(yield* client.resolve({ roomId, eventId })), says("stored"))
      assert.deepStrictEqual(yield* calls(world), before)
    })
  )

  it.effect("that arrives a moment after its push", () =>
    Effect.gen(function* () {
      const { roomId, world } = yield* setUp(false)
      const fault = yield* world.sim.inject({
        operation: "context",
        times: 1,
        effect: { _tag: "Fail", reason: notFound }
      })
      const old = yield* sayLongAgo(world, roomId)
      const { client } = yield* startNotifier(world)
      const resolving = yield* Effect.forkScoped(client.resolve({ roomId, eventId: old }))
      yield* settle
      assert.strictEqual(yield* fault.hits, 1)
      yield* advance("1 second")
      yield* advance("1 second")
      assert.deepStrictEqual(reading(yield* Fiber.join(resolving)), says("old"))
      assert.strictEqual(yield* Clock.currentTimeMillis, 2_000)
    })
  )

  it.effect(
    "not in an unknown room, not by an unknown id, and not in a room that the user has left: each says why",
    () =>
      Effect.gen(function* () {
        const { roomId, world } = yield* setUp(false)
        const eventId = yield* world.sim.sendMessage(roomId, BOB, "here")
        const left = yield* addRoom(world, "Left", false)
        yield* world.sim.setMembership({ roomId: left, userId: ALICE, membership: "leave" })
        const gone = yield* world.sim.sendMessage(left, BOB, "behind his back")
        const { client } = yield* startNotifier(world)
        const resolving = yield* Effect.forkScoped(
          client.resolveMany([
            { roomId: "!unknown:localhost", eventId: "$a" },
            { roomId, eventId: "$unknown" },
            { roomId: left, eventId: gone },
            { roomId, eventId }
          ])
        )
        yield* advance("3 seconds")
        const results = yield* Fiber.join(resolving)
        assert.deepStrictEqual(results.map(reading), ["NotFound", "NotFound", "NotFound", says("here")])
        assert.include(results[0]?._tag === "NotFound" ? results[0].message : "", "may have left the room")
        assert.include(results[1]?._tag === "NotFound" ? results[1].message : "", "doesn't know the event $unknown")
      })
  )

  it.effect("not where the homeserver calls the question a bad request: it says so long before the deadline", () =>
    Effect.gen(function* () {
      const { roomId, world } = yield* setUp(false)
      const reason = new HomeserverError.BadRequest({ message: "No row found", status: 404, errcode: "M_UNKNOWN" })
      yield* world.sim.inject({ operation: "context", effect: { _tag: "Fail", reason } })
      const { client } = yield* startNotifier(world)
      const resolving = yield* Effect.forkScoped(client.resolve({ roomId, eventId: "$of-another-room" }))
      yield* advance("3 seconds")
      assert.strictEqual((yield* Fiber.join(resolving))._tag, "NotFound")
    })
  )

  it.effect("one sync at a time of all that are resolved at once, as a connection must be used", () =>
    Effect.gen(function* () {
      const { roomId, world } = yield* setUp(false)
      const eventId = yield* world.sim.sendMessage(roomId, BOB, "hello")
      yield* world.sim.inject({ connId: NOTIFICATIONS, effect: { _tag: "Late", millis: 400 } })
      const { client } = yield* startNotifier(world)
      const one = yield* Effect.forkScoped(client.resolve({ roomId, eventId }))
      const two = yield* Effect.forkScoped(client.resolve({ roomId, eventId }))
      yield* settle
      assert.strictEqual(yield* world.sim.inFlight(NOTIFICATIONS), 1)
      yield* advance(400)
      assert.strictEqual(yield* world.sim.inFlight(NOTIFICATIONS), 1)
      yield* advance(400)
      assert.deepStrictEqual(
        [reading(yield* Fiber.join(one)), reading(yield* Fiber.join(two))],
        [says("hello"), says("hello")]
      )
      assert.deepStrictEqual(yield* calls(world), { sync: 2 })
    })
  )

  it.effect("once for the same push twice in a batch", () =>
    Effect.gen(function* () {
      const { roomId, world } = yield* setUp(false)
      const eventId = yield* world.sim.sendMessage(roomId, BOB, "hello")
      const { client } = yield* startNotifier(world)
      const push = { roomId, eventId }
      assert.deepStrictEqual((yield* client.resolveMany([push, push])).map(reading), [says("hello"), says("hello")])
      assert.deepStrictEqual(yield* client.resolveMany([]), [])
      assert.deepStrictEqual(yield* calls(world), { sync: 1 })
    })
  )

  it.effect("never by the application's connection: its position and its rooms stay as they are", () =>
    Effect.gen(function* () {
      const { roomId, world } = yield* setUp(false)
      const app = yield* startChat(world, "app")
      yield* app.service.stop()
      const before = yield* world.store.loadMain("rooms-app")
      const eventId = yield* world.sim.sendMessage(roomId, BOB, "hello")
      const { client } = yield* startNotifier(world)
      yield* client.resolve({ roomId, eventId })
      assert.deepStrictEqual(yield* world.store.loadMain("rooms-app"), before)
      yield* app.service.start
      yield* settle
      const [, resumed] = (yield* world.sim.syncs("rooms-app")).slice(-2)
      assert.isDefined(resumed?.request.pos)
      assert.strictEqual((yield* app.list.get(roomId))?.latestEvent?.event_id, eventId)
    })
  )

  it.effect("I10: fifty of one room by one request, and fifty in as many rooms as well", () =>
    Effect.gen(function* () {
      const { roomId, world } = yield* setUp(false)
      const pushes = yield* Effect.forEach(Array.from({ length: 50 }), () =>
        Effect.map(world.sim.sendMessage(roomId, BOB, "hello"), (eventId) => ({ roomId, eventId }))
      )
      const { client } = yield* startNotifier(world)
      const results = yield* client.resolveMany(pushes)
      assert.deepStrictEqual(new Set(results.map(({ _tag }) => _tag)), new Set(["Event"]))
      assert.deepStrictEqual(yield* calls(world), { sync: 1 })

      const many = yield* Effect.forEach(Array.from({ length: 50 }), (_, index) =>
        Effect.gen(function* () {
          const room = yield* addRoom(world, `Room ${index}`, false)
          return { roomId: room, eventId: yield* world.sim.sendMessage(room, BOB, `in ${index}`) }
        })
      )
      const inMany = yield* client.resolveMany(many)
      assert.deepStrictEqual(
        inMany.map(reading),
        many.map((_, index) => says(`in ${index}`, `Room ${index}`))
      )
      assert.deepStrictEqual(yield* calls(world), { sync: 2 })
    })
  )

  it.effect("I10: a hundred and fifty that the sync doesn't have, at eight requests at once", () =>
    Effect.gen(function* () {
      const { roomId, world } = yield* setUp(false)
      const pushes = yield* Effect.forEach(Array.from({ length: 150 }), () =>
        Effect.map(world.sim.sendMessage(roomId, BOB, "hello"), (eventId) => ({ roomId, eventId }))
      )
      yield* world.sim.inject({ operation: "context", effect: { _tag: "Late", millis: 100 } })
      const { client } = yield* startNotifier(world)
      const resolving = yield* Effect.forkScoped(client.resolveMany(pushes))
      yield* settle
      const asked = (yield* world.sim.requests).filter(({ operation }) => operation === "context")
      assert.deepStrictEqual(
        asked.map(({ outcome }) => outcome),
        Array.from({ length: 8 }, () => "pending")
      )
      yield* advance("10 seconds")
      const results = yield* Fiber.join(resolving)
      assert.deepStrictEqual(new Set(results.map(({ _tag }) => _tag)), new Set(["Event"]))
      assert.deepStrictEqual(yield* calls(world), { sync: 1, context: 50 })
    })
  )
})

describe("Notifications of invitations", () => {
  const invite = (world: World, name: string, by: string) =>
    world.sim.addRoom({ members: [by], invited: [ALICE], name })

  it.effect("tell who invites to what, whether or not the homeserver names the event", () =>
    Effect.gen(function* () {
      const { world } = yield* setUp(false)
      const roomId = yield* invite(world, "Party", BOB)
      const { client } = yield* startNotifier(world)
      const item = yield* itemOf(yield* client.resolve({ roomId, eventId: "$whatever" }))
      assert.deepStrictEqual(
        [item.kind, item.room.name, item.sender.userId, item.isNoisy, item.missing],
        ["invite", "Party", BOB, true, []]
      )
      assert.deepStrictEqual(yield* calls(world), { sync: 1 })

      // Accepted elsewhere meanwhile, the event is one of the room's timeline.
      yield* world.sim.setMembership({ roomId, userId: ALICE, membership: "join" })
      const eventId = yield* world.sim.model(
        (state) =>
          state.rooms.get(roomId)!.timeline.findLast(({ event }) => event.content.membership === "invite")!.event
            .event_id
      )
      const joined = yield* itemOf(yield* client.resolve({ roomId, eventId }))
      assert.deepStrictEqual([joined.kind, joined.event.event_id, joined.sender.userId], ["invite", eventId, BOB])
    })
  )

  it.effect("to two rooms in one batch are told apart, and others aren't told", () =>
    Effect.gen(function* () {
      const { world } = yield* setUp(false)
      yield* world.sim.addUser("carol")
      const party = yield* invite(world, "Party", BOB)
      const dinner = yield* invite(world, "Dinner", "@carol:localhost")
      yield* invite(world, "Nobody asks for it", BOB)
      const { client } = yield* startNotifier(world)
      const told = yield* Stream.runCollect(
        client.resolving([
          { roomId: dinner, eventId: "$d" },
          { roomId: party, eventId: "$p" }
        ])
      )
      assert.lengthOf(told, 2)
      const items = yield* Effect.forEach(told, ({ result }) => itemOf(result))
      assert.deepStrictEqual(
        items.map(({ room, sender }) => [room.roomId, room.name, sender.userId]),
        [
          [dinner, "Dinner", "@carol:localhost"],
          [party, "Party", BOB]
        ]
      )
    })
  )

  it.effect("are told although the homeserver lets nobody look into the room first", () =>
    Effect.gen(function* () {
      const { world } = yield* setUp(false)
      const roomId = yield* invite(world, "Party", BOB)
      yield* world.sim.inject({ connId: NOTIFICATIONS, times: 1, effect: { _tag: "Late", millis: 5_000 } })
      const { client } = yield* startNotifier(world)
      const resolving = yield* Effect.forkScoped(client.resolve({ roomId, eventId: "$p" }))
      yield* advance("1 second")
      assert.deepStrictEqual(yield* calls(world), { sync: 1, context: 1 })
      yield* advance("4 seconds")
      assert.strictEqual((yield* itemOf(yield* Fiber.join(resolving))).kind, "invite")
    })
  )

  it.effect("by somebody whom the user ignores aren't shown", () =>
    Effect.gen(function* () {
      const { world } = yield* setUp(false)
      yield* world.sim.setAccountData(ALICE, "m.ignored_user_list", { ignored_users: { [BOB]: {} } })
      const roomId = yield* invite(world, "Party", BOB)
      const { client } = yield* startNotifier(world)
      assert.deepStrictEqual(reading(yield* client.resolve({ roomId, eventId: "$p" })), { filtered: "ignoredSender" })
    })
  )
})

describe("Notifications are judged", () => {
  /** Resolves one event of Bob's in a room in the clear. */
  const judge = Effect.fnUntraced(function* (
    event: { readonly type?: string; readonly content: MatrixEvent.JsonObject; readonly sender?: string },
    prepare: (world: World, roomId: string) => Effect.Effect<unknown> = () => Effect.void
  ) {
    const { roomId, world } = yield* setUp(false)
    yield* prepare(world, roomId)
    const eventId = yield* world.sim.sendEvent(roomId, { type: "m.room.message", sender: BOB, ...event })
    const { client } = yield* startNotifier(world)
    return { world, eventId, result: yield* client.resolve({ roomId, eventId }) }
  })

  it.effect("a message by somebody whom the user ignores isn't shown: found by the sync, and by its surroundings", () =>
    Effect.gen(function* () {
      const { roomId, world } = yield* setUp(false)
      yield* world.sim.setAccountData(ALICE, "m.ignored_user_list", { ignored_users: { [BOB]: {} } })
      const old = yield* sayLongAgo(world, roomId)
      const eventId = yield* world.sim.sendMessage(roomId, BOB, "hello")
      const { client } = yield* startNotifier(world)
      const results = yield* client.resolveMany([
        { roomId, eventId },
        { roomId, eventId: old }
      ])
      assert.deepStrictEqual(results.map(reading), [{ filtered: "ignoredSender" }, { filtered: "ignoredSender" }])
    })
  )

  it.effect("the user's own aren't shown", () =>
    Effect.gen(function* () {
      const { result } = yield* judge({ content: content("from my other device"), sender: ALICE })
      assert.deepStrictEqual(reading(result), { filtered: "ownEvent" })
    })
  )

  it.effect("what was taken back isn't shown", () =>
    Effect.gen(function* () {
      const { roomId, world } = yield* setUp(false)
      const eventId = yield* world.sim.sendMessage(roomId, BOB, "oops")
      const type = "m.room.redaction"
      yield* world.sim.sendEvent(roomId, { type, sender: BOB, redacts: eventId, content: { redacts: eventId } })
      const { client } = yield* startNotifier(world)
      assert.strictEqual(reading(yield* client.resolve({ roomId, eventId })), "Redacted")
    })
  )

  it.effect("what the push rules silence isn't shown, and the rule is named", () =>
    Effect.gen(function* () {
      const mute = { kind: "room", rule_id: "!", enabled: true, actions: [] }
      const muted = yield* judge({ content: content("hello") }, (world, roomId) =>
        world.sim.setAccountData(ALICE, "m.push_rules", { global: { room: [{ ...mute, rule_id: roomId }] } })
      )
      assert.strictEqual((muted.result as { readonly rule?: string }).rule?.[0], "!")
      const edit = yield* judge({
        content: content("* x", { "m.relates_to": { rel_type: "m.replace", event_id: "$a" } })
      })
      assert.deepStrictEqual(reading(edit.result), { filtered: ".m.rule.suppress_edits" })
      const reaction = yield* judge({ type: "m.reaction", content: {} })
      assert.deepStrictEqual(reading(reaction.result), { filtered: ".m.rule.reaction" })
      const notice = yield* judge({ content: { msgtype: "m.notice", body: "bot" } })
      assert.deepStrictEqual(reading(notice.result), { filtered: ".m.rule.suppress_notices" })
    })
  )

  it.effect("a mention is louder, a membership silent", () =>
    Effect.gen(function* () {
      const { result } = yield* judge({ content: content("alice!", { "m.mentions": { user_ids: [ALICE] } }) })
      const item = yield* itemOf(result)
      assert.deepStrictEqual([item.isMention, item.isNoisy], [true, true])

      const { roomId, world } = yield* setUp(false)
      const member = { type: "m.room.member", sender: BOB, stateKey: BOB }
      const eventId = yield* world.sim.sendEvent(roomId, { ...member, content: { membership: "leave" } })
      const { client } = yield* startNotifier(world)
      assert.deepStrictEqual(reading(yield* client.resolve({ roomId, eventId })), { filtered: ".m.rule.member_event" })
    })
  )

  it.effect("threads: only those are shown that the user follows, if a rule says so", () =>
    Effect.gen(function* () {
      const { roomId, world } = yield* setUp(false)
      const threads = (subscribed: boolean, actions: ReadonlyArray<string>) => ({
        rule_id: `thread ${subscribed}`,
        enabled: true,
        conditions: [{ kind: "io.element.msc4306.thread_subscription", subscribed }],
        actions
      })
      yield* setRules(world, threads(true, ["notify"]), threads(false, []), notifyAll)
      const reply = Effect.fnUntraced(function* (rootId: string) {
        const relation = { rel_type: "m.thread", event_id: rootId }
        const event = { type: "m.room.message", sender: BOB, content: content("reply", { "m.relates_to": relation }) }
        return { roomId, eventId: yield* world.sim.sendEvent(roomId, event) }
      })
      const followed = yield* world.sim.sendMessage(roomId, BOB, "followed")
      const ignored = yield* world.sim.sendMessage(roomId, BOB, "not followed")
      yield* world.sim.model((state, nowMillis) =>
        Result.flatMap(HomeserverModel.authenticate(state, world.session.accessToken, nowMillis), (requester) =>
          HomeserverModel.subscribeToThread(state, requester, { roomId, threadRootId: followed }, undefined)
        )
      )
      const { client } = yield* startNotifier(world)
      const pushes = [yield* reply(followed), yield* reply(ignored), { roomId, eventId: followed }]
      const results = yield* client.resolveMany(pushes)
      assert.deepStrictEqual(results.map(reading), [says("reply"), { filtered: "thread false" }, says("followed")])
      const [first] = yield* Effect.forEach(results.slice(0, 1), itemOf)
      assert.strictEqual(first?.threadRootId, followed)
      assert.deepStrictEqual(yield* calls(world), { sync: 1, "thread/subscription": 2 })

      // A homeserver that can't say is not waited for.
      yield* world.sim.inject({ operation: "thread/subscription", effect: { _tag: "Fail", reason: serverError } })
      assert.deepStrictEqual(reading(yield* client.resolve(yield* reply(followed))), says("reply"))
    })
  )

  it.effect("a room without a name is called by its people, without its service members", () =>
    Effect.gen(function* () {
      const { world } = yield* setUp(false)
      const bot = yield* world.sim.addUser("bot")
      const roomId = yield* world.sim.addRoom({ members: [BOB, ALICE, bot] })
      const functional = { type: "io.element.functional_members", sender: BOB, stateKey: "" }
      yield* world.sim.sendEvent(roomId, { ...functional, content: { service_members: [bot] } })
      const eventId = yield* world.sim.sendMessage(roomId, BOB, "hello")
      const { client } = yield* startNotifier(world)
      const { room } = yield* itemOf(yield* client.resolve({ roomId, eventId }))
      assert.deepStrictEqual([room.name, room.joinedCount], [BOB, 2])
    })
  )

  it.effect("two of the same name are told apart", () =>
    Effect.gen(function* () {
      const { result } = yield* judge({ content: content("hello") }, (world, roomId) => {
        const state = { type: "m.room.member", sender: ALICE, stateKey: ALICE }
        return world.sim.sendEvent(roomId, { ...state, content: { membership: "join", displayname: "Bob" } })
      })
      assert.isTrue((yield* itemOf(result)).sender.isNameAmbiguous)
    })
  )

  it.effect("calls are told first", () =>
    Effect.gen(function* () {
      const { roomId, world } = yield* setUp(false)
      yield* setRules(world, notifyAll)
      const message = yield* world.sim.sendMessage(roomId, BOB, "hello")
      const call = yield* world.sim.sendEvent(roomId, { type: "m.call.invite", sender: BOB, content: {} })
      const { client } = yield* startNotifier(world)
      const told = yield* Stream.runCollect(
        client.resolving([
          { roomId, eventId: message },
          { roomId, eventId: call }
        ])
      )
      assert.deepStrictEqual(
        told.map(({ request }) => request.eventId),
        [call, message]
      )
    })
  )

  it.effect("by what an event says when it is decrypted, not by how it came", () =>
    Effect.gen(function* () {
      const { bob, roomId, world } = yield* setUp(true)
      const app = yield* startChat(world, "app")
      const send = (type: string, body: MatrixEvent.JsonObject) =>
        Effect.map(bob.rooms.send(roomId, type, body), (eventId) => ({ roomId, eventId }))
      const pushes = [
        yield* send(
          "m.room.message",
          content("* new words", { "m.relates_to": { rel_type: "m.replace", event_id: "$x" } })
        ),
        yield* send("m.reaction", {}),
        yield* send("m.room.message", content("alice!", { "m.mentions": { user_ids: [ALICE] } })),
        yield* send("m.room.message", content("secret"))
      ]
      yield* settle
      yield* app.service.stop()
      const { client } = yield* startNotifier(world)
      const results = yield* client.resolveMany(pushes)
      assert.deepStrictEqual(results.map(reading), [
        { filtered: ".m.rule.suppress_edits" },
        { filtered: ".m.rule.reaction" },
        says("alice!"),
        says("secret")
      ])
      assert.isTrue((yield* itemOf(results[2]!)).isMention)
    })
  )
})
