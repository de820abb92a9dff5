/**
 * What changed about what can be decrypted or trusted: keys of rooms that came late, devices that changed, whichever process
 * committed it.
 *
 * The owner of the extension stream writes news in its fenced commits; every process that shows encrypted events follows
 * them here, in order and without gaps.
 *
 * Other processes of the host that watch this one are told when it has committed news, by a signal.
 *
 * Invariants: I4 (while the loops don't run, nobody looks at the store but who is at work without them), I6 (news are read
 * from the store, so they are committed), I10 (news are read by pages; who has missed more than is kept is told so).
 *
 * Not here: what follows from a piece of news (`Rooms.ts`).
 */
import { SyncConfig, SyncStore, Wake } from "@twinloop/core"
import type { Lease, StoreError } from "@twinloop/core"
import { Context, Effect, Latch, Layer, PubSub } from "effect"
import type { Scope } from "effect"
import { patiently } from "./Patience.ts"

/** A piece of news, or that some were missed: then anything may have changed. */
export type News = SyncStore.EncryptionNews | { readonly _tag: "Missed" }

export interface Follower {
  /**
   * Waits for the next news, and gives them in order, at least one. A busy store is tried again for as long as it lasts,
   * another fault of the store fails this.
   */
  readonly next: Effect.Effect<ReadonlyArray<News>, StoreError.StoreError>
}

/** The topic on which a process tells its watchers that it has committed news. */
const TOPIC = "news"

/** News that are read at once. */
const PAGE = 100

export class EncryptionNews extends Context.Service<
  EncryptionNews,
  {
    /** For who commits: this process has committed news. */
    readonly committed: Effect.Effect<void>
    /** For the service: its loops run, or have ended. While they have, `follow` looks for no news. */
    setActive(active: boolean): Effect.Effect<void>
    /**
     * Watches another process for what it commits, until the scope closes: its news are followed within a millisecond then, and
     * not only when the store is looked at again. In force when this returns.
     */
    watch(peer: Lease.Peer): Effect.Effect<void, never, Scope.Scope>
    /** Follows the news from here on, until the scope closes. While the loops don't run, it doesn't look at the store. */
    readonly follow: Effect.Effect<Follower, StoreError.StoreError, Scope.Scope>
    /** The same, also while the loops don't run: for what is at work of its own, and ends by itself. */
    readonly followAlways: Effect.Effect<Follower, StoreError.StoreError, Scope.Scope>
  }
>()("@twinloop/actors/EncryptionNews") {
  /** The news of this process's `SyncStore`. */
  static readonly layer: Layer.Layer<EncryptionNews, never, SyncStore.SyncStore | Wake> = Layer.effect(
    EncryptionNews,
    Effect.suspend(() => make)
  )
}

const make = Effect.gen(function* () {
  const store = yield* SyncStore.SyncStore
  const wake = yield* Wake
  const config = yield* SyncConfig.SyncConfig
  const patient = patiently(config)
  const active = yield* Latch.make(true)
  // One wake-up is as good as many: what there is stands in the store.
  const commits = yield* Effect.acquireRelease(PubSub.sliding<void>(1), PubSub.shutdown)
  const nextLook = Effect.sleep(config.waitPollMillis)

  /** Looks at the store only when `isAllowed` is done. */
  const followWhen = Effect.fnUntraced(function* (isAllowed: Effect.Effect<void>) {
    // Subscribed before the first look: a commit between the look and the wait ends the wait.
    const wakeUps = yield* PubSub.subscribe(commits)
    let { last } = yield* patient(store.encryptionNewsKept)
    const look = Effect.gen(function* () {
      const entries = yield* patient(store.encryptionNews({ after: last, limit: PAGE }))
      const first = entries[0]
      if (first === undefined) return []
      const missed: ReadonlyArray<News> = first.sequence > last + 1 ? [{ _tag: "Missed" }] : []
      last = entries[entries.length - 1]?.sequence ?? last
      return [...missed, ...entries.map(({ news }): News => news)]
    })
    const next = Effect.gen(function* () {
      yield* isAllowed
      let news = yield* look
      while (news.length === 0) {
        yield* Effect.raceFirst(PubSub.take(wakeUps), nextLook)
        yield* isAllowed
        news = yield* look
      }
      return news
    })
    return { next }
  })

  const told = Effect.asVoid(PubSub.publish(commits, undefined))
  const watch = Effect.fnUntraced(function* (peer: Lease.Peer) {
    const signal = yield* wake.subscribe(peer, TOPIC)
    // A peer that can't be watched, or is dead, says nothing more: the store is looked at all the same.
    yield* signal.pipe(
      Effect.tap((said) => (said === "Signalled" ? told : Effect.void)),
      Effect.repeat({ while: (said) => said === "Signalled" }),
      Effect.forkScoped
    )
  })

  return EncryptionNews.of({
    committed: Effect.andThen(told, wake.notify(TOPIC)),
    watch,
    setActive: (isActive) => Effect.asVoid(isActive ? active.open : active.close),
    follow: followWhen(active.await),
    followAlways: followWhen(Effect.void)
  })
})
