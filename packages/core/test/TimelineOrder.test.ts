import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { TimelineEvent } from "../src/matrix/MatrixEvent.ts"
import { gapSpan, place } from "../src/sync/TimelineOrder.ts"
import type { StoredTimeline, TimelineChange } from "../src/sync/TimelineOrder.ts"

/** A stored timeline: the number of an event in the homeserver's order, or `gap`, by index. */
type Entries = ReadonlyMap<number, number | "gap">

const event = (number: number): TimelineEvent => ({
  event_id: `$${number}`,
  type: "m.room.message",
  sender: "@s:example.org",
  content: {}
})

const indexesOf = (entries: Entries): ReadonlyArray<number> => [...entries.keys()].sort((a, b) => a - b)

const stored = (entries: Entries): StoredTimeline => ({
  indexOf: (eventId) => indexesOf(entries).find((index) => `$${entries.get(index)}` === eventId),
  last: (before = Infinity) => {
    const index = indexesOf(entries).findLast((index) => index < before)
    return index === undefined ? undefined : { index, isGap: entries.get(index) === "gap" }
  }
})

const apply = (entries: Entries, change: TimelineChange): Entries => {
  const next = new Map(entries)
  for (const index of change.closed) assert.isTrue(next.get(index) === "gap" && next.delete(index))
  if (change.gap !== undefined) next.set(change.gap.index, "gap")
  for (const { index, event } of change.events) {
    assert.isFalse(next.has(index), `index ${index} is taken`)
    next.set(index, Number(event.event_id.slice(1)))
  }
  return next
}

interface Turn {
  /** Events that happen before the homeserver answers. */
  readonly happens: number
  /** Events that the client asks for. */
  readonly window: number
  /** Whether the client asks for more than before, so that known events come again. */
  readonly expanded: boolean
}

const turns = fc.array(fc.record({ happens: fc.nat(12), window: fc.nat(15), expanded: fc.boolean() }), {
  maxLength: 20
})

/** What a homeserver sends in each turn, by the rules of MSC4186, and what is stored after it. */
const play = (script: ReadonlyArray<Turn>) => {
  let entries: Entries = new Map()
  let count = 0
  const sent = new Set<number>()
  for (const { happens, window, expanded } of script) {
    const firstNew = count
    count += happens
    const start = Math.max(expanded ? 0 : firstNew, count - window)
    const numbers = Array.from({ length: count - start }, (_, offset) => start + offset)
    const gap = start > (expanded ? 0 : firstNew) ? {} : undefined
    entries = apply(entries, place(stored(entries), numbers.map(event), gap))
    for (const number of numbers) sent.add(number)
  }
  return { entries, sent }
}

describe("TimelineOrder", () => {
  it("keeps every event once, in the homeserver's order, and never hides that some are missing", () => {
    fc.assert(
      fc.property(turns, (script) => {
        const { entries, sent } = play(script)
        const row = indexesOf(entries).map((index) => entries.get(index))
        const numbers = row.filter((entry) => typeof entry === "number")
        assert.deepStrictEqual(
          numbers,
          [...sent].sort((a, b) => a - b)
        )
        for (const [position, entry] of row.entries()) {
          const next = row[position + 1]
          if (typeof entry === "number" && typeof next === "number") assert.strictEqual(next, entry + 1)
        }
      }),
      { numRuns: 500 }
    )
  })

  it("appends what would overrun the room that a gap leaves", () => {
    const entries: Entries = new Map<number, number | "gap">([
      [0, 1],
      [1, "gap"],
      [3, 9]
    ])
    const change = place(stored(entries), [7, 8, 9].map(event), undefined)
    assert.deepStrictEqual(
      change.events.map(({ index }) => index),
      [4, 5]
    )
  })

  it("closes a gap when a response reaches over it", () => {
    const entries: Entries = new Map<number, number | "gap">([
      [0, 1],
      [1, "gap"],
      [gapSpan, 3]
    ])
    assert.deepStrictEqual(place(stored(entries), [1, 2, 3].map(event), {}), {
      closed: [1],
      events: [{ index: gapSpan - 1, event: event(2) }]
    })
    assert.deepStrictEqual(place(stored(entries), [1, 3].map(event), {}), { closed: [1], events: [] })
  })

  it("closes a gap at the end when a response goes on from the event before it", () => {
    const entries: Entries = new Map<number, number | "gap">([
      [0, 1],
      [1, "gap"]
    ])
    const events = [{ index: 1 + gapSpan, event: event(2) }]
    assert.deepStrictEqual(place(stored(entries), [1, 2].map(event), undefined), { closed: [1], events })
  })

  it("keeps a gap that a response reaches over while it leaves out stored events", () => {
    const entries: Entries = new Map<number, number | "gap">([
      [0, 1],
      [1, 3],
      [2, "gap"],
      [2 + gapSpan, 9]
    ])
    assert.deepStrictEqual(place(stored(entries), [1, 8, 9].map(event), undefined), {
      closed: [],
      events: [{ index: 1 + gapSpan, event: event(8) }]
    })
  })

  it("changes nothing when nothing is new", () => {
    const entries: Entries = new Map([[0, 1]])
    assert.deepStrictEqual(place(stored(entries), [event(1)], {}), { closed: [], events: [] })
    assert.deepStrictEqual(place(stored(entries), [], undefined), { closed: [], events: [] })
  })

  it("keeps the token of a gap", () => {
    const change = place(stored(new Map([[0, 1]])), [event(5)], { prevBatch: "t" })
    assert.deepStrictEqual(change, {
      closed: [],
      gap: { index: 1, prevBatch: "t" },
      events: [{ index: 1 + gapSpan, event: event(5) }]
    })
  })
})
