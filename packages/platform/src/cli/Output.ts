/** What commands print: a result as text or JSON, and progress in place on a terminal, as plain lines elsewhere. */
import { Console, Effect } from "effect"

/** Prints a result: as JSON with `--json`, else as the given lines. */
export const result = (json: boolean, value: object, lines: ReadonlyArray<string>): Effect.Effect<void> =>
  json ? Console.log(JSON.stringify(value)) : Effect.forEach(lines, (line) => Console.log(line), { discard: true })

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

/** Progress on standard output. */
export const progress: Effect.Effect<Progress> = Effect.sync(() => {
  if (!process.stdout.isTTY)
    return { status: (text) => Console.log(text), line: (text) => Console.log(text), clear: Effect.void }
  const fit = (text: string): string => text.slice(0, Math.max(20, (process.stdout.columns ?? 80) - 1))
  return {
    status: (text) => write(eraseLine + fit(text)),
    line: (text) => write(`${eraseLine}${text}\n`),
    clear: write(eraseLine)
  }
})
