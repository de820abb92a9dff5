import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import type { Blocker, TakeOutcome } from "../src/lease/Lease.ts"
import * as LeaseMachine from "../src/lease/LeaseMachine.ts"

const config: LeaseMachine.LeaseMachineConfig = { leaseMillis: 10_000, renewMillis: 3_300, waitPollMillis: 1_000 }
const now = 1_000_000

const blockedBy = (holder: string, expiresAtMillis = now + 10_000): Blocker => ({
  kind: "holder",
  holder,
  peer: { pid: 7 },
  expiresAtMillis
})

const busy = (blocker: Blocker, nowMillis = now): LeaseMachine.Input => ({
  _tag: "TakeAnswered",
  outcome: { _tag: "Busy", blocker },
  nowMillis
})
const grantedOutcome: TakeOutcome = { _tag: "Granted", generation: 4, slots: [0], expiresAtMillis: now + 10_000 }
const granted: LeaseMachine.Input = { _tag: "TakeAnswered", outcome: grantedOutcome, nowMillis: now }
const woken = (by: Extract<LeaseMachine.Input, { _tag: "Woken" }>["by"], nowMillis = now): LeaseMachine.Input => ({
  _tag: "Woken",
  by,
  nowMillis
})
const renewFailed = (nowMillis: number): LeaseMachine.Input => ({ _tag: "RenewFailed", nowMillis })

/** Takes all inputs, one after the other, and gives the last step. */
const after = (inputs: ReadonlyArray<LeaseMachine.Input>, once = false): LeaseMachine.Step =>
  inputs.reduce<LeaseMachine.Step>(
    ([state], input) => LeaseMachine.step(config, state, input),
    LeaseMachine.start(once)
  )

const waitsForA = [busy(blockedBy("a")), busy(blockedBy("a"))]
const take: LeaseMachine.Command = { _tag: "Take", presumedDead: undefined }

describe("LeaseMachine asks", () => {
  it("watches first, looks again, and only then waits", () => {
    assert.deepStrictEqual(LeaseMachine.start(false)[1], [take])
    assert.deepStrictEqual(after(waitsForA.slice(0, 1))[1], [{ _tag: "Watch", blocker: blockedBy("a") }, take])
    const [state, commands] = after(waitsForA)
    assert.strictEqual(state._tag, "Waiting")
    assert.deepStrictEqual(commands, [{ _tag: "Await", untilMillis: now + 1_000, signal: true }])
  })

  it("holds at once what is given on the second look", () => {
    const [state, commands] = after([...waitsForA.slice(0, 1), granted])
    assert.deepStrictEqual(state, { _tag: "Held", generation: 4, expiresAtMillis: now + 10_000 })
    assert.deepStrictEqual(commands, [{ _tag: "RenewAfter", millis: 3_300 }])
  })

  it("watches the next one when another stands in the way", () => {
    const [, commands] = after([...waitsForA, woken("Signalled"), busy(blockedBy("b"))])
    assert.deepStrictEqual(commands, [{ _tag: "Watch", blocker: blockedBy("b") }, take])
  })

  it("looks after a signal and after the poll, and goes on waiting when nothing has changed", () => {
    for (const by of ["Signalled", "Time"] as const) {
      assert.deepStrictEqual(after([...waitsForA, woken(by)])[1], [take])
      // Spurious: the same one is watched already, so there is one look and no new watch.
      const [state, commands] = after([...waitsForA, woken(by), busy(blockedBy("a"))])
      assert.strictEqual(state._tag, "Waiting")
      assert.deepStrictEqual(commands, [{ _tag: "Await", untilMillis: now + 1_000, signal: true }])
    }
  })

  it("I10: waits no longer than the poll, and no longer than the lease that it waits for", () => {
    const soon = blockedBy("a", now + 300)
    assert.deepStrictEqual(after([busy(soon), busy(soon)])[1], [
      { _tag: "Await", untilMillis: now + 301, signal: true }
    ])
    // An expiry that has passed already doesn't make it a hot loop.
    const over = blockedBy("a", now - 5)
    assert.deepStrictEqual(after([busy(over), busy(over)])[1], [{ _tag: "Await", untilMillis: now + 1, signal: true }])
  })

  it("takes from whom it has seen die", () => {
    assert.deepStrictEqual(after([...waitsForA, woken("Dead")])[1], [{ _tag: "Take", presumedDead: "a" }])
  })

  it("waits for the poll alone when the peer can't be watched, however often it is woken", () => {
    const [state, commands] = after([...waitsForA, woken("Unreachable", now + 10)])
    assert.strictEqual(state._tag, "Waiting")
    assert.deepStrictEqual(commands, [{ _tag: "Await", untilMillis: now + 1_000, signal: false }])

    // Neither after the poll: the same peer isn't watched again.
    const next = [woken("Time", now + 1_000), busy(blockedBy("a"), now + 1_000)]
    assert.deepStrictEqual(after([...waitsForA, woken("Unreachable"), ...next])[1], [
      { _tag: "Await", untilMillis: now + 2_000, signal: false }
    ])
  })

  it("waits, instead of asking at once, when the store can't be asked", () => {
    const failed: LeaseMachine.Input = { _tag: "TakeFailed", nowMillis: now }
    for (const before of [[], waitsForA.slice(0, 1), [...waitsForA, woken("Signalled")]]) {
      const [state, commands] = after([...before, failed])
      assert.strictEqual(state._tag, "Waiting")
      assert.deepStrictEqual(commands, [{ _tag: "Await", untilMillis: now + 1_000, signal: false }])
    }
    assert.deepStrictEqual(after([failed, woken("Time"), busy(blockedBy("a"))])[1], [
      { _tag: "Watch", blocker: blockedBy("a") },
      take
    ])
  })

  it("never waits when it was asked to try once", () => {
    const [state, commands] = after([busy(blockedBy("a"))], true)
    assert.deepStrictEqual(state, { _tag: "Refused", blocker: blockedBy("a") })
    assert.deepStrictEqual(commands, [])
  })
})

describe("LeaseMachine holds", () => {
  const renewed = (expiresAtMillis: number | undefined, nowMillis: number): LeaseMachine.Input => ({
    _tag: "RenewAnswered",
    expiresAtMillis,
    nowMillis
  })

  it("renews again and again", () => {
    const [state, commands] = after([granted, renewed(now + 13_300, now + 3_300)])
    assert.deepStrictEqual(state, { _tag: "Held", generation: 4, expiresAtMillis: now + 13_300 })
    assert.deepStrictEqual(commands, [{ _tag: "RenewAfter", millis: 3_300 }])
  })

  it("confirms at once what was handed over, and renews what was taken when a third of it is over", () => {
    const renewsAfter = (expiresAtMillis: number) =>
      after([{ _tag: "TakeAnswered", outcome: { ...grantedOutcome, expiresAtMillis }, nowMillis: now }])[1]
    assert.deepStrictEqual(renewsAfter(now + 3_000), [{ _tag: "RenewAfter", millis: 0 }])
    assert.deepStrictEqual(renewsAfter(now + 9_990), [{ _tag: "RenewAfter", millis: 3_290 }])
    // An end that is too far away, after a step of the clock, puts nothing off.
    assert.deepStrictEqual(renewsAfter(now + 3_600_000), [{ _tag: "RenewAfter", millis: 3_300 }])
  })

  it("keeps a lease that is renewed late, long after it expired", () => {
    const [state] = after([granted, renewed(now + 70_000, now + 60_000)])
    assert.deepStrictEqual(state, { _tag: "Held", generation: 4, expiresAtMillis: now + 70_000 })
  })

  it("I1: gives up at once when the renewal is refused", () => {
    const [state, commands] = after([granted, renewed(undefined, now + 3_300)])
    assert.deepStrictEqual(state, { _tag: "Lost", generation: 4, reason: "takenOver" })
    assert.deepStrictEqual(commands, [])
  })

  it("tries again soon when the store can't be asked, and gives up when the lease is over", () => {
    const [state, commands] = after([granted, renewFailed(now + 3_300), renewFailed(now + 9_999)])
    assert.strictEqual(state._tag, "Held")
    assert.deepStrictEqual(commands, [{ _tag: "RenewAfter", millis: 330 }])
    assert.deepStrictEqual(after([granted, renewFailed(now + 10_000)])[0], {
      _tag: "Lost",
      generation: 4,
      reason: "unreachable"
    })
  })

  it("gives up when the store can't be asked and the clock was set back, since others count the lease as expired", () => {
    assert.strictEqual(after([granted, renewFailed(now - 3_600_000)])[0]._tag, "Lost")
    assert.strictEqual(after([granted, renewFailed(now)])[0]._tag, "Held")
  })
})

describe("LeaseMachine at any time", () => {
  const nowMillis = fc.integer({ min: now - 100_000, max: now + 100_000 })
  const blocker = fc
    .record({ holder: fc.constantFrom("a", "b"), millis: nowMillis })
    .map(({ holder, millis }) => blockedBy(holder, millis))
  const outcome: fc.Arbitrary<TakeOutcome> = fc.oneof(
    { arbitrary: blocker.map((blocker): TakeOutcome => ({ _tag: "Busy", blocker })), weight: 4 },
    { arbitrary: fc.constant(grantedOutcome), weight: 1 }
  )
  const input: fc.Arbitrary<LeaseMachine.Input> = fc.oneof(
    fc.record({ _tag: fc.constant("TakeAnswered" as const), outcome, nowMillis }),
    fc.record({ _tag: fc.constant("TakeFailed" as const), nowMillis }),
    fc.record({
      _tag: fc.constant("Woken" as const),
      by: fc.constantFrom("Signalled" as const, "Dead" as const, "Unreachable" as const, "Time" as const),
      nowMillis
    }),
    fc.record({
      _tag: fc.constant("RenewAnswered" as const),
      expiresAtMillis: fc.option(nowMillis, { nil: undefined }),
      nowMillis
    }),
    fc.record({ _tag: fc.constant("RenewFailed" as const), nowMillis })
  )

  /** What each state waits for: the one command whose answer takes it further. */
  const awaited: Record<LeaseMachine.State["_tag"], LeaseMachine.Command["_tag"] | undefined> = {
    Asking: "Take",
    Waiting: "Await",
    Held: "RenewAfter",
    Refused: undefined,
    Lost: undefined
  }

  it("waits for exactly one thing in every state, and late answers change nothing", () => {
    fc.assert(
      fc.property(fc.boolean(), fc.array(input, { maxLength: 40, size: "max" }), (once, inputs) => {
        let [state] = LeaseMachine.start(once)
        for (const input of inputs) {
          const before = state
          const [next, commands] = LeaseMachine.step(config, state, input)
          state = next
          if (commands.length === 0) {
            if (state !== before) assert.isUndefined(awaited[state._tag])
          } else {
            const waited = commands.filter((command) => command._tag !== "Watch").map((command) => command._tag)
            assert.deepStrictEqual(waited, [awaited[state._tag]])
          }
        }
      }),
      { numRuns: 1_000 }
    )
  })
})
