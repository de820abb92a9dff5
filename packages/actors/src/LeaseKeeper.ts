/**
 * Keeps one grant of a semaphore for an actor: takes it, watches it, and gives it back.
 *
 * The grant lives in a scope of its own, so that the actor can let it go and ask again without ending itself. When the
 * keeper's scope closes, the grant is released, after everything that was started later in that scope has ended.
 *
 * Invariants: I1, I4 (the lease row is free when `release`, or the closing of the scope, is done).
 */
import type { DistributedSemaphore, Lease, StoreError } from "@twinloop/core"
import { Effect, Exit, Option, Ref, Scope, SubscriptionRef } from "effect"
import type { Stream } from "effect"

/** Whether the stream is ours: not asked for, asked for, or held under a generation. */
export type LeaseStatus =
  | { readonly _tag: "Released" }
  | { readonly _tag: "Waiting" }
  | { readonly _tag: "Held"; readonly generation: number; readonly holder: string }

export interface LeaseKeeper {
  /**
   * Waits for the grant and keeps it; calls `onRefused` once, when it is known that another holder is in the way.
   * Interrupting gives up the place in the queue.
   */
  take(onRefused?: OnRefused): Effect.Effect<DistributedSemaphore.Grant, StoreError.StoreError>
  /**
   * Keeps the grant if it is to be had at once; otherwise gives who has it. `dead`: holders that were seen to die; see
   * `DistributedSemaphore.tryTakeAfter`.
   */
  tryTake(dead?: ReadonlyArray<string>): Effect.Effect<DistributedSemaphore.TryTaken, StoreError.StoreError>
  /** Gives the grant back, if there is one; done when the lease row is free or handed over. */
  readonly release: Effect.Effect<void>
  /** Who holds the lease instead is asked to yield it soon; see `DistributedSemaphore.hurry`. */
  readonly hurry: Effect.Effect<void>
  /** The grant that is kept, if any; `wanted` of it says that somebody else needs it soon. */
  readonly current: Effect.Effect<Option.Option<DistributedSemaphore.Grant>>
  readonly status: Effect.Effect<LeaseStatus>
  readonly changes: Stream.Stream<LeaseStatus>
}

/** Told who is in the way. */
export type OnRefused = (blocker: Lease.Blocker) => Effect.Effect<void>

interface Kept {
  readonly grant: DistributedSemaphore.Grant
  readonly scope: Scope.Closeable
}

/** Whether waiting in the queue, which tries again by itself, can help. */
const isTransient = ({ reason }: StoreError.StoreError): boolean =>
  reason._tag === "StoreBusy" || reason._tag === "StoreFull"

/** Tries first, so that a wait is told only when there is one; a store that is busy just then isn't a refusal. */
const tryThenWait = (semaphore: DistributedSemaphore.DistributedSemaphore, onRefused: OnRefused) =>
  semaphore.tryTake.pipe(
    Effect.flatMap((tried) =>
      tried._tag === "Taken" ? Effect.succeed(tried.grant) : Effect.andThen(onRefused(tried.blocker), semaphore.take)
    ),
    Effect.catchIf(isTransient, () => semaphore.take)
  )

/** Makes a keeper; what it keeps is released when the scope closes. */
export const make = Effect.fnUntraced(function* (
  semaphore: DistributedSemaphore.DistributedSemaphore
): Effect.fn.Return<LeaseKeeper, never, Scope.Scope> {
  const kept = yield* Ref.make(Option.none<Kept>())
  const status = yield* SubscriptionRef.make<LeaseStatus>({ _tag: "Released" })

  const release = Effect.uninterruptible(
    Effect.gen(function* () {
      const current = yield* Ref.getAndSet(kept, Option.none())
      if (Option.isNone(current)) return
      yield* Scope.close(current.value.scope, Exit.void)
      yield* SubscriptionRef.set(status, { _tag: "Released" })
    })
  )
  /** Acquires in a scope of its own, and keeps what comes of it, if anything. */
  const acquire = <A>(
    acquisition: Effect.Effect<A, StoreError.StoreError, Scope.Scope>,
    grantIn: (acquired: A) => DistributedSemaphore.Grant | undefined
  ) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.gen(function* () {
        yield* release
        const scope = yield* Scope.make()
        yield* SubscriptionRef.set(status, { _tag: "Waiting" })
        const giveUp = Effect.andThen(Scope.close(scope, Exit.void), SubscriptionRef.set(status, { _tag: "Released" }))
        const acquired = yield* restore(Scope.provide(acquisition, scope)).pipe(Effect.onError(() => giveUp))
        const grant = grantIn(acquired)
        if (grant === undefined) {
          yield* giveUp
          return acquired
        }
        yield* Ref.set(kept, Option.some({ grant, scope }))
        yield* SubscriptionRef.set(status, { _tag: "Held", generation: grant.generation, holder: grant.holder })
        return acquired
      })
    )
  yield* Effect.addFinalizer(() => release)
  return {
    take: (onRefused = () => Effect.void) => acquire(tryThenWait(semaphore, onRefused), (grant) => grant),
    tryTake: (dead = []) =>
      acquire(semaphore.tryTakeAfter(dead), (taken) => (taken._tag === "Taken" ? taken.grant : undefined)),
    release,
    hurry: semaphore.hurry,
    current: Effect.map(
      Ref.get(kept),
      Option.map(({ grant }) => grant)
    ),
    status: SubscriptionRef.get(status),
    changes: SubscriptionRef.changes(status)
  }
})
