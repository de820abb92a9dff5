/**
 * What an answer other than success means: status, headers and body of a response to the reason of a `HomeserverError`.
 *
 * Pure, so that every row of the table can be tested without a server.
 *
 * Invariants: I9 (an answer that a proxy gave is never taken for the homeserver's word on the login or on its features).
 *
 * Gotchas: the errcode says more than the status, where there is one. An answer without an errcode comes from something in
 * front of the homeserver: its 401 doesn't end a login, and its 404 doesn't mean that an endpoint is missing. A 401 with
 * `flows` is the homeserver's own and doesn't end a login either: it asks for interactive authentication.
 *
 * Source: spec, client-server API, "Standard error response", "Rate limiting", "Soft logout"; MSC4186 (`M_UNKNOWN_POS`).
 */
import { DateTime, Option, Predicate } from "effect"
import { HomeserverError, type MatrixEvent } from "@twinloop/core"
import * as Printable from "../Printable.ts"

/** An answer that is not a success. */
export interface Refusal {
  readonly status: number
  /** Names in lower case. */
  readonly headers: { readonly [name: string]: string | undefined }
  /** The body parsed as JSON, or `undefined` when it is none. */
  readonly json: unknown
  /** True when a `pos` was sent, so that the answer may be about it. */
  readonly posSent: boolean
  /** Method, path and homeserver, as messages name the request. */
  readonly request: string
  /** What to do about `M_FORBIDDEN` and its kind, where the request tells it better than that no retry helps. */
  readonly whenForbidden?: string
  /** What to do about a 400 without a meaning of its own, where the request tells it. */
  readonly whenRefused?: string
  /** Unix milliseconds, for a `Retry-After` that is a date. */
  readonly nowMillis: number
}

/** Spec: "Common error codes" and those of single endpoints that only a person or an administrator can lift. */
const forbiddenCodes: ReadonlySet<string> = new Set([
  "M_FORBIDDEN",
  "M_USER_LOCKED",
  "M_USER_SUSPENDED",
  "M_USER_DEACTIVATED",
  "M_CONSENT_NOT_GIVEN",
  "M_RESOURCE_LIMIT_EXCEEDED"
])

/** How much of a homeserver's own words a message repeats: they are not ours, and could be of any length. */
const quotedCharacters = 200

const stringOf = (json: unknown, key: string): string | undefined =>
  Predicate.isObject(json) && typeof json[key] === "string" ? json[key] : undefined

/** A bad position in other words than `M_UNKNOWN_POS`: Synapse says "Invalid stream token" for one that it can't parse. */
const namesPosition = (error: string): boolean => /stream token|\bpos\b|position/i.test(error)

const dateMillis = (text: string): number | undefined =>
  Option.getOrUndefined(Option.map(DateTime.make(text), DateTime.toEpochMillis))

/**
 * How long to wait, in milliseconds: the `Retry-After` header (seconds or a date), else `retry_after_ms`.
 *
 * A date is measured from the answer's own `Date`, so that a clock that is wrong on either side does no harm.
 */
export const retryAfterMillis = (refusal: Pick<Refusal, "headers" | "json" | "nowMillis">): number | undefined => {
  const header = refusal.headers["retry-after"]?.trim()
  if (header !== undefined && /^\d+(\.\d+)?$/.test(header)) {
    return Math.min(Number.MAX_SAFE_INTEGER, Math.ceil(Number(header) * 1000))
  }
  const until = header === undefined ? undefined : dateMillis(header)
  if (until !== undefined) {
    const from = refusal.headers["date"] === undefined ? undefined : dateMillis(refusal.headers["date"])
    return Math.max(0, until - (from ?? refusal.nowMillis))
  }
  const body = Predicate.isObject(refusal.json) ? refusal.json["retry_after_ms"] : undefined
  return typeof body === "number" && Number.isFinite(body) && body >= 0 ? body : undefined
}

const rateLimited = (refusal: Refusal, said: string): HomeserverError.RateLimited => {
  const wait = retryAfterMillis(refusal)
  const when = wait === undefined ? "Try again later." : `Try again in ${wait} ms.`
  return new HomeserverError.RateLimited({
    message: `${said} ${when}`,
    ...(wait === undefined ? {} : { retryAfterMillis: wait })
  })
}

const noRetry = "No retry changes this."

/** The reasons that an errcode, or what else the body says, gives by itself. */
const byBody = (refusal: Refusal, errcode: string, said: string): HomeserverError.HomeserverErrorReason | undefined => {
  const error = stringOf(refusal.json, "error") ?? ""
  if (errcode === "M_LIMIT_EXCEEDED") return rateLimited(refusal, said)
  if (refusal.posSent && (errcode === "M_UNKNOWN_POS" || (refusal.status === 400 && namesPosition(error)))) {
    return new HomeserverError.UnknownPosition({ message: `${said} The connection has to be started afresh.` })
  }
  if (errcode === "M_UNKNOWN_TOKEN" || errcode === "M_MISSING_TOKEN") {
    const softLogout = Predicate.isObject(refusal.json) && refusal.json["soft_logout"] === true
    const next = softLogout
      ? "Log in again with the same device id; the keys stay valid."
      : "Log in again; this device is logged out."
    return new HomeserverError.Unauthorized({ message: `${said} ${next}`, softLogout })
  }
  const interactive = interactiveAuth(refusal, errcode, said)
  if (interactive !== undefined) return interactive
  if (forbiddenCodes.has(errcode)) {
    return new HomeserverError.Forbidden({ message: `${said} ${refusal.whenForbidden ?? noRetry}`, errcode })
  }
  if (errcode === "M_UNRECOGNIZED") {
    return new HomeserverError.Unsupported({ message: `${said} The homeserver doesn't have this endpoint.` })
  }
  return undefined
}

const stringsOf = (value: unknown): ReadonlyArray<string> =>
  Array.isArray(value) ? value.filter((item) => typeof item === "string") : []

const flowOf = (flow: unknown): ReadonlyArray<HomeserverError.AuthFlow> =>
  Predicate.isObject(flow) && Array.isArray(flow["stages"]) ? [{ stages: stringsOf(flow["stages"]) }] : []

/**
 * The homeserver wants to know once more who asks: a 401 with `flows`, at the first stage without an errcode, after a stage
 * that failed with its errcode. Spec: "User-interactive API in the REST API".
 */
const interactiveAuth = (
  { json, status }: Refusal,
  errcode: string,
  said: string
): HomeserverError.UserInteractiveAuth | undefined => {
  if (status !== 401 || !Predicate.isObject(json) || !Array.isArray(json["flows"])) return undefined
  const { completed, flows, params } = json
  const session = stringOf(json, "session")
  return new HomeserverError.UserInteractiveAuth({
    message: `${said} It wants to know who asks: repeat the request with "auth" in its body. The login is still valid.`,
    flows: flows.flatMap(flowOf),
    params: Predicate.isObject(params) ? (params as MatrixEvent.JsonObject) : {},
    completed: stringsOf(completed),
    ...(session === undefined ? {} : { session }),
    ...(errcode === "" ? {} : { errcode })
  })
}

/** The reasons that are left to the status. */
const byStatus = (refusal: Refusal, errcode: string, said: string): HomeserverError.HomeserverErrorReason => {
  const { status } = refusal
  if (status === 429) return rateLimited(refusal, said)
  if (status >= 500) return new HomeserverError.ServerError({ message: `${said} Try again later.`, status })
  if (status === 403) {
    const from = errcode === "" ? "Something in front of the homeserver refuses the request." : noRetry
    return new HomeserverError.Forbidden({ message: `${said} ${from}`, errcode })
  }
  if (status === 404 && errcode === "M_NOT_FOUND") {
    return new HomeserverError.NotFound({ message: `${said} It isn't there, or this account may not see it.` })
  }
  if (status === 408) {
    return new HomeserverError.NetworkError({ message: `${said} A proxy gave up waiting; try again.`, timedOut: false })
  }
  if (status < 400) return redirected(refusal, said)
  const advice = status === 400 ? refusal.whenRefused : undefined
  const next = errcode === "" ? notFromHomeserver : (advice ?? "The homeserver did not accept the request.")
  return new HomeserverError.BadRequest({ message: `${said} ${next}`, status, errcode })
}

const notFromHomeserver =
  "The answer has no Matrix errcode: check the homeserver's address and the proxy in front of it."

/** Redirects are not followed: they would carry the token to wherever they point. */
const redirected = (refusal: Refusal, said: string): HomeserverError.BadResponse => {
  const location = refusal.headers["location"]
  const origin = location === undefined ? undefined : /^https?:\/\/[^/?#@]+/i.exec(location)?.[0]
  const where = origin === undefined ? "" : ` to ${origin}`
  return new HomeserverError.BadResponse({
    message: `${said} It redirects${where}; redirects are not followed. Give the homeserver's final address.`
  })
}

/** The reason for an answer that is not a success, with a message that says what happened, to what, and what to do. */
export const reasonOf = (refusal: Refusal): HomeserverError.HomeserverErrorReason => {
  const errcode = stringOf(refusal.json, "errcode") ?? ""
  const error = stringOf(refusal.json, "error")
  const words = (text: string): string => Printable.line(text.slice(0, quotedCharacters))
  const code = errcode === "" ? "" : ` ${words(errcode)}`
  const quoted = error === undefined ? "" : ` ("${words(error)}")`
  const said = `${refusal.request} was answered with ${refusal.status}${code}${quoted}.`
  return byBody(refusal, errcode, said) ?? byStatus(refusal, errcode, said)
}
