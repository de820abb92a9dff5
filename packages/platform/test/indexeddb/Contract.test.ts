/**
 * What we rely on of `fake-indexeddb` and of the crypto engine that neither of them promises. When a newer version of one of
 * them breaks a test here, what it names has changed: look at it in the package and in our code before anything else.
 */
import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { modules } from "../../src/crypto/indexeddb/FakeIndexedDb.ts"
import * as KeyCodec from "../../src/crypto/indexeddb/KeyCodec.ts"
import type { DatabaseSchema } from "../../src/crypto/indexeddb/Schema.ts"
import { directoryOf, loadPrivately } from "../../src/crypto/PrivateModules.ts"
import { Device, KeyServer, gluePath, packageDirectory } from "./CryptoKit.ts"
import { MemoryRows, open, result, walk } from "./IndexedDbKit.ts"

const readJson = (...path: ReadonlyArray<string>): { readonly [name: string]: unknown } =>
  JSON.parse(readFileSync(join(...path), "utf8")) as { readonly [name: string]: unknown }

const ours = readJson(import.meta.dirname, "../../package.json")["dependencies"] as { readonly [name: string]: string }

const fakeDirectory = directoryOf("fake-indexeddb")
const load = loadPrivately(fakeDirectory)
load(modules.main)
const classOf = (path: string) => {
  const module = load(path) as { readonly default?: unknown }
  return (module.default ?? module) as new (...args: ReadonlyArray<unknown>) => object
}

/** What a class lacks of these methods, or has with another number of parameters. */
const unlike = (path: string, methods: { readonly [name: string]: number }): ReadonlyArray<string> => {
  const prototype = classOf(path).prototype as { readonly [name: string]: (() => void) | undefined }
  return Object.entries(methods)
    .filter(([name, arity]) => prototype[name]?.length !== arity)
    .map(([name]) => `${path}: ${name}`)
}

/** What an object lacks of these. */
const missing = (path: string, instance: object, names: ReadonlyArray<string>): ReadonlyArray<string> =>
  names.filter((name) => !(name in instance)).map((name) => `${path}: ${name}`)

describe("Contract with fake-indexeddb", () => {
  it("is the exact version whose internals are known", () => {
    assert.strictEqual(
      ours["fake-indexeddb"],
      "6.2.8",
      "a new version: compare build/cjs with the old one file by file"
    )
    assert.strictEqual(readJson(fakeDirectory, "../../package.json")["version"], "6.2.8")
  })

  it("has the files that we replace and use", () => {
    for (const path of Object.values(modules)) assert.doesNotThrow(() => load(path), `${path} is gone`)
  })

  it("reads and writes records by these methods only", () => {
    const own = ["constructor", "get", "put", "delete", "deleteByKeyAndValue", "clear", "values", "size"]
    assert.deepStrictEqual(
      Object.getOwnPropertyNames(classOf(modules.records).prototype),
      own,
      "lib/RecordStore.js has other methods than Records.ts replaces"
    )
    const methods = { get: 1, put: 1, delete: 1, deleteByKeyAndValue: 2, clear: 0, values: 1, size: 0 }
    assert.deepStrictEqual(unlike(modules.records, methods), [], "they take other arguments than Records.ts does")
  })

  it("has the classes that we extend as we extend them", () => {
    const changed = [
      unlike(modules.transaction, { _start: 0, _abort: 1, _markFinished: 0, commit: 0, abort: 0 }),
      unlike(modules.objectStore, { storeRecord: 3, deleteRecord: 2, getValue: 1, count: 1, clear: 1 }),
      unlike(modules.index, { storeRecord: 1, deleteRecord: 1, getIndexKey: 1, initialize: 1, count: 1 }),
      unlike(modules.database, { processTransactions: 0 }),
      unlike(modules.cursor, { _iterate: 2, continue: 1, advance: 1 }),
      unlike(modules.factory, { open: 2, deleteDatabase: 1, databases: 0, cmp: 2 })
    ]
    assert.deepStrictEqual(changed.flat(), [], "FakeIndexedDb.ts and IndexedDb.ts override or call these")
  })

  it("keeps its state where we look for it", () => {
    const database = new (classOf(modules.database))("name", 1)
    const store = new (classOf(modules.objectStore))(database, "store", null, true) as { keyGenerator: object }
    const index = new (classOf(modules.index))(store, "index", "path", false, true)
    const transaction = new (classOf(modules.transaction))(["store"], "readwrite", "default", {
      _rawDatabase: database
    })
    const cursor = new (classOf(modules.cursor))({}, undefined, "next")
    const cursorFields = ["_source", "_direction", "_position", "_objectStorePosition"]
    const databaseFields = ["name", "version", "transactions", "rawObjectStores", "connections"]
    const storeFields = ["records", "rawIndexes", "rawDatabase", "keyPath", "autoIncrement", "keyGenerator", "deleted"]
    const indexFields = ["records", "keyPath", "multiEntry", "unique", "initialized", "deleted"]
    const transactionFields = ["_requests", "_scope", "_state", "_started", "_rollbackLog", "mode", "db", "error"]
    const gone = [
      missing(modules.database, database, databaseFields),
      missing(modules.objectStore, store, storeFields),
      missing(modules.cursor, cursor, cursorFields),
      missing("lib/KeyGenerator.js", store.keyGenerator, ["num"]),
      missing(modules.index, index, indexFields),
      missing(modules.transaction, transaction, transactionFields),
      missing(modules.factory, new (classOf(modules.factory))(), ["_databases"]),
      missing(modules.openRequest, new (classOf(modules.openRequest))(), ["readyState", "source", "dispatchEvent"])
    ]
    assert.deepStrictEqual(gone.flat(), [], "FakeIndexedDb.ts and IndexedDb.ts use these")
  })

  it("exports what it schedules and clones by under these names", () => {
    assert.deepStrictEqual(Object.keys(load(modules.scheduling) as object), ["queueTask"])
    assert.deepStrictEqual(Object.keys(load(modules.clone) as object), ["cloneValueForInsertion"])
  })
})

const knownStores = new Set([
  "backup_keys",
  "core",
  "devices",
  "gossip_requests",
  "identities",
  "inbound_group_sessions3",
  "lease_locks",
  "olm_hashes",
  "outbound_group_sessions",
  "received_room_key_bundles",
  "room_key_backups_fully_downloaded",
  "room_settings",
  "rooms_pending_key_bundle",
  "secrets_inbox2",
  "session",
  "tracked_users",
  "withheld_sessions"
])

describe("Contract with the crypto engine", () => {
  const glue = readFileSync(join(packageDirectory, gluePath), "utf8")

  it("is the exact version whose storage is known", () => {
    const name = "@matrix-org/matrix-sdk-crypto-wasm"
    assert.strictEqual(ours[name], "18.9.0", "a new version: see what it stores, and what its glue takes from outside")
    assert.strictEqual(readJson(packageDirectory, "package.json")["version"], "18.9.0")
  })

  it("reaches IndexedDB by these names only", () => {
    const names = [...new Set(glue.match(/\bIDB[A-Za-z]+|\bindexedDB\b/g))].sort()
    const known =
      "IDBCursor IDBCursorWithValue IDBDatabase IDBFactory IDBIndex IDBKeyRange IDBObjectStore IDBOpenDBRequest IDBRequest IDBTransaction IDBVersionChangeEvent indexedDB".split(
        " "
      )
    for (const name of names) assert.include(known, name, `the glue uses ${name}, which we may have to give it`)
    assert.include(names, "indexedDB", "the glue finds IndexedDB in another way")
    assert.match(glue, /globalThis/, "the glue finds its globals in another way")
  })

  it("requires no other file or package", () => {
    assert.notMatch(glue, /\brequire\(/, "the glue requires something, which would be loaded privately")
  })

  it("keeps its state in the databases, stores and kinds of values that are known", async () => {
    const rows = new MemoryRows()
    const server = new KeyServer()
    const instance = rows.instance()
    const bob = await Device.open(server, "@bob:hs", "BOB", instance)
    await bob.pump()
    rows.save(instance)
    const databases = await rows.instance().indexedDB.databases()
    assert.deepStrictEqual(
      databases.map(({ name, version }) => [name, version]),
      [
        ["@bob:hs::matrix-sdk-crypto", 107],
        ["@bob:hs::matrix-sdk-crypto-meta", 1]
      ],
      "the engine has another schema: try an upgrade from a database of the version before"
    )
    const bytes = rows.reader.get("schema", KeyCodec.encode("@bob:hs::matrix-sdk-crypto"))
    const schema = JSON.parse(new TextDecoder().decode(bytes)) as DatabaseSchema
    const stores = schema.stores.map(({ name }) => name).sort()
    assert.deepStrictEqual(
      stores.filter((name) => !knownStores.has(name)),
      []
    )
    assert.strictEqual(stores.length, knownStores.size)
    for (const store of schema.stores) assert.deepStrictEqual([store.keyPath, store.autoIncrement], [null, false])
    assert.isFalse(schema.stores.flatMap(({ indexes }) => indexes).some(({ multiEntry }) => multiEntry))
  })

  it("goes on where it was after its records have been saved and opened elsewhere", async () => {
    const rows = new MemoryRows()
    const server = new KeyServer()
    const alice = await Device.open(server, "@alice:hs", "ALICE")
    const first = rows.instance()
    const bob = await Device.open(server, "@bob:hs", "BOB", first)
    for (const device of [alice, bob]) await device.pump()
    await alice.track("@bob:hs")
    await bob.track("@alice:hs")
    const one = await alice.say("!one:hs", "@bob:hs", "one")
    assert.deepStrictEqual(await bob.receive(), [0])
    assert.strictEqual(await bob.read(one), "one")
    rows.save(first)

    // Another process takes over: it is the same device, has the key, and can receive the next one.
    const second = rows.instance()
    const taken = await Device.open(server, "@bob:hs", "BOB", second)
    const key = (device: Device) => device.machine.identityKeys.curve25519.toBase64()
    assert.strictEqual(key(taken), key(bob))
    assert.strictEqual(await taken.read(one), "one")
    const two = await alice.say("!two:hs", "@bob:hs", "two")
    assert.deepStrictEqual(await taken.receive(), [0])
    assert.strictEqual(await taken.read(two), "two")
    assert.isTrue(second.hasWrites())

    // One that reads sees the second key once it is saved, and changes nothing.
    const reader = rows.instance({ writable: false })
    const reading = await Device.open(server, "@bob:hs", "BOB", reader)
    assert.strictEqual(await reading.read(one), "one")
    const early = await reading.read(two).catch(() => "no key")
    assert.strictEqual(early, "no key")
    rows.save(second)
    assert.strictEqual(await reading.read(two), "two")
    assert.isFalse(reader.hasWrites())
    assert.strictEqual(reader.takeError(), undefined)
  })

  it("stores nothing but what the compact form can say, under keys of text", async () => {
    const rows = new MemoryRows()
    const server = new KeyServer()
    const alice = await Device.open(server, "@alice:hs", "ALICE")
    const instance = rows.instance()
    const bob = await Device.open(server, "@bob:hs", "BOB", instance)
    for (const device of [alice, bob]) await device.pump()
    await alice.track("@bob:hs")
    await bob.track("@alice:hs")
    await alice.say("!room:hs", "@bob:hs", "text")
    await bob.receive()
    for (const { collection, value } of instance.writes()) {
      assert.notStrictEqual(value?.[0], 0xff, `a value in collection ${collection} took V8's serialization`)
    }
    const database = await open(instance.indexedDB, "@bob:hs::matrix-sdk-crypto")
    const sessions = database.transaction("inbound_group_sessions3").objectStore("inbound_group_sessions3")
    const [session] = await walk(sessions.openCursor())
    assert.typeOf(session![0], "string")
    assert.isBelow(
      instance.writes().reduce((sum, { value }) => sum + (value?.length ?? 0), 0),
      100_000
    )
    assert.strictEqual(await result(database.transaction("core").objectStore("core").count()), 2)
  })
})
