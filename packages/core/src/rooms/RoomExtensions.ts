/**
 * What the extensions do to a room: account data, the account's own receipts, and typing.
 *
 * Includes the reasons why an extension's content can't be read, for the quarantine.
 *
 * Invariants: I7 (content that isn't what the spec says changes nothing, and has a reason).
 *
 * Gotchas: each function gives back the very same room when nothing changed, so that the caller can tell. The ids of
 * receipts' events aren't ordered; the homeserver's own time of the receipt is (Matrix 1.4, "Receipts").
 *
 * Not here: storing account data (`sync/MainIngest.ts`), the room update itself (`RoomState.ts`).
 */
import { Predicate } from "effect"
import type { EphemeralEvent, EventId, RoomId, TimelineEvent, UserId } from "../matrix/MatrixEvent.ts"
import type { Room, UnreadInputs } from "./Room.ts"
import { makesUnread } from "./RoomTimeline.ts"

const isArrayOfStrings = (value: unknown): value is ReadonlyArray<string> =>
  Array.isArray(value) && value.every(Predicate.isString)

const stringsOnly = (value: unknown): ReadonlyArray<string> =>
  Array.isArray(value) ? value.filter(Predicate.isString) : []

/** Whether two lists hold the same texts in the same order. */
const isSameList = (left: ReadonlyArray<string>, right: ReadonlyArray<string>): boolean =>
  left.length === right.length && left.every((text, index) => text === right[index])

// --- account data

/** Says why room account data of a known type can't be read, or `undefined` when it can or nobody here reads it. */
export const whyNotAccountData = ({ content, type }: EphemeralEvent): string | undefined => {
  switch (type) {
    case "m.fully_read":
      return typeof content.event_id === "string" ? undefined : `its "event_id" is not a string`
    case "m.marked_unread":
    case "com.famedly.marked_unread":
      return typeof content.unread === "boolean" ? undefined : `its "unread" is not a boolean`
    case "m.tag":
      return Predicate.isObject(content.tags) ? undefined : `its "tags" is not a JSON object`
    default:
      return undefined
  }
}

const setUnread = (room: Room, change: Partial<UnreadInputs>): Room => ({
  ...room,
  unread: { ...room.unread, ...change }
})

const setTags = (room: Room, tags: ReadonlyArray<string>): Room =>
  isSameList(room.tags ?? [], tags) ? room : { ...room, tags }

const setMarkedUnread = (room: Room, markedUnread: boolean): Room =>
  room.unread.markedUnread === markedUnread ? room : setUnread(room, { markedUnread })

/**
 * The room after one event of its account data: `m.fully_read`, `m.marked_unread` (also in its unstable spelling,
 * MSC2867) and `m.tag`. Other types change nothing here.
 */
export const applyAccountData = (room: Room, event: EphemeralEvent): Room => {
  if (whyNotAccountData(event) !== undefined) return room
  const { content, type } = event
  switch (type) {
    case "m.fully_read": {
      const fullyRead = content.event_id as EventId
      return room.unread.fullyRead === fullyRead ? room : setUnread(room, { fullyRead })
    }
    case "m.marked_unread":
    case "com.famedly.marked_unread":
      return setMarkedUnread(room, content.unread === true)
    case "m.tag":
      return setTags(room, Object.keys(content.tags as object).sort())
    default:
      return room
  }
}

/**
 * The room after account data that came together. A mark in both spellings counts in the stable one: older clients leave
 * the unstable one behind, and a first response brings both.
 */
export const applyAllAccountData = (room: Room, events: ReadonlyArray<EphemeralEvent>): Room => {
  const isMarked = events.some((event) => event.type === "m.marked_unread" && whyNotAccountData(event) === undefined)
  return events
    .filter((event) => !(isMarked && event.type === "com.famedly.marked_unread"))
    .reduce(applyAccountData, room)
}

/** Says why global `m.direct` can't be read, or `undefined` when it can. */
export const whyNotDirect = (event: EphemeralEvent): string | undefined => {
  const wrong = Object.keys(event.content).find((userId) => !isArrayOfStrings(event.content[userId]))
  return wrong === undefined ? undefined : `its "${wrong}" is not a list of room ids`
}

/** The rooms that `m.direct` calls direct chats; entries that can't be read are left out. Spec: "Direct Messaging". */
export const directRooms = (event: EphemeralEvent): ReadonlySet<RoomId> =>
  new Set(Object.values(event.content).flatMap(stringsOnly))

// --- receipts

interface OwnReceipt {
  readonly eventId: EventId
  readonly atMillis: number
}

const receiptTypes = ["m.read", "m.read.private"] as const

/** A receipt of one thread doesn't say that the room was read; `main` and none do. Spec: "Threaded read receipts". */
const isWholeRoom = (receipt: { readonly [key: string]: unknown }): boolean =>
  receipt.thread_id === undefined || receipt.thread_id === "main"

const receiptOf = (byType: unknown, type: string, userId: UserId): { readonly [key: string]: unknown } | undefined => {
  const byUser = Predicate.isObject(byType) ? byType[type] : undefined
  const receipt = Predicate.isObject(byUser) ? byUser[userId] : undefined
  return Predicate.isObject(receipt) && isWholeRoom(receipt) ? receipt : undefined
}

/** Says why a room's receipts can't be read, or `undefined` when they can. */
export const whyNotReceipts = (event: EphemeralEvent): string | undefined => {
  const wrong = Object.keys(event.content).find((eventId) => !Predicate.isObject(event.content[eventId]))
  return wrong === undefined ? undefined : `its "${wrong}" is not a JSON object`
}

/** The account's own newest receipt for the whole room, public or private, or `undefined` when there is none. */
export const ownReceipt = (event: EphemeralEvent, ownUserId: UserId): OwnReceipt | undefined => {
  let newest: OwnReceipt | undefined
  for (const eventId of Object.keys(event.content)) {
    for (const type of receiptTypes) {
      const receipt = receiptOf(event.content[eventId], type, ownUserId)
      if (receipt === undefined) continue
      const atMillis = typeof receipt.ts === "number" ? receipt.ts : 0
      if (newest === undefined || atMillis > newest.atMillis) newest = { eventId, atMillis }
    }
  }
  return newest
}

/**
 * The room after its receipts, of which only the account's own matter.
 *
 * When the receipt moved, the unread events are those behind it: in `timeline` behind the receipt's event, else the live
 * ones of this response (`live`), all of which came later.
 *
 * @param timeline the room's timeline of the same response, ascending; empty if there was none
 * @param live its last events, those that happened after the request
 */
export const applyReceipts = (
  room: Room,
  event: EphemeralEvent,
  context: {
    readonly ownUserId: UserId
    readonly timeline: ReadonlyArray<TimelineEvent>
    readonly live: ReadonlyArray<TimelineEvent>
  }
): Room => {
  const receipt = ownReceipt(event, context.ownUserId)
  const { readReceipt, readReceiptAtMillis } = room.unread
  if (receipt === undefined || receipt.eventId === readReceipt) return room
  if (readReceiptAtMillis !== undefined && receipt.atMillis < readReceiptAtMillis) return room
  const at = context.timeline.findIndex(({ event_id }) => event_id === receipt.eventId)
  const behind = at === -1 ? context.live : context.timeline.slice(at + 1)
  return setUnread(room, {
    readReceipt: receipt.eventId,
    readReceiptAtMillis: receipt.atMillis,
    liveSinceRead: behind.filter((other) => makesUnread(other, context.ownUserId)).length
  })
}

// --- typing

/** Says why typing can't be read, or `undefined` when it can. */
export const whyNotTyping = (event: EphemeralEvent): string | undefined =>
  isArrayOfStrings(event.content.user_ids) ? undefined : `its "user_ids" is not a list of user ids`

/** The room after `m.typing`: who types, without oneself. */
export const applyTyping = (room: Room, event: EphemeralEvent, ownUserId: UserId): Room => {
  const typing = stringsOnly(event.content.user_ids).filter((userId) => userId !== ownUserId)
  return isSameList(room.typing, typing) ? room : { ...room, typing }
}
