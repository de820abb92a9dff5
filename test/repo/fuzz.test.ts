import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { existsSync, globSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as Chance from "../../scripts/fuzz/Chance.ts"
import * as Decoders from "../../scripts/fuzz/Decoders.ts"
import { mutated } from "../../scripts/fuzz/Mutations.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))

const fuzz = (...args: ReadonlyArray<string>) =>
  spawnSync(process.execPath, ["scripts/fuzz.ts", ...args], { cwd: root, encoding: "utf8" })

describe("npm run fuzz", () => {
  it("I7: no decoder dies or hangs, whatever it is given", { timeout: 120_000 }, () => {
    const { status, stderr, stdout } = fuzz("--inputs", "5000", "--seed", "20261130", "--json")
    assert.strictEqual(stderr, "")
    const outcome = JSON.parse(stdout)
    assert.deepStrictEqual(outcome.failures, [])
    assert.strictEqual(status, 0)
    const targets = Object.values<{ inputs: number; taken: number }>(outcome.targets)
    assert.isAtLeast(targets.length, 34)
    // A target that takes nothing has been given nothing that gets past its first line.
    for (const { inputs, taken } of targets) assert.isTrue(inputs >= 10 && taken >= 1, stdout)
    const fuzzed = Object.values(Decoders.decoders).flatMap((decoder) => ("targets" in decoder ? decoder.targets : []))
    for (const name of [...fuzzed, ...Object.values(Decoders.byHand).flat()])
      assert.property(outcome.targets, name, "scripts/fuzz/Decoders.ts names a target that there isn't")
  })

  it("I7: fuzzes everything that decodes", () => {
    const sources = globSync("packages/*/src/**/*.ts", { cwd: root }).filter((path) => !Decoders.excepted.test(path))
    assert.isAbove(sources.length, 150)
    // Examples in comments decode nothing.
    const codeOf = (path: string) => readFileSync(join(root, path), "utf8").replace(/^\s*\*.*$/gm, "")
    const found = sources.flatMap((path) => {
      const places = codeOf(path).match(Decoders.place)?.length ?? 0
      return places === 0 ? [] : [[path, places] as const]
    })
    const known = Object.entries(Decoders.decoders).map(([path, { places }]) => [path, places] as const)
    assert.deepStrictEqual(
      found.toSorted(),
      known.toSorted(),
      "say in scripts/fuzz/Decoders.ts which target fuzzes this"
    )
    for (const path of Object.keys(Decoders.byHand)) assert.isTrue(existsSync(join(root, path)), path)
  })

  it("makes the same inputs of the same seed", () => {
    const make = (seed: number) =>
      Array.from({ length: 50 }, (_, index) => mutated(Chance.of(seed, index), `{"a":[1,{"b":"c"}],"d":"e"}`))
    assert.deepStrictEqual(make(1), make(1))
    assert.notDeepEqual(make(1), make(2))
    assert.isAbove(new Set(make(1)).size, 40)
  })

  it("says what is wrong with its command line", () => {
    assert.strictEqual(fuzz("--inputs", "many").status, 2)
  })
})
