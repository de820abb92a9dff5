import { assert, describe, it } from "@effect/vitest"
import { HashMap } from "effect"
import * as fc from "fast-check"
import { emptyRoomUpdate } from "../src/matrix/SlidingSync.ts"
import * as ListDiff from "../src/rooms/ListDiff.ts"
import type { Room } from "../src/rooms/Room.ts"
import * as RoomFilters from "../src/rooms/RoomFilters.ts"
import * as Machine from "../src/rooms/RoomListMachine.ts"
import * as RoomSorters from "../src/rooms/RoomSorters.ts"
import * as RoomState from "../src/rooms/RoomState.ts"

const room = (roomId: string, bumpStamp: number, changes: Partial<Room> = {}): Room => ({
  ...RoomState.apply(undefined, { ...emptyRoomUpdate(roomId), bumpStamp, name: roomId }, { ownUserId: "@me:hs" }),
  ...changes
})

const roomsOf = (rooms: ReadonlyArray<Room>): Machine.Rooms =>
  HashMap.fromIterable(rooms.map((room) => [room.roomId, room] as const))

const ids = (rooms: ReadonlyArray<Room>): ReadonlyArray<string> => rooms.map(({ roomId }) => roomId)

const shown = (view: Machine.RoomListView): ReadonlyArray<string> => ids(Machine.entries(view))

const tags = (changes: ReadonlyArray<ListDiff.Diff<Room>>): ReadonlyArray<string> => changes.map(({ _tag }) => _tag)

/** Twenty rooms, `!0` the most recent. */
const twenty = Array.from({ length: 20 }, (_, index) => room(`!${index}`, 100 - index))

const update = (view: Machine.RoomListView, ...changed: ReadonlyArray<Room>): Machine.Step =>
  Machine.step(view, {
    _tag: "Update",
    rooms: HashMap.setMany(
      view.rooms,
      changed.map((room) => [room.roomId, room] as const)
    ),
    touched: ids(changed)
  })

const remove = (view: Machine.RoomListView, roomId: string): Machine.Step =>
  Machine.step(view, { _tag: "Update", rooms: HashMap.remove(view.rooms, roomId), touched: [roomId] })

describe("RoomListMachine", () => {
  it("shows the rooms by recency", () => {
    const view = Machine.make(roomsOf([room("!a", 1), room("!c", 3), room("!b", 2)]))
    assert.deepStrictEqual(shown(view), ["!c", "!b", "!a"])
  })

  it("moves a room to the top when something happens in it", () => {
    const changed = room("!7", 200)
    const [view, changes] = update(Machine.make(roomsOf(twenty)), changed)
    assert.deepStrictEqual(changes, [
      { _tag: "Move", from: 7, to: 0 },
      { _tag: "Set", index: 0, entry: changed }
    ])
    assert.strictEqual(shown(view)[0], "!7")
  })

  it("sets a room in place when its recency stays", () => {
    const changed = room("!7", 93, { topic: "T" })
    const [, changes] = update(Machine.make(roomsOf(twenty)), changed)
    assert.deepStrictEqual(changes, [{ _tag: "Set", index: 7, entry: changed }])
  })

  it("inserts rooms that come, and removes rooms that go", () => {
    const [view, changes] = update(Machine.make(roomsOf(twenty)), room("!new", 98.5))
    assert.deepStrictEqual(tags(changes), ["Insert"])
    assert.strictEqual(shown(view)[2], "!new")
    assert.deepStrictEqual(remove(view, "!new")[1], [{ _tag: "Remove", index: 2 }])
  })

  it("ignores rooms that are said to be gone and never were there", () => {
    assert.deepStrictEqual(remove(Machine.make(roomsOf(twenty)), "!none")[1], [])
  })

  describe("pages", () => {
    const paged = Machine.make(roomsOf(twenty), { pageSize: 5 })

    it("show the first rooms only, and one page more at a time", () => {
      assert.deepStrictEqual(shown(paged), ids(twenty.slice(0, 5)))
      const [view, changes] = Machine.step(paged, { _tag: "AddOnePage" })
      assert.deepStrictEqual(shown(view), ids(twenty.slice(0, 10)))
      assert.deepStrictEqual(tags(changes), ["Insert", "Insert", "Insert", "Insert", "Insert"])
    })

    it("go back to one", () => {
      const [view] = Machine.step(paged, { _tag: "AddOnePage" })
      const [first, changes] = Machine.step(view, { _tag: "ResetToOnePage" })
      assert.deepStrictEqual(shown(first), ids(twenty.slice(0, 5)))
      assert.deepStrictEqual(ListDiff.applyAll(Machine.entries(view), changes), Machine.entries(first))
    })

    it("say nothing about changes beyond them, and keep their size when a room comes up", () => {
      assert.deepStrictEqual(update(paged, room("!15", 85, { topic: "T" }))[1], [])
      const [view, changes] = update(paged, room("!15", 200))
      assert.deepStrictEqual(shown(view), ["!15", "!0", "!1", "!2", "!3"])
      assert.deepStrictEqual(tags(changes), ["Remove", "Insert"])
    })

    it("I10: never run ahead of the rooms by more than one, however often the end is reached", () => {
      let view = paged
      for (let times = 0; times < 50; times++) view = Machine.step(view, { _tag: "AddOnePage" })[0]
      assert.strictEqual(view.limit, 25)
      assert.lengthOf(shown(view), 20)
    })
  })

  describe("filters", () => {
    const isOdd: RoomFilters.RoomFilter = ({ roomId }) => Number(roomId.slice(1)) % 2 === 1

    it("yield a Reset when they are set, and hold for updates after it", () => {
      const [view, changes] = Machine.step(Machine.make(roomsOf(twenty)), { _tag: "SetFilter", filter: isOdd })
      assert.deepStrictEqual(changes, [{ _tag: "Reset", entries: twenty.filter((_, index) => index % 2 === 1) }])
      assert.deepStrictEqual(update(view, room("!2", 200))[1], [])
      assert.deepStrictEqual(tags(update(view, room("!9", 200))[1]), ["Move", "Set"])
    })

    it("let rooms in and out as they change", () => {
      const view = Machine.make(roomsOf(twenty), { filter: RoomFilters.unread })
      assert.deepStrictEqual(shown(view), [])
      const unread = { ...twenty[3]!.unread, markedUnread: true }
      const [one, came] = update(view, { ...twenty[3]!, unread })
      assert.deepStrictEqual([shown(one), tags(came)], [["!3"], ["Insert"]])
      const [none, went] = update(one, twenty[3]!)
      assert.deepStrictEqual([shown(none), tags(went)], [[], ["Remove"]])
    })

    it("hide an older version of a room once the user joins its successor, and show it when he leaves that", () => {
      const others = twenty.slice(1)
      const old = room("!old", 300, { replacedBy: "!next" })
      const view = Machine.make(roomsOf([...others, old]), { filter: RoomFilters.deduplicateVersions })
      assert.strictEqual(shown(view)[0], "!old")
      const [joined] = update(view, room("!next", 301))
      assert.deepStrictEqual(shown(joined).slice(0, 2), ["!next", "!1"])
      const [left] = update(joined, room("!next", 301, { membership: "leave" }))
      assert.deepStrictEqual(shown(left).slice(0, 2), ["!next", "!old"])
    })

    it("notice a successor that is named only later", () => {
      const view = Machine.make(roomsOf(twenty), { filter: RoomFilters.deduplicateVersions })
      const [replaced] = update(view, { ...twenty[0]!, replacedBy: "!next" })
      assert.strictEqual(shown(replaced)[0], "!0")
      assert.notInclude(shown(update(replaced, room("!next", 1))[0]), "!0")
    })
  })

  it("gives a Reset when everything is replaced", () => {
    const [view, changes] = Machine.step(Machine.make(roomsOf(twenty)), {
      _tag: "Replace",
      rooms: roomsOf([room("!x", 1)])
    })
    assert.deepStrictEqual(tags(changes), ["Reset"])
    assert.deepStrictEqual(shown(view), ["!x"])
  })

  it("compares a few dozen times for one room among 10 000", () => {
    const many = Array.from({ length: 10_000 }, (_, index) => room(`!${index}`, index))
    let comparisons = 0
    const sorter: RoomSorters.RoomSorter = (left, right) => {
      comparisons++
      return RoomSorters.byRecency(left, right)
    }
    const view = Machine.make(roomsOf(many), { pageSize: 20, sorter })
    comparisons = 0
    const [next] = update(view, room("!17", 20_000))
    assert.strictEqual(shown(next)[0], "!17")
    assert.isBelow(comparisons, 60)
  })

  it("after any inputs, shows what sorting everything anew would show, and its diffs lead there", () => {
    const change = fc.record({
      id: fc.nat(30),
      stamp: fc.integer({ min: -3, max: 12 }),
      membership: fc.constantFrom("join" as const, "leave" as const),
      replacedBy: fc.option(fc.nat(30), { nil: undefined })
    })
    const input = fc.oneof(
      {
        weight: 6,
        arbitrary: fc.record({ kind: fc.constant("change" as const), changes: fc.array(change, { maxLength: 4 }) })
      },
      fc.record({ kind: fc.constant("remove" as const), id: fc.nat(30) }),
      fc.record({ kind: fc.constantFrom("AddOnePage" as const, "ResetToOnePage" as const) }),
      fc.record({ kind: fc.constant("filter" as const), filter: fc.constantFrom("joined", "deduplicateVersions") })
    )
    const start = Array.from({ length: 25 }, (_, index) => room(`!${index}`, index % 7))
    fc.assert(
      fc.property(fc.array(input, { maxLength: 25 }), (inputs) => {
        let view = Machine.make(roomsOf(start), { pageSize: 8 })
        let followed = Machine.entries(view)
        const take = ([next, changes]: Machine.Step): void => {
          view = next
          followed = ListDiff.applyAll(followed, changes)
        }
        for (const each of inputs) {
          if (each.kind === "change") {
            const changed = new Map(
              each.changes.map(({ id, membership, replacedBy, stamp }) => [
                id,
                room(`!${id}`, stamp, { membership, ...(replacedBy !== undefined && { replacedBy: `!${replacedBy}` }) })
              ])
            )
            take(update(view, ...changed.values()))
          } else if (each.kind === "remove") take(remove(view, `!${each.id}`))
          else if (each.kind === "filter") {
            const filter = each.filter === "joined" ? RoomFilters.joined : RoomFilters.deduplicateVersions
            take(Machine.step(view, { _tag: "SetFilter", filter }))
          } else take(Machine.step(view, { _tag: each.kind }))
          const anew = Machine.make(view.rooms, { pageSize: view.limit, filter: view.filter })
          assert.deepStrictEqual(ids(Machine.entries(view)), ids(Machine.entries(anew)))
          assert.deepStrictEqual(followed, Machine.entries(view))
        }
      })
    )
  })

  describe("loading state", () => {
    it("is loaded once the homeserver has counted, and changes only with the count", () => {
      assert.strictEqual(Machine.load(Machine.notLoaded, {}), Machine.notLoaded)
      const loaded = Machine.load(Machine.notLoaded, { all: 12, invites: 2 })
      assert.deepStrictEqual(loaded, { _tag: "Loaded", maximumNumberOfRooms: 12 })
      assert.strictEqual(Machine.load(loaded, { all: 12 }), loaded)
      assert.deepStrictEqual(Machine.load(loaded, { all: 11 }), { _tag: "Loaded", maximumNumberOfRooms: 11 })
    })

    it("never goes back to not loaded", () => {
      const loaded = Machine.load(Machine.notLoaded, { all: 0 })
      assert.deepStrictEqual(loaded, { _tag: "Loaded", maximumNumberOfRooms: 0 })
      assert.strictEqual(Machine.load(loaded, {}), loaded)
    })
  })
})

describe("RoomSorters", () => {
  const sorted = (sorter: RoomSorters.RoomSorter, ...rooms: ReadonlyArray<Room>) => ids(rooms.toSorted(sorter))

  it("sort by recency, then name, then id", () => {
    const rooms = [
      room("!d", 1, { displayName: "b" }),
      room("!c", 1, { displayName: "A" }),
      room("!b", 1, { displayName: "á" }),
      room("!a", 2, { displayName: "z" })
    ]
    assert.deepStrictEqual(sorted(RoomSorters.defaultSorter, ...rooms), ["!a", "!b", "!c", "!d"])
  })

  it("sort names by the value of their numbers", () => {
    const rooms = [room("!1", 1, { displayName: "Room 10" }), room("!2", 1, { displayName: "Room 9" })]
    assert.deepStrictEqual(sorted(RoomSorters.byName, ...rooms), ["!2", "!1"])
  })

  it("compose to a total order", () => {
    const none = RoomSorters.lexicographic([])
    assert.strictEqual(none(room("!a", 1), room("!b", 1)), -1)
    assert.strictEqual(none(room("!b", 1), room("!a", 1)), 1)
    assert.strictEqual(none(room("!a", 1), room("!a", 2)), 0)
  })
})

describe("RoomFilters", () => {
  const unknown = () => undefined
  const shows = (filter: RoomFilters.RoomFilter, changes: Partial<Room>) => filter(room("!r", 1, changes), unknown)
  const yes: RoomFilters.RoomFilter = () => true

  it("combine by all, any, none and not", () => {
    assert.isTrue(shows(RoomFilters.all([]), {}))
    assert.isFalse(shows(RoomFilters.any([]), {}))
    assert.isFalse(shows(RoomFilters.all([yes, RoomFilters.none]), {}))
    assert.isTrue(shows(RoomFilters.any([RoomFilters.none, yes]), {}))
    assert.isTrue(shows(RoomFilters.not(RoomFilters.none), {}))
  })

  it("tell memberships apart", () => {
    const all = ["join", "invite", "knock", "leave", "ban"] as const
    const shown = (filter: RoomFilters.RoomFilter) => all.filter((membership) => shows(filter, { membership }))
    assert.deepStrictEqual(shown(RoomFilters.joined), ["join"])
    assert.deepStrictEqual(shown(RoomFilters.invite), ["invite"])
    assert.deepStrictEqual(shown(RoomFilters.nonLeft), ["join", "invite", "knock"])
  })

  it("tell people from groups, spaces from rooms, and tags", () => {
    assert.deepStrictEqual(
      [true, false].map((isDm) => [
        shows(RoomFilters.category("people"), { isDm }),
        shows(RoomFilters.category("group"), { isDm })
      ]),
      [
        [true, false],
        [false, true]
      ]
    )
    assert.isTrue(shows(RoomFilters.space, { roomType: "m.space" }))
    assert.isFalse(shows(RoomFilters.space, {}))
    assert.isTrue(shows(RoomFilters.favourite, { tags: ["m.favourite"] }))
    assert.isFalse(shows(RoomFilters.favourite, { tags: ["m.lowpriority"] }))
    assert.isTrue(shows(RoomFilters.lowPriority, { tags: ["m.lowpriority"] }))
    assert.isFalse(shows(RoomFilters.lowPriority, {}))
  })

  it("tell unread rooms by any of the three signs", () => {
    const { unread } = room("!r", 1)
    assert.isFalse(shows(RoomFilters.unread, { unread }))
    for (const sign of [{ markedUnread: true }, { notificationCount: 1 }, { liveSinceRead: 1 }]) {
      assert.isTrue(shows(RoomFilters.unread, { unread: { ...unread, ...sign } }))
    }
  })

  it("find names without regard to case and accents, whole or fuzzily", () => {
    const displayName = "Ünïcödé Café"
    assert.isTrue(shows(RoomFilters.nameContains("CODE cafe"), { displayName }))
    assert.isFalse(shows(RoomFilters.nameContains("codecafe"), { displayName }))
    assert.isTrue(shows(RoomFilters.nameFuzzy("ucd CFÉ"), { displayName }))
    assert.isFalse(shows(RoomFilters.nameFuzzy("cafeu"), { displayName }))
  })

  it("find a character that a fuzzy text holds twice only where the name does", () => {
    assert.isFalse(shows(RoomFilters.nameFuzzy("aa"), { displayName: "Alice" }))
    assert.isTrue(shows(RoomFilters.nameFuzzy("aa"), { displayName: "Alice A" }))
  })
})
