// Reads the report of one suite and prints "<passed> <failed>" for `.ci/run`. Plain JavaScript: it may run on Node 20.
//
//   node scripts/count.js vitest|check|tally|bench|main <report> <exit code>
//
// A report that is missing or can't be read, and an exit code that is not 0 without a counted failure, count as one failure.
import { readFileSync } from "node:fs"

const [, , kind, path, status] = process.argv

const readers = {
  vitest: (text) => {
    const report = JSON.parse(text)
    return [report.numPassedTests, report.numFailedTests]
  },
  check: (text) => {
    const [, passed, failed] = /^check: (\d+) passed, (\d+) failed$/m.exec(text)
    return [Number(passed), Number(failed)]
  },
  tally: (text) => {
    const { failed, passed } = JSON.parse(text.trimEnd().split("\n").at(-1))
    return [passed, failed]
  },
  bench: (text) => {
    const { benchmarks } = JSON.parse(text.trimEnd().split("\n").at(-1))
    const isWhole = ({ entries }) =>
      entries.length > 0 &&
      entries.every(({ figures }) => Object.values(figures).every(({ median }) => Number.isFinite(median)))
    return [benchmarks.filter(isWhole).length, benchmarks.filter((benchmark) => !isWhole(benchmark)).length]
  },
  main: (text) => (JSON.parse(text.trimEnd().split("\n").at(-1)).ok === true ? [1, 0] : [0, 1])
}

const read = () => {
  try {
    const [passed, failed] = readers[kind](readFileSync(path, "utf8"))
    if (Number.isInteger(passed) && Number.isInteger(failed)) return [passed, failed]
  } catch (error) {
    process.stderr.write(`${kind}: ${path} can't be counted: ${error.message}\n`)
  }
  return [0, 0]
}

const [passed, failed] = read()
const crashed = failed === 0 && (status !== "0" || passed === 0)
// The main job is one thing: it can't have passed and crashed.
const counted = crashed ? [kind === "main" ? 0 : passed, 1] : [passed, failed]
process.stdout.write(`${counted.join(" ")}\n`)
