/**
 * Where the events of a response go in the timeline that is stored: a pure rule, asked by every `SyncStore` adapter.
 *
 * A timeline is a row of entries at integer indexes, ascending in time. An entry is an event, or a gap: between it and the
 * next entry there are events that aren't known. The index of an entry never changes, so it can serve as a paging cursor.
 *
 * Gotchas:
 * - A response can bring older events than the stored ones: MSC4186 sends the whole larger window when the timeline limit
 *   of a room grows. They belong before the stored event that they lead up to, not at the end.
 * - For that, the entry after a gap stands `gapSpan` indexes further on. Indexes that stay free say nothing: only a gap does.
 */
import type { EventId, TimelineEvent } from "../matrix/MatrixEvent.ts"

/** Indexes that a gap leaves free for what is missing: more events than anybody fetches for one gap. */
export const gapSpan = 1_000_000

/** An entry's place and kind. */
export interface Place {
  readonly index: number
  readonly isGap: boolean
}

/** What the rule asks about a stored timeline. */
export interface StoredTimeline {
  /** Index of a stored event, or `undefined` when it isn't stored. */
  indexOf(eventId: EventId): number | undefined
  /** The last entry, or the last one before an index (exclusive); `undefined` when there is none. */
  last(before?: number): Place | undefined
}

/** What to write: gaps to delete, a gap (in place of one that may stand at its index), and events at indexes that are free. */
export interface TimelineChange {
  readonly closed: ReadonlyArray<number>
  readonly gap?: { readonly index: number; readonly prevBatch?: string }
  readonly events: ReadonlyArray<{ readonly index: number; readonly event: TimelineEvent }>
}

type Gap = { readonly prevBatch?: string } | undefined

/** New events of a response that follow each other, and the indexes of the stored ones right before and after them. */
interface Run {
  readonly after: number | undefined
  readonly events: ReadonlyArray<TimelineEvent>
  readonly before: number | undefined
}

/** A timeline without any entry. */
export const empty: StoredTimeline = { indexOf: () => undefined, last: () => undefined }

const unchanged: TimelineChange = { closed: [], events: [] }

const placed = (events: ReadonlyArray<TimelineEvent>, start: number): TimelineChange["events"] =>
  events.map((event, offset) => ({ index: start + offset, event }))

const gapAt = (index: number, gap: Gap): Pick<TimelineChange, "gap"> =>
  gap === undefined ? {} : { gap: { index, ...gap } }

/** The runs of a response, in order: one before each stored event, and one at the end. */
const runsOf = (stored: StoredTimeline, timeline: ReadonlyArray<TimelineEvent>): ReadonlyArray<Run> => {
  const runs: Array<Run> = []
  let after: number | undefined
  let events: Array<TimelineEvent> = []
  // An event that comes twice counts once.
  for (const event of new Map(timeline.map((event) => [event.event_id, event])).values()) {
    const index = stored.indexOf(event.event_id)
    if (index === undefined) events.push(event)
    else {
      runs.push({ after, events, before: index })
      after = index
      events = []
    }
  }
  return [...runs, { after, events, before: undefined }]
}

/** Events that follow everything stored, behind a gap if there is one. A gap right behind a gap takes its place. */
const append = (stored: StoredTimeline, events: ReadonlyArray<TimelineEvent>, gap: Gap): TimelineChange => {
  const last = stored.last()
  if (last === undefined) return { closed: [], ...gapAt(-gapSpan, gap), events: placed(events, 0) }
  if (last.isGap) return { closed: [], ...gapAt(last.index, gap), events: placed(events, last.index + gapSpan) }
  if (gap === undefined) return { closed: [], events: placed(events, last.index + 1) }
  return { closed: [], ...gapAt(last.index + 1, gap), events: placed(events, last.index + 1 + gapSpan) }
}

/** The gap that a run fills from end to end: it stands right before `place`, and the run's stored event right before it. */
const closedBy = (stored: StoredTimeline, { after }: Run, place?: number): ReadonlyArray<number> => {
  const below = stored.last(place)
  const fills = after !== undefined && below?.isGap === true && stored.last(below.index)?.index === after
  return fills ? [below.index] : []
}

/** Puts a run right before the stored event that it leads up to; `undefined` when other events stand there. */
const fill = (stored: StoredTimeline, run: Run, before: number, gap: Gap): TimelineChange | undefined => {
  const start = before - run.events.length
  const below = stored.last(before)
  const closed = closedBy(stored, run, before)
  if (run.events.length === 0) return { closed, events: [] }
  if (below !== undefined && (!below.isGap || below.index >= start)) return undefined
  // A gap in front of a run is where the stored one is, or far enough in front for what is missing.
  const front = run.after === undefined ? gapAt(below?.index ?? start - gapSpan, gap) : {}
  return { closed, ...front, events: placed(run.events, start) }
}

const join = (one: TimelineChange, other: TimelineChange): TimelineChange => ({
  ...one,
  ...other,
  closed: [...one.closed, ...other.closed],
  events: [...one.events, ...other.events]
})

/**
 * Places the events of a response, oldest first and without a gap between them, behind `gap` if there is one.
 *
 * Events that are stored stay where and what they are. New ones go right before the stored one that follows them in the
 * response, and close the gap that they fill; those that nothing stored follows go to the end. Where the stored timeline
 * has other events in their place, the two contradict each other, and they go to the end as well. A gap before a
 * stored event says nothing new.
 */
export const place = (stored: StoredTimeline, timeline: ReadonlyArray<TimelineEvent>, gap: Gap): TimelineChange => {
  const runs = runsOf(stored, timeline)
  const tail: Array<TimelineEvent> = []
  let change = unchanged
  for (const run of runs) {
    const filled = run.before === undefined ? undefined : fill(stored, run, run.before, gap)
    if (filled === undefined) tail.push(...run.events)
    else change = join(change, filled)
  }
  const last = runs.at(-1)
  if (last === undefined || last.after === undefined) return append(stored, tail, gap)
  if (tail.length === 0) return change
  const closed = tail.length === last.events.length ? closedBy(stored, last) : []
  return join(change, { ...append(stored, tail, undefined), closed })
}
