/**
 * One application process of the story: `twinloop run --json` as a real process of the operating system, and what it says.
 *
 * Gotchas: it ends when its standard input does, so that no process is left behind when the story itself is killed.
 */
import { Effect, Option, Queue, Ref, Schema, Stream, SubscriptionRef } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import { fileURLToPath } from "node:url"
import * as MonotonicClock from "../cli/MonotonicClock.ts"
import { RunEvent } from "../cli/RunEvent.ts"
import { StoryError } from "./StoryError.ts"

const main = fileURLToPath(new URL("../cli/main.ts", import.meta.url))

/** An event that was waited for; `next` is where to listen on, as `since`. */
export interface Heard {
  readonly event: RunEvent
  readonly next: number
}

export interface AppProcess {
  readonly role: string
  readonly pid: number
  /** Everything it has said, oldest first. */
  readonly events: Effect.Effect<ReadonlyArray<RunEvent>>
  /** The first event that the function accepts, of those from `since` on (0: all of them); fails after `limitMillis`. */
  until(
    what: string,
    accepts: (event: RunEvent) => boolean,
    options?: { readonly since?: number; readonly limitMillis?: number }
  ): Effect.Effect<Heard, StoryError>
  /** How many events it has said, to be given to `until` as `since`. */
  readonly said: Effect.Effect<number>
  /** Says which rooms are on the screen, 0-based and inclusive. */
  look(start: number, end: number): Effect.Effect<void>
  /** Kills it as the operating system does; gives the moment, on the monotonic clock. */
  readonly kill: Effect.Effect<number>
  /** Waits for its end, and gives its exit code; fails when it goes on for longer than any stop may take. */
  readonly exitCode: Effect.Effect<number, StoryError>
}

const decode = Schema.decodeUnknownOption(Schema.fromJsonString(RunEvent))

const collect = (stream: Stream.Stream<Uint8Array, unknown>, use: (line: string) => Effect.Effect<void>) =>
  stream.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.runForEach(use),
    // The stream of a killed process ends as it likes; what matters is what was said before.
    Effect.ignore
  )

/** Lines of standard error that are kept for the message when a process fails. */
const KEPT_LINES = 20

/** How long a process that was told to stop may go on: its own deadline is 5 s. */
const END_LIMIT_MILLIS = 15_000

/** What shells say of a process that was killed: 128 + SIGKILL. */
const KILLED = 137

/** Arguments of `node` that run this project's command line. */
export const commandLine = (args: ReadonlyArray<string>): ReadonlyArray<string> => [main, ...args]

/** Starts a process of a role on a database. It is killed when the scope closes, if it still runs. */
export const start = Effect.fn("AppProcess.start")(function* (role: string, database: string) {
  const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
  const args = ["run", "--json", "--with-parent", "--role", role, "--database", database]
  const handle = yield* spawner
    .spawn(
      ChildProcess.make(process.execPath, commandLine(args), { stdin: "pipe", extendEnv: true, killSignal: "SIGKILL" })
    )
    .pipe(
      Effect.mapError(
        (cause) => new StoryError({ message: `the process "${role}" could not be started: ${cause.message}` })
      )
    )
  const events = yield* SubscriptionRef.make<ReadonlyArray<RunEvent>>([])
  const input = yield* Queue.unbounded<string>()
  yield* Effect.forkScoped(
    Effect.ignore(
      Stream.run(Stream.encodeText(Stream.map(Stream.fromQueue(input), (line) => `${line}\n`)), handle.stdin)
    )
  )
  const errors = yield* Ref.make<ReadonlyArray<string>>([])
  const keep = (line: string) => {
    const event = decode(line)
    return Option.isSome(event) ? SubscriptionRef.update(events, (all) => [...all, event.value]) : Effect.void
  }
  yield* Effect.forkScoped(collect(handle.stdout, keep))
  yield* Effect.forkScoped(
    collect(handle.stderr, (line) => Ref.update(errors, (lines) => [...lines, line].slice(-KEPT_LINES)))
  )

  const fail = (message: string) =>
    Effect.flatMap(
      Ref.get(errors),
      (lines) => new StoryError({ message: [`the process "${role}" ${message}`, ...lines].join("\n") })
    )
  const app: AppProcess = {
    role,
    pid: handle.pid,
    events: SubscriptionRef.get(events),
    said: Effect.map(SubscriptionRef.get(events), (all) => all.length),
    until: (what, accepts, { limitMillis = 20_000, since = 0 } = {}) =>
      SubscriptionRef.changes(events).pipe(
        Stream.map((all): Heard | undefined => {
          const index = all.findIndex((event, index) => index >= since && accepts(event))
          return index === -1 ? undefined : { event: all[index]!, next: index + 1 }
        }),
        Stream.filter((heard) => heard !== undefined),
        Stream.runHead,
        Effect.timeoutOption(limitMillis),
        Effect.map(Option.flatten),
        Effect.flatMap((heard) =>
          Option.isSome(heard) ? Effect.succeed(heard.value) : fail(`did not ${what} within ${limitMillis} ms`)
        )
      ),
    look: (start, end) => Effect.asVoid(Queue.offer(input, `window ${start} ${end}`)),
    kill: Effect.gen(function* () {
      const atMillis = yield* MonotonicClock.nowMillis
      yield* Effect.sync(() => process.kill(handle.pid, "SIGKILL"))
      return atMillis
    }),
    exitCode: handle.exitCode.pipe(
      Effect.map(Number),
      Effect.orElseSucceed(() => KILLED),
      Effect.timeoutOption(END_LIMIT_MILLIS),
      Effect.flatMap((code) =>
        Option.isSome(code) ? Effect.succeed(code.value) : fail(`did not end within ${END_LIMIT_MILLIS} ms`)
      )
    )
  }
  return app
})
