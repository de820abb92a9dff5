/**
 * A simulation of whole processes from a seed: an application, a second process that stands by, and short-lived ones that
 * pushes start, over one homeserver, one database and one clock, while everything that can go wrong does.
 *
 * Every actor is the real one; the homeserver, the database, the cipher, the signals and time are the test kit's. After every
 * step the invariants are checked (`SimLook.ts`); in the end all faults stop, and everything must be back in sync.
 *
 * Invariants: checks I1, I2, I3, I4, I5, I6, I7, I9 and I10; rests on I8: a schedule always plays the same.
 *
 * Gotchas: a day of virtual time costs seconds, since the processes go on polling.
 *
 * Not here: what can happen (`SimSchedule.ts`), what it does (`SimSteps.ts`), making a failure small (`SimShrink.ts`).
 *
 * @example
 * ```ts
 * const outcome = yield* SyncSim.run(yield* SyncSim.drawSchedule(1928))
 * assert.deepStrictEqual(outcome.violations, [])
 * ```
 */
import { Effect, Exit, Queue, Random, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as Checkers from "./SimCheckers.ts"
import { makeCipherWatch } from "./SimCipherWatch.ts"
import type { FaultKind } from "./SimFaults.ts"
import { look, passUntil } from "./SimLook.ts"
import { BOB, makePeer } from "./SimPeer.ts"
import { hostClock } from "./SimPorts.ts"
import { LIVE_LIMIT, send, startPlayer } from "./SimProcesses.ts"
import { makeRecord, type Violation } from "./SimRecord.ts"
import { type Schedule, SETTLED } from "./SimSchedule.ts"
import {
  goOn,
  livingNotifiers,
  livingPlayers,
  ownsLease,
  ROLES,
  type Sabotage,
  type Sending,
  type Stage,
  START_MILLIS
} from "./SimStage.ts"
import { act, push, releaseToDevice, thaw, wake } from "./SimSteps.ts"
import { makeWorld } from "./Simulation.ts"

export { FAULTS, type FaultKind, KINDS } from "./SimFaults.ts"
export type { Violation } from "./SimRecord.ts"
export * from "./SimSchedule.ts"
export { shrink, type Shrunk } from "./SimShrink.ts"
export type { Later, Sabotage } from "./SimStage.ts"

/** What became of a schedule. */
export interface Outcome {
  readonly schedule: Schedule
  /** Empty when all went well; the first one of each checker else. */
  readonly violations: ReadonlyArray<Violation>
  readonly virtualMillis: number
  /** How often each kind of fault was met. */
  readonly hits: { readonly [kind in FaultKind]?: number }
  /** How often a checker was asked. */
  readonly checks: number
  /** Two runs of one schedule have the same. */
  readonly digest: number
}

export interface SimOptions {
  readonly sabotage?: Sabotage
}

const ROOMS = 4
/** In longer stories the application keeps no timeline open: it would only be looked at in vain. */
const SHOWN_MILLIS = 1_800_000

// --- the end

/** Ends all faults, lets everybody run, and gives them time. */
const heal = Effect.fnUntraced(function* (stage: Stage) {
  const { session, sim } = stage.world
  yield* sim.reachable
  Object.assign(stage.disk, { fullUntil: 0, failsUntil: 0 })
  yield* releaseToDevice(stage.world)
  for (const { ports, process } of yield* livingNotifiers(stage)) {
    ports.heal()
    yield* process.thaw
  }
  for (const who of ROLES) yield* act(stage, { _tag: "Run", who })
  for (const player of yield* livingPlayers(stage)) {
    player.ports.heal()
    yield* thaw(stage, player)
    yield* player.process.stepClock(-player.skewMillis)
    player.skewMillis = 0
    player.isSuspended = false
    player.isStarted = true
    wake(stage, player)
    yield* player.process.service.resume()
  }
  // A loop that has given up is started again; what it met may be in flight still.
  for (let round = 0; round < 3; round++) {
    yield* passUntil(stage, stage.now() + 120_000)
    for (const { process } of yield* livingPlayers(stage)) yield* process.service.start
  }
  yield* sim.sendNumbered(session, 3)
})

/** Which applications don't show the newest message of a room. */
const whoIsBehind = Effect.fnUntraced(function* (stage: Stage, newest: ReadonlyMap<string, string>) {
  const behind: Array<string> = []
  for (const { name, process } of yield* livingPlayers(stage)) {
    for (const [roomId, eventId] of newest) {
      const shown = (yield* process.rooms.get(roomId))?.latestEvent?.event_id
      if (shown !== eventId)
        behind.push(`${name} shows ${shown ?? "nothing"} in ${roomId}, whose newest event is ${eventId}`)
    }
  }
  return behind
})

/** Everybody can send to an encrypted room, and everything can be read, stored or shown. */
const checkMessages = Effect.fnUntraced(function* (stage: Stage) {
  const { cipher, record, rooms } = stage
  const [roomId = ""] = rooms
  for (const player of yield* livingPlayers(stage)) {
    const sending = yield* send(stage, player, roomId)
    yield* passUntil(stage, stage.now() + 5_000)
    if (sending.eventId === undefined)
      record.violate("I9 backInSync", `all faults are over, and ${player.name} can't send an encrypted message`)
  }
  yield* cipher.lookAgain
  for (const { live, name, rooms: timelines } of yield* livingPlayers(stage)) {
    for (const one of rooms) {
      const items = yield* Effect.orDie(timelines.timeline(one, { limit: 10_000 }))
      record.check("I9 shownDecrypted", cipher.shown(name, items))
    }
    if (live.items === undefined) continue
    const items = yield* Effect.orDie(timelines.timeline(roomId, { limit: LIVE_LIMIT }))
    record.check("I6 liveIsStored", Checkers.liveIsStored(name, live.items, items))
  }
})

const checkPushes = Effect.fnUntraced(function* (stage: Stage) {
  stage.forNextNotifier.length = 0
  for (const by of ["notifier", ...ROLES] as const) {
    const { name, result } = yield* Effect.tap(push(stage, { room: 0, padding: 0, keyMillis: 0, by }), () =>
      passUntil(stage, stage.now() + 1_000)
    )
    if (result?._tag !== "Event")
      stage.record.violate(
        "I9 backInSync",
        `all faults are over, and a push whose key is there gives ${name} ${result?._tag ?? "no result"}`
      )
  }
})

const checkEnd = Effect.fnUntraced(function* (stage: Stage) {
  const { sim } = stage.world
  const newest = new Map<string, string>()
  for (const roomId of stage.rooms) newest.set(roomId, yield* sim.sendMessage(roomId, BOB, "the end"))
  yield* passUntil(stage, stage.now() + 1_000)
  const shared = yield* look(stage, true)
  const owners = yield* Effect.filter(yield* livingPlayers(stage), ({ process }) => ownsLease(stage, process))
  stage.record.check("I9 backInSync", Checkers.backInSync(shared, owners.length, yield* whoIsBehind(stage, newest)))
  yield* checkPushes(stage)
  yield* checkMessages(stage)
  for (const player of yield* livingPlayers(stage)) {
    yield* act(stage, { _tag: "Suspend", who: player.who })
    yield* passUntil(stage, stage.now() + 1)
    if (!player.isQuiet)
      stage.record.violate("I4 stoppedIsQuiet", `all faults are over, and ${player.name} can't be suspended`)
  }
  yield* passUntil(stage, stage.now() + 60_000)
})

// --- the whole story

const makeStage = Effect.fnUntraced(function* ({ steps }: Schedule, sabotage: Sabotage) {
  yield* TestClock.setTime(START_MILLIS)
  const clock = yield* hostClock
  const now = () => clock() - START_MILLIS
  const record = makeRecord(now)
  const world = record.watch(yield* makeWorld({}, sabotage.fences))
  // Served by a fiber of the host, so that it neither ends with a process nor counts as one of its fibers.
  const jobs = yield* Queue.unbounded<Effect.Effect<unknown, unknown>>()
  const work = Effect.flatMap(Queue.take(jobs), (job) => Effect.forkScoped(Effect.exit(job)))
  yield* Effect.forkScoped(Effect.forever(work))
  const background = (effect: Effect.Effect<unknown, unknown>) => Effect.asVoid(Queue.offer(jobs, effect))
  const peer = yield* makePeer(world, background)
  const sendings: Array<Sending> = []
  const stage: Stage = {
    world,
    record,
    sabotage,
    now,
    background,
    peer,
    cipher: makeCipherWatch(world, peer, record, sendings),
    players: new Map(),
    notifiers: [],
    pushes: [],
    sendings,
    engines: [],
    rooms: [],
    defects: [],
    inbox: [],
    showsRoom: (steps.at(-1)?.atMillis ?? 0) <= SHOWN_MILLIS,
    forNextNotifier: [],
    processes: 0,
    hostSkewMillis: 0,
    revived: new Set(),
    disk: { fullUntil: 0, failsUntil: 0 },
    outageUntil: -1
  }
  for (let room = 0; room < ROOMS; room++) yield* act(stage, { _tag: "NewRoom" })
  for (const who of ROLES) yield* startPlayer(stage, who)
  yield* goOn(SETTLED)
  return stage
})

const play = Effect.fnUntraced(function* (schedule: Schedule, { sabotage = {} }: SimOptions) {
  const { steps } = schedule
  const stage = yield* makeStage(schedule, sabotage)
  const { record } = stage
  for (const { action, atMillis, yields } of steps) {
    yield* passUntil(stage, atMillis)
    record.note(JSON.stringify(action))
    yield* act(stage, action)
    yield* goOn(yields)
    yield* look(stage, false)
    if (record.violations.length > 0) break
  }
  if (record.violations.length === 0) yield* heal(stage)
  if (record.violations.length === 0) yield* checkEnd(stage)
  const outcome: Outcome = {
    schedule,
    violations: record.violations,
    virtualMillis: stage.now(),
    hits: Object.fromEntries(record.hits),
    checks: record.checks(),
    digest: record.digest()
  }
  return outcome
})

/** The clock doesn't wait longer for who is woken: a machine that is busy with something else must not change a story. */
const PATIENCE = "10 minutes"

/** Plays a schedule, in virtual time of its own. Never fails: what was wrong is in the outcome. */
export const run = (schedule: Schedule, options: SimOptions = {}): Effect.Effect<Outcome> =>
  Effect.gen(function* () {
    const scope = yield* Scope.make()
    const outcome = yield* Scope.provide(play(schedule, options), scope)
    // What is killed or frozen never ends by itself, so nobody waits for it.
    yield* Effect.forkDetach(Scope.close(scope, Exit.void))
    return outcome
  }).pipe(Random.withSeed(`run ${schedule.seed}`), Effect.provide(TestClock.layer({ warningDelay: PATIENCE })))
