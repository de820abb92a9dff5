/**
 * A database file in a directory of its own, gone when the scope closes, and a look into it from the test's own process.
 *
 * Gotchas: the look is a second connection, opened and closed for each question, so that the test holds no lock while the
 * processes work.
 */
import { Effect, Schedule } from "effect"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import type { SQLInputValue } from "node:sqlite"

/** The path of a database file that doesn't exist yet. */
export const make = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "tl-"))),
    (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
  ),
  (directory) => join(directory, "a.db")
)

/** Runs statements; waits for a lock of another process for 5 s at most. */
export const run = (database: string, sql: string): Effect.Effect<void> =>
  Effect.sync(() => {
    const db = new DatabaseSync(database, { timeout: 5_000 })
    try {
      db.exec(sql)
    } finally {
      db.close()
    }
  })

/** Rows of a query. */
export const all = <Row>(
  database: string,
  sql: string,
  ...params: ReadonlyArray<SQLInputValue>
): Effect.Effect<ReadonlyArray<Row>> =>
  Effect.sync(() => {
    const db = new DatabaseSync(database, { timeout: 5_000 })
    try {
      return db.prepare(sql).all(...params) as unknown as ReadonlyArray<Row>
    } finally {
      db.close()
    }
  })

/** Asks again every 5 ms until the answer is accepted; dies with the last answer after 10 s. */
export const until = <A>(what: string, look: Effect.Effect<A>, accepts: (answer: A) => boolean): Effect.Effect<A> => {
  let last: A | undefined
  return Effect.tap(look, (answer) => Effect.sync(() => (last = answer))).pipe(
    Effect.repeat({ until: accepts, schedule: Schedule.spaced("5 millis") }),
    Effect.timeoutOrElse({
      duration: "10 seconds",
      orElse: () => Effect.die(new Error(`${what} did not happen within 10 s; at last: ${JSON.stringify(last)}`))
    })
  )
}

/** How many wait in the queue for a lease. */
export const waiters = (database: string, name: string): Effect.Effect<number> =>
  Effect.map(all(database, `SELECT 1 FROM lease_waiter WHERE name = ?`, name), (rows) => rows.length)
