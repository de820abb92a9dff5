/**
 * What a benchmark is: contestants that do the same work on the same data, in turns, and aims for the ratios between them.
 *
 * Absolute figures belong to one machine at one moment. Contestants therefore take turns in one run (A B C, A B C, ...), so
 * that whatever else the machine does hits all alike; medians are compared, and ratios are what is promised.
 *
 * Not here: printing (`Text.ts`, `Document.ts`), the command (`main.ts`).
 */
import { Effect, Schema } from "effect"
import type { Scope } from "effect"
import type { Figures } from "./contestants/Figures.ts"

/** `us`: Twinloop. `peer`: another implementation. `limit`: the least that any implementation has to do. */
export type Role = "us" | "peer" | "limit"

export interface Contestant {
  /** "twinloop", "matrix-js-sdk", "parse and rows", ... */
  readonly name: string
  readonly role: Role
  /** Does the work once, from nothing, and gives its figures. */
  readonly run: Effect.Effect<Figures, never, Scope.Scope>
}

/** Over the repetitions of one contestant. */
export interface Spread {
  readonly median: number
  readonly min: number
  readonly max: number
}

export interface Entry {
  readonly name: string
  readonly role: Role
  readonly figures: { readonly [figure: string]: Spread }
}

/** The median of a figure of the contestant with a role, or with a name. `NaN` if it has none. */
export type Medians = (contestant: string, figure: string) => number

/** What is to be reached: a value computed from medians, and a bound. */
export interface Aim {
  /** What is compared, in words: "time, of the limit's". */
  readonly what: string
  readonly value: (median: Medians) => number
  /** Whether the value should be at most the bound, or at least. */
  readonly is: "at most" | "at least"
  readonly bound: number
  /** Of value and bound: "×", "ms", "MB", "%". */
  readonly unit: string
}

export interface Options {
  /** Fewer repetitions of smaller tasks: shows that everything runs, and says little about speed. */
  readonly quick: boolean
}

export interface Benchmark {
  /** In kebab case; `--only` takes its beginning. */
  readonly name: string
  readonly title: string
  /** How it is measured, in a few sentences. */
  readonly how: string
  readonly repetitions: number
  /** Sets up what the contestants share, for as long as the scope is open. */
  readonly contestants: Effect.Effect<ReadonlyArray<Contestant>, never, Scope.Scope>
  readonly aims: ReadonlyArray<Aim>
}

/** Takes the options, since what is compared may depend on them. */
export type Make = (options: Options) => ReadonlyArray<Benchmark>

export interface Judged {
  readonly what: string
  readonly value: number
  readonly is: "at most" | "at least"
  readonly bound: number
  readonly unit: string
  readonly reached: boolean
}

export interface Outcome {
  readonly name: string
  readonly title: string
  readonly how: string
  readonly repetitions: number
  readonly entries: ReadonlyArray<Entry>
  readonly aims: ReadonlyArray<Judged>
}

const spreadOf = (values: ReadonlyArray<number>): Spread => {
  const sorted = [...values].sort((left, right) => left - right)
  return { median: sorted[sorted.length >> 1]!, min: sorted[0]!, max: sorted.at(-1)! }
}

const entryOf = ({ name, role }: Contestant, runs: ReadonlyArray<Figures>): Entry => {
  const names = new Set(runs.flatMap((figures) => Object.keys(figures)))
  const figures = [...names].map((figure) => {
    const values = runs.flatMap((run) => run[figure] ?? [])
    return [figure, spreadOf(values)] as const
  })
  return { name, role, figures: Object.fromEntries(figures) }
}

/** Compares what was measured with the aims. What could not be measured is not reached. */
export const judge = (aims: ReadonlyArray<Aim>, entries: ReadonlyArray<Entry>): ReadonlyArray<Judged> => {
  const median: Medians = (contestant, figure) => {
    const entry = entries.find(({ name, role }) => name === contestant || role === contestant)
    return entry?.figures[figure]?.median ?? Number.NaN
  }
  return aims.map(({ bound, is, unit, value: compute, what }) => {
    const value = compute(median)
    return { what, value, is, bound, unit, reached: is === "at most" ? value <= bound : value >= bound }
  })
}

/** Runs a benchmark: every contestant once, then every one again, and so on. `tell` is told what is going on. */
export const run = Effect.fnUntraced(function* (
  benchmark: Benchmark,
  tell: (what: string) => Effect.Effect<void>
): Effect.fn.Return<Outcome, never, never> {
  const { aims, how, name, repetitions, title } = benchmark
  const entries = yield* Effect.scoped(
    Effect.gen(function* () {
      yield* tell(`${name}: getting ready`)
      const contestants = yield* benchmark.contestants
      const runs = contestants.map((): Array<Figures> => [])
      for (let turn = 1; turn <= repetitions; turn++) {
        for (const [index, contestant] of contestants.entries()) {
          yield* tell(`${name}: ${contestant.name}, ${turn} of ${repetitions}`)
          runs[index]!.push(yield* Effect.scoped(contestant.run))
        }
      }
      return contestants.map((contestant, index) => entryOf(contestant, runs[index]!))
    })
  )
  return { name, title, how, repetitions, entries, aims: judge(aims, entries) }
})

/** The machine and the software that a report is about. */
export const Machine = Schema.Struct({
  processor: Schema.String,
  cores: Schema.Finite,
  memoryGigabytes: Schema.Finite,
  node: Schema.String,
  sqlite: Schema.String,
  versions: Schema.Record(Schema.String, Schema.String)
})

const SpreadSchema = Schema.Struct({ median: Schema.Finite, min: Schema.Finite, max: Schema.Finite })

/** What `npm run bench -- --json` prints. A value that could not be measured is null. */
export const Report = Schema.Struct({
  quick: Schema.Boolean,
  seed: Schema.Finite,
  machine: Machine,
  minutes: Schema.Finite,
  benchmarks: Schema.Array(
    Schema.Struct({
      name: Schema.String,
      title: Schema.String,
      how: Schema.String,
      repetitions: Schema.Finite,
      entries: Schema.Array(
        Schema.Struct({
          name: Schema.String,
          role: Schema.Literals(["us", "peer", "limit"]),
          figures: Schema.Record(Schema.String, SpreadSchema)
        })
      ),
      aims: Schema.Array(
        Schema.Struct({
          what: Schema.String,
          value: Schema.NullOr(Schema.Finite),
          is: Schema.Literals(["at most", "at least"]),
          bound: Schema.Finite,
          unit: Schema.String,
          reached: Schema.Boolean
        })
      )
    })
  )
})
export type Report = typeof Report.Type
