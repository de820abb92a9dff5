/**
 * What an event says, in words: either its sender's own words, or what the sender did.
 *
 * Includes messages of every type of the spec, polls, calls, reactions, memberships, and a sentence for what isn't known.
 *
 * Gotchas: the content is hostile. Only own properties count, and what isn't a string where one belongs isn't there.
 *
 * Source: spec, "Instant Messaging", "Media captions", "Rich replies"; MSC3381 (polls), MSC4075 (calls).
 *
 * Not here: who and where, and making the words harmless (`NotificationText.ts`).
 */
import { Predicate } from "effect"
import type { MatrixEvent } from "../matrix/MatrixEvent.ts"
import type { NotificationKind } from "./NotificationItem.ts"
import { isEdit, own } from "./NotificationKinds.ts"

/**
 * - `Said`: the sender's own words.
 * - `Emoted`: the sender's own words, to be read after the sender's name as a sentence.
 * - `Done`: what the sender did, to be read in the same way; `words` are the sender's own, if there are any.
 */
export type EventWords =
  | { readonly _tag: "Said" | "Emoted"; readonly text: string }
  | { readonly _tag: "Done"; readonly what: string; readonly words?: string }

/** A string that isn't blank. */
const text = (value: unknown, key: string): string | undefined => {
  const found = own(value, key)
  return typeof found === "string" && found.trim() !== "" ? found : undefined
}

const done = (what: string, words?: string): EventWords => ({
  _tag: "Done",
  what,
  ...(words !== undefined && { words })
})

/** `> <@alice:hs> …`, or `> * <@alice:hs> …` for an emote: the first line of a quotation that clients used to put before a reply. */
const quotation = /^> (?:\* )?<@[^>\n]*>/u

/** Where the quoted lines end. A loop, since a regular expression for it overflows its stack on a hostile body. */
const quotedUntil = (body: string): number => {
  let start = 0
  while (body[start] === ">") {
    const end = body.indexOf("\n", start)
    if (end === -1) return body.length
    start = end + 1
  }
  return start
}

/** A reply without the quoted lines and the empty one after them. Spec up to version 1.12: "Fallbacks for rich replies". */
const withoutQuotation = (content: unknown, body: string): string => {
  const isReply = own(own(content, "m.relates_to"), "m.in_reply_to") !== undefined
  if (!isReply || !quotation.test(body)) return body
  const reply = body.slice(quotedUntil(body))
  return reply.trim() === "" ? body : reply
}

const bodyOf = (content: unknown): string | undefined => {
  const body = text(content, "body")
  return body === undefined ? undefined : withoutQuotation(content, body)
}

/** What is written beside a file. Spec: "Media captions": the `body`, if there is another `filename`. */
const caption = (content: unknown): string | undefined => {
  const filename = text(content, "filename")
  return filename === undefined || filename === text(content, "body") ? undefined : bodyOf(content)
}

const isVoice = (content: unknown): boolean =>
  Predicate.isObject(content) && ["m.voice", "org.matrix.msc3245.voice"].some((key) => Object.hasOwn(content, key))

const said = (tag: "Said" | "Emoted", content: unknown): EventWords => {
  const body = bodyOf(content)
  return body === undefined ? done("sent an empty message") : { _tag: tag, text: body }
}

const message = (content: unknown): EventWords => {
  switch (own(content, "msgtype")) {
    case "m.emote":
      return said("Emoted", content)
    case "m.image":
      return done("sent an image", caption(content))
    case "m.video":
      return done("sent a video", caption(content))
    case "m.audio":
      return done(isVoice(content) ? "sent a voice message" : "sent an audio file", caption(content))
    case "m.file":
      return done("sent a file", caption(content) ?? text(content, "filename") ?? text(content, "body"))
    case "m.location":
      return done("shared a location")
    case "m.key.verification.request":
      return done("wants to verify you")
    default:
      return said("Said", content)
  }
}

/** The plain text of a piece of extensible content: MSC1767's, or its fallback. */
const plain = (content: unknown): string | undefined => {
  const parts = own(content, "m.text")
  const first = Array.isArray(parts)
    ? parts.map((part) => text(part, "body")).find(Predicate.isNotUndefined)
    : undefined
  return first ?? text(content, "m.text") ?? text(content, "org.matrix.msc1767.text") ?? text(content, "body")
}

const question = (content: unknown): string | undefined =>
  ["m.poll", "m.poll.start", "org.matrix.msc3381.poll.start"]
    .map((key) => plain(own(own(content, key), "question")))
    .find(Predicate.isNotUndefined) ?? plain(content)

/** Whether a call makes every device ring; otherwise it is one that can be joined. `m.call.invite` always does. */
export const isRinging = (event: MatrixEvent): boolean =>
  event.type === "m.call.invite" ||
  own(event.content, "notification_type") === "ring" ||
  own(event.content, "notify_type") === "ring"

const reaction = (content: unknown): EventWords => {
  const key = text(own(content, "m.relates_to"), "key")
  return done(key === undefined ? "reacted" : `reacted with ${key}`)
}

/** What happened to a membership of another user. */
const moderation = (before: unknown, after: unknown, whom: string): string => {
  if (after === "invite") return `invited ${whom}`
  if (after === "ban") return `banned ${whom}`
  if (after !== "leave") return `changed the membership of ${whom}`
  if (before === "ban") return `lifted the ban on ${whom}`
  if (before === "invite") return `withdrew the invitation of ${whom}`
  return before === "knock" ? `didn't let ${whom} in` : `removed ${whom}`
}

/** What somebody did with the own membership. */
const movement = (before: unknown, after: unknown): string => {
  if (after === "join") return before === "join" ? "changed the name or picture" : "joined"
  if (after === "knock") return "asks to be let in"
  if (after !== "leave") return "changed the membership"
  if (before === "invite") return "declined the invitation"
  return before === "knock" ? "no longer asks to be let in" : "left"
}

const membership = (event: MatrixEvent, kind: NotificationKind): EventWords => {
  const { content } = event
  const reason = text(content, "reason")
  if (kind === "invite") return done("invites you", reason)
  const [before, after] = [own(own(own(event, "unsigned"), "prev_content"), "membership"), own(content, "membership")]
  const target = text(event, "state_key") ?? "somebody"
  if (target === event.sender) return done(movement(before, after), reason)
  return done(moderation(before, after, text(content, "displayname") ?? target), reason)
}

/** What is new of an event: of an edit, the content that replaces the old one. */
const newContent = (event: MatrixEvent): unknown => {
  const replacement = own(event.content, "m.new_content")
  return isEdit(event) && Predicate.isObject(replacement) ? replacement : event.content
}

/** What the event of an item says. `kind` is the item's, since an event alone doesn't say whose invitation it is. */
export const wordsOf = (event: MatrixEvent, kind: NotificationKind): EventWords => {
  const content = newContent(event)
  if (kind === "call") return done(isRinging(event) ? "is calling" : "started a call")
  switch (event.type) {
    case "m.room.message":
      return message(content)
    case "m.room.encrypted":
      return done("sent an encrypted message")
    case "m.sticker":
      return done("sent a sticker", text(content, "body"))
    case "m.poll.start":
    case "org.matrix.msc3381.poll.start":
      return done("asks", question(content))
    case "m.poll.end":
    case "org.matrix.msc3381.poll.end":
      return done("ended a poll")
    case "m.reaction":
      return reaction(content)
    case "m.room.member":
      return membership(event, kind)
    case "m.room.name":
      return done("changed the room's name", text(content, "name"))
    case "m.room.topic":
      return done("changed the room's topic", text(content, "topic"))
    case "m.room.tombstone":
      return done("replaced the room by another", text(content, "body"))
    default:
      return done("sent something that can't be shown here", event.type)
  }
}
