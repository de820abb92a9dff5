import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import { EXTENSION_LEASE } from "../src/SyncService.ts"
import { makeEngine } from "../src/testing/ScriptedEngine.ts"
import { acceptedNumbers, appliedNumbers, makeWorld, startProcess, type World } from "../src/testing/Simulation.ts"
import { advance, settle } from "../src/testing/Time.ts"
import * as Trouble from "./support/Trouble.ts"

/** A started process with an engine that watches how it is used. */
const startWatched = Effect.fnUntraced(function* (world: World, name: string) {
  const engine = makeEngine(world)
  const process = yield* startProcess(world, name, { crypto: engine.layer })
  yield* process.service.start
  yield* settle
  return { ...process, engine, lease: Effect.map(process.service.lease, ({ _tag }) => _tag) }
})

const setUp = Effect.gen(function* () {
  const world = yield* makeWorld()
  yield* world.sim.addRooms(world.session.userId, 5)
  const first = yield* startWatched(world, "first")
  const second = yield* startWatched(world, "second")
  assert.deepStrictEqual([yield* first.lease, yield* second.lease], ["Held", "Waiting"])
  return { world, first, second }
})

type Watched = Effect.Success<ReturnType<typeof startWatched>>

/** Everything that the homeserver accepted was applied once, in order, and generations never went back. */
const assertExactlyOnce = Effect.fnUntraced(function* (world: World, processes: ReadonlyArray<Watched>) {
  assert.deepStrictEqual(yield* appliedNumbers(world), yield* acceptedNumbers(world))
  const generations = (yield* world.store.readInbox({ after: 0, limit: 1_000_000 })).map(({ generation }) => generation)
  assert.deepStrictEqual(
    generations,
    [...generations].sort((a, b) => a - b)
  )
  for (const { engine } of processes) assert.deepStrictEqual(engine.violations, [])
})

describe("two processes of one account", () => {
  it.effect("hands the stream over when the owner suspends, without time passing", () =>
    Effect.gen(function* () {
      const { first, second, world } = yield* setUp
      yield* world.sim.sendNumbered(world.session, 3)
      yield* settle
      yield* first.service.suspend()
      yield* settle
      assert.strictEqual(yield* second.lease, "Held")
      yield* world.sim.sendNumbered(world.session, 3)
      yield* settle
      assert.lengthOf(yield* appliedNumbers(world), 6)

      // Who resumes waits for his turn: the owner isn't disturbed.
      yield* first.service.resume()
      yield* settle
      assert.deepStrictEqual([yield* first.lease, yield* second.lease], ["Waiting", "Held"])
      yield* assertExactlyOnce(world, [first, second])
    })
  )

  it.effect("gives the stream to the other at once when the owner is killed in the middle of a batch", () =>
    Effect.gen(function* () {
      const { first, second, world } = yield* setUp
      yield* world.faults.delayNext("commitExtension", 60_000)
      yield* world.sim.sendNumbered(world.session, 50)
      yield* settle
      yield* first.kill
      yield* settle
      assert.strictEqual(yield* second.lease, "Held")
      assert.strictEqual(yield* world.sim.inFlight(), 2, "the dead one's sockets are closed")
      assert.lengthOf(yield* appliedNumbers(world), 50, "the homeserver sent them again")
      yield* advance("2 minutes")
      yield* assertExactlyOnce(world, [first, second])
      const { generation } = (yield* world.store.readInbox({ after: 0, limit: 1 }))[0] ?? { generation: 0 }
      assert.strictEqual(generation, 2)
    })
  )

  it.effect("I1: an owner that froze for longer than its lease finds itself replaced, and waits", () =>
    Effect.gen(function* () {
      const { first, second, world } = yield* setUp
      yield* first.freeze
      yield* world.sim.sendNumbered(world.session, 10)
      yield* advance("12 seconds")
      assert.strictEqual(yield* second.lease, "Held")
      yield* first.thaw
      yield* advance("5 seconds")
      assert.deepStrictEqual([yield* first.lease, yield* second.lease], ["Waiting", "Held"])
      assert.isUndefined(first.engine.count())
      yield* second.service.stop()
      yield* world.sim.sendNumbered(world.session, 10)
      yield* settle
      assert.strictEqual(yield* first.lease, "Held")
      yield* assertExactlyOnce(world, [first, second])
    })
  )

  it.effect("both follow rooms on connections of their own, whoever owns the stream", () =>
    Effect.gen(function* () {
      const { first, second, world } = yield* setUp
      const [room] = yield* first.rooms.rooms
      yield* world.sim.sendMessage(room?.roomId ?? "", world.session.userId, "hello")
      yield* settle
      for (const { rooms } of [first, second]) {
        assert.strictEqual((yield* rooms.get(room?.roomId ?? ""))?.latestEvent?.content.body, "hello")
      }
    })
  )

  it.effect("consumers in both processes see every entry, whoever applied it", () =>
    Effect.gen(function* () {
      const { first, second, world } = yield* setUp
      const seen: Record<string, Array<number>> = { first: [], second: [] }
      for (const [name, { inbox }] of Object.entries({ first, second })) {
        yield* Effect.forkScoped(
          inbox.consume(name, ({ sequence }) => Effect.sync(() => void seen[name]?.push(sequence)))
        )
      }
      yield* world.sim.sendNumbered(world.session, 2)
      yield* settle
      yield* first.service.suspend()
      yield* world.sim.sendNumbered(world.session, 2)
      yield* advance("1 hour")
      assert.deepStrictEqual(seen, { first: [1, 2], second: [1, 2, 3, 4] }, "I4: a suspended process doesn't look")
      yield* first.service.resume()
      yield* advance("2 seconds")
      assert.deepStrictEqual(seen, { first: [1, 2, 3, 4], second: [1, 2, 3, 4] })
    })
  )

  it.effect("I2: twenty hand-overs to and fro while 500 events flow: each applied once, in order", () =>
    Effect.gen(function* () {
      const { first, second, world } = yield* setUp
      yield* Effect.forkScoped(
        Effect.forEach(
          Array.from({ length: 100 }),
          () => Effect.andThen(world.sim.sendNumbered(world.session, 5), Effect.sleep(37)),
          { discard: true }
        )
      )
      for (let turn = 0; turn < 20; turn++) {
        const [owner, waiter] = turn % 2 === 0 ? [first, second] : [second, first]
        // Now and then a commit is slow, so that the hand-over meets it at work.
        if (turn % 3 === 0) yield* world.faults.delayNext("commitExtension", 50)
        yield* advance(185)
        const report = yield* owner.service.suspend()
        assert.isTrue(report.quiet)
        yield* settle
        assert.strictEqual(yield* waiter.lease, "Held", `turn ${turn}`)
        yield* owner.service.resume()
        yield* settle
      }
      yield* advance("10 seconds")
      assert.lengthOf(yield* appliedNumbers(world), 500)
      yield* assertExactlyOnce(world, [first, second])
      const [row] = (yield* world.leases.inspect(EXTENSION_LEASE)).rows
      assert.strictEqual(row?.generation, 21)
    })
  )

  type Act = Trouble.Trouble | { readonly act: "suspend" | "resume" | "kill" | "freeze" | "thaw"; readonly who: number }

  const acts: fc.Arbitrary<ReadonlyArray<Act>> = fc.array(
    fc.oneof(...Trouble.draw(6, [0, 1, 20, 500, 3_300, 10_001, 31_000]), {
      weight: 6,
      arbitrary: fc.record({
        act: fc.constantFrom(
          "suspend" as const,
          "resume" as const,
          "kill" as const,
          "freeze" as const,
          "thaw" as const
        ),
        who: fc.integer({ min: 0, max: 1 })
      })
    }),
    { minLength: 5, maxLength: 30 }
  )

  /** Plays a story, lets everybody live and settle, and checks the books. */
  const play = Effect.fnUntraced(function* (story: ReadonlyArray<Act>) {
    const world = yield* makeWorld()
    const all: Array<Watched> = [yield* startWatched(world, "p0"), yield* startWatched(world, "p1")]
    const living = [...all]
    const process = (who: number): Watched => living[who]!
    for (const step of story) {
      if (Trouble.isTrouble(step)) {
        yield* Trouble.happen(world, step)
        yield* settle
        continue
      }
      switch (step.act) {
        case "suspend":
          yield* Effect.forkScoped(process(step.who).service.suspend())
          break
        case "resume":
          yield* process(step.who).service.resume()
          break
        case "kill": {
          yield* process(step.who).kill
          const successor = yield* startWatched(world, `p${all.length}`)
          all.push(successor)
          living[step.who] = successor
          break
        }
        case "freeze":
          yield* process(step.who).freeze
          break
        case "thaw":
          yield* process(step.who).thaw
          break
      }
      yield* settle
    }
    for (const { service, thaw } of living) {
      yield* thaw
      yield* service.resume()
    }
    yield* advance("3 minutes")
    yield* assertExactlyOnce(world, all)
  })

  it.live(
    "I1, I2: any story of suspensions, kills, freezes and faults: each event is applied once, in order",
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
