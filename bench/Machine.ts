/** The machine and the software that figures were measured with. */
import { readFileSync } from "node:fs"
import { cpus, totalmem } from "node:os"
import { DatabaseSync } from "node:sqlite"
import type { Report } from "./Benchmark.ts"

/** Packages whose versions matter: ours are the checkout's. */
const packages = ["effect", "@effect/platform-node", "undici", "matrix-js-sdk", "@matrix-org/matrix-sdk-crypto-wasm"]

const versionOf = (name: string): string => {
  const manifest = readFileSync(new URL(`../node_modules/${name}/package.json`, import.meta.url), "utf8")
  return (JSON.parse(manifest) as { readonly version: string }).version
}

const sqliteVersion = (): string => {
  const db = new DatabaseSync(":memory:")
  try {
    return String(db.prepare("SELECT sqlite_version() AS version").get()?.["version"])
  } finally {
    db.close()
  }
}

/** Describes the machine that this runs on. */
export const describe = (): Report["machine"] => ({
  processor: cpus()[0]?.model.trim() ?? "unknown",
  cores: cpus().length,
  memoryGigabytes: Math.round(totalmem() / 1e9),
  node: process.version,
  sqlite: sqliteVersion(),
  versions: Object.fromEntries(packages.map((name) => [name, versionOf(name)]))
})
