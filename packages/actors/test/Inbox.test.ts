import { assert, describe, it } from "@effect/vitest"
import { StoreError, SyncConfig, type SyncStore } from "@twinloop/core"
import { Clock, Deferred, Effect, Fiber } from "effect"
import { makeWorld, startProcess } from "../src/testing/Simulation.ts"
import { advance, settle } from "../src/testing/Time.ts"
import type { World } from "../src/testing/Simulation.ts"

const fence = { name: "extension", holder: "writer", generation: 1 }

/** Commits numbered rows as an owner of the stream would. */
const makeWriter = Effect.fnUntraced(function* (world: World) {
  yield* world.leases.take({ ...fence, permits: 1, count: 1, peer: {}, nowMillis: 0, leaseMillis: 1_000_000_000 })
  let last = 0
  return Effect.fnUntraced(function* (count: number) {
    const inbox = Array.from({ length: count }, (_, index) => ({
      type: "numbered",
      sender: "@a:b",
      event: { number: last + index + 1 },
      encryption: "none" as const
    }))
    const sent = last === 0 ? {} : { sentSince: `${last}` }
    last += count
    return yield* world.store.commitExtension(fence, {
      ...sent,
      position: { since: `${last}` },
      inbox,
      crypto: [],
      quarantined: []
    })
  })
})

/** A handler that writes down what it is given. */
const recorder = () => {
  const seen: Array<number> = []
  return { seen, handle: (entry: SyncStore.InboxEntry) => Effect.sync(() => void seen.push(entry.sequence)) }
}

const upTo = (count: number) => Array.from({ length: count }, (_, index) => index + 1)

const setUp = Effect.gen(function* () {
  const world = yield* makeWorld()
  return { world, write: yield* makeWriter(world), process: yield* startProcess(world, "a") }
})

describe("Inbox", () => {
  it.effect("I9: waits out a store that is busy or full, and ends with any other fault", () =>
    Effect.gen(function* () {
      const { process, world, write } = yield* setUp
      const { handle, seen } = recorder()
      const message = "scripted"
      yield* write(2)
      yield* world.faults.failNext("readInbox", new StoreError.StoreBusy({ message }))
      yield* world.faults.failNext("advanceInbox", new StoreError.StoreFull({ message }))
      const consuming = yield* Effect.forkChild(Effect.flip(process.inbox.consume("app", handle)))
      yield* advance("5 seconds")
      assert.deepStrictEqual(seen, upTo(2))
      yield* world.faults.failNext("readInbox", new StoreError.StoreCorrupt({ message }))
      yield* advance("5 seconds")
      assert.strictEqual((yield* Fiber.join(consuming)).reason._tag, "StoreCorrupt")
    })
  )

  it.effect("gives a consumer everything in order, what was there and what comes, without time passing", () =>
    Effect.gen(function* () {
      const { process, write } = yield* setUp
      const { handle, seen } = recorder()
      yield* write(250)
      yield* Effect.forkChild(process.inbox.consume("app", handle))
      yield* settle
      assert.deepStrictEqual(seen, upTo(250), "more than two pages")
      yield* write(1)
      yield* process.inbox.committed([])
      yield* settle
      assert.deepStrictEqual(seen, upTo(251))
    })
  )

  it.effect("goes on after the cursor when a consumer comes back", () =>
    Effect.gen(function* () {
      const { process, world, write } = yield* setUp
      const { handle, seen } = recorder()
      yield* write(3)
      const first = yield* Effect.forkChild(process.inbox.consume("app", handle))
      yield* settle
      yield* Fiber.interrupt(first)
      yield* write(2)
      yield* Effect.forkChild(process.inbox.consume("app", handle))
      yield* settle
      assert.deepStrictEqual(seen, upTo(5), "each once")
      assert.strictEqual(yield* world.store.inboxCursor("app"), 5)
    })
  )

  it.effect("gives two consumers every entry, each at its own pace", () =>
    Effect.gen(function* () {
      const { process, write } = yield* setUp
      const quick = recorder()
      const slow = recorder()
      yield* Effect.forkChild(process.inbox.consume("quick", quick.handle))
      yield* Effect.forkChild(
        process.inbox.consume("slow", (entry) => Effect.andThen(Effect.sleep(10_000), slow.handle(entry)))
      )
      yield* settle
      yield* write(3)
      yield* process.inbox.committed([])
      yield* settle
      assert.deepStrictEqual([quick.seen, slow.seen], [upTo(3), []])
      yield* advance("30 seconds")
      assert.deepStrictEqual([quick.seen, slow.seen], [upTo(3), upTo(3)])
    })
  )

  it.effect("ends with the handler's error and gives the entry again next time", () =>
    Effect.gen(function* () {
      const { process, write, world } = yield* setUp
      const { handle, seen } = recorder()
      yield* write(3)
      const failing = (entry: SyncStore.InboxEntry) =>
        entry.sequence === 2 ? Effect.fail("no" as const) : handle(entry)
      assert.strictEqual(yield* Effect.flip(process.inbox.consume("app", failing)), "no")
      assert.deepStrictEqual(seen, [1])
      assert.strictEqual(yield* world.store.inboxCursor("app"), 1)
      yield* Effect.forkChild(process.inbox.consume("app", handle))
      yield* settle
      assert.deepStrictEqual(seen, upTo(3))
    })
  )

  it.effect("I2: an entry whose handler is interrupted is not passed over", () =>
    Effect.gen(function* () {
      const { process, write } = yield* setUp
      const { handle, seen } = recorder()
      yield* write(1)
      const stuck = yield* Effect.forkChild(process.inbox.consume("app", () => Effect.never))
      yield* settle
      yield* Fiber.interrupt(stuck)
      yield* Effect.forkChild(process.inbox.consume("app", handle))
      yield* settle
      assert.deepStrictEqual(seen, [1])
    })
  )

  it.effect(
    "I4: leaves the store alone while the loops don't run, and finds what came meanwhile when they run again",
    () =>
      Effect.gen(function* () {
        const { process, write } = yield* setUp
        const { handle, seen } = recorder()
        yield* Effect.forkChild(process.inbox.consume("app", handle))
        yield* settle
        yield* process.inbox.setActive(false)
        yield* write(3)
        yield* advance("1 hour")
        assert.deepStrictEqual(seen, [])
        yield* process.inbox.setActive(true)
        yield* advance("2 seconds")
        assert.deepStrictEqual(seen, upTo(3))
      })
  )

  it.effect("finds by its poll what another process applied", () =>
    Effect.gen(function* () {
      const { process, write } = yield* setUp
      const { handle, seen } = recorder()
      yield* Effect.forkChild(process.inbox.consume("app", handle))
      yield* settle
      yield* write(2)
      yield* settle
      assert.deepStrictEqual(seen, [], "nobody said anything")
      yield* advance(SyncConfig.defaults.waitPollMillis)
      assert.deepStrictEqual(seen, upTo(2))
    })
  )

  it.effect("loses no wake-up of a commit between the look and the wait, with another consumer awake", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld()
      const write = yield* makeWriter(world)
      const looked = yield* Deferred.make<void>()
      const goOn = yield* Deferred.make<void>()
      // The first look of the first consumer has its answer, an empty one, and is held up before it can wait.
      let held = false
      const process = yield* startProcess(world, "a", {
        store: (store) => ({
          ...store,
          readInbox: (request) =>
            Effect.tap(store.readInbox(request), () => {
              if (held) return Effect.void
              held = true
              return Effect.andThen(Deferred.succeed(looked, undefined), Deferred.await(goOn))
            })
        })
      })
      const first = recorder()
      const second = recorder()
      yield* Effect.forkChild(process.inbox.consume("first", first.handle))
      yield* Deferred.await(looked)
      yield* Effect.forkChild(process.inbox.consume("second", second.handle))
      yield* settle

      // The commit wakes the second, which looks and waits again, before the first one gets to wait.
      yield* write(1)
      yield* process.inbox.committed([])
      yield* settle
      assert.deepStrictEqual([first.seen, second.seen], [[], [1]])
      yield* Deferred.succeed(goOn, undefined)
      yield* settle
      assert.deepStrictEqual(first.seen, [1])
      assert.strictEqual(yield* Clock.currentTimeMillis, 0, "not by the poll")
    })
  )

  it.effect("I10: deletes what everybody has consumed, but for the newest inboxKept", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld()
      const write = yield* makeWriter(world)
      const limits: Array<number> = []
      const process = yield* startProcess(world, "a", {
        config: { inboxKept: 10, inboxPage: 7 },
        store: (store) => ({
          ...store,
          readInbox: (request) => {
            limits.push(request.limit)
            return store.readInbox(request)
          }
        })
      })
      yield* write(30)
      yield* Effect.forkChild(process.inbox.consume("app", () => Effect.void))
      yield* advance(1)
      const left = yield* world.store.readInbox({ after: 0, limit: 10_000 })
      assert.deepStrictEqual(
        left.map((entry) => entry.sequence),
        upTo(30).slice(20)
      )
      assert.deepStrictEqual(limits, [7, 7, 7, 7, 7])
    })
  )

  it.effect("hands over what was just committed without reading it again, and reads what was missed", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld()
      const write = yield* makeWriter(world)
      const reads: Array<number> = []
      const process = yield* startProcess(world, "a", {
        store: (store) => ({
          ...store,
          readInbox: (request) => {
            reads.push(request.after)
            return store.readInbox(request)
          }
        })
      })
      const { handle, seen } = recorder()
      yield* Effect.forkChild(process.inbox.consume("app", handle))
      yield* settle
      yield* process.inbox.committed(yield* write(3))
      yield* settle
      yield* process.inbox.committed(yield* write(2))
      yield* settle
      assert.deepStrictEqual(seen, upTo(5))
      assert.deepStrictEqual(reads, [0], "only at the start")

      // Another process committed rows in between, of which nothing was said here.
      yield* write(4)
      yield* process.inbox.committed(yield* write(1))
      yield* settle
      assert.deepStrictEqual(seen, upTo(10))
      assert.deepStrictEqual(reads, [0, 5])

      // A batch that is as long as a page says nothing of what else is there.
      yield* process.inbox.committed(yield* write(SyncConfig.defaults.inboxPage))
      yield* settle
      assert.lengthOf(seen, 10 + SyncConfig.defaults.inboxPage)
      assert.deepStrictEqual(reads, [0, 5])
    })
  )

  it.effect("moves the cursor of a slow consumer every 100 ms, and passes over nothing that it has handled", () =>
    Effect.gen(function* () {
      const { process, world, write } = yield* setUp
      const { handle, seen } = recorder()
      yield* write(10)
      const slowly = (entry: SyncStore.InboxEntry) => Effect.andThen(Effect.sleep("60 millis"), handle(entry))
      const consuming = yield* Effect.forkChild(process.inbox.consume("app", slowly))
      const cursors: Array<readonly [handled: number, cursor: number]> = []
      for (let step = 0; step < 5; step++) {
        yield* advance("60 millis")
        cursors.push([seen.length, yield* world.store.inboxCursor("app")])
      }
      assert.deepStrictEqual(cursors, [
        [1, 0],
        [2, 2],
        [3, 2],
        [4, 4],
        [5, 4]
      ])
      yield* Fiber.interrupt(consuming)
      assert.strictEqual(yield* world.store.inboxCursor("app"), 5)
    })
  )
})
