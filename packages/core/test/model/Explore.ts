/**
 * Visits every state that can be reached, breadth first: no sampling, and the first violation found has the shortest trace.
 *
 * Gotchas: a state is a row of numbers (`Canonical.ts`) in one growing array, and is looked up by a hash that only says where
 * to look; two states are the same when all their numbers are.
 */
import { Parts } from "./Canonical.ts"
import * as Process from "./Process.ts"
import type { Rules } from "./Rules.ts"
import type { Budget, System } from "./System.ts"
import * as World from "./World.ts"

/** How large a model is. */
export interface Bounds extends Budget {
  readonly processes: number
  readonly events: number
}

export interface Options {
  readonly bounds: Bounds
  /** Whether an answer may wait in an empty mailbox; otherwise the loop takes it at once. */
  readonly fine: boolean
  readonly rules: Rules
  /** States beyond which it gives up. */
  readonly limit: number
  /** Which invariants count, by what is said of them; all unless told. */
  readonly checks?: RegExp
  /** Whether to look for states from which the events can't all be applied any more. */
  readonly liveness: boolean
  /** Told from time to time how many states there are. */
  readonly progress?: (states: number, depth: number) => void
}

/** What went wrong, and the shortest way to it, in words. */
export interface Violation {
  readonly what: string
  readonly trace: ReadonlyArray<string>
}

export interface Report {
  readonly states: number
  readonly transitions: number
  readonly depth: number
  /** Different parts of which states are made. */
  readonly parts: number
  /** Whether the limit was hit before everything was visited. */
  readonly isCut: boolean
  readonly violation: Violation | undefined
}

/** Integers that grow. */
class Column {
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
class States {
  readonly #width: number
  readonly #rows = new Column()
  #slots = new Int32Array(1 << 16).fill(-1)
  size = 0

  constructor(width: number) {
    this.#width = width
  }

  at(state: number): ReadonlyArray<number> {
    return Array.from({ length: this.#width }, (_, place) => this.#rows.at(state * this.#width + place))
  }

  #hash(row: ReadonlyArray<number>): number {
    let hash = 0
    for (const number of row) hash = Math.imul(hash ^ number, 0x9e3779b1) ^ (hash >>> 15)
    return hash >>> 0
  }

  #isAt(state: number, row: ReadonlyArray<number>): boolean {
    return row.every((number, place) => this.#rows.at(state * this.#width + place) === number)
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

/** Where everything begins: processes that have just been started, and nothing stored. */
export const initial = ({ rules, bounds }: Pick<Options, "rules" | "bounds">): System => {
  const { crashes, events: _, faults, processes, suspends, wishes } = bounds
  return {
    processes: Array.from({ length: processes }, (_, at) => Process.start(rules, String.fromCharCode(65 + at))),
    world: {
      table: { rows: [], waiters: [] },
      position: {},
      inbox: [],
      outgoing: false,
      arrived: 0,
      deleted: 0,
      budget: { crashes, faults, suspends, wishes }
    }
  }
}

/** Everything that can happen next. */
export const movesOf = (
  { rules, bounds, fine }: Pick<Options, "rules" | "bounds" | "fine">,
  system: System
): ReadonlyArray<World.Move> => [
  ...World.moves(system, bounds.events),
  ...system.processes.flatMap((_, index) => Process.moves(rules, fine, system, index))
]

/** States from which no state of `goals` can be reached by the given edges: those that are stuck. */
const stuckStates = (states: number, goals: ReadonlyArray<number>, from: Int32Array, to: Int32Array): number => {
  const starts = new Int32Array(states + 1)
  for (const target of to) starts[target + 1] = (starts[target + 1] ?? 0) + 1
  for (let state = 0; state < states; state++) starts[state + 1] = (starts[state + 1] ?? 0) + (starts[state] ?? 0)
  const sources = new Int32Array(to.length)
  const filled = starts.slice()
  to.forEach((target, edge) => {
    const place = filled[target] ?? 0
    sources[place] = from[edge] ?? 0
    filled[target] = place + 1
  })
  const reaches = new Uint8Array(states)
  const queue = [...goals]
  for (const goal of goals) reaches[goal] = 1
  for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
    for (let place = starts[next] ?? 0; place < (starts[next + 1] ?? 0); place++) {
      const source = sources[place] ?? 0
      if (reaches[source] === 1) continue
      reaches[source] = 1
      queue.push(source)
    }
  }
  return reaches.indexOf(0)
}

/** Visits everything. */
export const explore = (options: Options): Report => {
  const parts = new Parts()
  const states = new States(options.bounds.processes + 1)
  const [parents, depths] = [new Column(), new Column()]
  const [from, to] = [new Column(), new Column()]
  const goals: Array<number> = []
  let transitions = 0

  const visit = (system: System, parent: number): number => {
    const before = states.size
    const state = states.add(parts.numbersOf(system))
    if (state < before) return state
    parents.push(parent)
    depths.push(parent < 0 ? 0 : depths.at(parent) + 1)
    if (system.world.inbox.length === options.bounds.events) goals.push(state)
    return state
  }
  /** The way to a state, gone once more: two processes that have changed places in a state keep their names here. */
  const traceOf = (state: number): { readonly words: Array<string>; readonly system: System } => {
    const path: Array<number> = []
    for (let at = state; parents.at(at) >= 0; at = parents.at(at)) path.unshift(at)
    const words: Array<string> = []
    let system = initial(options)
    for (const target of path) {
      const move = movesOf(options, system).find(({ next }) => states.add(parts.numbersOf(next)) === target)
      if (move === undefined) throw new Error(`no move leads to state ${target}`)
      words.push(move.words)
      system = move.next
    }
    return { words, system }
  }
  const counts = (what: string | undefined): string | undefined =>
    what === undefined || options.checks?.test(what) === false ? undefined : what
  const fault = ({ next, violation }: World.Move, system: System): string | undefined =>
    counts(violation) ?? counts(World.check(system, next))
  const report = (violation: Violation | undefined, isCut = false): Report => ({
    states: states.size,
    transitions,
    depth: depths.at(states.size - 1),
    parts: parts.size,
    isCut,
    violation
  })

  /** The step out of a state that breaks an invariant. */
  const wrong = (state: number): Violation => {
    const { system, words } = traceOf(state)
    const move = movesOf(options, system).find((move) => fault(move, system) !== undefined)
    if (move === undefined) throw new Error(`nothing is wrong after state ${state}`)
    return { what: fault(move, system) ?? "", trace: [...words, move.words] }
  }

  visit(initial(options), -1)
  for (let state = 0; state < states.size; state++) {
    if (states.size > options.limit) return report(undefined, true)
    if (state % 20_000 === 0) options.progress?.(states.size, depths.at(state))
    const system = parts.systemOf(states.at(state))
    for (const move of movesOf(options, system)) {
      transitions++
      if (fault(move, system) !== undefined) return report(wrong(state))
      const next = visit(move.next, state)
      if (options.liveness && !move.isFault && next !== state) {
        from.push(state)
        to.push(next)
      }
    }
  }
  if (!options.liveness) return report(undefined)
  const stuck = stuckStates(states.size, goals, from.all, to.all)
  if (stuck < 0) return report(undefined)
  return report({ what: "from here the events can't all be applied any more", trace: traceOf(stuck).words })
}
