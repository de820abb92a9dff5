/**
 * The main job: a story with real processes over one SQLite file, against the embedded homeserver or a real Synapse.
 *
 * Another user keeps sending throughout: numbered to-device events, and encrypted messages whose keys change all the time.
 * Meanwhile the list grows, the window changes many times a second, the first process is suspended and a second takes over,
 * it resumes, the owner is killed in the middle of a batch, the homeserver forgets a position, the homeserver can't be
 * reached for a while, messages are pushed and shown by a process of its own while the application runs, is suspended and was
 * killed, and all stop. At the end, what the homeserver accepted is compared with the inbox, what was pushed with what was
 * shown, and every message is decrypted with the keys that the database holds.
 *
 * Invariants shown: I1 and I2 (nothing lost, duplicated or out of order, no key missing), I3 (the extension loop goes on while
 * the window changes), I4 (suspended is quiet), I9 (recovers by itself).
 *
 * Not here: the arithmetic and the bounds (`Report.ts`), the chapters (`Chapters.ts`).
 */
import { SyncStore } from "@twinloop/core"
import { Effect, Fiber, Layer } from "effect"
import { dirname, join } from "node:path"
import * as Flags from "../cli/Flags.ts"
import * as MonotonicClock from "../cli/MonotonicClock.ts"
import type { Progress } from "../cli/Output.ts"
import * as SessionStore from "../http/SessionStore.ts"
import * as SqliteSessionStore from "../http/SqliteSessionStore.ts"
import * as SqliteStores from "../sqlite/SqliteStores.ts"
import { countRooms, inboxNumbers, lastMessages, settle, settleRooms } from "./Accounting.ts"
import * as Bob from "./Bob.ts"
import { enter, inSync, MAIN, NEW_ROOMS, play, STANDBY, stop, tell, waits, type World } from "./Chapters.ts"
import * as Decryption from "./Decryption.ts"
import * as Gate from "./Gate.ts"
import * as Notifying from "./Notifying.ts"
import * as Report from "./Report.ts"
import * as Sender from "./Sender.ts"
import * as StoryAccounts from "./StoryAccounts.ts"
import { StoryError } from "./StoryError.ts"
import * as StoryHomeserver from "./StoryHomeserver.ts"

export interface Options {
  readonly homeserver: StoryHomeserver.Kind
  readonly rooms: number
  /** SQLite file of the account; made anew, as are its key file and Bob's database beside it. */
  readonly database: string
  readonly progress: Progress
  /** Told what the story came to, while the homeserver is still up. */
  readonly report: (story: Report.Story) => Effect.Effect<void>
  /** Starts both processes again afterwards, and leaves everything up until interrupted. */
  readonly keep: boolean
}

/** Rooms that Bob writes to, encrypted; the others are Alice's alone. */
const SHARED_ROOMS = 20
const SEND_PAUSE_MILLIS = 20
/** How long the homeserver may take to accept what is on its way when the sender is told to finish. */
const FINISH_LIMIT_MILLIS = 20_000
/** How the story keeps inbox rows from being deleted: a consumer that never moves. */
const CONSUMER = "story"

/** How often an id of a one-time key was used twice: as the homeserver counts, or as was seen from outside, whichever is more. */
const countConflicts = Effect.fnUntraced(function* (
  { bob, gate }: Pick<World, "bob" | "gate">,
  told: Effect.Effect<ReadonlyArray<number>, StoryError>
) {
  const seen = (yield* gate.conflicts) + (yield* bob.conflicts)
  const counted = (yield* told).reduce((sum, ofDevice) => sum + ofDevice, 0)
  return Math.max(seen, counted)
})

/** Makes the accounts, the rooms and the database; everything that must be there before the first process starts. */
const prepare = Effect.fnUntraced(function* (options: Options, startedAtMillis: number) {
  const { database, progress } = options
  yield* progress.status(`starting the homeserver (${options.homeserver})`)
  const homeserver = yield* StoryHomeserver.start(options.homeserver, progress.status)
  const { baseUrl, register } = homeserver
  const gate = yield* Gate.make(Number(new URL(baseUrl).port))
  const alice = yield* register("alice")
  const friend = yield* register("bob")
  const shared = yield* StoryAccounts.createRooms(baseUrl, {
    owner: alice,
    guests: [friend],
    count: options.rooms + Notifying.ROOMS,
    shared: Math.min(options.rooms, SHARED_ROOMS) + Notifying.ROOMS,
    onProgress: (made) => progress.status(`making rooms: ${made} of ${options.rooms + Notifying.ROOMS}`)
  })
  const [notified, noisy] = [shared.slice(0, Notifying.ROOMS), shared.slice(Notifying.ROOMS)]
  const stored = { ...alice, homeserver: gate.baseUrl }
  yield* SessionStore.replace(yield* SessionStore.SessionStore, stored)
  yield* (yield* SyncStore.SyncStore).advanceInbox({ consumer: CONSUMER, sequence: 0, keep: 0 })
  const bob = yield* Bob.make({ session: friend, database: join(dirname(database), "bob.db"), rooms: shared })
  const sender = yield* Sender.make({ bob, recipient: alice, rooms: noisy, pauseMillis: SEND_PAUSE_MILLIS })
  const world: World = { progress, database, baseUrl, gate, alice, bob, sender, noisy, notified, startedAtMillis }
  const conflicts = countConflicts(world, Effect.forEach([alice, friend], homeserver.conflicts))
  return { world, conflicts }
})

/** Lets Bob write once Alice's first process has published the keys of her device: nobody could read what came before. */
const beginToWrite = Effect.fnUntraced(function* (world: World) {
  yield* world.bob.untilReachable(world.alice)
  yield* world.sender.write
  yield* tell(
    world,
    `alice's device has published its keys; bob writes to ${world.noisy.length} encrypted rooms, with a new key after every ${StoryAccounts.KEY_MESSAGES} messages to one`
  )
})

const perform = Effect.fnUntraced(function* (options: Options) {
  const startedAtMillis = yield* MonotonicClock.nowMillis
  const rooms = options.rooms + Notifying.ROOMS
  const { conflicts, world } = yield* prepare(options, startedAtMillis)
  yield* tell(world, `the homeserver (${options.homeserver}) has ${rooms} rooms; bob starts to send`)
  const sending = yield* Effect.forkScoped(world.sender.sending)
  const main = yield* enter(world, MAIN, inSync, "and owns the stream")
  yield* beginToWrite(world)
  const first = yield* enter(world, STANDBY, waits, "and waits for the stream")
  const { measured, standby } = yield* play(world, main, first, rooms)
  const notified = yield* Notifying.play(world, main, standby)
  const { push, pushed } = notified

  yield* world.sender.finish
  yield* Effect.timeoutOrElse(Fiber.join(sending), {
    duration: FINISH_LIMIT_MILLIS,
    orElse: () => new StoryError({ message: `the homeserver accepted nothing more for ${FINISH_LIMIT_MILLIS} ms` })
  })
  const sent = yield* world.sender.sent
  const lastEventMillis = yield* settle(sent.toDevice)
  const roomsBehind = yield* settleRooms(MAIN, lastMessages(sent.messages))
  const reader = { session: world.alice, keyFile: Flags.keyFileOf(world.database), role: MAIN }
  const messages = [...sent.messages, ...pushed]
  yield* Decryption.settle(reader, messages)
  const exitCodes = [notified.standbyExitCode, yield* stop(world, notified.main), yield* push.stop]
  yield* tell(world, `all have stopped, with exit codes ${exitCodes.join(", ")}`)
  const readable = yield* Decryption.count(reader, messages)
  yield* tell(
    world,
    `alice's database decrypts ${readable.decrypted} of bob's ${readable.sent} messages, with ${readable.roomKeys} room keys`
  )
  const story: Report.Story = {
    homeserver: options.homeserver,
    rooms: yield* countRooms(MAIN),
    roomsExpected: rooms + NEW_ROOMS,
    toDevice: Report.compare(sent.toDevice, yield* inboxNumbers),
    messages: { sent: messages.length, roomsBehind },
    encryption: { ...readable, oneTimeKeyConflicts: yield* conflicts },
    notifications: Report.notifications(pushed, yield* push.shown, yield* push.lastWords),
    handover: { releaseMillis: measured.releaseMillis, killMillis: measured.killMillis },
    suspend: { quietMillis: measured.quietMillis, quiet: measured.quiet, openConnections: measured.openConnections },
    exitCodes,
    windowChanges: measured.windowChanges,
    windows: measured.windows,
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
  yield* Notifying.listen(world)
  yield* world.progress.line(
    `Everything stays up: the homeserver at ${world.baseUrl} (users alice and bob, each with the name as password),`
  )
  yield* world.progress.line(
    `both processes on ${world.database} (try: twinloop status --database ${world.database}), and the push daemon,`
  )
  yield* world.progress.line(`which appends to ${Notifying.fileOf(world.database)}. End with ^C.`)
  return yield* Effect.never
})

/** Plays the story; fails with `StoryError` when a part of it doesn't come, and with the homeserver's or the database's errors. */
export const run = (options: Options) => {
  const stores = SqliteStores.layer({ filename: options.database })
  return perform(options).pipe(Effect.scoped, Effect.provide(Layer.provideMerge(SqliteSessionStore.layer, stores)))
}
