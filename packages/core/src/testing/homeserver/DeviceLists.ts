/**
 * Whose devices somebody has to look at again: `device_lists` of the e2ee extension, and `GET /keys/changes`.
 *
 * Gotchas: it isn't only about encrypted rooms, and an invitation counts like a joining, as on Synapse: keys are shared with
 * invited users before they join. A change of devices is told in the rooms that the user was in when it happened.
 *
 * Source: MSC4543; client-server API, "Tracking the device list for a user"; Synapse's `handlers/device.py`.
 */
import { Result } from "effect"
import type { JsonObject, RoomId, UserId } from "../../matrix/MatrixEvent.ts"
import type { E2eeUpdate, Membership } from "../../matrix/SlidingSync.ts"
import type { ModelState, Outcome, Requester, Room, User } from "./ModelState.ts"
import { firstAfter, nextStream, refuse, touch } from "./ModelState.ts"

type DeviceLists = NonNullable<E2eeUpdate["deviceLists"]>

const joinedRooms = (user: User): ReadonlyArray<Room> =>
  [...user.rooms.values()].flatMap(({ room, membership }) => (membership === "join" ? [room] : []))

const joinedMembers = (room: Room): ReadonlyArray<UserId> =>
  [...room.members].flatMap(([userId, membership]) => (membership === "join" ? [userId] : []))

/** Tells the user and everybody who shares a room with him that his devices or keys changed. */
export const devicesChanged = (state: ModelState, user: User): void => {
  const rooms = joinedRooms(user)
  const roomIds = new Set(rooms.map(({ roomId }) => roomId))
  state.deviceListChanges.push({ stream: nextStream(state), userId: user.userId, roomIds })
  touch(state, user.userId)
  for (const room of rooms) for (const userId of joinedMembers(room)) touch(state, userId)
}

/** Tells a user that he signed somebody's keys, which nobody else is shown. */
export const signaturesChanged = (state: ModelState, signer: User, signed: UserId): void => {
  state.signatureChanges.push({ stream: nextStream(state), userId: signed, signer: signer.userId })
  touch(state, signer.userId)
}

const isAround = (membership: Membership | undefined): boolean =>
  membership === "join" || membership === "invite" || membership === "knock"

interface Movements {
  /** Rooms that the requester has joined since, or left. */
  readonly joinedRooms: Set<RoomId>
  readonly leftRooms: Set<RoomId>
  /** Users who came to the requester's rooms since, or went. */
  readonly came: Set<UserId>
  readonly went: Set<UserId>
}

const move = <A>(item: A, to: Set<A>, from: Set<A>): void => {
  to.add(item)
  from.delete(item)
}

const movements = (state: ModelState, user: User, since: number): Movements => {
  const { joinedRooms, leftRooms, came, went }: Movements = {
    joinedRooms: new Set(),
    leftRooms: new Set(),
    came: new Set(),
    went: new Set()
  }
  const changes = state.membershipChanges.slice(firstAfter(state.membershipChanges, since))
  for (const { roomId, userId, before, now } of changes) {
    if (userId === user.userId && now === "join" && before !== "join") move(roomId, joinedRooms, leftRooms)
    if (userId === user.userId && now !== "join" && before === "join") move(roomId, leftRooms, joinedRooms)
    if (user.rooms.get(roomId)?.membership !== "join") continue
    if (isAround(now) && !isAround(before)) move(userId, came, went)
    if (!isAround(now) && isAround(before)) move(userId, went, came)
  }
  return { joinedRooms, leftRooms, came, went }
}

/** Whose devices the requester must look at again after a stream number, and whose no longer. */
export const deviceLists = (state: ModelState, { user }: Requester, since: number): DeviceLists => {
  const { joinedRooms: newRooms, leftRooms, came, went } = movements(state, user, since)
  const rooms = joinedRooms(user)
  const membersOf = (roomId: RoomId) => joinedMembers(state.rooms.get(roomId) as Room)
  const changed = new Set(came)
  for (const { userId, roomIds } of state.deviceListChanges.slice(firstAfter(state.deviceListChanges, since)))
    if (userId === user.userId || rooms.some(({ roomId }) => roomIds.has(roomId))) changed.add(userId)
  for (const roomId of newRooms) for (const userId of membersOf(roomId)) changed.add(userId)
  for (const { userId, signer } of state.signatureChanges.slice(firstAfter(state.signatureChanges, since)))
    if (signer === user.userId) changed.add(userId)
  const left = new Set(went)
  for (const roomId of leftRooms) for (const userId of membersOf(roomId)) left.add(userId)
  const isShared = (userId: UserId) => rooms.some(({ members }) => members.get(userId) === "join")
  return { changed: [...changed], left: [...left].filter((userId) => !isShared(userId)) }
}

/** `GET /keys/changes?from=…`: `from` is a position of a sliding sync, or a token of history. */
export const changes = (state: ModelState, requester: Requester, from: string): Outcome<JsonObject> => {
  const [, stream] = /^(?:t|\d+\/s)(\d+)$/.exec(from) ?? []
  return stream === undefined
    ? refuse(400, "M_INVALID_PARAM", `"${from}" is not a token`)
    : Result.succeed({ ...deviceLists(state, requester, Number(stream)) })
}
