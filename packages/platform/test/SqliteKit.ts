/** What the tests of the SQLite stores share: files that are gone afterwards, and the shortest lease and commit. */
import { assert } from "@effect/vitest"
import { LeaseStore } from "@twinloop/core"
import type { Lease, StoreError, SyncStore } from "@twinloop/core"
import { Effect, Layer } from "effect"
import type { Scope } from "effect"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { Migrations, SqliteStores } from "../src/sqlite/index.ts"

/** A directory that is deleted when the scope ends. */
export const temporaryDirectory: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "twinloop-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
)

/** The name of a database file that doesn't exist, in such a directory. */
export const temporaryFile: Effect.Effect<string, never, Scope.Scope> = Effect.map(temporaryDirectory, (directory) =>
  join(directory, "account.db")
)

/** Stores in this file. */
export const storesAt = (filename: string): Layer.Layer<SqliteStores.SqliteStores, StoreError.StoreError> =>
  SqliteStores.layer({ filename })

/** Stores in a file of their own per build of the layer. */
export const temporaryStores: Layer.Layer<SqliteStores.SqliteStores, StoreError.StoreError> = Layer.unwrap(
  Effect.map(temporaryFile, storesAt)
)

/** Takes the lease `stream`; each round is long after the lease of the one before. */
export const own = (holder: string, round = 0): Effect.Effect<Lease.Fence, StoreError.StoreError, LeaseStore> =>
  Effect.gen(function* () {
    const leases = yield* LeaseStore
    const outcome = yield* leases.take({
      name: "stream",
      permits: 1,
      count: 1,
      holder,
      peer: {},
      nowMillis: round * 100_000,
      leaseMillis: 10_000
    })
    if (outcome._tag === "Busy") return assert.fail(`${outcome.blocker.holder} has the lease`)
    return { name: "stream", holder, generation: outcome.generation }
  })

/** A batch with an inbox event per body. */
export const commit = (since: string, bodies: ReadonlyArray<unknown>): SyncStore.ExtensionCommit => ({
  position: { since },
  inbox: bodies.map((body) => ({ type: "t", sender: "@s:example.org", event: { body }, encryption: "none" })),
  crypto: [],
  quarantined: []
})

/** What undoes each schema version: the tables as they were before it, with what is in them. */
const undo: { readonly [version: number]: string } = {
  2: `DROP TABLE account_device`,
  3: `CREATE TABLE old_timeline_entry (
      room INTEGER NOT NULL, position INTEGER NOT NULL, event_id TEXT, event TEXT, prev_batch TEXT,
      CHECK ((event_id IS NULL) = (event IS NULL)), PRIMARY KEY (room, position)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO old_timeline_entry SELECT room, position, event_id, event, prev_batch FROM timeline_entry;
    DROP TABLE timeline_entry;
    ALTER TABLE old_timeline_entry RENAME TO timeline_entry;
    CREATE UNIQUE INDEX timeline_entry_event_id ON timeline_entry (room, event_id) WHERE event_id IS NOT NULL;
    CREATE TABLE old_state_event (
      room INTEGER NOT NULL, type TEXT NOT NULL, state_key TEXT NOT NULL, event TEXT NOT NULL,
      PRIMARY KEY (room, type, state_key)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO old_state_event SELECT room, type, state_key, event FROM state_event;
    DROP TABLE state_event;
    ALTER TABLE old_state_event RENAME TO state_event`,
  4: `DROP TABLE encryption_news`,
  5: `ALTER TABLE lease_waiter DROP COLUMN urgent`,
  6: `CREATE TABLE old_crypto_record (
      collection TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY (collection, key)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO old_crypto_record SELECT collection, key, value FROM crypto_record;
    DROP TABLE crypto_record;
    ALTER TABLE old_crypto_record RENAME TO crypto_record`,
  7: `DROP TABLE push_registration; DROP TABLE push_queue; DROP TABLE push_seen; DROP TABLE push_badge`
}

/** Turns a closed database back to an earlier schema version, as the software of that version left it. */
export const turnBack = (filename: string, version: number): void => {
  const db = new DatabaseSync(filename)
  for (let later = Migrations.knownVersion; later > version; later--) db.exec(undo[later]!)
  db.exec(`DELETE FROM twinloop_migrations WHERE migration_id > ${version}`)
  db.close()
}
