/**
 * The homeserver over HTTP: adapter of core's `Homeserver` port for a stored login.
 *
 * Includes the choice of the sliding-sync spelling, by what the endpoints answer: the more common one is tried first, so
 * that a process that starts needs no request to find out.
 *
 * Invariants: I4 (an interrupted call has closed its request), I7 (what a response holds that can't be understood is
 * quarantined, not thrown on), I10 (limits of time and size).
 *
 * Gotchas: `capabilities` asks every time, since the offline probe uses it; the spelling is kept until the homeserver
 * stops having it. Whether a homeserver has sliding sync at all is found out when one logs in (`Login.ts`).
 *
 * Not here: one request and its limits (`MatrixHttp.ts`), the token (`SessionTokens.ts`), logging in (`Login.ts`).
 */
import { Effect, Layer, Predicate, Redacted, Ref, Result, Schema } from "effect"
import { Homeserver, HomeserverError, MatrixEvent, Pusher, SlidingSyncWire, type StoreError } from "@twinloop/core"
import type { SlidingSync } from "@twinloop/core"
import type { InvalidHomeserverUrl } from "./HomeserverUrl.ts"
import type { HttpTransport } from "./HttpTransport.ts"
import * as MatrixHttp from "./MatrixHttp.ts"
import type { RefreshLock } from "./RefreshLock.ts"
import type { SessionStore } from "./SessionStore.ts"
import * as SessionTokens from "./SessionTokens.ts"

type Failure = HomeserverError.HomeserverError

/** A call whose token is put in by `SessionTokens`. */
type AuthorizedCall = Omit<MatrixHttp.Call, "token">

interface Env {
  readonly http: MatrixHttp.MatrixHttp
  readonly tokens: SessionTokens.SessionTokens
  /** The spelling in use, once it is known. */
  readonly spelling: Ref.Ref<Homeserver.Spelling | undefined>
}

const request = (env: Env, call: AuthorizedCall): Effect.Effect<MatrixEvent.JsonObject, Failure> =>
  env.tokens.authorized((token) => env.http.request({ ...call, token }))

const requestAs = <A>(env: Env, call: AuthorizedCall, schema: Schema.Decoder<A>): Effect.Effect<A, Failure> =>
  env.tokens.authorized((token) => env.http.requestAs({ ...call, token }, schema))

// --- what the homeserver has

const Versions = Schema.Struct({
  versions: Schema.Array(Schema.String),
  unstable_features: Schema.optionalKey(Schema.NullOr(Schema.Record(Schema.String, Schema.Unknown)))
})

/** Flags of the extensions that exist only with the merged MSC4186. Source: MSC4538, MSC4543, "Unstable prefix". */
const mergedFlags = [
  "org.matrix.msc4186.stable",
  "org.matrix.msc4538",
  "org.matrix.msc4538.stable",
  "org.matrix.msc4543",
  "org.matrix.msc4543.stable"
]

/** MSC4186 was merged after v1.19 of the specification, so no earlier version can mean it. */
const hasSpecWithSlidingSync = (versions: ReadonlyArray<string>): boolean =>
  versions.some((version) => {
    const [, major, minor] = /^v(\d+)\.(\d+)/.exec(version) ?? []
    return Number(major) > 1 || (Number(major) === 1 && Number(minor) >= 20)
  })

const detect = (
  versions: ReadonlyArray<string>,
  features: { readonly [feature: string]: boolean }
): Homeserver.Spelling | undefined => {
  if (features["org.matrix.simplified_msc3575"] === true) return "unstable"
  return mergedFlags.some((flag) => features[flag] === true) || hasSpecWithSlidingSync(versions) ? "v4" : undefined
}

/** Reads an answer of `GET /versions`. Spec: "API versions". */
const capabilitiesOf = (answer: typeof Versions.Type): Homeserver.Capabilities => {
  const unstableFeatures: Record<string, boolean> = {}
  for (const [feature, value] of Object.entries(answer.unstable_features ?? {})) {
    if (typeof value === "boolean") unstableFeatures[feature] = value
  }
  return { versions: answer.versions, unstableFeatures, slidingSync: detect(answer.versions, unstableFeatures) }
}

const versionsCall: AuthorizedCall = { operation: "versions", method: "GET", path: MatrixHttp.pathOf("versions") }

/**
 * What a homeserver offers, asked with a token or without one (a feature may be switched on for single accounts).
 *
 * Not for an account whose token may have ended: that is `Homeserver.capabilities`, which renews it.
 */
export const askCapabilities = (
  http: MatrixHttp.MatrixHttp,
  token?: MatrixHttp.Call["token"]
): Effect.Effect<Homeserver.Capabilities, Failure> =>
  Effect.map(http.requestAs({ ...versionsCall, ...(token === undefined ? {} : { token }) }, Versions), capabilitiesOf)

const capabilities = (env: Env): Effect.Effect<Homeserver.Capabilities, Failure> =>
  Effect.map(requestAs(env, versionsCall, Versions), capabilitiesOf)

// --- sync

const unsupported = (env: Env): Failure =>
  new HomeserverError.HomeserverError({
    operation: "sync",
    reason: new HomeserverError.Unsupported({
      message: `The homeserver ${env.http.url.origin} has no simplified sliding sync (MSC4186): neither of its two endpoints is there. Update it, or switch the feature on.`
    })
  })

const syncAs = Effect.fnUntraced(function* (
  env: Env,
  spelling: Homeserver.Spelling,
  asked: SlidingSync.SyncRequest
): Effect.fn.Return<SlidingSync.SyncResponse, Failure> {
  const { path, query, body } = SlidingSyncWire.encodeRequest(spelling, asked)
  const json = yield* request(env, {
    operation: "sync",
    method: "POST",
    path,
    query,
    body,
    holdMillis: asked.timeoutMillis,
    posSent: asked.pos !== undefined
  })
  const decoded = SlidingSyncWire.decodeResponse(json)
  if (Result.isFailure(decoded)) return yield* MatrixHttp.badResponse("sync", decoded.failure)
  yield* Ref.set(env.spelling, spelling)
  return decoded.success
})

/**
 * Whether an endpoint isn't there. As long as none is known to be, a plain 404 says so as well: a proxy that lets only some paths
 * through has no errcode for the others.
 */
const isAbsent =
  (isKnown: boolean) =>
  ({ reason }: Failure): boolean =>
    reason._tag === "Unsupported" ||
    (!isKnown && reason._tag === "BadRequest" && (reason.status === 404 || reason.status === 405))

/** In the spelling that the homeserver has; the other one is tried when the first isn't there. */
const sync = Effect.fn("HttpHomeserver.sync")(function* (env: Env, asked: SlidingSync.SyncRequest) {
  const known = yield* Ref.get(env.spelling)
  const spelling = known ?? "unstable"
  const other = spelling === "unstable" ? "v4" : "unstable"
  const neither = Effect.flatMap(Ref.set(env.spelling, undefined), () => Effect.fail(unsupported(env)))
  return yield* syncAs(env, spelling, asked).pipe(
    Effect.catchIf(isAbsent(known !== undefined), (error) =>
      syncAs(env, other, asked).pipe(
        // A plain 404 doesn't prove that there is none.
        Effect.catchReason("HomeserverError", "Unsupported", () =>
          error.reason._tag === "Unsupported" ? neither : Effect.fail(error)
        )
      )
    )
  )
})

// --- the other calls

const Sent = Schema.Struct({ event_id: Schema.NonEmptyString })

const sendEvent = Effect.fn("HttpHomeserver.sendEvent")(function* (env: Env, event: Homeserver.SendEvent) {
  const path = MatrixHttp.pathOf("v3", "rooms", event.roomId, "send", event.type, event.txnId)
  const sent = yield* requestAs(env, { operation: "send", method: "PUT", path, body: event.content }, Sent)
  return sent.event_id
})

const sendState = Effect.fn("HttpHomeserver.sendState")(function* (env: Env, event: Homeserver.SendState) {
  // An empty state key is left out with its slash, which a proxy may take away on the way.
  const key = event.stateKey === "" ? [] : [event.stateKey]
  const path = MatrixHttp.pathOf("v3", "rooms", event.roomId, "state", event.type, ...key)
  const sent = yield* requestAs(env, { operation: "state", method: "PUT", path, body: event.content }, Sent)
  return sent.event_id
})

const sendToDevice = Effect.fn("HttpHomeserver.sendToDevice")(function* (env: Env, send: Homeserver.SendToDevice) {
  const path = MatrixHttp.pathOf("v3", "sendToDevice", send.type, send.txnId)
  yield* request(env, { operation: "sendToDevice", method: "PUT", path, body: { messages: send.messages } })
})

const keysPaths: { readonly [kind in Homeserver.KeysRequest["kind"]]: ReadonlyArray<string> } = {
  upload: ["keys", "upload"],
  query: ["keys", "query"],
  claim: ["keys", "claim"],
  signatures: ["keys", "signatures", "upload"],
  deviceSigning: ["keys", "device_signing", "upload"]
}

/** The password with which a body authenticates interactively. */
const passwordOf = ({ auth }: MatrixEvent.JsonObject): ReadonlyArray<Redacted.Redacted> =>
  Predicate.isObject(auth) && typeof auth["password"] === "string" ? [Redacted.make(auth["password"])] : []

const keys = Effect.fn("HttpHomeserver.keys")(function* (env: Env, { body, kind }: Homeserver.KeysRequest) {
  const segments = keysPaths[kind]
  const path = MatrixHttp.pathOf("v3", ...segments)
  return yield* request(env, { operation: segments.join("/"), method: "POST", path, body, secrets: passwordOf(body) })
})

const Members = Schema.Struct({ chunk: Schema.Array(Schema.Unknown) })

const members = Effect.fn("HttpHomeserver.members")(function* (env: Env, roomId: MatrixEvent.RoomId) {
  const path = MatrixHttp.pathOf("v3", "rooms", roomId, "members")
  const call: AuthorizedCall = { operation: "members", method: "GET", path, query: { not_membership: "leave" } }
  return Homeserver.roomMembers((yield* requestAs(env, call, Members)).chunk)
})

const Surroundings = Schema.Struct({
  event: Schema.Unknown,
  state: Schema.optionalKey(Schema.Array(Schema.Record(Schema.String, Schema.Unknown)))
})

/** A room's state without the members that have nothing to do with the event. Spec: "Lazy-loading room members". */
const lazyMembers = JSON.stringify({ lazy_load_members: true })

const eventContext = Effect.fn("HttpHomeserver.eventContext")(function* (
  env: Env,
  roomId: MatrixEvent.RoomId,
  eventId: MatrixEvent.EventId
): Effect.fn.Return<Homeserver.EventContext, Failure> {
  const path = MatrixHttp.pathOf("v3", "rooms", roomId, "context", eventId)
  const query = { limit: "0", filter: lazyMembers }
  const call: AuthorizedCall = { operation: "context", method: "GET", path, query }
  const { event, state } = yield* requestAs(env, call, Surroundings)
  const why = MatrixEvent.whyNotTimelineEvent(event)
  if (why !== undefined) return yield* MatrixHttp.badResponse("context", `the event can't be read, because ${why}`)
  return { event: event as MatrixEvent.TimelineEvent, state: state ?? [] }
})

// --- pushes

const Pushers = Schema.Struct({ pushers: Schema.Array(Schema.Unknown) })

const pushersCall: AuthorizedCall = { operation: "pushers", method: "GET", path: MatrixHttp.pathOf("v3", "pushers") }

const pushers = (env: Env): Effect.Effect<ReadonlyArray<Pusher.Pusher>, Failure> =>
  Effect.map(requestAs(env, pushersCall, Pushers), (answer) => Pusher.httpPushers(answer.pushers))

const changePushers = (
  env: Env,
  { pushKey }: Pusher.PusherId,
  body: MatrixEvent.JsonObject
): Effect.Effect<void, Failure> =>
  Effect.asVoid(
    request(env, {
      operation: "pushers/set",
      method: "POST",
      path: MatrixHttp.pathOf("v3", "pushers", "set"),
      body,
      secrets: [Redacted.make(pushKey)],
      whenRefused: `Check the pusher: its URL must be the push gateway's, with the path ${Pusher.NOTIFY_PATH}.`
    })
  )

const setPusher = Effect.fn("HttpHomeserver.setPusher")((env: Env, pusher: Pusher.Pusher) =>
  changePushers(env, pusher, { ...Pusher.toWire(pusher), append: true })
)

const removePusher = Effect.fn("HttpHomeserver.removePusher")((env: Env, id: Pusher.PusherId) =>
  changePushers(env, id, Pusher.removalToWire(id))
)

const isThreadSubscribed = Effect.fn("HttpHomeserver.isThreadSubscribed")((
  env: Env,
  roomId: MatrixEvent.RoomId,
  threadRootId: MatrixEvent.EventId
): Effect.Effect<boolean, Failure> => {
  const thread = ["rooms", roomId, "thread", threadRootId, "subscription"]
  const path = MatrixHttp.pathOf("unstable", "io.element.msc4306", ...thread)
  return request(env, { operation: "thread/subscription", method: "GET", path }).pipe(
    Effect.as(true),
    Effect.catchReason("HomeserverError", "NotFound", () => Effect.succeed(false))
  )
})

// --- the service

/** The homeserver of the stored login. Errors as `SessionTokens.open`. */
export const make: Effect.Effect<
  Homeserver.Homeserver["Service"],
  SessionTokens.NotLoggedIn | InvalidHomeserverUrl | StoreError.StoreError,
  SessionStore | RefreshLock | HttpTransport
> = Effect.gen(function* () {
  const { session, http, tokens } = yield* SessionTokens.open
  const env: Env = { http, tokens, spelling: yield* Ref.make<Homeserver.Spelling | undefined>(undefined) }
  return Homeserver.Homeserver.of({
    session: { userId: session.userId, deviceId: session.deviceId },
    capabilities: capabilities(env),
    sync: (asked) => sync(env, asked),
    sendEvent: (event) => sendEvent(env, event),
    sendState: (event) => sendState(env, event),
    sendToDevice: (send) => sendToDevice(env, send),
    keys: (asked) => keys(env, asked),
    members: (roomId) => members(env, roomId),
    eventContext: (roomId, eventId) => eventContext(env, roomId, eventId),
    pushers: pushers(env),
    setPusher: (pusher) => setPusher(env, pusher),
    removePusher: (id) => removePusher(env, id),
    isThreadSubscribed: (roomId, threadRootId) => isThreadSubscribed(env, roomId, threadRootId)
  })
})

/** {@link make} as a layer. */
export const layer: Layer.Layer<
  Homeserver.Homeserver,
  SessionTokens.NotLoggedIn | InvalidHomeserverUrl | StoreError.StoreError,
  SessionStore | RefreshLock | HttpTransport
> = Layer.effect(Homeserver.Homeserver, make)
