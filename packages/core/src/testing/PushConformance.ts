/**
 * What any homeserver must do about pushes, as a suite against the `Homeserver` port and a push gateway.
 *
 * It runs over the dev homeserver by HTTP and over a real Synapse, so that what a gateway gets from the one has the shape of
 * what it gets from the other. It states only what both promise: a tweak `highlight: false`, which Synapse sends and the
 * specification leaves out, counts as none.
 *
 * Real time: nothing sleeps until something is probably true. That something is *not* pushed shows in the next push being
 * another one, since a pusher sends in order.
 *
 * Needs `@effect/vitest`, an optional peer of this package.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Predicate, Schedule } from "effect"
import type { Scope } from "effect"
import type { EventId, JsonObject, RoomId, UserId } from "../matrix/MatrixEvent.ts"
import type { Pusher } from "../matrix/Pusher.ts"
import type { SyncRequest } from "../matrix/SlidingSync.ts"
import type { Homeserver } from "../sync/Homeserver.ts"

type Client = Homeserver["Service"]

/** How a gateway answers a push. */
export interface GatewayAnswer {
  readonly status: number
  readonly json: JsonObject
}

/** A push gateway that is scripted. */
export interface GatewayUnderTest {
  /** Its address, with the path of the push gateway API. */
  readonly url: string
  /** Waits for the next request and gives its JSON; each is given once, in the order of their arrival. */
  readonly next: Effect.Effect<JsonObject>
  /** Has the next requests answered like this, one each; afterwards every push is taken again. */
  script(...answers: ReadonlyArray<GatewayAnswer>): Effect.Effect<void>
}

/** A request beyond the port. */
export interface PushRequest {
  readonly method: "GET" | "POST" | "PUT" | "DELETE"
  /** Behind `/_matrix/client`. */
  readonly path: string
  readonly body?: JsonObject
}

/** Two users without rooms, each with a session of a new device, a gateway that nobody else uses, and what the port lacks. */
export interface PushHarness {
  readonly alice: Client
  readonly bob: Client
  readonly gateway: GatewayUnderTest
  /** Logs a client's user in as a new device. */
  logIn(as: Client): Effect.Effect<Client, unknown, Scope.Scope>
  /** Any request with a client's token; any status is an answer. */
  request(
    by: Client,
    request: PushRequest
  ): Effect.Effect<{ readonly status: number; readonly json: JsonObject }, unknown>
}

// --- acting

const taken: GatewayAnswer = { status: 200, json: { rejected: [] } }
const broken: GatewayAnswer = { status: 502, json: {} }

const segment = encodeURIComponent

/** A request that must succeed. */
const act = Effect.fnUntraced(function* (harness: PushHarness, by: Client, request: PushRequest) {
  const { status, json } = yield* harness.request(by, request)
  assert.strictEqual(status, 200, `${request.method} ${request.path}: ${JSON.stringify(json)}`)
  return json
})

const join = (harness: PushHarness, by: Client, roomId: RoomId) =>
  act(harness, by, { method: "POST", path: `/v3/join/${segment(roomId)}`, body: {} })

const createRoom = (harness: PushHarness, by: Client, body: JsonObject) =>
  Effect.map(act(harness, by, { method: "POST", path: "/v3/createRoom", body }), ({ room_id }) => String(room_id))

/** A room of Alice's with Bob in it. */
const sharedRoom = Effect.fnUntraced(function* (harness: PushHarness, name = "Kitchen") {
  const roomId = yield* createRoom(harness, harness.alice, { name, invite: [harness.bob.session.userId] })
  yield* join(harness, harness.bob, roomId)
  return roomId
})

const say = (by: Client, roomId: RoomId, body: string, content: JsonObject = {}) =>
  by.sendEvent({ roomId, type: "m.room.message", txnId: body, content: { msgtype: "m.text", body, ...content } })

const read = (harness: PushHarness, by: Client, roomId: RoomId, eventId: EventId) =>
  act(harness, by, {
    method: "POST",
    path: `/v3/rooms/${segment(roomId)}/receipt/m.read/${segment(eventId)}`,
    body: {}
  })

const setAccountData = (harness: PushHarness, by: Client, type: string, body: JsonObject) =>
  act(harness, by, { method: "PUT", path: `/v3/user/${segment(by.session.userId)}/account_data/${type}`, body })

const pusherFor = (gateway: GatewayUnderTest, owner: UserId, more: Partial<Pusher> = {}): Pusher => ({
  appId: "org.twinloop.conformance",
  pushKey: `push key of ${owner}`,
  appDisplayName: "Conformance",
  deviceDisplayName: "Phone",
  lang: "en",
  url: gateway.url,
  format: "event_id_only",
  data: { org_twinloop: { number: 1 } },
  ...more
})

/** Bob in Alice's room, with a pusher. */
const pushedTo = Effect.fnUntraced(function* (harness: PushHarness, more: Partial<Pusher> = {}) {
  const roomId = yield* sharedRoom(harness)
  const pusher = pusherFor(harness.gateway, harness.bob.session.userId, more)
  yield* harness.bob.setPusher(pusher)
  return { roomId, pusher }
})

// --- looking

const objectOf = (value: unknown, what: string): JsonObject => {
  assert(Predicate.isObject(value), `${what} is an object`)
  return value as JsonObject
}

/** The next push: its notification, and the one device that it is for. */
const nextPush = Effect.fnUntraced(function* ({ gateway }: PushHarness) {
  const body = yield* Effect.timeout(gateway.next, "20 seconds")
  assert.deepStrictEqual(Object.keys(body), ["notification"])
  const notification = objectOf(body.notification, "the notification")
  const { devices } = notification
  assert(Array.isArray(devices) && devices.length === 1, "a push is for one device")
  return { notification, device: objectOf(devices[0], "the device") }
})

const nextEventId = (harness: PushHarness) => Effect.map(nextPush(harness), ({ notification }) => notification.event_id)

const keysOf = (json: JsonObject): ReadonlyArray<string> => Object.keys(json).toSorted()

/** Looks again and again until an account has so many pushers. */
const untilPushers = (client: Client, count: number) =>
  client.pushers.pipe(
    Effect.repeat({ until: (pushers) => pushers.length === count, schedule: Schedule.spaced("20 millis") }),
    Effect.timeout("20 seconds")
  )

const accountDataAsk = (timeoutMillis: number, pos?: string): SyncRequest => ({
  connId: "conformance",
  timeoutMillis,
  lists: { all: { range: [0, 0], requiredState: [], timelineLimit: 1 } },
  roomSubscriptions: {},
  extensions: { accountData: true },
  ...(pos !== undefined && { pos })
})

/** Registers the suite. `makeHarness` is run once per test, in the test's scope, and gives users that nobody else uses. */
export const pushConformance = <E>(
  name: string,
  makeHarness: Effect.Effect<PushHarness, E, Scope.Scope>,
  options: { readonly timeoutMillis?: number } = {}
): void => {
  const test = (title: string, body: (harness: PushHarness) => Effect.Effect<void, unknown, Scope.Scope>): void => {
    it.live(title, () => Effect.scoped(Effect.flatMap(makeHarness, body)), options.timeoutMillis ?? 30_000)
  }

  describe(`push conformance of ${name}: pushers`, () => {
    test(
      "are listed as they were set, replaced, and removed, which may be done twice",
      Effect.fnUntraced(function* ({ bob, gateway }) {
        const one = pusherFor(gateway, bob.session.userId)
        const other = pusherFor(gateway, bob.session.userId, { appId: "other", format: "full", profileTag: "tag" })
        yield* bob.setPusher(one)
        yield* bob.setPusher(other)
        assert.sameDeepMembers([...(yield* bob.pushers)], [one, other])
        const replaced = { ...one, lang: "de", deviceDisplayName: "Tablet" }
        yield* bob.setPusher(replaced)
        assert.sameDeepMembers([...(yield* bob.pushers)], [replaced, other])
        yield* bob.removePusher(one)
        yield* bob.removePusher(one)
        assert.deepStrictEqual(yield* bob.pushers, [other])
      })
    )

    test(
      "are refused when their URL is not a push gateway's",
      Effect.fnUntraced(function* ({ bob, gateway }) {
        const url = gateway.url.replace("/v1/notify", "/v1/other")
        const { reason } = yield* Effect.flip(bob.setPusher(pusherFor(gateway, "@long-enough:test", { url })))
        assert(reason._tag === "BadRequest")
        assert.strictEqual(reason.errcode, "M_MISSING_PARAM")
        assert.include(reason.message, "Config Error")
        assert.deepStrictEqual(yield* bob.pushers, [])
      })
    )

    test(
      "of one account are none of another's with the same push key",
      Effect.fnUntraced(function* ({ alice, bob, gateway }) {
        yield* alice.setPusher(pusherFor(gateway, "@everybody:test"))
        yield* bob.setPusher(pusherFor(gateway, "@everybody:test"))
        assert.deepStrictEqual([(yield* alice.pushers).length, (yield* bob.pushers).length], [1, 1])
        yield* bob.removePusher(pusherFor(gateway, "@everybody:test"))
        assert.deepStrictEqual([(yield* alice.pushers).length, (yield* bob.pushers).length], [1, 0])
      })
    )

    test(
      "are seen by all devices, and go with the device that set them",
      Effect.fnUntraced(function* (harness) {
        const { bob, gateway } = harness
        const phone = yield* harness.logIn(bob)
        yield* phone.setPusher(pusherFor(gateway, bob.session.userId))
        assert.strictEqual((yield* bob.pushers).length, 1)
        yield* act(harness, phone, { method: "POST", path: "/v3/logout", body: {} })
        yield* untilPushers(bob, 0)
      })
    )
  })

  describe(`push conformance of ${name}: what a gateway gets`, () => {
    test(
      "is ids and counts in the format for ids",
      Effect.fnUntraced(function* (harness) {
        const { roomId, pusher } = yield* pushedTo(harness)
        const eventId = yield* say(harness.alice, roomId, "hello")
        const { notification, device } = yield* nextPush(harness)
        assert.deepStrictEqual(notification, {
          event_id: eventId,
          room_id: roomId,
          // A message between two sounds.
          prio: "high",
          counts: { unread: 1 },
          devices: [device]
        })
        const { pushkey_ts, ...rest } = device
        assert.isTrue(Number.isInteger(pushkey_ts))
        assert.deepStrictEqual(rest, {
          app_id: pusher.appId,
          pushkey: pusher.pushKey,
          data: { ...pusher.data, format: "event_id_only" }
        })
      })
    )

    test(
      "is everything that the homeserver sees in the full format",
      Effect.fnUntraced(function* (harness) {
        const { alice } = harness
        const { roomId, pusher } = yield* pushedTo(harness, { format: "full" })
        const eventId = yield* say(alice, roomId, "hello")
        const { notification, device } = yield* nextPush(harness)
        const { sender_display_name, ...rest } = notification
        assert.isString(sender_display_name)
        assert.deepStrictEqual(rest, {
          id: eventId,
          event_id: eventId,
          room_id: roomId,
          type: "m.room.message",
          sender: alice.session.userId,
          content: { msgtype: "m.text", body: "hello" },
          room_name: "Kitchen",
          prio: "high",
          counts: { unread: 1 },
          devices: [device]
        })
        assert.deepStrictEqual(keysOf(device), ["app_id", "data", "pushkey", "pushkey_ts", "tweaks"])
        assert.deepStrictEqual(device.data, pusher.data)
        const { highlight = false, ...tweaks } = objectOf(device.tweaks, "the tweaks")
        assert.deepStrictEqual([highlight, tweaks], [false, { sound: "default" }])
      })
    )

    test(
      "says that somebody is mentioned",
      Effect.fnUntraced(function* (harness) {
        const { alice, bob } = harness
        const { roomId } = yield* pushedTo(harness, { format: "full" })
        yield* say(alice, roomId, "look", { "m.mentions": { user_ids: [bob.session.userId] } })
        const { device } = yield* nextPush(harness)
        assert.deepStrictEqual(device.tweaks, { sound: "default", highlight: true })
      })
    )

    test(
      "is of a low priority where nothing sounds, and of a high one where nobody can know",
      Effect.fnUntraced(function* (harness) {
        const { alice } = harness
        const { roomId } = yield* pushedTo(harness, { format: "full" })
        const muteSound = { actions: ["notify"] }
        const rule = (ruleId: string) => `/v3/pushrules/global/underride/${ruleId}/actions`
        for (const ruleId of [".m.rule.room_one_to_one", ".m.rule.encrypted_room_one_to_one"])
          yield* act(harness, harness.bob, { method: "PUT", path: rule(ruleId), body: muteSound })
        yield* say(alice, roomId, "quietly")
        const quiet = yield* nextPush(harness)
        assert.strictEqual(quiet.notification.prio, "low")
        assert.notProperty(quiet.device, "tweaks")
        const content = { algorithm: "m.megolm.v1.aes-sha2", ciphertext: "AAAA", session_id: "s", device_id: "D" }
        const eventId = yield* alice.sendEvent({ roomId, type: "m.room.encrypted", txnId: "e", content })
        const { notification } = yield* nextPush(harness)
        assert.deepInclude(notification, { event_id: eventId, type: "m.room.encrypted", prio: "high", content })
      })
    )

    test(
      "is an invitation, with whom it concerns",
      Effect.fnUntraced(function* (harness) {
        const { alice, bob, gateway } = harness
        yield* bob.setPusher(pusherFor(gateway, bob.session.userId, { format: "full" }))
        const roomId = yield* createRoom(harness, alice, { name: "Hall", invite: [bob.session.userId] })
        const { notification, device } = yield* nextPush(harness)
        assert.deepInclude(notification, {
          room_id: roomId,
          type: "m.room.member",
          sender: alice.session.userId,
          membership: "invite",
          user_is_target: true,
          room_name: "Hall",
          counts: { unread: 1 },
          prio: "high"
        })
        assert.deepStrictEqual(keysOf(notification), [
          "content",
          "counts",
          "devices",
          "event_id",
          "id",
          "membership",
          "prio",
          "room_id",
          "room_name",
          "sender",
          "sender_display_name",
          "type",
          "user_is_target"
        ])
        assert.strictEqual(objectOf(device.tweaks, "the tweaks").sound, "default")
      })
    )

    test(
      "is the unread count alone when something was read",
      Effect.fnUntraced(function* (harness) {
        const { alice, bob } = harness
        const { roomId, pusher } = yield* pushedTo(harness)
        const hall = yield* sharedRoom(harness, "Hall")
        yield* nextPush(harness)
        yield* say(alice, hall, "in the hall")
        yield* nextPush(harness)
        const eventId = yield* say(alice, roomId, "in the kitchen")
        assert.deepStrictEqual((yield* nextPush(harness)).notification.counts, { unread: 2 })
        yield* read(harness, bob, roomId, eventId)
        const { notification, device } = yield* nextPush(harness)
        assert.deepStrictEqual(notification, {
          id: "",
          type: null,
          sender: "",
          counts: { unread: 1 },
          devices: [device]
        })
        assert.deepStrictEqual(keysOf(device), ["app_id", "data", "pushkey", "pushkey_ts"])
        assert.deepStrictEqual(device.data, { ...pusher.data, format: "event_id_only" })
      })
    )
  })

  describe(`push conformance of ${name}: which events`, () => {
    test(
      "come in order, from the pusher's setting on",
      Effect.fnUntraced(function* (harness) {
        const roomId = yield* sharedRoom(harness)
        yield* say(harness.alice, roomId, "too early")
        yield* harness.bob.setPusher(pusherFor(harness.gateway, harness.bob.session.userId))
        const ids = yield* Effect.forEach(["a", "b", "c", "d"], (body) => say(harness.alice, roomId, body))
        assert.deepStrictEqual(yield* Effect.forEach(ids, () => nextEventId(harness)), ids)
      })
    )

    test(
      "are not one's own, those of a muted room, of an ignored sender, nor edits and reactions",
      Effect.fnUntraced(function* (harness) {
        const { alice, bob } = harness
        const { roomId } = yield* pushedTo(harness)
        yield* say(bob, roomId, "mine")
        const heard = yield* say(alice, roomId, "heard")
        assert.strictEqual(yield* nextEventId(harness), heard)
        const edit = { "m.relates_to": { rel_type: "m.replace", event_id: heard }, "m.new_content": { body: "x" } }
        yield* say(alice, roomId, "* x", edit)
        const annotation = { "m.relates_to": { rel_type: "m.annotation", event_id: heard, key: "👍" } }
        yield* alice.sendEvent({ roomId, type: "m.reaction", txnId: "r", content: annotation })
        const mute = `/v3/pushrules/global/override/${segment(roomId)}`
        const conditions = [{ kind: "event_match", key: "room_id", pattern: roomId }]
        yield* act(harness, bob, { method: "PUT", path: mute, body: { conditions, actions: [] } })
        yield* say(alice, roomId, "muted")
        yield* act(harness, bob, { method: "DELETE", path: mute })
        const ignored = { ignored_users: { [alice.session.userId]: {} } }
        yield* setAccountData(harness, bob, "m.ignored_user_list", ignored)
        yield* say(alice, roomId, "ignored")
        yield* setAccountData(harness, bob, "m.ignored_user_list", { ignored_users: {} })
        assert.strictEqual(yield* say(alice, roomId, "heard again"), yield* nextEventId(harness))
      })
    )

    test(
      "come again until the gateway takes them, with the later ones behind them",
      Effect.fnUntraced(function* (harness) {
        const { alice, gateway } = harness
        const { roomId } = yield* pushedTo(harness)
        yield* gateway.script(broken, taken)
        const first = yield* say(alice, roomId, "a")
        assert.strictEqual(yield* nextEventId(harness), first)
        const second = yield* say(alice, roomId, "b")
        assert.deepStrictEqual([yield* nextEventId(harness), yield* nextEventId(harness)], [first, second])
      })
    )

    test(
      "are left out when they were redacted before the gateway took them",
      Effect.fnUntraced(function* (harness) {
        const { alice, gateway } = harness
        const { roomId } = yield* pushedTo(harness)
        yield* gateway.script(broken, taken)
        const redacted = yield* say(alice, roomId, "oops")
        assert.strictEqual(yield* nextEventId(harness), redacted)
        const path = `/v3/rooms/${segment(roomId)}/redact/${segment(redacted)}/r`
        yield* act(harness, alice, { method: "PUT", path, body: {} })
        const kept = yield* say(alice, roomId, "hello")
        assert.strictEqual(yield* nextEventId(harness), kept)
      })
    )

    test(
      "end with the push key that the gateway rejects",
      Effect.fnUntraced(function* (harness) {
        const { alice, bob, gateway } = harness
        const { roomId, pusher } = yield* pushedTo(harness)
        const other = pusherFor(gateway, bob.session.userId, { appId: "other" })
        yield* gateway.script({ status: 200, json: { rejected: ["somebody else's"] } })
        yield* say(alice, roomId, "a")
        yield* nextPush(harness)
        assert.strictEqual((yield* bob.pushers).length, 1)
        yield* gateway.script({ status: 200, json: { rejected: [pusher.pushKey] } })
        yield* say(alice, roomId, "b")
        yield* nextPush(harness)
        yield* untilPushers(bob, 0)
        yield* bob.setPusher(other)
        yield* say(alice, roomId, "c")
        assert.strictEqual((yield* nextPush(harness)).device.app_id, "other")
      })
    )
  })

  describe(`push conformance of ${name}: what a notification needs`, () => {
    test(
      "is an event's context with the members that matter, and the rest of the state",
      Effect.fnUntraced(function* (harness) {
        const { alice, bob } = harness
        const roomId = yield* sharedRoom(harness)
        const eventId = yield* say(alice, roomId, "hello")
        const { event, state } = yield* bob.eventContext(roomId, eventId)
        assert.strictEqual(event.event_id, eventId)
        const members = state.filter(({ type }) => type === "m.room.member").map(({ state_key }) => state_key)
        assert.deepStrictEqual(members, [alice.session.userId])
        const types = state.map(({ type }) => type)
        assert.includeMembers(types, ["m.room.create", "m.room.name", "m.room.power_levels", "m.room.join_rules"])
      })
    )

    test(
      "is no look into a room that one was only invited to, nor one that comes after leaving",
      Effect.fnUntraced(function* (harness) {
        const { alice, bob } = harness
        const [roomId, hall] = [yield* sharedRoom(harness), yield* createRoom(harness, alice, { name: "Hall" })]
        const path = (id: string, what: string) => `/v3/rooms/${segment(id)}/${what}`
        const user_id = bob.session.userId
        yield* act(harness, alice, { method: "POST", path: path(hall, "invite"), body: { user_id } })
        const member = yield* act(harness, alice, { method: "GET", path: path(hall, `state/m.room.member/${user_id}`) })
        assert.strictEqual(member.membership, "invite")
        const inHall = yield* say(alice, hall, "in the hall")
        const before = yield* say(alice, roomId, "before")
        for (const id of [roomId, hall]) yield* act(harness, bob, { method: "POST", path: path(id, "leave"), body: {} })
        const after = yield* say(alice, roomId, "after")
        assert.strictEqual((yield* bob.eventContext(roomId, before)).event.event_id, before)
        for (const [id, eventId] of [
          [roomId, after],
          [hall, inHall]
        ] as const) {
          const { reason } = yield* Effect.flip(bob.eventContext(id, eventId))
          assert.oneOf(reason._tag, ["Forbidden", "NotFound"])
        }
      })
    )

    test(
      "is the push rules, which are account data whichever way they are changed",
      Effect.fnUntraced(function* (harness) {
        const { bob } = harness
        const first = yield* bob.sync(accountDataAsk(0))
        const poll = yield* Effect.forkChild(
          bob.sync(accountDataAsk(25_000, first.pos)).pipe(Effect.timeout("20 seconds"))
        )
        const path = `/v3/pushrules/global/room/${segment("!some:room")}`
        yield* act(harness, bob, { method: "PUT", path, body: { actions: [] } })
        const { extensions } = yield* Fiber.join(poll)
        const told = extensions.accountData?.global.find(({ type }) => type === "m.push_rules")
        const rules = yield* act(harness, bob, { method: "GET", path: "/v3/pushrules/" })
        assert.deepStrictEqual(told?.content, rules)
        const rule = { rule_id: "!some:room", default: false, enabled: true, actions: [] }
        assert.deepInclude(yield* act(harness, bob, { method: "GET", path }), rule)
        yield* act(harness, bob, { method: "PUT", path: `${path}/enabled`, body: { enabled: false } })
        assert.deepStrictEqual(yield* act(harness, bob, { method: "GET", path: `${path}/enabled` }), { enabled: false })
        yield* act(harness, bob, { method: "DELETE", path })
        assert.strictEqual((yield* harness.request(bob, { method: "GET", path })).status, 404)
      })
    )

    test(
      "is whether the user follows a thread",
      Effect.fnUntraced(function* (harness) {
        const { alice, bob } = harness
        const roomId = yield* sharedRoom(harness)
        const root = yield* say(alice, roomId, "root")
        const path = `/unstable/io.element.msc4306/rooms/${segment(roomId)}/thread/${segment(root)}/subscription`
        assert.isFalse(yield* bob.isThreadSubscribed(roomId, root))
        yield* act(harness, bob, { method: "PUT", path, body: {} })
        assert.isTrue(yield* bob.isThreadSubscribed(roomId, root))
        assert.isFalse(yield* alice.isThreadSubscribed(roomId, root))
        yield* act(harness, bob, { method: "DELETE", path })
        assert.isFalse(yield* bob.isThreadSubscribed(roomId, root))
        assert.isFalse(yield* bob.isThreadSubscribed(roomId, "$nothing"))
      })
    )
  })
}
