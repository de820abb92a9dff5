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

/** What is known of a part as it was written down. */
interface Entry {
  readonly part: Part
  readonly generations: ReadonlyArray<number>
  /** The part in which the two processes have changed names, once that was asked for. */
  swapped: Part | undefined
  /** The number that it has under each renaming of generations, by the renaming. */
  readonly numbers: Map<string, number>
}

/** Numbers the parts of states; equal parts have the same number and, once they come from here, the same identity. */
export class Parts {
  readonly #entries = new Map<string, Entry>()
  readonly #byPart = new WeakMap<Part, Entry>()
  readonly #numbers = new Map<string, number>()
  readonly #parts: Array<Part> = []

  /** How many different parts there are. */
  get size(): number {
    return this.#parts.length
  }

  /** The part with this number. */
  at(number: number): Part {
    const part = this.#parts[number]
    if (part === undefined) throw new RangeError(`there is no part ${number}`)
    return part
  }

  #entryOf(part: Part): Entry {
    const known = this.#byPart.get(part)
    if (known !== undefined) return known
    // The same members in another order are another entry, and in the end the same part.
    const written = JSON.stringify(part)
    const entry = this.#entries.get(written) ?? {
      part,
      generations: numbersIn(part as Value, generations),
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
    return this.#parts.push(part) - 1
  }

  #renamed({ generations: found, numbers, part }: Entry, ranks: ReadonlyMap<number, number>): number {
    const renaming = found.map((generation) => ranks.get(generation)).join()
    const known = numbers.get(renaming)
    if (known !== undefined) return known
    const number = this.#numberOf(others.reduce(withRanks, rename(part as Value, generations, ranks)) as Part)
    numbers.set(renaming, number)
    return number
  }

  #swapped(part: Part): Part {
    const entry = this.#entryOf(part)
    entry.swapped ??= JSON.parse(JSON.stringify(part).replaceAll(holder, swapName)) as Part
    return entry.swapped
  }

  #numbersIn(parts: ReadonlyArray<Part>): ReadonlyArray<number> {
    const entries = parts.map((part) => this.#entryOf(part))
    const to = ranks(entries.flatMap((entry) => entry.generations))
    return entries.map((entry) => this.#renamed(entry, to))
  }

  /** A state as the numbers of its parts: its processes and then its world. */
  numbersOf({ processes, world }: System): ReadonlyArray<number> {
    const numbers = this.#numbersIn([...processes, world])
    const [a, b] = processes
    if (a === undefined || b === undefined || processes.length > 2) return numbers
    const swapped = this.#numbersIn([this.#swapped(b), this.#swapped(a), this.#swapped(world)])
    const differs = numbers.findIndex((number, at) => number !== swapped[at])
    return (swapped[differs] ?? 0) < (numbers[differs] ?? 0) ? swapped : numbers
  }

  /** The state of these numbers. */
  systemOf(numbers: ReadonlyArray<number>): System {
    const parts = numbers.map((number) => this.at(number))
    return { processes: parts.slice(0, -1), world: parts.at(-1) } as unknown as System
  }
}
