/** `npm run test:rust`, where there is no cargo; nothing that runs by itself needs one. */
import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("../..", import.meta.url))
const read = (path: string): string => readFileSync(join(root, path), "utf8")

describe("npm run test:rust", () => {
  it("says what to install when there is no cargo", () => {
    for (const args of [[], ["--json"]]) {
      const all = [join(root, "scripts/rust.ts"), ...args]
      const { status, stderr, stdout } = spawnSync(process.execPath, all, {
        encoding: "utf8",
        env: { PATH: "/nowhere" }
      })
      assert.deepStrictEqual([status, stdout], [1, ""])
      assert.match(stderr, /^There is no cargo, .* Install Rust 1\.\d+ or newer .* `npm run test:rust` again/)
    }
  })

  it("refuses a command line that it doesn't know before it builds anything", () => {
    for (const args of [["--homeserver", "other"], ["--what"]]) {
      const all = [join(root, "scripts/rust.ts"), ...args]
      const { status, stderr } = spawnSync(process.execPath, all, { encoding: "utf8", env: { PATH: "/nowhere" } })
      assert.strictEqual(status, 2)
      assert.include(stderr, "npm run test:rust -- [--homeserver dev|synapse]")
    }
  })

  it("names the oldest Rust that the crate takes", () => {
    const [, oldest] = /^rust-version = "([\d.]+)"$/m.exec(read("test/conformance/rust/Cargo.toml")) ?? []
    assert.include(read("scripts/rust.ts"), `Install Rust ${oldest} or newer`)
  })

  it("is asked for by nobody but who calls it", () => {
    const { scripts } = JSON.parse(read("package.json")) as { readonly scripts: { readonly [name: string]: string } }
    const callers = Object.entries(scripts).filter(([, command]) => command.includes("rust"))
    assert.deepStrictEqual(
      callers.map(([name]) => name),
      ["test:rust"]
    )
    assert.notMatch(read(".ci/run"), /test:rust|cargo/)
  })
})
