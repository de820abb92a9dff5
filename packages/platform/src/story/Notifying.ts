/**
 * The chapter of notifications: Bob writes something, the homeserver pushes it, and a process of its own shows what he wrote,
 * whatever the application is at: it runs, it is suspended, it was killed.
 *
 * Each message is encrypted with a key that nobody has had before: its room was never written to, or its last key is used
 * up. The key comes by the to-device stream, which Bob keeps full of numbered events meanwhile: so whoever owns the stream for a
 * notification also has to leave the inbox whole and in order.
 *
 * Two of the cases begin with no process at all that shows notifications, and the push starts it: the application runs (busy), or
 * is suspended (free). In the two others, many at once (burst) and after a kill (stale), it is still there; in the last one what
 * it knows of the keys is out of date, since the application has owned the stream in between (I5).
 *
 * Gotchas: the rooms to which Bob writes all the time are muted, as a user would mute them, and the homeserver doesn't push them:
 * twelve messages a second would be a measurement of load.
 *
 * Not here: the figures (`Report.ts`), the daemon (`PushProcess.ts`).
 */
import { ExtensionLoopMachine, Lease, LeaseStore, type MatrixEvent } from "@twinloop/core"
import { Clock, Effect, Schedule } from "effect"
import { dirname, join } from "node:path"
import * as MonotonicClock from "../cli/MonotonicClock.ts"
import { PUSH_LEASE } from "../push/PushQueue.ts"
import type * as AppProcess from "./AppProcess.ts"
import { control, enter, inSync, MAIN, ms, stop, tell, type World } from "./Chapters.ts"
import * as PushProcess from "./PushProcess.ts"
import * as Report from "./Report.ts"
import * as Sender from "./Sender.ts"
import * as StoryAccounts from "./StoryAccounts.ts"
import { StoryError } from "./StoryError.ts"

/** Rooms of the burst, and messages to each: one more than a key is used for, so that there are two keys to each room. */
const BURST_ROOMS = 4
const BURST_MESSAGES = StoryAccounts.KEY_MESSAGES + 1

/** How long the process that shows notifications may go on when there are none: it waits 2 s for more. */
const WORKER_LIMIT_MILLIS = 20_000

/** Rooms whose messages are pushed: one for each case with a single message, and those of the burst. */
export const ROOMS = 3 + BURST_ROOMS

interface Stage {
  readonly world: World
  readonly push: PushProcess.PushProcess
}

type Rooms = ReadonlyArray<MatrixEvent.RoomId>

const isHeld = Effect.fnUntraced(function* (lease: string) {
  const leases = yield* LeaseStore
  const { rows } = yield* leases.inspect(lease)
  const nowMillis = yield* Clock.currentTimeMillis
  return rows.some((row) => Lease.isHeld(row, nowMillis))
})

/** What the lease of the stream must be like for a case to be the one that it is called. */
const requireLease = Effect.fnUntraced(function* (as: Report.Case) {
  const wanted = as !== "free"
  if ((yield* isHeld(ExtensionLoopMachine.EXTENSION_LEASE)) === wanted) return
  const message = `the lease should be ${wanted ? "held" : "free"} when a push arrives (case "${as}"), and isn't`
  return yield* new StoryError({ message })
})

/** Waits until no process shows notifications: the one that did ends once nothing has come for a while. */
const untilNobodyShows = ({ push }: Stage) =>
  isHeld(PUSH_LEASE).pipe(
    Effect.repeat({ until: (held) => !held, schedule: Schedule.spaced("20 millis") }),
    Effect.timeoutOrElse({
      duration: WORKER_LIMIT_MILLIS,
      orElse: () => push.fail(`had a process that shows notifications for ${WORKER_LIMIT_MILLIS} ms after the last one`)
    })
  )

/** Bob writes messages at once, in these rooms; waits until they are shown, or are as late as they can be. */
const say = Effect.fnUntraced(function* ({ push, world }: Stage, as: Report.Case, rooms: Rooms, perRoom: number) {
  yield* requireLease(as)
  const texts = rooms.flatMap((roomId, room) =>
    Array.from({ length: perRoom }, (_, index) => ({ roomId, body: `${as} ${room + 1}.${index + 1}` }))
  )
  const pushed = yield* Effect.forEach(
    texts,
    Effect.fnUntraced(function* ({ body, roomId }): Effect.fn.Return<Report.Pushed> {
      const eventId = yield* Sender.untilAccepted(world.bob.write({ roomId, txnId: `story-n ${body}`, body }))
      return { as, roomId, eventId, body, acceptedAtMillis: yield* MonotonicClock.nowMillis }
    }),
    { concurrency: "unbounded" }
  )
  const eventIds = pushed.map(({ eventId }) => eventId)
  yield* push.untilShown(eventIds, Report.bounds.notificationMillis)
  const { millis, shown } = Report.notifications(pushed, yield* push.shown)
  const last = ms(Math.max(0, ...millis[as]))
  yield* tell(world, `${lead[as]}: ${shown} of ${pushed.length} notifications shown, decrypted, the last after ${last}`)
  return pushed
})

const lead: { readonly [as in Report.Case]: string } = {
  busy: "pushed while main owns the stream",
  burst: `pushed at once, from ${BURST_ROOMS} rooms`,
  free: "pushed while main is suspended",
  stale: "pushed after main was killed"
}

/** Nobody has the stream: the application is suspended, and resumed afterwards. */
const whileSuspended = Effect.fnUntraced(function* (stage: Stage, main: AppProcess.AppProcess, rooms: Rooms) {
  const { world } = stage
  yield* control(world, main, (client) => client.suspend(Report.bounds.quietMillis))
  const pushed = yield* say(stage, "free", rooms, 1)
  const said = yield* main.said
  yield* control(world, main, (client) => client.resume)
  yield* main.until("be in sync after resuming", inSync, { since: said })
  return pushed
})

/** The stream is a dead process's, whose lease isn't over. */
const afterKill = Effect.fnUntraced(function* (stage: Stage, main: AppProcess.AppProcess, rooms: Rooms) {
  yield* main.kill
  return yield* say(stage, "stale", rooms, 1)
})

/** Where notifications are shown. */
export const fileOf = (database: string): string => join(dirname(database), "notifications.jsonl")

/** Has what Bob writes pushed from here on, except in the rooms to which he writes all the time. */
export const listen = Effect.fnUntraced(function* (world: World) {
  const { alice, baseUrl, database, noisy } = world
  const mute = Effect.forEach(noisy, (roomId) => StoryAccounts.muteRoom(baseUrl, alice, roomId), { discard: true })
  const start = PushProcess.start(database, fileOf(database))
  const [{ push, url }] = yield* Effect.all([start, mute], { concurrency: "unbounded" })
  yield* PushProcess.enable(database, url)
  yield* tell(
    world,
    `the homeserver pushes to a daemon of alice's, except from the ${noisy.length} rooms that are muted`
  )
  return push
})

/** All cases. Stops the standby process before those in which nobody else may take over; `main` is a new process after them. */
export const play = Effect.fnUntraced(function* (
  world: World,
  main: AppProcess.AppProcess,
  standby: AppProcess.AppProcess
) {
  const push = yield* listen(world)
  const stage: Stage = { world, push }
  const [busy, free, stale, ...burst] = world.notified.map((roomId) => [roomId])
  const whileOwned = yield* say(stage, "busy", busy!, 1)
  const together = yield* say(stage, "burst", burst.flat(), BURST_MESSAGES)
  const standbyExitCode = yield* stop(world, standby)
  yield* untilNobodyShows(stage)
  const whileFree = yield* whileSuspended(stage, main, free!)
  const whileStale = yield* afterKill(stage, main, stale!)
  const successor = yield* enter(world, MAIN, inSync, "and owns the stream")
  const pushed = [...whileOwned, ...together, ...whileFree, ...whileStale]
  return { pushed, push, standbyExitCode, main: successor }
})
