/**
 * The accounts of a process that use its HTTP connections: the last one to fall quiet closes them.
 *
 * Invariants: I4. An account that is suspended has ended its own requests, and with them their connections. What is left are
 * idle ones, which belong to nobody; while another account runs they are kept for it, and when none does, no frozen process
 * may keep them.
 *
 * Not here: the connections (`HttpSockets.ts`).
 */
import { Context, Effect, Layer } from "effect"
import type { Scope } from "effect"
import { HttpSockets } from "./HttpSockets.ts"

/** One account that uses the connections while it is awake. Waking twice is waking once. */
export interface HttpUser {
  readonly wake: Effect.Effect<void>
  /** Closes all connections if nobody else is awake: also those that were opened without waking, to resolve a push. */
  readonly quiet: Effect.Effect<void>
}

export class HttpUsers extends Context.Service<
  HttpUsers,
  {
    /** Another account, not awake yet; falls quiet when the scope ends. */
    readonly join: Effect.Effect<HttpUser, never, Scope.Scope>
  }
>()("@twinloop/platform/HttpUsers") {
  /** The users of the `HttpSockets` in scope. */
  static readonly layer: Layer.Layer<HttpUsers, never, HttpSockets> = Layer.effect(
    this,
    Effect.map(HttpSockets, (sockets) => {
      const awake = new Set<object>()
      const quiet = (user: object): Effect.Effect<void> =>
        Effect.suspend(() => {
          awake.delete(user)
          return awake.size === 0 ? sockets.close : Effect.void
        })
      return this.of({
        join: Effect.map(
          Effect.acquireRelease(
            Effect.sync(() => ({})),
            quiet
          ),
          (user) => ({ wake: Effect.sync(() => void awake.add(user)), quiet: quiet(user) })
        )
      })
    })
  )
}
