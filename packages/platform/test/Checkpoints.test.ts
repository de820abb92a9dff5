import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Result, Scope } from "effect"
import type { Worker } from "node:worker_threads"
import { CheckpointThread } from "../src/sqlite/CheckpointThread.ts"
import * as SqliteClient from "../src/sqlite/SqliteClient.ts"
import { temporaryFile } from "./SqliteKit.ts"

/** More than a thousand pages of the log, in one commit. */
const burst = (client: SqliteClient.SqliteClient) =>
  client.transactionSync({ durable: false }, (transaction) => {
    for (let row = 0; row < 1_500; row++) transaction.run("INSERT INTO t VALUES (?)", "x".repeat(3_500))
    return Result.succeed(undefined)
  })

/** Pages of the log, and how many of them are in the database. */
const log = (client: SqliteClient.SqliteClient) =>
  Effect.map(
    client.unsafe<{ readonly log: number; readonly checkpointed: number }>("PRAGMA wal_checkpoint(NOOP)"),
    ([row]) => ({ pages: row?.log ?? -1, copied: row?.checkpointed ?? -1 })
  )

const open = Effect.fnUntraced(function* (thread: Layer.Layer<never> = Layer.empty) {
  const filename = yield* temporaryFile
  const context = yield* Layer.build(Layer.provide(SqliteClient.layer({ filename }), thread))
  const client = yield* Effect.provide(SqliteClient.SqliteClient, context)
  yield* client.unsafe("CREATE TABLE t (x TEXT)")
  return client
})

/** The threads that this process has started, as Node tells of them. */
const workers: Array<Worker> = []
process.on("worker", (worker: Worker) => void workers.push(worker))

/** A thread that only counts, and ends each copy when it is told to. */
const counting = Effect.sync(() => {
  const copies: Array<Deferred.Deferred<void>> = []
  const checkpoint = () =>
    Effect.suspend(() => {
      const copy = Deferred.makeUnsafe<void>()
      copies.push(copy)
      return Effect.uninterruptible(Deferred.await(copy))
    })
  return { copies, layer: Layer.succeed(CheckpointThread, { checkpoint }) }
})

describe("Checkpoints", () => {
  it.live("copies a long log in the background, all of it", () =>
    Effect.gen(function* () {
      const client = yield* open()
      yield* burst(client)
      yield* client.settled
      const { copied, pages } = yield* log(client)
      assert.isAbove(pages, 1_000)
      assert.strictEqual(copied, pages)
    }).pipe(Effect.scoped)
  )

  it.live("I10: starts one copy at a time, none in the commit itself, and none for a short log", () =>
    Effect.gen(function* () {
      const { copies, layer } = yield* counting
      const client = yield* open(layer)
      yield* client.transactionSync({ durable: false }, () => Result.succeed(undefined))
      assert.lengthOf(copies, 0)
      yield* burst(client)
      yield* burst(client)
      assert.lengthOf(copies, 1)
      assert.strictEqual((yield* log(client)).copied, 0)
      yield* Deferred.succeed(copies[0]!, undefined)
      yield* client.settled
      // Nothing was copied, so the next commit asks again (I9).
      yield* burst(client)
      assert.lengthOf(copies, 2)
      yield* Deferred.succeed(copies[1]!, undefined)
    }).pipe(Effect.scoped)
  )

  it.live("I10: lets who writes wait when the log is far too long, until it is copied", () =>
    Effect.gen(function* () {
      const { copies, layer } = yield* counting
      const client = yield* open(layer)
      for (let turn = 0; turn < 10; turn++) yield* burst(client)
      const writing = yield* Effect.forkChild(Effect.all([burst(client), burst(client)]), { startImmediately: true })
      assert.isUndefined(writing.pollUnsafe())
      assert.isAbove((yield* log(client)).pages, 16_384)
      yield* Deferred.succeed(copies[0]!, undefined)
      // The first of the two goes on, and the second one waits for a copy of its own.
      yield* Effect.repeat(Effect.yieldNow, { until: () => copies.length === 2 })
      yield* Deferred.succeed(copies[1]!, undefined)
      yield* Fiber.join(writing)
    }).pipe(Effect.scoped)
  )

  it.live("I4: closing waits for a copy that is under way", () =>
    Effect.gen(function* () {
      const { copies, layer } = yield* counting
      const scope = yield* Scope.make()
      const client = yield* Scope.provide(open(layer), scope)
      yield* burst(client)
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
      yield* Effect.yieldNow
      assert.isUndefined(closing.pollUnsafe())
      yield* Deferred.succeed(copies[0]!, undefined)
      yield* Fiber.join(closing)
    })
  )

  it.live("I4: settled waits for a copy that is under way, and for nothing when there is none", () =>
    Effect.gen(function* () {
      const { copies, layer } = yield* counting
      const client = yield* open(layer)
      yield* client.settled
      yield* burst(client)
      const settling = yield* Effect.forkChild(client.settled, { startImmediately: true })
      yield* Effect.yieldNow
      assert.isUndefined(settling.pollUnsafe())
      yield* Deferred.succeed(copies[0]!, undefined)
      yield* Fiber.join(settling)
    }).pipe(Effect.scoped)
  )

  it.live("I9: goes on when the thread ends in the middle of a copy: the next commit gets another one", () =>
    Effect.gen(function* () {
      const client = yield* open()
      yield* burst(client)
      const started = workers.length
      yield* Effect.promise(() => workers.at(-1)!.terminate())
      // Whoever waited for it has been let go.
      yield* client.settled
      yield* burst(client)
      yield* client.settled
      assert.lengthOf(workers, started + 1)
      const { copied, pages } = yield* log(client)
      assert.strictEqual(copied, pages)
      const [row] = yield* client.unsafe<{ readonly rows: number }>("SELECT COUNT(*) AS rows FROM t")
      assert.strictEqual(row?.rows, 2 * 1_500)
    }).pipe(Effect.scoped)
  )

  it.live("I9: goes on when a database can't be copied, and loses nothing", () =>
    Effect.gen(function* () {
      const { checkpoint } = yield* CheckpointThread
      yield* checkpoint("file:///nowhere/at/all.db?mode=rw")
      const client = yield* open()
      yield* burst(client)
      yield* client.settled
      const [row] = yield* client.unsafe<{ readonly rows: number }>("SELECT COUNT(*) AS rows FROM t")
      assert.strictEqual(row?.rows, 1_500)
    }).pipe(Effect.scoped)
  )
})
