import { assert, describe, it } from "@effect/vitest"
import { DistributedSemaphore, type Lease, StoreError } from "@twinloop/core"
import { Effect, Exit, Fiber, Option, Scope, Stream } from "effect"
import * as LeaseKeeper from "../src/LeaseKeeper.ts"
import { makeWorld, startProcess } from "../src/testing/Simulation.ts"
import { advance, settle } from "../src/testing/Time.ts"
import type { World } from "../src/testing/Simulation.ts"

const NAME = "stream"

/** A process with a keeper that lives in a scope of its own. */
const makeKeeper = Effect.fnUntraced(function* (world: World, name: string) {
  const process = yield* startProcess(world, name)
  const semaphore = yield* Effect.provide(DistributedSemaphore.make({ name: NAME, permits: 1 }), process.context)
  const scope = yield* Scope.make()
  const keeper = yield* Scope.provide(LeaseKeeper.make(semaphore), scope)
  return { ...process, keeper, close: Scope.close(scope, Exit.void) }
})

const isFree = Effect.fnUntraced(function* (world: World) {
  const table = yield* world.leases.inspect(NAME)
  return table.waiters.length === 0 && table.rows.every((row) => row.expiresAtMillis === 0)
})

describe("LeaseKeeper", () => {
  it.effect("takes a grant, keeps it by renewing, and says so", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld()
      const { keeper } = yield* makeKeeper(world, "a")
      const seen: Array<string> = []
      yield* Effect.forkScoped(
        Stream.runForEach(keeper.changes, (status) => Effect.sync(() => void seen.push(status._tag)))
      )
      yield* settle
      const grant = yield* keeper.take()
      assert.strictEqual(grant.generation, 1)
      assert.deepStrictEqual(yield* keeper.status, { _tag: "Held", generation: 1, holder: grant.holder })
      assert.strictEqual(Option.getOrThrow(yield* keeper.current), grant)

      // A lease lasts 10 s; after an hour it is still ours.
      yield* advance("1 hour")
      assert.isTrue(yield* world.leases.holds(grant))
      yield* keeper.release
      yield* settle
      assert.deepStrictEqual(seen, ["Released", "Waiting", "Held", "Released"])
    })
  )

  it.effect("I4: the lease row is free when release is done, and so when the scope is closed", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld()
      const { close, keeper } = yield* makeKeeper(world, "a")
      yield* keeper.take()
      assert.isFalse(yield* isFree(world))
      yield* keeper.release
      assert.isTrue(yield* isFree(world))
      assert.isTrue(Option.isNone(yield* keeper.current))
      // Releasing what isn't held is nothing.
      yield* keeper.release

      yield* keeper.take()
      yield* close
      assert.isTrue(yield* isFree(world))
      assert.deepStrictEqual(yield* keeper.status, { _tag: "Released" })
    })
  )

  it.effect("I4: an interrupted wait gives up its place in the queue", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld()
      const a = yield* makeKeeper(world, "a")
      const b = yield* makeKeeper(world, "b")
      yield* a.keeper.take()
      const waiting = yield* Effect.forkChild(b.keeper.take())
      yield* settle
      assert.deepStrictEqual(yield* b.keeper.status, { _tag: "Waiting" })
      assert.lengthOf((yield* world.leases.inspect(NAME)).waiters, 1)

      yield* Fiber.interrupt(waiting)
      assert.deepStrictEqual(yield* b.keeper.status, { _tag: "Released" })
      assert.lengthOf((yield* world.leases.inspect(NAME)).waiters, 0)
      yield* a.keeper.release
      assert.isTrue(yield* isFree(world))
      // Nothing of the abandoned wait is in the way of the next one.
      yield* b.keeper.take()
      assert.strictEqual((yield* b.keeper.status)._tag, "Held")
    })
  )

  it.effect("tells that it waits only when another holder is in the way, and once", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld()
      const a = yield* makeKeeper(world, "a")
      const b = yield* makeKeeper(world, "b")
      const refused: Array<string> = []
      const tell = (who: string) => (blocker: Lease.Blocker) =>
        Effect.sync(() => void refused.push(`${who} by ${blocker.holder.split("#")[0]}`))
      yield* a.keeper.take(tell("a"))
      yield* Effect.forkChild(b.keeper.take(tell("b")))
      yield* advance("5 seconds")
      yield* a.keeper.release
      yield* settle
      assert.strictEqual((yield* b.keeper.status)._tag, "Held")
      assert.deepStrictEqual(refused, ["b by a"])
    })
  )

  it.effect("is given the grant by the other process's release, without time passing", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld()
      const a = yield* makeKeeper(world, "a")
      const b = yield* makeKeeper(world, "b")
      yield* a.keeper.take()
      const waiting = yield* Effect.forkChild(b.keeper.take())
      yield* settle
      yield* a.keeper.release
      yield* settle
      assert.strictEqual((yield* Fiber.join(waiting)).generation, 2)
      assert.strictEqual((yield* b.keeper.status)._tag, "Held")
    })
  )

  it.effect("taking again gives the first grant back, so that it can't stand in its own way", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld()
      const { keeper } = yield* makeKeeper(world, "a")
      const first = yield* keeper.take()
      const second = yield* keeper.take()
      // Nobody owned it in between: the generation is the same.
      assert.strictEqual(second.generation, first.generation)
      assert.strictEqual(Option.getOrThrow(yield* keeper.current), second)
    })
  )

  it.effect("fails when the store can't be used, and holds nothing", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld()
      const reason = new StoreError.StoreReadOnly({ message: "read-only" })
      const broken: World = {
        ...world,
        leases: {
          ...world.leases,
          take: () => Effect.fail(new StoreError.StoreError({ operation: "take", reason }))
        }
      }
      const { keeper } = yield* makeKeeper(broken, "a")
      const error = yield* Effect.flip(keeper.take())
      assert.strictEqual(error.reason, reason)
      assert.deepStrictEqual(yield* keeper.status, { _tag: "Released" })
      assert.isTrue(yield* isFree(world))
    })
  )

  it.effect("tries once: keeps the grant that is to be had, otherwise says who has it, and waits for nothing", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld()
      const a = yield* makeKeeper(world, "a")
      const b = yield* makeKeeper(world, "b")
      const taken = yield* a.keeper.tryTake()
      assert.strictEqual(taken._tag === "Taken" ? taken.grant : taken, Option.getOrThrow(yield* a.keeper.current))
      assert.strictEqual((yield* a.keeper.status)._tag, "Held")

      const busy = yield* b.keeper.tryTake()
      assert.strictEqual(busy._tag === "Busy" ? busy.blocker.holder.split("#")[0] : busy, "a")
      assert.deepStrictEqual(yield* b.keeper.status, { _tag: "Released" })
      assert.isTrue(Option.isNone(yield* b.keeper.current))
      assert.lengthOf((yield* world.leases.inspect(NAME)).waiters, 0, "it has no place in the queue")

      // A lease lasts 10 s; what is kept is renewed like any other.
      yield* advance("1 minute")
      assert.strictEqual((yield* b.keeper.tryTake())._tag, "Busy")
      yield* a.keeper.release
      assert.strictEqual((yield* b.keeper.tryTake())._tag, "Taken")
      yield* b.close
      assert.isTrue(yield* isFree(world))
    })
  )

  it.effect("tries past a holder that was seen to die, and past no other", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld()
      const a = yield* makeKeeper(world, "a")
      const b = yield* makeKeeper(world, "b")
      const grant = yield* a.keeper.take()
      yield* a.kill
      assert.strictEqual((yield* b.keeper.tryTake(["a#another"]))._tag, "Busy")
      assert.strictEqual((yield* b.keeper.tryTake([grant.holder]))._tag, "Taken")
      assert.isFalse(yield* world.leases.holds(grant))
    })
  )

  it.effect("I4: an interrupted try holds nothing, also when it was granted at that very moment", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld()
      const slow: World = {
        ...world,
        leases: { ...world.leases, take: (request) => Effect.tap(world.leases.take(request), Effect.sleep(100)) }
      }
      const { keeper } = yield* makeKeeper(slow, "a")
      const trying = yield* Effect.forkChild(keeper.tryTake())
      yield* advance(50)
      assert.isFalse(yield* isFree(world), "the store has granted it, and the answer is under way")
      yield* Fiber.interrupt(trying)
      assert.isTrue(yield* isFree(world))
      assert.deepStrictEqual(yield* keeper.status, { _tag: "Released" })
    })
  )

  it.effect("I1: a killed process loses its grant to a waiter at once; the generation moves", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld()
      const a = yield* makeKeeper(world, "a")
      const b = yield* makeKeeper(world, "b")
      const grant = yield* a.keeper.take()
      const waiting = yield* Effect.forkChild(b.keeper.take())
      yield* settle
      yield* a.kill
      yield* settle
      assert.strictEqual((yield* Fiber.join(waiting)).generation, grant.generation + 1)
      assert.isFalse(yield* world.leases.holds(grant))
    })
  )

  it.effect("I1: a process that was frozen for longer than its lease learns that the grant is lost", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld()
      const a = yield* makeKeeper(world, "a")
      const b = yield* makeKeeper(world, "b")
      const grant = yield* a.keeper.take()
      const lost = yield* Effect.forkChild(grant.lost)
      yield* a.freeze
      const waiting = yield* Effect.forkChild(b.keeper.take())
      yield* advance("15 seconds")
      assert.strictEqual((yield* Fiber.join(waiting)).generation, 2)

      yield* a.thaw
      yield* settle
      assert.strictEqual((yield* Fiber.join(lost)).generation, 1)
      // Giving back what is another's changes nothing.
      yield* a.keeper.release
      assert.strictEqual((yield* b.keeper.status)._tag, "Held")
      assert.isFalse(yield* isFree(world))
    })
  )
})
