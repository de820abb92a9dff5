/**
 * Makes a failing schedule small: leaves out steps for as long as the same checker still fails.
 *
 * Delta debugging: halves first, then quarters, down to single steps; again until no single step can go.
 */
import { Effect } from "effect"
import type { Schedule, Step } from "./SimSchedule.ts"
import type { Violation } from "./SimRecord.ts"

/** What is needed of an outcome. */
interface Failing {
  readonly violations: ReadonlyArray<Violation>
}

/** A schedule that fails, from which no step can be left out. */
export interface Shrunk<A> {
  readonly schedule: Schedule
  readonly outcome: A
  /** How many schedules were played. */
  readonly tries: number
}

/**
 * Shrinks a schedule whose outcome is known to fail. `run` plays one.
 *
 * @param limit plays at most so many
 */
export const shrink = Effect.fnUntraced(function* <A extends Failing, E, R>(
  schedule: Schedule,
  failed: A,
  run: (schedule: Schedule) => Effect.Effect<A, E, R>,
  limit = 400
): Effect.fn.Return<Shrunk<A>, E, R> {
  const checker = failed.violations[0]?.checker
  let smallest: Shrunk<A> = { schedule, outcome: failed, tries: 0 }
  let size = Math.ceil(schedule.steps.length / 2)
  let tries = 0
  const without = (steps: ReadonlyArray<Step>, from: number) => [...steps.slice(0, from), ...steps.slice(from + size)]
  while (size >= 1 && tries < limit) {
    let isSmaller = false
    for (let from = 0; from < smallest.schedule.steps.length && tries < limit;) {
      const candidate = { ...schedule, steps: without(smallest.schedule.steps, from) }
      const outcome = yield* run(candidate)
      tries++
      if (outcome.violations[0]?.checker === checker) {
        smallest = { schedule: candidate, outcome, tries }
        isSmaller = true
      } else from += size
    }
    if (size === 1 && !isSmaller) break
    size = Math.max(1, Math.floor(size / 2))
  }
  return { ...smallest, tries }
})
