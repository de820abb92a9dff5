/** What happens around the processes of a drawn story, whatever they themselves do: messages, time, and a world that is not at its best. */
import { Effect } from "effect"
import * as fc from "fast-check"
import type { World } from "../../src/testing/Simulation.ts"
import { advance } from "../../src/testing/Time.ts"

export type Trouble =
  | { readonly act: "send"; readonly count: number }
  | { readonly act: "pass"; readonly millis: number }
  | { readonly act: "slowCommit"; readonly millis: number; readonly moment: "before" | "after" }
  | { readonly act: "expire" | "outage" }

const kinds: ReadonlySet<string> = new Set<Trouble["act"]>(["send", "pass", "slowCommit", "expire", "outage"])

/** Tells it from what a process does. */
export const isTrouble = <A extends { readonly act: string }>(step: Trouble | A): step is Trouble => kinds.has(step.act)

/** As often as `weight` says, `passMillis` at a time. */
export const draw = (
  weight: number,
  passMillis: ReadonlyArray<number>
): ReadonlyArray<{ readonly weight: number; readonly arbitrary: fc.Arbitrary<Trouble> }> => [
  { weight, arbitrary: fc.record({ act: fc.constant("send"), count: fc.integer({ min: 1, max: 150 }) }) },
  { weight, arbitrary: fc.record({ act: fc.constant("pass"), millis: fc.constantFrom(...passMillis) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      act: fc.constant("slowCommit"),
      millis: fc.constantFrom(1, 400, 12_000),
      moment: fc.constantFrom("before", "after")
    })
  },
  { weight: 1, arbitrary: fc.record({ act: fc.constantFrom("expire", "outage") }) }
]

/** Makes it happen. */
export const happen = Effect.fnUntraced(function* (world: World, trouble: Trouble) {
  switch (trouble.act) {
    case "send":
      yield* world.sim.sendNumbered(world.session, trouble.count)
      break
    case "pass":
      yield* advance(trouble.millis)
      break
    case "slowCommit":
      yield* world.faults.delayNext("commitExtension", trouble.millis, trouble.moment)
      break
    case "expire":
      yield* world.sim.expirePositions(world.session)
      break
    case "outage":
      yield* world.sim.unreachable
      yield* advance(700)
      yield* world.sim.reachable
  }
})
