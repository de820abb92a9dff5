/**
 * The dev homeserver's own endpoints, under `/_twinloop/`: what a story or a test needs to set the stage and to see what was
 * accepted and delivered. They ask for no token, since the server listens on the loopback interface only; requests that come
 * from a web page (they carry `Origin`) are refused.
 *
 * | endpoint | body or query | answer |
 * |---|---|---|
 * | `GET /_twinloop/ledger` | `user_id`, `device_id` | `{ entries }`: number, type, content, sender, times, deliveries |
 * | `POST /_twinloop/users` | `username`, `password?`, `device_id?` | a session, as of `/login` |
 * | `POST /_twinloop/rooms` | `user_id`, `count`, `name_prefix?`, `members?` | `{ room_ids }` |
 * | `POST /_twinloop/toDevice` | `user_id`, `device_id`, `count`, `type?` | `{ numbers }` |
 * | `POST /_twinloop/hold` | `user_id`, `device_id` | `{}`; to-device messages that come from now on are kept from the device |
 * | `POST /_twinloop/release` | `user_id`, `device_id` | `{}`; what was kept from it is delivered |
 * | `POST /_twinloop/repeat` | `user_id`, `device_id`, `number` | `{ number }`: of the copy of that message, which comes last |
 * | `GET /_twinloop/keys` | `user_id`, `device_id` | what it uploaded and what became of it, see below |
 * | `POST /_twinloop/dropDevice` | `user_id`, `device_id` | `{}`; the device is gone, as if its user had deleted it |
 * | `POST /_twinloop/expire` | `user_id`, `device_id`, `conn_id?` | `{}`; positions are unknown from now on |
 * | `POST /_twinloop/expireTokens` | `user_id`, `device_id` | `{}`; the next request is a soft logout |
 * | `POST /_twinloop/unreachable` | `millis` | `{}`; then every connection is destroyed for so long |
 *
 * `GET /_twinloop/keys` answers with `one_time_keys` (left, by algorithm), `uploaded` (ids of one-time keys, ever), `claimed`,
 * `conflicts` (uploads refused with "already exists"), `reused` (uploads taken that have an id anew after its first key was
 * claimed), `fallback_used` (times), `unused_fallback_key_types`, and `device_keys` (null without).
 */
import { Effect, Result, Schema } from "effect"
import { NodeHttpServerRequest } from "@effect/platform-node"
import { HomeserverModel } from "./Model.ts"
import type { DevGate } from "./DevGate.ts"
import { bodyOf, type Call, type Endpoint, open, type Outcome, refuse, type Refusal } from "./DevRoute.ts"

const Target = { user_id: Schema.String, device_id: Schema.String }
const Count = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 100_000 }))

const NewUser = Schema.Struct({
  username: Schema.String,
  password: Schema.optionalKey(Schema.String),
  device_id: Schema.optionalKey(Schema.String)
})
const NewRooms = Schema.Struct({
  user_id: Schema.String,
  count: Count,
  name_prefix: Schema.optionalKey(Schema.String),
  members: Schema.optionalKey(Schema.Array(Schema.String))
})
const NewMessages = Schema.Struct({ ...Target, count: Count, type: Schema.optionalKey(Schema.String) })
const Expire = Schema.Struct({ ...Target, conn_id: Schema.optionalKey(Schema.String) })
const Outage = Schema.Struct({ millis: Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 3_600_000 })) })

const notFromPages = (call: Call): Outcome<void> =>
  call.source.headers.origin === undefined
    ? Result.succeed(undefined)
    : refuse(403, "M_FORBIDDEN", "the admin endpoints are not for web pages")

const admin = (
  method: Endpoint["method"],
  path: string,
  f: (state: HomeserverModel.ModelState, call: Call, nowMillis: number) => Outcome<unknown>
): Endpoint =>
  open(method, `/_twinloop/${path}`, (state, call, nowMillis) =>
    Result.flatMap(notFromPages(call), () => f(state, call, nowMillis))
  )

const addUser = (state: HomeserverModel.ModelState, call: Call, nowMillis: number): Outcome<unknown> =>
  Result.gen(function* () {
    const { username, password = username, device_id } = yield* bodyOf(call, NewUser)
    const user = yield* HomeserverModel.ensureUser(state, { localpart: username, password })
    const login = device_id === undefined ? {} : { deviceId: device_id }
    const { userId, deviceId, accessToken } = HomeserverModel.startSession(state, user, login, nowMillis)
    return { user_id: userId, device_id: deviceId, access_token: accessToken }
  })

const addRooms = (state: HomeserverModel.ModelState, call: Call, nowMillis: number): Outcome<unknown> =>
  Result.gen(function* () {
    const { user_id, count, name_prefix, members = [] } = yield* bodyOf(call, NewRooms)
    const creator = yield* HomeserverModel.findUser(state, user_id)
    const options = { count, ...(name_prefix === undefined ? {} : { namePrefix: name_prefix }) }
    const rooms = HomeserverModel.addRooms(state, creator, options, nowMillis)
    for (const member of members) {
      const user = yield* HomeserverModel.findUser(state, member)
      for (const { roomId } of rooms) {
        const change = { roomId, target: member, membership: "invite" as const }
        yield* HomeserverModel.setMember(state, creator, change, nowMillis)
        yield* HomeserverModel.join(state, user, roomId, nowMillis)
      }
    }
    return { room_ids: rooms.map(({ roomId }) => roomId) }
  })

const addMessages = (state: HomeserverModel.ModelState, call: Call, nowMillis: number): Outcome<unknown> =>
  Result.flatMap(bodyOf(call, NewMessages), ({ user_id, device_id, count, type }) =>
    Result.map(
      HomeserverModel.sendNumbered(
        state,
        { userId: user_id, deviceId: device_id, count, sender: user_id, ...(type === undefined ? {} : { type }) },
        nowMillis
      ),
      (numbers) => ({ numbers })
    )
  )

const expire = (state: HomeserverModel.ModelState, call: Call): Outcome<unknown> =>
  Result.map(bodyOf(call, Expire), ({ user_id, device_id, conn_id }) =>
    HomeserverModel.SyncConnection.expire(state, {
      userId: user_id,
      deviceId: device_id,
      ...(conn_id === undefined ? {} : { connId: conn_id })
    })
  )

const expireTokens = (state: HomeserverModel.ModelState, call: Call, nowMillis: number): Outcome<unknown> =>
  Result.map(bodyOf(call, Schema.Struct(Target)), ({ user_id, device_id }) =>
    HomeserverModel.expireTokens(state, user_id, device_id, nowMillis)
  )

const ledger = (state: HomeserverModel.ModelState, { query }: Call): Outcome<unknown> => {
  const { user_id = "", device_id = "" } = query
  return Result.succeed({ entries: HomeserverModel.ledger(state, user_id, device_id) })
}

type Device = Parameters<typeof HomeserverModel.release>[1]

/** Does something with the device that the body names; `M_NOT_FOUND` when it isn't there. */
const withDevice =
  (f: (state: HomeserverModel.ModelState, device: Device) => unknown) =>
  (state: HomeserverModel.ModelState, call: Call): Outcome<unknown> =>
    Result.flatMap(bodyOf(call, Schema.Struct(Target)), ({ user_id, device_id }) =>
      Result.map(HomeserverModel.findDevice(state, user_id, device_id), (device) => f(state, device))
    )

const Repeated = Schema.Struct({ ...Target, number: Schema.Int })

const repeat = (state: HomeserverModel.ModelState, call: Call, nowMillis: number): Outcome<unknown> =>
  Result.gen(function* () {
    const { user_id, device_id, number } = yield* bodyOf(call, Repeated)
    const device = yield* HomeserverModel.findDevice(state, user_id, device_id)
    const copy = HomeserverModel.repeat(state, device, number, nowMillis)
    return copy === undefined
      ? yield* refuse(404, "M_NOT_FOUND", `the device has no message ${number}`)
      : { number: copy.number }
  })

const keys = (state: HomeserverModel.ModelState, { query }: Call): Outcome<unknown> => {
  const { user_id = "", device_id = "" } = query
  return Result.map(HomeserverModel.keyReport(state, user_id, device_id), (report) => ({
    one_time_keys: report.oneTimeKeys,
    uploaded: report.uploaded,
    claimed: report.claimed,
    conflicts: report.conflicts,
    reused: report.reused,
    fallback_used: report.fallbackUsed,
    unused_fallback_key_types: report.unusedFallbackKeyTypes,
    device_keys: report.deviceKeys ?? null
  }))
}

const unreachable = (gate: DevGate): Endpoint => ({
  method: "POST",
  path: "/_twinloop/unreachable",
  handle: (_, call) =>
    Effect.gen(function* (): Effect.fn.Return<unknown, Refusal> {
      yield* Effect.fromResult(notFromPages(call))
      const { millis } = yield* Effect.fromResult(bodyOf(call, Outage))
      // Whoever asks for the outage still gets his answer.
      yield* gate.shutFor(millis, NodeHttpServerRequest.toIncomingMessage(call.source).socket)
      return {}
    })
})

/** The admin endpoints. */
export const endpoints = (gate: DevGate): ReadonlyArray<Endpoint> => [
  admin("GET", "ledger", ledger),
  admin("POST", "users", addUser),
  admin("POST", "rooms", addRooms),
  admin("POST", "toDevice", addMessages),
  admin(
    "POST",
    "hold",
    withDevice((state, { device }) => HomeserverModel.hold(state, device))
  ),
  admin("POST", "release", withDevice(HomeserverModel.release)),
  admin("POST", "repeat", repeat),
  admin("GET", "keys", keys),
  admin(
    "POST",
    "dropDevice",
    withDevice((state, { user, device }) => HomeserverModel.removeDevices(state, user, [device.deviceId]))
  ),
  admin("POST", "expire", expire),
  admin("POST", "expireTokens", expireTokens),
  unreachable(gate)
]
