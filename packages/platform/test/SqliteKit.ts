/** What the tests of the SQLite stores share: files that are gone afterwards, and the shortest lease and commit. */
import { assert } from "@effect/vitest"
import { LeaseStore } from "@twinloop/core"
import type { Lease, StoreError, SyncStore } from "@twinloop/core"
import { Effect, Layer } from "effect"
import type { Scope } from "effect"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { SqliteStores } from "../src/sqlite/index.ts"

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
