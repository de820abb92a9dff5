import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import type { Blocker, RenewOutcome, TakeOutcome } from "../src/lease/Lease.ts"
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
type WokenBy = Extract<LeaseMachine.Input, { _tag: "Woken" }>["by"]
const woken = (by: WokenBy, nowMillis = now): LeaseMachine.Input => ({
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
const take: LeaseMachine.Command = { _tag: "Take", presumedDead: [], urgent: false }

describe("LeaseMachine asks", () => {
  it("watches first, looks again, and only then waits", () => {
    assert.deepStrictEqual(LeaseMachine.start(false)[1], [take])
    assert.deepStrictEqual(after(waitsForA.slice(0, 1))[1], [{ _tag: "Watch", blocker: blockedBy("a") }, take])
    const [state, commands] = after(waitsForA)
    assert.strictEqual(state._tag, "Waiting")
    assert.deepStrictEqual(commands, [{ _tag: "Await", untilMillis: now + 1_000, signal: true, hurry: true }])
  })

  it("holds at once what is given on the second look", () => {
    const [state, commands] = after([...waitsForA.slice(0, 1), granted])
    assert.deepStrictEqual(state, {
      _tag: "Held",
      generation: 4,
      expiresAtMillis: now + 10_000,
      wanted: false,
      asked: false
    })
    assert.deepStrictEqual(commands, [{ _tag: "RenewAfter", millis: 3_300, asked: true }])
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
      assert.deepStrictEqual(commands, [{ _tag: "Await", untilMillis: now + 1_000, signal: true, hurry: true }])
    }
  })

  it("I10: waits no longer than the poll, and no longer than the lease that it waits for", () => {
    const soon = blockedBy("a", now + 300)
    assert.deepStrictEqual(after([busy(soon), busy(soon)])[1], [
      { _tag: "Await", untilMillis: now + 301, signal: true, hurry: true }
    ])
    // An expiry that has passed already doesn't make it a hot loop.
    const over = blockedBy("a", now - 5)
    assert.deepStrictEqual(after([busy(over), busy(over)])[1], [
      { _tag: "Await", untilMillis: now + 1, signal: true, hurry: true }
    ])
  })

  it("takes from whom it has seen die", () => {
    assert.deepStrictEqual(after([...waitsForA, woken("Dead")])[1], [
      { _tag: "Take", presumedDead: ["a"], urgent: false }
    ])
  })

  it("remembers all whom it has seen die, so that two of them can't stand in the way in turns", () => {
    const dies = (holder: string) => [busy(blockedBy(holder)), busy(blockedBy(holder)), woken("Dead")]
    const [state, commands] = after([...dies("a"), ...dies("b")])
    assert.deepStrictEqual(commands, [{ ...take, presumedDead: ["a", "b"] }])
    const [, watching] = LeaseMachine.step(config, state, busy(blockedBy("c")))
    assert.deepStrictEqual(watching, [
      { _tag: "Watch", blocker: blockedBy("c") },
      { ...take, presumedDead: ["a", "b"] }
    ])
    // I10: not without a limit.
    const many = after(Array.from({ length: 1_000 }, (_, index) => dies(`${index}`)).flat())[0]
    assert.isAtMost(many._tag === "Asking" ? many.dead.length : 0, 100)
  })

  it("waits for the poll alone when the peer can't be watched, however often it is woken", () => {
    const [state, commands] = after([...waitsForA, woken("Unreachable", now + 10)])
    assert.strictEqual(state._tag, "Waiting")
    assert.deepStrictEqual(commands, [{ _tag: "Await", untilMillis: now + 1_000, signal: false, hurry: true }])

    // Neither after the poll: the same peer isn't watched again.
    const next = [woken("Time", now + 1_000), busy(blockedBy("a"), now + 1_000)]
    assert.deepStrictEqual(after([...waitsForA, woken("Unreachable"), ...next])[1], [
      { _tag: "Await", untilMillis: now + 2_000, signal: false, hurry: true }
    ])
  })

  it("waits, instead of asking at once, when the store can't be asked", () => {
    const failed: LeaseMachine.Input = { _tag: "TakeFailed", nowMillis: now }
    for (const before of [[], waitsForA.slice(0, 1), [...waitsForA, woken("Signalled")]]) {
      const [state, commands] = after([...before, failed])
      assert.strictEqual(state._tag, "Waiting")
      assert.deepStrictEqual(commands, [{ _tag: "Await", untilMillis: now + 1_000, signal: false, hurry: false }])
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
  const renewed = (expiresAtMillis: number | undefined, nowMillis: number, wanted = false): LeaseMachine.Input => ({
    _tag: "RenewAnswered",
    outcome: expiresAtMillis === undefined ? { _tag: "NotHeld" } : { _tag: "Renewed", expiresAtMillis, wanted },
    nowMillis
  })

  it("renews again and again", () => {
    const [state, commands] = after([granted, renewed(now + 13_300, now + 3_300)])
    assert.deepStrictEqual(state, {
      _tag: "Held",
      generation: 4,
      expiresAtMillis: now + 13_300,
      wanted: false,
      asked: false
    })
    assert.deepStrictEqual(commands, [{ _tag: "RenewAfter", millis: 3_300, asked: true }])
  })

  it("confirms at once what was handed over, and renews what was taken when a third of it is over", () => {
    const renewsAfter = (expiresAtMillis: number) =>
      after([{ _tag: "TakeAnswered", outcome: { ...grantedOutcome, expiresAtMillis }, nowMillis: now }])[1]
    assert.deepStrictEqual(renewsAfter(now + 3_000), [{ _tag: "RenewAfter", millis: 0, asked: true }])
    assert.deepStrictEqual(renewsAfter(now + 9_990), [{ _tag: "RenewAfter", millis: 3_290, asked: true }])
    // An end that is too far away, after a step of the clock, puts nothing off.
    assert.deepStrictEqual(renewsAfter(now + 3_600_000), [{ _tag: "RenewAfter", millis: 3_300, asked: true }])
  })

  it("keeps a lease that is renewed late, long after it expired", () => {
    const [state] = after([granted, renewed(now + 70_000, now + 60_000)])
    assert.deepStrictEqual(state, {
      _tag: "Held",
      generation: 4,
      expiresAtMillis: now + 70_000,
      wanted: false,
      asked: false
    })
  })

  it("I1: gives up at once when the renewal is refused", () => {
    const [state, commands] = after([granted, renewed(undefined, now + 3_300)])
    assert.deepStrictEqual(state, { _tag: "Lost", generation: 4, reason: "takenOver" })
    assert.deepStrictEqual(commands, [])
  })

  it("tries again soon when the store can't be asked, and gives up when the lease is over", () => {
    const [state, commands] = after([granted, renewFailed(now + 3_300), renewFailed(now + 9_999)])
    assert.strictEqual(state._tag, "Held")
    assert.deepStrictEqual(commands, [{ _tag: "RenewAfter", millis: 330, asked: false }])
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

describe("LeaseMachine hurries", () => {
  const urgentTake: LeaseMachine.Command = { _tag: "Take", presumedDead: [], urgent: true }
  const ask = (holder: string): LeaseMachine.Command => ({ _tag: "Ask", blocker: blockedBy(holder) })
  const waits: LeaseMachine.Command = { _tag: "Await", untilMillis: now + 1_000, signal: true, hurry: false }
  const hurried = [...waitsForA, woken("Hurried")]

  it("makes its place urgent, and only then asks whoever stands in the way, once", () => {
    assert.deepStrictEqual(after(hurried)[1], [urgentTake])
    assert.deepStrictEqual(after([...hurried, busy(blockedBy("a"))])[1], [ask("a"), waits])
    for (const by of ["Signalled", "Time"] as const) {
      assert.deepStrictEqual(after([...hurried, busy(blockedBy("a")), woken(by)])[1], [urgentTake])
      assert.deepStrictEqual(after([...hurried, busy(blockedBy("a")), woken(by), busy(blockedBy("a"))])[1], [waits])
    }
  })

  it("is urgent from the first look when it is in a hurry already", () => {
    const [state, commands] = LeaseMachine.start(false, true)
    assert.deepStrictEqual(commands, [urgentTake])
    assert.deepStrictEqual(LeaseMachine.step(config, state, busy(blockedBy("a")))[1], [
      { _tag: "Watch", blocker: blockedBy("a") },
      ask("a"),
      urgentTake
    ])
  })

  it("asks the next one who stands in the way, too", () => {
    const commands = after([...hurried, busy(blockedBy("a")), woken("Signalled"), busy(blockedBy("b"))])[1]
    assert.deepStrictEqual(commands, [{ _tag: "Watch", blocker: blockedBy("b") }, ask("b"), urgentTake])
  })

  it("stays urgent over a peer that can't be watched, a death, and a store that can't be asked", () => {
    const unreachable = [...hurried, busy(blockedBy("a")), woken("Unreachable")]
    assert.deepStrictEqual(after(unreachable)[1], [{ ...waits, signal: false }])
    assert.deepStrictEqual(after([...unreachable, woken("Time")])[1], [urgentTake])
    assert.deepStrictEqual(after([...hurried, busy(blockedBy("a")), woken("Dead")])[1], [
      { ...urgentTake, presumedDead: ["a"] }
    ])
    const failed: LeaseMachine.Input = { _tag: "TakeFailed", nowMillis: now }
    assert.deepStrictEqual(after([...hurried, failed, woken("Time")])[1], [urgentTake])
  })
})

describe("LeaseMachine is asked for what it holds", () => {
  const renewed = (wanted: boolean): LeaseMachine.Input => ({
    _tag: "RenewAnswered",
    outcome: { _tag: "Renewed", expiresAtMillis: now + 13_300, wanted },
    nowMillis: now + 3_300
  })
  const asked: LeaseMachine.Input = { _tag: "Asked" }
  const isWanted = (state: LeaseMachine.State) => state._tag === "Held" && state.wanted

  it("believes the store and not the signal: it renews at once, and what that says holds", () => {
    const [signalled, commands] = after([granted, asked])
    assert.deepStrictEqual(commands, [{ _tag: "RenewAfter", millis: 0, asked: false }])
    assert.isFalse(isWanted(signalled))
    assert.isTrue(isWanted(after([granted, asked, renewed(true)])[0]))
    assert.isFalse(isWanted(after([granted, asked, renewed(false)])[0]))
  })

  it("learns it from any renewal, stays wanted, and listens no more", () => {
    const [state, commands] = after([granted, renewed(true)])
    assert.isTrue(isWanted(state))
    assert.deepStrictEqual(commands, [{ _tag: "RenewAfter", millis: 3_300, asked: false }])
    assert.isTrue(isWanted(after([granted, renewed(true), renewed(false)])[0]))
    assert.isTrue(isWanted(after([granted, renewed(true), renewFailed(now + 9_000)])[0]))
  })

  it("I10: is deaf for a while after it was asked in vain, looks then, and listens again", () => {
    const vain = [granted, asked, renewed(false)]
    assert.deepStrictEqual(after(vain)[1], [{ _tag: "RenewAfter", millis: LeaseMachine.DEAF_MILLIS, asked: false }])
    assert.isTrue(isWanted(after([...vain, renewed(true)])[0]))
    assert.deepStrictEqual(after([...vain, renewed(false)])[1], [{ _tag: "RenewAfter", millis: 3_300, asked: true }])
  })

  it("I1: gives up when it turns out that the lease is another's", () => {
    const refused: LeaseMachine.Input = { _tag: "RenewAnswered", outcome: { _tag: "NotHeld" }, nowMillis: now }
    assert.strictEqual(after([granted, asked, refused])[0]._tag, "Lost")
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
  const renewal: fc.Arbitrary<RenewOutcome> = fc.oneof(
    fc.record({ _tag: fc.constant("Renewed" as const), expiresAtMillis: nowMillis, wanted: fc.boolean() }),
    fc.constant<RenewOutcome>({ _tag: "NotHeld" })
  )
  const input: fc.Arbitrary<LeaseMachine.Input> = fc.oneof(
    fc.record({ _tag: fc.constant("TakeAnswered" as const), outcome, nowMillis }),
    fc.record({ _tag: fc.constant("TakeFailed" as const), nowMillis }),
    fc.record({
      _tag: fc.constant("Woken" as const),
      by: fc.constantFrom("Signalled", "Dead", "Unreachable", "Time", "Hurried") as fc.Arbitrary<WokenBy>,
      nowMillis
    }),
    fc.record({ _tag: fc.constant("RenewAnswered" as const), outcome: renewal, nowMillis }),
    fc.record({ _tag: fc.constant("RenewFailed" as const), nowMillis }),
    fc.constant<LeaseMachine.Input>({ _tag: "Asked" })
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
      fc.property(
        fc.boolean(),
        fc.boolean(),
        fc.array(input, { maxLength: 40, size: "max" }),
        (once, urgent, inputs) => {
          let [state] = LeaseMachine.start(once, urgent)
          for (const input of inputs) {
            const before = state
            const [next, commands] = LeaseMachine.step(config, state, input)
            state = next
            if (commands.length === 0) {
              if (state !== before) assert.isUndefined(awaited[state._tag])
            } else {
              const waited = commands.map(({ _tag }) => _tag).filter((tag) => tag !== "Watch" && tag !== "Ask")
              assert.deepStrictEqual(waited, [awaited[state._tag]])
            }
          }
        }
      ),
      { numRuns: 1_000 }
    )
  })
})
