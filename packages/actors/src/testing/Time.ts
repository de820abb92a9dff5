/** Virtual time for tests of concurrent things: everybody goes as far as he gets, then the clock moves. */
import { type Duration, Effect } from "effect"
import { TestClock } from "effect/testing"

/**
 * Lets every fiber go as far as it gets without time passing: wide of the longest chain of fibers that wake each other.
 *
 * Adjusts the clock by nothing first: `TestClock` prepares its warning about unused time at the first sleep, in a way that
 * ends that sleep at once when it happens in the finalizer of an interrupted fiber.
 */
export const settle: Effect.Effect<void> = Effect.andThen(
  TestClock.adjust(0),
  Effect.repeat(Effect.yieldNow, { times: 300 })
).pipe(Effect.asVoid)

/** Settles, lets time pass, and settles again. */
export const advance = (duration: Duration.Input): Effect.Effect<void> =>
  Effect.andThen(settle, Effect.andThen(TestClock.adjust(duration), settle))
