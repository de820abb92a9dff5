/**
 * Real processes in real trouble: Alice's account is followed by two processes and a push daemon, over real SQLite, real HTTP and
 * real encryption, while Bob writes to her; they are killed, stopped, suspended, cut off and left without disk space, as a schedule
 * from a seed says. Then everything must be there.
 *
 * Invariants shown: I1 and I2 (each to-device event once and in order, each message readable, no one-time key used twice), I4
 * (suspended is quiet), I6 and I7 (each push is shown exactly once), I9 (nothing needs anybody's hand).
 *
 * Not here: the schedule (`Schedule.ts`), what it comes to (`Verdict.ts`).
 */
import { ExtensionLoopMachine, Lease, LeaseStore } from "@twinloop/core"
import { Effect, Fiber, Ref, Schedule as Recurs } from "effect"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { DatabaseSync } from "node:sqlite"
import * as Flags from "../../packages/platform/src/cli/Flags.ts"
import * as MonotonicClock from "../../packages/platform/src/cli/MonotonicClock.ts"
import type { Progress } from "../../packages/platform/src/cli/Output.ts"
import * as ControlClient from "../../packages/platform/src/control/ControlClient.ts"
import { PUSH_LEASE } from "../../packages/platform/src/push/PushQueue.ts"
import * as Accounting from "../../packages/platform/src/story/Accounting.ts"
import * as Decryption from "../../packages/platform/src/story/Decryption.ts"
import * as PushProcess from "../../packages/platform/src/story/PushProcess.ts"
import * as Report from "../../packages/platform/src/story/Report.ts"
import type { Message } from "../../packages/platform/src/story/Sender.ts"
import type * as StoryHomeserver from "../../packages/platform/src/story/StoryHomeserver.ts"
import * as Crew from "./Crew.ts"
import * as Faults from "./Faults.ts"
import * as Schedule from "./Schedule.ts"
import type * as SmallDisk from "./SmallDisk.ts"
import * as Stage from "./Stage.ts"
import * as Verdict from "./Verdict.ts"

export interface Options extends Schedule.Options {
  readonly homeserver: StoryHomeserver.Kind
  readonly place: SmallDisk.Place
  readonly progress: Progress
  /** Told of each step as it begins, and of what else happens. */
  readonly tell: (line: string) => Effect.Effect<void>
}

const SEND_PAUSE_MILLIS = 40
const PUSH_PAUSE_MILLIS = 700
/** Until everything is there once nothing is in trouble any more: a backoff has 30 s, and a homeserver tries a push again after as long. */
const RECOVERY_MILLIS = 120_000

const again = Recurs.spaced("250 millis")

/** Looks until it is true, or the recovery has taken too long; what is missing then, the verdict says. */
const settle = <E, R>(look: Effect.Effect<boolean, E, R>) =>
  Effect.timeoutOption(Effect.repeat(look, { until: (done) => done, schedule: again }), RECOVERY_MILLIS)

const shownIn = (file: string) => PushProcess.linesOf(existsSync(file) ? readFileSync(file, "utf8") : "")

/** Processes of this database that run. */
const runningOn = (database: string): ReadonlyArray<string> =>
  readdirSync("/proc").flatMap((name) => {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) return []
    try {
      const command = readFileSync(`/proc/${name}/cmdline`, "utf8").replaceAll("\0", " ").trim()
      return command.includes(database) ? [`${name} ${command}`] : []
    } catch {
      // It has ended since it was listed.
      return []
    }
  })

/** Synapse pushes twenty at a time, and the others when there is another one to push: so Bob goes on until few are left. */
const FEW = 10
const hasCaughtUp = (stage: Stage.Stage) =>
  Effect.map(stage.pushed, (pushed) => pushed.length - shownIn(stage.notifications).length <= FEW)

const stop = Effect.fnUntraced(function* ({ database }: Stage.Stage, member: Crew.Member) {
  const running = yield* member.release
  if (member.name === "push") yield* running.interrupt
  else {
    const [target] = yield* ControlClient.find(database, running.pid)
    yield* Effect.scoped(Effect.flatMap(ControlClient.connect(target), (client) => client.stop))
  }
  return yield* running.exitCode
})

const isFree = Effect.forEach([ExtensionLoopMachine.EXTENSION_LEASE, PUSH_LEASE], (name) =>
  Effect.flatMap(LeaseStore, (leases) => leases.inspect(name))
).pipe(Effect.map((tables) => tables.every(({ rows }) => rows.every((row) => !Lease.isHeld(row, Date.now())))))

/** Longer than `SyncConfig.handoverMillis`: a lease may have been handed to a process that was killed while it waited for it. */
const LAPSE_MILLIS = 4_000
const untilFree = Effect.repeat(isFree, { until: (free) => free, schedule: again })

const integrityOf = (database: string): string => {
  const db = new DatabaseSync(database)
  const rows = db.prepare("PRAGMA integrity_check").all()
  db.close()
  return rows.map((row) => Object.values(row).join(" ")).join("; ")
}

/** Waits until everything is there, stops the crew, and looks. */
const conclude = Effect.fnUntraced(function* (
  stage: Stage.Stage,
  crew: Crew.Crew,
  pushed: Effect.Success<Stage.Stage["pushed"]>
) {
  const fromMillis = yield* MonotonicClock.nowMillis
  const sent = yield* stage.sender.sent
  const messages = [...sent.messages, ...(pushed as ReadonlyArray<Message>)]
  const account = { session: stage.alice, keyFile: Flags.keyFileOf(stage.database), role: "main" }
  yield* settle(Effect.map(Accounting.inboxNumbers, (numbers) => new Set(numbers).size >= sent.toDevice))
  yield* settle(
    Effect.sync(() => {
      const shown = new Set(shownIn(stage.notifications).map(({ eventId }) => eventId))
      return pushed.every(({ eventId }) => shown.has(eventId))
    })
  )
  yield* settle(Effect.map(Decryption.count(account, messages), ({ undecrypted }) => undecrypted === 0))
  const roomsBehind = yield* Accounting.settleRooms("main", Accounting.lastMessages(messages))
  const recoveryMillis = (yield* MonotonicClock.nowMillis) - fromMillis
  const refusedWrites = yield* crew.refusedWrites
  const exitCodes = yield* Effect.forEach([crew.standby, crew.main, crew.push], (member) => stop(stage, member))
  const readable = yield* Decryption.count(account, messages)
  return {
    recoveryMillis,
    refusedWrites,
    roomsBehind,
    exitCodes,
    leaseIsFree: yield* Effect.andThen(Effect.timeoutOption(untilFree, LAPSE_MILLIS), isFree),
    toDevice: Report.compare(sent.toDevice, yield* Accounting.inboxNumbers),
    encryption: { ...readable, oneTimeKeyConflicts: yield* stage.conflicts },
    pushes: Verdict.pushes(pushed, shownIn(stage.notifications))
  }
})

/** The crew with nobody in trouble, while Bob writes. */
const begin = Effect.fnUntraced(function* (stage: Stage.Stage, state: Faults.DiskState) {
  const sending = yield* Effect.forkScoped(stage.sender.sending)
  const crew = yield* Crew.make(stage, (withinMillis) => Faults.isToBlame(state, withinMillis))
  yield* stage.bob.untilReachable(stage.alice)
  yield* stage.sender.write
  yield* PushProcess.enable(stage.database, `${stage.pushGate.baseUrl}/_matrix/push/v1/notify`)
  const pushing = yield* Effect.forkScoped(stage.pushing)
  return { crew, sent: Fiber.join(sending), pushed: Fiber.join(pushing) }
})

/** Plays it; fails with `StoryError` as soon as something happens that nothing in the schedule is a reason for. */
export const run = Effect.fnUntraced(function* (options: Options) {
  const startedAtMillis = yield* MonotonicClock.nowMillis
  const { place, tell } = options
  const stage = yield* Stage.make({
    homeserver: options.homeserver,
    ...place,
    progress: options.progress,
    sendPauseMillis: SEND_PAUSE_MILLIS,
    pushPauseMillis: PUSH_PAUSE_MILLIS
  })
  const diskState: Faults.DiskState = { isFull: false, freeAtMillis: Number.NEGATIVE_INFINITY }
  const { crew, pushed, sent } = yield* begin(stage, diskState)
  yield* tell("all run, bob writes; the trouble begins")
  const tally = yield* Ref.make(Faults.nothing)
  const scene: Faults.Scene = { stage, crew, disk: place.disk, diskState, tally }
  const fromMillis = yield* MonotonicClock.nowMillis
  const steps = Schedule.make(options)
  const trouble = Effect.forEach(
    Schedule.laneNames,
    (lane) =>
      Faults.play(
        scene,
        steps.filter((step) => step.lane === lane),
        fromMillis,
        (step) => tell(Schedule.describe(step))
      ),
    { concurrency: "unbounded", discard: true }
  )
  const endMillis = fromMillis + options.minutes * 60_000
  const untilEnd = Effect.flatMap(MonotonicClock.nowMillis, (millis) => Effect.sleep(Math.max(0, endMillis - millis)))
  yield* Effect.raceFirst(Effect.andThen(trouble, untilEnd), crew.failed)
  yield* tell("the trouble is over")
  yield* stage.sender.finish
  yield* Stage.within("what bob was writing", RECOVERY_MILLIS, sent)
  yield* Effect.raceFirst(settle(hasCaughtUp(stage)), crew.failed)
  yield* stage.finishPushing
  yield* Stage.within("what bob was writing to be pushed", RECOVERY_MILLIS, pushed)
  const concluded = yield* Effect.raceFirst(
    Stage.withStores(stage.database, conclude(stage, crew, yield* stage.pushed)),
    crew.failed
  )
  yield* settleProcesses(stage.database)
  const { connections, ...seen } = yield* Ref.get(tally)
  const verdict: Verdict.Verdict = {
    seed: options.seed,
    minutes: options.minutes,
    homeserver: options.homeserver,
    canFill: options.canFill,
    ...seen,
    connectionsWhileSuspended: connections,
    restarts: yield* crew.restarts,
    ...concluded,
    processesLeft: runningOn(stage.database),
    integrity: integrityOf(stage.database),
    tookMillis: (yield* MonotonicClock.nowMillis) - startedAtMillis
  }
  return verdict
}, Effect.scoped)

/** A process that was told to end takes a moment to be gone. */
const settleProcesses = (database: string) =>
  Effect.sync(() => runningOn(database).length).pipe(
    Effect.repeat({ until: (running) => running === 0, schedule: again }),
    Effect.timeoutOption("3 seconds")
  )
