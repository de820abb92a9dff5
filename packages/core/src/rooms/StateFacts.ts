/**
 * What a room update's state events say about a room's summary.
 *
 * Includes the reading of required state, timeline state and stripped state into one record of facts. The three are read
 * alike because the unstable spelling of MSC4186 says some things only there: the requester's membership, and that a name
 * or an avatar was removed.
 *
 * Invariants: I7 (content that isn't what the spec says counts as absent; the event itself stays in the commit, raw).
 *
 * Gotchas: required state is the state after the timeline, so it is read last and wins.
 *
 * Not here: what the facts do to a room (`RoomState.ts`), who invites (`StrippedState.ts`).
 */
import type { JsonObject, RoomId, StateDeletion, StateEvent, TimelineEvent, UserId } from "../matrix/MatrixEvent.ts"
import type { Membership, RoomUpdate } from "../matrix/SlidingSync.ts"
import { liveEvents } from "./RoomTimeline.ts"

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
}

type Told = { -readonly [Key in keyof StateFacts]: StateFacts[Key] }

const noContent: JsonObject = {}

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

/**
 * Reads an update's state events.
 *
 * The history in an expanded timeline is left out: it tells what the state once was.
 */
export const stateFacts = (update: RoomUpdate, ownUserId: UserId): StateFacts => {
  const told: Told = {}
  for (const event of update.expandedTimeline ? liveEvents(update) : update.timeline) {
    if (event.state_key !== undefined) tellEvent(told, event, ownUserId)
  }
  for (const event of update.requiredState) tellEvent(told, event, ownUserId)
  for (const event of update.strippedState) tellEvent(told, event, ownUserId)
  return told
}
