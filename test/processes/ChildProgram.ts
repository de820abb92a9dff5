/**
 * Starts a program as a process of its own and talks with it by lines: what it says is waited for, never guessed.
 */
import { Effect } from "effect"
import type { Scope } from "effect"
import { spawn } from "node:child_process"
import { createInterface } from "node:readline"

/** A running child. */
export interface ChildProgram {
  readonly pid: number
  /** The next line that it prints; fails loudly when it ends instead. */
  readonly line: Effect.Effect<string>
  readonly send: (line: string) => Effect.Effect<void>
  readonly signal: (signal: NodeJS.Signals) => Effect.Effect<void>
  /** How it ended: its exit code, or the signal that killed it. */
  readonly ended: Effect.Effect<number | NodeJS.Signals>
}

/** Starts a TypeScript file beside this one with Node; it is killed with the scope. Its errors go to this process's. */
export const start = (file: string, ...args: ReadonlyArray<string>): Effect.Effect<ChildProgram, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => {
        const path = new URL(file, import.meta.url).pathname
        const child = spawn(process.execPath, [path, ...args], { stdio: ["pipe", "pipe", "inherit"] })
        const ended = new Promise<number | NodeJS.Signals>((resolve) =>
          child.once("exit", (code, signal) => resolve(signal ?? code ?? -1))
        )
        const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
        return { child, ended, lines }
      }),
      ({ child, ended }) =>
        Effect.promise(() => {
          child.kill("SIGKILL")
          return ended
        })
    ),
    ({ child, ended, lines }) => ({
      pid: child.pid ?? -1,
      line: Effect.promise(() => lines.next()).pipe(
        Effect.flatMap((next) => (next.done === true ? Effect.die(`${file} ended early`) : Effect.succeed(next.value)))
      ),
      send: (line) => Effect.sync(() => void child.stdin.write(`${line}\n`)),
      signal: (signal) => Effect.sync(() => void child.kill(signal)),
      ended: Effect.promise(() => ended)
    })
  )
