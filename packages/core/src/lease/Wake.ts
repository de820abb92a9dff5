/**
 * Port for wake-ups between processes of one host: a signal instead of a poll.
 *
 * There are two kinds: a process tells everybody who watches it (`notify`, `subscribe`), or one peer asks another for
 * something (`ask`, `asked`).
 *
 * Adapters: `WakeSocket` (platform: local sockets), `WakeMemory` (testing: simulated processes on one clock), `layerNone`
 * (nobody is ever woken; the bounded polls behind every wait do the work).
 *
 * Gotchas: a signal is a hint, never the truth. Whoever is woken looks at the store, and whoever waits has a poll behind
 * the wait. Subscribe first, then look at the store, then wait: a signal between the last two is kept.
 */
import { Context, Effect, Layer } from "effect"
import type { Scope } from "effect"
import type { Peer } from "./Lease.ts"

/**
 * `Signalled`: the peer said something on the topic. `Dead`: its process is gone for certain (end of stream, confirmed by
 * pid and start time). `Unreachable`: it can't be watched (no socket, refused, closed) although it may live.
 */
export type WakeSignal = "Signalled" | "Dead" | "Unreachable"

export class Wake extends Context.Service<
  Wake,
  {
    /** How other processes can watch this one; goes into lease rows. */
    readonly self: Peer
    /** Tells everybody who watches this process about a topic. Nobody listening is fine. */
    notify(topic: string): Effect.Effect<void>
    /**
     * Starts watching a peer; the effect inside waits for the next signal on the topic. The watch is in force when this
     * returns, and ends with the scope. Never fails: what can't be watched answers `Unreachable` or `Dead`.
     */
    subscribe(peer: Peer, topic: string): Effect.Effect<Effect.Effect<WakeSignal>, never, Scope.Scope>
    /**
     * Asks one peer for something, by a topic. Never fails and waits for no answer: a peer that listens to nobody, or to
     * nothing of that topic, is fine, and so is one that is frozen or gone.
     */
    ask(peer: Peer, topic: string): Effect.Effect<void>
    /**
     * Starts to listen for what others ask of this process; the effect inside waits for the next time that somebody asks.
     * It is in force when this returns, and ends with the scope. Asked several times before anybody waits is asked once.
     */
    asked(topic: string): Effect.Effect<Effect.Effect<void>, never, Scope.Scope>
  }
>()("@twinloop/core/Wake") {
  /** No signals at all: waits end by their polls and by lease expiry. */
  static readonly layerNone: Layer.Layer<Wake> = Layer.succeed(
    this,
    this.of({
      self: {},
      notify: () => Effect.void,
      subscribe: () => Effect.succeed(Effect.succeed("Unreachable" as const)),
      ask: () => Effect.void,
      asked: () => Effect.succeed(Effect.never)
    })
  )
}
