/**
 * The push daemon: a gateway that makes pushes durable, and a worker process that shows them for as long as there are some.
 *
 * Includes `run`, which interprets `PushDaemonMachine` with the queue, timers and a child process.
 *
 * Invariants: I4 (when it ends the gateway accepts nothing more, and no worker runs), I6 and I7 (what was answered is in the
 * queue, and a daemon that starts shows what it finds there), I9, I10 (one worker, with limits of time and memory).
 *
 * Gotchas: a worker writes to this process's standard output and standard error. It is told of the daemon's end by the end of
 * its standard input, also when the daemon was killed (`--with-parent`); the lease keeps it and a new one apart until then.
 *
 * Not here: when there is a worker (core's `PushDaemonMachine.ts`), what it does (`PushWorker.ts`), which program it is.
 */
import { Actor } from "@twinloop/actors"
import { PushDaemonMachine, SyncConfig } from "@twinloop/core"
import { Clock, Context, Effect, Layer, Option, Random, Ref } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import type { CannotListen } from "../http/CannotListen.ts"
import * as PushGateway from "./PushGateway.ts"
import { PushQueue } from "./PushQueue.ts"

/** How long a worker may live, in milliseconds: nothing is lost by a new one, and one that hangs is gone by then. */
export const WORKER_MILLIS = 600_000

/** How long a worker may take to end once it was told to, in milliseconds. */
export const END_MILLIS = 1_000

/** JavaScript's heap of a worker, in MiB: several times what a batch of large rooms takes. */
export const WORKER_HEAP_MIB = 128

/** The program that shows what waits, and ends. */
export interface WorkerCommand {
  readonly command: string
  readonly args: ReadonlyArray<string>
  /** Variables besides this process's own. */
  readonly env?: { readonly [name: string]: string }
}

export interface Options {
  readonly gateway: PushGateway.Options
  readonly worker: WorkerCommand
  /** {@link WORKER_MILLIS} if not given. */
  readonly workerMillis?: number
  /** Told where it listens, before the first worker is started. */
  readonly onListening?: (gateway: PushGateway.PushGateway["Service"]) => Effect.Effect<void>
}

type Input = PushDaemonMachine.Input
type Command = PushDaemonMachine.Command
type Handle = ChildProcessSpawner.ChildProcessHandle

interface Env {
  readonly options: Options
  readonly queue: PushQueue["Service"]
  readonly spawner: ChildProcessSpawner.ChildProcessSpawner["Service"]
  /** The worker that runs. */
  readonly worker: Ref.Ref<Handle | undefined>
}

type ActorContext = Actor.Context<Input | "Start">

const look = ({ queue }: Env): Effect.Effect<Input> =>
  Effect.gen(function* () {
    const waiting = yield* queue.size
    const dueMillis = yield* queue.nextDueMillis()
    return {
      _tag: "Looked",
      queued: { waiting, ...(dueMillis !== undefined && { dueMillis }) },
      nowMillis: yield* Clock.currentTimeMillis,
      random: yield* Random.next
    } as const
  }).pipe(
    Effect.tapError(({ message }) =>
      Effect.logWarning(`The queue of pushes can't be read; it is tried again. ${message}`)
    ),
    Effect.catch(() => Effect.map(Random.next, (random): Input => ({ _tag: "LookFailed", random })))
  )

/** Runs one worker to its end; gives what was wrong with that, if anything was. Interrupted, it tells it to end, and kills it when it doesn't. */
const runWorker = Effect.fnUntraced(function* ({ options, spawner, worker }: Env) {
  const handle = yield* spawner.spawn(
    ChildProcess.make(options.worker.command, options.worker.args, {
      // Ends when this process does.
      stdin: "pipe",
      stdout: "inherit",
      stderr: "inherit",
      ...(options.worker.env !== undefined && { env: options.worker.env }),
      extendEnv: true,
      killSignal: "SIGTERM",
      forceKillAfter: END_MILLIS
    })
  )
  yield* Ref.set(worker, handle)
  const exitCode = yield* Effect.option(handle.exitCode)
  if (Option.isNone(exitCode)) return "was killed, by somebody or because the memory was used up"
  return Number(exitCode.value) === 0 ? undefined : `ended with exit code ${exitCode.value}`
}, Effect.scoped)

const worker = (env: Env): Effect.Effect<Input> =>
  runWorker(env).pipe(
    Effect.catch(({ message }) => Effect.succeed(`could not be started: ${message}`)),
    Effect.ensuring(Ref.set(env.worker, undefined)),
    Effect.tap((why) =>
      why === undefined
        ? Effect.void
        : Effect.logWarning(`The process that shows pushes ${why}. They wait, and another one is started.`)
    ),
    Effect.flatMap((why) =>
      Effect.map(Random.next, (random): Input => ({ _tag: "WorkerEnded", inOrder: why === undefined, random }))
    )
  )

const tellWorker = ({ worker }: Env, signal: NodeJS.Signals): Effect.Effect<void> =>
  Effect.map(Ref.get(worker), (handle) => {
    if (handle === undefined) return
    try {
      process.kill(handle.pid, signal)
    } catch {
      // It has ended meanwhile.
    }
  })

const wait = (context: ActorContext, key: string, millis: number, input: Input): Effect.Effect<void> =>
  context.run(key, Effect.as(Effect.sleep(millis), input))

const interpret =
  (env: Env) =>
  (command: Command, context: ActorContext): Effect.Effect<void> => {
    switch (command._tag) {
      case "Look":
        return context.run("look", look(env))
      case "StartWorker":
        return context.run("worker", worker(env))
      case "TellWorker":
        return tellWorker(env, command.signal)
      case "WatchWorker":
        return wait(context, "late", command.millis, { _tag: "WorkerLate" })
      case "UnwatchWorker":
        return context.cancel("late")
      case "Wait":
        return wait(context, "wait", command.millis, { _tag: "Waited" })
      case "CancelWait":
        return context.cancel("wait")
    }
  }

/** Starts the supervision, which does nothing until it is sent `Start`; it ends with the scope, and the worker with it. */
const supervise = Effect.fnUntraced(function* (options: Options) {
  const limits = yield* SyncConfig.SyncConfig
  const queue = yield* PushQueue
  const env: Env = {
    options,
    queue,
    spawner: yield* ChildProcessSpawner.ChildProcessSpawner,
    worker: yield* Ref.make<Handle | undefined>(undefined)
  }
  const { workerMillis = WORKER_MILLIS } = options
  const config: PushDaemonMachine.Config = { limits, workerMillis, endMillis: END_MILLIS }
  const [initial, commands] = PushDaemonMachine.start
  const actor = yield* Actor.make<PushDaemonMachine.State, Input | "Start", Command, never>({
    name: "PushDaemon",
    initial,
    mailboxCapacity: limits.mailboxCapacity,
    step: (state, input) => (input === "Start" ? [state, commands] : PushDaemonMachine.step(config, state, input)),
    interpret: interpret(env)
  })
  const arrival = yield* queue.arrivals
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(arrival, actor.send({ _tag: "Accepted" }))))
  return actor
})

/**
 * Accepts pushes and has them shown, until it is interrupted. Fails with `CannotListen` when the port is taken, or others
 * could reach it and that wasn't asked for.
 *
 * @example
 * ```ts
 * import { PushDaemon, PushQueue, Twinloop } from "@twinloop/platform"
 * import { NodeServices } from "@effect/platform-node"
 * import { Effect, Layer } from "effect"
 *
 * const args = ["notify.cjs", "--queue", "--with-parent", "--database", "account.db", "--sink", "desktop"]
 * export const daemon = PushDaemon.run({
 *   gateway: { port: 8_009 },
 *   worker: { command: process.execPath, args }
 * }).pipe(
 *   Effect.provide(PushQueue.PushQueue.layer.pipe(Layer.provideMerge(Twinloop.layerFoundation({ database: "account.db" })))),
 *   Effect.provide(NodeServices.layer)
 * )
 * ```
 */
export const run = (
  options: Options
): Effect.Effect<never, CannotListen, PushQueue | ChildProcessSpawner.ChildProcessSpawner> =>
  Effect.gen(function* () {
    const actor = yield* supervise(options)
    // Built last, so closed first: nothing is accepted any more once the worker is told to end.
    const gateway = yield* Layer.build(PushGateway.layer(options.gateway))
    yield* options.onListening?.(Context.get(gateway, PushGateway.PushGateway)) ?? Effect.void
    yield* actor.send("Start")
    return yield* Effect.flatMap(actor.crashed, Effect.failCause)
  }).pipe(Effect.scoped)
