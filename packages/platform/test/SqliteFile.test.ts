import { assert, describe, it } from "@effect/vitest"
import { SyncStore } from "@twinloop/core"
import { Effect, Layer } from "effect"
import { existsSync, mkdirSync, statSync, symlinkSync } from "node:fs"
import { join } from "node:path"
import { commit, own, storesAt, temporaryDirectory } from "./SqliteKit.ts"

const modeOf = (path: string): string => (statSync(path).mode & 0o777).toString(8)

/** Writes something into a database, and looks at its files while it is open. */
const using = (filename: string, look: () => void) =>
  Effect.gen(function* () {
    const store = yield* SyncStore.SyncStore
    yield* store.commitExtension(yield* own("a"), commit("s1", [1]))
    look()
  }).pipe(Effect.provide(Layer.fresh(storesAt(filename))))

describe("A database file", () => {
  it.effect("is private at the end of links, too, when it is made there", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const target = join(directory, "real", "account.db")
      mkdirSync(join(directory, "real"))
      symlinkSync(join("real", "account.db"), join(directory, "one.db"))
      symlinkSync("one.db", join(directory, "two.db"))
      yield* using(join(directory, "two.db"), () => {
        for (const file of ["", "-wal", "-shm"]) assert.strictEqual(modeOf(target + file), "600", file)
      })
    })
  )

  it.effect("is named by a path, and never by a URI that switches something on or off", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const before = process.cwd()
      yield* Effect.acquireRelease(
        Effect.sync(() => process.chdir(directory)),
        () => Effect.sync(() => process.chdir(before))
      )
      const filename = "file:account.db?nolock=1"
      yield* using(filename, () => {
        assert.strictEqual(modeOf(join(directory, filename)), "600")
        assert.isFalse(existsSync(join(directory, "account.db")))
      })
    })
  )

  it.effect("at the end of a loop of links is refused", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const filename = join(directory, "loop.db")
      symlinkSync("loop.db", filename)
      const error = yield* Effect.flip(Effect.scoped(Layer.build(storesAt(filename))))
      assert.include(error.message, filename)
    })
  )
})
