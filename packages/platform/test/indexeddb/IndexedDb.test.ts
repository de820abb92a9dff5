import { assert, describe, it } from "@effect/vitest"
import type { RecordReader } from "../../src/crypto/indexeddb/index.ts"
import { MemoryRows, ended, failure, instanceOver, open, result, walk, write } from "./IndexedDbKit.ts"
import type { Direction, IdbCursor, IdbDatabase, IdbRequest, IdbStore, Upgrade } from "./IndexedDbKit.ts"

/** People by id, with an index by city (not unique), by e-mail (unique), by tag (multiEntry) and by city and age. */
const people: Upgrade = (database) => {
  const store = database.createObjectStore("people")
  store.createIndex("city", "city")
  store.createIndex("email", "email", { unique: true })
  store.createIndex("tag", "tags", { multiEntry: true })
  store.createIndex("cityAge", ["city", "age"])
}

const ada = { city: "London", email: "ada@example.org", tags: ["math", "poetry"], age: 36 }
const emmy = { city: "Erlangen", email: "emmy@example.org", tags: ["math"], age: 53 }
const alan = { city: "London", email: "alan@example.org", tags: ["math", "running"], age: 41 }
const eve = { city: "London", email: "eve@example.org", tags: [], age: 1 }

const openPeople = async (rows: MemoryRows) => {
  const instance = rows.instance()
  const database = await open(instance.indexedDB, "app", 1, people)
  await write(database, "people", (transaction) => {
    const store = transaction.objectStore("people")
    store.put(ada, "ada")
    store.put(emmy, "emmy")
    store.put(alan, "alan")
  })
  return { instance, database }
}

const storeOf = (database: IdbDatabase, mode: "readonly" | "readwrite" = "readonly"): IdbStore =>
  database.transaction("people", mode).objectStore("people")

const get = (database: IdbDatabase, key: unknown): Promise<unknown> => result(storeOf(database).get(key))

/** Opens again on the same rows, as another process would. */
const reopen = (rows: MemoryRows, options: { readonly writable?: boolean } = {}) => {
  const instance = rows.instance(options)
  return open(instance.indexedDB, "app").then((database) => ({ instance, database }))
}

const rejection = (promise: Promise<unknown>): Promise<Error> =>
  promise.then(
    () => assert.fail("it succeeded"),
    (error: Error) => error
  )

describe("IndexedDb: records", () => {
  it("finds what was put, also after it is saved and opened again", async () => {
    const rows = new MemoryRows()
    const { instance, database } = await openPeople(rows)
    assert.deepStrictEqual(await get(database, "ada"), ada)
    assert.deepStrictEqual(await result(storeOf(database).getAllKeys()), ["ada", "alan", "emmy"])
    assert.strictEqual(await result(storeOf(database).count()), 3)
    rows.save(instance)
    const again = await reopen(rows)
    assert.deepStrictEqual(await get(again.database, "ada"), ada)
    assert.deepStrictEqual(await result(storeOf(again.database).getAll()), [ada, alan, emmy])
    assert.strictEqual(await result(storeOf(again.database).count()), 3)
  })

  it("finds by every kind of index", async () => {
    const { database } = await openPeople(new MemoryRows())
    const index = (name: string) => storeOf(database).index(name)
    assert.deepStrictEqual(await result(index("city").getAllKeys("London")), ["ada", "alan"])
    assert.deepStrictEqual(await result(index("email").get("emmy@example.org")), emmy)
    assert.deepStrictEqual(await result(index("tag").getAllKeys("math")), ["ada", "alan", "emmy"])
    assert.deepStrictEqual(await result(index("cityAge").getAllKeys()), ["emmy", "ada", "alan"])
    assert.strictEqual(await result(index("tag").count()), 5)
    assert.strictEqual(await result(index("city").getKey("London")), "ada")
  })

  it("moves a record in its indexes when it changes, and out of them when it goes", async () => {
    const rows = new MemoryRows()
    const { instance, database } = await openPeople(rows)
    rows.save(instance)
    await write(database, "people", (transaction) => {
      transaction.objectStore("people").put({ ...ada, city: "Paris" }, "ada")
      transaction.objectStore("people").delete("emmy")
    })
    const index = storeOf(database).index("city")
    assert.deepStrictEqual(await walk(index.openKeyCursor()), [
      ["London", "alan", undefined],
      ["Paris", "ada", undefined]
    ])
    rows.save(instance)
    // Six rows for each of the two (the record, and one or two per index), two databases' rows of the schema.
    const again = await reopen(rows)
    assert.strictEqual(await result(storeOf(again.database).index("tag").count()), 4)
  })

  it("refuses a second record with a unique index key, and goes on if that is allowed", async () => {
    const { database } = await openPeople(new MemoryRows())
    const transaction = database.transaction("people", "readwrite")
    const store = transaction.objectStore("people")
    assert.strictEqual(await failure(store.put({ ...alan, email: ada.email }, "eve")), "ConstraintError")
    assert.strictEqual(await failure(store.add(ada, "ada")), "ConstraintError")
    assert.strictEqual(await ended(transaction), "complete")
    assert.strictEqual(await get(database, "eve"), undefined)
    assert.deepStrictEqual(await result(storeOf(database).index("city").getAllKeys("London")), ["ada", "alan"])
  })

  it("refuses with DataCloneError what it could not store", async () => {
    const { database } = await openPeople(new MemoryRows())
    const store = storeOf(database, "readwrite")
    for (const value of [() => 1, new Blob(["x"])]) {
      const error = (() => {
        try {
          return store.put(value, "x")
        } catch (thrown) {
          return thrown
        }
      })()
      assert.strictEqual((error as Error).name, "DataCloneError")
    }
  })

  it("generates keys from where it left off", async () => {
    const rows = new MemoryRows()
    const first = rows.instance()
    const numbered = (database: IdbDatabase) => void database.createObjectStore("log", { autoIncrement: true })
    const database = await open(first.indexedDB, "app", 1, numbered)
    const add = async (to: IdbDatabase) => {
      const transaction = to.transaction("log", "readwrite")
      const [key] = await Promise.all([result(transaction.objectStore("log").add("line")), ended(transaction)])
      return key
    }
    assert.deepStrictEqual([await add(database), await add(database)], [1, 2])
    rows.save(first)
    const again = await reopen(rows)
    assert.strictEqual(await add(again.database), 3)
  })
})

/** Drives a cursor by a list of steps, and gives the primary keys that it stood on. */
const drive = (
  request: IdbRequest,
  steps: ReadonlyArray<(cursor: IdbCursor) => void>
): Promise<ReadonlyArray<unknown>> =>
  new Promise((resolve, reject) => {
    const seen: Array<unknown> = []
    request.addEventListener("error", () => reject(request.error ?? new Error("the cursor failed")))
    request.addEventListener("success", () => {
      const cursor = request.result as IdbCursor | null
      if (cursor === null) return resolve(seen)
      const step = steps[seen.length]
      seen.push(cursor.primaryKey)
      if (step === undefined) return resolve(seen)
      step(cursor)
    })
  })

describe("IndexedDb: cursors", () => {
  it("goes through an index in all four directions", async () => {
    const { database } = await openPeople(new MemoryRows())
    const keys = async (direction: Direction) =>
      (await walk(storeOf(database).index("city").openKeyCursor(null, direction))).map(([, primary]) => primary)
    assert.deepStrictEqual(await keys("next"), ["emmy", "ada", "alan"])
    assert.deepStrictEqual(await keys("nextunique"), ["emmy", "ada"])
    assert.deepStrictEqual(await keys("prev"), ["alan", "ada", "emmy"])
    // The lowest of those with the same key, in both directions.
    assert.deepStrictEqual(await keys("prevunique"), ["ada", "emmy"])
  })

  it("gives one record per key, the lowest, to who asks for all at once", async () => {
    const { database } = await openPeople(new MemoryRows())
    const keys = (direction: Direction) => result(storeOf(database).index("city").getAllKeys({ direction }))
    assert.deepStrictEqual(await keys("nextunique"), ["emmy", "ada"])
    assert.deepStrictEqual(await keys("prevunique"), ["ada", "emmy"])
    assert.deepStrictEqual(await keys("prev"), ["alan", "ada", "emmy"])
  })

  it("jumps to a key and over records", async () => {
    const { database } = await openPeople(new MemoryRows())
    const store = storeOf(database)
    assert.deepStrictEqual(await drive(store.openCursor(), [(cursor) => cursor.continue("b")]), ["ada", "emmy"])
    assert.deepStrictEqual(await drive(store.openCursor(), [(cursor) => cursor.advance(2)]), ["ada", "emmy"])
    assert.deepStrictEqual(
      await drive(store.index("city").openKeyCursor(), [(cursor) => cursor.continuePrimaryKey("London", "adb")]),
      ["emmy", "alan"]
    )
  })

  it("updates and deletes where it stands", async () => {
    const rows = new MemoryRows()
    const { instance, database } = await openPeople(rows)
    rows.save(instance)
    const transaction = database.transaction("people", "readwrite")
    const cursors = transaction.objectStore("people").index("city").openCursor("London")
    await drive(cursors, [
      (cursor) => {
        cursor.update({ ...(cursor.value as object), city: "Oxford" })
        cursor.continue()
      },
      (cursor) => {
        cursor.delete()
        cursor.continue()
      }
    ])
    assert.strictEqual(await ended(transaction), "complete")
    assert.deepStrictEqual(await result(storeOf(database).getAllKeys()), ["ada", "emmy"])
    assert.deepStrictEqual(await result(storeOf(database).index("city").getAllKeys("Oxford")), ["ada"])
  })

  it("goes through many records of one index key without reading those before again", async () => {
    const rows = new MemoryRows()
    const instance = rows.instance()
    const database = await open(instance.indexedDB, "app", 1, people)
    await write(database, "people", (transaction) => {
      for (let number = 0; number < 200; number++) transaction.objectStore("people").put({ city: "here" }, number)
    })
    rows.save(instance)
    let read = 0
    const counting: RecordReader = {
      ...rows.reader,
      range: (...args) => {
        const page = rows.reader.range(...args)
        read += page.length
        return page
      }
    }
    const again = await open(instanceOver(counting).indexedDB, "app")
    for (const direction of ["next", "prev"] as const) {
      read = 0
      const records = await walk(storeOf(again).index("city").openKeyCursor("here", direction))
      assert.strictEqual(records.length, 200)
      assert.isBelow(read, 200 * 5)
    }
  })

  it("reads page by page, what is saved and what isn't together", async () => {
    const rows = new MemoryRows()
    const { instance, database } = await openPeople(rows)
    const many = Array.from({ length: 300 }, (_, number) => number)
    const put = (numbers: ReadonlyArray<number>, city: string) =>
      write(database, "people", (transaction) => {
        for (const number of numbers) transaction.objectStore("people").put({ city, number }, number)
      })
    await put(many, "here")
    rows.save(instance)
    await put(
      many.filter((number) => number % 3 === 0),
      "there"
    )
    await write(database, "people", (transaction) => {
      for (const number of many) if (number % 5 === 0) transaction.objectStore("people").delete(number)
    })
    const left = many.filter((number) => number % 5 !== 0)
    const range = rows.instance().KeyRange.bound(0, 299)
    const store = storeOf(database)
    assert.deepStrictEqual(await result(store.getAllKeys(range)), left)
    assert.strictEqual(await result(store.count(range)), left.length)
    const walked = await walk(storeOf(database).openCursor(range, "prev"))
    assert.deepStrictEqual(
      walked.map(([key, , value]) => [key, (value as { city: string }).city]),
      left.reverse().map((number) => [number, number % 3 === 0 ? "there" : "here"])
    )
  })
})

describe("IndexedDb: schema", () => {
  it("adds and drops stores and indexes, and drops their rows", async () => {
    const rows = new MemoryRows()
    const first = await openPeople(rows)
    rows.save(first.instance)
    const before = rows.size
    const second = rows.instance()
    const upgraded = await open(second.indexedDB, "app", 2, (database, transaction) => {
      const store = transaction.objectStore("people")
      store.deleteIndex("city")
      store.deleteIndex("tag")
      store.createIndex("age", "age")
      database.createObjectStore("places").put("a town", "Erlangen")
    })
    assert.deepStrictEqual([...upgraded.objectStoreNames], ["people", "places"])
    rows.save(second)
    // Three rows by city and five by tag are gone; three by age and one place are new.
    assert.strictEqual(rows.size, before - 8 + 4)
    const third = rows.instance()
    const again = await open(third.indexedDB, "app", 3, (database, transaction) => {
      assert.deepStrictEqual([...transaction.objectStore("people").indexNames], ["age", "cityAge", "email"])
      database.deleteObjectStore("people")
    })
    assert.strictEqual(await result(again.transaction("places").objectStore("places").get("Erlangen")), "a town")
    rows.save(third)
    // The place, the schema, and the number of the last collection.
    assert.strictEqual(rows.size, 3)
  })

  it("fills a new index with the records that are there, and aborts if they don't fit", async () => {
    const rows = new MemoryRows()
    const first = await openPeople(rows)
    rows.save(first.instance)
    const second = rows.instance()
    const error = await rejection(
      open(second.indexedDB, "app", 2, (_, transaction) => {
        transaction.objectStore("people").createIndex("oneEach", "city", { unique: true })
      })
    )
    assert.strictEqual(error.name, "AbortError")
    assert.isFalse(second.hasWrites())
    assert.strictEqual((await reopen(rows)).database.version, 1)
  })

  it("doesn't bring back the records of a store that was dropped and made again", async () => {
    const rows = new MemoryRows()
    const first = await openPeople(rows)
    rows.save(first.instance)
    const second = rows.instance()
    const database = await open(second.indexedDB, "app", 2, (database) => {
      database.deleteObjectStore("people")
      database.createObjectStore("people")
    })
    assert.strictEqual(await result(storeOf(database).count()), 0)
    rows.save(second)
    assert.strictEqual(await result(storeOf((await reopen(rows)).database).count()), 0)
  })

  it("keeps the records of a store that is renamed", async () => {
    const rows = new MemoryRows()
    const first = await openPeople(rows)
    rows.save(first.instance)
    const second = rows.instance()
    await open(second.indexedDB, "app", 2, (_, transaction) => {
      transaction.objectStore("people").name = "persons"
    })
    rows.save(second)
    const { database } = await reopen(rows)
    assert.deepStrictEqual(await result(database.transaction("persons").objectStore("persons").get("ada")), ada)
  })

  it("deletes a database with all of its rows, and lists those that are left", async () => {
    const rows = new MemoryRows()
    const first = await openPeople(rows)
    await open(first.instance.indexedDB, "other", 7)
    rows.save(first.instance)
    const second = rows.instance()
    const list = async () => (await second.indexedDB.databases()).map(({ name, version }) => [name, version])
    assert.deepStrictEqual(await list(), [
      ["app", 1],
      ["other", 7]
    ])
    await result(second.indexedDB.deleteDatabase("app"))
    assert.deepStrictEqual(await list(), [["other", 7]])
    rows.save(second)
    // The other's schema, and the number of the last collection.
    assert.strictEqual(rows.size, 2)
    const database = await open(second.indexedDB, "app", 1, people)
    assert.strictEqual(await result(storeOf(database).count()), 0)
  })

  it("refuses an older version, and touches nothing", async () => {
    const rows = new MemoryRows()
    const first = rows.instance()
    await open(first.indexedDB, "app", 5, people)
    rows.save(first)
    const second = rows.instance()
    assert.strictEqual((await rejection(open(second.indexedDB, "app", 4, people))).name, "VersionError")
    assert.isFalse(second.hasWrites())
  })
})

describe("IndexedDb: commit", () => {
  it("ends a transaction that is told to commit once its requests are done, and takes no more", async () => {
    const rows = new MemoryRows()
    const { instance, database } = await openPeople(rows)
    rows.save(instance)
    const transaction = database.transaction("people", "readwrite")
    const store = transaction.objectStore("people")
    store.put(eve, "eve")
    transaction.commit()
    assert.isFalse(instance.hasWrites())
    assert.throws(() => store.put(eve, "second"), /not active/)
    assert.strictEqual(await ended(transaction), "complete")
    assert.isTrue(instance.hasWrites())
    assert.deepStrictEqual(await get(database, "eve"), eve)
  })
})

describe("IndexedDb: which transactions run at once", () => {
  /** A database with two stores, and a transaction on the first that goes on until it is let go. */
  const busy = async (mode: "readonly" | "readwrite") => {
    const instance = new MemoryRows().instance()
    const database = await open(instance.indexedDB, "app", 1, (database) => {
      database.createObjectStore("one")
      database.createObjectStore("two")
    })
    const transaction = database.transaction("one", mode)
    let held = true
    const again = (): void => {
      if (held) transaction.objectStore("one").get(0).addEventListener("success", again)
    }
    again()
    await result(transaction.objectStore("one").get(0))
    const release = () => {
      held = false
    }
    return { database, transaction, release }
  }

  it("keeps a writer out of a store that another one writes or reads, and lets it in afterwards", async () => {
    for (const mode of ["readwrite", "readonly"] as const) {
      const { database, release, transaction } = await busy(mode)
      const log: Array<string> = []
      const writing = database.transaction("one", "readwrite")
      const first = ended(transaction).then(() => log.push("first"))
      const second = result(writing.objectStore("one").put(1, 1)).then(() => log.push("second"))
      // Enough turns for the second one, were it let in.
      for (let turn = 0; turn < 20; turn++) await result(database.transaction("two").objectStore("two").get(0))
      assert.deepStrictEqual(log, [])
      release()
      await Promise.all([first, second])
      assert.deepStrictEqual(log, ["first", "second"])
    }
  })

  it("lets nobody overtake who waits for one of the same stores", async () => {
    const { database, release } = await busy("readonly")
    const log: Array<string> = []
    const both = database.transaction(["one", "two"], "readwrite")
    const waiting = result(both.objectStore("two").put("both", 1)).then(() => log.push("both"))
    const later = database.transaction("two", "readwrite")
    const behind = result(later.objectStore("two").put("later", 1)).then(() => log.push("later"))
    await new Promise((resolve) => setImmediate(resolve))
    assert.deepStrictEqual(log, [])
    release()
    await Promise.all([waiting, behind])
    assert.deepStrictEqual(log, ["both", "later"])
  })

  it("lets readers of one store and writers of others run side by side", async () => {
    const { database, release, transaction } = await busy("readonly")
    const reader = database.transaction("one")
    const writer = database.transaction("two", "readwrite")
    await Promise.all([result(reader.objectStore("one").get(0)), result(writer.objectStore("two").put(1, 1))])
    assert.deepStrictEqual(await Promise.all([ended(reader), ended(writer)]), ["complete", "complete"])
    release()
    assert.strictEqual(await ended(transaction), "complete")
  })
})

describe("IndexedDb: aborts", () => {
  it("stages nothing of a transaction that is aborted, and reads what was there before", async () => {
    const rows = new MemoryRows()
    const { instance, database } = await openPeople(rows)
    rows.save(instance)
    const transaction = database.transaction("people", "readwrite")
    const store = transaction.objectStore("people")
    store.put({ ...ada, city: "Paris" }, "ada")
    store.clear()
    await result(store.put(emmy, "zoe"))
    transaction.abort()
    assert.strictEqual(await ended(transaction), "abort")
    assert.isFalse(instance.hasWrites())
    assert.deepStrictEqual(await result(storeOf(database).getAllKeys()), ["ada", "alan", "emmy"])
    assert.deepStrictEqual(await result(storeOf(database).index("city").getAllKeys("London")), ["ada", "alan"])
  })

  it("stages nothing of a transaction in which a request fails", async () => {
    const rows = new MemoryRows()
    const { instance, database } = await openPeople(rows)
    rows.save(instance)
    const transaction = database.transaction("people", "readwrite")
    transaction.objectStore("people").put({ ...ada, email: "new@example.org" }, "ada")
    transaction.objectStore("people").put({ ...ada, email: emmy.email }, "eve")
    assert.strictEqual(await ended(transaction), "abort")
    assert.isFalse(instance.hasWrites())
    assert.strictEqual(await get(database, "eve"), undefined)
    assert.deepStrictEqual(await get(database, "ada"), ada)
  })

  it("keeps what other transactions staged when one is aborted", async () => {
    const { instance, database } = await openPeople(new MemoryRows())
    const staged = instance.writes().length
    const transaction = database.transaction("people", "readwrite")
    await result(transaction.objectStore("people").clear())
    transaction.abort()
    await ended(transaction)
    assert.strictEqual(instance.writes().length, staged)
    assert.deepStrictEqual(await get(database, "ada"), ada)
  })

  it("stages nothing of an upgrade that is aborted", async () => {
    const rows = new MemoryRows()
    const first = rows.instance()
    const error = await rejection(
      open(first.indexedDB, "app", 1, (database, transaction) => {
        people(database, transaction)
        transaction.abort()
      })
    )
    assert.strictEqual(error.name, "AbortError")
    assert.isFalse(first.hasWrites())
    assert.deepStrictEqual(await first.indexedDB.databases(), [])
    // The same again, and this time it goes through.
    const database = await open(first.indexedDB, "app", 1, people)
    assert.strictEqual(await result(storeOf(database).count()), 0)
  })
})

describe("IndexedDb: what is committed and not written", () => {
  it("coalesces transactions into the last value of each row", async () => {
    const rows = new MemoryRows()
    const { instance, database } = await openPeople(rows)
    rows.save(instance)
    for (const city of ["Bath", "Bristol", "Exeter"]) {
      await write(database, "people", (transaction) => transaction.objectStore("people").put({ city }, "eve"))
    }
    const writes = instance.writes()
    const names = writes.map(({ collection, key }) => `${collection}/${Buffer.from(key).toString("hex")}`)
    assert.strictEqual(new Set(names).size, names.length)
    rows.apply(writes)
    instance.committed()
    assert.isFalse(instance.hasWrites())
    const { database: again } = await reopen(rows)
    assert.deepStrictEqual(await walk(storeOf(again).index("city").openKeyCursor()), [
      ["Erlangen", "emmy", undefined],
      ["Exeter", "eve", undefined],
      ["London", "ada", undefined],
      ["London", "alan", undefined]
    ])
  })

  it("keeps what is committed between writes and committed", async () => {
    const rows = new MemoryRows()
    const { instance, database } = await openPeople(rows)
    rows.save(instance)
    const put = (key: string, value: unknown) =>
      write(database, "people", (transaction) => transaction.objectStore("people").put(value, key))
    await put("one", 1)
    await put("two", 1)
    const writes = instance.writes()
    // One row changes again, and one is new, before the first two are in the database.
    await put("one", 2)
    await put("three", 3)
    rows.apply(writes)
    instance.committed()
    assert.deepStrictEqual(await result(storeOf(database).get("one")), 2)
    assert.strictEqual(instance.writes().length, 2)
    rows.save(instance)
    const { database: again } = await reopen(rows)
    assert.deepStrictEqual(await Promise.all(["one", "two", "three"].map((key) => get(again, key))), [2, 1, 3])
  })

  it("keeps everything when the write fails", async () => {
    const rows = new MemoryRows()
    const { instance } = await openPeople(rows)
    const writes = instance.writes()
    assert.deepStrictEqual(instance.writes(), writes)
    rows.save(instance)
    assert.deepStrictEqual(await get((await reopen(rows)).database, "ada"), ada)
  })

  it("has nothing to write after transactions that only read or changed nothing", async () => {
    const rows = new MemoryRows()
    const { instance, database } = await openPeople(rows)
    rows.save(instance)
    await get(database, "ada")
    await write(database, "people", (transaction) => transaction.objectStore("people").delete("nobody"))
    assert.isFalse(instance.hasWrites())
    assert.deepStrictEqual(instance.writes(), [])
  })
})

describe("IndexedDb: two of them", () => {
  it("share nothing, though their databases have one name", async () => {
    const one = await openPeople(new MemoryRows())
    const other = new MemoryRows().instance()
    assert.deepStrictEqual(await other.indexedDB.databases(), [])
    const database = await open(other.indexedDB, "app", 1, people)
    assert.strictEqual(await result(storeOf(database).count()), 0)
    assert.strictEqual(await result(storeOf(one.database).count()), 3)
  })

  it("one that reads sees what the other one saves later, without opening again", async () => {
    const rows = new MemoryRows()
    const owner = await openPeople(rows)
    rows.save(owner.instance)
    const reader = await reopen(rows, { writable: false })
    assert.strictEqual(await get(reader.database, "eve"), undefined)
    await write(owner.database, "people", (transaction) => transaction.objectStore("people").put(eve, "eve"))
    assert.strictEqual(await get(reader.database, "eve"), undefined)
    rows.save(owner.instance)
    assert.deepStrictEqual(await get(reader.database, "eve"), eve)
  })

  it("one that reads keeps nothing of what it writes, says so, and counts it", async () => {
    const rows = new MemoryRows()
    const owner = await openPeople(rows)
    rows.save(owner.instance)
    const reader = await reopen(rows, { writable: false })
    await write(reader.database, "people", (transaction) => transaction.objectStore("people").put(eve, "eve"))
    assert.strictEqual(await get(reader.database, "eve"), undefined)
    assert.isFalse(reader.instance.hasWrites())
    assert.strictEqual(reader.instance.discarded(), 1)
  })

  it("one that reads creates, upgrades and deletes no database", async () => {
    const rows = new MemoryRows()
    const reader = rows.instance({ writable: false })
    assert.strictEqual((await rejection(open(reader.indexedDB, "app", 1, people))).name, "NotFoundError")
    const owner = await openPeople(rows)
    rows.save(owner.instance)
    const error = await rejection(open(reader.indexedDB, "app", 2, people))
    assert.strictEqual(error.name, "ReadOnlyError")
    assert.match(error.message, /has version 1.*upgrades it to 2/)
    assert.strictEqual((await rejection(result(reader.indexedDB.deleteDatabase("app")))).name, "ReadOnlyError")
    assert.isFalse(reader.hasWrites())
    assert.deepStrictEqual(await get(await open(reader.indexedDB, "app", 1), "ada"), ada)
  })

  it("one takes over what the other one upgraded", async () => {
    const rows = new MemoryRows()
    const first = await openPeople(rows)
    rows.save(first.instance)
    first.database.close()
    const second = rows.instance()
    await open(second.indexedDB, "app", 2, (database) => void database.createObjectStore("places"))
    rows.save(second)
    const database = await open(first.instance.indexedDB, "app")
    assert.deepStrictEqual([database.version, ...database.objectStoreNames], [2, "people", "places"])
    const third = await open(first.instance.indexedDB, "more", 1, people)
    await write(third, "people", (transaction) => transaction.objectStore("people").put(1, "only here"))
    assert.strictEqual(await get(database, "only here"), undefined)
  })
})

describe("IndexedDb: errors of the reader", () => {
  it("fails the request, aborts the transaction, and keeps the error", async () => {
    const rows = new MemoryRows()
    const { instance, database } = await openPeople(rows)
    rows.save(instance)
    const fault = new Error("database disk image is malformed")
    const transaction = database.transaction("people", "readwrite")
    await result(transaction.objectStore("people").put(eve, "eve"))
    rows.fault = fault
    const request = transaction.objectStore("people").get("ada")
    assert.strictEqual(await ended(transaction), "abort")
    assert.strictEqual(request.error?.name, "UnknownError")
    assert.strictEqual(instance.takeError(), fault)
    assert.strictEqual(instance.takeError(), undefined)
    assert.isFalse(instance.hasWrites())
    rows.fault = undefined
    assert.deepStrictEqual(await get(database, "ada"), ada)
  })

  it("fails in every kind of read", async () => {
    const rows = new MemoryRows()
    const { instance, database } = await openPeople(rows)
    rows.save(instance)
    rows.fault = new Error("busy")
    const reads: ReadonlyArray<(store: IdbStore) => IdbRequest> = [
      (store) => store.getAll(),
      (store) => store.count(),
      (store) => store.openCursor(),
      (store) => store.index("city").get("London"),
      (store) => store.index("email").getKey(ada.email),
      (store) => store.put(ada, "ada"),
      (store) => store.delete("ada"),
      (store) => store.clear()
    ]
    for (const read of reads) {
      const transaction = database.transaction("people", "readwrite")
      const request = read(transaction.objectStore("people"))
      assert.strictEqual(await ended(transaction), "abort")
      assert.strictEqual(request.error?.name, "UnknownError")
      assert.strictEqual(instance.takeError(), rows.fault)
    }
  })

  it("fails opening, upgrading and deleting, and keeps everything", async () => {
    const rows = new MemoryRows()
    const first = await openPeople(rows)
    rows.save(first.instance)
    const second = rows.instance()
    rows.fault = new Error("busy")
    assert.strictEqual((await rejection(open(second.indexedDB, "app"))).name, "UnknownError")
    assert.strictEqual((await rejection(result(second.indexedDB.deleteDatabase("app")))).name, "UnknownError")
    await rejection(second.indexedDB.databases())
    rows.fault = undefined
    const error = await rejection(
      open(second.indexedDB, "app", 2, (database) => {
        database.deleteObjectStore("people")
        // The rows that have to go can't be read when it commits.
        rows.fault = new Error("malformed")
      })
    )
    assert.strictEqual(error.name, "AbortError")
    assert.strictEqual(second.takeError(), rows.fault)
    rows.fault = undefined
    assert.isFalse(second.hasWrites())
    assert.deepStrictEqual(await get((await reopen(rows)).database, "ada"), ada)
  })

  it("fails a delete that can't find out what there is to delete", async () => {
    const rows = new MemoryRows()
    const { database, instance } = await openPeople(rows)
    rows.save(instance)
    const deletion = instance.indexedDB.deleteDatabase("app")
    // It waits until the connection is closed, and then can't read.
    deletion.addEventListener("blocked", () => {
      rows.fault = new Error("malformed")
      database.close()
    })
    assert.strictEqual((await rejection(result(deletion))).name, "UnknownError")
    assert.strictEqual(instance.takeError(), rows.fault)
    rows.fault = undefined
    assert.isFalse(instance.hasWrites())
  })

  it("says that a row is no value", async () => {
    const rows = new MemoryRows()
    const { instance, database } = await openPeople(rows)
    const writes = instance.writes()
    rows.apply(writes.map((write) => (write.collection === "1" ? { ...write, value: Uint8Array.of(1, 99) } : write)))
    instance.committed()
    const request = storeOf(database).get("ada")
    assert.strictEqual(await failure(request), "UnknownError")
    assert.instanceOf(instance.takeError(), RangeError)
  })
})
