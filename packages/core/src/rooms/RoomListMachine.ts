/**
 * One live view of the rooms: filter, order and page limit in, entries and their changes out.
 *
 * Includes the loading state, which is the same for all views.
 *
 * Invariants: after `step`, `entries` is what applying the diffs to the `entries` before gives; I10 (a view holds one array
 * of rooms that exist, and a page limit at most one page beyond it).
 *
 * Gotchas: rooms are found by their place, so the order must be total (`RoomSorters.lexicographic` sees to it). An update of
 * k rooms among n costs about k·log n comparisons, one copy of the array and a look at the page; when k is a large part of
 * n, everything is sorted again.
 *
 * Not here: who is told and when (`RoomList.ts`), how diffs are found (`ListDiff.ts`).
 */
import { HashMap, Option } from "effect"
import type { RoomId } from "../matrix/MatrixEvent.ts"
import * as ListDiff from "./ListDiff.ts"
import type { Room } from "./Room.ts"
import * as RoomFilters from "./RoomFilters.ts"
import * as RoomSorters from "./RoomSorters.ts"

/** All rooms that are known, by id. Persistent, so that views share it. */
export type Rooms = HashMap.HashMap<RoomId, Room>

// --- loading

/** Whether the homeserver has said how many rooms there are. */
export type LoadingState =
  | { readonly _tag: "NotLoaded" }
  | { readonly _tag: "Loaded"; readonly maximumNumberOfRooms: number }

/** Before the homeserver has said how many rooms there are. */
export const notLoaded: LoadingState = { _tag: "NotLoaded" }

/**
 * The loading state after the homeserver counted its lists; the very same value if it says nothing new.
 *
 * The number of rooms is the count of the longest list. Once loaded it stays loaded, whatever becomes of the connection.
 */
export const load = (state: LoadingState, lists: { readonly [key: string]: number }): LoadingState => {
  const counts = Object.values(lists)
  if (counts.length === 0) return state
  const maximumNumberOfRooms = Math.max(...counts)
  const isKnown = state._tag === "Loaded" && state.maximumNumberOfRooms === maximumNumberOfRooms
  return isKnown ? state : { _tag: "Loaded", maximumNumberOfRooms }
}

// --- one view

/** What a view shows. */
export interface ViewOptions {
  /** Rooms per page, 1 at least; by default there is one page that holds all. */
  readonly pageSize?: number | undefined
  /** By default every room. */
  readonly filter?: RoomFilters.RoomFilter | undefined
  /** By default `RoomSorters.defaultSorter`. */
  readonly sorter?: RoomSorters.RoomSorter | undefined
}

/** One view. `matching` are the rooms that pass the filter, in order; the first `limit` of them are its entries. */
export interface RoomListView {
  readonly rooms: Rooms
  readonly filter: RoomFilters.RoomFilter
  readonly sorter: RoomSorters.RoomSorter
  readonly pageSize: number
  readonly limit: number
  readonly matching: ReadonlyArray<Room>
  /** Rooms that another one replaces: their place in a list can depend on that other one. */
  readonly replaced: ReadonlySet<RoomId>
}

/** What a view reacts to. */
export type RoomListInput =
  /** `rooms` are all rooms after the update, `touched` those that changed, came or went. */
  | { readonly _tag: "Update"; readonly rooms: Rooms; readonly touched: ReadonlyArray<RoomId> }
  /** Everything may be different. */
  | { readonly _tag: "Replace"; readonly rooms: Rooms }
  | { readonly _tag: "SetFilter"; readonly filter: RoomFilters.RoomFilter }
  | { readonly _tag: "AddOnePage" }
  | { readonly _tag: "ResetToOnePage" }

/** A view after an input, and how its entries changed. */
export type Step = readonly [view: RoomListView, changes: ReadonlyArray<ListDiff.Diff<Room>>]

type Lookup = (roomId: RoomId) => Room | undefined

const lookupIn =
  (rooms: Rooms): Lookup =>
  (roomId) =>
    Option.getOrUndefined(HashMap.get(rooms, roomId))

const idOf = (room: Room): RoomId => room.roomId

/** What the view shows, in order. */
export const entries = (view: RoomListView): ReadonlyArray<Room> => view.matching.slice(0, view.limit)

const replacedIn = (rooms: Rooms): ReadonlySet<RoomId> => {
  const replaced = new Set<RoomId>()
  for (const room of HashMap.values(rooms)) if (room.replacedBy !== undefined) replaced.add(room.roomId)
  return replaced
}

const matchingIn = (view: Pick<RoomListView, "filter" | "rooms" | "sorter">): ReadonlyArray<Room> => {
  const lookup = lookupIn(view.rooms)
  return HashMap.toValues(view.rooms)
    .filter((room) => view.filter(room, lookup))
    .sort(view.sorter)
}

/** A view over the rooms that are known. */
export const make = (rooms: Rooms, options: ViewOptions = {}): RoomListView => {
  const filter = options.filter ?? RoomFilters.all([])
  const sorter = options.sorter === undefined ? RoomSorters.defaultSorter : RoomSorters.lexicographic([options.sorter])
  const pageSize = Math.max(1, options.pageSize ?? Number.POSITIVE_INFINITY)
  const matching = matchingIn({ filter, rooms, sorter })
  return { rooms, filter, sorter, pageSize, limit: pageSize, matching, replaced: replacedIn(rooms) }
}

/** The list is what it is: for the start of a view, and for whoever lags too far behind. */
export const reset = (view: RoomListView): ListDiff.Diff<Room> => ({ _tag: "Reset", entries: entries(view) })

// --- updates

/** Where a room stands among sorted rooms, or would. */
const placeOf = (sorted: ReadonlyArray<Room>, room: Room, sorter: RoomSorters.RoomSorter): number => {
  let low = 0
  let high = sorted.length
  while (low < high) {
    const middle = (low + high) >>> 1
    const other = sorted[middle]
    if (other !== undefined && sorter(other, room) < 0) low = middle + 1
    else high = middle
  }
  return low
}

const insertAll = (
  sorted: ReadonlyArray<Room>,
  inserted: ReadonlyArray<Room>,
  sorter: RoomSorters.RoomSorter
): ReadonlyArray<Room> => {
  const parts: Array<ReadonlyArray<Room>> = []
  let taken = 0
  for (const room of inserted.toSorted(sorter)) {
    const place = placeOf(sorted, room, sorter)
    parts.push(sorted.slice(taken, place), [room])
    taken = place
  }
  return new Array<Room>().concat(...parts, sorted.slice(taken))
}

/** What is left of a list without the entries at these places, ascending. */
const without = (entries: ReadonlyArray<Room>, places: ReadonlyArray<number>): ReadonlyArray<Room> => {
  const parts = places.map((place, index) => entries.slice(index === 0 ? 0 : places[index - 1]! + 1, place))
  return new Array<Room>().concat(...parts, entries.slice((places.at(-1) ?? -1) + 1))
}

/** The places of the rooms that are in the list, as they were before the update; ascending. */
const placesOf = (view: RoomListView, affected: ReadonlySet<RoomId>): ReadonlyArray<number> => {
  const lookup = lookupIn(view.rooms)
  const places: Array<number> = []
  for (const roomId of affected) {
    const room = lookup(roomId)
    if (room === undefined) continue
    const place = placeOf(view.matching, room, view.sorter)
    if (view.matching[place]?.roomId === roomId) places.push(place)
  }
  return places.sort((left, right) => left - right)
}

const updateMatching = (view: RoomListView, rooms: Rooms, affected: ReadonlySet<RoomId>): ReadonlyArray<Room> => {
  // Above one room in eight, sorting everything is the cheaper way.
  if (affected.size * 8 > view.matching.length) return matchingIn({ ...view, rooms })
  const lookup = lookupIn(rooms)
  const kept = without(view.matching, placesOf(view, affected))
  const inserted: Array<Room> = []
  for (const roomId of affected) {
    const room = lookup(roomId)
    if (room !== undefined && view.filter(room, lookup)) inserted.push(room)
  }
  return insertAll(kept, inserted, view.sorter)
}

const updateReplaced = (view: RoomListView, lookup: Lookup, touched: ReadonlySet<RoomId>): ReadonlySet<RoomId> => {
  const isReplaced = (roomId: RoomId): boolean => lookup(roomId)?.replacedBy !== undefined
  const changed = [...touched].filter((roomId) => isReplaced(roomId) !== view.replaced.has(roomId))
  if (changed.length === 0) return view.replaced
  const replaced = new Set(view.replaced)
  for (const roomId of changed) if (!replaced.delete(roomId)) replaced.add(roomId)
  return replaced
}

/** The touched rooms, and those that they replace, which a filter may show for their successor's sake. */
const withPredecessors = (lookup: Lookup, replaced: ReadonlySet<RoomId>, touched: ReadonlySet<RoomId>) => {
  const affected = new Set(touched)
  for (const roomId of replaced) {
    const successor = lookup(roomId)?.replacedBy
    if (successor !== undefined && touched.has(successor)) affected.add(roomId)
  }
  return affected
}

const stepTo = (view: RoomListView, next: RoomListView): Step => [
  next,
  ListDiff.diff(entries(view), entries(next), idOf)
]

const update = (view: RoomListView, rooms: Rooms, touchedIds: ReadonlyArray<RoomId>): Step => {
  const touched = new Set(touchedIds)
  const lookup = lookupIn(rooms)
  const replaced = updateReplaced(view, lookup, touched)
  const affected = withPredecessors(lookup, replaced, touched)
  return stepTo(view, { ...view, rooms, replaced, matching: updateMatching(view, rooms, affected) })
}

const restart = (next: RoomListView): Step => [next, [reset(next)]]

/** The view after an input, and the changes of its entries. `SetFilter` and `Replace` always give one `Reset`. */
export const step = (view: RoomListView, input: RoomListInput): Step => {
  switch (input._tag) {
    case "Update":
      return update(view, input.rooms, input.touched)
    case "Replace": {
      const { rooms } = input
      return restart({ ...view, rooms, matching: matchingIn({ ...view, rooms }), replaced: replacedIn(rooms) })
    }
    case "SetFilter": {
      const { filter } = input
      return restart({ ...view, filter, matching: matchingIn({ ...view, filter }) })
    }
    case "AddOnePage": {
      // A page ahead of what is loaded is enough, however often the end of the list is reached.
      const limit = Math.min(view.limit, view.matching.length) + view.pageSize
      return stepTo(view, { ...view, limit: Math.max(view.limit, limit) })
    }
    case "ResetToOnePage":
      return stepTo(view, { ...view, limit: view.pageSize })
  }
}
