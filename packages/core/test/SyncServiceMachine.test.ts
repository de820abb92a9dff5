import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import { emptyResponse } from "../src/matrix/SlidingSync.ts"
import * as ExtensionLoopMachine from "../src/sync/ExtensionLoopMachine.ts"
import * as MainLoopMachine from "../src/sync/MainLoopMachine.ts"
import type { ErrorClass, Failure } from "../src/sync/SupervisionPolicy.ts"
import * as SupervisionPolicy from "../src/sync/SupervisionPolicy.ts"
import { defaults } from "../src/sync/SyncConfig.ts"
import * as SyncServiceMachine from "../src/sync/SyncServiceMachine.ts"

type Intent = SyncServiceMachine.Intent
type LoopStatus = SyncServiceMachine.LoopStatus

const { initialIntent, shouldRun, start, stop, suspend, resume, derive } = SyncServiceMachine

const failure = (one: ErrorClass): Failure => ({ class: one, message: "why" })
const backingOff = (one: ErrorClass, untilMillis = 7): LoopStatus => ({
  _tag: "BackingOff",
  failure: failure(one),
  untilMillis
})
const gaveUp = (one: ErrorClass): LoopStatus => ({ _tag: "Failed", failure: failure(one) })
const syncing: LoopStatus = { _tag: "Syncing" }
const loading: LoopStatus = { _tag: "Loading" }
const taking: LoopStatus = { _tag: "TakingLock" }
const waiting: LoopStatus = { _tag: "WaitingForLock" }
const stopped = SyncServiceMachine.stopped

const started = start(initialIntent)

describe("SyncServiceMachine intends", () => {
  it("to run from start to stop, each as often as it is said", () => {
    assert.isFalse(shouldRun(initialIntent))
    assert.isTrue(shouldRun(started))
    assert.deepStrictEqual(start(started), started)
    assert.isFalse(shouldRun(stop(started)))
    assert.deepStrictEqual(stop(stop(started)), initialIntent)
  })

  it("to run again when every party that suspended has resumed", () => {
    const suspended = suspend(suspend(started, "system"), "operator")
    assert.isFalse(shouldRun(suspended))
    assert.isFalse(shouldRun(resume(suspended, "system")))
    assert.isTrue(shouldRun(resume(resume(suspended, "system"), "operator")))
  })

  it("the same whether a party suspends once or twice", () => {
    assert.isTrue(shouldRun(resume(suspend(suspend(started, "system"), "system"), "system")))
  })

  it("nothing else when somebody resumes who didn't suspend", () => {
    const suspended = suspend(started, "system")
    assert.deepStrictEqual(resume(suspended, "operator"), suspended)
    assert.deepStrictEqual(resume(started, "operator"), started)
  })

  it("to stay suspended when it is stopped and started meanwhile", () => {
    const again = start(stop(suspend(started, "system")))
    assert.isFalse(shouldRun(again))
    assert.isTrue(shouldRun(resume(again, "system")))
    // Suspended before it was ever started: the same.
    assert.isFalse(shouldRun(start(suspend(initialIntent, "system"))))
  })

  it("not to run when it was stopped while suspended, whoever resumes", () => {
    assert.isFalse(shouldRun(resume(stop(suspend(started, "system")), "system")))
  })

  it("to run exactly when it was started last and nobody's last word is suspend", () => {
    const party = fc.constantFrom("system", "operator", "test")
    const word = fc.oneof(
      fc.record({ _tag: fc.constantFrom("start" as const, "stop" as const) }),
      fc.record({ _tag: fc.constantFrom("suspend" as const, "resume" as const), by: party })
    )
    fc.assert(
      fc.property(fc.array(word, { maxLength: 30 }), (words) => {
        let intent: Intent = initialIntent
        const said = new Map<string, string>()
        for (const one of words) {
          if ("by" in one) {
            intent = one._tag === "suspend" ? suspend(intent, one.by) : resume(intent, one.by)
            said.set(one.by, one._tag)
          } else {
            intent = one._tag === "start" ? start(intent) : stop(intent)
            said.set("", one._tag)
          }
        }
        assert.strictEqual(shouldRun(intent), said.get("") === "start" && ![...said.values()].includes("suspend"))
      })
    )
  })
})

describe("SyncServiceMachine derives", () => {
  const table: ReadonlyArray<
    readonly [string, Intent, LoopStatus, LoopStatus, SyncServiceMachine.ServiceState["_tag"]]
  > = [
    ["before it was started", initialIntent, stopped, stopped, "Idle"],
    ["stopped, while the loops still end", stop(started), syncing, syncing, "Idle"],
    ["stopped while suspended", stop(suspend(started, "system")), stopped, stopped, "Idle"],
    ["suspended", suspend(started, "system"), stopped, stopped, "Suspended"],
    ["suspended after a loop gave up", suspend(started, "system"), gaveUp("auth"), syncing, "Suspended"],
    ["both loops sync", started, syncing, syncing, "Running"],
    ["the main loop is on its way", started, loading, syncing, "Running"],
    ["another process has the lock", started, syncing, waiting, "Running"],
    ["the loops are about to begin", started, stopped, stopped, "Running"],
    ["the main loop has no network", started, backingOff("network"), syncing, "Offline"],
    ["the extension loop has no network", started, syncing, backingOff("network"), "Offline"],
    ["the homeserver says no", started, backingOff("server"), backingOff("rateLimited"), "Running"],
    ["the store is busy", started, backingOff("store"), syncing, "Running"],
    ["the main loop gave up", started, gaveUp("auth"), syncing, "Terminal"],
    ["the extension loop gave up", started, syncing, gaveUp("storeTerminal"), "Terminal"],
    ["one gave up, the other has no network", started, backingOff("network"), gaveUp("auth"), "Terminal"]
  ]

  for (const [when, intent, main, extension, expected] of table) {
    it(`${expected} when: ${when}`, () => {
      const state = derive(intent, { main, extension })
      assert.strictEqual(state._tag, expected)
      // I3: each loop's own state is there, whatever the service's is.
      assert.deepStrictEqual([state.main, state.extension], [main, extension])
    })
  }

  it("who suspended, in a stable order", () => {
    const state = derive(suspend(suspend(started, "system"), "operator"), { main: stopped, extension: stopped })
    assert.deepStrictEqual(state._tag === "Suspended" ? state.by : [], ["operator", "system"])
  })

  it("which loop gave up, and why", () => {
    const one = derive(started, { main: syncing, extension: gaveUp("auth") })
    assert.deepStrictEqual(one._tag === "Terminal" ? [one.loop, one.failure] : [], ["extension", failure("auth")])
    const both = derive(started, { main: gaveUp("unsupported"), extension: gaveUp("auth") })
    assert.deepStrictEqual(both._tag === "Terminal" ? [both.loop, both.failure] : [], ["main", failure("unsupported")])
  })

  it("I9: that a probe is needed, exactly while a loop waits for the network", () => {
    for (const one of [syncing, loading, waiting, stopped, backingOff("server"), gaveUp("network")]) {
      assert.isFalse(SyncServiceMachine.needsProbe({ main: one, extension: one }))
      assert.isTrue(SyncServiceMachine.needsProbe({ main: one, extension: backingOff("network") }))
      assert.isTrue(SyncServiceMachine.needsProbe({ main: backingOff("network"), extension: one }))
    }
  })
})

describe("SyncServiceMachine indicates", () => {
  const table: ReadonlyArray<readonly [Intent, LoopStatus, SyncServiceMachine.Indicator]> = [
    [initialIntent, stopped, "Hide"],
    [started, stopped, "Hide"],
    [started, loading, "Show"],
    [started, { _tag: "Loading", loaded: 20, total: 50 }, "Show"],
    [started, syncing, "Hide"],
    [started, backingOff("network"), "Show"],
    [started, backingOff("server"), "Show"],
    [started, gaveUp("auth"), "Hide"],
    [suspend(started, "system"), stopped, "Hide"]
  ]
  for (const [intent, main, expected] of table) {
    it(`${expected} while the main loop is ${main._tag}, whatever the extension loop does`, () => {
      for (const extension of [stopped, waiting, loading, syncing, backingOff("network"), gaveUp("auth")]) {
        assert.strictEqual(SyncServiceMachine.indicatorOf(derive(intent, { main, extension })), expected)
      }
    })
  }
})

describe("SyncServiceMachine summarises", () => {
  const failed = (one: ErrorClass) => ({ failure: failure(one), nowMillis: 0, random: 0.5 })

  it("the main loop: how much is loaded, then that it syncs, then why it waits", () => {
    const config: MainLoopMachine.Config = { sync: defaults, connId: "rooms-main", ownUserId: "@me:x" }
    let state = MainLoopMachine.initial
    const after = (input: MainLoopMachine.Input): LoopStatus => {
      ;[state] = MainLoopMachine.step(config, state, input)
      return SyncServiceMachine.mainStatus(state)
    }
    const answered = (epoch: number) => {
      const response = { ...emptyResponse(`${epoch}`), lists: { [MainLoopMachine.ROOMS_LIST]: { count: 50 } } }
      after({ _tag: "Polled", epoch, response, tookMillis: 0, nowMillis: 0 })
      return after({ _tag: "Committed", nowMillis: 0, random: 0 })
    }
    assert.deepStrictEqual(SyncServiceMachine.mainStatus(state), stopped)
    assert.deepStrictEqual(after({ _tag: "Start" }), loading)
    const loaded: MainLoopMachine.Input = { _tag: "Loaded", pos: undefined, count: undefined, rooms: [], nowMillis: 0 }
    assert.deepStrictEqual(after(loaded), { _tag: "Loading", loaded: 0 })
    assert.deepStrictEqual(answered(1), { _tag: "Loading", loaded: 20, total: 50 })
    assert.deepStrictEqual(answered(2), syncing)
    assert.deepStrictEqual(
      after({ _tag: "PollFailed", epoch: 3, ...failed("network") }),
      backingOff("network", SupervisionPolicy.backoffMillis(defaults, 0, 0.5))
    )
    after({ _tag: "Retry", nowMillis: 0 })
    assert.deepStrictEqual(after({ _tag: "PollFailed", epoch: 4, ...failed("auth") }), gaveUp("auth"))
  })

  it("the extension loop: what it waits for, and under which generation it syncs", () => {
    let state = ExtensionLoopMachine.initial
    const after = (input: ExtensionLoopMachine.Input): LoopStatus => {
      ;[state] = ExtensionLoopMachine.step({ sync: defaults }, state, input)
      return SyncServiceMachine.extensionStatus(state)
    }
    const working: LoopStatus = { _tag: "Syncing", generation: 4 }
    const fence = { name: "stream", holder: "main#1", generation: 4 }
    assert.deepStrictEqual(SyncServiceMachine.extensionStatus(state), stopped)
    assert.deepStrictEqual(after({ _tag: "Start" }), taking)
    assert.deepStrictEqual(after({ _tag: "LockRefused" }), waiting)
    assert.deepStrictEqual(after({ _tag: "LockGranted", fence, isDirty: true, nowMillis: 0 }), loading)
    // One round: whatever it is at, it is in sync from the first applied answer on, and no longer after a failure.
    const round = (epoch: number): ReadonlyArray<ExtensionLoopMachine.Input> => [
      { _tag: "PositionRead", position: {} },
      { _tag: "Polled", epoch, response: emptyResponse("p"), tookMillis: 0 }
    ]
    const sent = { _tag: "Sent", nowMillis: 0, random: 0 } as const
    const applied: ReadonlyArray<ExtensionLoopMachine.Input> = [{ _tag: "Applied" }, sent]
    for (const input of [{ _tag: "Reloaded" }, sent, ...round(1)] as const) {
      assert.deepStrictEqual(after(input), loading)
    }
    for (const input of [...applied, ...round(2), ...applied]) assert.deepStrictEqual(after(input), working)
    after({ _tag: "PositionRead", position: {} })
    assert.deepStrictEqual(after({ _tag: "PollFailed", epoch: 3, ...failed("network") })._tag, "BackingOff")
    for (const input of [{ _tag: "Retry" }, ...round(4)] as const) assert.deepStrictEqual(after(input), loading)
    for (const input of applied) assert.deepStrictEqual(after(input), working)
    after({ _tag: "PositionRead", position: {} })
    assert.deepStrictEqual(after({ _tag: "PollFailed", epoch: 5, ...failed("expired") }), loading)
    assert.deepStrictEqual(after({ _tag: "ExpireFailed", ...failed("store") })._tag, "BackingOff")
    assert.deepStrictEqual(after({ _tag: "LockLost", generation: 4 }), taking)
    assert.deepStrictEqual(after({ _tag: "LockFailed", ...failed("storeTerminal") }), gaveUp("storeTerminal"))
  })
})
