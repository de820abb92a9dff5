import { assert, describe, it } from "@effect/vitest"
import { DistributedSemaphore, LeaseStore, StoreError, SyncConfig, Wake } from "@twinloop/core"
import { Clock, Effect, Exit, Fiber, Latch, Logger } from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import { PUSH_LEASE } from "../../src/push/PushQueue.ts"
import * as PushWorker from "../../src/push/PushWorker.ts"
import { SqliteClient } from "../../src/sqlite/index.ts"
import * as Kit from "./PushKit.ts"
import {
  advance,
  expired,
  failed,
  makeWorld,
  message,
  numberOf,
  numbersOf,
  openGateway,
  range,
  settle,
  silent,
  sinkError,
  start,
  type StartOptions,
  type World
} from "./PushWorkerKit.ts"

const { backoffMaxMillis, backoffMinMillis, leaseMillis, renewMillis, waitPollMillis } = SyncConfig.defaults
const IDLE_MILLIS = 60_000

const scenario = Effect.gen(function* () {
  const world = yield* makeWorld
  const gateway = yield* openGateway(world)
  return { world, ...gateway }
})

/** Numbers with what they were told as by `onDone`. */
const listener = () => {
  const told: Array<string> = []
  const onDone: PushWorker.Options["onDone"] = ({ request, result }) =>
    Effect.sync(() => {
      told.push(`${result._tag} ${numberOf(request)}`)
    })
  return { told, onDone }
}

const sql = (statement: string) => Effect.flatMap(SqliteClient.SqliteClient, (client) => client.unsafe(statement))

const sorted = (numbers: ReadonlyArray<number>) => numbers.toSorted((one, other) => one - other)

const isPending = (fiber: Fiber.Fiber<unknown, unknown>) => fiber.pollUnsafe() === undefined

/** Lets somebody else take the lease, long after it has expired for whoever has it. */
const takeOver = Effect.flatMap(LeaseStore, (leases) =>
  leases.take({
    name: PUSH_LEASE,
    permits: 1,
    count: 1,
    holder: "other",
    peer: {},
    nowMillis: 10 * leaseMillis,
    leaseMillis
  })
)

describe("PushWorker", () => {
  it.effect("I2: shows each push once, urgent ones first, removes it, and tells so once", () =>
    Effect.gen(function* () {
      const { holders, queue, world } = yield* scenario
      yield* queue.accept([Kit.push(1, { isUrgent: false }), Kit.push(2), Kit.push(3)])
      const { onDone, told } = listener()
      const { worker } = yield* start(world, "worker", { onDone })
      yield* settle
      assert.deepStrictEqual(world.shown, ["Event 2", "Event 3", "Event 1"])
      assert.strictEqual(yield* queue.size, 0)
      // The homeserver, unanswered, says it again.
      yield* queue.accept([Kit.push(2)])
      yield* TestClock.adjust(IDLE_MILLIS)
      yield* Fiber.join(worker)
      assert.deepStrictEqual(told, world.shown)
      assert.lengthOf(told, 3)
      // I4
      assert.strictEqual(yield* holders, 0)
    })
  )

  it.effect("I2: marks a push before the sink is asked, and removes it after", () =>
    Effect.gen(function* () {
      const { accept, queue, world } = yield* scenario
      yield* accept(1)
      const seen: Array<unknown> = []
      const look = Effect.orDie(
        Effect.map(queue.waiting(10), (rows) => {
          seen.push(...rows.map(({ isRepeated }) => isRepeated))
        })
      )
      world.before = () => look
      world.after = () => look
      yield* start(world, "worker")
      yield* settle
      assert.deepStrictEqual(seen, [true, true])
      assert.strictEqual(yield* queue.size, 0)
    })
  )

  it.effect("removes what has nothing to show without asking the sink", () =>
    Effect.gen(function* () {
      const { accept, queue, world } = yield* scenario
      const results = ["FilteredOut", "Redacted", "NotFound"] as const
      world.resolve = (number) => Effect.succeed(silent(results[number]!))
      world.before = (number) => Effect.die(`the sink was asked to show ${number}`)
      yield* accept(0, 1, 2)
      const { onDone, told } = listener()
      yield* start(world, "worker", { onDone })
      yield* settle
      assert.deepStrictEqual(told, ["FilteredOut 0", "Redacted 1", "NotFound 2"])
      assert.strictEqual(yield* queue.size, 0)
      assert.deepStrictEqual(world.shown, [])
    })
  )

  for (const result of [expired, failed("network"), failed("crypto"), failed("defect")]) {
    const name = result._tag === "Failed" ? `Failed (${result.failure.class})` : result._tag
    it.effect(`I7: tries ${name} again, and shows it as it is at the third attempt`, () =>
      Effect.gen(function* () {
        const { accept, queue, world } = yield* scenario
        world.resolve = () => Effect.succeed(result)
        yield* accept(1)
        const { onDone, told } = listener()
        yield* start(world, "worker", { onDone })
        yield* advance(0)
        assert.deepStrictEqual(world.resolved, [1])
        yield* advance(backoffMinMillis)
        assert.deepStrictEqual(world.resolved, [1, 1])
        assert.deepStrictEqual([world.shown, told], [[], []])
        yield* advance(2 * backoffMinMillis)
        assert.deepStrictEqual(world.resolved, [1, 1, 1])
        assert.deepStrictEqual([world.shown, told], [[`${result._tag} 1`], [`${result._tag} 1`]])
        assert.strictEqual(yield* queue.size, 0)
      })
    )
  }

  it.effect("shows what another try has found", () =>
    Effect.gen(function* () {
      const { accept, world } = yield* scenario
      world.resolve = (number, attempt) => Effect.succeed(attempt < 3 ? failed("server") : message(number))
      yield* accept(1)
      yield* start(world, "worker")
      yield* advance(backoffMinMillis)
      yield* advance(2 * backoffMinMillis)
      assert.deepStrictEqual(world.shown, ["Event 1"])
    })
  )

  for (const why of ["auth", "unsupported", "storeTerminal"] as const) {
    it.effect(`leaves everything in the queue while nothing can be resolved (${why}), and says so`, () =>
      Effect.gen(function* () {
        const { accept, holders, queue, world } = yield* scenario
        // The first is known to the database; while it is shown, it is learned that the others can't be.
        world.resolve = (number) => Effect.succeed(number === 1 ? message(number) : failed(why))
        const isShowing = yield* Latch.make()
        world.before = () => isShowing.await
        yield* accept(...range(1, 60))
        const { onDone, told } = listener()
        const first = yield* start(world, "first", { onDone })
        yield* settle
        assert.isTrue(isPending(first.worker))
        yield* isShowing.open
        const error = yield* Effect.flip(Fiber.join(first.worker))
        assert.instanceOf(error, PushWorker.CannotResolve)
        assert.deepStrictEqual([error.class, error.message], [why, `Pushes can't be resolved, and wait. ${why}`])
        // What could be shown is, nothing else has become "something new", and none was tried twice.
        assert.deepStrictEqual([world.shown, told], [["Event 1"], ["Event 1"]])
        assert.isAtMost(Math.max(...range(1, 60).map((n) => world.resolved.filter((one) => one === n).length)), 1)
        const rows = yield* queue.waiting(100)
        assert.lengthOf(rows, 59)
        assert.isTrue(rows.every(({ attempts, isRepeated }) => attempts === 0 && !isRepeated))
        assert.strictEqual(yield* holders, 0)

        // Somebody has seen to it.
        world.resolve = (number) => Effect.succeed(message(number))
        yield* start(world, "second")
        yield* settle
        assert.deepStrictEqual(sorted(numbersOf(world)), range(1, 60))
      })
    )
  }

  // --- sinks that fail

  it.effect("asks a sink that fails again, later and later, and tells only once", () =>
    Effect.gen(function* () {
      const { accept, queue, world } = yield* scenario
      const askedAt: Array<number> = []
      world.before = (number) =>
        Effect.flatMap(Clock.currentTimeMillis, (nowMillis) =>
          number === 1 && askedAt.push(nowMillis) < 4 ? Effect.fail(sinkError) : Effect.void
        )
      yield* accept(1, 2)
      const { onDone, told } = listener()
      yield* start(world, "worker", { onDone })
      yield* settle
      assert.deepStrictEqual(told, ["Event 2"])
      yield* advance(8 * backoffMinMillis)
      assert.lengthOf(askedAt, 4)
      for (const [attempt, factor] of [1, 2, 4].entries()) {
        const waitedMillis = askedAt[attempt + 1]! - askedAt[attempt]!
        assert.isAtLeast(waitedMillis, (factor * backoffMinMillis) / 2)
        assert.isAtMost(waitedMillis, factor * backoffMinMillis)
      }
      assert.deepStrictEqual(told, ["Event 2", "Event 1"])
      assert.strictEqual(yield* queue.size, 0)
    })
  )

  it.effect("gives up showing after a day, not before, and doesn't say that it is shown", () =>
    Effect.gen(function* () {
      const { accept, queue, world } = yield* scenario
      world.before = () => Effect.fail(sinkError)
      yield* accept(1)
      yield* TestClock.adjust(86_400_000 - 1)
      const { onDone, told } = listener()
      const { worker } = yield* start(world, "worker", { onDone })
      yield* settle
      assert.strictEqual(yield* queue.size, 1)
      yield* advance(backoffMinMillis)
      assert.strictEqual(yield* queue.size, 0)
      assert.deepStrictEqual([world.shown, told], [[], []])
      assert.isTrue(isPending(worker))
    })
  )

  it.effect("takes a sink's defect for a failure: the others are shown, and it is tried again", () =>
    Effect.gen(function* () {
      const { accept, world } = yield* scenario
      let asked = 0
      world.before = (number) => (number === 1 && ++asked === 1 ? Effect.die("a bug") : Effect.void)
      yield* accept(1, 2)
      yield* start(world, "worker")
      yield* settle
      assert.deepStrictEqual(world.shown, ["Event 2"])
      yield* advance(backoffMinMillis)
      assert.deepStrictEqual(world.shown, ["Event 2", "Event 1"])
    })
  )

  it.effect("holds up no others by what the sink hangs at, and ends all the same", () =>
    Effect.gen(function* () {
      const { accept, holders, queue, world } = yield* scenario
      world.before = (number) => (number <= 7 ? Effect.never : Effect.void)
      yield* accept(...range(1, 120))
      const hanging = yield* start(world, "hanging")
      yield* settle
      assert.deepStrictEqual(sorted(numbersOf(world)), range(8, 120))
      yield* Fiber.interrupt(hanging.worker)
      assert.strictEqual(yield* holders, 0)
      const rows = yield* queue.waiting(100)
      assert.deepStrictEqual(
        rows.map(({ isRepeated, request }) => [numberOf(request), isRepeated]),
        range(1, 7).map((number) => [number, true])
      )
      world.before = () => Effect.void
      yield* start(world, "next")
      yield* settle
      assert.deepStrictEqual(sorted(numbersOf(world)), range(1, 120))
    })
  )

  it.effect("I10: asks the sink for eight at once, while what has nothing to show waits for none of them", () =>
    Effect.gen(function* () {
      const { accept, queue, world } = yield* scenario
      const isFree = yield* Latch.make()
      let atOnce = 0
      world.before = () =>
        Effect.andThen(
          Effect.sync(() => void atOnce++),
          isFree.await
        )
      world.resolve = (number) => Effect.succeed(number <= 60 ? message(number) : silent("FilteredOut"))
      yield* accept(...range(1, 70))
      yield* start(world, "worker")
      yield* settle
      assert.strictEqual(atOnce, 8)
      assert.strictEqual(yield* queue.size, 60)
      yield* isFree.open
      yield* settle
      assert.strictEqual(yield* queue.size, 0)
      assert.deepStrictEqual(sorted(numbersOf(world)), range(1, 60))
    })
  )

  // --- who finds what another one has left

  for (const [knows, shown] of [
    [true, []],
    [false, ["Event 1"]],
    [undefined, ["Event 1"]]
  ] as const) {
    const what = knows === undefined ? "can't tell" : knows ? "knows it" : "doesn't know it"
    it.effect(`I2: shows what was left by a process that died ${shown.length} times again if the sink ${what}`, () =>
      Effect.gen(function* () {
        const { accept, queue, use, world } = yield* scenario
        yield* accept(1)
        yield* use(sql("UPDATE push_queue SET state = 'showing'"))
        world.isKnown = knows === undefined ? undefined : () => Effect.succeed(knows)
        const { onDone, told } = listener()
        yield* start(world, "worker", { onDone })
        yield* settle
        assert.deepStrictEqual(world.shown, [...shown])
        assert.strictEqual(yield* queue.size, 0)
        assert.deepStrictEqual(told, ["Event 1"])
      })
    )
  }

  it.effect("I2: puts it off when the sink can't say now whether it knows it; a new one isn't asked about", () =>
    Effect.gen(function* () {
      const { accept, use, world } = yield* scenario
      yield* accept(1)
      yield* use(sql("UPDATE push_queue SET state = 'showing'"))
      yield* accept(2)
      let asked = 0
      world.isKnown = () => Effect.suspend(() => (++asked === 1 ? Effect.fail(sinkError) : Effect.succeed(true)))
      yield* start(world, "worker")
      yield* settle
      assert.deepStrictEqual(world.shown, ["Event 2"])
      yield* advance(backoffMinMillis)
      assert.strictEqual(asked, 2)
      assert.deepStrictEqual(world.shown, ["Event 2"])
    })
  )

  it.effect("I2: doesn't show again what a sink that failed has shown all the same", () =>
    Effect.gen(function* () {
      const { accept, queue, world } = yield* scenario
      yield* accept(1)
      world.after = () => Effect.fail(sinkError)
      yield* start(world, "worker")
      yield* settle
      assert.strictEqual(yield* queue.size, 1)
      yield* advance(backoffMinMillis)
      assert.strictEqual(yield* queue.size, 0)
      assert.deepStrictEqual(world.shown, ["Event 1"])
    })
  )

  it.effect("I2: writes down what is shown also when it is stopped at that moment", () =>
    Effect.gen(function* () {
      const { accept, queue, world } = yield* scenario
      world.isKnown = undefined
      yield* accept(1)
      const isWriting = yield* Latch.make()
      const mayWrite = yield* Latch.make()
      world.beforeDone = Effect.andThen(isWriting.open, mayWrite.await)
      const process = yield* start(world, "worker")
      yield* isWriting.await
      process.worker.interruptUnsafe()
      yield* settle
      assert.isTrue(isPending(process.worker))
      yield* mayWrite.open
      yield* Fiber.await(process.worker)
      assert.deepStrictEqual(world.shown, ["Event 1"])
      assert.strictEqual(yield* queue.size, 0)
    })
  )

  // --- the lease

  it.effect("I1: fails with LeaseLost when another has taken over, and writes nothing more", () =>
    Effect.gen(function* () {
      const { accept, queue, use, world } = yield* scenario
      world.before = (number) => (number === 1 ? Effect.never : Effect.void)
      yield* accept(1)
      const { worker } = yield* start(world, "worker")
      yield* settle
      yield* use(takeOver)
      const before = yield* queue.waiting(10)
      yield* TestClock.adjust(renewMillis)
      const error = yield* Effect.flip(Fiber.join(worker))
      assert.instanceOf(error, DistributedSemaphore.LeaseLost)
      assert.strictEqual(error.reason, "takenOver")
      assert.deepStrictEqual(yield* queue.waiting(10), before)
      assert.isTrue(before[0]!.isRepeated)
    })
  )

  it.effect("I1: is refused what it writes after another has taken over, before it has heard of it", () =>
    Effect.gen(function* () {
      const { accept, queue, use, world } = yield* scenario
      const isShown = yield* Latch.make()
      world.after = () => isShown.await
      yield* accept(1, 2)
      const { onDone, told } = listener()
      const { worker } = yield* start(world, "worker", { onDone })
      yield* settle
      yield* use(takeOver)
      yield* isShown.open
      const error = yield* Effect.flip(Fiber.join(worker))
      assert.instanceOf(error, StoreError.StoreError)
      assert.strictEqual(error.reason._tag, "StaleGeneration")
      assert.strictEqual(yield* queue.size, 2)
      assert.deepStrictEqual(told, [])
    })
  )

  it.effect("fails when the database does, also while it was told to end", () =>
    Effect.gen(function* () {
      const { accept, use, world } = yield* scenario
      yield* accept(1)
      world.after = () => Effect.orDie(Effect.asVoid(use(takeOver)))
      const { worker } = yield* start(world, "worker", { isEnough: Effect.sync(() => world.batches.length > 0) })
      const exit = yield* Fiber.await(worker)
      assert.isTrue(Exit.isFailure(exit))
    })
  )

  it.effect("waits while another worker is at it, and goes on when that one ends", () =>
    Effect.gen(function* () {
      const { accept, world } = yield* scenario
      const first = yield* start(world, "first")
      yield* settle
      const second = yield* start(world, "second")
      yield* accept(1)
      yield* advance(waitPollMillis)
      assert.deepStrictEqual(world.shown, ["Event 1"])
      assert.strictEqual(second.reads(), 0)
      yield* first.stop
      yield* accept(2)
      // By signal, and not by a poll.
      yield* settle
      assert.deepStrictEqual(world.shown, ["Event 1", "Event 2"])
      assert.isTrue(isPending(second.worker))
    })
  )

  it.effect("waits while another worker is at it, and goes on when that one dies", () =>
    Effect.gen(function* () {
      const { accept, world } = yield* scenario
      world.before = () => Effect.never
      yield* accept(1)
      const first = yield* start(world, "first")
      yield* settle
      yield* start(world, "second")
      yield* settle
      world.before = () => Effect.void
      yield* first.kill
      yield* settle
      assert.deepStrictEqual(world.shown, ["Event 1"])
    })
  )

  // --- waiting

  it.effect("takes what arrives by another process at once, by signal", () =>
    Effect.gen(function* () {
      const { accept, world } = yield* scenario
      yield* start(world, "worker")
      yield* settle
      yield* accept(1)
      yield* settle
      assert.deepStrictEqual(world.shown, ["Event 1"])
      // Also while others are being resolved.
      world.resolve = (number) => (number === 2 ? Effect.never : Effect.succeed(message(number)))
      yield* accept(2)
      yield* settle
      yield* accept(3)
      yield* settle
      assert.deepStrictEqual(world.shown, ["Event 1", "Event 3"])
    })
  )

  it.effect("finds what no signal told it of when it looks the next time, however long it may be idle", () =>
    Effect.gen(function* () {
      const { accept, world } = yield* scenario
      yield* start(world, "worker", { wake: Wake.layerNone, idleMillis: 3_600_000 })
      yield* settle
      yield* accept(1)
      yield* settle
      assert.deepStrictEqual(world.shown, [])
      yield* advance(waitPollMillis)
      assert.deepStrictEqual(world.shown, ["Event 1"])
    })
  )

  it.effect("ends when nothing has come for the idle time, and not before", () =>
    Effect.gen(function* () {
      const { accept, queue, world } = yield* scenario
      const { worker } = yield* start(world, "worker")
      yield* advance(IDLE_MILLIS - 1)
      yield* accept(1)
      yield* advance(IDLE_MILLIS - 1)
      assert.deepStrictEqual(world.shown, ["Event 1"])
      // Counts, which are no push, don't keep it.
      yield* queue.accept([Kit.badge(5)])
      yield* settle
      assert.isTrue(isPending(worker))
      yield* TestClock.adjust(1)
      yield* Fiber.join(worker)
    })
  )

  it.effect("shows what is in hand also when it may not be idle at all", () =>
    Effect.gen(function* () {
      const { accept, queue, world } = yield* scenario
      world.resolve = (number) => Effect.as(Effect.sleep(3 * waitPollMillis), message(number))
      yield* accept(1, 2)
      const { worker } = yield* start(world, "worker", { idleMillis: 0 })
      yield* advance(3 * waitPollMillis)
      yield* Fiber.join(worker)
      assert.deepStrictEqual(world.shown, ["Event 1", "Event 2"])
      assert.strictEqual(yield* queue.size, 0)
    })
  )

  it.effect("isn't kept by what is due later than that, and is by what is due earlier", () =>
    Effect.gen(function* () {
      const { accept, queue, use, world } = yield* scenario
      yield* accept(1, 2)
      yield* use(sql(`UPDATE push_queue SET not_before_millis = ${IDLE_MILLIS + 1}`))
      const early = yield* start(world, "early")
      yield* advance(IDLE_MILLIS)
      assert.isFalse(isPending(early.worker))
      assert.strictEqual(yield* queue.size, 2)

      const nowMillis = IDLE_MILLIS
      yield* use(sql(`UPDATE push_queue SET not_before_millis = ${nowMillis + IDLE_MILLIS} WHERE sequence = 1`))
      yield* use(sql(`UPDATE push_queue SET not_before_millis = ${nowMillis + 3 * IDLE_MILLIS} WHERE sequence = 2`))
      const late = yield* start(world, "late")
      yield* advance(IDLE_MILLIS)
      assert.deepStrictEqual(world.shown, ["Event 1"])
      yield* advance(IDLE_MILLIS)
      assert.isFalse(isPending(late.worker))
      assert.strictEqual(yield* queue.size, 1)
    })
  )

  it.effect("ends after what is in hand when it is enough, and takes nothing more", () =>
    Effect.gen(function* () {
      const { accept, queue, world } = yield* scenario
      const isFree = yield* Latch.make()
      world.before = () => isFree.await
      yield* accept(...range(1, 120))
      const isEnough = Effect.sync(() => world.batches.length > 0)
      const { reads, worker } = yield* start(world, "worker", { isEnough })
      yield* advance(waitPollMillis)
      assert.isTrue(isPending(worker))
      // What is due and may not be taken is no reason to look.
      assert.strictEqual(reads(), 1)
      yield* isFree.open
      yield* Fiber.join(worker)
      assert.deepStrictEqual(sorted(numbersOf(world)), range(1, 50))
      assert.strictEqual(yield* queue.size, 70)
    })
  )

  it.effect("I10: resolves batches of fifty at the same time, two hundred pushes at most, then the others", () =>
    Effect.gen(function* () {
      const { accept, queue, world } = yield* scenario
      const isFree = yield* Latch.make()
      world.resolve = (number) => Effect.as(isFree.await, message(number))
      yield* accept(...range(1, 260))
      const { reads } = yield* start(world, "worker")
      yield* advance(waitPollMillis)
      assert.deepStrictEqual(
        world.batches.map(({ length }) => length),
        [50, 50, 50, 50]
      )
      assert.strictEqual(world.resolved.length, 200)
      assert.strictEqual(reads(), 4)
      yield* isFree.open
      yield* settle
      assert.deepStrictEqual(sorted(numbersOf(world)), range(1, 260))
      assert.strictEqual(yield* queue.size, 0)
    })
  )

  // --- a client that breaks its word

  for (const [how, over] of [
    ["ends early", () => Effect.void],
    ["meets a defect", () => Effect.die("a bug")]
  ] as const) {
    it.effect(`I7: loses nothing of a batch whose stream ${how}: it is tried again after a while`, () =>
      Effect.gen(function* () {
        const { accept, queue, world } = yield* scenario
        world.isMute = (number) => number > 1
        world.over = over
        yield* accept(1, 2, 3)
        const process = yield* start(world, "worker")
        yield* settle
        assert.deepStrictEqual(world.shown, ["Event 1"])
        assert.deepStrictEqual(world.batches, [[1, 2, 3]])
        assert.strictEqual(yield* queue.size, 2)
        world.isMute = () => false
        world.over = () => Effect.void
        yield* advance(backoffMinMillis)
        assert.deepStrictEqual(sorted(numbersOf(world)), [1, 2, 3])
        assert.isTrue(isPending(process.worker))
      })
    )
  }

  it.effect("I7: shows that there is something when the client never says what", () =>
    Effect.gen(function* () {
      const { accept, queue, world } = yield* scenario
      world.isMute = () => true
      yield* accept(1)
      yield* start(world, "worker")
      yield* advance(backoffMinMillis)
      yield* advance(2 * backoffMinMillis)
      assert.deepStrictEqual(world.batches, [[1], [1], [1]])
      assert.deepStrictEqual(world.shown, ["Failed 1"])
      assert.strictEqual(yield* queue.size, 0)
    })
  )

  it.effect("uses one result of a push, whatever the client says", () =>
    Effect.gen(function* () {
      const { accept, world } = yield* scenario
      yield* accept(1)
      const { onDone, told } = listener()
      world.repeats = true
      yield* start(world, "worker", { onDone })
      yield* settle
      assert.deepStrictEqual(world.shown, ["Event 1"])
      assert.deepStrictEqual(told, ["Event 1"])
    })
  )

  // --- any story

  type Act =
    | { readonly act: "accept"; readonly count: number }
    | { readonly act: "start"; readonly calls: number; readonly end: "stop" | "kill" }
    | { readonly act: "stop" | "kill" }
    | { readonly act: "pass"; readonly millis: number }
    | { readonly act: "fault"; readonly moment: "before" | "after" | "resolve" }

  const acts: fc.Arbitrary<ReadonlyArray<Act>> = fc.array(
    fc.oneof(
      {
        weight: 4,
        arbitrary: fc.record({ act: fc.constant("accept" as const), count: fc.integer({ min: 1, max: 12 }) })
      },
      {
        weight: 5,
        arbitrary: fc.record({
          act: fc.constant("start" as const),
          calls: fc.integer({ min: 1, max: 60 }),
          end: fc.constantFrom("stop" as const, "kill" as const)
        })
      },
      { weight: 1, arbitrary: fc.record({ act: fc.constantFrom("stop" as const, "kill" as const) }) },
      {
        weight: 3,
        arbitrary: fc.record({ act: fc.constant("pass" as const), millis: fc.constantFrom(0, 20, 500, 1_000, 10_001) })
      },
      {
        weight: 2,
        arbitrary: fc.record({
          act: fc.constant("fault" as const),
          moment: fc.constantFrom("before" as const, "after" as const, "resolve" as const)
        })
      }
    ),
    { minLength: 3, maxLength: 20 }
  )

  /** One fault at the next occasion. */
  const fault = (world: World, moment: "before" | "after" | "resolve") => {
    if (moment === "resolve") {
      const { resolve } = world
      world.resolve = () => {
        world.resolve = resolve
        return Effect.succeed(failed("server"))
      }
      return
    }
    const ordinary = world[moment]
    world[moment] = () => {
      world[moment] = ordinary
      return Effect.fail(sinkError)
    }
  }

  /** Plays a story, lets the last worker finish, and checks the books. */
  const play = Effect.fnUntraced(function* (story: ReadonlyArray<Act>, sink: "knows" | "can't tell") {
    const { accept, holders, queue, world } = yield* scenario
    if (sink === "can't tell") world.isKnown = undefined
    // Showing takes time, so that it is interrupted as well.
    world.before = (number) => Effect.sleep(number % 3 === 0 ? 0 : 5)
    world.after = (number) => Effect.sleep(number % 2 === 0 ? 0 : 5)
    let accepted = 0
    let workers = 0
    let latest: Effect.Success<ReturnType<typeof start>> | undefined
    const next = (options: StartOptions) => start(world, `worker-${++workers}`, options)
    for (const step of story) {
      switch (step.act) {
        case "accept":
          yield* accept(...range(accepted + 1, accepted + step.count))
          accepted += step.count
          break
        case "start":
          latest = yield* next({ fate: step })
          break
        case "stop":
        case "kill":
          yield* latest?.[step.act] ?? Effect.void
          break
        case "pass":
          yield* TestClock.adjust(step.millis)
          break
        case "fault":
          fault(world, step.moment)
          break
      }
      yield* settle
    }
    yield* next({ idleMillis: 1_000 })
    for (let turn = 0; turn < 4; turn++) yield* advance(backoffMaxMillis)
    assert.strictEqual(yield* queue.size, 0)
    assert.strictEqual(yield* holders, 0)
    const shown = sorted(numbersOf(world))
    assert.deepStrictEqual(sink === "knows" ? shown : [...new Set(shown)], range(1, accepted))
  })

  for (const [sink, words] of [
    ["knows", "once"],
    ["can't tell", "at least once"]
  ] as const) {
    it.live(
      `I2, I7: any story of arrivals, kills, interruptions and faults: each event is shown ${words} by a sink that ${sink}`,
      () =>
        Effect.promise(() =>
          fc.assert(
            fc.asyncProperty(acts, (story) =>
              Effect.runPromise(
                play(story, sink).pipe(Effect.scoped, Effect.provide([TestClock.layer(), Logger.layer([])]))
              )
            ),
            { numRuns: 40, seed: 1928 }
          )
        ),
      120_000
    )
  }
})
