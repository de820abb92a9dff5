/**
 * Port to HTTP, as narrow as a Matrix client needs it: a text goes out, a bounded text comes back.
 *
 * Includes the adapter over any `HttpClient` of Effect, for platforms and proxies that have one. Applications on Node get
 * `HttpSockets`, which is lighter: it answers in half of the time (`docs/reference/performance.md`).
 *
 * Invariants: I4 (interrupting an exchange ends it at HTTP level), I10 (no more than `maxBytes` of an answer are kept).
 *
 * Not here: what a call means, its time limit, its secrets (`MatrixHttp.ts`).
 */
import { Context, Effect, Layer, Schema, Stream } from "effect"
import { FetchHttpClient, HttpClient, HttpClientRequest } from "effect/http"
import type { HttpClientResponse } from "effect/http"

export interface TransportRequest {
  readonly method: "GET" | "POST" | "PUT"
  /** Absolute, with its query. */
  readonly url: string
  /** Names in lower case. */
  readonly headers: { readonly [name: string]: string }
  /** Sent as it is, in UTF-8. */
  readonly body?: string
  /** How much of the answer's body is read; more fails with `AnswerTooLarge`. */
  readonly maxBytes: number
}

export interface TransportResponse {
  readonly status: number
  /** Names in lower case. */
  readonly headers: { readonly [name: string]: string | undefined }
  /** The body, decoded as UTF-8. */
  readonly text: string
}

/** No whole answer came: refused, reset, not found. `cause` is what the operating system or the library says. */
export class ExchangeFailed extends Schema.TaggedError<ExchangeFailed>("@twinloop/platform/ExchangeFailed")(
  "ExchangeFailed",
  {
    message: Schema.String,
    cause: Schema.Defect()
  }
) {}

/** The answer's body is larger than `maxBytes`; it was not read to its end, and its connection is closed. */
export class AnswerTooLarge extends Schema.TaggedError<AnswerTooLarge>("@twinloop/platform/AnswerTooLarge")(
  "AnswerTooLarge",
  { message: Schema.String, maxBytes: Schema.Finite }
) {}

/** Makes the error for an exchange that got no whole answer. */
export const exchangeFailed = (cause: unknown): ExchangeFailed =>
  new ExchangeFailed({
    message: cause instanceof Error && cause.message !== "" ? cause.message : "the connection failed",
    cause
  })

/** Makes the error for an answer that is too large. */
export const answerTooLarge = (maxBytes: number): AnswerTooLarge =>
  new AnswerTooLarge({ message: `the answer is larger than ${maxBytes} bytes`, maxBytes })

export class HttpTransport extends Context.Service<
  HttpTransport,
  {
    /**
     * One request and its whole answer, whatever its status. Follows no redirect, since that would carry the token to
     * another place.
     */
    exchange(request: TransportRequest): Effect.Effect<TransportResponse, ExchangeFailed | AnswerTooLarge>
  }
>()("@twinloop/platform/HttpTransport") {}

/**
 * A body that comes in parts, decoded as it comes: its bytes can go at once, and no copy of all of them is ever made. A
 * byte order mark is no part of the text.
 */
export class Body {
  private readonly decoder = new TextDecoder()
  private text = ""
  private bytes = 0
  private readonly maxBytes: number

  constructor(maxBytes: number) {
    this.maxBytes = maxBytes
  }

  /** Takes the next part; gives false, and takes nothing, when the body is too large. */
  add(part: Uint8Array): boolean {
    this.bytes += part.byteLength
    if (this.bytes > this.maxBytes) return false
    this.text += this.decoder.decode(part, { stream: true })
    return true
  }

  /** The whole text, after the last part. */
  end(): string {
    return this.text + this.decoder.decode()
  }
}

const readText = (response: HttpClientResponse.HttpClientResponse, maxBytes: number) =>
  Effect.suspend(() => {
    const body = new Body(maxBytes)
    return response.stream.pipe(
      Stream.runForEachArray((parts) =>
        Effect.suspend(() =>
          parts.every((part) => body.add(part)) ? Effect.void : Effect.fail(answerTooLarge(maxBytes))
        )
      ),
      Effect.map(() => body.end())
    )
  })

const over = (client: HttpClient.HttpClient): HttpTransport["Service"] => ({
  exchange: ({ body, headers, maxBytes, method, url }) => {
    const bare = HttpClientRequest.setHeaders(HttpClientRequest.make(method)(url), headers)
    const request =
      body === undefined ? bare : HttpClientRequest.bodyText(bare, body, headers["content-type"] ?? "text/plain")
    // The scope closes the connection however the call ends, also between the head of an answer and its body.
    return Effect.scoped(
      Effect.flatMap(HttpClient.withScope(client).execute(request), (response) =>
        Effect.map(readText(response, maxBytes), (text): TransportResponse => ({
          status: response.status,
          headers: response.headers,
          text
        }))
      )
    ).pipe(
      Effect.catchTag("HttpClientError", (error) => Effect.fail(exchangeFailed(error.reason.cause ?? error.reason))),
      // A client that follows redirects by itself is told not to.
      Effect.provideService(FetchHttpClient.RequestInit, { redirect: "manual" }),
      // Our trace ids are nobody else's business.
      Effect.provideService(HttpClient.TracerPropagationEnabled, false)
    )
  }
})

/**
 * The transport over whichever `HttpClient` is provided: `FetchHttpClient.layer`, one behind a proxy, one for tests.
 *
 * @example
 * ```ts
 * import { HttpTransport } from "@twinloop/platform"
 * import { Layer } from "effect"
 * import { FetchHttpClient } from "effect/http"
 *
 * const transport = HttpTransport.layerHttpClient.pipe(Layer.provide(FetchHttpClient.layer))
 * ```
 */
export const layerHttpClient: Layer.Layer<HttpTransport, never, HttpClient.HttpClient> = Layer.effect(
  HttpTransport,
  Effect.map(HttpClient.HttpClient, over)
)
