/**
 * What every `SyncStore` adapter must do; run over memory and over SQLite.
 *
 * The layer brings a `LeaseStore` as well: a fenced commit is checked against the very leases that it serves.
 *
 * Not here: faults of a medium (a full disk, a damaged file), which each adapter has its own way to meet.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit } from "effect"
import type { Layer } from "effect"
import { TestClock } from "effect/testing"
import type { Fence } from "../lease/Lease.ts"
import { LeaseStore } from "../lease/LeaseStore.ts"
import type { StateEvent, TimelineEvent } from "../matrix/MatrixEvent.ts"
import type { Room } from "../rooms/Room.ts"
import type { StoreError, StoreErrorReason } from "../sync/StoreError.ts"
import * as SyncConfig from "../sync/SyncConfig.ts"
import { SyncStore } from "../sync/SyncStore.ts"
import type { ExtensionCommit, InboxEvent, MainCommit, RoomCommit, TimelineEntry } from "../sync/SyncStore.ts"
import { gapSpan } from "../sync/TimelineOrder.ts"

type Stores = SyncStore | LeaseStore

/** Registers one test in stores of its own. */
type Test = (title: string, body: Effect.Effect<void, StoreError, Stores>) => void

const name = "stream"
const connId = "main"
const roomId = "!a:example.org"

/** Takes the lease, from whoever has it: each call is a hundred seconds after the one before. */
const own = (holder: string, round = 0): Effect.Effect<Fence, StoreError, LeaseStore> =>
  Effect.gen(function* () {
    const leases = yield* LeaseStore
    const nowMillis = round * 100_000
    const outcome = yield* leases.take({
      name,
      permits: 1,
      count: 1,
      holder,
      peer: {},
      nowMillis,
      leaseMillis: 10_000
    })
    return outcome._tag === "Granted"
      ? { name, holder, generation: outcome.generation }
      : assert.fail(`${outcome.blocker.holder} has the lease`)
  })

const inboxEvent = (body: unknown): InboxEvent => ({
  type: "org.example.numbered",
  sender: "@s:example.org",
  event: { type: "org.example.numbered", content: { body } },
  encryption: "none"
})

const batch = (since: string, more: Partial<ExtensionCommit> = {}): ExtensionCommit => ({
  position: { since, pos: `pos-${since}` },
  inbox: [],
  crypto: [],
  quarantined: [],
  ...more
})

const room = (id: string, more: Partial<Room> = {}): Room => ({
  roomId: id,
  membership: "join",
  displayName: `Room ${id}`,
  heroes: [],
  joinedCount: 2,
  invitedCount: 0,
  isDm: false,
  isEncrypted: false,
  bumpStamp: 1,
  unread: { notificationCount: 0, highlightCount: 0, markedUnread: false, liveSinceRead: 0 },
  typing: [],
  ...more
})

const event = (id: string, content: TimelineEvent["content"] = {}): TimelineEvent => ({
  event_id: id,
  type: "m.room.message",
  sender: "@s:example.org",
  content
})

const stateEvent = (type: string, state_key: string, content: StateEvent["content"] = {}): StateEvent => ({
  type,
  state_key,
  sender: "@s:example.org",
  content
})

const roomCommit = (more: Partial<RoomCommit> = {}): RoomCommit => ({
  room: room(roomId),
  replace: false,
  state: [],
  timeline: [],
  accountData: [],
  ...more
})

const page = (pos: string, more: Partial<MainCommit> = {}): MainCommit => ({
  connId,
  pos,
  lists: {},
  rooms: [],
  accountData: [],
  quarantined: [],
  ...more
})

/** Events with these ids, as a page on top of what came before. */
const messages = (
  sentPos: string | undefined,
  pos: string,
  ids: ReadonlyArray<string>,
  more: Partial<RoomCommit> = {}
) =>
  page(pos, {
    ...(sentPos === undefined ? {} : { sentPos }),
    rooms: [roomCommit({ timeline: ids.map((id) => event(id)), ...more })]
  })

const idsOf = (entries: ReadonlyArray<TimelineEntry>): ReadonlyArray<string> =>
  entries.map((entry) => (entry._tag === "Event" ? entry.event.event_id : `gap ${entry.prevBatch ?? "?"}`))

const timelineIds = Effect.gen(function* () {
  const store = yield* SyncStore
  return idsOf(yield* store.timeline({ connId, roomId, limit: 100 }))
})

/** Why something was refused. */
const reasonOf = <A>(self: Effect.Effect<A, StoreError, Stores>): Effect.Effect<StoreErrorReason, never, Stores> =>
  Effect.match(self, { onFailure: (error) => error.reason, onSuccess: () => assert.fail("it was not refused") })

/** Everything that a commit of the extension stream could have changed. */
const extensionState = Effect.gen(function* () {
  const store = yield* SyncStore
  return {
    position: yield* store.extensionPosition,
    inbox: yield* store.readInbox({ after: 0, limit: 1_000 }),
    quarantined: yield* store.quarantineCount
  }
})

const mainState = Effect.gen(function* () {
  const store = yield* SyncStore
  return {
    main: yield* store.loadMain(connId),
    timeline: yield* store.timeline({ connId, roomId, limit: 1_000 }),
    state: yield* store.state({ connId, roomId, type: "m.room.name" }),
    accountData: yield* store.accountData({ connId, type: "m.direct" }),
    quarantined: yield* store.quarantineCount
  }
})

const thing = (index: number) => ({ source: "toDevice", reason: `reason ${index}`, raw: { index } }) as const

const extension = (test: Test): void => {
  test(
    "starts with nothing",
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* extensionState, { position: {}, inbox: [], quarantined: 0 })
    })
  )

  test(
    "I2: makes position, inbox and quarantine of a batch durable together, in order",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const fence = yield* own("a")
      const first = yield* store.commitExtension(fence, batch("s1", { inbox: [1, 2, 3].map(inboxEvent) }))
      assert.deepStrictEqual(
        first,
        [1, 2, 3].map((body) => ({ ...inboxEvent(body), sequence: body, generation: 1 }))
      )
      const second = batch("s2", { sentSince: "s1", inbox: [inboxEvent(4)], quarantined: [thing(1)] })
      const rows = yield* store.commitExtension(fence, second)
      assert.deepStrictEqual(yield* extensionState, {
        position: { since: "s2", pos: "pos-s2" },
        inbox: [...first, ...rows],
        quarantined: 1
      })
    })
  )

  test(
    "keeps what events hold, also what is odd",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const odd = { text: "\u0000 \ud800 é 🎈 '\"\\", deep: [[{ n: -0.5, none: null, yes: true }]], "": "" }
      yield* store.commitExtension(yield* own("a"), batch("s1", { inbox: [inboxEvent(odd)] }))
      const [row] = yield* store.readInbox({ after: 0, limit: 1 })
      assert.deepStrictEqual(row?.event, inboxEvent(odd).event)
    })
  )

  test(
    "takes what is absent in the position as absent",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const fence = yield* own("a")
      yield* store.commitExtension(fence, batch("s1"))
      yield* store.commitExtension(fence, batch("s1", { sentSince: "s1", position: { since: "s1" } }))
      assert.deepStrictEqual(yield* store.extensionPosition, { since: "s1" })
    })
  )

  test(
    "drops the connection's position and never the acknowledged token",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const fence = yield* own("a")
      yield* store.expireExtension(fence)
      yield* store.commitExtension(fence, batch("s1"))
      yield* store.expireExtension(fence)
      assert.deepStrictEqual(yield* store.extensionPosition, { since: "s1" })
    })
  )
}

const refusals = (test: Test): void => {
  test(
    "I1: refuses a stale generation, and writes nothing",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const stale = yield* own("a")
      yield* store.commitExtension(stale, batch("s1", { inbox: [inboxEvent(1)] }))
      const owner = yield* own("b", 1)
      const before = yield* extensionState
      const late = batch("s2", { sentSince: "s1", inbox: [inboxEvent(2)], quarantined: [thing(1)] })

      const reason = yield* reasonOf(store.commitExtension(stale, late))
      assert.strictEqual(reason._tag, "StaleGeneration")
      assert.deepInclude(reason, { name, generation: 1, currentGeneration: 2 })
      assert.strictEqual((yield* reasonOf(store.expireExtension(stale)))._tag, "StaleGeneration")
      assert.deepStrictEqual(yield* extensionState, before)

      // The owner goes on from the same place.
      yield* store.commitExtension(owner, late)
      const { inbox } = yield* extensionState
      assert.deepStrictEqual(
        inbox.map((entry) => entry.generation),
        [1, 2]
      )
    })
  )

  test(
    "I1: refuses a fence of another holder, another name or no lease at all",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const fence = yield* own("a")
      for (const wrong of [
        { ...fence, holder: "b" },
        { ...fence, name: "other" },
        { ...fence, generation: 0 },
        { ...fence, generation: 2 }
      ]) {
        assert.strictEqual((yield* reasonOf(store.commitExtension(wrong, batch("s1"))))._tag, "StaleGeneration")
      }
      assert.deepStrictEqual(yield* store.extensionPosition, {})
    })
  )

  test(
    "I1: accepts the owner whose lease has expired while nobody else took it",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const fence = yield* own("a")
      yield* TestClock.adjust("1 hour")
      yield* store.commitExtension(fence, batch("s1"))
      assert.strictEqual((yield* store.extensionPosition).since, "s1")
    })
  )

  test(
    "I2: refuses a response to a request that was sent with another token, and writes nothing",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const fence = yield* own("a")
      const early = yield* reasonOf(store.commitExtension(fence, batch("s2", { sentSince: "s1" })))
      assert.strictEqual(early._tag, "Moved")
      assert.deepInclude(early, { token: "since", sent: "s1" })

      yield* store.commitExtension(fence, batch("s1", { inbox: [inboxEvent(1)] }))
      const before = yield* extensionState
      const without = yield* reasonOf(store.commitExtension(fence, batch("s2", { inbox: [inboxEvent(2)] })))
      assert.deepInclude(without, { token: "since", stored: "s1" })
      assert.deepStrictEqual(yield* extensionState, before)
    })
  )

  test(
    "I2: applies a response that is committed twice once",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const fence = yield* own("a")
      yield* store.commitExtension(fence, batch("s1"))
      const response = batch("s2", { sentSince: "s1", inbox: [inboxEvent(1)] })
      yield* store.commitExtension(fence, response)
      assert.strictEqual((yield* reasonOf(store.commitExtension(fence, response)))._tag, "Moved")
      // Nor does it help to own anew.
      const next = yield* own("b", 1)
      assert.strictEqual((yield* reasonOf(store.commitExtension(next, response)))._tag, "Moved")
      assert.strictEqual((yield* extensionState).inbox.length, 1)
    })
  )

  test(
    "I2: applies one of several responses to the same token that are committed at once",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const fence = yield* own("a")
      const exits = yield* Effect.forEach(
        ["s1", "s2", "s3"],
        (since) => Effect.exit(store.commitExtension(fence, batch(since, { inbox: [inboxEvent(since)] }))),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(exits.filter(Exit.isSuccess).length, 1)
      assert.strictEqual((yield* extensionState).inbox.length, 1)
    })
  )

  test(
    "I2: leaves nothing of a transaction that fails midway",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const fence = yield* own("a")
      yield* store.commitExtension(fence, batch("s1", { inbox: [inboxEvent(1)] }))
      yield* store.commitMain(messages(undefined, "p1", ["$1"]))
      const before = { extension: yield* extensionState, main: yield* mainState }

      // What JSON can't say fails when its turn comes, after the rows before it were written.
      const inbox = [inboxEvent(2), inboxEvent(3n)]
      assert.isTrue(
        Exit.isFailure(yield* Effect.exit(store.commitExtension(fence, batch("s2", { sentSince: "s1", inbox }))))
      )
      const timeline = [event("$2"), event("$3", { body: 3n })]
      const broken = page("p2", {
        sentPos: "p1",
        rooms: [roomCommit({ state: [stateEvent("m.room.name", "", { name: "new" })], timeline })],
        quarantined: [thing(1)]
      })
      assert.isTrue(Exit.isFailure(yield* Effect.exit(store.commitMain(broken))))
      assert.deepStrictEqual({ extension: yield* extensionState, main: yield* mainState }, before)

      // And the store is none the worse for it.
      const [row] = yield* store.commitExtension(fence, batch("s2", { sentSince: "s1", inbox: [inboxEvent(2)] }))
      assert.strictEqual(row?.sequence, 2)
    })
  )
}

const inbox = (test: Test): void => {
  const fill = (count: number) =>
    Effect.gen(function* () {
      const store = yield* SyncStore
      const bodies = Array.from({ length: count }, (_, index) => index + 1)
      yield* store.commitExtension(yield* own("a"), batch("s1", { inbox: bodies.map(inboxEvent) }))
      return store
    })
  const sequences = Effect.map(extensionState, (state) => state.inbox.map((entry) => entry.sequence))

  test(
    "reads the inbox piece by piece",
    Effect.gen(function* () {
      const store = yield* fill(5)
      const rows = yield* store.readInbox({ after: 1, limit: 3 })
      assert.deepStrictEqual(
        rows.map((row) => row.sequence),
        [2, 3, 4]
      )
      assert.deepStrictEqual(yield* store.readInbox({ after: 5, limit: 3 }), [])
    })
  )

  test(
    "moves a consumer's cursor forward only, and never beyond the last row",
    Effect.gen(function* () {
      const store = yield* fill(5)
      assert.strictEqual(yield* store.inboxCursor("app"), 0)
      for (const [sequence, stands] of [
        [3, 3],
        [2, 3],
        [99, 5]
      ] as const) {
        yield* store.advanceInbox({ consumer: "app", sequence, keep: 10 })
        assert.strictEqual(yield* store.inboxCursor("app"), stands)
      }
    })
  )

  test(
    "deletes what every consumer has passed, except the newest rows",
    Effect.gen(function* () {
      const store = yield* fill(6)
      yield* store.advanceInbox({ consumer: "slow", sequence: 2, keep: 0 })
      yield* store.advanceInbox({ consumer: "fast", sequence: 6, keep: 0 })
      assert.deepStrictEqual(yield* sequences, [3, 4, 5, 6])
      yield* store.advanceInbox({ consumer: "slow", sequence: 6, keep: 2 })
      assert.deepStrictEqual(yield* sequences, [5, 6])
    })
  )

  test(
    "I2: never gives a sequence number twice, also after all rows were deleted",
    Effect.gen(function* () {
      const store = yield* fill(3)
      yield* store.advanceInbox({ consumer: "app", sequence: 3, keep: 0 })
      assert.deepStrictEqual(yield* sequences, [])
      const fence = yield* own("b", 1)
      const [row] = yield* store.commitExtension(fence, batch("s2", { sentSince: "s1", inbox: [inboxEvent(4)] }))
      assert.strictEqual(row?.sequence, 4)
    })
  )
}

const quarantine = (test: Test): void => {
  test(
    "I7: keeps what can't be understood with its JSON, newest first, and counts it",
    Effect.gen(function* () {
      const store = yield* SyncStore
      yield* TestClock.setTime(5_000)
      const odd = { source: "timeline", roomId, reason: "it is not a JSON object", raw: [null, "x"] } as const
      yield* store.commitMain(page("p1", { quarantined: [odd] }))
      yield* store.commitExtension(yield* own("a"), batch("s1", { quarantined: [thing(1), thing(2)] }))
      assert.deepStrictEqual(yield* store.quarantine(10), [
        { ...thing(2), id: 3, atMillis: 5_000 },
        { ...thing(1), id: 2, atMillis: 5_000 },
        { ...odd, id: 1, atMillis: 5_000 }
      ])
      assert.strictEqual((yield* store.quarantine(1)).length, 1)
      assert.strictEqual(yield* store.quarantineCount, 3)
    })
  )

  test(
    "I10: keeps the newest of them up to the limit, and counts all",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const fence = yield* own("a")
      const things = [1, 2, 3, 4, 5].map(thing)
      yield* store
        .commitExtension(fence, batch("s1", { quarantined: things }))
        .pipe(Effect.provide(SyncConfig.layer({ quarantineKept: 2 })))
      const kept = yield* store.quarantine(10)
      assert.deepStrictEqual(
        kept.map((entry) => entry.raw),
        [{ index: 5 }, { index: 4 }]
      )
      assert.strictEqual(yield* store.quarantineCount, 5)
    })
  )
}

const rooms = (test: Test): void => {
  test(
    "knows nothing of a new connection",
    Effect.gen(function* () {
      const store = yield* SyncStore
      assert.deepStrictEqual(yield* store.loadMain(connId), { lists: {}, rooms: [] })
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
      const renamed = room(roomId, { name: "B" })
      yield* store.commitMain(page("p2", { sentPos: "p1", rooms: [roomCommit({ room: renamed })] }))
      assert.deepStrictEqual(yield* store.loadMain(connId), { pos: "p2", lists: {}, rooms: [renamed] })
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
      const first = roomCommit({ state, timeline: [event("$1")] })
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

/**
 * Registers the contract's tests for an adapter, under its name. Every test builds the layer afresh, and the stores that it
 * gives must be empty.
 *
 * @example
 * ```ts
 * syncStoreContract("SyncStoreMemory", SyncStoreMemory.layer.pipe(Layer.provideMerge(LeaseStoreMemory.layerMemory)))
 * ```
 */
export const syncStoreContract = (adapter: string, layer: Layer.Layer<Stores, StoreError>): void => {
  const test: Test = (title, body) => it.effect(title, () => Effect.provide(body, layer))
  describe(`${adapter} keeps the contract of SyncStore`, () => {
    extension(test)
    refusals(test)
    inbox(test)
    quarantine(test)
    rooms(test)
    timelines(test)
  })
}
