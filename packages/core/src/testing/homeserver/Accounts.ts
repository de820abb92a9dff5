/**
 * Users, access tokens and refresh tokens of the homeserver model.
 *
 * Not here: devices (`Devices.ts`).
 *
 * Source: client-server API, "Client Authentication"; where Synapse is stricter or looser than the text, as Synapse does.
 */
import { Result } from "effect"
import type { DeviceId, JsonObject, UserId } from "../../matrix/MatrixEvent.ts"
import { defaultPushRules } from "./DefaultPushRules.ts"
import { dropTokens, ensureDevice } from "./Devices.ts"
import { type ModelState, nextId, nextStream, type Outcome, refuse, type Requester } from "./ModelState.ts"
import type { User } from "./ModelState.ts"

/** A user to add. Without a password nobody can log in as him but `startSession`. */
export interface NewUser {
  readonly localpart: string
  readonly password?: string
  readonly displayName?: string
}

/** `@localpart:server` for a localpart; a full user id stays as it is. */
export const userIdOf = (state: ModelState, name: string): UserId =>
  name.startsWith("@") ? name : `@${name}:${state.options.serverName}`

/** Adds a user; `M_USER_IN_USE` when the name is taken, `M_INVALID_USERNAME` when it can't be one. */
export const addUser = (state: ModelState, { localpart, password, displayName }: NewUser): Outcome<User> => {
  const userId = userIdOf(state, localpart)
  if (!/^[a-z0-9._=/+-]+$/.test(localpart))
    return refuse(400, "M_INVALID_USERNAME", `"${localpart}" can't be a user name`)
  if (state.users.has(userId)) return refuse(400, "M_USER_IN_USE", `${userId} exists already`)
  const user: User = {
    userId,
    password,
    displayName,
    avatarUrl: undefined,
    devices: new Map(),
    rooms: new Map(),
    sortedRooms: [],
    unsorted: false,
    accountData: new Map([["m.push_rules", { stream: nextStream(state), content: defaultPushRules(userId) }]]),
    directRooms: new Set(),
    crossSigning: {},
    madeSignatures: new Map(),
    pushers: new Map(),
    threads: new Map(),
    filters: new Map(),
    version: 0
  }
  state.users.set(userId, user)
  return Result.succeed(user)
}

/** The user, or `M_NOT_FOUND`. */
export const findUser = (state: ModelState, userId: UserId): Outcome<User> => {
  const user = state.users.get(userId)
  return user === undefined ? refuse(404, "M_NOT_FOUND", `there is no user ${userId}`) : Result.succeed(user)
}

/** What a log-in or a refresh gives. Lifetimes in milliseconds. */
export interface Tokens {
  readonly userId: UserId
  readonly deviceId: DeviceId
  readonly accessToken: string
  readonly refreshToken?: string
  readonly expiresInMillis?: number
}

interface TokenOwner {
  readonly userId: UserId
  readonly deviceId: DeviceId
}

const issue = (state: ModelState, owner: TokenOwner, replaces: string | undefined, nowMillis: number): Tokens => {
  const lifetime = state.options.accessTokenLifetimeMillis
  const accessToken = `access_${nextId(state)}`
  const refreshToken = `refresh_${nextId(state)}`
  state.accessTokens.set(accessToken, {
    ...owner,
    expiresAtMillis: nowMillis + lifetime,
    ...(replaces !== undefined && { replacesRefreshToken: replaces })
  })
  state.refreshTokens.set(refreshToken, {
    ...owner,
    superseded: false,
    ...(replaces !== undefined && { replaces })
  })
  return { ...owner, accessToken, refreshToken, expiresInMillis: lifetime }
}

/** What `POST /login` asks. */
export interface LogIn {
  readonly user: string
  readonly password: string
  /** Keeps the device (its keys and its to-device queue) when it exists. */
  readonly deviceId?: DeviceId
  readonly deviceDisplayName?: string
  /** Asks for an access token that expires, and a refresh token. */
  readonly withRefresh?: boolean
}

/** A session for a user without asking for his password: for admin endpoints and test set-up. */
export const startSession = (
  state: ModelState,
  user: User,
  login: Omit<LogIn, "user" | "password">,
  nowMillis: number
): Tokens => {
  const deviceId = login.deviceId ?? `DEVICE${nextId(state)}`
  ensureDevice(state, user, deviceId, login.deviceDisplayName)
  const owner = { userId: user.userId, deviceId }
  // Logging in again with a device replaces its tokens, so that a device has one session.
  dropTokens(state, owner)
  if (login.withRefresh === true) return issue(state, owner, undefined, nowMillis)
  const accessToken = `access_${nextId(state)}`
  state.accessTokens.set(accessToken, owner)
  return { ...owner, accessToken }
}

/** `POST /login` with a password; `M_FORBIDDEN` when it is wrong. */
export const logIn = (state: ModelState, login: LogIn, nowMillis: number): Outcome<Tokens> => {
  const user = state.users.get(userIdOf(state, login.user))
  if (user === undefined || user.password !== login.password)
    return refuse(403, "M_FORBIDDEN", "the user name or the password is wrong")
  return Result.succeed(startSession(state, user, login, nowMillis))
}

/** `POST /refresh`. The old refresh token stays valid until something that came of it is used. */
export const refresh = (state: ModelState, refreshToken: string, nowMillis: number): Outcome<Tokens> => {
  const token = state.refreshTokens.get(refreshToken)
  if (token === undefined) return refuse(401, "M_UNKNOWN_TOKEN", "the refresh token is not known")
  if (token.superseded) return refuse(403, "M_FORBIDDEN", "the refresh token has been used already")
  supersede(state, token.replaces)
  return Result.succeed(issue(state, { userId: token.userId, deviceId: token.deviceId }, refreshToken, nowMillis))
}

const supersede = (state: ModelState, refreshToken: string | undefined): void => {
  const token = refreshToken === undefined ? undefined : state.refreshTokens.get(refreshToken)
  if (token !== undefined) token.superseded = true
}

/** Whose request this is. `M_MISSING_TOKEN`, `M_UNKNOWN_TOKEN`; an expired token is a soft logout. */
export const authenticate = (
  state: ModelState,
  accessToken: string | undefined,
  nowMillis: number
): Outcome<Requester> => {
  if (accessToken === undefined) return refuse(401, "M_MISSING_TOKEN", "the request carries no access token")
  const token = state.accessTokens.get(accessToken)
  const user = token && state.users.get(token.userId)
  const device = token && user?.devices.get(token.deviceId)
  if (token === undefined || user === undefined || device === undefined)
    return refuse(401, "M_UNKNOWN_TOKEN", "the access token is not known")
  if (token.expiresAtMillis !== undefined && token.expiresAtMillis <= nowMillis) {
    return Result.fail({
      status: 401,
      errcode: "M_UNKNOWN_TOKEN",
      message: "the access token has expired",
      softLogout: true
    })
  }
  supersede(state, token.replacesRefreshToken)
  return Result.succeed({ user, device })
}

/** Expires the access tokens of a device, as time would: its next request gets a soft logout. */
export const expireTokens = (state: ModelState, userId: UserId, deviceId: DeviceId, nowMillis: number): void => {
  for (const token of state.accessTokens.values())
    if (token.userId === userId && token.deviceId === deviceId) token.expiresAtMillis = nowMillis
}

/** `GET /profile/{userId}` */
export const profile = (user: User): JsonObject => ({
  ...(user.displayName !== undefined && { displayname: user.displayName }),
  ...(user.avatarUrl !== undefined && { avatar_url: user.avatarUrl })
})

/** `POST /user/{userId}/filter`; gives the filter's id. Filters are kept, and have no effect on sliding sync. */
export const addFilter = (state: ModelState, user: User, filter: JsonObject): string => {
  const id = String(nextId(state))
  user.filters.set(id, filter)
  return id
}
