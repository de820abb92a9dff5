/**
 * The list of deliberate faults stays true as the code changes, and what tries them judges rightly. That tests notice the
 * faults is what `npm run mutants` sees to.
 */
import { assert, describe, it } from "@effect/vitest"
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { chosen, sample } from "../../scripts/mutants.ts"
import { mutants } from "../../scripts/mutation/Mutants.ts"
import { mutated } from "../../scripts/mutation/Tree.ts"
import * as Vitest from "../../scripts/mutation/Vitest.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))
const read = (path: string): string => readFileSync(join(root, path), "utf8")

describe("the list of faults", () => {
  it("names each fault once, and breaks each invariant", () => {
    const ids = mutants.map(({ id }) => id)
    assert.deepStrictEqual(ids, [...new Set(ids)])
    assert.isAtLeast(ids.length, 40)
    const broken = new Set(mutants.map(({ breaks }) => breaks))
    for (let n = 1; n <= 10; n++) assert.include([...broken], `I${n}`)
  })

  it("can be made: what is replaced stands exactly once in its file", () => {
    for (const mutant of mutants) {
      assert.notStrictEqual(mutant.find, mutant.replace, mutant.id)
      assert.isDefined(
        mutated(read(mutant.file), mutant),
        `${mutant.id}: look at ${mutant.file}, and change its "find"`
      )
    }
  })

  it("names tests that exist, in their projects", () => {
    for (const { id, tests } of mutants) {
      assert.isNotEmpty(tests, id)
      for (const test of tests) {
        const [project = "", path = ""] = test.split(" ")
        assert.isTrue(path.startsWith(`packages/${project}/test/`), `${id}: ${test}`)
        assert.isTrue(existsSync(join(root, path)), `${id}: ${test}`)
      }
    }
  })
})

describe("npm run mutants", () => {
  it("takes the same handful for a commit, and another for another", () => {
    const handful = sample(mutants, 5, "one")
    assert.lengthOf(new Set(handful), 5)
    assert.deepStrictEqual(sample(mutants.toReversed(), 5, "one"), handful)
    assert.notDeepEqual(sample(mutants, 5, "other"), handful)
  })

  it("says which fault there isn't", () => {
    assert.lengthOf(chosen({}, ""), mutants.length)
    assert.deepStrictEqual(
      chosen({ only: "no-backoff" }, ""),
      mutants.filter(({ id }) => id === "no-backoff")
    )
    assert.strictEqual(chosen({ only: "no-backoff,none" }, ""), "no such fault: none; see them with --list")
    assert.include(chosen({ sample: "few" }, ""), "--sample takes a number")
  })

  it("makes a fault only where it is clear which place is meant", () => {
    assert.strictEqual(mutated("a b", { find: "a", replace: "c" }), "c b")
    assert.isUndefined(mutated("a a", { find: "a", replace: "c" }))
    assert.isUndefined(mutated("b", { find: "a", replace: "c" }))
  })

  const report = (result: object) =>
    Vitest.read(JSON.stringify({ numPassedTests: 0, success: false, testResults: [result] }), "/copy")
  const file = { name: "/copy/a.test.ts", status: "failed", message: "" }

  it("knows a test that notices from one that can't be run", () => {
    const test = { status: "failed", fullName: "A sees" }
    const failed = { _tag: "Failed", test: "A sees", file: "a.test.ts" }
    assert.deepStrictEqual(report({ ...file, assertionResults: [test] }), failed as Vitest.Outcome)
    const skipped = { status: "skipped", fullName: "A sees" }
    assert.strictEqual(report({ ...file, assertionResults: [skipped] })._tag, "Failed", "what it stands on has failed")
    assert.strictEqual(report({ ...file, assertionResults: [] })._tag, "Broken", "it can't be loaded")
    assert.strictEqual(Vitest.read("", "/copy")._tag, "Broken")
    const passed = { numPassedTests: 3, success: true, testResults: [] }
    assert.strictEqual(Vitest.read(JSON.stringify(passed), "/copy")._tag, "Passed")
    assert.strictEqual(Vitest.read(JSON.stringify({ ...passed, success: false }), "/copy")._tag, "Broken")
    assert.strictEqual(Vitest.read(JSON.stringify({ ...passed, numPassedTests: 0 }), "/copy")._tag, "Broken")
  })

  it("runs the files of several projects together", () => {
    assert.deepStrictEqual(
      Vitest.selectionOf(["core a.test.ts", "core b.test.ts", "actors c.test.ts", "core a.test.ts"]),
      {
        projects: ["core", "actors"],
        files: ["a.test.ts", "b.test.ts", "c.test.ts"]
      }
    )
  })
})
