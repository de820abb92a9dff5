import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Schedule, Scope } from "effect"
import type { MatrixEvent, SlidingSync } from "@twinloop/core"
import { encryptionConformance, syncConformance } from "@twinloop/core/testing"
import { type CannotListen, DevHomeserver, layer, type Options } from "../src/dev/DevHomeserver.ts"
import {
  type Account,
  addUser,
  ask,
  type Ask,
  type Client,
  clientOf,
  encryptionHarness,
  type Json,
  syncHarness,
  v3
} from "./DevHarness.ts"

type Dev = DevHomeserver["Service"]

const build = (options: Partial<Options> = {}): Effect.Effect<Dev, CannotListen, Scope.Scope> =>
  Effect.map(Layer.build(layer({ port: 0, ...options })), (context) => Context.get(context, DevHomeserver))

for (const spelling of ["unstable", "v4"] as const) {
  const dev = build({ spellings: [spelling] })
  syncConformance(`the dev homeserver over HTTP (${spelling})`, Effect.flatMap(dev, syncHarness))
  encryptionConformance(`the dev homeserver over HTTP (${spelling})`, Effect.flatMap(dev, encryptionHarness))
}

const extensionRequest = (timeoutMillis: number, pos?: string): SlidingSync.SyncRequest => ({
  connId: "encryption",
  timeoutMillis,
  lists: {},
  roomSubscriptions: {},
  extensions: { toDevice: {} },
  ...(pos !== undefined && { pos })
})

/** Looks again and again until so many polls wait. */
const untilPollsWait = ({ host }: Dev, count: number): Effect.Effect<number> =>
  Effect.repeat(host.waitingPolls, { until: (waiting) => waiting === count, schedule: Schedule.spaced("2 millis") })

const forkPoll = (dev: Dev, client: Client) =>
  Effect.gen(function* () {
    const { pos } = yield* client.sync(extensionRequest(0))
    const poll = yield* Effect.forkChild(Effect.exit(client.sync(extensionRequest(25_000, pos))))
    yield* untilPollsWait(dev, 1)
    return poll
  })

describe("DevHomeserver", () => {
  it.live("says what to do when its port is taken", () =>
    Effect.gen(function* () {
      const { port } = yield* build()
      const error = yield* Effect.flip(build({ port }))
      assert.strictEqual(error._tag, "CannotListen")
      assert.include(error.message, `port ${port}`)
      assert.include(error.message, "choose another port")
    }).pipe(Effect.scoped)
  )

  it.live("ends a poll when its client disconnects, and delivers nothing by it", () =>
    Effect.gen(function* () {
      const dev = yield* build()
      const account = yield* addUser(dev, "alice")
      const poll = yield* forkPoll(dev, yield* clientOf(dev, account))
      yield* Fiber.interrupt(poll)
      yield* untilPollsWait(dev, 0)
      const { user_id, device_id } = account
      yield* ask(dev, "/_twinloop/toDevice", { body: { user_id, device_id, count: 2 } })
      const query = new URLSearchParams({ user_id, device_id })
      const { json } = yield* ask(dev, `/_twinloop/ledger?${query}`)
      const entries = json.entries as ReadonlyArray<Json>
      assert.deepStrictEqual(
        entries.map(({ number, deliveries }) => [number, deliveries]),
        [
          [1, 0],
          [2, 0]
        ]
      )
    }).pipe(Effect.scoped)
  )

  it.live("I4: closes at once, whoever waits", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const dev = yield* Scope.provide(build(), scope)
      const client = yield* clientOf(dev, yield* addUser(dev, "alice"))
      const poll = yield* forkPoll(dev, client)
      yield* Effect.timeout(Scope.close(scope, Exit.void), "2 seconds")
      assert.isTrue(Exit.isFailure(yield* Fiber.join(poll)))
      assert.strictEqual((yield* Effect.flip(client.capabilities)).reason._tag, "NetworkError")
    }).pipe(Effect.scoped)
  )

  it.live("is unreachable for as long as it was told", () =>
    Effect.gen(function* () {
      const dev = yield* build()
      const client = yield* clientOf(dev, yield* addUser(dev, "alice"))
      const poll = yield* forkPoll(dev, client)
      const { status } = yield* ask(dev, "/_twinloop/unreachable", { body: { millis: 300 } })
      assert.strictEqual(status, 200)
      const lost = yield* Fiber.join(poll)
      assert.strictEqual(Exit.isFailure(lost), true)
      assert.strictEqual((yield* Effect.flip(client.capabilities)).reason._tag, "NetworkError")
      yield* Effect.retry(client.capabilities, Schedule.spaced("20 millis"))
    }).pipe(Effect.scoped)
  )

  it.live("forgets positions and expires tokens when told so", () =>
    Effect.gen(function* () {
      const dev = yield* build()
      const account = yield* addUser(dev, "alice")
      const client = yield* clientOf(dev, account)
      const { user_id, device_id } = account
      const { pos } = yield* client.sync(extensionRequest(0))
      yield* ask(dev, "/_twinloop/expire", { body: { user_id, device_id, conn_id: "encryption" } })
      assert.strictEqual((yield* Effect.flip(client.sync(extensionRequest(0, pos)))).reason._tag, "UnknownPosition")
      yield* ask(dev, "/_twinloop/expireTokens", { body: { user_id, device_id } })
      assert.deepInclude((yield* Effect.flip(client.sync(extensionRequest(0)))).reason, {
        _tag: "Unauthorized",
        softLogout: true
      })
    }).pipe(Effect.scoped)
  )

  it.live("tells of a device's keys, and drops the device when told so", () =>
    Effect.gen(function* () {
      const dev = yield* build()
      const account = yield* addUser(dev, "alice")
      const client = yield* clientOf(dev, account)
      const { user_id, device_id } = account
      const query = new URLSearchParams({ user_id, device_id })
      const upload = (key: string) =>
        client.keys({ kind: "upload", body: { one_time_keys: { "curve25519:A": key }, fallback_keys: { "a:F": "f" } } })
      yield* upload("first")
      assert.include((yield* Effect.flip(upload("second"))).message, "already exists")
      const device_keys = { user_id, device_id, algorithms: [], keys: {}, signatures: {} }
      yield* client.keys({ kind: "upload", body: { device_keys } })
      yield* client.keys({ kind: "claim", body: { one_time_keys: { [user_id]: { [device_id]: "curve25519" } } } })
      yield* client.keys({ kind: "claim", body: { one_time_keys: { [user_id]: { [device_id]: "a" } } } })
      yield* upload("third")
      assert.deepStrictEqual((yield* ask(dev, `/_twinloop/keys?${query}`)).json, {
        one_time_keys: { signed_curve25519: 0, curve25519: 1 },
        uploaded: 1,
        claimed: 1,
        conflicts: 1,
        reused: 1,
        fallback_used: 1,
        unused_fallback_key_types: [],
        device_keys
      })
      yield* ask(dev, "/_twinloop/dropDevice", { body: { user_id, device_id } })
      assert.deepInclude((yield* Effect.flip(client.sync(extensionRequest(0)))).reason, {
        _tag: "Unauthorized",
        softLogout: false
      })
      assert.strictEqual((yield* ask(dev, `/_twinloop/keys?${query}`)).status, 404)
      assert.strictEqual((yield* ask(dev, "/_twinloop/hold", { body: { user_id, device_id } })).status, 404)
    }).pipe(Effect.scoped)
  )

  it.live("holds back, releases and repeats to-device messages when told so", () =>
    Effect.gen(function* () {
      const dev = yield* build()
      const account = yield* addUser(dev, "alice")
      const client = yield* clientOf(dev, account)
      const { user_id, device_id } = account
      const tell = (what: string, rest: Json = {}) =>
        ask(dev, `/_twinloop/${what}`, { body: { user_id, device_id, ...rest } })
      yield* tell("hold")
      yield* tell("toDevice", { count: 2 })
      const { extensions, pos } = yield* client.sync(extensionRequest(0))
      assert.deepStrictEqual(extensions.toDevice?.events, [])
      const since = extensions.toDevice!.nextBatch
      const poll = yield* Effect.forkChild(
        client.sync({ ...extensionRequest(25_000, pos), extensions: { toDevice: { since } } })
      )
      yield* untilPollsWait(dev, 1)
      assert.deepStrictEqual((yield* tell("repeat", { number: 1 })).json, { number: 3 })
      assert.strictEqual((yield* tell("repeat", { number: 9 })).status, 404)
      yield* tell("release")
      const { events } = (yield* Fiber.join(poll)).extensions.toDevice!
      assert.deepStrictEqual(
        events.map(({ content }) => content.number),
        [1, 2, 1]
      )
    }).pipe(Effect.scoped)
  )

  it.live("ends every session of an account that logs out everywhere", () =>
    Effect.gen(function* () {
      const dev = yield* build()
      const { access_token: token } = yield* addUser(dev, "alice")
      const { access_token: other } = yield* addUser(dev, "alice")
      yield* ask(dev, `${v3}/logout/all`, { method: "POST", token })
      for (const each of [token, other])
        assert.strictEqual((yield* ask(dev, `${v3}/account/whoami`, { token: each })).status, 401)
    }).pipe(Effect.scoped)
  )

  it.live("logs in, refreshes and logs out", () =>
    Effect.gen(function* () {
      const dev = yield* build()
      const register = { username: "carol", password: "secret", inhibit_login: true }
      assert.deepStrictEqual((yield* ask(dev, `${v3}/register`, { body: register })).json, {
        user_id: "@carol:localhost"
      })
      assert.strictEqual((yield* ask(dev, `${v3}/register`, { body: register })).json.errcode, "M_USER_IN_USE")
      assert.deepStrictEqual((yield* ask(dev, `${v3}/login`)).json, { flows: [{ type: "m.login.password" }] })
      const login = (password: string) => ({
        body: {
          type: "m.login.password",
          identifier: { type: "m.id.user", user: "carol" },
          password,
          device_id: "PHONE",
          refresh_token: true
        }
      })
      assert.strictEqual((yield* ask(dev, `${v3}/login`, login("wrong"))).status, 403)
      const { json } = yield* ask(dev, `${v3}/login`, login("secret"))
      assert.deepInclude(json, { user_id: "@carol:localhost", device_id: "PHONE", expires_in_ms: 300_000 })
      const refreshed = yield* ask(dev, `${v3}/refresh`, { body: { refresh_token: json.refresh_token } })
      const token = String(refreshed.json.access_token)
      assert.deepStrictEqual((yield* ask(dev, `${v3}/account/whoami`, { token })).json, {
        user_id: "@carol:localhost",
        device_id: "PHONE",
        is_guest: false
      })
      const again = yield* ask(dev, `${v3}/refresh`, { body: { refresh_token: json.refresh_token } })
      assert.strictEqual(again.json.errcode, "M_FORBIDDEN", "the new token has been used")
      yield* ask(dev, `${v3}/logout`, { method: "POST", token })
      const after = yield* ask(dev, `${v3}/account/whoami`, { token })
      assert.deepInclude(after, { status: 401 })
      assert.isUndefined(after.json.soft_logout)
    }).pipe(Effect.scoped)
  )

  it.live("I7: refuses what it can't understand, and says why", () =>
    Effect.gen(function* () {
      const dev = yield* build()
      const { access_token: token } = yield* addUser(dev, "alice")
      const unstable = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
      const errcode = (path: string, options: Ask = {}) =>
        Effect.map(ask(dev, path, options), ({ status, json }) => `${status} ${json.errcode}`)
      assert.strictEqual(yield* errcode("/nowhere"), "404 M_UNRECOGNIZED")
      assert.strictEqual(yield* errcode(`${v3}/sync`), "404 M_UNRECOGNIZED")
      assert.strictEqual(yield* errcode(`${v3}/createRoom`), "405 M_UNRECOGNIZED")
      assert.strictEqual(yield* errcode(`${v3}/login`, { body: "{" }), "400 M_NOT_JSON")
      assert.strictEqual(yield* errcode(`${v3}/login`, { body: "[]" }), "400 M_BAD_JSON")
      assert.strictEqual(yield* errcode(`${v3}/account/whoami`), "401 M_MISSING_TOKEN")
      assert.strictEqual(yield* errcode(unstable, { body: { conn_id: 3 }, token: "x" }), "401 M_UNKNOWN_TOKEN")
      assert.strictEqual(yield* errcode(unstable, { body: { conn_id: 3 }, token }), "400 M_INVALID_PARAM")
      const page = { body: { username: "mallory" }, origin: "http://evil.example" }
      assert.strictEqual(yield* errcode("/_twinloop/users", page), "403 M_FORBIDDEN")
    }).pipe(Effect.scoped)
  )

  it.live("serves the endpoints about rooms", () =>
    Effect.gen(function* () {
      const dev = yield* build()
      const alice = yield* addUser(dev, "alice")
      const bob = yield* addUser(dev, "bob")
      const as = (account: Account, path: string, options: Ask = {}) =>
        Effect.map(ask(dev, v3 + path, { ...options, token: account.access_token }), ({ status, json }) => {
          assert.strictEqual(status, 200, `${path}: ${JSON.stringify(json)}`)
          return json
        })
      const put = (body: Json) => ({ method: "PUT", body })
      yield* as(bob, `/profile/${bob.user_id}/displayname`, put({ displayname: "Bob" }))
      const { room_id } = yield* as(alice, "/createRoom", { body: { name: "Kitchen", invite: [bob.user_id] } })
      const room = `/rooms/${encodeURIComponent(String(room_id))}`
      yield* as(bob, `${room}/join`, { body: {} })
      const { event_id } = yield* as(bob, `${room}/send/m.room.message/t1`, put({ msgtype: "m.text", body: "soup" }))
      yield* as(alice, `${room}/state/m.room.topic`, put({ topic: "food" }))
      assert.deepStrictEqual(yield* as(bob, `${room}/state/m.room.topic/`), { topic: "food" })
      assert.deepInclude(yield* as(alice, `${room}/event/${encodeURIComponent(String(event_id))}`), {
        event_id,
        room_id
      })
      const { chunk } = yield* as(alice, `${room}/messages?dir=b&limit=2`)
      assert.deepStrictEqual(
        (chunk as ReadonlyArray<Json>).map(({ type }) => type),
        ["m.room.topic", "m.room.message"]
      )
      assert.deepStrictEqual(yield* as(alice, `${room}/joined_members`), {
        joined: { [alice.user_id]: {}, [bob.user_id]: { display_name: "Bob" } }
      })
      yield* as(bob, `${room}/typing/${bob.user_id}`, put({ typing: true, timeout: 5_000 }))
      yield* as(alice, `${room}/receipt/m.read/${encodeURIComponent(String(event_id))}`, { body: {} })
      yield* as(alice, `${room}/redact/${encodeURIComponent(String(event_id))}/t2`, put({ reason: "too hot" }))
      assert.deepInclude(yield* as(alice, `${room}/event/${encodeURIComponent(String(event_id))}`), { content: {} })
      yield* as(alice, `/user/${alice.user_id}/account_data/org.example`, put({ a: 1 }))
      assert.deepStrictEqual(yield* as(alice, `/user/${alice.user_id}/account_data/org.example`), { a: 1 })
      assert.property(yield* as(alice, "/pushrules/"), "global")
      const { filter_id } = yield* as(alice, `/user/${alice.user_id}/filter`, { body: { room: {} } })
      assert.deepStrictEqual(yield* as(alice, `/user/${alice.user_id}/filter/${filter_id}`), { room: {} })
      const rooms = yield* ask(dev, "/_twinloop/rooms", {
        body: { user_id: alice.user_id, count: 3, members: [bob.user_id] }
      })
      const { joined_rooms } = yield* as(bob, "/joined_rooms")
      assert.deepStrictEqual(joined_rooms, [room_id, ...(rooms.json.room_ids as ReadonlyArray<MatrixEvent.RoomId>)])
    }).pipe(Effect.scoped)
  )
})
