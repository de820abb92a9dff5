/**
 * `npm run model`: visits every state that the processes of a small account can get into, by the rules of the product, and
 * says how many there are. Exits with 1 and the shortest way to it when one breaks an invariant.
 *
 * `npm run model -- --events 3 --processes 2 --crashes 1 --faults 1 --suspends 1 --wishes 1` sets the bounds, each a number:
 * to-device events, applications that share the stream, and how often in all a process is killed, a call fails, a process is
 * suspended, or one is in a hurry. `--notifications 1 --pushes 1` adds a process that a push starts, so often. `--limit` ends it
 * at so many states. `--fine` lets each answer wait in the mailbox. `--json` prints the figures as a list of one.
 *
 * `--all` visits what is listed in `packages/core/test/model/Configurations.ts`, with what each costs, one after the other, in a process
 * each, and with `--heavy` also those that take long; with `--only NAME` those whose names have that in them. `--help` prints the list.
 *
 * `--stories 100 --seed 1` plays as many stories with the real actors, and looks whether the model has every step of them.
 *
 * Not here: the model, and what it leaves out (`packages/core/test/model/System.ts`); what is seen of real actors
 * (`test/repo/model/Recording.ts`).
 */
import { spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import * as Coverage from "../packages/core/test/model/Coverage.ts"
import * as Explore from "../packages/core/test/model/Explore.ts"
import * as Rules from "../packages/core/test/model/Rules.ts"
import { follow, type Followed } from "../test/repo/model/Paths.ts"
import { play } from "../test/repo/model/Recording.ts"
import * as Stories from "../test/repo/model/Stories.ts"
import { type Configuration, configurations } from "../packages/core/test/model/Configurations.ts"

const defaults = {
  processes: 2,
  notifications: 0,
  events: 3,
  crashes: 0,
  faults: 0,
  suspends: 0,
  wishes: 0,
  pushes: 0,
  limit: 100_000_000,
  stories: 0,
  seed: 1
}

const names = Object.keys(defaults) as ReadonlyArray<keyof typeof defaults>
const flags = ["fine", "json", "all", "heavy", "help"] as const

type Asked = typeof defaults & {
  readonly [flag in (typeof flags)[number]]: boolean
} & { readonly only: string }

/** The bounds that were asked for, or what is wrong with them. */
export const asked = (args: ReadonlyArray<string>): Asked | string => {
  const { values } = parseArgs({
    args: [...args],
    options: {
      ...Object.fromEntries([...names, "only"].map((name) => [name, { type: "string" } as const])),
      ...Object.fromEntries(flags.map((name) => [name, { type: "boolean" } as const]))
    },
    strict: false
  })
  const known: ReadonlyArray<string> = [...names, ...flags, "only"]
  const stranger = Object.keys(values).find((name) => !known.includes(name))
  if (stranger !== undefined) return `--${stranger} is not an option; there are --${known.join(", --")}`
  const numbers = { ...defaults }
  for (const name of names) {
    const number = Number(values[name] ?? defaults[name])
    if (!Number.isInteger(number) || number < 0) return `--${name} takes a whole number, 0 or more`
    numbers[name] = number
  }
  if (numbers.processes < 1 || numbers.processes > 3) return "--processes takes 1 to 3"
  if (numbers.notifications > 2) return "--notifications takes 0 to 2"
  const only = typeof values["only"] === "string" ? values["only"] : ""
  const [fine = false, json = false, all = false, heavy = false, help = false] = flags.map(
    (flag) => values[flag] === true
  )
  return { ...numbers, only, fine, json, all, heavy, help }
}

const print = (line: string): void => void process.stdout.write(`${line}\n`)

/** What a visit came to. */
interface Figures {
  readonly bounds: Explore.Bounds
  readonly fine: boolean
  readonly states: number
  readonly transitions: number
  readonly depth: number
  readonly parts: number
  readonly isCut: boolean
  readonly violations: ReadonlyArray<Explore.Violation>
  /** By the clock, and of one core. */
  readonly seconds: number
  readonly cpuSeconds: number
  readonly memoryMegabytes: number
  /** States, inputs and commands of the machines that were not met. */
  readonly missing: ReadonlyArray<string>
}

const boundsOf = ({ crashes, events, faults, notifications, processes, pushes, suspends, wishes }: Asked) => ({
  processes,
  notifications,
  events,
  crashes,
  faults,
  suspends,
  wishes,
  pushes
})

const visit = (asked: Asked): Figures => {
  const { fine, limit } = asked
  const bounds = boundsOf(asked)
  const started = performance.now()
  const seconds = (): number => Math.round((performance.now() - started) / 100) / 10
  const seen = new Set<string>()
  const { violation, ...report } = Explore.explore({
    bounds,
    fine,
    limit,
    liveness: true,
    rules: Coverage.recording(Rules.real, seen),
    progress: (states, depth) => void process.stderr.write(`${states} states, depth ${depth}, ${seconds()} s\n`)
  })
  const { maxRSS, systemCPUTime, userCPUTime } = process.resourceUsage()
  return {
    bounds,
    fine,
    ...report,
    violations: violation === undefined ? [] : [violation],
    seconds: seconds(),
    cpuSeconds: Math.round((systemCPUTime + userCPUTime) / 1e5) / 10,
    memoryMegabytes: Math.round(maxRSS / 1024),
    missing: Coverage.missing(seen, bounds)
  }
}

/** Whether everything was visited, and nothing is wrong. */
const isWell = ({ isCut, violations }: Figures): boolean => !isCut && violations.length === 0

const report = (figures: Figures): void => {
  const { bounds, depth, fine, isCut, missing, parts, states, transitions, violations } = figures
  const words = Object.entries(bounds).map(([name, number]) => `${name} ${number}`)
  print(`bounds: ${words.join(", ")}${fine ? ", fine" : ""}`)
  print(
    `${states} states of ${parts} parts, ${transitions} transitions, depth ${depth}, ${figures.seconds} s (${figures.cpuSeconds} s of a core), ${figures.memoryMegabytes} MB`
  )
  const expected = Coverage.expectedOf(bounds).length
  print(`met ${expected - missing.length} of ${expected} states, inputs and commands`)
  if (missing.length > 0) print(`not met within these bounds: ${missing.join(", ")}`)
  for (const { trace, what } of violations) {
    print(`BROKEN: ${what}`)
    trace.forEach((words, at) => print(`${String(at + 1).padStart(4)}. ${words}`))
  }
  if (isCut) print("cut at the limit, so not every state was visited; what was visited breaks no invariant")
  if (isWell(figures))
    print(
      "I1 to I5 hold in every state, and from every state everything can still come to a good end, without any fault"
    )
}

const argumentsOf = ({ bounds, fine }: Configuration): ReadonlyArray<string> => [
  ...Object.entries(bounds).flatMap(([name, number]) => [`--${name}`, `${number}`]),
  ...(fine === true ? ["--fine"] : [])
]

/** Visits one configuration in a process of its own, which has the memory for itself. */
const visitApart = (configuration: Configuration): Figures => {
  const script = fileURLToPath(import.meta.url)
  const { status, stdout } = spawnSync(process.execPath, [script, ...argumentsOf(configuration), "--json"], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
    maxBuffer: 1e9
  })
  if (stdout === "") throw new Error(`${configuration.name} ended with ${status} and said nothing`)
  return (JSON.parse(stdout) as ReadonlyArray<Figures>)[0]!
}

/** Visits what is listed; gives whether all is well. */
const runAll = ({ heavy, json, only }: Asked): boolean => {
  const chosen = configurations.filter(({ isHeavy = false, name }) => name.includes(only) && (heavy || !isHeavy))
  const all = chosen.map((configuration) => {
    const figures = visitApart(configuration)
    if (!json) {
      print(`== ${configuration.name}`)
      report(figures)
    }
    return { name: configuration.name, ...figures }
  })
  if (json) print(JSON.stringify(all, undefined, 2))
  return all.length > 0 && all.every(isWell)
}

const runOne = (asked: Asked): boolean => {
  const figures = visit(asked)
  if (asked.json) print(JSON.stringify([figures]))
  else report(figures)
  return isWell(figures)
}

/** Follows a story, unless that takes too many states. */
const followed = (story: Parameters<typeof follow>[0]): Followed | undefined => {
  try {
    return follow(story)
  } catch (error) {
    if (error instanceof RangeError) return undefined
    throw error
  }
}

/** Plays stories with the real actors, and follows them in the model; gives whether it has all their steps. */
const runStories = async ({ seed, stories }: Asked): Promise<boolean> => {
  let [steps, most, left] = [0, 0, 0]
  for (const acts of Stories.draw(seed, stories)) {
    const story = await Effect.runPromise(Effect.provide(Effect.orDie(play(acts)), TestClock.layer()))
    const result = followed(story)
    if (result?.stranger !== undefined) {
      const { at, seen } = result.stranger
      print(`BROKEN: ${JSON.stringify(acts)}`)
      for (const { what } of story.slice(0, at)) print(`  ${what}`)
      print(`the model doesn't have: ${JSON.stringify(seen)}`)
      return false
    }
    if (result === undefined) left++
    else steps += story.length
    most = Math.max(most, result?.most ?? 0)
    process.stderr.write(`${story.length} steps, up to ${result?.most ?? "too many"} states\n`)
  }
  print(
    `${stories - left} stories of ${steps} steps in all are the model's, which might be in up to ${most} states at a time`
  )
  if (left > 0) print(`${left} stories were not followed to their end: too many states`)
  return stories > left
}

const help = (): boolean => {
  print("npm run model -- --all [--heavy] [--only NAME] [--json] visits:")
  for (const configuration of configurations) {
    const { costs, isHeavy, name } = configuration
    const words = isHeavy === true ? `${costs} (--heavy)` : costs
    print(`${name.padEnd(34)} ${words.padEnd(54)} ${argumentsOf(configuration).join(" ")}`)
  }
  return true
}

const run = async (asked: Asked): Promise<boolean> => {
  if (asked.help) return help()
  if (asked.stories > 0) return runStories(asked)
  return asked.all ? runAll(asked) : runOne(asked)
}

if (import.meta.main) {
  const bounds = asked(process.argv.slice(2))
  if (typeof bounds === "string") process.stderr.write(`model: ${bounds}.\n`)
  if (typeof bounds === "string" || !(await run(bounds))) process.exitCode = 1
}
