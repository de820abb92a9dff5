/**
 * What else must be quiet when the service is suspended: pooled HTTP sockets, wake-up listeners, and whatever an
 * integrator adds.
 *
 * Invariants: I4.
 */
import { Context } from "effect"
import type { Effect } from "effect"

export interface Suspendable {
  /** What it is, in words: `StopReport.unfinished` names it as long as `suspend` goes on. */
  readonly name: string
  /** Makes it quiet; called after both loops have ended, and by every stop and suspension while they don't run. */
  readonly suspend: Effect.Effect<void>
  /** Makes it usable again; called before the loops start. */
  readonly resume: Effect.Effect<void>
}

/** Suspended in order, resumed in reverse. Nothing unless provided. */
export const Suspendables = Context.Reference<ReadonlyArray<Suspendable>>("@twinloop/actors/Suspendables", {
  defaultValue: () => []
})
