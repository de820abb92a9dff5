/**
 * Decides what a loop does about an error: try again and when, start its connection afresh, or give up for good.
 *
 * Includes the error classes, `classify` for every error that a loop can meet, and `decide`. Pure: randomness comes in as
 * a number.
 *
 * Invariants: I3 (each loop asks for itself; nothing here knows of another loop), I9 (only a lost login, an unsupported
 * homeserver and a disk that can't be written are terminal), I10 (every wait has an upper bound).
 */
import { Match } from "effect"
import type { CryptoError } from "./CryptoError.ts"
import type { HomeserverError } from "./HomeserverError.ts"
import type { StoreError } from "./StoreError.ts"
import type { SyncConfigShape } from "./SyncConfig.ts"

/**
 * - `network`: no answer came; the device may be offline.
 * - `rateLimited`: the homeserver asks to wait.
 * - `expired`: the connection's position is unknown; start it afresh.
 * - `auth`: the login is lost.
 * - `unsupported`: the homeserver has no simplified sliding sync.
 * - `server`: the homeserver, or a proxy before it, answers and says no; it may say yes later.
 * - `rejected`: the homeserver doesn't accept what was sent (another 4xx); after some tries the position is held to be the cause.
 * - `tooLarge`: the answer is larger than we take; ask for less.
 * - `store`: storage can't be used just then.
 * - `storeTerminal`: storage can't be used until somebody repairs it.
 * - `stale`: another process owns the stream by now.
 * - `moved`: another process used the connection or applied the batch.
 * - `crypto`: the end-to-end machine failed; its memory is void.
 */
export type ErrorClass =
  | "network"
  | "rateLimited"
  | "expired"
  | "auth"
  | "unsupported"
  | "server"
  | "rejected"
  | "tooLarge"
  | "store"
  | "storeTerminal"
  | "stale"
  | "moved"
  | "crypto"

/** An error as a loop's state shows it: its class, and a sentence for people. */
export interface Failure {
  readonly class: ErrorClass
  readonly message: string
  /** How long the homeserver asked to wait, in milliseconds. */
  readonly retryAfterMillis?: number
}

/** What every input of a loop carries that tells of a failure. */
export interface Failed {
  readonly failure: Failure
  /** Unix milliseconds. */
  readonly nowMillis: number
  /** In [0, 1), for the jitter. */
  readonly random: number
}

/** Everything that can end an iteration of a loop. */
export type LoopError = HomeserverError | StoreError | CryptoError

const homeserverClass: Record<HomeserverError["reason"]["_tag"], ErrorClass> = {
  NetworkError: "network",
  RateLimited: "rateLimited",
  UnknownPosition: "expired",
  Unauthorized: "auth",
  Unsupported: "unsupported",
  Forbidden: "server",
  UserInteractiveAuth: "rejected",
  NotFound: "server",
  BadRequest: "rejected",
  ServerError: "server",
  BadResponse: "server",
  ResponseTooLarge: "tooLarge"
}

const storeClass: Record<StoreError["reason"]["_tag"], ErrorClass> = {
  StaleGeneration: "stale",
  Moved: "moved",
  StoreBusy: "store",
  StoreFull: "store",
  StoreReadOnly: "storeTerminal",
  StoreCorrupt: "storeTerminal",
  StoreNewer: "storeTerminal",
  StoreUnavailable: "storeTerminal"
}

/** A store that this key or this software can't open is like a disk that can't be written: somebody has to see to it. */
const cryptoClass = ({ reason }: CryptoError): ErrorClass => {
  switch (reason._tag) {
    case "CryptoWrongKey":
    case "CryptoForeignStore":
    case "CryptoStoreNewer":
      return "storeTerminal"
    case "CryptoStoreFailed":
      return storeClass[reason.error.reason._tag]
    default:
      return "crypto"
  }
}

/** Turns an error into its class and its message. */
export const classify: (error: LoopError) => Failure = Match.type<LoopError>().pipe(
  Match.tag("HomeserverError", (error): Failure => ({
    class: homeserverClass[error.reason._tag],
    message: error.message,
    ...(error.reason._tag === "RateLimited" && error.reason.retryAfterMillis !== undefined
      ? { retryAfterMillis: error.reason.retryAfterMillis }
      : {})
  })),
  Match.tag("StoreError", (error): Failure => ({ class: storeClass[error.reason._tag], message: error.message })),
  Match.tag("CryptoError", (error): Failure => ({ class: cryptoClass(error), message: error.message })),
  Match.exhaustive
)

/** What a loop does next. */
export type Decision =
  /** Do the same again after the delay. */
  | { readonly _tag: "Retry"; readonly delayMillis: number }
  /** Forget the connection's position and start it afresh after the delay. */
  | { readonly _tag: "Restart"; readonly delayMillis: number }
  /** Nothing that we can do helps: say so and stop. */
  | { readonly _tag: "GiveUp" }

type Limits = Pick<SyncConfigShape, "backoffMinMillis" | "backoffMaxMillis" | "retryAfterMaxMillis">

/**
 * Exponential backoff with equal jitter: half of the doubled delay is sure, half is chance, so that many clients of one
 * homeserver don't come back at once, and none comes back at once itself.
 *
 * @param attempt failures in a row before this one, 0 or more
 * @param random 0 (inclusive) to 1 (exclusive)
 * @returns milliseconds
 */
export const backoffMillis = (limits: Limits, attempt: number, random: number): number => {
  const doubled = Math.min(limits.backoffMaxMillis, limits.backoffMinMillis * 2 ** Math.min(attempt, 30))
  return Math.round(doubled / 2 + (doubled / 2) * random)
}

const rateLimitMillis = (limits: Limits, failure: Failure, attempt: number, random: number): number => {
  if (failure.retryAfterMillis === undefined) return backoffMillis(limits, attempt, random)
  // A little later than asked, never earlier, and never for a day.
  const asked = Math.min(limits.retryAfterMaxMillis, Math.max(0, failure.retryAfterMillis))
  return Math.round(asked + limits.backoffMinMillis * random)
}

/** What counts as answered at once, in milliseconds, if a long poll is longer than twice that. */
const AT_ONCE_MILLIS = 1_000
/** Long polls in a row that may be answered at once with nothing: a homeserver also wakes for what it then doesn't tell. */
const HASTY_ANSWERS = 5

/** An answered request, as far as its haste matters. */
export interface Answer {
  /** How long the homeserver might have held the request open. */
  readonly timeoutMillis: number
  readonly tookMillis: number
  /** Whether it brought nothing that could be used. */
  readonly isEmpty: boolean
}

/**
 * How many long polls in a row, this one included, were answered at once with nothing. Requests that don't wait count
 * neither way.
 *
 * @param before how many there were before this one
 */
export const hasty = (before: number, { isEmpty, timeoutMillis, tookMillis }: Answer): number => {
  if (timeoutMillis === 0) return before
  return isEmpty && tookMillis < Math.min(AT_ONCE_MILLIS, timeoutMillis / 2) ? before + 1 : 0
}

/**
 * How long to rest before the next long poll, in milliseconds, or `undefined` to go on at once: a homeserver that doesn't
 * hold the line open, or a proxy that strips the timeout, would otherwise be asked in a hot loop.
 */
export const restMillis = (limits: Limits, hastyAnswers: number, random: number): number | undefined =>
  hastyAnswers <= HASTY_ANSWERS ? undefined : backoffMillis(limits, hastyAnswers - HASTY_ANSWERS - 1, random)

/** What a loop's state shows while it rests. */
export const hastyFailure: Failure = {
  class: "server",
  message:
    "sync: the homeserver answers long polls at once with nothing new, so it is asked less often; it, or a proxy before it, may ignore the request's timeout."
}

/** How often a request is rejected before its position is given up. */
const REJECTIONS = 3

/** Decides about a failure. `attempt` counts failures in a row before this one; `random` is in [0, 1). */
export const decide = (limits: Limits, failure: Failure, attempt: number, random: number): Decision => {
  switch (failure.class) {
    case "network":
    case "server":
    case "store":
    case "crypto":
    case "tooLarge":
    case "stale":
      return { _tag: "Retry", delayMillis: backoffMillis(limits, attempt, random) }
    case "rejected":
      // A homeserver may have other words for a position that it doesn't take; nothing else that we send changes by itself.
      return attempt < REJECTIONS
        ? { _tag: "Retry", delayMillis: backoffMillis(limits, attempt, random) }
        : { _tag: "Restart", delayMillis: backoffMillis(limits, attempt, random) }
    case "rateLimited":
      return { _tag: "Retry", delayMillis: rateLimitMillis(limits, failure, attempt, random) }
    case "expired":
    case "moved":
      // Once at once: expiry is part of ordinary life. A second time in a row something is wrong: don't hammer.
      return { _tag: "Restart", delayMillis: attempt === 0 ? 0 : backoffMillis(limits, attempt - 1, random) }
    case "auth":
    case "unsupported":
    case "storeTerminal":
      return { _tag: "GiveUp" }
  }
}
