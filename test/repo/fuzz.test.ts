import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"
import * as Chance from "../../scripts/fuzz/Chance.ts"
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
    assert.isAtLeast(targets.length, 22)
    // A target that takes nothing has been given nothing that gets past its first line.
    for (const { inputs, taken } of targets) assert.isTrue(inputs >= 10 && taken >= 1, stdout)
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
