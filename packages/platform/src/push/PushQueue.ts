/**
 * The durable queue between the homeserver's pushes and whoever shows them, in the account's own database.
 *
 * Includes the devices that pushes are taken for, the newest counts, and the wake-up of the process that shows.
 *
 * Invariants: I1 (who shows writes under the fence of {@link PUSH_LEASE}), I6 (nobody is told of a push before it is committed),
 * I10 (`SyncConfig.pushQueueLimit`).
 *
 * Gotchas:
 * - What is accepted is on the disk (`synchronous=FULL`): the homeserver forgets what was answered. So is that something is
 *   about to be shown, since a power loss doesn't take back what a webhook was told. That it was shown isn't synced: what a
 *   power loss undoes of it comes again as `isRepeated`.
 * - Register a device here before its pusher is set at the homeserver: a push for a device that isn't known makes the
 *   homeserver delete the pusher.
 * - A row that is being shown is given out again to whoever asks without naming it as `inHand`: it may have been left by a
 *   process that died, and the lease doesn't tell one worker of a process from the next.
 *
 * Not here: HTTP (`PushGateway.ts`), the statements (`PushTables.ts`), showing.
 */
import {
  Lease,
  LeaseStore,
  type PushNotification,
  type Pusher,
  type StoreError,
  SyncConfig,
  Wake
} from "@twinloop/core"
import { Clock, Context, Effect, Layer, PubSub, Queue, Result, Schema, Semaphore, Stream } from "effect"
import type { Scope } from "effect"
import * as Fencing from "../sqlite/Fencing.ts"
import * as SqliteClient from "../sqlite/SqliteClient.ts"
import * as StoreFault from "../sqlite/StoreFault.ts"
import * as PushMetrics from "./PushMetrics.ts"
import * as PushTables from "./PushTables.ts"

export { PUSH_LEASE } from "./PushTables.ts"
export type { Answered, Badge, Outcome, QueuedPush, Registration } from "./PushTables.ts"

/** The topic on which the holder of {@link PUSH_LEASE} is told that something was accepted. */
export const PUSH_TOPIC = "push"

/** As many pushes wait as may wait, so nothing of the request was written; the homeserver sends it again. */
export class QueueFull extends Schema.TaggedError<QueueFull>("@twinloop/platform/QueueFull")("QueueFull", {
  message: Schema.String,
  waiting: Schema.Finite,
  limit: Schema.Finite
}) {}

export class PushQueue extends Context.Service<
  PushQueue,
  {
    /** Takes pushes for a device from here on. Durable when it returns. Again: its address and format are replaced. */
    register(
      pusher: Pick<Pusher.Pusher, "appId" | "pushKey" | "url" | "format">
    ): Effect.Effect<void, StoreError.StoreError>
    /** Takes no more pushes for a device. What waits is still shown. */
    unregister(id: Pusher.PusherId): Effect.Effect<void, StoreError.StoreError>
    /** The devices that pushes are taken for, oldest first. */
    readonly registrations: Effect.Effect<ReadonlyArray<PushTables.Registration>, StoreError.StoreError>

    /**
     * Makes pushes durable, in one transaction, and wakes whoever shows them. Gives what became of each push for each of its
     * devices, in their order. Those who call at the same time are served one after the other, in the order of their calls.
     */
    accept(
      pushes: ReadonlyArray<PushNotification.Push>
    ): Effect.Effect<ReadonlyArray<PushTables.Answered>, StoreError.StoreError | QueueFull>

    /**
     * What is due, urgent ones first, then the oldest; `limit` at most. `inHand` are the sequences that the caller is showing,
     * which are left out.
     */
    waiting(
      limit: number,
      inHand?: ReadonlyArray<number>
    ): Effect.Effect<ReadonlyArray<PushTables.QueuedPush>, StoreError.StoreError>
    /** When the next one is due that isn't in hand, Unix milliseconds, or in the past; `undefined` when there is none. */
    nextDueMillis(inHand?: ReadonlyArray<number>): Effect.Effect<number | undefined, StoreError.StoreError>
    /** Right before the sink is asked to show them. Refused (`StaleGeneration`) when the fence is stale, as the next two. */
    begin(fence: Lease.Fence, sequences: ReadonlyArray<number>): Effect.Effect<void, StoreError.StoreError>
    /** They are shown, or there is nothing to show: gone from the queue, and known when they are pushed again. */
    done(fence: Lease.Fence, sequences: ReadonlyArray<number>): Effect.Effect<void, StoreError.StoreError>
    /** To be tried again, not before a time in Unix milliseconds; counts as an attempt. */
    later(fence: Lease.Fence, sequence: number, notBeforeMillis: number): Effect.Effect<void, StoreError.StoreError>
    /** How many wait, also those that aren't due. */
    readonly size: Effect.Effect<number, StoreError.StoreError>

    /**
     * Starts to listen; the effect inside waits for the next time that something is accepted, by this process, or by another one
     * while this one holds {@link PUSH_LEASE}. It is in force when this returns, and ends with the scope. A hint: look at the
     * queue after it began to listen, and have a poll behind the wait.
     */
    readonly arrivals: Effect.Effect<Effect.Effect<void>, never, Scope.Scope>
    /** What the homeserver counted last; `undefined` when it never did. */
    readonly badge: Effect.Effect<PushTables.Badge | undefined, StoreError.StoreError>
    /** The same, and again each time that the counts change and {@link arrivals} says so. Never ends by itself. */
    readonly badges: Stream.Stream<PushTables.Badge, StoreError.StoreError>
  }
>()("@twinloop/platform/PushQueue") {
  /** The queue in the database of a `SqliteClient` that has been migrated (`SqliteStores.layer`). */
  static readonly layer: Layer.Layer<PushQueue, never, SqliteClient.SqliteClient | LeaseStore | Wake> = Layer.effect(
    PushQueue,
    Effect.suspend(() => make)
  )
}

/** Who listens in this process, and the means to tell the process that shows. */
interface News {
  /** Something was accepted here. */
  readonly accepted: Effect.Effect<void>
  readonly listen: Effect.Effect<PubSub.Subscription<void>, never, Scope.Scope>
}

/** Tells those who watch this process, and the holder of the lease if he is another. */
const tellOthers = Effect.gen(function* () {
  const wake = yield* Wake
  const leases = yield* LeaseStore
  yield* wake.notify(PUSH_TOPIC)
  const { rows } = yield* leases.inspect(PushTables.PUSH_LEASE)
  const nowMillis = yield* Clock.currentTimeMillis
  const holders = rows.filter((row) => Lease.isHeld(row, nowMillis) && row.peer.endpoint !== wake.self.endpoint)
  yield* Effect.forEach(holders, ({ peer }) => wake.ask(peer, PUSH_TOPIC), { concurrency: "unbounded", discard: true })
})

const makeNews: Effect.Effect<News, never, Scope.Scope | LeaseStore | Wake> = Effect.gen(function* () {
  // One wake-up is as good as many: what there is stands in the queue.
  const hub = yield* Effect.acquireRelease(PubSub.sliding<void>(1), PubSub.shutdown)
  const toTell = yield* Effect.acquireRelease(Queue.sliding<void>(1), Queue.shutdown)
  const asked = yield* Effect.flatMap(Wake, (wake) => wake.asked(PUSH_TOPIC))
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(asked, PubSub.publish(hub, undefined))))
  yield* Queue.take(toTell).pipe(
    // Not told, since the leases could not be read: whoever shows looks by himself after a while.
    Effect.andThen(Effect.ignore(tellOthers)),
    Effect.forever,
    Effect.forkScoped
  )
  return {
    accepted: Effect.andThen(PubSub.publish(hub, undefined), Queue.offer(toTell, undefined)),
    listen: PubSub.subscribe(hub)
  }
})

const full = (waiting: number, limit: number): QueueFull =>
  new QueueFull({
    message: `${waiting} pushes wait to be shown, and ${limit} may (SyncConfig.pushQueueLimit); the homeserver sends this one again`,
    waiting,
    limit
  })

const makeStore = Effect.gen(function* () {
  const client = yield* SqliteClient.SqliteClient
  const { filename } = client.config

  const read = <A>(operation: string, body: (reader: SqliteClient.SyncReader) => A) =>
    client.readSync(body).pipe(StoreFault.guard(filename, operation))

  const write = <A>(
    operation: string,
    durable: boolean,
    body: (transaction: SqliteClient.SyncTransaction) => Result.Result<A, StoreError.StoreErrorReason>
  ) => client.transactionSync({ durable }, body).pipe(StoreFault.guard(filename, operation))

  return { fencing: Fencing.of(client.config), read, write }
})

const make = Effect.gen(function* () {
  const { fencing, read, write } = yield* makeStore
  const { pushQueueLimit: limit } = yield* SyncConfig.SyncConfig
  const news = yield* makeNews
  /** Retries of a locked database don't let a later call pass. */
  const turn = yield* Semaphore.make(1)

  const accept = Effect.fnUntraced(function* (pushes: ReadonlyArray<PushNotification.Push>) {
    const nowMillis = yield* Clock.currentTimeMillis
    const outcome = yield* write("accept a push", true, (transaction) =>
      Result.succeed(PushTables.accept(transaction, pushes, { limit, nowMillis }))
    )
    if (outcome._tag === "Full") return yield* full(outcome.waiting, limit)
    if (outcome.isNews) yield* news.accepted
    yield* PushMetrics.countReceived(outcome.answers)
    return outcome.answers
  }, turn.withPermit)

  const badge = read("read the counts of pushes", PushTables.badge)
  const badges = Stream.unwrap(
    Effect.map(news.listen, (subscription) =>
      // Looked at after it began to listen.
      Stream.succeed(undefined).pipe(
        Stream.concat(Stream.fromSubscription(subscription)),
        Stream.mapEffect(() => badge),
        Stream.filter((counted) => counted !== undefined),
        Stream.changesWith((one, next) => one.unread === next.unread && one.missedCalls === next.missedCalls)
      )
    )
  )

  return PushQueue.of({
    register: (pusher) =>
      Effect.flatMap(Clock.currentTimeMillis, (nowMillis) =>
        write("register a device for pushes", true, (transaction) =>
          Result.succeed(PushTables.register(transaction, pusher, nowMillis))
        )
      ),
    unregister: (id) =>
      write("unregister a device for pushes", false, (transaction) =>
        Result.succeed(PushTables.unregister(transaction, id))
      ),
    registrations: read("read the devices for pushes", PushTables.registrations),
    accept,
    waiting: (limit, inHand = []) =>
      Effect.flatMap(Clock.currentTimeMillis, (nowMillis) =>
        read("read the queue of pushes", (reader) => PushTables.due(reader, { nowMillis, limit, inHand }))
      ),
    nextDueMillis: (inHand = []) =>
      read("read the queue of pushes", (reader) => PushTables.nextDueMillis(reader, inHand)),
    begin: (fence, sequences) =>
      write("begin to show pushes", true, (transaction) => PushTables.begin(transaction, fencing, fence, sequences)),
    done: (fence, sequences) =>
      write("remove pushes that are shown", false, (transaction) =>
        PushTables.done(transaction, fencing, fence, sequences)
      ),
    later: (fence, sequence, notBeforeMillis) =>
      write("put a push off", false, (transaction) =>
        PushTables.later(transaction, fencing, fence, sequence, notBeforeMillis)
      ),
    size: read("count the pushes", PushTables.size),
    arrivals: Effect.map(news.listen, PubSub.take),
    badge,
    badges
  })
})
