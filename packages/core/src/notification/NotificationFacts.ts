/**
 * What is known about the rooms and the people of notifications, wherever it was learnt.
 *
 * There are three sources: what the application's own connection has stored, a sliding sync of the notification's own, and
 * the surroundings of an event (`/context`). Each adds to the facts; nothing is kept beyond one batch of pushes.
 *
 * Invariants: I7 (content that isn't what the spec says counts as not told).
 *
 * Gotchas: the surroundings are the state as of the event, so they only fill gaps. Names are told apart among the members
 * that are known, which sliding sync and the surroundings tell lazily (spec: "Lazy-loading room members").
 *
 * Not here: what to show or not (`NotificationRules.ts`).
 */
import { Predicate } from "effect"
import type {
  EphemeralEvent,
  EventId,
  JsonObject,
  RoomId,
  StateEvent,
  TimelineEvent,
  UserId
} from "../matrix/MatrixEvent.ts"
import { whyNotStateEvent } from "../matrix/MatrixEvent.ts"
import * as PushRules from "../matrix/PushRules.ts"
import { emptyRoomUpdate, type Hero, type RoomUpdate, type SyncResponse } from "../matrix/SlidingSync.ts"
import { countServiceMembers } from "../rooms/DisplayName.ts"
import type { Room } from "../rooms/Room.ts"
import { directRooms } from "../rooms/RoomExtensions.ts"
import * as RoomState from "../rooms/RoomState.ts"
import { redactedIds } from "../rooms/RoomTimeline.ts"
import { membershipOf, text } from "../rooms/StateFacts.ts"
import type { NotificationRoom, NotificationSender } from "./NotificationItem.ts"

/** Account data that decides about notifications. */
export const ACCOUNT_DATA = ["m.push_rules", "m.ignored_user_list", "m.direct"] as const

/** Room state that is read besides what makes a room's summary. */
export const ROOM_STATE = ["m.room.power_levels", "m.room.join_rules", "m.room.create"] as const

/** A member of a room, as his member event tells. */
interface Member {
  readonly displayName: string | undefined
  readonly avatarUrl: string | undefined
  readonly isPresent: boolean
}

/** What is known of one room. */
export interface RoomFacts {
  /** Absent until something tells of the room. */
  readonly room?: Room
  /** Whether the members were counted: surroundings don't count them. */
  readonly isCounted: boolean
  readonly members: ReadonlyMap<UserId, Member>
  /** Contents of the room's state, by type; of those with an empty state key. */
  readonly state: ReadonlyMap<string, StateEvent>
  /** Events that were taken back. */
  readonly redacted: ReadonlySet<EventId>
}

/** Everything that is known. */
export interface Facts {
  readonly ownUserId: UserId
  /** Absent while the account's push rules aren't known. */
  readonly rules?: PushRules.Ruleset
  readonly ignored: ReadonlySet<UserId>
  readonly direct: ReadonlySet<RoomId>
  readonly rooms: ReadonlyMap<RoomId, RoomFacts>
}

/** Nothing is known yet. */
export const none = (ownUserId: UserId): Facts => ({
  ownUserId,
  ignored: new Set(),
  direct: new Set(),
  rooms: new Map()
})

const unknownRoom: RoomFacts = { isCounted: false, members: new Map(), state: new Map(), redacted: new Set() }

const roomFacts = (facts: Facts, roomId: RoomId): RoomFacts => facts.rooms.get(roomId) ?? unknownRoom

const withRoom = (facts: Facts, roomId: RoomId, known: RoomFacts): Facts => ({
  ...facts,
  rooms: new Map(facts.rooms).set(roomId, known)
})

const memberOf = ({ content }: StateEvent): Member => {
  const membership = membershipOf(content)
  return {
    displayName: text(content, "displayname") ?? undefined,
    avatarUrl: text(content, "avatar_url") ?? undefined,
    isPresent: membership === "join" || membership === "invite"
  }
}

/** Adds state events to what is known of a room; `fills` adds only what isn't known. */
const withState = (known: RoomFacts, events: ReadonlyArray<StateEvent>, fills: boolean): RoomFacts => {
  const members = new Map(known.members)
  const state = new Map(known.state)
  for (const event of events) {
    if (event.type === "m.room.member") {
      if (!fills || !members.has(event.state_key)) members.set(event.state_key, memberOf(event))
    } else if (event.state_key === "" && !(fills && state.has(event.type))) {
      state.set(event.type, event)
    }
  }
  return { ...known, members, state }
}

const withRedactions = (known: RoomFacts, timeline: ReadonlyArray<TimelineEvent>): RoomFacts => {
  const ids = redactedIds(timeline)
  return ids.length === 0 ? known : { ...known, redacted: new Set([...known.redacted, ...ids]) }
}

// --- account data

const ignoredUsers = ({ content }: EphemeralEvent): ReadonlySet<UserId> =>
  new Set(Predicate.isObject(content.ignored_users) ? Object.keys(content.ignored_users) : [])

/** Adds global account data; a later event replaces an earlier one of its type. */
export const withAccountData = (facts: Facts, events: ReadonlyArray<EphemeralEvent>): Facts =>
  events.reduce<Facts>((known, event) => {
    switch (event.type) {
      case "m.push_rules":
        return { ...known, rules: PushRules.decode(event.content).ruleset }
      case "m.ignored_user_list":
        return { ...known, ignored: ignoredUsers(event) }
      case "m.direct":
        return { ...known, direct: directRooms(event) }
      default:
        return known
    }
  }, facts)

// --- rooms

const isStateEvent = (event: object): event is StateEvent => "content" in event && "state_key" in event

const stateOf = (update: RoomUpdate): ReadonlyArray<StateEvent> =>
  [...update.strippedState, ...update.timeline, ...update.requiredState].filter(isStateEvent)

const withUpdate = (facts: Facts, update: RoomUpdate): Facts => {
  const { roomId } = update
  const known = roomFacts(facts, roomId)
  const room = RoomState.apply(known.room, update, facts)
  const isCounted = known.isCounted || update.joinedCount !== undefined
  const told = withRedactions(withState(known, stateOf(update), false), update.timeline)
  return withRoom(facts, roomId, { ...told, room, isCounted })
}

/** Adds what a sliding sync brought. */
export const withSync = (facts: Facts, response: SyncResponse): Facts =>
  response.rooms
    .filter(({ roomId }) => roomId.startsWith("!"))
    .reduce(withUpdate, withAccountData(facts, response.extensions.accountData?.global ?? []))

/** A room of the application's own connection, as it is stored. */
export interface StoredRoom {
  readonly room: Room
  readonly state: ReadonlyArray<StateEvent>
  /** The newest part of its timeline, ascending. */
  readonly timeline: ReadonlyArray<TimelineEvent>
}

/** Adds what the application's own connection has stored. */
export const withStored = (facts: Facts, { room, state, timeline }: StoredRoom): Facts => {
  const told = withRedactions(withState(roomFacts(facts, room.roomId), state, false), timeline)
  return withRoom(facts, room.roomId, { ...told, room, isCounted: room.joinedCount > 0 })
}

const heroOf = (event: StateEvent): Hero => {
  const { avatarUrl, displayName } = memberOf(event)
  return {
    userId: event.state_key,
    ...(displayName !== undefined && { displayName }),
    ...(avatarUrl !== undefined && { avatarUrl })
  }
}

/** A room as its state tells: the members that are known stand for all, in the name of a room without one. */
const roomByState = (facts: Facts, roomId: RoomId, state: ReadonlyArray<StateEvent>): Room => {
  const heroes = state
    .filter((event) => event.type === "m.room.member" && event.state_key !== facts.ownUserId)
    .filter((event) => memberOf(event).isPresent)
    .map(heroOf)
  const told = { ...emptyRoomUpdate(roomId), initial: true, requiredState: state, heroes }
  return RoomState.apply(undefined, { ...told, joinedCount: heroes.length + 1 }, facts)
}

/** Adds the surroundings of an event: state as of then, as raw JSON. */
export const withContext = (facts: Facts, roomId: RoomId, state: ReadonlyArray<JsonObject>): Facts => {
  const events = state.filter((raw): raw is StateEvent => whyNotStateEvent(raw) === undefined)
  const known = roomFacts(facts, roomId)
  const room = known.room ?? roomByState(facts, roomId, events)
  return withRoom(facts, roomId, { ...withState(known, events, true), room })
}

// --- reading

/** Whether the room's own state is known, so that its name is the real one. */
export const isRoomKnown = (facts: Facts, roomId: RoomId): boolean => facts.rooms.get(roomId)?.room !== undefined

/** Whether the sender's name in the room is known. */
export const isSenderKnown = (facts: Facts, roomId: RoomId, userId: UserId): boolean =>
  roomFacts(facts, roomId).members.has(userId)

/** Who sent something, as far as it is known. */
export const senderOf = (facts: Facts, roomId: RoomId, userId: UserId): NotificationSender => {
  const { members, room } = roomFacts(facts, roomId)
  const member = members.get(userId)
  const hero = room?.heroes.find((known) => known.userId === userId)
  const name = member?.displayName ?? hero?.displayName ?? userId
  const avatarUrl = member?.avatarUrl ?? hero?.avatarUrl
  const isShared = ([other, { displayName, isPresent }]: readonly [UserId, Member]): boolean =>
    other !== userId && isPresent && displayName === name
  const isHeros = (room?.heroes ?? []).some((other) => other.userId !== userId && other.displayName === name)
  return {
    userId,
    name,
    isNameAmbiguous: name !== userId && (isHeros || [...members].some(isShared)),
    ...(avatarUrl !== undefined && { avatarUrl })
  }
}

/** Service members take part in no conversation, so they aren't counted (MSC4171). */
const countedWithout = (room: Room, ownUserId: UserId): number =>
  Math.max(1, room.joinedCount - countServiceMembers(room, ownUserId))

const joinRuleOf = ({ state }: RoomFacts): string | undefined =>
  text(state.get("m.room.join_rules")?.content ?? {}, "join_rule") ?? undefined

/** The room, as far as it is known; its id stands for the name of one that isn't. */
export const roomOf = (facts: Facts, roomId: RoomId): NotificationRoom => {
  const known = roomFacts(facts, roomId)
  const isDirect = facts.direct.has(roomId)
  const { isCounted } = known
  if (known.room === undefined) return { roomId, name: roomId, isEncrypted: false, isDirect }
  const room = RoomState.setDm(known.room, known.room.isDm || isDirect, facts)
  const joinRule = joinRuleOf(known)
  return {
    roomId,
    name: room.displayName,
    ...(room.avatar !== undefined && { avatarUrl: room.avatar }),
    ...(room.canonicalAlias !== undefined && { canonicalAlias: room.canonicalAlias }),
    ...(room.topic !== undefined && { topic: room.topic }),
    ...(joinRule !== undefined && { joinRule }),
    isEncrypted: room.isEncrypted,
    isDirect: room.isDm,
    ...(isCounted && {
      joinedCount: countedWithout(room, facts.ownUserId),
      invitedCount: room.invitedCount
    })
  }
}

/** Whether an event has been taken back. Spec: "Redactions". */
export const isRedacted = (facts: Facts, roomId: RoomId, event: TimelineEvent | StateEvent): boolean => {
  const { unsigned } = event
  const isMarked = Predicate.isObject(unsigned) && Predicate.hasProperty(unsigned, "redacted_because")
  return isMarked || (event.event_id !== undefined && roomFacts(facts, roomId).redacted.has(event.event_id))
}

/** From room version 12 on, creators have all power. Spec: "Room version 12". */
const CREATORS_REIGN = 12

/** Whether a version is a text with a number, which not every version is; an object has no number, and may throw when asked. */
const isReign = (version: unknown): boolean => Predicate.isString(version) && Number(version) >= CREATORS_REIGN

const creatorsOf = ({ state }: RoomFacts): ReadonlyArray<UserId> => {
  const create = state.get("m.room.create")
  if (create === undefined || !isReign(create.content.room_version)) return []
  const additional = create.content.additional_creators
  const creators: ReadonlyArray<unknown> = [create.sender, ...(Array.isArray(additional) ? additional : [])]
  return creators.filter(Predicate.isString)
}

/** What push rules ask of a room. `isThreadSubscribed`: whether the user follows the event's thread, if that is known. */
export const ruleContext = (facts: Facts, roomId: RoomId, isThreadSubscribed?: boolean): PushRules.RuleContext => {
  const known = roomFacts(facts, roomId)
  const { isCounted, members, room, state } = known
  return {
    ownUserId: facts.ownUserId,
    roomId,
    ownDisplayName: members.get(facts.ownUserId)?.displayName,
    joinedCount: isCounted ? room?.joinedCount : undefined,
    powerLevels: state.get("m.room.power_levels")?.content,
    creators: creatorsOf(known),
    isThreadSubscribed
  }
}
