import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { connId } from "../src/MainSync.ts"
import { makeWorld, startProcess } from "../src/testing/Simulation.ts"
import { settle } from "../src/testing/Time.ts"

const EXTENSION = "encryption"

describe("the presence", () => {
  for (const presence of ["online", "unavailable", "offline"] as const) {
    it.effect(`is said by both syncs when it is ${presence}, and by none by default`, () =>
      Effect.gen(function* () {
        const world = yield* makeWorld()
        const presences = Effect.forEach([connId("silent"), connId("says"), EXTENSION], (connection) =>
          Effect.map(world.sim.syncs(connection), (syncs) => [
            ...new Set(syncs.map(({ request }) => request.setPresence))
          ])
        )
        const silent = yield* startProcess(world, "silent")
        yield* silent.service.start
        yield* settle
        assert.deepStrictEqual(yield* presences, [[undefined], [], [undefined]])
        yield* silent.service.stop()

        const says = yield* startProcess(world, "says", { config: { presence } })
        yield* says.service.start
        yield* settle
        assert.deepStrictEqual(yield* presences, [[undefined], [presence], [undefined, presence]])
      })
    )
  }
})
