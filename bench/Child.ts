/** Contestants and servers as processes of their own: started from TypeScript, killed with the scope. */
import { Effect } from "effect"
import type { Scope } from "effect"
import { mkdtempSync, rmSync, symlinkSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, parse } from "node:path"
import { fileURLToPath, pathToFileURL } from "node:url"
import * as Program from "../test/processes/Program.ts"
import type { Figures } from "./contestants/Figures.ts"
import type { Options } from "./homeserver/CannedHomeserver.ts"
import type { Listening } from "./homeserver/server.ts"

/** The largest of the tasks takes a minute on a busy machine. */
const LIMIT_MILLIS = 600_000

/** Seed of all generated data. */
export const SEED = 42

/** Arguments of Node itself, before the file. */
export interface NodeOptions {
  readonly flags?: ReadonlyArray<string>
  readonly env?: { readonly [name: string]: string }
}

const file = (path: string): URL => new URL(path, import.meta.url)

/** Starts a file of this folder with its task as JSON. */
export const start = <Line>(
  path: string,
  task: object,
  options: NodeOptions = {}
): Effect.Effect<Program.Program<Line>, never, Scope.Scope> =>
  Program.startFile<Line>(file(path), { args: [JSON.stringify(task)], ...options })

/** A directory that is gone when the scope closes. */
export const temporaryDirectory = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "twinloop-bench-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
)

/** A program in one file, and where V8 keeps what it compiled of it. */
export interface Bundle {
  readonly file: string
  readonly cache: string
}

/** Where packages are. */
const packages = fileURLToPath(file("../node_modules"))

/**
 * Makes one file of a program of this folder, for as long as the scope is open. Beside it are the packages, for what isn't in
 * the file: the WebAssembly of end-to-end encryption.
 */
export const bundled = Effect.fnUntraced(function* (path: string) {
  const directory = yield* temporaryDirectory
  const bundle: Bundle = { file: join(directory, `${parse(path).name}.cjs`), cache: join(directory, "cache") }
  yield* Effect.sync(() => symlinkSync(packages, join(directory, "node_modules"), "junction"))
  // Loaded when it is needed: a bundler is not what a list of benchmarks should wait for.
  const bundler = yield* Effect.promise(() => import("../scripts/bundle.ts"))
  yield* Effect.promise(() => bundler.bundle(fileURLToPath(file(path)), bundle.file))
  return bundle
})

/** A program of this folder that is started from its source. */
export const unbundled = (path: string): Effect.Effect<Bundle, never, Scope.Scope> =>
  Effect.map(temporaryDirectory, (cache) => ({ file: fileURLToPath(file(path)), cache }))

/** Runs a contestant to its end, and gives the figures that it prints. */
export const figures = Effect.fnUntraced(function* (
  { cache, file }: Bundle,
  task: object,
  flags: ReadonlyArray<string> = []
) {
  const args = [JSON.stringify(task)]
  const options = { args, flags, env: { NODE_COMPILE_CACHE: cache } }
  const program = yield* Program.startFile<Figures>(pathToFileURL(file), options)
  const { line } = yield* program.until("print its figures", () => true, { limitMillis: LIMIT_MILLIS })
  yield* program.ended
  return line
}, Effect.scoped)

/** A canned homeserver for as long as the scope is open; gives its address. */
export const homeserver = Effect.fnUntraced(function* (options: Omit<Options, "seed">) {
  const program = yield* start<Listening>("homeserver/server.ts", { seed: SEED, ...options })
  const { line } = yield* program.until("listen", () => true, { limitMillis: LIMIT_MILLIS })
  return line.baseUrl
})

/** The path of a database that doesn't exist yet. */
export const newDatabase = Effect.map(temporaryDirectory, (directory) => join(directory, "account.db"))
