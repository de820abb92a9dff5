/**
 * Which rooms a list shows.
 *
 * Includes filters by membership, kind, unread state, tag, name and succession, and their combinations.
 *
 * Gotchas: a filter must be a pure function of its arguments. It may look at a room's successor through `lookup`; a list
 * evaluates it again when that successor changes, and at no other room's changes.
 *
 * Not here: filters of the request to the homeserver (`matrix/SlidingSync.ts`), orders (`RoomSorters.ts`).
 */
import type { RoomId } from "../matrix/MatrixEvent.ts"
import type { Membership } from "../matrix/SlidingSync.ts"
import type { Room } from "./Room.ts"

/** Whether a list shows a room. `lookup` gives the other rooms that are known. */
export type RoomFilter = (room: Room, lookup: (roomId: RoomId) => Room | undefined) => boolean

/** Shows what every one of the filters shows; with no filters, every room. */
export const all =
  (filters: ReadonlyArray<RoomFilter>): RoomFilter =>
  (room, lookup) =>
    filters.every((filter) => filter(room, lookup))

/** Shows what at least one of the filters shows; with no filters, no room. */
export const any =
  (filters: ReadonlyArray<RoomFilter>): RoomFilter =>
  (room, lookup) =>
    filters.some((filter) => filter(room, lookup))

/** Shows no room. */
export const none: RoomFilter = () => false

/** Shows what the filter doesn't show. */
export const not =
  (filter: RoomFilter): RoomFilter =>
  (room, lookup) =>
    !filter(room, lookup)

/** Shows rooms of one membership. */
export const membership =
  (wanted: Membership): RoomFilter =>
  (room) =>
    room.membership === wanted

/** Shows invites. */
export const invite: RoomFilter = membership("invite")

/** Shows rooms that the user has joined. */
export const joined: RoomFilter = membership("join")

/** Shows rooms that the user is in, is invited to or knocks at: all but those left and those banned from. */
export const nonLeft: RoomFilter = (room) => room.membership !== "leave" && room.membership !== "ban"

/** Shows direct chats (`people`) or the others (`group`). */
export const category =
  (wanted: "people" | "group"): RoomFilter =>
  (room) =>
    room.isDm === (wanted === "people")

/** Shows spaces. Spec: "Spaces". */
export const space: RoomFilter = (room) => room.roomType === "m.space"

/** Shows rooms that are unread: by the homeserver's count, by live events since the receipt, or by the user's own mark. */
export const unread: RoomFilter = ({ unread: inputs }) =>
  inputs.markedUnread || inputs.notificationCount > 0 || inputs.liveSinceRead > 0

/** Shows rooms that the user has tagged. Spec: "Room Tagging". */
export const tagged =
  (tag: string): RoomFilter =>
  (room) =>
    room.tags?.includes(tag) === true

/** Shows favourites: rooms tagged `m.favourite`. */
export const favourite: RoomFilter = tagged("m.favourite")

/** Shows rooms tagged `m.lowpriority`. */
export const lowPriority: RoomFilter = tagged("m.lowpriority")

/**
 * Leaves out a room whose successor the user has joined: the same room in an older version. Spec: "Room Upgrades".
 */
export const deduplicateVersions: RoomFilter = (room, lookup) =>
  room.replacedBy === undefined || lookup(room.replacedBy)?.membership !== "join"

// --- names

/** A text as names are compared: decomposed (NFD), without combining marks, in lower case. */
export const normalise = (text: string): string =>
  text
    .normalize("NFD")
    .replace(/\p{Mark}/gu, "")
    .toLowerCase()

const isSubsequence = (pattern: string, text: string): boolean => {
  let at = 0
  for (const character of pattern) {
    at = text.indexOf(character, at)
    if (at === -1) return false
    at += character.length
  }
  return true
}

/** Shows rooms whose shown name contains a text, without regard to case and accents. */
export const nameContains = (text: string): RoomFilter => {
  const wanted = normalise(text)
  return (room) => normalise(room.displayName).includes(wanted)
}

/** Shows rooms whose shown name contains a text's characters in their order, spaces aside: "mtx" finds "Matrix". */
export const nameFuzzy = (text: string): RoomFilter => {
  const wanted = normalise(text).replace(/\s/gu, "")
  return (room) => isSubsequence(wanted, normalise(room.displayName))
}
