/**
 * Port to what turns a push into something to show: a push brings a room id and an event id, and nothing else.
 *
 * Adapter: `Notifications` (actors), in a process of its own or inside the application's.
 *
 * Invariants: I1 (who reads the extension stream takes the lease like everybody else, and never queues for it), I10 (one
 * deadline for everything).
 *
 * Source: spec, "Push notifications"; matrix-rust-sdk issue 1928.
 */
import { Context } from "effect"
import type { Duration, Effect, Stream } from "effect"
import type { NotificationRequest, NotificationResult } from "./NotificationItem.ts"

/** How long a push may take, from the call on. */
export interface ResolveOptions {
  /** `SyncConfig.notificationDeadlineMillis` if not given. */
  readonly deadline?: Duration.Input
}

/** A push and what became of it. */
export interface Resolved {
  readonly request: NotificationRequest
  readonly result: NotificationResult
}

export class NotificationClient extends Context.Service<
  NotificationClient,
  {
    /** Resolves one push within a deadline. Never fails: what went wrong is in the result. */
    resolve(request: NotificationRequest, options?: ResolveOptions): Effect.Effect<NotificationResult>
    /** Resolves several under one deadline; the results are in the order of the requests. A bad one doesn't spoil the others. */
    resolveMany(
      requests: ReadonlyArray<NotificationRequest>,
      options?: ResolveOptions
    ): Effect.Effect<ReadonlyArray<NotificationResult>>
    /** The same, each as soon as it is known: calls before others that are ready at the same time. Ends with the last one. */
    resolving(requests: ReadonlyArray<NotificationRequest>, options?: ResolveOptions): Stream.Stream<Resolved>
    /**
     * Waits until the work on the extension stream that a resolution has begun is done, and its lease released: results don't
     * wait for that. Bounded by the deadline of the resolution.
     */
    readonly settled: Effect.Effect<void>
  }
>()("@twinloop/core/NotificationClient") {}
