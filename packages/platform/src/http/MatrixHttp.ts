/**
 * One request to a homeserver: sends it, reads the answer within its limits, and gives JSON or a `HomeserverError`.
 *
 * Includes the time limit and what transport failures mean.
 *
 * Invariants: I8 (the time limit is Effect's), I10 (time; the size is kept by the transport).
 *
 * Gotchas: no redirect is followed, since it would carry the token to another place. Nothing that a homeserver or a
 * library says is repeated in a message before the request's secrets are taken out of it.
 *
 * Not here: what a refusal means (`MatrixError.ts`), which token a request carries (`SessionTokens.ts`), retrying.
 */
import { Clock, Effect, Predicate, Redacted, Result, Schema } from "effect"
import { HomeserverError, type MatrixEvent, SyncConfig } from "@twinloop/core"
import * as HomeserverUrl from "./HomeserverUrl.ts"
import * as HttpTransport from "./HttpTransport.ts"
import * as MatrixError from "./MatrixError.ts"
import * as SecretWords from "./SecretWords.ts"

/** What to ask. */
export interface Call {
  /** Names the call in errors: "sync", "keys/upload", "login", ... */
  readonly operation: string
  readonly method: "GET" | "POST" | "PUT"
  /** From the base address on, percent-encoded, with a slash at the start; see {@link pathOf}. */
  readonly path: string
  readonly query?: { readonly [name: string]: string }
  readonly body?: MatrixEvent.JsonObject
  /** Sent as `Authorization: Bearer`. */
  readonly token?: Redacted.Redacted
  /** Secrets in the body, so that no message repeats them. The token is one without being named here. */
  readonly secrets?: ReadonlyArray<Redacted.Redacted>
  /** How long the homeserver may hold the request open, in milliseconds; comes on top of the network's own limit. */
  readonly holdMillis?: number
  /** What to do when the homeserver forbids it, for the message. */
  readonly whenForbidden?: string
  /** What to do when the homeserver doesn't accept what was sent (400), for the message. */
  readonly whenRefused?: string
  /** True when the request carries a sliding-sync position. */
  readonly posSent?: boolean
}

/** Sends calls to one homeserver. */
export interface MatrixHttp {
  readonly url: HomeserverUrl.HomeserverUrl
  /** The answer's JSON object. What a refusal means is said in `MatrixError.ts`. */
  request(call: Call): Effect.Effect<MatrixEvent.JsonObject, HomeserverError.HomeserverError>
  /** The answer decoded; fails with `BadResponse` when it is not what the endpoint promises. */
  requestAs<A>(call: Call, schema: Schema.Decoder<A>): Effect.Effect<A, HomeserverError.HomeserverError>
}

/** Half a surrogate pair, which no address can carry; a homeserver's JSON can. */
const loneSurrogate = /\p{Surrogate}/gu

/** Joins path segments, each percent-encoded. */
export const pathOf = (...segments: ReadonlyArray<string>): string =>
  "/_matrix/client/" + segments.map((segment) => encodeURIComponent(segment.replace(loneSurrogate, "\ufffd"))).join("/")

/** A segment that a URL parser takes for a direction, encoded or not: the request would go to another endpoint. */
const isMisleading = (path: string): boolean => path.split("/").some((segment) => segment === "." || segment === "..")

/** What a call works with. */
interface Env {
  readonly url: HomeserverUrl.HomeserverUrl
  readonly transport: HttpTransport.HttpTransport["Service"]
  readonly networkTimeoutMillis: number
  readonly maxResponseBytes: number
}

const describe = (env: Env, call: Call): string => `${call.method} ${call.path} at ${env.url.origin}`

const secretsOf = (call: Call): ReadonlyArray<string> =>
  [call.token, ...(call.secrets ?? [])]
    .flatMap((secret) => (secret === undefined ? [] : [Redacted.value(secret)]))
    .filter((secret) => secret !== "")

/** Words that are not ours without the call's secrets; nothing is left to quote when they can't be taken out. */
const scrubbed = (call: Call, text: string): string | undefined => SecretWords.without(text, secretsOf(call))

const requestFor = (env: Env, call: Call): HttpTransport.TransportRequest => {
  const { body, method, path, query, token } = call
  const search = query === undefined ? "" : `?${new URLSearchParams(query)}`
  return {
    method,
    url: HomeserverUrl.join(env.url, path) + search,
    headers: {
      accept: "application/json",
      ...(token === undefined ? {} : { authorization: `Bearer ${Redacted.value(token)}` }),
      ...(body === undefined ? {} : { "content-type": "application/json" })
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    maxBytes: env.maxResponseBytes
  }
}

/** The operating system's or the library's code for a failure, such as ECONNREFUSED, wherever it is nested. */
const codeOf = (cause: unknown): string | undefined => {
  if (!Predicate.isObject(cause)) return undefined
  return typeof cause["code"] === "string" ? cause["code"] : codeOf(cause["cause"])
}

/** What to do about the transport failures that people meet; the others get the general advice. */
const advice: { readonly [code: string]: string } = {
  ECONNREFUSED: "Nothing listens there: is the homeserver running, and the port right?",
  ENOTFOUND: "The host name is not known: check the address and the network.",
  EAI_AGAIN: "The host name could not be looked up: check the network."
}

const networkError = (env: Env, call: Call, cause: unknown): HomeserverError.NetworkError => {
  const code = codeOf(cause)
  const words = Predicate.isError(cause) && cause.message !== "" ? cause.message : "the connection failed"
  const what = scrubbed(call, code === undefined ? words : `${code}: ${words}`) ?? code ?? "the connection failed"
  const next = (code === undefined ? undefined : advice[code]) ?? "Check the network and try again."
  return new HomeserverError.NetworkError({
    message: `${describe(env, call)} got no answer (${what}). ${next}`,
    timedOut: false,
    ...(Predicate.isError(cause) ? { cause } : {})
  })
}

const timedOut = (env: Env, call: Call, millis: number): HomeserverError.NetworkError =>
  new HomeserverError.NetworkError({
    message: `${describe(env, call)} got no answer within ${millis} ms. Check the network and try again.`,
    timedOut: true
  })

const tooLarge = (env: Env, call: Call): HomeserverError.ResponseTooLarge =>
  new HomeserverError.ResponseTooLarge({
    message: `The answer to ${describe(env, call)} is larger than ${env.maxResponseBytes} bytes and was not read to its end. Ask for less, or raise SyncConfig.maxResponseBytes.`,
    limitBytes: env.maxResponseBytes
  })

const notSent = (env: Env, call: Call): HomeserverError.BadRequest =>
  new HomeserverError.BadRequest({
    message: `${describe(env, call)} was not sent: no room id, event id, type or transaction id may be "." or "..".`,
    status: 400,
    errcode: "M_INVALID_PARAM"
  })

/** A JSON value, or `undefined` when it is none. */
const parseJson = (text: string): unknown => Result.getOrUndefined(Result.try((): unknown => JSON.parse(text)))

const notJson = (env: Env, call: Call, text: string): HomeserverError.BadResponse => {
  const html = /^\s*</.test(text)
  const what = text === "" ? "an empty body" : html ? "a web page (HTML)" : "something that is not JSON"
  const next = html
    ? "A proxy or a network's log-in page stands in between: check the homeserver's address and the network."
    : "Check that the address is a Matrix homeserver's."
  return new HomeserverError.BadResponse({
    message: `${describe(env, call)} was answered with ${what} instead of a JSON object. ${next}`
  })
}

/** How the specification spells its error codes, which decide what a refusal means. */
const specifiedCode = /^M_[A-Z_]+$/

/** Levels that a refusal's other members may have; what is deeper tells nobody anything. */
const REFUSAL_LEVELS = 16

/** A JSON value in which whatever holds one of the secrets is left out: parts of it go back to the homeserver as they are. */
const withoutSecrets = (secrets: ReadonlyArray<string>, value: unknown, levels = REFUSAL_LEVELS): unknown => {
  const holdsSecret = (text: string) => secrets.some((secret) => SecretWords.holds(text, secret))
  if (typeof value === "string") return holdsSecret(value) ? "<redacted>" : value
  if (!Predicate.isObjectOrArray(value)) return value
  if (levels === 0) return "<redacted>"
  if (Array.isArray(value)) return value.map((item) => withoutSecrets(secrets, item, levels - 1))
  const entries = Object.entries(value).filter(([key]) => !holdsSecret(key))
  return Object.fromEntries(entries.map(([key, item]) => [key, withoutSecrets(secrets, item, levels - 1)]))
}

/** A refusal's JSON without the call's secrets; taken out after parsing, since JSON can spell a character in several ways. */
const scrubbedRefusal = (call: Call, text: string): unknown => {
  const json = parseJson(text)
  if (!Predicate.isObject(json)) return json
  const { errcode, error, ...others } = json
  const said = typeof error === "string" ? scrubbed(call, error) : undefined
  const code = typeof errcode === "string" ? (scrubbed(call, errcode) ?? specifiedCode.exec(errcode)?.[0]) : undefined
  const rest = withoutSecrets(secretsOf(call), others) as MatrixEvent.JsonObject
  return { ...rest, ...(said === undefined ? {} : { error: said }), ...(code === undefined ? {} : { errcode: code }) }
}

/** Where an answer redirects to is the one thing that a message names of its headers. */
const scrubbedHeaders = (call: Call, headers: HttpTransport.TransportResponse["headers"]) => {
  const { location } = headers
  return location === undefined ? headers : { ...headers, location: scrubbed(call, location) }
}

const isSuccess = (status: number): boolean => status >= 200 && status < 300

/** Gives an answer's JSON object, or says what it means that there is none. */
const interpret = (
  env: Env,
  call: Call,
  { headers, status, text }: HttpTransport.TransportResponse
): Effect.Effect<MatrixEvent.JsonObject, HomeserverError.HomeserverErrorReason> => {
  if (isSuccess(status)) {
    const json = parseJson(text)
    const isJsonObject = Predicate.isObject(json) && !Array.isArray(json)
    return isJsonObject ? Effect.succeed(json as MatrixEvent.JsonObject) : Effect.fail(notJson(env, call, text))
  }
  return Effect.flatMap(Clock.currentTimeMillis, (nowMillis) =>
    Effect.fail(
      MatrixError.reasonOf({
        status,
        headers: scrubbedHeaders(call, headers),
        json: scrubbedRefusal(call, text),
        posSent: call.posSent === true,
        ...(call.whenForbidden === undefined ? {} : { whenForbidden: call.whenForbidden }),
        ...(call.whenRefused === undefined ? {} : { whenRefused: call.whenRefused }),
        request: describe(env, call),
        nowMillis
      })
    )
  )
}

const exchange = (env: Env, call: Call): Effect.Effect<MatrixEvent.JsonObject, HomeserverError.HomeserverError> => {
  const limitMillis = (call.holdMillis ?? 0) + env.networkTimeoutMillis
  return env.transport.exchange(requestFor(env, call)).pipe(
    Effect.mapError((error) =>
      error._tag === "AnswerTooLarge" ? tooLarge(env, call) : networkError(env, call, error.cause)
    ),
    Effect.timeoutOrElse({
      duration: limitMillis,
      orElse: () => Effect.fail(timedOut(env, call, limitMillis))
    }),
    Effect.flatMap((response) => interpret(env, call, response)),
    Effect.mapError((reason) => new HomeserverError.HomeserverError({ operation: call.operation, reason }))
  )
}

/** A call failed because its answer is not what the endpoint promises; `what` says in what, in half a sentence. */
export const badResponse = (operation: string, what: string): HomeserverError.HomeserverError =>
  new HomeserverError.HomeserverError({
    operation,
    reason: new HomeserverError.BadResponse({
      message: `The homeserver's answer can't be used: ${what}. If this goes on, the homeserver or a proxy in front of it is at fault.`
    })
  })

/** Sends calls to a homeserver, within the limits of the `SyncConfig` in force here. */
export const make = Effect.fnUntraced(function* (
  url: HomeserverUrl.HomeserverUrl
): Effect.fn.Return<MatrixHttp, never, HttpTransport.HttpTransport> {
  const { networkTimeoutMillis, maxResponseBytes } = yield* SyncConfig.SyncConfig
  const env: Env = { url, transport: yield* HttpTransport.HttpTransport, networkTimeoutMillis, maxResponseBytes }
  const request: MatrixHttp["request"] = (call) =>
    isMisleading(call.path)
      ? Effect.fail(new HomeserverError.HomeserverError({ operation: call.operation, reason: notSent(env, call) }))
      : exchange(env, call)
  return {
    url,
    request,
    requestAs: (call, schema) =>
      Effect.flatMap(request(call), (json) =>
        Effect.mapError(Schema.decodeEffect(schema)(json), () =>
          badResponse(call.operation, "it has not the fields that the endpoint promises")
        )
      )
  }
})
