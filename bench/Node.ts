/** Node from its start to its end: when its first line arrived, when it was over, and what it said. */
import { Effect } from "effect"
import { spawn, spawnSync } from "node:child_process"
import type { Bundle } from "./Child.ts"
import { nowMillis } from "./contestants/Figures.ts"
import type { StartLine } from "./contestants/start/StartLine.ts"

/** What is known of a process from its start to its end. */
export interface Run {
  readonly startedAtMillis: number
  /** From the start to the arrival of its first line, and to its end. */
  readonly shownMillis: number
  readonly exitMillis: number
  /** All that it has printed. */
  readonly output: string
}

/** The command that starts another one so that it may use one core alone; undefined where there is none. */
export const oneCore = (): ReadonlyArray<string> | undefined =>
  spawnSync("taskset", ["-c", "0", "true"]).status === 0 ? ["taskset", "-c", "0"] : undefined

/** Runs Node to its end; `under` is a command that starts another one. */
export const node = (
  args: ReadonlyArray<string>,
  env: { readonly [name: string]: string } = {},
  under: ReadonlyArray<string> = []
): Effect.Effect<Run> =>
  Effect.callback<Run>((resume) => {
    const startedAtMillis = nowMillis()
    const [command = process.execPath, ...all] = [...under, process.execPath, ...args]
    const child = spawn(command, all, {
      stdio: ["ignore", "pipe", "inherit"],
      env: { ...process.env, ...env }
    })
    let shownMillis = Number.NaN
    let exitMillis = Number.NaN
    let output = ""
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      if (output === "") shownMillis = nowMillis() - startedAtMillis
      output += text
    })
    child.once("exit", () => {
      exitMillis = nowMillis() - startedAtMillis
    })
    child.once("close", (code) =>
      resume(
        code === 0
          ? Effect.succeed({ startedAtMillis, shownMillis, exitMillis, output })
          : Effect.die(new Error(`${args.join(" ")} ended with ${code}`))
      )
    )
    return Effect.sync(() => child.kill("SIGKILL"))
  })

/** The line that a process says when it has done its work. */
export const lineOf = (output: string): StartLine => JSON.parse(output) as StartLine

/** Runs a bundle to its end, with its compile cache. */
export const start = ({ cache, file }: Bundle, ...args: ReadonlyArray<string>): Effect.Effect<Run> =>
  node([file, ...args], { NODE_COMPILE_CACHE: cache })

/** The same without reading or filling the cache. */
export const startCold = ({ file }: Bundle, ...args: ReadonlyArray<string>): Effect.Effect<Run> => node([file, ...args])
