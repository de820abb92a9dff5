/** Outcomes as lines for a terminal. */
import type { Entry, Judged, Outcome } from "./Benchmark.ts"

/** A number in three significant digits, or all of the whole ones. */
export const number = (value: number | null): string => {
  if (value === null || Number.isNaN(value)) return "not measured"
  if (Math.abs(value) >= 100) return Math.round(value).toLocaleString("en-US")
  return `${Number(value.toPrecision(3))}`
}

/** Splits a figure's name into words and its unit: "ingestMillis" is "ingest" in "ms". */
const units: ReadonlyArray<readonly [suffix: string, unit: string]> = [
  ["Millis", "ms"],
  ["Megabytes", "MB"],
  ["Kilobytes", "KB"],
  ["Percent", "%"],
  ["PerSecond", "/s"],
  ["Count", ""]
]

/** The words and the unit that a figure's name stands for. */
export const label = (figure: string): { readonly words: string; readonly unit: string } => {
  const [suffix, unit] = units.find(([suffix]) => figure.endsWith(suffix)) ?? ["", ""]
  const name = figure.slice(0, figure.length - suffix.length)
  return {
    words: name
      .replace(/([A-Z])/g, " $1")
      .toLowerCase()
      .trim(),
    unit
  }
}

/** An aim in words: "time, of the limit's: 1.31 × (at most 1.5 ×)". */
export const aim = ({ bound, is, unit, value, what }: Omit<Judged, "reached" | "value"> & { value: number | null }) =>
  `${what}: ${number(value)} ${unit} (aim: ${is} ${number(bound)} ${unit})`

const figuresOf = (entry: Entry): ReadonlyArray<string> =>
  Object.entries(entry.figures).map(([figure, { max, median, min }]) => {
    const { unit, words } = label(figure)
    return `    ${words.padEnd(24)}${number(median).padStart(12)} ${unit.padEnd(3)} (${number(min)} to ${number(max)})`
  })

/** A benchmark's outcome: every contestant's figures, then the aims. */
export const outcome = (outcome: Outcome): ReadonlyArray<string> => [
  "",
  `${outcome.title}  [${outcome.name}, ${outcome.repetitions} in turns]`,
  ...outcome.entries.flatMap((entry) => [`  ${entry.name} (${entry.role})`, ...figuresOf(entry)]),
  ...outcome.aims.map((judged) => `  ${judged.reached ? "✓" : "✗"} ${aim(judged)}`)
]
