import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("../..", import.meta.url))

/** What `.ci/run` adds to its sum for a suite that ended with this exit code and left this report, or none. */
const count = (kind: string, report: string | undefined, status: number): string => {
  const directory = mkdtempSync(join(tmpdir(), "twinloop-ci-"))
  try {
    const path = join(directory, "report")
    if (report !== undefined) writeFileSync(path, report)
    const args = [join(root, "scripts/count.js"), kind, path, String(status)]
    return spawnSync(process.execPath, args, { encoding: "utf8" }).stdout
  } finally {
    rmSync(directory, { recursive: true })
  }
}

const vitest = (numPassedTests: number, numFailedTests: number) => JSON.stringify({ numPassedTests, numFailedTests })

describe(".ci/run", () => {
  it("adds up what vitest reports", () => {
    assert.strictEqual(count("vitest", vitest(12, 0), 0), "12 0\n")
    assert.strictEqual(count("vitest", vitest(10, 2), 1), "10 2\n")
  })

  it("counts a failure for a suite that crashed, hung, ran nothing or left no report", () => {
    assert.strictEqual(count("vitest", vitest(12, 0), 1), "12 1\n")
    assert.strictEqual(count("vitest", vitest(12, 0), 124), "12 1\n")
    assert.strictEqual(count("vitest", vitest(0, 0), 0), "0 1\n")
    assert.strictEqual(count("vitest", undefined, 0), "0 1\n")
    assert.strictEqual(count("vitest", "half a rep", 1), "0 1\n")
  })

  it("counts the parts of the check", () => {
    assert.strictEqual(count("check", "types   ok\ncheck: 4 passed, 0 failed\n", 0), "4 0\n")
    assert.strictEqual(count("check", "check: 2 passed, 2 failed\n", 1), "2 2\n")
    assert.strictEqual(count("check", "SyntaxError", 1), "0 1\n")
  })

  it("counts the runs of the proof", () => {
    assert.strictEqual(count("tally", `{"passed":5,"failed":0}\n`, 0), "5 0\n")
    assert.strictEqual(count("tally", `{"passed":4,"failed":1}\n`, 1), "4 1\n")
    assert.strictEqual(count("tally", "", 2), "0 1\n")
  })

  it("counts the benchmarks that measured something, whatever they measured", () => {
    const benchmark = (median: number | null) => ({ entries: [{ figures: { shownMillis: { median } } }] })
    const report = (...medians: ReadonlyArray<number | null>) =>
      `${JSON.stringify({ benchmarks: medians.map(benchmark) })}\n`
    assert.strictEqual(count("bench", report(1, 2), 0), "2 0\n")
    assert.strictEqual(count("bench", report(1, null), 0), "1 1\n")
    assert.strictEqual(count("bench", `{"benchmarks":[]}\n`, 0), "0 1\n")
    assert.strictEqual(count("bench", report(1), 124), "1 1\n")
  })

  it("counts the main job as one, by the last line that it prints", () => {
    assert.strictEqual(count("main", `a story\n{"ok":true}\n`, 0), "1 0\n")
    assert.strictEqual(count("main", `{"ok":false}\n`, 1), "0 1\n")
    assert.strictEqual(count("main", `{"ok":true}\n`, 1), "0 1\n")
    assert.strictEqual(count("main", `{"ok":true}\nand then it broke\n`, 0), "0 1\n")
  })

  it("is a script that bash can read", () => {
    assert.strictEqual(spawnSync("bash", ["-n", join(root, ".ci/run")]).status, 0)
  })
})
