/**
 * What a room update's state events say about a room's summary.
 *
 * Includes the reading of required state, timeline state and stripped state into one record of facts. The three are read
 * alike because the unstable spelling of MSC4186 says some things only there: the requester's membership, and that a name
 * or an avatar was removed. And the redaction of a state event, which is told by the redaction alone.
 *
 * Invariants: I7 (content that isn't what the spec says counts as absent; the event itself stays in the commit, raw).
 *
 * Gotchas: required state is the state after the timeline, so it is read last and wins.
 *
 * Not here: what the facts do to a room (`RoomState.ts`), who invites (`StrippedState.ts`).
 */
import type {
  EventId,
  JsonObject,
  RoomId,
  StateDeletion,
  StateEvent,
  TimelineEvent,
  UserId
} from "../matrix/MatrixEvent.ts"
import type { Membership, RoomUpdate } from "../matrix/SlidingSync.ts"
import { liveEvents, redactedIds } from "./RoomTimeline.ts"

/** Facts that the state events tell. An absent one was not told; `null` means that the room has none. */
export interface StateFacts {
  readonly name?: string | null
  readonly avatar?: string | null
  readonly canonicalAlias?: string | null
  readonly topic?: string | null
  readonly roomType?: string | null
  readonly replacedBy?: RoomId | null
  readonly serviceMembers?: ReadonlyArray<UserId>
  /** Only ever true: encryption can't be switched off. Spec: `m.room.encryption`. */
  readonly isEncrypted?: true
  readonly membership?: Membership
  /** Ids of the state events that say what a redaction takes back, by type; absent when there is none. */
  readonly sources?: { readonly [type: string]: EventId }
}

type Told = { -readonly [Key in keyof StateFacts]: StateFacts[Key] }

const noContent: JsonObject = {}

/** The facts that end when their event is redacted. Not encryption, which nobody may switch off. Spec: "Redactions". */
const redactable = {
  "m.room.name": "name",
  "m.room.avatar": "avatar",
  "m.room.canonical_alias": "canonicalAlias",
  "m.room.topic": "topic",
  "m.room.tombstone": "replacedBy"
} as const

type Redactable = keyof typeof redactable

const isRedactable = (type: string): type is Redactable => Object.hasOwn(redactable, type)

/** A member of an event's content, if it is a text that isn't blank; otherwise `null`. */
export const text = (content: JsonObject, key: string): string | null => {
  const value = content[key]
  return typeof value === "string" && value.trim() !== "" ? value : null
}

const userIds = (value: unknown): ReadonlyArray<UserId> =>
  Array.isArray(value) ? value.filter((item): item is string => typeof item === "string") : []

/** The membership that a member event's content names, or `undefined` for one that the spec doesn't know. */
export const membershipOf = (content: JsonObject): Membership | undefined => {
  switch (content.membership) {
    case "join":
    case "invite":
    case "knock":
    case "leave":
    case "ban":
      return content.membership
    default:
      return undefined
  }
}

const tellOwnMembership = (told: Told, content: JsonObject | undefined): void => {
  // A deleted member event is a membership that ended.
  const membership = content === undefined ? "leave" : membershipOf(content)
  if (membership !== undefined) told.membership = membership
}

/** `content` is absent for a deletion stub, which reads as an event that says nothing. */
const tell = (told: Told, type: string, content: JsonObject): void => {
  switch (type) {
    case "m.room.name":
      told.name = text(content, "name")
      break
    case "m.room.avatar":
      told.avatar = text(content, "url")
      break
    case "m.room.canonical_alias":
      told.canonicalAlias = text(content, "alias")
      break
    case "m.room.topic":
      told.topic = text(content, "topic")
      break
    case "m.room.create":
      told.roomType = text(content, "type")
      break
    case "m.room.tombstone":
      told.replacedBy = text(content, "replacement_room")
      break
    case "m.member_hints":
    case "io.element.functional_members":
      told.serviceMembers = userIds(content.service_members)
      break
    default:
      break
  }
}

const tellEvent = (told: Told, event: StateEvent | StateDeletion | TimelineEvent, ownUserId: UserId): void => {
  const content = "content" in event ? (event.content as JsonObject) : undefined
  if (event.type === "m.room.member") {
    if (event.state_key === ownUserId) tellOwnMembership(told, content)
  } else if (event.state_key === "") {
    if (event.type === "m.room.encryption" && content !== undefined) told.isEncrypted = true
    tell(told, event.type, content ?? noContent)
  }
}

type Sources = NonNullable<StateFacts["sources"]>

/** Where the facts come from after these events; stripped ones have no id, and can't be redacted then. */
const sourcesAfter = (before: Sources, events: ReadonlyArray<StateEvent | StateDeletion | TimelineEvent>): Sources => {
  const sources: Record<string, EventId> = { ...before }
  for (const event of events) {
    if (event.state_key !== "" || !isRedactable(event.type)) continue
    if ("event_id" in event && typeof event.event_id === "string") sources[event.type] = event.event_id
    else delete sources[event.type]
  }
  return sources
}

const tellRedactions = (told: Told, sources: Sources, redacted: ReadonlyArray<EventId>): Sources => {
  if (redacted.length === 0) return sources
  const isLeft = ([type, eventId]: readonly [string, EventId]): boolean => {
    if (!redacted.includes(eventId)) return true
    if (isRedactable(type)) told[redactable[type]] = null
    return false
  }
  return Object.fromEntries(Object.entries(sources).filter(isLeft))
}

/**
 * Reads an update's state events, and the redactions of those and of earlier ones.
 *
 * The history in an expanded timeline is left out: it tells what the state once was.
 *
 * @param before ids of the state events that the facts known so far come from, by type
 */
export const stateFacts = (update: RoomUpdate, ownUserId: UserId, before: Sources = {}): StateFacts => {
  const told: Told = {}
  const timeline = update.expandedTimeline ? liveEvents(update) : update.timeline
  const inTimeline = timeline.filter((event) => event.state_key !== undefined)
  const events = [...inTimeline, ...update.requiredState, ...update.strippedState]
  for (const event of events) tellEvent(told, event, ownUserId)
  // What was redacted stays so: a redaction holds also where it is history.
  const sources = tellRedactions(told, sourcesAfter(before, events), redactedIds(update.timeline))
  return Object.keys(sources).length === 0 ? told : { ...told, sources }
}
