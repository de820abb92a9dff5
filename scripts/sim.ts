/**
 * `npm run sim`: plays simulations of whole processes from many seeds, on all cores, until the seeds or the time are used up.
 *
 * `--seeds N` plays the seeds from `--from` (0) on, `--minutes M` ends sooner, `--seed N` plays one, `--replay FILE` plays a
 * schedule that was written down. `--json` prints nothing but a summary as JSON at the end. A failing seed is cut down to
 * the steps that it needs, and written to a file that replays it. The exit code is 1 if any failed.
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
  readonly faults: number
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

const play = Effect.fnUntraced(function* (schedule: SyncSim.Schedule) {
  const outcome = yield* SyncSim.run(schedule)
  const report: Report = {
    seed: schedule.seed,
    steps: schedule.steps.length,
    virtualMillis: outcome.virtualMillis,
    faults: Object.values(outcome.hits).reduce((sum, hits) => sum + hits, 0),
    violations: outcome.violations
  }
  if (outcome.violations.length === 0) return report
  const small = yield* SyncSim.shrink(schedule, outcome, (candidate) => SyncSim.run(candidate))
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
  const totals = { seeds: 0, steps: 0, faults: 0, virtualHours: 0, failed: [] as Array<number> }
  const add = (report: Report): void => {
    totals.seeds += 1
    totals.steps += report.steps
    totals.faults += report.faults
    totals.virtualHours += report.virtualMillis / 3_600_000
    if (report.violations.length > 0) totals.failed.push(report.seed)
    explain(report)
  }
  const summary = () => ({
    ...totals,
    virtualHours: Math.round(totals.virtualHours * 10) / 10,
    wallSeconds: Math.round((performance.now() - startedAt) / 100) / 10
  })
  return { add, summary }
}

const totals = makeTotals()

const progress = (): void => {
  const { failed, faults, seeds, steps, virtualHours, wallSeconds } = totals.summary()
  say(
    `${seeds} seeds, ${steps} steps, ${faults} faults met, ${(virtualHours / 24).toFixed(1)} days of virtual time in ${wallSeconds} s, ${failed.length} failed`
  )
}

const finish = (): void => {
  progress()
  const summary = totals.summary()
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
    const worker = fork(fileURLToPath(import.meta.url), ["--worker"])
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
