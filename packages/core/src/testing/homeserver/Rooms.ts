/**
 * Rooms of the homeserver model: creating, membership, sending, redacting.
 *
 * Authorisation is the part that clients meet: only joined members send, invite and read on; joining takes a public room or
 * an invitation. Power levels are kept as state and not enforced.
 *
 * Source: client-server API, "Rooms"; bump types of MSC4186.
 */
import { Predicate, Result } from "effect"
import type { EventId, JsonObject, RoomId, TimelineEvent, UserId } from "../../matrix/MatrixEvent.ts"
import type { Membership } from "../../matrix/SlidingSync.ts"
import { profile } from "./Accounts.ts"
import { canonicalJson } from "./CanonicalJson.ts"
import type { ModelState, Outcome, Requester, Room, StoredEvent, User, UserRoom } from "./ModelState.ts"
import { nextId, nextStream, refuse, touch } from "./ModelState.ts"
import { eventAdded, eventRedacted } from "./Pushes.ts"

/** Events that make a room recent (MSC4186, as Synapse has them). */
const bumpTypes: ReadonlySet<string> = new Set([
  "m.room.create",
  "m.room.message",
  "m.room.encrypted",
  "m.sticker",
  "m.call.invite",
  "m.poll.start",
  "org.matrix.msc3381.poll.start",
  "m.beacon_info",
  "org.matrix.msc3672.beacon_info"
])

/** Whether an event of this type makes its room recent. */
export const isBump = (type: string): boolean => bumpTypes.has(type)

/** An event to add to a room. */
export interface NewEvent {
  readonly type: string
  readonly sender: UserId
  readonly content: JsonObject
  readonly stateKey?: string
  readonly redacts?: EventId
  readonly transaction?: StoredEvent["transaction"]
}

const asMembership = (value: unknown): Membership =>
  value === "join" || value === "invite" || value === "knock" || value === "ban" ? value : "leave"

/** The state event that holds, or undefined. */
export const stateEvent = (room: Room, type: string, stateKey: string): StoredEvent | undefined =>
  room.state.get(type)?.get(stateKey)

const isDrawnFrom = (previous: StoredEvent | undefined): JsonObject | undefined =>
  previous && { replaces_state: previous.event.event_id, prev_content: previous.event.content }

const setState = (room: Room, stateKey: string, stored: StoredEvent): void => {
  const byKey = room.state.get(stored.event.type) ?? new Map<string, StoredEvent>()
  room.state.set(stored.event.type, byKey.set(stateKey, stored))
}

const userRoomOf = (user: User, room: Room): UserRoom => {
  const known = user.rooms.get(room.roomId)
  if (known !== undefined) return known
  const userRoom: UserRoom = {
    room,
    membership: "leave",
    memberStream: 0,
    leftBySelf: true,
    wasJoined: false,
    accountData: new Map(),
    accountDataStream: 0,
    unread: []
  }
  user.rooms.set(room.roomId, userRoom)
  user.sortedRooms.push(userRoom)
  return userRoom
}

const setMembership = (state: ModelState, room: Room, target: UserId, stored: StoredEvent): void => {
  const before = room.members.get(target)
  const now = asMembership(stored.event.content.membership)
  room.members.set(target, now)
  room.joinedCount += Number(now === "join") - Number(before === "join")
  room.invitedCount += Number(now === "invite") - Number(before === "invite")
  if (now !== before)
    state.membershipChanges.push({ stream: stored.stream, roomId: room.roomId, userId: target, before, now })
  const user = state.users.get(target)
  if (user === undefined) return
  const userRoom = userRoomOf(user, room)
  userRoom.membership = now
  userRoom.memberStream = stored.stream
  userRoom.leftBySelf = now === "leave" && stored.event.sender === target
  userRoom.wasJoined ||= now === "join"
  // Who comes in has read what was before: without a receipt, Synapse counts from the membership.
  if (now !== before) userRoom.unread = []
  user.unsorted = true
  touch(state, target)
}

const toMembers = (state: ModelState, room: Room): void => {
  for (const [userId, membership] of room.members) {
    if (membership !== "join") continue
    const user = state.users.get(userId)
    if (user !== undefined) user.unsorted = true
    touch(state, userId)
  }
}

/** Adds an event to a room, without asking who may. */
export const append = (state: ModelState, room: Room, event: NewEvent, nowMillis: number): StoredEvent => {
  const previous = event.stateKey === undefined ? undefined : stateEvent(room, event.type, event.stateKey)
  const unsigned = isDrawnFrom(previous)
  const json: TimelineEvent = {
    type: event.type,
    sender: event.sender,
    content: event.content,
    event_id: `$event${nextId(state)}`,
    origin_server_ts: nowMillis,
    ...(event.stateKey !== undefined && { state_key: event.stateKey }),
    ...(event.redacts !== undefined && { redacts: event.redacts }),
    ...(unsigned && { unsigned })
  }
  const stored: StoredEvent = {
    stream: nextStream(state),
    event: json,
    ...(event.transaction && { transaction: event.transaction })
  }
  room.timeline.push(stored)
  room.lastStream = stored.stream
  if (isBump(event.type)) room.bumpStamp = stored.stream
  state.events.set(json.event_id, { room, stored })
  if (event.stateKey !== undefined) setState(room, event.stateKey, stored)
  if (event.type === "m.room.member" && event.stateKey !== undefined) setMembership(state, room, event.stateKey, stored)
  toMembers(state, room)
  eventAdded(state, room, stored)
  return stored
}

const memberContent = (user: User | undefined, membership: Membership, extra: JsonObject = {}): JsonObject => ({
  membership,
  ...(user && profile(user)),
  ...extra
})

/** How a room is made. Spec: `POST /createRoom`. */
export interface NewRoom {
  /** Chosen by the homeserver when absent. */
  readonly roomId?: RoomId
  readonly name?: string
  readonly topic?: string
  readonly isDirect?: boolean
  readonly isPublic?: boolean
  readonly invite?: ReadonlyArray<UserId>
  readonly creationContent?: JsonObject
  readonly initialState?: ReadonlyArray<{
    readonly type: string
    readonly stateKey: string
    readonly content: JsonObject
  }>
}

/** `POST /createRoom`: the creator joins, then come the preset, the initial state, the name and the invitations. */
export const createRoom = (state: ModelState, creator: User, options: NewRoom, nowMillis: number): Room => {
  const room: Room = {
    roomId: options.roomId ?? `!room${nextId(state)}:${state.options.serverName}`,
    timeline: [],
    state: new Map(),
    members: new Map(),
    joinedCount: 0,
    invitedCount: 0,
    lastStream: 0,
    bumpStamp: 0,
    typing: new Map(),
    typingStream: 0,
    receipts: new Map(),
    receiptsStream: 0
  }
  state.rooms.set(room.roomId, room)
  const sender = creator.userId
  const set = (type: string, content: JsonObject, stateKey = "") =>
    append(state, room, { type, sender, content, stateKey }, nowMillis)
  set("m.room.create", { room_version: "11", ...options.creationContent })
  set("m.room.member", memberContent(creator, "join"), sender)
  set("m.room.power_levels", { users: { [sender]: 100 }, users_default: 0, state_default: 50, events_default: 0 })
  set("m.room.join_rules", { join_rule: options.isPublic === true ? "public" : "invite" })
  set("m.room.history_visibility", { history_visibility: "shared" })
  for (const initial of options.initialState ?? []) set(initial.type, initial.content, initial.stateKey)
  if (options.name !== undefined) set("m.room.name", { name: options.name })
  if (options.topic !== undefined) set("m.room.topic", { topic: options.topic })
  const extra = options.isDirect === true ? { is_direct: true } : {}
  for (const invited of options.invite ?? [])
    set("m.room.member", memberContent(state.users.get(invited), "invite", extra), invited)
  return room
}

/** The room, if the user is joined to it; else `M_FORBIDDEN`, as for a room that doesn't exist. */
export const joinedRoom = (state: ModelState, user: User, roomId: RoomId): Outcome<Room> => {
  const room = state.rooms.get(roomId)
  return room === undefined || room.members.get(user.userId) !== "join"
    ? refuse(403, "M_FORBIDDEN", `${user.userId} is not in the room ${roomId}`)
    : Result.succeed(room)
}

/** `POST /join/{roomId}`; joining again changes nothing. `M_NOT_FOUND` for an unknown room, `M_FORBIDDEN` uninvited. */
export const join = (state: ModelState, user: User, roomId: RoomId, nowMillis: number): Outcome<RoomId> => {
  const room = state.rooms.get(roomId)
  if (room === undefined) return refuse(404, "M_NOT_FOUND", `there is no room ${roomId}`)
  const membership = room.members.get(user.userId)
  if (membership === "join") return Result.succeed(roomId)
  const isPublic = stateEvent(room, "m.room.join_rules", "")?.event.content.join_rule === "public"
  if (membership === "ban" || (membership !== "invite" && !isPublic))
    return refuse(403, "M_FORBIDDEN", `${user.userId} is not invited to the room ${roomId}`)
  const content = memberContent(user, "join")
  append(state, room, { type: "m.room.member", sender: user.userId, stateKey: user.userId, content }, nowMillis)
  return Result.succeed(roomId)
}

/**
 * `PUT /profile/{userId}/displayname` and `/avatar_url`; every room that the user has joined is told of what is new. Spec:
 * "Events on Change of Profile Information".
 */
export const setProfile = (
  state: ModelState,
  user: User,
  { field, value }: { readonly field: "displayname" | "avatar_url"; readonly value: string | undefined },
  nowMillis: number
): void => {
  if (profile(user)[field] === value) return
  if (field === "displayname") user.displayName = value
  else user.avatarUrl = value
  const member = { type: "m.room.member", sender: user.userId, stateKey: user.userId }
  for (const [roomId, { membership }] of user.rooms) {
    const room = state.rooms.get(roomId)
    if (membership === "join" && room !== undefined)
      append(state, room, { ...member, content: memberContent(user, "join") }, nowMillis)
  }
}

/** `POST /rooms/{roomId}/leave`, which also declines an invitation. */
export const leave = (state: ModelState, user: User, roomId: RoomId, nowMillis: number): Outcome<void> => {
  const room = state.rooms.get(roomId)
  const membership = room?.members.get(user.userId)
  if (room === undefined || membership === undefined || membership === "ban")
    return refuse(403, "M_FORBIDDEN", `${user.userId} is not in the room ${roomId}`)
  if (membership === "leave") return Result.succeed(undefined)
  const content = { membership: "leave" }
  append(state, room, { type: "m.room.member", sender: user.userId, stateKey: user.userId, content }, nowMillis)
  return Result.succeed(undefined)
}

/** `POST /rooms/{roomId}/invite`, `/kick`, `/ban`, `/unban`: what a joined member does to somebody else. */
export const setMember = (
  state: ModelState,
  user: User,
  change: { readonly roomId: RoomId; readonly target: UserId; readonly membership: "invite" | "leave" | "ban" },
  nowMillis: number
): Outcome<void> =>
  Result.flatMap(joinedRoom(state, user, change.roomId), (room) => {
    const { target, membership } = change
    const before = room.members.get(target)
    if (membership === "invite" && (before === "join" || before === "ban"))
      return refuse(403, "M_FORBIDDEN", `${target} is ${before === "ban" ? "banned" : "in the room already"}`)
    const content = membership === "invite" ? memberContent(state.users.get(target), membership) : { membership }
    append(state, room, { type: "m.room.member", sender: user.userId, stateKey: target, content }, nowMillis)
    return Result.succeed(undefined)
  })

/** Does something once per transaction id of a device; a retry gets the first result. Spec: "Transaction identifiers". */
export const once = (
  { device }: Requester,
  txnId: string | undefined,
  action: () => Outcome<string>
): Outcome<string> => {
  const done = txnId === undefined ? undefined : device.transactions.get(txnId)
  if (done !== undefined) return Result.succeed(done)
  return Result.map(action(), (result) => {
    if (txnId !== undefined) device.transactions.set(txnId, result)
    return result
  })
}

/** An event that a user sends to a room. */
export interface SendRoomEvent {
  readonly roomId: RoomId
  readonly type: string
  readonly content: JsonObject
  /** Present for state events. */
  readonly stateKey?: string
  /** Makes a retry harmless. State events have none. */
  readonly txnId?: string
}

/** The event that holds, if somebody sets once more what he has set: it is not sent again, as on Synapse. */
const holding = (room: Room, sender: UserId, { type, content, stateKey }: SendRoomEvent): StoredEvent | undefined => {
  const held = stateKey === undefined ? undefined : stateEvent(room, type, stateKey)
  return held?.event.sender === sender && canonicalJson(held.event.content) === canonicalJson(content)
    ? held
    : undefined
}

/** `PUT /rooms/{roomId}/send/…` and `/state/…`. Setting the same state again gives the event that holds. */
export const send = (
  state: ModelState,
  requester: Requester,
  request: SendRoomEvent,
  nowMillis: number
): Outcome<EventId> => {
  const { user, device } = requester
  const { roomId, type, content, stateKey, txnId } = request
  return once(requester, txnId === undefined ? undefined : `send/${roomId}/${type}/${txnId}`, () =>
    Result.map(joinedRoom(state, user, roomId), (room) => {
      const held = holding(room, user.userId, request)
      if (held !== undefined) return held.event.event_id
      const stored = append(
        state,
        room,
        {
          type,
          sender: user.userId,
          content,
          ...(stateKey !== undefined && { stateKey }),
          ...(txnId !== undefined && { transaction: { deviceId: device.deviceId, txnId } })
        },
        nowMillis
      )
      return stored.event.event_id
    })
  )
}

/** `PUT /rooms/{roomId}/redact/{eventId}/{txnId}`: empties the event's content and says so in the timeline. */
export const redact = (
  state: ModelState,
  requester: Requester,
  request: { readonly roomId: RoomId; readonly eventId: EventId; readonly txnId: string; readonly content: JsonObject },
  nowMillis: number
): Outcome<EventId> =>
  once(requester, `redact/${request.roomId}/${request.txnId}`, () =>
    Result.flatMap(joinedRoom(state, requester.user, request.roomId), (room) => {
      const target = state.events.get(request.eventId)
      if (target?.room !== room) return refuse(404, "M_NOT_FOUND", `there is no event ${request.eventId} in the room`)
      const transaction = { deviceId: requester.device.deviceId, txnId: request.txnId }
      const sender = requester.user.userId
      const content = { ...request.content, redacts: request.eventId }
      const stored = append(
        state,
        room,
        { type: "m.room.redaction", sender, content, redacts: request.eventId, transaction },
        nowMillis
      )
      target.stored.event = {
        ...target.stored.event,
        content: {},
        unsigned: { ...target.stored.event.unsigned, redacted_because: stored.event }
      }
      eventRedacted(state, room, target.stored)
      return Result.succeed(stored.event.event_id)
    })
  )

/**
 * An event as one device is shown it: the device that sent it finds its transaction id in `unsigned`. Events of a sync have
 * no room id, all others have.
 */
export const shown = (stored: StoredEvent, { user, device }: Requester, roomId?: RoomId): TimelineEvent => {
  const { event, transaction } = stored
  const mine = transaction !== undefined && transaction.deviceId === device.deviceId && event.sender === user.userId
  if (!mine && roomId === undefined) return event
  return {
    ...event,
    ...(roomId !== undefined && { room_id: roomId }),
    ...(mine && { unsigned: { ...event.unsigned, transaction_id: transaction.txnId } })
  }
}

/** A string member of a state event's content, unless it is empty. */
export const stateText = (room: Room, type: string, member: string): string | undefined => {
  const value = stateEvent(room, type, "")?.event.content[member]
  return Predicate.isString(value) && value !== "" ? value : undefined
}
