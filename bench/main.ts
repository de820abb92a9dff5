/** `npm run bench`: runs the benchmarks and prints what they measured. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Clock, Console, Effect, Schema } from "effect"
import { Command, Flag } from "effect/cli"
import * as Output from "../packages/platform/src/cli/Output.ts"
import * as Benchmark from "./Benchmark.ts"
import { all } from "./benchmarks/index.ts"
import * as Child from "./Child.ts"
import * as Machine from "./Machine.ts"
import * as Text from "./Text.ts"

/** No benchmark has such a name. */
class UnknownBenchmark extends Schema.TaggedError<UnknownBenchmark>("@twinloop/bench/UnknownBenchmark")(
  "UnknownBenchmark",
  { message: Schema.String }
) {}

const named = (benchmarks: ReadonlyArray<Benchmark.Benchmark>, only: ReadonlyArray<string>) => {
  const chosen = benchmarks.filter(({ name }) => only.length === 0 || only.some((start) => name.startsWith(start)))
  if (chosen.length > 0) return Effect.succeed(chosen)
  const names = benchmarks.map(({ name }) => name).join(", ")
  return new UnknownBenchmark({ message: `No benchmark begins with "${only.join('", "')}". There are: ${names}.` })
}

/** JSON has no NaN: what could not be measured is null. */
const finite = (value: number): number | null => (Number.isFinite(value) ? value : null)

const reportOf = (quick: boolean, minutes: number, outcomes: ReadonlyArray<Benchmark.Outcome>): Benchmark.Report => ({
  quick,
  seed: Child.SEED,
  machine: Machine.describe(),
  minutes,
  benchmarks: outcomes.map((outcome) => ({
    ...outcome,
    aims: outcome.aims.map((aim) => ({ ...aim, value: finite(aim.value) }))
  }))
})

const summary = (outcomes: ReadonlyArray<Benchmark.Outcome>, minutes: number): ReadonlyArray<string> => {
  const aims = outcomes.flatMap((outcome) => outcome.aims)
  const reached = aims.filter((aim) => aim.reached).length
  return ["", `${reached} of ${aims.length} aims reached, in ${minutes.toFixed(1)} minutes.`]
}

const bench = Command.make(
  "bench",
  {
    json: Flag.Boolean("json").pipe(
      Flag.withDescription("Print one JSON object, and progress on standard error"),
      Flag.withDefault(false)
    ),
    only: Flag.String("only").pipe(
      Flag.withMetavar("NAME"),
      Flag.withDescription("Only benchmarks whose names begin like this; can be given several times"),
      Flag.between(0, 50)
    ),
    quick: Flag.Boolean("quick").pipe(
      Flag.withDescription("Small tasks, once each: shows that everything runs, and says little about speed"),
      Flag.withDefault(false)
    ),
    list: Flag.Boolean("list").pipe(Flag.withDescription("Print the names and end"), Flag.withDefault(false))
  },
  Effect.fn(function* ({ json, list, only, quick }) {
    const benchmarks = yield* named(all({ quick }), only)
    if (list) return yield* Console.log(benchmarks.map(({ name, title }) => `${name.padEnd(24)}${title}`).join("\n"))
    const progress = yield* Output.progressOn(json ? "stderr" : "stdout")
    const startedAt = yield* Clock.currentTimeMillis
    const outcomes: Array<Benchmark.Outcome> = []
    for (const [index, benchmark] of benchmarks.entries()) {
      const outcome = yield* Benchmark.run(benchmark, (what) =>
        progress.status(`${index + 1} of ${benchmarks.length}  ${what}`)
      )
      outcomes.push(outcome)
      yield* progress.clear
      if (!json) yield* Effect.forEach(Text.outcome(outcome), (line) => Console.log(line), { discard: true })
    }
    const minutes = ((yield* Clock.currentTimeMillis) - startedAt) / 60_000
    yield* Output.result(json, reportOf(quick, minutes, outcomes), summary(outcomes, minutes))
  })
).pipe(
  Command.withDescription(
    "Compares Twinloop with matrix-js-sdk, with matrix-rust-sdk's lock, and with what a machine can do at best"
  ),
  Command.withExamples([
    { command: "npm run bench", description: "Everything; takes about half an hour" },
    { command: "npm run bench -- --only lock", description: "The lock's benchmarks" },
    { command: "npm run bench --silent -- --json > figures.json", description: "For a script" }
  ])
)

Command.run(bench, { version: "0.1.0" }).pipe(Effect.provide(NodeServices.layer), NodeRuntime.runMain)
