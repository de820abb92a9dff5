/**
 * Orders of a room list.
 *
 * Includes recency, name and id, and their lexicographic composition.
 *
 * Invariants: an order made by {@link lexicographic} is total (no two rooms are equal), so that a room's place can be found
 * by binary search and never depends on the order in which rooms came.
 *
 * Not here: which rooms are shown (`RoomFilters.ts`).
 */
import { Order } from "effect"
import type { Room } from "./Room.ts"

/** An order of rooms; what comes first is at the top of the list. */
export type RoomSorter = Order.Order<Room>

let collator: Intl.Collator | undefined

/**
 * One fixed locale: two processes of one client must agree. Case and accents don't separate names; the id then does.
 *
 * Made by the first comparison and not by the first import: the tables of languages take 4 ms.
 */
const compareNames = (left: string, right: string): number =>
  (collator ??= new Intl.Collator("en", { sensitivity: "base", numeric: true })).compare(left, right)

/** Most recent first, by the homeserver's `bump_stamp` (MSC4186). */
export const byRecency: RoomSorter = Order.mapInput(Order.flip(Order.Number), (room: Room) => room.bumpStamp)

/** By shown name, without regard to case and accents, numbers by value. */
export const byName: RoomSorter = Order.make((left, right) => {
  const compared = compareNames(left.displayName, right.displayName)
  return compared < 0 ? -1 : compared > 0 ? 1 : 0
})

/** By room id: without meaning, and never equal. */
export const byId: RoomSorter = Order.mapInput(Order.String, (room: Room) => room.roomId)

/** By the first order, where that sees no difference by the second, and so on; finally by room id. */
export const lexicographic = (sorters: ReadonlyArray<RoomSorter>): RoomSorter => Order.combineAll([...sorters, byId])

/** Recency, then name, then id: what a room list is sorted by unless something else is said. */
export const defaultSorter: RoomSorter = lexicographic([byRecency, byName])
