/**
 * The access token that calls carry, renewed when it has ended.
 *
 * Includes `authorized`, which runs a call with the token, and when the homeserver refuses the token, finds or gets a new
 * one and runs the call once more.
 *
 * Invariants: I9 (an ended token is recovered from here; only a login that the homeserver says is over is terminal), I10.
 *
 * Gotchas: new tokens are used only after they are stored. Until their first use the old refresh token stays valid (spec:
 * "Refreshing access tokens"), so a process that dies or is interrupted in between loses nothing.
 *
 * Not here: how processes take turns (`RefreshLock.ts`), where the tokens are kept (`SessionStore.ts`).
 */
import { Clock, Effect, Redacted, Ref, Schema, Semaphore } from "effect"
import { type DistributedSemaphore, HomeserverError, type StoreError, SyncConfig } from "@twinloop/core"
import * as HomeserverUrl from "./HomeserverUrl.ts"
import type { HttpTransport } from "./HttpTransport.ts"
import * as MatrixHttp from "./MatrixHttp.ts"
import { RefreshLock } from "./RefreshLock.ts"
import { type AccountSession, IssuedTokens, sameDevice, sameToken, tokensOf } from "./Session.ts"
import { SessionStore, type StoredSession } from "./SessionStore.ts"

/** Nobody is logged in: the store has no login. */
export class NotLoggedIn extends Schema.TaggedError<NotLoggedIn>("@twinloop/platform/NotLoggedIn")("NotLoggedIn", {
  message: Schema.String
}) {}

type Failure = HomeserverError.HomeserverError

export interface SessionTokens {
  /**
   * Runs a call with the access token. When the homeserver refuses the token, the call is run again with a new one:
   * another process's, or one refreshed here. If that one has ended as well by then (a soft logout), it is renewed once more.
   * Fails with `Unauthorized` when there is none to be had.
   */
  authorized<A>(use: (token: Redacted.Redacted) => Effect.Effect<A, Failure>): Effect.Effect<A, Failure>
}

interface Env {
  readonly store: SessionStore["Service"]
  readonly lock: RefreshLock["Service"]
  readonly http: MatrixHttp.MatrixHttp
  readonly config: SyncConfig.SyncConfigShape
  /** The login as this process knows it. */
  readonly current: Ref.Ref<StoredSession>
  /** Calls of this process take turns, so that they share one renewal. */
  readonly local: Semaphore.Semaphore
  /** Renewals that failed, so that a call which waited for one doesn't repeat it. */
  readonly failures: Ref.Ref<{ readonly count: number; readonly last?: Failure }>
}

const failure = (reason: HomeserverError.HomeserverErrorReason): Failure =>
  new HomeserverError.HomeserverError({ operation: "refresh", reason })

/** The login is over for this process. `softLogout` says that its keys may be kept. */
const loggedOut = (message: string, softLogout: boolean): Failure =>
  failure(new HomeserverError.Unauthorized({ message, softLogout }))

/** The store or the lock is in the way: nothing is wrong with the login, and a later call tries again. */
const postponed = (error: StoreError.StoreError | DistributedSemaphore.LeaseLost): Failure =>
  failure(
    new HomeserverError.NetworkError({
      message: `The access token has ended and could not be renewed yet: ${error.message} It is tried again with the next call.`,
      timedOut: false,
      cause: error
    })
  )

/** Errcodes of a 403 that end a login. A locked or suspended account keeps its login, and a proxy's 403 has no errcode. */
const endingCodes: ReadonlySet<string> = new Set(["M_FORBIDDEN", "M_USER_DEACTIVATED"])

const endsLogin = (reason: HomeserverError.HomeserverErrorReason): boolean =>
  reason._tag === "Unauthorized" ||
  reason._tag === "Unsupported" ||
  (reason._tag === "Forbidden" && endingCodes.has(reason.errcode))

/**
 * `POST /refresh` refuses: the login is over, if it is the homeserver that says so. Whether the keys may be kept is what the
 * refusal of the access token said; the refusal of the refresh token doesn't say.
 */
const refused =
  (cause: Failure | undefined) =>
  (error: Failure): Failure => {
    const { reason } = error
    if (!endsLogin(reason)) return error
    const softLogout = cause?.reason._tag === "Unauthorized" && cause.reason.softLogout
    return loggedOut(
      `The refresh token is no longer accepted, so the login is over: log in again. ${reason.message}`,
      softLogout
    )
  }

const asHomeserverError = (error: Failure | StoreError.StoreError | DistributedSemaphore.LeaseLost): Failure =>
  error._tag === "HomeserverError" ? error : postponed(error)

/** What the store has; fails when it is another device's by now. */
const look = Effect.fnUntraced(function* (env: Env, known: StoredSession) {
  const stored = yield* env.store.load
  if (stored === undefined || sameDevice(stored.session, known.session)) return stored
  const { userId, deviceId } = stored.session
  return yield* loggedOut(
    `This installation has logged in as ${userId}, device ${deviceId}, meanwhile. Restart to go on as that device.`,
    true
  )
})

const goOnWith = (env: Env, session: StoredSession): Effect.Effect<StoredSession> =>
  Effect.as(Ref.set(env.current, session), session)

/** Goes on with what the store has, if that is another token than the one that failed. */
const adopt = Effect.fnUntraced(function* (env: Env, failed: StoredSession) {
  const stored = yield* look(env, failed)
  if (stored === undefined || sameToken(stored.session, failed.session)) return undefined
  return yield* goOnWith(env, stored)
})

const gone = Effect.suspend(() =>
  Effect.fail(loggedOut("This installation has been logged out meanwhile. Log in again.", true))
)

/** Without a refresh token, the homeserver's refusal is the last word; with none yet (`cause`), the token may still do. */
const hopeless = (session: StoredSession, cause: Failure | undefined): Effect.Effect<StoredSession, Failure> =>
  cause === undefined ? Effect.succeed(session) : Effect.fail(cause)

/** `POST /refresh`; the answer's tokens in place of the old ones. */
const requestTokens = Effect.fnUntraced(function* (
  env: Env,
  session: AccountSession,
  refreshToken: Redacted.Redacted,
  cause: Failure | undefined
) {
  const askedAtMillis = yield* Clock.currentTimeMillis
  const call: MatrixHttp.Call = {
    operation: "refresh",
    method: "POST",
    path: MatrixHttp.pathOf("v3", "refresh"),
    body: { refresh_token: Redacted.value(refreshToken) },
    secrets: [refreshToken]
  }
  const issued = yield* Effect.mapError(env.http.requestAs(call, IssuedTokens), refused(cause))
  const { homeserver, userId, deviceId } = session
  return { homeserver, userId, deviceId, ...tokensOf(issued, askedAtMillis, session) }
})

/** Refreshes under the lock, unless another process has done so while we waited for it. */
const refresh = Effect.fnUntraced(function* (env: Env, failed: StoredSession, cause: Failure | undefined) {
  const stored = yield* look(env, failed)
  if (stored === undefined) return yield* gone
  if (!sameToken(stored.session, failed.session)) return yield* goOnWith(env, stored)
  const { refreshToken } = stored.session
  if (refreshToken === undefined) return yield* hopeless(failed, cause)
  const next = yield* requestTokens(env, stored.session, refreshToken, cause)
  const saved = yield* env.store.save(next, stored.revision)
  if (saved !== undefined) return yield* goOnWith(env, saved)
  // Somebody logged in or out in these very moments: what is stored counts, and what was just issued is never used.
  return (yield* adopt(env, failed)) ?? (yield* gone)
})

/** A session with another token than the one that failed: another process's, or one refreshed here. */
const renew = (env: Env, failed: StoredSession, cause: Failure | undefined): Effect.Effect<StoredSession, Failure> =>
  Effect.gen(function* () {
    const adopted = yield* adopt(env, failed)
    if (adopted !== undefined) return adopted
    return failed.session.refreshToken === undefined
      ? yield* hopeless(failed, cause)
      : yield* env.lock.serialize(refresh(env, failed, cause))
  }).pipe(Effect.mapError(asHomeserverError))

/** Like {@link renew}, once for all calls of this process that found the same token ended. */
const renewOnce = Effect.fnUntraced(function* (env: Env, failed: StoredSession, cause: Failure | undefined) {
  const failuresBefore = (yield* Ref.get(env.failures)).count
  return yield* env.local.withPermit(
    Effect.gen(function* () {
      const current = yield* Ref.get(env.current)
      if (!sameToken(current.session, failed.session)) return current
      const { count, last } = yield* Ref.get(env.failures)
      if (last !== undefined && count > failuresBefore) return yield* last
      return yield* Effect.tapError(renew(env, failed, cause), (error) =>
        Ref.set(env.failures, { count: count + 1, last: error })
      )
    })
  )
})

/** The session to send: a token that is about to end is renewed first. */
const usable = Effect.fnUntraced(function* (env: Env) {
  const current = yield* Ref.get(env.current)
  const { expiresAtMillis, refreshToken } = current.session
  if (expiresAtMillis === undefined || refreshToken === undefined) return current
  if ((yield* Clock.currentTimeMillis) < expiresAtMillis - env.config.tokenRenewAheadMillis) return current
  // When the refresh is refused, the answer to the old token says what the refusal doesn't: whether the keys may be kept.
  return yield* Effect.catchReason(renewOnce(env, current, undefined), "HomeserverError", "Unauthorized", () =>
    Effect.succeed(current)
  )
})

type Use<A> = (token: Redacted.Redacted) => Effect.Effect<A, Failure>

/** After the last renewal the store is looked at once more for another process's token, and nothing is refreshed again. */
const lastChance = <A>(env: Env, used: StoredSession, use: Use<A>, error: Failure): Effect.Effect<A, Failure> =>
  Effect.flatMap(Effect.mapError(adopt(env, used), asHomeserverError), (newer) =>
    newer === undefined ? Effect.fail(error) : use(newer.session.accessToken)
  )

/**
 * Renewals that refusals can lead to during one call, besides the one ahead of a token's end: one for the token that had
 * ended, and one for its successor that ended while the process was frozen.
 */
const RENEWALS = 2

/** Whether the homeserver says that the token has merely ended (spec: "Soft logout"), so that a refresh is what it wants. */
const hasEnded = ({ reason }: Failure): boolean => reason._tag === "Unauthorized" && reason.softLogout

const attempt = <A>(env: Env, session: StoredSession, use: Use<A>, renewals: number): Effect.Effect<A, Failure> =>
  Effect.catchReason(use(session.session.accessToken), "HomeserverError", "Unauthorized", (_, error) =>
    renewals === RENEWALS || (renewals > 0 && hasEnded(error))
      ? Effect.flatMap(renewOnce(env, session, error), (next) => attempt(env, next, use, renewals - 1))
      : lastChance(env, session, use, error)
  )

const authorized = <A>(env: Env, use: Use<A>): Effect.Effect<A, Failure> =>
  Effect.flatMap(usable(env), (session) => attempt(env, session, use, RENEWALS))

/** The stored login, ready to make calls. */
export interface OpenSession {
  /** As the store had it when it was opened. */
  readonly session: AccountSession
  readonly http: MatrixHttp.MatrixHttp
  readonly tokens: SessionTokens
}

/**
 * Opens the stored login. Fails with `NotLoggedIn` when there is none, `InvalidHomeserverUrl` when its address is none,
 * `StoreError` when the store can't be read. Asks nothing of the homeserver.
 */
export const open: Effect.Effect<
  OpenSession,
  NotLoggedIn | HomeserverUrl.InvalidHomeserverUrl | StoreError.StoreError,
  SessionStore | RefreshLock | HttpTransport
> = Effect.gen(function* () {
  const store = yield* SessionStore
  const stored = yield* store.load
  if (stored === undefined) {
    return yield* new NotLoggedIn({ message: "Nobody is logged in here. Log in first: twinloop login." })
  }
  const http = yield* MatrixHttp.make(yield* Effect.fromResult(HomeserverUrl.parse(stored.session.homeserver)))
  const env: Env = {
    store,
    lock: yield* RefreshLock,
    http,
    config: yield* SyncConfig.SyncConfig,
    current: yield* Ref.make(stored),
    local: yield* Semaphore.make(1),
    failures: yield* Ref.make({ count: 0 })
  }
  return { session: stored.session, http, tokens: { authorized: (use) => authorized(env, use) } }
})
