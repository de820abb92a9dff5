import { assert, describe, it } from "@effect/vitest"
import { HomeserverError } from "@twinloop/core"
import { Effect, Metric } from "effect"
import { connId } from "../src/MainSync.ts"
import * as Metrics from "../src/Metrics.ts"
import { makeWorld, startProcess } from "../src/testing/Simulation.ts"
import { advance, settle } from "../src/testing/Time.ts"

const count = (counter: Metric.Counter<number>, attributes: Record<string, string> = {}): Effect.Effect<number> =>
  Effect.map(Metric.value(Metric.withAttributes(counter, attributes)), (state) => state.count)

const read = Effect.all({
  applied: count(Metrics.toDeviceApplied),
  quarantined: count(Metrics.quarantined),
  pages: count(Metrics.pagesCommitted),
  mainServer: count(Metrics.failures, { loop: "main", class: "server" }),
  extensionServer: count(Metrics.failures, { loop: "extension", class: "server" })
})

describe("Metrics", () => {
  it.effect("count what was applied, set aside, committed and failed, each loop by itself", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld()
      yield* world.sim.addRooms(world.session.userId, 30)
      const { service } = yield* startProcess(world, "app")
      const before = yield* read
      yield* service.start
      yield* world.sim.sendNumbered(world.session, 3)
      yield* settle
      const reason = new HomeserverError.ServerError({ message: "on fire", status: 500 })
      yield* world.sim.inject({ connId: connId("app"), times: 1, effect: { _tag: "Fail", reason } })
      const { pos, since } = yield* world.store.extensionPosition
      const events = [{ content: { without: "a sender" } }]
      yield* world.sim.inject({
        connId: "encryption",
        times: 1,
        effect: { _tag: "Reply", json: { pos, extensions: { to_device: { next_batch: since, events } } } }
      })
      yield* advance("35 seconds")
      const after = yield* read
      assert.strictEqual(after.applied - before.applied, 3)
      assert.strictEqual(after.quarantined - before.quarantined, 1)
      assert.isAtLeast(after.pages - before.pages, 3)
      assert.strictEqual(after.mainServer - before.mainServer, 1)
      assert.strictEqual(after.extensionServer - before.extensionServer, 0)
    })
  )
})
