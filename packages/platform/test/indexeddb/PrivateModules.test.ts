import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { loadPrivately } from "../../src/crypto/PrivateModules.ts"
import { temporaryDirectory } from "../SqliteKit.ts"

const write = (directory: string, files: { readonly [path: string]: string }): void => {
  mkdirSync(join(directory, "lib"))
  for (const [path, source] of Object.entries(files)) writeFileSync(join(directory, path), source)
}

describe("PrivateModules", () => {
  it.effect("loads each file once per loader, also those that require one another", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      write(directory, {
        "a.js": `exports.name = "a"; exports.b = require("./lib/b.js"); exports.state = {}`,
        "lib/b.js": `exports.a = require("../a.js"); exports.join = require("node:path").join`
      })
      const load = loadPrivately(directory)
      const a = load("a.js") as { b: { a: unknown; join: unknown }; state: unknown }
      assert.strictEqual(a.b.a, a)
      assert.strictEqual(a.b.join, join)
      assert.strictEqual(load("a.js"), a)
      assert.notStrictEqual((loadPrivately(directory)("a.js") as typeof a).state, a.state)
    })
  )

  it.effect("replaces files, which can look at what they replace", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      write(directory, {
        "a.js": `module.exports = require("./lib/b.js")`,
        "lib/b.js": `module.exports = { value: 1 }`
      })
      const load = loadPrivately(directory, {
        replace: { "lib/b.js": (original) => ({ ...(original() as object), more: 2 }) }
      })
      assert.deepStrictEqual(load("a.js"), { value: 1, more: 2 })
    })
  )

  it.effect("hides globals behind parameters, and only from these files", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      write(directory, { "a.js": `module.exports = [typeof globalThis, extra, typeof queueMicrotask]` })
      const load = loadPrivately(directory, { parameters: { globalThis: undefined, extra: 7 } })
      assert.deepStrictEqual(load("a.js"), ["undefined", 7, "function"])
      assert.strictEqual(typeof globalThis, "object")
    })
  )

  it.effect("says which file fails", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      write(directory, { "a.js": `const = 1` })
      assert.throws(() => loadPrivately(directory)("a.js"), SyntaxError)
      assert.throws(() => loadPrivately(directory)("missing.js"), /missing\.js/)
    })
  )
})
