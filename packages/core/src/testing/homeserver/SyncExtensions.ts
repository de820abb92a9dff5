/**
 * What the homeserver model tells in the extensions of a sliding sync.
 *
 * Enabled extensions are always present, even when they have nothing to say, as on Synapse. Counts of keys wake nobody.
 *
 * Source: MSC4538 (to-device), MSC4543 (e2ee), MSC4508 (typing), Synapse for account data and receipts.
 */
import type { EphemeralEvent, RoomId } from "../../matrix/MatrixEvent.ts"
import type { E2eeUpdate, ExtensionsResponse, SyncRequest } from "../../matrix/SlidingSync.ts"
import { keyCounts } from "./DeviceKeys.ts"
import { deviceLists } from "./DeviceLists.ts"
import type { LedgerEntry, ModelState, Requester } from "./ModelState.ts"
import { accountDataAfter, receiptsAfter, typingEvent } from "./RoomSignals.ts"
import type { RoomStatus, WantedRoom } from "./SyncRooms.ts"
import * as ToDeviceQueue from "./ToDeviceQueue.ts"

/** What a response is made of, as far as the extensions are concerned. */
export interface ExtensionsInput {
  readonly requester: Requester
  readonly request: SyncRequest
  /** The request's position; undefined without one. */
  readonly fromStream: number | undefined
  readonly since: number | undefined
  readonly wanted: ReadonlyMap<RoomId, WantedRoom>
  /** What the connection was sent of a room, this response's rooms included. */
  readonly statusOf: (roomId: RoomId) => RoomStatus | undefined
  /** Rooms that this response starts afresh. */
  readonly initialRooms: ReadonlySet<RoomId>
  readonly nowMillis: number
}

/** What the extensions would say, and what follows when it is sent. */
export interface ExtensionsAnswer {
  readonly response: ExtensionsResponse
  /** Whether there is anything that a long poll must not hold back. */
  readonly isNews: boolean
  readonly delivered: ReadonlyArray<LedgerEntry>
  /** Rooms whose receipts or account data were sent, with what the connection knows of them now. */
  readonly statuses: ReadonlyMap<RoomId, RoomStatus>
}

const e2eeOf = (state: ModelState, { requester, fromStream }: ExtensionsInput): E2eeUpdate => {
  const lists = fromStream === undefined ? undefined : deviceLists(state, requester, fromStream)
  return { ...keyCounts(requester.device), ...(lists && { deviceLists: lists }) }
}

const tellsOfDevices = ({ deviceLists: lists }: E2eeUpdate): boolean =>
  lists !== undefined && lists.changed.length + lists.left.length > 0

const typingOf = ({ wanted, fromStream, initialRooms, nowMillis }: ExtensionsInput) => {
  const found: Array<readonly [RoomId, EphemeralEvent]> = []
  for (const [roomId, { userRoom }] of wanted) {
    const { room, membership } = userRoom
    if (membership !== "join" || room.typingStream === 0) continue
    const changed = fromStream !== undefined && room.typingStream > fromStream
    const unknown = (fromStream === undefined || initialRooms.has(roomId)) && room.typing.size > 0
    if (changed || unknown) found.push([roomId, typingEvent(room, nowMillis)])
  }
  return Object.fromEntries(found)
}

const isEmpty = (record: object): boolean => Object.keys(record).length === 0

/** The extensions of one response. Changes nothing: what was delivered is noted by whoever sends the response. */
export const answer = (state: ModelState, input: ExtensionsInput): ExtensionsAnswer => {
  const { requester, request, wanted, statusOf } = input
  const { toDevice, e2ee, accountData, receipts, typing } = request.extensions
  const statuses = new Map<RoomId, RoomStatus>()
  const queue =
    toDevice === undefined ? undefined : ToDeviceQueue.pending(state, requester.device, input.since, toDevice.limit)
  const receiptsByRoom: { [roomId: RoomId]: EphemeralEvent } = {}
  const accountDataByRoom: { [roomId: RoomId]: ReadonlyArray<EphemeralEvent> } = {}
  for (const [roomId, { userRoom }] of wanted) {
    const status = statusOf(roomId)
    if (status === undefined) continue
    let next = status
    const { room } = userRoom
    if (receipts && userRoom.membership === "join" && room.receiptsStream > status.receiptsUpTo) {
      const event = receiptsAfter(room, requester.user, status.receiptsUpTo)
      if (event !== undefined) {
        receiptsByRoom[roomId] = event
        next = { ...next, receiptsUpTo: room.receiptsStream }
      }
    }
    if (accountData && userRoom.accountDataStream > status.accountDataUpTo) {
      accountDataByRoom[roomId] = accountDataAfter(userRoom, status.accountDataUpTo)
      next = { ...next, accountDataUpTo: userRoom.accountDataStream }
    }
    if (next !== status) statuses.set(roomId, next)
  }
  const global = accountData ? accountDataAfter(requester.user, input.fromStream ?? 0) : []
  const typingByRoom = typing ? typingOf(input) : {}
  const keys = e2ee ? e2eeOf(state, input) : undefined
  return {
    response: {
      ...(queue && { toDevice: queue.batch }),
      ...(keys && { e2ee: keys }),
      ...(accountData && { accountData: { global, rooms: accountDataByRoom } }),
      ...(receipts && { receipts: receiptsByRoom }),
      ...(typing && { typing: typingByRoom }),
      unknown: {}
    },
    isNews:
      (queue !== undefined && queue.entries.length > 0) ||
      (keys !== undefined && tellsOfDevices(keys)) ||
      global.length > 0 ||
      !isEmpty(accountDataByRoom) ||
      !isEmpty(receiptsByRoom) ||
      !isEmpty(typingByRoom),
    delivered: queue?.entries ?? [],
    statuses
  }
}
