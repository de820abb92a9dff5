/**
 * The dev homeserver: core's homeserver model behind real HTTP on the loopback interface, for development, tests and stories.
 *
 * Good enough that other clients (matrix-js-sdk, say) log in, sync, send and receive through it, and that push gateways get
 * their pushes from it. It keeps everything in memory, checks no signatures, has no federation and no classic `/sync`. Its
 * own endpoints are in `AdminRoutes.ts`.
 *
 * Gotchas: anybody on this machine can use it. Don't put anything real into it.
 *
 * @example
 * ```ts
 * const program = Effect.gen(function* () {
 *   const { baseUrl } = yield* DevHomeserver
 *   yield* Effect.log(`listening on ${baseUrl}`)
 * }).pipe(Effect.provide(layer({ port: 0 })))
 * ```
 */
import { NodeHttpServer } from "@effect/platform-node"
import { Context, Effect, Layer } from "effect"
import { HttpRouter, HttpServer } from "effect/http"
import { createServer, type Server } from "node:http"
import type { Homeserver } from "@twinloop/core"
import { type CannotListen, cannotListen } from "../http/CannotListen.ts"
import { HttpSockets } from "../http/HttpSockets.ts"
import * as AccountRoutes from "./AccountRoutes.ts"
import * as AdminRoutes from "./AdminRoutes.ts"
import * as DevGate from "./DevGate.ts"
import * as DevRoute from "./DevRoute.ts"
import { HomeserverHost, type HomeserverModel } from "./Model.ts"
import * as PushRoutes from "./PushRoutes.ts"
import * as PushSender from "./PushSender.ts"
import * as RoomRoutes from "./RoomRoutes.ts"
import * as SyncRoutes from "./SyncRoutes.ts"

export { CannotListen } from "../http/CannotListen.ts"

/** What can be chosen about the dev homeserver. */
export interface Options extends Partial<HomeserverModel.ModelOptions> {
  /** Port on 127.0.0.1; 0 takes a free one. */
  readonly port: number
  /** The spellings of sliding sync to serve; both when absent. */
  readonly spellings?: ReadonlyArray<Homeserver.Spelling>
}

/** A dev homeserver that listens. */
export class DevHomeserver extends Context.Service<
  DevHomeserver,
  {
    /** `http://127.0.0.1:<port>` */
    readonly baseUrl: string
    readonly port: number
    /** The model that it serves, for whoever runs in the same process. */
    readonly host: HomeserverHost.HomeserverHost
    /** Destroys every connection for so long. */
    unreachableFor(millis: number): Effect.Effect<void>
  }
>()("@twinloop/platform/DevHomeserver") {}

const address = "127.0.0.1"

/** Everything that it serves. `gate` is what makes it unreachable. */
export const endpoints = (
  spellings: ReadonlyArray<Homeserver.Spelling>,
  gate: DevGate.DevGate
): ReadonlyArray<DevRoute.Endpoint> => [
  ...AccountRoutes.openEndpoints(spellings),
  ...AccountRoutes.endpoints,
  ...RoomRoutes.endpoints,
  ...PushRoutes.endpoints,
  ...SyncRoutes.endpoints,
  ...spellings.map(SyncRoutes.sync),
  ...AdminRoutes.endpoints(gate)
]

const serve = (server: Server, host: HomeserverHost.HomeserverHost, options: Options) =>
  Effect.gen(function* () {
    const { spellings = ["unstable", "v4"] } = options
    const gate = yield* DevGate.make(server)
    const served = endpoints(spellings, gate)
    const routes = Layer.mergeAll(DevRoute.routes(host, served), DevRoute.otherMethods(served), DevRoute.fallback)
    const serving = HttpRouter.serve(routes, {
      disableLogger: true,
      disableListenLog: true,
      routerConfig: { ignoreTrailingSlash: true, maxParamLength: 1_000 }
    })
    const service = Effect.gen(function* () {
      const bound = (yield* HttpServer.HttpServer).address
      // Built last, so closed first: nothing that comes after has to wait for a poll.
      yield* Effect.addFinalizer(() => gate.shut)
      const port = "port" in bound ? bound.port : options.port
      return {
        baseUrl: `http://${address}:${port}`,
        port,
        host,
        unreachableFor: (millis: number) => gate.shutFor(millis)
      }
    })
    const sending = Layer.effectDiscard(PushSender.run(host)).pipe(Layer.provide(HttpSockets.layer))
    return Layer.effect(DevHomeserver, service).pipe(Layer.provide([serving, sending]))
  })

/** Serves a homeserver of its own until the layer's scope closes. Fails with `CannotListen` when the port is taken. */
export const layer = (options: Options): Layer.Layer<DevHomeserver, CannotListen> =>
  Layer.unwrap(
    Effect.sync(() => {
      const server = createServer()
      return Layer.unwrap(serve(server, HomeserverHost.make(options), options)).pipe(
        Layer.provide(NodeHttpServer.layer(() => server, { host: address, port: options.port })),
        Layer.catchTag("ServeError", (error) =>
          Layer.effect(DevHomeserver, Effect.fail(cannotListen(address, options.port, error.cause)))
        )
      )
    })
  )
