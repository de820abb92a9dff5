/**
 * Gathers the facts of a simulation at one moment, and asks every checker.
 *
 * Gotchas: what is only ever added to, such as the inbox and what was sent, is looked at once.
 *
 * Not here: the checkers (`SimCheckers.ts`, `SimCipherWatch.ts`), steps (`SimSteps.ts`).
 */
import { ExtensionLoopMachine, SyncConfig } from "@twinloop/core"
import { HomeserverModel } from "@twinloop/core/testing"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import * as Checkers from "./SimCheckers.ts"
import { DEADLINE_MILLIS } from "./SimProcesses.ts"
import { SETTLED } from "./SimSchedule.ts"
import { goOn, livingPlayers, ownsLease, type Player, type Stage } from "./SimStage.ts"

/** The invariants are looked at once in so long when nothing happens. */
const LOOK_MILLIS = 600_000
/** Wide of the longest chain of fibers that wake each other. */
const GOING = 200

const isSkewed = ({ players }: Stage): boolean =>
  [...players.values()].some(({ skewMillis }) => Math.abs(skewMillis) > SyncConfig.defaults.leaseMillis / 2)

/** Whether the application wants nothing of a process: what it sends and resolves runs in it, and so does asking for quiet. */
const isLeftAlone = ({ endings, resolving, sends }: Player): boolean => endings + resolving.size + sends === 0

/** Everything about one process. */
export const factsOf = Effect.fnUntraced(function* (stage: Stage, player: Player) {
  const { ports, process } = player
  const facts: Checkers.ProcessFacts = {
    name: player.name,
    nowMillis: stage.now(),
    isQuiet: player.isQuiet && isLeftAlone(player),
    shouldRun: player.isStarted && !player.isSuspended && !player.isFrozen,
    state: yield* process.service.state,
    fibers: (yield* process.fibers) - player.idleFibers,
    requests: ports.requests,
    calls: ports.calls,
    ownsLease: yield* ownsLease(stage, process),
    disturbedUntil: ports.disturbedUntil,
    isTerminalExcused: ports.isTerminalExcused,
    isSkewed: isSkewed(stage)
  }
  return facts
})

const sharedFacts = Effect.fnUntraced(function* (stage: Stage) {
  const { inbox, world } = stage
  const { session, sim, store } = world
  inbox.push(...(yield* store.readInbox({ after: inbox.at(-1)?.sequence ?? 0, limit: 1_000_000 })))
  const quarantine = yield* store.quarantine(1_000_000)
  const { quarantineKept } = SyncConfig.defaults
  const facts: Checkers.SharedFacts = {
    since: Number((yield* store.extensionPosition).since ?? 0),
    ledger: yield* sim.model((state) => HomeserverModel.ledger(state, session.userId, session.deviceId)),
    inbox,
    quarantinedToDevice: quarantine.filter(({ source }) => source === "toDevice").length,
    quarantineKept,
    quarantineRows: quarantine.length,
    table: yield* world.leases.inspect(ExtensionLoopMachine.EXTENSION_LEASE),
    processes: stage.processes,
    engineViolations: stage.engines.flatMap(({ violations }) => violations),
    defects: stage.defects
  }
  return facts
}, Effect.orDie)

const sharedCheckers = {
  "I1 generationsGrow": Checkers.generationsGrow,
  "I2 exactlyOnceInOrder": Checkers.exactlyOnceInOrder,
  "I2 acknowledgedIsStored": Checkers.acknowledgedIsStored,
  "I5 validMemory": Checkers.validMemory,
  "I7 malformedIsCounted": Checkers.malformedIsCounted,
  "I7 noDefect": Checkers.noDefect,
  "I10 boundedStore": Checkers.boundedStore
}

const processCheckers = {
  "I3 independentLoops": Checkers.independentLoops,
  "I4 stoppedIsQuiet": Checkers.stoppedIsQuiet,
  "I9 terminalIsEarned": Checkers.terminalIsEarned,
  "I10 boundedProcess": Checkers.boundedProcess
}

/** Looks at every invariant; at whether loops are in sync only when everybody has gone as far as he gets. */
export const look = Effect.fnUntraced(function* (stage: Stage, isSettled: boolean) {
  const { now, pushes, record } = stage
  const shared = yield* sharedFacts(stage)
  for (const [name, checker] of Object.entries(sharedCheckers)) record.check(name, checker(shared))
  for (const player of yield* livingPlayers(stage)) {
    const { shouldRun, ...facts } = yield* factsOf(stage, player)
    for (const [name, checker] of Object.entries(processCheckers)) {
      record.check(name, checker({ ...facts, shouldRun: shouldRun && isSettled }))
    }
  }
  for (const { isExcused, name, process, result, startedAtMillis } of pushes) {
    if (isExcused || result !== undefined || !(yield* process.isAlive)) continue
    record.check("I10 notifiedInTime", Checkers.notifiedInTime(name, startedAtMillis, DEADLINE_MILLIS, now()))
  }
  yield* stage.cipher.look(shared.since)
  return shared
})

/** Lets time pass until then, and looks at the invariants on the way. */
export const passUntil = Effect.fnUntraced(function* (stage: Stage, untilMillis: number) {
  while (stage.now() < untilMillis) {
    // Nobody is so slow that the clock overtakes him: what began in this millisecond gets as far as it can.
    yield* goOn(GOING)
    yield* TestClock.adjust(Math.min(LOOK_MILLIS, untilMillis - stage.now()))
    yield* goOn(SETTLED)
    yield* look(stage, true)
  }
})
