/**
 * Keeps the write-ahead log of one database short, without holding up who writes.
 *
 * Invariants: I4 (`settled`; closing waits), I10 (`LOG_PAGES`; at twice that, when no thread can be had, the commit itself
 * copies, as SQLite does by default from 1000 pages on).
 *
 * Gotchas: SQLite tells the length of the log without a checkpoint since 3.51; with an older one, with a file that no second
 * connection can open, and in memory, it is left to SQLite.
 *
 * Not here: the copying (`CheckpointThread.ts`).
 */
import { Effect, FiberHandle } from "effect"
import type { Scope } from "effect"
import type { DatabaseSync } from "node:sqlite"
import { pathToFileURL } from "node:url"
import { CheckpointThread } from "./CheckpointThread.ts"

export interface Checkpoints {
  /** Pages of the log that are not in the database yet. Takes microseconds; not inside a transaction. */
  readonly length: () => number
  /** After a commit that left a log of this length: has it copied if that is worth it, and waits for that only if it is far too long. */
  readonly shorten: (pages: number) => Effect.Effect<void>
  /** Waits until nothing is being copied. */
  readonly settled: Effect.Effect<void>
}

/** Pages in the log that are worth a checkpoint: SQLite's own default, 4 MB. */
const DUE_PAGES = 1_000

/** Pages in the log at which who writes waits for the copying: 64 MiB, to which the log is also cut back. */
const LOG_PAGES = 16_384

/** Leaves everything to SQLite. */
export const none: Checkpoints = { length: () => 0, shorten: () => Effect.void, settled: Effect.void }

const knowsLength = (db: DatabaseSync): boolean => {
  const version = String(db.prepare("SELECT sqlite_version() AS version").get()?.["version"])
  const [major = 0, minor = 0] = version.split(".").map(Number)
  return major > 3 || (major === 3 && minor >= 51)
}

/** For an open database with a write-ahead log, at an absolute path; the scope's end waits for a checkpoint that runs. */
export const make = Effect.fnUntraced(function* (
  db: DatabaseSync,
  path: string
): Effect.fn.Return<Checkpoints, never, Scope.Scope> {
  if (!knowsLength(db)) return none
  db.exec(`PRAGMA wal_autocheckpoint = ${2 * LOG_PAGES}`)
  const status = db.prepare("PRAGMA wal_checkpoint(NOOP)")
  const thread = yield* CheckpointThread
  const running = yield* FiberHandle.make<void>()
  // Doesn't make a file that is gone.
  const database = `${pathToFileURL(path).href}?mode=rw`
  const start = FiberHandle.run(running, thread.checkpoint(database), { onlyIfMissing: true })
  const settled = Effect.orDie(FiberHandle.awaitEmpty(running))
  return {
    length: () => {
      try {
        const row = status.get()
        return Number(row?.["log"]) - Number(row?.["checkpointed"])
      } catch {
        // The commit before it stands, whatever is wrong now: it must not be taken for one that failed. The next one asks again.
        return 0
      }
    },
    shorten: (pages) => {
      if (pages < DUE_PAGES) return Effect.void
      return pages < LOG_PAGES ? Effect.asVoid(start) : Effect.andThen(start, settled)
    },
    settled
  }
})
