/**
 * The rules of the house bite: the linter is run on a small tree that breaks each of them, and on one that only seems to.
 */
import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("../..", import.meta.url))

/** Lints one file as if it stood at `path` in this repository; gives `line rule` for each problem of our own plugin. */
const lint = (path: string, lines: ReadonlyArray<string>): ReadonlyArray<string> => {
  const tree = mkdtempSync(join(tmpdir(), "twinloop-lint-"))
  try {
    const config = JSON.parse(readFileSync(join(root, ".oxlintrc.json"), "utf8")) as Record<string, unknown>
    const plugins = (config.jsPlugins as ReadonlyArray<string>).map((plugin) => join(root, plugin))
    writeFileSync(join(tree, ".oxlintrc.json"), JSON.stringify({ ...config, jsPlugins: plugins }))
    mkdirSync(join(tree, dirname(path)), { recursive: true })
    writeFileSync(join(tree, path), `${lines.join("\n")}\n`)
    const oxlint = join(root, "node_modules/oxlint/bin/oxlint")
    const { stdout } = spawnSync(process.execPath, [oxlint, "-f", "unix"], { cwd: tree, encoding: "utf8" })
    assert.match(stdout, / problems?\s*$|^\s*$/)
    return [...stdout.matchAll(/^[^:\n]+:(\d+):\d+: .*\[Error\/twinloop\((\w+)\)\]$/gm)].map((m) => `${m[1]} ${m[2]}`)
  } finally {
    rmSync(tree, { recursive: true })
  }
}

describe("twinloop/layers", () => {
  it("reports what core must not import, in every form that an import takes", () => {
    const problems = lint("packages/core/src/lease/A.ts", [
      `import { readFileSync } from "node:fs"`,
      `import { Actor } from "@twinloop/actors"`,
      `import type { Sqlite } from "../../../platform/src/sqlite/Sqlite.ts"`,
      `export { NodeRuntime } from "@effect/platform-node"`,
      `export * from "../testing/index.ts"`,
      `export type Late = import("vitest").TestAPI`,
      `export const late = () => import("fast-check")`,
      `export const hidden = (name: string) => import(name)`,
      `export const used: [typeof readFileSync, typeof Actor, Sqlite] | undefined = undefined`
    ])
    assert.deepStrictEqual(
      problems,
      [1, 2, 3, 4, 5, 6, 7, 8].map((line) => `${line} layers`)
    )
  })

  it("lets core import effect, its sub-modules and its own files", () => {
    const problems = lint("packages/core/src/lease/A.ts", [
      `// import { readFileSync } from "node:fs"`,
      `import { Effect } from "effect"`,
      `import { TestClock } from "effect/testing"`,
      `import { b } from "../sync/B.ts"`,
      `export const text = 'import "node:fs"'`,
      `export const used = [Effect, TestClock, b]`
    ])
    assert.deepStrictEqual(problems, [])
  })

  it("keeps actors off the platform and off the test kit", () => {
    const problems = lint("packages/actors/src/A.ts", [
      `import { Lease } from "@twinloop/core"`,
      `import { model } from "@twinloop/core/testing"`,
      `import { sqlite } from "@twinloop/platform"`,
      `import { SyncSim } from "./testing/SyncSim.ts"`,
      `import { NodeRuntime } from "@effect/platform-node"`,
      `export const used = [Lease, model, sqlite, SyncSim, NodeRuntime]`
    ])
    assert.deepStrictEqual(problems, ["2 layers", "3 layers", "4 layers", "5 layers"])
  })

  it("keeps platform off the examples and lets it use Node", () => {
    const problems = lint("packages/platform/src/sqlite/A.ts", [
      `import { DatabaseSync } from "node:sqlite"`,
      `import { minimal } from "../../../../examples/01-minimal/main.ts"`,
      `export const used = [DatabaseSync, minimal]`
    ])
    assert.deepStrictEqual(problems, ["2 layers"])
  })

  it("lets a test that crosses packages import anything", () => {
    assert.deepStrictEqual(lint("test/processes/A.test.ts", [`import "node:fs"`, `import "@twinloop/platform"`]), [])
  })
})

describe("twinloop/pure", () => {
  const impure = [
    `export const now = () => Date.now()`,
    `export const dice = () => Math.random()`,
    `export const dices = Math`,
    `export const later = (f: () => void) => setTimeout(f, 1)`,
    `export const pid = () => process.pid`,
    `export const say = () => console.log("x")`,
    `export const wait = async () => 1`,
    `export const attempt = (f: () => number) => { try { return f() } catch { return 0 } }`,
    `export const sneaky = () => globalThis.performance`,
    `export async function* many() { yield 1 }`
  ]

  for (const folder of ["packages/core/src/lease", "packages/core/src/testing", "packages/actors/src"]) {
    it(`I8: reports clock, chance, platform, async and try in ${folder}`, () => {
      assert.deepStrictEqual(
        [...lint(`${folder}/A.ts`, impure)].sort(),
        impure.map((_, index) => `${index + 1} pure`).sort()
      )
    })
  }

  it("is not fooled by comments, strings, types and properties of the same name", () => {
    const problems = lint("packages/core/src/lease/A.ts", [
      `/** Never await process.exit() or Date.now(); try { } */`,
      `export interface Job { readonly process: string; readonly at: Date }`,
      `export const text = "setTimeout(async () => Math.random())"`,
      `export const name = (job: Job) => job.process`,
      `export const larger = Math.max(1, 2)`,
      `export const record = { process: 1, console: 2, Date: 3 }`
    ])
    assert.deepStrictEqual(problems, [])
  })

  it("leaves platform and tests alone", () => {
    assert.deepStrictEqual(lint("packages/platform/src/A.ts", impure), [])
    assert.deepStrictEqual(lint("packages/core/test/A.test.ts", impure), [])
  })
})
