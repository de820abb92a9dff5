/**
 * Sliding-sync connections of the homeserver model: positions, and a request's way from its arrival to its response.
 *
 * A request is taken in three steps, so that a long poll can be repeated without doing anything twice: `open` (what arriving
 * does: acknowledging, and deleting positions), `answer` (what would be said now; changes nothing), `deliver` (the response
 * leaves: the connection's new position exists, the ledger counts the delivery). A poll that ends in between has delivered
 * nothing.
 *
 * Positions, as Synapse 1.157 has them: a request with position N deletes all other positions of its connection, so
 * a retry of N is safe until the answer to it has been used. A request without position wipes the connection, if it has
 * anything to record. A connection without lists and subscriptions records nothing: its position is 0 for ever and can't be
 * unknown, unless a test expires it, which other homeservers do.
 *
 * Stricter than Synapse in one thing, which MSC4186 allows: every response with news gets a new position, so that the older
 * one goes when it is used. Synapse keeps the position while all it sent are further events of rooms in view.
 *
 * Source: MSC4186; Synapse's `handlers/sliding_sync` and `storage/databases/main/sliding_sync.py`.
 */
import { Result } from "effect"
import type { DeviceId, RoomId, UserId } from "../../matrix/MatrixEvent.ts"
import type { RoomUpdate, SyncRequest, SyncResponse } from "../../matrix/SlidingSync.ts"
import type { LedgerEntry, ModelState, Outcome, Requester } from "./ModelState.ts"
import { nextId, refuse } from "./ModelState.ts"
import * as SyncExtensions from "./SyncExtensions.ts"
import type { RoomStatus } from "./SyncRooms.ts"
import * as SyncRooms from "./SyncRooms.ts"
import * as ToDeviceQueue from "./ToDeviceQueue.ts"

/** What a connection had been sent when it was given this position. */
interface Position {
  /** Shared with the position that this one came from, which is deleted when this one is used. */
  readonly base: Map<RoomId, RoomStatus>
  /** What the response that gave this position added. */
  readonly delta: Map<RoomId, RoomStatus>
}

/** One `conn_id` of one device, and the positions that can be gone on from. */
export interface Connection {
  readonly positions: Map<number, Position>
  lastUsedAtMillis: number
  /** True until the connection starts afresh: every position of it is unknown. */
  expired: boolean
}

const maxIdleMillis = 7 * 24 * 3_600_000
const maxSubscriptions = 100

const unknownPosition = refuse(400, "M_UNKNOWN_POS", "Unknown position")

/** A request that is being served. */
export interface Poll {
  readonly requester: Requester
  readonly request: SyncRequest
  readonly connection: Connection
  /** The number of the request's position; 0 for none, and for a connection that records nothing. */
  readonly number: number
  readonly position: Position
  readonly fromStream: number | undefined
  readonly since: number | undefined
}

/** What would be said now. */
export interface Answer {
  readonly response: Omit<SyncResponse, "pos">
  /** True when there is nothing that a long poll must not hold back. */
  readonly isEmpty: boolean
  readonly statuses: ReadonlyMap<RoomId, RoomStatus>
  readonly delivered: ReadonlyArray<LedgerEntry>
}

const isEmptyRecord = (record: object): boolean => Object.keys(record).length === 0
const hasRooms = ({ lists, roomSubscriptions }: SyncRequest): boolean =>
  !isEmptyRecord(lists) || !isEmptyRecord(roomSubscriptions)

const connectionOf = ({ device }: Requester, connId: string, nowMillis: number): Connection => {
  const known = device.connections.get(connId)
  if (known !== undefined) return known
  const connection: Connection = { positions: new Map(), lastUsedAtMillis: nowMillis, expired: false }
  device.connections.set(connId, connection)
  return connection
}

const parsePosition = (pos: string): Outcome<{ readonly number: number; readonly stream: number }> => {
  const [, number, stream] = /^(\d+)\/s(\d+)$/.exec(pos) ?? []
  return number === undefined || stream === undefined
    ? refuse(400, "M_UNKNOWN", "Invalid stream token")
    : Result.succeed({ number: Number(number), stream: Number(stream) })
}

/** Makes a position the only one of its connection, and its own what it shared with its predecessor. */
const use = (connection: Connection, number: number, position: Position): void => {
  connection.positions.clear()
  connection.positions.set(number, position)
  position.delta.forEach((status, roomId) => position.base.set(roomId, status))
  position.delta.clear()
}

const noPosition = (): Position => ({ base: new Map(), delta: new Map() })

const openConnection = (
  state: ModelState,
  requester: Requester,
  request: SyncRequest,
  nowMillis: number
): Outcome<Pick<Poll, "connection" | "number" | "position" | "fromStream">> =>
  Result.gen(function* () {
    const connection = connectionOf(requester, request.connId, nowMillis)
    const idleMillis = nowMillis - connection.lastUsedAtMillis
    connection.lastUsedAtMillis = nowMillis
    if (idleMillis > maxIdleMillis) connection.positions.clear()
    if (request.pos === undefined) {
      connection.expired = false
      if (hasRooms(request)) connection.positions.clear()
      return { connection, number: 0, position: noPosition(), fromStream: undefined }
    }
    const { number, stream } = yield* parsePosition(request.pos)
    const fromStream = Math.min(stream, state.stream)
    if (connection.expired) return yield* unknownPosition
    if (number === 0) return { connection, number, position: noPosition(), fromStream }
    const position = connection.positions.get(number)
    if (position === undefined) return yield* unknownPosition
    use(connection, number, position)
    return { connection, number, position, fromStream }
  })

/**
 * A request arrives. Refused: `M_UNKNOWN_POS`, `M_UNKNOWN` for a position that is none, `M_INVALID_PARAM` for a to-device
 * token that is not a number and for more than 100 subscriptions. A `since` deletes what it acknowledges.
 */
export const open = (state: ModelState, requester: Requester, request: SyncRequest, nowMillis: number): Outcome<Poll> =>
  Result.gen(function* () {
    if (Object.keys(request.roomSubscriptions).length > maxSubscriptions)
      return yield* refuse(400, "M_INVALID_PARAM", `more than ${maxSubscriptions} room subscriptions`)
    const sinceText = request.extensions.toDevice?.since
    const since = sinceText === undefined ? undefined : yield* ToDeviceQueue.parseSince(sinceText)
    const opened = yield* openConnection(state, requester, request, nowMillis)
    if (since !== undefined) ToDeviceQueue.acknowledge(state, requester.device, since, nowMillis)
    return { requester, request, since, ...opened }
  })

/** What would be said now. Fails with `M_UNKNOWN_POS` when the position went away while the request waited. */
export const answer = (state: ModelState, poll: Poll, nowMillis: number): Outcome<Answer> => {
  const { requester, request, connection, number, position, fromStream } = poll
  if (connection.expired || (number !== 0 && connection.positions.get(number) !== position)) return unknownPosition
  const statuses = new Map<RoomId, RoomStatus>()
  const updates: Array<RoomUpdate> = []
  const initialRooms = new Set<RoomId>()
  const { rooms, counts } = SyncRooms.wanted(state, requester, request, fromStream)
  for (const [roomId, wantedRoom] of rooms) {
    const news = SyncRooms.news(state, requester, wantedRoom, position.base.get(roomId), fromStream)
    if (news === undefined) continue
    updates.push(news.update)
    statuses.set(roomId, news.status)
    if (news.update.initial) initialRooms.add(roomId)
  }
  const extensions = SyncExtensions.answer(state, {
    requester,
    request,
    fromStream,
    since: poll.since,
    wanted: rooms,
    statusOf: (roomId) => statuses.get(roomId) ?? position.base.get(roomId),
    initialRooms,
    nowMillis
  })
  extensions.statuses.forEach((status, roomId) => statuses.set(roomId, status))
  return Result.succeed({
    response: { lists: counts, rooms: updates, extensions: extensions.response, quarantined: [], unknown: {} },
    isEmpty: updates.length === 0 && !extensions.isNews,
    statuses,
    delivered: extensions.delivered
  })
}

/** The response leaves: the position that it carries exists from here on. */
export const deliver = (state: ModelState, poll: Poll, answered: Answer, nowMillis: number): SyncResponse => {
  ToDeviceQueue.delivered(answered.delivered, nowMillis)
  const recorded = answered.statuses.size > 0
  const number = recorded ? nextId(state) : poll.number
  if (recorded) poll.connection.positions.set(number, { base: poll.position.base, delta: new Map(answered.statuses) })
  return { pos: `${number}/s${state.stream}`, ...answered.response }
}

/** Whether a response must leave at once: there is news, or the request didn't ask to wait, or it starts the connection. */
export const mustAnswer = ({ request }: Poll, answered: Answer): boolean =>
  !answered.isEmpty || request.pos === undefined || request.timeoutMillis === 0

/**
 * Makes every position of a device's connection (of all its connections, without `connId`) unknown until it starts afresh,
 * position 0 included. Polls that wait end with `M_UNKNOWN_POS`.
 */
export const expire = (
  state: ModelState,
  target: { readonly userId: UserId; readonly deviceId: DeviceId; readonly connId?: string }
): void => {
  const user = state.users.get(target.userId)
  const device = user?.devices.get(target.deviceId)
  if (user === undefined || device === undefined) return
  for (const [connId, connection] of device.connections) {
    if (target.connId !== undefined && connId !== target.connId) continue
    connection.positions.clear()
    connection.expired = true
  }
  user.version += 1
  state.touched.add(user.userId)
}
