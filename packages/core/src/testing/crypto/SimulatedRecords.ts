/**
 * What the simulated cipher stores, as records of the account's database, and what follows from them.
 *
 * Both halves of the cipher read it: the engine at a reload, the reader each time. Keys are names here, and protect nothing.
 */
import { Predicate } from "effect"
import type { DeviceId, JsonObject, RoomId, UserId } from "../../matrix/MatrixEvent.ts"
import type { RoomKeySettings } from "../../sync/CryptoEngine.ts"
import type { DeviceTrust } from "../../sync/EventDecryptor.ts"
import type { Session } from "../../sync/Homeserver.ts"
import type { CryptoWrite } from "../../sync/SyncStore.ts"
import type { CryptoRecord } from "../SyncStoreMemoryState.ts"

/** This device. */
export interface Account {
  readonly isUploaded: boolean
  /** Room keys, one-time keys and cross-signing keys that were made, for names that are used once. */
  readonly made: number
  /** One-time keys that the homeserver has, as it last said; absent until it has said so. */
  readonly oneTimeKeys?: number
  /** Public master key whose private one this device has. */
  readonly master?: string
}

/** A device, as its homeserver tells of it. */
export interface Device {
  readonly fingerprint?: string
  readonly isCrossSigned: boolean
}

/** A user whose devices are followed. */
export interface Followed {
  readonly isOutdated: boolean
  readonly devices: { readonly [deviceId: DeviceId]: Device }
  readonly master?: string
}

/** The key under which this device sends to a room. `holders` have it, from that message on. */
export interface RoomKey {
  readonly sessionId: string
  readonly createdAtMillis: number
  /** Of the next message. */
  readonly index: number
  readonly visibility: RoomKeySettings["historyVisibility"]
  readonly holders: { readonly [userId: UserId]: ReadonlyArray<DeviceId> }
}

/** The private half of a one-time key, by the name of its public one. Gone when it was used. */
export interface OneTimeKey {
  readonly key: string
  readonly isPublished: boolean
}

/** A key with which messages of a room can be read, from a message on. */
export interface ReceivedKey {
  readonly sender: UserId
  readonly firstIndex: number
}

/** The collections, and what is in them. Names of what has two are made by {@link nameOf}. */
export interface Records {
  readonly account: Map<string, Account>
  readonly users: Map<UserId, Followed>
  /** Devices to which a room's key can be sent, by user and device. */
  readonly sessions: Map<string, true>
  /** By user and device. */
  readonly trust: Map<string, "verified" | "blocked">
  /** By room: what this device sends with. */
  readonly rooms: Map<RoomId, RoomKey>
  /** By room and session. */
  readonly keys: Map<string, ReceivedKey>
  /** By key id. */
  readonly oneTime: Map<string, OneTimeKey>
}

export const nameOf = (first: string, second: string): string => JSON.stringify([first, second])

const encode = (text: string): Uint8Array => new TextEncoder().encode(text)
const decode = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)

/** A record to be written, or deleted. */
export const writeOf = (collection: string, key: string, value: unknown): CryptoWrite => ({
  collection,
  key: encode(key),
  value: value === undefined ? null : encode(JSON.stringify(value))
})

export const empty = (): Records => ({
  account: new Map(),
  users: new Map(),
  sessions: new Map(),
  trust: new Map(),
  rooms: new Map(),
  keys: new Map(),
  oneTime: new Map()
})

/** What was stored, by the engine alone: its word is trusted. */
export const read = (stored: ReadonlyArray<CryptoRecord>): Records => {
  const records = empty()
  for (const { collection, key, value } of stored) {
    const into = records[collection as keyof Records] as Map<string, unknown>
    into.set(decode(key), JSON.parse(decode(value)))
  }
  return records
}

/** The account, or one that is new. */
export const accountOf = ({ account }: Records): Account => account.get("account") ?? { isUploaded: false, made: 0 }

/** The names that stand for a device's keys. */
export const keysOf = ({ deviceId, userId }: { readonly userId: UserId; readonly deviceId: DeviceId }) => ({
  curve25519: `simulated-curve25519-${userId}-${deviceId}`,
  ed25519: `simulated-ed25519-${userId}-${deviceId}`
})

/** The known devices of a user, with how far they are trusted. */
export const devicesOf = (records: Records, own: Session, userId: UserId): ReadonlyArray<DeviceTrust> => {
  const { devices = {}, master } = records.users.get(userId) ?? {}
  const isOurs = userId === own.userId && master !== undefined && master === accountOf(records).master
  return Object.entries(devices).map(([deviceId, { fingerprint, isCrossSigned }]) => {
    const trust = records.trust.get(nameOf(userId, deviceId))
    return {
      userId,
      deviceId,
      ...(fingerprint === undefined ? {} : { fingerprint }),
      isVerified: trust === "verified" || (isOurs && isCrossSigned),
      isCrossSigned,
      isBlocked: trust === "blocked"
    }
  })
}

/** The text under a member of JSON whose shape nobody vouches for. */
export const textAt = (json: JsonObject, member: string): string | undefined => {
  const value = json[member]
  return Predicate.isString(value) ? value : undefined
}
