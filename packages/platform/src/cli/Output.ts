/** What commands print: a result as text or JSON, and progress in place on a terminal, as plain lines elsewhere. */
import { Console, Effect, Ref } from "effect"
import * as Printable from "../Printable.ts"
import * as MonotonicClock from "./MonotonicClock.ts"

/** Prints a result: as JSON with `--json`, else as the given lines. */
export const result = (json: boolean, value: object, lines: ReadonlyArray<string>): Effect.Effect<void> =>
  json
    ? Console.log(Printable.json(value))
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

/** Where progress goes. */
export type Channel = "stdout" | "stderr"

const write = (channel: Channel, text: string): Effect.Effect<void> => Effect.sync(() => process[channel].write(text))
const eraseLine = "\r\u001b[2K"

/** Between two status lines where they can't be replaced: a log isn't a terminal. */
const PLAIN_PAUSE_MILLIS = 2_000

const onTerminal = (channel: Channel): Progress => ({
  status: (text) => write(channel, eraseLine + text.slice(0, Math.max(20, (process[channel].columns ?? 80) - 1))),
  line: (text) => write(channel, `${eraseLine}${text}\n`),
  clear: write(channel, eraseLine)
})

const plain = (channel: Channel) =>
  Effect.map(Ref.make(Number.NEGATIVE_INFINITY), (printedAt): Progress => {
    const print = channel === "stdout" ? Console.log : Console.error
    return {
      status: (text) =>
        Effect.gen(function* () {
          const now = yield* MonotonicClock.nowMillis
          if (now - (yield* Ref.get(printedAt)) < PLAIN_PAUSE_MILLIS) return
          yield* Ref.set(printedAt, now)
          yield* print(text)
        }),
      line: (text) => print(text),
      clear: Effect.void
    }
  })

/** Progress on standard output or standard error. */
export const progressOn = (channel: Channel): Effect.Effect<Progress> =>
  Effect.suspend(() => (process[channel].isTTY ? Effect.succeed(onTerminal(channel)) : plain(channel)))

/** Progress on standard output. */
export const progress: Effect.Effect<Progress> = progressOn("stdout")
