/**
 * Shows what is pushed: takes pushes from the queue, resolves them, asks the sink, and writes down that it did.
 *
 * One process of the account does this at a time, whoever holds the lease `PUSH_LEASE`; another one waits for it.
 *
 * Invariants: I1 (every change of the queue carries the fence), I2 (a push is shown once: it is marked before the sink is asked
 * and removed after; who finds a mark asks the sink whether it knows the event), I4 (when the scope closes, the lease is free
 * and what was in hand waits in the queue), I10 (`BATCH`, `IN_HAND`, `SHOWN_AT_ONCE`).
 *
 * Gotchas: a push that can't be resolved just then is put off and tried again, and shown as it is when that doesn't help. A
 * sink that fails is tried again for `KEPT_MILLIS`, as long as a homeserver tries a gateway.
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
import { Clock, Effect, FiberSet, Option, Queue, Random, Ref, Semaphore, Stream } from "effect"
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

export interface Options {
  /** How long to wait for more when everything is shown, in milliseconds; then it ends. */
  readonly idleMillis: number
  /** Looked at between pushes: true ends it when what is in hand is shown. */
  readonly isEnough?: Effect.Effect<boolean>
  /** Told of each push that is done with: shown, or nothing to show. */
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
  readonly showing: Semaphore.Semaphore
}

type Resolved = NotificationClient.Resolved

/** Whether there is nothing to show. */
const isSilent = ({ result }: Resolved): boolean =>
  result._tag === "FilteredOut" || result._tag === "Redacted" || result._tag === "NotFound"

/** Whether it may come to something else in a moment. */
const isWorthAnotherTry = ({ result }: Resolved): boolean => {
  if (result._tag === "Expired") return true
  if (result._tag !== "Failed") return false
  const failure = result.failure.class
  return failure === "network" || failure === "server" || failure === "rateLimited" || failure === "store"
}

const putOff = Effect.fnUntraced(function* ({ config, grant, queue }: Env, push: QueuedPush) {
  const millis = SupervisionPolicy.backoffMillis(config, push.attempts, yield* Random.next)
  yield* queue.later(grant, push.sequence, (yield* Clock.currentTimeMillis) + millis)
})

/** Shows one push, and removes it; puts it off when the sink can't. */
const showIn = Effect.fnUntraced(function* (env: Env, push: QueuedPush, resolved: Resolved) {
  const { grant, queue, sink } = env
  const { request, sequence } = push
  const isKnown = push.isRepeated && sink.isKnown !== undefined ? sink.isKnown(request) : Effect.succeed(false)
  const show = Effect.gen(function* () {
    if (yield* isKnown) return
    yield* queue.begin(grant, [sequence])
    yield* sink.show(resolved)
  })
  yield* show.pipe(
    Effect.andThen(queue.done(grant, [sequence])),
    Effect.catchTag("SinkError", (error) => cannotShow(env, push, error))
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

/** Makes use of what a push came to. */
const handle = Effect.fnUntraced(function* (env: Env, push: QueuedPush, resolved: Resolved) {
  if (isWorthAnotherTry(resolved) && push.attempts + 1 < ATTEMPTS) return yield* putOff(env, push)
  if (isSilent(resolved)) yield* env.queue.done(env.grant, [push.sequence])
  else yield* env.showing.withPermit(showIn(env, push, resolved))
  yield* env.options.onDone?.(resolved, push) ?? Effect.void
})

const letGo = (env: Env, sequences: Iterable<number>) =>
  Ref.update(env.inHand, (inHand) => {
    const rest = new Set(inHand)
    for (const sequence of sequences) rest.delete(sequence)
    return rest
  })

/** Resolves a batch, and makes use of each result as soon as it is there. */
const work = Effect.fnUntraced(function* (env: Env, batch: ReadonlyArray<QueuedPush>) {
  const byRequest = new Map(batch.map((push) => [push.request, push]))
  yield* env.client.resolving(batch.map(({ request }) => request)).pipe(
    Stream.mapEffect(
      (resolved) => {
        const push = byRequest.get(resolved.request)
        return push === undefined
          ? Effect.void
          : Effect.ensuring(handle(env, push, resolved), letGo(env, [push.sequence]))
      },
      { concurrency: SHOWN_AT_ONCE, unordered: true }
    ),
    Stream.runDrain,
    Effect.ensuring(
      letGo(
        env,
        batch.map(({ sequence }) => sequence)
      )
    )
  )
})

/** Waits until there may be more to do; false when there is nothing for so long that the process may end. */
const awaitMore = Effect.fnUntraced(function* (env: Env, woken: Effect.Effect<void>) {
  const inHand = [...(yield* Ref.get(env.inHand))]
  const dueMillis = (yield* env.queue.nextDueMillis(inHand)) ?? Number.POSITIVE_INFINITY
  const dueInMillis = Math.max(0, dueMillis - (yield* Clock.currentTimeMillis))
  const { idleMillis } = env.options
  // What is put off for longer than that is another process's.
  const isIdle = inHand.length === 0 && dueInMillis > idleMillis
  const millis = isIdle ? idleMillis : Math.min(env.config.waitPollMillis, dueInMillis)
  const signal = yield* Effect.timeoutOption(woken, millis)
  return !isIdle || Option.isSome(signal)
})

/** Takes what is due in hand, as long as that is not too much. */
const takeDue = Effect.fnUntraced(function* (env: Env) {
  const inHand = yield* Ref.get(env.inHand)
  const room = Math.min(BATCH, IN_HAND - inHand.size)
  if (room <= 0 || (yield* env.options.isEnough ?? Effect.succeed(false))) return []
  const batch = yield* env.queue.waiting(room, [...inHand])
  yield* Ref.update(env.inHand, (known) => new Set([...known, ...batch.map(({ sequence }) => sequence)]))
  return batch
})

const isFinished = Effect.fnUntraced(function* (env: Env) {
  const isEnough = yield* env.options.isEnough ?? Effect.succeed(false)
  return isEnough && (yield* Ref.get(env.inHand)).size === 0
})

/**
 * Works until nothing has come for `idleMillis`. Waits first while another process does this. Fails when the database can't be
 * used, or another process has taken over (`LeaseLost`); what was in hand then waits in the queue.
 */
export const run = (
  options: Options
): Effect.Effect<
  void,
  StoreError.StoreError | DistributedSemaphore.LeaseLost,
  NotificationClient.NotificationClient | NotificationSink.NotificationSink | PushQueue | LeaseStore | Wake
> =>
  Effect.gen(function* () {
    const queue = yield* PushQueue
    const arrival = yield* queue.arrivals
    const semaphore = yield* DistributedSemaphore.make({ name: PUSH_LEASE, permits: 1 })
    const grant = yield* semaphore.take
    const freed = yield* Queue.sliding<void>(1)
    const env: Env = {
      options,
      queue,
      client: yield* NotificationClient.NotificationClient,
      sink: yield* NotificationSink.NotificationSink,
      config: yield* SyncConfig.SyncConfig,
      grant,
      inHand: yield* Ref.make<ReadonlySet<number>>(new Set()),
      showing: yield* Semaphore.make(SHOWN_AT_ONCE)
    }
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
      Effect.raceFirst(Effect.flatMap(grant.lost, Effect.fail))
    )
    yield* env.client.settled
  }).pipe(Effect.scoped)
