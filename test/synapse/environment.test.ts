/**
 * Getting Synapse: the environment is made once, by one process at a time, and what is in the way is said in words.
 */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, layer } from "@effect/vitest"
import { Effect, FileSystem, Ref } from "effect"
import type { SynapseProgress } from "../../packages/platform/src/synapse/SynapseEnvironment.ts"
import { defaultVersion, ensure } from "../../packages/platform/src/synapse/SynapseEnvironment.ts"

describe("SynapseEnvironment", () => {
  layer(NodeServices.layer, { excludeTestServices: true })((it) => {
    it.effect("makes an interrupted environment afresh, once, while a second process waits", () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const cacheDirectory = yield* fs.makeTempDirectoryScoped({ prefix: "twinloop-cache-" })
        const directory = `${cacheDirectory}/synapse-${defaultVersion}`
        // What a killed installer leaves: half an environment, and no marker.
        yield* fs.makeDirectory(`${directory}/venv/bin`, { recursive: true })
        yield* fs.writeFileString(`${directory}/venv/bin/python`, "half a file")

        const steps = yield* Ref.make<ReadonlyArray<SynapseProgress["step"]>>([])
        const onProgress = ({ step }: SynapseProgress) => Ref.update(steps, (before) => [...before, step])
        const once = ensure({ cacheDirectory, onProgress })
        const [first, second] = yield* Effect.all([once, once], { concurrency: 2 })

        assert.strictEqual(first, `${directory}/venv/bin/python`)
        assert.strictEqual(second, first)
        const seen = yield* Ref.get(steps)
        assert.strictEqual(seen.filter((step) => step === "creating").length, 1)
        assert.strictEqual(seen.filter((step) => step === "waiting").length, 1)

        // A third use finds it complete, and does nothing.
        yield* Ref.set(steps, [])
        assert.strictEqual(yield* ensure({ cacheDirectory, onProgress }), first)
        assert.deepStrictEqual(yield* Ref.get(steps), [])
      })
    )

    it.effect("says that Python is missing, and what to install", () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(ensure({ pythons: ["/nowhere/python3", "/bin/false"] }))
        assert.strictEqual(error.reason._tag, "PythonMissing")
        assert.match(error.message, /none of \/nowhere\/python3, \/bin\/false starts a Python 3: install Python 3\.10/)
      })
    )

    it.effect("says that the package can't be had, with pip's own words", () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const cacheDirectory = yield* fs.makeTempDirectoryScoped({ prefix: "twinloop-cache-" })
        const error = yield* Effect.flip(ensure({ cacheDirectory, version: "0.0.1" }))
        assert.strictEqual(error.reason._tag, "InstallFailed")
        assert.match(error.message, /pip could not install matrix-synapse 0\.0\.1: check that PyPI can be reached/)
        assert.match(error.message, /No matching distribution|Could not find a version|connection/i)
        assert.isFalse(yield* fs.exists(`${cacheDirectory}/synapse-0.0.1/installed.json`))
      })
    )

    it.effect("says that the cache directory can't be used", () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const file = yield* fs.makeTempFileScoped()
        const error = yield* Effect.flip(ensure({ cacheDirectory: file }))
        assert.strictEqual(error.reason._tag, "InstallFailed")
        assert.match(error.message, /cannot be used: make it writable, or set XDG_CACHE_HOME/)
      })
    )
  })
})
