import { assert, describe, it } from "@effect/vitest"
import {
  CryptoError,
  DistributedSemaphore,
  Homeserver,
  HomeserverError,
  LeaseStore,
  StoreError,
  SyncConfig,
  SyncStore,
  Wake
} from "@twinloop/core"
import type { CryptoEngine, MatrixEvent } from "@twinloop/core"
import { Context, Deferred, Effect, Exit, Fiber, Layer, Metric } from "effect"
import * as CryptoTurn from "../src/CryptoTurn.ts"
import * as EncryptionNews from "../src/EncryptionNews.ts"
import * as Metrics from "../src/Metrics.ts"
import * as OutgoingRequests from "../src/OutgoingRequests.ts"
import { EXTENSION_LEASE } from "../src/SyncService.ts"
import { makeEngine } from "../src/testing/ScriptedEngine.ts"
import { makeWorld, type World } from "../src/testing/Simulation.ts"
import { advance, settle } from "../src/testing/Time.ts"

type Port = Homeserver.Homeserver["Service"]

/** A process that owns the stream, unless it is told not to, with an engine that watches how it is used. */
const setUp = Effect.fnUntraced(function* (
  options: { readonly homeserver?: (port: Port) => Port; readonly own?: boolean } = {}
) {
  const world: World = yield* makeWorld()
  const engine = makeEngine(world)
  const port = world.sim.homeserver(world.session)
  const shared = Layer.mergeAll(
    Layer.succeed(Homeserver.Homeserver, options.homeserver?.(port) ?? port),
    Layer.succeed(SyncStore.SyncStore, world.store),
    Wake.layerNone,
    engine.layer
  )
  const context = yield* Layer.build(
    OutgoingRequests.OutgoingRequests.layer.pipe(
      Layer.provideMerge(CryptoTurn.CryptoTurn.layer),
      Layer.provideMerge(EncryptionNews.EncryptionNews.layer),
      Layer.provide(shared)
    )
  )
  const take = (name: string) =>
    Effect.flatMap(
      DistributedSemaphore.make({ name: EXTENSION_LEASE, permits: 1 }),
      (semaphore) => semaphore.take
    ).pipe(
      Effect.provide(
        Layer.mergeAll(Layer.succeed(LeaseStore, world.leases), Wake.layerNone, SyncConfig.layer({ role: name }))
      )
    )
  const turn = Context.get(context, CryptoTurn.CryptoTurn)
  if (options.own !== false) yield* Effect.flatMap(take("main"), turn.open)
  return {
    world,
    engine,
    turn,
    take,
    requests: Context.get(context, OutgoingRequests.OutgoingRequests),
    news: Context.get(context, EncryptionNews.EncryptionNews)
  }
})

/** Counts one event. */
const count: CryptoTurn.Step<CryptoEngine.Received> = (engine, fence) =>
  engine.receive(fence, { toDevice: [{ type: "t", sender: "@s:x", content: {} }], fresh: false })

const trapped = new CryptoError.CryptoError({
  operation: "receive",
  reason: new CryptoError.CryptoTrapped({ message: "trapped" })
})

const query = (id: string): CryptoEngine.OutgoingRequest => ({
  id,
  request: { _tag: "Keys", keys: { kind: "query", body: { device_keys: {} } } }
})

const reasonOf = (exit: Exit.Exit<unknown, unknown>): string => (Exit.isFailure(exit) ? String(exit.cause) : "success")

describe("CryptoTurn", () => {
  it.effect("I5: loads memory once, before the first turn, and goes on with it", () =>
    Effect.gen(function* () {
      const { engine, turn } = yield* setUp()
      yield* turn.change(count)
      yield* turn.change(count)
      assert.deepStrictEqual([engine.reloads, engine.count(), engine.violations], [[1], 2, []])
    })
  )

  it.effect("has one turn at a time", () =>
    Effect.gen(function* () {
      const { engine, turn } = yield* setUp()
      const gate = yield* Deferred.make<void>()
      engine.script("receive", Deferred.await(gate))
      const first = yield* Effect.forkChild(turn.change(count))
      const second = yield* Effect.forkChild(turn.change(count))
      yield* settle
      assert.lengthOf(engine.batches, 0)
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(first)
      yield* Fiber.join(second)
      assert.deepStrictEqual([engine.count(), engine.violations], [2, []])
    })
  )

  for (const [how, spoil] of [
    ["fails", Effect.fail(trapped)],
    ["dies", Effect.die("broken")]
  ] as const) {
    it.effect(`I5: leaves memory void when a turn ${how}, and the next one loads it`, () =>
      Effect.gen(function* () {
        const { engine, turn } = yield* setUp()
        yield* turn.change(count)
        engine.script("receive", spoil)
        assert.isTrue(Exit.isFailure(yield* Effect.exit(turn.change(count))))
        assert.isUndefined(engine.count())
        yield* turn.change(count)
        assert.deepStrictEqual([engine.reloads, engine.count(), engine.violations], [[1, 1], 2, []])
      })
    )
  }

  it.effect("I5: leaves memory void when a turn is interrupted, and the next one loads it", () =>
    Effect.gen(function* () {
      const { engine, turn } = yield* setUp()
      yield* turn.change(count)
      engine.script("receive", Effect.never)
      const fiber = yield* Effect.forkChild(turn.change(count))
      yield* settle
      yield* Fiber.interrupt(fiber)
      assert.isUndefined(engine.count())
      yield* turn.change(count)
      assert.deepStrictEqual([engine.reloads, engine.count(), engine.violations], [[1, 1], 2, []])
    })
  )

  it.effect("I2: leaves memory void when the commit is refused or lost, and confirms nothing before it is done", () =>
    Effect.gen(function* () {
      const { engine, turn, world } = yield* setUp()
      let stored = 0
      const look = Effect.map(world.faults.cryptoRecords, (records) => void (stored = records.length))
      engine.script("committed", look)
      yield* turn.change(count)
      assert.strictEqual(stored, 1)
      const full = new StoreError.StoreFull({ message: "full" })
      for (const moment of ["before", "after"] as const) {
        yield* world.faults.failNext("commitCrypto", full, moment)
        const exit = yield* Effect.exit(turn.change(count))
        assert.include(reasonOf(exit), "full")
        assert.isUndefined(engine.count())
      }
      // What had been committed when only the answer was lost is there.
      yield* turn.change(count)
      assert.deepStrictEqual([engine.count(), engine.violations], [3, []])
    })
  )

  it.effect("I1: has no turn without the stream, and none once it is known to be another's", () =>
    Effect.gen(function* () {
      const { engine, take, turn, world } = yield* setUp({ own: false })
      assert.include(reasonOf(yield* Effect.exit(turn.change(count))), "doesn't own the extension stream")
      const grant = yield* take("main")
      yield* turn.open(grant)
      yield* turn.change(count)
      // Frozen for longer than its lease, as it were: another process has it.
      yield* world.leases.take({
        name: grant.name,
        permits: 1,
        count: 1,
        holder: "other#1",
        peer: {},
        nowMillis: 60_000,
        leaseMillis: 10_000
      })
      assert.include(reasonOf(yield* Effect.exit(turn.change(count))), "under generation 1 any more")
      assert.isUndefined(engine.count())
      assert.isFalse(yield* turn.isOpen)
      const waits = yield* Effect.forkChild(turn.opened)
      yield* settle
      assert.isUndefined(waits.pollUnsafe())
      assert.deepStrictEqual(engine.violations, [])
    })
  )

  it.effect("I5: the grant is dirty from the moment a turn begins until its commit is done", () =>
    Effect.gen(function* () {
      const { engine, take, turn } = yield* setUp({ own: false })
      const told: Array<string> = []
      const note = (what: string) => Effect.sync(() => void told.push(what))
      const grant = yield* take("main")
      yield* turn.open({
        ...grant,
        markDirty: Effect.andThen(note("dirty"), grant.markDirty),
        markClean: Effect.andThen(note("clean"), grant.markClean)
      })
      engine.script("receive", note("changes"))
      yield* turn.commit(count, () => note("commits"))
      assert.deepStrictEqual(told, ["dirty", "changes", "commits", "clean"])
    })
  )

  it.effect("I4: closing waits for the turn that runs, and those that wait find it closed", () =>
    Effect.gen(function* () {
      const { engine, turn } = yield* setUp()
      const gate = yield* Deferred.make<void>()
      engine.script("receive", Deferred.await(gate))
      const running = yield* Effect.forkChild(turn.change(count))
      yield* settle
      const waiting = yield* Effect.forkChild(Effect.exit(turn.change(count)))
      const closing = yield* Effect.forkChild(turn.close)
      yield* settle
      assert.isUndefined(closing.pollUnsafe())
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(closing)
      yield* Fiber.join(running)
      assert.include(reasonOf(yield* Fiber.join(waiting)), "doesn't own the extension stream")
      assert.lengthOf(engine.batches, 1)
    })
  )
})

describe("OutgoingRequests", () => {
  it.effect("sends once, also when two flush at the same moment", () =>
    Effect.gen(function* () {
      const asked: Array<string> = []
      const { engine, requests } = yield* setUp({
        homeserver: (port) => ({
          ...port,
          keys: ({ kind }) =>
            Effect.as(
              Effect.delay(
                Effect.sync(() => asked.push(kind)),
                "1 second"
              ),
              {}
            )
        })
      })
      engine.queue.push(query("a"), query("b"))
      const both = yield* Effect.forkChild(Effect.all([requests.flush, requests.flush], { concurrency: "unbounded" }))
      yield* advance("5 seconds")
      yield* Fiber.join(both)
      assert.deepStrictEqual(
        [engine.sent, asked],
        [
          ["a", "b"],
          ["query", "query"]
        ]
      )
      assert.deepStrictEqual(engine.violations, [])
    })
  )

  it.effect(
    "I4: flushes at once for who is wanted while that runs, and what was wanted before, and not afterwards",
    () =>
      Effect.gen(function* () {
        const { engine, requests } = yield* setUp({
          homeserver: (port) => ({ ...port, keys: () => Effect.succeed({}) })
        })
        engine.queue.push(query("a"))
        yield* requests.want(["@bob:x"])
        yield* settle
        assert.deepStrictEqual(engine.tracked, [])
        const flushing = yield* Effect.forkChild(requests.flushWanted)
        yield* settle
        assert.deepStrictEqual([engine.tracked, engine.sent], [["@bob:x"], ["a"]])
        yield* requests.want(["@carol:x", "@dave:x"])
        yield* settle
        assert.deepStrictEqual(engine.tracked, ["@bob:x", "@carol:x", "@dave:x"])
        yield* Fiber.interrupt(flushing)
        yield* requests.want(["@erin:x"])
        yield* advance("1 minute")
        assert.lengthOf(engine.tracked, 3)
        yield* requests.flush
        assert.deepStrictEqual([engine.tracked.length, engine.violations], [4, []])
      })
  )

  it.effect("I9: a flush for who is wanted that fails isn't made again by itself, and the next one is made", () =>
    Effect.gen(function* () {
      const { engine, requests } = yield* setUp()
      const reason = new CryptoError.CryptoTrapped({ message: "trapped" })
      engine.script("track", Effect.fail(new CryptoError.CryptoError({ operation: "track", reason })))
      yield* Effect.forkChild(requests.flushWanted)
      yield* requests.want(["@bob:x"])
      yield* advance("1 minute")
      assert.deepStrictEqual([engine.tracked, engine.reloads.length], [[], 1])
      yield* requests.want(["@carol:x"])
      yield* settle
      assert.deepStrictEqual([engine.tracked, engine.violations], [["@bob:x", "@carol:x"], []])
    })
  )

  it.effect("I9: leaves queued what is answered with something else, and says so, and sends what is behind it", () =>
    Effect.gen(function* () {
      const { engine, requests } = yield* setUp({
        homeserver: (port) => ({ ...port, keys: () => Effect.succeed<MatrixEvent.JsonObject>({}) })
      })
      engine.queue.push(query("a"), query("b"))
      const reason = new CryptoError.CryptoBadAnswer({ message: "no answer to that" })
      engine.script("markSent", Effect.fail(new CryptoError.CryptoError({ operation: "take an answer", reason })))
      const stayed = yield* requests.flush
      assert.deepStrictEqual(
        stayed.map(({ request }) => request.id),
        ["a"]
      )
      assert.deepStrictEqual(engine.sent, ["b"])
      assert.deepStrictEqual(yield* requests.flush, [])
      assert.deepStrictEqual([engine.sent, engine.violations], [["b", "a"], []])
    })
  )

  it.effect(
    "I2: offers one-time keys no second time when the answer is lost: they are published before they are sent",
    () =>
      Effect.gen(function* () {
        const sentBefore: Array<ReadonlyArray<string>> = []
        const lost = new HomeserverError.NetworkError({ message: "the answer is lost", timedOut: true })
        const { engine, requests } = yield* setUp({
          homeserver: (port) => ({
            ...port,
            keys: () =>
              Effect.suspend(() => {
                sentBefore.push([...engine.sent])
                return Effect.fail(new HomeserverError.HomeserverError({ operation: "keys/upload", reason: lost }))
              })
          })
        })
        const body = { one_time_keys: { "signed_curve25519:A": { key: "a" } } }
        engine.queue.push({ id: "keys", request: { _tag: "Keys", keys: { kind: "upload", body } } })
        yield* requests.flush
        yield* requests.flush
        assert.deepStrictEqual(sentBefore, [["keys"]])
        assert.deepStrictEqual(engine.violations, [])
      })
  )

  it.effect("counts one-time keys that the homeserver refuses because it has others", () =>
    Effect.gen(function* () {
      const reason = new HomeserverError.BadRequest({
        message: "One time key signed_curve25519:A already exists.",
        status: 400,
        errcode: "M_UNKNOWN"
      })
      const refused = new HomeserverError.HomeserverError({ operation: "keys/upload", reason })
      const { engine, requests } = yield* setUp({
        homeserver: (port) => ({ ...port, keys: () => Effect.fail(refused) })
      })
      const body = { one_time_keys: { "signed_curve25519:A": { key: "other" } } }
      engine.queue.push({ id: "keys", request: { _tag: "Keys", keys: { kind: "upload", body } } }, query("other"))
      const before = yield* Metric.value(Metrics.oneTimeKeyConflicts)
      assert.lengthOf(yield* requests.flush, 2)
      const after = yield* Metric.value(Metrics.oneTimeKeyConflicts)
      assert.strictEqual(Number(after.count) - Number(before.count), 1)
    })
  )
})

describe("EncryptionNews", () => {
  const key = (sessionId: string): SyncStore.EncryptionNews => ({ _tag: "RoomKey", roomId: "!r:x", sessionId })
  const tell =
    (...sessions: ReadonlyArray<string>): CryptoTurn.Step<void> =>
    (engine, fence) =>
      Effect.map(engine.outgoing(fence), ({ writes }) => ({ value: undefined, writes, news: sessions.map(key) }))

  it.effect("I6: tells what was committed, in order and once, from where the follower began", () =>
    Effect.gen(function* () {
      const { news, turn } = yield* setUp()
      yield* turn.change(tell("before"))
      const follower = yield* news.follow
      const waiting = yield* Effect.forkChild(follower.next)
      yield* settle
      assert.isUndefined(waiting.pollUnsafe())
      yield* turn.change(tell("a", "b"))
      assert.deepStrictEqual(yield* Fiber.join(waiting), [key("a"), key("b")])
      yield* turn.change(tell("c"))
      yield* turn.change(tell("d"))
      assert.deepStrictEqual(yield* follower.next, [key("c"), key("d")])
    }).pipe(Effect.scoped)
  )

  it.effect("finds what another process committed by a look, and doesn't look while the loops don't run (I4)", () =>
    Effect.gen(function* () {
      const { news, take, turn, world } = yield* setUp({ own: false })
      const grant = yield* take("other")
      const other = (sessionId: string) => world.store.commitCrypto(grant, { crypto: [], news: [key(sessionId)] })
      const follower = yield* news.follow
      const first = yield* Effect.forkChild(follower.next)
      yield* other("a")
      yield* advance("1 second")
      assert.deepStrictEqual(yield* Fiber.join(first), [key("a")])
      yield* news.setActive(false)
      yield* other("b")
      const second = yield* Effect.forkChild(follower.next)
      yield* advance("1 minute")
      assert.isUndefined(second.pollUnsafe())
      yield* news.setActive(true)
      yield* settle
      assert.deepStrictEqual(yield* Fiber.join(second), [key("b")])
      assert.isFalse(yield* turn.isOpen)
    }).pipe(Effect.scoped)
  )

  it.effect("I10: says that some were missed when more have come than are kept", () =>
    Effect.gen(function* () {
      const { news, turn } = yield* setUp()
      const follower = yield* news.follow
      const many = Array.from({ length: SyncStore.ENCRYPTION_NEWS_KEPT + 1 }, (_, index) => `${index}`)
      yield* turn.change(tell("gone"))
      yield* turn.change(tell(...many))
      const [first, second] = yield* follower.next
      assert.deepStrictEqual([first, second], [{ _tag: "Missed" }, key("1")])
    }).pipe(Effect.scoped)
  )
})
