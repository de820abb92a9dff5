/**
 * What can happen next in a state, computed once for all states in which the same is found: a step of a process depends on
 * this process and on the world, and of each other one only on its holder's id, whether it lives, and whether it listens. It
 * changes nothing of the others but that their memory is outdated, or that they are asked to yield.
 *
 * So the other processes are replaced by dummies that have nothing else; whoever changes the model and makes a step depend on
 * more of the others gets other figures with `isWhole` (`Model.test.ts`).
 *
 * Gotchas: a process that is dead is not treated so: its next holder's id depends on who remembers the ones before.
 */
import type { Entry, Parts } from "./Canonical.ts"
import * as Leases from "./Leases.ts"
import * as Process from "./Process.ts"
import type { Rules } from "./Rules.ts"
import type { Grant, Process as AnyProcess, System } from "./System.ts"
import * as World from "./World.ts"

interface Options {
  readonly bounds: { readonly events: number }
  readonly fine: boolean
  readonly rules: Rules
}

/** A step of one process. */
interface Step {
  readonly process: Entry
  readonly world: Entry
  readonly isFault: boolean
  readonly violation: string | undefined
  /** A commit: the memory of the others is outdated. */
  readonly outdates: boolean
  /** Who is asked to yield, or -1. */
  readonly asks: number
}

/** Something that happens by itself. */
interface Event {
  readonly world: Entry
  readonly violation: string | undefined
  /** The row whose end is over. */
  readonly expires: World.Row | undefined
}

/** Where something leads to. */
export interface Successor {
  readonly entries: ReadonlyArray<Entry>
  readonly isFault: boolean
  readonly violation: string | undefined
}

/** More views of other processes than this are not told apart by a key. */
const VIEWS_MAX = 65_536

const dummyGrant: Grant = {
  fence: { name: "", holder: "", generation: 1 },
  keeping: { _tag: "Lost", generation: 1, reason: "takenOver" },
  listens: true,
  watched: false,
  wanted: "no"
}

/** A process of which nothing is there but what others can tell. */
const dummy = (rules: Rules, process: AnyProcess): AnyProcess => {
  const { name, role } = process
  const blank = role === "application" ? Process.application(rules, name) : Process.notification(rules, name)
  return {
    ...blank,
    holder: process.holder,
    life: process.life === "dead" ? "dead" : "runs",
    grant: Leases.listens(process) ? dummyGrant : null,
    memory: { current: true, touched: false, outgoing: false }
  }
}

const viewOf = (process: AnyProcess): string =>
  `${process.holder} ${process.life === "dead" ? "dead" : Leases.listens(process) ? "listens" : "deaf"}`

const processOf = (entry: Entry): AnyProcess => entry.part as AnyProcess

/** Knows what follows from what it has met. */
export class Steps {
  readonly #parts: Parts
  readonly #options: Options
  readonly #fault: (move: World.Move, system: System) => string | undefined
  /** By the number of the process; then by that of the world and the view of the others. */
  readonly #steps: Array<Map<number, ReadonlyArray<Step>>> = []
  readonly #events: Array<ReadonlyArray<Event>> = []
  readonly #views = new Map<string, number>()
  readonly #viewOf = new Map<Entry, string>()
  readonly #outdated = new Map<Entry, Entry>()
  readonly #asked = new Map<Entry, Entry>()
  readonly #expired = new Map<Entry, Entry>()

  /** @param fault what a move breaks, if anything */
  constructor(parts: Parts, options: Options, fault: (move: World.Move, system: System) => string | undefined) {
    this.#parts = parts
    this.#options = options
    this.#fault = fault
  }

  #view(entry: Entry): string {
    const known = this.#viewOf.get(entry)
    if (known !== undefined) return known
    const view = viewOf(processOf(entry))
    this.#viewOf.set(entry, view)
    return view
  }

  #viewFrom(index: number, processes: ReadonlyArray<Entry>): number {
    let key = ""
    processes.forEach((entry, at) => {
      if (at !== index) key += `${this.#view(entry)},`
    })
    const known = this.#views.get(key)
    if (known !== undefined) return known
    if (this.#views.size === VIEWS_MAX)
      throw new RangeError(`there are more than ${VIEWS_MAX} views of other processes`)
    this.#views.set(key, this.#views.size)
    return this.#views.size - 1
  }

  #stepsOf(index: number, entries: ReadonlyArray<Entry>): ReadonlyArray<Step> {
    const { bounds, fine, rules } = this.#options
    const whole = this.#parts.systemOf(entries)
    const isDead = whole.processes[index]?.life === "dead"
    const processes = whole.processes.map((process, at) => (at === index || isDead ? process : dummy(rules, process)))
    const system = { processes, world: whole.world }
    return Process.moves(rules, { events: bounds.events, fine }, system, index).map((move) => {
      const { processes, world } = move.next
      return {
        process: this.#parts.entryOf(processes[index] ?? {}),
        world: this.#parts.entryOf(world),
        isFault: move.isFault,
        violation: this.#fault(move, system),
        outdates: processes.some(({ memory }, at) => at !== index && memory !== system.processes[at]?.memory),
        asks: processes.findIndex(({ asked }, at) => at !== index && asked && system.processes[at]?.asked === false)
      }
    })
  }

  #known(
    index: number,
    number: number,
    world: number,
    processes: ReadonlyArray<Entry>,
    entries: ReadonlyArray<Entry>
  ): ReadonlyArray<Step> {
    const entry = processes[index]
    if (entry !== undefined && processOf(entry).life === "dead") return this.#stepsOf(index, entries)
    const byKey = (this.#steps[number] ??= new Map())
    const key = world * VIEWS_MAX + this.#viewFrom(index, processes)
    const known = byKey.get(key)
    if (known !== undefined) return known
    const steps = this.#stepsOf(index, entries)
    byKey.set(key, steps)
    return steps
  }

  #changed(entry: Entry, known: Map<Entry, Entry>, change: (process: AnyProcess) => AnyProcess): Entry {
    const before = known.get(entry)
    if (before !== undefined) return before
    const after = change(processOf(entry))
    const changed = after === entry.part ? entry : this.#parts.entryOf(after)
    known.set(entry, changed)
    return changed
  }

  #applied(processes: ReadonlyArray<Entry>, index: number, { asks, outdates, process, world }: Step): Array<Entry> {
    const next = processes.map((entry, at) => {
      if (at === index) return process
      const old = outdates ? this.#changed(entry, this.#outdated, World.outdated) : entry
      return at === asks ? this.#changed(old, this.#asked, Leases.asked) : old
    })
    next.push(world)
    return next
  }

  #eventsOf(world: Entry): ReadonlyArray<Event> {
    const system: System = { ...this.#parts.systemOf([world]), processes: [] }
    return World.moves(system, this.#options.bounds.events).map((move) => ({
      world: this.#parts.entryOf(move.next.world),
      violation: this.#fault(move, system),
      expires: World.expiring(system.world, move.next.world)
    }))
  }

  #happened(processes: ReadonlyArray<Entry>, { expires, violation, world }: Event): Successor {
    if (expires === undefined) return { entries: [...processes, world], isFault: false, violation }
    let isFault = false
    const next = processes.map((entry) => {
      if (!World.isHeldBy(processOf(entry), expires)) return entry
      isFault = true
      return this.#changed(entry, this.#expired, (process) => World.expired(process, expires))
    })
    return { entries: [...next, world], isFault, violation }
  }

  /** Everything that can follow a state, which is given by the numbers of its parts and by the parts. */
  from(numbers: ReadonlyArray<number>, entries: ReadonlyArray<Entry>): ReadonlyArray<Successor> {
    const processes = entries.slice(0, -1)
    const world = numbers.at(-1) ?? -1
    const events = (this.#events[world] ??= this.#eventsOf(this.#parts.at(world)))
    const successors = events.map((event) => this.#happened(processes, event))
    for (let index = 0; index < processes.length; index++) {
      for (const step of this.#known(index, numbers[index] ?? -1, world, processes, entries)) {
        const { isFault, violation } = step
        successors.push({ entries: this.#applied(processes, index, step), isFault, violation })
      }
    }
    return successors
  }
}
