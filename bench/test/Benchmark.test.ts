import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Benchmark from "../Benchmark.ts"
import * as Document from "../Document.ts"
import { merge } from "../Merge.ts"
import * as Text from "../Text.ts"

const aim = (what: string, is: Benchmark.Aim["is"], value: Benchmark.Aim["value"]): Benchmark.Aim => ({
  what,
  value,
  is,
  bound: 2,
  unit: "×"
})

/** Contestants that give the next of their figures each time, and write down when they ran. */
const make = (aims: ReadonlyArray<Benchmark.Aim> = []) => {
  const order: Array<string> = []
  const contestant = (name: string, role: Benchmark.Role, millis: ReadonlyArray<number>): Benchmark.Contestant => {
    let turn = 0
    return {
      name,
      role,
      run: Effect.sync(() => {
        order.push(name)
        return { tookMillis: millis[turn++]! }
      })
    }
  }
  const benchmark: Benchmark.Benchmark = {
    name: "example",
    title: "An example",
    how: "By a | stopwatch.",
    repetitions: 3,
    contestants: Effect.succeed([
      contestant("ours", "us", [3, 100, 4]),
      contestant("theirs", "peer", [8, 8, 9]),
      contestant("floor", "limit", [1, 2, 2])
    ]),
    aims
  }
  return { benchmark, order }
}

const silent = () => Effect.void

describe("Benchmark", () => {
  it.effect("lets contestants take turns, and compares medians", () =>
    Effect.gen(function* () {
      const { benchmark, order } = make([
        aim("of theirs", "at most", (median) => median("us", "tookMillis") / median("theirs", "tookMillis")),
        aim("of the floor", "at least", (median) => median("us", "tookMillis") / median("limit", "tookMillis")),
        aim("of the floor", "at most", (median) => median("us", "tookMillis") / median("limit", "tookMillis") + 0.1),
        aim("of nothing", "at most", (median) => median("us", "absentMillis"))
      ])
      const outcome = yield* Benchmark.run(benchmark, silent)
      assert.deepStrictEqual(order, ["ours", "theirs", "floor", "ours", "theirs", "floor", "ours", "theirs", "floor"])
      assert.deepStrictEqual(outcome.entries[0]?.figures, { tookMillis: { median: 4, min: 3, max: 100 } })
      assert.deepStrictEqual(
        outcome.aims.map(({ reached, value }) => [value, reached]),
        [
          [0.5, true],
          [2, true],
          [2.1, false],
          [Number.NaN, false]
        ]
      )
    })
  )

  it.effect("ends when a contestant breaks, with what it said", () =>
    Effect.gen(function* () {
      const { benchmark } = make()
      const broken = { name: "broken", role: "peer" as const, run: Effect.die(new Error("it broke")) }
      const exit = yield* Effect.exit(Benchmark.run({ ...benchmark, contestants: Effect.succeed([broken]) }, silent))
      assert.include(JSON.stringify(exit), "Die")
    })
  )
})

describe("Text", () => {
  it("gives three digits, all of the whole ones, and says what wasn't measured", () => {
    const texts = [0.012345, 1.234, 99.96, 1234.5, Number.NaN, null].map(Text.number)
    assert.deepStrictEqual(texts, ["0.0123", "1.23", "100", "1,235", "not measured", "not measured"])
  })

  it("reads a figure's name as words and a unit", () => {
    assert.deepStrictEqual(Text.label("firstRequestMillis"), { words: "first request", unit: "ms" })
    assert.deepStrictEqual(Text.label("responsesPerSecond"), { words: "responses", unit: "/s" })
    assert.deepStrictEqual(Text.label("oddity"), { words: "oddity", unit: "" })
  })
})

describe("Document", () => {
  const report = Effect.gen(function* () {
    const { benchmark } = make([aim("of a | floor", "at most", (median) => median("us", "tookMillis"))])
    const outcome = yield* Benchmark.run(benchmark, silent)
    const machine = {
      processor: "P",
      cores: 2,
      memoryGigabytes: 8,
      node: "v24",
      sqlite: "3",
      versions: { effect: "4" }
    }
    return { quick: false, seed: 42, minutes: 1, machine, benchmarks: [outcome] } as Benchmark.Report
  })

  it.effect("shows every contestant, every aim and the note, and no cell breaks a table", () =>
    Effect.gen(function* () {
      const page = Document.render(yield* report, { example: "All of it is waiting." })
      const lines = page.split("\n")
      assert.include(lines, "## Aims: 0 of 1 reached")
      assert.include(lines, "| `example` | of a \\| floor | 4 × | at most 2 × | no |")
      assert.include(lines, "|  | ours | theirs (peer) | floor (limit) |")
      assert.include(lines, "| took, ms | **4** (3–100) | **8** (8–9) | **2** (1–2) |")
      assert.include(lines, "- **not reached**: of a | floor: 4 ×, aim at most 2 ×")
      assert.include(lines, "All of it is waiting.")
    })
  )

  it.effect("knows notes on benchmarks that there are not", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(Document.strangers(yield* report, { example: "", other: "" }), ["other"])
    })
  )
})

describe("merge", () => {
  const machine = { processor: "P", cores: 2, memoryGigabytes: 8, node: "v24", sqlite: "3", versions: { effect: "4" } }
  const reportOf = (minutes: number, ...benchmarks: ReadonlyArray<readonly [name: string, repetitions: number]>) => ({
    quick: false,
    seed: 42,
    minutes,
    machine,
    benchmarks: benchmarks.map(([name, repetitions]) => ({
      name,
      title: name,
      how: "",
      repetitions,
      entries: [],
      aims: []
    }))
  })
  const whole = reportOf(10, ["a", 1], ["c", 1])
  const names = ["a", "b", "c"]

  it("adds what was missing, in order, and replaces what was measured again", () => {
    const summary = (merged: ReturnType<typeof merge>) =>
      "problem" in merged
        ? merged.problem
        : [merged.minutes, ...merged.benchmarks.map(({ name, repetitions }) => `${name}${repetitions}`)]
    assert.deepStrictEqual(summary(merge(whole, reportOf(2, ["b", 2]), names)), [12, "a1", "b2", "c1"])
    assert.deepStrictEqual(summary(merge(whole, reportOf(2, ["c", 2]), names)), [10, "a1", "c2"])
    assert.deepStrictEqual(summary(merge(whole, reportOf(2, ["gone", 2]), names)), [12, "a1", "c1"])
  })

  it("refuses a quick report, other data, another machine and another version", () => {
    const part = reportOf(2, ["b", 2])
    const versions = { effect: "5" }
    for (const other of [
      { ...part, quick: true },
      { ...part, seed: 1 },
      { ...part, machine: { ...machine, cores: 8 } },
      { ...part, machine: { ...machine, versions } }
    ]) {
      assert.property(merge(whole, other, names), "problem")
    }
    const more = merge(whole, { ...part, machine: { ...machine, versions: { wasm: "1" } } }, names)
    assert.deepStrictEqual("problem" in more ? more : more.machine.versions, { effect: "4", wasm: "1" })
  })
})
