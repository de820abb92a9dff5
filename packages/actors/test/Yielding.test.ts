import { assert, describe, it } from "@effect/vitest"
import { DistributedSemaphore, SyncConfig } from "@twinloop/core"
import { Clock, Effect, Exit, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import * as ExtensionSync from "../src/ExtensionSync.ts"
import { EXTENSION_LEASE } from "../src/SyncService.ts"
import { makeEngine } from "../src/testing/ScriptedEngine.ts"
import {
  acceptedNumbers,
  appliedNumbers,
  makeWorld,
  type ProcessOptions,
  startProcess,
  type World
} from "../src/testing/Simulation.ts"
import { advance, settle } from "../src/testing/Time.ts"
import * as Trouble from "./support/Trouble.ts"

const CONN = "encryption"
const { renewMillis, waitPollMillis, yieldAfterMillis } = SyncConfig.defaults

/** A process whose extension loop runs, with an engine that watches how it is used. */
const startLoop = Effect.fnUntraced(function* (world: World, name: string, options: ProcessOptions = {}) {
  const engine = makeEngine(world)
  const process = yield* startProcess(world, name, { crypto: engine.layer, ...options })
  const scope = yield* Scope.make()
  const close = Scope.close(scope, Exit.void)
  yield* Effect.addFinalizer(() => Effect.when(close, process.isAlive))
  const semaphore = yield* Effect.provide(
    DistributedSemaphore.make({ name: EXTENSION_LEASE, permits: 1 }),
    process.context
  )
  const loop = yield* ExtensionSync.make(semaphore).pipe(Scope.provide(scope), Effect.provide(process.context))
  yield* settle
  return { ...process, ...loop, engine, close, isOwner: Effect.map(loop.lease.status, ({ _tag }) => _tag === "Held") }
})

type Loop = Effect.Success<ReturnType<typeof startLoop>>

const setUp = Effect.gen(function* () {
  const world = yield* makeWorld()
  const a = yield* startLoop(world, "a")
  const b = yield* startLoop(world, "b")
  // It holds the line, and has had the stream for long enough.
  yield* advance("1 second")
  assert.deepStrictEqual(yield* owners([a, b]), [true, false])
  return { world, a, b }
})

const owners = (loops: ReadonlyArray<Loop>) => Effect.forEach(loops, ({ isOwner }) => isOwner)

const generation = (world: World) =>
  Effect.map(world.leases.inspect(EXTENSION_LEASE), ({ rows }) => rows[0]?.generation ?? 0)

/** Everything was applied once, in order, and the engines were used as they must be. */
const assertExactlyOnce = Effect.fnUntraced(function* (world: World, loops: ReadonlyArray<Loop>) {
  assert.deepStrictEqual(yield* appliedNumbers(world), yield* acceptedNumbers(world))
  for (const { engine } of loops) assert.deepStrictEqual(engine.violations, [])
})

describe("an owner of the extension stream yields", () => {
  it.effect("I2: ends its poll by one wake-up, loses nothing, and gets the stream back", () =>
    Effect.gen(function* () {
      const { a, b, world } = yield* setUp
      yield* world.sim.sendNumbered(world.session, 3)
      yield* settle
      const before = yield* Clock.currentTimeMillis
      const polls = (yield* world.sim.syncs(CONN)).length
      assert.strictEqual((yield* world.sim.syncs(CONN)).at(-1)?.outcome, "pending")

      yield* b.hurry
      yield* settle
      assert.strictEqual(yield* Clock.currentTimeMillis, before)
      assert.deepStrictEqual(yield* owners([a, b]), [false, true])
      assert.strictEqual((yield* world.sim.syncs(CONN))[polls - 1]?.outcome, "aborted")
      assert.deepStrictEqual(b.engine.reloads, [2])

      yield* world.sim.sendNumbered(world.session, 3)
      yield* settle
      yield* b.close
      yield* settle
      assert.isTrue(yield* a.isOwner)
      yield* world.sim.sendNumbered(world.session, 3)
      yield* settle
      assert.lengthOf(yield* appliedNumbers(world), 9)
      assert.deepStrictEqual(a.engine.reloads, [1, 3])
      yield* assertExactlyOnce(world, [a, b])
    })
  )

  it.effect("I2: finishes the commit that it is at", () =>
    Effect.gen(function* () {
      const { a, b, world } = yield* setUp
      yield* world.faults.delayNext("commitExtension", 500)
      yield* world.sim.sendNumbered(world.session, 5)
      yield* settle
      yield* b.hurry
      yield* advance(499)
      assert.deepStrictEqual(yield* owners([a, b]), [true, false])
      yield* advance(1)
      assert.deepStrictEqual(yield* owners([a, b]), [false, true])
      assert.lengthOf(yield* appliedNumbers(world), 5)
      assert.deepStrictEqual(
        (yield* world.store.readInbox({ after: 0, limit: 100 })).map((entry) => entry.generation),
        [1, 1, 1, 1, 1]
      )
      yield* assertExactlyOnce(world, [a, b])
    })
  )

  it.effect("doesn't wait for a homeserver that can't be reached", () =>
    Effect.gen(function* () {
      const { a, b, world } = yield* setUp
      yield* world.sim.unreachable
      yield* advance("2 minutes")
      assert.strictEqual((yield* a.state)._tag, "BackingOff")
      const before = yield* Clock.currentTimeMillis
      yield* b.hurry
      yield* settle
      assert.deepStrictEqual(yield* owners([a, b]), [false, true])
      assert.strictEqual(yield* Clock.currentTimeMillis, before)
    })
  )

  it.effect("keeps the stream for yieldAfterMillis after it was given it, and not longer", () =>
    Effect.gen(function* () {
      const { a, b } = yield* setUp
      yield* b.hurry
      yield* settle
      yield* a.hurry
      yield* advance(yieldAfterMillis - 1)
      assert.deepStrictEqual(yield* owners([a, b]), [false, true])
      yield* advance(1)
      assert.deepStrictEqual(yield* owners([a, b]), [true, false])
    })
  )

  it.effect("to nobody when the one in a hurry has gone: it has the stream back at once, and needn't reload", () =>
    Effect.gen(function* () {
      const { a, b, world } = yield* setUp
      yield* world.faults.delayNext("commitExtension", 500)
      yield* world.sim.sendNumbered(world.session, 5)
      yield* settle
      yield* b.hurry
      yield* settle
      yield* b.close
      yield* advance(500)
      assert.isTrue(yield* a.isOwner)
      assert.deepStrictEqual(a.engine.reloads, [1])
      assert.strictEqual(yield* generation(world), 1)
      yield* assertExactlyOnce(world, [a, b])
    })
  )

  it.effect("in the order of the queue: each owner in front of the one in a hurry yields, too", () =>
    Effect.gen(function* () {
      const { a, b, world } = yield* setUp
      const c = yield* startLoop(world, "c")
      yield* c.hurry
      yield* settle
      assert.deepStrictEqual(yield* owners([a, b, c]), [false, true, false])
      yield* advance(yieldAfterMillis)
      assert.deepStrictEqual(yield* owners([a, b, c]), [false, false, true])
      // And there it stays, since nobody else is in a hurry.
      yield* advance("1 minute")
      assert.deepStrictEqual(yield* owners([a, b, c]), [false, false, true])
    })
  )

  it.effect("I9: to one that froze before it could take it: it waits for it no longer than for its confirmation", () =>
    Effect.gen(function* () {
      const { a, b, world } = yield* setUp
      yield* b.hurry
      yield* b.freeze
      yield* advance(SyncConfig.defaults.handoverMillis + SyncConfig.defaults.waitPollMillis)
      assert.isTrue(yield* a.isOwner)
      yield* world.sim.sendNumbered(world.session, 2)
      yield* settle
      yield* b.thaw
      yield* advance("5 seconds")
      yield* assertExactlyOnce(world, [a, b])
    })
  )

  it.effect("I4: is quiet when it is ended while it is wanted and keeps the stream", () =>
    Effect.gen(function* () {
      const { a, b, world } = yield* setUp
      yield* b.hurry
      yield* settle
      yield* a.hurry
      yield* settle
      yield* b.close
      yield* settle
      assert.isTrue(yield* a.isOwner)
      const before = yield* world.leases.inspect(EXTENSION_LEASE)
      yield* a.close
      yield* advance("1 hour")
      assert.strictEqual((yield* world.leases.inspect(EXTENSION_LEASE)).rows[0]?.generation, before.rows[0]?.generation)
      yield* assertExactlyOnce(world, [a, b])
    })
  )

  it.effect("I10: two that are always in a hurry change owners no more often than yieldAfterMillis allows", () =>
    Effect.gen(function* () {
      const { a, b, world } = yield* setUp
      const before = yield* generation(world)
      yield* Effect.forkScoped(
        Effect.forEach(
          Array.from({ length: 1_000 }),
          () => Effect.all([a.hurry, b.hurry, world.sim.sendNumbered(world.session, 1), Effect.sleep(10)]),
          { discard: true }
        )
      )
      for (let step = 0; step < 1_000; step++) yield* Effect.andThen(settle, TestClock.adjust(10))
      yield* advance("5 seconds")
      const changes = (yield* generation(world)) - before
      assert.isAtMost(changes, Math.ceil(15_000 / yieldAfterMillis))
      assert.isAtLeast(changes, 40)
      assert.lengthOf(yield* appliedNumbers(world), 1_000)
      yield* assertExactlyOnce(world, [a, b])
    })
  )

  it.effect("nothing to whoever only waits", () =>
    Effect.gen(function* () {
      const { a, b, world } = yield* setUp
      yield* advance("10 minutes")
      assert.deepStrictEqual(yield* owners([a, b]), [true, false])
      assert.strictEqual(yield* generation(world), 1)
    })
  )

  type Act = Trouble.Trouble | { readonly act: "hurry" | "freeze" | "thaw" | "kill"; readonly who: number }

  const acts: fc.Arbitrary<ReadonlyArray<Act>> = fc.array(
    fc.oneof(
      ...Trouble.draw(5, [0, 1, 100, yieldAfterMillis, renewMillis, 10_001]),
      {
        weight: 8,
        arbitrary: fc.record({ act: fc.constant("hurry" as const), who: fc.integer({ min: 0, max: 2 }) })
      },
      {
        weight: 3,
        arbitrary: fc.record({
          act: fc.constantFrom("freeze" as const, "thaw" as const, "kill" as const),
          who: fc.integer({ min: 0, max: 2 })
        })
      }
    ),
    { minLength: 5, maxLength: 30 }
  )

  /** Plays a story, lets everybody live and settle, and checks the books. */
  const play = Effect.fnUntraced(function* (story: ReadonlyArray<Act>) {
    const world = yield* makeWorld()
    const all = yield* Effect.forEach(["p0", "p1", "p2"], (name) => startLoop(world, name))
    const living = [...all]
    for (const step of story) {
      if (Trouble.isTrouble(step)) {
        yield* Trouble.happen(world, step)
        yield* settle
        continue
      }
      switch (step.act) {
        case "kill":
          yield* living[step.who]!.kill
          living[step.who] = yield* startLoop(world, `p${all.length}`)
          all.push(living[step.who]!)
          break
        case "hurry":
        case "freeze":
        case "thaw":
          yield* living[step.who]![step.act]
      }
      yield* settle
    }
    for (const { thaw } of living) yield* thaw
    yield* advance("3 minutes")
    yield* assertExactlyOnce(world, all)
    // Nobody is stuck: whoever is in a hurry now, has the stream soon. A peer that was found frozen is only polled.
    for (const loop of living) {
      yield* loop.hurry
      yield* advance(living.length * (yieldAfterMillis + waitPollMillis))
      assert.isTrue(yield* loop.isOwner)
    }
  })

  it.live(
    "I1, I2: in any story of hurries, kills, freezes and faults, each event is applied once, in order",
    () =>
      Effect.promise(() =>
        fc.assert(
          fc.asyncProperty(acts, (story) =>
            Effect.runPromise(play(story).pipe(Effect.scoped, Effect.provide(TestClock.layer())))
          ),
          { numRuns: 40, seed: 1928 }
        )
      ),
    120_000
  )
})
