/**
 * `npm run check`: everything about the sources that can be said without running them, one line per part.
 *
 * Includes types (tsc), lint (oxlint, with the import rules of the house), format (oxfmt) and Effect's own diagnostics.
 * Each part runs even if one before it failed; the last line counts them, and the exit code is 1 if any failed.
 *
 * Gotchas: a tool that is configured wrongly checks no file and calls that a success, so each part must also say that it
 * saw files.
 */
import { spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"

interface Part {
  readonly name: string
  readonly command: string
  readonly args: ReadonlyArray<string>
  /** Finds in the output how many files were checked. */
  readonly files: RegExp
  /** What else the output must say, since the exit code alone is too kind. */
  readonly clean?: RegExp
}

const parts: ReadonlyArray<Part> = [
  { name: "types", command: "tsc", args: ["-p", ".", "--diagnostics"], files: /^Files:\s+(\d+)/m },
  { name: "lint", command: "oxlint", args: ["--deny-warnings"], files: / on (\d+) files/ },
  { name: "format", command: "oxfmt", args: ["--check"], files: / on (\d+) files/ },
  {
    name: "effect",
    command: "effect-tsgo",
    args: ["diagnostics", "--project", "tsconfig.json", "--strict"],
    files: /Checked (\d+) files/,
    clean: /0 errors, 0 warnings and 0 messages/
  }
]

const root = fileURLToPath(new URL("..", import.meta.url))

/** Says why a part failed, or `undefined` when it passed. */
const whyFailed = (part: Part, status: number | null, output: string): string | undefined => {
  if (status !== 0) return status === null ? "it could not be run" : `exit code ${status}`
  if (part.clean !== undefined && !part.clean.test(output)) return "it reported problems"
  return Number(part.files.exec(output)?.[1] ?? 0) > 0 ? undefined : "it checked no files"
}

const run = (part: Part): boolean => {
  const started = performance.now()
  const { status, stdout, stderr, error } = spawnSync(part.command, part.args, { cwd: root, encoding: "utf8" })
  const output = `${stdout ?? ""}${stderr ?? ""}${error?.message ?? ""}`
  const reason = whyFailed(part, status, output)
  const seconds = ((performance.now() - started) / 1000).toFixed(1)
  const files = part.files.exec(output)?.[1] ?? "0"
  if (reason !== undefined) process.stdout.write(`${output.trimEnd()}\n`)
  const verdict = reason === undefined ? "ok" : `FAILED (${reason})`
  process.stdout.write(`${part.name.padEnd(8)}${verdict}, ${files} files, ${seconds} s\n`)
  return reason === undefined
}

const failed = parts.map(run).filter((ok) => !ok).length
process.stdout.write(`check: ${parts.length - failed} passed, ${failed} failed\n`)
process.exitCode = failed === 0 ? 0 : 1
