/**
 * The two users of the story and their rooms, made through the client API alone, so that any homeserver will do.
 *
 * Alice is the account that the application processes follow; Bob writes to her.
 */
import { Effect, Redacted, Schema } from "effect"
import type { AccountSession } from "../http/Session.ts"
import { type ApiRequest, request } from "../synapse/SynapseApi.ts"
import { StoryError } from "./StoryError.ts"

/** Rooms that are made at once: a homeserver on the same two cores is busy with four. */
const CONCURRENCY = 4

const call = <S extends Schema.Top & { readonly DecodingServices: never }>(
  baseUrl: string,
  asked: ApiRequest,
  answer: S
): Effect.Effect<S["Type"], StoryError> => {
  const decode = Schema.decodeUnknownEffect(answer)
  return request(baseUrl, asked).pipe(
    Effect.mapError((error) => new StoryError({ message: error.message })),
    Effect.flatMap(({ json, status }) =>
      status === 200
        ? Effect.mapError(
            decode(json),
            () => new StoryError({ message: `${asked.method} ${asked.path}: ${JSON.stringify(json)}` })
          )
        : new StoryError({ message: `${asked.method} ${asked.path}: ${status} ${JSON.stringify(json)}` })
    )
  )
}

const Registered = Schema.Struct({ user_id: Schema.String, access_token: Schema.String, device_id: Schema.String })
const Created = Schema.Struct({ room_id: Schema.String })

/** Makes an account with one device. Spec: `POST /register`, `m.login.dummy`. */
export const register = Effect.fn("StoryAccounts.register")(function* (
  baseUrl: string,
  username: string
): Effect.fn.Return<AccountSession, StoryError> {
  const body = { username, password: username, auth: { type: "m.login.dummy" } }
  const path = "/_matrix/client/v3/register"
  const registered = yield* call(baseUrl, { method: "POST", path, body }, Registered)
  return {
    homeserver: baseUrl,
    userId: registered.user_id,
    deviceId: registered.device_id,
    accessToken: Redacted.make(registered.access_token, { label: "access token" })
  }
})

/** Messages after which a room's key is replaced: so few that keys are on their way all the time. */
export const KEY_MESSAGES = 3

/** Turns on encryption from the first event on. Spec: `m.room.encryption`. */
const encryption = {
  type: "m.room.encryption",
  state_key: "",
  content: { algorithm: "m.megolm.v1.aes-sha2", rotation_period_msgs: KEY_MESSAGES }
}

/** Makes a room of `owner`; those who are invited join it at once, and it is encrypted. Gives its id. */
export const createRoom = Effect.fn("StoryAccounts.createRoom")(function* (
  baseUrl: string,
  options: { readonly owner: AccountSession; readonly name: string; readonly guests: ReadonlyArray<AccountSession> }
) {
  const invite = options.guests.map((guest) => guest.userId)
  const state = invite.length > 0 ? [encryption] : []
  const { room_id: roomId } = yield* call(
    baseUrl,
    {
      method: "POST",
      path: "/_matrix/client/v3/createRoom",
      body: { name: options.name, preset: "private_chat", invite, initial_state: state },
      accessToken: options.owner.accessToken
    },
    Created
  )
  for (const guest of options.guests) {
    const path = `/_matrix/client/v3/join/${encodeURIComponent(roomId)}`
    yield* call(baseUrl, { method: "POST", path, body: {}, accessToken: guest.accessToken }, Created)
  }
  return roomId
})

/** Makes many rooms; `shared` of them with the guests and encrypted, the others alone. Gives the ids of the shared ones. */
export const createRooms = Effect.fn("StoryAccounts.createRooms")(function* (
  baseUrl: string,
  options: {
    readonly owner: AccountSession
    readonly guests: ReadonlyArray<AccountSession>
    readonly count: number
    readonly shared: number
    readonly onProgress: (made: number) => Effect.Effect<void>
  }
) {
  let made = 0
  const ids = yield* Effect.forEach(
    Array.from({ length: options.count }, (_, index) => index),
    (index) =>
      Effect.gen(function* () {
        const guests = index < options.shared ? options.guests : []
        const roomId = yield* createRoom(baseUrl, { owner: options.owner, name: `Room ${index + 1}`, guests })
        made = made + 1
        yield* options.onProgress(made)
        return roomId
      }),
    { concurrency: CONCURRENCY }
  )
  return ids.slice(0, options.shared)
})

/** Has nothing of a room pushed to a user. Spec: `PUT /pushrules/global/room/{roomId}`. */
export const muteRoom = Effect.fn("StoryAccounts.muteRoom")(function* (
  baseUrl: string,
  user: AccountSession,
  roomId: string
) {
  const path = `/_matrix/client/v3/pushrules/global/room/${encodeURIComponent(roomId)}`
  const { accessToken } = user
  yield* call(baseUrl, { method: "PUT", path, body: { actions: [] }, accessToken }, Schema.Unknown)
})
