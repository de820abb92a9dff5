/**
 * Port to what turns a push into something to show: a push brings a room id and an event id, and nothing else.
 *
 * Includes the types of a request and of its result. There is no adapter yet: whoever needs notifications provides one.
 *
 * Invariants: I1 (an implementation that reads the extension stream takes the lease like everybody else, and tries once),
 * I10 (one deadline for everything).
 *
 * Source: spec, "Push notifications"; matrix-rust-sdk issue 1928.
 */
import { Context } from "effect"
import type { Duration, Effect } from "effect"
import type { EventId, RoomId, TimelineEvent, UserId } from "../matrix/MatrixEvent.ts"

/** What a push says. */
export interface NotificationRequest {
  readonly roomId: RoomId
  readonly eventId: EventId
}

/** What is shown: who says what, where. */
export interface NotificationItem {
  readonly roomId: RoomId
  readonly roomName: string
  readonly senderId: UserId
  readonly senderName: string
  /** After decryption. */
  readonly event: TimelineEvent
  /** Push rule tweaks say: with a sound. Spec: "Actions". */
  readonly isNoisy: boolean
  /** Push rule tweaks say: highlighted. */
  readonly isMention: boolean
}

/** What became of a push; each says why something is missing. */
export type NotificationResult =
  | { readonly _tag: "Event"; readonly item: NotificationItem }
  /** A push rule, evaluated on the decrypted event, says not to notify. */
  | { readonly _tag: "FilteredOut"; readonly rule: string }
  | { readonly _tag: "Redacted" }
  | { readonly _tag: "NotFound" }
  /** The event is known and its key isn't. */
  | { readonly _tag: "Undecrypted"; readonly reason: string }
  /** The deadline passed before this was there. */
  | { readonly _tag: "Expired"; readonly missing: string }

export class NotificationClient extends Context.Service<
  NotificationClient,
  {
    /** Resolves one push within a deadline. Never fails: what went wrong is in the result. */
    resolve(
      request: NotificationRequest,
      options?: { readonly deadline?: Duration.Input }
    ): Effect.Effect<NotificationResult>
    /** Resolves several under one deadline, in the order given; a bad one doesn't spoil the others. */
    resolveMany(
      requests: ReadonlyArray<NotificationRequest>,
      options?: { readonly deadline?: Duration.Input }
    ): Effect.Effect<ReadonlyArray<NotificationResult>>
  }
>()("@twinloop/core/NotificationClient") {}
