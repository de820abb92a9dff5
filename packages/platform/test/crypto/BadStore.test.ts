import { assert, describe, it } from "@effect/vitest"
import type { CryptoError, Homeserver, MatrixEvent } from "@twinloop/core"
import { Effect, Redacted, Result } from "effect"
import { chmodSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { StoreKey } from "../../src/crypto/StoreKey.ts"
import { temporaryDirectory } from "../SqliteKit.ts"
import * as Kit from "./CryptoKit.ts"

/** A device that has talked to another one, so that everything is stored that there is; it is closed. */
const closedDevice = Effect.gen(function* () {
  const sim = yield* Kit.openHomeserver
  const filename = join(yield* temporaryDirectory, "account.db")
  const message = yield* Effect.scoped(
    Effect.gen(function* () {
      const alice = yield* Kit.openDevice(sim, "alice", "ALICE", { filename })
      const bob = yield* Kit.openDevice(sim, "bob", "BOB")
      const room = yield* Kit.openRoom(sim, alice, bob)
      const event = yield* Kit.send(sim, bob, room, "hello")
      yield* Kit.settle(alice)
      return { room, event }
    })
  )
  return { sim, filename, ...message }
})

/** What the engine and the reader of a process say when they are first used. */
const refusals = Effect.fnUntraced(function* (process: Kit.Process, room: Kit.Room, event: MatrixEvent.TimelineEvent) {
  yield* Kit.own(process)
  return [
    yield* Effect.flip(process.engine.reload(process.fence)),
    yield* Effect.flip(process.reader.decrypt(room.roomId, event)),
    yield* Effect.flip(process.reader.status)
  ]
})

/** Everybody is refused for this reason, in words that say what to do, and nothing that is stored has changed. */
const assertRefused = Effect.fnUntraced(function* (
  process: Kit.Process,
  { event, room }: { readonly room: Kit.Room; readonly event: MatrixEvent.TimelineEvent },
  tag: CryptoError.CryptoErrorReason["_tag"],
  advice: RegExp
) {
  const before = yield* Kit.rows(process)
  for (const { message, reason } of yield* refusals(process, room, event)) {
    assert.strictEqual(reason._tag, tag, message)
    assert.match(message, advice)
  }
  assert.deepStrictEqual(yield* Kit.rows(process), before)
})

/** Does something to a database that nobody has open. */
const withDatabase = (filename: string, body: (db: DatabaseSync) => void) =>
  Effect.sync(() => {
    const db = new DatabaseSync(filename)
    body(db)
    db.close()
  })

const keyFile = Effect.map(temporaryDirectory, (directory) => join(directory, "store.key"))

const keyIn = (path: string, isNew: boolean) =>
  Effect.flatMap(StoreKey, (keys) => keys.key({ isNew })).pipe(Effect.provide(StoreKey.layerFile(path)))

describe("A store that can't be opened", () => {
  it.live("stays as it is when the key is another one, and opens with the right one afterwards", () =>
    Effect.gen(function* () {
      const device = yield* closedDevice
      const { event, filename, room, sim } = device
      const wrong = yield* Kit.openProcess(sim, "alice", "ALICE", { filename, key: Kit.keyOf(8) })
      yield* assertRefused(wrong, device, "CryptoWrongKey", /give the key that they were stored with/)
      const right = yield* Kit.openProcess(sim, "alice", "ALICE", { filename })
      yield* Kit.take(right)
      assert.strictEqual(yield* Kit.read(right, room, event), "hello")
    })
  )

  it.live("stays as it is when the key is too short", () =>
    Effect.gen(function* () {
      const device = yield* closedDevice
      const key = StoreKey.layer(Redacted.make(new Uint8Array(5)))
      const process = yield* Kit.openProcess(device.sim, "alice", "ALICE", { filename: device.filename, key })
      yield* assertRefused(process, device, "CryptoWrongKey", /5 bytes instead of 32/)
    })
  )

  it.live("stays as it is when the key's file is missing, and no other key is made", () =>
    Effect.gen(function* () {
      const device = yield* closedDevice
      const path = yield* keyFile
      const key = StoreKey.layerFile(path)
      const process = yield* Kit.openProcess(device.sim, "alice", "ALICE", { filename: device.filename, key })
      yield* assertRefused(process, device, "CryptoWrongKey", /put it back, or log in as a new device/)
      assert.isUndefined(statSync(path, { throwIfNoEntry: false }))
    })
  )

  it.live("stays as it is when it is another user's or another device's", () =>
    Effect.gen(function* () {
      const device = yield* closedDevice
      for (const [localpart, deviceId] of [
        ["alice", "ALICE2"],
        ["mallory", "ALICE"]
      ] as const) {
        const process = yield* Kit.openProcess(device.sim, localpart, deviceId, { filename: device.filename })
        yield* assertRefused(process, device, "CryptoForeignStore", /log in as the device that they belong to/)
      }
    })
  )

  it.live("stays as it is when newer software wrote it", () =>
    Effect.gen(function* () {
      const device = yield* closedDevice
      yield* withDatabase(device.filename, (db) => {
        const schemas = db.prepare(`SELECT key, value FROM crypto_record WHERE collection = 'schema'`).all()
        for (const { key, value } of schemas) {
          const schema: unknown = JSON.parse(Buffer.from(value as Uint8Array).toString())
          if (typeof schema !== "object") continue
          const newer = Buffer.from(JSON.stringify({ ...schema, version: 300 }))
          db.prepare(`UPDATE crypto_record SET value = ? WHERE collection = 'schema' AND key = ?`).run(
            newer,
            key as Uint8Array
          )
        }
      })
      const process = yield* Kit.openProcess(device.sim, "alice", "ALICE", { filename: device.filename })
      yield* assertRefused(process, device, "CryptoStoreNewer", /update this one/)
    })
  )

  it.live(
    "is a typed error, whichever of its rows are garbage",
    () =>
      Effect.gen(function* () {
        const device = yield* closedDevice
        const process = yield* Kit.openProcess(device.sim, "alice", "ALICE", { filename: device.filename })
        const collections = process.client.now.all<{ collection: string }>(
          `SELECT DISTINCT collection FROM crypto_record ORDER BY 1`
        )
        assert.isAbove(collections.length, 10)
        const pristine = readFileSync(device.filename)
        for (const { collection } of collections) {
          for (const garbage of [new Uint8Array(0), Uint8Array.of(255, 0, 1), Buffer.from("{}"), Buffer.from("[[[")]) {
            const filename = join(yield* temporaryDirectory, "account.db")
            writeFileSync(filename, pristine)
            yield* withDatabase(filename, (db) => {
              db.prepare(`UPDATE crypto_record SET value = ? WHERE collection = ?`).run(garbage, collection)
            })
            yield* Effect.scoped(
              Effect.gen(function* () {
                const damaged = yield* Kit.openProcess(device.sim, "alice", "ALICE", { filename })
                const before = yield* Kit.rows(damaged)
                yield* Kit.own(damaged)
                const outcomes: ReadonlyArray<Result.Result<unknown, CryptoError.CryptoError>> = [
                  yield* Effect.result(damaged.engine.reload(damaged.fence)),
                  yield* Effect.result(damaged.reader.decrypt(device.room.roomId, device.event)),
                  yield* Effect.result(damaged.reader.status)
                ]
                for (const outcome of outcomes)
                  if (Result.isFailure(outcome)) assert.strictEqual(outcome.failure._tag, "CryptoError")
                assert.deepStrictEqual(yield* Kit.rows(damaged), before)
              })
            )
          }
        }
      }),
    { timeout: 120_000 }
  )

  it.live("is a typed error when the database's file was cut off", () =>
    Effect.gen(function* () {
      const { filename, room, event, sim } = yield* closedDevice
      yield* withDatabase(filename, (db) => db.exec(`PRAGMA wal_checkpoint(TRUNCATE)`))
      const process = yield* Kit.openProcess(sim, "alice", "ALICE", { filename })
      yield* Kit.own(process)
      yield* withDatabase(filename, (db) => db.exec(`PRAGMA wal_checkpoint(TRUNCATE)`))
      truncateSync(filename, 8192)
      for (const attempt of [
        Effect.asVoid(process.engine.reload(process.fence)),
        Effect.asVoid(process.reader.decrypt(room.roomId, event)),
        Effect.asVoid(process.reader.status)
      ]) {
        const error = yield* Effect.flip(attempt)
        assert.strictEqual(error.reason._tag, "CryptoStoreFailed")
        assert.isNotEmpty(error.message)
      }
    })
  )
})

describe("StoreKey.layerFile", () => {
  it.live("makes a key once, for this user alone, and gives the same one ever after", () =>
    Effect.gen(function* () {
      const path = yield* keyFile
      const keys = yield* Effect.all(
        Array.from({ length: 20 }, () => keyIn(path, true)),
        { concurrency: "unbounded" }
      )
      const again = yield* keyIn(path, false)
      assert.lengthOf(Redacted.value(again), 32)
      for (const key of keys) assert.deepStrictEqual(Redacted.value(key), Redacted.value(again))
      assert.strictEqual(statSync(path).mode & 0o777, 0o600)
      assert.notInclude(String(again), Buffer.from(Redacted.value(again)).toString("base64").slice(0, 8))
    })
  )

  it.live("refuses a file that others can read, one that is no key, and a directory, and changes none of them", () =>
    Effect.gen(function* () {
      const path = yield* keyFile
      yield* keyIn(path, true)
      for (const mode of [0o644, 0o640, 0o604]) {
        chmodSync(path, mode)
        const { message } = yield* Effect.flip(keyIn(path, false))
        assert.include(message, `chmod 600 ${path}`)
      }
      for (const text of ["", "no key", Buffer.from("short").toString("base64"), "A".repeat(4_000)]) {
        writeFileSync(path, text)
        chmodSync(path, 0o600)
        const { message } = yield* Effect.flip(keyIn(path, true))
        assert.match(message, /instead of 32; give the key that they were stored with/)
        assert.strictEqual(readFileSync(path, "utf8"), text)
      }
      rmSync(path)
      const directory = yield* temporaryDirectory
      assert.include((yield* Effect.flip(keyIn(directory, true))).message, "give this user access")
      assert.include((yield* Effect.flip(keyIn(join(path, "missing", "key"), true))).message, "can't be used")
    })
  )
})

describe("Answers that are not what was asked for", () => {
  /** A device whose homeserver answers requests of a kind otherwise. */
  const withAnswer = (kind: Homeserver.KeysRequest["kind"], answer: unknown) =>
    Effect.gen(function* () {
      const sim = yield* Kit.openHomeserver
      let isBad = true
      const alice = yield* Kit.openProcess(sim, "alice", "ALICE", {
        homeserver: (port) => ({
          ...port,
          keys: (request) =>
            isBad && request.kind === kind ? Effect.succeed(answer as MatrixEvent.JsonObject) : port.keys(request)
        })
      })
      yield* Kit.take(alice)
      const bob = yield* Kit.openDevice(sim, "bob", "BOB")
      const room = yield* Kit.openRoom(sim, alice, bob)
      return { sim, alice, bob, room, mend: Effect.sync(() => void (isBad = false)) }
    })

  const strange: ReadonlyArray<unknown> = [
    {},
    [],
    { one_time_key_counts: "no" },
    { one_time_key_counts: { signed_curve25519: -1 } },
    { device_keys: [] },
    { device_keys: { "no user id": {} } },
    { device_keys: { "@bob:localhost": { BOB: 7 } } },
    { one_time_keys: [] },
    { one_time_keys: { "@bob:localhost": { BOB: "x" } } },
    "text",
    null
  ]

  for (const kind of ["upload", "query", "claim"] as const) {
    it.live(
      `I7: to keys/${kind} are refused or do no harm, nothing is lost, and it works once the homeserver is right`,
      () =>
        Effect.gen(function* () {
          for (const answer of strange) {
            const { alice, bob, mend, room, sim } = yield* withAnswer(kind, answer)
            const result = yield* Effect.result(Kit.send(sim, alice, room, "lost"))
            if (Result.isFailure(result)) {
              assert.strictEqual(result.failure._tag, "CryptoError", JSON.stringify(answer))
              assert.strictEqual(result.failure.reason._tag, "CryptoBadAnswer", result.failure.message)
              assert.include(result.failure.message, "stays queued")
            }
            yield* mend
            yield* alice.engine.discard
            yield* alice.engine.reload(alice.fence)
            yield* Kit.flush(alice)
            yield* sim.expirePositions(alice.session)
            yield* alice.store.expireExtension(alice.fence)
            yield* Kit.settle(alice)
            const event = yield* Kit.send(sim, alice, room, "hello", { rotationPeriodMessages: 1 })
            yield* Kit.settle(bob)
            assert.strictEqual(yield* Kit.read(bob, room, event), "hello", JSON.stringify(answer))
          }
        })
    )
  }

  it.live("I7: a claim that is answered with other users' keys opens no session with anybody else", () =>
    Effect.gen(function* () {
      const sim = yield* Kit.openHomeserver
      const mallory = yield* Kit.openDevice(sim, "mallory", "MALLORY")
      const stolen = { "@mallory:localhost": { MALLORY: "signed_curve25519" } }
      const alice = yield* Kit.openDevice(sim, "alice", "ALICE", {
        homeserver: (port) => ({
          ...port,
          keys: (request) =>
            request.kind === "claim"
              ? port.keys({ kind: "claim", body: { one_time_keys: stolen } })
              : port.keys(request)
        })
      })
      const bob = yield* Kit.openDevice(sim, "bob", "BOB")
      const room = yield* Kit.openRoom(sim, alice, bob)
      const event = yield* Kit.send(sim, alice, room, "secret")
      yield* Kit.settle(mallory, bob)
      assert.strictEqual(yield* Kit.read(mallory, room, event), "MissingRoomKey")
      assert.include(["MissingRoomKey", "Withheld"], yield* Kit.read(bob, room, event))
    })
  )
})
