/**
 * `effect/sql`'s `SqlClient` over `node:sqlite`: one connection behind one first-come-first-served semaphore.
 *
 * Includes the layer (same surface as `@effect/sql-sqlite-node`), `transactionSync` and `readSync` for the stores, and
 * `retryBusy`.
 *
 * Invariants: I9 (a locked database is retried), I10 (for `SyncConfig.storeBusyMillis` at most).
 *
 * Gotchas:
 * - SQLite's own busy timeout is 0. Its busy handler sleeps on the main thread: a foreign lock of 500 ms costs 531 ms
 *   without one timer tick. Whoever meets a lock fails at once and is retried by a schedule, outside the semaphore.
 * - `transactionSync` runs in one synchronous block. So nothing can be awaited inside, no interruption can leave it half
 *   done, and other processes wait microseconds, whatever else the event loop has to do.
 * - `synchronous` belongs to the connection and can't change inside a transaction, so each transaction sets it before its
 *   BEGIN, under the semaphore. A second connection for durable writes would be a second writer that gets SQLITE_BUSY
 *   from its own process, and would lose the order of the semaphore's queue.
 *
 * Not here: what errors mean to callers (`StoreFault.ts`), tables (`Migrations.ts`).
 */
import { SyncConfig } from "@twinloop/core"
import { Context, Effect, Layer, Option, Result, Schedule, Semaphore, Stream } from "effect"
import type { Scope } from "effect"
import { Reactivity } from "effect/reactivity"
import { SqlClient, SqlError, Statement } from "effect/sql"
import type { SqlConnection } from "effect/sql"
import { DatabaseSync } from "node:sqlite"
import type { SQLInputValue, StatementSync } from "node:sqlite"
import * as Checkpoints from "./Checkpoints.ts"
import * as SqliteFile from "./SqliteFile.ts"

export interface SqliteClientConfig {
  /** Path of the database file, or `:memory:`. Its directory is made if only the last component is missing. */
  readonly filename: string
  /** Opens without the right to write; the file must exist. Default false. */
  readonly readonly?: boolean
  /**
   * Keeps every other process out for as long as the client is open: for an application that is one process. The file's own
   * lock is then what a lease is among several. Others fail with `LockTimeoutError`. Default false.
   */
  readonly exclusive?: boolean
  /** Prepared statements that are kept, first in first out. Default 200: more than the stores have. */
  readonly prepareCacheSize?: number
  readonly spanAttributes?: { readonly [key: string]: unknown }
}

/** Reads inside a transaction. Statements are prepared once and kept; parameters are positional. */
export interface SyncReader {
  /** The first row, or `undefined`. */
  readonly get: <Row extends object>(sql: string, ...params: ReadonlyArray<SQLInputValue>) => Row | undefined
  /** All rows. */
  readonly all: <Row extends object>(sql: string, ...params: ReadonlyArray<SQLInputValue>) => ReadonlyArray<Row>
}

/** Reads and writes inside a transaction. */
export interface SyncTransaction extends SyncReader {
  /** Runs a statement that gives no rows. */
  readonly run: (
    sql: string,
    ...params: ReadonlyArray<SQLInputValue>
  ) => { readonly changes: number; readonly lastInsertRowid: number }
}

export interface SqliteClient extends SqlClient.SqlClient {
  readonly config: SqliteClientConfig
  /**
   * Runs `body` in one `BEGIN IMMEDIATE` transaction, in one synchronous block. Put {@link retryBusy} around it.
   *
   * Commits when `body` gives a success; rolls back when it gives a failure or throws. What it throws and isn't SQLite's
   * is a defect, except for a `SyntaxError`: stored JSON that isn't JSON. `body` can run several times, so it must change
   * nothing but the database.
   *
   * Fails without having written anything when the file was deleted or replaced since it was opened.
   *
   * `durable`: synced to disk before it returns (`synchronous=FULL`). Otherwise a power loss can undo it, though never
   * out of order.
   */
  readonly transactionSync: <A, E>(
    options: { readonly durable: boolean },
    body: (transaction: SyncTransaction) => Result.Result<A, E>
  ) => Effect.Effect<A, E | SqlError.SqlError>
  /** Like `transactionSync`, but only reads: one consistent view, which waits for no writer and holds up none. */
  readonly readSync: <A>(body: (reader: SyncReader) => A) => Effect.Effect<A, SqlError.SqlError>
  /**
   * Reads at once, outside of any transaction of this module: for what can't wait, such as a record that a synchronous caller
   * asks for. Throws SQLite's errors, also that the database is locked or closed. Inside somebody's `withTransaction` it sees
   * what that has written.
   */
  readonly now: SyncReader
  /** Waits for a checkpoint that runs in the background (`Checkpoints.ts`); there is a new one only after a new commit. */
  readonly settled: Effect.Effect<void>
}

/** The client with what only SQLite has; `SqlClient.SqlClient` is the same object. */
export const SqliteClient: Context.Service<SqliteClient, SqliteClient> = Context.Service<SqliteClient>(
  "@twinloop/platform/SqliteClient"
)

/** Whether an error says that somebody else is writing, so that a retry can help. */
export const isBusy = (error: unknown): boolean =>
  SqlError.isSqlError(error) && error.reason._tag === "LockTimeoutError"

/** Between two tries at a locked database, before jitter. */
const busyPauseMillis = 2

/** What jitter makes of a pause at the least: 0.8 of it. So many tries fit into a time, whatever the clock says of it. */
const maxTries = (millis: number): number => Math.ceil(millis / (0.8 * busyPauseMillis))

/**
 * Retries while the database is locked, every 2 ms with jitter, for `SyncConfig.storeBusyMillis` at most. Put it around
 * whole transactions, never inside one.
 */
export const retryBusy = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.flatMap(SyncConfig.SyncConfig, ({ storeBusyMillis }) =>
    Effect.retry(self, {
      while: isBusy,
      schedule: Schedule.spaced(busyPauseMillis).pipe(
        Schedule.jittered,
        // The clock may be set back meanwhile: then the number of tries ends it.
        Schedule.upTo({ duration: storeBusyMillis, times: maxTries(storeBusyMillis) })
      )
    })
  )

const isSqliteCause = (cause: unknown): cause is Error & { readonly errcode: number } =>
  cause instanceof Error && "errcode" in cause && typeof cause.errcode === "number"

/** `node:sqlite` gives SQLite's number as `errcode`, and Effect's classifier reads `errno`. */
const sqlError =
  (operation: string) =>
  (cause: unknown): SqlError.SqlError => {
    const numbered = isSqliteCause(cause) ? Object.assign(cause, { errno: cause.errcode }) : cause
    const reason = SqlError.classifySqliteError(numbered, { message: `Failed to ${operation}`, operation })
    return new SqlError.SqlError({ reason })
  }

/** The file system's errors have codes that SQLite's classifier would misread. */
const fileError = (cause: unknown): SqlError.SqlError =>
  new SqlError.SqlError({
    reason: new SqlError.ConnectionError({ cause, message: "Failed to prepare the file", operation: "open" })
  })

/** A statement cache, first in first out: a hit costs one look-up, since a page of rooms has thousands. */
const makePrepare = (db: DatabaseSync, capacity: number) => {
  const cache = new Map<string, StatementSync>()
  return (sql: string): StatementSync => {
    const known = cache.get(sql)
    if (known !== undefined) return known
    const statement = db.prepare(sql)
    const oldest = cache.keys().next()
    if (cache.size >= capacity && oldest.done !== true) cache.delete(oldest.value)
    cache.set(sql, statement)
    return statement
  }
}

type Prepare = (sql: string) => StatementSync

// `unknown` comes from `effect/sql`, whose compiler passes on what the caller bound; node:sqlite checks each value.
const bindable = (params: ReadonlyArray<unknown>): Array<SQLInputValue> => params as Array<SQLInputValue>

const makeConnection = (db: DatabaseSync, prepare: Prepare): SqlConnection.Connection => {
  const run = <A>(
    sql: string,
    options: { readonly cached: boolean; readonly arrays: boolean },
    use: (statement: StatementSync) => A
  ): Effect.Effect<A, SqlError.SqlError> =>
    Effect.withFiber((fiber) =>
      Effect.try({
        try: () => {
          const statement = options.cached ? prepare(sql) : db.prepare(sql)
          statement.setReadBigInts(fiber.getRef(SqlClient.SafeIntegers))
          statement.setReturnArrays(options.arrays)
          return use(statement)
        },
        catch: sqlError("execute a statement")
      })
    )
  // A statement without columns gives no rows, and `all` runs it just as well.
  const rows =
    (cached: boolean): SqlConnection.Connection["execute"] =>
    (sql, params, transform) =>
      Effect.map(
        run(sql, { cached, arrays: false }, (statement) => statement.all(...bindable(params))),
        (all) => (transform === undefined ? all : transform(all))
      )
  // node:sqlite types every row as a record, also those of a statement that was set to return arrays.
  const values =
    (cached: boolean): SqlConnection.Connection["executeValues"] =>
    (sql, params) =>
      run(
        sql,
        { cached, arrays: true },
        (statement) => statement.all(...bindable(params)) as unknown as ReadonlyArray<ReadonlyArray<unknown>>
      )
  return {
    execute: rows(true),
    executeUnprepared: rows(false),
    executeValues: values(true),
    executeValuesUnprepared: values(false),
    executeRaw: (sql, params) =>
      run(sql, { cached: true, arrays: false }, (statement): unknown =>
        statement.columns().length > 0 ? statement.all(...bindable(params)) : statement.run(...bindable(params))
      ),
    // Read at once: a cursor that a slow consumer keeps open would keep the log from being checkpointed.
    executeStream: (sql, params, transform) => Stream.fromIterableEffect(rows(true)(sql, params, transform))
  }
}

const makeTransaction = (prepare: Prepare): SyncTransaction => ({
  run: (sql, ...params) => {
    const { changes, lastInsertRowid } = prepare(sql).run(...params)
    return { changes: Number(changes), lastInsertRowid: Number(lastInsertRowid) }
  },
  // node:sqlite types rows as records of values; the statement beside the type argument says which columns there are.
  get: <Row extends object>(sql: string, ...params: ReadonlyArray<SQLInputValue>) =>
    prepare(sql).get(...params) as Row | undefined,
  all: <Row extends object>(sql: string, ...params: ReadonlyArray<SQLInputValue>) =>
    prepare(sql).all(...params) as unknown as ReadonlyArray<Row>
})

const rollBack = (db: DatabaseSync): void => {
  if (db.isTransaction) db.exec("ROLLBACK")
}

/** Runs a body between the statements that begin and COMMIT; throws what goes wrong, with nothing left open. */
const runTransaction = <A, E>(
  db: DatabaseSync,
  transaction: SyncTransaction,
  begin: ReadonlyArray<string>,
  body: (transaction: SyncTransaction) => Result.Result<A, E>
): Result.Result<A, E> => {
  // A ROLLBACK that failed earlier is repeated: the semaphore is ours, so the transaction is nobody else's.
  rollBack(db)
  for (const statement of begin) transaction.run(statement)
  try {
    const result = body(transaction)
    if (Result.isSuccess(result)) transaction.run("COMMIT")
    return result
  } finally {
    rollBack(db)
  }
}

type Mode = "read" | "write" | "durable"

const begin: { readonly [mode in Mode]: ReadonlyArray<string> } = {
  read: ["BEGIN"],
  write: ["PRAGMA synchronous = NORMAL", "BEGIN IMMEDIATE"],
  durable: ["PRAGMA synchronous = FULL", "BEGIN IMMEDIATE"]
}

/** The synchronous hooks, which take turns with everything else that uses the connection. */
const makeSync = (
  db: DatabaseSync,
  assertUnmoved: () => void,
  prepare: Prepare,
  semaphore: Semaphore.Semaphore,
  checkpoints: Checkpoints.Checkpoints,
  openTransaction: SqlClient.SqlClient["transactionService"]
): Pick<SqliteClient, "transactionSync" | "readSync" | "now"> => {
  const transaction = makeTransaction(prepare)
  /** Length of the log after the last write. */
  let logPages = 0
  const run = <A, E>(
    mode: Mode,
    body: (transaction: SyncTransaction) => Result.Result<A, E>
  ): Effect.Effect<A, E | SqlError.SqlError> => {
    const attempt = Effect.suspend((): Effect.Effect<A, E | SqlError.SqlError> => {
      try {
        if (mode !== "read") assertUnmoved()
        const result = runTransaction(db, transaction, begin[mode], body)
        if (mode !== "read") logPages = checkpoints.length()
        return Effect.fromResult(result)
      } catch (cause) {
        const stored = isSqliteCause(cause) || cause instanceof SyntaxError || !db.isOpen
        return stored ? Effect.fail(sqlError("execute a transaction")(cause)) : Effect.die(cause)
      }
    })
    return Effect.flatMap(Effect.serviceOption(openTransaction), (open) =>
      Option.isSome(open)
        ? Effect.die(new Error("a synchronous transaction inside withTransaction would wait for itself"))
        : Effect.tap(semaphore.withPermit(attempt), () =>
            mode === "read" ? Effect.void : checkpoints.shorten(logPages)
          )
    )
  }
  return {
    transactionSync: ({ durable }, body) => run(durable ? "durable" : "write", body),
    readSync: (body) => run("read", (reader) => Result.succeed(body(reader))),
    now: { get: transaction.get, all: transaction.all }
  }
}

/** Switches to the write-ahead log, which lets readers and one writer work side by side. Fails while others do the same. */
const configure = (db: DatabaseSync, options: SqliteClientConfig): void => {
  if (options.readonly === true || SqliteFile.isMemory(options.filename)) return
  // Before the first use of the write-ahead log, or its shared memory would already be open to others.
  if (options.exclusive === true) db.exec("PRAGMA locking_mode = EXCLUSIVE")
  const mode = db.prepare("PRAGMA journal_mode").get()?.["journal_mode"]
  if (mode !== "wal") db.exec("PRAGMA journal_mode = WAL")
  // After a burst of writes the log is cut back to 64 MiB, instead of keeping the disk space for good.
  db.exec("PRAGMA journal_size_limit = 67108864")
  // The lock is taken by the first transaction, and kept.
  if (options.exclusive === true) db.exec("BEGIN IMMEDIATE; COMMIT")
}

const open = (options: SqliteClientConfig): Effect.Effect<DatabaseSync, SqlError.SqlError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.try({
      try: () =>
        new DatabaseSync(SqliteFile.nameOf(options.filename), { readOnly: options.readonly ?? false, timeout: 0 }),
      catch: sqlError("open the database")
    }),
    (db) => Effect.sync(() => closeNow(db))
  )

const closeNow = (db: DatabaseSync): void => {
  if (db.isOpen) db.close()
}

/**
 * Closes once the transaction that is running has ended, and whoever waited before; what comes later finds the database
 * closed. Gives up after `storeBusyMillis`: then it is closed under them, and what they wrote is rolled back.
 */
const closeInTurn = (db: DatabaseSync, semaphore: Semaphore.Semaphore): Effect.Effect<void> =>
  Effect.flatMap(SyncConfig.SyncConfig, ({ storeBusyMillis }) =>
    semaphore.withPermit(Effect.sync(() => closeNow(db))).pipe(
      // A finalizer can't be interrupted, and so not be timed out, unless it says so.
      Effect.interruptible,
      Effect.timeoutOption(storeBusyMillis),
      Effect.asVoid
    )
  )

/**
 * Opens a database for the lifetime of the scope, whose end waits for a running transaction, for
 * `SyncConfig.storeBusyMillis` at most. What is asked of a closed database fails with `SqlError`.
 *
 * Fails with `SqlError`: `ConnectionError` when the file can't be prepared or opened, `LockTimeoutError` when other
 * processes are opening it for longer than `SyncConfig.storeBusyMillis`, `UnknownError` for everything else.
 */
export const make = Effect.fnUntraced(function* (
  options: SqliteClientConfig
): Effect.fn.Return<SqliteClient, SqlError.SqlError, Scope.Scope | Reactivity.Reactivity> {
  if (options.readonly !== true && !SqliteFile.isMemory(options.filename)) {
    yield* Effect.try({ try: () => SqliteFile.prepare(options.filename), catch: fileError })
  }
  // Before it is opened: a file that is replaced in between is refused at the first write.
  const assertUnmoved = SqliteFile.guard(options.filename)
  const db = yield* open(options)
  yield* retryBusy(Effect.try({ try: () => configure(db, options), catch: sqlError("open the database") }))

  const capacity = options.prepareCacheSize ?? 200
  const semaphore = yield* Semaphore.make(1)
  yield* Effect.addFinalizer(() => closeInTurn(db, semaphore))
  const canShare = options.readonly !== true && options.exclusive !== true && !SqliteFile.isMemory(options.filename)
  const checkpoints = canShare ? yield* Checkpoints.make(db, SqliteFile.nameOf(options.filename)) : Checkpoints.none
  const client = yield* SqlClient.make({
    ...SqlClient.makeSqliteAcquirers({
      connection: Effect.succeed(makeConnection(db, makePrepare(db, capacity))),
      semaphore,
      isTransaction: () => db.isTransaction
    }),
    compiler: Statement.makeCompilerSqlite(),
    driver: "node-sqlite",
    // A transaction that reads first and then writes is refused at once when another wrote in between (SQLITE_BUSY_SNAPSHOT).
    beginTransaction: "BEGIN IMMEDIATE",
    prepareTransactionControls: true,
    releaseSavepoint: (name) => `RELEASE SAVEPOINT ${name}`,
    spanAttributes: [["db.system.name", "sqlite"], ...Object.entries(options.spanAttributes ?? {})]
  })
  // Statements of its own, since those of the connection are set to give rows as its caller likes.
  const sync = makeSync(db, assertUnmoved, makePrepare(db, capacity), semaphore, checkpoints, client.transactionService)
  return Object.assign(client, { config: options, settled: checkpoints.settled, ...sync })
})

/** The client as `SqlClient.SqlClient` and as {@link SqliteClient}; see {@link make} for its errors. */
export const layer = (
  options: SqliteClientConfig
): Layer.Layer<SqliteClient | SqlClient.SqlClient, SqlError.SqlError> =>
  Layer.effectContext(
    Effect.map(make(options), (client) =>
      Context.make(SqliteClient, client).pipe(Context.add(SqlClient.SqlClient, client))
    )
  ).pipe(Layer.provide(Reactivity.layer))
