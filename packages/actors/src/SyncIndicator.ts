/**
 * Whether a room list should show that it is being brought up to date, without blinking.
 *
 * Includes the delays; which state asks for what is `SyncServiceMachine.indicatorOf`.
 *
 * Invariants: I8 (the delays are `Clock`'s), I10 (holds one pending change at most).
 */
import { SyncServiceMachine } from "@twinloop/core"
import { type Duration, Effect, Stream } from "effect"

/** How long a state has to last before the indicator follows it. */
export interface Options {
  /** Before it is shown: what loads faster than this is never announced. */
  readonly showAfter: Duration.Input
  /** Before it is hidden again. */
  readonly hideAfter: Duration.Input
}

/** Follows the states: starts with `Hide`, and repeats nothing. A state that passes within its delay leaves no trace. */
export const follow = (
  states: Stream.Stream<SyncServiceMachine.ServiceState>,
  { hideAfter, showAfter }: Options
): Stream.Stream<SyncServiceMachine.Indicator> => {
  const hidden: SyncServiceMachine.Indicator = "Hide"
  const wanted = Stream.changes(Stream.map(states, SyncServiceMachine.indicatorOf))
  const settled = Stream.switchMap(wanted, (indicator) =>
    Stream.fromEffect(Effect.as(Effect.sleep(indicator === "Show" ? showAfter : hideAfter), indicator))
  )
  return Stream.changes(Stream.concat(Stream.succeed(hidden), settled))
}
