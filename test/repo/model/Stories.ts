/** Stories of two applications and a push, to be played by real processes. */
import * as fc from "fast-check"
import type { Act } from "./Recording.ts"

const app = fc.constantFrom("A" as const, "B" as const)

const to = (act: "start" | "kill" | "suspend" | "resume" | "hurry" | "freeze" | "thaw", weight: number) => ({
  weight,
  arbitrary: fc.record({ act: fc.constant(act), who: app })
})

const plain = (act: "event" | "killPush" | "cut" | "mend" | "expire", weight: number) => ({
  weight,
  arbitrary: fc.constant({ act })
})

const wait = fc.record({
  act: fc.constant("wait" as const),
  millis: fc.constantFrom(1, 200, 1_000, 3_300, 10_001, 21_000)
})

const acts: fc.Arbitrary<ReadonlyArray<Act>> = fc.array(
  fc.oneof(
    plain("event", 8),
    { weight: 8, arbitrary: wait },
    {
      weight: 5,
      arbitrary: fc.record({ act: fc.constant("push" as const), ahead: fc.integer({ min: 0, max: 2 }) })
    },
    to("start", 4),
    to("kill", 2),
    to("suspend", 3),
    to("resume", 3),
    to("hurry", 3),
    to("freeze", 1),
    to("thaw", 2),
    {
      weight: 3,
      arbitrary: fc.record({
        act: fc.constantFrom("failBefore" as const, "failAfter" as const),
        who: fc.constantFrom("A" as const, "B" as const, "N" as const)
      })
    },
    plain("killPush", 1),
    plain("cut", 1),
    plain("mend", 2),
    plain("expire", 2)
  ),
  { minLength: 6, maxLength: 16 }
)

/** So many stories; the same from the same seed. */
export const draw = (seed: number, count: number): ReadonlyArray<ReadonlyArray<Act>> =>
  fc.sample(acts, { seed, numRuns: count }).map((acts) => [{ act: "start", who: "A" }, ...acts])

/** Two applications that hand the stream to each other, let it go, fail, and are killed. */
export const handing: ReadonlyArray<Act> = [
  { act: "start", who: "A" },
  { act: "event" },
  { act: "suspend", who: "A" },
  { act: "resume", who: "A" },
  { act: "failBefore", who: "A" },
  { act: "event" },
  { act: "wait", millis: 1_000 },
  { act: "start", who: "B" },
  { act: "hurry", who: "B" },
  { act: "event" },
  { act: "failAfter", who: "B" },
  { act: "event" },
  { act: "wait", millis: 1_000 },
  { act: "expire" },
  { act: "event" },
  { act: "kill", who: "B" },
  { act: "event" },
  { act: "suspend", who: "A" }
]

/** A push that owns the stream for a moment, and one that follows its owner, who is in a hurry first. */
export const pushing: ReadonlyArray<Act> = [
  { act: "event" },
  { act: "push", ahead: 0 },
  { act: "wait", millis: 1_000 },
  { act: "push", ahead: 1 },
  { act: "start", who: "A" },
  { act: "hurry", who: "A" },
  { act: "event" },
  { act: "suspend", who: "A" }
]

/** An owner that is frozen in the middle of a commit for longer than its lease, while another takes over and applies nothing. */
export const frozen: ReadonlyArray<Act> = [
  { act: "start", who: "A" },
  { act: "start", who: "B" },
  { act: "slow", millis: 15_000 },
  { act: "event" },
  { act: "freeze", who: "A" },
  { act: "cut" },
  { act: "wait", millis: 21_000 },
  { act: "thaw", who: "A" },
  { act: "wait", millis: 1 }
]
