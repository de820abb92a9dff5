import { assert, describe, it } from "@effect/vitest"
import { type SyncServiceMachine } from "@twinloop/core"
import { Effect, Fiber, Latch, Stream } from "effect"
import { TestClock } from "effect/testing"
import { connId } from "../src/MainSync.ts"
import { EXTENSION_LEASE } from "../src/SyncService.ts"
import { recordSyncs } from "./support/Recording.ts"
import {
  acceptedNumbers,
  appliedNumbers,
  makeWorld,
  type Process,
  startProcess,
  type World
} from "../src/testing/Simulation.ts"
import { advance, settle } from "../src/testing/Time.ts"

const MAIN = connId("app")
const EXTENSION = "encryption"

const setUp = Effect.gen(function* () {
  const world = yield* makeWorld()
  const roomIds = yield* world.sim.addRooms(world.session.userId, 30)
  const suspended: Array<string> = []
  const note = (line: string) => Effect.sync(() => void suspended.push(line))
  const suspendables = ["sockets", "listeners"].map((name) => ({
    name,
    suspend: note(`suspend ${name}`),
    resume: note(`resume ${name}`)
  }))
  const recording = recordSyncs()
  const process = yield* startProcess(world, "app", { suspendables, homeserver: recording.homeserver })
  return { world, roomIds, process, service: process.service, suspended, exchanges: recording.exchanges }
})

const isFree = Effect.fnUntraced(function* (world: World) {
  const table = yield* world.leases.inspect(EXTENSION_LEASE)
  return table.waiters.length === 0 && table.rows.every((row) => row.expiresAtMillis === 0)
})

const record = <A>(list: Array<A>, item: A) => Effect.sync(() => void list.push(item))

const tags = (state: SyncServiceMachine.ServiceState) => [state._tag, state.main._tag, state.extension._tag]

/** Nothing of the process runs, asks, holds or writes any more. */
const assertQuiet = Effect.fnUntraced(function* (world: World, process: Process, idleFibers: number) {
  assert.strictEqual(yield* process.fibers, idleFibers, "no fiber of the loops runs")
  assert.strictEqual(yield* world.sim.inFlight(), 0, "no request is in flight")
  assert.isTrue(yield* isFree(world), "the lease row is free")
  const before = (yield* world.sim.requests).length
  yield* advance("10 minutes")
  assert.lengthOf(yield* world.sim.requests, before, "nothing is asked later on")
})

describe("SyncService", () => {
  describe("start and stop", () => {
    it.effect("runs both loops on connections of their own, and both come through with news", () =>
      Effect.gen(function* () {
        const { process, roomIds, service, world } = yield* setUp
        assert.deepStrictEqual(tags(yield* service.state), ["Idle", "Stopped", "Stopped"])
        yield* service.start
        yield* settle
        assert.deepStrictEqual(tags(yield* service.state), ["Running", "Syncing", "Syncing"])
        assert.strictEqual((yield* service.lease)._tag, "Held")
        assert.strictEqual(yield* world.sim.inFlight(MAIN), 1)
        assert.strictEqual(yield* world.sim.inFlight(EXTENSION), 1)
        yield* world.sim.sendNumbered(world.session, 3)
        yield* world.sim.sendMessage(roomIds[0]!, world.session.userId, "hello")
        yield* settle
        assert.deepStrictEqual(yield* appliedNumbers(world), [1, 2, 3])
        assert.strictEqual((yield* process.rooms.get(roomIds[0]!))?.latestEvent?.content.body, "hello")

        // Long polls of 30 s on both, for ten minutes of silence.
        const before = [(yield* world.sim.syncs(MAIN)).length, (yield* world.sim.syncs(EXTENSION)).length] as const
        yield* advance("10 minutes")
        assert.strictEqual((yield* world.sim.syncs(MAIN)).length - before[0], 20)
        assert.strictEqual((yield* world.sim.syncs(EXTENSION)).length - before[1], 20)
      })
    )

    it.effect("starting twice is starting once", () =>
      Effect.gen(function* () {
        const { service, world } = yield* setUp
        yield* Effect.all([service.start, service.start], { concurrency: "unbounded" })
        yield* settle
        const before = (yield* world.sim.requests).length
        yield* service.start
        yield* settle
        assert.lengthOf(yield* world.sim.requests, before)
        assert.strictEqual(yield* world.sim.inFlight(), 2)
        assert.strictEqual((yield* world.sim.syncs(MAIN)).filter(({ request }) => request.pos === undefined).length, 1)
      })
    )

    it.effect("I4: when stop returns, everything is quiet; stopping again makes quiet again", () =>
      Effect.gen(function* () {
        const { process, service, suspended, world } = yield* setUp
        const idle = yield* process.fibers
        yield* service.start
        yield* settle
        assert.isAbove(yield* process.fibers, idle)
        const report = yield* service.stop()
        assert.deepStrictEqual(report, { quiet: true, tookMillis: 0, unfinished: [] })
        assert.deepStrictEqual(tags(yield* service.state), ["Idle", "Stopped", "Stopped"])
        assert.deepStrictEqual(suspended.slice(-2), ["suspend sockets", "suspend listeners"])
        assert.strictEqual((yield* service.lease)._tag, "Released")
        yield* settle
        yield* assertQuiet(world, process, idle)

        assert.deepStrictEqual(yield* service.stop(), { quiet: true, tookMillis: 0, unfinished: [] })
        const twice = ["suspend sockets", "suspend listeners", "suspend sockets", "suspend listeners"]
        assert.deepStrictEqual(suspended.slice(-4), twice)
      })
    )

    it.effect("I4: stopping what was never started makes quiet what was used without the loops", () =>
      Effect.gen(function* () {
        const { service, suspended, world } = yield* setUp
        assert.isTrue((yield* service.stop()).quiet)
        assert.deepStrictEqual(suspended, ["suspend sockets", "suspend listeners"])
        assert.lengthOf(yield* world.sim.requests, 0)
      })
    )

    it.effect("goes on after stop and start where it was", () =>
      Effect.gen(function* () {
        const { exchanges, process, service, world } = yield* setUp
        for (let n = 0; n < 3; n++) {
          yield* service.start
          yield* settle
          yield* world.sim.sendNumbered(world.session, 2)
          yield* settle
          yield* service.stop()
          yield* world.sim.sendNumbered(world.session, 1)
        }
        yield* service.start
        yield* settle
        assert.deepStrictEqual(yield* appliedNumbers(world), yield* acceptedNumbers(world))
        assert.lengthOf(yield* appliedNumbers(world), 9)
        assert.lengthOf(yield* process.rooms.rooms, 30)
        const main = exchanges.filter(({ request }) => request.connId === MAIN)
        assert.strictEqual(main.filter(({ request }) => request.pos === undefined).length, 1)
        assert.strictEqual(main.flatMap(({ response }) => response.rooms).length, 30, "no room came twice")
      })
    )

    it.effect("a start right after a stop, before anybody could act, ends in running", () =>
      Effect.gen(function* () {
        const { service, world } = yield* setUp
        yield* service.start
        yield* settle
        const stopping = yield* Effect.forkChild(service.stop())
        const starting = yield* Effect.forkChild(service.start)
        yield* settle
        assert.isTrue((yield* Fiber.join(stopping)).quiet)
        yield* Fiber.join(starting)
        assert.deepStrictEqual(tags(yield* service.state), ["Running", "Syncing", "Syncing"])
        assert.strictEqual(yield* world.sim.inFlight(), 2)
      })
    )

    it.effect("I4: ending the process ends the loops", () =>
      Effect.gen(function* () {
        const { process, service, suspended, world } = yield* setUp
        yield* service.start
        yield* settle
        yield* process.end
        assert.strictEqual(yield* world.sim.inFlight(), 0)
        assert.isTrue(yield* isFree(world))
        assert.strictEqual(yield* process.fibers, 0)
        assert.deepStrictEqual(suspended.slice(-2), ["suspend sockets", "suspend listeners"])
      })
    )

    it.effect("I10: keeps a bounded number of states for who has stopped reading, and the newest among them", () =>
      Effect.gen(function* () {
        const { service } = yield* setUp
        const gate = yield* Latch.make(false)
        const seen: Array<SyncServiceMachine.ServiceState> = []
        const slow = Stream.runForEach(service.changes, (state) => Effect.andThen(record(seen, state), gate.await))
        yield* Effect.forkScoped(slow)
        yield* settle
        for (let turn = 0; turn < 200; turn++) {
          yield* service.start
          yield* service.stop()
        }
        yield* service.suspend({ by: "the last one" })
        yield* service.start
        yield* gate.open
        yield* settle
        assert.isBelow(seen.length, 50)
        assert.deepStrictEqual(seen.at(-1), yield* service.state)
      })
    )

    it.effect("tells its state as it changes", () =>
      Effect.gen(function* () {
        const { service } = yield* setUp
        const seen: Array<string> = []
        yield* Effect.forkScoped(
          Stream.runForEach(service.changes, (state) => Effect.sync(() => void seen.push(tags(state).join(" "))))
        )
        yield* settle
        yield* service.start
        yield* settle
        yield* service.suspend()
        yield* settle
        yield* service.stop()
        yield* settle
        assert.strictEqual(seen[0], "Idle Stopped Stopped")
        assert.include(seen, "Running Syncing Syncing")
        assert.include(seen, "Suspended Stopped Stopped")
        assert.strictEqual(seen.at(-1), "Idle Stopped Stopped")
        assert.isFalse(
          seen.some((line, index) => line === seen[index - 1] && line.endsWith("Stopped Stopped")),
          "the same isn't told twice"
        )
      })
    )
  })

  describe("suspend and resume", () => {
    it.effect("I4: when suspend returns, everything is quiet, without time passing", () =>
      Effect.gen(function* () {
        const { process, service, suspended, world } = yield* setUp
        const idle = yield* process.fibers
        yield* service.start
        yield* settle
        const report = yield* service.suspend()
        assert.deepStrictEqual(report, { quiet: true, tookMillis: 0, unfinished: [] })
        assert.deepInclude(yield* service.state, { _tag: "Suspended", by: ["app"] })
        yield* settle
        yield* assertQuiet(world, process, idle)

        yield* service.resume()
        yield* settle
        assert.deepStrictEqual(tags(yield* service.state), ["Running", "Syncing", "Syncing"])
        assert.deepStrictEqual(suspended, [
          "resume listeners",
          "resume sockets",
          "suspend sockets",
          "suspend listeners",
          "resume listeners",
          "resume sockets"
        ])
      })
    )

    it.effect("returns at once while the loop waits for the lock, and leaves the queue", () =>
      Effect.gen(function* () {
        const { process, service, world } = yield* setUp
        const owner = yield* startProcess(world, "owner")
        yield* owner.service.start
        yield* settle
        yield* service.start
        yield* settle
        assert.deepStrictEqual(tags(yield* service.state), ["Running", "Syncing", "WaitingForLock"])
        assert.strictEqual((yield* service.lease)._tag, "Waiting")
        const report = yield* service.suspend()
        assert.deepStrictEqual(report, { quiet: true, tookMillis: 0, unfinished: [] })
        assert.lengthOf((yield* world.leases.inspect(EXTENSION_LEASE)).waiters, 0)
        assert.strictEqual((yield* owner.service.lease)._tag, "Held")
        assert.strictEqual(yield* world.sim.inFlight(MAIN), 0)
        assert.isAtLeast(yield* process.fibers, 1)
      })
    )

    it.effect("stays suspended until each party that suspended has resumed", () =>
      Effect.gen(function* () {
        const { service, world } = yield* setUp
        yield* service.start
        yield* settle
        yield* service.suspend({ by: "system" })
        yield* service.suspend({ by: "operator" })
        yield* service.resume({ by: "nobody" })
        yield* service.resume({ by: "system" })
        yield* service.resume({ by: "system" })
        yield* settle
        assert.deepInclude(yield* service.state, { _tag: "Suspended", by: ["operator"] })
        assert.strictEqual(yield* world.sim.inFlight(), 0)
        yield* service.resume({ by: "operator" })
        yield* settle
        assert.strictEqual(yield* world.sim.inFlight(), 2)
      })
    )

    it.effect("stop while suspended: resuming starts nothing", () =>
      Effect.gen(function* () {
        const { service, world } = yield* setUp
        yield* service.start
        yield* settle
        yield* service.suspend()
        assert.isTrue((yield* service.stop()).quiet)
        assert.strictEqual((yield* service.state)._tag, "Idle")
        yield* service.resume()
        yield* settle
        assert.strictEqual((yield* service.state)._tag, "Idle")
        assert.strictEqual(yield* world.sim.inFlight(), 0)
      })
    )

    it.effect("start while suspended: runs when everybody has resumed", () =>
      Effect.gen(function* () {
        const { service, world } = yield* setUp
        yield* service.suspend()
        yield* service.start
        yield* settle
        assert.strictEqual((yield* service.state)._tag, "Suspended")
        assert.lengthOf(yield* world.sim.requests, 0)
        yield* service.resume()
        yield* settle
        assert.strictEqual((yield* service.state)._tag, "Running")
      })
    )

    it.effect("I4: makes quiet again what was used while the loops didn't run, and says so when that can't be", () =>
      Effect.gen(function* () {
        const world = yield* makeWorld()
        const used = yield* Latch.make(true)
        const process = yield* startProcess(world, "app", {
          suspendables: [{ name: "pushes", suspend: used.await, resume: Effect.void }]
        })
        assert.isTrue((yield* process.service.suspend({ by: "signal" })).quiet)
        // A push, say, that is being resolved when somebody else suspends.
        yield* used.close
        const suspending = yield* Effect.forkChild(process.service.suspend({ deadline: "2 seconds" }))
        yield* advance("2 seconds")
        const report = yield* Fiber.join(suspending)
        assert.deepStrictEqual([report.quiet, report.unfinished.length], [false, 1])
        const again = yield* Effect.forkChild(process.service.suspend())
        yield* settle
        assert.isUndefined(again.pollUnsafe())
        yield* used.open
        assert.isTrue((yield* Fiber.join(again)).quiet)
      })
    )

    it.effect("I4: makes quiet again without a fiber of its own, and starts after that", () =>
      Effect.gen(function* () {
        const world = yield* makeWorld()
        const used = yield* Latch.make(true)
        const said: Array<string> = []
        const say = (what: string) => Effect.sync(() => void said.push(what))
        const { fibers, service } = yield* startProcess(world, "app", {
          suspendables: [{ name: "pushes", suspend: Effect.andThen(used.await, say("quiet")), resume: say("used") }]
        })
        const idle = yield* fibers
        yield* service.suspend()
        yield* used.close
        const waiting = [yield* Effect.forkChild(service.suspend()), yield* Effect.forkChild(service.suspend())]
        yield* settle
        assert.strictEqual(yield* fibers, idle)
        yield* service.start
        yield* service.resume()
        yield* settle
        assert.deepStrictEqual(said, ["quiet"])
        yield* used.open
        for (const one of waiting) assert.isTrue((yield* Fiber.join(one)).quiet)
        yield* settle
        assert.deepStrictEqual(said, ["quiet", "quiet", "used"])
        assert.strictEqual((yield* service.state)._tag, "Running")
      })
    )

    it.effect(
      "I4: waits for a part that is used again while another one is still made quiet, whatever was wanted since",
      () =>
        Effect.gen(function* () {
          const world = yield* makeWorld()
          const pushes = yield* Latch.make(true)
          const log = yield* Latch.make(false)
          const { service } = yield* startProcess(world, "app", {
            suspendables: [
              { name: "pushes", suspend: pushes.await, resume: Effect.void },
              { name: "log", suspend: log.await, resume: Effect.void }
            ]
          })
          yield* service.start
          yield* settle
          const first = yield* Effect.forkChild(service.suspend())
          yield* settle
          yield* service.resume()
          // A push begins, which the first suspension has passed.
          yield* pushes.close
          const second = yield* Effect.forkChild(service.suspend())
          yield* settle
          yield* log.open
          yield* settle
          assert.isTrue((yield* Fiber.join(first)).quiet)
          assert.isUndefined(second.pollUnsafe())
          yield* pushes.open
          assert.isTrue((yield* Fiber.join(second)).quiet)
        })
    )

    it.effect(
      "a part that breaks or is interrupted as it is suspended or resumed keeps nobody from ending or starting",
      () =>
        Effect.gen(function* () {
          const world = yield* makeWorld()
          const broken = Effect.die(new Error("a bug of the integrator"))
          const process = yield* startProcess(world, "app", {
            suspendables: [
              { name: "broken", suspend: broken, resume: broken },
              { name: "interrupted", suspend: Effect.interrupt, resume: Effect.interrupt }
            ]
          })
          for (let n = 0; n < 2; n++) {
            yield* process.service.start
            yield* settle
            assert.strictEqual(yield* world.sim.inFlight(), 2)
            assert.isTrue((yield* process.service.suspend()).quiet)
            assert.isTrue((yield* process.service.suspend()).quiet)
            yield* process.service.resume()
          }
        })
    )
  })

  describe("views", () => {
    it.effect("asks for the window and the open rooms, and never disturbs the extension loop", () =>
      Effect.gen(function* () {
        const { roomIds, service, world } = yield* setUp
        yield* service.start
        yield* settle
        const extension = yield* world.sim.syncs(EXTENSION)
        for (let n = 0; n < 20; n++) {
          yield* service.setWindow([n, n + 9])
          yield* service.setSubscriptions([roomIds[n]!])
          yield* TestClock.adjust(10)
        }
        yield* settle
        const last = (yield* world.sim.syncs(MAIN)).at(-1)
        assert.deepStrictEqual(last?.request.lists["window"]?.range, [19, 28])
        assert.deepStrictEqual(Object.keys(last?.request.roomSubscriptions ?? {}), [roomIds[19]])
        assert.deepStrictEqual(yield* world.sim.syncs(EXTENSION), extension, "the very same poll is still out")
      })
    )

    it.effect("keeps the view over stop and start, and what was set while nothing ran", () =>
      Effect.gen(function* () {
        const { roomIds, service, world } = yield* setUp
        yield* service.setWindow([0, 9])
        yield* service.start
        yield* service.setSubscriptions([roomIds[0]!])
        yield* settle
        const shown = Effect.map(world.sim.syncs(MAIN), (syncs) => {
          const request = syncs.at(-1)?.request
          return [request?.lists["window"]?.range, Object.keys(request?.roomSubscriptions ?? {})]
        })
        assert.deepStrictEqual(yield* shown, [[0, 9], [roomIds[0]!]])
        yield* service.stop()
        yield* service.setWindow(undefined)
        yield* service.start
        yield* settle
        assert.deepStrictEqual(yield* shown, [undefined, [roomIds[0]!]])
      })
    )

    it.effect("misses no view that is set while the loop is being made", () =>
      Effect.gen(function* () {
        for (let yields = 0; yields < 40; yields++) {
          const world = yield* makeWorld()
          const { service } = yield* startProcess(world, "app")
          yield* Effect.forkChild(service.start)
          yield* Effect.repeat(Effect.yieldNow, { times: yields })
          yield* service.setWindow([0, 9])
          yield* settle
          const last = (yield* world.sim.syncs(MAIN)).at(-1)
          assert.deepStrictEqual(last?.request.lists["window"]?.range, [0, 9], `after ${yields} yields`)
        }
      })
    )

    it.effect("refuses more open rooms than the homeserver takes, and changes nothing", () =>
      Effect.gen(function* () {
        const { service, world } = yield* setUp
        yield* service.start
        yield* settle
        const before = (yield* world.sim.requests).length
        const error = yield* Effect.flip(service.setSubscriptions(Array.from({ length: 101 }, (_, n) => `!${n}:sim`)))
        assert.deepInclude({ ...error }, { wanted: 101, limit: 100 })
        yield* settle
        assert.lengthOf(yield* world.sim.requests, before)
      })
    )
  })

  describe("expireSessions", () => {
    it.effect("starts both connections afresh and acknowledges nothing anew", () =>
      Effect.gen(function* () {
        const { service, world } = yield* setUp
        yield* service.start
        yield* world.sim.sendNumbered(world.session, 3)
        yield* settle
        const since = (yield* world.store.extensionPosition).since
        const before = (yield* world.sim.requests).length
        yield* service.expireSessions
        yield* settle
        const after = (yield* world.sim.requests).slice(before)
        const first = (id: string) => after.find(({ request }) => request?.connId === id)?.request
        assert.isUndefined(first(MAIN)?.pos)
        assert.isUndefined(first(EXTENSION)?.pos)
        assert.strictEqual(first(EXTENSION)?.extensions.toDevice?.since, since)
        assert.deepStrictEqual(tags(yield* service.state), ["Running", "Syncing", "Syncing"])
        yield* world.sim.sendNumbered(world.session, 3)
        yield* settle
        assert.deepStrictEqual(yield* appliedNumbers(world), yield* acceptedNumbers(world))
      })
    )

    it.effect("doesn't start what doesn't run", () =>
      Effect.gen(function* () {
        const { service, world } = yield* setUp
        yield* service.start
        yield* settle
        yield* service.stop()
        yield* service.expireSessions
        yield* settle
        assert.strictEqual((yield* service.state)._tag, "Idle")
        assert.strictEqual(yield* world.sim.inFlight(), 0)
        assert.isTrue(yield* isFree(world))
        assert.isUndefined((yield* world.store.loadMain(MAIN)).pos)
        assert.isUndefined((yield* world.store.extensionPosition).pos)
      })
    )

    it.effect("leaves the extension connection alone while another process owns the stream", () =>
      Effect.gen(function* () {
        const { service, world } = yield* setUp
        const owner = yield* startProcess(world, "owner")
        yield* owner.service.start
        yield* settle
        yield* service.start
        yield* settle
        const position = yield* world.store.extensionPosition
        const ownersPoll = (yield* world.sim.syncs(EXTENSION)).length
        yield* service.expireSessions
        yield* settle
        assert.deepStrictEqual(yield* world.store.extensionPosition, position)
        assert.lengthOf(yield* world.sim.syncs(EXTENSION), ownersPoll)
        assert.deepStrictEqual(tags(yield* service.state), ["Running", "Syncing", "WaitingForLock"])
        assert.strictEqual(
          (yield* world.sim.syncs(MAIN)).filter(({ request }) => request.pos === undefined).length,
          2,
          "the main connection is our own"
        )
      })
    )

    it.effect("twice at once is one after the other", () =>
      Effect.gen(function* () {
        const world = yield* makeWorld()
        let calls = 0
        const { service } = yield* startProcess(world, "app", {
          store: (store) => ({
            ...store,
            expireMain: (conn) => Effect.andThen(Effect.sleep(calls++ * 1_000), store.expireMain(conn))
          })
        })
        yield* service.start
        yield* settle
        const both = yield* Effect.forkChild(
          Effect.all([service.expireSessions, service.expireSessions], { concurrency: "unbounded" })
        )
        yield* advance(500)
        assert.strictEqual(calls, 2)
        assert.strictEqual(yield* world.sim.inFlight(), 0, "the second one is at work, and nothing runs meanwhile")
        yield* advance(500)
        yield* Fiber.join(both)
        assert.deepStrictEqual(tags(yield* service.state), ["Running", "Syncing", "Syncing"])
        assert.strictEqual(yield* world.sim.inFlight(), 2)
      })
    )
  })
})
