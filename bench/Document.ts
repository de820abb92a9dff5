/**
 * `docs/reference/performance.md`, made of what `npm run bench -- --json` printed.
 *
 * Pure: a report and notes in, the page out. Not here: reading and writing files (`scripts/performance.ts`).
 */
import { table } from "../scripts/Markdown.ts"
import type { Report } from "./Benchmark.ts"
import * as Text from "./Text.ts"

type Measured = Report["benchmarks"][number]
type Entry = Measured["entries"][number]

/** What is said below a benchmark, by its name: where the time goes, above all where an aim isn't reached. */
export type Notes = { readonly [benchmark: string]: string }

const valueOf = (aim: Measured["aims"][number]): string => `${Text.number(aim.value)} ${aim.unit}`.trim()

const boundOf = (aim: Measured["aims"][number]): string => `${aim.is} ${Text.number(aim.bound)} ${aim.unit}`.trim()

const summary = (report: Report): ReadonlyArray<string> =>
  table(
    ["benchmark", "what", "value", "aim", "reached"],
    report.benchmarks.flatMap(({ aims, name }) =>
      aims.map((aim) => [`\`${name}\``, aim.what, valueOf(aim), boundOf(aim), aim.reached ? "yes" : "no"])
    )
  )

/** The figures of all contestants, in the order in which they first come. */
const figuresOf = (entries: ReadonlyArray<Entry>): ReadonlyArray<string> => [
  ...new Set(entries.flatMap((entry) => Object.keys(entry.figures)))
]

const spreadOf = (entry: Entry, figure: string): string => {
  const spread = entry.figures[figure]
  if (spread === undefined) return ""
  const { max, median, min } = spread
  return min === max ? Text.number(median) : `**${Text.number(median)}** (${Text.number(min)}–${Text.number(max)})`
}

const headOf = (figure: string): string => {
  const { unit, words } = Text.label(figure)
  return unit === "" ? words : `${words}, ${unit}`
}

const section = (benchmark: Measured, note: string | undefined): ReadonlyArray<string> => {
  const figures = figuresOf(benchmark.entries)
  return [
    "",
    `## ${benchmark.title}`,
    "",
    `\`npm run bench -- --only ${benchmark.name}\`, ${benchmark.repetitions} in turns. ${benchmark.how}`,
    "",
    ...table(
      ["", ...benchmark.entries.map(({ name, role }) => (role === "us" ? name : `${name} (${role})`))],
      figures.map((figure) => [headOf(figure), ...benchmark.entries.map((entry) => spreadOf(entry, figure))])
    ),
    ...(benchmark.aims.length === 0 ? [] : [""]),
    ...benchmark.aims.map(
      (aim) => `- ${aim.reached ? "reached" : "**not reached**"}: ${aim.what}: ${valueOf(aim)}, aim ${boundOf(aim)}`
    ),
    ...(note === undefined ? [] : ["", note])
  ]
}

const machine = ({ machine: { cores, memoryGigabytes, node, processor, sqlite, versions } }: Report): string => {
  const packages = Object.entries(versions).map(([name, version]) => `${name} ${version}`)
  return `${processor}, ${cores} cores, ${memoryGigabytes} GB of memory; Node ${node}, SQLite ${sqlite}, ${packages.join(", ")}`
}

/** Benchmarks that notes are about and that the report doesn't have. */
export const strangers = (report: Report, notes: Notes): ReadonlyArray<string> =>
  Object.keys(notes).filter((name) => report.benchmarks.every((benchmark) => benchmark.name !== name))

/** The page. */
export const render = (report: Report, notes: Notes): string => {
  const aims = report.benchmarks.flatMap((benchmark) => benchmark.aims)
  const reached = aims.filter((aim) => aim.reached).length
  const lines = [
    "# Performance",
    "",
    "<!-- Written by `npm run bench:doc` from performance.json. Change the benchmarks or `bench/Notes.ts`, not this page. -->",
    "",
    "Twinloop beside matrix-js-sdk, beside matrix-rust-sdk's lock (its algorithm and constants, written anew), and beside the least that any",
    "implementation has to do on the same machine: its *limit*. They take turns in one run on the same generated, Synapse-shaped data, and medians",
    "are compared. **Ratios count**; milliseconds are those of one machine at one moment:",
    "",
    `${machine(report)}.`,
    "",
    "To reproduce it:",
    "",
    "```sh",
    "npm run bench",
    "npm run bench -- --only incremental",
    "npm run bench --silent -- --json > docs/reference/performance.json && npm run bench:doc",
    "npm run bench --silent -- --json --only crypto > part.json && npm run bench:doc -- part.json",
    "```",
    "",
    `All of it took ${Math.round(report.minutes)} minutes. Seed of the data: ${report.seed}. Figures are medians, with the smallest and the largest in`,
    "brackets.",
    "",
    `## Aims: ${reached} of ${aims.length} reached`,
    "",
    ...summary(report),
    ...report.benchmarks.flatMap((benchmark) => section(benchmark, notes[benchmark.name]))
  ]
  return `${lines.join("\n")}\n`
}
