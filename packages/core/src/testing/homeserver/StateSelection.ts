/**
 * Which state of a room is asked for: MSC4186's `required_state`, compiled once and shared.
 *
 * Equal selectors give the very same selection object, so that "did this connection's request change?" is one comparison
 * per room and not one per selector.
 */
import type { UserId } from "../../matrix/MatrixEvent.ts"
import type { StateSelector } from "../../matrix/SlidingSync.ts"
import type { ModelState, Room, StoredEvent } from "./ModelState.ts"

/** Selectors, compiled. Equal selectors give the same object. */
export interface StateSelection {
  readonly selectors: ReadonlyArray<StateSelector>
  /** The selectors as strings, for look-ups. */
  readonly keys: ReadonlySet<string>
  /** Members who appear in the timeline (`$LAZY`). */
  readonly lazy: boolean
}

const keyOf = (type: string, stateKey: string): string => `${type}\u0000${stateKey}`
const isLazy = ([type, stateKey]: StateSelector): boolean => type === "m.room.member" && stateKey === "$LAZY"

/** The selection of these selectors for a requester: `$ME` becomes his user id (any type, as on Synapse). */
export const select = (state: ModelState, me: UserId, requested: ReadonlyArray<StateSelector>): StateSelection => {
  const resolved = requested.map(([type, key]): StateSelector => [type, key === "$ME" ? me : key])
  const keys = new Set(resolved.filter((selector) => !isLazy(selector)).map(([type, key]) => keyOf(type, key)))
  const lazy = resolved.some(isLazy)
  const signature = [...keys].sort().join("\u0001") + (lazy ? "\u0002" : "")
  const existing = state.selections.get(signature)
  if (existing !== undefined) return existing
  const selection = { selectors: resolved.filter((selector) => !isLazy(selector)), keys, lazy }
  state.selections.set(signature, selection)
  return selection
}

const withLazy = (selection: StateSelection): ReadonlyArray<StateSelector> =>
  selection.lazy ? [...selection.selectors, ["m.room.member", "$LAZY"]] : selection.selectors

/** What either of the two asks for. */
export const union = (state: ModelState, me: UserId, a: StateSelection, b: StateSelection): StateSelection =>
  a === b ? a : select(state, me, [...withLazy(a), ...withLazy(b)])

/** The selectors that `now` has and `before` has not. */
export const added = (before: StateSelection, now: StateSelection): ReadonlyArray<StateSelector> =>
  before === now ? [] : now.selectors.filter(([type, key]) => !before.keys.has(keyOf(type, key)))

/** Whether a state event is asked for, `$LAZY` aside. */
export const matches = ({ keys }: StateSelection, type: string, stateKey: string): boolean =>
  keys.has(keyOf(type, stateKey)) ||
  keys.has(keyOf(type, "*")) ||
  keys.has(keyOf("*", stateKey)) ||
  keys.has(keyOf("*", "*"))

/** The room's state that some of the selectors ask for, each event once. */
export const stateOf = (room: Room, selectors: ReadonlyArray<StateSelector>): Set<StoredEvent> => {
  const found = new Set<StoredEvent>()
  for (const [type, stateKey] of selectors) {
    const byType = type === "*" ? [...room.state.values()] : [room.state.get(type)]
    for (const byKey of byType) {
      if (stateKey === "*") byKey?.forEach((event) => found.add(event))
      else {
        const event = byKey?.get(stateKey)
        if (event !== undefined) found.add(event)
      }
    }
  }
  return found
}
