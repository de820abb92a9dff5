/**
 * A copy of `fake-indexeddb` of our own, whose records are rows and whose commits are staged.
 *
 * Includes what we rely on of its internals, as types, and the seven files of it that are replaced.
 *
 * Gotchas:
 * - Nobody else's `fake-indexeddb` is touched, and no global is set: the copy is loaded apart (`PrivateModules.ts`).
 * - These are another package's private parts, so its version is exact, and `test/indexeddb/Contract.test.ts` says what is
 *   relied on.
 * - What our subclasses add has private names (`#`), so that it can't take the place of something of the package's.
 * - It is loaded by the first call (6 ms), since most processes decrypt nothing.
 *
 * Not here: databases as they are opened and deleted (`IndexedDb.ts`).
 */
import { directoryOf, loadPrivately } from "../PrivateModules.ts"
import type { Key, KeyRange } from "./KeyCodec.ts"
import { Records } from "./Records.ts"
import type { Direction } from "./Records.ts"
import type { RecordSpace } from "./RecordSpace.ts"
import type { DatabaseSchema, IndexSchema, KeyPath, StoreSchema } from "./Schema.ts"
import * as TaskQueue from "./TaskQueue.ts"
import * as ValueCodec from "./ValueCodec.ts"

export interface RawIndex {
  name: string
  readonly keyPath: KeyPath
  readonly multiEntry: boolean
  readonly unique: boolean
  deleted: boolean
  initialized: boolean
  readonly records: Records
}

export interface RawObjectStore {
  name: string
  readonly rawDatabase: RawDatabase
  readonly keyPath: KeyPath
  readonly autoIncrement: boolean
  readonly keyGenerator: { num: number } | null
  readonly records: Records
  readonly rawIndexes: Map<string, RawIndex>
}

export interface RawDatabase {
  readonly name: string
  version: number
  readonly rawObjectStores: Map<string, RawObjectStore>
  readonly connections: ReadonlyArray<unknown>
  readonly transactions: ReadonlyArray<Transaction>
  processTransactions(): void
  /** Ours: set when the database is registered with its factory. */
  space: RecordSpace
}

export interface Request {
  readyState: "pending" | "done"
  result: unknown
  error: unknown
  source: unknown
  dispatchEvent(event: FakeEvent): boolean
}

export interface FakeEvent {
  readonly type: string
  eventPath: Array<unknown>
}

interface Transaction {
  readonly mode: "readonly" | "readwrite" | "versionchange"
  readonly db: { readonly _rawDatabase: RawDatabase }
  readonly _requests: ReadonlyArray<{ readonly request: Request }>
  readonly _scope: ReadonlySet<string>
  readonly _state: "active" | "inactive" | "committing" | "finished"
  readonly _started: boolean
  error: unknown
  addEventListener(type: "complete" | "abort", listener: () => void): void
  _start(): void
  _abort(errorName: string | null): void
}

interface Cursor {
  readonly _source: { readonly _rawIndex?: RawIndex }
  readonly _direction: Direction
  /** The key where it stands, and for a cursor of an index the primary key. */
  readonly _position: Key | undefined
  readonly _objectStorePosition: Key | undefined
  _iterate(key?: Key, primaryKey?: Key): unknown
}

export interface Factory {
  _databases: Map<string, RawDatabase>
  open(...args: ReadonlyArray<unknown>): Request
  deleteDatabase(...args: ReadonlyArray<unknown>): Request
  databases(): Promise<ReadonlyArray<{ readonly name: string; readonly version: number }>>
}

type Class<Args extends ReadonlyArray<unknown>, A> = new (...args: Args) => A

export interface FakeIndexedDb {
  readonly Factory: Class<[], Factory>
  readonly Database: Class<[name: string, version: number], RawDatabase>
  readonly ObjectStore: Class<
    [database: RawDatabase, name: string, keyPath: KeyPath, autoIncrement: boolean],
    RawObjectStore
  >
  readonly Index: Class<
    [store: RawObjectStore, name: string, keyPath: KeyPath, multiEntry: boolean, unique: boolean],
    RawIndex
  >
  readonly OpenDBRequest: Class<[], Request>
  readonly Event: Class<
    [type: string, options?: { readonly bubbles: boolean; readonly cancelable: boolean }],
    FakeEvent
  >
  /** What a browser has as globals: `IDBKeyRange`, `IDBCursor` and so on. */
  readonly globals: { readonly [name: string]: unknown }
}

/** The files that are replaced, and the others whose exports we use, by what we take of them. */
export const modules = {
  records: "lib/RecordStore.js",
  scheduling: "lib/scheduling.js",
  clone: "lib/cloneValueForInsertion.js",
  objectStore: "lib/ObjectStore.js",
  index: "lib/Index.js",
  transaction: "FDBTransaction.js",
  cursor: "FDBCursor.js",
  factory: "FDBFactory.js",
  database: "lib/Database.js",
  openRequest: "FDBOpenDBRequest.js",
  event: "lib/FakeEvent.js",
  main: "index.js"
} as const

/** What the package's compiled files expect of each other. */
const asModule = (defaultExport: unknown) => ({ __esModule: true, default: defaultExport })

/** A file's default export, which it also is as a whole. */
const defaultOf = <A>(module: unknown): A => {
  const hasDefault = typeof module === "object" && module !== null && "default" in module
  return (hasDefault ? module.default : module) as A
}

const objectStoreClass = (original: FakeIndexedDb["ObjectStore"]): FakeIndexedDb["ObjectStore"] =>
  class ObjectStore extends original {
    constructor(...args: ConstructorParameters<FakeIndexedDb["ObjectStore"]>) {
      super(...args)
      this.records.attachStore(args[0].space, () => this.rawIndexes.size > 0)
    }

    /** Without reading what is only counted. */
    count(range?: KeyRange): number {
      return this.records.count(range)
    }

    /** Without a clone, which is a twentieth of a decryption: each record is decoded anew, and so nobody else's. */
    getValue(key: Key | KeyRange): unknown {
      return this.records.get(key)?.value
    }

    /** Without clones, too. As the package has it, no `count` and 0 are without end. */
    getAllValues(
      range: KeyRange | undefined,
      count: number | undefined,
      direction?: Direction
    ): ReadonlyArray<unknown> {
      const limit = count === undefined || count === 0 ? Number.POSITIVE_INFINITY : count
      const values: Array<unknown> = []
      for (const { value } of this.records.values(range, direction)) {
        values.push(value)
        if (values.length >= limit) break
      }
      return values
    }
  }

const indexClass = (original: FakeIndexedDb["Index"]): FakeIndexedDb["Index"] =>
  class Index extends original {
    constructor(...args: ConstructorParameters<FakeIndexedDb["Index"]>) {
      super(...args)
      this.records.attachIndex(args[0].rawDatabase.space)
    }

    /** Without reading what is only counted. */
    count(range?: KeyRange): number {
      return this.records.count(range)
    }
  }

const overlap = (a: Transaction, b: Transaction): boolean => {
  for (const name of a._scope) if (b._scope.has(name)) return true
  return false
}

const conflict = (a: Transaction, b: Transaction): boolean =>
  !(a.mode === "readonly" && b.mode === "readonly") && overlap(a, b)

/** The transactions that wait, and the first of them that touches no store of one before it that is in its way. */
const nextOf = (transactions: ReadonlyArray<Transaction>) => {
  const unfinished = transactions.filter((transaction) => transaction._state !== "finished")
  const running = unfinished.filter((transaction) => transaction._started)
  const waiting = unfinished.filter((transaction) => !transaction._started)
  const next = waiting.find(
    (transaction, index) =>
      !running.some((other) => conflict(other, transaction)) &&
      !waiting.slice(0, index).some((other) => overlap(other, transaction))
  )
  return { next, others: waiting.length - 1 }
}

/**
 * A database that looks for the next transaction at most once at a time. The package queues a look for each transaction that
 * is made and for each that ends. Those would be twice as many as there are transactions, and each starts whichever
 * transaction it finds: so with one task at a time, the end of each transaction would wait behind ever more of them.
 */
const databaseClass = (original: FakeIndexedDb["Database"]): FakeIndexedDb["Database"] =>
  class Database extends original {
    #looking = false

    override processTransactions(): void {
      if (this.#looking) return
      this.#looking = true
      TaskQueue.queueTask(() => {
        this.#looking = false
        this.#startNext()
      })
    }

    #startNext(): void {
      const { next, others } = nextOf(this.transactions)
      if (next === undefined) return
      next.addEventListener("complete", this.processTransactions)
      next.addEventListener("abort", this.processTransactions)
      if (others > 0) this.processTransactions()
      next._start()
    }
  }

/** Parts of a key path that aren't text are used as text, so that is what is stored. */
const keyPathOf = (keyPath: KeyPath): KeyPath => (Array.isArray(keyPath) ? keyPath.map(String) : keyPath)

const indexSchema = (index: RawIndex): IndexSchema => ({
  name: index.name,
  keyPath: keyPathOf(index.keyPath),
  multiEntry: index.multiEntry,
  unique: index.unique,
  collection: index.records.collection
})

const storeSchema = (store: RawObjectStore): StoreSchema => ({
  name: store.name,
  keyPath: keyPathOf(store.keyPath),
  autoIncrement: store.autoIncrement,
  ...(store.keyGenerator === null ? {} : { generated: store.keyGenerator.num }),
  collection: store.records.collection,
  indexes: [...store.rawIndexes.values()].map(indexSchema)
})

/** A database as it is in memory, to be stored. */
export const schemaOf = (database: RawDatabase): DatabaseSchema => ({
  version: database.version,
  stores: [...database.rawObjectStores.values()].map(storeSchema)
})

/**
 * A transaction that stages what it wrote when its last request is done, before it says `complete`, and drops it when it
 * aborts. If staging fails it aborts instead.
 */
const transactionClass = (
  original: Class<ReadonlyArray<unknown>, Transaction>
): Class<ReadonlyArray<unknown>, Transaction> =>
  class FDBTransaction extends original {
    readonly #touched = new Set<Records>()

    get #space(): RecordSpace {
      return this.db._rawDatabase.space
    }

    #stage(): void {
      const database = this.db._rawDatabase
      const touched = this.#touched
      if (this.mode === "versionchange") {
        this.#space.commitUpgrade({ database: database.name, schema: schemaOf(database), touched })
      } else {
        const generates = [...this._scope].some((name) => database.rawObjectStores.get(name)?.autoIncrement === true)
        this.#space.commit({ database: database.name, touched }, generates ? schemaOf(database) : undefined)
      }
      touched.clear()
    }

    #tryToStage(): boolean {
      try {
        this.#stage()
        return true
      } catch (cause) {
        const error = this.#space.failed(cause)
        this._abort(error.name)
        this.error = error
        return false
      }
    }

    /** Is called for each request, and once more when none is left: then it commits. */
    override _start(): void {
      const idle = this._state !== "finished" && this._requests.every(({ request }) => request.readyState === "done")
      if (idle && this.mode !== "readonly" && !this.#tryToStage()) return
      this.#space.run(this.#touched, () => super._start())
    }

    override _abort(errorName: string | null): void {
      this.#space.rollingBack = true
      try {
        super._abort(errorName)
      } finally {
        this.#space.rollingBack = false
        this.#space.abort(this.#touched)
        this.#touched.clear()
      }
    }
  }

/**
 * Lets cursors of indexes go on from where they stand. Set on the prototype, since the class is in a circle of files that
 * require one another, where a replacement would come too late for some.
 */
const seekWithCursors = (prototype: Cursor): void => {
  const iterate = prototype._iterate
  prototype._iterate = function (key, primaryKey) {
    const move = () => iterate.call(this, key, primaryKey)
    const { records, unique } = this._source._rawIndex ?? {}
    if (records === undefined || unique === true || this._position === undefined) return move()
    return records.from(this._position, this._objectStorePosition!, this._direction, move)
  }
}

/** The package's clone of a value, which is only taken while the transaction is active, and not while a getter runs. */
const cloneValueForInsertion = (value: unknown, transaction: { _state: Transaction["_state"] }): unknown => {
  transaction._state = "inactive"
  try {
    return ValueCodec.clone(value)
  } finally {
    transaction._state = "active"
  }
}

const load = (): FakeIndexedDb => {
  const replaceClass =
    <A>(subclass: (original: A) => A) =>
    (original: () => unknown) =>
      asModule(subclass(defaultOf<A>(original())))
  const module = loadPrivately(directoryOf("fake-indexeddb"), {
    replace: {
      [modules.records]: () => asModule(Records),
      [modules.scheduling]: () => ({ queueTask: TaskQueue.queueTask }),
      [modules.clone]: () => ({ cloneValueForInsertion }),
      [modules.objectStore]: replaceClass(objectStoreClass),
      [modules.index]: replaceClass(indexClass),
      [modules.database]: replaceClass(databaseClass),
      [modules.transaction]: replaceClass(transactionClass)
    }
  })
  // The main file comes first, since only so the circles of files can be loaded.
  const main = module(modules.main) as { readonly [name: string]: unknown }
  seekWithCursors(defaultOf<{ readonly prototype: Cursor }>(module(modules.cursor)).prototype)
  return {
    Factory: defaultOf(module(modules.factory)),
    Database: defaultOf(module(modules.database)),
    ObjectStore: defaultOf(module(modules.objectStore)),
    Index: defaultOf(module(modules.index)),
    OpenDBRequest: defaultOf(module(modules.openRequest)),
    Event: defaultOf(module(modules.event)),
    globals: Object.fromEntries(Object.entries(main).filter(([name]) => name.startsWith("IDB")))
  }
}

let loaded: FakeIndexedDb | undefined

/** The classes, which all instances in the process share. */
export const fakeIndexedDb = (): FakeIndexedDb => (loaded ??= load())
