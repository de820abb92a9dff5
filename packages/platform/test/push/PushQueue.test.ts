import { assert, describe, it } from "@effect/vitest"
import { DistributedSemaphore, LeaseStore, StoreError, type SyncConfig } from "@twinloop/core"
import { Effect, Fiber, Layer, PubSub, Stream } from "effect"
import { TestClock } from "effect/testing"
import { DatabaseSync } from "node:sqlite"
import { PUSH_LEASE, PushQueue, QueueFull } from "../../src/push/PushQueue.ts"
import { SqliteClient } from "../../src/sqlite/index.ts"
import * as WakeSocket from "../../src/wake/WakeSocket.ts"
import { temporaryDirectory, temporaryFile } from "../SqliteKit.ts"
import * as Kit from "./PushKit.ts"

const queue = PushQueue
const accept = (...pushes: Parameters<PushQueue["Service"]["accept"]>[0]) =>
  Effect.flatMap(queue, (it) => it.accept(pushes))
const outcomes = (...pushes: Parameters<PushQueue["Service"]["accept"]>[0]) =>
  Effect.map(accept(...pushes), (answers) => answers.map(({ outcome }) => outcome))
const size = Effect.flatMap(queue, (it) => it.size)

/** In a database of its own, with one device. */
const test =
  (config: Partial<SyncConfig.SyncConfigShape> = {}) =>
  <A, E>(use: Effect.Effect<A, E, Kit.Queue>) =>
    Effect.flatMap(temporaryFile, (filename) => Kit.within(filename, config)(Effect.andThen(Kit.register(), use)))

describe("PushQueue", () => {
  it.effect("gives out what was accepted, urgent ones first, then the oldest", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* outcomes(Kit.push(1, { isUrgent: false }), Kit.push(2)), ["accepted", "accepted"])
      yield* accept(Kit.push(3, { isUrgent: false }))
      yield* accept(Kit.push(4))
      assert.deepStrictEqual(yield* Kit.due(), [2, 4, 1, 3])
      const [first] = yield* Effect.flatMap(queue, (it) => it.waiting(1))
      assert.deepStrictEqual(first, {
        sequence: 2,
        appId: "org.example.app",
        request: { roomId: "!r:example.org", eventId: "$2", isUrgent: true },
        receivedAtMillis: 0,
        attempts: 0,
        isRepeated: false
      })
    }).pipe(test())
  )

  it.effect("answers for each device, and takes nothing for one that it doesn't know", () =>
    Effect.gen(function* () {
      const { appId, pushKey } = Kit.device
      const otherApp = { appId: "org.example.other", pushKey }
      const answers = yield* accept(Kit.push(1, { devices: [Kit.stranger, Kit.device, otherApp], unread: 3 }))
      assert.deepStrictEqual(answers, [
        { device: Kit.stranger, outcome: "unknown" },
        { device: { appId, pushKey }, outcome: "accepted" },
        { device: otherApp, outcome: "unknown" }
      ])
      assert.deepStrictEqual(yield* outcomes(Kit.push(2, { devices: [Kit.stranger], unread: 9 })), ["unknown"])
      assert.deepStrictEqual(yield* Kit.due(), [1])
      // The counts of somebody else's push are somebody else's.
      assert.strictEqual((yield* Effect.flatMap(queue, (it) => it.badge))?.unread, 3)
    }).pipe(test())
  )

  it.effect("registers and unregisters devices", () =>
    Effect.gen(function* () {
      const it = yield* queue
      yield* Kit.register(Kit.stranger)
      yield* it.register({ ...Kit.device, url: "http://[::1]/x", format: "full" })
      assert.deepStrictEqual(yield* it.registrations, [
        { ...Kit.device, url: "http://[::1]/x", format: "full", createdAtMillis: 0 },
        {
          ...Kit.stranger,
          url: "http://127.0.0.1/_matrix/push/v1/notify",
          format: "event_id_only",
          createdAtMillis: 0
        }
      ])
      yield* accept(Kit.push(1))
      yield* it.unregister(Kit.device)
      assert.deepStrictEqual(yield* outcomes(Kit.push(2)), ["unknown"])
      // What was accepted is still shown.
      assert.deepStrictEqual(yield* Kit.due(), [1])
    }).pipe(test())
  )

  it.effect("keeps an event once, however often and for however many devices it is pushed", () =>
    Effect.gen(function* () {
      yield* Kit.register(Kit.stranger)
      assert.deepStrictEqual(yield* outcomes(Kit.push(1, { devices: [Kit.device, Kit.stranger] }), Kit.push(1)), [
        "accepted",
        "duplicate",
        "duplicate"
      ])
      assert.deepStrictEqual(yield* outcomes(Kit.push(1)), ["duplicate"])
      assert.deepStrictEqual(yield* Kit.due(), [1])
    }).pipe(test())
  )

  it.effect("knows events across restarts, also after they were shown, and keeps the queue", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      const again = Kit.within(filename)
      yield* again(Effect.andThen(Kit.register(), accept(Kit.push(1), Kit.push(2, { unread: 5 }))))
      yield* again(
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* outcomes(Kit.push(1), Kit.push(2)), ["duplicate", "duplicate"])
          const it = yield* queue
          const fence = yield* Kit.own("shows")
          const [first] = yield* it.waiting(1)
          yield* it.begin(fence, [first!.sequence])
          yield* it.done(fence, [first!.sequence])
        })
      )
      yield* again(
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* outcomes(Kit.push(1), Kit.push(3)), ["duplicate", "accepted"])
          assert.deepStrictEqual(yield* Kit.due(), [2, 3])
          assert.strictEqual((yield* Effect.flatMap(queue, (it) => it.badge))?.unread, 5)
        })
      )
    })
  )

  it.effect("I10: remembers the newest ten thousand events, and what still waits", () =>
    Effect.gen(function* () {
      const it = yield* queue
      const fence = yield* Kit.own("shows")
      yield* it.accept([Kit.push(0), Kit.push(1)])
      const all = yield* it.waiting(2)
      yield* it.done(fence, [all[1]!.sequence])
      for (let page = 0; page < 10; page++) {
        yield* it.accept(Array.from({ length: 1_000 }, (_, index) => Kit.push(2 + page * 1_000 + index)))
      }
      const sql = yield* SqliteClient.SqliteClient
      assert.deepStrictEqual(
        yield* sql<{ count: number; first: number }>`SELECT COUNT(*) AS count, MIN(sequence) AS first FROM push_seen`,
        [{ count: 10_000, first: 3 }]
      )
      // Not remembered any more, the one is known from the queue, and the other is new.
      assert.deepStrictEqual(yield* outcomes(Kit.push(0)), ["duplicate"])
      assert.deepStrictEqual(yield* outcomes(Kit.push(1)), ["accepted"])
    }).pipe(test({ pushQueueLimit: 100_000 }))
  )

  it.effect("I10: takes nothing of a request that there is no room for, and goes on when there is", () =>
    Effect.gen(function* () {
      const it = yield* queue
      yield* accept(Kit.push(1), Kit.push(2))
      const error = yield* Effect.flip(accept(Kit.push(3, { unread: 9 }), Kit.push(4)))
      assert.instanceOf(error, QueueFull)
      assert.deepStrictEqual([error.waiting, error.limit], [2, 3])
      assert.deepStrictEqual(yield* Kit.due(), [1, 2])
      assert.isUndefined(yield* it.badge)
      // What needs no room is taken: a repetition, and a count.
      assert.deepStrictEqual(yield* outcomes(Kit.push(1), Kit.badge(4)), ["duplicate", "accepted"])
      assert.deepStrictEqual(yield* outcomes(Kit.push(3)), ["accepted"])
      assert.deepStrictEqual(yield* outcomes(Kit.push(1), Kit.badge(5)), ["duplicate", "accepted"])

      const fence = yield* Kit.own("shows")
      const all = yield* it.waiting(10)
      yield* it.done(fence, [all[0]!.sequence])
      assert.deepStrictEqual(yield* outcomes(Kit.push(4)), ["accepted"])
      assert.strictEqual(yield* size, 3)
    }).pipe(test({ pushQueueLimit: 3 }))
  )

  it.effect("accepts in the order of the calls, also when they come at the same time", () =>
    Effect.gen(function* () {
      const numbers = Array.from({ length: 200 }, (_, index) => index)
      yield* Effect.forEach(numbers, (number) => accept(Kit.push(number)), { concurrency: "unbounded" })
      assert.deepStrictEqual(yield* Kit.due(), numbers)
    }).pipe(test())
  )

  it.live("I9: keeps the order of the calls while another process keeps the database locked", () =>
    Effect.gen(function* () {
      const sql = yield* SqliteClient.SqliteClient
      const numbers = Array.from({ length: 50 }, (_, index) => index)
      const other = new DatabaseSync(sql.config.filename)
      other.exec("BEGIN IMMEDIATE")
      const all = yield* Effect.forkChild(
        Effect.forEach(numbers, (number) => accept(Kit.push(number)), { concurrency: "unbounded" }),
        { startImmediately: true }
      )
      // As long as several tries take.
      yield* Effect.sleep("20 millis")
      other.close()
      yield* Fiber.join(all)
      assert.deepStrictEqual(yield* Kit.due(), numbers)
    }).pipe(test())
  )

  it.effect("gives out what may have been shown as repeated, and leaves out what is in hand", () =>
    Effect.gen(function* () {
      const it = yield* queue
      yield* accept(Kit.push(1), Kit.push(2))
      const fence = yield* Kit.own("shows")
      const [first] = yield* it.waiting(1)
      yield* it.begin(fence, [first!.sequence])
      assert.deepStrictEqual(yield* Kit.due([first!.sequence]), [2])

      const next = yield* Kit.own("shows-next", 1)
      const rows = yield* it.waiting(10)
      assert.deepStrictEqual(
        rows.map(({ isRepeated, request }) => [request.eventId, isRepeated]),
        [
          ["$1", true],
          ["$2", false]
        ]
      )
      // A sink that can't tell now whether it has shown it doesn't make it new.
      yield* it.later(next, first!.sequence, 1_000)
      assert.deepStrictEqual(yield* Kit.due(), [2])
      yield* TestClock.adjust(1_000)
      const [again] = yield* it.waiting(1)
      assert.deepStrictEqual([again!.isRepeated, again!.attempts], [true, 1])
    }).pipe(test())
  )

  it.effect("puts off until a time, and says when the next is due", () =>
    Effect.gen(function* () {
      const it = yield* queue
      assert.isUndefined(yield* it.nextDueMillis())
      yield* accept(Kit.push(1), Kit.push(2))
      assert.strictEqual(yield* it.nextDueMillis(), 0)
      const fence = yield* Kit.own("shows")
      const [first, second] = yield* it.waiting(2)
      yield* it.later(fence, first!.sequence, 500)
      yield* it.later(fence, second!.sequence, 300)
      assert.strictEqual(yield* it.nextDueMillis(), 300)
      assert.strictEqual(yield* it.nextDueMillis([second!.sequence]), 500)
      assert.deepStrictEqual(yield* Kit.due(), [])
      yield* TestClock.adjust(300)
      assert.deepStrictEqual(yield* Kit.due(), [2])
      yield* TestClock.adjust(200)
      assert.deepStrictEqual(yield* Kit.due(), [1, 2])
      assert.strictEqual(yield* size, 2)
    }).pipe(test())
  )

  it.effect("I1: refuses who has lost the lease, and changes nothing for him", () =>
    Effect.gen(function* () {
      const it = yield* queue
      yield* accept(Kit.push(1))
      const stale = yield* Kit.own("first")
      yield* Kit.own("second", 1)
      const before = yield* it.waiting(10)
      const { sequence } = before[0]!
      // Also under a fence that stands, but for something else.
      const foreign = yield* Effect.flatMap(LeaseStore, (leases) =>
        leases.take({ name: "stream", permits: 1, count: 1, holder: "x", peer: {}, nowMillis: 0, leaseMillis: 10_000 })
      )
      assert.strictEqual(foreign._tag, "Granted")
      for (const fence of [stale, { name: "stream", holder: "x", generation: 1 }]) {
        for (const change of [it.begin(fence, [sequence]), it.done(fence, [sequence]), it.later(fence, sequence, 7)]) {
          const error = yield* Effect.flip(change)
          assert.instanceOf(error, StoreError.StoreError)
          assert.strictEqual(error.reason._tag, "StaleGeneration")
        }
      }
      assert.deepStrictEqual(yield* it.waiting(10), before)
    }).pipe(test())
  )

  it.effect("tells the counts to whoever listens, the stored ones first", () =>
    Effect.gen(function* () {
      const it = yield* queue
      assert.isUndefined(yield* it.badge)
      yield* accept(Kit.badge(7))
      const told = yield* PubSub.unbounded<number>()
      const heard = yield* PubSub.subscribe(told)
      yield* Effect.forkChild(Stream.runForEach(it.badges, ({ unread }) => PubSub.publish(told, unread)))
      assert.strictEqual(yield* PubSub.take(heard), 7)
      yield* accept(Kit.push(1, { unread: 8 }))
      assert.strictEqual(yield* PubSub.take(heard), 8)
      // The same count again is nothing new.
      yield* accept(Kit.badge(8))
      yield* accept(Kit.badge(0))
      assert.strictEqual(yield* PubSub.take(heard), 0)
      assert.deepStrictEqual(yield* it.badge, { unread: 0, missedCalls: 0, atMillis: 0 })
    }).pipe(Effect.scoped, test())
  )

  it.effect("tells who listens in this process, also of what came before he waited", () =>
    Effect.gen(function* () {
      const it = yield* queue
      const arrived = yield* it.arrivals
      yield* accept(Kit.push(1))
      yield* arrived
      const waiting = yield* Effect.forkChild(arrived)
      yield* accept(Kit.push(1))
      yield* accept(Kit.push(2, { devices: [Kit.stranger] }))
      assert.isUndefined(waiting.pollUnsafe())
      yield* accept(Kit.push(3))
      yield* Fiber.join(waiting)
    }).pipe(Effect.scoped, test())
  )

  it.live("wakes the process that holds the lease", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      const directory = yield* temporaryDirectory
      const process = Effect.map(
        Layer.build(Kit.queueAt(filename, {}, WakeSocket.layer({ directory }))),
        (context) =>
          <A, E, R>(use: Effect.Effect<A, E, R>) =>
            Effect.provide(use, context)
      )
      const gateway = yield* process
      const worker = yield* process
      yield* gateway(Kit.register())
      yield* worker(
        Effect.flatMap(DistributedSemaphore.make({ name: PUSH_LEASE, permits: 1 }), (semaphore) => semaphore.take)
      )
      const arrived = yield* worker(Effect.flatMap(queue, (it) => it.arrivals))
      yield* gateway(accept(Kit.push(1)))
      yield* Effect.timeout(arrived, "5 seconds")
      assert.deepStrictEqual(yield* worker(Kit.due()), [1])
    })
  )

  it.effect("syncs what is answered, and that something is about to be shown, to the disk", () =>
    Effect.gen(function* () {
      const it = yield* queue
      const sql = yield* SqliteClient.SqliteClient
      const mode = sql<{ synchronous: number }>`PRAGMA synchronous`
      const fence = yield* Kit.own("shows")
      const synced = <A, E>(use: Effect.Effect<A, E>) =>
        Effect.andThen(
          use,
          Effect.map(mode, ([row]) => row!.synchronous === 2)
        )
      assert.isTrue(yield* synced(it.accept([Kit.push(1)])))
      assert.isFalse(yield* synced(it.later(fence, 1, 0)))
      assert.isTrue(yield* synced(it.begin(fence, [1])))
      assert.isFalse(yield* synced(it.done(fence, [1])))
      assert.isTrue(yield* synced(it.register({ ...Kit.stranger, url: "", format: "full" })))
    }).pipe(test())
  )
})
