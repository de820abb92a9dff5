/**
 * What stands between a simulated process and everything it shares with others, so that it can be frozen and killed.
 *
 * Killed, a process never hears of anything again: what was in flight is cut, and no finalizer of it reaches the outside.
 * Frozen, it neither asks nor hears until it is thawed; what it asked before is done meanwhile, as by a kernel or a server.
 * Its timers that have elapsed meanwhile fire when it is thawed, in the order of everything else that happened to it.
 */
import { type Clock, Deferred, Effect, Latch, Option } from "effect"

export interface Gate {
  /** A service seen through the gate: every effect of it, and every effect that its functions give. */
  through<S extends object>(service: S): S
  /** The clock as the process sees it. */
  clock(clock: Clock.Clock): Clock.Clock
  readonly kill: Effect.Effect<void>
  readonly freeze: Effect.Effect<void>
  readonly thaw: Effect.Effect<void>
  /** Sets the wall clock of the process forward, or with a negative number back. Its timers and its monotonic clock go on. */
  stepClock(millis: number): Effect.Effect<void>
  readonly isOpen: Effect.Effect<boolean>
}

/** A clock whose wall time is ahead by so many milliseconds. */
const ahead = (clock: Clock.Clock, skewMillis: () => number): Clock.Clock => {
  const currentTimeMillisUnsafe = () => clock.currentTimeMillisUnsafe() + skewMillis()
  const currentTimeNanosUnsafe = () => clock.currentTimeNanosUnsafe() + BigInt(Math.round(skewMillis() * 1_000_000))
  return {
    ...clock,
    currentTimeMillisUnsafe,
    currentTimeNanosUnsafe,
    currentTimeMillis: Effect.sync(currentTimeMillisUnsafe),
    currentTimeNanos: Effect.sync(currentTimeNanosUnsafe)
  }
}

export const makeGate: Effect.Effect<Gate> = Effect.gen(function* () {
  const killed = yield* Deferred.make<void>()
  const thawed = yield* Latch.make(true)
  let skewMillis = 0
  let isKilled = false
  const death = Effect.as(Deferred.await(killed), Option.none<never>())

  const pass = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.flatMap(
      Effect.raceFirst(death, Effect.asSome(Effect.andThen(thawed.await, effect).pipe(Effect.tap(thawed.await)))),
      (answer) => (Option.isSome(answer) ? Effect.succeed(answer.value) : Effect.never)
    )
  const passed = (value: unknown): unknown => {
    if (Effect.isEffect(value)) return pass(value)
    return typeof value === "function" ? (...args: ReadonlyArray<unknown>) => passed(value(...args)) : value
  }
  return {
    through: <S extends object>(service: S) =>
      Object.fromEntries(Object.entries(service).map(([name, value]) => [name, passed(value)])) as S,
    clock: (clock) => ({
      ...ahead(clock, () => skewMillis),
      // Without a race: that the timer of a killed process still elapses is seen by nobody.
      sleep: (duration) =>
        Effect.andThen(
          clock.sleep(duration),
          Effect.suspend(() => (isKilled ? Effect.never : thawed.await))
        )
    }),
    stepClock: (millis) =>
      Effect.sync(() => {
        skewMillis += millis
      }),
    kill: Effect.suspend(() => {
      isKilled = true
      return Effect.asVoid(Deferred.succeed(killed, undefined))
    }),
    freeze: Effect.asVoid(thawed.close),
    thaw: Effect.asVoid(thawed.open),
    isOpen: Effect.sync(() => !isKilled)
  }
})
