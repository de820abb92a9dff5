/**
 * Makes states that differ only by names the same: generations and epochs count from the oldest that anybody remembers, two
 * processes that have changed places are as they were, and a state is known by the numbers of its parts.
 *
 * Nothing in the product computes with a generation or an epoch but "the same", "newer" and "one more than the newest", so
 * what keeps their order keeps everything.
 *
 * Gotchas: parts are cached by identity, so whoever changes a state must leave untouched parts as they are.
 */
import type { System } from "./System.ts"

type Value = string | number | boolean | null | undefined | ReadonlyArray<Value> | { readonly [key: string]: Value }

/** The members that are renamed together. */
const generations: ReadonlySet<string> = new Set(["generation", "validGeneration"])
const others: ReadonlyArray<ReadonlySet<string>> = [new Set(["epoch"]), new Set(["ticket"])]

const collect = (value: Value, keys: ReadonlySet<string>, into: Set<number>): void => {
  if (value === null || typeof value !== "object") return
  if (Array.isArray(value)) return value.forEach((item) => collect(item, keys, into))
  for (const [key, member] of Object.entries(value)) {
    if (typeof member === "number") {
      if (keys.has(key)) into.add(member)
    } else collect(member, keys, into)
  }
}

const rename = (value: Value, keys: ReadonlySet<string>, to: ReadonlyMap<number, number>): Value => {
  if (value === null || typeof value !== "object") return value
  if (Array.isArray(value)) return value.map((item) => rename(item, keys, to))
  return Object.fromEntries(
    Object.entries(value).map(([key, member]) => [
      key,
      typeof member === "number" && keys.has(key) ? (to.get(member) ?? member) : rename(member, keys, to)
    ])
  )
}

/** Numbers by their order, from 1. */
const ranks = (numbers: ReadonlyArray<number>): ReadonlyMap<number, number> =>
  new Map([...new Set(numbers)].sort((a, b) => a - b).map((number, at) => [number, at + 1]))

const numbersIn = (value: Value, keys: ReadonlySet<string>): ReadonlyArray<number> => {
  const found = new Set<number>()
  collect(value, keys, found)
  return [...found]
}

/** The members whose numbers are compared within one part only. */
const withRanks = (value: Value, keys: ReadonlySet<string>): Value => rename(value, keys, ranks(numbersIn(value, keys)))

const text = (value: Value): string => {
  if (value === null || typeof value !== "object") return value === undefined ? "" : JSON.stringify(value)
  if (Array.isArray(value)) return `[${value.map(text).join()}]`
  const members = Object.entries(value).filter(([, member]) => member !== undefined)
  return `{${members
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, member]) => `${key}:${text(member)}`)
    .join()}}`
}

/** How two processes and their holders' ids are written: the name, and a mark for each start after the first. */
const holder = /"([AB])('*)"/g
const swapName = (_: string, name: string, marks: string): string => `"${name === "A" ? "B" : "A"}${marks}"`

type Part = object

/** Generations are counted from the oldest that anybody remembers, so there are few. */
const GENERATIONS_MAX = 30

const maskOf = (numbers: ReadonlyArray<number>): number => {
  if (numbers.some((number) => number > GENERATIONS_MAX))
    throw new RangeError(`more than ${GENERATIONS_MAX} generations are remembered`)
  return numbers.reduce((mask, number) => mask | (1 << number), 0)
}

/** What is known of a part as it was written down. */
export interface Entry {
  readonly part: Part
  /** The generations that it names, one bit each. */
  readonly generations: number
  /** The part in which the two processes have changed names, once that was asked for. */
  swapped: Entry | undefined
  /** The number that it has, by the generations that the whole state names. */
  readonly numbers: Map<number, number>
}

/** Numbers the parts of states; equal parts have the same number and, once they come from here, the same identity. */
export class Parts {
  readonly #entries = new Map<string, Entry>()
  readonly #byPart = new WeakMap<Part, Entry>()
  readonly #numbers = new Map<string, number>()
  readonly #parts: Array<Entry> = []

  /** How many different parts there are. */
  get size(): number {
    return this.#parts.length
  }

  /** The part with this number. */
  at(number: number): Entry {
    const entry = this.#parts[number]
    if (entry === undefined) throw new RangeError(`there is no part ${number}`)
    return entry
  }

  entryOf(part: Part): Entry {
    const known = this.#byPart.get(part)
    if (known !== undefined) return known
    // The same members in another order are another entry, and in the end the same part.
    const written = JSON.stringify(part)
    const entry = this.#entries.get(written) ?? {
      part,
      generations: maskOf(numbersIn(part as Value, generations)),
      swapped: undefined,
      numbers: new Map()
    }
    this.#entries.set(written, entry)
    this.#byPart.set(part, entry)
    return entry
  }

  #numberOf(part: Part): number {
    const key = text(part as Value)
    const known = this.#numbers.get(key)
    if (known !== undefined) return known
    this.#numbers.set(key, this.#parts.length)
    return this.#parts.push(this.entryOf(part)) - 1
  }

  #renamed({ numbers, part }: Entry, all: number): number {
    const known = numbers.get(all)
    if (known !== undefined) return known
    const named = Array.from({ length: GENERATIONS_MAX + 1 }, (_, number) => number).filter(
      (number) => ((all >> number) & 1) === 1
    )
    const number = this.#numberOf(others.reduce(withRanks, rename(part as Value, generations, ranks(named))) as Part)
    numbers.set(all, number)
    return number
  }

  #swapped(entry: Entry): Entry {
    entry.swapped ??= this.entryOf(JSON.parse(JSON.stringify(entry.part).replaceAll(holder, swapName)) as Part)
    return entry.swapped
  }

  /** Numbers the parts of a state, in which two processes have changed places if `isSwapped`. */
  #number(entries: ReadonlyArray<Entry>, isSwapped: boolean): Array<number> {
    let all = 0
    for (const entry of entries) all |= entry.generations
    const numbers: Array<number> = []
    for (let place = 0; place < entries.length; place++) {
      const entry = entries[isSwapped && place < 2 ? 1 - place : place]
      if (entry !== undefined) numbers.push(this.#renamed(isSwapped ? this.#swapped(entry) : entry, all))
    }
    return numbers
  }

  /**
   * A state as the numbers of its parts: its processes, the first so many of which are the same but for their names, and then its
   * world.
   */
  numbersOf(entries: ReadonlyArray<Entry>, alike: number): ReadonlyArray<number> {
    const numbers = this.#number(entries, false)
    if (alike !== 2) return numbers
    const swapped = this.#number(entries, true)
    for (let place = 0; place < numbers.length; place++) {
      const difference = (swapped[place] ?? 0) - (numbers[place] ?? 0)
      if (difference !== 0) return difference < 0 ? swapped : numbers
    }
    return numbers
  }

  /** The parts of a state. */
  entriesOf({ processes, world }: System): ReadonlyArray<Entry> {
    return [...processes, world].map((part) => this.entryOf(part))
  }

  /** The state of these parts. */
  systemOf(entries: ReadonlyArray<Entry>): System {
    const parts = entries.map(({ part }) => part)
    return { processes: parts.slice(0, -1), world: parts.at(-1) } as unknown as System
  }
}
