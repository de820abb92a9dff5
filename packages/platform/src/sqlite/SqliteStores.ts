/**
 * A database file with everything that is stored in it: opened, migrated, and served as core's ports.
 */
import { LeaseStoreMemory } from "@twinloop/core"
import type { LeaseStore, StoreError, SyncStore } from "@twinloop/core"
import { Effect, Layer } from "effect"
import type { SqlClient } from "effect/sql"
import * as Migrations from "./Migrations.ts"
import * as SqliteClient from "./SqliteClient.ts"
import * as SqliteLeaseStore from "./SqliteLeaseStore.ts"
import * as SqliteSyncStore from "./SqliteSyncStore.ts"
import * as StoreFault from "./StoreFault.ts"

/** What a database provides: the two ports, and the client for what else is kept in it. */
export type SqliteStores = LeaseStore | SyncStore.SyncStore | SqliteClient.SqliteClient | SqlClient.SqlClient

/**
 * Opens a database file for the lifetime of the layer, creates or migrates its tables, and provides the stores.
 *
 * Safe when several processes do it at the same moment. Fails with `StoreError`: `StoreUnavailable` (missing directory,
 * not a file, I/O), `StoreReadOnly`, `StoreFull`, `StoreCorrupt`, `StoreNewer` (nothing was written), `StoreBusy`.
 *
 * @example
 * ```ts
 * import { SqliteStores } from "@twinloop/platform"
 *
 * const stores = SqliteStores.layer({ filename: "/home/me/.local/share/app/account.db" })
 * ```
 */
export const layer = (options: SqliteClient.SqliteClientConfig): Layer.Layer<SqliteStores, StoreError.StoreError> =>
  Layer.mergeAll(SqliteLeaseStore.layer, SqliteSyncStore.layer).pipe(Layer.provideMerge(layerDatabase(options)))

/**
 * The same for an application that is one process: no other process can open the file meanwhile (it fails with `StoreBusy`),
 * so leases are kept in memory and cost nothing.
 */
export const layerSingleProcess = (
  options: SqliteClient.SqliteClientConfig
): Layer.Layer<SqliteStores, StoreError.StoreError> =>
  Layer.mergeAll(LeaseStoreMemory.layerMemory, SqliteSyncStore.layer).pipe(
    Layer.provideMerge(layerDatabase({ ...options, exclusive: true }))
  )

/** The database itself, opened and migrated. */
const layerDatabase = (
  options: SqliteClient.SqliteClientConfig
): Layer.Layer<SqliteClient.SqliteClient | SqlClient.SqlClient, StoreError.StoreError> => {
  const { filename } = options
  const client = Layer.effectContext(
    Layer.build(SqliteClient.layer(options)).pipe(
      Effect.mapError((error) => StoreFault.toStoreError(filename, "open the database", error))
    )
  )
  const migrated = Layer.effectDiscard(
    Migrations.migrate(filename).pipe(StoreFault.guard(filename, "prepare the database"))
  )
  return migrated.pipe(Layer.provideMerge(client))
}
