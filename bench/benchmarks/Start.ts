/**
 * How long processes take to be of use: one that is started by a push, and an application that starts again.
 *
 * Each is one bundled file (`scripts/bundle.ts`), the peer's too, and its compile cache is warm: a run before has made it.
 * Times are taken by the parent and the canned homeserver, on the host's monotonic clock.
 */
import { MainSync } from "@twinloop/actors"
import { SyncConfig } from "@twinloop/core"
import { Effect } from "effect"
import type { Aim, Benchmark, Contestant, Make, Options } from "../Benchmark.ts"
import * as Child from "../Child.ts"
import { answered, type Figures, plan } from "../contestants/Figures.ts"
import * as TwinloopAccount from "../contestants/TwinloopAccount.ts"
import { BATCH } from "../homeserver/CannedHomeserver.ts"
import { lineOf, node, type Run, start, startCold } from "../Node.ts"

/** An account that is logged in, in a new database. */
const account = Effect.fnUntraced(function* (baseUrl: string) {
  const database = yield* Child.newDatabase
  yield* Effect.promise(() => TwinloopAccount.prepare(database, baseUrl))
  return database
})

const ofUs = (what: string, figure: string, unit: string, bound: number): Aim => ({
  what,
  value: (median) => median("us", figure),
  is: "at most",
  bound,
  unit
})

/* ---- a process that is started by a push ---- */

/** More batches than will be asked for. */
const MANY = 1_000_000

const oneShot = (start: Effect.Effect<Run>): Effect.Effect<Figures> =>
  Effect.flatMap(start, (run) => {
    const { messages, peakMegabytes } = lineOf(run.output)
    return messages === BATCH
      ? Effect.succeed({ shownMillis: run.shownMillis, exitMillis: run.exitMillis, peakMegabytes })
      : Effect.die(new Error(`${messages} of ${BATCH} messages came: ${run.output}`))
  })

const oneShots = Effect.gen(function* () {
  const baseUrl = yield* Child.homeserver({ rooms: 1, timeline: 1, news: 0, batches: 10 })
  const ours = yield* Child.bundled("contestants/start/oneShot.ts")
  const peers = yield* Child.bundled("contestants/start/oneShotJsSdk.ts")
  const database = yield* account(baseUrl)
  // The first answer of a connection brings no messages, so a cache of that run would lack what handles them.
  yield* startCold(ours, database)
  yield* Effect.promise(() => plan(baseUrl, { kind: "toDevice", count: MANY }))
  const us = start(ours, database)
  const peer = start(peers, baseUrl)
  yield* Effect.all([us, peer])
  const all: ReadonlyArray<Contestant> = [
    { name: "twinloop", role: "us", run: oneShot(us) },
    { name: "matrix-js-sdk", role: "peer", run: oneShot(peer) },
    { name: "node -e 0", role: "limit", run: Effect.map(node(["-e", "0"]), ({ exitMillis }) => ({ exitMillis })) }
  ]
  return all
})

const coldStart = ({ quick }: Options): Benchmark => ({
  name: "cold-start",
  title: "A process that starts, takes 100 to-device messages, and ends",
  how: "From the start of the process until its line arrives (shown), and until its end (exit). Each is one CommonJS file with a warm compile cache. Twinloop opens the account in SQLite, takes the lease, asks the homeserver once, commits the messages (fenced, synced to disk), says so, releases the lease and ends. matrix-js-sdk makes one call of slidingSync(), without crypto, and keeps nothing. The limit does nothing at all.",
  repetitions: quick ? 2 : 15,
  contestants: oneShots,
  aims: [
    ofUs("shown", "shownMillis", "ms", 60),
    {
      what: "exit, of `node -e 0`'s",
      value: (median) => median("us", "exitMillis") / median("limit", "exitMillis"),
      is: "at most",
      bound: 2.3,
      unit: "×"
    },
    ofUs("peak memory", "peakMegabytes", "MB", 60)
  ]
})

/* ---- an application that starts again ---- */

/** Runs one and gives what the homeserver was asked meanwhile. */
const logged = Effect.fnUntraced(function* (baseUrl: string, start: Effect.Effect<Run>) {
  // A new plan begins a new log.
  yield* Effect.promise(() => plan(baseUrl, { kind: "nothing", count: 0 }))
  const run = yield* start
  const log = yield* Effect.promise(() => answered(baseUrl))
  const fetched = log.reduce((rooms, answer) => rooms + answer.rooms, 0)
  return { run, log, figures: { readyMillis: run.shownMillis, roomsFetchedAgainCount: fetched } }
})

const restartOfUs = Effect.fnUntraced(function* (baseUrl: string, start: Effect.Effect<Run>) {
  const { figures, log, run } = yield* logged(baseUrl, start)
  const connId = MainSync.connId(SyncConfig.defaults.role)
  const resumed = log.find((answer) => answer.connId === connId && !answer.fresh)
  if (resumed === undefined) return yield* Effect.die(new Error("no request had a position"))
  const firstRequestMillis = resumed.askedAtMillis - run.startedAtMillis
  return { firstRequestMillis, ...figures, peakMegabytes: lineOf(run.output).peakMegabytes }
})

const restartOfPeer = (baseUrl: string, start: Effect.Effect<Run>): Effect.Effect<Figures> =>
  Effect.map(logged(baseUrl, start), ({ figures, run }) => ({
    ...figures,
    peakMegabytes: lineOf(run.output).peakMegabytes
  }))

const applications = (rooms: number) =>
  Effect.gen(function* () {
    const baseUrl = yield* Child.homeserver({ rooms, timeline: 1, news: 0, batches: 1 })
    const ours = yield* Child.bundled("contestants/start/application.ts")
    const peers = yield* Child.bundled("contestants/start/applicationJsSdk.ts")
    const database = yield* account(baseUrl)
    // The run before, which gets the rooms; a cache of it would hold what loads them and lack what starts again.
    yield* startCold(ours, database, `${rooms}`)
    const us = start(ours, database, `${rooms}`)
    const peer = start(peers, baseUrl, `${rooms}`)
    yield* Effect.all([us, peer])
    const all: ReadonlyArray<Contestant> = [
      { name: "twinloop", role: "us", run: restartOfUs(baseUrl, us) },
      { name: "matrix-js-sdk", role: "peer", run: restartOfPeer(baseUrl, peer) }
    ]
    return all
  })

const restart = ({ quick }: Options, name: string, rooms: number, aims: ReadonlyArray<Aim>): Benchmark => ({
  name,
  title: `An application starts again, ${rooms.toLocaleString("en-US")} rooms`,
  how: "From the start of the process until its first request with a position arrives at the homeserver (first request), and until it says that all rooms are known and up to date (ready); and the rooms that the homeserver sent again. Each is one CommonJS file with a warm compile cache. Twinloop has the rooms in SQLite from a run before; matrix-js-sdk keeps nothing in Node and gets them all.",
  repetitions: quick ? 1 : 9,
  contestants: applications(rooms),
  aims: [...aims, ofUs("rooms that are fetched again", "roomsFetchedAgainCount", "", 0)]
})

export const make: Make = (options) => [
  coldStart(options),
  restart(options, "restart", options.quick ? 100 : 1_000, [ofUs("first request", "firstRequestMillis", "ms", 60)]),
  ...(options.quick ? [] : [restart(options, "restart-10k", 10_000, [])])
]
