import { assert, describe, it } from "@effect/vitest"
import { SyncConfig, SyncStore } from "@twinloop/core"
import { SqliteStores } from "@twinloop/platform"
import { Effect, Layer } from "effect"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const directory = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "twinloop-single-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

const quick = SyncConfig.layer({ storeBusyMillis: 100 })

describe("SqliteStores.layerSingleProcess", () => {
  it.live("keeps others out of the file, and lets them in when it is closed", () =>
    Effect.gen(function* () {
      const filename = join(yield* directory, "account.db")
      yield* Effect.gen(function* () {
        yield* SyncStore.SyncStore
        const error = yield* Effect.flip(Layer.build(Layer.provide(SqliteStores.layer({ filename }), quick)))
        assert.strictEqual(error.reason._tag, "StoreBusy")
      }).pipe(Effect.provide(SqliteStores.layerSingleProcess({ filename })))
      yield* Layer.build(SqliteStores.layer({ filename }))
    })
  )

  it.live("I2: commits against the `since` that was sent, without a lease row", () =>
    Effect.gen(function* () {
      const filename = join(yield* directory, "account.db")
      yield* Effect.gen(function* () {
        const store = yield* SyncStore.SyncStore
        const fence = { name: "extension", holder: "me", generation: 1 }
        const commit = { position: { since: "1" }, inbox: [], crypto: [], quarantined: [] }
        yield* store.commitExtension(fence, commit)
        const replayed = yield* Effect.flip(store.commitExtension(fence, commit))
        assert.strictEqual(replayed.reason._tag, "Moved")
      }).pipe(Effect.provide(SqliteStores.layerSingleProcess({ filename })))
    })
  )
})
