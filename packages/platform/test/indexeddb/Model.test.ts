/** Whatever is done to our IndexedDB, it answers as `fake-indexeddb` does, which keeps everything in memory. */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { MemoryRows, open, plain } from "./IndexedDbKit.ts"
import type { Direction, Idb, IdbCursor, IdbDatabase, IdbRequest, IdbSource, IdbTransaction } from "./IndexedDbKit.ts"

const key = fc.oneof(
  fc.integer({ min: 0, max: 5 }),
  fc.constantFrom("a", "b", "ab"),
  fc.constantFrom(new Date(1), [1, "a"], [1], Uint8Array.of(7).buffer)
)

const range = fc.record({ a: key, b: key, lowerOpen: fc.boolean(), upperOpen: fc.boolean(), kind: fc.nat(4) })
type Range = typeof range extends fc.Arbitrary<infer A> ? A : never

const value = fc.record(
  { plain: key, unique: key, many: fc.array(key, { maxLength: 3 }), number: fc.integer({ min: 0, max: 2 }) },
  { requiredKeys: [] }
)

const sources = ["store", "plain", "unique", "many", "pair"] as const
const source = fc.constantFrom(...sources)
const direction = fc.constantFrom<Direction>("next", "nextunique", "prev", "prevunique")

const step = fc.oneof(
  fc.record({ type: fc.constant("continue" as const) }),
  fc.record({ type: fc.constant("continueTo" as const), key }),
  fc.record({ type: fc.constant("advance" as const), count: fc.integer({ min: 1, max: 3 }) }),
  fc.record({ type: fc.constant("update" as const), value }),
  fc.record({ type: fc.constant("delete" as const) })
)

const operation = fc.oneof(
  { weight: 6, arbitrary: fc.record({ type: fc.constantFrom("put" as const, "add" as const), key, value }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("deleteKey" as const), key }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("deleteRange" as const), range }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("clear" as const) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      type: fc.constantFrom(
        "get" as const,
        "getKey" as const,
        "getAll" as const,
        "getAllKeys" as const,
        "count" as const
      ),
      source,
      range,
      limit: fc.option(fc.integer({ min: 1, max: 3 }), { nil: undefined })
    })
  },
  {
    weight: 3,
    arbitrary: fc.record({
      type: fc.constant("cursor" as const),
      source,
      range,
      direction,
      steps: fc.array(step, { maxLength: 6 })
    })
  }
)
type Operation = typeof operation extends fc.Arbitrary<infer A> ? A : never
type Step = typeof step extends fc.Arbitrary<infer A> ? A : never

const transaction = fc.record({
  operations: fc.array(operation, { minLength: 1, maxLength: 8 }),
  /** Whether an error of a request aborts the transaction. */
  lenient: fc.boolean(),
  abort: fc.nat(5).map((chance) => chance === 0),
  after: fc.constantFrom("nothing", "save", "reopen", "upgrade")
})
type Transaction = typeof transaction extends fc.Arbitrary<infer A> ? A : never

const rangeOf = ({ KeyRange, indexedDB }: Idb, { a, b, kind, lowerOpen, upperOpen }: Range): unknown => {
  if (kind === 0) return undefined
  if (kind === 1) return KeyRange.lowerBound(a, lowerOpen)
  if (kind === 2) return KeyRange.upperBound(b, upperOpen)
  const order = indexedDB.cmp(a, b)
  if (kind === 3 || order === 0) return KeyRange.only(a)
  return order < 0 ? KeyRange.bound(a, b, lowerOpen, upperOpen) : KeyRange.bound(b, a, lowerOpen, upperOpen)
}

/** What a request came to. */
const settled = (request: IdbRequest, lenient: boolean): Promise<unknown> =>
  new Promise((resolve) => {
    request.addEventListener("success", () => resolve(request.result))
    request.addEventListener("error", (event) => {
      if (lenient) event.preventDefault()
      resolve(`error ${request.error?.name}`)
    })
  })

const attempt = (body: () => unknown): unknown => {
  try {
    return body()
  } catch (error) {
    return `threw ${(error as Error).name}`
  }
}

const take = (cursor: IdbCursor, step: Step, lenient: boolean, log: Array<unknown>): void => {
  if (step.type === "continueTo") cursor.continue(step.key)
  else if (step.type === "advance") cursor.advance(step.count)
  else {
    if (step.type === "update") log.push(settled(cursor.update(step.value), lenient))
    if (step.type === "delete") log.push(settled(cursor.delete(), lenient))
    cursor.continue()
  }
}

/** Takes the steps with a cursor, and then goes on to the end. */
const cursorLog = (request: IdbRequest, steps: ReadonlyArray<Step>, lenient: boolean): Promise<unknown> =>
  new Promise((resolve) => {
    const log: Array<unknown> = []
    let taken = 0
    const end = (how: unknown) => resolve(Promise.all([...log, how]))
    request.addEventListener("error", () => end(`error ${request.error?.name}`))
    request.addEventListener("success", () => {
      const cursor = request.result as IdbCursor | null
      if (cursor === null) return end("end")
      log.push([cursor.key, cursor.primaryKey, cursor.value])
      const threw = attempt(() => take(cursor, steps[taken++] ?? { type: "continue" }, lenient, log))
      if (threw !== undefined) end(threw)
    })
  })

const perform = (idb: Idb, tx: IdbTransaction, operation: Operation, lenient: boolean): Promise<unknown> => {
  const store = tx.objectStore("store")
  const from = (name: string): IdbSource => (name === "store" ? store : store.index(name))
  switch (operation.type) {
    case "put":
    case "add":
      return settled(store[operation.type](operation.value, operation.key), lenient)
    case "deleteKey":
      return settled(store.delete(operation.key), lenient)
    case "deleteRange":
      return settled(store.delete(rangeOf(idb, operation.range) ?? idb.KeyRange.lowerBound(0)), lenient)
    case "clear":
      return settled(store.clear(), lenient)
    case "cursor": {
      const request = from(operation.source).openCursor(rangeOf(idb, operation.range), operation.direction)
      return cursorLog(request, operation.steps, lenient)
    }
    case "getAll":
    case "getAllKeys":
      return settled(from(operation.source)[operation.type](rangeOf(idb, operation.range), operation.limit), lenient)
    case "count":
      return settled(from(operation.source).count(rangeOf(idb, operation.range)), lenient)
    default:
      return settled(from(operation.source)[operation.type](rangeOf(idb, operation.range) ?? 1), lenient)
  }
}

const runTransaction = async (idb: Idb, database: IdbDatabase, { abort, lenient, operations }: Transaction) => {
  const tx = database.transaction("store", "readwrite")
  const end = new Promise((resolve) => {
    tx.addEventListener("complete", () => resolve("complete"))
    tx.addEventListener("abort", () => resolve(`abort ${tx.error?.name ?? "asked for"}`))
  })
  const results = operations.map((operation) => perform(idb, tx, operation, lenient))
  if (abort) {
    const marker = tx.objectStore("store").get(0)
    marker.addEventListener("success", () => attempt(() => tx.abort()))
  }
  return [await Promise.all(results), await end]
}

const createStore = (database: IdbDatabase): void => {
  const store = database.createObjectStore("store")
  store.createIndex("plain", "plain")
  store.createIndex("unique", "unique", { unique: true })
  store.createIndex("many", "many", { multiEntry: true })
  store.createIndex("pair", ["plain", "number"])
}

/** Drops an index and builds it anew. */
const rebuild = (_: IdbDatabase, tx: IdbTransaction): void => {
  const store = tx.objectStore("store")
  store.deleteIndex("plain")
  store.createIndex("plain", "plain")
}

const everything = sources.map((source): Operation => ({
  type: "cursor",
  source,
  range: { a: 0, b: 0, lowerOpen: false, upperOpen: false, kind: 0 },
  direction: "next",
  steps: []
}))

/** Runs a script, and gives all that could be seen on the way. `next` gives the instance to go on with. */
const run = async (
  script: ReadonlyArray<Transaction>,
  first: Idb,
  next: (after: Transaction["after"]) => Idb
): Promise<unknown> => {
  let idb = first
  let version = 1
  let database = await open(idb.indexedDB, "model", version, createStore)
  const log: Array<unknown> = []
  for (const transaction of script) {
    log.push(await runTransaction(idb, database, transaction))
    if (transaction.after === "upgrade") version++
    database.close()
    idb = next(transaction.after)
    database = await open(idb.indexedDB, "model", version, rebuild)
  }
  const dump: Transaction = { operations: everything, lenient: true, abort: false, after: "nothing" }
  return [...log, await runTransaction(idb, database, dump)]
}

const runPlain = (script: ReadonlyArray<Transaction>): Promise<unknown> => {
  const idb = plain()
  return run(script, idb, () => idb)
}

const runOurs = (script: ReadonlyArray<Transaction>): Promise<unknown> => {
  const rows = new MemoryRows()
  let instance = rows.instance()
  return run(script, instance, (after) => {
    if (after === "save" || after === "reopen") rows.save(instance)
    if (after === "reopen") instance = rows.instance()
    return instance
  })
}

describe("IndexedDb as a model", () => {
  it("answers like fake-indexeddb, saved and opened again at any time", { timeout: 60_000 }, () =>
    fc.assert(
      fc.asyncProperty(fc.array(transaction, { minLength: 1, maxLength: 5 }), async (script) => {
        assert.deepStrictEqual(await runOurs(script), await runPlain(script))
      }),
      { numRuns: 300 }
    )
  )
})
