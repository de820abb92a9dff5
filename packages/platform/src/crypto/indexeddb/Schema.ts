/**
 * What a database consists of, as it is stored: JSON in a row of the collection `schema`.
 *
 * Gotchas: names and key paths may be anything that IndexedDB allows, so they are stored as they are.
 */

export type KeyPath = string | ReadonlyArray<string> | null

export interface IndexSchema {
  readonly name: string
  readonly keyPath: KeyPath
  readonly multiEntry: boolean
  readonly unique: boolean
  /** Where its rows are. */
  readonly collection: string
}

export interface StoreSchema {
  readonly name: string
  readonly keyPath: KeyPath
  readonly autoIncrement: boolean
  /** The last number that its key generator gave; absent without one. */
  readonly generated?: number
  /** Where its rows are. */
  readonly collection: string
  readonly indexes: ReadonlyArray<IndexSchema>
}

export interface DatabaseSchema {
  readonly version: number
  readonly stores: ReadonlyArray<StoreSchema>
}

/** Every collection that belongs to a database. */
export const collectionsOf = (schema: DatabaseSchema): ReadonlyArray<string> =>
  schema.stores.flatMap((store) => [store.collection, ...store.indexes.map((index) => index.collection)])
