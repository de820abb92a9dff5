/**
 * What every `Wake` adapter must do; run over `WakeMemory` and over real sockets.
 *
 * Not here: death, which needs processes to kill (`WakeMemory.test.ts`, `test/processes/WakeProcesses.test.ts`).
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scope } from "effect"
import type { Wake } from "../lease/Wake.ts"

/** How the contract gets at an adapter. */
export interface WakeHarness {
  /** A new process of one host; it stops listening when the scope ends. */
  readonly open: Effect.Effect<Wake["Service"], never, Scope.Scope>
  /** Real sockets need the real clock; simulated processes run under `TestClock`. */
  readonly clock: "live" | "test"
}

/** A peer, and the means to end it before the test ends. */
const openClosable = (harness: WakeHarness) =>
  Effect.gen(function* () {
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
    const wake = yield* Scope.provide(harness.open, scope)
    return { wake, close: Scope.close(scope, Exit.void) }
  })

/** Registers the contract's tests for an adapter, under its name. */
export const wakeContract = (name: string, harness: WakeHarness): void => {
  const test = harness.clock === "live" ? it.live : it.effect

  describe(`${name} keeps the contract of Wake`, () => {
    test("wakes who waits", () =>
      Effect.gen(function* () {
        const holder = yield* harness.open
        const waiter = yield* harness.open
        const next = yield* waiter.subscribe(holder.self, "lease")
        const waiting = yield* Effect.forkChild(next, { startImmediately: true })
        yield* holder.notify("lease")
        assert.strictEqual(yield* Fiber.join(waiting), "Signalled")
      }))

    test("keeps a signal that comes between subscribing and waiting", () =>
      Effect.gen(function* () {
        const holder = yield* harness.open
        const waiter = yield* harness.open
        const next = yield* waiter.subscribe(holder.self, "lease")
        yield* holder.notify("lease")
        assert.strictEqual(yield* next, "Signalled")
      }))

    test("wakes again at the next signal", () =>
      Effect.gen(function* () {
        const holder = yield* harness.open
        const waiter = yield* harness.open
        const next = yield* waiter.subscribe(holder.self, "lease")
        for (let round = 0; round < 20; round++) {
          yield* holder.notify("lease")
          assert.strictEqual(yield* next, "Signalled")
        }
      }))

    test("wakes everybody who watches the topic, and nobody else", () =>
      Effect.gen(function* () {
        const holder = yield* openClosable(harness)
        const waiters = yield* Effect.all([harness.open, harness.open, harness.open])
        const subscribed = yield* Effect.forEach(waiters, (waiter) => waiter.subscribe(holder.wake.self, "lease\nof é"))
        const other = yield* waiters[0].subscribe(holder.wake.self, "lease")
        yield* holder.wake.notify("lease\nof é")
        assert.deepStrictEqual(yield* Effect.all(subscribed), ["Signalled", "Signalled", "Signalled"])

        // The end of the stream comes after any signal there may have been.
        yield* holder.close
        assert.strictEqual(yield* other, "Unreachable")
      }))

    test("gives the last signal before it says that a peer has closed", () =>
      Effect.gen(function* () {
        const holder = yield* openClosable(harness)
        const waiter = yield* harness.open
        const next = yield* waiter.subscribe(holder.wake.self, "lease")
        yield* holder.wake.notify("lease")
        yield* holder.close
        assert.strictEqual(yield* next, "Signalled")
        assert.strictEqual(yield* next, "Unreachable")
        assert.strictEqual(yield* next, "Unreachable")
      }))

    test("finds a peer unreachable that has closed, or that never had a socket", () =>
      Effect.gen(function* () {
        const closed = yield* openClosable(harness)
        const waiter = yield* harness.open
        yield* closed.close
        assert.strictEqual(yield* yield* waiter.subscribe(closed.wake.self, "lease"), "Unreachable")
        assert.strictEqual(yield* yield* waiter.subscribe({}, "lease"), "Unreachable")
      }))

    test("notifies in vain when nobody watches, or does any more", () =>
      Effect.gen(function* () {
        const holder = yield* harness.open
        const waiter = yield* harness.open
        yield* holder.notify("lease")
        yield* Effect.scoped(Effect.asVoid(waiter.subscribe(holder.self, "lease")))
        yield* holder.notify("lease")

        // A signal from before the subscription is not a signal for it.
        const next = yield* waiter.subscribe(holder.self, "key committed")
        yield* holder.notify("key committed")
        assert.strictEqual(yield* next, "Signalled")
      }))

    test("lets a wait be interrupted, and taken up again", () =>
      Effect.gen(function* () {
        const holder = yield* harness.open
        const waiter = yield* harness.open
        const next = yield* waiter.subscribe(holder.self, "lease")
        const waiting = yield* Effect.forkChild(next, { startImmediately: true })
        yield* Fiber.interrupt(waiting)
        yield* holder.notify("lease")
        assert.strictEqual(yield* next, "Signalled")
      }))

    test("tells the peer that is asked, and nobody else", () =>
      Effect.gen(function* () {
        const holder = yield* harness.open
        const waiter = yield* harness.open
        const heard = yield* holder.asked("lease\nof é")
        const others = [
          yield* waiter.asked("lease\nof é"),
          yield* holder.asked("lease"),
          yield* holder.subscribe(holder.self, "lease\nof é"),
          yield* waiter.subscribe(holder.self, "lease\nof é")
        ]
        const waiting = yield* Effect.forEach(others, (other) => Effect.forkChild(other, { startImmediately: true }))
        yield* waiter.ask(holder.self, "lease\nof é")
        yield* heard
        // Asked again, and heard again: whatever the first one reached would have been told by now.
        yield* waiter.ask(holder.self, "lease\nof é")
        yield* heard
        for (const fiber of waiting) assert.isUndefined(fiber.pollUnsafe())
      }))

    test("keeps what is asked between listening and waiting, and wakes who waits", () =>
      Effect.gen(function* () {
        const holder = yield* harness.open
        const waiter = yield* harness.open
        const heard = yield* holder.asked("lease")
        for (let round = 0; round < 20; round++) {
          yield* waiter.ask(holder.self, "lease")
          yield* heard
        }
        const waiting = yield* Effect.forkChild(heard, { startImmediately: true })
        yield* waiter.ask(holder.self, "lease")
        yield* Fiber.join(waiting)
      }))

    test("tells everybody in the peer who listens", () =>
      Effect.gen(function* () {
        const holder = yield* harness.open
        const waiter = yield* harness.open
        const [first, second] = yield* Effect.all([holder.asked("lease"), holder.asked("lease")])
        yield* waiter.ask(holder.self, "lease")
        // The last one is told last: by then it is kept for the first.
        yield* second
        yield* first
      }))

    test("asks in vain who doesn't listen, does no more, has closed, or never had a socket", () =>
      Effect.gen(function* () {
        const holder = yield* harness.open
        const closed = yield* openClosable(harness)
        const waiter = yield* harness.open
        yield* closed.close
        yield* waiter.ask(closed.wake.self, "lease")
        yield* waiter.ask({}, "lease")
        yield* waiter.ask(holder.self, "lease")
        yield* Effect.scoped(Effect.asVoid(holder.asked("lease")))
        yield* waiter.ask(holder.self, "lease")
        const heard = yield* holder.asked("lease")
        yield* waiter.ask(holder.self, "lease")
        yield* heard
      }))

    test("lets a process ask itself", () =>
      Effect.gen(function* () {
        const wake = yield* harness.open
        const heard = yield* wake.asked("lease")
        yield* wake.ask(wake.self, "lease")
        yield* heard
      }))

    test("lets a process watch itself", () =>
      Effect.gen(function* () {
        const wake = yield* harness.open
        const next = yield* wake.subscribe(wake.self, "lease")
        yield* wake.notify("lease")
        assert.strictEqual(yield* next, "Signalled")
      }))
  })
}
