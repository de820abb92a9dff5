/**
 * Changes of a list of entries, small enough to animate and cheap to compute.
 *
 * Includes the five kinds of change, `diff` that finds them and `apply` that makes them.
 *
 * Invariants: `applyAll(previous, diff(previous, next))` is `next`, whatever the two are.
 *
 * Gotchas: a series of diffs is applied in order, and each index holds for the list as the diffs before it left it. Entries
 * are told apart by key and compared by identity (`===`): a changed entry must be another object.
 *
 * How it works: the typical update brings one room of thousands to the top. What both lists begin and end with is skipped;
 * of the rest, the longest run of entries that keep their order stays where it is (a longest increasing subsequence), and
 * only the others move. Positions are counted with a Fenwick tree, so that the cost is O(n log n) at worst, and O(n) with a
 * small constant for few changes.
 *
 * Not here: which rooms a list has (`RoomListMachine.ts`).
 */

/** One change of a list. Indexes are 0-based. */
export type Diff<A> =
  /** The list is `entries` from here on. */
  | { readonly _tag: "Reset"; readonly entries: ReadonlyArray<A> }
  /** `entry` comes in at `index`, what was there moves down. */
  | { readonly _tag: "Insert"; readonly index: number; readonly entry: A }
  /** The entry at `index` goes away. */
  | { readonly _tag: "Remove"; readonly index: number }
  /** The entry at `from` is taken out, then put in at `to` of the list without it. */
  | { readonly _tag: "Move"; readonly from: number; readonly to: number }
  /** The entry at `index` has a new value. */
  | { readonly _tag: "Set"; readonly index: number; readonly entry: A }

/** Up to so many changes, a list is never replaced as a whole: below, a `Reset` saves nothing and loses the animation. */
const alwaysDiffed = 8

/** The list after one change. */
export const apply = <A>(entries: ReadonlyArray<A>, change: Diff<A>): ReadonlyArray<A> => {
  switch (change._tag) {
    case "Reset":
      return change.entries
    case "Insert":
      return entries.toSpliced(change.index, 0, change.entry)
    case "Remove":
      return entries.toSpliced(change.index, 1)
    case "Move": {
      const without = entries.toSpliced(change.from, 1)
      return without.toSpliced(change.to, 0, ...entries.slice(change.from, change.from + 1))
    }
    case "Set":
      return entries.with(change.index, change.entry)
  }
}

/** The list after a series of changes. */
export const applyAll = <A>(entries: ReadonlyArray<A>, changes: ReadonlyArray<Diff<A>>): ReadonlyArray<A> =>
  changes.reduce<ReadonlyArray<A>>(apply, entries)

// --- counting

/** A Fenwick tree: how many marked positions are before a position, with marks that can be taken away. */
const makeCounter = (size: number) => {
  const tree = new Int32Array(size + 1)
  const add = (position: number, amount: number): void => {
    for (let at = position + 1; at <= size; at += at & -at) tree[at] = (tree[at] ?? 0) + amount
  }
  const before = (position: number): number => {
    let count = 0
    for (let at = position; at > 0; at -= at & -at) count += tree[at] ?? 0
    return count
  }
  return { add, before }
}

/** The first index of ascending `values` whose value is not below `value`. */
const lowerBound = (values: ReadonlyArray<number>, value: number): number => {
  let low = 0
  let high = values.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((values[middle] ?? 0) < value) low = middle + 1
    else high = middle
  }
  return low
}

/** Indexes of a longest strictly ascending run in `values`, skipping those that are -1. */
const longestAscending = (values: ReadonlyArray<number>): ReadonlyArray<number> => {
  // `ends[n]` is the smallest last value of a run of n + 1 values, `endIndexes[n]` where it is.
  const ends: Array<number> = []
  const endIndexes: Array<number> = []
  const predecessors = new Int32Array(values.length).fill(-1)
  for (const [index, value] of values.entries()) {
    if (value === -1) continue
    const length = ends.length > 0 && (ends.at(-1) ?? 0) < value ? ends.length : lowerBound(ends, value)
    ends[length] = value
    endIndexes[length] = index
    predecessors[index] = endIndexes[length - 1] ?? -1
  }
  const run: Array<number> = []
  for (let index = endIndexes.at(-1) ?? -1; index !== -1; index = predecessors[index] ?? -1) run.push(index)
  return run.toReversed()
}

// --- finding the changes

/** The part of two lists in which they differ, and how many entries come before it. */
interface Middle<A> {
  readonly offset: number
  readonly previous: ReadonlyArray<A>
  readonly next: ReadonlyArray<A>
}

const differingMiddle = <A>(previous: ReadonlyArray<A>, next: ReadonlyArray<A>): Middle<A> => {
  const shorter = Math.min(previous.length, next.length)
  let offset = 0
  while (offset < shorter && previous[offset] === next[offset]) offset++
  let tail = 0
  while (tail < shorter - offset && previous[previous.length - 1 - tail] === next[next.length - 1 - tail]) tail++
  return {
    offset,
    previous: previous.slice(offset, previous.length - tail),
    next: next.slice(offset, next.length - tail)
  }
}

const indexByKey = <A>(
  entries: ReadonlyArray<A>,
  key: (entry: A) => unknown
): ReadonlyMap<unknown, number> | undefined => {
  const indexes = new Map<unknown, number>()
  for (const [index, entry] of entries.entries()) indexes.set(key(entry), index)
  return indexes.size === entries.length ? indexes : undefined
}

/** What becomes of the middle: which entries stay and in which order the others stood before. */
interface Plan {
  /** Indexes in `previous` of entries that go away, ascending. */
  readonly removed: ReadonlyArray<number>
  /** For each entry of `next`, its index among the surviving entries of `previous`, or -1 if it is new. */
  readonly origins: ReadonlyArray<number>
  /** Indexes in `next` of the entries that keep their order. */
  readonly stable: ReadonlyArray<number>
}

const makePlan = <A>(middle: Middle<A>, key: (entry: A) => unknown): Plan | undefined => {
  const before = indexByKey(middle.previous, key)
  const after = indexByKey(middle.next, key)
  if (before === undefined || after === undefined) return undefined
  const removed: Array<number> = []
  const survivor = new Int32Array(middle.previous.length)
  for (const [index, entry] of middle.previous.entries()) {
    survivor[index] = index - removed.length
    if (!after.has(key(entry))) removed.push(index)
  }
  const origins = middle.next.map((entry) => {
    const index = before.get(key(entry))
    return index === undefined ? -1 : (survivor[index] ?? -1)
  })
  return { removed, origins, stable: longestAscending(origins) }
}

const removals = (middle: Middle<unknown>, plan: Plan): ReadonlyArray<Diff<never>> =>
  plan.removed.map((index) => ({ _tag: "Remove" as const, index: middle.offset + index })).toReversed()

/**
 * Moves and insertions, in the order of `next`. When entry `at` is reached, the entries before it are in order, and stand
 * among them only the movers not yet reached ("waiting"), each still where it was between the stable entries.
 */
const arrangements = <A>(middle: Middle<A>, plan: Plan): ReadonlyArray<Diff<A>> => {
  const { origins, stable } = plan
  const survivors = middle.previous.length - plan.removed.length
  const stableOrigins = stable.map((index) => origins[index] ?? 0)
  const waiting = makeCounter(survivors)
  const isStable = new Set(stable)
  for (const [index, origin] of origins.entries()) if (origin !== -1 && !isStable.has(index)) waiting.add(origin, 1)

  const changes: Array<Diff<A>> = []
  let passed = 0
  for (const [at, entry] of middle.next.entries()) {
    if (isStable.has(at)) {
      passed++
      continue
    }
    // Behind the entry before it, which hangs on the last stable entry that was passed.
    const anchor = passed === 0 ? 0 : (stableOrigins[passed - 1] ?? 0)
    const to = middle.offset + at + waiting.before(anchor)
    const origin = origins[at] ?? -1
    if (origin === -1) {
      changes.push({ _tag: "Insert", index: to, entry })
      continue
    }
    const stableBefore = lowerBound(stableOrigins, origin)
    // Everything placed so far hangs on the stable entries that were passed; what is before this one follows from those.
    const placedBefore = stableBefore >= passed ? at + (stableBefore - passed) : (stable[stableBefore] ?? 0)
    const from = middle.offset + placedBefore + waiting.before(origin)
    waiting.add(origin, -1)
    changes.push({ _tag: "Move", from, to: from < to ? to - 1 : to })
  }
  return changes
}

const replacements = <A>(middle: Middle<A>, plan: Plan): ReadonlyArray<Diff<A>> => {
  const isRemoved = new Set(plan.removed)
  const survivors = middle.previous.filter((_, index) => !isRemoved.has(index))
  return middle.next.flatMap((entry, index) => {
    const origin = plan.origins[index] ?? -1
    return origin === -1 || survivors[origin] === entry
      ? []
      : [{ _tag: "Set" as const, index: middle.offset + index, entry }]
  })
}

/**
 * The changes that lead from one list to another; none if they are the same.
 *
 * A move of a changed entry is a `Move` and a `Set`. When more than half of the entries changed, or when the part
 * that differs holds a key twice, it is one `Reset`.
 *
 * @param key tells entries apart; by default an entry is its own key
 * @example
 * ```ts
 * import { ListDiff } from "@twinloop/core"
 *
 * ListDiff.diff(["a", "b", "c"], ["c", "a", "b"]) // [{ _tag: "Move", from: 2, to: 0 }]
 * ```
 */
export const diff = <A>(
  previous: ReadonlyArray<A>,
  next: ReadonlyArray<A>,
  key: (entry: A) => unknown = (entry) => entry
): ReadonlyArray<Diff<A>> => {
  const middle = differingMiddle(previous, next)
  if (middle.previous.length === 0 && middle.next.length === 0) return []
  const reset: Diff<A> = { _tag: "Reset", entries: next }
  const plan = makePlan(middle, key)
  if (plan === undefined) return [reset]
  const structural = plan.removed.length + (middle.next.length - plan.stable.length)
  const limit = Math.max(alwaysDiffed, next.length / 2)
  if (structural > limit) return [reset]
  const changes = [...removals(middle, plan), ...arrangements(middle, plan), ...replacements(middle, plan)]
  return changes.length > limit ? [reset] : changes
}
