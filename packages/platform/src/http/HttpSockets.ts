/**
 * The process's HTTP connections: `HttpTransport` over Node's own client, and a way to close them all.
 *
 * An HTTP client keeps connections open for the next request. A suspended process must not: the platform may freeze it, and
 * a frozen connection is a leak at the homeserver (invariant I4). The next request opens new ones.
 *
 * Invariants: I4, I10 (`IDLE_SOCKETS`; the size of an answer).
 *
 * Gotchas: `node:http` and neither undici nor `fetch`. It answers as fast as undici, and a process that starts, asks once
 * and ends is 25 ms sooner there and 50 ms sooner gone, with 20 MB less memory (ADR 0019). It is loaded by
 * `getBuiltinModule`, since an `import` of it also loads undici, for the names that `node:http` lends.
 */
import { Context, Effect, Exit, Layer } from "effect"
import type { Agent, ClientRequest, IncomingMessage } from "node:http"
import * as HttpTransport from "./HttpTransport.ts"

const http = process.getBuiltinModule("node:http")

/** Idle connections that are kept per homeserver: one per loop, and two for calls beside them. */
const IDLE_SOCKETS = 4

const options = { keepAlive: true, maxFreeSockets: IDLE_SOCKETS }

interface Agents {
  readonly http: Agent
  /** Made with the first address that needs it, and node:https with it: TLS takes 5 ms and 4 MB. */
  https: Agent | undefined
}

const makeAgents = (): Agents => ({ http: new http.Agent(options), https: undefined })

const closeAll = (agents: Agents): Effect.Effect<void> =>
  Effect.sync(() => {
    agents.http.destroy()
    agents.https?.destroy()
  })

/** Opens the request; the body isn't sent yet. Throws when an address or a header can't be sent. */
const open = (agents: Agents, request: HttpTransport.TransportRequest): ClientRequest => {
  const { body, headers, method, url } = request
  const length = body === undefined ? {} : { "content-length": String(Buffer.byteLength(body)) }
  const sent = { method, headers: { ...headers, ...length } }
  if (!url.startsWith("https:")) return http.request(url, { ...sent, agent: agents.http })
  const https = process.getBuiltinModule("node:https")
  agents.https ??= new https.Agent(options)
  return https.request(url, { ...sent, agent: agents.https })
}

type Answered = Effect.Effect<
  HttpTransport.TransportResponse,
  HttpTransport.ExchangeFailed | HttpTransport.AnswerTooLarge
>

const headersOf = ({ headers }: IncomingMessage): HttpTransport.TransportResponse["headers"] =>
  // Only `set-cookie` is an array, and nobody here reads it.
  headers as HttpTransport.TransportResponse["headers"]

/** Reads an answer to its end; `done` may be called again after that, and what counts is the first time. */
const read = (answer: IncomingMessage, maxBytes: number, done: (answered: Answered) => void): void => {
  const body = new HttpTransport.Body(maxBytes)
  answer.on("data", (part: Buffer) => {
    if (!body.add(part)) done(Effect.fail(HttpTransport.answerTooLarge(maxBytes)))
  })
  answer.once("end", () =>
    done(Effect.succeed({ status: answer.statusCode ?? 0, headers: headersOf(answer), text: body.end() }))
  )
  // Stays on: a connection that is closed early may say so more than once.
  answer.on("error", (cause) => done(Effect.fail(HttpTransport.exchangeFailed(cause))))
}

const exchange =
  (agents: Agents) =>
  (asked: HttpTransport.TransportRequest): Answered =>
    Effect.flatMap(
      Effect.try({ try: () => open(agents, asked), catch: HttpTransport.exchangeFailed }),
      (request): Answered =>
        Effect.callback<HttpTransport.TransportResponse, HttpTransport.ExchangeFailed | HttpTransport.AnswerTooLarge>(
          (resume) => {
            request.once("response", (answer) => read(answer, asked.maxBytes, resume))
            request.on("error", (cause) => resume(Effect.fail(HttpTransport.exchangeFailed(cause))))
            request.end(asked.body)
          }
        ).pipe(
          // A connection whose answer isn't read to its end has no further use.
          Effect.onExit((exit) => (Exit.isSuccess(exit) ? Effect.void : Effect.sync(() => request.destroy())))
        )
    )

export class HttpSockets extends Context.Service<
  HttpSockets,
  {
    /** Closes every connection, used or idle; done when they are closed. The next request opens new ones. */
    readonly close: Effect.Effect<void>
  }
>()("@twinloop/platform/HttpSockets") {
  /** Node's HTTP client over connections that can be closed; they are when the layer's scope closes. */
  static readonly layer: Layer.Layer<HttpSockets | HttpTransport.HttpTransport> = Layer.effectContext(
    Effect.map(Effect.acquireRelease(Effect.sync(makeAgents), closeAll), (agents) =>
      Context.make(HttpSockets, { close: closeAll(agents) }).pipe(
        Context.add(HttpTransport.HttpTransport, { exchange: exchange(agents) })
      )
    )
  )
}
