/**
 * The inbox: applied to-device events, durable, consumed with a named cursor.
 *
 * The extension loop writes rows in its fenced commit and announces them here afterwards; a consumer reads from the store,
 * so it misses nothing while it isn't running, and sees what another process applied.
 *
 * Invariants: I2 (a row is there once, whoever applied it), I4 (a consumer that has read everything leaves the store alone
 * while the loops don't run), I6 (announced after the commit), I10 (rows are read by pages, and what everybody has consumed
 * is deleted).
 *
 * Gotchas: a consumer that dies between handling an entry and moving its cursor is given the entry again. Handle entries
 * idempotently, by `sequence`. Nothing is deleted that a consumer hasn't read, however long ago it last ran: one that
 * won't run again must be taken off with `SyncStore.forgetConsumer`, or else the inbox grows for ever.
 */
import { type StoreError, SupervisionPolicy, SyncConfig, SyncStore } from "@twinloop/core"
import { Context, Effect, Latch, Layer, PubSub, Schedule } from "effect"

/** Tries again while the store is busy or full (invariant I9). */
const patience =
  ({ backoffMaxMillis, backoffMinMillis }: SyncConfig.SyncConfigShape) =>
  <A, R>(effect: Effect.Effect<A, StoreError.StoreError, R>): Effect.Effect<A, StoreError.StoreError, R> =>
    Effect.retry(effect, {
      while: (error) => SupervisionPolicy.classify(error).class === "store",
      schedule: Schedule.min([Schedule.exponential(backoffMinMillis), Schedule.spaced(backoffMaxMillis)]).pipe(
        Schedule.jittered
      )
    })

export class Inbox extends Context.Service<
  Inbox,
  {
    /** For the extension loop: this process has committed rows. */
    readonly committed: Effect.Effect<void>
    /** For the service: its loops run, or have ended. While they have, nobody looks at the store for other processes' rows. */
    setActive(active: boolean): Effect.Effect<void>
    /**
     * Handles every entry after a consumer's cursor, in order, and then new ones as they are committed, by this process or
     * by another. The cursor moves past an entry once its handler has succeeded; a handler that fails ends this with its
     * error and is given the entry again next time. A busy or full store is tried again, with backoff, for as long as it
     * lasts; another fault of the store ends this. Runs until interrupted.
     */
    consume<E, R>(
      consumer: string,
      handler: (entry: SyncStore.InboxEntry) => Effect.Effect<void, E, R>
    ): Effect.Effect<never, E | StoreError.StoreError, R>
  }
>()("@twinloop/actors/Inbox") {
  /** The inbox of this process's `SyncStore`. */
  static readonly layer: Layer.Layer<Inbox, never, SyncStore.SyncStore> = Layer.effect(
    Inbox,
    Effect.gen(function* () {
      const store = yield* SyncStore.SyncStore
      const config = yield* SyncConfig.SyncConfig
      const patiently = patience(config)
      const active = yield* Latch.make(true)
      // Another process's commits are not announced here: the poll finds them. A suspended process doesn't poll.
      const nextLook = active.await.pipe(
        Effect.andThen(Effect.sleep(config.waitPollMillis)),
        Effect.andThen(active.await)
      )
      const commits = yield* Effect.acquireRelease(PubSub.sliding<void>(1), PubSub.shutdown)

      const consume: Inbox["Service"]["consume"] = (consumer, handler) =>
        Effect.gen(function* () {
          // Subscribed before the first look, and one signal is kept: a commit between a look and the wait ends the wait.
          const signals = yield* PubSub.subscribe(commits)
          let cursor = yield* patiently(store.inboxCursor(consumer))
          while (true) {
            const page = yield* patiently(store.readInbox({ after: cursor, limit: config.inboxPage }))
            for (const entry of page) {
              yield* handler(entry)
              cursor = entry.sequence
              yield* patiently(store.advanceInbox({ consumer, sequence: cursor, keep: config.inboxKept }))
            }
            if (page.length === 0) yield* Effect.raceFirst(PubSub.take(signals), nextLook)
          }
        }).pipe(Effect.scoped)
      return Inbox.of({
        committed: Effect.asVoid(PubSub.publish(commits, undefined)),
        setActive: (isActive) => Effect.asVoid(isActive ? active.open : active.close),
        consume
      })
    })
  )
}
