/**
 * A Node program as a process of the operating system: what it prints, line by line, signals to it, and how it ended.
 *
 * With the scope in which it was started, the process is asked to end, so that it can end its own children, and killed if it
 * does not.
 */
import { NodeServices } from "@effect/platform-node"
import { Effect, Option, Schema, Stream, SubscriptionRef } from "effect"
import type { Scope } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"

/** A line that was waited for did not come; `message` has everything that was printed instead. */
export class Silent extends Schema.TaggedError<Silent>("@twinloop/examples/Silent")("Silent", {
  message: Schema.String
}) {}

/** A line that was printed, and which one it is, counted from 1. */
export interface Line {
  readonly line: string
  readonly number: number
}

export interface Program {
  readonly pid: number
  /** The first line that matches, of those after the first `since` lines; fails after 30 s. */
  until(pattern: RegExp, since?: number): Effect.Effect<Line, Silent>
  signal(name: NodeJS.Signals): Effect.Effect<void>
  readonly exitCode: Effect.Effect<number>
}

const limit = "30 seconds"

const found = (lines: ReadonlyArray<string>, pattern: RegExp, since: number): Line | undefined => {
  const index = lines.findIndex((line, index) => index >= since && pattern.test(line))
  return index === -1 ? undefined : { line: lines[index] ?? "", number: index + 1 }
}

/** Starts `node file ...args` with what it prints on both streams as lines. */
export const start = Effect.fnUntraced(
  function* (
    file: string,
    args: ReadonlyArray<string> = [],
    env: Record<string, string> = {}
  ): Effect.fn.Return<Program, never, ChildProcessSpawner.ChildProcessSpawner | Scope.Scope> {
    const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
    const options = { env, extendEnv: true, killSignal: "SIGTERM", forceKillAfter: "5 seconds" } as const
    const handle = yield* Effect.orDie(spawner.spawn(ChildProcess.make(process.execPath, [file, ...args], options)))
    // A frozen process can't end in order. One that has ended already can't be continued, which is just as well.
    yield* Effect.addFinalizer(() => Effect.ignore(Effect.try(() => process.kill(handle.pid, "SIGCONT"))))
    const lines = yield* SubscriptionRef.make<ReadonlyArray<string>>([])
    const collecting = handle.all.pipe(
      Stream.decodeText(),
      Stream.splitLines,
      Stream.runForEach((line) => SubscriptionRef.update(lines, (all) => [...all, line])),
      // The streams of a killed process end as they like; what was printed before is what counts.
      Effect.ignore
    )
    yield* Effect.forkScoped(collecting)
    const silent = (pattern: RegExp) =>
      Effect.flatMap(SubscriptionRef.get(lines), (all) =>
        Effect.fail(new Silent({ message: `nothing like ${pattern} in:\n${all.join("\n")}` }))
      )
    return {
      pid: handle.pid,
      until: (pattern, since = 0) =>
        SubscriptionRef.changes(lines).pipe(
          Stream.map((all) => found(all, pattern, since)),
          Stream.filter((line) => line !== undefined),
          Stream.runHead,
          Effect.timeoutOption(limit),
          Effect.map(Option.flatten),
          Effect.flatMap(Option.match({ onNone: () => silent(pattern), onSome: Effect.succeed }))
        ),
      signal: (name) => Effect.sync(() => void process.kill(handle.pid, name)),
      exitCode: Effect.orDie(handle.exitCode)
    }
  },
  (effect) => Effect.provide(effect, NodeServices.layer)
)
