/**
 * Runs one loop under supervision: when its actor crashes, a new one is made after a backoff, and nobody else notices.
 *
 * Invariants: I3 (each loop has its own supervision), I4 (interrupting this ends the loop and everything under it).
 *
 * Gotchas: only a defect brings a loop here. Errors are the machines' business (`SupervisionPolicy`).
 */
import { SupervisionPolicy, SyncConfig } from "@twinloop/core"
import { Cause, Clock, Effect, Random } from "effect"
import type { Scope } from "effect"

/** What is supervised: anything that can tell of its own defect. */
export interface Crashable {
  readonly crashed: Effect.Effect<Cause.Cause<never>>
}

/**
 * Makes a loop, lets `use` set up what works with it, and makes it again whenever it crashed. Runs until interrupted.
 *
 * The wait before the next life doubles from crash to crash, between `backoffMinMillis` and `backoffMaxMillis`; a life that
 * was longer than the longest wait counts as a success.
 *
 * @param onCrash told of each crash, when the crashed loop has ended and before the wait
 */
export const run = Effect.fnUntraced(function* <A extends Crashable, R>(
  name: string,
  make: Effect.Effect<A, never, R | Scope.Scope>,
  use: (loop: A) => Effect.Effect<void, never, Scope.Scope>,
  onCrash: Effect.Effect<void> = Effect.void
) {
  const config = yield* SyncConfig.SyncConfig
  let attempt = 0
  while (true) {
    const bornAt = yield* Clock.currentTimeMillis
    const cause = yield* Effect.scoped(Effect.flatMap(make, (loop) => Effect.andThen(use(loop), loop.crashed)))
    yield* onCrash
    if ((yield* Clock.currentTimeMillis) - bornAt > config.backoffMaxMillis) attempt = 0
    const delayMillis = SupervisionPolicy.backoffMillis(config, attempt, yield* Random.next)
    attempt = attempt + 1
    yield* Effect.logError(
      `The ${name} loop met a defect, which is a bug in Twinloop or in a service given to it. It is started again in ${delayMillis} ms; the other loop goes on.`,
      Cause.pretty(cause)
    )
    yield* Effect.sleep(delayMillis)
  }
})
