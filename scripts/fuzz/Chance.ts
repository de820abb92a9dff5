/** Chance from a seed, the same on every machine: the source of what is fuzzed. */

/** Numbers from 0 up to 1, without 1. */
export type Chance = () => number

/** Chance for one input of one run (mulberry32), so that each can be made again without those before it. */
export const of = (seed: number, index: number): Chance => {
  let state = (Math.imul(seed, 0x9e3779b1) ^ Math.imul(index + 1, 0x85ebca6b)) >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

/** A whole number from 0 up to `below`, without it. */
export const below = (chance: Chance, limit: number): number => Math.floor(chance() * limit)

/** One of some. */
export const one = <A>(chance: Chance, items: ReadonlyArray<A>): A => items[below(chance, items.length)]!
