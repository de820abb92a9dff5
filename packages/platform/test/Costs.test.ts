/**
 * What a whole process costs, in requests, transactions and statements: the service over SQLite, with a simulated homeserver
 * in virtual time. It counts and takes no time, so it can't flake; a number may change with a reason, never by accident.
 */
import { assert, describe, it } from "@effect/vitest"
import { Inbox, SyncService } from "@twinloop/actors"
import { Homeserver, PassThroughCrypto, RoomList, SyncConfig } from "@twinloop/core"
import type { SlidingSync } from "@twinloop/core"
import { HomeserverSim, WakeMemory } from "@twinloop/core/testing"
import { Context, Effect, Exit, Layer, Scope } from "effect"
import { TestClock } from "effect/testing"
import { join } from "node:path"
import * as SessionStore from "../src/http/SessionStore.ts"
import { CheckpointThread } from "../src/sqlite/CheckpointThread.ts"
import * as Twinloop from "../src/Twinloop.ts"
import { type Answer, json, scriptedServer, sessionAt, unstablePath, withUnstable } from "./HttpHomeserver.fixture.ts"
import { counting, touching, type Transaction, transactionsOf } from "./SqlCounting.ts"
import { storesAt, temporaryDirectory, temporaryFile } from "./SqliteKit.ts"

const { pollTimeoutMillis, renewMillis, ticketMillis, waitPollMillis } = SyncConfig.defaults
const HOUR = 3_600_000

/** Tables by a word that only their statements have. Each commit of the extension stream looks at the lease too. */
const ROOMS = /\b(FROM|INTO) connection\b/
const STREAM = /\bextension_position\b/
const LEASE = /\b(INTO|UPDATE) lease(_waiter)?\b/
const INBOX = /\bFROM inbox WHERE sequence > /
const CURSOR = /\bINTO inbox_cursor\b/

/** Everybody goes as far as he gets, without time passing. */
const settle = Effect.andThen(TestClock.adjust(0), Effect.repeat(Effect.yieldNow, { times: 300 }))

/** Copies no log: a thread of its own has no virtual time. */
const noCopies = Layer.succeed(CheckpointThread, { checkpoint: () => Effect.void })

const sum = (numbers: ReadonlyArray<number>): number => numbers.reduce((all, one) => all + one, 0)

const modes = (transactions: ReadonlyArray<Transaction>) => ({
  read: transactions.filter(({ mode }) => mode === "read").length,
  write: transactions.filter(({ mode }) => mode === "write").length,
  durable: transactions.filter(({ mode }) => mode === "durable").length
})

/** A host with an account of so many rooms, on which processes open the same database. */
const makeHost = Effect.fnUntraced(function* (rooms: number) {
  const sim = Context.get(yield* Layer.build(HomeserverSim.layer()), HomeserverSim.HomeserverSim)
  const hub = yield* WakeMemory.makeHub
  const session = yield* sim.session("alice", "DEVICE")
  const filename = yield* temporaryFile
  const counted = yield* counting
  const roomIds = yield* sim.addRooms(session.userId, rooms)
  const port = sim.homeserver(session)

  const open = Effect.fnUntraced(function* (role: string) {
    const responses: Array<SlidingSync.SyncResponse> = []
    const keep = (response: SlidingSync.SyncResponse) => Effect.sync(() => void responses.push(response))
    const homeserver = Homeserver.Homeserver.of({
      ...port,
      sync: (request) => Effect.tap(port.sync(request), keep)
    })
    const ports = Layer.mergeAll(
      storesAt(filename),
      Layer.succeed(Homeserver.Homeserver, homeserver),
      hub.process(role)
    )
    const layer = SyncService.SyncService.layer.pipe(
      Layer.provideMerge(Layer.mergeAll(Inbox.Inbox.layer, RoomList.layer, PassThroughCrypto.layer)),
      Layer.provideMerge(ports),
      Layer.provide([SyncConfig.layer({ role }), noCopies])
    )
    const scope = yield* Scope.make()
    const close = Scope.close(scope, Exit.void)
    yield* Effect.addFinalizer(() => close)
    const context = yield* Layer.buildWithScope(Layer.fresh(layer), scope)
    const database = counted.databases.at(-1)!
    counted.take(database)
    return {
      service: Context.get(context, SyncService.SyncService),
      inbox: Context.get(context, Inbox.Inbox),
      responses,
      /** Requests of the main loop so far. */
      syncs: sim.syncs(`rooms-${role}`),
      /** The transactions of this process since the last call. */
      transactions: () => transactionsOf(counted.take(database)),
      close
    }
  })

  /** A process that runs and waits for news. */
  const start = Effect.fnUntraced(function* (role: string) {
    const process = yield* open(role)
    yield* process.service.start
    yield* settle
    return process
  })
  return { sim, session, roomIds, counted, open, start }
})

describe("What a process costs", () => {
  it.effect("the first start with 220 rooms takes four requests, a commit for each and a statement per event", () =>
    Effect.gen(function* () {
      const host = yield* makeHost(220)
      const app = yield* host.start("app")
      // 20 rooms, 80 more, a page of 100, and with the last page all of them; then the line is held.
      const windows = (yield* app.syncs).map(({ request }) => request.lists["rooms"]!.range!)
      assert.lengthOf(windows, 4 + 1)
      assert.strictEqual(sum(windows.slice(0, -1).map(([from, to]) => to - from + 1)), 20 + 80 + 100 + 220)

      const all = app.transactions()
      const rooms = touching(all, ROOMS)
      // Read: where the connection stands, then all that it knows, which is nothing.
      assert.deepStrictEqual(modes(rooms), { read: 2, write: 4, durable: 0 })
      const received = app.responses.flatMap((response) => response.rooms)
      assert.lengthOf(received, 220)
      const events = sum(received.map((room) => room.requiredState.length + room.timeline.length))
      const accountData = sum(app.responses.map(({ extensions }) => extensions.accountData?.global.length ?? 0))
      const written = rooms.filter(({ mode }) => mode === "write").flatMap(({ statements }) => statements)
      // Per page the position, twice; per room whether it is there, its row, and the gap before its timeline.
      assert.strictEqual(written.length, 4 * 2 + 3 * 220 + events + accountData)

      // The extension loop was answered once, with nothing: its position is read before each request, and synced once.
      assert.deepStrictEqual(modes(touching(all, STREAM)), { read: 2, write: 0, durable: 1 })
      assert.deepStrictEqual(modes(touching(all, LEASE)), { read: 0, write: 1, durable: 0 })
    })
  )

  it.effect("a start with nothing new asks ⌈log2(n / 200 + 1)⌉ + 1 times and writes two rows for each answer", () =>
    Effect.gen(function* () {
      const host = yield* makeHost(220)
      yield* Effect.flatMap(host.start("app"), ({ close }) => close)
      const before = (yield* host.sim.requests).length
      const app = yield* host.start("app")
      // Empty windows grow twofold: 20, 200, 600, ... For 220 rooms that is three, and the one that is held.
      const asked = (yield* host.sim.requests).slice(before)
      assert.lengthOf(
        asked.filter(({ request }) => request?.connId === "rooms-app"),
        3 + 1
      )
      assert.lengthOf(
        asked.filter(({ request }) => request?.connId === "encryption"),
        1 + 1
      )
      const rooms = touching(app.transactions(), ROOMS)
      assert.deepStrictEqual(modes(rooms), { read: 2, write: 3, durable: 0 })
      for (const { mode, statements } of rooms) if (mode === "write") assert.lengthOf(statements, 2)
    })
  )

  it.effect("a thousand messages take ten synced commits and ten rows of a cursor, and are not read again", () =>
    Effect.gen(function* () {
      const host = yield* makeHost(0)
      const app = yield* host.start("app")
      const seen: Array<number> = []
      yield* Effect.forkChild(app.inbox.consume("app", ({ sequence }) => Effect.sync(() => void seen.push(sequence))))
      yield* settle
      app.transactions()
      yield* host.sim.sendNumbered(host.session, 1_000)
      yield* settle
      assert.deepStrictEqual(
        seen,
        Array.from({ length: 1_000 }, (_, index) => index + 1)
      )
      const all = app.transactions()
      const batches = all.filter(({ mode }) => mode === "durable")
      assert.lengthOf(batches, 10)
      // Beside the messages: the fence, `since`, and `since` again.
      for (const { statements } of batches) assert.lengthOf(statements, 100 + 3)
      const cursors = touching(all, CURSOR)
      assert.deepStrictEqual(modes(cursors), { read: 0, write: 10, durable: 0 })
      // Where the inbox ends, the cursor, and what nobody needs any more.
      for (const { statements } of cursors) assert.lengthOf(statements, 3)
      assert.lengthOf(touching(all, INBOX), 0, "what was committed here is handed over")
      // What is left is `since`, read before each request.
      assert.lengthOf(all, 10 + 10 + 10)
    })
  )

  it.effect(
    "an idle hour takes a request per loop in 30 s, a lease row in 3.3 s of the owner and in 8 s of who waits",
    () =>
      Effect.gen(function* () {
        const host = yield* makeHost(30)
        const owner = yield* host.start("owner")
        const waiter = yield* host.start("waiter")
        // The first time, the statements of an idle process are prepared.
        yield* TestClock.adjust("1 minute")
        yield* settle
        const before = (yield* host.sim.requests).length
        for (const process of [owner, waiter]) process.transactions()
        host.counted.takePrepared()
        yield* TestClock.adjust(HOUR)
        yield* settle

        // Held for as long as it can be: two main loops and one extension loop.
        const polls = HOUR / pollTimeoutMillis
        assert.strictEqual((yield* host.sim.requests).length - before, 3 * polls)
        assert.strictEqual(host.counted.takePrepared(), 0)

        const owned = owner.transactions()
        const waited = waiter.transactions()
        for (const all of [owned, waited]) {
          assert.deepStrictEqual(modes(touching(all, ROOMS)), { read: 0, write: polls, durable: 0 })
        }
        // Each answer brings a position of the connection, which is of no use after a power loss without what came before it.
        assert.deepStrictEqual(modes(touching(owned, STREAM)), { read: polls, write: 0, durable: polls })
        assert.lengthOf(touching(waited, STREAM), 0)

        const renewals = touching(owned, LEASE).length
        assert.approximately(renewals, HOUR / renewMillis, 1)
        // A place in the queue is written anew at the first look after half of its time.
        const refreshes = touching(waited, LEASE).length
        assert.approximately(refreshes, HOUR / (Math.ceil(ticketMillis / 2 / waitPollMillis) * waitPollMillis), 1)
        assert.isAtMost((renewals + refreshes) / (HOUR / 1_000), 0.5)
        // Every other look of who waits is a read, once a second; the owner looks at nothing.
        const looks = touching(waited, /\bFROM lease\b/).filter(({ mode }) => mode === "read")
        assert.approximately(looks.length, HOUR / waitPollMillis, 1)
        assert.lengthOf(owned, 3 * polls + renewals)
        assert.lengthOf(waited, polls + looks.length + refreshes)
      })
  )

  it.effect("a change of view while the line is held takes one request, and then the line is held again", () =>
    Effect.gen(function* () {
      const host = yield* makeHost(50)
      const app = yield* host.start("app")
      const before = (yield* app.syncs).length
      app.transactions()
      for (let change = 1; change <= 10; change++) {
        yield* app.service.setWindow([change, change + 9])
        yield* settle
      }
      const asked = (yield* app.syncs).slice(before)
      assert.deepStrictEqual(
        asked.map(({ outcome, request }) => [request.timeoutMillis, outcome]),
        Array.from({ length: 10 }, (_, change) => [
          [0, "answered"],
          [pollTimeoutMillis, change === 9 ? "pending" : "aborted"]
        ]).flat()
      )
      assert.deepStrictEqual(modes(touching(app.transactions(), ROOMS)), { read: 0, write: 10, durable: 0 })
    })
  )

  it.live("over HTTP, a start asks each loop's questions and nothing else", () =>
    Effect.gen(function* () {
      const server = yield* scriptedServer
      const nothing: Answer = (response, received) => {
        if (Number(received.query["timeout"] ?? 0) > 0) return
        json(200, { pos: "1", lists: { rooms: { count: 0 } }, rooms: {}, extensions: {} })(response, received)
      }
      withUnstable(server, nothing)
      const database = join(yield* temporaryDirectory, "account.db")
      const options = { database, singleProcess: true }
      yield* Effect.flatMap(SessionStore.SessionStore, (store) => SessionStore.replace(store, sessionAt(server))).pipe(
        Effect.provide(Twinloop.layerFoundation(options))
      )

      /** Starts, until both loops hold their lines; gives what was asked meanwhile. */
      const start = Effect.gen(function* () {
        const before = server.requests.length
        const service = yield* SyncService.SyncService
        const held = () =>
          server.requests.slice(before).filter(({ query }) => query["timeout"] === `${pollTimeoutMillis}`)
        yield* service.start
        yield* Effect.promise(async () => {
          while (held().length < 2) await server.next(unstablePath)
        })
        return server.requests.slice(before).map(({ path }) => path)
      }).pipe(Effect.provide(Twinloop.layer(options)))

      const asked = Array.from({ length: 4 }, () => unstablePath)
      assert.deepStrictEqual(yield* start, asked)
      // With positions.
      assert.deepStrictEqual(yield* start, asked)
    }).pipe(Effect.scoped)
  )
})
