import { assert, describe, it } from "@effect/vitest"
import type { EphemeralEvent, StateEvent, TimelineEvent } from "../src/matrix/MatrixEvent.ts"
import { emptyResponse, emptyRoomUpdate, type RoomUpdate, type SyncResponse } from "../src/matrix/SlidingSync.ts"
import type { Room } from "../src/rooms/Room.ts"
import * as MainIngest from "../src/sync/MainIngest.ts"

const me = "@me:hs"
const other = "@other:hs"

const initial = (roomId: string, changes: Partial<RoomUpdate> = {}): RoomUpdate => ({
  ...emptyRoomUpdate(roomId),
  initial: true,
  ...changes
})

const response = (changes: Partial<SyncResponse>): SyncResponse => ({ ...emptyResponse("p1"), ...changes })

const extensions = (changes: Partial<SyncResponse["extensions"]>): SyncResponse =>
  response({ extensions: { unknown: {}, ...changes } })

/** Reads a response with these rooms known. */
const ingest = (known: ReadonlyArray<Room>, given: SyncResponse, gone: ReadonlyArray<string> = []) =>
  MainIngest.ingest(
    {
      ownUserId: me,
      connId: "rooms",
      sentPos: "p0",
      rooms: new Map(known.map((room) => [room.roomId, room] as const)),
      gone
    },
    given
  )

/** Rooms as they are after an initial response. */
const rooms = (...roomIds: ReadonlyArray<string>): ReadonlyArray<Room> =>
  ingest([], response({ rooms: roomIds.map((roomId) => initial(roomId)) })).changed

const message = (id: string, sender = other): TimelineEvent => ({
  type: "m.room.message",
  sender,
  event_id: id,
  content: { body: id }
})

const receipt = (eventId: string, at: object = { ts: 1 }, type = "m.read", userId = me): EphemeralEvent => ({
  type: "m.receipt",
  content: { [eventId]: { [type]: { [userId]: at } } }
})

const typing = (...userIds: ReadonlyArray<string>): EphemeralEvent => ({
  type: "m.typing",
  content: { user_ids: userIds }
})

const topic: StateEvent = { type: "m.room.topic", sender: other, state_key: "", content: { topic: "T" } }

describe("MainIngest", () => {
  it("turns a response into one commit for its position", () => {
    const { commit } = ingest([], response({ lists: { all: { count: 7 } } }))
    assert.deepInclude(commit, { connId: "rooms", sentPos: "p0", pos: "p1", lists: { all: 7 } })
    const first = MainIngest.ingest({ ownUserId: me, connId: "rooms", rooms: new Map() }, response({}))
    assert.notProperty(first.commit, "sentPos")
  })

  it("commits state, timeline and gap of a room, and the room after them", () => {
    const update = initial("!a:hs", {
      name: "A",
      requiredState: [topic],
      timeline: [message("$1")],
      limited: true,
      prevBatch: "b"
    })
    const { changed, commit } = ingest([], response({ rooms: [update] }))
    const [room] = changed
    assert.deepStrictEqual(commit.rooms, [
      {
        room: room!,
        replace: true,
        state: [topic],
        timeline: [message("$1")],
        gap: { prevBatch: "b" },
        accountData: []
      }
    ])
    assert.deepInclude(room, { displayName: "A", topic: "T" })
  })

  it("says no gap for a timeline that follows on, and one without a token where there is none", () => {
    const known = rooms("!a:hs")
    const follow = { ...emptyRoomUpdate("!a:hs"), timeline: [message("$1")], prevBatch: "b" }
    const [commit] = ingest(known, response({ rooms: [follow] })).commit.rooms
    assert.notProperty(commit, "gap")
    assert.isFalse(commit?.replace)
    const limited = { ...emptyRoomUpdate("!a:hs"), limited: true }
    assert.deepStrictEqual(ingest(known, response({ rooms: [limited] })).commit.rooms[0]?.gap, {})
  })

  it("says a room once that a response mentions several times", () => {
    const first = initial("!a:hs", { name: "A", timeline: [message("$1")] })
    const second = { ...emptyRoomUpdate("!a:hs"), name: "B", timeline: [message("$2")] }
    const { changed, commit } = ingest([], response({ rooms: [first, second] }))
    assert.deepStrictEqual(
      changed.map((room) => room.displayName),
      ["B"]
    )
    assert.deepStrictEqual(commit.rooms[0]?.timeline, [message("$1"), message("$2")])
    assert.deepStrictEqual(ingest([], response({ rooms: [second, first] })).commit.rooms[0]?.timeline, [message("$1")])
  })

  it("leaves untouched rooms out", () => {
    const { changed, commit } = ingest(rooms("!a:hs", "!b:hs"), response({ rooms: [emptyRoomUpdate("!b:hs")] }))
    assert.deepStrictEqual(
      changed.map((room) => room.roomId),
      ["!b:hs"]
    )
    assert.lengthOf(commit.rooms, 1)
  })

  it("marks rooms as left that the homeserver no longer lists, unless it just spoke of them", () => {
    const known = rooms("!a:hs", "!b:hs")
    const { changed } = ingest(known, response({ rooms: [emptyRoomUpdate("!b:hs")] }), ["!a:hs", "!b:hs", "!c:hs"])
    assert.deepStrictEqual(
      changed.map((room) => [room.roomId, room.membership]),
      [
        ["!b:hs", "join"],
        ["!a:hs", "leave"]
      ]
    )
  })

  describe("account data", () => {
    const fullyRead: EphemeralEvent = { type: "m.fully_read", content: { event_id: "$1" } }
    const marked: EphemeralEvent = { type: "m.marked_unread", content: { unread: true } }
    const tag: EphemeralEvent = { type: "m.tag", content: { tags: { "m.favourite": { order: 0.5 }, "u.a": {} } } }

    it("of a room is committed and changes the room, without an update of the room", () => {
      const given = extensions({ accountData: { global: [], rooms: { "!a:hs": [fullyRead, marked, tag] } } })
      const { changed, commit } = ingest(rooms("!a:hs"), given)
      assert.deepInclude(changed[0]?.unread, { fullyRead: "$1", markedUnread: true })
      assert.deepStrictEqual(changed[0]?.tags, ["m.favourite", "u.a"])
      assert.deepStrictEqual(commit.rooms[0], {
        room: changed[0]!,
        replace: false,
        state: [],
        timeline: [],
        accountData: [fullyRead, marked, tag]
      })
    })

    it("applies to a room that comes in the same response", () => {
      const given = {
        ...extensions({ accountData: { global: [], rooms: { "!new:hs": [tag] } } }),
        rooms: [initial("!new:hs")]
      }
      const { changed, commit } = ingest([], given)
      assert.deepStrictEqual(changed[0]?.tags, ["m.favourite", "u.a"])
      assert.isTrue(commit.rooms[0]?.replace)
    })

    it("takes a mark away, and reads the mark's unstable spelling", () => {
      const unstable = { type: "com.famedly.marked_unread", content: { unread: true } }
      const unmark = { type: "m.marked_unread", content: { unread: false } }
      const marks = (events: ReadonlyArray<EphemeralEvent>) =>
        ingest(rooms("!a:hs"), extensions({ accountData: { global: [], rooms: { "!a:hs": events } } })).changed[0]
      assert.isTrue(marks([unstable])?.unread.markedUnread)
      assert.isFalse(marks([unstable, unmark])?.unread.markedUnread)
    })

    it("believes the mark's stable spelling when both come, in whichever order", () => {
      const unstable = { type: "com.famedly.marked_unread", content: { unread: true } }
      const stable = { type: "m.marked_unread", content: { unread: false } }
      for (const events of [
        [stable, unstable],
        [unstable, stable]
      ]) {
        const given = extensions({ accountData: { global: [], rooms: { "!a:hs": events } } })
        assert.isFalse(ingest(rooms("!a:hs"), given).changed[0]?.unread.markedUnread)
      }
    })

    it("of an unknown room is kept in the commit", () => {
      const { changed, commit } = ingest([], extensions({ accountData: { global: [], rooms: { "!x:hs": [tag] } } }))
      assert.deepStrictEqual(commit.roomAccountData, { "!x:hs": [tag] })
      assert.lengthOf(changed, 0)
    })

    it("m.direct makes rooms direct chats, and others not, also those of the same response", () => {
      const direct = { type: "m.direct", content: { [other]: ["!a:hs", "!new:hs"] } }
      const [a, b, c] = rooms("!a:hs", "!b:hs", "!c:hs")
      const given = { ...extensions({ accountData: { global: [direct], rooms: {} } }), rooms: [initial("!new:hs")] }
      const { changed, commit } = ingest([a!, { ...b!, isDm: true }, c!], given)
      assert.deepStrictEqual(
        changed.map((room) => [room.roomId, room.isDm]),
        [
          ["!new:hs", true],
          ["!a:hs", true],
          ["!b:hs", false]
        ]
      )
      assert.deepStrictEqual(commit.accountData, [direct])
    })

    it("m.direct doesn't undo what an invite says", () => {
      const invited: StateEvent = {
        type: "m.room.member",
        sender: other,
        state_key: me,
        content: { membership: "invite", is_direct: true }
      }
      const direct = { type: "m.direct", content: {} }
      const given = extensions({ accountData: { global: [direct], rooms: {} } })
      const { changed } = ingest([], { ...given, rooms: [initial("!i:hs", { strippedState: [invited] })] })
      assert.isTrue(changed[0]?.isDm)
    })
  })

  describe("receipts", () => {
    const known = (unread: Partial<Room["unread"]>): ReadonlyArray<Room> =>
      rooms("!a:hs").map((room) => ({ ...room, unread: { ...room.unread, ...unread } }))

    const read = (from: ReadonlyArray<Room>, event: EphemeralEvent, timeline: ReadonlyArray<TimelineEvent> = []) => {
      const update = { ...emptyRoomUpdate("!a:hs"), timeline, numLive: timeline.length }
      const given = extensions({ receipts: { "!a:hs": event } })
      return ingest(from, timeline.length === 0 ? given : { ...given, rooms: [update] }).changed[0]?.unread
    }

    it("of the user move the read receipt and clear what is behind it, public or private", () => {
      for (const type of ["m.read", "m.read.private"]) {
        const unread = read(known({ liveSinceRead: 5 }), receipt("$1", { ts: 9 }, type))
        assert.deepInclude(unread, { readReceipt: "$1", readReceiptAtMillis: 9, liveSinceRead: 0 })
      }
    })

    it("leave as unread what came after them in the same response", () => {
      const timeline = [message("$1"), message("$2"), message("$mine", me), message("$3")]
      assert.deepInclude(read(known({ liveSinceRead: 5 }), receipt("$1"), timeline), { liveSinceRead: 2 })
      assert.deepInclude(read(known({ liveSinceRead: 5 }), receipt("$old"), timeline), { liveSinceRead: 3 })
    })

    it("don't count again when they are repeated", () => {
      const from = known({ readReceipt: "$1", liveSinceRead: 4 })
      assert.deepStrictEqual(ingest(from, extensions({ receipts: { "!a:hs": receipt("$1") } })).changed, [])
    })

    it("that are older than the known one, or of one thread, don't move it", () => {
      const from = known({ readReceipt: "$5", readReceiptAtMillis: 50 })
      const thread = receipt("$6", { ts: 60, thread_id: "$t" })
      assert.isUndefined(read(from, receipt("$4", { ts: 40 })))
      assert.isUndefined(read(from, thread))
      assert.deepInclude(read(from, receipt("$6", { ts: 60, thread_id: "main" })), { readReceipt: "$6" })
    })

    it("take the newer of the public and the private one", () => {
      const both = { type: "m.receipt", content: { ...receipt("$1", { ts: 8 }).content } }
      const content = { ...both.content, ...receipt("$2", { ts: 9 }, "m.read.private").content }
      assert.deepInclude(read(known({}), { type: "m.receipt", content }), { readReceipt: "$2" })
    })

    it("of others change nothing", () => {
      assert.isUndefined(read(known({}), receipt("$1", { ts: 1 }, "m.read", other)))
    })

    it("I7: for an unknown room are quarantined", () => {
      const { commit } = ingest([], extensions({ receipts: { "!x:hs": receipt("$1") } }))
      assert.deepInclude(commit.quarantined[0], { source: "receipts", roomId: "!x:hs", raw: receipt("$1") })
    })
  })

  describe("typing", () => {
    it("is told, without the user himself, but not stored", () => {
      const { changed, commit, ephemeral } = ingest(
        rooms("!a:hs"),
        extensions({ typing: { "!a:hs": typing(me, other), "!x:hs": typing(other) } })
      )
      assert.deepStrictEqual(
        ephemeral.map((room) => [room.roomId, room.typing]),
        [["!a:hs", [other]]]
      )
      assert.lengthOf(changed, 0)
      assert.lengthOf(commit.rooms, 0)
      assert.lengthOf(commit.quarantined, 0)
    })

    it("is told with a durable change, and left out of what is stored", () => {
      const given = { ...extensions({ typing: { "!a:hs": typing(other) } }), rooms: [initial("!a:hs")] }
      const { changed, commit, ephemeral } = ingest([], given)
      assert.deepStrictEqual(changed[0]?.typing, [other])
      assert.deepStrictEqual(commit.rooms[0]?.room.typing, [])
      assert.lengthOf(ephemeral, 0)
    })

    it("that is the same as before is not told again", () => {
      const known = rooms("!a:hs").map((room) => ({ ...room, typing: [other] }))
      assert.lengthOf(ingest(known, extensions({ typing: { "!a:hs": typing(other) } })).ephemeral, 0)
      assert.deepStrictEqual(ingest(known, extensions({ typing: { "!a:hs": typing() } })).ephemeral[0]?.typing, [])
    })
  })

  describe("I7: what makes no sense", () => {
    it("is quarantined with a reason, and the rest of the response is used", () => {
      const found = { source: "timeline" as const, reason: 'it has no "sender"', raw: {} }
      const given: SyncResponse = {
        ...extensions({
          accountData: {
            global: [{ type: "m.direct", content: { [other]: "!a:hs", "@third:hs": ["!b:hs"] } }],
            rooms: {
              "!a:hs": [
                { type: "m.fully_read", content: {} },
                { type: "m.tag", content: { tags: [] } }
              ]
            }
          },
          receipts: { "!a:hs": { type: "m.receipt", content: { $bad: 1, ...receipt("$1").content } } },
          typing: { "!a:hs": { type: "m.typing", content: { user_ids: "nobody" } } }
        }),
        lists: { all: { count: -1 }, invites: { count: 2 } },
        rooms: [
          initial("nonsense"),
          initial("!a:hs", { name: "A", joinedCount: -3, bumpStamp: Number.NaN, invitedCount: 2 })
        ],
        quarantined: [found]
      }
      const { changed, commit } = ingest(rooms("!b:hs"), given)
      assert.deepStrictEqual(
        commit.quarantined.map(({ roomId, source }) => [source, roomId]),
        [
          ["timeline", undefined],
          ["room", undefined],
          ["room", "!a:hs"],
          ["room", "!a:hs"],
          ["accountData", "!a:hs"],
          ["accountData", "!a:hs"],
          ["accountData", undefined],
          ["receipts", "!a:hs"],
          ["typing", "!a:hs"],
          ["list", undefined]
        ]
      )
      assert.deepStrictEqual(commit.lists, { invites: 2 })
      const [a, b] = changed
      assert.deepInclude(a, { roomId: "!a:hs", displayName: "A", joinedCount: 0, invitedCount: 2, bumpStamp: 0 })
      assert.strictEqual(a?.unread.readReceipt, "$1")
      assert.deepInclude(b, { roomId: "!b:hs", isDm: true })
    })
  })

  it("reads a page of 100 rooms with 20 events each in milliseconds", () => {
    const timeline = Array.from({ length: 20 }, (_, index) => message(`$${index}`))
    const page = Array.from({ length: 100 }, (_, index) =>
      initial(`!${index}:hs`, { name: `Room ${index}`, requiredState: [topic, topic, topic], timeline })
    )
    const times = Array.from({ length: 10 }, () => {
      const start = performance.now()
      ingest([], response({ rooms: page }))
      return performance.now() - start
    })
    // Typically below 1 ms; the bound leaves room for a machine that is busy with other suites.
    assert.isBelow(Math.min(...times), 10)
  })
})
