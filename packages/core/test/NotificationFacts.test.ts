import { assert, describe, it } from "@effect/vitest"
import type { EphemeralEvent, JsonObject, StateEvent } from "../src/matrix/MatrixEvent.ts"
import { emptyRoomUpdate, type RoomUpdate } from "../src/matrix/SlidingSync.ts"
import * as NotificationFacts from "../src/notification/NotificationFacts.ts"
import {
  aMember,
  aMessage,
  anEvent,
  anInvite,
  arbitraryContent,
  arbitraryEvent,
  arbitraryResponse,
  arbitraryState,
  aResponse,
  aRoom,
  aState
} from "../src/testing/Generators.ts"

const me = "@me:localhost"
const sender = "@sender:localhost"
const [amy, bot] = ["@amy:localhost", "@bot:localhost"]
const room = "!room:localhost"
const nothing = NotificationFacts.none(me)

const data = (type: string, content: JsonObject): EphemeralEvent => ({ type, content })
const withRooms = (facts: NotificationFacts.Facts, ...rooms: ReadonlyArray<RoomUpdate>) =>
  NotificationFacts.withSync(facts, aResponse({ pos: "p", rooms }))
const kitchen = (state: ReadonlyArray<StateEvent> = [], overrides: Partial<RoomUpdate> = {}): RoomUpdate => {
  const update = aRoom(room, { name: "Kitchen" })
  return { ...update, requiredState: [...update.requiredState, ...state], ...overrides }
}
const nameOf = (facts: NotificationFacts.Facts, userId = sender) => NotificationFacts.senderOf(facts, room, userId).name

describe("NotificationFacts of a room", () => {
  it("are its id until something tells of it", () => {
    assert.isFalse(NotificationFacts.isRoomKnown(nothing, room))
    assert.deepStrictEqual(NotificationFacts.roomOf(nothing, room), {
      roomId: room,
      name: room,
      isEncrypted: false,
      isDirect: false
    })
  })

  it("are what a sync tells", () => {
    const state = [
      aState("m.room.topic", { topic: "Food" }),
      aState("m.room.encryption", { algorithm: "m.megolm.v1.aes-sha2" }),
      aState("m.room.join_rules", { join_rule: "knock" }),
      aState("m.room.canonical_alias", { alias: "#kitchen:localhost" })
    ]
    assert.deepStrictEqual(NotificationFacts.roomOf(withRooms(nothing, kitchen(state, { avatar: "mxc://a" })), room), {
      roomId: room,
      name: "Kitchen",
      avatarUrl: "mxc://a",
      canonicalAlias: "#kitchen:localhost",
      topic: "Food",
      joinRule: "knock",
      isEncrypted: true,
      isDirect: false,
      joinedCount: 2,
      invitedCount: 0
    })
  })

  it("are what was stored, and then what a sync tells", () => {
    const known = withRooms(nothing, kitchen()).rooms.get(room)?.room
    assert.isDefined(known)
    const stored = { room: known, state: [aMember(sender, "join", "Sam")], timeline: [] }
    const facts = NotificationFacts.withStored(nothing, stored)
    assert.deepStrictEqual([NotificationFacts.roomOf(facts, room).name, nameOf(facts)], ["Kitchen", "Sam"])
    const later = withRooms(facts, { ...emptyRoomUpdate(room), name: "Hall" })
    assert.strictEqual(NotificationFacts.roomOf(later, room).name, "Hall")
  })

  it("are what its state was at the event, where nothing else tells, without a count of its members", () => {
    const state = [
      aState("m.room.encryption", { algorithm: "a" }),
      aMember(sender, "join", "Sam"),
      aMember(amy, "leave")
    ]
    const facts = NotificationFacts.withContext(nothing, room, state)
    assert.deepStrictEqual(NotificationFacts.roomOf(facts, room), {
      roomId: room,
      name: "Sam",
      isEncrypted: true,
      isDirect: false
    })
    assert.isUndefined(NotificationFacts.ruleContext(facts, room).joinedCount)
  })

  it("are direct when the account's data say so, whichever comes first", () => {
    const direct = data("m.direct", { [sender]: [room] })
    const before = withRooms(NotificationFacts.withAccountData(nothing, [direct]), kitchen())
    const after = NotificationFacts.withAccountData(withRooms(nothing, kitchen()), [direct])
    assert.isTrue(NotificationFacts.roomOf(before, room).isDirect)
    assert.isTrue(NotificationFacts.roomOf(after, room).isDirect)
  })

  it("count members without service members, of which only those that are there count", () => {
    const heroes = [{ userId: sender }, { userId: bot }]
    const functional = (...users: ReadonlyArray<string>) =>
      aState("io.element.functional_members", { service_members: users })
    const count = (users: ReadonlyArray<string>, members = heroes) => {
      const facts = withRooms(
        nothing,
        kitchen([functional(...users)], { heroes: members, joinedCount: 1 + members.length })
      )
      return NotificationFacts.roomOf(facts, room).joinedCount
    }
    assert.strictEqual(count([bot]), 2)
    assert.strictEqual(count([me, bot]), 2)
    assert.strictEqual(count(["@absent:localhost"]), 3)
    assert.strictEqual(count(["@absent:localhost"], [{ userId: sender }]), 2)
  })
})

describe("NotificationFacts of a sender", () => {
  it("are the name in the room; the hero's, then the id where there is none", () => {
    const facts = withRooms(
      nothing,
      kitchen([aMember(sender, "join", "Sam")], { heroes: [{ userId: amy, displayName: "Amy" }] })
    )
    assert.deepStrictEqual([nameOf(facts), nameOf(facts, amy), nameOf(facts, bot)], ["Sam", "Amy", bot])
    assert.isTrue(NotificationFacts.isSenderKnown(facts, room, sender))
    assert.isFalse(NotificationFacts.isSenderKnown(facts, room, amy))
  })

  it("are the newest: the surroundings fill only what isn't known, whichever comes first", () => {
    const old = [aMember(sender, "join", "Old Sam"), aMember(amy, "join", "Amy")]
    const first = NotificationFacts.withContext(
      withRooms(nothing, kitchen([aMember(sender, "join", "Sam")])),
      room,
      old
    )
    const last = withRooms(NotificationFacts.withContext(nothing, room, old), kitchen([aMember(sender, "join", "Sam")]))
    assert.deepStrictEqual(
      [first, last].map((facts) => [nameOf(facts), nameOf(facts, amy)]),
      [
        ["Sam", "Amy"],
        ["Sam", "Amy"]
      ]
    )
  })

  it("are ambiguous when somebody else who is there has the same name", () => {
    const ambiguous = (...others: ReadonlyArray<StateEvent>) =>
      NotificationFacts.senderOf(withRooms(nothing, kitchen([aMember(sender, "join", "Sam"), ...others])), room, sender)
        .isNameAmbiguous
    assert.isFalse(ambiguous(aMember(amy, "join", "Amy"), aMember(bot, "leave", "Sam")))
    assert.isTrue(ambiguous(aMember(amy, "invite", "Sam")))
  })

  it("are told by an invitation", () => {
    const facts = withRooms(nothing, anInvite(room))
    assert.isTrue(NotificationFacts.isSenderKnown(facts, room, sender))
    assert.isTrue(NotificationFacts.isRoomKnown(facts, room))
  })
})

describe("NotificationFacts for judging", () => {
  it("know what was taken back: by the event's own mark, by a redaction beside it, and by one that is stored", () => {
    const redaction = anEvent(2, { type: "m.room.redaction", redacts: "$event1", content: { redacts: "$event1" } })
    const isRedacted = (facts: NotificationFacts.Facts, event = aMessage(1)) =>
      NotificationFacts.isRedacted(facts, room, event)
    assert.isFalse(isRedacted(withRooms(nothing, kitchen())))
    assert.isTrue(isRedacted(nothing, anEvent(1, { unsigned: { redacted_because: {} } })))
    assert.isTrue(isRedacted(withRooms(nothing, kitchen([], { timeline: [aMessage(1), redaction] }))))
    const known = withRooms(nothing, kitchen()).rooms.get(room)?.room
    assert.isDefined(known)
    assert.isTrue(isRedacted(NotificationFacts.withStored(nothing, { room: known, state: [], timeline: [redaction] })))
  })

  it("know whom the user ignores, by the newest list", () => {
    const ignored = (...events: ReadonlyArray<EphemeralEvent>) => [
      ...NotificationFacts.withAccountData(nothing, events).ignored
    ]
    const list = data("m.ignored_user_list", { ignored_users: { [sender]: {} } })
    assert.deepStrictEqual(ignored(list), [sender])
    assert.deepStrictEqual(ignored(list, data("m.ignored_user_list", { ignored_users: {} })), [])
    assert.deepStrictEqual(ignored(data("m.ignored_user_list", { ignored_users: "all" })), [])
  })

  it("tell the rules the room's counts and powers, and the user's own name", () => {
    const levels = { users: { [sender]: 50 } }
    const facts = withRooms(nothing, kitchen([aState("m.room.power_levels", levels), aMember(me, "join", "Me")]))
    assert.deepInclude(NotificationFacts.ruleContext(facts, room, true), {
      ownUserId: me,
      roomId: room,
      ownDisplayName: "Me",
      joinedCount: 2,
      powerLevels: levels,
      creators: [],
      isThreadSubscribed: true
    })
  })

  it("give a room's creators all power from version 12 on", () => {
    const creators = (version: string) => {
      const create = aState("m.room.create", { room_version: version, additional_creators: [amy, 7] })
      return NotificationFacts.ruleContext(withRooms(nothing, kitchen([create])), room).creators
    }
    assert.deepStrictEqual(creators("11"), [])
    assert.deepStrictEqual(creators("12"), [sender, amy])
  })

  it.prop(
    "I7: can be learnt from anything, and told",
    [arbitraryResponse, arbitraryState, arbitraryContent, arbitraryEvent],
    ([response, state, content, event]) => {
      const events = ["m.push_rules", "m.ignored_user_list", "m.direct"].map((type) => data(type, content))
      const rooms = response.rooms.map((update) => ({ ...update, roomId: room }))
      const facts = NotificationFacts.withContext(
        NotificationFacts.withSync(NotificationFacts.withAccountData(nothing, events), { ...response, rooms }),
        room,
        [state, content]
      )
      assert.strictEqual(NotificationFacts.roomOf(facts, room).roomId, room)
      assert.isString(NotificationFacts.senderOf(facts, room, event.sender).name)
      assert.isBoolean(NotificationFacts.isRedacted(facts, room, event))
      assert.isArray(NotificationFacts.ruleContext(facts, room).creators)
    }
  )
})
