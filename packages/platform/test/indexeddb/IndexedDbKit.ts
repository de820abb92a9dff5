/**
 * What the tests of our IndexedDB share: rows in memory, the parts of the interface that they use, an untouched copy of
 * `fake-indexeddb` to compare with, and events as promises.
 */
import { assert } from "@effect/vitest"
import type { SyncStore } from "@twinloop/core"
import { IndexedDb } from "../../src/crypto/indexeddb/index.ts"
import type { RecordReader, Row } from "../../src/crypto/indexeddb/index.ts"
import { directoryOf, loadPrivately } from "../../src/crypto/PrivateModules.ts"

export type Direction = "next" | "nextunique" | "prev" | "prevunique"

export interface IdbEvent {
  readonly target: IdbRequest
  preventDefault(): void
  stopPropagation(): void
}

interface Target {
  addEventListener(type: string, listener: (event: IdbEvent) => void): void
}

export interface IdbRequest extends Target {
  readonly result: unknown
  readonly error: Error | null
  readonly transaction: IdbTransaction
}

export interface IdbCursor {
  readonly key: unknown
  readonly primaryKey: unknown
  readonly value?: unknown
  continue(key?: unknown): void
  continuePrimaryKey(key: unknown, primaryKey: unknown): void
  advance(count: number): void
  update(value: unknown): IdbRequest
  delete(): IdbRequest
}

export interface IdbSource {
  get(query: unknown): IdbRequest
  getKey(query: unknown): IdbRequest
  getAll(query?: unknown, count?: number): IdbRequest
  getAllKeys(query?: unknown, count?: number): IdbRequest
  count(query?: unknown): IdbRequest
  openCursor(query?: unknown, direction?: Direction): IdbRequest
  openKeyCursor(query?: unknown, direction?: Direction): IdbRequest
}

export interface IdbStore extends IdbSource {
  name: string
  readonly indexNames: Iterable<string>
  put(value: unknown, key?: unknown): IdbRequest
  add(value: unknown, key?: unknown): IdbRequest
  delete(query: unknown): IdbRequest
  clear(): IdbRequest
  index(name: string): IdbSource
  createIndex(name: string, keyPath: unknown, options?: object): IdbSource
  deleteIndex(name: string): void
}

export interface IdbTransaction extends Target {
  readonly error: Error | null
  objectStore(name: string): IdbStore
  abort(): void
  commit(): void
}

export interface IdbDatabase extends Target {
  readonly version: number
  readonly objectStoreNames: Iterable<string>
  transaction(stores: string | ReadonlyArray<string>, mode?: "readonly" | "readwrite"): IdbTransaction
  createObjectStore(name: string, options?: object): IdbStore
  deleteObjectStore(name: string): void
  close(): void
}

export interface IdbFactory {
  open(name: string, version?: number): IdbRequest
  deleteDatabase(name: string): IdbRequest
  databases(): Promise<ReadonlyArray<{ readonly name: string; readonly version: number }>>
  cmp(first: unknown, second: unknown): number
}

export interface IdbKeyRange {
  only(key: unknown): unknown
  lowerBound(key: unknown, open?: boolean): unknown
  upperBound(key: unknown, open?: boolean): unknown
  bound(lower: unknown, upper: unknown, lowerOpen?: boolean, upperOpen?: boolean): unknown
}

/** An `indexedDB` and the `IDBKeyRange` that belongs to it. */
export interface Idb {
  readonly indexedDB: IdbFactory
  readonly KeyRange: IdbKeyRange
}

interface StoredRow extends Row {
  readonly collection: string
}

/** The rows of a database as it would be on disk, which any number of instances read. */
export class MemoryRows {
  private readonly rows = new Map<string, StoredRow>()
  /** What every read throws from now on. */
  fault: Error | undefined

  readonly reader: RecordReader = {
    get: (collection, key) => {
      this.check()
      return this.rows.get(`${collection}/${Buffer.from(key).toString("hex")}`)?.value
    },
    range: (collection, lower, upper, { descending, limit }) => {
      const rows = this.between(collection, lower, upper)
      return (descending ? rows.reverse() : rows).slice(0, limit)
    },
    count: (collection, lower, upper) => this.between(collection, lower, upper).length
  }

  private check(): void {
    if (this.fault !== undefined) throw this.fault
  }

  private between(collection: string, lower: Uint8Array, upper: Uint8Array | undefined): Array<StoredRow> {
    this.check()
    return [...this.rows.values()]
      .filter((row) => row.collection === collection && Buffer.compare(row.key, lower) >= 0)
      .filter((row) => upper === undefined || Buffer.compare(row.key, upper) < 0)
      .sort((a, b) => Buffer.compare(a.key, b.key))
  }

  get size(): number {
    return this.rows.size
  }

  apply(writes: ReadonlyArray<SyncStore.CryptoWrite>): void {
    for (const { collection, key, value } of writes) {
      const name = `${collection}/${Buffer.from(key).toString("hex")}`
      if (value === null) this.rows.delete(name)
      else this.rows.set(name, { collection, key, value })
    }
  }

  /** Makes what an instance has committed durable. */
  save(database: IndexedDb.IndexedDb): void {
    this.apply(database.writes())
    database.committed()
  }

  instance(options: { readonly writable?: boolean } = {}): IndexedDb.IndexedDb & Idb {
    return instanceOver(this.reader, options)
  }
}

export const instanceOver = (
  reader: RecordReader,
  { writable = true }: { readonly writable?: boolean } = {}
): IndexedDb.IndexedDb & Idb => {
  const database = IndexedDb.make({ reader, writable })
  return {
    ...database,
    indexedDB: database.factory as IdbFactory,
    KeyRange: database.globals["IDBKeyRange"] as IdbKeyRange
  }
}

/** `fake-indexeddb` as it is. */
export const plain = (): Idb => {
  const main = loadPrivately(directoryOf("fake-indexeddb"))("index.js") as {
    readonly indexedDB: IdbFactory
    readonly IDBKeyRange: IdbKeyRange
  }
  return { indexedDB: main.indexedDB, KeyRange: main.IDBKeyRange }
}

/** A request's result; rejects with its error. */
export const result = <A>(request: IdbRequest): Promise<A> =>
  new Promise((resolve, reject) => {
    request.addEventListener("success", () => resolve(request.result as A))
    request.addEventListener("error", () => reject(request.error ?? new Error("a request failed without an error")))
  })

/** The name of the error with which a request fails; the transaction goes on. */
export const failure = (request: IdbRequest): Promise<string> =>
  new Promise((resolve, reject) => {
    request.addEventListener("success", () => reject(new Error("the request succeeded")))
    request.addEventListener("error", (event) => {
      event.preventDefault()
      event.stopPropagation()
      resolve(request.error?.name ?? "none")
    })
  })

/** How a transaction ends. */
export const ended = (transaction: IdbTransaction): Promise<"complete" | "abort"> =>
  new Promise((resolve) => {
    transaction.addEventListener("complete", () => resolve("complete"))
    transaction.addEventListener("abort", () => resolve("abort"))
  })

export type Upgrade = (database: IdbDatabase, transaction: IdbTransaction) => void

/** Opens a database; rejects with the request's error. */
export const open = (
  indexedDB: IdbFactory,
  name: string,
  version?: number,
  upgrade?: Upgrade
): Promise<IdbDatabase> => {
  const request = version === undefined ? indexedDB.open(name) : indexedDB.open(name, version)
  if (upgrade !== undefined) {
    request.addEventListener("upgradeneeded", () => upgrade(request.result as IdbDatabase, request.transaction))
  }
  return result<IdbDatabase>(request)
}

/** Writes in one transaction, and fails the test if that doesn't complete. */
export const write = async (
  database: IdbDatabase,
  stores: string | ReadonlyArray<string>,
  body: (transaction: IdbTransaction) => void
): Promise<void> => {
  const transaction = database.transaction(stores, "readwrite")
  body(transaction)
  assert.strictEqual(await ended(transaction), "complete")
}

/** Every record that a cursor passes, `[key, primaryKey, value]`. */
export const walk = (request: IdbRequest): Promise<ReadonlyArray<readonly [unknown, unknown, unknown]>> =>
  new Promise((resolve, reject) => {
    const records: Array<readonly [unknown, unknown, unknown]> = []
    request.addEventListener("error", () => reject(request.error ?? new Error("a cursor failed")))
    request.addEventListener("success", () => {
      const cursor = request.result as IdbCursor | null
      if (cursor === null) return resolve(records)
      records.push([cursor.key, cursor.primaryKey, cursor.value])
      cursor.continue()
    })
  })
