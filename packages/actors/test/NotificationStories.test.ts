import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import { inboxDecryptor } from "../src/testing/NotifierProcess.ts"
import { addRoom, BOB, startNotifier } from "./support/Notifier.ts"
import { makeEngine, type ScriptedEngine } from "../src/testing/ScriptedEngine.ts"
import { acceptedNumbers, appliedNumbers, makeWorld, startProcess, type World } from "../src/testing/Simulation.ts"
import { advance, settle } from "../src/testing/Time.ts"
import * as Trouble from "./support/Trouble.ts"

const startApp = Effect.fnUntraced(function* (world: World) {
  const engine = makeEngine(world)
  const process = yield* startProcess(world, "app", { crypto: engine.layer })
  yield* process.service.start
  yield* settle
  return { ...process, engine }
})

/** A process that a push has started, and what it is at. */
const startPush = Effect.fnUntraced(function* (world: World, name: string, roomId: string, wants: number) {
  const engine = makeEngine(world)
  const content = { algorithm: "m.megolm.v1.aes-sha2", wants }
  const eventId = yield* world.sim.sendEvent(roomId, { type: "m.room.encrypted", sender: BOB, content })
  const notifier = yield* startNotifier(world, name, { crypto: engine.layer, decryptor: inboxDecryptor(world) })
  const resolving = yield* notifier.fork(notifier.client.resolve({ roomId, eventId }))
  return { ...notifier, engine, resolving }
})

type Push = Effect.Success<ReturnType<typeof startPush>>

type Plain = "suspend" | "resume" | "killApp" | "freezeApp" | "thawApp"

type Act =
  | Trouble.Trouble
  | { readonly act: Plain }
  | { readonly act: "push"; readonly ahead: number }
  | { readonly act: "killPush" | "interrupt" | "freezePush" | "thawPush" | "endPush"; readonly which: number }

const of = (act: Plain, weight: number) => ({ weight, arbitrary: fc.constant({ act }) })

const acts: fc.Arbitrary<ReadonlyArray<Act>> = fc.array(
  fc.oneof(
    ...Trouble.draw(6, [0, 1, 20, 500, 3_300, 10_001, 21_000]),
    { weight: 5, arbitrary: fc.record({ act: fc.constant("push" as const), ahead: fc.integer({ min: 0, max: 60 }) }) },
    of("suspend", 4),
    of("resume", 3),
    of("killApp", 1),
    of("freezeApp", 1),
    of("thawApp", 1),
    {
      weight: 5,
      arbitrary: fc.record({
        act: fc.constantFrom("killPush", "interrupt", "freezePush", "thawPush", "endPush"),
        which: fc.integer({ min: 0, max: 3 })
      })
    }
  ),
  { minLength: 5, maxLength: 30 }
)

/** Plays a story, lets everybody live and settle, and checks the books. */
const play = Effect.fnUntraced(function* (story: ReadonlyArray<Act>) {
  const world = yield* makeWorld()
  yield* world.sim.addUser("bob")
  const roomId = yield* addRoom(world, "Kitchen", true)
  let app = yield* startApp(world)
  const engines: Array<ScriptedEngine> = [app.engine]
  const pushes: Array<Push> = []
  const gone = new Set<Push>()
  const living = () => pushes.filter((push) => !gone.has(push))
  const withPush = <R>(which: number, use: (push: Push) => Effect.Effect<unknown, never, R>) =>
    Effect.suspend((): Effect.Effect<unknown, never, R> => {
      const push = living()[which % Math.max(1, living().length)]
      return push === undefined ? Effect.void : use(push)
    })
  const leave = (end: (push: Push) => Effect.Effect<unknown>) => (push: Push) => {
    gone.add(push)
    return Effect.forkScoped(end(push))
  }
  for (const step of story) {
    if (Trouble.isTrouble(step)) {
      yield* Trouble.happen(world, step)
      yield* settle
      continue
    }
    switch (step.act) {
      case "suspend":
        yield* Effect.forkScoped(app.service.suspend())
        break
      case "resume":
        yield* app.service.resume()
        break
      case "killApp":
        yield* app.kill
        app = yield* startApp(world)
        engines.push(app.engine)
        break
      case "freezeApp":
        yield* app.freeze
        break
      case "thawApp":
        yield* app.thaw
        break
      case "push": {
        const wants = (yield* acceptedNumbers(world)).length + step.ahead
        const push = yield* startPush(world, `n${pushes.length}`, roomId, wants)
        engines.push(push.engine)
        pushes.push(push)
        break
      }
      case "killPush":
        yield* withPush(step.which, (push) =>
          Effect.andThen(
            push.process.kill,
            Effect.sync(() => gone.add(push))
          )
        )
        break
      case "interrupt":
        yield* withPush(
          step.which,
          leave((push) => Fiber.interrupt(push.resolving))
        )
        break
      case "freezePush":
        yield* withPush(step.which, ({ process }) => process.freeze)
        break
      case "thawPush":
        yield* withPush(step.which, ({ process }) => process.thaw)
        break
      case "endPush":
        yield* withPush(
          step.which,
          leave((push) => push.process.end)
        )
        break
    }
    yield* settle
  }
  for (const { process } of pushes) yield* process.thaw
  yield* app.thaw
  yield* app.service.resume()
  yield* advance("3 minutes")

  assert.deepStrictEqual(yield* appliedNumbers(world), yield* acceptedNumbers(world))
  const generations = (yield* world.store.readInbox({ after: 0, limit: 1_000_000 })).map(({ generation }) => generation)
  assert.deepStrictEqual(
    generations,
    generations.toSorted((one, two) => one - two)
  )
  assert.deepStrictEqual(
    engines.flatMap(({ violations }) => violations),
    []
  )
  assert.isBelow((yield* world.sim.requests).length, 1_000, "somebody asks in a hot loop")
  assert.strictEqual((yield* app.service.lease)._tag, "Held", "the application has the stream in the end")
  for (const push of living()) {
    const result = yield* Fiber.join(push.resolving)
    assert.include(["Event", "Undecrypted", "Expired"], result._tag)
    yield* push.client.settled
    assert.strictEqual(yield* push.fibers, 0)
  }
})

describe("Notifications beside an application", () => {
  it.live(
    "I1, I2, I10: any story of pushes, suspensions, kills, freezes and faults: each event is applied once, each push told",
    () =>
      Effect.promise(() =>
        fc.assert(
          fc.asyncProperty(acts, (story) =>
            Effect.runPromise(play(story).pipe(Effect.scoped, Effect.provide(TestClock.layer())))
          ),
          { numRuns: 40, seed: 1928 }
        )
      ),
    120_000
  )
})
