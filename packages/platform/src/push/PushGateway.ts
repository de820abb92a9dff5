/**
 * The push gateway: an HTTP server that a homeserver sends pushes to, and that answers once they are in the queue.
 *
 * Invariants: I6 (200 means that it is durable), I7 (whatever comes gets an answer that says why), I10 (size, time and number
 * of requests have limits), I4 (the end of the scope stops accepting, finishes what is being committed, and closes the sockets).
 *
 * Gotchas:
 * - Whoever knows a push key can push, and nothing else can be done here. So it listens on the loopback interface, unless it is
 *   told to be reached from elsewhere; then put TLS in front of it.
 * - A push key in `rejected` makes the homeserver delete the pusher, by the key alone: one that is known under any app id of the
 *   request is never in it.
 * - Nothing of a push is logged.
 *
 * Not here: what a push is (core's `PushNotification.ts`), the queue (`PushQueue.ts`), showing.
 *
 * Source: push gateway API, `POST /_matrix/push/v1/notify`; answers as sygnal's, the reference.
 */
// Not the package's index, which brings an HTTP client along: 25 ms of a process that a push starts.
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { Pusher, PushNotification, SyncConfig } from "@twinloop/core"
import type { StoreError } from "@twinloop/core"
import { ByteSize, Context, Effect, Layer, Option, Result, Schema, Semaphore } from "effect"
import type { Scope } from "effect"
import { HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import { createServer, type Server } from "node:http"
import { BlockList, isIP } from "node:net"
import { CannotListen, cannotListen } from "../http/CannotListen.ts"
import * as PushMetrics from "./PushMetrics.ts"
import { PushQueue, type QueueFull } from "./PushQueue.ts"
import type { Answered } from "./PushTables.ts"

/** Connections, and requests, at once: a homeserver has one for each of the account's pushers, and keeps a few open. */
const MAX_AT_ONCE = 64

/** How long a connection without a request stays open: pushes of a lively room share one. */
const KEEP_ALIVE_MILLIS = 5_000

/** How long requests may take to end once the gateway closes: several times what a commit takes. */
const CLOSING_MILLIS = 2_000

/** After how many seconds to try again what could not be taken; Synapse has a schedule of its own. */
const RETRY_AFTER_SECONDS = 5

export interface Options {
  /** Address to listen on; `127.0.0.1` when absent. */
  readonly host?: string
  /** 0 takes a free one. */
  readonly port: number
  /** Allows a `host` that other machines can reach. Default false. */
  readonly allowRemote?: boolean
}

/** A gateway that listens. */
export class PushGateway extends Context.Service<
  PushGateway,
  {
    /** What a pusher on this machine is given as its URL: address, port and path. */
    readonly url: string
    readonly port: number
  }
>()("@twinloop/platform/PushGateway") {}

type Response = HttpServerResponse.HttpServerResponse

interface Refusal {
  readonly status: number
  readonly errcode: string
  readonly message: string
  readonly headers?: { readonly [name: string]: string }
}

const answer = (refusal: Refusal): Response =>
  HttpServerResponse.jsonUnsafe(
    { errcode: refusal.errcode, error: refusal.message },
    { status: refusal.status, headers: refusal.headers ?? {} }
  )

// --- reading

const tooLarge = (bytes: number): Refusal => ({
  status: 413,
  errcode: "M_TOO_LARGE",
  message: `the body is larger than ${bytes} bytes (SyncConfig.pushBodyBytes)`,
  // The rest of it is not waited for.
  headers: { connection: "close" }
})

const notJson: Refusal = { status: 400, errcode: "M_NOT_JSON", message: "the body is not JSON in UTF-8" }

const decodeJson = Schema.decodeUnknownResult(Schema.fromJsonString(Schema.Unknown))

const parse = (body: ArrayBuffer): Result.Result<unknown, Refusal> =>
  Result.try({ try: () => new TextDecoder("utf-8", { fatal: true }).decode(body), catch: () => notJson }).pipe(
    Result.flatMap((text) => Result.mapError(decodeJson(text), () => notJson))
  )

const decode = (json: unknown): Result.Result<PushNotification.Push, Refusal> =>
  Result.mapError(PushNotification.decode(json), ({ errcode, message }) => ({ status: 400, errcode, message }))

/** A body of at most so many bytes. One that breaks off has nobody left who reads the answer. */
const readBody = (
  { arrayBuffer, headers }: HttpServerRequest.HttpServerRequest,
  bytes: number
): Effect.Effect<ArrayBuffer, Refusal> =>
  Number(headers["content-length"] ?? 0) > bytes
    ? Effect.fail(tooLarge(bytes))
    : arrayBuffer.pipe(
        Effect.provideService(HttpServerRequest.MaxBodySize, ByteSize.bytes(bytes)),
        Effect.mapError(() => tooLarge(bytes))
      )

// --- answering

/** The push keys that aren't known under any app id of the request. */
const rejected = (answers: ReadonlyArray<Answered>): ReadonlyArray<string> => {
  const known = new Set(answers.flatMap(({ device, outcome }) => (outcome === "unknown" ? [] : [device.pushKey])))
  return [...new Set(answers.map(({ device }) => device.pushKey))].filter((pushKey) => !known.has(pushKey))
}

const later = (errcode: string, message: string): Refusal => ({
  status: 503,
  errcode,
  message,
  headers: { "retry-after": String(RETRY_AFTER_SECONDS) }
})

const isBusy = later("M_LIMIT_EXCEEDED", "too many pushes at once; try again")
const isFull = later("M_LIMIT_EXCEEDED", "as many pushes wait to be shown as may wait; try again")
const isBroken = later("M_UNKNOWN", "the push could not be stored; try again")
const isSlow = later("M_UNKNOWN", "storing the push took too long; try again")

const whyNot = (error: StoreError.StoreError | QueueFull): Effect.Effect<Refusal> =>
  error._tag === "QueueFull"
    ? Effect.succeed(isFull)
    : Effect.as(
        Effect.logWarning(`A push could not be stored, and the homeserver tries again: ${error.message}`),
        isBroken
      )

/** What everything here works with. */
interface Env {
  readonly config: SyncConfig.SyncConfigShape
  readonly queue: PushQueue["Service"]
  readonly atOnce: Semaphore.Semaphore
  /** The server takes no more connections, and those that there are end with their answers. */
  isClosing: boolean
}

const notify = (
  { config, queue }: Env,
  source: HttpServerRequest.HttpServerRequest
): Effect.Effect<Response, Refusal> =>
  Effect.gen(function* () {
    const json = yield* Effect.fromResult(parse(yield* readBody(source, config.pushBodyBytes)))
    const push = yield* Effect.fromResult(decode(json))
    const answers = yield* queue.accept([push]).pipe(
      Effect.catch((error) => Effect.flatMap(whyNot(error), Effect.fail)),
      Effect.timeoutOrElse({ duration: config.pushRequestMillis, orElse: () => Effect.fail(isSlow) })
    )
    return HttpServerResponse.jsonUnsafe({ rejected: rejected(answers) })
  })

/** As many as are served at once; what comes beyond is told so. */
const bounded = (env: Env, serving: Effect.Effect<Response, Refusal>): Effect.Effect<Response, Refusal> =>
  Effect.flatMap(
    env.atOnce.withPermitsIfAvailable(1)(serving),
    Option.match({ onNone: () => Effect.fail(isBusy), onSome: Effect.succeed })
  )

/** What each path answers, by the one method that it takes. */
const paths: {
  readonly [path: string]: {
    readonly method: string
    readonly serve: (env: Env, source: HttpServerRequest.HttpServerRequest) => Effect.Effect<Response, Refusal>
  }
} = {
  [Pusher.NOTIFY_PATH]: { method: "POST", serve: (env, source) => bounded(env, notify(env, source)) },
  "/health": { method: "GET", serve: () => Effect.succeed(HttpServerResponse.jsonUnsafe({})) }
}

const unknownPath: Refusal = { status: 404, errcode: "M_UNRECOGNIZED", message: "Unrecognized request" }

const wrongMethod = (method: string): Refusal => ({
  status: 405,
  errcode: "M_UNRECOGNIZED",
  message: `this path takes ${method} only`,
  headers: { allow: method }
})

const route = (env: Env, source: HttpServerRequest.HttpServerRequest): Effect.Effect<Response, Refusal> => {
  const [path = ""] = source.url.split("?", 1)
  const found = Object.hasOwn(paths, path) ? paths[path] : undefined
  if (found === undefined) return Effect.fail(unknownPath)
  return source.method === found.method ? found.serve(env, source) : Effect.fail(wrongMethod(found.method))
}

const respond = (env: Env, source: HttpServerRequest.HttpServerRequest): Effect.Effect<Response> =>
  Effect.catch(route(env, source), (refusal) => Effect.as(PushMetrics.countRefused(refusal.status), answer(refusal)))

const handle = (env: Env): Effect.Effect<Response, never, HttpServerRequest.HttpServerRequest> =>
  Effect.map(
    Effect.flatMap(HttpServerRequest.HttpServerRequest, (source) => respond(env, source)),
    (response) => (env.isClosing ? HttpServerResponse.setHeader(response, "connection", "close") : response)
  )

// --- listening

/** Whether only this machine can reach an address. A name may mean anything, but for the one. */
const isLoopback = (host: string): boolean => {
  const loopback = new BlockList()
  loopback.addSubnet("127.0.0.0", 8)
  loopback.addAddress("::1", "ipv6")
  return host === "localhost" || (isIP(host) !== 0 && loopback.check(host, isIP(host) === 6 ? "ipv6" : "ipv4"))
}

const isReachable = (host: string, port: number): CannotListen =>
  new CannotListen({
    message: `other machines may reach the push gateway on "${host}"; choose 127.0.0.1, or say allowRemote if they are to, and put TLS in front of it`,
    port
  })

/** A server that gives up who dribbles. Node looks at its connections by an interval. */
const makeServer = ({ pushRequestMillis }: SyncConfig.SyncConfigShape): Server => {
  const server = createServer({
    requestTimeout: pushRequestMillis,
    headersTimeout: pushRequestMillis,
    connectionsCheckingInterval: Math.ceil(pushRequestMillis / 4),
    keepAliveTimeout: KEEP_ALIVE_MILLIS
  })
  server.maxConnections = MAX_AT_ONCE
  return server
}

/** Takes no more connections, lets the requests that there are end, and cuts those off that don't. */
const close = (env: Env, node: Server): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    env.isClosing = true
    node.close(() => resume(Effect.void))
  }).pipe(Effect.timeoutOption(CLOSING_MILLIS), Effect.andThen(Effect.sync(() => node.closeAllConnections())))

const make = Effect.fnUntraced(function* ({
  allowRemote = false,
  host = "127.0.0.1",
  port
}: Options): Effect.fn.Return<PushGateway["Service"], CannotListen, PushQueue | Scope.Scope> {
  if (!allowRemote && !isLoopback(host)) return yield* isReachable(host, port)
  const config = yield* SyncConfig.SyncConfig
  const env: Env = { config, queue: yield* PushQueue, atOnce: yield* Semaphore.make(MAX_AT_ONCE), isClosing: false }
  const node = makeServer(config)
  const server = yield* NodeHttpServer.make(() => node, { host, port }).pipe(
    Effect.mapError(({ cause }) => cannotListen(host, port, cause))
  )
  yield* server.serve(handle(env))
  // The last one, so the first to run: what serves waits for all connections, also for those that say nothing.
  yield* Effect.addFinalizer(() => close(env, node))
  const bound = "port" in server.address ? server.address.port : port
  return { url: `${HttpServer.formatAddress(server.address)}${Pusher.NOTIFY_PATH}`, port: bound }
})

/**
 * Takes pushes until the layer's scope closes. Fails with `CannotListen` when the port is taken, or others could reach it
 * and that wasn't asked for.
 *
 * @example
 * ```ts
 * import { PushGateway, PushQueue, Twinloop } from "@twinloop/platform"
 * import { Layer } from "effect"
 *
 * export const gateway = PushGateway.layer({ port: 8_765 }).pipe(
 *   Layer.provideMerge(PushQueue.PushQueue.layer),
 *   Layer.provide(Twinloop.layerFoundation({ database: "account.db" }))
 * )
 * ```
 */
export const layer = (options: Options): Layer.Layer<PushGateway, CannotListen, PushQueue> =>
  Layer.effect(PushGateway, make(options))
