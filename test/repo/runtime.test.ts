import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

const guard = fileURLToPath(new URL("../../scripts/guard.js", import.meta.url))

describe("the Node that runs the tests", () => {
  it("is the one that is installed with the project", () => {
    assert.match(
      process.version,
      /^v24\./,
      "run `npm rebuild node`: `npm ci --ignore-scripts` skips the project's Node"
    )
    assert.isTrue(process.execPath.includes("node_modules"), `${process.execPath} is not the project's Node`)
  })

  it("is asked for in words when another one runs instead", () => {
    const asOld = `Object.defineProperty(process.versions, "node", { value: "20.20.2" }); await import(${JSON.stringify(guard)})`
    const old = spawnSync(process.execPath, ["--input-type=module", "-e", asOld], { encoding: "utf8" })
    assert.strictEqual(old.status, 1)
    assert.match(old.stderr, /npm rebuild node/)
    assert.strictEqual(spawnSync(process.execPath, [guard]).status, 0)
  })
})

describe("package-lock.json", () => {
  it("names every optional dependency, since `npm ci` refuses one that doesn't", () => {
    // npm leaves out what the registry in use can't serve, and `npm install` says nothing about it.
    const lock = JSON.parse(readFileSync(new URL("../../package-lock.json", import.meta.url), "utf8")) as {
      readonly packages: {
        readonly [path: string]: { readonly optionalDependencies?: Readonly<Record<string, string>> }
      }
    }
    const missing = Object.entries(lock.packages).flatMap(([path, { optionalDependencies = {} }]) =>
      Object.keys(optionalDependencies).filter(
        (name) => !(`node_modules/${name}` in lock.packages) && !(`${path}/node_modules/${name}` in lock.packages)
      )
    )
    assert.deepStrictEqual(missing, [])
  })
})
