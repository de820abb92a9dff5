/**
 * Shows what is pushed: takes pushes from the queue, resolves them, asks the sink, and writes down that it did.
 *
 * One process of the account does this at a time, whoever holds the lease `PUSH_LEASE`; another one waits for it.
 *
 * Invariants: I1 (every change of the queue carries the fence), I2 (a push is shown once: it is marked before the sink is asked
 * and removed after; who finds a mark asks the sink whether it knows the event), I4 (when the scope closes, the lease is free
 * and what was in hand waits in the queue), I7 (what the client says nothing about is tried again, and then shown as it is),
 * I10 (`BATCH`, `IN_HAND`, `SHOWN_AT_ONCE`).
 *
 * Gotchas: a push that can't be resolved just then is put off and tried again, and shown as it is when that doesn't help. While
 * none can be resolved, since the login is lost or the database can't be used, they wait in the queue: a row of "something new"
 * would help nobody, and who logs in again sees what they were. A sink that fails is tried again for `KEPT_MILLIS`, as long as
 * a homeserver tries a gateway.
 *
 * Not here: resolving (actors: `Notifications`), the queue's rows (`PushTables.ts`), starting and ending the process
 * (`PushDaemon.ts`).
 */
import {
  DistributedSemaphore,
  type LeaseStore,
  NotificationClient,
  NotificationSink,
  type StoreError,
  SupervisionPolicy,
  SyncConfig,
  type Wake
} from "@twinloop/core"
import { Clock, Effect, FiberSet, Queue, Random, Ref, Schema, Semaphore, Stream } from "effect"
import { PUSH_LEASE, PushQueue, type QueuedPush } from "./PushQueue.ts"

/** Pushes that are resolved together, under one deadline. */
const BATCH = 50
/** Pushes that are worked on at the same time, at most; the others wait in the queue, where they cost no memory. */
const IN_HAND = 200
/** Pushes that are shown at the same time: a webhook that hangs must not keep the others waiting. */
const SHOWN_AT_ONCE = 8
/** How often a push that could not be resolved is tried before it is shown as it is. */
const ATTEMPTS = 3
/** How long a push is kept that can't be shown, in milliseconds: a day, like a homeserver. */
const KEPT_MILLIS = 86_400_000
/** What no other try helps against, until somebody sees to it; as `SupervisionPolicy.decide`, which gives up. */
const TERMINAL = ["auth", "unsupported", "storeTerminal"] as const

/** No push can be resolved until somebody sees to it: the login is lost, or the database can't be used. All wait in the queue. */
export class CannotResolve extends Schema.TaggedError<CannotResolve>("@twinloop/platform/CannotResolve")(
  "CannotResolve",
  { class: Schema.Literals(TERMINAL), message: Schema.String }
) {}

export interface Options {
  /** How long to wait for more when everything is shown, in milliseconds; then it ends. */
  readonly idleMillis: number
  /** Looked at between pushes: true ends it when what is in hand is shown. */
  readonly isEnough?: Effect.Effect<boolean>
  /** Told once of each push that is shown, or has nothing to show, after it is gone from the queue. */
  readonly onDone?: (resolved: NotificationClient.Resolved, push: QueuedPush) => Effect.Effect<void>
}

interface Env {
  readonly options: Options
  readonly queue: PushQueue["Service"]
  readonly client: NotificationClient.NotificationClient["Service"]
  readonly sink: NotificationSink.NotificationSink["Service"]
  readonly config: SyncConfig.SyncConfigShape
  readonly grant: DistributedSemaphore.Grant
  /** Sequences that are being worked on. */
  readonly inHand: Ref.Ref<ReadonlySet<number>>
  /** When something was in hand last, Unix milliseconds. */
  readonly busyAtMillis: Ref.Ref<number>
  /** Why nothing more is taken. */
  readonly stopped: Ref.Ref<CannotResolve | undefined>
  readonly showing: Semaphore.Semaphore
}

type Resolved = NotificationClient.Resolved

/** Whether there is nothing to show. */
const isSilent = ({ result }: Resolved): boolean =>
  result._tag === "FilteredOut" || result._tag === "Redacted" || result._tag === "NotFound"

/** Why no other push can be resolved either. */
const terminal = ({ result }: Resolved): CannotResolve | undefined => {
  const known = result._tag === "Failed" ? TERMINAL.find((one) => one === result.failure.class) : undefined
  if (known === undefined || result._tag !== "Failed") return undefined
  return new CannotResolve({ class: known, message: `Pushes can't be resolved, and wait. ${result.message}` })
}

/** Whether it may come to something else in a moment. */
const isWorthAnotherTry = ({ result }: Resolved): boolean => result._tag === "Expired" || result._tag === "Failed"

const putOff = Effect.fnUntraced(function* ({ config, grant, queue }: Env, push: QueuedPush) {
  const millis = SupervisionPolicy.backoffMillis(config, push.attempts, yield* Random.next)
  yield* queue.later(grant, push.sequence, (yield* Clock.currentTimeMillis) + millis)
})

/** A sink that meets a defect has failed: it must not keep the other pushes from being shown. */
const asking = <A>({ sink }: Env, ask: Effect.Effect<A, NotificationSink.SinkError>) =>
  Effect.catchDefect(ask, (cause) => {
    const message = `The sink ${sink.name} met a defect, which is a bug: ${String(cause)}`
    return Effect.fail(new NotificationSink.SinkError({ sink: sink.name, message, cause }))
  })

/** Shows one push, and removes it; puts it off when the sink can't. Gives whether it is shown. */
const showIn = Effect.fnUntraced(function* (env: Env, push: QueuedPush, resolved: Resolved) {
  const { grant, queue, sink } = env
  const { request, sequence } = push
  const isKnown = push.isRepeated && sink.isKnown !== undefined ? sink.isKnown(request) : Effect.succeed(false)
  const show = Effect.gen(function* () {
    if (yield* asking(env, isKnown)) return
    yield* queue.begin(grant, [sequence])
    yield* asking(env, sink.show(resolved))
  })
  // What was shown is written down, also by who is interrupted at that moment: nobody asks a sink that can't tell.
  return yield* Effect.uninterruptibleMask((restore) =>
    restore(show).pipe(
      Effect.andThen(queue.done(grant, [sequence])),
      Effect.as(true),
      Effect.catchTag("SinkError", (error) => Effect.as(cannotShow(env, push, error), false))
    )
  )
})

const cannotShow = Effect.fnUntraced(function* (env: Env, push: QueuedPush, error: NotificationSink.SinkError) {
  const { eventId, roomId } = push.request
  const what = `The event ${eventId} of the room ${roomId} can't be shown. ${error.message}`
  if ((yield* Clock.currentTimeMillis) - push.receivedAtMillis < KEPT_MILLIS) {
    yield* Effect.logWarning(`${what} It is tried again.`)
    return yield* putOff(env, push)
  }
  yield* Effect.logError(`${what} It has been tried for a day, and is given up.`)
  yield* env.queue.done(env.grant, [push.sequence])
})

/** Gives whether the push is shown, or has nothing to show. */
const finish = Effect.fnUntraced(function* (env: Env, push: QueuedPush, resolved: Resolved) {
  const stop = terminal(resolved)
  if (stop !== undefined) {
    yield* Ref.set(env.stopped, stop)
    return false
  }
  if (isWorthAnotherTry(resolved) && push.attempts + 1 < ATTEMPTS) {
    yield* putOff(env, push)
    return false
  }
  if (!isSilent(resolved)) return yield* env.showing.withPermit(showIn(env, push, resolved))
  yield* env.queue.done(env.grant, [push.sequence])
  return true
})

/** Makes use of what a push came to. One that this fails for stays in hand, since its failure ends everything. */
const handle = Effect.fnUntraced(function* (env: Env, push: QueuedPush, resolved: Resolved) {
  if (yield* finish(env, push, resolved)) yield* env.options.onDone?.(resolved, push) ?? Effect.void
  yield* Ref.update(env.inHand, (known) => {
    const rest = new Set(known)
    rest.delete(push.sequence)
    return rest
  })
})

/** What a push comes to of which the client says nothing, against its word. */
const untold = ({ request }: QueuedPush): Resolved => {
  const message = "resolving the push ended without a result, which is a bug"
  return { request, result: { _tag: "Failed", failure: { class: "defect", message }, message } }
}

/** Resolves a batch, and makes use of each result as soon as it is there. */
const work = Effect.fnUntraced(function* (env: Env, batch: ReadonlyArray<QueuedPush>) {
  const open = new Map(batch.map((push) => [push.request.eventId, push]))
  const use = (resolved: Resolved) =>
    Effect.suspend(() => {
      const push = open.get(resolved.request.eventId)
      open.delete(resolved.request.eventId)
      return push === undefined ? Effect.void : handle(env, push, resolved)
    })
  yield* env.client.resolving(batch.map(({ request }) => request)).pipe(
    Stream.catchDefect((defect) =>
      Stream.drain(Stream.fromEffect(Effect.logError("Resolving pushes met a defect. They are tried again.", defect)))
    ),
    // As wide as a batch: what waits for the sink keeps nothing that needs none.
    Stream.mapEffect(use, { concurrency: BATCH, unordered: true }),
    Stream.runDrain
  )
  yield* Effect.forEach([...open.values()], (push) => handle(env, push, untold(push)), { concurrency: BATCH })
})

const isStopped = Effect.fnUntraced(function* ({ options, stopped }: Env) {
  return (yield* Ref.get(stopped)) !== undefined || (yield* options.isEnough ?? Effect.succeed(false))
})

/** How many may be taken in hand at once. */
const room = Effect.fnUntraced(function* (env: Env) {
  if (yield* isStopped(env)) return 0
  return Math.min(BATCH, IN_HAND - (yield* Ref.get(env.inHand)).size)
})

/** Waits until there may be more to do; false when there has been nothing for so long that the process may end. */
const awaitMore = Effect.fnUntraced(function* (env: Env, woken: Effect.Effect<void>) {
  const inHand = [...(yield* Ref.get(env.inHand))]
  const nowMillis = yield* Clock.currentTimeMillis
  if (inHand.length > 0) yield* Ref.set(env.busyAtMillis, nowMillis)
  const endMillis = (yield* Ref.get(env.busyAtMillis)) + env.options.idleMillis
  // What is due doesn't matter as long as it may not be taken.
  const nextDueMillis = (yield* room(env)) > 0 ? yield* env.queue.nextDueMillis(inHand) : undefined
  const dueMillis = nextDueMillis ?? Number.POSITIVE_INFINITY
  // What is put off for longer than that is another process's.
  const isIdle = inHand.length === 0 && dueMillis > endMillis
  if (isIdle && nowMillis >= endMillis) return false
  const untilMillis = isIdle ? endMillis : dueMillis
  yield* Effect.timeoutOption(woken, Math.min(env.config.waitPollMillis, Math.max(0, untilMillis - nowMillis)))
  return true
})

/** Takes what is due in hand, as long as that is not too much. */
const takeDue = Effect.fnUntraced(function* (env: Env) {
  const limit = yield* room(env)
  if (limit <= 0) return []
  const batch = yield* env.queue.waiting(limit, [...(yield* Ref.get(env.inHand))])
  yield* Ref.update(env.inHand, (known) => new Set([...known, ...batch.map(({ sequence }) => sequence)]))
  return batch
})

const isFinished = Effect.fnUntraced(function* (env: Env) {
  return (yield* isStopped(env)) && (yield* Ref.get(env.inHand)).size === 0
})

const makeEnv = Effect.fnUntraced(function* (options: Options) {
  const semaphore = yield* DistributedSemaphore.make({ name: PUSH_LEASE, permits: 1 })
  const grant = yield* semaphore.take
  const env: Env = {
    options,
    queue: yield* PushQueue,
    client: yield* NotificationClient.NotificationClient,
    sink: yield* NotificationSink.NotificationSink,
    config: yield* SyncConfig.SyncConfig,
    grant,
    inHand: yield* Ref.make<ReadonlySet<number>>(new Set()),
    busyAtMillis: yield* Ref.make(yield* Clock.currentTimeMillis),
    stopped: yield* Ref.make<CannotResolve | undefined>(undefined),
    showing: yield* Semaphore.make(SHOWN_AT_ONCE)
  }
  return env
})

/**
 * Works until nothing has come for `idleMillis`. Waits first while another process does this. Fails when the database can't be
 * used, another process has taken over (`LeaseLost`, or a `StoreError` of a stale generation when a write learns it first), or
 * nothing can be resolved until somebody sees to it (`CannotResolve`, once what could be is shown). What was in hand then waits
 * in the queue.
 */
export const run = (
  options: Options
): Effect.Effect<
  void,
  StoreError.StoreError | DistributedSemaphore.LeaseLost | CannotResolve,
  NotificationClient.NotificationClient | NotificationSink.NotificationSink | PushQueue | LeaseStore | Wake
> =>
  Effect.gen(function* () {
    const arrival = yield* Effect.flatMap(PushQueue, (queue) => queue.arrivals)
    const env = yield* makeEnv(options)
    const freed = yield* Queue.sliding<void>(1)
    const batches = yield* FiberSet.make<void, StoreError.StoreError>()
    const woken = Effect.raceFirst(arrival, Queue.take(freed))
    const loop = Effect.gen(function* () {
      while (!(yield* isFinished(env))) {
        const batch = yield* takeDue(env)
        if (batch.length > 0)
          yield* FiberSet.run(batches, Effect.ensuring(work(env, batch), Queue.offer(freed, undefined)))
        else if (!(yield* awaitMore(env, woken))) return
      }
    })
    const failed = FiberSet.join(batches)
    yield* loop.pipe(
      Effect.raceFirst(Effect.andThen(failed, Effect.never)),
      Effect.raceFirst(Effect.flatMap(env.grant.lost, Effect.fail))
    )
    const stopped = yield* Ref.get(env.stopped)
    if (stopped !== undefined) return yield* stopped
    yield* env.client.settled
  }).pipe(Effect.scoped)
