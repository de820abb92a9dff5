/**
 * Lets one process at a time renew the tokens of the login that they share.
 *
 * A homeserver voids a refresh token once what it gave for it is in use, so two processes that refresh at the same time
 * would log each other out.
 *
 * Includes the service and its two layers: by the lease, and for an application that is one process.
 *
 * Not here: the renewal itself (`SessionTokens.ts`).
 */
import { Context, Effect, Layer } from "effect"
import { DistributedSemaphore } from "@twinloop/core"
import type { LeaseStore, StoreError, Wake } from "@twinloop/core"

/** The lease's name. */
export const leaseName = "session-refresh"

export class RefreshLock extends Context.Service<
  RefreshLock,
  {
    /** Runs an effect while no other process runs one; fails in its own way, or because the lock can't be had or was lost. */
    serialize<A, E, R>(
      effect: Effect.Effect<A, E, R>
    ): Effect.Effect<A, E | DistributedSemaphore.LeaseLost | StoreError.StoreError, R>
  }
>()("@twinloop/platform/RefreshLock") {
  /** For processes that share a `LeaseStore`. */
  static readonly layer: Layer.Layer<RefreshLock, never, LeaseStore | Wake> = Layer.effect(
    this,
    Effect.map(DistributedSemaphore.make({ name: leaseName, permits: 1 }), (semaphore) =>
      this.of({ serialize: (effect) => semaphore.withPermit(effect) })
    )
  )

  /** For an application that is one process: callers within it are serialised already. */
  static readonly layerSingleProcess: Layer.Layer<RefreshLock> = Layer.succeed(
    this,
    this.of({ serialize: (effect) => effect })
  )
}
