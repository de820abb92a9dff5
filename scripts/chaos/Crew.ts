/**
 * Alice's processes: the two that follow her account and the push daemon, each started again when it has ended.
 *
 * A process that ends by itself is a failure, except while the disk is full, when a start can't succeed: then it is started again,
 * as a supervisor would.
 *
 * Not here: what is done to them (`Faults.ts`).
 */
import { Deferred, Effect, Latch, Ref, Schedule } from "effect"
import type { Scope } from "effect"
import type { ChildProcessSpawner } from "effect/process"
import { join } from "node:path"
import type { RunEvent } from "../../packages/platform/src/cli/RunEvent.ts"
import * as AppProcess from "../../packages/platform/src/story/AppProcess.ts"
import * as PushProcess from "../../packages/platform/src/story/PushProcess.ts"
import { StoryError } from "../../packages/platform/src/story/StoryError.ts"
import * as StoryProcess from "../../packages/platform/src/story/StoryProcess.ts"
import type { Stage } from "./Stage.ts"

export type Name = "main" | "standby" | "push"

type Process = StoryProcess.StoryProcess<RunEvent | typeof PushProcess.Listening.Type>

export interface Member {
  readonly name: Name
  /** The process, unless it is away. */
  readonly current: Effect.Effect<Process | undefined>
  /** Has it ended by `strike`, and keeps it away for a time; false when there was none. */
  killFor(millis: number, strike: (pid: number) => Effect.Effect<unknown>): Effect.Effect<boolean>
  /** Waits until it says something. */
  until(
    what: string,
    accepts: (event: Process extends StoryProcess.StoryProcess<infer E> ? E : never) => boolean
  ): Effect.Effect<void, StoryError>
  /** From now on its end is its own business; gives the process. */
  readonly release: Effect.Effect<Process, StoryError>
}

export interface Crew {
  readonly main: Member
  readonly standby: Member
  readonly push: Member
  /** Fails once something happens that should not. */
  readonly failed: Effect.Effect<never, StoryError>
  /** How often a loop backed off because of the database, of all processes until now. */
  readonly refusedWrites: Effect.Effect<number>
  /** How often a process was started again that had ended by itself. */
  readonly restarts: Effect.Effect<number>
}

/** How long after a full disk a process may still end of it: it may have been starting. */
const AFTERMATH_MILLIS = 15_000
const RESTART_PAUSE = "300 millis"
/** How long anything may take that a process is to say once nothing is in its way, and until it can be asked: a backoff has 30 s. */
export const SAY_LIMIT_MILLIS = 60_000

type State = Extract<RunEvent, { readonly event: "state" }>

const statesOf = (events: ReadonlyArray<unknown>): ReadonlyArray<State> =>
  events.filter((event): event is State => (event as State).event === "state")

/** How often a loop backed off because of the database. */
const refusedIn = (events: ReadonlyArray<unknown>): number => {
  const times = statesOf(events).flatMap(({ extension, main }) =>
    [main, extension].flatMap((loop, index) =>
      loop._tag === "BackingOff" && loop.failure.class === "store" ? [`${index} ${loop.untilMillis}`] : []
    )
  )
  return new Set(times).size
}

interface Shared {
  readonly failed: Deferred.Deferred<never, StoryError>
  readonly refused: Ref.Ref<number>
  readonly restarts: Ref.Ref<number>
  /** Whether the disk is full, or was so lately. */
  isDiskToBlame(withinMillis: number): boolean
}

type Start = Effect.Effect<Process, StoryError, ChildProcessSpawner.ChildProcessSpawner | Scope.Scope>

/** A loop that has given up has done so for good, and nothing here is a reason to. */
const watch = (name: Name, current: Ref.Ref<Process | undefined>, shared: Shared) =>
  Effect.gen(function* () {
    const running = yield* Ref.get(current)
    const last = running === undefined ? undefined : statesOf(yield* running.events).at(-1)
    if (last?.state !== "Terminal") return
    const why = [last.main, last.extension].flatMap((loop) => (loop._tag === "Failed" ? [loop.failure.message] : []))
    yield* Deferred.fail(shared.failed, new StoryError({ message: `${name} has given up: ${why.join("; ")}` }))
  }).pipe(Effect.repeat(Schedule.spaced("1 second")))

const member = Effect.fnUntraced(function* (name: Name, start: Start, shared: Shared) {
  const current = yield* Ref.make<Process | undefined>(undefined)
  const wanted = yield* Latch.make(true)
  const expected = yield* Ref.make(false)
  const live = Effect.scoped(
    Effect.gen(function* () {
      const started = yield* start
      yield* Ref.set(current, started)
      const error = yield* Effect.flip(started.ended)
      const refused = refusedIn(yield* started.events)
      yield* Ref.update(shared.refused, (all) => all + refused)
      return error
    }).pipe(Effect.catch(Effect.succeed))
  )
  yield* Effect.forkScoped(
    Effect.gen(function* () {
      while (true) {
        yield* wanted.await
        const error = yield* live
        yield* Ref.set(current, undefined)
        if (yield* Ref.getAndSet(expected, false)) continue
        if (!shared.isDiskToBlame(AFTERMATH_MILLIS)) return yield* Deferred.fail(shared.failed, error)
        yield* Ref.update(shared.restarts, (all) => all + 1)
        yield* Effect.sleep(RESTART_PAUSE)
      }
    })
  )
  yield* Effect.forkScoped(watch(name, current, shared))
  const present = Ref.get(current).pipe(
    Effect.repeat({ until: (running) => running !== undefined, schedule: Schedule.spaced("50 millis") }),
    Effect.timeoutOrElse({
      duration: SAY_LIMIT_MILLIS,
      orElse: () => new StoryError({ message: `${name} did not start within ${SAY_LIMIT_MILLIS} ms` })
    })
  )
  const made: Member = {
    name,
    current: Ref.get(current),
    killFor: Effect.fnUntraced(function* (millis, strike) {
      const running = yield* Ref.get(current)
      if (running === undefined) return false
      yield* wanted.close
      yield* Ref.set(expected, true)
      yield* strike(running.pid)
      yield* Effect.ensuring(Effect.sleep(millis), wanted.open)
      return true
    }),
    until: (what, accepts) =>
      Effect.flatMap(present, (running) => running!.until(what, accepts, { limitMillis: SAY_LIMIT_MILLIS })).pipe(
        Effect.raceFirst(Deferred.await(shared.failed)),
        Effect.asVoid
      ),
    release: Effect.gen(function* () {
      const running = yield* present
      yield* Ref.set(expected, true)
      yield* wanted.close
      return running!
    })
  }
  return made
})

/** Starts the crew, main first, so that it owns the stream; they are killed when the scope closes. */
export const make = Effect.fnUntraced(function* (stage: Stage, isDiskToBlame: Shared["isDiskToBlame"]) {
  const shared: Shared = {
    failed: yield* Deferred.make<never, StoryError>(),
    refused: yield* Ref.make(0),
    restarts: yield* Ref.make(0),
    isDiskToBlame
  }
  const { database, directory, notifications, pushPort } = stage
  const log = (name: Name) => ({ log: join(directory, "logs", `${name}.log`) })
  const daemon = PushProcess.argumentsOf(database, notifications, pushPort)
  const main = yield* member("main", AppProcess.start("main", database, log("main")), shared)
  yield* main.until("be in sync", inSync)
  const standby = yield* member("standby", AppProcess.start("standby", database, log("standby")), shared)
  yield* standby.until("wait for the stream", waits)
  const started = StoryProcess.start("push daemon", daemon, PushProcess.Listening, log("push"))
  const push = yield* member("push", started as Start, shared)
  yield* push.until("listen", ({ event }) => event === "listening")
  const crew: Crew = {
    main,
    standby,
    push,
    failed: Deferred.await(shared.failed),
    refusedWrites: Effect.gen(function* () {
      const running = yield* Effect.forEach([main, standby], ({ current }) => current)
      const events = yield* Effect.forEach(running, (one) => one?.events ?? Effect.succeed([]))
      return events.reduce((sum, one) => sum + refusedIn(one), yield* Ref.get(shared.refused))
    }),
    restarts: Ref.get(shared.restarts)
  }
  return crew
})

const inSync = (event: { readonly event: string }): boolean =>
  event.event === "state" && (event as State).main._tag === "Syncing" && (event as State).extension._tag === "Syncing"

const waits = (event: { readonly event: string }): boolean =>
  event.event === "state" &&
  (event as State).main._tag === "Syncing" &&
  (event as State).extension._tag === "WaitingForLock"
