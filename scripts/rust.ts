/**
 * `npm run test:rust`: builds matrix-rust-sdk as a program, and has it judge the dev homeserver and talk with our client.
 *
 * `--homeserver synapse` takes a real Synapse instead, for comparing. `--json` prints the sum alone, as JSON; whatever comes
 * after `--` goes to vitest (`-- -- -t positions`). The exit code is 1 when a scenario failed, or when there is no cargo to
 * build with, and 2 for a wrong command line.
 *
 * Gotchas: the first build takes ten minutes or more and a gigabyte; it is kept in `test/conformance/rust/target`.
 *
 * Not here: the scenarios (`test/conformance/rust`).
 */
import { spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"

const root = fileURLToPath(new URL("..", import.meta.url))
const folder = join(root, "test/conformance/rust")

const usage = "npm run test:rust -- [--homeserver dev|synapse] [--json] [-- ARGUMENTS OF VITEST]"

const commandLine = () => {
  try {
    const parsed = parseArgs({
      allowPositionals: true,
      options: { homeserver: { type: "string", default: "dev" }, json: { type: "boolean", default: false } }
    })
    if (["dev", "synapse"].includes(parsed.values.homeserver)) return parsed
    throw new Error(`there is no homeserver "${parsed.values.homeserver}"`)
  } catch (error) {
    process.stderr.write(`${String(error)}\n${usage}\n`)
    return process.exit(2)
  }
}

const {
  positionals: more,
  values: { homeserver, json: isJson }
} = commandLine()

const give = (problem: string): never => {
  process.stderr.write(`${problem}\n`)
  return process.exit(1)
}

const noCargo =
  "There is no cargo, which builds matrix-rust-sdk. Install Rust 1.93 or newer (https://rustup.rs) and a C compiler, " +
  "and run `npm run test:rust` again. No other suite needs it."

/** Where output goes that isn't the result. */
const stdio = ["ignore", isJson ? 2 : "inherit", "inherit"] as const

const build = (): void => {
  const { error, status } = spawnSync(
    "cargo",
    ["build", "--locked", "--manifest-path", join(folder, "Cargo.toml"), "--target-dir", join(folder, "target")],
    { cwd: folder, stdio: [...stdio] }
  )
  if (error !== undefined) give("code" in error && error.code === "ENOENT" ? noCargo : error.message)
  if (status !== 0) give("cargo could not build test/conformance/rust; what it says is above.")
}

interface Report {
  readonly numPassedTests: number
  readonly numFailedTests: number
  readonly testResults: ReadonlyArray<{
    readonly assertionResults: ReadonlyArray<{
      readonly status: string
      readonly meta: { readonly readByRustSdk?: number; readonly readByTwinloop?: number }
    }>
  }>
}

/** The version that was built, which the lock file has. */
const version = (): string =>
  /name = "matrix-sdk-ui"\nversion = "([^"]+)"/.exec(readFileSync(join(folder, "Cargo.lock"), "utf8"))?.[1] ?? ""

/** What a run came to; only messages of scenarios that passed count. */
const sumOf = (report: Report) => {
  const passed = report.testResults
    .flatMap(({ assertionResults }) => assertionResults)
    .filter(({ status }) => status === "passed")
  const total = (key: "readByRustSdk" | "readByTwinloop"): number =>
    passed.reduce((sum, { meta }) => sum + (meta[key] ?? 0), 0)
  return {
    matrixSdkUi: version(),
    homeserver,
    scenarios: { passed: report.numPassedTests, failed: report.numFailedTests },
    messages: { readByRustSdk: total("readByRustSdk"), readByTwinloop: total("readByTwinloop") }
  }
}

/** Plays the scenarios; the exit code of vitest, and its report unless it left none. */
const play = () => {
  const directory = mkdtempSync(join(tmpdir(), "twinloop-rust-"))
  const path = join(directory, "report.json")
  try {
    const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${path}`]
    const { status } = spawnSync("vitest", ["run", "--project", "rust", ...reporters, ...more], {
      cwd: root,
      env: { ...process.env, TWINLOOP_RUST_ON: homeserver },
      stdio: [...stdio]
    })
    return { status, sum: sumOf(JSON.parse(readFileSync(path, "utf8")) as Report) }
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

build()
const { status, sum } = play()
const { messages, scenarios } = sum
process.stdout.write(
  isJson
    ? `${JSON.stringify(sum)}\n`
    : `rust: matrix-rust-sdk (matrix-sdk-ui ${sum.matrixSdkUi}): ${scenarios.passed} scenarios passed, ` +
        `${scenarios.failed} failed; it read ${messages.readByRustSdk} messages of ours, ` +
        `and we ${messages.readByTwinloop} of its\n`
)
process.exitCode = status === 0 && scenarios.passed > 0 ? 0 : 1
