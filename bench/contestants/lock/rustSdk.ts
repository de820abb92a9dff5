/**
 * The algorithm of matrix-rust-sdk's cross-process lock (`CrossProcessLock`, with the constants of its `spin_lock(60000)`),
 * written from its description: a lease in one SQLite row, renewed twenty times a second. `node rustSdk.ts <LockTask>`.
 *
 * Gotchas: nobody writes a release. The task that renews finds at its next lap that nobody holds the lock any more, and
 * writes a lease of 0 ms; whoever takes it again before that keeps it. A waiter looks after 10 ms, 20 ms, 40 ms and so on,
 * and gives up once the next wait would be a minute.
 */
import { DatabaseSync } from "node:sqlite"
import { setTimeout as sleep } from "node:timers/promises"
import { task } from "../Figures.ts"
import { die, type Lock, type LockTask } from "./LockLine.ts"
import { run } from "./Member.ts"

/** How long a lease lasts, in milliseconds. */
const LEASE_MILLIS = 500
/** How often it is renewed. */
const RENEW_MILLIS = 50
const FIRST_WAIT_MILLIS = 10
const LONGEST_WAIT_MILLIS = 60_000

/** Each of its transactions is synced to disk. */
const open = (file: string): DatabaseSync => {
  const db = new DatabaseSync(file, { timeout: 2_000 })
  db.exec(`PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS lease_locks (
      key TEXT PRIMARY KEY, holder TEXT NOT NULL, expiration INTEGER NOT NULL, generation INTEGER NOT NULL DEFAULT 1
    ) STRICT`)
  return db
}

const TAKE = `INSERT INTO lease_locks (key, holder, expiration) VALUES (?1, ?2, ?3)
  ON CONFLICT (key) DO UPDATE SET holder = excluded.holder, expiration = excluded.expiration,
    generation = CASE holder WHEN excluded.holder THEN generation ELSE generation + 1 END
  WHERE holder = excluded.holder OR expiration < ?4
  RETURNING generation`

/** Those of this process who hold one lock, and whether somebody takes care of its lease. */
interface Held {
  guards: number
  isRenewed: boolean
}

const make = (file: string): Lock => {
  const holder = `pid ${process.pid}`
  const statement = open(file).prepare(TAKE)
  const names = new Map<string, Held>()
  const waits = new Map<string, number>()

  /** Takes, renews or (with 0) gives up the lease; whether it was ours to do so. */
  const lease = (name: string, millis: number): boolean => {
    const now = Date.now()
    return statement.get(name, holder, now + millis, now) !== undefined
  }

  const renew = async (name: string, held: Held): Promise<void> => {
    while (held.isRenewed) {
      if (held.guards === 0) {
        lease(name, 0)
        return
      }
      await sleep(RENEW_MILLIS)
      if (held.isRenewed && !lease(name, LEASE_MILLIS)) die(`the lease "${name}" was lost`)
    }
  }

  const tryTake = (name: string): Held | undefined => {
    const known = names.get(name)
    if (known !== undefined && known.guards > 0) {
      known.guards++
      return known
    }
    if (!lease(name, LEASE_MILLIS)) return undefined
    // The task of the turn before, if it still runs, would give up the lease of this one.
    if (known !== undefined) known.isRenewed = false
    const held = { guards: 1, isRenewed: true }
    names.set(name, held)
    void renew(name, held)
    return held
  }

  return {
    take: async (name) => {
      for (;;) {
        const held = tryTake(name)
        if (held !== undefined) {
          waits.set(name, FIRST_WAIT_MILLIS)
          return async () => {
            held.guards--
          }
        }
        const wait = waits.get(name) ?? FIRST_WAIT_MILLIS
        if (wait >= LONGEST_WAIT_MILLIS) die(`timed out waiting for the lease "${name}"`)
        waits.set(name, wait * 2)
        await sleep(wait)
      }
    }
  }
}

run(Promise.resolve(make(task<LockTask>().database)))
