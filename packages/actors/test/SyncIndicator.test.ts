import { assert, describe, it } from "@effect/vitest"
import { HomeserverError, SyncServiceMachine } from "@twinloop/core"
import { Effect, Stream, SubscriptionRef } from "effect"
import { connId } from "../src/MainSync.ts"
import * as SyncIndicator from "../src/SyncIndicator.ts"
import { makeWorld, startProcess } from "../src/testing/Simulation.ts"
import { advance, settle } from "../src/testing/Time.ts"

const delays = { showAfter: "500 millis", hideAfter: "200 millis" } as const
const started = SyncServiceMachine.start(SyncServiceMachine.initialIntent)
const syncing: SyncServiceMachine.LoopStatus = { _tag: "Syncing" }
const loading: SyncServiceMachine.LoopStatus = { _tag: "Loading" }
const failing: SyncServiceMachine.LoopStatus = {
  _tag: "BackingOff",
  failure: { class: "network", message: "why" },
  untilMillis: 0
}
const stateOf = (main: SyncServiceMachine.LoopStatus) =>
  SyncServiceMachine.derive(started, { main, extension: syncing })

/** Everything that an indicator has said. */
const record = Effect.fnUntraced(function* (indicator: Stream.Stream<SyncServiceMachine.Indicator>) {
  const said: Array<SyncServiceMachine.Indicator> = []
  yield* Effect.forkChild(Stream.runForEach(indicator, (one) => Effect.sync(() => void said.push(one))))
  yield* settle
  return said
})

const setUp = Effect.gen(function* () {
  const states = yield* SubscriptionRef.make(stateOf(loading))
  const said = yield* record(SyncIndicator.follow(SubscriptionRef.changes(states), delays))
  /** Lets the main loop be like this for so long. */
  const pass = (main: SyncServiceMachine.LoopStatus, millis: number) =>
    Effect.andThen(SubscriptionRef.set(states, stateOf(main)), Effect.andThen(settle, advance(millis)))
  return { said, pass }
})

describe("SyncIndicator", () => {
  it.effect("starts hidden, shows what lasts for its delay and not before, and hides in the same way", () =>
    Effect.gen(function* () {
      const { pass, said } = yield* setUp
      assert.deepStrictEqual(said, ["Hide"])
      yield* pass(loading, 499)
      assert.deepStrictEqual(said, ["Hide"])
      yield* advance(1)
      assert.deepStrictEqual(said, ["Hide", "Show"])
      yield* pass(syncing, 199)
      assert.deepStrictEqual(said, ["Hide", "Show"])
      yield* advance(1)
      assert.deepStrictEqual(said, ["Hide", "Show", "Hide"])
    })
  )

  it.effect("doesn't blink when states come and go within the delays", () =>
    Effect.gen(function* () {
      const { pass, said } = yield* setUp
      for (let round = 0; round < 10; round++) {
        yield* pass(loading, 450)
        yield* pass(syncing, 10)
      }
      yield* advance("1 minute")
      assert.deepStrictEqual(said, ["Hide"])
      // Shown, it stays so over moments in which all is well.
      yield* pass(loading, 500)
      for (let round = 0; round < 10; round++) {
        yield* pass(syncing, 150)
        yield* pass(failing, 10)
      }
      yield* advance("1 minute")
      assert.deepStrictEqual(said, ["Hide", "Show"])
    })
  )

  it.effect("counts loading and failing as one: neither starts the delay of the other anew", () =>
    Effect.gen(function* () {
      const { pass, said } = yield* setUp
      yield* pass(loading, 300)
      yield* pass(failing, 100)
      yield* pass(loading, 100)
      assert.deepStrictEqual(said, ["Hide", "Show"])
    })
  )

  it.effect(
    "of the service: hidden over a quick start and a quick failure, shown in an outage, hidden at its end",
    () =>
      Effect.gen(function* () {
        const world = yield* makeWorld()
        yield* world.sim.addRooms(world.session.userId, 300)
        const { service } = yield* startProcess(world, "app")
        const said = yield* record(service.indicator({ showAfter: "1 second", hideAfter: "1 second" }))
        yield* service.start
        yield* advance("10 seconds")
        const reason = new HomeserverError.ServerError({ message: "on fire", status: 500 })
        yield* world.sim.inject({ connId: connId("app"), times: 1, effect: { _tag: "Fail", reason } })
        yield* advance("1 minute")
        assert.deepStrictEqual(said, ["Hide"])

        yield* world.sim.unreachable
        yield* advance("2 minutes")
        assert.deepStrictEqual(said, ["Hide", "Show"])
        yield* world.sim.reachable
        yield* advance("2 minutes")
        assert.deepStrictEqual(said, ["Hide", "Show", "Hide"])
        yield* service.stop()
        yield* advance("1 minute")
        assert.deepStrictEqual(said, ["Hide", "Show", "Hide"])
      })
  )
})
