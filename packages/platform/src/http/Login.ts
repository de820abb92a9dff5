/**
 * Becoming a device of an account, and ceasing to be one.
 *
 * Includes login by password, by login token and with an access token that one has already, whoami and logout.
 *
 * Gotchas: a login without `deviceId` makes a new device. Logging in again after a soft logout must name the device that
 * there was, or its keys are of no use any more. A login to a homeserver without sliding sync is undone at once, so that
 * no dead device stays in the account's list; a device that was there before is left alone.
 *
 * Not here: keeping the login (`SessionStore.ts`; `SessionStore.replace` after a login), renewing its tokens
 * (`SessionTokens.ts`), OAuth 2.0.
 *
 * Source: spec, client-server API, "Login", "Logout", "Current account information".
 */
import { Clock, Effect, Redacted, Schema } from "effect"
import { HomeserverError, type Homeserver, type MatrixEvent, type StoreError } from "@twinloop/core"
import * as HomeserverUrl from "./HomeserverUrl.ts"
import { askCapabilities } from "./HttpHomeserver.ts"
import type { HttpTransport } from "./HttpTransport.ts"
import * as MatrixHttp from "./MatrixHttp.ts"
import type { RefreshLock } from "./RefreshLock.ts"
import { type AccountSession, IssuedTokens, sameDevice, tokensOf } from "./Session.ts"
import { SessionStore } from "./SessionStore.ts"
import * as SessionTokens from "./SessionTokens.ts"
import type { NotLoggedIn } from "./SessionTokens.ts"

/** The homeserver doesn't accept these credentials: wrong name, password or token. Ask the person again. */
export class WrongCredentials extends Schema.TaggedError<WrongCredentials>("@twinloop/platform/WrongCredentials")(
  "WrongCredentials",
  { message: Schema.String }
) {}

/** The homeserver doesn't offer this kind of login; `offered` are the kinds that it has. */
export class UnsupportedFlow extends Schema.TaggedError<UnsupportedFlow>("@twinloop/platform/UnsupportedFlow")(
  "UnsupportedFlow",
  { message: Schema.String, offered: Schema.Array(Schema.String) }
) {}

/** No answer from there. Check address and network; a retry can help. */
export class Unreachable extends Schema.TaggedError<Unreachable>("@twinloop/platform/Unreachable")("Unreachable", {
  message: Schema.String
}) {}

/** The homeserver has no simplified sliding sync, without which nothing here works. */
export class NoSlidingSync extends Schema.TaggedError<NoSlidingSync>("@twinloop/platform/NoSlidingSync")(
  "NoSlidingSync",
  { message: Schema.String }
) {}

/** Any other failure; `reason` is the homeserver's. */
export class LoginRefused extends Schema.TaggedError<LoginRefused>("@twinloop/platform/LoginRefused")("LoginRefused", {
  message: Schema.String,
  reason: HomeserverError.HomeserverErrorReason
}) {}

export const LoginErrorReason = Schema.Union([
  HomeserverUrl.InvalidHomeserverUrl,
  WrongCredentials,
  UnsupportedFlow,
  Unreachable,
  NoSlidingSync,
  LoginRefused
])
export type LoginErrorReason = typeof LoginErrorReason.Type

/** Logging in or out failed; `message` says why and what to do. */
export class LoginError extends Schema.TaggedError<LoginError>("@twinloop/platform/LoginError")("LoginError", {
  reason: LoginErrorReason
}) {
  override get message(): string {
    return this.reason.message
  }
}

type Failure = HomeserverError.HomeserverError

const failed = (reason: LoginErrorReason): LoginError => new LoginError({ reason })

/** What a failed call means for a person who logs in. */
const ofCall = ({ reason }: Failure): LoginError => {
  const { message } = reason
  if (reason._tag === "Unauthorized") return failed(new WrongCredentials({ message }))
  if (reason._tag === "Forbidden" && reason.errcode === "M_FORBIDDEN") return failed(new WrongCredentials({ message }))
  if (reason._tag === "NetworkError") return failed(new Unreachable({ message }))
  return failed(new LoginRefused({ message, reason }))
}

const connect = (homeserver: string): Effect.Effect<MatrixHttp.MatrixHttp, LoginError, HttpTransport> =>
  Effect.flatMap(Effect.mapError(Effect.fromResult(HomeserverUrl.parse(homeserver)), failed), MatrixHttp.make)

const Flows = Schema.Struct({ flows: Schema.Array(Schema.Struct({ type: Schema.String })) })

/** Asks which kinds of login there are, and fails when the wanted one isn't among them. Spec: `GET /login`. */
const requireFlow = Effect.fnUntraced(function* (http: MatrixHttp.MatrixHttp, type: string) {
  const call: MatrixHttp.Call = { operation: "login flows", method: "GET", path: MatrixHttp.pathOf("v3", "login") }
  const { flows } = yield* Effect.mapError(http.requestAs(call, Flows), ofCall)
  const offered = flows.map((flow) => flow.type)
  if (offered.includes(type)) return
  const has = offered.length === 0 ? "none that can be used here" : offered.join(", ")
  return yield* failed(
    new UnsupportedFlow({
      message: `The homeserver ${http.url.origin} doesn't offer login by ${type}; it offers ${has}.`,
      offered
    })
  )
})

/** Sliding sync may be switched on for single accounts, so it is asked for with the account's token. */
const requireSlidingSync = Effect.fnUntraced(function* (http: MatrixHttp.MatrixHttp, token: Redacted.Redacted) {
  const { slidingSync } = yield* Effect.mapError(askCapabilities(http, token), ofCall)
  if (slidingSync !== undefined) return
  return yield* failed(
    new NoSlidingSync({
      message: `The homeserver ${http.url.origin} has no simplified sliding sync (MSC4186). Update it, switch the feature on, or use another homeserver.`
    })
  )
})

const LoggedIn = Schema.Struct({
  ...IssuedTokens.fields,
  user_id: Schema.NonEmptyString,
  device_id: Schema.NonEmptyString
})

/** What every login may say about the device. */
export interface DeviceOptions {
  /** Address of the homeserver, like `https://matrix.example.org`. */
  readonly homeserver: string
  /** The device to be again; absent makes a new one. */
  readonly deviceId?: MatrixEvent.DeviceId
  /** What people see in their list of devices; used only when the device is new. */
  readonly deviceName?: string
}

const deviceFields = (options: DeviceOptions): MatrixEvent.JsonObject => ({
  ...(options.deviceId === undefined ? {} : { device_id: options.deviceId }),
  ...(options.deviceName === undefined ? {} : { initial_device_display_name: options.deviceName })
})

const logOut = (http: MatrixHttp.MatrixHttp, token: Redacted.Redacted) =>
  http.request({ operation: "logout", method: "POST", path: MatrixHttp.pathOf("v3", "logout"), body: {}, token })

/** Removes the device of a login that can't be kept, so that it doesn't stay in the account's list. */
export const revoke = Effect.fn("Login.revoke")(function* (session: AccountSession) {
  yield* Effect.mapError(logOut(yield* connect(session.homeserver), session.accessToken), ofCall)
})

/** What may be wrong when a login is forbidden, by its kind. */
const whenForbidden = {
  "m.login.password": "Check the name and the password.",
  "m.login.token": "Check the login token; it can be used once, and not for long."
} as const

const login = Effect.fnUntraced(function* (
  options: DeviceOptions,
  type: keyof typeof whenForbidden,
  secret: Redacted.Redacted,
  fields: MatrixEvent.JsonObject
): Effect.fn.Return<AccountSession, LoginError, HttpTransport> {
  const http = yield* connect(options.homeserver)
  yield* requireFlow(http, type)
  const askedAtMillis = yield* Clock.currentTimeMillis
  const call: MatrixHttp.Call = {
    operation: "login",
    method: "POST",
    path: MatrixHttp.pathOf("v3", "login"),
    body: { type, refresh_token: true, ...deviceFields(options), ...fields },
    secrets: [secret],
    whenForbidden: whenForbidden[type]
  }
  const issued = yield* Effect.mapError(http.requestAs(call, LoggedIn), ofCall)
  const tokens = tokensOf(issued, askedAtMillis)
  const isNewDevice = options.deviceId === undefined
  yield* Effect.tapError(requireSlidingSync(http, tokens.accessToken), () =>
    // The login fails for another reason, which is the one to tell; a device that can't be removed is only untidy.
    isNewDevice ? Effect.ignore(logOut(http, tokens.accessToken)) : Effect.void
  )
  return { homeserver: http.url.href, userId: issued.user_id, deviceId: issued.device_id, ...tokens }
})

/**
 * Logs in by password (`m.login.password`). `user` is a user id or its local part.
 *
 * Fails with `LoginError`: `InvalidHomeserverUrl`, `Unreachable`, `UnsupportedFlow`, `WrongCredentials`, `NoSlidingSync`,
 * or `LoginRefused` for the rest (rate limit, a locked account, a server error).
 */
export const byPassword = Effect.fn("Login.byPassword")(function* (
  options: DeviceOptions & { readonly user: string; readonly password: Redacted.Redacted }
) {
  return yield* login(options, "m.login.password", options.password, {
    identifier: { type: "m.id.user", user: options.user },
    password: Redacted.value(options.password)
  })
})

/** Logs in by a login token (`m.login.token`), as single sign-on and other devices hand them out. Errors as `byPassword`. */
export const byToken = Effect.fn("Login.byToken")(function* (
  options: DeviceOptions & { readonly loginToken: Redacted.Redacted }
) {
  return yield* login(options, "m.login.token", options.loginToken, { token: Redacted.value(options.loginToken) })
})

const WhoAmI = Schema.Struct({
  user_id: Schema.NonEmptyString,
  device_id: Schema.optionalKey(Schema.NonEmptyString)
})

const whoamiCall = (http: MatrixHttp.MatrixHttp, token: Redacted.Redacted) => {
  const path = MatrixHttp.pathOf("v3", "account", "whoami")
  return http.requestAs({ operation: "whoami", method: "GET", path, token }, WhoAmI)
}

/**
 * Makes a session of an access token that one has already, verified by `GET /account/whoami`.
 *
 * Fails with `WrongCredentials` when the token isn't valid or belongs to no device (an application service's), which
 * sliding sync needs.
 */
export const useAccessToken = Effect.fn("Login.useAccessToken")(function* (options: {
  readonly homeserver: string
  readonly accessToken: Redacted.Redacted
  readonly refreshToken?: Redacted.Redacted
}): Effect.fn.Return<AccountSession, LoginError, HttpTransport> {
  const http = yield* connect(options.homeserver)
  const { accessToken, refreshToken } = options
  const { user_id: userId, device_id: deviceId } = yield* Effect.mapError(whoamiCall(http, accessToken), ofCall)
  if (deviceId === undefined) {
    return yield* failed(
      new WrongCredentials({
        message: `The access token of ${userId} belongs to no device, which sliding sync needs. Log in to get one.`
      })
    )
  }
  yield* requireSlidingSync(http, accessToken)
  const device = { homeserver: http.url.href, userId, deviceId, accessToken }
  return refreshToken === undefined ? device : { ...device, refreshToken }
})

type StoredLoginError = LoginError | NotLoggedIn | StoreError.StoreError
type StoredLoginServices = SessionStore | RefreshLock | HttpTransport

const openStored = Effect.catchTag(SessionTokens.open, "InvalidHomeserverUrl", (error) => Effect.fail(failed(error)))

/**
 * Whose login is stored, as the homeserver sees it; an ended access token is renewed first.
 *
 * Fails with `NotLoggedIn`, `StoreError`, or `LoginError` with `WrongCredentials` when the login is over.
 */
export const whoami: Effect.Effect<Homeserver.Session, StoredLoginError, StoredLoginServices> = Effect.gen(
  function* () {
    const { session, http, tokens } = yield* openStored
    const { user_id: userId, device_id: deviceId } = yield* Effect.mapError(
      tokens.authorized((token) => whoamiCall(http, token)),
      ofCall
    )
    return { userId, deviceId: deviceId ?? session.deviceId }
  }
).pipe(Effect.withSpan("Login.whoami"))

/**
 * Ends the stored login: at the homeserver, which removes the device and voids its tokens, then in the store.
 *
 * A login that is over at the homeserver counts as ended. Fails with `NotLoggedIn`, `StoreError`, or `LoginError` when the
 * homeserver couldn't be asked; then the login stays stored.
 */
export const logout: Effect.Effect<void, StoredLoginError, StoredLoginServices> = Effect.gen(function* () {
  const store = yield* SessionStore
  const { session, http, tokens } = yield* openStored
  yield* tokens
    .authorized((token) => logOut(http, token))
    .pipe(
      Effect.catchReason("HomeserverError", "Unauthorized", () => Effect.void),
      Effect.mapError(ofCall)
    )
  const stored = yield* store.load
  if (stored !== undefined && sameDevice(stored.session, session)) yield* store.clear(stored.revision)
}).pipe(Effect.withSpan("Login.logout"))
