/** `twinloop push-daemon`: takes the homeserver's pushes and shows them, until stopped. */
import { Deferred, Effect, Layer, Option, Result } from "effect"
import { Command, Flag } from "effect/cli"
import { fileURLToPath } from "node:url"
import { cacheDirectory, freshBundle } from "./notifyBundle.js"
import * as SessionStore from "../http/SessionStore.ts"
import * as Lifecycle from "../lifecycle/Lifecycle.ts"
import * as PushDaemon from "../push/PushDaemon.ts"
import type * as PushGateway from "../push/PushGateway.ts"
import { PushQueue } from "../push/PushQueue.ts"
import * as Twinloop from "../Twinloop.ts"
import { CommandFailed, exitCodes } from "./ExitCode.ts"
import * as Flags from "./Flags.ts"
import * as KnownAccount from "./KnownAccount.ts"
import * as NotifyInput from "./NotifyInput.ts"
import * as Output from "./Output.ts"
import * as Parent from "./Parent.ts"

const DEFAULT_LISTEN = "127.0.0.1:8009"

/** From the sources, a worker has more in memory before it has done anything. */
const SOURCES_RSS_BYTES = 2 * NotifyInput.MAX_RSS_BYTES

interface Input {
  readonly database: string
  readonly keyFile: Option.Option<string>
  readonly sinks: ReadonlyArray<string>
  readonly listen: string
  readonly allowRemote: boolean
  readonly withParent: boolean
  readonly json: boolean
}

const misused = (message: string) => new CommandFailed({ message, exitCode: exitCodes.usage })

/** `HOST:PORT`, `[HOST]:PORT` with the colons of IPv6, or a port alone. */
const addressOf = (listen: string): Result.Result<Pick<PushGateway.Options, "host" | "port">, CommandFailed> => {
  const match = /^(?:\[([^\]]+)\]:|([^:]+):)?(\d{1,5})$/.exec(listen)
  const [, six, other, port] = match ?? []
  const host = six ?? other
  if (port === undefined || Number(port) > 65_535)
    return Result.fail(misused(`--listen takes HOST:PORT, such as ${DEFAULT_LISTEN}; port 0 takes a free one.`))
  return Result.succeed({ port: Number(port), ...(host !== undefined && { host }) })
}

/** The worker: the one file if it was made of these sources (`npm run bundle`), else the sources, which start slowly. */
const workerOf = ({ database, json, keyFile, sinks }: Input): PushDaemon.WorkerCommand => {
  const flags = [`--max-old-space-size=${PushDaemon.WORKER_HEAP_MIB}`]
  const key = Option.getOrElse(keyFile, () => NotifyInput.keyFileOf(database))
  const args = [
    "--queue",
    "--with-parent",
    "--database",
    database,
    "--key-file",
    key,
    ...sinks.flatMap((sink) => ["--sink", sink]),
    ...(json ? ["--json"] : [])
  ]
  const bundle = freshBundle()
  if (bundle !== undefined) {
    return {
      command: process.execPath,
      args: [...flags, bundle, ...args],
      env: { NODE_COMPILE_CACHE: process.env["NODE_COMPILE_CACHE"] ?? cacheDirectory }
    }
  }
  const program = fileURLToPath(new URL("./notify.ts", import.meta.url))
  return { command: process.execPath, args: [...flags, program, ...args, "--max-rss", String(SOURCES_RSS_BYTES)] }
}

/** The same rules as for what the worker is given, so that a mistake is told now and not by each worker. */
const checked = (input: Input) =>
  Effect.fromResult(
    Result.gen(function* () {
      const { database, json, sinks } = input
      const raw = { words: [], database, sinks, json, withParent: true, queue: true }
      yield* Result.mapError(NotifyInput.of(raw), misused)
      return yield* addressOf(input.listen)
    })
  )

const requireLogin = Effect.fnUntraced(function* (database: string) {
  const session = yield* Effect.flatMap(SessionStore.SessionStore, (store) => store.load)
  if (session === undefined) return yield* KnownAccount.sayWhere(database)()
})

const sayListening = ({ json }: Input) =>
  Effect.fnUntraced(function* ({ port, url }: PushGateway.PushGateway["Service"]) {
    yield* Output.result(json, { event: "listening", url, port }, [
      `Pushes are taken at ${url}. Tell the homeserver: twinloop push enable --url URL, with the URL by which it reaches this. End it with ^C.`
    ])
  })

/** Serves until the operating system or the parent says stop. */
const serve = Effect.fnUntraced(function* (input: Input, address: Pick<PushGateway.Options, "host" | "port">) {
  yield* requireLogin(input.database)
  const stopped = yield* Deferred.make<void>()
  const stop = Deferred.succeed(stopped, undefined)
  const parentEnds = Effect.andThen(
    Parent.lines(() => Effect.void),
    stop
  )
  if (input.withParent) yield* Effect.forkScoped(parentEnds)
  yield* Effect.forkScoped(Lifecycle.run({ suspend: Effect.void, resume: Effect.void, stop }))
  const daemon = PushDaemon.run({
    gateway: { ...address, allowRemote: input.allowRemote },
    worker: workerOf(input),
    onListening: sayListening(input)
  })
  yield* Effect.raceFirst(daemon, Deferred.await(stopped))
}, Effect.scoped)

export const pushDaemonCommand = Command.make(
  "push-daemon",
  {
    database: Flags.database,
    keyFile: Flags.keyFile,
    sinks: Flags.sinks,
    listen: Flag.String("listen").pipe(
      Flag.withMetavar("HOST:PORT"),
      Flag.withDescription(`Where to listen; port 0 takes a free one. Default: ${DEFAULT_LISTEN}`),
      Flag.withDefault(DEFAULT_LISTEN)
    ),
    allowRemote: Flag.Boolean("allow-remote").pipe(
      Flag.withDescription("Let --listen name an address that other machines reach; put TLS in front of it"),
      Flag.withDefault(false)
    ),
    withParent: Flags.withParent(),
    json: Flags.json
  },
  (input) =>
    Effect.gen(function* () {
      const address = yield* checked(input)
      const { database } = input
      yield* KnownAccount.requireDatabase(database)
      const queue = PushQueue.layer.pipe(
        Layer.provideMerge(Twinloop.layerFoundation({ database, config: { role: "push" } }))
      )
      yield* Effect.provide(serve(input, address), Layer.merge(queue, Lifecycle.layerSignals))
    })
).pipe(
  Command.withDescription("Take the homeserver's pushes, keep them until they are shown, and show them"),
  Command.withExamples([
    { command: "twinloop push-daemon --sink desktop", description: "Show on this desktop" },
    {
      command: "twinloop push-daemon --sink jsonl:shown.jsonl --sink webhook:https://example.org/hook --json",
      description: "For other programs"
    }
  ])
)
