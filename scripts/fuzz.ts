/**
 * `npm run fuzz -- [--inputs N] [--seed N] [--homeserver dev|synapse] [--only INDEX] [--json]`: gives every decoder what nobody would send in good faith.
 *
 * Each input is a good text, recorded from the dev homeserver, with `--homeserver synapse` from a real one too, or written as we write it, and changed by chance. None may make
 * a target die or hang; what is refused is refused by a typed error. `--only` runs one input of a seed again. Exit code 1
 * when an input failed, 2 for a wrong command line.
 */
import { inspect, parseArgs } from "node:util"
import { Worker } from "node:worker_threads"
import type { Outcome } from "./fuzz/Run.ts"

/** How long an input may take before it counts as one that never ends. */
const HANG_MILLIS = 30_000
/** How long it may take until there are targets: devices are made, and a homeserver is asked. */
const SETUP_MILLIS = 300_000

const say = (text: string): void => void process.stdout.write(`${text}\n`)

const number = (name: string, text: string | undefined, fallback: number): number => {
  const value = text === undefined ? fallback : Number(text)
  if (Number.isSafeInteger(value) && value >= 0) return value
  process.stderr.write(`--${name} takes a whole number, and "${text}" is none\n`)
  return process.exit(2)
}

const { values } = parseArgs({
  options: {
    inputs: { type: "string" },
    seed: { type: "string" },
    only: { type: "string" },
    homeserver: { type: "string", default: "dev" },
    json: { type: "boolean", default: false }
  }
})

const seed = number("seed", values.seed, Date.now() % 1_000_000_000)
const inputs = values.only === undefined ? number("inputs", values.inputs, 100_000) : 1
const first = number("only", values.only, 0)

const { homeserver } = values
if (homeserver !== "dev" && homeserver !== "synapse") {
  process.stderr.write(`--homeserver takes dev or synapse, and not "${homeserver}"\n`)
  process.exit(2)
}

const again = (index: number): string => `npm run fuzz -- --seed ${seed} --homeserver ${homeserver} --only ${index}`

const report = (outcome: Outcome, seconds: number): void => {
  if (values.json) return say(JSON.stringify({ ...outcome, seconds }))
  for (const { index, input, target, why } of outcome.failures)
    say(`FAILED ${target}: ${why}\n  with: ${JSON.stringify(input)}\n  again: ${again(index)}`)
  for (const [name, { inputs, taken }] of Object.entries(outcome.targets).sort())
    say(`${name.padEnd(28)} ${String(inputs).padStart(7)} inputs, ${taken} of them taken`)
  const { index, millis, target } = outcome.slowest
  say(`slowest: ${millis} ms (${target}; ${again(index)}); slower than 50 ms: ${outcome.slow}`)
  say(`fuzz: ${outcome.inputs} inputs, ${outcome.failures.length} failed, seed ${seed}, ${seconds} s`)
}

const started = performance.now()
const progress = new SharedArrayBuffer(4)
const current = new Int32Array(progress).fill(-1)
const worker = new Worker(new URL("fuzz/Worker.ts", import.meta.url), {
  workerData: { options: { seed, inputs, first, homeserver }, progress }
})

let last = { index: -1, atMillis: started }
const watch = setInterval(() => {
  const index = Atomics.load(current, 0)
  if (index !== last.index) last = { index, atMillis: performance.now() }
  if (performance.now() - last.atMillis < (index < 0 ? SETUP_MILLIS : HANG_MILLIS)) return
  say(index < 0 ? "fuzz: the targets can't be made" : `fuzz: input ${index} doesn't end; ${again(index)}`)
  process.exit(1)
}, 500)

worker.once("error", (error: unknown) => {
  process.stderr.write(`fuzz: it can't be run: ${inspect(error)}\n`)
  process.exit(1)
})

worker.once("message", (outcome: Outcome) => {
  clearInterval(watch)
  report(outcome, Math.round((performance.now() - started) / 100) / 10)
  process.exitCode = outcome.failures.length === 0 ? 0 : 1
})
