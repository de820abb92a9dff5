/**
 * What can go wrong between us and a homeserver: one envelope with a tagged reason.
 *
 * Each reason says in words what happened and what to do next. What a loop does about it is decided in
 * `SupervisionPolicy`, not here.
 */
import { Schema } from "effect"

/** No answer: refused, reset, no route, DNS, TLS, or a request that took longer than its limit. A retry can help. */
export class NetworkError extends Schema.TaggedError<NetworkError>("@twinloop/core/NetworkError")("NetworkError", {
  message: Schema.String,
  /** True when our own time limit ended the request. */
  timedOut: Schema.Boolean,
  cause: Schema.optionalKey(Schema.Defect())
}) {}

/** 429 `M_LIMIT_EXCEEDED`. `retryAfterMillis` comes from `Retry-After`, else from `retry_after_ms`. Spec: "Rate limiting". */
export class RateLimited extends Schema.TaggedError<RateLimited>("@twinloop/core/RateLimited")("RateLimited", {
  message: Schema.String,
  retryAfterMillis: Schema.optionalKey(Schema.Finite)
}) {}

/** 400 `M_UNKNOWN_POS`: the connection's position has expired or is somebody else's. Start it afresh (MSC4186). */
export class UnknownPosition extends Schema.TaggedError<UnknownPosition>("@twinloop/core/UnknownPosition")(
  "UnknownPosition",
  { message: Schema.String }
) {}

/** 401 `M_UNKNOWN_TOKEN` or `M_MISSING_TOKEN`, after refreshing could not help. `softLogout`: keep the keys, log in again. */
export class Unauthorized extends Schema.TaggedError<Unauthorized>("@twinloop/core/Unauthorized")("Unauthorized", {
  message: Schema.String,
  softLogout: Schema.Boolean
}) {}

/** 403 and the other answers that no retry changes (`M_FORBIDDEN`, `M_USER_LOCKED`, `M_CONSENT_NOT_GIVEN`, ...). */
export class Forbidden extends Schema.TaggedError<Forbidden>("@twinloop/core/Forbidden")("Forbidden", {
  message: Schema.String,
  errcode: Schema.String
}) {}

/** A way through interactive authentication: its stages, in order. `m.login.password` is the stage that asks for a password. */
export const AuthFlow = Schema.Struct({ stages: Schema.Array(Schema.String) })
export type AuthFlow = typeof AuthFlow.Type

/**
 * 401 that asks who one is once more, before it does what it was asked for; the login is as valid as before. Repeat the same
 * request with `auth` in its body: a stage of one of the `flows`, what the stage wants, and the `session`. Spec:
 * "User-Interactive Authentication API".
 */
export class UserInteractiveAuth extends Schema.TaggedError<UserInteractiveAuth>("@twinloop/core/UserInteractiveAuth")(
  "UserInteractiveAuth",
  {
    message: Schema.String,
    /** Goes back as `auth.session`. Absent when the homeserver gave none, and then none is sent. */
    session: Schema.optionalKey(Schema.String),
    flows: Schema.Array(AuthFlow),
    /** stage → what it needs to be known beforehand. */
    params: Schema.Record(Schema.String, Schema.Unknown),
    /** Stages that the session has behind it. */
    completed: Schema.Array(Schema.String),
    /** Why the last `auth` was refused: `M_FORBIDDEN` for a wrong password. Absent when there was none. */
    errcode: Schema.optionalKey(Schema.String)
  }
) {}

/** 404 with `M_NOT_FOUND`: the thing asked for isn't there or may not be seen. */
export class NotFound extends Schema.TaggedError<NotFound>("@twinloop/core/NotFound")("NotFound", {
  message: Schema.String
}) {}

/** The homeserver doesn't have the endpoint (404/405 `M_UNRECOGNIZED`) or doesn't offer simplified sliding sync. */
export class Unsupported extends Schema.TaggedError<Unsupported>("@twinloop/core/Unsupported")("Unsupported", {
  message: Schema.String
}) {}

/** Any other 4xx: the homeserver did not accept what we sent. */
export class BadRequest extends Schema.TaggedError<BadRequest>("@twinloop/core/BadRequest")("BadRequest", {
  message: Schema.String,
  status: Schema.Finite,
  errcode: Schema.String
}) {}

/** 5xx, from the homeserver or a proxy in front of it. A retry can help. */
export class ServerError extends Schema.TaggedError<ServerError>("@twinloop/core/ServerError")("ServerError", {
  message: Schema.String,
  status: Schema.Finite
}) {}

/** A success status whose body is not what the endpoint promises: no JSON, HTML from a proxy, a wrong shape. */
export class BadResponse extends Schema.TaggedError<BadResponse>("@twinloop/core/BadResponse")("BadResponse", {
  message: Schema.String
}) {}

/** A body larger than `SyncConfig.maxResponseBytes`; it was not read to its end (invariant I10). */
export class ResponseTooLarge extends Schema.TaggedError<ResponseTooLarge>("@twinloop/core/ResponseTooLarge")(
  "ResponseTooLarge",
  { message: Schema.String, limitBytes: Schema.Finite }
) {}

export const HomeserverErrorReason = Schema.Union([
  NetworkError,
  RateLimited,
  UnknownPosition,
  Unauthorized,
  Forbidden,
  UserInteractiveAuth,
  NotFound,
  Unsupported,
  BadRequest,
  ServerError,
  BadResponse,
  ResponseTooLarge
])
export type HomeserverErrorReason = typeof HomeserverErrorReason.Type

/**
 * A call to the homeserver failed. `operation` is what was tried ("sync", "keys/upload", "login", ...), `reason` why it
 * failed, `message` both in one sentence.
 */
export class HomeserverError extends Schema.TaggedError<HomeserverError>("@twinloop/core/HomeserverError")(
  "HomeserverError",
  { operation: Schema.String, reason: HomeserverErrorReason }
) {
  override get message(): string {
    return `${this.operation}: ${this.reason.message}`
  }
}
