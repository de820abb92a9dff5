/**
 * What surrounds the events of a room in the homeserver model: typing, receipts, account data.
 *
 * Gotchas: typing that runs out is noticed when somebody looks; it wakes no poll by itself.
 *
 * Source: client-server API, "Typing Notifications", "Receipts", "Client Config".
 */
import { Predicate, Result } from "effect"
import type { EphemeralEvent, EventId, JsonObject, RoomId } from "../../matrix/MatrixEvent.ts"
import { joinedRoom } from "./Rooms.ts"
import type { ModelState, Outcome, Requester, Room, User, UserRoom } from "./ModelState.ts"
import { nextStream, refuse, touch } from "./ModelState.ts"
import { eventRead } from "./Pushes.ts"

const touchJoined = (state: ModelState, room: Room): void => {
  for (const [userId, membership] of room.members) if (membership === "join") touch(state, userId)
}

/** `PUT /rooms/{roomId}/typing/{userId}` */
export const setTyping = (
  state: ModelState,
  { user }: Requester,
  request: { readonly roomId: RoomId; readonly typing: boolean; readonly timeoutMillis: number },
  nowMillis: number
): Outcome<void> =>
  Result.map(joinedRoom(state, user, request.roomId), (room) => {
    if (request.typing) room.typing.set(user.userId, nowMillis + request.timeoutMillis)
    else room.typing.delete(user.userId)
    room.typingStream = nextStream(state)
    touchJoined(state, room)
  })

/** Who types in a room, as the event that says so. */
export const typingEvent = (room: Room, nowMillis: number): EphemeralEvent => ({
  type: "m.typing",
  content: { user_ids: [...room.typing].flatMap(([userId, until]) => (until > nowMillis ? [userId] : [])) }
})

/** Receipts that say what was read. */
const readTypes: ReadonlySet<string> = new Set(["m.read", "m.read.private"])

/** `POST /rooms/{roomId}/receipt/{type}/{eventId}` */
export const setReceipt = (
  state: ModelState,
  { user }: Requester,
  request: { readonly roomId: RoomId; readonly type: string; readonly eventId: EventId },
  nowMillis: number
): Outcome<void> =>
  Result.map(joinedRoom(state, user, request.roomId), (room) => {
    const { type, eventId } = request
    const stream = nextStream(state)
    room.receipts.set(`${user.userId}\u0000${type}`, {
      stream,
      userId: user.userId,
      type,
      eventId,
      atMillis: nowMillis
    })
    room.receiptsStream = stream
    if (readTypes.has(type)) eventRead(state, user, room, eventId)
    touchJoined(state, room)
  })

/** The receipts of a room that came after a stream number; private ones only to their owner. Undefined when there are none. */
export const receiptsAfter = (room: Room, me: User, since: number): EphemeralEvent | undefined => {
  const content: { [eventId: EventId]: { [type: string]: { [userId: string]: JsonObject } } } = {}
  let found = false
  for (const { stream, userId, type, eventId, atMillis } of room.receipts.values()) {
    if (stream <= since || (type === "m.read.private" && userId !== me.userId)) continue
    found = true
    const byType = (content[eventId] ??= {})
    const byUser = (byType[type] ??= {})
    byUser[userId] = { ts: atMillis }
  }
  return found ? { type: "m.receipt", content } : undefined
}

const directRoomsOf = (content: JsonObject): ReadonlySet<RoomId> =>
  new Set(Object.values(content).flatMap((rooms) => (Array.isArray(rooms) ? rooms.filter(Predicate.isString) : [])))

/** `PUT /user/{userId}/account_data/{type}`, or with a room `/rooms/{roomId}/account_data/{type}`. */
export const setAccountData = (
  state: ModelState,
  user: User,
  request: { readonly type: string; readonly content: JsonObject; readonly roomId?: RoomId }
): Outcome<void> => {
  const { type, content, roomId } = request
  const userRoom = roomId === undefined ? undefined : user.rooms.get(roomId)
  if (roomId !== undefined && userRoom === undefined)
    return refuse(403, "M_FORBIDDEN", `${user.userId} is not in the room ${roomId}`)
  const stream = nextStream(state)
  const place = userRoom?.accountData ?? user.accountData
  place.set(type, { stream, content })
  if (userRoom !== undefined) userRoom.accountDataStream = stream
  if (type === "m.direct" && userRoom === undefined) user.directRooms = directRoomsOf(content)
  touch(state, user.userId)
  return Result.succeed(undefined)
}

/** `GET` of the same; `M_NOT_FOUND` when it was never set. */
export const accountData = ({ user }: Requester, type: string, roomId?: RoomId): Outcome<JsonObject> => {
  const place = roomId === undefined ? user.accountData : user.rooms.get(roomId)?.accountData
  const stored = place?.get(type)
  return stored === undefined
    ? refuse(404, "M_NOT_FOUND", `there is no account data "${type}"`)
    : Result.succeed(stored.content)
}

/** Account data that changed after a stream number. */
export const accountDataAfter = (owner: User | UserRoom, since: number): ReadonlyArray<EphemeralEvent> =>
  [...owner.accountData].flatMap(([type, { stream, content }]) => (stream > since ? [{ type, content }] : []))
