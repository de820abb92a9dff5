/**
 * The words of a notification: what a person wants to see on a lock screen.
 *
 * The title is where, the body who and what: "Kitchen", "Alice: dinner is ready". In a direct chat that has its other
 * member's name, where and who are the same: "Alice", "dinner is ready". It isn't "Alice in Kitchen", because a list of
 * notifications is read by rooms, and every line of a room then has the same title. What somebody did is a sentence with
 * the name everywhere: "Alice sent an image: the new oven", "Alice is calling".
 *
 * Invariants: I7 (what can't be shown is said, with the reason), I10 (`maxTitle`, `maxBody`).
 *
 * Gotchas: every word may be hostile (`SafeText.ts`). HTML and its spoilers aren't looked at; `body` is what is shown.
 *
 * Not here: what an event says (`EventWords.ts`), where it is shown (`NotificationSink.ts`).
 */
import { type EventWords, isRinging, wordsOf } from "./EventWords.ts"
import type { Resolved } from "./NotificationClient.ts"
import type { NotificationItem, NotificationSender } from "./NotificationItem.ts"
import { own } from "./NotificationKinds.ts"
import { clean, shortened } from "./SafeText.ts"

/** Code points of a title, at most; a name inside of a body has half of it. */
export const maxTitle = 100

/** Code points of a body, at most. */
export const maxBody = 500

/** As desktops have it: what is `critical` stays until it is dismissed, what is `low` may be shown without interrupting. */
export type Urgency = "low" | "normal" | "critical"

/** Each is one line of visible characters, never empty, and cut with an ellipsis. */
export interface NotificationText {
  readonly title: string
  readonly body: string
  readonly urgency: Urgency
}

const name = (sender: NotificationSender): string => {
  const shown = shortened(clean(sender.name), maxTitle / 2)
  const id = shortened(clean(sender.userId), maxTitle / 2 - 3)
  if (shown === "") return id === "" ? "Somebody" : id
  return sender.isNameAmbiguous && shown !== id ? `${shown} (${id})` : shown
}

/** A direct chat whose name says nothing but who it is with. */
const isTwosome = ({ room, sender }: NotificationItem): boolean => room.isDirect && room.name === sender.name

const title = (item: NotificationItem): string => {
  const room = isTwosome(item) ? name(item.sender) : clean(item.room.name)
  return shortened(room === "" ? clean(item.room.roomId) || "A room" : room, maxTitle)
}

const sentence = (who: string, { what, words }: Extract<EventWords, { _tag: "Done" }>): string => {
  const said = words === undefined ? "" : clean(words)
  return said === "" ? `${who} ${clean(what)}` : `${who} ${clean(what)}: ${said}`
}

const body = (item: NotificationItem): string => {
  const words = wordsOf(item.event, item.kind)
  const who = name(item.sender)
  if (words._tag === "Done") return sentence(who, words)
  const said = clean(words.text)
  if (said === "") return `${who} sent an empty message`
  if (words._tag === "Emoted") return `* ${who} ${said}`
  return isTwosome(item) ? said : `${who}: ${said}`
}

/** A sender who may be another is marked, since nobody looks behind a lock screen. */
const warning = (item: NotificationItem): string => (item.shield?.color === "red" ? "⚠ " : "")

const urgency = ({ event, isMention, isNoisy, kind }: NotificationItem): Urgency => {
  if (kind === "call") return isRinging(event) ? "critical" : "normal"
  if (isMention || isNoisy || kind === "invite") return "normal"
  const isNotice = own(event.content, "msgtype") === "m.notice"
  return kind === "message" && !isNotice ? "normal" : "low"
}

const ofItem = (item: NotificationItem): NotificationText => ({
  title: title(item),
  body: shortened(`${warning(item)}${body(item)}`, maxBody),
  urgency: urgency(item)
})

/** Nothing is known but that there is something: who, where and what are not made up. */
const ofNothing = (reason: string): NotificationText => ({
  title: "Something new",
  body: shortened(`It can't be shown: ${clean(reason)}`, maxBody),
  urgency: "normal"
})

const ofUndecrypted = (item: NotificationItem, reason: string): NotificationText => ({
  title: title(item),
  body: shortened(`${name(item.sender)} sent an encrypted message. ${clean(reason)}`, maxBody),
  urgency: urgency(item)
})

/**
 * The words for what a push came to, or `undefined` where there is nothing to show: `FilteredOut`, `Redacted`, `NotFound`.
 * Never throws, whatever the event is.
 */
export const textOf = ({ result }: Resolved): NotificationText | undefined => {
  switch (result._tag) {
    case "Event":
      return ofItem(result.item)
    case "Undecrypted":
      return ofUndecrypted(result.item, result.message)
    case "Expired":
    case "Failed":
      return ofNothing(result.message)
    case "FilteredOut":
    case "Redacted":
    case "NotFound":
      return undefined
  }
}
