/**
 * A real Synapse for as long as a scope lasts: installed on first use, started on loopback over SQLite in a directory of its
 * own, stopped and wiped when the scope closes.
 *
 * Includes accounts by the shared secret, an outage (stop, do something, start again on the same port and data) and the
 * expiry of a position, which is what a test or the main job needs of a homeserver beyond being a client of it.
 *
 * Gotchas: the child follows its parent: it ends when the parent is killed, since its standard input ends then
 * (`launcher.py`). Synapse is AGPL; it is a peer that we talk to and not a part of this package.
 *
 * Not here: the environment (`SynapseEnvironment.ts`), the configuration (`SynapseConfig.ts`).
 */
import { Context, Deferred, Duration, Effect, Exit, FiberHandle, FileSystem, Layer, Schedule } from "effect"
import type { Path, Scope } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import { randomBytes } from "node:crypto"
import { createServer } from "node:net"
import { fileURLToPath } from "node:url"
import type { AccountSession } from "../http/Session.ts"
import * as Api from "./SynapseApi.ts"
import * as Config from "./SynapseConfig.ts"
import * as Environment from "./SynapseEnvironment.ts"
import type { EnvironmentOptions, SynapseProgress } from "./SynapseEnvironment.ts"
import { StartFailed, SynapseError } from "./SynapseError.ts"

export type { SynapseProgress }

export interface SynapseOptions extends EnvironmentOptions {
  /** Laid over our configuration, in Synapse's own names: `{ refreshable_access_token_lifetime: "5s" }`. */
  readonly config?: { readonly [name: string]: unknown }
}

/** A running Synapse. */
export class Synapse extends Context.Service<
  Synapse,
  {
    /** `http://127.0.0.1:<port>`, without a slash at its end. The server's name is `localhost`. */
    readonly baseUrl: string
    /** Where its database and its log (`homeserver.log`) are. */
    readonly directory: string
    /** Makes an account with one device. The password is the username unless given. */
    readonly register: (registration: Api.Registration) => Effect.Effect<AccountSession, SynapseError>
    /** One raw request; any status is an answer. */
    readonly request: (request: Api.ApiRequest) => Effect.Effect<Api.ApiResponse, SynapseError>
    /** The next request with the present `pos` of this connection is answered by `M_UNKNOWN_POS`. */
    readonly expirePosition: (
      session: Pick<AccountSession, "accessToken">,
      connId: string
    ) => Effect.Effect<void, SynapseError>
    /** Nobody listens on the port while the effect runs; afterwards the same server is back, with all it knew. */
    readonly outage: <A, E, R>(during: Effect.Effect<A, E, R>) => Effect.Effect<A, E | SynapseError, R>
  }
>()("@twinloop/platform/Synapse") {
  /** Fails with every reason that `SynapseError` has but `RequestFailed`. */
  static layer(
    options: SynapseOptions = {}
  ): Layer.Layer<Synapse, SynapseError, ChildProcessSpawner.ChildProcessSpawner | FileSystem.FileSystem | Path.Path> {
    return Layer.effect(Synapse, make(options))
  }
}

const launcher = fileURLToPath(new URL("launcher.py", import.meta.url))
const startLimit = Duration.minutes(2)
const stopLimit = Duration.seconds(5)
const healthInterval = Duration.millis(50)
/** Enough for a Python traceback. */
const outputLines = 30

const startFailed = (message: string, output: string): SynapseError =>
  new SynapseError({ reason: new StartFailed({ message, output }) })

/** A port that is free at this moment. */
const freePort = Effect.callback<number, SynapseError>((resume) => {
  const server = createServer()
  server.on("error", (error) => resume(Effect.fail(startFailed("no port of 127.0.0.1 can be had", error.message))))
  server.listen(0, "127.0.0.1", () => {
    const address = server.address()
    const port = typeof address === "object" && address !== null ? address.port : 0
    server.close(() => resume(Effect.succeed(port)))
  })
})

interface Installation {
  readonly python: string
  readonly directory: string
  readonly baseUrl: string
}

const healthy = (baseUrl: string): Effect.Effect<void, SynapseError> =>
  Api.request(baseUrl, { method: "GET", path: "/health" }).pipe(
    Effect.retry(Schedule.spaced(healthInterval)),
    Effect.timeoutOrElse({
      duration: startLimit,
      orElse: () => Effect.fail(startFailed(`Synapse did not answer in ${Duration.format(startLimit)}`, ""))
    }),
    Effect.asVoid
  )

const lastWords = Effect.fnUntraced(function* (directory: string) {
  const fs = yield* FileSystem.FileSystem
  const read = (name: string) => Effect.orElseSucceed(fs.readFileString(`${directory}/${name}`), () => "")
  const text = (yield* read("homeserver.log")) + (yield* read("output.txt"))
  return text.trimEnd().split("\n").slice(-outputLines).join("\n")
})

/** Runs the server until interrupted. `ready` succeeds when it answers, and fails when it never will. */
const serve = Effect.fnUntraced(function* (
  { python, directory, baseUrl }: Installation,
  ready: Deferred.Deferred<void, SynapseError>
) {
  const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
  const args = [launcher, directory, "-c", `${directory}/homeserver.yaml`]
  const options = { stdin: "pipe", stdout: "ignore", stderr: "ignore", forceKillAfter: stopLimit } as const
  const child = yield* Effect.mapError(
    spawner.spawn(ChildProcess.make(python, args, { ...options, cwd: directory })),
    (error) => startFailed(`${python} could not be started`, error.message)
  )
  const ended = Effect.exit(child.exitCode).pipe(
    Effect.andThen(lastWords(directory)),
    Effect.flatMap((output) => Effect.fail(startFailed("Synapse ended while it was starting", output)))
  )
  yield* Effect.raceFirst(healthy(baseUrl), ended)
  yield* Deferred.succeed(ready, undefined)
  return yield* Effect.never
})

/** The directory, the configuration and the port of a new server. */
const prepare = Effect.fnUntraced(
  function* (python: string, options: SynapseOptions, registrationSecret: string) {
    const fs = yield* FileSystem.FileSystem
    const directory = yield* fs.makeTempDirectoryScoped({ prefix: "twinloop-synapse-" })
    const port = yield* freePort
    const config = { directory, port, registrationSecret, extra: options.config ?? {} }
    yield* fs.writeFileString(`${directory}/homeserver.yaml`, Config.homeserver(config), { mode: 0o600 })
    yield* fs.writeFileString(`${directory}/log.yaml`, Config.logging(directory))
    return { python, directory, baseUrl: `http://127.0.0.1:${port}` } satisfies Installation
  },
  Effect.mapError((error) =>
    error._tag === "SynapseError" ? error : startFailed("the directory of Synapse could not be written", error.message)
  )
)

/** Whether somebody else took the port between our asking for a free one and Synapse's listening on it. */
const lostThePort = (error: SynapseError): boolean => error.message.includes("Address already in use")

/**
 * Starts a Synapse that lives as long as the scope, and resolves when it answers.
 *
 * Fails with `PythonMissing` or `InstallFailed` (the environment, see `SynapseEnvironment.ensure`) or `StartFailed`.
 */
export const make = Effect.fn("Synapse.make")(function* (options: SynapseOptions = {}) {
  const services = yield* Effect.context<
    ChildProcessSpawner.ChildProcessSpawner | FileSystem.FileSystem | Scope.Scope
  >()
  const tell = options.onProgress ?? (() => Effect.void)
  const python = yield* Environment.ensure(options)
  const secret = randomBytes(16).toString("hex")
  const running = yield* FiberHandle.make<never, SynapseError>()

  const start = Effect.fnUntraced(function* (installation: Installation) {
    const ready = yield* Deferred.make<void, SynapseError>()
    const server = Effect.scoped(serve(installation, ready)).pipe(
      Effect.tapError((error) => Deferred.fail(ready, error)),
      Effect.provideContext(services)
    )
    yield* FiberHandle.run(running, server)
    yield* Deferred.await(ready)
  })

  yield* tell({ step: "starting", detail: "" })
  const installation = yield* prepare(python, options, secret).pipe(
    Effect.tap(start),
    Effect.retry({ while: lostThePort, times: 3 })
  )
  const { baseUrl, directory } = installation
  yield* tell({ step: "ready", detail: baseUrl })

  return Synapse.of({
    baseUrl,
    directory,
    register: (registration) => Api.register(baseUrl, secret, registration),
    request: (request) => Api.request(baseUrl, request),
    expirePosition: (session, connId) => Api.expirePosition(baseUrl, session, connId),
    outage: (during) =>
      Effect.gen(function* () {
        yield* FiberHandle.clear(running)
        const exit = yield* Effect.exit(during)
        yield* start(installation)
        return yield* Exit.isSuccess(exit) ? Effect.succeed(exit.value) : Effect.failCause(exit.cause)
      })
  })
})
