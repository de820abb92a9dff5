import { assert, describe, it } from "@effect/vitest"
import * as Schedule from "../../scripts/chaos/Schedule.ts"
import * as Verdict from "../../scripts/chaos/Verdict.ts"
import * as Figures from "../../scripts/soak/Figures.ts"

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
      assert.strictEqual(kinds.size, 6, [...kinds].join())
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

const rows: Figures.Sample["rows"] = { inbox: 900, encryption_news: 5, push_seen: 5, push_queue: 1, quarantine: 0 }

/** An hour with a look every 30 s. */
const hour = (change: (minute: number) => Partial<Figures.Sample> & { readonly mib?: number }) =>
  Array.from({ length: 121 }, (_, index): Figures.Sample => {
    const minute = index / 2
    const { mib = 100 + (index % 3), ...rest } = change(minute)
    return {
      atMillis: minute * 60_000,
      processes: { main: { pid: 1, residentMib: mib, peakMib: 110, handles: 30 } },
      databaseBytes: 1_000_000 + minute * 30 * 4_000,
      logBytes: 4_000_000,
      leaseWrites: minute * 20,
      rows,
      messages: minute * 30,
      ...rest
    }
  })

const judge = (samples: ReadonlyArray<Figures.Sample>) => Figures.failures(Figures.figures(samples), ["main"])

describe("soak: the figures", () => {
  it("fits a line by least squares", () => {
    const found = Figures.slope([0, 1, 2, 3].map((hours) => [hours * 3_600_000, 5 + 2 * hours] as const))
    assert.closeTo(found!.perHour, 2, 1e-9)
    assert.closeTo(found!.error, 0, 1e-9)
    assert.isUndefined(Figures.slope([]))
  })

  it("calls flat what breathes, and what grew while it warmed up", () => {
    assert.deepStrictEqual(judge(hour((minute) => (minute < 10 ? { mib: 50 + minute * 5 } : {}))), [])
  })

  it("I10: sees memory, the log, lease writes and tables grow", () => {
    assert.match(judge(hour((minute) => ({ mib: 100 + minute / 5 })))[0]!, /memory of main/)
    assert.match(judge(hour(() => ({ logBytes: 70_000_000 })))[0]!, /log/)
    assert.match(judge(hour((minute) => ({ leaseWrites: minute * 100 })))[0]!, /leases/)
    assert.match(judge(hour((minute) => ({ rows: { ...rows, inbox: minute * 30 } })))[0]!, /inbox/)
    assert.match(judge(hour((minute) => ({ databaseBytes: minute * 30 * 20_000 })))[0]!, /database/)
  })

  it("I10: sees what a process refers to grow, also where its memory stays as it is", () => {
    const live = (perHour: number) => (minute: number) => ({
      processes: {
        main: { pid: 1, residentMib: 100, peakMib: 100, handles: 30, liveMib: 40 + (minute * perHour) / 60 }
      }
    })
    assert.deepStrictEqual(judge(hour(live(2))), [])
    assert.match(judge(hour(live(4)))[0]!, /live heap of main/)
  })

  it("sees open handles grow, and a process that is not there", () => {
    const handles = (minute: number) => ({
      processes: { main: { pid: 1, residentMib: 100, peakMib: 100, handles: 30 + Math.floor(minute / 10) } }
    })
    assert.match(judge(hour(handles))[0]!, /handles of main/)
    assert.match(judge(hour(() => ({ processes: {} })))[0]!, /main was not there/)
  })

  it("holds no slope to its bound that is of a short time", () => {
    const samples = hour((minute) => ({ mib: 100 + minute })).slice(0, 20)
    assert.isFalse(Figures.figures(samples).isJudged)
    assert.deepStrictEqual(judge(samples), [])
  })
})
