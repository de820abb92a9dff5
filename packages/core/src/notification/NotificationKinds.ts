/**
 * What kind of thing an event is, as far as it decides how it is shown.
 *
 * Gotchas: the content is its sender's, so only own properties count, and anything may stand in them. An edit by its relation
 * says nothing about whether the edited event is the sender's.
 *
 * Not here: the words (`NotificationText.ts`).
 */
import { Predicate } from "effect"
import type { MatrixEvent, UserId } from "../matrix/MatrixEvent.ts"
import type { NotificationKind } from "./NotificationItem.ts"

/** Spec: "Voice over IP"; MSC4075 for MatrixRTC, in its older and newer spelling. */
const calls: ReadonlySet<string> = new Set([
  "m.call.invite",
  "m.call.notify",
  "m.rtc.notification",
  "org.matrix.msc4075.call.notify",
  "org.matrix.msc4075.rtc.notification"
])

/** `m.room.encrypted` is what could not be decrypted: a message, as far as anybody knows. MSC3381 for the polls. */
const messages: ReadonlySet<string> = new Set([
  "m.room.message",
  "m.room.encrypted",
  "m.sticker",
  "m.poll.start",
  "org.matrix.msc3381.poll.start"
])

/** The member of a JSON object, if the value is one and has it itself. */
export const own = (value: unknown, key: string): unknown =>
  Predicate.isObject(value) && Object.hasOwn(value, key) ? value[key] : undefined

/** Whether the event replaces the content of another. Spec: "Event replacements"; state events replace nothing. */
export const isEdit = (event: MatrixEvent): boolean =>
  own(event, "state_key") === undefined && own(own(event.content, "m.relates_to"), "rel_type") === "m.replace"

/**
 * The kind of an event, after decryption where that was possible. A call comes before everything else; an invitation is
 * one of `ownUserId`, anybody else's is a membership.
 */
export const kindOf = (event: MatrixEvent, ownUserId: UserId): NotificationKind => {
  const stateKey = own(event, "state_key")
  if (event.type === "m.room.member" && typeof stateKey === "string") {
    return stateKey === ownUserId && own(event.content, "membership") === "invite" ? "invite" : "membership"
  }
  if (stateKey !== undefined) return "other"
  if (calls.has(event.type)) return "call"
  if (isEdit(event)) return "edit"
  if (event.type === "m.reaction") return "reaction"
  return messages.has(event.type) ? "message" : "other"
}
