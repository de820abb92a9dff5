/**
 * What chaos and the soak play on: a homeserver, Alice's account in a database of its own, and Bob, who writes to her.
 *
 * Nothing here has Alice's database open once it is made: her processes are the only ones that do.
 */
import { SyncStore } from "@twinloop/core"
import { Effect, Layer, Random, Ref } from "effect"
import { mkdirSync } from "node:fs"
import * as net from "node:net"
import { join } from "node:path"
import type { Progress } from "../../packages/platform/src/cli/Output.ts"
import type { AccountSession } from "../../packages/platform/src/http/Session.ts"
import * as SessionStore from "../../packages/platform/src/http/SessionStore.ts"
import * as SqliteSessionStore from "../../packages/platform/src/http/SqliteSessionStore.ts"
import * as SqliteStores from "../../packages/platform/src/sqlite/SqliteStores.ts"
import * as Bob from "../../packages/platform/src/story/Bob.ts"
import * as Gate from "../../packages/platform/src/story/Gate.ts"
import * as Sender from "../../packages/platform/src/story/Sender.ts"
import * as StoryAccounts from "../../packages/platform/src/story/StoryAccounts.ts"
import { StoryError } from "../../packages/platform/src/story/StoryError.ts"
import * as StoryHomeserver from "../../packages/platform/src/story/StoryHomeserver.ts"
import type { Pushed } from "./Verdict.ts"

export interface Options {
  readonly homeserver: StoryHomeserver.Kind
  /** Where logs and Bob's database are kept. */
  readonly directory: string
  /** Where Alice's database is, and the file of her notifications. */
  readonly disk: string
  readonly progress: Progress
  /** Between two numbered to-device events; messages take four times as long. */
  readonly sendPauseMillis: number
  /** Between two messages that are pushed. */
  readonly pushPauseMillis: number
}

/** Rooms that Bob writes to all the time, that are pushed, and that are Alice's alone. */
const NOISY = 10
const NOTIFIED = 5
const ALONE = 15

/** How the inbox is kept whole: a consumer that moves only when it is told to. */
export const CONSUMER = "story"

export interface Stage {
  readonly directory: string
  readonly database: string
  /** Where notifications are shown. */
  readonly notifications: string
  readonly pushPort: number
  /** In front of the push daemon: its pusher leads here. */
  readonly pushGate: Gate.Gate
  readonly baseUrl: string
  readonly gate: Gate.Gate
  readonly alice: AccountSession
  readonly bob: Bob.Bob
  readonly sender: Sender.Sender
  /** Writes what is pushed until `finishPushing`. */
  readonly pushing: Effect.Effect<void>
  readonly pushed: Effect.Effect<ReadonlyArray<Pushed & { readonly roomId: string }>>
  /** Ends `pushing`. */
  readonly finishPushing: Effect.Effect<void>
  readonly conflicts: Effect.Effect<number, StoryError>
}

/** The stores of Alice's database, for as long as the effect runs. */
export const withStores = <A, E, R>(
  database: string,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<
  A,
  E | Layer.Error<ReturnType<typeof SqliteStores.layer>>,
  Exclude<R, SqliteStores.SqliteStores | SessionStore.SessionStore>
> => Effect.provide(effect, Layer.provideMerge(SqliteSessionStore.layer, SqliteStores.layer({ filename: database })))

/** Ports that no system gives to a connection by itself: what listens there may go away and come back. */
const PORTS = { minimum: 20_000, maximum: 32_000 }

const tryPort = (port: number): Effect.Effect<number, NodeJS.ErrnoException> =>
  Effect.callback((resume) => {
    const server = net.createServer()
    server.once("error", (error) => resume(Effect.fail(error)))
    server.listen(port, "127.0.0.1", () => server.close(() => resume(Effect.succeed(port))))
  })

/** A port on which nobody listens. */
const freePort = Random.nextIntBetween(PORTS.minimum, PORTS.maximum).pipe(
  Effect.flatMap(tryPort),
  Effect.retry({ times: 100 }),
  Effect.mapError(({ message }) => new StoryError({ message: `no port is free: ${message}` }))
)

/** Writes messages to rooms in turn, and remembers them. */
const makePushing = Effect.fnUntraced(function* (bob: Bob.Bob, rooms: ReadonlyArray<string>, pauseMillis: number) {
  const pushed = yield* Ref.make<ReadonlyArray<Pushed & { readonly roomId: string }>>([])
  const finished = yield* Ref.make(false)
  const pushing = Effect.gen(function* () {
    for (let number = 1; !(yield* Ref.get(finished)); number++) {
      const roomId = rooms[number % rooms.length]!
      const body = `push ${number}`
      const eventId = yield* Sender.untilAccepted(bob.write({ roomId, txnId: `chaos-p${number}`, body }))
      yield* Ref.update(pushed, (all) => [...all, { roomId, eventId, body }])
      yield* Effect.sleep(pauseMillis)
    }
  })
  return { pushing, pushed: Ref.get(pushed), finish: Ref.set(finished, true) }
})

/** Makes everything that must be there before Alice's first process starts; it ends with the scope. */
export const make = Effect.fnUntraced(function* (options: Options) {
  const { directory, disk, progress } = options
  const database = join(disk, "account.db")
  mkdirSync(join(directory, "logs"))
  yield* progress.status(`starting the homeserver (${options.homeserver})`)
  const homeserver = yield* StoryHomeserver.start(options.homeserver, progress.status)
  const { baseUrl } = homeserver
  const gate = yield* Gate.make(Number(new URL(baseUrl).port), yield* freePort)
  const alice = yield* homeserver.register("alice")
  const friend = yield* homeserver.register("bob")
  const shared = yield* StoryAccounts.createRooms(baseUrl, {
    owner: alice,
    guests: [friend],
    count: NOISY + NOTIFIED + ALONE,
    shared: NOISY + NOTIFIED,
    onProgress: (made) => progress.status(`making rooms: ${made}`)
  })
  const [notified, noisy] = [shared.slice(0, NOTIFIED), shared.slice(NOTIFIED)]
  yield* Effect.forEach(noisy, (roomId) => StoryAccounts.muteRoom(baseUrl, alice, roomId), { discard: true })
  const stored = { ...alice, homeserver: gate.baseUrl }
  yield* withStores(
    database,
    Effect.gen(function* () {
      yield* SessionStore.replace(yield* SessionStore.SessionStore, stored)
      yield* (yield* SyncStore.SyncStore).advanceInbox({ consumer: CONSUMER, sequence: 0, keep: 0 })
    })
  )
  const bob = yield* Bob.make({ session: friend, database: join(directory, "bob.db"), rooms: shared })
  const sender = yield* Sender.make({ bob, recipient: alice, rooms: noisy, pauseMillis: options.sendPauseMillis })
  const { finish, pushed, pushing } = yield* makePushing(bob, notified, options.pushPauseMillis)
  const conflicts = Effect.gen(function* () {
    const seen = (yield* gate.conflicts) + (yield* bob.conflicts)
    const counted = yield* Effect.forEach([alice, friend], homeserver.conflicts)
    return Math.max(
      seen,
      counted.reduce((sum, ofDevice) => sum + ofDevice, 0)
    )
  })
  const pushPort = yield* freePort
  const stage: Stage = {
    directory,
    database,
    notifications: join(disk, "notifications.jsonl"),
    pushPort,
    pushGate: yield* Gate.make(pushPort),
    baseUrl,
    gate,
    alice,
    bob,
    sender,
    pushing,
    pushed,
    finishPushing: finish,
    conflicts
  }
  return stage
})

/** Lets an effect take so long, and fails with what it was for. */
export const within = <A, E, R>(
  what: string,
  millis: number,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E | StoryError, R> =>
  Effect.timeoutOrElse(effect, {
    duration: millis,
    orElse: () => new StoryError({ message: `${what} did not come within ${millis} ms` })
  })
