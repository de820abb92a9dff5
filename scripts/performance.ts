/**
 * `npm run bench:doc`: writes `docs/reference/performance.md` from `docs/reference/performance.json`, which is what
 * `npm run bench -- --json` printed.
 *
 * `npm run bench:doc -- PART.json` takes over the benchmarks of another such report before that, of `--only` some of them on
 * the same machine, and writes both files.
 *
 * Ends with 1 and a message when the file isn't there, isn't such a report, or is of a quick run.
 */
import { Option, Schema } from "effect"
import { readFileSync, writeFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import * as Benchmark from "../bench/Benchmark.ts"
import { all } from "../bench/benchmarks/index.ts"
import * as Document from "../bench/Document.ts"
import { merge } from "../bench/Merge.ts"
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

/** What is to be written, or what is wrong with the report. */
type Made = { readonly json: string; readonly page: string } | { readonly problem: string }

/** A report as it is, or with the benchmarks of another one. */
export const made = (json: string, part: string | undefined): Made => {
  let whole = json
  if (part !== undefined) {
    const reports = [json, part].map((text) => Option.getOrUndefined(decode(text)))
    if (reports[0] === undefined || reports[1] === undefined) {
      return { problem: `one of the files is not what \`npm run bench -- --json\` prints; ${again}` }
    }
    const names = all({ quick: false }).map(({ name }) => name)
    const merged = merge(reports[0], reports[1], names)
    if ("problem" in merged) return { problem: `${merged.problem}; ${again}` }
    whole = `${JSON.stringify(merged)}\n`
  }
  const result = page(whole)
  return "problem" in result ? result : { json: whole, page: result.page }
}

if (import.meta.main) {
  try {
    const [part] = process.argv.slice(2)
    const json = readFileSync(fileOf("performance.json"), "utf8")
    const result = made(json, part === undefined ? undefined : readFileSync(part, "utf8"))
    if ("problem" in result) {
      process.stderr.write(`bench:doc: ${result.problem}.\n`)
      process.exitCode = 1
    } else {
      if (result.json !== json) writeFileSync(fileOf("performance.json"), result.json)
      writeFileSync(fileOf("performance.md"), result.page)
    }
  } catch (error) {
    process.stderr.write(`bench:doc: ${error instanceof Error ? error.message : String(error)}; ${again}.\n`)
    process.exitCode = 1
  }
}
