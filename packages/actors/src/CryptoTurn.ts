/**
 * Takes turns at the memory of the end-to-end machine: the extension loop and whoever sends an encrypted message use it one
 * after the other, each under the grant that this process holds.
 *
 * A turn is: load memory unless it is valid, change it, commit what must be durable under the fence, confirm. Cut short,
 * refused or broken at any point, memory is void and the next turn loads it again.
 *
 * Invariants: I1 (nothing runs without a grant, and every commit carries its fence), I2 (a turn's effects are one commit), I4
 * (`close` waits for the turn that runs), I5 (the grant is dirty from the moment a turn begins until its commit is done),
 * I6 (news are told after the commit).
 *
 * Gotchas: a turn never waits for the network. Requests are sent between turns, so an owner whose homeserver hangs holds
 * nobody up.
 *
 * Not here: taking the lease (`LeaseKeeper.ts`), what is done in a turn (`ExtensionSync.ts`, `Encryption.ts`).
 */
import {
  CryptoEngine,
  type CryptoError,
  type DistributedSemaphore,
  type Lease,
  StoreError,
  SyncStore
} from "@twinloop/core"
import { Context, Effect, Exit, Latch, Layer, Schema, Semaphore } from "effect"
import * as EncryptionNews from "./EncryptionNews.ts"

/** What can end a turn. `StaleGeneration` also when this process doesn't own the stream. */
export type TurnError = CryptoError.CryptoError | StoreError.StoreError

/** A change in memory, not durable yet. */
export type Step<A> = (
  engine: CryptoEngine.CryptoEngine["Service"],
  fence: Lease.Fence
) => Effect.Effect<CryptoEngine.Changed<A>, CryptoError.CryptoError>

/** Makes a change durable. */
export type Commit<A, B> = (
  fence: Lease.Fence,
  changed: CryptoEngine.Changed<A>
) => Effect.Effect<B, StoreError.StoreError>

export class CryptoTurn extends Context.Service<
  CryptoTurn,
  {
    /** For the extension loop: the stream is ours under this grant, until `close`. */
    open(grant: DistributedSemaphore.Grant): Effect.Effect<void>
    /** For the extension loop: no turn begins any more. Done when the one that runs has ended, and memory is left as it is. */
    readonly close: Effect.Effect<void>
    /** For the extension loop: how to ask the stream's owner, in another process, to yield. */
    attach(hurry: Effect.Effect<void>): Effect.Effect<void>
    /** Asks the stream's owner to yield, when that is another process and the extension loop waits for it. */
    readonly hurry: Effect.Effect<void>
    /** Whether turns can be had at present. */
    readonly isOpen: Effect.Effect<boolean>
    /** Waits until they can. */
    readonly opened: Effect.Effect<void>
    /** Loads memory unless it is valid under the grant. */
    readonly load: Effect.Effect<void, TurnError>
    /** Memory is void, in its turn. */
    readonly discard: Effect.Effect<void>
    /** Changes memory and commits the engine's records; gives what the change gives. */
    change<A>(step: Step<A>): Effect.Effect<A, TurnError>
    /** The same with a commit of one's own, which must hold the engine's writes and news; gives what the commit gives. */
    commit<A, B>(step: Step<A>, commit: Commit<A, B>): Effect.Effect<B, TurnError>
  }
>()("@twinloop/actors/CryptoTurn") {
  /** Turns at this process's engine. */
  static readonly layer: Layer.Layer<
    CryptoTurn,
    never,
    CryptoEngine.CryptoEngine | SyncStore.SyncStore | EncryptionNews.EncryptionNews
  > = Layer.effect(
    CryptoTurn,
    Effect.suspend(() => make)
  )
}

interface Owned {
  readonly grant: DistributedSemaphore.Grant
  readonly fence: Lease.Fence
  /** Whether memory is valid under the grant. */
  loaded: boolean
}

/** Whether the stream has another owner by now, or none that is this process. */
export const isStale = (error: { readonly _tag: string }): boolean =>
  isStoreError(error) && error.reason._tag === "StaleGeneration"

const isStoreError = Schema.is(StoreError.StoreError)

const notOwned = new StoreError.StoreError({
  operation: "use the end-to-end machine",
  reason: new StoreError.StaleGeneration({
    message:
      "this process doesn't own the extension stream at present, so nothing was done; start the sync service, or wait until the stream is this process's",
    name: "extension",
    generation: 0
  })
})

const make = Effect.gen(function* () {
  const engine = yield* CryptoEngine.CryptoEngine
  const store = yield* SyncStore.SyncStore
  const news = yield* EncryptionNews.EncryptionNews
  const semaphore = yield* Semaphore.make(1)
  const opened = yield* Latch.make(false)
  let owned: Owned | undefined
  let hurry: Effect.Effect<void> = Effect.void

  const voided = (current: Owned) =>
    Effect.suspend(() => {
      current.loaded = false
      return Effect.andThen(current.grant.markDirty, engine.discard)
    })

  /** Ends turns under a grant that is known to be stale: the extension loop learns of its loss by itself, a little later. */
  const shut = (current: Owned) =>
    Effect.suspend(() => {
      if (owned !== current) return Effect.void
      owned = undefined
      return Effect.asVoid(opened.close)
    })

  const ensureLoaded = Effect.fnUntraced(function* (current: Owned) {
    if (current.loaded) return
    yield* engine.reload(current.fence)
    current.loaded = true
  })

  /** One turn, void when it ends otherwise than well. */
  const turn = <A>(body: (current: Owned) => Effect.Effect<A, TurnError>): Effect.Effect<A, TurnError> =>
    semaphore.withPermit(
      Effect.gen(function* () {
        const current = owned
        if (current === undefined) return yield* notOwned
        yield* current.grant.markDirty
        const result = yield* ensureLoaded(current).pipe(
          Effect.andThen(body(current)),
          Effect.onExit((exit) => (Exit.isFailure(exit) ? voided(current) : Effect.void)),
          Effect.tapError((error) => (isStale(error) ? shut(current) : Effect.void))
        )
        yield* current.grant.markClean
        return result
      })
    )

  const commitWith = <A, B>(step: Step<A>, commit: Commit<A, B>): Effect.Effect<B, TurnError> =>
    turn((current) =>
      Effect.gen(function* () {
        const changed = yield* step(engine, current.fence)
        const result = yield* commit(current.fence, changed)
        yield* engine.committed
        if (changed.news.length > 0) yield* news.committed
        return result
      })
    )

  return CryptoTurn.of({
    open: (grant) =>
      Effect.suspend(() => {
        const fence: Lease.Fence = { name: grant.name, holder: grant.holder, generation: grant.generation }
        owned = { grant, fence, loaded: !grant.isDirty }
        return Effect.asVoid(opened.open)
      }),
    close: Effect.suspend(() => {
      owned = undefined
      // Who waits for its turn finds it closed.
      return Effect.andThen(opened.close, semaphore.withPermit(Effect.void))
    }),
    attach: (asked) => Effect.sync(() => void (hurry = asked)),
    hurry: Effect.suspend(() => (owned === undefined ? hurry : Effect.void)),
    isOpen: Effect.sync(() => owned !== undefined),
    opened: opened.await,
    load: turn(() => Effect.void),
    discard: semaphore.withPermit(Effect.suspend(() => (owned === undefined ? engine.discard : voided(owned)))),
    change: (step) =>
      commitWith(step, (fence, { news: told, value, writes }) =>
        writes.length === 0 && told.length === 0
          ? Effect.succeed(value)
          : Effect.as(store.commitCrypto(fence, { crypto: writes, news: told }), value)
      ),
    commit: commitWith
  })
})
