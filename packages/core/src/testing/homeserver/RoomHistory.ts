/**
 * Reading rooms of the homeserver model: one event, its context, pages of history, members, state.
 *
 * Gotchas: a token of history is `t<n>`, the place just after stream number n. The position of a sliding sync is taken as
 * one as well, as the merged MSC4186 allows.
 *
 * Source: client-server API, "Getting events for a room".
 */
import { Result } from "effect"
import type { EventId, JsonObject, RoomId, StateEvent, TimelineEvent } from "../../matrix/MatrixEvent.ts"
import type { Outcome, Requester, Room, StoredEvent, UserRoom } from "./ModelState.ts"
import { firstAfter, refuse } from "./ModelState.ts"
import { shown } from "./Rooms.ts"

/** The token of history that stands just after a stream number. */
export const tokenAt = (stream: number): string => `t${stream}`

const streamOf = (token: string): Outcome<number> => {
  const [, number] = /^(?:t|\d+\/s)(\d+)$/.exec(token) ?? []
  return number === undefined
    ? refuse(400, "M_INVALID_PARAM", `"${token}" is not a token`)
    : Result.succeed(Number(number))
}

/** How far into a room's timeline a user sees: all of it while joined, up to his leaving after, nothing when only invited. */
export const visibleEnd = ({ room, membership, memberStream, wasJoined }: UserRoom): number => {
  if (membership === "join") return room.timeline.length
  return wasJoined && (membership === "leave" || membership === "ban") ? firstAfter(room.timeline, memberStream) : 0
}

interface Visible {
  readonly room: Room
  readonly timeline: ReadonlyArray<StoredEvent>
}

const visible = ({ user }: Requester, roomId: RoomId): Outcome<Visible> => {
  const userRoom = user.rooms.get(roomId)
  const end = userRoom === undefined ? 0 : visibleEnd(userRoom)
  return userRoom === undefined || end === 0
    ? refuse(403, "M_FORBIDDEN", `${user.userId} can't see into the room ${roomId}`)
    : Result.succeed({
        room: userRoom.room,
        timeline: end === userRoom.room.timeline.length ? userRoom.room.timeline : userRoom.room.timeline.slice(0, end)
      })
}

const find = ({ timeline }: Visible, eventId: EventId): Outcome<number> => {
  const index = timeline.findIndex(({ event }) => event.event_id === eventId)
  return index < 0 ? refuse(404, "M_NOT_FOUND", `there is no event ${eventId} that may be seen`) : Result.succeed(index)
}

/** `GET /rooms/{roomId}/event/{eventId}` */
export const event = (requester: Requester, roomId: RoomId, eventId: EventId): Outcome<TimelineEvent> =>
  Result.gen(function* () {
    const seen = yield* visible(requester, roomId)
    const stored = seen.timeline[yield* find(seen, eventId)]
    return stored === undefined
      ? yield* refuse(404, "M_NOT_FOUND", `there is no event ${eventId}`)
      : shown(stored, requester, roomId)
  })

const currentState = (room: Room): ReadonlyArray<StoredEvent> =>
  [...room.state.values()].flatMap((byKey) => [...byKey.values()])

/** An event with its surroundings, as the wire has it. `events_before` is newest first. */
export interface Context {
  readonly event: TimelineEvent
  readonly events_before: ReadonlyArray<TimelineEvent>
  readonly events_after: ReadonlyArray<TimelineEvent>
  readonly state: ReadonlyArray<TimelineEvent>
  readonly start: string
  readonly end: string
}

/** How much of an event's surroundings is wanted. */
export interface ContextRequest {
  readonly roomId: RoomId
  readonly eventId: EventId
  /** Counts the events before and after together. */
  readonly limit: number
  /** Of all members only the senders of the events; the user's own comes no more than on Synapse. */
  readonly lazyMembers?: boolean
}

/** `GET /rooms/{roomId}/context/{eventId}` */
export const context = (
  requester: Requester,
  { roomId, eventId, limit, lazyMembers = false }: ContextRequest
): Outcome<Context> =>
  Result.gen(function* () {
    const seen = yield* visible(requester, roomId)
    const index = yield* find(seen, eventId)
    const show = (stored: StoredEvent) => shown(stored, requester, roomId)
    const before = seen.timeline.slice(Math.max(0, index - Math.floor(limit / 2)), index)
    const after = seen.timeline.slice(index + 1, index + 1 + Math.ceil(limit / 2))
    const stored = seen.timeline[index] as StoredEvent
    const senders = new Set([...before, stored, ...after].map(({ event: { sender } }) => sender))
    const isWanted = ({ event: { type, state_key = "" } }: StoredEvent): boolean =>
      !lazyMembers || type !== "m.room.member" || senders.has(state_key)
    return {
      event: show(stored),
      events_before: before.map(show).reverse(),
      events_after: after.map(show),
      state: currentState(seen.room).filter(isWanted).map(show),
      start: tokenAt((before[0] ?? stored).stream - 1),
      end: tokenAt((after.at(-1) ?? stored).stream)
    }
  })

/** A page of history: `dir` is backwards or forwards, `limit` counts events, `from` and `to` are tokens. */
export interface MessagesRequest {
  readonly roomId: RoomId
  readonly dir: "b" | "f"
  readonly from?: string
  readonly to?: string
  readonly limit: number
}

/** A page of history, in the direction that was asked for. */
export interface Messages {
  readonly chunk: ReadonlyArray<TimelineEvent>
  readonly start: string
  /** Absent at the end of what there is. */
  readonly end?: string
}

/** `GET /rooms/{roomId}/messages`: a page of history, backwards (newest first) or forwards. */
export const messages = (requester: Requester, request: MessagesRequest): Outcome<Messages> =>
  Result.gen(function* () {
    const { timeline } = yield* visible(requester, request.roomId)
    const backwards = request.dir === "b"
    const first = timeline[0]?.stream ?? 0
    const last = timeline.at(-1)?.stream ?? 0
    const from = request.from === undefined ? (backwards ? last : 0) : yield* streamOf(request.from)
    const to = request.to === undefined ? (backwards ? 0 : last) : yield* streamOf(request.to)
    const between = timeline.slice(firstAfter(timeline, Math.min(from, to)), firstAfter(timeline, Math.max(from, to)))
    const page = backwards ? between.slice(-request.limit).reverse() : between.slice(0, request.limit)
    const end = page.at(-1)?.stream
    const more = end !== undefined && (backwards ? end > first : end < last)
    return {
      chunk: page.map((stored) => shown(stored, requester, request.roomId)),
      start: tokenAt(from),
      ...(more && { end: tokenAt(backwards ? end - 1 : end) })
    }
  })

/** `GET /rooms/{roomId}/state` */
export const state = (requester: Requester, roomId: RoomId): Outcome<ReadonlyArray<TimelineEvent>> =>
  Result.map(visible(requester, roomId), ({ room }) =>
    currentState(room).map((stored) => shown(stored, requester, roomId))
  )

/** `GET /rooms/{roomId}/state/{type}/{stateKey}`: the content. */
export const stateContent = (
  requester: Requester,
  request: { readonly roomId: RoomId; readonly type: string; readonly stateKey: string }
): Outcome<JsonObject> =>
  Result.flatMap(visible(requester, request.roomId), ({ room }) => {
    const stored = room.state.get(request.type)?.get(request.stateKey)
    return stored === undefined
      ? refuse(404, "M_NOT_FOUND", `the room has no ${request.type} "${request.stateKey}"`)
      : Result.succeed(stored.event.content)
  })

/** Which members are wanted: of one membership, of all but one, or both at once. */
export interface MembersFilter {
  readonly membership?: string
  readonly notMembership?: string
}

/** `GET /rooms/{roomId}/members`: the membership events. */
export const members = (
  requester: Requester,
  roomId: RoomId,
  { membership, notMembership }: MembersFilter = {}
): Outcome<ReadonlyArray<TimelineEvent>> =>
  Result.map(visible(requester, roomId), ({ room }) =>
    [...(room.state.get("m.room.member")?.values() ?? [])]
      .filter(({ event: { content } }) => membership === undefined || content.membership === membership)
      .filter(({ event: { content } }) => notMembership === undefined || content.membership !== notMembership)
      .map((stored) => shown(stored, requester, roomId))
  )

const strippedTypes = [
  "m.room.create",
  "m.room.name",
  "m.room.avatar",
  "m.room.topic",
  "m.room.join_rules",
  "m.room.canonical_alias",
  "m.room.encryption"
]

const stripped = ({ event: { type, sender, content, state_key = "" } }: StoredEvent): StateEvent => ({
  type,
  sender,
  content,
  state_key
})

/** What an invited user sees of a room: its outline, who invites, and the invitation itself last. Spec: "Stripped state". */
export const strippedState = ({ room }: UserRoom, { user }: Requester): ReadonlyArray<StateEvent> => {
  const outline = strippedTypes.map((type) => room.state.get(type)?.get(""))
  const own = room.state.get("m.room.member")?.get(user.userId)
  const inviter = own && room.state.get("m.room.member")?.get(own.event.sender)
  return [...outline, inviter === own ? undefined : inviter, own].flatMap((stored) =>
    stored ? [stripped(stored)] : []
  )
}
