/**
 * The chapters of the story: what happens to the two processes while the sender sends.
 *
 * Each chapter tells what it saw, and gives what it measured. A part that doesn't come fails with `StoryError`.
 *
 * Not here: what is around them (`Story.ts`), the bounds (`Report.ts`).
 */
import { MainSync } from "@twinloop/actors"
import type { MatrixEvent } from "@twinloop/core"
import { Effect, Option } from "effect"
import * as MonotonicClock from "../cli/MonotonicClock.ts"
import type { Progress } from "../cli/Output.ts"
import type { RunEvent } from "../cli/RunEvent.ts"
import * as ControlClient from "../control/ControlClient.ts"
import type { AccountSession } from "../http/Session.ts"
import { expirePosition } from "../synapse/SynapseApi.ts"
import * as AppProcess from "./AppProcess.ts"
import * as Connections from "./Connections.ts"
import type { Bob } from "./Bob.ts"
import type * as Gate from "./Gate.ts"
import * as Report from "./Report.ts"
import type * as Sender from "./Sender.ts"
import * as StoryAccounts from "./StoryAccounts.ts"
import { StoryError } from "./StoryError.ts"

/** Rooms that come while the story is played. */
export const NEW_ROOMS = 5
const WINDOW_CHANGES = 100
const WINDOW_PAUSE_MILLIS = 40
const SUSPENDED_MILLIS = 1_500
const UNREACHABLE_MILLIS = 2_000
/** Role of the first process, which follows the rooms from the start to the end. */
export const MAIN = "main"
/** Role of the second process. */
export const STANDBY = "standby"

/** What the chapters play with. */
export interface World {
  readonly progress: Progress
  readonly database: string
  /** Directly at the homeserver: the sender isn't cut off when the gate is shut. */
  readonly baseUrl: string
  readonly gate: Gate.Gate
  readonly alice: AccountSession
  readonly bob: Bob
  readonly sender: Sender.Sender
  /** Rooms to which Bob writes all the time. */
  readonly noisy: ReadonlyArray<MatrixEvent.RoomId>
  /** Rooms to which he writes for the notifications alone. */
  readonly notified: ReadonlyArray<MatrixEvent.RoomId>
  readonly startedAtMillis: number
}

/** What the chapters measure. */
export interface Measured {
  readonly releaseMillis: ReadonlyArray<number>
  readonly killMillis: ReadonlyArray<number>
  readonly quietMillis: number
  readonly quiet: boolean
  readonly openConnections: number | null
  readonly windowChanges: number
  readonly windows: Report.Story["windows"]
  readonly extensionLongestGapMillis: number
}

/** Says what happened, and when since the story began. */
export const tell = (world: World, text: string): Effect.Effect<void> =>
  Effect.flatMap(MonotonicClock.nowMillis, (now) =>
    world.progress.line(`${((now - world.startedAtMillis) / 1_000).toFixed(1).padStart(6)} s  ${text}`)
  )

const isState = (event: RunEvent): event is Extract<RunEvent, { event: "state" }> => event.event === "state"

/** Both loops long poll. */
export const inSync = (event: RunEvent): boolean =>
  isState(event) && event.main._tag === "Syncing" && event.extension._tag === "Syncing"

/** The rooms are followed, and the stream is another's. */
export const waits = (event: RunEvent): boolean =>
  isState(event) && event.main._tag === "Syncing" && event.extension._tag === "WaitingForLock"

/** The extension stream is the process's: its loop is past the lock. */
const owns = (event: RunEvent): boolean =>
  isState(event) && (event.extension._tag === "Loading" || event.extension._tag === "Syncing")

const isInbox = (event: RunEvent): boolean => event.event === "inbox"

/** A time, for people. */
export const ms = (millis: number): string => (millis < 10 ? `${millis.toFixed(1)} ms` : `${Math.round(millis)} ms`)

/** What an operator would type in another terminal. */
export const control = <A>(
  world: World,
  app: AppProcess.AppProcess,
  ask: (client: ControlClient.ControlClient) => Effect.Effect<A, ControlClient.ControlError>
): Effect.Effect<A, StoryError> =>
  Effect.gen(function* () {
    const [target] = yield* ControlClient.find(world.database, app.pid)
    return yield* Effect.flatMap(ControlClient.connect(target), ask)
  }).pipe(
    Effect.scoped,
    Effect.mapError((error) => new StoryError({ message: `asking the process "${app.role}": ${error.message}` }))
  )

/** The list grows: rooms are made while everything runs. */
const grow = Effect.fnUntraced(function* (world: World, main: AppProcess.AppProcess, rooms: number) {
  const said = yield* main.said
  for (let index = 0; index < NEW_ROOMS; index++) {
    const name = `New room ${index + 1}`
    yield* StoryAccounts.createRoom(world.baseUrl, { owner: world.alice, name, guests: [] })
  }
  const grown = (event: RunEvent): boolean => event.event === "rooms" && event.rooms === rooms + NEW_ROOMS
  yield* main.until(`see ${rooms + NEW_ROOMS} rooms`, grown, { since: said })
  yield* tell(world, `the list grows to ${rooms + NEW_ROOMS} rooms`)
})

/** The user scrolls: the window changes many times a second, and the extension loop goes on (invariant I3). */
const scroll = Effect.fnUntraced(function* (world: World, main: AppProcess.AppProcess, rooms: number) {
  const before = yield* world.gate.ranges
  const wanted = new Set<string>()
  const from = yield* MonotonicClock.nowMillis
  for (let change = 0; change < WINDOW_CHANGES; change++) {
    const start = (change * 7) % Math.max(1, rooms - 20)
    yield* main.look(start, start + 19)
    const range = `[${start},${start + 19}]`
    if (!before.has(range)) wanted.add(range)
    yield* Effect.sleep(WINDOW_PAUSE_MILLIS)
  }
  const to = yield* MonotonicClock.nowMillis
  const moments = (yield* main.events).filter(isInbox).map((event) => event.atMillis)
  const gap = Report.longestGap(from, to, moments)
  const seen = yield* world.gate.ranges
  const asked = [...wanted].filter((range) => seen.has(range)).length
  const perSecond = (WINDOW_CHANGES * 1_000) / (to - from)
  yield* tell(
    world,
    `${WINDOW_CHANGES} window changes, ${perSecond.toFixed(0)} a second, ${asked} of ${wanted.size} windows asked for; to-device events were never more than ${ms(gap)} apart`
  )
  return { gap, windows: { wanted: wanted.size, asked } }
})

/** The larger of two counts, or `null` when one could not be made. */
const larger = (one: Option.Option<number>, two: Option.Option<number>): number | null =>
  Option.isSome(one) && Option.isSome(two) ? Math.max(one.value, two.value) : null

/** Suspends the owner, and measures from the request until the other owns the stream. */
const handOver = Effect.fnUntraced(function* (
  world: World,
  owner: AppProcess.AppProcess,
  other: AppProcess.AppProcess
) {
  const said = yield* other.said
  const from = yield* MonotonicClock.nowMillis
  const report = yield* control(world, owner, (client) => client.suspend(Report.bounds.quietMillis))
  const taken = yield* other.until("take over after a release", owns, { since: said })
  return { report, millis: taken.event.atMillis - from }
})

/** Lets a suspended process go on; it follows the rooms, and waits for the stream. */
const resume = Effect.fnUntraced(function* (world: World, app: AppProcess.AppProcess) {
  const said = yield* app.said
  yield* control(world, app, (client) => client.resume)
  yield* app.until("wait for the stream after resuming", waits, { since: said })
})

/** The owner is suspended: the other takes over, and nothing of the suspended one runs. Then it goes on, to and fro. */
const suspend = Effect.fnUntraced(function* (world: World, owner: AppProcess.AppProcess, other: AppProcess.AppProcess) {
  const first = yield* handOver(world, owner, other)
  const quietMillis = first.report.tookMillis ?? 0
  yield* tell(
    world,
    `${owner.role} suspended, quiet after ${ms(quietMillis)}; ${other.role} owns the stream after ${ms(first.millis)}`
  )
  const connections = yield* Connections.count(owner.pid)
  yield* Effect.sleep(SUSPENDED_MILLIS)
  const later = yield* Connections.count(owner.pid)
  yield* resume(world, owner)
  const back = yield* handOver(world, other, owner)
  yield* resume(world, other)
  const again = yield* handOver(world, owner, other)
  yield* resume(world, owner)
  const releaseMillis = [first, back, again].map(({ millis }) => millis)
  yield* tell(world, `resumed; to and fro twice more: ${releaseMillis.slice(1).map(ms).join(" and ")}`)
  return {
    releaseMillis,
    quietMillis,
    quiet: first.report.quiet,
    openConnections: larger(connections, later)
  }
})

/** The owner is killed in the middle of a batch: events have piled up, and it has begun to apply them. */
const kill = Effect.fnUntraced(function* (world: World, owner: AppProcess.AppProcess, other: AppProcess.AppProcess) {
  yield* world.gate.shut
  yield* Effect.sleep(1_000)
  const ownerSaid = yield* owner.said
  const otherSaid = yield* other.said
  yield* world.gate.open
  yield* owner.until("apply a batch", isInbox, { since: ownerSaid })
  const killedAt = yield* owner.kill
  const taken = yield* other.until("take over after SIGKILL", owns, { since: otherSaid })
  const millis = taken.event.atMillis - killedAt
  yield* tell(
    world,
    `${owner.role} was killed in the middle of a batch; ${other.role} owns the stream after ${ms(millis)}`
  )
  return millis
})

/** The homeserver forgets a position: the loop starts its connection afresh by itself. */
const expire = Effect.fnUntraced(function* (world: World, app: AppProcess.AppProcess) {
  const said = yield* app.said
  yield* expirePosition(world.baseUrl, world.alice, MainSync.connId(app.role)).pipe(
    Effect.mapError((error) => new StoryError({ message: error.message }))
  )
  const restarted = (event: RunEvent): boolean => isState(event) && event.main._tag === "Loading"
  const { next } = yield* app.until("start its connection afresh", restarted, { since: said, limitMillis: 45_000 })
  yield* app.until("be in sync again", inSync, { since: next })
  yield* tell(world, `the homeserver forgot a position; ${app.role} started its connection afresh`)
})

/** The homeserver can't be reached for a while. */
const cutOff = Effect.fnUntraced(function* (world: World, app: AppProcess.AppProcess) {
  const said = yield* app.said
  yield* world.gate.shut
  const offline = (event: RunEvent): boolean => isState(event) && event.state === "Offline"
  const { next } = yield* app.until("notice that it is offline", offline, { since: said })
  yield* Effect.sleep(UNREACHABLE_MILLIS)
  const from = yield* MonotonicClock.nowMillis
  yield* world.gate.open
  const back = yield* app.until("be in sync again", inSync, { since: next, limitMillis: 40_000 })
  yield* tell(
    world,
    `the homeserver was unreachable for ${UNREACHABLE_MILLIS} ms; in sync again ${ms(back.event.atMillis - from)} after its return`
  )
})

/** Starts a process, and waits until it follows the rooms and owns the stream, or waits for it. */
export const enter = Effect.fnUntraced(function* (
  world: World,
  role: string,
  arrived: (event: RunEvent) => boolean,
  as: string
) {
  const from = yield* MonotonicClock.nowMillis
  const app = yield* AppProcess.start(role, world.database)
  const { event } = yield* app.until("be in sync", arrived, { limitMillis: 60_000 })
  yield* tell(world, `${role} (process ${app.pid}) is in sync ${ms(event.atMillis - from)} after its start, ${as}`)
  return app
})

/** Stops a process as an operator does; gives its exit code. */
export const stop = Effect.fnUntraced(function* (world: World, app: AppProcess.AppProcess) {
  yield* control(world, app, (client) => client.stop)
  return yield* app.exitCode
})

/** Everything that happens between the start of both processes and the last event. */
export const play = Effect.fnUntraced(function* (
  world: World,
  main: AppProcess.AppProcess,
  standby: AppProcess.AppProcess,
  rooms: number
) {
  yield* grow(world, main, rooms)
  const scrolled = yield* scroll(world, main, rooms)
  const suspended = yield* suspend(world, main, standby)
  const killMillis = yield* kill(world, standby, main)
  const successor = yield* enter(world, STANDBY, waits, "and waits for the stream")
  yield* expire(world, main)
  yield* cutOff(world, main)
  const measured: Measured = {
    releaseMillis: suspended.releaseMillis,
    killMillis: [killMillis],
    quietMillis: suspended.quietMillis,
    quiet: suspended.quiet,
    openConnections: suspended.openConnections,
    windowChanges: WINDOW_CHANGES,
    windows: scrolled.windows,
    extensionLongestGapMillis: scrolled.gap
  }
  return { measured, standby: successor }
})
