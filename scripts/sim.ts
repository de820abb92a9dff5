/**
 * `npm run sim`: plays simulations of whole processes from many seeds, on all cores, until the seeds or the time are used up.
 *
 * `--seeds N` plays the seeds from `--from` (0) on, `--minutes M` ends sooner, `--seed N` plays one, `--replay FILE` plays a
 * schedule that was written down. `--json` prints nothing but a summary as JSON at the end, which counts seeds, steps, virtual
 * days, checks, and how often each kind of fault was met. A failing seed is cut down to the steps that it needs, and written to
 * a file that replays it. The exit code is 1 if any failed.
 *
 * Invariants: I8 (every so many seeds one is played twice, and must go the same way).
 *
 * Not here: what is played (`packages/actors/src/testing/SyncSim.ts`).
 */
import { type ChildProcess, fork } from "node:child_process"
import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { availableParallelism, tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { SyncSim } from "@twinloop/actors/testing"
import { Effect, Schema } from "effect"

/** What a worker says of one seed. */
interface Report {
  readonly seed: number
  readonly steps: number
  readonly virtualMillis: number
  readonly hits: SyncSim.Outcome["hits"]
  readonly checks: number
  readonly violations: ReadonlyArray<SyncSim.Violation>
  /** The JSON of the schedule that is left of a failing one. */
  readonly shrunk?: string
}

const { values: flags } = parseArgs({
  options: {
    seeds: { type: "string", default: "1000" },
    from: { type: "string", default: "0" },
    minutes: { type: "string", default: "60" },
    seed: { type: "string" },
    replay: { type: "string" },
    workers: { type: "string", default: `${availableParallelism()}` },
    out: { type: "string", default: join(tmpdir(), "twinloop-sim") },
    json: { type: "boolean", default: false },
    worker: { type: "boolean", default: false }
  }
})

const say = (text: string): void => {
  if (!flags.json) process.stdout.write(`${text}\n`)
}

/** One seed in so many is played twice. */
const TWICE = 50

/** Plays a schedule, and perhaps once more. */
const run = Effect.fnUntraced(function* (schedule: SyncSim.Schedule) {
  const outcome = yield* SyncSim.run(schedule)
  if (schedule.seed % TWICE !== 0 || outcome.violations.length > 0) return outcome
  const again = yield* SyncSim.run(schedule)
  if (again.digest === outcome.digest) return outcome
  const message = "the same schedule went another way the second time"
  return { ...outcome, violations: [{ checker: "I8 samePlay", message, atMillis: outcome.virtualMillis }] }
})

const play = Effect.fnUntraced(function* (schedule: SyncSim.Schedule) {
  const outcome = yield* run(schedule)
  const report: Report = {
    seed: schedule.seed,
    steps: schedule.steps.length,
    virtualMillis: outcome.virtualMillis,
    hits: outcome.hits,
    checks: outcome.checks,
    violations: outcome.violations
  }
  if (outcome.violations.length === 0) return report
  const small = yield* SyncSim.shrink(schedule, outcome, run)
  const shrunk = yield* Effect.orDie(Schema.encodeEffect(SyncSim.ScheduleJson)(small.schedule))
  return { ...report, violations: small.outcome.violations, shrunk }
})

const playSeed = (seed: number): Promise<Report> => Effect.runPromise(Effect.flatMap(SyncSim.drawSchedule(seed), play))

/** Writes a failing schedule down, and says how to see it again. */
const explain = (report: Report): void => {
  if (report.shrunk === undefined) return
  mkdirSync(flags.out, { recursive: true })
  const file = join(flags.out, `seed-${report.seed}.json`)
  writeFileSync(file, `${report.shrunk}\n`)
  say(`\nseed ${report.seed} fails:`)
  for (const { atMillis, checker, message } of report.violations) say(`  ${checker}, after ${atMillis} ms: ${message}`)
  say("  the steps that it needs:")
  for (const step of (JSON.parse(report.shrunk) as SyncSim.Schedule).steps) {
    say(`    ${step.atMillis} ms  ${JSON.stringify(step.action)}`)
  }
  say(`  again: npm run sim -- --replay ${file}\n`)
}

/** Figures of all seeds so far. */
const makeTotals = () => {
  const startedAt = performance.now()
  const totals = { seeds: 0, steps: 0, virtualMillis: 0, checks: 0, failed: [] as Array<number> }
  const hits = new Map<SyncSim.FaultKind, number>(SyncSim.KINDS.map((kind) => [kind, 0]))
  const add = (report: Report): void => {
    totals.seeds += 1
    totals.steps += report.steps
    totals.checks += report.checks
    totals.virtualMillis += report.virtualMillis
    for (const kind of SyncSim.KINDS) hits.set(kind, (hits.get(kind) ?? 0) + (report.hits[kind] ?? 0))
    if (report.violations.length > 0) totals.failed.push(report.seed)
    explain(report)
  }
  const summary = () => {
    const { checks, failed, seeds, steps, virtualMillis } = totals
    return {
      seeds,
      steps,
      virtualDays: Math.round(virtualMillis / 864_000) / 100,
      checks,
      faults: [...hits.values()].reduce((sum, met) => sum + met, 0),
      hits: Object.fromEntries(hits),
      failed,
      wallSeconds: Math.round((performance.now() - startedAt) / 100) / 10
    }
  }
  return { add, summary }
}

const totals = makeTotals()

const progress = (): void => {
  const { checks, failed, faults, seeds, steps, virtualDays, wallSeconds } = totals.summary()
  say(
    `${seeds} seeds, ${steps} steps, ${faults} faults met, ${checks} checks, ${virtualDays} days of virtual time in ${wallSeconds} s, ${failed.length} failed`
  )
}

const finish = (): void => {
  progress()
  const summary = totals.summary()
  const met = Object.entries(summary.hits).filter(([, times]) => times > 0)
  say(`faults by kind: ${met.map(([kind, times]) => `${kind} ${times}`).join(", ")}`)
  if (flags.json) process.stdout.write(`${JSON.stringify(summary)}\n`)
  process.exitCode = summary.failed.length === 0 ? 0 : 1
}

/** Hands out seeds, one at a time to each worker, and ends them when there are no more. */
const playMany = async (): Promise<void> => {
  const first = Number(flags.from)
  const end = first + Number(flags.seeds)
  const until = performance.now() + Number(flags.minutes) * 60_000
  let next = first
  const give = (worker: ChildProcess): void => {
    if (next < end && performance.now() < until) worker.send(next++)
    else worker.disconnect()
  }
  const timer = setInterval(progress, 10_000)
  const work = Array.from({ length: Number(flags.workers) }, () => {
    // What it logs is not the result.
    const worker = fork(fileURLToPath(import.meta.url), ["--worker"], { stdio: ["ignore", 2, 2, "ipc"] })
    worker.on("message", (report: Report) => {
      totals.add(report)
      give(worker)
    })
    give(worker)
    return new Promise<void>((resolve, reject) => {
      worker.on("exit", (code) => (code === 0 ? resolve() : reject(new Error(`a worker ended with ${code}`))))
    })
  })
  await Promise.all(work).finally(() => clearInterval(timer))
}

if (flags.worker) {
  process.on("message", (seed: number) => {
    void playSeed(seed).then((report) => process.send?.(report))
  })
} else if (flags.replay !== undefined) {
  const schedule = Schema.decodeSync(SyncSim.ScheduleJson)(readFileSync(flags.replay, "utf8"))
  totals.add(await Effect.runPromise(play(schedule)))
  finish()
} else {
  if (flags.seed === undefined) await playMany()
  else totals.add(await playSeed(Number(flags.seed)))
  finish()
}
