import { assert, describe, it } from "@effect/vitest"
import type { StateEvent, TimelineEvent } from "../src/matrix/MatrixEvent.ts"
import { emptyRoomUpdate, type RoomUpdate } from "../src/matrix/SlidingSync.ts"
import type { Room } from "../src/rooms/Room.ts"
import * as RoomState from "../src/rooms/RoomState.ts"

const roomId = "!room:hs"
const me = "@me:hs"
const other = "@other:hs"
const context = { ownUserId: me }

const update = (changes: Partial<RoomUpdate>): RoomUpdate => ({ ...emptyRoomUpdate(roomId), ...changes })

const initial = (changes: Partial<RoomUpdate>): RoomUpdate => update({ initial: true, ...changes })

/** The room after a series of updates. */
const after = (...updates: ReadonlyArray<RoomUpdate>): Room => {
  const room = updates.reduce<Room | undefined>((room, next) => RoomState.apply(room, next, context), undefined)
  assert.isDefined(room)
  return room
}

const state = (type: string, content: StateEvent["content"], stateKey = "", sender = other): StateEvent => ({
  type,
  sender,
  state_key: stateKey,
  content
})

const member = (userId: string, membership: string, content: StateEvent["content"] = {}, sender = other): StateEvent =>
  state("m.room.member", { membership, ...content }, userId, sender)

const message = (id: string, extra: Partial<TimelineEvent> = {}): TimelineEvent => ({
  type: "m.room.message",
  sender: other,
  event_id: id,
  origin_server_ts: 0,
  content: { body: id },
  ...extra
})

const inTimeline = (id: string, event: StateEvent): StateEvent & TimelineEvent => ({ ...event, event_id: id })

describe("RoomState", () => {
  describe("membership", () => {
    it("is what the homeserver says, before anything else", () => {
      assert.strictEqual(after(initial({ membership: "ban", requiredState: [member(me, "join")] })).membership, "ban")
    })

    it("is the own member event in the stripped state, which tells an invite from a knock", () => {
      assert.strictEqual(after(initial({ strippedState: [member(me, "invite")] })).membership, "invite")
      assert.strictEqual(after(initial({ strippedState: [member(me, "knock")] })).membership, "knock")
      assert.strictEqual(after(initial({ strippedState: [state("m.room.name", { name: "N" })] })).membership, "invite")
    })

    it("is the own member event in required state or timeline", () => {
      const joined = initial({ requiredState: [member(me, "join")] })
      assert.strictEqual(after(joined, update({ requiredState: [member(me, "leave")] })).membership, "leave")
      assert.strictEqual(after(joined, update({ timeline: [inTimeline("$1", member(me, "ban"))] })).membership, "ban")
      assert.strictEqual(after(joined, update({ requiredState: [member(other, "leave")] })).membership, "join")
    })

    it("ends when the merged text says that the own member event is gone", () => {
      const gone = update({ requiredState: [{ type: "m.room.member", state_key: me }] })
      assert.strictEqual(after(initial({}), gone).membership, "leave")
    })

    it("stays when an update doesn't tell, and when it tells nonsense", () => {
      const invited = initial({ strippedState: [member(me, "invite")] })
      assert.strictEqual(after(invited, update({ bumpStamp: 3 })).membership, "invite")
      assert.strictEqual(after(invited, update({ requiredState: [member(me, "guest")] })).membership, "invite")
    })
  })

  describe("invites", () => {
    const stripped = [member(other, "join", { displayname: "Other" }), member(me, "invite", { is_direct: true })]

    it("say who invites, and are direct chats when the inviter means one", () => {
      const room = after(initial({ strippedState: stripped }))
      assert.deepStrictEqual(room.invite, { inviter: other, inviterDisplayName: "Other", isDirect: true })
      assert.isTrue(room.isDm)
      assert.strictEqual(room.displayName, "Other")
    })

    it("show name, avatar and kind of the room by the stripped state", () => {
      const described = [
        state("m.room.name", { name: "Team" }),
        state("m.room.avatar", { url: "mxc://hs/a" }),
        state("m.room.create", { type: "m.space" }),
        state("m.room.encryption", { algorithm: "m.megolm.v1.aes-sha2" }),
        member(me, "invite")
      ]
      const room = after(initial({ strippedState: described }))
      assert.deepInclude(room, { displayName: "Team", avatar: "mxc://hs/a", roomType: "m.space", isEncrypted: true })
    })

    it("are over once the user joins or declines", () => {
      const invited = initial({ strippedState: stripped })
      assert.notProperty(after(invited, initial({ requiredState: [member(me, "join")] })), "invite")
      assert.notProperty(after(invited, update({ requiredState: [member(me, "leave", {}, me)] })), "invite")
    })

    it("have no inviter when the user knocks", () => {
      assert.deepStrictEqual(after(initial({ strippedState: [member(me, "knock", {}, me)] })).invite, {
        isDirect: false
      })
    })
  })

  describe("name", () => {
    const named = initial({ name: "Team", requiredState: [state("m.room.canonical_alias", { alias: "#team:hs" })] })

    it("changes, stays when it isn't mentioned, and is removed by null", () => {
      assert.strictEqual(after(named, update({ name: "Crew" })).displayName, "Crew")
      assert.strictEqual(after(named, update({ joinedCount: 3 })).displayName, "Team")
      const removed = after(named, update({ name: null }))
      assert.notProperty(removed, "name")
      assert.strictEqual(removed.displayName, "#team:hs")
    })

    it("is removed by an m.room.name event with no name, where the homeserver omits a removed one", () => {
      const cleared = state("m.room.name", {})
      assert.notProperty(after(named, update({ requiredState: [cleared] })), "name")
      assert.notProperty(after(named, update({ timeline: [inTimeline("$1", cleared)] })), "name")
      assert.notProperty(after(named, update({ requiredState: [{ type: "m.room.name", state_key: "" }] })), "name")
    })

    it("doesn't go back to what history says, when an expanded timeline brings history", () => {
      const old = inTimeline("$1", state("m.room.name", { name: "Old" }))
      const expanded = update({ timeline: [old, message("$2")], expandedTimeline: true, numLive: 0 })
      assert.strictEqual(after(named, expanded).displayName, "Team")
    })

    it("leaves out service members, by the stable and the unstable event", () => {
      const heroes = [
        { userId: other, displayName: "Other" },
        { userId: "@bot:hs", displayName: "Bot" }
      ]
      for (const type of ["m.member_hints", "io.element.functional_members"]) {
        const hints = state(type, { service_members: ["@bot:hs", 7] })
        assert.strictEqual(after(initial({ heroes, joinedCount: 3, requiredState: [hints] })).displayName, "Other")
      }
    })
  })

  describe("avatar", () => {
    const heroes = [{ userId: other, displayName: "Other", avatarUrl: "mxc://hs/other" }]
    const direct = initial({ heroes, isDm: true, joinedCount: 2 })

    it("is the room's, else that of the other member of a direct chat", () => {
      assert.strictEqual(after(direct, update({ avatar: "mxc://hs/room" })).avatar, "mxc://hs/room")
      assert.strictEqual(after(direct).avatar, "mxc://hs/other")
      assert.notProperty(after(initial({ heroes, joinedCount: 2 })), "avatar")
    })

    it("falls back to the other member when the room's is removed, in both spellings", () => {
      const withAvatar = update({ avatar: "mxc://hs/room" })
      assert.strictEqual(after(direct, withAvatar, update({ avatar: null })).avatar, "mxc://hs/other")
      const cleared = update({ requiredState: [state("m.room.avatar", {})] })
      assert.strictEqual(after(direct, withAvatar, cleared).avatar, "mxc://hs/other")
    })

    it("follows m.direct", () => {
      const group = after(initial({ heroes, joinedCount: 2 }))
      const asDm = RoomState.setDm(group, true, context)
      assert.strictEqual(asDm.avatar, "mxc://hs/other")
      assert.notProperty(RoomState.setDm(asDm, false, context), "avatar")
      assert.strictEqual(RoomState.setDm(group, false, context), group)
    })
  })

  it("reads topic, alias, type, successor and encryption from the state", () => {
    const room = after(
      initial({
        requiredState: [
          state("m.room.topic", { topic: "All of it" }),
          state("m.room.canonical_alias", { alias: "#a:hs" }),
          state("m.room.create", { type: "m.space" }),
          state("m.room.tombstone", { replacement_room: "!next:hs" }),
          state("m.room.encryption", { algorithm: "m.megolm.v1.aes-sha2" })
        ]
      })
    )
    const expected = { topic: "All of it", canonicalAlias: "#a:hs", roomType: "m.space", replacedBy: "!next:hs" }
    assert.deepInclude(room, { ...expected, isEncrypted: true })
  })

  it("I7: takes content of the wrong type for no content, and goes on", () => {
    const wrong = [
      state("m.room.topic", { topic: 7 }),
      state("m.room.canonical_alias", { alias: null }),
      state("m.room.create", { type: [] }),
      state("m.member_hints", { service_members: "@bot:hs" }),
      state("m.room.member", { membership: 1 }, me)
    ]
    const room = after(initial({ name: "Team", requiredState: wrong }))
    assert.strictEqual(room.displayName, "Team")
    for (const key of ["topic", "canonicalAlias", "roomType"]) assert.notProperty(room, key)
  })

  describe("an initial update", () => {
    const full = initial({
      name: "Team",
      avatar: "mxc://hs/a",
      heroes: [{ userId: other }],
      joinedCount: 5,
      invitedCount: 2,
      bumpStamp: 9,
      requiredState: [
        state("m.room.topic", { topic: "T" }),
        state("m.room.encryption", { algorithm: "m.megolm.v1.aes-sha2" })
      ],
      timeline: [message("$1")]
    })

    it("replaces what updates told", () => {
      const room = after(full, initial({}))
      for (const key of ["name", "avatar", "topic", "latestEvent"]) assert.notProperty(room, key)
      assert.deepInclude(room, { heroes: [], joinedCount: 0, invitedCount: 0, displayName: "Empty Room" })
    })

    it("keeps receipts, marks, tags and direct chats, which come by extension, and forgets who types", () => {
      const unread = {
        notificationCount: 3,
        highlightCount: 1,
        markedUnread: true,
        liveSinceRead: 2,
        readReceipt: "$0",
        fullyRead: "$0"
      }
      const known: Room = { ...after(full), unread, isDm: true, tags: ["m.favourite"], typing: [other] }
      const room = RoomState.apply(known, initial({}), context)
      assert.deepStrictEqual(room.unread, { ...unread, notificationCount: 0, highlightCount: 0 })
      assert.deepInclude(room, { isDm: true, tags: ["m.favourite"], typing: [] })
    })

    it("never switches encryption off", () => {
      assert.isTrue(after(full, initial({})).isEncrypted)
    })
  })

  describe("recency and counts", () => {
    it("stay when they are omitted, and change when they are said", () => {
      const first = initial({ bumpStamp: 5, joinedCount: 2, invitedCount: 1, isDm: true })
      const unchanged = { bumpStamp: 5, joinedCount: 2, invitedCount: 1, isDm: true }
      assert.deepInclude(after(first, update({ timeline: [message("$1")] })), unchanged)
      const changed = { bumpStamp: 6, joinedCount: 3, invitedCount: 0, isDm: false }
      assert.deepInclude(after(first, update(changed)), changed)
    })
  })

  describe("latest event", () => {
    const idOf = (room: Room): string | undefined => room.latestEvent?.event_id

    it("is the last of the timeline, and stays over an empty timeline", () => {
      const first = initial({ timeline: [message("$1"), message("$2")] })
      assert.strictEqual(idOf(after(first)), "$2")
      assert.strictEqual(idOf(after(first, update({ bumpStamp: 4 }))), "$2")
      assert.strictEqual(idOf(after(first, update({ timeline: [message("$3")], numLive: 1 }))), "$3")
      assert.isUndefined(idOf(after(initial({}))))
    })

    it("is not replaced by history, whatever its order", () => {
      const first = initial({ timeline: [message("$9", { origin_server_ts: 900 })] })
      const history = [message("$1", { origin_server_ts: 100 }), message("$2", { origin_server_ts: 200 })]
      assert.strictEqual(idOf(after(first, update({ timeline: history, numLive: 0 }))), "$9")
      const expanded = update({ timeline: [...history, message("$9")], numLive: 0, expandedTimeline: true })
      assert.strictEqual(idOf(after(first, expanded)), "$9")
    })

    it("is replaced by what was missed while the room was outside the window", () => {
      const first = initial({ timeline: [message("$1", { origin_server_ts: 100 })] })
      const missed = update({ timeline: [message("$8", { origin_server_ts: 800 })], numLive: 0, limited: true })
      assert.strictEqual(idOf(after(first, missed)), "$8")
    })

    it("is replaced by a live event whose sender's clock is slow", () => {
      const first = initial({ timeline: [message("$1", { origin_server_ts: 900 })] })
      assert.strictEqual(idOf(after(first, update({ timeline: [message("$2")], numLive: 1 }))), "$2")
    })

    it("is not replaced by a redaction, which empties it when it is the one redacted", () => {
      const redaction = (redacts: Partial<TimelineEvent>): RoomUpdate =>
        update({ timeline: [message("$r", { type: "m.room.redaction", content: {}, ...redacts })], numLive: 1 })
      const first = initial({ timeline: [message("$1")] })
      const untouched = after(first, redaction({ redacts: "$0" }))
      assert.deepStrictEqual(untouched.latestEvent?.content, { body: "$1" })
      for (const redacts of [{ redacts: "$1" }, { content: { redacts: "$1" } }]) {
        const room = after(first, redaction(redacts))
        assert.strictEqual(idOf(room), "$1")
        assert.deepStrictEqual(room.latestEvent?.content, {})
        assert.property(room.latestEvent?.unsigned, "redacted_because")
      }
    })
  })

  describe("redacted state", () => {
    const redaction = (id: string): TimelineEvent =>
      message("$r", { type: "m.room.redaction", content: { redacts: id } })
    const named = (id: string, name: string): StateEvent & TimelineEvent =>
      inTimeline(id, state("m.room.name", { name }))
    const rude = initial({ name: "Rude", requiredState: [named("$n", "Rude")] })

    it("is gone: name, topic, avatar, alias and successor, each by its own event", () => {
      const facts = {
        name: named("$1", "Rude"),
        topic: inTimeline("$2", state("m.room.topic", { topic: "T" })),
        roomAvatar: inTimeline("$3", state("m.room.avatar", { url: "mxc://hs/a" })),
        canonicalAlias: inTimeline("$4", state("m.room.canonical_alias", { alias: "#a:hs" })),
        replacedBy: inTimeline("$5", state("m.room.tombstone", { replacement_room: "!b:hs" }))
      }
      const before = initial({ requiredState: Object.values(facts) })
      for (const [key, event] of Object.entries(facts)) {
        const room = after(before, update({ timeline: [redaction(event.event_id)], numLive: 1 }))
        const left = Object.keys(facts).filter((other) => other in room)
        assert.deepStrictEqual(
          left,
          Object.keys(facts).filter((other) => other !== key)
        )
      }
    })

    it("names the room by its heroes again", () => {
      const room = after(
        { ...rude, joinedCount: 2, heroes: [{ userId: other, displayName: "Bert" }] },
        update({ timeline: [redaction("$n")] })
      )
      assert.strictEqual(room.displayName, "Bert")
    })

    it("is left alone when newer state has taken its place, or it was another event", () => {
      const renamed = update({ timeline: [named("$m", "New")] })
      assert.strictEqual(after(rude, renamed, update({ timeline: [redaction("$n")] })).name, "New")
      assert.strictEqual(after(rude, update({ timeline: [redaction("$x")] })).name, "Rude")
      assert.strictEqual(after(rude, update({ timeline: [redaction("$n"), named("$m", "New")] })).name, "New")
    })

    it("is gone also when the redaction comes as history, or after the room was sent anew", () => {
      const history = update({ timeline: [redaction("$n"), message("$2")], expandedTimeline: true, numLive: 0 })
      assert.isUndefined(after(rude, history).name)
      const anew = initial({ requiredState: [named("$m", "Ruder")] })
      assert.isUndefined(after(rude, anew, update({ timeline: [redaction("$m")] })).name)
      assert.strictEqual(after(rude, anew, update({ timeline: [redaction("$n")] })).name, "Ruder")
    })

    it("stays encrypted, whatever is redacted", () => {
      const encryption = inTimeline("$e", state("m.room.encryption", { algorithm: "a" }))
      assert.isTrue(
        after(initial({ requiredState: [encryption] }), update({ timeline: [redaction("$e")] })).isEncrypted
      )
    })
  })

  describe("unread inputs", () => {
    it("don't count a redaction, which leaves nothing to read", () => {
      const timeline = [message("$1"), message("$2", { type: "m.room.redaction", redacts: "$1" })]
      assert.strictEqual(after(initial({}), update({ timeline, numLive: 2 })).unread.liveSinceRead, 1)
    })

    it("count live events by others, not own ones, state or history", () => {
      const timeline = [
        message("$history"),
        message("$1"),
        message("$own", { sender: me }),
        inTimeline("$state", state("m.room.topic", { topic: "T" })),
        message("$2")
      ]
      const room = after(initial({}), update({ timeline, numLive: 4 }))
      assert.strictEqual(room.unread.liveSinceRead, 2)
      assert.strictEqual(after(initial({ timeline })).unread.liveSinceRead, 0)
      assert.strictEqual(after(initial({ timeline, numLive: 1 })).unread.liveSinceRead, 1)
    })

    it("count all of a timeline that is not said to hold history, and never more than there is", () => {
      const two = [message("$1"), message("$2")]
      assert.strictEqual(after(initial({}), update({ timeline: two })).unread.liveSinceRead, 2)
      assert.strictEqual(after(initial({}), update({ timeline: two, numLive: 50 })).unread.liveSinceRead, 2)
    })

    it("hold the homeserver's counts, where it counts", () => {
      const room = after(initial({ notificationCount: 4, highlightCount: 1 }), update({ notificationCount: 5 }))
      assert.deepInclude(room.unread, { notificationCount: 5, highlightCount: 1 })
    })
  })
})
