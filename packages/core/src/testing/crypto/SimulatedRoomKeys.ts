/** Keys of rooms in the simulated engine: made, shared, used up and replaced. */
import { Result } from "effect"
import { Base64 } from "effect/encoding"
import type { JsonObject, RoomId } from "../../matrix/MatrixEvent.ts"
import type { CryptoEngine, OutgoingRequest, RoomKeySettings } from "../../sync/CryptoEngine.ts"
import type { DeviceTrust } from "../../sync/EventDecryptor.ts"
import * as Memory from "./SimulatedMemory.ts"
import * as Records from "./SimulatedRecords.ts"

export const MEGOLM = "m.megolm.v1.aes-sha2"

/** How long and for how many messages a key is used when the room doesn't say. Spec: `m.room.encryption`. */
const ROTATION = { millis: 604_800_000, messages: 100 }

const newKey = (
  memory: Memory.Memory,
  roomId: RoomId,
  visibility: Records.RoomKey["visibility"],
  nowMillis: number
) => {
  const { own } = memory
  const sessionId = `simulated-${own.userId}-${own.deviceId}-${Memory.nextNumber(memory)}`
  const key: Records.RoomKey = { sessionId, createdAtMillis: nowMillis, index: 0, visibility, holders: {} }
  Memory.put(memory, "rooms", roomId, key)
  Memory.put(memory, "keys", Records.nameOf(roomId, sessionId), { sender: own.userId, firstIndex: 0 })
  return key
}

const mayRead = (sharing: RoomKeySettings["sharing"], device: DeviceTrust): boolean =>
  !device.isBlocked && { all: true, trusted: device.isVerified, identity: device.isCrossSigned }[sharing]

const isGood = (
  key: Records.RoomKey,
  readers: ReadonlyArray<DeviceTrust>,
  settings: RoomKeySettings,
  nowMillis: number
): boolean => {
  const { rotationPeriodMessages = ROTATION.messages, rotationPeriodMillis = ROTATION.millis } = settings
  const names = new Set(readers.map(({ deviceId, userId }) => Records.nameOf(userId, deviceId)))
  const hasLeft = Object.entries(key.holders).some(([userId, devices]) =>
    devices.some((deviceId) => !names.has(Records.nameOf(userId, deviceId)))
  )
  const isUsedUp = key.index >= rotationPeriodMessages || nowMillis - key.createdAtMillis >= rotationPeriodMillis
  return !hasLeft && !isUsedUp && key.visibility === settings.historyVisibility
}

/** Makes sure that a room has a key that is good for one event more, and gives what shares it. */
export const shareRoomKey = (
  memory: Memory.Memory,
  { roomId, settings, users }: Parameters<CryptoEngine["Service"]["shareRoomKey"]>[1],
  nowMillis: number
): Memory.Answer<ReadonlyArray<OutgoingRequest>> => {
  const { own, records } = memory
  const readers = users
    .flatMap((userId) => Records.devicesOf(records, own, userId))
    .filter(
      (device) =>
        mayRead(settings.sharing, device) && records.sessions.has(Records.nameOf(device.userId, device.deviceId))
    )
  const known = records.rooms.get(roomId)
  const key =
    known !== undefined && isGood(known, readers, settings, nowMillis)
      ? known
      : newKey(memory, roomId, settings.historyVisibility, nowMillis)
  memory.readers.set(roomId, readers)
  const { index, sessionId } = key
  const content = { algorithm: MEGOLM, room_id: roomId, session_id: sessionId, session_key: `${index}` }
  const requests = [...new Set(users)].flatMap((userId): ReadonlyArray<OutgoingRequest> => {
    const wanting = readers
      .filter((device) => device.userId === userId && key.holders[userId]?.includes(device.deviceId) !== true)
      .map(({ deviceId }) => deviceId)
    if (wanting.length === 0) return []
    // Other devices, or a later message, are another request to the homeserver.
    const txnId = `${sessionId}-${index}-${userId}-${wanting.join("-")}`
    const messages = { [userId]: Object.fromEntries(wanting.map((deviceId) => [deviceId, content])) }
    return [{ id: txnId, request: { _tag: "ToDevice", toDevice: { type: "m.room_key", txnId, messages } } }]
  })
  return Result.succeed(requests)
}

/** The content of an event that who has the key can read. */
export const encrypt = (
  memory: Memory.Memory,
  { content, roomId, type }: Parameters<CryptoEngine["Service"]["encrypt"]>[1]
): Memory.Answer<JsonObject> => {
  const readers = memory.readers.get(roomId)
  const key = memory.records.rooms.get(roomId)
  memory.readers.delete(roomId)
  if (readers === undefined || key === undefined)
    return Memory.failed(`the room ${roomId} may have no key to encrypt with; share one first (shareRoomKey)`)
  const lacking = readers.find(({ deviceId, userId }) => key.holders[userId]?.includes(deviceId) !== true)
  if (lacking !== undefined)
    return Memory.failed(
      `${lacking.deviceId} of ${lacking.userId} hasn't got the key of ${roomId}; send what shares it first`
    )
  Memory.put(memory, "rooms", roomId, { ...key, index: key.index + 1 })
  return Result.succeed({
    algorithm: MEGOLM,
    session_id: key.sessionId,
    device_id: memory.own.deviceId,
    sender_key: Records.keysOf(memory.own).curve25519,
    ciphertext: Base64.encode(JSON.stringify({ index: key.index, room_id: roomId, type, content }))
  })
}
