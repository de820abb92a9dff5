import { assert, describe, it } from "@effect/vitest"
import { SyncConfig } from "@twinloop/core"
import { Cause, Clock, Deferred, Effect, Fiber } from "effect"
import * as Supervised from "../src/Supervised.ts"
import { advance, settle } from "../src/testing/Time.ts"

/** A loop that crashes on command, and a record of the lives it had. */
const makeLives = Effect.gen(function* () {
  const bornAt: Array<number> = []
  const endedAt: Array<number> = []
  let current = yield* Deferred.make<Cause.Cause<never>>()
  const make = Effect.gen(function* () {
    bornAt.push(yield* Clock.currentTimeMillis)
    current = yield* Deferred.make<Cause.Cause<never>>()
    yield* Effect.addFinalizer(() => Effect.map(Clock.currentTimeMillis, (now) => void endedAt.push(now)))
    return { crashed: Deferred.await(current) }
  })
  const crash = Effect.suspend(() => Deferred.succeed(current, Cause.die(new Error("a bug"))))
  return { bornAt, endedAt, make, crash }
})

/** Equal jitter: between half of the doubled delay and all of it. */
const isBackoff = (millis: number, attempt: number): boolean => {
  const doubled = Math.min(SyncConfig.defaults.backoffMaxMillis, SyncConfig.defaults.backoffMinMillis * 2 ** attempt)
  return millis >= doubled / 2 && millis <= doubled
}

describe("Supervised", () => {
  it.effect("makes a crashed loop again, after a wait that grows from crash to crash", () =>
    Effect.gen(function* () {
      const { bornAt, endedAt, crash, make } = yield* makeLives
      yield* Effect.forkChild(Supervised.run("test", make, () => Effect.void))
      yield* settle
      for (let life = 0; life < 10; life++) {
        yield* crash
        yield* advance("30 seconds")
      }
      assert.lengthOf(bornAt, 11)
      assert.lengthOf(endedAt, 10, "each life has ended before the next one begins")
      // A life of less than the longest wait doesn't count as a success.
      bornAt.slice(1).forEach((at, life) => {
        const waited = at - endedAt[life]!
        assert.isTrue(isBackoff(waited, life), `the wait after life ${life} was ${waited} ms`)
      })
    })
  )

  it.effect("starts with the shortest wait again after a long life", () =>
    Effect.gen(function* () {
      const { bornAt, endedAt, crash, make } = yield* makeLives
      yield* Effect.forkChild(Supervised.run("test", make, () => Effect.void))
      yield* settle
      for (let life = 0; life < 5; life++) {
        yield* crash
        yield* advance("1 minute")
      }
      bornAt.slice(1).forEach((at, life) => assert.isTrue(isBackoff(at - endedAt[life]!, 0)))
    })
  )

  it.effect("I4: an interruption ends the loop and what uses it, and waits for both", () =>
    Effect.gen(function* () {
      const { endedAt, make } = yield* makeLives
      let used = "not yet"
      const use = () =>
        Effect.never.pipe(
          Effect.onInterrupt(() =>
            Effect.andThen(
              Effect.sleep(10),
              Effect.sync(() => (used = "ended"))
            )
          ),
          Effect.forkScoped
        )
      const supervisor = yield* Effect.forkChild(Supervised.run("test", make, use))
      yield* settle
      const interruption = yield* Effect.forkChild(Fiber.interrupt(supervisor))
      yield* advance(10)
      yield* Fiber.join(interruption)
      assert.strictEqual(used, "ended")
      assert.deepStrictEqual(endedAt, [10])
    })
  )
})
