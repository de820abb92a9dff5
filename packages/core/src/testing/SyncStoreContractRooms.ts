/**
 * The part of `syncStoreContract` about the main loop: connections, rooms, state, account data, timelines.
 */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { SyncStore } from "../sync/SyncStore.ts"
import { gapSpan } from "../sync/TimelineOrder.ts"
import {
  connId,
  roomId,
  room,
  event,
  stateEvent,
  roomCommit,
  page,
  messages,
  idsOf,
  timelineIds,
  reasonOf,
  mainState,
  thing
} from "./SyncStoreFixtures.ts"
import type { Test } from "./SyncStoreFixtures.ts"

const rooms = (test: Test): void => {
  test(
    "knows nothing of a new connection",
    Effect.gen(function* () {
      const store = yield* SyncStore
      assert.deepStrictEqual(yield* store.loadMain(connId), { lists: {}, rooms: [] })
      assert.strictEqual(yield* store.room(connId, roomId), undefined)
      assert.deepStrictEqual(yield* store.mainPosition(connId), { lists: {} })
      assert.deepStrictEqual(yield* timelineIds, [])
      assert.deepStrictEqual(yield* store.state({ connId, roomId, type: "m.room.name" }), [])
      assert.strictEqual(yield* store.event(connId, roomId, "$1"), undefined)
      assert.strictEqual(yield* store.accountData({ connId, type: "m.direct" }), undefined)
    })
  )

  test(
    "gives back what a connection knew, without who was typing",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const latestEvent = event("$1", { body: "hello" })
      const typing = room(roomId, { typing: ["@s:example.org"], latestEvent, name: "A" })
      yield* store.commitMain(page("p1", { lists: { all: 7 }, rooms: [roomCommit({ room: typing })] }))
      assert.deepStrictEqual(yield* store.loadMain(connId), {
        pos: "p1",
        lists: { all: 7 },
        rooms: [{ ...typing, typing: [] }]
      })
      assert.deepStrictEqual(yield* store.mainPosition(connId), { pos: "p1", lists: { all: 7 } })
      const renamed = room(roomId, { name: "B" })
      yield* store.commitMain(page("p2", { sentPos: "p1", rooms: [roomCommit({ room: renamed })] }))
      assert.deepStrictEqual(yield* store.loadMain(connId), { pos: "p2", lists: {}, rooms: [renamed] })
      assert.deepStrictEqual(yield* store.room(connId, roomId), renamed)
      assert.strictEqual(yield* store.room("rooms-other", roomId), undefined)
    })
  )

  test(
    "refuses a page when another process used the connection since, and writes nothing",
    Effect.gen(function* () {
      const store = yield* SyncStore
      yield* store.commitMain(messages(undefined, "p1", ["$1"]))
      const before = yield* mainState
      for (const sentPos of [undefined, "p0"]) {
        const reason = yield* reasonOf(
          store.commitMain({ ...messages(sentPos, "p2", ["$2"]), quarantined: [thing(1)] })
        )
        assert.strictEqual(reason._tag, "Moved")
        assert.deepInclude(reason, { token: "pos", stored: "p1" })
      }
      assert.deepStrictEqual(yield* mainState, before)
    })
  )

  test(
    "keeps the rooms when a position is dropped, and takes a fresh start",
    Effect.gen(function* () {
      const store = yield* SyncStore
      yield* store.expireMain(connId)
      yield* store.commitMain(messages(undefined, "p1", ["$1"]))
      yield* store.expireMain(connId)
      assert.deepStrictEqual(yield* store.loadMain(connId), { lists: {}, rooms: [room(roomId)] })
      yield* store.commitMain(messages(undefined, "q1", ["$2"]))
      assert.deepStrictEqual(yield* timelineIds, ["$1", "$2"])
    })
  )

  test(
    "keeps connections apart",
    Effect.gen(function* () {
      const store = yield* SyncStore
      yield* store.commitMain(messages(undefined, "p1", ["$1"]))
      yield* store.commitMain({ ...messages(undefined, "x1", ["$9"]), connId: "other" })
      yield* store.expireMain("other")
      assert.strictEqual((yield* store.loadMain(connId)).pos, "p1")
      assert.deepStrictEqual(yield* timelineIds, ["$1"])
    })
  )

  test(
    "keeps a page of a hundred rooms",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const ids = Array.from({ length: 100 }, (_, index) => `!${String(index).padStart(3, "0")}:example.org`)
      const many = ids.map((id) => roomCommit({ room: room(id), timeline: [event(`$${id}`)] }))
      yield* store.commitMain(page("p1", { rooms: many }))
      const { rooms } = yield* store.loadMain(connId)
      assert.deepStrictEqual(rooms.map(({ roomId }) => roomId).toSorted(), ids)
      assert.isDefined(yield* store.event(connId, ids[99]!, `$${ids[99]}`))
    })
  )

  test(
    "keeps the newest state, and forgets what is deleted",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const query = (type: string, stateKey?: string) =>
        store.state({ connId, roomId, type, ...(stateKey === undefined ? {} : { stateKey }) })
      const members = ["@a:x", "@b:x"].map((user) => stateEvent("m.room.member", user, { membership: "join" }))
      const state = [stateEvent("m.room.name", "", { name: "A" }), ...members]
      yield* store.commitMain(page("p1", { rooms: [roomCommit({ state })] }))
      assert.deepStrictEqual(yield* query("m.room.member"), members)
      assert.deepStrictEqual(yield* query("m.room.member", "@b:x"), members.slice(1))

      const renamed = stateEvent("m.room.name", "", { name: "B" })
      const changes = [renamed, { type: "m.room.member", state_key: "@a:x" }]
      yield* store.commitMain(page("p2", { sentPos: "p1", rooms: [roomCommit({ state: changes })] }))
      assert.deepStrictEqual(yield* query("m.room.name"), [renamed])
      assert.deepStrictEqual(yield* query("m.room.member"), members.slice(1))
    })
  )

  test(
    "drops state and timeline of a room that the homeserver sends anew, and no other's",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const other = "!b:example.org"
      const state = [stateEvent("m.room.name", "", { name: "A" })]
      const first = roomCommit({ state, timeline: [event("$1"), event("$2")] })
      yield* store.commitMain(page("p1", { rooms: [first, { ...first, room: room(other) }] }))
      const anew = roomCommit({ replace: true, state: [stateEvent("m.room.topic", "")], timeline: [event("$5")] })
      yield* store.commitMain(page("p2", { sentPos: "p1", rooms: [anew] }))
      assert.deepStrictEqual(yield* timelineIds, ["$5"])
      assert.deepStrictEqual(yield* store.state({ connId, roomId, type: "m.room.name" }), [])
      assert.deepStrictEqual(yield* store.state({ connId, roomId: other, type: "m.room.name" }), state)
      assert.isDefined(yield* store.event(connId, other, "$1"))
    })
  )

  test(
    "keeps account data, global and of rooms apart, the newest of each type",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const tag = (order: number) => ({ type: "m.tag", content: { tags: { "m.favourite": { order } } } })
      const direct = { type: "m.direct", content: { "@a:x": [roomId] } }
      yield* store.commitMain(
        page("p1", { accountData: [direct, tag(0)], rooms: [roomCommit({ accountData: [tag(1), tag(2)] })] })
      )
      assert.deepStrictEqual(yield* store.accountData({ connId, type: "m.direct" }), direct)
      assert.deepStrictEqual(yield* store.accountData({ connId, type: "m.tag" }), tag(0))
      assert.deepStrictEqual(yield* store.accountData({ connId, type: "m.tag", roomId }), tag(2))
      assert.strictEqual(yield* store.accountData({ connId, type: "m.direct", roomId }), undefined)
    })
  )

  test(
    "keeps account data of a room that it doesn't know, and still has it when the room comes",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const tag = { type: "m.tag", content: { tags: { "m.favourite": {} } } }
      yield* store.commitMain(page("p1", { roomAccountData: { [roomId]: [tag] } }))
      assert.deepStrictEqual(yield* store.accountData({ connId, type: "m.tag", roomId }), tag)
      yield* store.commitMain({ ...page("p2", { rooms: [roomCommit({ replace: true })] }), sentPos: "p1" })
      assert.deepStrictEqual(yield* store.accountData({ connId, type: "m.tag", roomId }), tag)
    })
  )
}

const timelines = (test: Test): void => {
  test(
    "appends events in order, and keeps one that comes again as it was",
    Effect.gen(function* () {
      const store = yield* SyncStore
      yield* store.commitMain(messages(undefined, "p1", ["$1", "$2"]))
      const timeline = [event("$2", { body: "changed" }), event("$3"), event("$3")]
      yield* store.commitMain(messages("p1", "p2", [], { timeline }))
      assert.deepStrictEqual(yield* timelineIds, ["$1", "$2", "$3"])
      assert.deepStrictEqual(yield* store.event(connId, roomId, "$2"), event("$2"))
    })
  )

  test(
    "marks a gap before the events that follow it",
    Effect.gen(function* () {
      const store = yield* SyncStore
      yield* store.commitMain(messages(undefined, "p1", ["$1"], { gap: { prevBatch: "t1" } }))
      yield* store.commitMain(messages("p1", "p2", ["$5"], { gap: {} }))
      assert.deepStrictEqual(yield* timelineIds, ["gap t1", "$1", "gap ?", "$5"])
    })
  )

  test(
    "marks no gap where the first event is known, and one gap where two follow each other",
    Effect.gen(function* () {
      const store = yield* SyncStore
      yield* store.commitMain(messages(undefined, "p1", ["$1"]))
      yield* store.commitMain(messages("p1", "p2", ["$1", "$2"], { gap: { prevBatch: "t1" } }))
      yield* store.commitMain(messages("p2", "p3", [], { gap: { prevBatch: "t2" } }))
      yield* store.commitMain(messages("p3", "p4", ["$9"], { gap: { prevBatch: "t3" } }))
      assert.deepStrictEqual(yield* timelineIds, ["$1", "$2", "gap t3", "$9"])
    })
  )

  test(
    "puts older events that come later before the ones that they lead up to",
    Effect.gen(function* () {
      const store = yield* SyncStore
      yield* store.commitMain(messages(undefined, "p1", ["$1"]))
      yield* store.commitMain(messages("p1", "p2", ["$9"], { gap: { prevBatch: "t8" } }))
      // The application opens the room: the same window, larger, of which the last event is known.
      yield* store.commitMain(messages("p2", "p3", ["$7", "$8", "$9", "$10"], { gap: { prevBatch: "t6" } }))
      assert.deepStrictEqual(yield* timelineIds, ["$1", "gap t6", "$7", "$8", "$9", "$10"])
    })
  )

  test(
    "closes a gap that a response reaches over",
    Effect.gen(function* () {
      const store = yield* SyncStore
      yield* store.commitMain(messages(undefined, "p1", ["$1"]))
      yield* store.commitMain(messages("p1", "p2", ["$4"], { gap: { prevBatch: "t3" } }))
      yield* store.commitMain(messages("p2", "p3", ["$1", "$2", "$3", "$4", "$5"], { gap: { prevBatch: "t0" } }))
      assert.deepStrictEqual(yield* timelineIds, ["$1", "$2", "$3", "$4", "$5"])
    })
  )

  test(
    "puts history before the first event, at negative indexes",
    Effect.gen(function* () {
      const store = yield* SyncStore
      yield* store.commitMain(messages(undefined, "p1", ["$3"]))
      yield* store.commitMain(messages("p1", "p2", ["$1", "$2", "$3"], { gap: { prevBatch: "t0" } }))
      const entries = yield* store.timeline({ connId, roomId, limit: 10 })
      assert.deepStrictEqual(idsOf(entries), ["gap t0", "$1", "$2", "$3"])
      assert.deepStrictEqual(
        entries.map((entry) => entry.index),
        [-2 - gapSpan, -2, -1, 0]
      )
    })
  )

  test(
    "loses no event when a response contradicts the stored order",
    Effect.gen(function* () {
      const store = yield* SyncStore
      yield* store.commitMain(messages(undefined, "p1", ["$1", "$2"]))
      yield* store.commitMain(messages("p1", "p2", ["$x", "$2", "$3"]))
      assert.deepStrictEqual(yield* timelineIds, ["$1", "$2", "$x", "$3"])
    })
  )

  test(
    "pages back through a timeline by index",
    Effect.gen(function* () {
      const store = yield* SyncStore
      yield* store.commitMain(messages(undefined, "p1", ["$1", "$2", "$3"], { gap: {} }))
      const newest = yield* store.timeline({ connId, roomId, limit: 2 })
      assert.deepStrictEqual(idsOf(newest), ["$2", "$3"])
      const before = newest[0]?.index
      assert.isDefined(before)
      const older = yield* store.timeline({ connId, roomId, limit: 2, ...(before === undefined ? {} : { before }) })
      assert.deepStrictEqual(idsOf(older), ["gap ?", "$1"])
    })
  )
}

/** Registers the tests of rooms and timelines. */
export const roomsContract = (test: Test): void => {
  rooms(test)
  timelines(test)
}
