/**
 * `npm run bench:doc`: writes `docs/reference/performance.md` from `docs/reference/performance.json`, which is what
 * `npm run bench -- --json` printed.
 *
 * Ends with 1 and a message when the file isn't there, isn't such a report, or is of a quick run.
 */
import { Option, Schema } from "effect"
import { readFileSync, writeFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import * as Benchmark from "../bench/Benchmark.ts"
import { all } from "../bench/benchmarks/index.ts"
import * as Document from "../bench/Document.ts"
import { notes } from "../bench/Notes.ts"

const fileOf = (name: string): string => fileURLToPath(new URL(`../docs/reference/${name}`, import.meta.url))

const again = "run `npm run bench --silent -- --json > docs/reference/performance.json`, then this again"

const decode = Schema.decodeUnknownOption(Schema.fromJsonString(Benchmark.Report))

/** The page, or what is wrong with the report. */
export const page = (json: string): { readonly page: string } | { readonly problem: string } => {
  const report = Option.getOrUndefined(decode(json))
  if (report === undefined)
    return { problem: `performance.json is not what \`npm run bench -- --json\` prints; ${again}` }
  if (report.quick) return { problem: `performance.json is of a quick run, which says little about speed; ${again}` }
  const missing = all({ quick: false }).filter(({ name }) => report.benchmarks.every((other) => other.name !== name))
  if (missing.length > 0) {
    return { problem: `performance.json lacks ${missing.map(({ name }) => name).join(", ")}; ${again}` }
  }
  const strangers = Document.strangers(report, notes)
  if (strangers.length > 0) {
    return {
      problem: `bench/Notes.ts has notes on benchmarks that there are not: ${strangers.join(", ")}; remove them`
    }
  }
  return { page: Document.render(report, notes) }
}

if (import.meta.main) {
  try {
    const made = page(readFileSync(fileOf("performance.json"), "utf8"))
    if ("problem" in made) {
      process.stderr.write(`bench:doc: ${made.problem}.\n`)
      process.exitCode = 1
    } else {
      writeFileSync(fileOf("performance.md"), made.page)
    }
  } catch (error) {
    process.stderr.write(`bench:doc: ${error instanceof Error ? error.message : String(error)}; ${again}.\n`)
    process.exitCode = 1
  }
}
