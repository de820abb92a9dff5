/**
 * One room as the application sees it: a summary that a room list can show without asking anybody.
 *
 * Includes what the summary is derived from and what no later response repeats (`roomAvatar`, `serviceMembers`), so that
 * an update needs nothing but the room before it.
 *
 * Gotchas: a `Room` is a value. Two of them are the same state exactly when they are the same object, and lists rely on it.
 *
 * Not here: how a response changes a room (`RoomState.ts`, `RoomExtensions.ts`), the name (`DisplayName.ts`).
 */
import type { EventId, RoomId, TimelineEvent, UserId } from "../matrix/MatrixEvent.ts"
import type { Hero, Membership } from "../matrix/SlidingSync.ts"

/** Who invites (or whom one knocks at), from the stripped state. */
export interface Invite {
  readonly inviter?: UserId
  readonly inviterDisplayName?: string
  /** The inviter means a direct chat. Spec: `is_direct` of `m.room.member`. */
  readonly isDirect: boolean
}

/** What unread counts are computed from; the count itself needs push rules and decrypted events. */
export interface UnreadInputs {
  /** As the homeserver counts, where it does (Synapse always says 0). */
  readonly notificationCount: number
  readonly highlightCount: number
  /** The latest event that this user has read, by receipt. Spec: `m.read`, `m.read.private`. */
  readonly readReceipt?: EventId
  /** When the homeserver took that receipt, Unix milliseconds: an older receipt never replaces a newer one. */
  readonly readReceiptAtMillis?: number
  /** Spec: `m.fully_read`. */
  readonly fullyRead?: EventId
  /** Spec: `m.marked_unread`. */
  readonly markedUnread: boolean
  /** Live events by others, other than state and redactions, since the read receipt moved. */
  readonly liveSinceRead: number
}

/** The summary of one room, of any membership. */
export interface Room {
  readonly roomId: RoomId
  readonly membership: Membership
  /** The name to show, by the spec's algorithm, never empty. */
  readonly displayName: string
  /** `m.room.name`, if the room has one. */
  readonly name?: string
  readonly canonicalAlias?: string
  readonly topic?: string
  /** `mxc:` URL of the room, or of the other member of a direct chat. */
  readonly avatar?: string
  /** `m.room.avatar` alone, if the room has one: what `avatar` starts from. */
  readonly roomAvatar?: string
  /** Ids of the state events that say the name, the avatar and so on, by type: nobody repeats them when one is redacted. */
  readonly sources?: { readonly [type: string]: EventId }
  readonly heroes: ReadonlyArray<Hero>
  /** Bots and bridges that the name leaves out. MSC4171, `io.element.functional_members`. */
  readonly serviceMembers?: ReadonlyArray<UserId>
  readonly joinedCount: number
  readonly invitedCount: number
  readonly isDm: boolean
  readonly isEncrypted: boolean
  /** `m.room.create`'s type (`m.space`, ...), absent for an ordinary room. */
  readonly roomType?: string
  /** The room that replaces this one. Spec: `m.room.tombstone`. */
  readonly replacedBy?: RoomId
  /** Sort key for recency: larger is more recent. */
  readonly bumpStamp: number
  /** The newest timeline event. */
  readonly latestEvent?: TimelineEvent
  readonly invite?: Invite
  readonly unread: UnreadInputs
  /** This user's tags of the room, sorted: `m.favourite`, `m.lowpriority`, ... Spec: "Room Tagging". */
  readonly tags?: ReadonlyArray<string>
  /** Who is typing, without oneself. Not durable: empty after a restart. */
  readonly typing: ReadonlyArray<UserId>
}

/** The rooms that are known at one moment, by id. A `ReadonlyMap` is one. */
export interface KnownRooms {
  get(roomId: RoomId): Room | undefined
  keys(): Iterable<RoomId>
}
