/**
 * Where the events of a response go in the timeline that is stored: a pure rule, asked by every `SyncStore` adapter.
 *
 * A timeline is a row of entries at integer indexes, ascending in time. An entry is an event, or a gap: between it and the
 * next entry there are events that aren't known. The index of an entry never changes, so it can serve as a paging cursor.
 *
 * Gotchas:
 * - A response can bring older events than the stored ones: MSC4186 sends the whole larger window when the timeline limit
 *   of a room grows. They belong before the stored event that they lead up to, not at the end.
 * - For that, the entry after a gap stands `gapSpan` indexes further on.
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

/** What to write: a gap (in place of one that may stand at its index), and events at indexes that are free. */
export interface TimelineChange {
  readonly gap?: { readonly index: number; readonly prevBatch?: string }
  readonly events: ReadonlyArray<{ readonly index: number; readonly event: TimelineEvent }>
}

type Gap = { readonly prevBatch?: string } | undefined

/** A timeline without any entry. */
export const empty: StoredTimeline = { indexOf: () => undefined, last: () => undefined }

const placed = (events: ReadonlyArray<TimelineEvent>, start: number): TimelineChange["events"] =>
  events.map((event, offset) => ({ index: start + offset, event }))

const gapAt = (index: number, gap: Gap): { readonly gap?: { readonly index: number; readonly prevBatch?: string } } =>
  gap === undefined ? {} : { gap: { index, ...gap } }

/** Events that follow everything stored, behind a gap if there is one. A gap right behind a gap takes its place. */
const append = (stored: StoredTimeline, events: ReadonlyArray<TimelineEvent>, gap: Gap): TimelineChange => {
  const last = stored.last()
  if (last === undefined) return { ...gapAt(-gapSpan, gap), events: placed(events, 0) }
  if (last.isGap) return { ...gapAt(last.index, gap), events: placed(events, last.index + gapSpan) }
  if (gap === undefined) return { events: placed(events, last.index + 1) }
  return { ...gapAt(last.index + 1, gap), events: placed(events, last.index + 1 + gapSpan) }
}

/** Events that lead up to a stored one at `end`, or `undefined` when other events stand there. */
const fillBefore = (
  stored: StoredTimeline,
  end: number,
  events: ReadonlyArray<TimelineEvent>,
  gap: Gap
): TimelineChange | undefined => {
  const start = end - events.length
  const below = stored.last(end)
  if (below === undefined) return { ...gapAt(start - gapSpan, gap), events: placed(events, start) }
  return below.isGap && below.index < start ? { ...gapAt(below.index, gap), events: placed(events, start) } : undefined
}

/**
 * Places the events of a response, oldest first, with the gap before them if there is one.
 *
 * Events that are stored stay where and what they are. New ones before the first stored one of the response go right
 * before it; where the stored timeline has no gap there, the two contradict each other, and they go to the end, as
 * all other new ones do. A gap before a stored event says nothing new.
 */
export const place = (stored: StoredTimeline, timeline: ReadonlyArray<TimelineEvent>, gap: Gap): TimelineChange => {
  const events = [...new Map(timeline.map((event) => [event.event_id, event])).values()]
  const isNew = (event: TimelineEvent): boolean => stored.indexOf(event.event_id) === undefined
  const known = events.find((event) => !isNew(event))
  if (known === undefined) return append(stored, events, gap)
  const older = events.slice(0, events.indexOf(known))
  const newer = events.slice(older.length).filter(isNew)
  if (older.length === 0) return append(stored, newer, undefined)
  const end = stored.indexOf(known.event_id)
  const filled = end === undefined ? undefined : fillBefore(stored, end, older, gap)
  if (filled === undefined) return append(stored, [...older, ...newer], undefined)
  return { ...filled, events: [...filled.events, ...append(stored, newer, undefined).events] }
}
