/**
 * Visits every state that can be reached, breadth first: no sampling, and the first violation found has the shortest trace.
 *
 * Gotchas: a state is a row of numbers (`Canonical.ts`, `Table.ts`). What a process can do next is computed once for all states
 * in which it finds the same (`Steps.ts`); `isWhole` computes it for each state from the whole of it, which is slow, and shows
 * that nothing else matters.
 */
import { type Entry, Parts } from "./Canonical.ts"
import * as Process from "./Process.ts"
import * as Lease from "../../src/lease/Lease.ts"
import type { Rules } from "./Rules.ts"
import { Steps, type Successor } from "./Steps.ts"
import type { Budget, Process as AnyProcess, System } from "./System.ts"
import { Column, States } from "./Table.ts"
import * as World from "./World.ts"

/** How large a model is. */
export interface Bounds extends Budget {
  /** Applications. */
  readonly processes: number
  /** Processes that pushes start, how often in all says `pushes`. */
  readonly notifications: number
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
  /** Whether each state is computed from the whole of it. */
  readonly isWhole?: boolean
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

/** Where everything begins: processes that have just been started, and nothing stored. */
export const initial = ({ rules, bounds }: Pick<Options, "rules" | "bounds">): System => {
  const { crashes, events: _, faults, notifications, processes, pushes, suspends, wishes } = bounds
  const named = (count: number, first: string): ReadonlyArray<string> =>
    Array.from({ length: count }, (_, at) => String.fromCharCode((first.codePointAt(0) ?? 0) + at))
  return {
    processes: [
      ...named(processes, "A").map((name) => Process.application(rules, name)),
      ...named(notifications, "N").map((name) => Process.notification(rules, name))
    ],
    world: {
      table: { rows: [], waiters: [] },
      position: {},
      inbox: [],
      outgoing: false,
      arrived: 0,
      deleted: 0,
      budget: { crashes, faults, suspends, wishes, pushes }
    }
  }
}

/** Everything that can happen next. */
export const movesOf = (
  { rules, bounds, fine }: Pick<Options, "rules" | "bounds" | "fine">,
  system: System
): ReadonlyArray<World.Move> => [
  ...World.moves(system, bounds.events),
  ...system.processes.flatMap((_, index) => Process.moves(rules, { events: bounds.events, fine }, system, index))
]

/** Whether an application follows the stream under its lease. */
const owns = (process: AnyProcess, { table }: System["world"]): boolean =>
  process.role === "application" &&
  process.loop._tag === "Polling" &&
  process.grant !== null &&
  Lease.stands(table, process.grant.fence)

/** Whether everything is as it should be when all events are applied: no push is at work, and an application follows. */
const isGoal = ({ processes, world }: System): boolean =>
  processes.every(({ life, role }) => role === "application" || life === "dead") &&
  processes.some((process) => owns(process, world))

/**
 * A state from which no goal can be reached, or -1. `to` are the targets of the edges, those of a state from `starts` on.
 * Most edges lead to later states, so that few sweeps from the last state to the first one are enough.
 */
const stuckState = (goals: Column, starts: Column, to: Column): number => {
  const reaches = new Uint8Array(starts.size)
  for (const goal of goals.all) reaches[goal] = 1
  const reachesOne = (state: number): boolean => {
    const end = state + 1 < starts.size ? starts.at(state + 1) : to.size
    for (let edge = starts.at(state); edge < end; edge++) if (reaches[to.at(edge)] === 1) return true
    return false
  }
  for (let isChanged = true; isChanged;) {
    isChanged = false
    for (let state = starts.size - 1; state >= 0; state--) {
      if (reaches[state] === 1 || !reachesOne(state)) continue
      reaches[state] = 1
      isChanged = true
    }
  }
  return reaches.indexOf(0)
}

/** Visits everything. */
export const explore = (options: Options): Report => {
  const { bounds } = options
  const parts = new Parts()
  const states = new States(bounds.processes + bounds.notifications + 1)
  const parents = new Column()
  const [starts, to] = [new Column(), new Column()]
  const goals = new Column()
  let transitions = 0
  let [depth, levelEnd] = [0, 1]

  const numbersOf = (entries: ReadonlyArray<Entry>): ReadonlyArray<number> => parts.numbersOf(entries, bounds.processes)
  const partsOf = (numbers: ReadonlyArray<number>): System => parts.systemOf(numbers.map((number) => parts.at(number)))
  const isFull = (world: Entry): boolean => (world.part as System["world"]).inbox.length === bounds.events
  const visit = (entries: ReadonlyArray<Entry>, parent: number): number => {
    const before = states.size
    const numbers = numbersOf(entries)
    const state = states.add(numbers)
    if (state < before) return state
    parents.push(parent)
    if (options.liveness && isFull(parts.at(numbers.at(-1) ?? -1)) && isGoal(partsOf(numbers))) goals.push(state)
    return state
  }
  /** The way to a state, gone once more: two processes that have changed places in a state keep their names here. */
  const traceOf = (state: number): { readonly words: Array<string>; readonly system: System } => {
    const path: Array<number> = []
    for (let at = state; parents.at(at) >= 0; at = parents.at(at)) path.unshift(at)
    const words: Array<string> = []
    let system = initial(options)
    for (const target of path) {
      const leads = ({ next }: World.Move): boolean => states.add(numbersOf(parts.entriesOf(next))) === target
      const move = movesOf(options, system).find(leads)
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
    depth,
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
  const steps = new Steps(parts, options, fault)
  const whole = (entries: ReadonlyArray<Entry>): ReadonlyArray<Successor> => {
    const system = parts.systemOf(entries)
    return movesOf(options, system).map((move) => ({
      entries: parts.entriesOf(move.next),
      isFault: move.isFault,
      violation: fault(move, system)
    }))
  }

  visit(parts.entriesOf(initial(options)), -1)
  for (let state = 0; state < states.size; state++) {
    if (states.size > options.limit) return report(undefined, true)
    if (state === levelEnd) {
      depth++
      levelEnd = states.size
    }
    if (state % 100_000 === 0) options.progress?.(states.size, depth)
    const numbers = states.at(state)
    const entries = numbers.map((number) => parts.at(number))
    const successors = options.isWhole === true ? whole(entries) : steps.from(numbers, entries)
    if (options.liveness) starts.push(to.size)
    for (const { entries, isFault, violation } of successors) {
      transitions++
      if (violation !== undefined) return report(wrong(state))
      const next = visit(entries, state)
      if (options.liveness && !isFault && next !== state) to.push(next)
    }
  }
  if (!options.liveness) return report(undefined)
  const stuck = stuckState(goals, starts, to)
  if (stuck < 0) return report(undefined)
  return report({ what: "from here the events can't all be applied any more", trace: traceOf(stuck).words })
}
