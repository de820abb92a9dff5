import { assert, describe, it } from "@effect/vitest"
import * as Figures from "../../scripts/soak/Figures.ts"

const rows: Figures.Sample["rows"] = { inbox: 900, encryption_news: 5, push_seen: 5, push_queue: 1, quarantine: 0 }

/** An hour with a look every 30 s. */
const hour = (change: (minute: number) => Partial<Figures.Sample> & { readonly mib?: number }) =>
  Array.from({ length: 121 }, (_, index): Figures.Sample => {
    const minute = index / 2
    const { mib = 100 + (index % 3), ...rest } = change(minute)
    return {
      atMillis: minute * 60_000,
      processes: { main: { pid: 1, residentMib: mib, peakMib: 110, handles: 30, threads: 12 } },
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
    const found = Figures.slope(
      [0, 1, 2, 3].map((hours) => ({ atMillis: hours * 3_600_000, value: 5 + 2 * hours, level: 0 }))
    )
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
        main: {
          pid: 1,
          residentMib: 100,
          peakMib: 100,
          handles: 30,
          threads: 12,
          liveMib: 40 + (minute * perHour) / 60
        }
      }
    })
    assert.deepStrictEqual(judge(hour(live(2))), [])
    assert.match(judge(hour(live(4)))[0]!, /live heap of main/)
  })

  it("sees open handles grow, and a process that is not there", () => {
    const handles = (minute: number) => ({
      processes: {
        main: { pid: 1, residentMib: 100, peakMib: 100, handles: 30 + Math.floor(minute / 10), threads: 12 }
      }
    })
    assert.match(judge(hour(handles))[0]!, /handles of main/)
    assert.match(judge(hour(() => ({ processes: {} })))[0]!, /main was not there/)
  })

  it("I10: tells the one step of a thread that starts from growth, and sees threads grow", () => {
    const main = { pid: 1, residentMib: 100, peakMib: 110, handles: 30, threads: 12 }
    const step = (minute: number) => ({
      processes: { main: minute < 35 ? main : { ...main, residentMib: 110, handles: 36, threads: 13 } }
    })
    assert.deepStrictEqual(judge(hour(step)), [])
    const grows = (minute: number) => ({
      processes: { main: { ...step(minute).processes.main, residentMib: 100 + minute / 5 + (minute < 35 ? 0 : 10) } }
    })
    assert.match(judge(hour(grows))[0]!, /memory of main/)
    const threads = (minute: number) => ({
      processes: { main: { ...main, residentMib: 100 + minute / 5, threads: 12 + Math.floor(minute / 10) } }
    })
    assert.match(judge(hour(threads)).join(), /threads that main started/)
  })

  it("holds no slope to its bound that is of a short time", () => {
    const samples = hour((minute) => ({ mib: 100 + minute })).slice(0, 20)
    assert.isFalse(Figures.figures(samples).isJudged)
    assert.deepStrictEqual(judge(samples), [])
  })
})
