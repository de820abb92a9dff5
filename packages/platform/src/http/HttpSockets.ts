/**
 * The process's HTTP connections, which can all be closed at once and opened again.
 *
 * An HTTP client keeps connections open for the next request. A suspended process must not: the platform may freeze it, and
 * a frozen connection is a leak at the homeserver (invariant I4). undici's pool can be closed only for good, so this one is
 * replaced by a new pool when it is needed again.
 *
 * Invariants: I4.
 */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import * as Undici from "@effect/platform-node/Undici"
import { Context, Effect, Layer } from "effect"
import type { HttpClient } from "effect/http"

/** A dispatcher that makes its pool when it is used, and can lose it. */
class Renewable extends Undici.Dispatcher {
  private pool: Undici.Agent | undefined

  override dispatch(options: Undici.Dispatcher.DispatchOptions, handler: Undici.Dispatcher.DispatchHandler): boolean {
    this.pool ??= new Undici.Agent()
    return this.pool.dispatch(options, handler)
  }

  /** Ends every connection, idle or not. */
  async closeAll(): Promise<void> {
    const pool = this.pool
    this.pool = undefined
    await pool?.destroy()
  }
}

export class HttpSockets extends Context.Service<
  HttpSockets,
  {
    /** Closes every connection, used or idle; done when they are closed. The next request opens new ones. */
    readonly close: Effect.Effect<void>
  }
>()("@twinloop/platform/HttpSockets") {
  /** Node's HTTP client over connections that can be closed; they are when the layer's scope closes. */
  static readonly layer: Layer.Layer<HttpSockets | HttpClient.HttpClient> = Layer.unwrap(
    Effect.gen(function* () {
      const dispatcher = yield* Effect.acquireRelease(
        Effect.sync(() => new Renewable()),
        (dispatcher) => Effect.promise(() => dispatcher.closeAll())
      )
      return Layer.mergeAll(
        Layer.succeed(HttpSockets, { close: Effect.promise(() => dispatcher.closeAll()) }),
        Layer.provide(NodeHttpClient.layerUndiciNoDispatcher, Layer.succeed(NodeHttpClient.Dispatcher, dispatcher))
      )
    })
  )
}
