import { assert, describe, it } from "@effect/vitest"
import * as Schedule from "../../scripts/chaos/Schedule.ts"
import * as Verdict from "../../scripts/chaos/Verdict.ts"

const options = { seed: 7, minutes: 2, canFill: true }

describe("chaos: the schedule", () => {
  it("I8: is a function of the seed", () => {
    assert.deepStrictEqual(Schedule.make(options), Schedule.make(options))
    assert.notDeepEqual(Schedule.make(options), Schedule.make({ ...options, seed: 8 }))
  })

  it("ends within its minutes, and has one trouble at a time in each lane", () => {
    for (let seed = 0; seed < 50; seed++) {
      const steps = Schedule.make({ ...options, seed })
      for (const lane of Schedule.laneNames) {
        let endMillis = 0
        for (const { atMillis, millis } of steps.filter((step) => step.lane === lane)) {
          assert.isAbove(atMillis, endMillis)
          endMillis = atMillis + millis
        }
        assert.isAtMost(endMillis, 120_000)
      }
    }
  })

  it("has every kind of trouble in two minutes, and stops that outlast a lease", () => {
    const steps = Array.from({ length: 20 }, (_, seed) => Schedule.make({ ...options, seed }))
    for (const one of steps) {
      const kinds = new Set(one.map(({ fault }) => fault))
      assert.strictEqual(kinds.size, 7, [...kinds].join())
    }
    assert.isTrue(steps.flat().some(({ fault, millis }) => fault === "Stop" && millis > 10_000))
  })

  it("fills no disk that can't be filled, and leaves the other lanes as they are", () => {
    const without = Schedule.make({ ...options, canFill: false })
    assert.deepStrictEqual(
      without,
      Schedule.make(options).filter(({ lane }) => lane !== "disk")
    )
  })
})

const pushed = [1, 2, 3].map((number) => ({ eventId: `$${number}`, body: `push ${number}` }))
const shown = pushed.map(({ body, eventId }) => ({ eventId, result: "Event", body: `bob: ${body}` }))

const good: Verdict.Verdict = {
  seed: 7,
  minutes: 2,
  homeserver: "dev",
  canFill: true,
  done: { "Kill main": 1, "Kill push": 2, "Stop main": 3 },
  missed: 0,
  refusedWrites: 0,
  restarts: 0,
  toDevice: { sent: 3, applied: 3, lost: 0, duplicated: 0, outOfOrder: 0 },
  encryption: {
    sent: 3,
    decrypted: 3,
    undecrypted: 0,
    reasons: [],
    roomKeys: 1,
    fetched: 0,
    oneTimeKeyConflicts: 0
  },
  pushes: Verdict.pushes(pushed, shown),
  roomsBehind: 0,
  notQuiet: [],
  connectionsWhileSuspended: 0,
  leaseIsFree: true,
  processesLeft: [],
  exitCodes: [0, 0, 0],
  integrity: "ok",
  recoveryMillis: 100,
  tookMillis: 1_000
}

describe("chaos: the verdict", () => {
  it("finds nothing wrong when everything is there", () => {
    assert.deepStrictEqual(Verdict.failures(good), [])
    assert.strictEqual(Verdict.count(good.done, "Kill"), 3)
  })

  it("sees a push that was shown twice, never, unasked, or without its words", () => {
    const found = Verdict.pushes(pushed, [
      shown[0]!,
      shown[0]!,
      { eventId: "$2", result: "Undecrypted", message: "the key is missing" },
      { eventId: "$other", result: "Event" }
    ])
    const { duplicated, missing, reasons, undecrypted, unasked } = found
    assert.deepStrictEqual([found.shown, missing, duplicated, unasked, undecrypted], [1, 1, 1, 1, 1])
    assert.deepStrictEqual(reasons, ["Undecrypted: the key is missing"])
    assert.lengthOf(Verdict.failures({ ...good, pushes: found }), 3)
  })

  it("lets a push without its words pass: the key may not be there in time", () => {
    const found = Verdict.pushes(pushed, [
      ...shown.slice(1),
      { eventId: "$1", result: "Undecrypted", message: "later" }
    ])
    assert.deepStrictEqual(Verdict.failures({ ...good, pushes: found }), [])
  })

  it("names each thing that was not kept", () => {
    const { encryption, toDevice } = good
    const broken: ReadonlyArray<Partial<Verdict.Verdict>> = [
      { done: {} },
      { toDevice: { ...toDevice, lost: 1 } },
      { toDevice: { ...toDevice, duplicated: 1 } },
      { toDevice: { ...toDevice, outOfOrder: 1 } },
      { toDevice: { ...toDevice, applied: 2 } },
      { encryption: { ...encryption, undecrypted: 1 } },
      { encryption: { ...encryption, oneTimeKeyConflicts: 1 } },
      { roomsBehind: 1 },
      { notQuiet: ["main was not quiet"] },
      { connectionsWhileSuspended: 1 },
      { leaseIsFree: false },
      { processesLeft: ["12 node"] },
      { exitCodes: [0, 4, 0] },
      { integrity: "row missing from index" }
    ]
    for (const one of broken) assert.lengthOf(Verdict.failures({ ...good, ...one }), 1, JSON.stringify(one))
  })
})
