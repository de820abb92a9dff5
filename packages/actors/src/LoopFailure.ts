/**
 * Turns what went wrong in a loop's effect into the input that tells its machine: the class, the time and the chance.
 *
 * Not here: what follows from it (`SupervisionPolicy`).
 */
import { SupervisionPolicy } from "@twinloop/core"
import { Clock, Effect, Random } from "effect"
import * as Metrics from "./Metrics.ts"

/** Classifies an error, and counts it as a failure of the loop. */
export const of = Effect.fnUntraced(function* (
  loop: Metrics.Worker,
  error: SupervisionPolicy.LoopError
): Effect.fn.Return<SupervisionPolicy.Failed> {
  const failure = SupervisionPolicy.classify(error)
  yield* Metrics.failed(loop, failure)
  return { failure, nowMillis: yield* Clock.currentTimeMillis, random: yield* Random.next }
})

/** Turns a failed effect into the input with this tag. */
export const orInput =
  (loop: Metrics.Worker) =>
  <const Tag extends string>(tag: Tag) =>
  <A, R>(effect: Effect.Effect<A, SupervisionPolicy.LoopError, R>) =>
    Effect.catch(effect, (error) => Effect.map(of(loop, error), (failed) => ({ _tag: tag, ...failed })))
