/**
 * What an event that is known comes to: something to show, or the reason why it isn't shown.
 *
 * Invariants: I7 (what isn't known is named in the item's `missing`, and never keeps an event from being shown).
 *
 * Gotchas: push rules are evaluated on the decrypted event, as the homeserver couldn't; they may well silence what it pushed
 * (an edit, a reaction) or make it louder (a mention). An event that can't be decrypted is judged as it came. Without known
 * rules everything is shown: the homeserver, which knows them, has pushed it.
 *
 * Not here: finding things out (`NotificationMachine.ts`).
 */
import { Predicate } from "effect"
import type { EventId, RoomId, StateEvent, TimelineEvent } from "../matrix/MatrixEvent.ts"
import * as PushRules from "../matrix/PushRules.ts"
import type { Shield, Undecryptable } from "../sync/EventDecryptor.ts"
import * as NotificationFacts from "./NotificationFacts.ts"
import type { Facts } from "./NotificationFacts.ts"
import type { NotificationGap, NotificationItem, NotificationResult } from "./NotificationItem.ts"
import { kindOf } from "./NotificationKinds.ts"

/** An event about which everything is known that is going to be. */
export interface Judged {
  readonly roomId: RoomId
  /** Decrypted, if it could be. */
  readonly event: TimelineEvent | StateEvent
  readonly shield?: Shield | undefined
  /** Why it is still encrypted, if it is. */
  readonly undecryptable?: Undecryptable | undefined
  readonly isThreadSubscribed?: boolean | undefined
  /** Why something could not be asked for; for the gaps. */
  readonly why?: string | undefined
}

/** The event at the root of an event's thread. Spec: "Threading". */
export const threadRootOf = ({ content }: TimelineEvent | StateEvent): EventId | undefined => {
  const relation = content["m.relates_to"]
  if (!Predicate.isObject(relation)) return undefined
  const { event_id: root, rel_type: kind } = relation as { readonly [key: string]: unknown }
  return kind === "m.thread" && typeof root === "string" ? root : undefined
}

/**
 * Why an event is of no interest whatever it says, or `undefined` when it may be: taken back, one's own, or by somebody whom
 * the user ignores. Decided before anything is decrypted.
 */
export const dismiss = (
  facts: Facts,
  roomId: RoomId,
  event: TimelineEvent | StateEvent
): NotificationResult | undefined => {
  if (NotificationFacts.isRedacted(facts, roomId, event))
    return { _tag: "Redacted", message: "the event was taken back before it could be shown" }
  if (event.sender === facts.ownUserId)
    return { _tag: "FilteredOut", reason: "ownEvent", message: "this user has sent the event himself" }
  if (facts.ignored.has(event.sender))
    return { _tag: "FilteredOut", reason: "ignoredSender", message: `this user ignores ${event.sender}` }
  return undefined
}

const gapsOf = (facts: Facts, { event, roomId, why }: Judged): ReadonlyArray<NotificationGap> => {
  const because = why === undefined ? "" : `: ${why}`
  const gaps: Array<NotificationGap> = []
  if (!NotificationFacts.isRoomKnown(facts, roomId))
    gaps.push({ part: "room", message: `nothing is known about the room, so its id is shown${because}` })
  if (!NotificationFacts.isSenderKnown(facts, roomId, event.sender))
    gaps.push({ part: "sender", message: `the sender's name in the room isn't known, so the id is shown${because}` })
  if (facts.rules === undefined)
    gaps.push({ part: "pushRules", message: `the account's push rules aren't known, so it is shown${because}` })
  return gaps
}

const itemOf = (facts: Facts, judged: Judged, evaluation: PushRules.Evaluation | undefined): NotificationItem => {
  const { event, roomId, shield, undecryptable } = judged
  const room = NotificationFacts.roomOf(facts, roomId)
  const threadRootId = threadRootOf(event)
  const isEncrypted = room.isEncrypted || shield !== undefined || undecryptable !== undefined
  return {
    kind: kindOf(event, facts.ownUserId),
    event,
    sender: NotificationFacts.senderOf(facts, roomId, event.sender),
    room: isEncrypted ? { ...room, isEncrypted } : room,
    ...(threadRootId !== undefined && { threadRootId }),
    ...(evaluation !== undefined && { actions: evaluation.actions }),
    isNoisy: evaluation?.isNoisy ?? false,
    isMention: evaluation?.isMention ?? false,
    ...(shield !== undefined && { shield }),
    missing: gapsOf(facts, judged)
  }
}

const silenced = ({ rule }: PushRules.Evaluation): NotificationResult => ({
  _tag: "FilteredOut",
  reason: "pushRule",
  ...(rule !== undefined && { rule: rule.ruleId }),
  message:
    rule === undefined
      ? "no push rule of the account says to notify of the event"
      : `the push rule ${rule.ruleId} of the account says not to notify of the event`
})

/** What an event comes to. */
export const judge = (facts: Facts, judged: Judged): NotificationResult => {
  const { event, roomId, undecryptable } = judged
  const dismissed = dismiss(facts, roomId, event)
  if (dismissed !== undefined) return dismissed
  const context = NotificationFacts.ruleContext(facts, roomId, judged.isThreadSubscribed)
  const evaluation = facts.rules === undefined ? undefined : PushRules.evaluate(facts.rules, event, context)
  if (evaluation?.isNotify === false) return silenced(evaluation)
  const item = itemOf(facts, judged, evaluation)
  if (undecryptable === undefined) return { _tag: "Event", item }
  const { message, reason } = undecryptable
  return { _tag: "Undecrypted", reason, message, item }
}
