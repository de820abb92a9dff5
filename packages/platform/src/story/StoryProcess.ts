/**
 * A process of the story: a `twinloop` command as a real process of the operating system, and what it says, a JSON object a line.
 *
 * Gotchas: it ends when its standard input does, so that no process is left behind when the story itself is killed.
 *
 * Not here: which commands (`AppProcess.ts`, `PushProcess.ts`).
 */
import { Effect, Fiber, Option, Queue, Ref, Schema, Stream, SubscriptionRef } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import { appendFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import * as MonotonicClock from "../cli/MonotonicClock.ts"
import { StoryError } from "./StoryError.ts"

const main = fileURLToPath(new URL("../cli/main.ts", import.meta.url))

/** An event that was waited for; `next` is where to listen on, as `since`. */
export interface Heard<Event> {
  readonly event: Event
  readonly next: number
}

export interface StoryProcess<Event> {
  readonly pid: number
  /** Everything it has said, oldest first. */
  readonly events: Effect.Effect<ReadonlyArray<Event>>
  /** The first event that the function accepts, of those from `since` on (0: all of them); fails after `limitMillis`. */
  until(
    what: string,
    accepts: (event: Event) => boolean,
    options?: { readonly since?: number; readonly limitMillis?: number }
  ): Effect.Effect<Heard<Event>, StoryError>
  /** How many events it has said, to be given to `until` as `since`. */
  readonly said: Effect.Effect<number>
  /** Says a line to it. */
  say(line: string): Effect.Effect<void>
  /** The last lines of its standard error. */
  readonly lastWords: Effect.Effect<ReadonlyArray<string>>
  /** Kills it as the operating system does; gives the moment, on the monotonic clock. */
  readonly kill: Effect.Effect<number>
  /** Asks it to stop, as an operator's ^C does. */
  readonly interrupt: Effect.Effect<void>
  /** Waits for its end and its last words, and gives its exit code; fails when it goes on for longer than any stop may take. */
  readonly exitCode: Effect.Effect<number, StoryError>
  /** Fails once it has ended, which it should not. */
  readonly ended: Effect.Effect<never, StoryError>
  /** Fails with what is wrong with it, and its last words. */
  fail(what: string): Effect.Effect<never, StoryError>
}

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

/** How long after its end something that it said may come: a process that it started may have its standard error still. */
const LAST_WORDS_MILLIS = 2_000

/** What shells say of a process that was killed: 128 + SIGKILL. */
const KILLED = 137

/** Arguments of `node` that run this project's command line. */
export const commandLine = (args: ReadonlyArray<string>): ReadonlyArray<string> => [main, ...args]

const spawn = Effect.fnUntraced(function* (name: string, args: ReadonlyArray<string>) {
  const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
  const handle = yield* spawner
    .spawn(
      ChildProcess.make(process.execPath, commandLine(args), { stdin: "pipe", extendEnv: true, killSignal: "SIGKILL" })
    )
    .pipe(
      Effect.mapError(
        (cause) => new StoryError({ message: `the process "${name}" could not be started: ${cause.message}` })
      )
    )
  const input = yield* Queue.unbounded<string>()
  yield* Effect.forkScoped(
    Effect.ignore(
      Stream.run(Stream.encodeText(Stream.map(Stream.fromQueue(input), (line) => `${line}\n`)), handle.stdin)
    )
  )
  return { handle, input }
})

export interface Options {
  /** File to which everything is appended that it says, on either stream. */
  readonly log?: string
}

/** Starts a command. Lines that aren't of the schema are passed over. It is killed when the scope closes, if it still runs. */
export const start = Effect.fn("StoryProcess.start")(function* <Event>(
  name: string,
  args: ReadonlyArray<string>,
  schema: Schema.Codec<Event, unknown>,
  { log }: Options = {}
) {
  const { handle, input } = yield* spawn(name, args)
  const decode = Schema.decodeUnknownOption(Schema.fromJsonString(schema))
  const events = yield* SubscriptionRef.make<ReadonlyArray<Event>>([])
  const errors = yield* Ref.make<ReadonlyArray<string>>([])
  const write = (line: string) => {
    if (log !== undefined) appendFileSync(log, `${line}\n`)
  }
  const keep = (line: string) => {
    write(line)
    const event = decode(line)
    return Option.isSome(event) ? SubscriptionRef.update(events, (all) => [...all, event.value]) : Effect.void
  }
  yield* Effect.forkScoped(collect(handle.stdout, keep))
  const listening = yield* Effect.forkScoped(
    collect(handle.stderr, (line) => {
      write(line)
      return Ref.update(errors, (lines) => [...lines, line].slice(-KEPT_LINES))
    })
  )

  const fail = (message: string) =>
    Effect.flatMap(
      Ref.get(errors),
      (lines) => new StoryError({ message: [`the process "${name}" ${message}`, ...lines].join("\n") })
    )
  const signal = (name: NodeJS.Signals) => Effect.sync(() => process.kill(handle.pid, name))
  const end = handle.exitCode.pipe(
    Effect.map(Number),
    Effect.orElseSucceed(() => KILLED),
    Effect.tap(() => Effect.timeoutOption(Fiber.join(listening), LAST_WORDS_MILLIS))
  )
  const started: StoryProcess<Event> = {
    pid: handle.pid,
    events: SubscriptionRef.get(events),
    said: Effect.map(SubscriptionRef.get(events), (all) => all.length),
    until: (what, accepts, { limitMillis = 20_000, since = 0 } = {}) =>
      SubscriptionRef.changes(events).pipe(
        Stream.map((all): Heard<Event> | undefined => {
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
    say: (line) => Effect.asVoid(Queue.offer(input, line)),
    lastWords: Ref.get(errors),
    kill: Effect.tap(MonotonicClock.nowMillis, () => signal("SIGKILL")),
    interrupt: Effect.asVoid(signal("SIGINT")),
    exitCode: end.pipe(
      Effect.timeoutOption(END_LIMIT_MILLIS),
      Effect.flatMap((code) =>
        Option.isSome(code) ? Effect.succeed(code.value) : fail(`did not end within ${END_LIMIT_MILLIS} ms`)
      )
    ),
    ended: Effect.flatMap(end, (code) => fail(`ended by itself, with exit code ${code}`)),
    fail
  }
  return started
})
