/**
 * The notification client: interprets `NotificationMachine` with the store, the homeserver, the decryptor and, for a moment,
 * the extension stream.
 *
 * Works in a process of its own, started by a push, and inside the application's process, whose grant it then shares: while
 * the extension loop owns the stream, keys come by it; while the loops don't run, the stream is taken for a moment.
 *
 * Invariants: I1 and I2 (what is applied is one fenced commit per response), I3 (touches nothing of the main connection, and
 * never queues for the lease), I4 (when the layer's scope closes nothing runs and the lease row is free), I7, I9, I10.
 *
 * Gotchas: a result doesn't wait for the end of the work on the stream; `settled` does. Interrupting whoever resolves ends the
 * resolution, and gives the lease back.
 *
 * Not here: what happens next (`NotificationMachine`), showing (`NotificationSink`).
 */
import {
  EventDecryptor,
  ExtensionLoopMachine,
  Homeserver,
  type HomeserverError,
  type Lease,
  type MatrixEvent,
  NotificationClient,
  NotificationFacts,
  type NotificationItem,
  NotificationMachine,
  type StoreError,
  SyncConfig,
  SyncStore,
  Wake
} from "@twinloop/core"
import {
  Cause,
  Clock,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  FiberSet,
  Layer,
  Option,
  Queue,
  Random,
  Semaphore,
  Stream
} from "effect"
import * as Actor from "./Actor.ts"
import * as CryptoTurn from "./CryptoTurn.ts"
import { EncryptionNews, type News } from "./EncryptionNews.ts"
import * as ExtensionBatch from "./ExtensionBatch.ts"
import { ExtensionLease } from "./ExtensionLease.ts"
import type * as Inbox from "./Inbox.ts"
import * as LeaseKeeper from "./LeaseKeeper.ts"
import * as LoopFailure from "./LoopFailure.ts"
import * as MainSync from "./MainSync.ts"
import * as Metrics from "./Metrics.ts"
import * as OutgoingRequests from "./OutgoingRequests.ts"

type Input = NotificationMachine.Input
type Command = NotificationMachine.Command
type Request = NotificationItem.NotificationRequest
type Resolved = NotificationClient.Resolved

/** What resolving needs. */
export type NotificationServices =
  | EventDecryptor.EventDecryptor
  | Homeserver.Homeserver
  | SyncStore.SyncStore
  | CryptoTurn.CryptoTurn
  | OutgoingRequests.OutgoingRequests
  | EncryptionNews
  | ExtensionLease
  | Inbox.Inbox
  | Wake

/** Surroundings that are asked for at once: more would only wait for one another's connections. */
const CONTEXTS = 8

/** The newest part of a stored timeline in which redactions are looked for. */
const REDACTIONS_LOOK = 50

interface Env {
  readonly config: SyncConfig.SyncConfigShape
  readonly machine: NotificationMachine.Config
  readonly homeserver: Homeserver.Homeserver["Service"]
  readonly store: SyncStore.SyncStore["Service"]
  readonly decryptor: EventDecryptor.EventDecryptor["Service"]
  readonly turn: CryptoTurn.CryptoTurn["Service"]
  readonly requests: OutgoingRequests.OutgoingRequests["Service"]
  readonly news: EncryptionNews["Service"]
  readonly lease: ExtensionLease["Service"]
  readonly wake: Wake["Service"]
  readonly apply: ExtensionBatch.Apply
  /** One request at a time on the connection (MSC4186). */
  readonly connection: Semaphore.Semaphore
  readonly contexts: Semaphore.Semaphore
}

/** One resolution: a machine and what it keeps. */
interface Resolution {
  readonly env: Env
  readonly keeper: LeaseKeeper.LeaseKeeper
  readonly emit: (key: NotificationMachine.Key, result: NotificationItem.NotificationResult) => Effect.Effect<void>
}

/** An input with the time and the chance that belong to it. */
interface Stamped {
  readonly input: Input
  readonly now: NotificationMachine.Now
}

type Context = Actor.Context<Stamped>

const stamp = (input: Input): Effect.Effect<Stamped> =>
  Effect.map(Effect.all({ nowMillis: Clock.currentTimeMillis, random: Random.next }), (now) => ({ input, now }))

const stamped = <R>(effect: Effect.Effect<Input | undefined, never, R>) =>
  Effect.flatMap(effect, (input) => (input === undefined ? Effect.undefined : stamp(input)))

const orFail = LoopFailure.orInput("notification")

// --- the store

const readRoom = Effect.fnUntraced(function* (
  { config, machine, store }: Env,
  roomId: MatrixEvent.RoomId,
  eventIds: ReadonlyArray<MatrixEvent.EventId>
) {
  const connId = MainSync.connId(config.notificationAppRole)
  const room = yield* store.room(connId, roomId)
  if (room === undefined) return []
  const entries = yield* store.timeline({ connId, roomId, limit: REDACTIONS_LOOK })
  const found = yield* Effect.forEach(eventIds, (eventId) => store.event(connId, roomId, eventId))
  const events = found.filter((event) => event !== undefined)
  const people = new Set([machine.ownUserId, ...events.map(({ sender }) => sender)])
  const state = yield* Effect.forEach(
    [
      ...NotificationFacts.ROOM_STATE.map((type) => ({ type, stateKey: "" })),
      ...[...people].map((stateKey) => ({ type: "m.room.member", stateKey }))
    ],
    (one) => store.state({ connId, roomId, ...one })
  )
  const stored: NotificationMachine.Stored = {
    room,
    state: state.flat(),
    timeline: entries.flatMap((entry) => (entry._tag === "Event" ? [entry.event] : [])),
    events
  }
  return [stored]
})

/** What the application's own connection has. A store that can't be read has nothing: the homeserver is asked anyway. */
const readStore = (env: Env, wanted: ReadonlyMap<MatrixEvent.RoomId, ReadonlyArray<MatrixEvent.EventId>>) =>
  Effect.gen(function* () {
    const connId = MainSync.connId(env.config.notificationAppRole)
    const rooms = yield* Effect.forEach(wanted, ([roomId, eventIds]) => readRoom(env, roomId, eventIds))
    const accountData = yield* Effect.forEach(NotificationFacts.ACCOUNT_DATA, (type) =>
      env.store.accountData({ connId, type })
    )
    return {
      _tag: "StoreRead",
      rooms: rooms.flat(),
      accountData: accountData.filter((event) => event !== undefined)
    } as const
  }).pipe(
    Effect.tapError((error: StoreError.StoreError) =>
      Effect.logWarning(`The stored rooms can't be read for a notification; the homeserver is asked. ${error.message}`)
    ),
    Effect.orElseSucceed(() => ({ _tag: "StoreRead", rooms: [], accountData: [] }) as const)
  )

/** Makes ready to decrypt while the homeserver is asked, when what is stored says that it will probably have to. */
const prepare = ({ env }: Resolution, context: Context) =>
  Effect.fnUntraced(function* (read: Effect.Success<ReturnType<typeof readStore>>) {
    const { prepare } = env.decryptor
    if (prepare !== undefined && read.rooms.some(({ room }) => room.isEncrypted))
      yield* context.run("prepare", Effect.as(prepare, undefined))
  })

// --- the homeserver

/** Synapse calls the event of another room a bad request: asked the same, it says so for as long as there is time. */
const isRefused = ({ reason }: HomeserverError.HomeserverError): boolean =>
  reason._tag === "NotFound" || reason._tag === "Forbidden" || reason._tag === "BadRequest"

const fetchContext = (env: Env, command: Extract<Command, { _tag: "FetchContext" }>): Effect.Effect<Input> => {
  const { eventId, key, millis, roomId } = command
  const asked = env.contexts.withPermit(env.homeserver.eventContext(roomId, eventId)).pipe(
    Effect.map(({ event, state }): Input => ({ _tag: "ContextFound", key, event, state })),
    Effect.catchIf(isRefused, ({ reason }) =>
      Effect.succeed<Input>({ _tag: "ContextRefused", key, isForbidden: reason._tag === "Forbidden" })
    ),
    Effect.catch((error) =>
      Effect.map(LoopFailure.of("notification", error), (failed): Input => ({ _tag: "ContextFailed", key, ...failed }))
    )
  )
  return millis > 0 ? Effect.delay(asked, millis) : asked
}

const decrypt = (env: Env, command: Extract<Command, { _tag: "Decrypt" }>): Effect.Effect<Input> => {
  const { event, key, millis, roomId } = command
  const asked = env.decryptor.decrypt(roomId, event).pipe(
    Effect.map((decryption): Input => ({ _tag: "DecryptAnswered", key, decryption })),
    Effect.catch((error) =>
      Effect.map(LoopFailure.of("notification", error), (failed): Input => ({ _tag: "DecryptFailed", key, ...failed }))
    )
  )
  return millis > 0 ? Effect.delay(asked, millis) : asked
}

const askThread = (env: Env, command: Extract<Command, { _tag: "AskThread" }>): Effect.Effect<Input> => {
  const { key, roomId, rootId } = command
  return env.homeserver.isThreadSubscribed(roomId, rootId).pipe(
    // Not worth more than one try: the rule that asks doesn't match then, and others do.
    Effect.orElseSucceed(() => undefined),
    Effect.map((isSubscribed): Input => ({ _tag: "ThreadAnswered", key, isSubscribed }))
  )
}

// --- the stream

const tryLease = ({ env, keeper }: Resolution, dead: ReadonlyArray<string>) =>
  keeper.tryTake(dead).pipe(
    Effect.tap((taken) => (taken._tag === "Taken" ? env.turn.open(taken.grant) : Effect.void)),
    Effect.map((taken): Input =>
      taken._tag === "Taken" ? { _tag: "LeaseTaken" } : { _tag: "LeaseBusy", blocker: taken.blocker }
    ),
    orFail("LeaseFailed")
  )

const watchGrant = ({ keeper }: Resolution, context: Context): Effect.Effect<void> =>
  Effect.flatMap(keeper.current, (kept) => {
    if (Option.isNone(kept)) return Effect.void
    const { lost, wanted } = kept.value
    return Effect.andThen(
      context.run("lost", stamped(Effect.as(lost, { _tag: "LeaseLost" } as const))),
      context.run("wanted", stamped(Effect.as(wanted, { _tag: "LeaseWanted" } as const)))
    )
  })

const isEmptyAnswer = ({ extensions: { e2ee, toDevice } }: Effect.Success<ReturnType<Env["homeserver"]["sync"]>>) =>
  (toDevice?.events.length ?? 0) + (e2ee?.deviceLists?.changed.length ?? 0) === 0

const iterate = ({ env }: Resolution, timeoutMillis: number) =>
  Effect.gen(function* () {
    const sent = yield* env.store.extensionPosition
    const request = ExtensionLoopMachine.requestFrom({ sync: env.config }, sent, timeoutMillis)
    const asking = Effect.timed(env.homeserver.sync(request))
    // The machine is made while the homeserver is asked; both are needed to apply the answer, and neither changes anything.
    const [, [took, response]] = yield* Effect.all([env.turn.load, asking], { concurrency: 2 })
    yield* env.apply(sent, response)
    const tookMillis = Duration.toMillis(took)
    return { _tag: "Iterated", tookMillis, heldMillis: timeoutMillis, isEmpty: isEmptyAnswer(response) } as const
  }).pipe(orFail("IterateFailed"))

/** What can't be sent stays queued for the next owner. */
const sendOutgoing = ({ env }: Resolution) =>
  env.requests.flush.pipe(
    Effect.ignore,
    Effect.andThen(Random.next),
    Effect.map((random): Input => ({ _tag: "Sent", random }))
  )

const expirePosition = ({ env, keeper }: Resolution) =>
  Effect.flatMap(keeper.current, (kept) =>
    Option.isNone(kept) ? Effect.void : env.store.expireExtension(kept.value)
  ).pipe(Effect.as<Input>({ _tag: "Expired" }), orFail("IterateFailed"))

/** Under these keys whatever needs the grant runs. */
const underGrant = ["lost", "wanted", "keys"] as const

const releaseLease = ({ env, keeper }: Resolution, context: Context) =>
  Effect.forEach(underGrant, context.cancel, { discard: true }).pipe(
    Effect.andThen(env.turn.close),
    Effect.andThen(keeper.release)
  )

/** Ends when the owner has let go, has died, or has a lease that is over. */
const ownerGone = Effect.fnUntraced(function* (env: Env, blocker: Lease.Blocker, signal: Effect.Effect<unknown>) {
  const nowMillis = yield* Clock.currentTimeMillis
  const leaseOver = Effect.sleep(Math.min(env.config.leaseMillis, Math.max(0, blocker.expiresAtMillis - nowMillis)) + 1)
  return yield* Effect.raceFirst(
    Effect.flatMap(signal, (said) => (said === "Unreachable" ? Effect.never : Effect.succeed(said === "Dead"))),
    Effect.as(leaseOver, false)
  )
})

/** Tells, once keys are followed, that they are, and gives what tells of those that are committed next. */
const followKeys = ({ env }: Resolution, following: Input, context: Context) => {
  const tell = (input: Input) => Effect.flatMap(stamp(input), context.send)
  const tellOf = (news: ReadonlyArray<News>) => {
    const sessions = news.flatMap((one) => (one._tag === "RoomKey" ? [one.sessionId] : []))
    if (news.some((one) => one._tag === "Missed")) return tell({ _tag: "KeysCommitted" })
    return sessions.length > 0 ? tell({ _tag: "KeysCommitted", sessions: new Set(sessions) }) : Effect.void
  }
  return env.news.followAlways.pipe(
    Effect.tap(() => tell(following)),
    Effect.map(({ next }) => ({ tellNext: Effect.flatMap(next, tellOf) }))
  )
}

/** Waits, while whoever has the stream may commit the key; a store that can't be read is tried again. */
const waitForLease = (kept: Resolution, millis: number, context: Context): Effect.Effect<Input> => {
  // Any key may have come before this is in force.
  const following = followKeys(kept, { _tag: "KeysCommitted" }, context)
  const follow = Effect.scoped(Effect.flatMap(following, ({ tellNext }) => Effect.forever(tellNext)))
  const rest = Effect.sleep(kept.env.config.waitPollMillis)
  return Effect.forever(Effect.andThen(Effect.ignore(follow), rest)).pipe(
    Effect.timeoutOrElse({ duration: millis, orElse: () => Effect.succeed<Input>({ _tag: "KeysWaited" }) })
  )
}

/** Follows an owner: tells of the keys that it commits, and of its end. */
const watchOwner = (kept: Resolution, blocker: Lease.Blocker, context: Context) =>
  Effect.gen(function* () {
    const { env } = kept
    const signal = yield* env.wake.subscribe(blocker.peer, `lease:${env.lease.name}`)
    yield* env.news.watch(blocker.peer)
    const { tellNext } = yield* followKeys(kept, { _tag: "OwnerWatched" }, context)
    const isDead = yield* Effect.raceFirst(ownerGone(env, blocker, signal), Effect.forever(tellNext))
    return {
      _tag: "OwnerGone",
      random: yield* Random.next,
      ...(isDead && { dead: blocker.holder })
    } as const
  }).pipe(Effect.scoped, orFail("WatchFailed"))

// --- the actor

const run = (context: Context, key: string, effect: Effect.Effect<Input>): Effect.Effect<void> =>
  context.run(key, stamped(effect))

const wait = (context: Context, key: string, millis: number, input: Input): Effect.Effect<void> =>
  run(context, key, Effect.as(Effect.sleep(millis), input))

const sync = (
  { env }: Resolution,
  request: Extract<Command, { _tag: "Sync" }>["request"],
  context: Context
): Effect.Effect<void> => {
  const asked = env.connection.withPermit(env.homeserver.sync(request)).pipe(
    Effect.map((response): Input => ({ _tag: "Synced", response })),
    orFail("SyncFailed")
  )
  const millis = request.timeoutMillis + NotificationMachine.HEDGE_MILLIS
  return Effect.andThen(run(context, "sync", asked), wait(context, "late", millis, { _tag: "SyncLate" }))
}

const interpret =
  (resolution: Resolution) =>
  (command: Command, context: Context): Effect.Effect<void> => {
    const { env } = resolution
    switch (command._tag) {
      case "ReadStore":
        return run(context, "store", Effect.tap(readStore(env, command.wanted), prepare(resolution, context)))
      case "Sync":
        return sync(resolution, command.request, context)
      case "AbortSync":
        return Effect.andThen(context.cancel("late"), context.cancel("sync"))
      case "WaitToSync":
        return wait(context, "sync", command.millis, { _tag: "SyncWaited" })
      case "FetchContext":
        return run(context, `context ${command.key}`, fetchContext(env, command))
      case "Decrypt":
        return run(context, `decrypt ${command.key}`, decrypt(env, command))
      case "AskThread":
        return run(context, `thread ${command.key}`, askThread(env, command))
      case "Emit":
        return resolution.emit(command.key, command.result)
      case "TryLease":
        return run(context, "keys", tryLease(resolution, command.presumedDead))
      case "WatchGrant":
        return watchGrant(resolution, context)
      case "Iterate":
        return run(context, "keys", iterate(resolution, command.timeoutMillis))
      case "SendOutgoing":
        return run(context, "keys", sendOutgoing(resolution))
      case "ExpirePosition":
        return run(context, "keys", expirePosition(resolution))
      case "WaitForLease":
        return run(context, "keys", waitForLease(resolution, command.millis, context))
      case "StopWaiting":
        return context.cancel("keys")
      case "WaitForKeys":
        return wait(context, "keys", command.millis, { _tag: "KeysWaited" })
      case "ReleaseLease":
        return releaseLease(resolution, context)
      case "WatchOwner":
        return run(context, "owner", watchOwner(resolution, command.blocker, context))
      case "UnwatchOwner":
        return context.cancel("owner")
    }
  }

/** Runs a resolution until everything has its result and the stream is given back, or the deadline has passed. */
const resolution = Effect.fnUntraced(function* (
  env: Env,
  requests: ReadonlyArray<Request>,
  deadlineMillis: number,
  emit: Resolution["emit"],
  told: Deferred.Deferred<void>
) {
  const keeper = yield* LeaseKeeper.make(env.lease)
  const kept: Resolution = { env, keeper, emit }
  // Before the keeper lets go, and after everything that is started below has ended.
  yield* Effect.addFinalizer(() =>
    Effect.flatMap(keeper.current, (current) => (Option.isSome(current) ? env.turn.close : Effect.void))
  )
  const [initial, commands] = NotificationMachine.start(env.machine, requests, deadlineMillis)
  const actor = yield* Actor.make<NotificationMachine.State, Stamped | "Start", Command, never>({
    name: "Notifications",
    initial,
    mailboxCapacity: env.config.mailboxCapacity,
    step: (state, given) =>
      given === "Start" ? [state, commands] : NotificationMachine.step(env.machine, state, given.input, given.now),
    interpret: (command, context) => interpret(kept)(command, context as Context)
  })
  yield* actor.send("Start")
  // Not by the mailbox: who waits for a result at the deadline doesn't wait for a command that takes long.
  const deadline = Effect.gen(function* () {
    yield* Effect.sleep(Math.max(0, deadlineMillis - (yield* Clock.currentTimeMillis)))
    const { input, now } = yield* stamp({ _tag: "DeadlinePassed" })
    const [ended] = NotificationMachine.step(env.machine, yield* actor.state, input, now)
    for (const { key, result } of NotificationMachine.results(ended)) yield* emit(key, result)
  })
  // The state is published before its commands are interpreted: what is over has also been told.
  const over = Effect.andThen(
    Stream.runDrain(Stream.takeUntil(actor.changes, NotificationMachine.isOver)),
    Deferred.await(told)
  )
  yield* Effect.raceAllFirst([over, deadline, Effect.flatMap(actor.crashed, Effect.failCause)])
}, Effect.scoped)

/** What a push comes to that is left without a result, which is told as well, since a push is never lost without a word. */
const leftOver = (exit: Exit.Exit<void>): NotificationItem.NotificationResult => {
  if (Exit.isSuccess(exit) || !Cause.hasDies(exit.cause))
    return {
      _tag: "Expired",
      missing: ["event"],
      message: "the notification client was closed before the push was resolved"
    }
  const { cause } = exit
  const message = `resolving the push met a defect, which is a bug: ${Cause.squash(cause)}`
  return { _tag: "Failed", failure: { class: "defect", message }, message }
}

const make = Effect.gen(function* () {
  const config = yield* SyncConfig.SyncConfig
  const homeserver = yield* Homeserver.Homeserver
  const turn = yield* CryptoTurn.CryptoTurn
  const env: Env = {
    config,
    machine: { sync: config, ownUserId: homeserver.session.userId },
    homeserver,
    store: yield* SyncStore.SyncStore,
    decryptor: yield* EventDecryptor.EventDecryptor,
    turn,
    requests: yield* OutgoingRequests.OutgoingRequests,
    news: yield* EncryptionNews,
    lease: yield* ExtensionLease,
    wake: yield* Wake,
    apply: yield* ExtensionBatch.make(turn),
    connection: yield* Semaphore.make(1),
    contexts: yield* Semaphore.make(CONTEXTS)
  }
  const running = yield* FiberSet.make<void>()

  /** Starts a resolution in the client's scope; its results come in the queue, which ends with the last one. */
  const begin = Effect.fnUntraced(function* (
    requests: ReadonlyArray<Request>,
    options: NotificationClient.ResolveOptions = {}
  ) {
    const results = yield* Queue.unbounded<Resolved, Cause.Done>()
    const told = yield* Deferred.make<void>()
    const open = new Map(requests.map((request) => [NotificationMachine.keyOf(request), request]))
    const finish = Effect.andThen(Queue.end(results), Deferred.succeed(told, undefined))
    const emit = Effect.fnUntraced(function* (key: NotificationMachine.Key, result: Resolved["result"]) {
      const request = open.get(key)
      if (request === undefined) return
      open.delete(key)
      yield* Metrics.resolved(result._tag)
      yield* Queue.offer(results, { request, result })
      if (open.size === 0) yield* finish
    })
    const deadline = Duration.toMillis(options.deadline ?? config.notificationDeadlineMillis)
    const deadlineMillis = (yield* Clock.currentTimeMillis) + deadline
    const resolving = resolution(env, requests, deadlineMillis, emit, told).pipe(
      Effect.onExit((exit) => Effect.forEach([...open.keys()], (key) => emit(key, leftOver(exit)), { discard: true }))
    )
    // Who stops listening before the last result ends the resolution; the work on the stream that is left goes on.
    yield* Effect.acquireRelease(FiberSet.run(running, resolving), (fiber) =>
      open.size > 0 ? Fiber.interrupt(fiber) : Effect.void
    )
    return Stream.fromQueue(results)
  })

  const resolving = (requests: ReadonlyArray<Request>, options?: NotificationClient.ResolveOptions) =>
    requests.length === 0 ? Stream.empty : Stream.unwrap(begin(requests, options))

  const resolveMany = Effect.fnUntraced(function* (
    requests: ReadonlyArray<Request>,
    options?: NotificationClient.ResolveOptions
  ) {
    const resolved = yield* Stream.runCollect(resolving(requests, options))
    const byKey = new Map(resolved.map(({ request, result }) => [NotificationMachine.keyOf(request), result]))
    return requests.map((request) => byKey.get(NotificationMachine.keyOf(request))!)
  })

  return NotificationClient.NotificationClient.of({
    resolve: (request, options) => Effect.map(resolveMany([request], options), ([result]) => result!),
    resolveMany,
    resolving,
    settled: FiberSet.awaitEmpty(running)
  })
})

/** The client over this process's services; ending the layer's scope ends what it is at. */
export const layer: Layer.Layer<NotificationClient.NotificationClient, never, NotificationServices> = Layer.effect(
  NotificationClient.NotificationClient,
  make
)
