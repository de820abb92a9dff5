import { assert, describe, it } from "@effect/vitest"
import { SyncConfig, type SyncStore, Wake } from "@twinloop/core"
import { Context, Effect, Exit, Fiber, Scope } from "effect"
import { EncryptionNews } from "../src/EncryptionNews.ts"
import { makeWorld, startProcess, type World } from "../src/testing/Simulation.ts"
import { advance, settle } from "../src/testing/Time.ts"

const { waitPollMillis } = SyncConfig.defaults
const key = (sessionId: string): SyncStore.EncryptionNews => ({ _tag: "RoomKey", roomId: "!r:x", sessionId })

const start = Effect.fnUntraced(function* (world: World, name: string) {
  const process = yield* startProcess(world, name)
  return {
    ...process,
    news: Context.get(process.context, EncryptionNews),
    peer: Context.get(process.context, Wake).self
  }
})

/** An owner that commits keys, and a process that follows them. */
const setUp = Effect.gen(function* () {
  const world = yield* makeWorld()
  const owner = yield* start(world, "owner")
  const reader = yield* start(world, "reader")
  const lease = { name: "stream", permits: 1, count: 1, holder: "owner", peer: owner.peer }
  const outcome = yield* world.leases.take({ ...lease, nowMillis: 0, leaseMillis: 3_600_000 })
  const fence = { ...lease, generation: outcome._tag === "Granted" ? outcome.generation : 0 }
  const scope = yield* Scope.make()
  const follower = yield* reader.news.follow
  return {
    owner,
    reader,
    watch: Scope.provide(reader.news.watch(owner.peer), scope),
    unwatch: Scope.close(scope, Exit.void),
    next: Effect.tap(Effect.forkScoped(follower.next), () => settle),
    commit: (sessionId: string) =>
      world.store
        .commitCrypto(fence, { crypto: [], news: [key(sessionId)] })
        .pipe(Effect.andThen(owner.news.committed), Effect.andThen(settle))
  }
})

describe("EncryptionNews", () => {
  it.effect("tells what the other process commits without time passing, again and again", () =>
    Effect.gen(function* () {
      const { commit, next, watch } = yield* setUp
      const unwatched = yield* next
      yield* commit("a")
      assert.isUndefined(unwatched.pollUnsafe(), "without it, the store is looked at once in a while")
      yield* advance(waitPollMillis)
      assert.deepStrictEqual(yield* Fiber.join(unwatched), [key("a")])

      yield* watch
      for (const sessionId of ["b", "c"]) {
        const waiting = yield* next
        yield* commit(sessionId)
        assert.isDefined(waiting.pollUnsafe())
        assert.deepStrictEqual(yield* Fiber.join(waiting), [key(sessionId)])
      }
    })
  )

  it.effect("is in force when it returns, and nothing is missed that is committed before anybody waits", () =>
    Effect.gen(function* () {
      const { commit, next, watch } = yield* setUp
      yield* watch
      yield* commit("a")
      yield* commit("b")
      const waiting = yield* next
      assert.isDefined(waiting.pollUnsafe())
      assert.deepStrictEqual(yield* Fiber.join(waiting), [key("a"), key("b")])
    })
  )

  it.effect(
    "I4: while this process's own loops don't run, tells only who follows always, and the others afterwards",
    () =>
      Effect.gen(function* () {
        const { commit, next, reader, watch } = yield* setUp
        const always = yield* reader.news.followAlways
        yield* reader.news.setActive(false)
        yield* watch
        const resting = yield* next
        const waiting = yield* Effect.forkScoped(always.next)
        yield* settle
        yield* commit("a")
        assert.deepStrictEqual(yield* Fiber.join(waiting), [key("a")])
        yield* advance(10 * waitPollMillis)
        assert.isUndefined(resting.pollUnsafe())
        yield* reader.news.setActive(true)
        yield* advance(waitPollMillis)
        assert.deepStrictEqual(yield* Fiber.join(resting), [key("a")])
      })
  )

  it.effect("who follows always looks at the store also while the loops don't run, and who follows them doesn't", () =>
    Effect.gen(function* () {
      const { commit, next, reader } = yield* setUp
      const always = yield* reader.news.followAlways
      yield* reader.news.setActive(false)
      const resting = yield* next
      const looking = yield* Effect.forkScoped(always.next)
      yield* settle
      yield* commit("a")
      yield* advance(waitPollMillis)
      assert.deepStrictEqual(yield* Fiber.join(looking), [key("a")])
      assert.isUndefined(resting.pollUnsafe())
    })
  )

  it.effect("a process that is frozen or dead says nothing, and the store is looked at all the same", () =>
    Effect.gen(function* () {
      const { commit, next, owner, watch } = yield* setUp
      yield* watch
      const waiting = yield* next
      yield* owner.freeze
      yield* Effect.forkScoped(commit("a"))
      yield* settle
      assert.isUndefined(waiting.pollUnsafe())
      yield* advance(waitPollMillis)
      assert.deepStrictEqual(yield* Fiber.join(waiting), [key("a")])
      yield* owner.thaw
      yield* owner.kill
      yield* settle
      const after = yield* next
      yield* commit("b").pipe(Effect.forkScoped)
      yield* advance(waitPollMillis)
      assert.deepStrictEqual(yield* Fiber.join(after), [key("b")])
    })
  )

  it.effect("I4: ends with its scope, and leaves no fiber", () =>
    Effect.gen(function* () {
      const { commit, next, reader, unwatch, watch } = yield* setUp
      const before = yield* reader.fibers
      yield* watch
      yield* unwatch
      assert.strictEqual(yield* reader.fibers, before)
      const waiting = yield* next
      yield* commit("a")
      assert.isUndefined(waiting.pollUnsafe())
    })
  )
})
