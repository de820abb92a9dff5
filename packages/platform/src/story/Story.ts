/**
 * The main job: a story with real processes over one SQLite file, against the embedded homeserver or a real Synapse.
 *
 * A sender keeps sending messages and numbered to-device events throughout. Meanwhile the list grows, the window changes
 * many times a second, the first process is suspended and a second takes over, it resumes, the owner is killed in the
 * middle of a batch, the homeserver forgets a position, the homeserver can't be reached for a while, and both stop. At the
 * end, what the homeserver accepted is compared with the inbox.
 *
 * Invariants shown: I1 and I2 (nothing lost, duplicated or out of order), I3 (the extension loop goes on while the window
 * changes), I4 (suspended is quiet), I9 (recovers by itself).
 *
 * Not here: the arithmetic and the bounds (`Report.ts`).
 */
import { MainSync } from "@twinloop/actors"
import { Homeserver, SyncStore } from "@twinloop/core"
import { Effect, Fiber, Layer, Option, Schedule } from "effect"
import * as MonotonicClock from "../cli/MonotonicClock.ts"
import type { Progress } from "../cli/Output.ts"
import type { RunEvent } from "../cli/RunEvent.ts"
import * as ControlClient from "../control/ControlClient.ts"
import * as NodeHomeserver from "../http/NodeHomeserver.ts"
import { RefreshLock } from "../http/RefreshLock.ts"
import type { AccountSession } from "../http/Session.ts"
import * as SessionStore from "../http/SessionStore.ts"
import * as SqliteSessionStore from "../http/SqliteSessionStore.ts"
import * as SqliteStores from "../sqlite/SqliteStores.ts"
import { expirePosition } from "../synapse/SynapseApi.ts"
import * as AppProcess from "./AppProcess.ts"
import * as Connections from "./Connections.ts"
import * as Gate from "./Gate.ts"
import * as Report from "./Report.ts"
import * as Sender from "./Sender.ts"
import * as StoryAccounts from "./StoryAccounts.ts"
import { StoryError } from "./StoryError.ts"
import * as StoryHomeserver from "./StoryHomeserver.ts"

export interface Options {
  readonly homeserver: StoryHomeserver.Kind
  readonly rooms: number
  /** SQLite file of the account; made anew. */
  readonly database: string
  readonly progress: Progress
  /** Told what the story came to, while the homeserver is still up. */
  readonly report: (story: Report.Story) => Effect.Effect<void>
  /** Starts both processes again afterwards, and leaves everything up until interrupted. */
  readonly keep: boolean
}

/** Rooms that Bob writes to; the others are Alice's alone. */
const SHARED_ROOMS = 20
/** Rooms that come while the story is played. */
const NEW_ROOMS = 5
const WINDOW_CHANGES = 100
const WINDOW_PAUSE_MILLIS = 40
const SEND_PAUSE_MILLIS = 20
const SUSPENDED_MILLIS = 1_500
/** How long the homeserver may take to accept what is on its way when the sender is told to finish. */
const FINISH_LIMIT_MILLIS = 20_000
const UNREACHABLE_MILLIS = 2_000
/** How the story keeps inbox rows from being deleted: a consumer that never moves. */
const CONSUMER = "story"
const MAIN = "main"
const STANDBY = "standby"

interface World {
  readonly progress: Progress
  readonly database: string
  /** Directly at the homeserver: the sender isn't cut off when the gate is shut. */
  readonly baseUrl: string
  readonly gate: Gate.Gate
  readonly alice: AccountSession
  readonly sender: Sender.Sender
  readonly startedAtMillis: number
}

/** What the chapters measure. */
interface Measured {
  readonly releaseMillis: ReadonlyArray<number>
  readonly killMillis: ReadonlyArray<number>
  readonly quietMillis: number
  readonly quiet: boolean
  readonly openConnections: number | null
  readonly windowChanges: number
  readonly extensionLongestGapMillis: number
}

const tell = (world: World, text: string): Effect.Effect<void> =>
  Effect.flatMap(MonotonicClock.nowMillis, (now) =>
    world.progress.line(`${((now - world.startedAtMillis) / 1_000).toFixed(1).padStart(6)} s  ${text}`)
  )

const isState = (event: RunEvent): event is Extract<RunEvent, { event: "state" }> => event.event === "state"

const inSync = (event: RunEvent): boolean =>
  isState(event) && event.main._tag === "Syncing" && event.extension._tag === "Syncing"

const waits = (event: RunEvent): boolean =>
  isState(event) && event.main._tag === "Syncing" && event.extension._tag === "WaitingForLock"

/** The extension stream is the process's: its loop is past the lock. */
const owns = (event: RunEvent): boolean =>
  isState(event) && (event.extension._tag === "Loading" || event.extension._tag === "Syncing")

const isInbox = (event: RunEvent): boolean => event.event === "inbox"

const ms = (millis: number): string => (millis < 10 ? `${millis.toFixed(1)} ms` : `${Math.round(millis)} ms`)

/** What an operator would type in another terminal. */
const control = <A>(
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
  const from = yield* MonotonicClock.nowMillis
  for (let change = 0; change < WINDOW_CHANGES; change++) {
    const start = (change * 7) % Math.max(1, rooms - 20)
    yield* main.look(start, start + 19)
    yield* Effect.sleep(WINDOW_PAUSE_MILLIS)
  }
  const to = yield* MonotonicClock.nowMillis
  const moments = (yield* main.events).filter(isInbox).map((event) => event.atMillis)
  const gap = Report.longestGap(from, to, moments)
  const perSecond = (WINDOW_CHANGES * 1_000) / (to - from)
  yield* tell(
    world,
    `${WINDOW_CHANGES} window changes, ${perSecond.toFixed(0)} a second; to-device events were never more than ${ms(gap)} apart`
  )
  return gap
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
const enter = Effect.fnUntraced(function* (
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
const stop = Effect.fnUntraced(function* (world: World, app: AppProcess.AppProcess) {
  yield* control(world, app, (client) => client.stop)
  return yield* app.exitCode
})

/** Everything that happens between the start of both processes and the last event. */
const play = Effect.fnUntraced(function* (
  world: World,
  main: AppProcess.AppProcess,
  standby: AppProcess.AppProcess,
  rooms: number
) {
  yield* grow(world, main, rooms)
  const extensionLongestGapMillis = yield* scroll(world, main, rooms)
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
    extensionLongestGapMillis
  }
  return { measured, standby: successor }
})

/** The numbers in the inbox, in its order. */
const inboxNumbers = Effect.gen(function* () {
  const store = yield* SyncStore.SyncStore
  const numbers: Array<number> = []
  let after = 0
  while (true) {
    const page = yield* store.readInbox({ after, limit: 1_000 })
    for (const { event, sequence, type } of page) {
      after = sequence
      if (type === Sender.TYPE) numbers.push(Number((event.content as { readonly number?: unknown }).number))
    }
    if (page.length === 0) return numbers
  }
})

/** Waits until everything that was accepted is in the inbox, or its bound has passed; gives how long it took. */
const settle = Effect.fnUntraced(function* (sent: number) {
  const from = yield* MonotonicClock.nowMillis
  const complete = inboxNumbers.pipe(
    Effect.map((numbers) => numbers.length >= sent),
    Effect.repeat({ until: (done) => done, schedule: Schedule.spaced("20 millis") })
  )
  yield* Effect.timeoutOption(complete, Report.bounds.lastEventMillis)
  return (yield* MonotonicClock.nowMillis) - from
})

/** How many rooms of a process don't have the last event that the homeserver accepted. */
const countBehind = Effect.fnUntraced(function* (role: string, last: Sender.Sent["lastMessage"]) {
  const store = yield* SyncStore.SyncStore
  const { rooms } = yield* store.loadMain(MainSync.connId(role))
  const latest = new Map(rooms.map((room) => [room.roomId, room.latestEvent?.event_id]))
  return [...last].filter(([roomId, eventId]) => latest.get(roomId) !== eventId).length
})

const settleRooms = Effect.fnUntraced(function* (role: string, last: Sender.Sent["lastMessage"]) {
  const current = Effect.repeat(countBehind(role, last), {
    until: (behind) => behind === 0,
    schedule: Schedule.spaced("50 millis")
  })
  yield* Effect.timeoutOption(current, Report.bounds.lastEventMillis)
  return yield* countBehind(role, last)
})

const countRooms = Effect.fnUntraced(function* (role: string) {
  const store = yield* SyncStore.SyncStore
  const { rooms } = yield* store.loadMain(MainSync.connId(role))
  return rooms.filter((room) => room.membership === "join").length
})

/** Bob's side of the homeserver, past the gate. */
const layerBob = (bob: AccountSession): Layer.Layer<Homeserver.Homeserver, StoryError> =>
  NodeHomeserver.layer.pipe(
    Layer.provide(Layer.merge(SessionStore.layerMemory(bob), RefreshLock.layerSingleProcess)),
    Layer.catch((error) => Layer.effect(Homeserver.Homeserver, new StoryError({ message: error.message })))
  )

/** Makes the accounts, the rooms and the database; everything that must be there before the first process starts. */
const prepare = Effect.fnUntraced(function* (options: Options, startedAtMillis: number) {
  const { database, progress } = options
  yield* progress.status(`starting the homeserver (${options.homeserver})`)
  const { baseUrl, register } = yield* StoryHomeserver.start(options.homeserver, progress.status)
  const gate = yield* Gate.make(Number(new URL(baseUrl).port))
  const alice = yield* register("alice")
  const bob = yield* register("bob")
  const shared = yield* StoryAccounts.createRooms(baseUrl, {
    owner: alice,
    guests: [bob],
    count: options.rooms,
    shared: SHARED_ROOMS,
    onProgress: (made) => progress.status(`making rooms: ${made} of ${options.rooms}`)
  })
  const stored = { ...alice, homeserver: gate.baseUrl }
  yield* SessionStore.replace(yield* SessionStore.SessionStore, stored)
  yield* (yield* SyncStore.SyncStore).advanceInbox({ consumer: CONSUMER, sequence: 0, keep: 0 })
  const sender = yield* Effect.provide(
    Effect.flatMap(Homeserver.Homeserver, (homeserver) =>
      Sender.make({ homeserver, recipient: alice, rooms: shared, pauseMillis: SEND_PAUSE_MILLIS })
    ),
    yield* Layer.build(layerBob(bob))
  )
  const world: World = { progress, database, baseUrl, gate, alice, sender, startedAtMillis }
  return world
})

const perform = Effect.fnUntraced(function* (options: Options) {
  const startedAtMillis = yield* MonotonicClock.nowMillis
  const world = yield* prepare(options, startedAtMillis)
  yield* tell(world, `the homeserver (${options.homeserver}) has ${options.rooms} rooms; bob starts to send`)
  const sending = yield* Effect.forkScoped(world.sender.sending)
  const main = yield* enter(world, MAIN, inSync, "and owns the stream")
  const first = yield* enter(world, STANDBY, waits, "and waits for the stream")
  const { measured, standby } = yield* play(world, main, first, options.rooms)

  yield* world.sender.finish
  yield* Effect.timeoutOrElse(Fiber.join(sending), {
    duration: FINISH_LIMIT_MILLIS,
    orElse: () => new StoryError({ message: `the homeserver accepted nothing more for ${FINISH_LIMIT_MILLIS} ms` })
  })
  const sent = yield* world.sender.sent
  const lastEventMillis = yield* settle(sent.toDevice)
  const roomsBehind = yield* settleRooms(MAIN, sent.lastMessage)
  const exitCodes = [yield* stop(world, standby), yield* stop(world, main)]
  yield* tell(world, `both stopped, with exit codes ${exitCodes.join(" and ")}`)
  const story: Report.Story = {
    homeserver: options.homeserver,
    rooms: yield* countRooms(MAIN),
    roomsExpected: options.rooms + NEW_ROOMS,
    toDevice: Report.compare(sent.toDevice, yield* inboxNumbers),
    messages: { sent: sent.messages, roomsBehind },
    handover: { releaseMillis: measured.releaseMillis, killMillis: measured.killMillis },
    suspend: { quietMillis: measured.quietMillis, quiet: measured.quiet, openConnections: measured.openConnections },
    exitCodes,
    windowChanges: measured.windowChanges,
    extensionLongestGapMillis: measured.extensionLongestGapMillis,
    lastEventMillis,
    tookMillis: (yield* MonotonicClock.nowMillis) - startedAtMillis
  }
  yield* options.report(story)
  if (options.keep) return yield* keepUp(world)
  return story
})

/** Leaves everything up, for whoever wants to look around, until interrupted. */
const keepUp = Effect.fnUntraced(function* (world: World) {
  yield* enter(world, MAIN, inSync, "and owns the stream")
  yield* enter(world, STANDBY, waits, "and waits for the stream")
  yield* world.progress.line(
    `Everything stays up: the homeserver at ${world.baseUrl} (users alice and bob, each with the name as password),`
  )
  yield* world.progress.line(
    `and both processes on ${world.database}. Try: twinloop status --database ${world.database}. End with ^C.`
  )
  return yield* Effect.never
})

/** Plays the story; fails with `StoryError` when a part of it doesn't come, and with the homeserver's or the database's errors. */
export const run = (options: Options) => {
  const stores = SqliteStores.layer({ filename: options.database })
  return perform(options).pipe(Effect.scoped, Effect.provide(Layer.provideMerge(SqliteSessionStore.layer, stores)))
}
