/**
 * Follows in the model what real processes were seen to do: every state in which the model may be after it, with whatever
 * it does unseen in between. When none is left, the real ones did something that the model says can't happen.
 *
 * What is seen is each change of what processes share, with what is shared after it, and each time that one looks at it:
 * reads the position, loads its memory, is answered by the homeserver, or is refused or failed.
 *
 * Gotchas: the model has no clock, so whatever needs one is allowed only when the real clock says so: a lease expires, a place
 * in the queue lapses, the time of a push is over.
 *
 * Not here: what is seen (`Recording.ts`).
 */
import * as Explore from "../../../packages/core/test/model/Explore.ts"
import * as Process from "../../../packages/core/test/model/Process.ts"
import * as Rules from "../../../packages/core/test/model/Rules.ts"
import { type Budget, type System, withWorld } from "../../../packages/core/test/model/System.ts"
import type { Move } from "../../../packages/core/test/model/World.ts"

/** What processes share, as far as no clock and no words matter. */
export interface Shared {
  readonly owner: string
  readonly generation: number
  readonly isReleased: boolean
  readonly queue: ReadonlyArray<string>
  readonly applied: number
}

/** What is over by the real clock. */
export interface Over {
  readonly lease: boolean
  readonly place: boolean
  readonly push: boolean
}

/** One thing that was seen. */
export interface Seen {
  readonly what: string
  readonly shared: Shared
  readonly over: Over
}

const NOTHING: Budget = { crashes: 0, faults: 0, suspends: 0, wishes: 0, pushes: 0 }

/** Holder's ids by the processes that have them; `old` for those of processes before. */
const nameOf = (system: System, holder: string): string => {
  if (holder === "") return ""
  return system.processes.find((process) => process.holder === holder)?.name ?? "old"
}

export const sharedOf = (system: System): Shared => {
  const { inbox, table } = system.world
  const row = table.rows[0]
  return {
    owner: nameOf(system, row?.holder ?? ""),
    generation: row?.generation ?? 0,
    isReleased: row === undefined || row.expiresAtMillis === 0,
    queue: table.waiters.map(({ holder, urgent }) => `${nameOf(system, holder)}${urgent ? "!" : ""}`),
    applied: inbox.length
  }
}

const same = (one: Shared, other: Shared): boolean => JSON.stringify(one) === JSON.stringify(other)

/** What steps that are seen are called, by the words of the model. */
const names: ReadonlyArray<readonly [RegExp, string]> = [
  [/^event \d+ arrives/, "event arrives"],
  [/^a push starts (\w), which needs the key of event (\d+)/, "$1 is pushed for $2"],
  [/^(\w) is started again/, "$1 is started"],
  [/^(\w) is (killed|suspended|resumed)$/, "$1 is $2"],
  [/^(\w) is in a hurry$/, "$1 hurries"],
  [/^(\w) reads the position$/, "$1 reads"],
  [/^(\w) loads the end-to-end machine$/, "$1 loads"],
  [/^(\w) is answered by the homeserver$/, "$1 is answered"],
  [/^(\w) commits the batch$/, "$1 commits"],
  [/^(\w) sends a request and commits its answer$/, "$1 sends"],
  [/^(\w) drops its position$/, "$1 drops"],
  [/^(\w) .*: refused, (stale|moved)$/, "$1 is refused"],
  [/^(\w) (can't reach the homeserver|reaches the homeserver and never hears of it)$/, "$1 fails: network"],
  [/^(\w) is told that its position has expired$/, "$1 fails: expired"],
  [/^(\w) commits the batch: (fails before|done, and never heard of)$/, "$1 fails: commit"]
]

const nameFor = (words: string): string | undefined => {
  const found = names.find(([pattern]) => pattern.test(words))
  return found === undefined ? undefined : (found[0].exec(words)?.[0] ?? "").replace(...found)
}

/** The same words come again and again. */
const known = new Map<string, string | undefined>()

/** What others see of a step, or `undefined`. */
const seenAs = (before: System, { next, words }: Move): string | undefined => {
  if (!known.has(words)) known.set(words, nameFor(words))
  const name = known.get(words)
  if (name !== undefined) return name
  if (next.world === before.world || same(sharedOf(before), sharedOf(next))) return undefined
  return `${words[0]} changes the lease`
}

/** Whether the clock allows a step. */
const isAllowed = ({ words }: Move, over: Over): boolean => {
  if (/^the lease of .* expires$/.test(words)) return over.lease
  if (/^the place of .* lapses$/.test(words)) return over.place
  return over.push || !/time .*is over|its time is over/.test(words)
}

/** What a step needs that happens only so often. */
const budgetFor = (what: string): Budget => {
  if (what.includes("fails")) return { ...NOTHING, faults: 1 }
  if (what.endsWith("is killed")) return { ...NOTHING, crashes: 1 }
  if (what.endsWith("is suspended")) return { ...NOTHING, suspends: 1 }
  if (what.endsWith("hurries")) return { ...NOTHING, wishes: 1 }
  return what.includes("is pushed") ? { ...NOTHING, pushes: 1 } : NOTHING
}

type States = ReadonlyMap<string, System>

/** Gives equal states the same key. Parts that are the same object are looked at once. */
const makeKeys = (): ((system: System) => string) => {
  const numbers = new Map<string, number>()
  const byPart = new WeakMap<object, number>()
  const numberOf = (part: object): number => {
    const known = byPart.get(part)
    if (known !== undefined) return known
    const text = JSON.stringify(part)
    const number = numbers.get(text) ?? numbers.size
    numbers.set(text, number)
    byPart.set(part, number)
    return number
  }
  return ({ processes, world }) => `${processes.map(numberOf).join()},${numberOf(world)}`
}

type KeyOf = ReturnType<typeof makeKeys>

const movesOf = (rules: Rules.Rules, system: System, events: number): ReadonlyArray<Move> =>
  Explore.movesOf({ rules, bounds: { ...NOTHING, processes: 0, notifications: 0, events }, fine: true }, system)

const withBudget = (system: System, budget: Budget): System => withWorld(system, { budget })

/** States beyond which a story isn't followed: it would not be one of a few processes any more. */
const STATES_MAX = 60_000

/** With everything that may have happened unseen. */
const closure = (keyOf: KeyOf, rules: Rules.Rules, states: States, over: Over): States => {
  const all = new Map(states)
  const open = [...states.values()]
  for (let system = open.pop(); system !== undefined; system = open.pop()) {
    for (const move of movesOf(rules, system, system.world.arrived)) {
      if (!isAllowed(move, over) || seenAs(system, move) !== undefined) continue
      const key = keyOf(move.next)
      if (all.has(key)) continue
      if (all.size === STATES_MAX) throw new RangeError(`more than ${STATES_MAX} states are possible`)
      all.set(key, move.next)
      open.push(move.next)
    }
  }
  return all
}

/** Where the model may be after a step that is called so. */
const after = (keyOf: KeyOf, rules: Rules.Rules, states: States, { over, shared, what }: Seen): States => {
  const next = new Map<string, System>()
  for (const system of states.values()) {
    const { arrived } = system.world
    const events = what === "event arrives" ? arrived + 1 : Math.max(arrived, Number(/\d+$/.exec(what)?.[0] ?? 0))
    for (const move of movesOf(rules, withBudget(system, budgetFor(what)), events)) {
      if (seenAs(system, move) !== what || !isAllowed(move, over)) continue
      const reached = withBudget(move.next, NOTHING)
      if (same(sharedOf(reached), shared)) next.set(keyOf(reached), reached)
    }
    // Who needs nothing is in no hurry.
    if (what.endsWith("hurries") && same(sharedOf(system), shared)) next.set(keyOf(system), system)
  }
  return next
}

/** Where everything begins: processes of these names that nobody has started. */
const unstarted = (rules: Rules.Rules): System => ({
  processes: [
    ...["A", "B"].map((name) => ({ ...Process.application(rules, name), mailbox: [], life: "dead" as const })),
    Process.notification(rules, "N")
  ] as System["processes"],
  world: Explore.initial({ rules, bounds: { ...NOTHING, processes: 0, notifications: 0, events: 0 } }).world
})

/** What became of a story in the model. */
export interface Followed {
  /** The first thing seen that the model says can't happen, with what it says of the shared things before, or `undefined`. */
  readonly stranger: { readonly at: number; readonly seen: Seen; readonly before: ReadonlyArray<Shared> } | undefined
  /** The most states in which the model might be at a time. */
  readonly most: number
}

/** Follows a story from the beginning. */
export const follow = (story: ReadonlyArray<Seen>, rules: Rules.Rules = Rules.real): Followed => {
  const keyOf = makeKeys()
  const beginning = unstarted(rules)
  let states: States = new Map([[keyOf(beginning), beginning]])
  let most = 1
  for (const [at, seen] of story.entries()) {
    const possible = closure(keyOf, rules, states, seen.over)
    most = Math.max(most, possible.size)
    states = after(keyOf, rules, possible, seen)
    if (states.size > 0) continue
    const before = new Set([...possible.values()].map((system) => JSON.stringify(sharedOf(system))))
    return { stranger: { at, seen, before: [...before].map((text) => JSON.parse(text) as Shared) }, most }
  }
  return { stranger: undefined, most }
}
