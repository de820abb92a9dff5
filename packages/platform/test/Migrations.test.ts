import { assert, describe, it } from "@effect/vitest"
import { LeaseStore, SyncStore } from "@twinloop/core"
import type { MatrixEvent, Room } from "@twinloop/core"
import { Effect } from "effect"
import { DatabaseSync } from "node:sqlite"
import * as SqliteClient from "../src/sqlite/SqliteClient.ts"
import * as Kit from "./SqliteKit.ts"

const connId = "rooms-main"
const roomId = "!kitchen:example.org"

const room: Room.Room = {
  roomId,
  membership: "join",
  displayName: "Kitchen",
  heroes: [],
  joinedCount: 2,
  invitedCount: 0,
  isDm: false,
  isEncrypted: false,
  bumpStamp: 7,
  unread: { notificationCount: 0, highlightCount: 0, markedUnread: false, liveSinceRead: 0 },
  typing: []
}

const message = (id: string): MatrixEvent.TimelineEvent => ({
  type: "m.room.message",
  sender: "@a:example.org",
  event_id: id,
  content: { body: id }
})

const member = (user: string): MatrixEvent.StateEvent => ({
  type: "m.room.member",
  sender: user,
  state_key: user,
  content: { membership: "join" }
})

const page = (pos: string, sentPos: string | undefined, timeline: ReadonlyArray<MatrixEvent.TimelineEvent>) => ({
  connId,
  ...(sentPos === undefined ? {} : { sentPos }),
  pos,
  lists: { rooms: 1 },
  rooms: [
    {
      room,
      replace: false,
      state: [member("@a:example.org"), member("@b:example.org")],
      timeline,
      ...(sentPos === undefined ? { gap: { prevBatch: "before" } } : {}),
      accountData: []
    }
  ],
  accountData: [],
  quarantined: []
})

const everything = Effect.gen(function* () {
  const store = yield* SyncStore.SyncStore
  return {
    rooms: yield* store.loadMain(connId),
    timeline: yield* store.timeline({ connId, roomId, limit: 100 }),
    members: yield* store.state({ connId, roomId, type: "m.room.member" }),
    event: yield* store.event(connId, roomId, "$two:example.org")
  }
})

describe("A database of schema version 2", () => {
  it.effect("keeps rooms, state, timelines and gaps, in order, and goes on from there", () =>
    Effect.gen(function* () {
      const filename = yield* Kit.temporaryFile
      const within = <A, E>(use: Effect.Effect<A, E, SyncStore.SyncStore>) =>
        Effect.provide(use, Kit.storesAt(filename), { local: true })
      const commit = (one: SyncStore.MainCommit) =>
        within(Effect.flatMap(SyncStore.SyncStore, (store) => store.commitMain(one)))
      // Ids that begin alike are told apart.
      yield* commit(page("1", undefined, [message("$one:example.org"), message("$one:example.com")]))
      yield* commit(page("2", "1", [message("$two:example.org")]))
      const before = yield* within(everything)
      assert.lengthOf(before.timeline, 4)
      Kit.turnBack(filename, 2)
      assert.deepStrictEqual(yield* within(everything), before)

      // An event that comes again stays where it is, and a new one follows.
      yield* commit(page("3", "2", [message("$two:example.org"), message("$three:example.org")]))
      const { timeline } = yield* within(everything)
      assert.deepStrictEqual(timeline.slice(0, 4), before.timeline)
      assert.lengthOf(timeline, 5)

      const db = new DatabaseSync(filename)
      assert.deepStrictEqual({ ...db.prepare("PRAGMA integrity_check").get() }, { integrity_check: "ok" })
      db.close()
    })
  )
})

describe("A database of schema version 4", () => {
  it.effect("keeps owners and the queue, in which nobody is in a hurry, and goes on from there", () =>
    Effect.gen(function* () {
      const filename = yield* Kit.temporaryFile
      const within = <A, E>(use: (store: LeaseStore["Service"]) => Effect.Effect<A, E>) =>
        Effect.provide(Effect.flatMap(LeaseStore, use), Kit.storesAt(filename), { local: true })
      const asked = { name: "stream", permits: 1, count: 1, peer: { pid: 7 }, nowMillis: 1_000, leaseMillis: 10_000 }
      const queued = { ...asked, holder: "b", enqueueMillis: 15_000 }
      yield* within((store) => store.take({ ...asked, holder: "a" }))
      yield* within((store) => store.take(queued))
      const before = yield* within((store) => store.inspect("stream"))
      Kit.turnBack(filename, 4)
      assert.deepStrictEqual(yield* within((store) => store.inspect("stream")), before)

      yield* within((store) => store.take({ ...queued, urgent: true }))
      const [waiter] = (yield* within((store) => store.inspect("stream"))).waiters
      assert.deepStrictEqual([waiter?.holder, waiter?.ticket, waiter?.urgent], ["b", 1, true])
    })
  )
})

describe("A database of schema version 5", () => {
  it.effect("keeps the records of the crypto engine, and replaces them from there", () =>
    Effect.gen(function* () {
      const filename = yield* Kit.temporaryFile
      const within = <A, E>(use: Effect.Effect<A, E, SyncStore.SyncStore | LeaseStore | SqliteClient.SqliteClient>) =>
        Effect.provide(use, Kit.storesAt(filename), { local: true })
      const record = (key: number, value: number): SyncStore.CryptoWrite => ({
        collection: "1",
        key: new Uint8Array([key]),
        value: new Uint8Array(2_000).fill(value)
      })
      const commit = (generation: number, crypto: ReadonlyArray<SyncStore.CryptoWrite>) =>
        Effect.gen(function* () {
          const taken = { name: "extension", permits: 1, count: 1, holder: `h${generation}`, peer: {} }
          const leases = yield* LeaseStore
          const store = yield* SyncStore.SyncStore
          yield* leases.take({ ...taken, nowMillis: generation * 1_000_000, leaseMillis: 1_000 })
          const fence = { name: taken.name, holder: taken.holder, generation }
          yield* store.commitCrypto(fence, { crypto })
        })
      const stored = Effect.map(SqliteClient.SqliteClient, ({ now }) =>
        now.all<{ key: string; value: string }>(
          `SELECT hex(key) AS key, substr(hex(value), 1, 2) AS value FROM crypto_record ORDER BY key`
        )
      )
      yield* within(commit(1, [record(1, 1), record(2, 2), record(3, 3)]))
      Kit.turnBack(filename, 5)
      yield* within(commit(2, [record(2, 9), { ...record(3, 0), value: null }]))
      const rows = (yield* within(stored)).map(({ key, value }) => `${key}=${value}`)
      assert.deepStrictEqual(rows, ["01=01", "02=09"])
    })
  )
})
