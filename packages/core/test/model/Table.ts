/**
 * The states that were met, in arrays of integers: a row of numbers each, found by a hash that only says where to look. Two
 * states are the same when all their numbers are.
 */

/** Integers that grow. */
export class Column {
  #values = new Int32Array(1 << 16)
  size = 0

  push(value: number): void {
    if (this.size === this.#values.length) {
      const larger = new Int32Array(this.size * 2)
      larger.set(this.#values)
      this.#values = larger
    }
    this.#values[this.size++] = value
  }

  at(index: number): number {
    return this.#values[index] ?? -1
  }

  /** A view of all. */
  get all(): Int32Array {
    return this.#values.subarray(0, this.size)
  }
}

/** Every state that was met, by its number. */
export class States {
  readonly #width: number
  readonly #rows = new Column()
  #slots = new Int32Array(1 << 16).fill(-1)
  size = 0

  constructor(width: number) {
    this.#width = width
  }

  at(state: number): ReadonlyArray<number> {
    const row: Array<number> = []
    for (let place = 0; place < this.#width; place++) row.push(this.#rows.at(state * this.#width + place))
    return row
  }

  #hash(row: ReadonlyArray<number>): number {
    let hash = 0
    for (let place = 0; place < this.#width; place++) {
      hash = Math.imul(hash ^ (row[place] ?? 0), 0x85ebca6b)
      hash ^= hash >>> 13
    }
    hash = Math.imul(hash, 0xc2b2ae35)
    return hash ^ (hash >>> 16)
  }

  #isAt(state: number, row: ReadonlyArray<number>): boolean {
    const start = state * this.#width
    for (let place = 0; place < this.#width; place++) if (this.#rows.at(start + place) !== row[place]) return false
    return true
  }

  #slotOf(row: ReadonlyArray<number>): number {
    const mask = this.#slots.length - 1
    let slot = this.#hash(row) & mask
    for (;;) {
      const state = this.#slots[slot] ?? -1
      if (state < 0 || this.#isAt(state, row)) return slot
      slot = (slot + 1) & mask
    }
  }

  #grow(): void {
    this.#slots = new Int32Array(this.#slots.length * 2).fill(-1)
    for (let state = 0; state < this.size; state++) this.#slots[this.#slotOf(this.at(state))] = state
  }

  /** The number of a state, which is `size` before the call when it is new. */
  add(row: ReadonlyArray<number>): number {
    if (this.size * 2 > this.#slots.length) this.#grow()
    const slot = this.#slotOf(row)
    const known = this.#slots[slot] ?? -1
    if (known >= 0) return known
    for (const number of row) this.#rows.push(number)
    this.#slots[slot] = this.size
    return this.size++
  }
}
