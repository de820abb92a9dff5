import { assert, describe, it } from "@effect/vitest"
import { StoreError, SyncConfig, SyncStore } from "@twinloop/core"
import { Effect, Exit, Fiber, Layer, Scope } from "effect"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import { openSync, closeSync, mkdirSync, readFileSync, statSync, writeFileSync, writeSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { Migrations, SqliteStores, StoreFault } from "../src/sqlite/index.ts"
import { commit, own, storesAt, temporaryDirectory, temporaryFile, temporaryStores } from "./SqliteKit.ts"

/** Opens stores and says why that failed; the message must name the file. */
const whyNotOpened = (options: Parameters<typeof SqliteStores.layer>[0]) =>
  Effect.scoped(Layer.build(SqliteStores.layer(options))).pipe(
    Effect.flip,
    Effect.map((error) => {
      assert.include(error.message, options.filename)
      return error.reason
    })
  )

/** Makes a database with one batch in it, and leaves it closed. */
const createDatabase = (filename: string) =>
  Effect.gen(function* () {
    const store = yield* SyncStore.SyncStore
    yield* store.commitExtension(yield* own("a"), commit("s1", [1]))
  }).pipe(Effect.provide(storesAt(filename)))

describe("SqliteStores refuses to open", () => {
  it.effect("a file that is no database", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      writeFileSync(filename, "<!doctype html>".repeat(500))
      const reason = yield* whyNotOpened({ filename })
      assert.strictEqual(reason._tag, "StoreCorrupt")
      assert.match(reason.message, /move it .* away/)
      assert.match(readFileSync(filename, "utf8"), /^<!doctype html>/)
    })
  )

  it.effect("a database whose schema is newer, before anything is written to it", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      yield* createDatabase(filename)
      const db = new DatabaseSync(filename)
      db.exec("INSERT INTO twinloop_migrations (migration_id, name) VALUES (99, 'from_the_future')")
      db.close()
      const before = readFileSync(filename)
      const reason = yield* whyNotOpened({ filename })
      assert.deepInclude(reason, { _tag: "StoreNewer", storedVersion: 99, knownVersion: Migrations.knownVersion })
      assert.match(reason.message, /update the software/)
      assert.isTrue(readFileSync(filename).equals(before))
    })
  )

  it.effect("a path whose directory's parent is missing", () =>
    Effect.gen(function* () {
      const directory = join(yield* temporaryDirectory, "missing")
      const reason = yield* whyNotOpened({ filename: join(directory, "too", "account.db") })
      assert.strictEqual(reason._tag, "StoreUnavailable")
      assert.match(reason.message, /check that its directory exists/)
      assert.isUndefined(statSync(directory, { throwIfNoEntry: false }))
    })
  )

  it.effect("a path that names a directory", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      mkdirSync(filename)
      assert.strictEqual((yield* whyNotOpened({ filename }))._tag, "StoreUnavailable")
    })
  )

  it.effect("a path below a file", () =>
    Effect.gen(function* () {
      const file = yield* temporaryFile
      writeFileSync(file, "")
      assert.strictEqual((yield* whyNotOpened({ filename: join(file, "account.db") }))._tag, "StoreUnavailable")
    })
  )

  // The kernel's own file systems refuse new files even to root, whom permission bits don't bind.
  it.effect.skipIf(process.platform !== "linux")("a place where nothing may be written", () =>
    Effect.gen(function* () {
      const reason = yield* whyNotOpened({ filename: "/sys/twinloop.db" })
      assert.strictEqual(reason._tag, "StoreReadOnly")
      assert.match(reason.message, /give this user write access/)
    })
  )

  it.effect("a new database without the right to write", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      const db = new DatabaseSync(filename)
      db.exec("CREATE TABLE t (a)")
      db.close()
      assert.strictEqual((yield* whyNotOpened({ filename, readonly: true }))._tag, "StoreReadOnly")
    })
  )

  it.effect("a database that another process keeps locked while its tables are made", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      const other = new DatabaseSync(filename)
      other.exec("PRAGMA journal_mode = WAL; BEGIN IMMEDIATE")
      const opening = yield* Effect.forkChild(whyNotOpened({ filename }), { startImmediately: true })
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual((yield* Fiber.join(opening))._tag, "StoreBusy")
      other.close()
    })
  )
})

describe("SqliteStores", () => {
  it.effect("reads a database that it may not write, and says so when it is asked to write", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      yield* createDatabase(filename)
      yield* Effect.gen(function* () {
        const store = yield* SyncStore.SyncStore
        assert.deepStrictEqual(yield* store.extensionPosition, { since: "s1" })
        const error = yield* Effect.flip(store.expireMain("m"))
        assert.strictEqual(error.reason._tag, "StoreReadOnly")
        assert.include(error.message, filename)
      }).pipe(Effect.provide(SqliteStores.layer({ filename, readonly: true })))
    })
  )

  it.effect("I2: writes nothing of a batch that doesn't fit the disk, and goes on when there is room", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const store = yield* SyncStore.SyncStore
      const fence = yield* own("a")
      const [[pages] = []] = yield* sql`PRAGMA page_count`.values
      yield* sql.unsafe(`PRAGMA max_page_count = ${Number(pages) + 2}`)
      const large = commit("s1", ["fits", "x".repeat(100_000)])
      const error = yield* Effect.flip(store.commitExtension(fence, large))
      assert.strictEqual(error.reason._tag, "StoreFull")
      assert.match(error.message, /free disk space/)
      assert.deepStrictEqual(yield* store.extensionPosition, {})
      assert.deepStrictEqual(yield* store.readInbox({ after: 0, limit: 10 }), [])

      yield* sql`PRAGMA max_page_count = 1000000`
      assert.strictEqual((yield* store.commitExtension(fence, large)).length, 2)
    }).pipe(Effect.provide(temporaryStores))
  )

  it.effect("says that a page of its file is damaged", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      yield* createDatabase(filename)
      const inspecting = new DatabaseSync(filename)
      const root = inspecting.prepare("SELECT rootpage FROM sqlite_master WHERE name = 'inbox'").get()?.["rootpage"]
      inspecting.close()
      const file = openSync(filename, "r+")
      writeSync(file, Buffer.alloc(4096, 0xa5), 0, 4096, (Number(root) - 1) * 4096)
      closeSync(file)

      yield* Effect.gen(function* () {
        const store = yield* SyncStore.SyncStore
        const error = yield* Effect.flip(store.readInbox({ after: 0, limit: 1 }))
        assert.strictEqual(error.reason._tag, "StoreCorrupt")
        // What is on other pages is still there.
        assert.deepStrictEqual(yield* store.extensionPosition, { since: "s1" })
      }).pipe(Effect.provide(storesAt(filename)))
    })
  )

  it.effect("says that a column that should hold JSON doesn't", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const store = yield* SyncStore.SyncStore
      yield* store.commitExtension(yield* own("a"), commit("s1", [1]))
      yield* sql`UPDATE inbox SET event = '{"body":'`
      const error = yield* Effect.flip(store.readInbox({ after: 0, limit: 1 }))
      assert.strictEqual(error.reason._tag, "StoreCorrupt")
    }).pipe(Effect.provide(temporaryStores))
  )

  it.effect("I9: fails a commit as busy when another process writes for longer than storeBusyMillis", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      yield* Effect.gen(function* () {
        const store = yield* SyncStore.SyncStore
        const fence = yield* own("a")
        const other = new DatabaseSync(filename)
        other.exec("BEGIN IMMEDIATE")
        const late = yield* Effect.forkChild(Effect.flip(store.commitExtension(fence, commit("s1", [1]))))
        yield* TestClock.adjust("1 second")
        const error = yield* Fiber.join(late)
        assert.strictEqual(error.reason._tag, "StoreBusy")
        assert.match(error.message, /storeBusyMillis/)

        other.close()
        yield* store.commitExtension(fence, commit("s1", [1]))
      }).pipe(Effect.provide(Layer.mergeAll(storesAt(filename), SyncConfig.layer({ storeBusyMillis: 100 }))))
    })
  )

  it.effect("fails with a typed error after it was closed", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const stores = yield* Layer.buildWithScope(temporaryStores, scope)
      const position = Effect.flatMap(SyncStore.SyncStore, (store) => store.extensionPosition)
      yield* Effect.provide(position, stores)
      yield* Scope.close(scope, Exit.void)
      const error = yield* Effect.flip(Effect.provide(position, stores))
      assert.strictEqual(error.reason._tag, "StoreUnavailable")
    })
  )
})

describe("StoreFault", () => {
  it("names what SQLite's and the file system's codes mean", () => {
    const reasonOf = (cause: object) =>
      StoreFault.toStoreError("/a.db", "write", Object.assign(new Error("x"), cause)).reason._tag
    const expected = [
      [{ errcode: 5 }, "StoreBusy"],
      [{ errcode: 517 }, "StoreBusy"],
      [{ errcode: 8 }, "StoreReadOnly"],
      [{ errcode: 1032 }, "StoreReadOnly"],
      [{ errcode: 10 }, "StoreUnavailable"],
      [{ errcode: 11 }, "StoreCorrupt"],
      [{ errcode: 13 }, "StoreFull"],
      [{ errcode: 14 }, "StoreUnavailable"],
      [{ errcode: 26 }, "StoreCorrupt"],
      [{ errcode: 1 }, "StoreUnavailable"],
      [{ code: "EROFS" }, "StoreReadOnly"],
      [{ code: "ENOSPC" }, "StoreFull"],
      [{ code: "EIO" }, "StoreUnavailable"],
      [{}, "StoreUnavailable"]
    ] as const
    for (const [cause, tag] of expected) assert.strictEqual(reasonOf(cause), tag, JSON.stringify(cause))
  })

  it("leaves errors that are typed already as they are", () => {
    const reason = new StoreError.StoreFull({ message: "x" })
    const error = new StoreError.StoreError({ operation: "write", reason })
    assert.strictEqual(StoreFault.toStoreError("/a.db", "other", error), error)
    assert.strictEqual(StoreFault.toStoreError("/a.db", "other", reason).reason, reason)
  })
})
