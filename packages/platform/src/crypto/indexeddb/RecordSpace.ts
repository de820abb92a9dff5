/**
 * What the databases of one `IndexedDb` share: the overlay, the collections that are taken, their schemas, and how a
 * transaction commits and aborts.
 *
 * Includes the rows of the collection `schema`: one per database, and the number of the last collection.
 *
 * Invariants:
 * - A commit is staged as a whole or not at all: everything that can fail comes before the first change.
 * - A collection's number is never used again, so no row of a deleted store can turn up in a later one.
 */
import * as KeyCodec from "./KeyCodec.ts"
import { Changes, Overlay } from "./Overlay.ts"
import type { RecordReader } from "./RecordReader.ts"
import type { Records } from "./Records.ts"
import { collectionsOf } from "./Schema.ts"
import type { DatabaseSchema } from "./Schema.ts"

/** The collection of the schemas. */
export const schemaCollection = "schema"

/** Less than any key: no database can have it as its name. */
const lastCollectionKey = Uint8Array.of(0)

const encoder = new TextEncoder()
const decoder = new TextDecoder()
const toBytes = (json: unknown): Uint8Array => encoder.encode(JSON.stringify(json))
const fromBytes = (bytes: Uint8Array): unknown => JSON.parse(decoder.decode(bytes))

/** What a transaction that commits is to the space. */
export interface Commit {
  readonly database: string
  /** Whose records the transaction changed. */
  readonly touched: ReadonlySet<Records>
  /** The schema after it. */
  readonly schema: DatabaseSchema
}

export class RecordSpace {
  readonly overlay: Overlay
  readonly writable: boolean
  /** True while a transaction's steps are undone one by one, which is ignored. */
  rollingBack = false
  /** Commits that were reported as done and not kept. */
  discarded = 0
  private error: unknown
  private touched: Set<Records> | undefined
  private lastCollection = 0

  constructor(reader: RecordReader, writable: boolean) {
    this.overlay = new Overlay(reader)
    this.writable = writable
  }

  /** Runs a request's work, and notes whose records it changes. */
  run(touched: Set<Records>, work: () => void): void {
    this.touched = touched
    try {
      work()
    } finally {
      this.touched = undefined
    }
  }

  /** Notes that the running transaction changes these. */
  touch(records: Records): void {
    if (this.touched === undefined) throw new Error("a record is written outside of a transaction")
    this.touched.add(records)
  }

  /** Reads, and keeps the error of a failure, since IndexedDB passes on only its name. Throws `UnknownError` then. */
  reading<A>(read: () => A): A {
    try {
      return read()
    } catch (cause) {
      throw this.failed(cause)
    }
  }

  /** Keeps an error, and gives what IndexedDB says instead of it. */
  failed(cause: unknown): DOMException {
    if (cause instanceof DOMException) return cause
    this.error = cause
    return new DOMException(cause instanceof Error ? cause.message : String(cause), "UnknownError")
  }

  /** The last error that was kept, once. */
  takeError(): unknown {
    const { error } = this
    this.error = undefined
    return error
  }

  /** The name of a collection that nothing has ever been in. */
  allocate(): string {
    // Another process may have taken some meanwhile.
    const stored = this.reading(() => this.overlay.get(schemaCollection, lastCollectionKey))
    const last = stored === undefined ? 0 : Number(this.reading(() => fromBytes(stored)))
    this.lastCollection = Math.max(this.lastCollection, last) + 1
    return String(this.lastCollection)
  }

  /** A database's schema as it is stored or staged. */
  schemaOf(database: string): DatabaseSchema | undefined {
    return this.reading(() => {
      const bytes = this.overlay.get(schemaCollection, KeyCodec.encode(database))
      return bytes === undefined ? undefined : (fromBytes(bytes) as DatabaseSchema)
    })
  }

  /** The names of the databases that are stored or staged. */
  databases(): ReadonlyArray<string> {
    return this.reading(() => {
      const rows = this.overlay.range(schemaCollection, KeyCodec.encode(""), undefined, false)
      return [...rows].map((row) => String(KeyCodec.decode(row.key)))
    })
  }

  private deletionOf(collection: string): Changes {
    const changes = new Changes()
    for (const { key } of this.overlay.range(collection, new Uint8Array(0), undefined, false)) {
      changes.set({ collection, key, value: null })
    }
    return changes
  }

  /** Deletions of everything that is stored for the database and that a later schema has no use for. */
  private obsolete(database: string, schema: DatabaseSchema | undefined): ReadonlyMap<string, Changes> {
    const kept = new Set(schema === undefined ? [] : collectionsOf(schema))
    const before = this.schemaOf(database)
    const gone = before === undefined ? [] : collectionsOf(before).filter((collection) => !kept.has(collection))
    return this.reading(() => new Map(gone.map((collection) => [collection, this.deletionOf(collection)])))
  }

  private stageSchema(database: string, schema: DatabaseSchema | undefined): void {
    const changes = new Changes()
    const stage = (key: Uint8Array, value: Uint8Array | null) =>
      changes.set({ collection: schemaCollection, key, value })
    stage(KeyCodec.encode(database), schema === undefined ? null : toBytes(schema))
    if (this.lastCollection > 0) stage(lastCollectionKey, toBytes(this.lastCollection))
    this.overlay.stage(schemaCollection, changes)
  }

  private stageRecords(records: Iterable<Records>): void {
    for (const one of records) this.overlay.stage(one.collection, one.takePending())
  }

  /** Commits a transaction that left the schema as it was; `schema` is given when a key generator moved on. */
  commit(commit: Pick<Commit, "database" | "touched">, schema: DatabaseSchema | undefined): void {
    if (commit.touched.size === 0) return
    if (!this.writable) {
      this.discarded++
      return this.abort(commit.touched)
    }
    if (schema !== undefined) this.stageSchema(commit.database, schema)
    this.stageRecords(commit.touched)
  }

  /** Commits a transaction that made the schema what it is. */
  commitUpgrade({ database, schema, touched }: Commit): void {
    const obsolete = this.obsolete(database, schema)
    const live = new Set(collectionsOf(schema))
    for (const [collection, changes] of obsolete) this.overlay.stage(collection, changes)
    this.stageSchema(database, schema)
    this.stageRecords([...touched].filter((records) => live.has(records.collection)))
  }

  /** Drops what a transaction wrote. */
  abort(touched: Iterable<Records>): void {
    for (const records of touched) records.takePending()
  }

  /** Deletes a database. */
  deleteDatabase(database: string): void {
    const obsolete = this.obsolete(database, undefined)
    for (const [collection, changes] of obsolete) this.overlay.stage(collection, changes)
    this.stageSchema(database, undefined)
  }
}
