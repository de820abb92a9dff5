import { assert, describe, it } from "@effect/vitest"
import { SyncConfig } from "@twinloop/core"
import { Clock, Effect, Exit, Fiber, Layer, Result, Stream } from "effect"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import { chmodSync, statSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { SqliteClient } from "../src/sqlite/index.ts"
import { temporaryDirectory, temporaryFile } from "./SqliteKit.ts"

/** A client over a file of its own, with a table to write to. */
const layer = Layer.unwrap(
  Effect.map(temporaryFile, (filename) =>
    Layer.effectDiscard(
      Effect.flatMap(SqlClient.SqlClient, (sql) => sql`CREATE TABLE t (a INTEGER UNIQUE, b TEXT) STRICT`)
    ).pipe(Layer.provideMerge(SqliteClient.layer({ filename })))
  )
)

const all = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT a FROM t ORDER BY rowid`.values)
const insert = (a: number) => Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO t (a) VALUES (${a})`)

const modeOf = (path: string): number => statSync(path).mode & 0o777

/** Another connection that holds the write lock until it is closed. */
const lockedByAnother = Effect.gen(function* () {
  const { config } = yield* SqliteClient.SqliteClient
  return yield* Effect.acquireRelease(
    Effect.sync(() => {
      const db = new DatabaseSync(config.filename)
      db.exec("BEGIN IMMEDIATE")
      return db
    }),
    (db) => Effect.sync(() => (db.isOpen ? db.close() : undefined))
  )
})

const writeSync = (a: number) =>
  Effect.flatMap(SqliteClient.SqliteClient, (client) =>
    client.transactionSync({ durable: false }, (transaction) =>
      Result.succeed(transaction.run("INSERT INTO t (a) VALUES (?)", a).changes)
    )
  )

describe("SqliteClient's file", () => {
  it.effect("is private to the user, with its log and its directory", () =>
    Effect.gen(function* () {
      const filename = join(yield* temporaryDirectory, "new", "account.db")
      yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* sql`CREATE TABLE t (a INTEGER)`
        assert.strictEqual(modeOf(dirname(filename)), 0o700)
        for (const file of [filename, `${filename}-wal`, `${filename}-shm`])
          assert.strictEqual(modeOf(file), 0o600, file)
      }).pipe(Effect.provide(SqliteClient.layer({ filename })))
    })
  )

  it.effect("is taken away from other users when it was open to them", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      writeFileSync(filename, "")
      chmodSync(filename, 0o644)
      yield* Effect.scoped(Layer.build(SqliteClient.layer({ filename })))
      assert.strictEqual(modeOf(filename), 0o600)
    })
  )

  it.effect("has a write-ahead log, which later openings find in place", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      for (const _ of [1, 2]) {
        const mode = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`PRAGMA journal_mode`.values)
        assert.deepStrictEqual(yield* Effect.provide(mode, SqliteClient.layer({ filename })), [["wal"]])
      }
    })
  )
})

describe("SqliteClient", () => {
  it.effect("runs statements in every form of SqlClient", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* sql`INSERT INTO t ${sql.insert([
        { a: 1, b: "x" },
        { a: 2, b: "y" }
      ])}`
      const select = sql<{ a: number; b: string }>`SELECT a, b FROM t WHERE a > ${0} ORDER BY a`
      const rows = [
        { a: 1, b: "x" },
        { a: 2, b: "y" }
      ]
      assert.deepEqual(
        (yield* select).map((row) => ({ ...row })),
        rows
      )
      assert.deepEqual(
        (yield* select.unprepared).map((row) => ({ ...row })),
        rows
      )
      assert.deepStrictEqual(yield* select.values, [
        [1, "x"],
        [2, "y"]
      ])
      assert.deepInclude(yield* sql`DELETE FROM t WHERE a = 1`.raw, { changes: 1 })
      assert.strictEqual((yield* Stream.runCollect(select.stream)).length, 1)
      const big = yield* Effect.provideService(sql`SELECT 9007199254740993 AS n`.values, SqlClient.SafeIntegers, true)
      assert.deepStrictEqual(big, [[9007199254740993n]])
    }).pipe(Effect.provide(layer))
  )

  it.effect("tells a violated constraint from other errors", () =>
    Effect.gen(function* () {
      yield* insert(1)
      const error = yield* Effect.flip(insert(1))
      assert.strictEqual(error.reason._tag === "UniqueViolation" ? error.reason.constraint : error.reason._tag, "t.a")
    }).pipe(Effect.provide(layer))
  )

  it.effect("keeps working with fewer cached statements than there are", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      for (let round = 0; round < 3; round++) {
        for (let index = 0; index < 5; index++) {
          assert.deepStrictEqual(yield* sql`SELECT ${sql.literal(String(index))}`.values, [[index]])
        }
      }
    }).pipe(Effect.provide(SqliteClient.layer({ filename: ":memory:", prepareCacheSize: 2 })))
  )

  it.effect(
    "has the write lock from the beginning of a transaction, so that what it read is still so when it writes",
    () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const { config } = yield* SqliteClient.SqliteClient
        const other = new DatabaseSync(config.filename)
        yield* sql.withTransaction(
          Effect.gen(function* () {
            yield* all
            assert.throws(() => other.exec("INSERT INTO t (a) VALUES (1)"), /locked/)
            yield* insert(2)
          })
        )
        other.close()
        assert.deepStrictEqual(yield* all, [[2]])
      }).pipe(Effect.provide(layer))
  )

  it.effect("rolls back a transaction that fails or is interrupted, and is free for the next", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* Effect.flip(sql.withTransaction(Effect.andThen(insert(1), Effect.fail("no"))))
      const open = yield* Effect.forkChild(sql.withTransaction(Effect.andThen(insert(2), Effect.never)), {
        startImmediately: true
      })
      yield* Fiber.interrupt(open)
      yield* sql.withTransaction(
        Effect.andThen(
          insert(3),
          Effect.ignore(sql.withTransaction(Effect.andThen(insert(4), Effect.fail("only the inner one"))))
        )
      )
      assert.deepStrictEqual(yield* all, [[3]])
    }).pipe(Effect.provide(layer))
  )
})

describe("SqliteClient.transactionSync", () => {
  it.effect("isn't hindered by a transaction that somebody left open", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* sql`BEGIN`
      yield* insert(1)
      yield* writeSync(2)
      assert.deepStrictEqual(yield* all, [[2]])
    }).pipe(Effect.provide(layer))
  )

  it.effect("commits a success, and rolls back a failure and a throw", () =>
    Effect.gen(function* () {
      const client = yield* SqliteClient.SqliteClient
      assert.strictEqual(yield* writeSync(1), 1)
      const refused = client.transactionSync({ durable: true }, (transaction) => {
        transaction.run("INSERT INTO t (a) VALUES (2)")
        return Result.fail("refused" as const)
      })
      assert.strictEqual(yield* Effect.flip(refused), "refused")
      const broken = client.transactionSync({ durable: true }, (transaction) => {
        transaction.run("INSERT INTO t (a) VALUES (3)")
        throw new RangeError("a bug")
      })
      const exit = yield* Effect.exit(broken)
      assert.isTrue(Exit.hasDies(exit))
      // SQLite's own refusal is an error, not a defect.
      assert.strictEqual((yield* Effect.flip(writeSync(1)))._tag, "SqlError")
      assert.deepStrictEqual(yield* all, [[1]])
    }).pipe(Effect.provide(layer))
  )

  it.effect("waits its turn behind an open transaction, and refuses to wait for its own", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const open = yield* Effect.forkChild(sql.withTransaction(Effect.andThen(insert(1), Effect.sleep("1 second"))), {
        startImmediately: true
      })
      const waiting = yield* Effect.forkChild(writeSync(2), { startImmediately: true })
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(open)
      yield* Fiber.join(waiting)
      assert.deepStrictEqual(yield* all, [[1], [2]])
      assert.isTrue(Exit.hasDies(yield* Effect.exit(sql.withTransaction(writeSync(3)))))
    }).pipe(Effect.provide(layer))
  )

  it.effect("readSync reads one view, also while another process writes", () =>
    Effect.gen(function* () {
      const client = yield* SqliteClient.SqliteClient
      yield* insert(1)
      const other = yield* lockedByAnother
      other.exec("INSERT INTO t (a) VALUES (2)")
      const counts = yield* client.readSync((reader) => {
        const before = reader.all("SELECT a FROM t").length
        other.exec("COMMIT")
        return [before, reader.all("SELECT a FROM t").length]
      })
      assert.deepStrictEqual(counts, [1, 1])
      assert.deepStrictEqual(yield* all, [[1], [2]])
    }).pipe(Effect.provide(layer))
  )
})

describe("SqliteClient.retryBusy", () => {
  it.effect("I9: goes on when another process ends its write", () =>
    Effect.gen(function* () {
      const other = yield* lockedByAnother
      const waiting = yield* Effect.forkChild(SqliteClient.retryBusy(writeSync(1)))
      yield* TestClock.adjust("1 second")
      assert.isUndefined(waiting.pollUnsafe())
      other.close()
      yield* TestClock.adjust("3 millis")
      yield* Fiber.join(waiting)
      assert.deepStrictEqual(yield* all, [[1]])
    }).pipe(Effect.provide(layer))
  )

  it.effect("I10: gives up after storeBusyMillis", () =>
    Effect.gen(function* () {
      yield* lockedByAnother
      const waiting = yield* Effect.forkChild(Effect.exit(SqliteClient.retryBusy(writeSync(1))))
      yield* TestClock.adjust("99 millis")
      assert.isUndefined(waiting.pollUnsafe())
      yield* TestClock.adjust("5 millis")
      const exit = yield* Fiber.join(waiting)
      const error = Exit.findErrorOption(exit)
      assert.isTrue(error._tag === "Some" && SqliteClient.isBusy(error.value))
    }).pipe(Effect.provide(Layer.mergeAll(layer, SyncConfig.layer({ storeBusyMillis: 100 }))))
  )

  it.live("I10: gives up in time, also when the clock was set back meanwhile", () =>
    Effect.gen(function* () {
      yield* lockedByAnother
      const clock = yield* Clock.Clock
      const startedAt = clock.currentTimeMillisUnsafe()
      let looks = 0
      // From the second look on it is an hour earlier.
      const setBack: Clock.Clock = Object.assign(Object.create(clock) as Clock.Clock, {
        currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() - (looks++ === 0 ? 0 : 3_600_000)
      })
      const exit = yield* SqliteClient.retryBusy(writeSync(1)).pipe(
        Effect.exit,
        Effect.provideService(Clock.Clock, setBack),
        Effect.timeoutOption("2 seconds")
      )
      assert.isTrue(exit._tag === "Some", `it still waits after ${clock.currentTimeMillisUnsafe() - startedAt} ms`)
    }).pipe(Effect.provide(Layer.mergeAll(layer, SyncConfig.layer({ storeBusyMillis: 100 }))))
  )

  it.effect("lets others use the connection between two tries", () =>
    Effect.gen(function* () {
      yield* lockedByAnother
      const waiting = yield* Effect.forkChild(SqliteClient.retryBusy(writeSync(1)))
      yield* TestClock.adjust("10 millis")
      assert.deepStrictEqual(yield* all, [])
      yield* Fiber.interrupt(waiting)
    }).pipe(Effect.provide(layer))
  )

  it.live("never blocks the event loop while it waits", () =>
    Effect.gen(function* () {
      const other = yield* lockedByAnother
      let ticks = 0
      const ticking = setInterval(() => ticks++, 5)
      setTimeout(() => other.close(), 300)
      yield* SqliteClient.retryBusy(writeSync(1))
      clearInterval(ticking)
      // 60 in theory; a blocking wait would leave none.
      assert.isAbove(ticks, 10)
    }).pipe(Effect.provide(layer))
  )
})
