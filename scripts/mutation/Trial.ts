/**
 * Tries faults: makes each in a copy, runs the tests that should notice, then all tests of their projects if those don't.
 *
 * Before that the same tests run without any fault: what fails then would seem to notice every fault.
 */
import { Clock, Effect, Queue } from "effect"
import type { Mutant } from "./Mutants.ts"
import * as Tree from "./Tree.ts"
import * as Vitest from "./Vitest.ts"

/**
 * `caught`: by a test that was expected to. `caughtElsewhere`: by another test of the same projects, so the list should name
 * that one. `broken`: the fault can't be made, or the changed
 * code didn't run.
 */
export type Verdict = "caught" | "caughtElsewhere" | "survived" | "broken"

export interface Tried {
  readonly id: string
  readonly breaks: Mutant["breaks"]
  readonly verdict: Verdict
  /** Test that noticed, or what else there is to say. */
  readonly by: string
  readonly seconds: number
}

/** Copies at work: two cores are what the smallest machine has. */
const AT_ONCE = 2

/** How long a named test file may take, in milliseconds; it takes a few seconds. */
const NAMED_MILLIS = 120_000
/** The same for whole projects, which take up to two minutes when two run side by side. */
const WHOLE_MILLIS = 400_000

const verdictOf = (outcome: Vitest.Outcome, caught: Verdict): Pick<Tried, "verdict" | "by"> => {
  switch (outcome._tag) {
    case "Passed":
      return { verdict: "survived", by: `${outcome.tests} tests passed` }
    case "Failed":
      return { verdict: caught, by: `${outcome.file}: ${outcome.test}` }
    case "Hung":
      return { verdict: caught, by: `the limit: not over after ${outcome.seconds} s` }
    case "Broken":
      return { verdict: "broken", by: outcome.why }
  }
}

/** Whether any other test of these projects notices, and does so again by itself: among many, one may fail for want of time. */
const elsewhere = Effect.fnUntraced(function* (directory: string, projects: ReadonlyArray<string>) {
  const outcome = yield* Vitest.run(directory, { projects, files: [] }, WHOLE_MILLIS)
  if (outcome._tag !== "Failed") return verdictOf(outcome, "caughtElsewhere")
  return verdictOf(yield* Vitest.run(directory, { projects, files: [outcome.file] }, NAMED_MILLIS), "caughtElsewhere")
})

const judge = Effect.fnUntraced(function* (directory: string, mutant: Mutant) {
  if (!(yield* Tree.withFault(directory, mutant))) {
    return { verdict: "broken" as const, by: `its "find" doesn't stand exactly once in ${mutant.file}` }
  }
  // One file after the other: a file that hangs would keep the one waiting that has noticed already.
  for (const test of mutant.tests) {
    const judged = verdictOf(yield* Vitest.run(directory, Vitest.selectionOf([test]), NAMED_MILLIS), "caught")
    if (judged.verdict !== "survived") return judged
  }
  return yield* elsewhere(directory, Vitest.selectionOf(mutant.tests).projects)
}, Effect.scoped)

const attempt = Effect.fnUntraced(function* (directory: string, mutant: Mutant) {
  const startedAt = yield* Clock.currentTimeMillis
  const judged = yield* judge(directory, mutant)
  const seconds = Math.round(((yield* Clock.currentTimeMillis) - startedAt) / 100) / 10
  const tried: Tried = { id: mutant.id, breaks: mutant.breaks, ...judged, seconds }
  return tried
})

/** Why no fault can be judged: a test that is named fails without any. */
const whyNot = Effect.fnUntraced(function* (directory: string, mutants: ReadonlyArray<Mutant>) {
  const tests = mutants.flatMap((mutant) => mutant.tests)
  const outcome = yield* Vitest.run(directory, Vitest.selectionOf(tests), WHOLE_MILLIS)
  return outcome._tag === "Passed" ? undefined : verdictOf(outcome, "caught").by
})

/** Tries every given fault, and tells of each as it is judged; gives why that can't be done instead, if it can't. */
export const run = Effect.fnUntraced(function* (
  mutants: ReadonlyArray<Mutant>,
  onTried: (tried: Tried) => Effect.Effect<void>
) {
  const copies = yield* Effect.replicateEffect(Tree.copy, AT_ONCE)
  const free = yield* Queue.unbounded<string>()
  const problem = yield* whyNot(copies[0] ?? "", mutants)
  if (problem !== undefined) return { _tag: "Problem", problem } as const
  yield* Queue.offerAll(free, copies)
  const withCopy = (mutant: Mutant) =>
    Effect.gen(function* () {
      const directory = yield* Effect.acquireRelease(Queue.take(free), (copy) => Queue.offer(free, copy))
      return yield* Effect.tap(attempt(directory, mutant), onTried)
    }).pipe(Effect.scoped)
  const tried = yield* Effect.forEach(mutants, withCopy, { concurrency: AT_ONCE })
  return { _tag: "Tried", tried } as const
}, Effect.scoped)
