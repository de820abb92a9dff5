/**
 * Runs tests of a copy until the first one fails, and says what came of it.
 *
 * Gotchas: a test that waits for ever, or a hot loop that no test can interrupt, is ended with everything that it started;
 * that counts as noticed, and says so. A test file that can't even be loaded notices nothing: code that doesn't run is no
 * fault worth finding.
 */
import { Effect, Option, Schema } from "effect"
import { spawn } from "node:child_process"
import type { ChildProcess } from "node:child_process"
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, relative } from "node:path"

export type Outcome =
  | { readonly _tag: "Passed"; readonly tests: number }
  /** `test` is the first that failed, with its file. */
  | { readonly _tag: "Failed"; readonly test: string; readonly file: string }
  /** Not over after so many seconds. */
  | { readonly _tag: "Hung"; readonly seconds: number }
  /** Nothing can be said: no test ran, or the report is missing. */
  | { readonly _tag: "Broken"; readonly why: string }

/** What to run: files of their projects, or whole projects. */
export interface Selection {
  readonly projects: ReadonlyArray<string>
  /** From the root of the copy; none means all of the projects. */
  readonly files: ReadonlyArray<string>
}

/** As `Mutant.tests` names them. */
export const selectionOf = (tests: Iterable<string>): Selection => {
  const pairs = [...new Set(tests)].map((test) => test.split(" ", 2) as [string, string])
  return { projects: [...new Set(pairs.map(([project]) => project))], files: pairs.map(([, file]) => file) }
}

const Report = Schema.fromJsonString(
  Schema.Struct({
    numPassedTests: Schema.Finite,
    success: Schema.Boolean,
    testResults: Schema.Array(
      Schema.Struct({
        name: Schema.String,
        status: Schema.String,
        message: Schema.String,
        assertionResults: Schema.Array(Schema.Struct({ status: Schema.String, fullName: Schema.String }))
      })
    )
  })
)

const decode = Schema.decodeUnknownOption(Report)

/** What a report of vitest says. */
export const read = (json: string, directory: string): Outcome => {
  const report = Option.getOrUndefined(decode(json))
  if (report === undefined) return { _tag: "Broken", why: "vitest left no report that can be read" }
  for (const { assertionResults, name } of report.testResults) {
    const failed = assertionResults.find(({ status }) => status === "failed")
    if (failed !== undefined) return { _tag: "Failed", test: failed.fullName, file: relative(directory, name) }
  }
  const broken = report.testResults.find(({ status }) => status === "failed")
  // Its tests were found, and what they stand on could not be made.
  if (broken !== undefined && broken.assertionResults.length > 0) {
    return { _tag: "Failed", test: "what the tests stand on", file: relative(directory, broken.name) }
  }
  if (broken !== undefined) return { _tag: "Broken", why: broken.message.split("\n", 1)[0] ?? "" }
  if (!report.success) return { _tag: "Broken", why: "vitest ended badly, and no test had failed" }
  return report.numPassedTests > 0
    ? { _tag: "Passed", tests: report.numPassedTests }
    : { _tag: "Broken", why: "no test ran" }
}

/** How long one test may take, in milliseconds: the slowest takes eight seconds on a machine that does nothing else. */
const TEST_MILLIS = 30_000

const argumentsOf = ({ files, projects }: Selection, report: string): ReadonlyArray<string> => [
  join("node_modules", "vitest", "vitest.mjs"),
  "run",
  ...projects.flatMap((project) => ["--project", project]),
  ...files,
  "--bail=1",
  `--testTimeout=${TEST_MILLIS}`,
  "--reporter=json",
  `--outputFile.json=${report}`
]

/** Ends a child and whatever it has started. */
const kill = (child: ChildProcess): void => {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
  try {
    process.kill(-child.pid, "SIGKILL")
  } catch {
    // It has ended in this very moment.
  }
}

const ended = (directory: string, args: ReadonlyArray<string>): Effect.Effect<void> =>
  Effect.callback((resume) => {
    // In a group of its own, so that its workers can be ended with it.
    const child = spawn(process.execPath, args, { cwd: directory, detached: true, stdio: "ignore" })
    child.once("error", () => resume(Effect.void))
    child.once("exit", () => resume(Effect.void))
    return Effect.sync(() => kill(child))
  })

/** Runs the tests; for `limitMillis` at most. */
export const run = (directory: string, selection: Selection, limitMillis: number): Effect.Effect<Outcome> =>
  Effect.gen(function* () {
    const out = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "twinloop-report-"))),
      (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
    )
    const report = join(out, "report.json")
    const over = yield* Effect.timeoutOption(ended(directory, argumentsOf(selection, report)), limitMillis)
    if (Option.isNone(over)) return { _tag: "Hung", seconds: Math.round(limitMillis / 1_000) } as const
    return read(existsSync(report) ? readFileSync(report, "utf8") : "", directory)
  }).pipe(Effect.scoped)
