/**
 * The port through which IndexedDB reads what is durable: rows of (collection, key, value), sorted by the bytes of their key.
 *
 * Gotchas: reading is synchronous. A request of IndexedDB is worked on in one piece, and its transaction has checked by then
 * that nobody else in this process writes what it reads.
 *
 * Not here: rows that aren't durable yet (`Overlay.ts`).
 */

/** A row of a collection. */
export interface Row {
  readonly key: Uint8Array
  readonly value: Uint8Array
}

export interface RangeOptions {
  /** From the end to the beginning. */
  readonly descending: boolean
  /** Rows at most. */
  readonly limit: number
}

/**
 * Reads what is durable at that moment, also what another process committed since the last call. What a method throws fails
 * the request that asked, aborts its transaction, and is kept for `IndexedDb.takeError`.
 */
export interface RecordReader {
  /** The value at a key. */
  readonly get: (collection: string, key: Uint8Array) => Uint8Array | undefined
  /** The rows from `lower` up to `upper` (exclusive; absent: to the end), in the order of their keys as unsigned bytes. */
  readonly range: (
    collection: string,
    lower: Uint8Array,
    upper: Uint8Array | undefined,
    options: RangeOptions
  ) => ReadonlyArray<Row>
  /** How many rows there are between the same bounds. */
  readonly count: (collection: string, lower: Uint8Array, upper: Uint8Array | undefined) => number
}
