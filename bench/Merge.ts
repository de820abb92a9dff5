/**
 * A report with some of its benchmarks measured again, or for the first time.
 *
 * What is compared is compared within a benchmark, whose contestants took turns in one run; so benchmarks of two runs can
 * stand in one report, when machine and software are the same.
 */
import type { Report } from "./Benchmark.ts"

/** Reports that can't be one, and why. */
export interface Mismatch {
  readonly problem: string
}

const sameVersions = (left: Report["machine"]["versions"], right: Report["machine"]["versions"]): boolean =>
  Object.entries(left).every(([name, version]) => right[name] === undefined || right[name] === version)

const sameMachine = (left: Report["machine"], right: Report["machine"]): boolean =>
  left.processor === right.processor &&
  left.cores === right.cores &&
  left.memoryGigabytes === right.memoryGigabytes &&
  left.node === right.node &&
  left.sqlite === right.sqlite &&
  sameVersions(left.versions, right.versions)

/** The benchmarks of both, those of `part` where both have one, in the order of `names`. */
export const merge = (whole: Report, part: Report, names: ReadonlyArray<string>): Report | Mismatch => {
  if (whole.quick || part.quick) return { problem: "one of the reports is of a quick run" }
  if (whole.seed !== part.seed) return { problem: "the reports are of different data" }
  if (!sameMachine(whole.machine, part.machine)) return { problem: "the reports are of different machines or versions" }
  const isNew = ({ name }: { readonly name: string }): boolean => whole.benchmarks.every((other) => other.name !== name)
  const all = [
    ...part.benchmarks,
    ...whole.benchmarks.filter(({ name }) => part.benchmarks.every((one) => one.name !== name))
  ]
  return {
    ...whole,
    machine: { ...whole.machine, versions: { ...whole.machine.versions, ...part.machine.versions } },
    // What was measured again took as long the first time.
    minutes: whole.minutes + (part.benchmarks.every(isNew) ? part.minutes : 0),
    benchmarks: names.flatMap((name) => all.find((benchmark) => benchmark.name === name) ?? [])
  }
}
