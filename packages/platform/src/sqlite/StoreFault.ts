/**
 * What SQLite's and the file system's errors mean to the callers of a store: core's `StoreError`, with a message that says
 * what happened, to which file, and what to do next.
 *
 * Gotchas: SQLite's extended result codes carry the primary code in their low byte (sqlite.org/rescode.html), and only
 * that is looked at, except for a moved file.
 *
 * Not here: refusals that protect the data, which the stores decide (`SqliteSyncStore.ts`).
 */
import { StoreError } from "@twinloop/core"
import { Effect, Predicate, Schema } from "effect"
import { Migrator, SqlError } from "effect/sql"
import * as SqliteClient from "./SqliteClient.ts"
import * as SqliteFile from "./SqliteFile.ts"

type Explain = (file: string, cause: unknown) => StoreError.StoreErrorReason

const detail = (cause: unknown): string =>
  Predicate.hasProperty(cause, "message") && typeof cause.message === "string" ? cause.message : String(cause)

const busy: Explain = (file) =>
  new StoreError.StoreBusy({
    message: `another process kept the database ${file} locked for longer than storeBusyMillis allows; try again, and look for a process that holds a transaction open, or has the database for itself alone (singleProcess)`
  })

const full: Explain = (file) =>
  new StoreError.StoreFull({
    message: `there is no room left to write the database ${file}; free disk space or raise the quota, then try again`
  })

const readOnly: Explain = (file, cause) =>
  new StoreError.StoreReadOnly({
    message: `the database ${file} can't be written (${detail(cause)}); give this user write access to the file and its directory, or choose another path`
  })

const corrupt: Explain = (file, cause) =>
  new StoreError.StoreCorrupt({
    message: `the database ${file} is damaged or not a Twinloop database (${detail(cause)}); move it and its -wal and -shm files away, then start again with a new login or a backup`
  })

const cannotOpen: Explain = (file, cause) =>
  new StoreError.StoreUnavailable({
    message: `the database ${file} can't be opened (${detail(cause)}); check that its directory exists and that the path names a file`,
    cause
  })

const moved: Explain = (file) =>
  new StoreError.StoreReadOnly({
    message: `the database ${file} is gone: the file was deleted or replaced while it was in use, and nothing was written; stop every process of the account, put the file back or log in again, then start again`
  })

const failed: Explain = (file, cause) =>
  new StoreError.StoreUnavailable({
    message: `the database ${file} failed (${detail(cause)}); check the disk and its file system, then start again`,
    cause
  })

/** By SQLite's primary result code. */
const bySqlite: { readonly [code: number]: Explain } = {
  3: readOnly, // SQLITE_PERM
  5: busy, // SQLITE_BUSY
  6: busy, // SQLITE_LOCKED
  8: readOnly, // SQLITE_READONLY
  10: failed, // SQLITE_IOERR
  11: corrupt, // SQLITE_CORRUPT
  13: full, // SQLITE_FULL
  14: cannotOpen, // SQLITE_CANTOPEN
  26: corrupt // SQLITE_NOTADB
}

/** By the file system's error code, from making the directory and the file. */
const byFileSystem: { readonly [code: string]: Explain } = {
  EACCES: readOnly,
  EPERM: readOnly,
  EROFS: readOnly,
  ENOSPC: full,
  EDQUOT: full,
  ENOENT: cannotOpen,
  ENOTDIR: cannotOpen,
  EISDIR: cannotOpen
}

const explain = (cause: unknown): Explain => {
  // A column that should hold JSON.
  if (cause instanceof SyntaxError) return corrupt
  if (Predicate.hasProperty(cause, "errcode") && typeof cause.errcode === "number") {
    return cause.errcode === SqliteFile.movedCode ? moved : (bySqlite[cause.errcode & 0xff] ?? failed)
  }
  if (Predicate.hasProperty(cause, "code") && typeof cause.code === "string") return byFileSystem[cause.code] ?? failed
  return failed
}

/** The error that the driver or the file system gave, under the wrappers of `effect/sql`. */
const innermost = (error: unknown): unknown => {
  if (SqlError.isSqlError(error)) return error.reason.cause
  return error instanceof Migrator.MigrationError && error.cause !== undefined ? innermost(error.cause) : error
}

const isStoreError = Schema.is(StoreError.StoreError)
const isReason = Schema.is(StoreError.StoreErrorReason)

/**
 * Turns what went wrong while doing `operation` on the database file `filename` into a `StoreError`.
 *
 * Reasons that a store gave itself (`StaleGeneration`, `Moved`, ...) and errors that are `StoreError`s stay what they are.
 */
export const toStoreError = (filename: string, operation: string, error: unknown): StoreError.StoreError => {
  if (isStoreError(error)) return error
  if (isReason(error)) return new StoreError.StoreError({ operation, reason: error })
  const cause = innermost(error)
  return new StoreError.StoreError({ operation, reason: explain(cause)(filename, cause) })
}

/**
 * Gives an operation of a store its error channel: retried while the database is locked, then {@link toStoreError}.
 *
 * Use it for reads and for transactions alike, around the whole of each.
 */
export const guard =
  (filename: string, operation: string) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, StoreError.StoreError, R> =>
    Effect.mapError(SqliteClient.retryBusy(self), (error) => toStoreError(filename, operation, error))
