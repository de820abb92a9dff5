import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as Coverage from "./model/Coverage.ts"
import * as Explore from "./model/Explore.ts"
import * as Rules from "./model/Rules.ts"

const quiet: Explore.Bounds = {
  processes: 2,
  notifications: 0,
  events: 1,
  crashes: 0,
  faults: 0,
  suspends: 0,
  wishes: 0,
  pushes: 0
}

/** An application, and a process that a push starts. */
const pushed = { processes: 1, notifications: 1, pushes: 1 }

const explore = (bounds: Partial<Explore.Bounds>, options: Partial<Explore.Options> = {}): Explore.Report =>
  Explore.explore({
    bounds: { ...quiet, ...bounds },
    fine: false,
    limit: 1_000_000,
    liveness: true,
    rules: Rules.real,
    ...options
  })

const assertWhole = ({ isCut, violation }: Explore.Report): void => {
  assert.isUndefined(violation, violation && [violation.what, ...violation.trace].join("\n"))
  assert.isFalse(isCut)
}

describe("The model of processes that share the stream", { timeout: 240_000 }, () => {
  it("I1, I2, I5: hold in every state of two processes, and all is applied from each", () => {
    const report = explore({})
    assertWhole(report)
    assert.isAbove(report.states, 40_000)
    assert.isAbove(report.transitions, 200_000)
  })

  it("I2, I4: hold in every state of one process that is killed, suspended and failed, answers waiting in its mailbox", () => {
    const report = explore({ processes: 1, events: 2, crashes: 1, faults: 1, suspends: 1 }, { fine: true })
    assertWhole(report)
    assert.isAbove(report.states, 5_000)
  })

  it("I1, I2, I3, I4: hold in every state of an application and a process that a push starts, which gets its key from each", () => {
    const report = explore(pushed)
    assertWhole(report)
    assert.isAbove(report.states, 200_000)
    assert.isAbove(report.transitions, 1_000_000)
  })

  it("is the same whether each state is computed from the whole of it or from what its processes find", () => {
    const same = (bounds: Partial<Explore.Bounds>, limit: number): void => {
      const [whole, apart] = [true, false].map((isWhole) => explore(bounds, { isWhole, limit }))
      assert.deepStrictEqual(apart, whole)
    }
    same({ crashes: 1, faults: 1, suspends: 1, wishes: 1 }, 3_000)
    same({ ...pushed, crashes: 1, faults: 1, suspends: 1, wishes: 1 }, 3_000)
    same({}, 20_000)
  })

  it("meets every state, input and command of the machines", () => {
    const seen = new Set<string>()
    const rules = Coverage.recording(Rules.real, seen)
    explore({ processes: 1, events: 1, faults: 2, wishes: 1 }, { rules, liveness: false, limit: 40_000 })
    explore({ faults: 1, wishes: 1 }, { rules, liveness: false, limit: 30_000 })
    explore({ ...pushed, faults: 1, wishes: 1 }, { rules, liveness: false, limit: 25_000 })
    assert.deepStrictEqual(Coverage.missing(seen, pushed), [])
  })
})

describe("The model under a wrong rule", { timeout: 120_000 }, () => {
  /** What is found first, whatever else is wrong. */
  const found = (rules: Partial<Rules.Rules>, bounds: Partial<Explore.Bounds> = {}): Explore.Violation => {
    const { violation } = explore(bounds, { rules: { ...Rules.real, ...rules }, limit: 300_000 })
    return violation ?? assert.fail("nothing was found")
  }

  it("I1: finds a commit without the fence check", () => {
    const { trace, what } = found({ stands: () => true })
    assert.match(what, /^I1/)
    assert.match(trace.at(-1) ?? "", /commits/)
  })

  it("I1, I5: finds two processes with the same holder's id, since they pass the lease without a new generation", () => {
    assert.match(found({ holderOf: () => "main" }).what, /^I5/)
  })

  it("I1: finds a lease that passes without a new generation", () => {
    const { what } = found({
      take: (table, request) => {
        const [next, outcome] = Rules.real.take(table, request)
        const rows = next.rows.map((row) => ({ ...row, generation: 1 }))
        return [{ ...next, rows }, outcome._tag === "Granted" ? { ...outcome, generation: 1 } : outcome]
      }
    })
    assert.match(what, /^I1/)
  })

  it("I1: finds a fence that forgets whose the generation is, under a lease whose expiry is all that counts", () => {
    const { what } = found({
      stands: (table, fence) => Rules.real.stands(table, fence) || table.rows.every((row) => row.expiresAtMillis < 1e6)
    })
    assert.match(what, /^I1/)
  })

  it("I2: finds an acknowledgement before the commit", () => {
    assert.match(found({ acknowledgesEarly: true }).what, /^I2: event 1 is deleted/)
  })

  it("I2: needs the position that was sent to be compared when fences don't hold, and is kept by that alone", () => {
    const fenceless = { ...Rules.real, stands: () => true, isDirty: () => true }
    const options = { checks: /^I2/, limit: 50_000, liveness: false }
    assert.isUndefined(explore({ events: 2 }, { ...options, rules: fenceless }).violation)
    const commit: Rules.Rules["commit"] = (state, fence, commit, how) => {
      const { sentSince: _, ...others } = commit
      const { since } = state.position
      return Rules.real.commit(state, fence, since === undefined ? others : { ...others, sentSince: since }, how)
    }
    const { violation } = explore({ events: 2 }, { ...options, rules: { ...fenceless, commit } })
    assert.match(violation?.what ?? "", /^I2: the inbox holds the events 1, 1/)
  })

  it("I2: finds a commit whose position and rows are not one transaction", () => {
    const { what } = found({
      commit: (state, fence, commit, options) =>
        Result.map(Rules.real.commit(state, fence, commit, options), ([entries, next]) => [
          entries,
          { ...next, position: state.position }
        ])
    })
    assert.match(what, /^I2/)
  })

  it("I5: finds memory that isn't loaded again after another owner", () => {
    assert.match(found({ isDirty: (valid) => valid === null }, { suspends: 1 }).what, /^I5/)
  })

  it("I5: finds memory that is kept after a commit that failed", () => {
    assert.match(found({ voids: false }, { faults: 1, processes: 1 }).what, /^I5/)
  })

  it("I4: finds a lease that is still held when suspend has returned", () => {
    assert.match(found({ releasesOnSuspend: false }, { suspends: 1 }).what, /^I4/)
  })

  it("finds that nothing is applied any more when a lease never expires and its owner is gone", () => {
    const { what } = found(
      { take: (table, request) => Rules.real.take(table, { ...request, nowMillis: 0, presumedDead: [] }) },
      { crashes: 1, processes: 1 }
    )
    assert.match(what, /can't all be applied/)
  })

  it("I1: finds a process that a push has started and whose commits need no fence", () => {
    const stands: Rules.Rules["stands"] = (table, fence) =>
      fence.holder.startsWith("N") || Rules.real.stands(table, fence)
    assert.match(found({ stands }, pushed).what, /^I1: N commits/)
  })

  it("I1: needs the fence when the lease is let go before the commit, and is kept by that alone", () => {
    const options = { limit: 50_000, liveness: false, rules: { ...Rules.real, releasesEarly: true } }
    assert.isUndefined(explore(pushed, options).violation)
    const stands: Rules.Rules["stands"] = (table, fence) =>
      fence.holder.startsWith("N") || Rules.real.stands(table, fence)
    assert.match(found({ releasesEarly: true, stands }, pushed).what, /^I1: N commits/)
  })

  it("finds a process that goes on after its grant is lost: the fence refuses it for ever", () => {
    const { what } = found(
      {
        keysStep: (config, state, input, need) => {
          if (input._tag === "LeaseLost") return [state, []]
          const isStale = input._tag === "IterateFailed" && input.failure.class === "stale"
          return Rules.real.keysStep(
            config,
            state,
            isStale ? { ...input, failure: { class: "network", message: "" } } : input,
            need
          )
        }
      },
      pushed
    )
    assert.match(what, /can't all be applied/)
  })

  it("I3: finds a notification that queues for the lease", () => {
    const take: Rules.Rules["take"] = (table, request) =>
      Rules.real.take(table, { ...request, enqueueMillis: 15_000, urgent: request.urgent ?? false })
    assert.match(found({ take }, pushed).what, /^I3: N waits/)
  })

  it("I4: finds a process that a push has started and that ends without letting the lease go", () => {
    assert.match(found({ releasesOnSuspend: false }, pushed).what, /^I4: N has ended/)
  })

  it("I5: finds a process that a push has started and that takes its memory for loaded", () => {
    const isDirty: Rules.Rules["isDirty"] = (valid, generation) => valid !== null && valid !== generation
    assert.match(found({ isDirty }, { ...pushed, processes: 0 }).what, /^I5: N commits/)
  })

  it("finds a key that is never seen when the event isn't tried again once its owner is watched", () => {
    assert.match(found({ triesWhenWatched: false }, pushed).what, /can't all be applied/)
  })

  it("finds a process that waits for ever when it forgets that an owner has gone while it looked once more", () => {
    const keysStep: Rules.Rules["keysStep"] = (config, state, input, need) =>
      state._tag === "Checking" && input._tag === "OwnerGone"
        ? [state, []]
        : Rules.real.keysStep(config, state, input, need)
    assert.match(found({ keysStep }, pushed).what, /can't all be applied/)
  })
})
