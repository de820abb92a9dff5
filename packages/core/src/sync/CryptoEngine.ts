/**
 * Port to the end-to-end machine, as far as it can change what is stored: only the owner of the extension stream calls it,
 * and says so with the grant's fence.
 *
 * Adapters: `PassThroughCrypto` (core: applies to-device events as they come, encrypts nothing, and says so), `OlmCrypto`
 * (platform: Olm and Megolm), `SimulatedCrypto` (testing: everything but the cipher). All pass the contract suite
 * `cryptoEngineContract` of `@twinloop/core/testing`.
 *
 * Invariants: I1 (every call that can write takes a fence), I2 (each call changes memory only; what must be written travels
 * in `Changed.writes` to the caller's fenced commit), I5 (memory is valid only for the generation under which it was loaded
 * or last committed).
 *
 * Gotchas: one call at a time. After each that gives `writes`, exactly one of `committed` and `discard` follows before the
 * next call, also when there is nothing to write. After `discard` the engine must be reloaded before it is used again.
 * What is to be sent is sent after the commit, and never before: a one-time key that was uploaded and isn't stored, or a
 * ratchet that goes back after a crash, can't be repaired.
 *
 * Not here: decrypting events of rooms, which any process may do at any time (`EventDecryptor.ts`); taking turns, and the
 * steps of sending an encrypted message (actors: `CryptoTurn`, `Encryption`).
 */
import { Context } from "effect"
import type { Effect } from "effect"
import type { Fence } from "../lease/Lease.ts"
import type { DeviceId, JsonObject, MatrixEvent, Quarantined, RoomId, UserId } from "../matrix/MatrixEvent.ts"
import type { E2eeUpdate } from "../matrix/SlidingSync.ts"
import type { CryptoError } from "./CryptoError.ts"
import type { KeysRequest, SendEvent, SendToDevice } from "./Homeserver.ts"
import type { CryptoWrite, EncryptionNews, InboxEvent } from "./SyncStore.ts"

/** One extension response, as far as it concerns the engine. */
export interface ReceiveBatch {
  readonly toDevice: ReadonlyArray<MatrixEvent>
  readonly e2ee?: E2eeUpdate
  /** True when the request carried no `pos`: the homeserver can't say whose devices changed, so all tracked users are outdated (MSC4186). */
  readonly fresh: boolean
}

/** What a call gives, and what must become durable before anybody acts on it. */
export interface Changed<A> {
  readonly value: A
  readonly writes: ReadonlyArray<CryptoWrite>
  /** What can be decrypted or trusted otherwise once the writes are committed. */
  readonly news: ReadonlyArray<EncryptionNews>
}

/** What came of a batch, in memory only until it is committed. */
export interface Received {
  /** One per to-device event that could be understood, in order. */
  readonly inbox: ReadonlyArray<InboxEvent>
  readonly quarantined: ReadonlyArray<Quarantined>
}

/** A request that the engine wants sent. */
export interface OutgoingRequest {
  readonly id: string
  readonly request:
    | { readonly _tag: "Keys"; readonly keys: KeysRequest }
    | { readonly _tag: "ToDevice"; readonly toDevice: SendToDevice }
    | { readonly _tag: "RoomEvent"; readonly event: SendEvent }
}

/**
 * Who is given the keys of what is sent. `all`: every device that isn't blocked. `trusted`: verified devices only.
 * `identity`: devices that their owners have cross-signed (MSC4153).
 */
export type KeySharing = "all" | "trusted" | "identity"

/** How a room is encrypted. Spec: `m.room.encryption`, `m.room.history_visibility`. */
export interface RoomKeySettings {
  /** How long a key is used before it is replaced; a week if not given. */
  readonly rotationPeriodMillis?: number
  /** How many messages a key is used for; 100 if not given. */
  readonly rotationPeriodMessages?: number
  readonly historyVisibility: "invited" | "joined" | "shared" | "world_readable"
  readonly sharing: KeySharing
}

/** What the user says of a device on this one alone. */
export type LocalTrust = "verified" | "blocked" | "unset"

export class CryptoEngine extends Context.Service<
  CryptoEngine,
  {
    /**
     * Discards what is in memory and loads what is stored, under this ownership. What a new store needs written comes with
     * the writes of a later call.
     */
    reload(fence: Fence): Effect.Effect<void, CryptoError>
    /** What the last call gave has been committed. */
    readonly committed: Effect.Effect<void>
    /** What the last call gave was refused or lost: memory is void. */
    readonly discard: Effect.Effect<void>

    /** Takes a batch into memory. Bad events are reported, never thrown on (invariant I7). */
    receive(fence: Fence, batch: ReceiveBatch): Effect.Effect<Changed<Received>, CryptoError>
    /** Requests that wait to be sent, oldest first. */
    outgoing(fence: Fence): Effect.Effect<Changed<ReadonlyArray<OutgoingRequest>>, CryptoError>
    /** Takes the response to a request. Fails with `CryptoBadAnswer` when it is not what was asked for. */
    markSent(fence: Fence, request: OutgoingRequest, response: JsonObject): Effect.Effect<Changed<void>, CryptoError>

    /** Follows the devices of these users from now on, besides those before. Who is new is asked about by `outgoing`. */
    track(fence: Fence, users: ReadonlyArray<UserId>): Effect.Effect<Changed<void>, CryptoError>
    /** The request for one-time keys of devices of these users with which there is no session, if there are such. */
    claim(
      fence: Fence,
      users: ReadonlyArray<UserId>
    ): Effect.Effect<Changed<ReadonlyArray<OutgoingRequest>>, CryptoError>
    /** Makes sure that a room has a key, a new one if the old one is used up or somebody left; gives the requests that share it. */
    shareRoomKey(
      fence: Fence,
      room: { readonly roomId: RoomId; readonly users: ReadonlyArray<UserId>; readonly settings: RoomKeySettings }
    ): Effect.Effect<Changed<ReadonlyArray<OutgoingRequest>>, CryptoError>
    /**
     * The content of the `m.room.encrypted` event to send. Each time after `shareRoomKey`, which finds out if the key is still
     * good; fails with `CryptoFailed` otherwise.
     */
    encrypt(
      fence: Fence,
      event: { readonly roomId: RoomId; readonly type: string; readonly content: JsonObject }
    ): Effect.Effect<Changed<JsonObject>, CryptoError>

    /**
     * Makes this account's cross-signing keys, unless this device has them (`reset`: in any case), and gives the requests that
     * publish them, and last the one that asks if they are, to be sent in order; sending them again does nothing. The one of
     * kind `deviceSigning` may need the user's password. Fails with `CryptoFailed`, without `reset`, when the account has keys
     * that this device hasn't.
     */
    bootstrapCrossSigning(
      fence: Fence,
      options: { readonly reset: boolean }
    ): Effect.Effect<Changed<ReadonlyArray<OutgoingRequest>>, CryptoError>
    /** Says what the user thinks of a device; it must be known. */
    setLocalTrust(
      fence: Fence,
      device: { readonly userId: UserId; readonly deviceId: DeviceId; readonly trust: LocalTrust }
    ): Effect.Effect<Changed<void>, CryptoError>
  }
>()("@twinloop/core/CryptoEngine") {}

/** What a call gives that has nothing to write. */
export const unchanged = <A>(value: A): Changed<A> => ({ value, writes: [], news: [] })
