import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, Latch, Option, Scope } from "effect"
import * as Actor from "../src/Actor.ts"
import { advance, settle } from "../src/testing/Time.ts"

type Input =
  | { readonly _tag: "Add"; readonly n: number }
  | { readonly _tag: "Run"; readonly key: string; readonly effect: Effect.Effect<Input | undefined> }
  | { readonly _tag: "Cancel"; readonly key: string }
  | { readonly _tag: "Look"; readonly effect: Effect.Effect<void> }
  | { readonly _tag: "Break" }

type State = ReadonlyArray<number>

/** A machine that keeps the numbers it was sent; every other input is its own command. */
const step = (state: State, input: Input): readonly [State, ReadonlyArray<Input>] => {
  if (input._tag === "Break") throw new Error("the machine is broken")
  return input._tag === "Add" ? [[...state, input.n], []] : [state, [input]]
}

const interpret = (command: Input, context: Actor.Context<Input>): Effect.Effect<void> => {
  switch (command._tag) {
    case "Run":
      return context.run(command.key, command.effect)
    case "Cancel":
      return context.cancel(command.key)
    case "Look":
      return command.effect
    default:
      return Effect.void
  }
}

const make = (mailboxCapacity = 16) =>
  Actor.make<State, Input, Input, never>({ name: "Numbers", initial: [], mailboxCapacity, step, interpret })

const add = (n: number): Input => ({ _tag: "Add", n })
const run = (key: string, effect: Effect.Effect<Input | undefined>): Input => ({ _tag: "Run", key, effect })
const look = (effect: Effect.Effect<void>): Input => ({ _tag: "Look", effect })

const record = () => {
  const lines: Array<string> = []
  return { lines, write: (line: string) => Effect.sync(() => void lines.push(line)) }
}

describe("Actor", () => {
  it.effect("takes inputs one at a time, in order", () =>
    Effect.gen(function* () {
      const actor = yield* make()
      for (let n = 1; n <= 100; n++) yield* actor.send(add(n))
      yield* settle
      assert.deepStrictEqual(
        yield* actor.state,
        Array.from({ length: 100 }, (_, index) => index + 1)
      )
    })
  )

  it.effect("publishes the state before it interprets the commands", () =>
    Effect.gen(function* () {
      const read = yield* Deferred.make<Effect.Effect<number>>()
      const seen: Array<number> = []
      const actor = yield* Actor.make<number, "grow", "look", never>({
        name: "Counter",
        initial: 0,
        mailboxCapacity: 1,
        step: (state) => [state + 1, ["look"]],
        interpret: () => Effect.map(Effect.flatten(Deferred.await(read)), (state) => void seen.push(state))
      })
      yield* Deferred.succeed(read, actor.state)
      yield* actor.send("grow")
      yield* settle
      assert.deepStrictEqual(seen, [1])
    })
  )

  it.effect("I10: lets a sender wait while the mailbox is full", () =>
    Effect.gen(function* () {
      const actor = yield* make(2)
      const gate = yield* Latch.make()
      // The interpreter is busy with the first input; two more fit into the mailbox.
      yield* actor.send(look(gate.await))
      yield* settle
      yield* actor.send(add(1))
      yield* actor.send(add(2))
      const third = yield* Effect.forkChild(actor.send(add(3)))
      yield* settle
      assert.isUndefined(third.pollUnsafe(), "the third sender waits")

      yield* gate.open
      yield* Fiber.join(third)
      yield* settle
      assert.deepStrictEqual(yield* actor.state, [1, 2, 3])
    })
  )

  it.effect("sends the result of what it runs to itself, and nothing for undefined", () =>
    Effect.gen(function* () {
      const actor = yield* make()
      yield* actor.send(run("a", Effect.as(Effect.sleep(10), add(1))))
      yield* actor.send(run("b", Effect.undefined))
      yield* advance(9)
      assert.deepStrictEqual(yield* actor.state, [])
      yield* advance(1)
      assert.deepStrictEqual(yield* actor.state, [1])
    })
  )

  it.effect("replaces what runs under a key: the new one starts when the old one has ended", () =>
    Effect.gen(function* () {
      const actor = yield* make()
      const { lines, write } = record()
      const old = Effect.never.pipe(Effect.onInterrupt(() => Effect.andThen(Effect.sleep(5), write("old ended"))))
      yield* actor.send(run("work", old))
      yield* actor.send(run("work", Effect.as(write("new started"), add(2))))
      yield* settle
      assert.deepStrictEqual(lines, [], "the old one's finalizer takes 5 ms")
      yield* advance(5)
      assert.deepStrictEqual(lines, ["old ended", "new started"])
      assert.deepStrictEqual(yield* actor.state, [2])
    })
  )

  it.effect("runs different keys side by side, and cancels one without the other", () =>
    Effect.gen(function* () {
      const actor = yield* make()
      yield* actor.send(run("a", Effect.as(Effect.sleep(10), add(1))))
      yield* actor.send(run("b", Effect.as(Effect.sleep(10), add(2))))
      yield* actor.send({ _tag: "Cancel", key: "a" })
      yield* actor.send({ _tag: "Cancel", key: "unknown" })
      yield* advance(10)
      assert.deepStrictEqual(yield* actor.state, [2])
      assert.isTrue(Option.isNone(yield* Effect.timeoutOption(actor.crashed, 0)), "an interruption is no crash")
    })
  )

  const crashes: ReadonlyArray<readonly [string, Input]> = [
    ["the machine", { _tag: "Break" }],
    ["the interpreter", look(Effect.die(new Error("the interpreter is broken")))],
    ["a fiber", run("work", Effect.die(new Error("the fiber is broken")))]
  ]
  it.effect("says that it crashed when what it cancels meets a defect on its way out", () =>
    Effect.gen(function* () {
      const actor = yield* make()
      yield* actor.send(
        run(
          "work",
          Effect.onInterrupt(Effect.never, () => Effect.die(new Error("broken on exit")))
        )
      )
      yield* settle
      yield* actor.send({ _tag: "Cancel", key: "work" })
      yield* settle
      assert.isTrue(Option.isSome(yield* Effect.timeoutOption(actor.crashed, 0)))
    })
  )

  // An effect can end as interrupted although nobody interrupted its fiber: it joined another one that was.
  const interruptions: ReadonlyArray<readonly [string, Input]> = [
    ["the interpreter", look(Effect.interrupt)],
    ["a fiber", run("work", Effect.interrupt)]
  ]
  for (const [where, input] of interruptions) {
    it.effect(`says that it crashed when ${where} ends as interrupted by itself, since nothing would go on`, () =>
      Effect.gen(function* () {
        const actor = yield* make()
        yield* actor.send(input)
        yield* settle
        assert.isTrue(Option.isSome(yield* Effect.timeoutOption(actor.crashed, 0)))
      })
    )
  }
  for (const [where, input] of crashes) {
    it.effect(`says that it crashed when ${where} meets a defect`, () =>
      Effect.gen(function* () {
        const actor = yield* make()
        const crashed = yield* Effect.forkChild(actor.crashed)
        yield* settle
        assert.isUndefined(crashed.pollUnsafe())
        yield* actor.send(input)
        const cause = yield* Fiber.join(crashed)
        assert.include(Cause.pretty(cause), "broken")
      })
    )
  }

  it.effect("I4: the closing of the scope ends all fibers and waits for them; sending does nothing afterwards", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const actor = yield* Scope.provide(make(1), scope)
      const { lines, write } = record()
      const slow = (name: string) =>
        Effect.never.pipe(Effect.onInterrupt(() => Effect.andThen(Effect.sleep(10), write(name))))
      yield* actor.send(run("a", slow("a")))
      yield* actor.send(run("b", slow("b")))
      yield* settle
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void))
      yield* advance(9)
      assert.isUndefined(closing.pollUnsafe(), "the fibers have not ended")
      yield* advance(1)
      yield* Fiber.join(closing)
      assert.sameMembers(lines, ["a", "b"])

      yield* actor.send(add(1))
      yield* actor.send(add(2))
      assert.deepStrictEqual(yield* actor.state, [])
    })
  )
})
