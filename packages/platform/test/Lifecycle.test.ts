import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Queue, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as Lifecycle from "../src/lifecycle/Lifecycle.ts"
import * as LifecycleSource from "../src/lifecycle/LifecycleSource.ts"

const suspend: LifecycleSource.LifecycleEvent = { _tag: "Suspend" }
const resume: LifecycleSource.LifecycleEvent = { _tag: "Resume" }
const stop: LifecycleSource.LifecycleEvent = { _tag: "Stop", exitCode: 143 }

/** A host that writes down what happens; suspending and stopping take `handlerMillis`. */
const host = (handlerMillis: number) =>
  Effect.gen(function* () {
    const log: Array<string> = []
    const note = (entry: string) => Effect.sync(() => void log.push(entry))
    const slow = (entry: string) =>
      note(`${entry}...`).pipe(Effect.andThen(Effect.sleep(handlerMillis)), Effect.andThen(note(entry)))
    const queue = yield* Queue.bounded<LifecycleSource.LifecycleEvent>(16)
    const source = LifecycleSource.make({
      events: Stream.fromQueue(queue),
      freeze: note("freeze"),
      abort: (exitCode) => note(`abort ${exitCode}`)
    })
    const running = yield* Effect.forkChild(
      Lifecycle.run({ suspend: slow("suspend"), resume: slow("resume"), stop: slow("stop") }).pipe(
        Effect.provideService(LifecycleSource.LifecycleSource, source)
      )
    )
    const send = (...events: ReadonlyArray<LifecycleSource.LifecycleEvent>) => Queue.offerAll(queue, events)
    yield* TestClock.adjust(0)
    return { log, send, running }
  })

describe("Lifecycle", () => {
  it.effect("I4: freezes the process only when everything is suspended", () =>
    Effect.gen(function* () {
      const { log, send } = yield* host(1_000)
      yield* send(suspend)
      yield* TestClock.adjust(999)
      assert.deepStrictEqual(log, ["suspend..."])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(log, ["suspend...", "suspend", "freeze"])
    })
  )

  it.effect("resumes what it suspended, as often as it is asked to", () =>
    Effect.gen(function* () {
      const { log, send } = yield* host(0)
      for (let round = 0; round < 2; round++) {
        yield* send(suspend)
        yield* TestClock.adjust(1)
        yield* send(resume)
        yield* TestClock.adjust(1)
      }
      const round = ["suspend...", "suspend", "freeze", "resume...", "resume"]
      assert.deepStrictEqual(log, [...round, ...round])
    })
  )

  it.effect("resumes without freezing when the host wants it to go on before it is suspended", () =>
    Effect.gen(function* () {
      const { log, send } = yield* host(1_000)
      yield* send(suspend)
      yield* TestClock.adjust(500)
      yield* send(resume)
      yield* TestClock.adjust(2_000)
      assert.deepStrictEqual(log, ["suspend...", "suspend", "resume...", "resume"])
    })
  )

  it.effect("doesn't resume what it has not suspended", () =>
    Effect.gen(function* () {
      const { log, send } = yield* host(0)
      yield* send(resume, resume)
      yield* TestClock.adjust(1_000)
      assert.deepStrictEqual(log, [])
    })
  )

  it.effect("stops and ends, from any condition", () =>
    Effect.gen(function* () {
      for (const before of [[], [suspend], [suspend, resume]]) {
        const { log, send, running } = yield* host(10)
        yield* send(...before)
        yield* TestClock.adjust(1_000)
        yield* send(stop)
        yield* TestClock.adjust(10)
        yield* Fiber.join(running)
        assert.deepStrictEqual(log.slice(-2), ["stop...", "stop"])
      }
    })
  )

  it.effect("stops instead of freezing when it is asked to stop while it suspends", () =>
    Effect.gen(function* () {
      const { log, send, running } = yield* host(1_000)
      yield* send(suspend)
      yield* TestClock.adjust(500)
      yield* send(stop, resume, suspend)
      yield* TestClock.adjust(1_500)
      yield* Fiber.join(running)
      assert.deepStrictEqual(log, ["suspend...", "suspend", "stop...", "stop"])
    })
  )

  it.effect("aborts with the signal's exit code when it is asked to stop again", () =>
    Effect.gen(function* () {
      const { log, send } = yield* host(60_000)
      yield* send(stop)
      yield* TestClock.adjust(1)
      yield* send({ _tag: "Stop", exitCode: 130 })
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(log, ["stop...", "abort 130"])
    })
  )

  it.effect("needs neither freezing nor aborting from an embedder's source", () =>
    Effect.gen(function* () {
      const resumed = yield* Deferred.make<void>()
      const source = LifecycleSource.make({ events: Stream.concat(Stream.make(suspend, stop), Stream.never) })
      yield* Lifecycle.run({
        suspend: Effect.void,
        resume: Deferred.succeed(resumed, undefined),
        stop: Effect.void
      }).pipe(Effect.provideService(LifecycleSource.LifecycleSource, source))
      assert.isFalse(yield* Deferred.isDone(resumed))
    })
  )

  it.live("sets other listeners of its signals aside, and puts them back", () =>
    Effect.gen(function* () {
      const mine = (): void => {}
      process.on("SIGTERM", mine)
      const before = process.listeners("SIGTERM")
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* Effect.void
          assert.notInclude(process.listeners("SIGTERM"), mine)
        }).pipe(Effect.provide(Lifecycle.layerSignals))
      )
      assert.deepStrictEqual(process.listeners("SIGTERM"), before)
      process.off("SIGTERM", mine)
    })
  )
})
