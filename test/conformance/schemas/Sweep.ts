/**
 * The dev homeserver asked directly, by a tester: every route as it is meant.
 *
 * Not here: requests that are drawn (`Drawn.ts`); keys and signatures that are right, which clients with a real machine send
 * (`Stories.ts`); wrong requests on purpose, of which the conformance suites of the test kit have many.
 */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import {
  type Account,
  addUser,
  ask,
  type Ask,
  type Json,
  type Place,
  v3
} from "../../../packages/platform/test/DevHarness.ts"

export const segment = encodeURIComponent

type As = (path: string, options?: Ask) => Effect.Effect<Json>

/** Requests of an account that must succeed. */
export const asUser =
  (place: Place, { access_token: token }: Account): As =>
  (path, options = {}) =>
    Effect.map(ask(place, path.startsWith("/_") ? path : v3 + path, { ...options, token }), ({ json, status }) => {
      assert.strictEqual(status, 200, `${options.method ?? ""} ${path}: ${JSON.stringify(json)}`)
      return json
    })

export const put = (body: Json): Ask => ({ method: "PUT", body })
export const post = (body: Json = {}): Ask => ({ method: "POST", body })

/** What asks for the password: refused with a session at first, which is then used. */
const confirmed = Effect.fnUntraced(function* (place: Place, by: Account, path: string, options: Ask) {
  const { json, status } = yield* ask(place, v3 + path, { ...options, token: by.access_token })
  assert.strictEqual(status, 401)
  const identifier = { type: "m.id.user", user: by.user_id }
  const auth = { type: "m.login.password", identifier, password: "alice", session: json.session }
  yield* asUser(place, by)(path, { ...options, body: { ...(options.body as Json), auth } })
})

const logInAgain = ({ user_id }: Account, place: Place) =>
  Effect.map(
    ask(place, `${v3}/login`, {
      body: {
        type: "m.login.password",
        identifier: { type: "m.id.user", user: user_id },
        password: "alice",
        refresh_token: true
      }
    }),
    ({ json }) => json as unknown as Account & { readonly refresh_token: string }
  )

const accounts = Effect.fnUntraced(function* (place: Place, alice: Account) {
  const as = asUser(place, alice)
  const user = `/user/${alice.user_id}`
  yield* as("/_matrix/client/versions")
  yield* as("/login")
  yield* as("/register", post({ username: "carol", password: "secret", auth: { type: "m.login.dummy" } }))
  yield* as("/register", post({ username: "dan", password: "secret", inhibit_login: true }))
  const { refresh_token } = yield* logInAgain(alice, place)
  yield* as("/refresh", post({ refresh_token }))
  yield* as("/account/whoami")
  yield* as("/capabilities")
  yield* as("/devices")
  yield* as(`/devices/${alice.device_id}`)
  yield* as(`/devices/${alice.device_id}`, put({ display_name: "Phone" }))
  const [one, two] = [yield* logInAgain(alice, place), yield* logInAgain(alice, place)]
  yield* confirmed(place, alice, `/devices/${one.device_id}`, { method: "DELETE", body: {} })
  yield* confirmed(place, alice, "/delete_devices", post({ devices: [two.device_id] }))
  yield* as(`/profile/${alice.user_id}/displayname`, put({ displayname: "Alice" }))
  yield* as(`/profile/${alice.user_id}/avatar_url`, put({ avatar_url: "mxc://localhost/alice" }))
  for (const field of ["", "/displayname", "/avatar_url"]) yield* as(`/profile/${alice.user_id}${field}`)
  const { filter_id } = yield* as(`${user}/filter`, post({ room: { timeline: { limit: 5 } } }))
  yield* as(`${user}/filter/${String(filter_id)}`)
  yield* as(`${user}/account_data/org.example`, put({ a: 1 }))
  yield* as(`${user}/account_data/org.example`)
  yield* as("/voip/turnServer")
  yield* as("/thirdparty/protocols")
  yield* as(`/presence/${alice.user_id}/status`, put({ presence: "online" }))
  const device = yield* logInAgain(alice, place)
  yield* asUser(place, device)("/logout", post())
})

const rooms = Effect.fnUntraced(function* (place: Place, alice: Account, bob: Account) {
  const [as, by] = [asUser(place, alice), asUser(place, bob)]
  const target = post({ user_id: bob.user_id })
  const { room_id } = yield* as("/createRoom", post({ name: "Kitchen", invite: [bob.user_id], preset: "private_chat" }))
  const room = `/rooms/${segment(String(room_id))}`
  yield* by(`${room}/join`, post())
  yield* by(`${room}/leave`, post())
  yield* by(`${room}/forget`, post())
  yield* as(`${room}/invite`, target)
  yield* by(`/join/${segment(String(room_id))}`, post())
  yield* as(`${room}/kick`, post({ user_id: bob.user_id, reason: "noise" }))
  yield* as(`${room}/ban`, target)
  yield* as(`${room}/unban`, target)
  yield* as(`${room}/invite`, target)
  yield* by(`${room}/join`, post())
  yield* by("/joined_rooms")
  const { event_id } = yield* by(`${room}/send/m.room.message/t1`, put({ msgtype: "m.text", body: "soup" }))
  const event = segment(String(event_id))
  yield* as(`${room}/state/m.room.topic`, put({ topic: "food" }))
  yield* as(`${room}/state/org.example/key`, put({ value: 1 }))
  yield* as(`${room}/state`)
  yield* as(`${room}/state/m.room.topic`)
  yield* as(`${room}/state/org.example/key`)
  yield* as(`${room}/event/${event}`)
  yield* as(`${room}/context/${event}?limit=4&filter=${segment('{"lazy_load_members":true}')}`)
  const { start } = yield* as(`${room}/messages?dir=b&limit=3`)
  yield* as(`${room}/messages?dir=f&from=${segment(String(start))}`)
  yield* as(`${room}/members?not_membership=leave`)
  yield* as(`${room}/joined_members`)
  yield* as(`${room}/typing/${alice.user_id}`, put({ typing: true, timeout: 1_000 }))
  yield* as(`${room}/receipt/m.read/${event}`, post())
  yield* as(`${room}/read_markers`, post({ "m.fully_read": event_id, "m.read": event_id }))
  yield* by(`${room}/redact/${event}/t2`, put({ reason: "too hot" }))
  yield* as(`${room}/event/${event}`)
  const data = `/user/${alice.user_id}${room}/account_data/m.tag`
  yield* as(data, put({ tags: {} }))
  yield* as(data)
})

const pushes = Effect.fnUntraced(function* (place: Place, alice: Account) {
  const as = asUser(place, alice)
  const rule = "/pushrules/global/content/lunch"
  yield* as("/pushrules/")
  yield* as("/pushrules/global/")
  yield* as(rule, put({ pattern: "lunch", actions: ["notify", { set_tweak: "sound", value: "default" }] }))
  yield* as("/pushrules/global/content")
  yield* as(rule)
  yield* as(`${rule}/enabled`)
  yield* as(`${rule}/enabled`, put({ enabled: false }))
  yield* as(`${rule}/actions`)
  yield* as(`${rule}/actions`, put({ actions: [] }))
  yield* as(rule, { method: "DELETE" })
  const names = { app_display_name: "Test", device_display_name: "Phone", lang: "en" }
  const data = { url: "http://127.0.0.1:1/_matrix/push/v1/notify", format: "event_id_only" }
  yield* as("/pushers/set", post({ kind: "http", app_id: "org.example", pushkey: "key", ...names, data }))
  yield* as("/pushers")
})

const keys = Effect.fnUntraced(function* (place: Place, alice: Account, bob: Account) {
  const as = asUser(place, alice)
  const messages = { [bob.user_id]: { "*": { a: 1 } } }
  yield* as("/sendToDevice/org.example/t3", put({ messages }))
  yield* as("/keys/upload", post())
  yield* as("/keys/query", post({ device_keys: { [bob.user_id]: [] } }))
  const one_time_keys = { [bob.user_id]: { [bob.device_id]: "signed_curve25519" } }
  yield* as("/keys/claim", post({ one_time_keys }))
  const { pos } = yield* as("/_matrix/client/unstable/org.matrix.simplified_msc3575/sync", post())
  yield* as(`/keys/changes?from=${segment(String(pos))}&to=${segment(String(pos))}`)
})

/** What is there to be refused, or isn't there, or is there by another method only. */
const refused = Effect.fnUntraced(function* (place: Place, { access_token: token }: Account) {
  const errcodes = yield* Effect.forEach(
    [
      ask(place, `${v3}/sync`, { token }),
      ask(place, `${v3}/room_keys/version`, { token }),
      ask(place, "/nowhere", { token }),
      ask(place, `${v3}/createRoom`, { method: "GET", token })
    ],
    (asking) => Effect.map(asking, ({ json, status }) => `${status} ${String(json.errcode)}`)
  )
  assert.deepStrictEqual(errcodes, [
    "404 M_UNRECOGNIZED",
    "404 M_NOT_FOUND",
    "404 M_UNRECOGNIZED",
    "405 M_UNRECOGNIZED"
  ])
})

/** Asks every route as it is meant. */
export const good = Effect.fnUntraced(function* (place: Place) {
  const [alice, bob] = [yield* addUser(place, "alice"), yield* addUser(place, "bob")]
  yield* accounts(place, alice)
  yield* rooms(place, alice, bob)
  yield* pushes(place, alice)
  yield* keys(place, alice, bob)
  yield* refused(place, alice)
  yield* asUser(place, alice)("/logout/all", post())
})
