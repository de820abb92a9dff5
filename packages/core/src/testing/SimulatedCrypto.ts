/**
 * A simulated cipher, for tests of applications: `CryptoEngine` and `EventDecryptor` without the WebAssembly. **It protects
 * nothing**: a ciphertext is base64 of the text, and keys of rooms travel in the clear.
 *
 * Everything else is as with Olm and Megolm: devices are followed and asked about, one-time keys claimed, keys of rooms shared
 * with who is in a room by then, replaced when somebody leaves or they are used up, stored by the caller's fenced commit, and
 * read by every process of the account. An event whose key hasn't come can't be shown, and one from before its key neither.
 *
 * Invariants: I1 and I2 as the port asks: every record travels in `Changed.writes`, what is stored is read at a reload, and the
 * reader sees what is committed alone.
 *
 * Gotchas: over `SyncStoreMemory`; over another store, give `makeEngine` and `makeDecryptor` its records. Don't put its devices
 * and real ones into one room: neither can read the other.
 *
 * Not here: Olm messages, withheld keys, backups, verification.
 *
 * @example
 * ```ts
 * const account = Rooms.Rooms.layer.pipe(
 *   Layer.provideMerge(Encryption.Encryption.layer),
 *   Layer.provideMerge(SyncService.SyncService.layer),
 *   Layer.provideMerge(Layer.mergeAll(Inbox.Inbox.layer, RoomList.layer, SimulatedCrypto.layer))
 * )
 * ```
 */
import { Effect, Layer, Predicate, Result, Schema } from "effect"
import { Base64 } from "effect/encoding"
import type { JsonObject, RoomId, TimelineEvent } from "../matrix/MatrixEvent.ts"
import type { CryptoEngine as Engine } from "../sync/CryptoEngine.ts"
import { CryptoEngine } from "../sync/CryptoEngine.ts"
import { type Decryption, EventDecryptor, type Shield, type UndecryptableReason } from "../sync/EventDecryptor.ts"
import { Homeserver, type Session } from "../sync/Homeserver.ts"
import { makeEngine } from "./crypto/SimulatedEngine.ts"
import * as Records from "./crypto/SimulatedRecords.ts"
import { MEGOLM } from "./crypto/SimulatedRoomKeys.ts"
import { SyncStoreMemory } from "./SyncStoreMemory.ts"
import type { CryptoRecord } from "./SyncStoreMemoryState.ts"

export { makeEngine } from "./crypto/SimulatedEngine.ts"

const messages: { readonly [reason in UndecryptableReason]?: string } = {
  MissingRoomKey: "the key of this message hasn't come yet",
  UnknownMessageIndex: "the key that came is for later messages only",
  UnsupportedAlgorithm: "the message is encrypted in a way that isn't known",
  Malformed: "the message isn't an encrypted one as the simulated cipher makes them"
}

const undecryptable = (reason: UndecryptableReason, sessionId?: string): Decryption => ({
  _tag: "Undecryptable",
  reason,
  message: messages[reason] ?? reason,
  ...(sessionId === undefined ? {} : { sessionId })
})

/** What a ciphertext says. */
const decodePlain = Schema.decodeUnknownResult(
  Schema.fromJsonString(
    Schema.Struct({
      index: Schema.Finite,
      room_id: Schema.String,
      type: Schema.String,
      content: Schema.Record(Schema.String, Schema.Unknown)
    })
  )
)

const plainOf = (content: JsonObject) =>
  Base64.decodeString(Records.textAt(content, "ciphertext") ?? "").pipe(
    Result.flatMap(decodePlain),
    Result.getOrUndefined
  )

const shieldOf = (records: Records.Records, own: Session, event: TimelineEvent, keyOwner: string): Shield => {
  if (keyOwner !== event.sender)
    return { color: "red", code: "MismatchedSender", message: "the sender isn't the owner of the key" }
  const device = Records.devicesOf(records, own, event.sender).find(
    ({ deviceId }) => deviceId === event.content.device_id
  )
  if (device === undefined) return { color: "red", code: "UnknownDevice", message: "the sending device isn't known" }
  if (device.isVerified) return { color: "none" }
  return device.isCrossSigned
    ? { color: "none", code: "UnverifiedIdentity", message: "the sender isn't verified" }
    : { color: "red", code: "UnsignedDevice", message: "the sender hasn't signed this device" }
}

const decrypt = (records: Records.Records, own: Session, roomId: RoomId, event: TimelineEvent): Decryption => {
  const { content } = event
  const sessionId = Records.textAt(content, "session_id")
  if (content.algorithm !== MEGOLM && Predicate.isString(content.algorithm))
    return undecryptable("UnsupportedAlgorithm")
  if (content.algorithm !== MEGOLM || sessionId === undefined) return undecryptable("Malformed")
  const key = records.keys.get(Records.nameOf(roomId, sessionId))
  if (key === undefined) return undecryptable("MissingRoomKey", sessionId)
  const plain = plainOf(content)
  if (plain === undefined || plain.room_id !== roomId) return undecryptable("Malformed", sessionId)
  if (plain.index < key.firstIndex) return undecryptable("UnknownMessageIndex", sessionId)
  const deviceId = Records.textAt(content, "device_id")
  return {
    _tag: "Decrypted",
    event: { ...event, type: plain.type, content: plain.content },
    shield: shieldOf(records, own, event, key.sender),
    sessionId,
    senderKey: Records.textAt(content, "sender_key") ?? "",
    ...(deviceId === undefined ? {} : { senderDevice: deviceId })
  }
}

/** The reading half over the account's records, for any process. */
export const makeDecryptor = (
  own: Session,
  stored: Effect.Effect<ReadonlyArray<CryptoRecord>>
): EventDecryptor["Service"] => {
  const records = Effect.map(stored, Records.read)
  return EventDecryptor.of({
    decrypt: (roomId, event) => Effect.map(records, (all) => decrypt(all, own, roomId, event)),
    devices: (userId) => Effect.map(records, (all) => Records.devicesOf(all, own, userId)),
    status: Effect.map(records, (all) => {
      const hasMaster = Records.accountOf(all).master !== undefined
      return {
        ...(all.account.size === 0 ? {} : { deviceKeys: Records.keysOf(own) }),
        crossSigning: { master: hasMaster, selfSigning: hasMaster, userSigning: hasMaster },
        isDeviceVerified: Records.devicesOf(all, own, own.userId).some(
          ({ deviceId, isVerified }) => deviceId === own.deviceId && isVerified
        ),
        roomKeys: all.keys.size,
        trackedUsers: all.users.size
      }
    })
  })
}

/** Both halves, for one process of the account whose device and database are given. */
export const layer: Layer.Layer<Engine | EventDecryptor, never, Homeserver | SyncStoreMemory> = Layer.mergeAll(
  Layer.effect(
    CryptoEngine,
    Effect.gen(function* () {
      const { session } = yield* Homeserver
      return makeEngine(session, (yield* SyncStoreMemory).cryptoRecords)
    })
  ),
  Layer.effect(
    EventDecryptor,
    Effect.gen(function* () {
      const { session } = yield* Homeserver
      return makeDecryptor(session, (yield* SyncStoreMemory).cryptoRecords)
    })
  )
)
