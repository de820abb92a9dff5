/**
 * One request to a homeserver: sends it, reads the answer within its limits, and gives JSON or a `HomeserverError`.
 *
 * Includes the time limit, the size limit, the abort on interruption, and what transport failures mean.
 *
 * Invariants: I4 (an interrupted call has closed its request), I8 (the time limit is Effect's), I10 (time and size).
 *
 * Gotchas: no redirect is followed, since it would carry the token to another place. Nothing that a homeserver or a
 * library says is repeated in a message before the request's secrets are taken out of it.
 *
 * Not here: what a refusal means (`MatrixError.ts`), which token a request carries (`SessionTokens.ts`), retrying.
 */
import { Clock, Effect, Option, Predicate, Redacted, Schema, Stream } from "effect"
import { FetchHttpClient, HttpClient, HttpClientError, HttpClientRequest } from "effect/http"
import type { HttpClientResponse } from "effect/http"
import { HomeserverError, type MatrixEvent, SyncConfig } from "@twinloop/core"
import * as HomeserverUrl from "./HomeserverUrl.ts"
import * as MatrixError from "./MatrixError.ts"

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
  readonly client: HttpClient.HttpClient
  readonly networkTimeoutMillis: number
  readonly maxResponseBytes: number
}

const describe = (env: Env, call: Call): string => `${call.method} ${call.path} at ${env.url.origin}`

/** A shorter secret is a part of common words; where one were taken out, what is left would give it away. */
const REDACTABLE_LENGTH = 8

/** Takes the call's secrets out of words that are not ours; nothing is left to quote when a secret is short. */
const scrubbed = (call: Call, text: string): string | undefined => {
  const secrets = [call.token, ...(call.secrets ?? [])]
    .flatMap((secret) => (secret === undefined ? [] : [Redacted.value(secret)]))
    .filter((secret) => secret !== "")
  if (secrets.some((secret) => secret.length < REDACTABLE_LENGTH)) return undefined
  return secrets.reduce((clean, secret) => clean.replaceAll(secret, "<redacted>"), text)
}

const requestFor = (env: Env, call: Call): HttpClientRequest.HttpClientRequest => {
  const base = HttpClientRequest.make(call.method)(HomeserverUrl.join(env.url, call.path)).pipe(
    HttpClientRequest.acceptJson,
    HttpClientRequest.setUrlParams(call.query ?? {})
  )
  const withToken = call.token === undefined ? base : HttpClientRequest.bearerToken(base, call.token)
  return call.body === undefined ? withToken : HttpClientRequest.bodyJsonUnsafe(withToken, call.body)
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

const joinChunks = (chunks: ReadonlyArray<Uint8Array>, size: number): string => {
  const bytes = new Uint8Array(size)
  let offset = 0
  for (const chunk of chunks) {
    bytes.set(chunk, offset)
    offset += chunk.byteLength
  }
  return new TextDecoder().decode(bytes)
}

/** Reads the body up to the limit; the connection is closed at the limit, whatever length the answer announced. */
const readText = (env: Env, call: Call, response: HttpClientResponse.HttpClientResponse) =>
  Effect.suspend(() => {
    const chunks: Array<Uint8Array> = []
    let size = 0
    return response.stream.pipe(
      Stream.runForEachArray((part) =>
        Effect.suspend(() => {
          for (const chunk of part) {
            chunks.push(chunk)
            size += chunk.byteLength
          }
          return size > env.maxResponseBytes ? Effect.fail(tooLarge(env, call)) : Effect.void
        })
      ),
      Effect.map(() => joinChunks(chunks, size))
    )
  })

const notSent = (env: Env, call: Call): HomeserverError.BadRequest =>
  new HomeserverError.BadRequest({
    message: `${describe(env, call)} was not sent: no room id, event id, type or transaction id may be "." or "..".`,
    status: 400,
    errcode: "M_INVALID_PARAM"
  })

const parseJson = Schema.decodeUnknownOption(Schema.fromJsonString(Schema.Unknown))

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

/** A refusal's JSON without the call's secrets; taken out after parsing, since JSON can spell a character in several ways. */
const scrubbedRefusal = (call: Call, text: string): unknown => {
  const json = Option.getOrUndefined(parseJson(text))
  if (!Predicate.isObject(json)) return json
  const { errcode, error, ...others } = json
  const said = typeof error === "string" ? scrubbed(call, error) : undefined
  const code = typeof errcode === "string" ? (scrubbed(call, errcode) ?? specifiedCode.exec(errcode)?.[0]) : undefined
  return { ...others, ...(said === undefined ? {} : { error: said }), ...(code === undefined ? {} : { errcode: code }) }
}

const isSuccess = (status: number): boolean => status >= 200 && status < 300

const interpret = Effect.fnUntraced(function* (
  env: Env,
  call: Call,
  response: HttpClientResponse.HttpClientResponse
): Effect.fn.Return<MatrixEvent.JsonObject, HomeserverError.HomeserverErrorReason | HttpClientError.HttpClientError> {
  const text = yield* readText(env, call, response)
  const json = Option.getOrUndefined(parseJson(text))
  if (isSuccess(response.status)) {
    return Predicate.isObject(json) && !Array.isArray(json)
      ? (json as MatrixEvent.JsonObject)
      : yield* notJson(env, call, text)
  }
  return yield* MatrixError.reasonOf({
    status: response.status,
    headers: response.headers,
    json: scrubbedRefusal(call, text),
    posSent: call.posSent === true,
    ...(call.whenForbidden === undefined ? {} : { whenForbidden: call.whenForbidden }),
    request: describe(env, call),
    nowMillis: yield* Clock.currentTimeMillis
  })
})

const reasonOfClient =
  (env: Env, call: Call) => (error: HomeserverError.HomeserverErrorReason | HttpClientError.HttpClientError) =>
    HttpClientError.isHttpClientError(error) ? networkError(env, call, error.reason.cause ?? error.reason) : error

const exchange = (env: Env, call: Call): Effect.Effect<MatrixEvent.JsonObject, HomeserverError.HomeserverError> => {
  const limitMillis = (call.holdMillis ?? 0) + env.networkTimeoutMillis
  // The scope closes the connection however the call ends, also between the head of an answer and its body.
  return Effect.scoped(
    Effect.flatMap(HttpClient.withScope(env.client).execute(requestFor(env, call)), (response) =>
      interpret(env, call, response)
    )
  ).pipe(
    Effect.mapError(reasonOfClient(env, call)),
    Effect.timeoutOrElse({
      duration: limitMillis,
      orElse: () => Effect.fail(timedOut(env, call, limitMillis))
    }),
    Effect.mapError((reason) => new HomeserverError.HomeserverError({ operation: call.operation, reason })),
    // A client that follows redirects by itself is told not to.
    Effect.provideService(FetchHttpClient.RequestInit, { redirect: "manual" }),
    // Our trace ids are nobody else's business.
    Effect.provideService(HttpClient.TracerPropagationEnabled, false)
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
): Effect.fn.Return<MatrixHttp, never, HttpClient.HttpClient> {
  const { networkTimeoutMillis, maxResponseBytes } = yield* SyncConfig.SyncConfig
  const env: Env = { url, client: yield* HttpClient.HttpClient, networkTimeoutMillis, maxResponseBytes }
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
