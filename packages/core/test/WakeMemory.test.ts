import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import { Wake } from "../src/lease/Wake.ts"
import { wakeContract } from "../src/testing/WakeContract.ts"
import * as WakeMemory from "../src/testing/WakeMemory.ts"

const open = (hub: WakeMemory.Hub, name: string) =>
  Effect.map(Layer.build(hub.process(name)), (context) => Context.get(context, Wake))

/** A holder, and a waiter who watches it. */
const watched = Effect.gen(function* () {
  const hub = yield* WakeMemory.makeHub
  const holder = yield* open(hub, "holder")
  const waiter = yield* open(hub, "waiter")
  const next = yield* waiter.subscribe(holder.self, "lease")
  return { hub, holder, waiter, next }
})

const sharedHub = Effect.runSync(WakeMemory.makeHub)
wakeContract("WakeMemory", { clock: "test", open: open(sharedHub, "process") })

describe("WakeMemory", () => {
  it.effect("shows a killed process as dead to who watches it, and to who comes later", () =>
    Effect.gen(function* () {
      const { hub, holder, waiter, next } = yield* watched
      const waiting = yield* Effect.forkChild(next, { startImmediately: true })
      yield* hub.kill("holder")
      assert.strictEqual(yield* Fiber.join(waiting), "Dead")
      assert.strictEqual(yield* yield* waiter.subscribe(holder.self, "lease"), "Dead")
    })
  )

  it.effect("lets nothing out of a killed process", () =>
    Effect.gen(function* () {
      const { hub, holder, next, waiter } = yield* watched
      const asked = yield* waiter.asked("lease")
      yield* hub.kill("holder")
      yield* holder.notify("lease")
      yield* holder.ask(waiter.self, "lease")
      assert.strictEqual(yield* next, "Dead")
      const waiting = yield* Effect.forkChild(asked, { startImmediately: true })
      assert.isUndefined(waiting.pollUnsafe())
    })
  )

  it.effect("starts a killed process again as another one", () =>
    Effect.gen(function* () {
      const { hub, holder, waiter, next } = yield* watched
      yield* hub.kill("holder")
      const reborn = yield* open(hub, "holder")
      assert.notDeepEqual(reborn.self, holder.self)

      const nextOfReborn = yield* waiter.subscribe(reborn.self, "lease")
      yield* reborn.notify("lease")
      assert.strictEqual(yield* nextOfReborn, "Signalled")
      assert.strictEqual(yield* next, "Dead")
    })
  )

  it.effect("keeps a frozen process silent until it is thawed", () =>
    Effect.gen(function* () {
      const { hub, holder, waiter, next } = yield* watched
      const waiting = yield* Effect.forkChild(next, { startImmediately: true })
      yield* hub.freeze("holder")
      const notifying = yield* Effect.forkChild(holder.notify("lease"), { startImmediately: true })
      yield* TestClock.adjust("1 hour")
      assert.isUndefined(waiting.pollUnsafe())
      assert.isUndefined(notifying.pollUnsafe())
      assert.strictEqual(yield* yield* waiter.subscribe(holder.self, "lease"), "Unreachable")

      yield* hub.thaw("holder")
      assert.strictEqual(yield* Fiber.join(waiting), "Signalled")
    })
  )

  it.effect("lets a frozen process hear what was said once it is thawed", () =>
    Effect.gen(function* () {
      const { hub, holder, next } = yield* watched
      const waiting = yield* Effect.forkChild(next, { startImmediately: true })
      yield* hub.freeze("waiter")
      yield* holder.notify("lease")
      yield* TestClock.adjust("1 hour")
      assert.isUndefined(waiting.pollUnsafe())

      yield* hub.thaw("waiter")
      assert.strictEqual(yield* Fiber.join(waiting), "Signalled")
    })
  )

  it.effect("shows a process as dead that is killed while it is frozen", () =>
    Effect.gen(function* () {
      const { hub, next } = yield* watched
      yield* hub.freeze("holder")
      yield* hub.kill("holder")
      yield* hub.thaw("holder")
      assert.strictEqual(yield* next, "Dead")
    })
  )

  it.effect("keeps a killed process dead when what ran in it is cleaned up", () =>
    Effect.gen(function* () {
      const hub = yield* WakeMemory.makeHub
      const waiter = yield* open(hub, "waiter")
      const peer = yield* Effect.scoped(
        Effect.gen(function* () {
          const holder = yield* open(hub, "holder")
          yield* hub.kill("holder")
          return holder.self
        })
      )
      assert.strictEqual(yield* yield* waiter.subscribe(peer, "lease"), "Dead")
    })
  )

  it.effect("lets a frozen process hear what it was asked once it is thawed, and a killed one nothing", () =>
    Effect.gen(function* () {
      const { hub, holder, waiter } = yield* watched
      const asked = yield* holder.asked("lease")
      const waiting = yield* Effect.forkChild(asked, { startImmediately: true })
      yield* hub.freeze("holder")
      yield* waiter.ask(holder.self, "lease")
      yield* TestClock.adjust("1 hour")
      assert.isUndefined(waiting.pollUnsafe())
      yield* hub.thaw("holder")
      yield* Fiber.join(waiting)

      yield* hub.kill("holder")
      yield* waiter.ask(holder.self, "lease")
      const dead = yield* Effect.forkChild(asked, { startImmediately: true })
      yield* TestClock.adjust("1 hour")
      assert.isUndefined(dead.pollUnsafe())
    })
  )

  it.effect("I10: keeps one signal however many nobody has waited for", () =>
    Effect.gen(function* () {
      const { hub, holder, next } = yield* watched
      for (let signal = 0; signal < 1_000; signal++) yield* holder.notify("lease")
      yield* hub.kill("holder")
      assert.strictEqual(yield* next, "Signalled")
      assert.strictEqual(yield* next, "Dead")
    })
  )
})
