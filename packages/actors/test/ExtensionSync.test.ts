import { assert, describe, it } from "@effect/vitest"
import {
  CryptoError,
  type CryptoEngine,
  DistributedSemaphore,
  HomeserverError,
  StoreError,
  SyncConfig
} from "@twinloop/core"
import { Context, Effect, Exit, Fiber, Scope } from "effect"
import * as ExtensionSync from "../src/ExtensionSync.ts"
import { OutgoingRequests } from "../src/OutgoingRequests.ts"
import { EXTENSION_LEASE } from "../src/SyncService.ts"
import { makeEngine } from "../src/testing/ScriptedEngine.ts"
import {
  acceptedNumbers,
  appliedNumbers,
  makeWorld,
  type Process,
  type ProcessOptions,
  startProcess,
  type World
} from "../src/testing/Simulation.ts"
import { advance, settle } from "../src/testing/Time.ts"

const CONN = "encryption"

/** The extension loop of a process, in a scope of its own, on a semaphore that outlives it. */
const startExtension = Effect.fnUntraced(function* (
  process: Process,
  semaphore?: DistributedSemaphore.DistributedSemaphore
) {
  const scope = yield* Scope.make()
  const close = Scope.close(scope, Exit.void)
  yield* Effect.addFinalizer(() => Effect.when(close, process.isAlive))
  const made = DistributedSemaphore.make({ name: EXTENSION_LEASE, permits: 1 })
  const used = semaphore ?? (yield* Effect.provide(made, process.context))
  const extension = yield* ExtensionSync.make(used).pipe(Scope.provide(scope), Effect.provide(process.context))
  yield* settle
  return { ...extension, semaphore: used, close }
})

/** A process with an engine that watches how it is used, and its extension loop. */
const startOwner = Effect.fnUntraced(function* (world: World, name: string, options: ProcessOptions = {}) {
  const engine = makeEngine(world)
  const process = yield* startProcess(world, name, { crypto: engine.layer, ...options })
  return { ...process, engine, extension: yield* startExtension(process) }
})

const setUp = Effect.gen(function* () {
  const world = yield* makeWorld()
  const owner = yield* startOwner(world, "app")
  return { world, syncs: world.sim.syncs(CONN), ...owner }
})

/** Everything was applied once, in order, and the engine was used as it must be. */
const assertExactlyOnce = Effect.fnUntraced(function* (
  world: World,
  engines: ReadonlyArray<ReturnType<typeof makeEngine>> = []
) {
  assert.deepStrictEqual(yield* appliedNumbers(world), yield* acceptedNumbers(world))
  for (const { violations } of engines) assert.deepStrictEqual(violations, [])
})

/** Another holder takes the lease away, as after a freeze that was longer than the lease. */
const steal = Effect.fnUntraced(function* (world: World) {
  const [row] = (yield* world.leases.inspect(EXTENSION_LEASE)).rows
  const taken = yield* world.leases.take({
    name: EXTENSION_LEASE,
    permits: 1,
    count: 1,
    holder: "thief",
    peer: {},
    nowMillis: 0,
    leaseMillis: 1_000_000_000,
    presumedDead: [row?.holder ?? ""]
  })
  assert.strictEqual(taken._tag, "Granted")
})

const isFree = Effect.fnUntraced(function* (world: World) {
  const table = yield* world.leases.inspect(EXTENSION_LEASE)
  return table.waiters.length === 0 && table.rows.every((row) => row.expiresAtMillis === 0)
})

const busy = new StoreError.StoreBusy({ message: "somebody else is writing" })
const readOnly = new StoreError.StoreReadOnly({ message: "read-only" })
const crypto = new CryptoError.CryptoError({
  operation: "receive",
  reason: new CryptoError.CryptoTrapped({ message: "the machine trapped" })
})

describe("ExtensionSync", () => {
  describe("requests", () => {
    it.effect("asks for both extensions and nothing else, and acknowledges only what is stored", () =>
      Effect.gen(function* () {
        const { syncs, world } = yield* setUp
        const [first, second] = yield* syncs
        assert.deepStrictEqual(first?.request, {
          connId: CONN,
          timeoutMillis: 0,
          lists: {},
          roomSubscriptions: {},
          extensions: { e2ee: true, toDevice: { limit: 100 } }
        })
        // Known to be in sync, it holds the line.
        assert.strictEqual(second?.request.timeoutMillis, 30_000)
        // What is sent is acknowledged by the request after its commit.
        yield* world.faults.delayNext("commitExtension", 1_000)
        yield* world.sim.sendNumbered(world.session, 1)
        yield* settle
        assert.deepStrictEqual(
          (yield* world.sim.ledger(world.session)).map(({ acknowledgedAtMillis }) => acknowledgedAtMillis),
          [undefined]
        )
        yield* advance("1 second")
        const last = (yield* syncs).at(-1)
        const stored = yield* world.store.extensionPosition
        assert.isDefined(stored.since)
        assert.deepStrictEqual(last?.request.extensions.toDevice, { limit: 100, since: stored.since })
        assert.strictEqual(last?.request.pos, stored.pos)
        assert.deepStrictEqual(
          (yield* world.sim.ledger(world.session)).map(({ acknowledgedAtMillis }) => acknowledgedAtMillis),
          [1_000]
        )
      })
    )

    it.effect("sends at once, in the middle of a long poll, what follows from who is shown", () =>
      Effect.gen(function* () {
        const { context, engine, syncs } = yield* setUp
        const polls = (yield* syncs).length
        yield* Context.get(context, OutgoingRequests).want(["@bob:x"])
        yield* settle
        assert.deepStrictEqual([engine.tracked, engine.violations], [["@bob:x"], []])
        assert.lengthOf(yield* syncs, polls)
      })
    )

    it.effect("I1, I4: ends that with its grant, and with the loop, whatever the homeserver doesn't answer", () =>
      Effect.gen(function* () {
        const world = yield* makeWorld()
        let inFlight = 0
        const count = (by: number) => Effect.sync(() => void (inFlight += by))
        const start = Effect.fnUntraced(function* (name: string) {
          const owner = yield* startOwner(world, name, {
            homeserver: (port) => ({
              ...port,
              keys: () => Effect.ensuring(Effect.andThen(count(1), Effect.never), count(-1))
            })
          })
          const keys = { kind: "query", body: { device_keys: {} } } as const
          owner.engine.queue.push({ id: "a", request: { _tag: "Keys", keys } })
          yield* Context.get(owner.context, OutgoingRequests).want(["@bob:x"])
          yield* settle
          assert.strictEqual(inFlight, 1)
          return owner
        })
        const first = yield* start("app")
        yield* first.extension.close
        assert.strictEqual(inFlight, 0)
        yield* start("other")
        yield* steal(world)
        yield* advance(SyncConfig.defaults.leaseMillis)
        assert.strictEqual(inFlight, 0)
      })
    )

    it.effect("reads the position from the store before every request", () =>
      Effect.gen(function* () {
        const { extension, semaphore, syncs, world, ...process } = yield* Effect.map(setUp, (all) => ({
          ...all,
          semaphore: all.extension.semaphore
        }))
        yield* extension.close
        // Another process goes on with the stream while this one doesn't run.
        const other = yield* startOwner(world, "other")
        yield* world.sim.sendNumbered(world.session, 3)
        yield* settle
        yield* other.extension.close
        const stored = yield* world.store.extensionPosition

        yield* startExtension(process, semaphore)
        assert.strictEqual((yield* syncs).at(-1)?.request.extensions.toDevice?.since, stored.since)
        assert.strictEqual((yield* syncs).at(-1)?.request.pos, stored.pos)
      })
    )

    it.effect("drains a long queue in order, by batches of a hundred, without waiting", () =>
      Effect.gen(function* () {
        const { engine, world } = yield* setUp
        yield* world.sim.sendNumbered(world.session, 1_000)
        yield* settle
        yield* settle
        yield* assertExactlyOnce(world, [engine])
        assert.lengthOf(yield* appliedNumbers(world), 1_000)
        const sizes = engine.batches.map(({ toDevice }) => toDevice.length).filter((size) => size > 0)
        assert.deepStrictEqual(
          sizes,
          Array.from({ length: 10 }, () => 100)
        )
      })
    )

    it.effect("tells the engine when the homeserver can't say whose devices changed", () =>
      Effect.gen(function* () {
        const { engine, world } = yield* setUp
        yield* world.sim.sendNumbered(world.session, 1)
        yield* settle
        yield* world.sim.expirePositions(world.session, CONN)
        yield* world.sim.sendNumbered(world.session, 1)
        yield* advance("2 seconds")
        yield* world.sim.sendNumbered(world.session, 1)
        yield* settle
        assert.deepStrictEqual(
          engine.batches.filter(({ toDevice }) => toDevice.length > 0).map(({ fresh }) => fresh),
          [false, true, false]
        )
        assert.isTrue(engine.batches[0]?.fresh, "nor on the very first answer")
        yield* assertExactlyOnce(world, [engine])
      })
    )
  })

  describe("I2: exactly once, in order", () => {
    it.effect("over errors of every kind, expiry and restarts", () =>
      Effect.gen(function* () {
        const { world, ...owner } = yield* setUp
        const { engine } = owner
        const reasons = [
          new HomeserverError.NetworkError({ message: "reset", timedOut: false }),
          new HomeserverError.ServerError({ message: "on fire", status: 502 }),
          new HomeserverError.RateLimited({ message: "slow down", retryAfterMillis: 1_000 }),
          new HomeserverError.BadResponse({ message: "HTML" })
        ]
        for (const reason of reasons) {
          yield* world.sim.inject({ connId: CONN, times: 1, effect: { _tag: "Fail", reason } })
          yield* world.sim.sendNumbered(world.session, 3)
          yield* advance("5 seconds")
        }
        yield* world.sim.expirePositions(world.session, CONN)
        yield* world.sim.sendNumbered(world.session, 3)
        yield* advance("5 seconds")
        for (const reason of [busy, new StoreError.StoreFull({ message: "full" })]) {
          yield* world.faults.failNext("commitExtension", reason)
          yield* world.faults.failNext("extensionPosition", reason)
          yield* world.sim.sendNumbered(world.session, 3)
          yield* advance("10 seconds")
        }
        for (const step of ["receive", "reload"] as const) {
          engine.script(step, Effect.fail(crypto))
          yield* world.sim.sendNumbered(world.session, 3)
          yield* advance("10 seconds")
        }
        yield* owner.extension.close
        yield* world.sim.sendNumbered(world.session, 3)
        const again = yield* startExtension(owner, owner.extension.semaphore)
        yield* advance("10 seconds")
        assert.strictEqual((yield* again.state)._tag, "Polling")
        assert.lengthOf(yield* appliedNumbers(world), 30)
        yield* assertExactlyOnce(world, [engine])
      })
    )

    it.effect("when the answer to a commit is lost: the batch is not applied again", () =>
      Effect.gen(function* () {
        const { engine, world } = yield* setUp
        yield* world.faults.failNext("commitExtension", busy, "after")
        yield* world.sim.sendNumbered(world.session, 3)
        yield* advance("5 seconds")
        yield* world.sim.sendNumbered(world.session, 3)
        yield* settle
        assert.lengthOf(yield* appliedNumbers(world), 6)
        yield* assertExactlyOnce(world, [engine])
      })
    )

    /** Stops the loop's progress at a point between two instructions. */
    const points: ReadonlyArray<{
      readonly name: string
      readonly hold: (world: World, engine: ReturnType<typeof makeEngine>) => Effect.Effect<unknown>
    }> = [
      {
        name: "the response is under way",
        hold: (world) =>
          Effect.gen(function* () {
            // Ends the poll that is out; the next one is the late one.
            yield* world.sim.sendNumbered(world.session, 1)
            yield* world.sim.inject({ connId: CONN, times: 1, effect: { _tag: "Late", millis: 3_600_000 } })
            yield* settle
          })
      },
      {
        name: "the response is decrypted in memory",
        hold: (_, engine) => Effect.sync(() => engine.script("receive", Effect.never))
      },
      {
        name: "the commit has not begun",
        hold: (world) => world.faults.delayNext("commitExtension", 3_600_000)
      },
      {
        name: "the commit is done and not known",
        hold: (world) => world.faults.delayNext("commitExtension", 3_600_000, "after")
      },
      {
        name: "the commit is known and not published",
        hold: (_, engine) => Effect.sync(() => engine.script("committed", Effect.never))
      },
      {
        name: "requests are about to be sent",
        hold: (_, engine) => Effect.sync(() => engine.script("outgoing", Effect.never))
      },
      {
        name: "the next position is being read",
        hold: (world) => world.faults.delayNext("extensionPosition", 3_600_000)
      }
    ]
    for (const { name, hold } of points) {
      for (const how of ["killed", "stopped"] as const) {
        it.effect(`when it is ${how} while ${name}`, () =>
          Effect.gen(function* () {
            const { engine, extension, world, ...process } = yield* setUp
            yield* world.sim.sendNumbered(world.session, 5)
            yield* settle
            yield* hold(world, engine)
            yield* world.sim.sendNumbered(world.session, 5)
            yield* settle
            if (how === "killed") yield* process.kill
            else {
              yield* extension.close
              assert.isTrue(yield* isFree(world))
            }
            yield* world.sim.sendNumbered(world.session, 5)

            const next = yield* startOwner(world, "next")
            yield* advance("15 seconds")
            assert.strictEqual((yield* next.extension.state)._tag, "Polling")
            yield* assertExactlyOnce(world, [engine, next.engine])
            assert.isAtLeast((yield* appliedNumbers(world)).length, 15)
          })
        )
      }
    }

    it.effect("I6: announces the inbox after the commit, not before", () =>
      Effect.gen(function* () {
        const { inbox, world } = yield* setUp
        const seen: Array<number> = []
        yield* Effect.forkScoped(inbox.consume("app", ({ sequence }) => Effect.sync(() => void seen.push(sequence))))
        yield* world.faults.delayNext("commitExtension", 500)
        yield* world.sim.sendNumbered(world.session, 2)
        yield* advance(499)
        assert.deepStrictEqual(seen, [])
        yield* advance(1)
        assert.deepStrictEqual(seen, [1, 2], "by signal: the poll is 500 ms away")
      })
    )
  })

  describe("I1: one owner", () => {
    it.effect("writes nothing when it was taken over with a response in flight, and waits again", () =>
      Effect.gen(function* () {
        const world = yield* makeWorld()
        const stale = yield* startOwner(world, "stale")
        const other = yield* startOwner(world, "other")
        assert.strictEqual((yield* other.extension.state)._tag, "WaitingForLock")

        // The owner freezes; the homeserver answers it all the same.
        yield* stale.freeze
        yield* world.sim.sendNumbered(world.session, 5)
        yield* advance("15 seconds")
        assert.strictEqual((yield* other.extension.state)._tag, "Polling")
        const entries = yield* world.store.readInbox({ after: 0, limit: 100 })
        assert.deepStrictEqual([...new Set(entries.map(({ generation }) => generation))], [2])

        yield* stale.thaw
        yield* advance("5 seconds")
        assert.strictEqual((yield* stale.extension.state)._tag, "WaitingForLock")
        assert.isUndefined(stale.engine.count(), "its memory is void")
        yield* world.sim.sendNumbered(world.session, 5)
        yield* settle
        yield* assertExactlyOnce(world, [stale.engine, other.engine])
      })
    )

    it.effect("I5: is refused when it is taken over while its commit waits; it discards, and waits again", () =>
      Effect.gen(function* () {
        const { engine, extension, world } = yield* setUp
        const before = yield* world.store.extensionPosition
        yield* world.faults.delayNext("commitExtension", 1_000)
        yield* world.sim.sendNumbered(world.session, 5)
        yield* settle
        assert.strictEqual((yield* extension.state)._tag, "Applying")
        yield* steal(world)
        yield* advance("1 second")
        assert.deepStrictEqual(yield* appliedNumbers(world), [])
        assert.deepStrictEqual(yield* world.store.extensionPosition, before)
        assert.strictEqual((yield* extension.state)._tag, "WaitingForLock")
        assert.isUndefined(engine.count())
        assert.deepStrictEqual(engine.violations, [])
      })
    )

    it.effect("ends the poll at once when the grant is lost", () =>
      Effect.gen(function* () {
        const { extension, syncs, world } = yield* setUp
        yield* steal(world)
        yield* advance(SyncConfig.defaults.renewMillis)
        assert.strictEqual((yield* extension.state)._tag, "WaitingForLock")
        assert.strictEqual((yield* syncs).at(-1)?.outcome, "aborted")
        assert.strictEqual(yield* world.sim.inFlight(), 0)
      })
    )

    it.effect("goes on from where it lost the lease when it is its own again, with its memory reloaded", () =>
      Effect.gen(function* () {
        const { engine, extension, world } = yield* setUp
        yield* steal(world)
        yield* advance("5 seconds")
        yield* world.sim.sendNumbered(world.session, 2)
        yield* world.leases.release({
          fence: { name: EXTENSION_LEASE, holder: "thief", generation: 2 },
          nowMillis: 5_000,
          handoverMillis: 1_000
        })
        yield* advance("2 seconds")
        assert.strictEqual((yield* extension.state)._tag, "Polling")
        assert.deepStrictEqual(engine.reloads, [1, 3])
        yield* assertExactlyOnce(world, [engine])
      })
    )

    it.effect("I4: gives up its place in the queue when it is ended while it waits, at once", () =>
      Effect.gen(function* () {
        const world = yield* makeWorld()
        yield* startOwner(world, "owner")
        const waiting = yield* startOwner(world, "waiting")
        assert.lengthOf((yield* world.leases.inspect(EXTENSION_LEASE)).waiters, 1)
        const closing = yield* Effect.forkChild(waiting.extension.close)
        yield* settle
        assert.isDefined(closing.pollUnsafe(), "without time passing")
        assert.lengthOf((yield* world.leases.inspect(EXTENSION_LEASE)).waiters, 0)
        yield* Fiber.join(closing)
      })
    )
  })

  describe("I5: the engine's memory", () => {
    it.effect("is loaded once, and kept over restarts that nobody came between", () =>
      Effect.gen(function* () {
        const { engine, extension, world, ...process } = yield* setUp
        yield* extension.close
        for (let n = 0; n < 3; n++) {
          const again = yield* startExtension(process, extension.semaphore)
          yield* world.sim.sendNumbered(world.session, 1)
          yield* settle
          yield* again.close
        }
        assert.deepStrictEqual(engine.reloads, [1])
        yield* assertExactlyOnce(world, [engine])
      })
    )

    it.effect("is loaded again after each turn of another process, three times to and fro", () =>
      Effect.gen(function* () {
        const world = yield* makeWorld()
        const a = yield* startOwner(world, "a")
        yield* a.extension.close
        const b = yield* startOwner(world, "b")
        yield* b.extension.close
        for (let n = 0; n < 3; n++) {
          for (const process of [a, b]) {
            const turn = yield* startExtension(process, process.extension.semaphore)
            yield* world.sim.sendNumbered(world.session, 2)
            yield* settle
            yield* turn.close
          }
        }
        assert.deepStrictEqual(a.engine.reloads, [1, 3, 5, 7])
        assert.deepStrictEqual(b.engine.reloads, [2, 4, 6, 8])
        assert.lengthOf(yield* appliedNumbers(world), 12)
        yield* assertExactlyOnce(world, [a.engine, b.engine])
      })
    )

    it.effect("is discarded and loaded again, after a backoff, when the engine fails", () =>
      Effect.gen(function* () {
        const { engine, extension, world } = yield* setUp
        engine.script("receive", Effect.fail(crypto))
        yield* world.sim.sendNumbered(world.session, 2)
        yield* settle
        const state = yield* extension.state
        assert.strictEqual(state._tag === "BackingOff" ? state.failure.message : state._tag, crypto.message)
        assert.isUndefined(engine.count())
        yield* advance("1 second")
        assert.deepStrictEqual(engine.reloads, [1, 1])
        yield* assertExactlyOnce(world, [engine])
      })
    )

    it.effect("backs off more and more while loading fails, and keeps the lease", () =>
      Effect.gen(function* () {
        const { engine, extension, world } = yield* setUp
        let attempts = 0
        const failing = Effect.suspend(() => Effect.fail((attempts++, crypto)))
        for (let n = 0; n < 100; n++) engine.script("reload", failing)
        engine.script("receive", Effect.fail(crypto))
        yield* world.sim.sendNumbered(world.session, 1)
        yield* advance("10 minutes")
        assert.isTrue(attempts >= 20 && attempts <= 50, `${attempts} attempts`)
        assert.strictEqual((yield* extension.state)._tag, "BackingOff")
        assert.strictEqual((yield* extension.lease.status)._tag, "Held")
      })
    )

    it.effect("is loaded again after the loop has given up while it polled", () =>
      Effect.gen(function* () {
        const { engine, extension, world } = yield* setUp
        const reason = new HomeserverError.Unauthorized({ message: "who are you", softLogout: true })
        yield* world.sim.inject({ connId: CONN, times: 1, effect: { _tag: "Fail", reason } })
        yield* world.sim.sendNumbered(world.session, 1)
        yield* settle
        assert.strictEqual((yield* extension.state)._tag, "Failed")
        assert.isUndefined(engine.count())
        yield* extension.restart
        yield* world.sim.sendNumbered(world.session, 1)
        yield* settle
        assert.deepStrictEqual(engine.reloads, [1, 1])
        yield* assertExactlyOnce(world, [engine])
      })
    )

    it.effect("is discarded when the loop is ended in the middle of a batch, and loaded again by the next", () =>
      Effect.gen(function* () {
        const { engine, extension, world, ...process } = yield* setUp
        yield* world.faults.delayNext("commitExtension", 1_000)
        yield* world.sim.sendNumbered(world.session, 1)
        yield* settle
        yield* extension.close
        assert.isUndefined(engine.count())
        yield* startExtension(process, extension.semaphore)
        assert.deepStrictEqual(engine.reloads, [1, 1])
        yield* assertExactlyOnce(world, [engine])
      })
    )
  })

  describe("outgoing requests", () => {
    const upload = (id: string): CryptoEngine.OutgoingRequest => ({
      id,
      request: { _tag: "Keys", keys: { kind: "query", body: { device_keys: {} } } }
    })
    const toDevice = (world: World, id: string): CryptoEngine.OutgoingRequest => ({
      id,
      request: {
        _tag: "ToDevice",
        toDevice: {
          type: "org.twinloop.self",
          txnId: id,
          messages: { [world.session.userId]: { [world.session.deviceId]: { number: 1 } } }
        }
      }
    })

    it.effect("are sent in order and marked, each with its own commit, before the next poll", () =>
      Effect.gen(function* () {
        const { engine, extension, world } = yield* setUp
        engine.queue.push(upload("1"), toDevice(world, "2"), upload("3"))
        yield* world.sim.sendNumbered(world.session, 1)
        yield* settle
        assert.deepStrictEqual(engine.sent, ["1", "2", "3"])
        assert.strictEqual((yield* extension.state)._tag, "Polling")
        const operations = (yield* world.sim.requests).map(({ operation }) => operation)
        assert.deepStrictEqual(operations.slice(2, 6), ["keys/query", "sendToDevice", "keys/query", "sync"])
        // What it sent to itself came back: two events and three answers are counted, and stored.
        assert.strictEqual(engine.count(), 5)
        assert.deepStrictEqual(engine.violations, [])
      })
    )

    it.effect("I9: one that the homeserver refuses stays queued and holds up nothing", () =>
      Effect.gen(function* () {
        const { engine, extension, world } = yield* setUp
        const reason = new HomeserverError.BadRequest({ message: "no", status: 400, errcode: "M_BAD_JSON" })
        const refused = yield* world.sim.inject({ operation: "sendToDevice", effect: { _tag: "Fail", reason } })
        engine.queue.push(toDevice(world, "refused"), upload("behind"))
        for (let n = 0; n < 3; n++) {
          yield* world.sim.sendNumbered(world.session, 1)
          yield* settle
        }
        assert.deepStrictEqual(engine.sent, ["behind"])
        assert.deepStrictEqual(
          engine.queue.map(({ id }) => id),
          ["refused"]
        )
        assert.strictEqual((yield* extension.state)._tag, "Polling")
        assert.lengthOf(yield* appliedNumbers(world), 3)

        yield* refused.remove
        yield* world.sim.sendNumbered(world.session, 1)
        yield* settle
        assert.deepStrictEqual(engine.sent, ["behind", "refused"])
      })
    )

    it.effect("wait for the next iteration when the network is gone, and are not lost", () =>
      Effect.gen(function* () {
        const { engine, world } = yield* setUp
        engine.queue.push(upload("1"), upload("2"))
        const reason = new HomeserverError.NetworkError({ message: "reset", timedOut: false })
        const fault = yield* world.sim.inject({ operation: "keys/query", times: 1, effect: { _tag: "Fail", reason } })
        yield* world.sim.sendNumbered(world.session, 1)
        yield* settle
        assert.strictEqual(yield* fault.hits, 1)
        assert.deepStrictEqual(engine.sent, [])
        yield* advance("31 seconds")
        assert.deepStrictEqual(engine.sent, ["1", "2"])
        assert.deepStrictEqual(engine.violations, [])
      })
    )

    it.effect("that an owner before left unsent go out before the first poll", () =>
      Effect.gen(function* () {
        const world = yield* makeWorld()
        const engine = makeEngine(world)
        engine.queue.push(upload("1"))
        const process = yield* startProcess(world, "app", { crypto: engine.layer })
        yield* startExtension(process)
        assert.deepStrictEqual((yield* world.sim.requests).map(({ operation }) => operation).slice(0, 2), [
          "keys/query",
          "sync"
        ])
      })
    )

    it.effect("leave memory void when the commit of an answer fails", () =>
      Effect.gen(function* () {
        const { engine, world } = yield* setUp
        engine.queue.push(upload("1"))
        yield* world.faults.delayNext("commitExtension", 0)
        yield* world.sim.sendNumbered(world.session, 1)
        engine.script("markSent", Effect.asVoid(world.faults.failNext("commitCrypto", busy)))
        yield* settle
        assert.isUndefined(engine.count())
        yield* advance("1 second")
        assert.deepStrictEqual(engine.reloads, [1, 1])
        yield* assertExactlyOnce(world, [engine])
      })
    )
  })

  describe("errors", () => {
    it.effect("I7: quarantines a malformed to-device event with its JSON, and applies the others", () =>
      Effect.gen(function* () {
        const { extension, world } = yield* setUp
        const stored = yield* world.store.extensionPosition
        const good = (number: number) => ({ type: "numbered", sender: "@bob:sim", content: { number } })
        const bad = [{ type: "numbered", content: { number: 2 } }, "not even an object", { ...good(4), content: 7 }]
        yield* world.sim.inject({
          connId: CONN,
          times: 1,
          effect: {
            _tag: "Reply",
            json: {
              pos: stored.pos,
              extensions: { to_device: { next_batch: stored.since, events: [good(1), ...bad, good(5)] } }
            }
          }
        })
        yield* advance("31 seconds")
        assert.deepStrictEqual(yield* appliedNumbers(world), [1, 5])
        assert.strictEqual(yield* world.store.quarantineCount, bad.length)
        assert.deepStrictEqual((yield* world.store.quarantine(10)).map(({ raw }) => raw).reverse(), bad)
        assert.strictEqual((yield* extension.state)._tag, "Polling")
      })
    )

    it.effect("gives up when storage can't be written, lets the lease go, and tries again when it is told to", () =>
      Effect.gen(function* () {
        const { engine, extension, syncs, world } = yield* setUp
        yield* world.faults.failNext("commitExtension", readOnly)
        yield* world.sim.sendNumbered(world.session, 2)
        yield* settle
        assert.strictEqual((yield* extension.state)._tag, "Failed")
        assert.isTrue(yield* isFree(world))
        const before = (yield* syncs).length
        yield* advance("1 hour")
        assert.lengthOf(yield* syncs, before)

        yield* extension.restart
        yield* settle
        assert.strictEqual((yield* extension.state)._tag, "Polling")
        yield* assertExactlyOnce(world, [engine])
      })
    )

    it.effect("gives up when the login is lost, and lets the lease go", () =>
      Effect.gen(function* () {
        const { extension, world } = yield* setUp
        yield* world.sim.endSession(world.session, "hard")
        yield* advance("31 seconds")
        const state = yield* extension.state
        assert.strictEqual(state._tag === "Failed" ? state.failure.class : state._tag, "auth")
        assert.isTrue(yield* isFree(world))
      })
    )

    it.effect("I10: doesn't ask in a hot loop when the homeserver doesn't hold the line open, and misses nothing", () =>
      Effect.gen(function* () {
        const world = yield* makeWorld()
        yield* startOwner(world, "app", {
          homeserver: (port) => ({ ...port, sync: (request) => port.sync({ ...request, timeoutMillis: 0 }) })
        })
        yield* advance("10 minutes")
        assert.isBelow((yield* world.sim.syncs(CONN)).length, 60)
        yield* world.sim.sendNumbered(world.session, 3)
        yield* advance("30 seconds")
        yield* assertExactlyOnce(world)
      })
    )

    it.effect("I9: tries again when the lease can't be asked for", () =>
      Effect.gen(function* () {
        const world = yield* makeWorld()
        let failures = 5
        const reason = new StoreError.StoreUnavailable({ message: "no such directory" })
        const flaky: World = {
          ...world,
          leases: {
            ...world.leases,
            take: (request) =>
              failures-- > 0
                ? Effect.fail(new StoreError.StoreError({ operation: "take", reason: busy }))
                : world.leases.take(request)
          }
        }
        const { extension } = yield* startOwner(flaky, "app")
        yield* advance("30 seconds")
        assert.strictEqual((yield* extension.state)._tag, "Polling")

        const broken: World = {
          ...world,
          leases: { ...world.leases, take: () => Effect.fail(new StoreError.StoreError({ operation: "take", reason })) }
        }
        const other = yield* startOwner(broken, "other")
        assert.strictEqual((yield* other.extension.state)._tag, "Failed")
      })
    )

    it.effect("tells when the engine meets a defect, and leaves nothing of the batch", () =>
      Effect.gen(function* () {
        const { engine, extension, world } = yield* setUp
        engine.script("receive", Effect.die(new Error("a bug")))
        yield* world.sim.sendNumbered(world.session, 2)
        yield* settle
        assert.isTrue(Exit.isSuccess(yield* Effect.exit(extension.crashed)))
        assert.isUndefined(engine.count())
        assert.deepStrictEqual(yield* appliedNumbers(world), [])
      })
    )
  })

  it.effect("I4: when its scope has closed, nothing of it runs, and the lease row is free", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld()
      const process = yield* startProcess(world, "app")
      const idle = yield* process.fibers
      const extension = yield* startExtension(process)
      assert.isAbove(yield* process.fibers, idle)
      assert.strictEqual(yield* world.sim.inFlight(CONN), 1)
      yield* extension.close
      assert.strictEqual(yield* process.fibers, idle)
      assert.strictEqual(yield* world.sim.inFlight(), 0)
      assert.isTrue(yield* isFree(world))
    })
  )
})
