import { assert, describe, it } from "@effect/vitest"
import { HomeserverError, MainLoopMachine, type SlidingSync, StoreError, SyncConfig } from "@twinloop/core"
import { Effect, Exit, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as MainSync from "../src/MainSync.ts"
import { recordSyncs } from "./support/Recording.ts"
import { makeWorld, type Process, startProcess, type World } from "../src/testing/Simulation.ts"
import { advance, settle } from "../src/testing/Time.ts"

const CONN = MainSync.connId("app")

/** The main loop of a process, in a scope of its own. */
const startMain = Effect.fnUntraced(function* (process: Process, view = MainLoopMachine.emptyView) {
  const scope = yield* Scope.make()
  const close = Scope.close(scope, Exit.void)
  yield* Effect.addFinalizer(() => close)
  const main = yield* MainSync.make(view).pipe(Scope.provide(scope), Effect.provide(process.context))
  const states: Array<MainLoopMachine.State> = []
  yield* Stream.runForEach(main.changes, (state) => Effect.sync(() => void states.push(state))).pipe(
    Effect.forkIn(scope)
  )
  yield* settle
  return { ...main, states, close }
})

/** A process whose account has rooms, and its main loop in the long poll. */
const setUp = Effect.fnUntraced(function* (rooms: number) {
  const world = yield* makeWorld()
  const roomIds = yield* world.sim.addRooms(world.session.userId, rooms)
  const recording = recordSyncs()
  const process = yield* startProcess(world, "app", { homeserver: recording.homeserver })
  return { world, roomIds, process, exchanges: recording.exchanges, syncs: world.sim.syncs(CONN) }
})

/** The same, with a client that can't take more than a few rooms per response. */
const setUpLimited = Effect.fnUntraced(function* (limit: number) {
  const world = yield* makeWorld()
  const roomIds = yield* world.sim.addRooms(world.session.userId, 220)
  const reason = new HomeserverError.ResponseTooLarge({ message: "20 MB", limitBytes: 1 })
  const process = yield* startProcess(world, "app", {
    homeserver: (port) => ({
      ...port,
      sync: (request) =>
        Effect.filterOrFail(
          port.sync(request),
          (response) => response.rooms.length <= limit,
          () => new HomeserverError.HomeserverError({ operation: "sync", reason })
        )
    })
  })
  return { world, roomIds, process }
})

const view = (revision: number, change: Partial<MainLoopMachine.View> = {}): MainLoopMachine.View => ({
  ...MainLoopMachine.emptyView,
  revision,
  ...change
})

const windowOf = (request: SlidingSync.SyncRequest) => request.lists[MainLoopMachine.ROOMS_LIST]?.range
const shownOf = (request: SlidingSync.SyncRequest) => request.lists[MainLoopMachine.WINDOW_LIST]?.range

const bodies = Effect.fnUntraced(function* (world: World, roomId: string) {
  const entries = yield* world.store.timeline({ connId: CONN, roomId, limit: 1_000 })
  return entries.flatMap((entry) => (entry._tag === "Event" ? [entry.event.content.body] : []))
})

const busy = new StoreError.StoreBusy({ message: "somebody else is writing" })

describe("MainSync", () => {
  describe("windows", () => {
    it.effect("asks page by page for every room without waiting, then holds the line open", () =>
      Effect.gen(function* () {
        const { exchanges, process, syncs } = yield* setUp(220)
        yield* startMain(process)
        const seen = yield* syncs
        assert.deepStrictEqual(
          seen.map(({ request }) => [windowOf(request), request.timeoutMillis]),
          [
            [[0, 19], 0],
            [[20, 99], 0],
            [[100, 199], 0],
            [[0, 219], 0],
            [[0, 219], 30_000]
          ]
        )
        // Each request acknowledges the response before it, and no room is sent twice.
        assert.deepStrictEqual(
          seen.map(({ request }) => request.pos),
          [undefined, ...exchanges.map(({ response }) => response.pos)]
        )
        assert.strictEqual(exchanges.flatMap(({ response }) => response.rooms).length, 220)
        assert.lengthOf(yield* process.rooms.rooms, 220)
        for (const { request } of seen) {
          assert.isUndefined(request.extensions.toDevice, "the extension stream is another loop's")
          assert.isUndefined(request.extensions.e2ee)
        }
      })
    )

    it.effect("shows news without waiting, and polls again from there", () =>
      Effect.gen(function* () {
        const { process, roomIds, syncs, world } = yield* setUp(5)
        yield* startMain(process)
        const roomId = roomIds[2]!
        yield* world.sim.sendMessage(roomId, world.session.userId, "hello")
        yield* settle
        const room = yield* process.rooms.get(roomId)
        assert.strictEqual(room?.latestEvent?.content.body, "hello")
        assert.strictEqual((yield* syncs).at(-1)?.outcome, "pending")
      })
    )

    it.effect("goes on after a restart from the stored position: no room is sent again", () =>
      Effect.gen(function* () {
        const { exchanges, process, roomIds, syncs, world } = yield* setUp(220)
        const first = yield* startMain(process)
        yield* first.close
        assert.strictEqual(yield* world.sim.inFlight(), 0)
        yield* world.sim.sendMessage(roomIds[0]!, world.session.userId, "while away")
        const before = exchanges.length
        const pos = exchanges.at(-1)?.response.pos

        // Another process of the same role, as after a reboot.
        yield* process.end
        const recording = recordSyncs()
        const again = yield* startProcess(world, "app", { homeserver: recording.homeserver })
        const main = yield* startMain(again)
        assert.strictEqual((yield* main.state)._tag, "Polling")
        assert.strictEqual((yield* syncs)[before + 1]?.request.pos, pos)
        const sent = recording.exchanges.flatMap(({ response }) => response.rooms)
        assert.deepStrictEqual(
          sent.map(({ roomId }) => roomId),
          [roomIds[0]]
        )
        assert.lengthOf(yield* again.rooms.rooms, 220)
      })
    )

    it.effect("asks from a stored position before it reads the rooms, and commits nothing until it has read them", () =>
      Effect.gen(function* () {
        const { process, roomIds, world } = yield* setUp(10)
        yield* startMain(process)
        yield* process.kill
        yield* world.sim.sendMessage(roomIds[0]!, world.session.userId, "while it was away")

        const order: Array<string> = []
        const again = yield* startProcess(world, "app", {
          homeserver: (port) => ({
            ...port,
            sync: (request) =>
              Effect.andThen(
                Effect.sync(() => order.push("asked")),
                port.sync(request)
              )
          }),
          store: (port) => ({
            ...port,
            loadMain: (connId) => Effect.tap(port.loadMain(connId), () => Effect.sync(() => order.push("read"))),
            commitMain: (commit) =>
              Effect.andThen(
                Effect.sync(() => order.push("committed")),
                port.commitMain(commit)
              )
          })
        })
        yield* startMain(again)
        assert.deepStrictEqual(order.slice(0, 3), ["asked", "read", "committed"])
        assert.lengthOf(yield* again.rooms.rooms, 10)
        assert.strictEqual((yield* again.rooms.get(roomIds[0]!))?.latestEvent?.content.body, "while it was away")
      })
    )

    it.effect("shows the rooms that it knows when the homeserver can't be reached", () =>
      Effect.gen(function* () {
        const { process, world } = yield* setUp(10)
        yield* startMain(process)
        yield* process.kill
        yield* world.sim.unreachable

        const again = yield* startProcess(world, "app")
        const main = yield* startMain(again)
        assert.strictEqual((yield* main.state)._tag, "BackingOff")
        assert.lengthOf(yield* again.rooms.rooms, 10)
      })
    )

    it.effect("starts with a small window again after half an hour of silence", () =>
      Effect.gen(function* () {
        const { process, syncs, world } = yield* setUp(220)
        const main = yield* startMain(process)
        // The homeserver never answers the long poll that follows the next change of view.
        yield* world.sim.inject({ connId: CONN, times: 1, effect: { _tag: "Late", millis: 0 } })
        yield* world.sim.inject({ connId: CONN, times: 1, effect: { _tag: "Hang" } })
        yield* main.look(view(1))
        yield* advance("31 minutes")
        assert.isFalse((yield* syncs).some(({ request }) => windowOf(request)?.[1] === 19 && request.pos !== undefined))
        yield* main.look(view(2))
        yield* settle
        assert.isTrue((yield* syncs).some(({ request }) => windowOf(request)?.[1] === 19 && request.pos !== undefined))
        assert.strictEqual((yield* main.state)._tag, "Polling")
      })
    )

    for (const limit of [60, 30, 8]) {
      it.effect(`asks for less when a response is too large (${limit} rooms), until everything is there`, () =>
        Effect.gen(function* () {
          const { process, world } = yield* setUpLimited(limit)
          const main = yield* startMain(process)
          yield* advance("5 minutes")
          assert.lengthOf(yield* process.rooms.rooms, 220)
          assert.strictEqual((yield* main.state)._tag, "Polling")
          assert.isBelow((yield* world.sim.syncs(CONN)).length, 80)
        })
      )
    }

    it.effect("asks for less when it goes on from a stored position and the news are too large", () =>
      Effect.gen(function* () {
        const { process, roomIds, world } = yield* setUpLimited(40)
        const first = yield* startMain(process)
        yield* advance("5 minutes")
        yield* first.close
        // The rooms with news are behind many without, which are no reason to ask for ever more.
        for (const roomId of roomIds.slice(0, 150)) {
          const { userId } = world.session
          yield* world.sim.sendEvent(roomId, {
            type: "m.room.topic",
            sender: userId,
            stateKey: "",
            content: { topic: "new" }
          })
        }
        const main = yield* startMain(process)
        yield* advance("5 minutes")
        assert.strictEqual((yield* main.state)._tag, "Polling")
        const rooms = yield* process.rooms.rooms
        assert.strictEqual(rooms.filter(({ topic }) => topic === "new").length, 150)
        assert.isBelow((yield* world.sim.syncs(CONN)).length, 150)
      })
    )
  })

  describe("views", () => {
    it.effect("aborts the long poll at HTTP level when the view changes, and asks for it at once", () =>
      Effect.gen(function* () {
        const { process, roomIds, syncs, world } = yield* setUp(50)
        const main = yield* startMain(process)
        assert.strictEqual(yield* world.sim.inFlight(CONN), 1)
        const before = (yield* syncs).length
        const params = MainLoopMachine.subscriptionParams(SyncConfig.defaults, world.session.userId)
        yield* main.look(view(1, { window: [10, 19], subscriptions: new Map([[roomIds[0]!, params]]) }))
        yield* settle
        const [aborted, asked, held] = (yield* syncs).slice(before - 1)
        assert.strictEqual(aborted?.outcome, "aborted")
        assert.deepStrictEqual(shownOf(asked!.request), [10, 19])
        assert.deepStrictEqual(Object.keys(asked!.request.roomSubscriptions), [roomIds[0]])
        assert.strictEqual(asked?.request.timeoutMillis, 0)
        assert.strictEqual(asked?.request.pos, aborted?.request.pos, "what was aborted has answered nothing")
        assert.strictEqual(held?.request.timeoutMillis, 30_000)
        assert.strictEqual(yield* world.sim.inFlight(CONN), 1)
      })
    )

    it.effect("makes one request of many changes that come while it is busy", () =>
      Effect.gen(function* () {
        const { process, syncs, world } = yield* setUp(50)
        const main = yield* startMain(process)
        const before = (yield* syncs).length
        yield* world.sim.inject({ connId: CONN, times: 1, effect: { _tag: "Late", millis: 1_000 } })
        for (let revision = 1; revision <= 12; revision++) {
          yield* main.look(view(revision, { window: [revision, revision + 9] }))
          yield* settle
        }
        yield* advance("1 second")
        assert.deepStrictEqual(
          (yield* syncs).slice(before).map(({ request }) => [shownOf(request), request.timeoutMillis]),
          [
            [[1, 10], 0],
            [[12, 21], 0],
            [[12, 21], 30_000]
          ]
        )
      })
    )

    it.effect(
      "I3: is not starved by a storm of changes: news come through all the time",
      () =>
        Effect.gen(function* () {
          const { process, roomIds, syncs, world } = yield* setUp(50)
          const main = yield* startMain(process)
          // Each answer takes 25 ms, so every one is overtaken by two changes.
          yield* world.sim.inject({ connId: CONN, effect: { _tag: "Late", millis: 25 } })
          const gaps: Array<number> = []
          let unseen = 0
          for (let n = 1; n <= 1_000; n++) {
            yield* main.look(view(n, { window: [n % 40, (n % 40) + 9] }))
            if (n % 10 === 0) yield* world.sim.sendMessage(roomIds[0]!, world.session.userId, `message ${n}`)
            yield* TestClock.adjust(10)
            const shown = Number(String((yield* process.rooms.get(roomIds[0]!))?.latestEvent?.content.body).slice(8))
            unseen = n - (Number.isNaN(shown) ? 0 : shown)
            gaps.push(unseen)
          }
          // A message is seen within the request under way and the next one: 50 ms, and 100 ms between two messages.
          assert.isAtMost(Math.max(...gaps), 16)
          const answered = (yield* syncs).filter(({ outcome }) => outcome === "answered").length
          assert.isAtLeast(answered, 300)
        }),
      60_000
    )

    it.effect("keeps the newest view when an older one arrives late", () =>
      Effect.gen(function* () {
        const { process, syncs } = yield* setUp(50)
        const main = yield* startMain(process)
        yield* main.look(view(2, { window: [20, 29] }))
        yield* main.look(view(1, { window: [10, 19] }))
        yield* settle
        assert.deepStrictEqual(shownOf((yield* syncs).at(-1)!.request), [20, 29])
      })
    )

    it.effect("never applies the response of an aborted request; what it held comes once, with the next", () =>
      Effect.gen(function* () {
        const { exchanges, process, roomIds, world } = yield* setUp(5)
        const main = yield* startMain(process)
        // Restart the long poll under a fault: its answer takes 5 s to arrive.
        yield* world.sim.inject({ connId: CONN, times: 2, effect: { _tag: "Late", millis: 0 } })
        yield* main.look(view(1))
        yield* settle
        yield* world.sim.sendMessage(roomIds[0]!, world.session.userId, "one")
        yield* settle
        yield* world.sim.inject({ connId: CONN, times: 1, effect: { _tag: "Late", millis: 5_000 } })
        yield* world.sim.sendMessage(roomIds[0]!, world.session.userId, "two")
        yield* settle
        // The long poll after "two" is the late one; it is answered with "three", which is under way when it is aborted.
        yield* world.sim.sendMessage(roomIds[0]!, world.session.userId, "three")
        yield* advance("3 seconds")
        const answeredBefore = exchanges.length
        yield* main.look(view(2))
        yield* settle
        assert.strictEqual(exchanges.length, answeredBefore + 1)
        assert.deepStrictEqual(yield* bodies(world, roomIds[0]!), ["first message of room 1", "one", "two", "three"])
        yield* advance("10 seconds")
        assert.deepStrictEqual(yield* bodies(world, roomIds[0]!), ["first message of room 1", "one", "two", "three"])
      })
    )
  })

  describe("recovery", () => {
    it.effect("I9: recovers from an expired position by itself, with the view as it was", () =>
      Effect.gen(function* () {
        const { process, roomIds, syncs, world } = yield* setUp(150)
        const params = MainLoopMachine.subscriptionParams(SyncConfig.defaults, world.session.userId)
        const looked = view(1, { window: [0, 9], subscriptions: new Map([[roomIds[0]!, params]]) })
        const main = yield* startMain(process, looked)
        const before = (yield* syncs).length
        yield* world.sim.expirePositions(world.session, CONN)
        yield* settle

        const [refused, fresh] = (yield* syncs).slice(before - 1)
        assert.strictEqual(refused?.outcome, "failed")
        assert.isUndefined(fresh?.request.pos)
        assert.deepStrictEqual(windowOf(fresh!.request), [0, 19], "the first answer is small")
        assert.deepStrictEqual(shownOf(fresh!.request), [0, 9])
        assert.deepStrictEqual(Object.keys(fresh!.request.roomSubscriptions), [roomIds[0]])
        // The long poll goes on where it was, and news come through.
        assert.deepStrictEqual(windowOf((yield* syncs).at(-1)!.request), [0, 149])
        yield* world.sim.sendMessage(roomIds[7]!, world.session.userId, "after the expiry")
        yield* settle
        const room = yield* process.rooms.get(roomIds[7]!)
        assert.strictEqual(room?.latestEvent?.content.body, "after the expiry")
        // An expiry is part of ordinary life: nobody is told of a failure.
        assert.isFalse(main.states.some(({ _tag }) => _tag === "BackingOff" || _tag === "Failed"))
      })
    )

    it.effect("marks rooms as left that the homeserver doesn't list any more after an expiry", () =>
      Effect.gen(function* () {
        const { process, roomIds, world } = yield* setUp(30)
        yield* startMain(process)
        // The poll is held back while the room is left, so that only the fresh start can tell.
        yield* world.sim.unreachable
        yield* world.sim.setMembership({ roomId: roomIds[3]!, userId: world.session.userId, membership: "leave" })
        yield* world.sim.expirePositions(world.session, CONN)
        yield* world.sim.reachable
        yield* advance("5 seconds")
        assert.strictEqual((yield* process.rooms.get(roomIds[3]!))?.membership, "leave")
        assert.strictEqual((yield* process.rooms.get(roomIds[4]!))?.membership, "join")
        const stored = yield* world.store.loadMain(CONN)
        assert.strictEqual(stored.rooms.find(({ roomId }) => roomId === roomIds[3])?.membership, "leave")
      })
    )

    it.effect("marks them as left also when the start after an expiry was cut short by a kill", () =>
      Effect.gen(function* () {
        const { process, roomIds, world } = yield* setUp(220)
        yield* startMain(process)
        yield* process.kill
        const gone = roomIds[150]!
        yield* world.sim.setMembership({ roomId: gone, userId: world.session.userId, membership: "leave" })
        yield* world.sim.expirePositions(world.session, CONN)

        // It hears that its position has expired and commits the first page, and hears nothing more.
        let answers = 0
        const brief = yield* startProcess(world, "app", {
          homeserver: (port) => ({
            ...port,
            sync: (request) => (++answers <= 2 ? port.sync(request) : Effect.never)
          })
        })
        yield* startMain(brief)
        assert.strictEqual((yield* brief.rooms.get(gone))?.membership, "join", "it isn't known yet")
        yield* brief.kill

        const again = yield* startProcess(world, "app")
        yield* startMain(again)
        assert.strictEqual((yield* again.rooms.get(gone))?.membership, "leave")
      })
    )

    it.effect("I9: backs off from errors within bounds, and recovers", () =>
      Effect.gen(function* () {
        const { process, syncs, world } = yield* setUp(5)
        const reason = new HomeserverError.ServerError({ message: "on fire", status: 502 })
        const main = yield* startMain(process)
        const fire = yield* world.sim.inject({ connId: CONN, effect: { _tag: "Fail", reason } })
        yield* main.look(view(1))
        yield* settle
        const before = (yield* syncs).length
        assert.strictEqual((yield* main.state)._tag, "BackingOff")
        yield* advance("10 minutes")
        // 7 tries until the wait is 15 to 30 s, then 20 to 40 of those.
        const tries = (yield* syncs).length - before
        assert.isTrue(tries >= 20 && tries <= 50, `${tries} tries`)
        yield* fire.remove
        yield* advance("30 seconds")
        assert.strictEqual((yield* main.state)._tag, "Polling")
      })
    )

    it.effect("I9: waits as long as the homeserver asks", () =>
      Effect.gen(function* () {
        const { process, syncs, world } = yield* setUp(5)
        const reason = new HomeserverError.RateLimited({ message: "slow down", retryAfterMillis: 60_000 })
        yield* world.sim.inject({ connId: CONN, times: 1, effect: { _tag: "Fail", reason } })
        const main = yield* startMain(process)
        yield* advance("59 seconds")
        assert.lengthOf(yield* syncs, 1)
        yield* advance("2 seconds")
        assert.strictEqual((yield* main.state)._tag, "Polling")
      })
    )

    it.effect("tells when a fiber meets a defect", () =>
      Effect.gen(function* () {
        const world = yield* makeWorld()
        const process = yield* startProcess(world, "app", {
          homeserver: (port) => ({ ...port, sync: () => Effect.die(new Error("a bug")) })
        })
        const main = yield* startMain(process)
        assert.isTrue(Exit.isSuccess(yield* Effect.exit(main.crashed)))
      })
    )
  })

  describe("I6: commit, then tell", () => {
    it.effect("publishes nothing before the commit is done", () =>
      Effect.gen(function* () {
        const { process, world } = yield* setUp(10)
        yield* world.faults.delayNext("commitMain", 1_000)
        const main = yield* startMain(process)
        yield* advance(999)
        assert.lengthOf(yield* process.rooms.rooms, 0)
        assert.strictEqual((yield* main.state)._tag, "Committing")
        yield* advance(1)
        assert.lengthOf(yield* process.rooms.rooms, 10)
      })
    )

    for (const reason of [busy, new StoreError.StoreFull({ message: "the disk is full" })]) {
      it.effect(`publishes nothing of a commit that failed (${reason._tag}), and asks for the same again`, () =>
        Effect.gen(function* () {
          const { exchanges, process, roomIds, syncs, world } = yield* setUp(10)
          const main = yield* startMain(process)
          const pos = (yield* world.store.loadMain(CONN)).pos
          yield* world.faults.failNext("commitMain", reason)
          yield* world.sim.sendMessage(roomIds[0]!, world.session.userId, "hello")
          yield* settle
          assert.strictEqual((yield* main.state)._tag, "BackingOff")
          assert.notStrictEqual((yield* process.rooms.get(roomIds[0]!))?.latestEvent?.content.body, "hello")

          const before = (yield* syncs).length
          yield* advance("1 second")
          assert.strictEqual((yield* syncs)[before]?.request.pos, pos, "the stored position, not the refused one")
          assert.strictEqual((yield* process.rooms.get(roomIds[0]!))?.latestEvent?.content.body, "hello")
          assert.strictEqual((yield* main.state)._tag, "Polling")
          // No fresh start was needed: no room came twice.
          assert.lengthOf(
            exchanges.filter(({ request }) => request.pos === undefined),
            1
          )
        })
      )
    }

    it.effect("backs off more and more while commits fail", () =>
      Effect.gen(function* () {
        const { process, roomIds, syncs, world } = yield* setUp(10)
        yield* startMain(process)
        const before = (yield* syncs).length
        for (let n = 0; n < 200; n++) yield* world.faults.failNext("commitMain", busy)
        yield* world.sim.sendMessage(roomIds[0]!, world.session.userId, "hello")
        yield* advance("10 minutes")
        const tries = (yield* syncs).length - before
        assert.isTrue(tries >= 20 && tries <= 50, `${tries} tries`)
      })
    )

    it.effect("gives up when storage can't be written, and tries again when it is told to", () =>
      Effect.gen(function* () {
        const { process, syncs, world } = yield* setUp(10)
        yield* world.faults.failNext("commitMain", new StoreError.StoreReadOnly({ message: "read-only" }))
        const main = yield* startMain(process)
        const state = yield* main.state
        assert.strictEqual(state._tag, "Failed")
        const before = (yield* syncs).length
        yield* advance("1 hour")
        assert.lengthOf(yield* syncs, before)
        yield* main.restart
        yield* settle
        assert.lengthOf(yield* process.rooms.rooms, 10)
      })
    )

    it.effect("publishes after a restart what was committed and not told", () =>
      Effect.gen(function* () {
        const { process, world } = yield* setUp(10)
        yield* world.faults.delayNext("commitMain", 1_000, "after")
        const main = yield* startMain(process)
        yield* main.close
        assert.lengthOf(yield* process.rooms.rooms, 0)
        const again = yield* startMain(process)
        assert.lengthOf(yield* process.rooms.rooms, 10)
        assert.strictEqual((yield* again.state)._tag, "Polling")
      })
    )
  })

  it.effect("I7: commits what can't be understood as quarantined, and goes on", () =>
    Effect.gen(function* () {
      const { process, roomIds, world } = yield* setUp(3)
      const main = yield* startMain(process)
      yield* world.sim.inject({
        connId: CONN,
        times: 1,
        effect: {
          _tag: "Reply",
          json: {
            pos: (yield* world.store.loadMain(CONN)).pos,
            rooms: { [roomIds[0]!]: { timeline: [{ type: "m.room.message", content: { body: "nobody said it" } }] } }
          }
        }
      })
      yield* main.look(view(1))
      yield* settle
      assert.strictEqual(yield* world.store.quarantineCount, 1)
      const [entry] = yield* world.store.quarantine(10)
      assert.deepInclude(entry?.raw, { content: { body: "nobody said it" } })
      assert.strictEqual((yield* main.state)._tag, "Polling")
    })
  )

  it.effect("I4: when its scope has closed, nothing of it runs", () =>
    Effect.gen(function* () {
      const { process, syncs, world } = yield* setUp(30)
      const idle = yield* process.fibers
      const main = yield* startMain(process)
      assert.isAbove(yield* process.fibers, idle)
      yield* main.close
      assert.strictEqual(yield* process.fibers, idle)
      assert.strictEqual(yield* world.sim.inFlight(), 0)
      const before = (yield* syncs).length
      yield* advance("1 hour")
      assert.lengthOf(yield* syncs, before)
    })
  )
})
