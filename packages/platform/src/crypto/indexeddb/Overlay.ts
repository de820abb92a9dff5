/**
 * What IndexedDB has committed and the database hasn't got yet, over what it has.
 *
 * Includes the changes of a collection (`Changes`), which also keep what a running transaction wrote, the two of them read as
 * one with the durable rows below, and the hand-over to whoever writes to the database.
 *
 * Invariants:
 * - What is handed out stays readable here until `committed` says that it is durable, so no reader ever misses it.
 * - `committed` forgets exactly what was handed out: a key that was changed meanwhile keeps its later change.
 *
 * Not here: which transactions may run side by side (IndexedDB's scopes), what the bytes mean (`Records.ts`).
 */
import type { SyncStore } from "@twinloop/core"
import type { RecordReader, Row } from "./RecordReader.ts"

/** A row's new value, or `null` for a row that is deleted. Never changed: a later change is another object. */
export type Change = SyncStore.CryptoWrite

/** Bytes as text that sorts like them. */
const nameOf = (key: Uint8Array): string => Buffer.from(key.buffer, key.byteOffset, key.byteLength).toString("latin1")

/** Changes of one collection, the last one per key. */
export class Changes {
  private readonly byName = new Map<string, Change>()
  /** The names in order, once they have been needed. */
  private sorted: Array<string> | undefined

  get size(): number {
    return this.byName.size
  }

  get(key: Uint8Array): Change | undefined {
    return this.byName.size === 0 ? undefined : this.byName.get(nameOf(key))
  }

  set(change: Change): void {
    const before = this.byName.size
    const name = nameOf(change.key)
    this.byName.set(name, change)
    if (this.sorted === undefined || this.byName.size === before) return
    // Not sorted anew: a cursor that deletes record by record would do that each time.
    this.sorted.splice(firstAtLeast(this.sorted, name), 0, name)
  }

  /** Takes over all changes of another one. */
  add(others: Changes): void {
    for (const change of others.values()) this.set(change)
  }

  /** Forgets a change, unless there is a later one of its key. */
  forget(change: Change): void {
    const name = nameOf(change.key)
    if (this.byName.get(name) === change && this.byName.delete(name)) this.sorted = undefined
  }

  values(): Iterable<Change> {
    return this.byName.values()
  }

  /** The changes between two keys, `upper` exclusive, in order. Nothing may be changed while they are gone through. */
  *range(lower: Uint8Array, upper: Uint8Array | undefined, descending: boolean): Generator<Change> {
    if (this.byName.size === 0) return
    this.sorted ??= [...this.byName.keys()].sort()
    const { sorted } = this
    const from = firstAtLeast(sorted, nameOf(lower))
    const to = upper === undefined ? sorted.length : firstAtLeast(sorted, nameOf(upper))
    for (let count = 0; count < to - from; count++) {
      yield this.byName.get(sorted[descending ? to - 1 - count : from + count]!)!
    }
  }
}

const firstAtLeast = (sorted: ReadonlyArray<string>, name: string): number => {
  let low = 0
  let high = sorted.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (sorted[middle]! < name) low = middle + 1
    else high = middle
  }
  return low
}

const none = new Changes()

/** Two sequences in the same order as one, where of two items with the same key the one on top counts. */
function* merged<A extends Keyed, B extends Keyed>(
  below: Iterator<A>,
  top: Iterator<B>,
  direction: 1 | -1
): Generator<A | B> {
  let [lower, upper] = [below.next(), top.next()]
  while (lower.done !== true && upper.done !== true) {
    const order = direction * Buffer.compare(lower.value.key, upper.value.key)
    if (order < 0) yield lower.value
    else yield upper.value
    if (order <= 0) lower = below.next()
    if (order >= 0) upper = top.next()
  }
  for (; lower.done !== true; lower = below.next()) yield lower.value
  for (; upper.done !== true; upper = top.next()) yield upper.value
}

interface Keyed {
  readonly key: Uint8Array
}

/** The first page is for those who want one row; then it grows, so that a scan of everything needs few. */
const firstPage = 4
const largestPage = 1024

/** The least bytes behind these. */
const after = (key: Uint8Array): Uint8Array => {
  const next = new Uint8Array(key.length + 1)
  next.set(key)
  return next
}

/** Durable rows, page by page: who reads the first few pays for few. */
function* durableRows(
  reader: RecordReader,
  collection: string,
  lower: Uint8Array,
  upper: Uint8Array | undefined,
  descending: boolean
): Generator<Row> {
  let [from, to, limit] = [lower, upper, firstPage]
  for (;;) {
    const page = reader.range(collection, from, to, { descending, limit })
    yield* page
    const last = page.at(-1)
    if (last === undefined || page.length < limit) return
    if (descending) to = last.key
    else from = after(last.key)
    limit = Math.min(limit * 8, largestPage)
  }
}

/** Without the rows that are deleted. */
function* present(rows: Iterable<Row | Change>): Generator<Row> {
  for (const { key, value } of rows) if (value !== null) yield { key, value }
}

export class Overlay {
  private readonly reader: RecordReader
  private readonly staged = new Map<string, Changes>()
  private handedOut: ReadonlyArray<Change> = []

  constructor(reader: RecordReader) {
    this.reader = reader
  }

  /** The staged changes of a collection, to be read only. */
  private stagedOf(collection: string): Changes {
    return this.staged.get(collection) ?? none
  }

  /** The value at a key. `top` is what the transaction that asks wrote. */
  get(collection: string, key: Uint8Array, top: Changes = none): Uint8Array | undefined {
    const change = top.get(key) ?? this.stagedOf(collection).get(key)
    return change === undefined ? this.reader.get(collection, key) : (change.value ?? undefined)
  }

  /** The rows between two keys, `upper` exclusive, read page by page. */
  range(
    collection: string,
    lower: Uint8Array,
    upper: Uint8Array | undefined,
    descending: boolean,
    top: Changes = none
  ): Iterable<Row> {
    const rows = durableRows(this.reader, collection, lower, upper, descending)
    const staged = this.stagedOf(collection)
    if (staged.size === 0 && top.size === 0) return rows
    const direction = descending ? -1 : 1
    const changes = merged(staged.range(lower, upper, descending), top.range(lower, upper, descending), direction)
    return present(merged(rows, changes, direction))
  }

  /** How many rows there are between two keys. */
  count(collection: string, lower: Uint8Array, upper: Uint8Array | undefined, top: Changes = none): number {
    if (this.stagedOf(collection).size === 0 && top.size === 0) return this.reader.count(collection, lower, upper)
    let count = 0
    for (const _ of this.range(collection, lower, upper, false, top)) count++
    return count
  }

  /** Adds changes: they are committed as far as IndexedDB is concerned. */
  stage(collection: string, changes: Changes): void {
    const known = this.staged.get(collection)
    if (known === undefined) this.staged.set(collection, changes)
    else known.add(changes)
  }

  get hasWrites(): boolean {
    for (const changes of this.staged.values()) if (changes.size > 0) return true
    return false
  }

  /** Everything that is staged, one change per row; from now on it is this that `committed` speaks of. */
  writes(): ReadonlyArray<Change> {
    this.handedOut = [...this.staged.values()].flatMap((changes) => [...changes.values()])
    return this.handedOut
  }

  /** What `writes` gave last is durable. */
  committed(): void {
    for (const change of this.handedOut) this.staged.get(change.collection)?.forget(change)
    this.handedOut = []
  }
}
