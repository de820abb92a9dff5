/** What commands print: a result as text or JSON, and progress in place on a terminal, as plain lines elsewhere. */
import { Console, Effect, Ref } from "effect"
import * as Printable from "../Printable.ts"
import * as MonotonicClock from "./MonotonicClock.ts"

/** Prints a result: as JSON with `--json`, else as the given lines. */
export const result = (json: boolean, value: object, lines: ReadonlyArray<string>): Effect.Effect<void> =>
  json
    ? Console.log(JSON.stringify(value))
    : Effect.forEach(lines, (line) => Console.log(Printable.line(line)), { discard: true })

/** Shows what is going on. */
export interface Progress {
  /** Replaces the status line on a terminal; a line of its own elsewhere. */
  status(text: string): Effect.Effect<void>
  /** A line that stays. */
  line(text: string): Effect.Effect<void>
  /** Removes the status line. */
  readonly clear: Effect.Effect<void>
}

/** No progress at all: with `--json`, standard output belongs to the JSON. */
export const silent: Progress = { status: () => Effect.void, line: () => Effect.void, clear: Effect.void }

const write = (text: string): Effect.Effect<void> => Effect.sync(() => process.stdout.write(text))
const eraseLine = "\r\u001b[2K"

/** Between two status lines where they can't be replaced: a log isn't a terminal. */
const PLAIN_PAUSE_MILLIS = 2_000

const onTerminal: Progress = {
  status: (text) => write(eraseLine + text.slice(0, Math.max(20, (process.stdout.columns ?? 80) - 1))),
  line: (text) => write(`${eraseLine}${text}\n`),
  clear: write(eraseLine)
}

const plain = Effect.map(Ref.make(Number.NEGATIVE_INFINITY), (printedAt): Progress => ({
  status: (text) =>
    Effect.gen(function* () {
      const now = yield* MonotonicClock.nowMillis
      if (now - (yield* Ref.get(printedAt)) < PLAIN_PAUSE_MILLIS) return
      yield* Ref.set(printedAt, now)
      yield* Console.log(text)
    }),
  line: (text) => Console.log(text),
  clear: Effect.void
}))

/** Progress on standard output. */
export const progress: Effect.Effect<Progress> = Effect.suspend(() =>
  process.stdout.isTTY ? Effect.succeed(onTerminal) : plain
)
