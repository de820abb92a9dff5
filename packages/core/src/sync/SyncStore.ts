/**
 * Port to durable sync state: the extension stream (fenced), the rooms of one connection, and the inbox.
 *
 * Adapters: `SyncStoreMemory` (testing), `SqliteSyncStore` (platform). Both pass the contract suite `syncStoreContract` of
 * `@twinloop/core/testing`.
 *
 * Invariants: I1 and I2 (`commitExtension` is one transaction that checks the fence and the `since` that was sent), I6
 * (what a commit returns is durable).
 *
 * Gotchas: rooms belong to a connection (`connId`). Two processes that follow rooms use two connections, and neither can
 * overwrite the other's newer view (ADR 0007).
 */
import { Context } from "effect"
import type { Effect } from "effect"
import type {
  EphemeralEvent,
  EventId,
  JsonObject,
  Quarantined,
  RoomId,
  StateDeletion,
  StateEvent,
  TimelineEvent,
  UserId
} from "../matrix/MatrixEvent.ts"
import type { Fence } from "../lease/Lease.ts"
import type { Room } from "../rooms/Room.ts"
import type { StoreError } from "./StoreError.ts"

/** Where the extension stream stands. */
export interface ExtensionPosition {
  /** To-device token to send, which acknowledges everything before it. Absent until the first batch. */
  readonly since?: string
  /** Position of the extension connection. Absent starts it afresh. */
  readonly pos?: string
}

/** A to-device event as it is applied: what the crypto engine made of it. */
export interface InboxEvent {
  readonly type: string
  readonly sender: string
  /** The event's JSON after decryption, or as it came when it wasn't encrypted. */
  readonly event: JsonObject
  /** Whether the event came encrypted, and what became of it. */
  readonly encryption: "none" | "decrypted" | "undecryptable"
}

/** A durable inbox row. `sequence` grows by one per applied event and never repeats, whichever process applied it. */
export interface InboxEntry extends InboxEvent {
  readonly sequence: number
  /** Generation of the owner that applied it. */
  readonly generation: number
}

/** A record of the crypto engine to be written or (value `null`) deleted, opaque to everybody else. */
export interface CryptoWrite {
  readonly collection: string
  readonly key: Uint8Array
  readonly value: Uint8Array | null
}

/** What a commit changed about what can be decrypted or trusted: a key of a room has come, or is withheld; a user's devices changed. */
export type EncryptionNews =
  | { readonly _tag: "RoomKey"; readonly roomId: RoomId; readonly sessionId: string }
  | { readonly _tag: "Devices"; readonly userId: UserId }

/** News as they were stored. `sequence` grows by one per piece and never repeats, whichever process committed it. */
export interface EncryptionNewsEntry {
  readonly sequence: number
  readonly news: EncryptionNews
}

/** News that are kept, newest first: who was away for longer looks at everything again, which costs time and loses nothing. */
export const ENCRYPTION_NEWS_KEPT = 10_000

/** The effects of one extension response: all durable together, or none. */
export interface ExtensionCommit {
  /** The `since` that was sent, absent if none; the commit is refused with `Moved` unless it is still the stored one. */
  readonly sentSince?: string
  /** The new position; what is absent here becomes absent in the store. */
  readonly position: ExtensionPosition
  readonly inbox: ReadonlyArray<InboxEvent>
  readonly crypto: ReadonlyArray<CryptoWrite>
  readonly news?: ReadonlyArray<EncryptionNews>
  readonly quarantined: ReadonlyArray<Quarantined>
}

/** The effects of a call of the crypto engine that leaves the stream where it is. */
export interface CryptoCommit {
  readonly crypto: ReadonlyArray<CryptoWrite>
  readonly news?: ReadonlyArray<EncryptionNews>
}

/** What happened to one room in one main-loop response. */
export interface RoomCommit {
  /** The room as it is after the response. */
  readonly room: Room
  /** True when state and timeline known before are void: the homeserver sent the room as `initial`. */
  readonly replace: boolean
  readonly state: ReadonlyArray<StateEvent | StateDeletion>
  readonly timeline: ReadonlyArray<TimelineEvent>
  /** Set when there is a gap before `timeline`; the token to fetch what is missing with, if the homeserver gave one. */
  readonly gap?: { readonly prevBatch?: string }
  readonly accountData: ReadonlyArray<EphemeralEvent>
}

/** The effects of one main-loop response: one short transaction per page. */
export interface MainCommit {
  readonly connId: string
  /** The `pos` that was sent, absent if none; the commit is refused with `Moved` unless it is still the stored one. */
  readonly sentPos?: string
  readonly pos: string
  /** Rooms in each list, as counted by the homeserver. */
  readonly lists: { readonly [key: string]: number }
  readonly rooms: ReadonlyArray<RoomCommit>
  /** Global account data. */
  readonly accountData: ReadonlyArray<EphemeralEvent>
  /** Account data of rooms that the connection doesn't know, stored like that of others. Absent when there is none. */
  readonly roomAccountData?: { readonly [roomId: RoomId]: ReadonlyArray<EphemeralEvent> }
  readonly quarantined: ReadonlyArray<Quarantined>
}

/** Where a connection stands: what its next request needs. */
export interface MainPosition {
  readonly pos?: string
  readonly lists: { readonly [key: string]: number }
}

/** What a connection knew when it last committed. */
export interface MainSnapshot extends MainPosition {
  readonly rooms: ReadonlyArray<Room>
}

/** One stored timeline event, or the gap before it. Ascending by `index`; indexes of history may be negative. */
export type TimelineEntry =
  | { readonly _tag: "Event"; readonly index: number; readonly event: TimelineEvent }
  | { readonly _tag: "Gap"; readonly index: number; readonly prevBatch?: string }

/** A quarantined thing as it was stored. */
export interface QuarantineEntry extends Quarantined {
  readonly id: number
  /** Unix milliseconds. */
  readonly atMillis: number
}

export class SyncStore extends Context.Service<
  SyncStore,
  {
    /** Where the extension stream stands. Read it after the lease was taken, never before. */
    readonly extensionPosition: Effect.Effect<ExtensionPosition, StoreError>
    /**
     * The fenced commit. One transaction: check the fence, check `sentSince`, write crypto records, inbox, quarantine and
     * position, synced to disk. Gives the inbox rows with their sequence numbers. Refused with `StaleGeneration` or `Moved`,
     * in which case nothing was written.
     */
    commitExtension(fence: Fence, commit: ExtensionCommit): Effect.Effect<ReadonlyArray<InboxEntry>, StoreError>
    /** The same for records of the crypto engine alone, wherever the stream stands. Refused with `StaleGeneration`. */
    commitCrypto(fence: Fence, commit: CryptoCommit): Effect.Effect<void, StoreError>
    /** News after a sequence number, ascending, `limit` at most. */
    encryptionNews(request: {
      readonly after: number
      readonly limit: number
    }): Effect.Effect<ReadonlyArray<EncryptionNewsEntry>, StoreError>
    /** Sequence numbers of the oldest and the newest news that are kept; both 0 while there have been none. */
    readonly encryptionNewsKept: Effect.Effect<{ readonly first: number; readonly last: number }, StoreError>
    /** Drops the extension connection's `pos` (never `since`), fenced, after the homeserver declared it unknown. */
    expireExtension(fence: Fence): Effect.Effect<void, StoreError>

    /** Where a connection stood when it last committed, without its rooms, which take a hundred times as long to read. */
    mainPosition(connId: string): Effect.Effect<MainPosition, StoreError>
    /** What a connection knew when it last committed; empty for a new one. */
    loadMain(connId: string): Effect.Effect<MainSnapshot, StoreError>
    /** Writes one page. Refused with `Moved` if another process used the connection since. */
    commitMain(commit: MainCommit): Effect.Effect<void, StoreError>
    /** Drops a connection's `pos`, after the homeserver declared it unknown or the application asked for a fresh start. */
    expireMain(connId: string): Effect.Effect<void, StoreError>

    /** One room as the connection last committed it, or `undefined`. */
    room(connId: string, roomId: RoomId): Effect.Effect<Room | undefined, StoreError>
    /** The newest `limit` entries of a room's timeline before `before` (exclusive), ascending. */
    timeline(request: {
      readonly connId: string
      readonly roomId: RoomId
      readonly limit: number
      readonly before?: number
    }): Effect.Effect<ReadonlyArray<TimelineEntry>, StoreError>
    /** One timeline event by id, or `undefined`. */
    event(connId: string, roomId: RoomId, eventId: EventId): Effect.Effect<TimelineEvent | undefined, StoreError>
    /** State of a room: all of a type, or the one with this state key. */
    state(request: {
      readonly connId: string
      readonly roomId: RoomId
      readonly type: string
      readonly stateKey?: string
    }): Effect.Effect<ReadonlyArray<StateEvent>, StoreError>
    /** Account data of a type, global or of one room, or `undefined`. */
    accountData(request: {
      readonly connId: string
      readonly type: string
      readonly roomId?: RoomId
    }): Effect.Effect<EphemeralEvent | undefined, StoreError>

    /** Inbox rows after a sequence number, ascending, `limit` at most. */
    readInbox(request: {
      readonly after: number
      readonly limit: number
    }): Effect.Effect<ReadonlyArray<InboxEntry>, StoreError>
    /** Where a named consumer of the inbox stands; 0 at first. */
    inboxCursor(consumer: string): Effect.Effect<number, StoreError>
    /** Moves a consumer's cursor forward (never back), and deletes rows that every consumer has passed and that are older than `keep` rows. */
    advanceInbox(request: {
      readonly consumer: string
      readonly sequence: number
      readonly keep: number
    }): Effect.Effect<void, StoreError>
    /**
     * Removes a consumer's cursor, for one that won't come back: rows wait for every cursor. What only it had not read is
     * deleted with the next `advanceInbox` of another. Should it come back, it starts at the oldest row that is left.
     */
    forgetConsumer(consumer: string): Effect.Effect<void, StoreError>

    /** What was quarantined, newest first. */
    quarantine(limit: number): Effect.Effect<ReadonlyArray<QuarantineEntry>, StoreError>
    /** How many things were quarantined since the store was made. */
    readonly quarantineCount: Effect.Effect<number, StoreError>
  }
>()("@twinloop/core/SyncStore") {}
