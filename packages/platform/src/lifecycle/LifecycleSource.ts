/**
 * Port to whatever tells the process to stop, to suspend and to resume: signals, Electron's power monitor, a mobile host.
 *
 * Adapters: `Lifecycle.layerSignals` (POSIX signals), or an embedder's own, by `make`.
 *
 * Not here: what is done about it (`Lifecycle.ts`).
 */
import { Context, Effect } from "effect"
import type { Stream } from "effect"

/**
 * What the host asks for. `Stop` is final. `exitCode` is the one that a process has which ends at once, without stopping in
 * order: 128 + the signal's number where a signal asked.
 */
export type LifecycleEvent =
  | { readonly _tag: "Suspend" }
  | { readonly _tag: "Resume" }
  | { readonly _tag: "Stop"; readonly exitCode: number }

export class LifecycleSource extends Context.Service<
  LifecycleSource,
  {
    /** What the host asks for, in order; for one consumer. */
    readonly events: Stream.Stream<LifecycleEvent>
    /** Called when everything is suspended: lets the host freeze the process. Returns when it runs again, or at once. */
    readonly freeze: Effect.Effect<void>
    /** Ends the process at once with an exit code: `Stop` was asked for again while stopping. */
    readonly abort: (exitCode: number) => Effect.Effect<void>
  }
>()("@twinloop/platform/LifecycleSource") {}

/**
 * A source of an embedder's own. Without `freeze` the host freezes the process when it wants to; without `abort` a
 * second `Stop` changes nothing.
 *
 * @example
 * ```ts
 * const source = LifecycleSource.make({
 *   events: Stream.callback<LifecycleSource.LifecycleEvent>((queue) =>
 *     Effect.sync(() => {
 *       powerMonitor.on("suspend", () => Queue.offerUnsafe(queue, { _tag: "Suspend" }))
 *       powerMonitor.on("resume", () => Queue.offerUnsafe(queue, { _tag: "Resume" }))
 *     })
 *   )
 * })
 * ```
 */
export const make = (
  options: Pick<LifecycleSource["Service"], "events"> & Partial<LifecycleSource["Service"]>
): LifecycleSource["Service"] => LifecycleSource.of({ freeze: Effect.void, abort: () => Effect.void, ...options })
