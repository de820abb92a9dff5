import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Queue, Scope, Stream } from "effect"
import { emptyRoomUpdate } from "../src/matrix/SlidingSync.ts"
import * as ListDiff from "../src/rooms/ListDiff.ts"
import type { Room } from "../src/rooms/Room.ts"
import * as RoomFilters from "../src/rooms/RoomFilters.ts"
import { layer, RoomList } from "../src/rooms/RoomList.ts"
import * as RoomState from "../src/rooms/RoomState.ts"
import * as SyncConfig from "../src/sync/SyncConfig.ts"

type Changes = ReadonlyArray<ListDiff.Diff<Room>>

const room = (roomId: string, bumpStamp: number, changes: Partial<Room> = {}): Room => ({
  ...RoomState.apply(undefined, { ...emptyRoomUpdate(roomId), bumpStamp }, { ownUserId: "@me:hs" }),
  ...changes
})

/** `!0` to `!n-1`, the most recent first. */
const many = (count: number): ReadonlyArray<Room> =>
  Array.from({ length: count }, (_, index) => room(`!${index}`, 1000 - index))

const tags = (changes: Changes): ReadonlyArray<string> => changes.map(({ _tag }) => _tag)

const ids = (changes: Changes): ReadonlyArray<string> => ListDiff.applyAll([], changes).map(({ roomId }) => roomId)

/** What a stream yields, to be taken one by one, until the scope closes. */
const follow = Effect.fnUntraced(function* <A>(stream: Stream.Stream<A>) {
  const queue = yield* Queue.unbounded<A>()
  yield* Effect.forkScoped(Stream.runForEach(stream, (value) => Queue.offer(queue, value)))
  return queue
})

/** Nothing is waiting once every fiber that could run has run. */
const assertNothing = Effect.fnUntraced(function* (queue: Queue.Dequeue<unknown>) {
  for (let turn = 0; turn < 20; turn++) yield* Effect.yieldNow
  assert.strictEqual(yield* Queue.size(queue), 0)
})

describe("RoomList", () => {
  describe("entries", () => {
    it.effect("begin with a Reset, then follow what is published", () =>
      Effect.gen(function* () {
        const list = yield* RoomList
        yield* list.publish({ changed: many(10) })
        const changes = yield* follow((yield* list.entries()).stream)
        assert.deepStrictEqual(yield* Queue.take(changes), [{ _tag: "Reset", entries: many(10) }])

        const moved = room("!7", 2000)
        yield* list.publish({ changed: [moved] })
        assert.deepStrictEqual(yield* Queue.take(changes), [
          { _tag: "Move", from: 7, to: 0 },
          { _tag: "Set", index: 0, entry: moved }
        ])

        yield* list.publish({ changed: [], removed: ["!3"] })
        assert.deepStrictEqual(yield* Queue.take(changes), [{ _tag: "Remove", index: 4 }])
      }).pipe(Effect.provide(layer))
    )

    it.effect("hold every room, whether it was published before the view, before the stream or after", () =>
      Effect.gen(function* () {
        const list = yield* RoomList
        yield* list.publish({ changed: [room("!a", 3)] })
        const entries = yield* list.entries()
        yield* list.publish({ changed: [room("!b", 2)] })
        const changes = yield* follow(entries.stream)
        assert.deepStrictEqual(ids(yield* Queue.take(changes)), ["!a", "!b"])
        yield* list.publish({ changed: [room("!c", 1)] })
        assert.deepStrictEqual(tags(yield* Queue.take(changes)), ["Insert"])
        yield* assertNothing(changes)
      }).pipe(Effect.provide(layer))
    )

    it.effect("say nothing when nothing that they show changes", () =>
      Effect.gen(function* () {
        const list = yield* RoomList
        yield* list.publish({ changed: many(10) })
        const changes = yield* follow((yield* list.entries({ pageSize: 3 })).stream)
        yield* Queue.take(changes)
        yield* list.publish({ changed: [room("!8", 992, { topic: "T" })], lists: { all: 10 } })
        yield* list.publish({ changed: [] })
        yield* assertNothing(changes)
      }).pipe(Effect.provide(layer))
    )

    it.effect("reset on each new filter, and page", () =>
      Effect.gen(function* () {
        const list = yield* RoomList
        yield* list.publish({ changed: many(30).map((room, index) => ({ ...room, isDm: index % 2 === 0 })) })
        const entries = yield* list.entries({ pageSize: 4, filter: RoomFilters.category("people") })
        const changes = yield* follow(entries.stream)
        assert.deepStrictEqual(ids(yield* Queue.take(changes)), ["!0", "!2", "!4", "!6"])

        yield* entries.setFilter(RoomFilters.category("group"))
        const groups = yield* Queue.take(changes)
        assert.deepStrictEqual(tags(groups), ["Reset"])
        assert.deepStrictEqual(ids(groups), ["!1", "!3", "!5", "!7"])

        yield* entries.addOnePage
        assert.deepStrictEqual(tags(yield* Queue.take(changes)), ["Insert", "Insert", "Insert", "Insert"])

        yield* entries.resetToOnePage
        assert.deepStrictEqual(tags(yield* Queue.take(changes)), ["Remove", "Remove", "Remove", "Remove"])
      }).pipe(Effect.provide(layer))
    )

    it.effect("are independent of each other", () =>
      Effect.gen(function* () {
        const list = yield* RoomList
        yield* list.publish({ changed: many(6) })
        const small = yield* follow((yield* list.entries({ pageSize: 2 })).stream)
        const large = yield* follow((yield* list.entries()).stream)
        assert.lengthOf(ids(yield* Queue.take(small)), 2)
        assert.lengthOf(ids(yield* Queue.take(large)), 6)
        yield* list.publish({ changed: [room("!5", 995, { topic: "T" })] })
        assert.deepStrictEqual(tags(yield* Queue.take(large)), ["Set"])
        yield* assertNothing(small)
      }).pipe(Effect.provide(layer))
    )

    it.effect("I10: give a subscriber that lags too far behind the whole list again", () =>
      Effect.gen(function* () {
        const list = yield* RoomList
        yield* list.publish({ changed: many(50) })
        const entries = yield* list.entries()
        const first = yield* Stream.runHead(entries.stream)
        assert.isTrue(first._tag === "Some" && tags(first.value).join() === "Reset")

        // Three changes are within the backlog of eight, and come as they are.
        const lagging = yield* list.entries()
        for (let times = 0; times < 3; times++)
          yield* list.publish({ changed: [room("!9", 991, { topic: `${times}` })] })
        const near = yield* follow(lagging.stream)
        assert.deepStrictEqual(tags(yield* Queue.take(near)), ["Reset", "Set", "Set", "Set"])

        // A thousand are not.
        const far = yield* list.entries()
        for (let times = 0; times < 1000; times++)
          yield* list.publish({ changed: [room("!9", 991, { topic: `${times}` })] })
        const behind = yield* Queue.take(yield* follow(far.stream))
        assert.isAtMost(behind.length, 8)
        assert.deepStrictEqual(ListDiff.applyAll([], behind), yield* Effect.map(list.rooms, byPlace))
      }).pipe(Effect.provide(layer.pipe(Layer.provide(SyncConfig.layer({ diffBacklog: 8 })))))
    )

    it.effect("I10: don't pile up filters that nobody looked at", () =>
      Effect.gen(function* () {
        const list = yield* RoomList
        yield* list.publish({ changed: many(5) })
        const entries = yield* list.entries()
        yield* entries.setFilter(RoomFilters.none)
        yield* entries.setFilter(RoomFilters.joined)
        assert.deepStrictEqual(tags(yield* Queue.take(yield* follow(entries.stream))), ["Reset"])
      }).pipe(Effect.provide(layer))
    )

    it.effect("I4: end with their scope", () =>
      Effect.gen(function* () {
        const list = yield* RoomList
        const scope = yield* Scope.make()
        const { stream } = yield* Scope.provide(list.entries(), scope)
        const fiber = yield* Effect.forkChild(Stream.runCollect(stream))
        yield* Effect.yieldNow
        yield* Scope.close(scope, Exit.void)
        assert.deepStrictEqual((yield* Fiber.join(fiber)).map(tags), [["Reset"]])
      }).pipe(Effect.provide(layer))
    )

    it.effect("reset when the whole list is replaced", () =>
      Effect.gen(function* () {
        const list = yield* RoomList
        yield* list.publish({ changed: many(5) })
        const changes = yield* follow((yield* list.entries()).stream)
        yield* Queue.take(changes)
        yield* list.reset({ rooms: [room("!x", 1)] })
        const replaced = yield* Queue.take(changes)
        assert.deepStrictEqual([tags(replaced), ids(replaced)], [["Reset"], ["!x"]])
        assert.isUndefined(yield* list.get("!0"))
      }).pipe(Effect.provide(layer))
    )
  })

  describe("rooms", () => {
    it.effect("are found by id, or not", () =>
      Effect.gen(function* () {
        const list = yield* RoomList
        const [first, second] = many(2)
        yield* list.publish({ changed: [first!, second!] })
        assert.strictEqual(yield* list.get("!1"), second)
        assert.isUndefined(yield* list.get("!none"))
        assert.sameMembers([...(yield* list.rooms)], [first, second])
        const all = yield* list.all
        yield* list.publish({ changed: [], removed: ["!1"] })
        assert.strictEqual(all.get("!1"), second, "a snapshot stays as it was")
        assert.sameMembers([...all.keys()], ["!0", "!1"])
      }).pipe(Effect.provide(layer))
    )

    it.effect("can be followed, from before they are known until after they are gone", () =>
      Effect.gen(function* () {
        const list = yield* RoomList
        const values = yield* follow(list.changes("!a"))
        assert.isUndefined(yield* Queue.take(values))
        yield* list.publish({ changed: [room("!a", 1)] })
        assert.deepInclude(yield* Queue.take(values), { bumpStamp: 1 })
        yield* list.publish({ changed: [room("!b", 5)] })
        yield* list.publish({ changed: [room("!a", 2)] })
        assert.deepInclude(yield* Queue.take(values), { bumpStamp: 2 })
        yield* list.publish({ changed: [], removed: ["!a"] })
        assert.isUndefined(yield* Queue.take(values))
        yield* assertNothing(values)
      }).pipe(Effect.provide(layer))
    )

    it.effect("that are followed slowly are told as they are at last", () =>
      Effect.gen(function* () {
        const list = yield* RoomList
        yield* list.publish({ changed: [room("!a", 0)] })
        const started = yield* Queue.unbounded<void>()
        const release = yield* Queue.unbounded<void>()
        const seen: Array<number | undefined> = []
        yield* Effect.forkChild(
          Stream.runForEach(list.changes("!a"), (value) =>
            Effect.gen(function* () {
              seen.push(value?.bumpStamp)
              yield* Queue.offer(started, undefined)
              yield* Queue.take(release)
            })
          )
        )
        yield* Queue.take(started)
        for (let stamp = 1; stamp <= 100; stamp++) yield* list.publish({ changed: [room("!a", stamp)] })
        yield* Queue.offer(release, undefined)
        yield* Queue.take(started)
        assert.deepStrictEqual(seen, [0, 100])
      }).pipe(Effect.provide(layer))
    )
  })

  describe("loading state", () => {
    it.effect("is not loaded, then loaded with the count, and is told only when it changes", () =>
      Effect.gen(function* () {
        const list = yield* RoomList
        const states = yield* follow(list.loadingState)
        assert.deepStrictEqual(yield* Queue.take(states), { _tag: "NotLoaded" })
        yield* list.publish({ changed: [room("!a", 1)], lists: { all: 10 } })
        assert.deepStrictEqual(yield* Queue.take(states), { _tag: "Loaded", maximumNumberOfRooms: 10 })
        yield* list.publish({ changed: [room("!b", 1)], lists: { all: 10 } })
        yield* assertNothing(states)
        yield* list.publish({ changed: [], lists: { all: 12 } })
        assert.deepStrictEqual(yield* Queue.take(states), { _tag: "Loaded", maximumNumberOfRooms: 12 })
      }).pipe(Effect.provide(layer))
    )

    it.effect("is loaded at once by what was stored, and stays so when the list is replaced", () =>
      Effect.gen(function* () {
        const list = yield* RoomList
        yield* list.reset({ rooms: many(3), lists: { all: 3 } })
        const loaded = { _tag: "Loaded", maximumNumberOfRooms: 3 } as const
        assert.deepStrictEqual(yield* Stream.runHead(list.loadingState), yield* Effect.succeedSome(loaded))
        yield* list.reset({ rooms: [], lists: {} })
        assert.deepStrictEqual(yield* list.loading, loaded)
      }).pipe(Effect.provide(layer))
    )
  })
})

/** As a list shows them that is sorted by recency. */
const byPlace = (rooms: ReadonlyArray<Room>): ReadonlyArray<Room> =>
  rooms.toSorted((left, right) => right.bumpStamp - left.bumpStamp)
