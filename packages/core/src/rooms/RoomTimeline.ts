/**
 * What a room update's timeline tells: which events are live, and which one is the newest to show.
 *
 * Invariants: I7 (an absent or absurd number of live events is read as the nearest possible one).
 *
 * Gotchas: an update can bring history. An expanded timeline begins before what is known, and a room that comes back into
 * the window brings what was missed meanwhile, which isn't live either.
 *
 * Not here: storing timelines and their gaps (`sync/SyncStore.ts`).
 */
import type { EventId, TimelineEvent, UserId } from "../matrix/MatrixEvent.ts"
import type { RoomUpdate } from "../matrix/SlidingSync.ts"

/**
 * How many of the last timeline events happened after the request's position.
 *
 * Where the homeserver doesn't say: none of an initial or expanded timeline, which begin in the past, and all of another.
 */
export const liveCount = (update: RoomUpdate): number => {
  const { timeline } = update
  const told = update.numLive ?? (update.initial || update.expandedTimeline ? 0 : timeline.length)
  return Math.max(0, Math.min(told, timeline.length))
}

/** The timeline events of an update that happened after the request's position, ascending. */
export const liveEvents = (update: RoomUpdate): ReadonlyArray<TimelineEvent> =>
  update.timeline.slice(update.timeline.length - liveCount(update))

const redactionTarget = (event: TimelineEvent): EventId | undefined => {
  // Room versions up to 10 have it beside the content, later ones inside. Spec: "m.room.redaction".
  const target = event.content.redacts ?? event.redacts
  return typeof target === "string" ? target : undefined
}

const isRedaction = (event: TimelineEvent): boolean => event.type === "m.room.redaction"

/** Whether an event can make a room unread: it is by somebody else, and neither a change of state nor a redaction. */
export const makesUnread = (event: TimelineEvent, ownUserId: UserId): boolean =>
  event.sender !== ownUserId && event.state_key === undefined && !isRedaction(event)

/** Ids of the events that a timeline redacts. */
export const redactedIds = (timeline: ReadonlyArray<TimelineEvent>): ReadonlyArray<EventId> =>
  timeline.filter(isRedaction).flatMap((event) => redactionTarget(event) ?? [])

const redacted = (event: TimelineEvent, redaction: TimelineEvent): TimelineEvent => ({
  ...event,
  content: {},
  unsigned: { ...event.unsigned, redacted_because: redaction }
})

/** State that was redacted keeps what the room's rules need, and the homeserver sends it so; other content is emptied here. */
const withRedactions = (event: TimelineEvent, timeline: ReadonlyArray<TimelineEvent>): TimelineEvent => {
  if (event.state_key !== undefined) return event
  const redaction = timeline.findLast((other) => isRedaction(other) && redactionTarget(other) === event.event_id)
  return redaction === undefined ? event : redacted(event, redaction)
}

const isNewer = (candidate: TimelineEvent, known: TimelineEvent, update: RoomUpdate): boolean => {
  // The timeline ascends: what comes with the known event in it is that event or a later one.
  if (update.timeline.some((event) => event.event_id === known.event_id)) return true
  if (liveEvents(update).includes(candidate)) return true
  return timestamp(candidate) > timestamp(known)
}

const timestamp = (event: TimelineEvent): number =>
  typeof event.origin_server_ts === "number" ? event.origin_server_ts : 0

/**
 * The newest event to show after an update. A redaction is not shown but empties the one that it redacts; history never
 * replaces a newer event.
 */
export const latestEvent = (previous: TimelineEvent | undefined, update: RoomUpdate): TimelineEvent | undefined => {
  const known = update.initial ? undefined : previous
  const newest = update.timeline.findLast((event) => !isRedaction(event))
  const chosen = newest !== undefined && (known === undefined || isNewer(newest, known, update)) ? newest : known
  return chosen === undefined ? undefined : withRedactions(chosen, update.timeline)
}
