/**
 * Does what the schedule says to the processes, the network and the disk, and undoes it after its time.
 *
 * Not here: what is done, and when (`Schedule.ts`).
 */
import { Effect, Option, Ref, Schedule } from "effect"
import type { Path } from "effect"
import { Worker } from "node:worker_threads"
import * as Clock from "../../packages/platform/src/cli/MonotonicClock.ts"
import * as ControlClient from "../../packages/platform/src/control/ControlClient.ts"
import * as Connections from "../../packages/platform/src/story/Connections.ts"
import type * as Gate from "../../packages/platform/src/story/Gate.ts"
import { StoryError } from "../../packages/platform/src/story/StoryError.ts"
import * as Crew from "./Crew.ts"
import type * as KillThread from "./KillThread.ts"
import * as Processes from "./Processes.ts"
import type { Step } from "./Schedule.ts"
import * as SmallDisk from "./SmallDisk.ts"
import type { Stage } from "./Stage.ts"
import type { Done } from "./Verdict.ts"

/** What was done until now, and what it showed. */
export interface Tally {
  readonly done: Done
  readonly missed: number
  readonly notQuiet: ReadonlyArray<string>
  readonly connections: number
}

export const nothing: Tally = { done: {}, missed: 0, notQuiet: [], connections: 0 }

export interface Scene {
  readonly stage: Stage
  readonly crew: Crew.Crew
  readonly disk: string
  readonly diskState: DiskState
  readonly tally: Ref.Ref<Tally>
}

/** When the disk was full. */
export interface DiskState {
  isFull: boolean
  /** Monotonic milliseconds. */
  freeAtMillis: number
}

const now = (): number => Number(process.hrtime.bigint()) / 1e6

/** Whether the disk is full, or was so within the last milliseconds. */
export const isToBlame = (state: DiskState, withinMillis: number): boolean =>
  state.isFull || now() - state.freeAtMillis < withinMillis

/** Deadline that a phone gives. */
const QUIET_MILLIS = 5_000

type Ask<A> = (client: ControlClient.ControlClient) => Effect.Effect<A, ControlClient.ControlError>

/** Asks a process by its control socket, which one that starts has after a while; `None` when it ends meanwhile. */
const ask = <A>({ stage }: Scene, member: Crew.Member, pid: number, what: Ask<A>) => {
  const once = Effect.scoped(
    Effect.gen(function* () {
      const [target] = yield* ControlClient.find(stage.database, pid)
      return yield* Effect.flatMap(ControlClient.connect(target), what)
    })
  )
  const isGone = Effect.map(member.current, (running) => running?.pid !== pid)
  return once.pipe(
    Effect.asSome,
    Effect.catch((error) =>
      Effect.flatMap(isGone, (gone) => (gone ? Effect.succeed(Option.none<A>()) : Effect.fail(error)))
    ),
    Effect.retry(Schedule.spaced("100 millis")),
    Effect.timeoutOrElse({
      duration: Crew.SAY_LIMIT_MILLIS,
      orElse: () =>
        new StoryError({
          message: `${member.name} (process ${pid}) could not be asked within ${Crew.SAY_LIMIT_MILLIS} ms`
        })
    }),
    Effect.mapError((error) => new StoryError({ message: error.message }))
  )
}

const suspend = Effect.fnUntraced(function* (scene: Scene, member: Crew.Member, millis: number) {
  const running = yield* member.current
  if (running === undefined) return false
  const from = yield* Clock.nowMillis
  const asked = yield* ask(scene, member, running.pid, (client) => client.suspend(QUIET_MILLIS))
  if (Option.isNone(asked)) return false
  const report = asked.value
  // A full disk keeps a lease from being released.
  const excused = isToBlame(scene.diskState, (yield* Clock.nowMillis) - from)
  if (!report.quiet && !excused) {
    const line = `${member.name} was not quiet ${QUIET_MILLIS} ms after it was suspended: ${report.unfinished.join(", ")}`
    yield* Ref.update(scene.tally, (tally) => ({ ...tally, notQuiet: [...tally.notQuiet, line] }))
  }
  yield* Effect.sleep(millis)
  const connections = Option.getOrElse(yield* Connections.count(running.pid), () => 0)
  if (report.quiet)
    yield* Ref.update(scene.tally, (tally) => ({ ...tally, connections: Math.max(tally.connections, connections) }))
  const resumed = yield* ask(scene, member, running.pid, (client) => client.resume)
  return Option.isSome(resumed)
})

const pidOf = Effect.fnUntraced(function* ({ crew }: Scene, lane: Step["lane"]) {
  if (lane === "main" || lane === "standby" || lane === "push") return (yield* crew[lane].current)?.pid
  const daemon = yield* crew.push.current
  return daemon === undefined ? undefined : Processes.childrenOf(daemon.pid)[0]
})

/** How long to wait for the moment of a stop or a kill. */
const PIECE_LIMIT = "1 second"
const SHOW_LIMIT_MILLIS = 2_000
const COMMIT_LIMIT_MILLIS = 300

/** Waits for what a process gets next, and then for as long as it may take to work on it. */
const untilAtWork = (gate: Gate.Gate, side: Gate.Side, { amount }: Step) =>
  Effect.andThen(Effect.timeoutOption(gate.next(side), PIECE_LIMIT), Effect.sleep(amount))

/** How long to wait for a push that succeeds: each that fails doubles the time until the homeserver tries again. */
const TAKEN_LIMIT = "60 seconds"

/**
 * Waits until the push daemon has taken a push, and gives whether it has. So few fail in a row, and the homeserver, which waits for up to an
 * hour after many, tries again before the end.
 */
const untilTaken = ({ stage }: Scene): Effect.Effect<boolean> =>
  Effect.map(Effect.timeoutOption(stage.pushGate.next("inner"), TAKEN_LIMIT), Option.isSome)

const stopFor = Effect.fnUntraced(function* (scene: Scene, step: Step) {
  const { lane, millis } = step
  if (lane === "push" && !(yield* untilTaken(scene))) return false
  yield* untilAtWork(scene.stage.gate, "inner", step)
  const pid = yield* pidOf(scene, lane)
  if (pid === undefined || !Processes.signal(pid, "SIGSTOP")) return false
  yield* Effect.ensuring(
    Effect.sleep(millis),
    Effect.sync(() => Processes.signal(pid, "SIGCONT"))
  )
  return true
})

/** Kills at the moment at which a file changes; gives whether there was somebody. */
const killAtChange = (order: KillThread.Order): Effect.Effect<boolean> =>
  Effect.callback((resume) => {
    const thread = new Worker(new URL("KillThread.ts", import.meta.url), { workerData: order })
    thread.once("message", (isKilled: boolean) => resume(Effect.succeed(isKilled)))
    thread.once("error", (error) => resume(Effect.die(error)))
    return Effect.promise(() => thread.terminate())
  })

/**
 * A process is killed as something is written to the log of the database, by it or by another; the push daemon as something is pushed
 * to it; a worker as it shows something.
 */
const kill = Effect.fnUntraced(function* (scene: Scene, step: Step) {
  const { crew, stage } = scene
  const { lane, millis } = step
  if (lane === "push" && !(yield* untilTaken(scene))) return false
  if (lane === "push")
    return yield* crew.push.killFor(millis, (pid) =>
      Effect.andThen(
        untilAtWork(stage.pushGate, "outer", step),
        Effect.sync(() => Processes.signal(pid, "SIGKILL"))
      )
    )
  if (lane === "main" || lane === "standby")
    return yield* crew[lane].killFor(millis, (pid) =>
      killAtChange({
        file: `${stage.database}-wal`,
        target: { pid },
        limitMillis: COMMIT_LIMIT_MILLIS,
        atLimit: "kill"
      })
    )
  const daemon = yield* crew.push.current
  if (daemon === undefined) return false
  return yield* killAtChange({
    file: stage.notifications,
    target: { childOf: daemon.pid },
    limitMillis: SHOW_LIMIT_MILLIS,
    // One that is killed each time before it has shown anything never shows anything.
    atLimit: "spare"
  })
})

const fill = Effect.fnUntraced(function* ({ disk, diskState, stage }: Scene, { amount, millis }: Step) {
  diskState.isFull = true
  yield* SmallDisk.fill(disk, stage.database, amount)
  const empty = Effect.andThen(
    SmallDisk.free(disk),
    Effect.sync(() => {
      diskState.isFull = false
      diskState.freeAtMillis = now()
    })
  )
  yield* Effect.ensuring(Effect.sleep(millis), empty)
  return true
})

const lose = Effect.fnUntraced(function* (scene: Scene, { lane, millis }: Step) {
  if (lane === "push" && !(yield* untilTaken(scene))) return false
  const gate = lane === "push" ? scene.stage.pushGate : scene.stage.gate
  yield* gate.lose(true)
  yield* Effect.ensuring(Effect.sleep(millis), gate.lose(false))
  return true
})

/** Does one step, and waits until it is over; gives whether it met somebody. */
const perform = (scene: Scene, step: Step): Effect.Effect<boolean, StoryError, Path.Path> => {
  const { gate } = scene.stage
  switch (step.fault) {
    case "Kill":
      return kill(scene, step)
    case "Stop":
      return stopFor(scene, step)
    case "Suspend":
      return suspend(scene, scene.crew[step.lane === "standby" ? "standby" : "main"], step.millis)
    case "Cut":
      return Effect.as(Effect.andThen(gate.shut, Effect.ensuring(Effect.sleep(step.millis), gate.open)), true)
    case "Lose":
      return lose(scene, step)
    case "Slow":
      return Effect.as(
        Effect.andThen(gate.slow(step.amount), Effect.ensuring(Effect.sleep(step.millis), gate.slow(0))),
        true
      )
    case "Full":
      return fill(scene, step)
  }
}

/** Does the steps of one lane, each at its time, or when the one before it is over. */
export const play = Effect.fnUntraced(function* (
  scene: Scene,
  steps: ReadonlyArray<Step>,
  fromMillis: number,
  tell: (step: Step) => Effect.Effect<void>
) {
  for (const step of steps) {
    yield* Effect.sleep(Math.max(0, fromMillis + step.atMillis - (yield* Clock.nowMillis)))
    yield* tell(step)
    const met = yield* perform(scene, step)
    const what = `${step.fault} ${step.lane}` as const
    yield* Ref.update(scene.tally, (tally) =>
      met
        ? { ...tally, done: { ...tally.done, [what]: (tally.done[what] ?? 0) + 1 } }
        : { ...tally, missed: tally.missed + 1 }
    )
  }
})
