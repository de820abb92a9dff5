/**
 * `npm run model`: visits every state that the processes of a small account can get into, by the rules of the product, and
 * says how many there are. Exits with 1 and the shortest way to it when one breaks an invariant.
 *
 * `npm run model -- --events 3 --processes 2 --crashes 1 --faults 1 --suspends 1 --wishes 1` sets the bounds, each a number:
 * to-device events, processes that share the stream, and how often in all a process is killed, a call fails, a process is
 * suspended, or one is in a hurry. `--limit` ends it at so many states. `--fine` lets each answer wait in the mailbox.
 *
 * Not here: the model, and what it leaves out (`packages/core/test/model/System.ts`).
 */
import { parseArgs } from "node:util"
import * as Coverage from "../packages/core/test/model/Coverage.ts"
import * as Explore from "../packages/core/test/model/Explore.ts"
import * as Rules from "../packages/core/test/model/Rules.ts"

const defaults = { processes: 2, events: 3, crashes: 0, faults: 0, suspends: 0, wishes: 0, limit: 10_000_000 }

const names = Object.keys(defaults) as ReadonlyArray<keyof typeof defaults>

/** The bounds that were asked for, or what is wrong with them. */
export const asked = (args: ReadonlyArray<string>): (typeof defaults & { readonly fine: boolean }) | string => {
  const { values } = parseArgs({
    args: [...args],
    options: {
      ...(Object.fromEntries(names.map((name) => [name, { type: "string" }])) as Record<string, { type: "string" }>),
      fine: { type: "boolean" }
    },
    strict: false
  })
  const stranger = Object.keys(values).find(
    (name) => name !== "fine" && !(names as ReadonlyArray<string>).includes(name)
  )
  if (stranger !== undefined) return `--${stranger} is not an option; there are --${names.join(", --")} and --fine`
  const numbers = { ...defaults }
  for (const name of names) {
    const number = Number(values[name] ?? defaults[name])
    if (!Number.isInteger(number) || number < 0) return `--${name} takes a whole number, 0 or more`
    numbers[name] = number
  }
  if (numbers.processes < 1 || numbers.processes > 3) return "--processes takes 1 to 3"
  return { ...numbers, fine: values["fine"] === true }
}

const print = (line: string): void => void process.stdout.write(`${line}\n`)

/** Visits and prints; gives whether all is well. */
const run = ({ limit, fine, ...bounds }: Exclude<ReturnType<typeof asked>, string>): boolean => {
  const started = performance.now()
  const seconds = (): string => ((performance.now() - started) / 1000).toFixed(1)
  const seen = new Set<string>()
  const { depth, isCut, parts, states, transitions, violation } = Explore.explore({
    bounds,
    fine,
    limit,
    liveness: true,
    rules: Coverage.recording(Rules.real, seen),
    progress: (states, depth) => void process.stderr.write(`${states} states, depth ${depth}, ${seconds()} s\n`)
  })
  print(
    `bounds: ${Object.entries(bounds)
      .map(([name, number]) => `${name} ${number}`)
      .join(", ")}${fine ? ", fine" : ""}`
  )
  print(`${states} states of ${parts} parts, ${transitions} transitions, depth ${depth}, ${seconds()} s`)
  const missing = Coverage.missing(seen)
  print(`met ${Coverage.expected.length - missing.length} of ${Coverage.expected.length} states, inputs and commands`)
  if (missing.length > 0) print(`not met within these bounds: ${missing.join(", ")}`)
  if (violation !== undefined) {
    print(`BROKEN: ${violation.what}`)
    violation.trace.forEach((words, at) => print(`${String(at + 1).padStart(4)}. ${words}`))
    return false
  }
  if (isCut) print("cut at the limit, so not every state was visited; what was visited breaks no invariant")
  else print("I1, I2, I4 and I5 hold in every state, and from every state all events can still be applied")
  return !isCut
}

if (import.meta.main) {
  const bounds = asked(process.argv.slice(2))
  if (typeof bounds === "string") process.stderr.write(`model: ${bounds}.\n`)
  if (typeof bounds === "string" || !run(bounds)) process.exitCode = 1
}
