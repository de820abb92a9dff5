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
 * Gotchas: the cursor moves at the end of a page, and every `CURSOR_MILLIS` before that; so a consumer that dies is given
 * again what it handled in the last `CURSOR_MILLIS`, and what it was at. Handle entries idempotently, by `sequence`. What this
 * process has just committed is handed over without being read again, which halves the cost of a batch. Nothing is deleted that a consumer hasn't read, however long ago it last ran: one that
 * won't run again must be taken off with `SyncStore.forgetConsumer`, or else the inbox grows for ever.
 */
import { type StoreError, SyncConfig, SyncStore } from "@twinloop/core"
import { Clock, Context, Effect, Exit, Latch, Layer, PubSub } from "effect"
import { patiently } from "./Patience.ts"

/** What a consumer handles next, and whether the store may have more of the same. */
interface Page {
  readonly entries: ReadonlyArray<SyncStore.InboxEntry>
  readonly isFull: boolean
}

/** How long a cursor may lag behind what was handled: a row is written 10 times a second at most, however fast a consumer is. */
const CURSOR_MILLIS = 100

export class Inbox extends Context.Service<
  Inbox,
  {
    /** For the extension loop: this process has committed these rows, in this order. */
    committed(entries: ReadonlyArray<SyncStore.InboxEntry>): Effect.Effect<void>
    /** For the service: its loops run, or have ended. While they have, nobody looks at the store for other processes' rows. */
    setActive(active: boolean): Effect.Effect<void>
    /**
     * Handles every entry after a consumer's cursor, in order, and then new ones as they are committed, by this process or
     * by another. The cursor moves past entries whose handlers have succeeded; a handler that fails ends this with its
     * error and is given its entry again next time, and only that one. A busy or full store is tried again, with backoff, for as long as it
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
      const patient = patiently(config)
      const active = yield* Latch.make(true)
      // Another process's commits are not announced here: the poll finds them. A suspended process doesn't poll.
      const nextLook = active.await.pipe(
        Effect.andThen(Effect.sleep(config.waitPollMillis)),
        Effect.andThen(active.await)
      )
      // One batch is kept for a consumer that is busy: who misses one finds its rows in the store.
      const commits = yield* Effect.acquireRelease(
        PubSub.sliding<ReadonlyArray<SyncStore.InboxEntry>>(1),
        PubSub.shutdown
      )
      const read = (cursor: number): Effect.Effect<Page, StoreError.StoreError> =>
        patient(store.readInbox({ after: cursor, limit: config.inboxPage })).pipe(
          Effect.map((entries) => ({ entries, isFull: entries.length === config.inboxPage }))
        )

      const consume: Inbox["Service"]["consume"] = (consumer, handler) =>
        Effect.gen(function* () {
          // Subscribed before the first look: a commit between a look and the wait ends the wait.
          const batches = yield* PubSub.subscribe(commits)
          let stored = yield* patient(store.inboxCursor(consumer))
          let handled = stored
          const move = Effect.suspend(() =>
            store.advanceInbox({ consumer, sequence: handled, keep: config.inboxKept })
          ).pipe(Effect.tap(() => Effect.sync(() => void (stored = handled))))
          const handle = Effect.fnUntraced(function* ({ entries }: Page) {
            let movedAt = yield* Clock.currentTimeMillis
            for (const entry of entries) {
              yield* handler(entry)
              handled = entry.sequence
              const nowMillis = yield* Clock.currentTimeMillis
              if (nowMillis - movedAt < CURSOR_MILLIS) continue
              yield* patient(move)
              movedAt = nowMillis
            }
            if (handled > stored) yield* patient(move)
          })
          const nextPage = Effect.gen(function* () {
            const batch = yield* Effect.raceFirst(PubSub.take(batches), Effect.as(nextLook, []))
            // What was handed over says nothing of what else is in the store: a batch of messages is as long as a page.
            return batch[0]?.sequence === handled + 1 ? { entries: batch, isFull: false } : yield* read(handled)
          })
          let page = yield* read(handled)
          while (true) {
            // A handler that fails or is interrupted doesn't undo what was handled before it. Should the store fail as well,
            // those entries come again.
            yield* Effect.onExit(handle(page), (exit) =>
              Exit.isFailure(exit) && handled > stored ? Effect.ignore(move) : Effect.void
            )
            page = page.isFull ? yield* read(handled) : yield* nextPage
          }
        }).pipe(Effect.scoped)
      return Inbox.of({
        committed: (entries) => Effect.asVoid(PubSub.publish(commits, entries)),
        setActive: (isActive) => Effect.asVoid(isActive ? active.open : active.close),
        consume
      })
    })
  )
}
