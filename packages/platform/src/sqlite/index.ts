/** SQLite: the client, the schema, and the stores in one database file. */
export * as Migrations from "./Migrations.ts"
export * as SqliteClient from "./SqliteClient.ts"
export * as SqliteLeaseStore from "./SqliteLeaseStore.ts"
export * as SqliteStores from "./SqliteStores.ts"
export * as SqliteSyncStore from "./SqliteSyncStore.ts"
export * as StoreFault from "./StoreFault.ts"
