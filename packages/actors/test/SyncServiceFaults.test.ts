import { assert, describe, it } from "@effect/vitest"
import { HomeserverError, StoreError, type SyncStore, type SyncServiceMachine } from "@twinloop/core"
import { Effect, Latch, Stream } from "effect"
import { connId } from "../src/MainSync.ts"
import { EXTENSION_LEASE } from "../src/SyncService.ts"
import { makeEngine } from "../src/testing/ScriptedEngine.ts"
import { acceptedNumbers, appliedNumbers, makeWorld, startProcess, type World } from "../src/testing/Simulation.ts"
import { advance, settle } from "../src/testing/Time.ts"

const MAIN = connId("app")
const EXTENSION = "encryption"

const setUp = Effect.gen(function* () {
  const world = yield* makeWorld()
  const roomIds = yield* world.sim.addRooms(world.session.userId, 30)
  const engine = makeEngine(world)
  const process = yield* startProcess(world, "app", { crypto: engine.layer })
  yield* process.service.start
  yield* settle
  return { world, roomIds, process, engine, service: process.service }
})

const tags = (state: SyncServiceMachine.ServiceState) => [state._tag, state.main._tag, state.extension._tag]
const network = new HomeserverError.NetworkError({ message: "no route", timedOut: false })
const onFire = new HomeserverError.ServerError({ message: "on fire", status: 500 })
const forbidden = new HomeserverError.Forbidden({ message: "no", errcode: "M_FORBIDDEN" })

const others = [
  { broken: EXTENSION, healthy: MAIN },
  { broken: MAIN, healthy: EXTENSION }
]

/** Requests on a connection that begin during ten minutes, with a message of each kind every ten seconds. */
const tenMinutes = Effect.fnUntraced(function* (world: World, connection: string, roomId: string) {
  const before = (yield* world.sim.syncs(connection)).length
  for (let n = 0; n < 60; n++) {
    yield* world.sim.sendNumbered(world.session, 1)
    yield* world.sim.sendMessage(roomId, world.session.userId, `message ${n}`)
    yield* advance("10 seconds")
  }
  return (yield* world.sim.syncs(connection)).length - before
})

describe("SyncService under faults", () => {
  it.effect("never calls a loop in sync while the homeserver can't be reached, nor the stream another's", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld()
      const { service } = yield* startProcess(world, "app")
      const seen = new Set<string>()
      const watch = Stream.runForEach(service.changes, ({ extension, main }) =>
        Effect.sync(() => {
          seen.add(`main ${main._tag}`)
          seen.add(`extension ${extension._tag}`)
        })
      )
      yield* Effect.forkChild(watch)
      const faults = yield* Effect.forEach([MAIN, EXTENSION], (connId) =>
        world.sim.inject({ connId, effect: { _tag: "Fail", reason: network } })
      )
      yield* service.start
      yield* advance("2 minutes")
      const untilAnswered = [...seen].sort()
      assert.deepStrictEqual(untilAnswered, [
        "extension BackingOff",
        "extension Loading",
        "extension Stopped",
        "extension TakingLock",
        "main BackingOff",
        "main Loading",
        "main Stopped"
      ])
      // The first answer is there within a round trip, though nothing has happened that would end a long poll.
      for (const fault of faults) yield* fault.remove
      yield* advance("30 seconds")
      assert.deepStrictEqual(tags(yield* service.state), ["Running", "Syncing", "Syncing"])
    })
  )

  describe("I3: independent loops", () => {
    for (const { broken, healthy } of others) {
      const faults = [
        ["fails", { _tag: "Fail", reason: onFire }],
        ["hangs", { _tag: "Hang" }],
        ["is slow", { _tag: "Late", millis: 45_000 }]
      ] as const
      for (const [how, effect] of faults) {
        it.effect(`the rate of ${healthy} is the same while ${broken} ${how}`, () =>
          Effect.gen(function* () {
            const { roomIds, world } = yield* setUp
            const undisturbed = yield* tenMinutes(world, healthy, roomIds[0]!)
            yield* world.sim.inject({ connId: broken, effect })
            const disturbed = yield* tenMinutes(world, healthy, roomIds[0]!)
            assert.strictEqual(disturbed, undisturbed)
          })
        )
      }
    }

    it.effect("an expiry of one connection doesn't touch the other", () =>
      Effect.gen(function* () {
        const { service, world } = yield* setUp
        for (const { broken, healthy } of others) {
          yield* world.sim.sendNumbered(world.session, 1)
          yield* settle
          const before = (yield* world.sim.syncs(healthy)).map(({ outcome }) => outcome)
          yield* world.sim.expirePositions(world.session, broken)
          yield* settle
          assert.deepStrictEqual(
            (yield* world.sim.syncs(healthy)).map(({ outcome }) => outcome),
            before
          )
          assert.deepStrictEqual(tags(yield* service.state), ["Running", "Syncing", "Syncing"])
        }
      })
    )

    it.effect("a lock that is held elsewhere never delays the main loop", () =>
      Effect.gen(function* () {
        const world = yield* makeWorld()
        const roomIds = yield* world.sim.addRooms(world.session.userId, 30)
        const owner = yield* startProcess(world, "owner")
        yield* owner.service.start
        yield* settle
        const process = yield* startProcess(world, "app")
        yield* process.service.start
        yield* settle
        assert.lengthOf(yield* process.rooms.rooms, 30)
        assert.deepStrictEqual(tags(yield* process.service.state), ["Running", "Syncing", "WaitingForLock"])
        yield* advance("1 hour")
        yield* world.sim.sendMessage(roomIds[0]!, world.session.userId, "hello")
        yield* settle
        assert.strictEqual((yield* process.rooms.get(roomIds[0]!))?.latestEvent?.content.body, "hello")
        assert.strictEqual((yield* owner.service.lease)._tag, "Held")
      })
    )

    it.effect("a defect restarts the loop that met it, and only that one", () =>
      Effect.gen(function* () {
        const world = yield* makeWorld()
        let defects = 1
        const process = yield* startProcess(world, "app", {
          homeserver: (port) => ({
            ...port,
            sync: (request) =>
              request.connId === EXTENSION && request.extensions.toDevice?.since !== undefined && defects-- > 0
                ? Effect.die(new Error("a bug of the adapter"))
                : port.sync(request)
          })
        })
        yield* process.service.start
        yield* world.sim.sendNumbered(world.session, 2)
        yield* settle
        assert.deepStrictEqual(tags(yield* process.service.state), ["Running", "Syncing", "Stopped"])
        const [row] = (yield* world.leases.inspect(EXTENSION_LEASE)).rows
        assert.strictEqual(row?.expiresAtMillis, 0, "the crashed loop holds nothing")
        const main = (yield* world.sim.syncs(MAIN)).length

        yield* advance("1 second")
        assert.deepStrictEqual(tags(yield* process.service.state), ["Running", "Syncing", "Syncing"])
        assert.lengthOf(yield* world.sim.syncs(MAIN), main)
        yield* world.sim.sendNumbered(world.session, 2)
        yield* settle
        assert.deepStrictEqual(yield* appliedNumbers(world), [1, 2, 3, 4])
      })
    )

    it.effect("a loop that waits for something else isn't hurried when the network is back for the other", () =>
      Effect.gen(function* () {
        const { world } = yield* setUp
        const reason = new HomeserverError.RateLimited({ message: "slow down", retryAfterMillis: 120_000 })
        yield* world.sim.inject({ connId: MAIN, times: 1, effect: { _tag: "Fail", reason } })
        yield* world.sim.inject({ connId: EXTENSION, times: 5, effect: { _tag: "Fail", reason: network } })
        yield* advance("31 seconds")
        const before = (yield* world.sim.syncs(MAIN)).length
        yield* advance("115 seconds")
        assert.lengthOf(yield* world.sim.syncs(MAIN), before, "the homeserver asked for two minutes")
        yield* advance("10 seconds")
        assert.isAbove((yield* world.sim.syncs(MAIN)).length, before)
      })
    )
  })

  describe("offline", () => {
    it.effect("I9: says so, and runs again soon after the network is back, with nothing lost", () =>
      Effect.gen(function* () {
        const { engine, process, roomIds, service, world } = yield* setUp
        yield* world.sim.unreachable
        yield* settle
        assert.strictEqual((yield* service.state)._tag, "Offline")
        yield* advance("1 hour")
        assert.strictEqual((yield* service.state)._tag, "Offline")
        yield* world.sim.sendNumbered(world.session, 3)
        yield* world.sim.sendMessage(roomIds[0]!, world.session.userId, "while away")
        yield* world.sim.reachable
        // Never longer than the longest backoff.
        yield* advance("30 seconds")
        assert.deepStrictEqual(tags(yield* service.state), ["Running", "Syncing", "Syncing"])
        assert.strictEqual((yield* process.rooms.get(roomIds[0]!))?.latestEvent?.content.body, "while away")
        assert.deepStrictEqual(yield* appliedNumbers(world), yield* acceptedNumbers(world))
        assert.deepStrictEqual(engine.violations, [])
      })
    )

    it.effect("I9: after a short break, is back within a second or two", () =>
      Effect.gen(function* () {
        const { service, world } = yield* setUp
        yield* world.sim.unreachable
        yield* advance("1 second")
        yield* world.sim.reachable
        yield* advance("2 seconds")
        assert.deepStrictEqual(tags(yield* service.state), ["Running", "Syncing", "Syncing"])
      })
    )

    it.effect("I10: asks a bounded number of times while it is offline", () =>
      Effect.gen(function* () {
        const { world } = yield* setUp
        yield* world.sim.unreachable
        const before = (yield* world.sim.requests).length
        yield* advance("10 minutes")
        const asked = (yield* world.sim.requests).length - before
        // Two loops and a probe: each 7 times until its wait is 15 to 30 s, then 20 to 40 times.
        assert.isTrue(asked >= 60 && asked <= 150, `${asked} requests`)
      })
    )

    it.effect("I10: isn't in a hurry when the probe is answered and the loops are not", () =>
      Effect.gen(function* () {
        const { service, world } = yield* setUp
        yield* world.sim.inject({ operation: "sync", effect: { _tag: "Fail", reason: network } })
        const before = (yield* world.sim.requests).length
        yield* advance("10 minutes")
        const asked = (yield* world.sim.requests).length - before
        assert.isAtMost(asked, 250)
        // What a probe is for: the loops try when it is answered, and not when their own wait is over.
        const requests = yield* world.sim.requests
        const probes = requests.filter(({ operation }) => operation === "versions")
        assert.isAtLeast(probes.length, 20)
        for (const { endedAtMillis } of probes) {
          const tried = requests.filter(({ operation, startedAtMillis }) => {
            return operation === "sync" && startedAtMillis === endedAtMillis
          })
          assert.lengthOf(tried, 2, `at ${endedAtMillis}`)
        }
        assert.strictEqual((yield* service.state)._tag, "Offline")
      })
    )

    for (const { broken, healthy } of others) {
      it.effect(`I3: the network's return for ${broken} leaves ${healthy} its wait, which a homeserver asked for`, () =>
        Effect.gen(function* () {
          const { world } = yield* setUp
          const limited = new HomeserverError.RateLimited({ message: "slow down", retryAfterMillis: 120_000 })
          yield* world.sim.inject({ connId: healthy, effect: { _tag: "Fail", reason: limited } })
          yield* world.sim.inject({ connId: broken, effect: { _tag: "Fail", reason: network } })
          // The long polls that are held end well.
          yield* advance("45 seconds")
          const [before, brokenBefore] = [yield* world.sim.syncs(healthy), yield* world.sim.syncs(broken)]
          yield* advance("1 minute")
          assert.lengthOf(yield* world.sim.syncs(healthy), before.length)
          assert.isAbove((yield* world.sim.syncs(broken)).length, brokenBefore.length)
        })
      )
    }

    for (const reason of [onFire, forbidden]) {
      it.effect(`a homeserver that says no (${reason._tag}) isn't offline; it is asked a bounded number of times`, () =>
        Effect.gen(function* () {
          const { service, world } = yield* setUp
          const fault = yield* world.sim.inject({ effect: { _tag: "Fail", reason } })
          const before = (yield* world.sim.requests).length
          yield* advance("10 minutes")
          const state = yield* service.state
          assert.deepStrictEqual(tags(state), ["Running", "BackingOff", "BackingOff"])
          const asked = (yield* world.sim.requests).length - before
          assert.isTrue(asked >= 40 && asked <= 100, `${asked} requests`)
          assert.isFalse((yield* world.sim.requests).some(({ operation }) => operation === "versions"))
          yield* fault.remove
          yield* advance("30 seconds")
          assert.deepStrictEqual(tags(yield* service.state), ["Running", "Syncing", "Syncing"])
        })
      )
    }

    it.effect("stops and starts while offline", () =>
      Effect.gen(function* () {
        const { service, world } = yield* setUp
        yield* world.sim.unreachable
        yield* advance("1 minute")
        assert.deepStrictEqual(yield* service.stop(), { quiet: true, tookMillis: 0, unfinished: [] })
        assert.strictEqual((yield* service.state)._tag, "Idle")
        const before = (yield* world.sim.requests).length
        yield* advance("10 minutes")
        assert.lengthOf(yield* world.sim.requests, before)

        yield* service.start
        yield* settle
        assert.strictEqual((yield* service.state)._tag, "Offline")
        yield* service.start
        yield* world.sim.reachable
        yield* advance("1 second")
        assert.deepStrictEqual(tags(yield* service.state), ["Running", "Syncing", "Syncing"])
      })
    )

    it.effect("goes on probing when the adapter has a defect in the probe", () =>
      Effect.gen(function* () {
        const world = yield* makeWorld()
        let probes = 0
        const process = yield* startProcess(world, "app", {
          homeserver: (port) => ({
            ...port,
            capabilities: Effect.suspend(() => (probes++ < 2 ? Effect.die(new Error("a bug")) : port.capabilities))
          })
        })
        yield* process.service.start
        yield* settle
        yield* world.sim.unreachable
        yield* advance("1 minute")
        assert.isAbove(probes, 2)
      })
    )
  })

  describe("terminal", () => {
    it.effect("a lost login is a state of its own; start tries again", () =>
      Effect.gen(function* () {
        const { service, world } = yield* setUp
        const reason = new HomeserverError.Unauthorized({ message: "who are you", softLogout: true })
        const fault = yield* world.sim.inject({ effect: { _tag: "Fail", reason } })
        yield* advance("31 seconds")
        const state = yield* service.state
        assert.deepStrictEqual(tags(state), ["Terminal", "Failed", "Failed"])
        assert.strictEqual(state._tag === "Terminal" ? state.failure.class : "", "auth")
        const [row] = (yield* world.leases.inspect(EXTENSION_LEASE)).rows
        assert.strictEqual(row?.expiresAtMillis, 0, "the stream is free for others")
        const before = (yield* world.sim.requests).length
        yield* advance("1 hour")
        assert.lengthOf(yield* world.sim.requests, before)

        yield* fault.remove
        yield* service.start
        yield* settle
        assert.deepStrictEqual(tags(yield* service.state), ["Running", "Syncing", "Syncing"])
      })
    )

    it.effect("I3: one loop that has given up leaves the other running", () =>
      Effect.gen(function* () {
        const { roomIds, process, service, world } = yield* setUp
        yield* world.faults.failNext("commitExtension", new StoreError.StoreReadOnly({ message: "read-only" }))
        yield* world.sim.sendNumbered(world.session, 1)
        yield* settle
        assert.deepStrictEqual(tags(yield* service.state), ["Terminal", "Syncing", "Failed"])
        yield* world.sim.sendMessage(roomIds[0]!, world.session.userId, "hello")
        yield* settle
        assert.strictEqual((yield* process.rooms.get(roomIds[0]!))?.latestEvent?.content.body, "hello")
        const main = (yield* world.sim.syncs(MAIN)).length
        yield* service.start
        yield* settle
        assert.deepStrictEqual(tags(yield* service.state), ["Running", "Syncing", "Syncing"])
        assert.lengthOf(yield* world.sim.syncs(MAIN), main, "the other loop isn't restarted")
      })
    )

    it.effect("stops quietly after it has given up", () =>
      Effect.gen(function* () {
        const { service, world } = yield* setUp
        yield* world.sim.endSession(world.session, "hard")
        yield* advance("31 seconds")
        assert.strictEqual((yield* service.state)._tag, "Terminal")
        assert.isTrue((yield* service.stop()).quiet)
        assert.strictEqual((yield* service.state)._tag, "Idle")
      })
    )
  })

  describe("I4: deadlines", () => {
    /** A process whose next extension commit, once it has begun, can't be interrupted and takes until the latch opens. */
    const setUpStuck = Effect.gen(function* () {
      const world = yield* makeWorld()
      const latch = yield* Latch.make(true)
      const stuck = (store: SyncStore.SyncStore["Service"]): SyncStore.SyncStore["Service"] => ({
        ...store,
        commitExtension: (fence, commit) =>
          Effect.uninterruptible(Effect.andThen(latch.await, store.commitExtension(fence, commit)))
      })
      const process = yield* startProcess(world, "app", { store: stuck })
      yield* process.service.start
      yield* settle
      return { world, latch, service: process.service }
    })

    it.effect(
      "stop returns at its deadline though the server never answers and a commit never ends; later all is well",
      () =>
        Effect.gen(function* () {
          const { latch, service, world } = yield* setUpStuck
          yield* world.sim.inject({ connId: MAIN, effect: { _tag: "Hang" } })
          yield* service.setWindow([0, 9])
          yield* latch.close
          yield* world.sim.sendNumbered(world.session, 2)
          yield* settle
          const stopping = yield* Effect.forkChild(service.stop({ deadline: "2 seconds" }))
          yield* advance("1999 millis")
          assert.isUndefined(stopping.pollUnsafe())
          yield* advance("1 millis")
          const report = yield* Effect.flatten(Effect.fromNullishOr(stopping.pollUnsafe()))
          assert.isFalse(report.quiet)
          assert.strictEqual(report.tookMillis, 2_000)
          assert.include(report.unfinished.join(), "extension loop")
          assert.notInclude(report.unfinished.join(), "main loop")
          assert.strictEqual((yield* service.state)._tag, "Idle")

          // A start meanwhile waits for the end of the old session: there are never two.
          yield* service.start
          yield* advance("1 minute")
          assert.strictEqual(yield* world.sim.inFlight(), 0)
          yield* latch.open
          yield* settle
          assert.strictEqual((yield* service.state).extension._tag, "Syncing")
          yield* world.sim.sendNumbered(world.session, 2)
          yield* settle
          assert.deepStrictEqual(yield* appliedNumbers(world), [1, 2, 3, 4])
        })
    )

    it.effect("suspend says at its deadline what goes on ending, and a second one that it has ended", () =>
      Effect.gen(function* () {
        const { latch, service, world } = yield* setUpStuck
        yield* latch.close
        yield* world.sim.sendNumbered(world.session, 1)
        yield* settle
        const first = yield* Effect.forkChild(service.suspend({ by: "system", deadline: "1 second" }))
        yield* advance("1 second")
        const report = yield* Effect.flatten(Effect.fromNullishOr(first.pollUnsafe()))
        assert.isFalse(report.quiet)

        const second = yield* Effect.forkChild(service.suspend({ by: "system" }))
        yield* advance("3 seconds")
        yield* latch.open
        yield* settle
        assert.deepStrictEqual(yield* Effect.flatten(Effect.fromNullishOr(second.pollUnsafe())), {
          quiet: true,
          tookMillis: 3_000,
          unfinished: []
        })
        assert.deepStrictEqual(yield* appliedNumbers(world), [1], "what had begun to commit is durable")
      })
    )

    it.effect("names the part that can't be suspended", () =>
      Effect.gen(function* () {
        const world = yield* makeWorld()
        const gate = yield* Latch.make()
        const process = yield* startProcess(world, "app", {
          suspendables: [{ name: "sockets", suspend: gate.await, resume: Effect.void }]
        })
        yield* process.service.start
        yield* settle
        const stopping = yield* Effect.forkChild(process.service.stop())
        yield* advance("5 seconds")
        const report = yield* Effect.flatten(Effect.fromNullishOr(stopping.pollUnsafe()))
        assert.deepStrictEqual(report.unfinished, ["sockets"])
        yield* gate.open
        yield* settle
        assert.isTrue((yield* process.service.stop()).quiet)
      })
    )
  })
})
