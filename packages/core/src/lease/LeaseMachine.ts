/**
 * Decides one holder's way to a lease and through it: ask, watch whoever stands in the way, ask again, renew, give up. Who is
 * in a hurry says so in the queue, and then asks whoever stands in the way to yield; a holder that is asked looks at the
 * store, by renewing.
 *
 * Pure: `step(config, state, input)` gives the next state and the commands for the interpreter (`DistributedSemaphore`).
 *
 * Invariants: I1 (a lease that can't be shown to be ours is given up at once; the fence makes that merely slow), I10 (every
 * wait has an end).
 *
 * Gotchas: a lease that was found expired is not lost by that alone; the renewal, which is conditional on the generation,
 * settles it. So a process that was frozen, or whose clock was set, asks the store and believes nothing else.
 *
 * Not here: who gets the lease (`Lease.ts`), fibers and signals (`DistributedSemaphore.ts`).
 */
import type { Blocker, RenewOutcome, TakeOutcome } from "./Lease.ts"
import type { WakeSignal } from "./Wake.ts"

export interface LeaseMachineConfig {
  readonly leaseMillis: number
  readonly renewMillis: number
  readonly waitPollMillis: number
}

/**
 * How long after having been asked in vain a holder listens to nobody, in milliseconds: whoever asks again and again costs
 * it no more than a few renewals a second, and one who asks for good reason meanwhile is heard soon.
 */
export const DEAF_MILLIS = 250

/**
 * How many of those that it has seen die one wait remembers: far more than processes share a database, and die at once. Who
 * forgot one of two that stand in the way would ask for the one and the other in turns, without end.
 */
export const DEAD_KEPT = 64

/**
 * Whom the machine watches; `usable` is false once the peer turned out to be unwatchable, so that only the poll remains.
 * `asked`: it has been asked to yield.
 */
interface Watching {
  readonly holder: string
  readonly usable: boolean
  readonly asked: boolean
}

export type State =
  /** A take is on its way to the store. */
  | {
      readonly _tag: "Asking"
      readonly once: boolean
      readonly urgent: boolean
      /** Whom it has seen die while it waits, the last ones. */
      readonly dead: ReadonlyArray<string>
      readonly watching: Watching | undefined
    }
  /** Somebody else has it; waiting for a signal or the time. */
  | {
      readonly _tag: "Waiting"
      readonly urgent: boolean
      readonly dead: ReadonlyArray<string>
      readonly watching: Watching
      readonly untilMillis: number
      readonly blocker: Blocker
    }
  | {
      readonly _tag: "Held"
      readonly generation: number
      readonly expiresAtMillis: number
      /** Somebody is known to wait who needs it soon. Stays so, whether he still waits or not. */
      readonly wanted: boolean
      /** A peer has asked for it since the last renewal. */
      readonly asked: boolean
    }
  /** `once`, and somebody else has it. */
  | { readonly _tag: "Refused"; readonly blocker: Blocker }
  | { readonly _tag: "Lost"; readonly generation: number; readonly reason: LostReason }

/** `takenOver`: another holder has it. `unreachable`: the store could not be asked for as long as the lease lasts. */
export type LostReason = "takenOver" | "unreachable"

export type Input =
  | { readonly _tag: "TakeAnswered"; readonly outcome: TakeOutcome; readonly nowMillis: number }
  /** The store could not be asked just then, and a retry can help. */
  | { readonly _tag: "TakeFailed"; readonly nowMillis: number }
  /** `Hurried`: this process needs the lease soon. */
  | { readonly _tag: "Woken"; readonly by: WakeSignal | "Time" | "Hurried"; readonly nowMillis: number }
  | { readonly _tag: "RenewAnswered"; readonly outcome: RenewOutcome; readonly nowMillis: number }
  | { readonly _tag: "RenewFailed"; readonly nowMillis: number }
  /** A peer asks for the lease. */
  | { readonly _tag: "Asked" }

export type Command =
  | { readonly _tag: "Take"; readonly presumedDead: ReadonlyArray<string>; readonly urgent: boolean }
  /** Watch this blocker from now on, instead of whoever was watched before. */
  | { readonly _tag: "Watch"; readonly blocker: Blocker }
  /** Ask this blocker's peer to yield. */
  | { readonly _tag: "Ask"; readonly blocker: Blocker }
  /**
   * Wait until then; with `signal`, no longer than until the watched peer says something; with `hurry`, no longer than until
   * this process is in a hurry.
   */
  | { readonly _tag: "Await"; readonly untilMillis: number; readonly signal: boolean; readonly hurry: boolean }
  /**
   * Renew when this much time has passed, measured by a timer and not by the wall clock; with `asked`, tell before if a peer
   * asks.
   */
  | { readonly _tag: "RenewAfter"; readonly millis: number; readonly asked: boolean }

export type Step = readonly [State, ReadonlyArray<Command>]

/**
 * Starts to ask. `once`: when refused, don't wait. `urgent`: wait as one who needs it soon. `dead`: holders that were seen to
 * die before.
 */
export const start = (once: boolean, urgent = false, dead: ReadonlyArray<string> = []): Step => [
  { _tag: "Asking", once, urgent, dead, watching: undefined },
  [{ _tag: "Take", presumedDead: dead, urgent }]
]

/** Waiting ends by the poll, or right after the blocker's lease runs out, whichever comes first. */
const waitUntil = (config: LeaseMachineConfig, blocker: Blocker, nowMillis: number): number =>
  Math.max(nowMillis + 1, Math.min(nowMillis + config.waitPollMillis, blocker.expiresAtMillis + 1))

const busy = (
  config: LeaseMachineConfig,
  state: Extract<State, { _tag: "Asking" }>,
  blocker: Blocker,
  nowMillis: number
): Step => {
  if (state.once) return [{ _tag: "Refused", blocker }, []]
  const { dead, urgent, watching } = state
  // The look that found the blocker has made the place in the queue urgent, so whoever is asked finds it so.
  const isToBeAsked = urgent && (watching?.holder !== blocker.holder || !watching.asked)
  const ask: ReadonlyArray<Command> = isToBeAsked ? [{ _tag: "Ask", blocker }] : []
  if (watching?.holder !== blocker.holder) {
    // Watch first, look again, then wait: a release between the look and the wait is then seen.
    return [
      { _tag: "Asking", once: false, urgent, dead, watching: { holder: blocker.holder, usable: true, asked: urgent } },
      [{ _tag: "Watch", blocker }, ...ask, { _tag: "Take", presumedDead: dead, urgent }]
    ]
  }
  const untilMillis = waitUntil(config, blocker, nowMillis)
  return [
    { _tag: "Waiting", urgent, dead, watching: { ...watching, asked: urgent }, untilMillis, blocker },
    [...ask, { _tag: "Await", untilMillis, signal: watching.usable, hurry: !urgent }]
  ]
}

/**
 * How long after a grant the first renewal is due, in milliseconds: when that of a lease taken at this moment would be, and
 * at once for what was handed over, which lasts for `handoverMillis` unless it is confirmed.
 */
export const firstRenewAfter = (config: LeaseMachineConfig, expiresAtMillis: number, nowMillis: number): number =>
  Math.max(0, Math.min(config.renewMillis, expiresAtMillis - config.leaseMillis + config.renewMillis - nowMillis))

const granted = (
  config: LeaseMachineConfig,
  { expiresAtMillis, generation }: Extract<TakeOutcome, { _tag: "Granted" }>,
  nowMillis: number
): Step => [
  { _tag: "Held", generation, expiresAtMillis, wanted: false, asked: false },
  [{ _tag: "RenewAfter", millis: firstRenewAfter(config, expiresAtMillis, nowMillis), asked: true }]
]

const asking = (config: LeaseMachineConfig, state: Extract<State, { _tag: "Asking" }>, input: Input): Step => {
  switch (input._tag) {
    case "TakeAnswered":
      return input.outcome._tag === "Busy"
        ? busy(config, state, input.outcome.blocker, input.nowMillis)
        : granted(config, input.outcome, input.nowMillis)
    case "TakeFailed": {
      const blocker: Blocker = { kind: "holder", holder: "", peer: {}, expiresAtMillis: Number.POSITIVE_INFINITY }
      const untilMillis = waitUntil(config, blocker, input.nowMillis)
      const watching = { holder: "", usable: false, asked: false }
      return [
        { _tag: "Waiting", urgent: state.urgent, dead: state.dead, watching, untilMillis, blocker },
        // Nothing is gained by a hurry that can't be written down.
        [{ _tag: "Await", untilMillis, signal: false, hurry: false }]
      ]
    }
    default:
      return [state, []]
  }
}

const waiting = (state: Extract<State, { _tag: "Waiting" }>, input: Input): Step => {
  if (input._tag !== "Woken") return [state, []]
  const urgent = state.urgent || input.by === "Hurried"
  const ask = (watching: Watching | undefined, dead: ReadonlyArray<string>): Step => [
    { _tag: "Asking", once: false, urgent, dead, watching },
    [{ _tag: "Take", presumedDead: dead, urgent }]
  ]
  switch (input.by) {
    case "Dead":
      return ask(undefined, [...state.dead, state.blocker.holder].slice(-DEAD_KEPT))
    case "Unreachable":
      // Not asked at once: a peer that can't be watched would turn the wait into a hot loop. The poll goes on.
      return [
        { ...state, watching: { ...state.watching, usable: false } },
        [{ _tag: "Await", untilMillis: state.untilMillis, signal: false, hurry: !urgent }]
      ]
    case "Signalled":
    case "Time":
    case "Hurried":
      return ask(state.watching, state.dead)
  }
}

/** Whether a lease is over by the wall clock: its end has passed, or is farther away than a lease, after a clock step. */
const isOver = (config: LeaseMachineConfig, expiresAtMillis: number, nowMillis: number): boolean =>
  nowMillis >= expiresAtMillis || expiresAtMillis - nowMillis > config.leaseMillis

const renewed = (
  config: LeaseMachineConfig,
  state: Extract<State, { _tag: "Held" }>,
  outcome: Extract<RenewOutcome, { _tag: "Renewed" }>
): Step => {
  const wanted = state.wanted || outcome.wanted
  const isInVain = state.asked && !wanted
  return [
    { ...state, expiresAtMillis: outcome.expiresAtMillis, wanted, asked: false },
    [
      {
        _tag: "RenewAfter",
        millis: isInVain ? Math.min(DEAF_MILLIS, config.renewMillis) : config.renewMillis,
        // Who knows that it is wanted has nothing more to learn.
        asked: !wanted && !isInVain
      }
    ]
  ]
}

const held = (config: LeaseMachineConfig, state: Extract<State, { _tag: "Held" }>, input: Input): Step => {
  switch (input._tag) {
    case "Asked":
      // A signal is a hint: whether somebody waits is written in the store, and a renewal reads it.
      return [{ ...state, asked: true }, [{ _tag: "RenewAfter", millis: 0, asked: false }]]
    case "RenewAnswered":
      return input.outcome._tag === "NotHeld"
        ? [{ _tag: "Lost", generation: state.generation, reason: "takenOver" }, []]
        : renewed(config, state, input.outcome)
    case "RenewFailed":
      return isOver(config, state.expiresAtMillis, input.nowMillis)
        ? [{ _tag: "Lost", generation: state.generation, reason: "unreachable" }, []]
        : [state, [{ _tag: "RenewAfter", millis: Math.ceil(config.renewMillis / 10), asked: false }]]
    default:
      return [state, []]
  }
}

/** What follows from an input. Inputs that don't belong to the state are late answers and change nothing. */
export const step = (config: LeaseMachineConfig, state: State, input: Input): Step => {
  switch (state._tag) {
    case "Asking":
      return asking(config, state, input)
    case "Waiting":
      return waiting(state, input)
    case "Held":
      return held(config, state, input)
    case "Refused":
    case "Lost":
      return [state, []]
  }
}
