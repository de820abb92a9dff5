/**
 * What the tables cost, in pages and bytes: how much SQLite writes for what it is given. Counted, not timed.
 */
import { assert, describe, it } from "@effect/vitest"
import { type MatrixEvent, SyncStore } from "@twinloop/core"
import { Effect, Layer } from "effect"
import { CheckpointThread } from "../src/sqlite/CheckpointThread.ts"
import * as SqliteClient from "../src/sqlite/SqliteClient.ts"
import * as SqliteSyncStore from "../src/sqlite/SqliteSyncStore.ts"
import { storesAt, temporaryFile, turnBack } from "./SqliteKit.ts"

const ROOMS = 200
const HISTORY = 20

/** Copies nothing, so that the log keeps all that was written. */
const noCopies = Layer.succeed(CheckpointThread, { checkpoint: () => Effect.void })

/** Numbers that look like chance, and are the same every time. */
const makeRandom = (seed: number) => {
  let state = seed
  return (below: number): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff
    return Math.floor((state / 0x80000000) * below)
  }
}

/** Rooms as Synapse sends them, in size: an event is an encrypted message of 600 bytes, and a room has eight pieces of state. */
const makeAccount = () => {
  const random = makeRandom(1)
  const opaque = (length: number) => Array.from({ length }, () => random(36).toString(36)).join("")
  const bytes = { sent: 0 }
  const weigh = <A>(event: A): A => {
    bytes.sent += JSON.stringify(event).length
    return event
  }
  const message = (): MatrixEvent.TimelineEvent =>
    weigh({
      event_id: `$${opaque(43)}`,
      type: "m.room.encrypted",
      sender: `@user${random(500)}:example.org`,
      content: { ciphertext: opaque(300), sender_key: opaque(43), session_id: opaque(43) },
      origin_server_ts: 1_760_000_000_000 + random(1_000_000)
    })
  const state = (type: string): MatrixEvent.StateEvent =>
    weigh({
      event_id: `$${opaque(43)}`,
      type,
      state_key: "",
      sender: "@creator:example.org",
      content: { value: opaque(30) }
    })
  const room = (number: number): SyncStore.RoomCommit["room"] =>
    weigh({
      roomId: `!room${number}:example.org`,
      membership: "join",
      displayName: `Room ${number}`,
      heroes: [],
      joinedCount: 10,
      invitedCount: 0,
      isDm: false,
      isEncrypted: true,
      bumpStamp: random(1_000_000),
      unread: { notificationCount: 0, highlightCount: 0, markedUnread: false, liveSinceRead: 0 },
      typing: []
    })
  const initial = (number: number): SyncStore.RoomCommit => ({
    room: room(number),
    replace: true,
    state: Array.from({ length: 8 }, (_, index) => state(`m.room.type${index}`)),
    timeline: Array.from({ length: HISTORY }, message),
    gap: {},
    accountData: []
  })
  const news = (): SyncStore.RoomCommit => ({
    room: room(random(ROOMS)),
    replace: false,
    state: [],
    timeline: [message(), message()],
    accountData: []
  })
  return { bytes, initial, news }
}

/** Commits rooms one response after the other. */
const commits = Effect.gen(function* () {
  const store = yield* SyncStore.SyncStore
  let sentPos: string | undefined
  return Effect.fnUntraced(function* (rooms: ReadonlyArray<SyncStore.RoomCommit>) {
    const pos = String(Number(sentPos ?? 0) + 1)
    yield* store.commitMain({
      connId: "main",
      ...(sentPos === undefined ? {} : { sentPos }),
      pos,
      lists: {},
      rooms,
      accountData: [],
      quarantined: []
    })
    sentPos = pos
  })
})

interface PagesRow {
  readonly pages: number
}

/** An initial load, and 50 responses with news of ten rooms, two events each: how large the database is, and what the news write. */
const live = Effect.gen(function* () {
  const client = yield* SqliteClient.SqliteClient
  const commit = yield* commits
  const account = makeAccount()
  for (let first = 0; first < ROOMS; first += 100) {
    yield* commit(Array.from({ length: 100 }, (_, index) => account.initial(first + index)))
  }
  yield* client.unsafe("PRAGMA wal_checkpoint(TRUNCATE)")
  const sent = account.bytes.sent
  const [size] = yield* client.unsafe<PagesRow>("SELECT page_count AS pages FROM pragma_page_count()")
  let rooms = 0
  for (let turn = 0; turn < 50; turn++) {
    const news = [...new Map(Array.from({ length: 10 }, account.news).map((one) => [one.room.roomId, one])).values()]
    rooms += news.length
    yield* commit(news)
  }
  const [log] = yield* client.unsafe<{ readonly log: number }>("PRAGMA wal_checkpoint(NOOP)")
  return { bytesPerByte: (size!.pages * 4_096) / sent, logPagesPerRoom: log!.log / rooms }
})

/** Stores in tables as they are, or as they were with an earlier schema version. */
const storesOf = (version: number | undefined) =>
  Layer.unwrap(
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      if (version === undefined) return storesAt(filename)
      yield* Effect.scoped(Layer.build(storesAt(filename)))
      turnBack(filename, version)
      return SqliteSyncStore.layer.pipe(Layer.provideMerge(Layer.orDie(SqliteClient.layer({ filename }))))
    })
  ).pipe(Layer.provide(noCopies))

describe("What the tables cost", () => {
  it.live(
    "news write less than four pages per room to the log, which is under half of what rows in the order of rooms did",
    () =>
      Effect.gen(function* () {
        const { logPagesPerRoom } = yield* Effect.provide(live, storesOf(undefined))
        // The room's own row, an entry in each of two indexes, and a share of the pages at the end of the table.
        assert.isBelow(logPagesPerRoom, 4)
        // There, each of two events is in a page of its room, which has others around it that move, and in a tall index of ids.
        const before = yield* Effect.provide(live, storesOf(2))
        assert.isAbove(before.logPagesPerRoom, 2 * logPagesPerRoom)
      })
  )

  it.live("a database has less than 1.3 bytes per byte of JSON in it", () =>
    Effect.gen(function* () {
      const { bytesPerByte } = yield* Effect.provide(live, storesOf(undefined))
      // Beside the JSON: each event's id once more, its numbers, entries of 20 to 30 bytes in indexes, and space in pages. The
      // whole id in an index would be another 0.06.
      assert.isBelow(bytesPerByte, 1.3)
    })
  )
})
