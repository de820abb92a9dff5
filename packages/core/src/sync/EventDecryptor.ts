/**
 * Port to the reading half of the end-to-end machine: decrypts events of rooms, and says whom to trust.
 *
 * Any process of the account may use it at any time, whoever owns the extension stream: nothing here can write. It reads
 * what is committed (invariant I6), also by other processes.
 *
 * Adapters: `OlmReader` (platform), `SimulatedCrypto` (testing), `layerNone` (decrypts nothing, and says so).
 *
 * Not here: everything that changes keys (`CryptoEngine.ts`).
 */
import { Context, Effect, Layer } from "effect"
import type { DeviceId, RoomId, TimelineEvent, UserId } from "../matrix/MatrixEvent.ts"
import type { CryptoError } from "./CryptoError.ts"

/**
 * Why a decrypted event's sender is not certain. Names and colours as in matrix-rust-sdk's `ShieldStateCode`.
 *
 * - `AuthenticityNotGuaranteed`: the key came by a way that proves nothing (a backup, a forward).
 * - `UnknownDevice`: the sending device isn't known (yet).
 * - `UnsignedDevice`: the sender hasn't cross-signed the device.
 * - `UnverifiedIdentity`: this user hasn't verified the sender.
 * - `VerificationViolation`: the sender was verified, and has other keys since.
 * - `MismatchedSender`: the event names another sender than the key's owner.
 */
export type ShieldCode =
  | "AuthenticityNotGuaranteed"
  | "UnknownDevice"
  | "UnsignedDevice"
  | "UnverifiedIdentity"
  | "VerificationViolation"
  | "MismatchedSender"

/** What to show beside a decrypted event: nothing (`none`), a hint (`grey`) or a warning (`red`), and why. */
export interface Shield {
  readonly color: "none" | "grey" | "red"
  readonly code?: ShieldCode
  /** A sentence for people. */
  readonly message?: string
}

/**
 * Why an event stays encrypted.
 *
 * - `MissingRoomKey`: its key hasn't come (yet).
 * - `Withheld`: its sender says that the key won't come; `withheld` says why.
 * - `UnknownMessageIndex`: the key that came is for later events only.
 * - `MismatchedIdentityKeys`, `MismatchedSender`: the key isn't the sender's: the event may be forged.
 * - `UnknownSenderDevice`, `UnsignedSenderDevice`, `SenderIdentityVerificationViolation`: the sender isn't trusted as asked.
 * - `Replayed`: it is another event's ciphertext: its sender has sent that one, and not this one. Spec: "m.megolm.v1.aes-sha2".
 * - `Malformed`: it isn't an encrypted event as the spec has them.
 * - `UnsupportedAlgorithm`: it is encrypted in a way that isn't known.
 * - `NoEncryption`: this application decrypts nothing.
 * - `Failed`: anything else, such as a damaged ciphertext.
 */
export type UndecryptableReason =
  | "MissingRoomKey"
  | "Withheld"
  | "UnknownMessageIndex"
  | "MismatchedIdentityKeys"
  | "MismatchedSender"
  | "UnknownSenderDevice"
  | "UnsignedSenderDevice"
  | "SenderIdentityVerificationViolation"
  | "Replayed"
  | "Malformed"
  | "UnsupportedAlgorithm"
  | "NoEncryption"
  | "Failed"

export interface Decrypted {
  readonly _tag: "Decrypted"
  /** The event as if it had been sent in the clear: `type` and `content` are the decrypted ones, everything else as it came. */
  readonly event: TimelineEvent
  readonly shield: Shield
  /** Megolm session under which it was sent. */
  readonly sessionId: string
  /** The device that sent it; to be believed as far as the shield goes. */
  readonly senderDevice?: DeviceId
  /** Curve25519 key of that device, in unpadded base64. */
  readonly senderKey: string
}

export interface Undecryptable {
  readonly _tag: "Undecryptable"
  readonly reason: UndecryptableReason
  /** A sentence for people: what is missing, and what helps. */
  readonly message: string
  /** Megolm session whose key is wanted, if the event names one. */
  readonly sessionId?: string
  /** What the sender says about keeping the key to himself. Spec: `m.room_key.withheld`. */
  readonly withheld?: { readonly code: string; readonly message?: string }
}

export type Decryption = Decrypted | Undecryptable

/** A device of a user, and how far it is trusted. */
export interface DeviceTrust {
  readonly userId: UserId
  readonly deviceId: DeviceId
  readonly displayName?: string
  /** Ed25519 fingerprint, unpadded base64, to be compared by people. */
  readonly fingerprint?: string
  /** Verified by this user, on this device or by cross-signing. */
  readonly isVerified: boolean
  /** Cross-signed by its owner, whoever that may be. */
  readonly isCrossSigned: boolean
  readonly isBlocked: boolean
}

/** What this account's encryption is like on this device. */
export interface EncryptionStatus {
  /** Unpadded base64; absent while there is no store. */
  readonly deviceKeys?: { readonly ed25519: string; readonly curve25519: string }
  /** Which private cross-signing keys this device has. */
  readonly crossSigning: { readonly master: boolean; readonly selfSigning: boolean; readonly userSigning: boolean }
  /** Whether this device is signed by the account's own cross-signing identity. */
  readonly isDeviceVerified: boolean
  /** Keys of rooms that are stored. */
  readonly roomKeys: number
  readonly trackedUsers: number
}

export class EventDecryptor extends Context.Service<
  EventDecryptor,
  {
    /**
     * Decrypts an `m.room.encrypted` event of a room. Whatever the event is, it gets an answer; fails only when the machine
     * or the database does.
     */
    decrypt(roomId: RoomId, event: TimelineEvent): Effect.Effect<Decryption, CryptoError>
    /** The known devices of a user. */
    devices(userId: UserId): Effect.Effect<ReadonlyArray<DeviceTrust>, CryptoError>
    readonly status: Effect.Effect<EncryptionStatus, CryptoError>
    /**
     * Loads what the first event would have to wait for, while something else is waited for. Never fails: what can't be
     * loaded is tried again, and told, when an event is to be decrypted. Absent where there is nothing to load.
     */
    readonly prepare?: Effect.Effect<void>
  }
>()("@twinloop/core/EventDecryptor") {
  /** Decrypts nothing: for applications without end-to-end encryption. */
  static readonly layerNone: Layer.Layer<EventDecryptor> = Layer.succeed(
    this,
    this.of({
      decrypt: () =>
        Effect.succeed({
          _tag: "Undecryptable",
          reason: "NoEncryption",
          message: "this application was composed without end-to-end encryption, so the event stays encrypted"
        }),
      devices: () => Effect.succeed([]),
      status: Effect.succeed({
        crossSigning: { master: false, selfSigning: false, userSigning: false },
        isDeviceVerified: false,
        roomKeys: 0,
        trackedUsers: 0
      })
    })
  )
}
