/**
 * `npm run mutants`: breaks our own code on purpose, one fault at a time, and sees that a test notices each.
 *
 * Options: `--only ID[,ID...]` some faults; `--sample N` so many, another handful for each commit; `--json` one line of JSON
 * instead of the table; `--list` what there is, without trying it.
 *
 * Ends with 1 when a fault was not noticed, with 2 when nothing could be judged. The working tree is not touched.
 */
import { Console, Effect } from "effect"
import { spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { parseArgs } from "node:util"
import { mutants } from "./mutation/Mutants.ts"
import type { Mutant } from "./mutation/Mutants.ts"
import { root } from "./mutation/Tree.ts"
import * as Trial from "./mutation/Trial.ts"

/** So many faults, in an order that a seed decides. */
export const sample = (all: ReadonlyArray<Mutant>, count: number, seed: string): ReadonlyArray<Mutant> => {
  const place = ({ id }: Mutant): string => createHash("sha256").update(`${seed} ${id}`).digest("hex")
  return all.toSorted((one, two) => (place(one) < place(two) ? -1 : 1)).slice(0, count)
}

/** The commit, or nothing outside a clone. */
const commit = (): string => spawnSync("git", ["rev-parse", "HEAD"], { cwd: root, encoding: "utf8" }).stdout ?? ""

interface Options {
  readonly only?: string | undefined
  readonly sample?: string | undefined
}

/** The faults to try, or what is wrong with the options. */
export const chosen = (options: Options, seed: string): ReadonlyArray<Mutant> | string => {
  const ids = options.only?.split(",")
  const unknown = ids?.filter((id) => mutants.every((mutant) => mutant.id !== id)) ?? []
  if (unknown.length > 0) return `no such fault: ${unknown.join(", ")}; see them with --list`
  const some = ids === undefined ? mutants : mutants.filter(({ id }) => ids.includes(id))
  const count = Number(options.sample ?? some.length)
  if (!Number.isInteger(count) || count < 1) return `--sample takes a number, 1 or more, and not "${options.sample}"`
  return options.sample === undefined ? some : sample(some, count, seed)
}

const line = ({ breaks, by, id, seconds, verdict }: Trial.Tried): string =>
  [id.padEnd(40), breaks.padEnd(5), verdict.padEnd(16), `${seconds.toFixed(1)} s`.padStart(8), ` ${by}`].join(" ")

const isNoticed = ({ verdict }: Trial.Tried): boolean => verdict === "caught" || verdict === "caughtElsewhere"

const program = Effect.fnUntraced(function* (faults: ReadonlyArray<Mutant>, json: boolean) {
  const told = (tried: Trial.Tried) => (json ? Console.error(line(tried)) : Console.log(line(tried)))
  const result = yield* Trial.run(faults, told)
  if (result._tag === "Problem") {
    yield* Console.error(`Nothing can be judged: a test fails without any fault. ${result.problem}`)
    return 2
  }
  const missed = result.tried.filter((tried) => !isNoticed(tried))
  const passed = result.tried.length - missed.length
  if (json) yield* Console.log(JSON.stringify({ passed, failed: missed.length, mutants: result.tried }))
  else yield* Console.log(`mutants: ${passed} noticed, ${missed.length} not`)
  return missed.length === 0 ? 0 : 1
})

const main = async (): Promise<number> => {
  const { values } = parseArgs({
    options: {
      only: { type: "string" },
      sample: { type: "string" },
      json: { type: "boolean", default: false },
      list: { type: "boolean", default: false }
    }
  })
  const faults = chosen(values, commit())
  if (typeof faults === "string") {
    process.stderr.write(`${faults}\n`)
    return 2
  }
  if (values.list) {
    for (const { breaks, file, id } of faults) process.stdout.write(`${id.padEnd(40)} ${breaks.padEnd(5)} ${file}\n`)
    return 0
  }
  return Effect.runPromise(program(faults, values.json))
}

if (import.meta.main) process.exitCode = await main()
