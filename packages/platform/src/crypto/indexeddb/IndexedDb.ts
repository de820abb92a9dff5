/**
 * IndexedDB for the crypto engine: it reads the account's database, and what it commits waits in memory until it is written
 * there together with everything else.
 *
 * Includes `make`, and opening and deleting databases.
 *
 * Invariants:
 * - Nothing is written here. `writes` gives what has been committed, for the transaction of whoever owns the stream; a crash
 *   before that leaves nothing of it (I1, I2).
 * - One that isn't `writable` never creates or upgrades a database.
 *
 * Gotchas:
 * - The schema of a database is read when it is opened and no connection to it is open here; rows are read each time.
 * - After a write that failed, the crypto engine's memory is ahead of the database: make a new `IndexedDb` and a new engine.
 * - Errors reach the crypto engine as a name and a message, and it hides those. `takeError` has the original one.
 *
 * Not here: how rows are read (`RecordReader.ts`) and written (`SyncStore`).
 */
import type { SyncStore } from "@twinloop/core"
import { fakeIndexedDb } from "./FakeIndexedDb.ts"
import type { Factory, FakeEvent, FakeIndexedDb, RawDatabase, Request } from "./FakeIndexedDb.ts"
import type { RecordReader } from "./RecordReader.ts"
import { RecordSpace } from "./RecordSpace.ts"
import type { DatabaseSchema } from "./Schema.ts"
import * as TaskQueue from "./TaskQueue.ts"

export interface IndexedDbOptions {
  readonly reader: RecordReader
  /**
   * False for a process that doesn't own the stream: its transactions succeed and keep nothing. Opening fails with
   * `NotFoundError` when there is no such database, and with `ReadOnlyError` when it would have to be upgraded.
   */
  readonly writable: boolean
}

export interface IndexedDb {
  /** What a browser has as `indexedDB`. */
  readonly factory: object
  /** What a browser has beside it: `IDBKeyRange`, `IDBCursor`, `IDBDatabase` and so on, by name. */
  readonly globals: { readonly [name: string]: unknown }
  /** Everything that is committed and not written yet, one write per row. */
  readonly writes: () => ReadonlyArray<SyncStore.CryptoWrite>
  /** Says that what `writes` gave last is in the database. What has been committed since then stays. */
  readonly committed: () => void
  /** Whether `writes` would give anything. */
  readonly hasWrites: () => boolean
  /** How many transactions with changes have been dropped because this isn't writable. */
  readonly discarded: () => number
  /** The last error of the reader, or of what it gave, once: `undefined` if there has been none since the last call. */
  readonly takeError: () => unknown
}

/** The databases that a factory knows, which are forgotten when nobody has them open. */
class Databases extends Map<string, RawDatabase> {
  readonly #space: RecordSpace
  #failure: DOMException | undefined

  constructor(space: RecordSpace) {
    super()
    this.#space = space
  }

  override set(name: string, database: RawDatabase): this {
    database.space = this.#space
    return super.set(name, database)
  }

  /**
   * Deletes what is stored. The factory calls this in the middle of a task, where an error would be nobody's, and then says
   * that the request succeeded: so a failure is kept for the request.
   */
  override delete(name: string): boolean {
    try {
      this.#space.deleteDatabase(name)
      return super.delete(name)
    } catch (cause) {
      this.#failure = this.#space.failed(cause)
      return false
    }
  }

  /** Why the last deletion failed, once. */
  takeFailure(): DOMException | undefined {
    const failure = this.#failure
    this.#failure = undefined
    return failure
  }

  forget(name: string): void {
    super.delete(name)
  }
}

const restore = (fake: FakeIndexedDb, space: RecordSpace, name: string, schema: DatabaseSchema): RawDatabase => {
  const database = new fake.Database(name, schema.version)
  database.space = space
  for (const stored of schema.stores) {
    const store = new fake.ObjectStore(database, stored.name, stored.keyPath, stored.autoIncrement)
    store.records.collection = stored.collection
    if (store.keyGenerator !== null) store.keyGenerator.num = stored.generated ?? 0
    database.rawObjectStores.set(stored.name, store)
    for (const one of stored.indexes) {
      const index = new fake.Index(store, one.name, one.keyPath, one.multiEntry, one.unique)
      index.records.collection = one.collection
      index.initialized = true
      store.rawIndexes.set(one.name, index)
    }
  }
  return database
}

const errorEvent = (fake: FakeIndexedDb): FakeEvent => {
  const event = new fake.Event("error", { bubbles: true, cancelable: true })
  event.eventPath = []
  return event
}

/** A request for a database that fails with this error. */
const refused = (fake: FakeIndexedDb, error: DOMException): Request => {
  const request = new fake.OpenDBRequest()
  request.source = null
  TaskQueue.queueTask(() => {
    request.readyState = "done"
    request.result = undefined
    request.error = error
    request.dispatchEvent(errorEvent(fake))
  })
  return request
}

/** Lets a request fail instead of succeed if there turns out to be an error. */
const unlessFailed = (fake: FakeIndexedDb, request: Request, failure: () => DOMException | undefined): Request => {
  const dispatch = request.dispatchEvent.bind(request)
  request.dispatchEvent = (event) => {
    const error = event.type === "success" ? failure() : undefined
    if (error === undefined) return dispatch(event)
    request.error = error
    return dispatch(errorEvent(fake))
  }
  return request
}

/** Why one that only reads can't open a database at this version. */
const whyNotReadable = (name: string, version: unknown, stored: number | undefined): DOMException | undefined => {
  if (stored === undefined) {
    return new DOMException(
      `the database "${name}" doesn't exist, and only the owner of the stream creates it`,
      "NotFoundError"
    )
  }
  if (version === undefined || Number(version) <= stored) return undefined
  return new DOMException(
    `the database "${name}" has version ${stored}, and only the owner of the stream upgrades it to ${String(version)}`,
    "ReadOnlyError"
  )
}

const factoryClass = (fake: FakeIndexedDb, space: RecordSpace) =>
  class FDBFactory extends fake.Factory {
    override _databases: Databases = new Databases(space)

    /** Brings a database to what is stored, unless it is open: then it is what is stored. */
    #refresh(name: string): void {
      if ((this._databases.get(name)?.connections.length ?? 0) > 0) return
      const schema = space.schemaOf(name)
      if (schema === undefined) this._databases.forget(name)
      else this._databases.set(name, restore(fake, space, name, schema))
    }

    /** Why a request for a database fails before it begins. */
    #whyRefused(name: string, why: (stored: number | undefined) => DOMException | undefined) {
      try {
        this.#refresh(name)
        return space.writable ? undefined : why(this._databases.get(name)?.version)
      } catch (cause) {
        return space.failed(cause)
      }
    }

    override open(...args: ReadonlyArray<unknown>): Request {
      if (args.length === 0) return super.open()
      const [name, version] = [String(args[0]), args[1]]
      const error = this.#whyRefused(name, (stored) => whyNotReadable(name, version, stored))
      return error === undefined ? super.open(name, ...args.slice(1)) : refused(fake, error)
    }

    override deleteDatabase(...args: ReadonlyArray<unknown>): Request {
      if (args.length === 0) return super.deleteDatabase()
      const name = String(args[0])
      const error = this.#whyRefused(
        name,
        () => new DOMException(`only the owner of the stream deletes the database "${name}"`, "ReadOnlyError")
      )
      if (error !== undefined) return refused(fake, error)
      return unlessFailed(fake, super.deleteDatabase(name), () => this._databases.takeFailure())
    }

    override async databases(): ReturnType<Factory["databases"]> {
      for (const name of space.databases()) this.#refresh(name)
      return super.databases()
    }
  }

/** An `indexedDB` of its own: two of them share no database, whatever its name. */
export const make = ({ reader, writable }: IndexedDbOptions): IndexedDb => {
  const fake = fakeIndexedDb()
  const space = new RecordSpace(reader, writable)
  return {
    factory: new (factoryClass(fake, space))(),
    globals: fake.globals,
    writes: () => space.overlay.writes(),
    committed: () => space.overlay.committed(),
    hasWrites: () => space.overlay.hasWrites,
    discarded: () => space.discarded,
    takeError: () => space.takeError()
  }
}
