/**
 * What end-to-end encryption costs, in statements, commits, rows and bytes: counted, never timed. A number may change with a
 * reason, never by accident: what a key costs, an account of years pays a hundred thousand times.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { counting } from "../SqlCounting.ts"
import * as Kit from "./CryptoKit.ts"

/** Messages of a batch, each with the key of another room. */
const BATCH = 100

/** Two devices that know one another, rooms of theirs, and what the second one's database is asked. */
const couple = Effect.gen(function* () {
  const counted = yield* counting
  const sim = yield* Kit.openHomeserver
  const alice = yield* Kit.openDevice(sim, "alice", "ALICE")
  const bob = yield* Kit.openDevice(sim, "bob", "BOB")
  const database = counted.databases.at(-1)!
  /** Since the last call. */
  const asked = () => {
    const ran = counted.take(database)
    return {
      statements: ran.length,
      reads: ran.filter((sql) => /\bFROM crypto_record\b/.test(sql)).length,
      records: ran.filter((sql) => /\bINTO crypto_record\b/.test(sql)).length,
      commits: ran.filter((sql) => sql === "COMMIT").length,
      synced: ran.filter((sql) => sql === "PRAGMA synchronous = FULL").length
    }
  }
  /** New rooms whose keys Alice sends to Bob, with a message in each. */
  const rooms = (count: number) =>
    Effect.forEach(Array.from({ length: count }), () =>
      Effect.gen(function* () {
        const room = yield* Kit.openRoom(sim, alice, bob)
        return { room, event: yield* Kit.send(sim, alice, room, "hello") }
      })
    )
  return { bob, asked, rooms }
})

/** Around the rows: how durable, BEGIN, the fence, COMMIT, and how long the log is; then how durable again. */
const AROUND = 5

describe("What encryption costs", () => {
  it.live("a batch of a hundred keys takes seven reads a key, and five rows a key in one synced commit", () =>
    Effect.gen(function* () {
      const { asked, bob, rooms } = yield* couple
      yield* rooms(1)
      yield* Kit.settle(bob)
      for (let turn = 0; turn < 2; turn++) {
        yield* rooms(BATCH)
        const polled = yield* Kit.poll(bob)
        asked()
        const batch = yield* Kit.absorb(bob, polled)
        assert.lengthOf(batch.inbox, BATCH)
        // Beside those of each message, which are the engine's own: the account once.
        const read = asked()
        assert.deepStrictEqual([read.reads, read.statements], [7 * BATCH + 1, 7 * BATCH + 1])
        yield* Kit.commitBatch(bob, batch)
        const { commits, records, statements, synced } = asked()
        // A key is a row, in three indexes, and what it came in has a row so that it isn't taken twice. Then, once for all: the
        // session with the sender, the account, and who is followed.
        assert.strictEqual(records, 5 * BATCH + 3)
        assert.deepStrictEqual([commits, synced], [1, 1])
        // Beside the records: the messages, the news of the keys, and the position, which is read and written.
        assert.strictEqual(statements, AROUND + records + 2 * BATCH + 2)
      }
    }).pipe(Effect.scoped)
  )

  it.live("reading an event takes four reads and no write, each time", () =>
    Effect.gen(function* () {
      const { asked, bob, rooms } = yield* couple
      const [first, ...others] = yield* rooms(5)
      yield* Kit.settle(bob)
      // Opens the reader's machine.
      yield* Kit.read(bob, first!.room, first!.event)
      for (const { event, room } of [first!, ...others]) {
        asked()
        assert.strictEqual(yield* Kit.read(bob, room, event), "hello")
        // The key, the sender's devices, and what is known of both users' cross-signing.
        const { reads, statements } = asked()
        assert.deepStrictEqual([reads, statements], [4, 4])
      }
    }).pipe(Effect.scoped)
  )

  it.live("a message into a room that has its key takes nine reads, and one row in one synced commit", () =>
    Effect.gen(function* () {
      const { asked, bob, rooms } = yield* couple
      const { room } = (yield* rooms(1))[0]!
      yield* Kit.settle(bob)
      yield* Kit.share(bob, room)
      for (let turn = 0; turn < 3; turn++) {
        asked()
        const shared = yield* bob.engine.shareRoomKey(bob.fence, { ...room, settings: Kit.defaultSettings })
        // So nothing is committed for it.
        assert.deepStrictEqual([shared.value, shared.writes, shared.news], [[], [], []])
        yield* bob.engine.committed
        const clear = { roomId: room.roomId, type: "m.room.message", content: { body: "hello" } }
        const encrypted = yield* bob.engine.encrypt(bob.fence, clear)
        const { commits, reads } = asked()
        assert.deepStrictEqual([reads, commits], [9, 0])
        yield* Kit.commit(bob, encrypted)
        // How far the key has been used.
        assert.deepStrictEqual(asked(), { statements: AROUND + 1, reads: 0, records: 1, commits: 1, synced: 1 })
      }
    }).pipe(Effect.scoped)
  )

  it.live("a key takes less than 2.4 kB in its rows, and less than 4 kB of the file with its message", () =>
    Effect.gen(function* () {
      const { bob, rooms } = yield* couple
      const count = 300
      const size = () => ({
        rows: bob.client.now.get<{ bytes: number }>(
          "SELECT SUM(LENGTH(key) + LENGTH(value)) AS bytes FROM crypto_record"
        )!.bytes,
        file:
          bob.client.now.get<{ pages: number }>("SELECT page_count AS pages FROM pragma_page_count()")!.pages * 4_096
      })
      const before = size()
      yield* rooms(count)
      yield* Kit.settle(bob)
      const after = size()
      // 1.8 kB of it are the key itself; base64 instead of bytes would be another 0.5.
      assert.isBelow((after.rows - before.rows) / count, 2_400)
      // Keys come in the order of chance, so pages are never full.
      assert.isBelow((after.file - before.file) / count, 4_000)
    }).pipe(Effect.scoped)
  )
})
