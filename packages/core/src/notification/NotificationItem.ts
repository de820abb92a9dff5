/**
 * What a push comes to: something to show, or the reason why there is nothing.
 *
 * Includes what a push says (`NotificationRequest`), what is shown (`NotificationItem`) and the result of resolving one push.
 *
 * Invariants: I7 (what could not be found out is named, in `missing` or in the result itself).
 *
 * Not here: who resolves (`NotificationClient.ts`), which words are shown (`NotificationText.ts`).
 */
import type { EventId, JsonObject, RoomId, StateEvent, TimelineEvent, UserId } from "../matrix/MatrixEvent.ts"
import type { Shield, UndecryptableReason } from "../sync/EventDecryptor.ts"
import type { ErrorClass } from "../sync/SupervisionPolicy.ts"

/** What a push says. */
export interface NotificationRequest {
  readonly roomId: RoomId
  readonly eventId: EventId
  /** The homeserver calls it urgent (`prio: high`): decrypted and told before others of the same batch. */
  readonly isUrgent?: boolean
}

/** What happened, as far as it decides how it is shown. A call comes before everything else. */
export type NotificationKind = "call" | "message" | "invite" | "edit" | "reaction" | "membership" | "other"

/** Who sent it. */
export interface NotificationSender {
  readonly userId: UserId
  /** The display name in this room; the user id where none is known. */
  readonly name: string
  /** Whether somebody else in the room is known to have the same name, so that the id must be shown as well. */
  readonly isNameAmbiguous: boolean
  /** `mxc:` address. */
  readonly avatarUrl?: string
}

/** Where it was sent. What isn't known is absent. */
export interface NotificationRoom {
  readonly roomId: RoomId
  /** Spec: "Calculating the display name for a room"; the room id where nothing is known. */
  readonly name: string
  /** `mxc:` address; of a direct chat without one, the other's. */
  readonly avatarUrl?: string
  readonly canonicalAlias?: string
  readonly topic?: string
  /** Content of `m.room.join_rules`: `public`, `invite`, `knock`, `restricted`, … */
  readonly joinRule?: string
  readonly isEncrypted: boolean
  readonly isDirect: boolean
  /** Members without service members (MSC4171). */
  readonly joinedCount?: number
  readonly invitedCount?: number
}

/** A part of an item that could not be found out, and why, in a sentence. */
export interface NotificationGap {
  readonly part: "room" | "sender" | "pushRules"
  readonly message: string
}

/** What is shown: who says what, where. */
export interface NotificationItem {
  readonly kind: NotificationKind
  /** After decryption, if it could be decrypted. An invitation's has no `event_id` (spec: "Stripped state"). */
  readonly event: TimelineEvent | StateEvent
  readonly sender: NotificationSender
  readonly room: NotificationRoom
  /** The event at the root of the thread that it belongs to. Spec: "Threading". */
  readonly threadRootId?: EventId
  /** What the push rules say; absent when the account's rules aren't known. Spec: "Actions". */
  readonly actions?: ReadonlyArray<string | JsonObject>
  /** Push rule tweaks say: with a sound. */
  readonly isNoisy: boolean
  /** Push rule tweaks say: highlighted. */
  readonly isMention: boolean
  /** Of a decrypted event: how far its sender is trusted. */
  readonly shield?: Shield
  /** What is not as it should be, and why; empty when nothing is missing. */
  readonly missing: ReadonlyArray<NotificationGap>
}

/** Why there is nothing to show although the event is known. */
export type FilterReason =
  /** A push rule decides, or none matches. */
  | "pushRule"
  | "ownEvent"
  /** The user ignores the sender. Spec: "Ignoring Users". */
  | "ignoredSender"

/** Why nothing could be found out: the class of the error, or `defect` for a bug of ours. */
export interface NotificationFailure {
  readonly class: ErrorClass | "defect"
  readonly message: string
}

/** What became of a push; each says why something is missing. `message` is a sentence for people. */
export type NotificationResult =
  | { readonly _tag: "Event"; readonly item: NotificationItem }
  /** Not to be notified of. `rule` is the id of the push rule that decided, evaluated on the decrypted event. */
  | {
      readonly _tag: "FilteredOut"
      readonly reason: FilterReason
      readonly rule?: string
      readonly message: string
    }
  /** Its sender, or a moderator, has taken it back. */
  | { readonly _tag: "Redacted"; readonly message: string }
  /** The homeserver doesn't know the event, or doesn't let this user see it. */
  | { readonly _tag: "NotFound"; readonly message: string }
  /** The event is known and can't be read; `item` has it as it came, with its room and sender. */
  | {
      readonly _tag: "Undecrypted"
      readonly reason: UndecryptableReason
      readonly message: string
      readonly item: NotificationItem
    }
  /** The deadline passed before these were there. */
  | { readonly _tag: "Expired"; readonly missing: ReadonlyArray<string>; readonly message: string }
  /** Nothing could be found out: logged out, a homeserver that refuses, a database that can't be used. */
  | { readonly _tag: "Failed"; readonly failure: NotificationFailure; readonly message: string }
