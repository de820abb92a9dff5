/**
 * Starts a program as a process of its own and listens to the JSON lines that it prints: what it says is waited for, with a
 * limit, and never guessed.
 *
 * Gotchas: everything it says is read at once, whether anybody waits for it or not, since a process whose output nobody
 * reads stops at its next line. It is killed when the scope closes.
 *
 * Not here: the lines of `twinloop run` (`RunEvent`), which are one kind of what a program says.
 */
import { Effect } from "effect"
import type { Scope } from "effect"
import { spawn } from "node:child_process"
import type { ChildProcessByStdio } from "node:child_process"
import type { Readable, Writable } from "node:stream"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"

/** A line that was waited for; `next` is where to listen on, as `since`. */
export interface Heard<Line> {
  readonly line: Line
  readonly next: number
}

/** A running process. */
export interface Program<Line> {
  readonly pid: number
  /** Everything it has said, oldest first. */
  readonly lines: Effect.Effect<ReadonlyArray<Line>>
  /** How much it has said, to be given to `until` as `since`. */
  readonly said: Effect.Effect<number>
  /** The first line that the function accepts, of those from `since` on (0: all). Dies after `limitMillis`, and when it ends instead. */
  until(
    what: string,
    accepts: (line: Line) => boolean,
    options?: { readonly since?: number; readonly limitMillis?: number }
  ): Effect.Effect<Heard<Line>>
  send(line: string): Effect.Effect<void>
  /** Ends its standard input, as the end of its parent does. */
  readonly endInput: Effect.Effect<void>
  signal(signal: NodeJS.Signals): Effect.Effect<void>
  /** Waits for its end: its exit code, or the signal that killed it. Dies when it goes on for longer than 20 s. */
  readonly ended: Effect.Effect<number | NodeJS.Signals>
  /** All that it has printed on standard output. */
  readonly output: Effect.Effect<string>
  /** Lines of its standard output that are no JSON. */
  readonly noise: Effect.Effect<ReadonlyArray<string>>
  /** What it has printed on standard error. */
  readonly errors: Effect.Effect<string>
}

/** Starting Node and loading Effect takes most of a second, and several times that while both cores are busy. */
const LIMIT_MILLIS = 20_000

type Child = ChildProcessByStdio<Writable, Readable, Readable>

/** What is known of a process, and who waits for more. */
class Watched<Line> {
  readonly child: Child
  readonly lines: Array<Line> = []
  readonly noise: Array<string> = []
  output = ""
  errors = ""
  end: number | NodeJS.Signals | undefined
  readonly listeners = new Set<() => void>()

  constructor(child: Child) {
    this.child = child
    createInterface(child.stdout).on("line", (line) => this.hear(line))
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      this.errors += text
    })
    // `close` comes after `exit`, once all that it said has been read.
    child.once("close", (code, signal) => {
      this.end = signal ?? code ?? -1
      this.tell()
    })
    // A process that is gone doesn't read its input.
    child.stdin.on("error", () => {})
  }

  private hear(line: string): void {
    this.output += `${line}\n`
    try {
      this.lines.push(JSON.parse(line) as Line)
    } catch {
      // Not one of its events: kept for the message of a failure.
      this.noise.push(line)
    }
    this.tell()
  }

  private tell(): void {
    for (const listener of this.listeners) listener()
  }

  describe(): string {
    const tail = this.lines.slice(-10).map((line) => JSON.stringify(line).slice(0, 300))
    const end = this.end === undefined ? "it still runs" : `it ended with ${this.end}`
    return [end, "last lines:", ...tail, ...this.noise.slice(-10), "standard error:", this.errors.slice(-2_000)].join(
      "\n"
    )
  }
}

/** Waits until `look` gives something; dies with what is known about the process after the limit. */
const awaiting = <Line, A>(record: Watched<Line>, what: string, limitMillis: number, look: () => A | undefined) =>
  Effect.callback<A>((resume) => {
    const listener = (): void => {
      const found = look()
      if (found !== undefined) resume(Effect.succeed(found))
      else if (record.end !== undefined)
        resume(Effect.die(new Error(`the process did not ${what}: ${record.describe()}`)))
    }
    record.listeners.add(listener)
    listener()
    return Effect.sync(() => record.listeners.delete(listener))
  }).pipe(
    Effect.timeoutOrElse({
      duration: limitMillis,
      orElse: () =>
        Effect.die(
          new Error(`process ${record.child.pid} did not ${what} within ${limitMillis} ms: ${record.describe()}`)
        )
    })
  )

const programOf = <Line>(record: Watched<Line>): Program<Line> => ({
  pid: record.child.pid ?? -1,
  lines: Effect.sync(() => [...record.lines]),
  said: Effect.sync(() => record.lines.length),
  until: (what, accepts, { limitMillis = LIMIT_MILLIS, since = 0 } = {}) => {
    // Each line is looked at once, however often there are new ones.
    let looked = since
    return awaiting(record, what, limitMillis, () => {
      for (; looked < record.lines.length; looked++) {
        const line = record.lines[looked]!
        if (accepts(line)) return { line, next: looked + 1 }
      }
      return undefined
    })
  },
  send: (line) => Effect.sync(() => void record.child.stdin.write(`${line}\n`)),
  endInput: Effect.sync(() => void record.child.stdin.end()),
  signal: (signal) => Effect.sync(() => void record.child.kill(signal)),
  ended: awaiting(record, "end", LIMIT_MILLIS, () => record.end),
  output: Effect.sync(() => record.output),
  noise: Effect.sync(() => [...record.noise]),
  errors: Effect.sync(() => record.errors)
})

/** The `twinloop` command. */
export const TWINLOOP = "../../packages/platform/src/cli/main.ts"

/** How Node is started. */
export interface NodeOptions {
  /** Arguments of the program. */
  readonly args?: ReadonlyArray<string>
  /** Arguments of Node itself. */
  readonly flags?: ReadonlyArray<string>
  /** Variables besides this process's own. */
  readonly env?: { readonly [name: string]: string }
}

const launch = <Line>(
  command: string,
  args: ReadonlyArray<string>,
  env: { readonly [name: string]: string }
): Effect.Effect<Program<Line>, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => {
        const child = spawn(command, args, { stdio: ["pipe", "pipe", "pipe"], env: { ...process.env, ...env } })
        return new Watched<Line>(child)
      }),
      (record) => {
        record.child.kill("SIGKILL")
        return awaiting(record, "end after SIGKILL", LIMIT_MILLIS, () => record.end)
      }
    ),
    programOf
  )

/** Starts a program that needs no Node. */
export const startExecutable = <Line>(
  file: string,
  ...args: ReadonlyArray<string>
): Effect.Effect<Program<Line>, never, Scope.Scope> => launch<Line>(file, args, {})

/** Starts a file with Node. */
export const startFile = <Line>(
  file: URL,
  { args = [], env = {}, flags = [] }: NodeOptions = {}
): Effect.Effect<Program<Line>, never, Scope.Scope> =>
  launch<Line>(process.execPath, [...flags, fileURLToPath(file), ...args], env)

/** Starts a TypeScript file, named relative to this one, with Node. */
export const start = <Line>(
  file: string,
  ...args: ReadonlyArray<string>
): Effect.Effect<Program<Line>, never, Scope.Scope> => startFile<Line>(new URL(file, import.meta.url), { args })
