/**
 * Decides one holder's way to a lease and through it: ask, watch whoever stands in the way, ask again, renew, give up.
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
import type { Blocker, TakeOutcome } from "./Lease.ts"
import type { WakeSignal } from "./Wake.ts"

export interface LeaseMachineConfig {
  readonly leaseMillis: number
  readonly renewMillis: number
  readonly waitPollMillis: number
}

/** Whom the machine watches; `usable` is false once the peer turned out to be unwatchable, so that only the poll remains. */
interface Watching {
  readonly holder: string
  readonly usable: boolean
}

export type State =
  /** A take is on its way to the store. */
  | { readonly _tag: "Asking"; readonly once: boolean; readonly watching: Watching | undefined }
  /** Somebody else has it; waiting for a signal or the time. */
  | {
      readonly _tag: "Waiting"
      readonly watching: Watching
      readonly untilMillis: number
      readonly blocker: Blocker
    }
  | { readonly _tag: "Held"; readonly generation: number; readonly expiresAtMillis: number }
  /** `once`, and somebody else has it. */
  | { readonly _tag: "Refused"; readonly blocker: Blocker }
  | { readonly _tag: "Lost"; readonly generation: number; readonly reason: LostReason }

/** `takenOver`: another holder has it. `unreachable`: the store could not be asked for as long as the lease lasts. */
export type LostReason = "takenOver" | "unreachable"

export type Input =
  | { readonly _tag: "TakeAnswered"; readonly outcome: TakeOutcome; readonly nowMillis: number }
  /** The store could not be asked just then, and a retry can help. */
  | { readonly _tag: "TakeFailed"; readonly nowMillis: number }
  | { readonly _tag: "Woken"; readonly by: WakeSignal | "Time"; readonly nowMillis: number }
  /** The renewal's answer: the new expiry, or `undefined` when it was refused. */
  | { readonly _tag: "RenewAnswered"; readonly expiresAtMillis: number | undefined; readonly nowMillis: number }
  | { readonly _tag: "RenewFailed"; readonly nowMillis: number }

export type Command =
  | { readonly _tag: "Take"; readonly presumedDead: string | undefined }
  /** Watch this blocker from now on, instead of whoever was watched before. */
  | { readonly _tag: "Watch"; readonly blocker: Blocker }
  /** Wait until then; with `signal`, no longer than until the watched peer says something. */
  | { readonly _tag: "Await"; readonly untilMillis: number; readonly signal: boolean }
  /** Renew when this much time has passed, measured by a timer and not by the wall clock. */
  | { readonly _tag: "RenewAfter"; readonly millis: number }

export type Step = readonly [State, ReadonlyArray<Command>]

/** Starts to ask. `once`: when refused, don't wait. */
export const start = (once: boolean): Step => [
  { _tag: "Asking", once, watching: undefined },
  [{ _tag: "Take", presumedDead: undefined }]
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
  if (state.watching?.holder !== blocker.holder) {
    // Watch first, look again, then wait: a release between the look and the wait is then seen.
    return [
      { _tag: "Asking", once: false, watching: { holder: blocker.holder, usable: true } },
      [
        { _tag: "Watch", blocker },
        { _tag: "Take", presumedDead: undefined }
      ]
    ]
  }
  const untilMillis = waitUntil(config, blocker, nowMillis)
  return [
    { _tag: "Waiting", watching: state.watching, untilMillis, blocker },
    [{ _tag: "Await", untilMillis, signal: state.watching.usable }]
  ]
}

/**
 * How long after a grant the first renewal is due, in milliseconds: when that of a lease taken at this moment would be, and
 * at once for what was handed over, which lasts for `handoverMillis` unless it is confirmed.
 */
export const firstRenewAfter = (config: LeaseMachineConfig, expiresAtMillis: number, nowMillis: number): number =>
  Math.max(0, Math.min(config.renewMillis, expiresAtMillis - config.leaseMillis + config.renewMillis - nowMillis))

const asking = (config: LeaseMachineConfig, state: Extract<State, { _tag: "Asking" }>, input: Input): Step => {
  switch (input._tag) {
    case "TakeAnswered":
      return input.outcome._tag === "Busy"
        ? busy(config, state, input.outcome.blocker, input.nowMillis)
        : [
            { _tag: "Held", generation: input.outcome.generation, expiresAtMillis: input.outcome.expiresAtMillis },
            [{ _tag: "RenewAfter", millis: firstRenewAfter(config, input.outcome.expiresAtMillis, input.nowMillis) }]
          ]
    case "TakeFailed": {
      const blocker: Blocker = { kind: "holder", holder: "", peer: {}, expiresAtMillis: Number.POSITIVE_INFINITY }
      const untilMillis = waitUntil(config, blocker, input.nowMillis)
      const watching = { holder: "", usable: false }
      return [{ _tag: "Waiting", watching, untilMillis, blocker }, [{ _tag: "Await", untilMillis, signal: false }]]
    }
    default:
      return [state, []]
  }
}

const waiting = (state: Extract<State, { _tag: "Waiting" }>, input: Input): Step => {
  if (input._tag !== "Woken") return [state, []]
  const ask = (watching: Watching | undefined, presumedDead: string | undefined): Step => [
    { _tag: "Asking", once: false, watching },
    [{ _tag: "Take", presumedDead }]
  ]
  switch (input.by) {
    case "Dead":
      return ask(undefined, state.blocker.holder)
    case "Unreachable":
      // Not asked at once: a peer that can't be watched would turn the wait into a hot loop. The poll goes on.
      return [
        { ...state, watching: { ...state.watching, usable: false } },
        [{ _tag: "Await", untilMillis: state.untilMillis, signal: false }]
      ]
    case "Signalled":
    case "Time":
      return ask(state.watching, undefined)
  }
}

/** Whether a lease is over by the wall clock: its end has passed, or is farther away than a lease, after a clock step. */
const isOver = (config: LeaseMachineConfig, expiresAtMillis: number, nowMillis: number): boolean =>
  nowMillis >= expiresAtMillis || expiresAtMillis - nowMillis > config.leaseMillis

const held = (config: LeaseMachineConfig, state: Extract<State, { _tag: "Held" }>, input: Input): Step => {
  switch (input._tag) {
    case "RenewAnswered":
      return input.expiresAtMillis === undefined
        ? [{ _tag: "Lost", generation: state.generation, reason: "takenOver" }, []]
        : [{ ...state, expiresAtMillis: input.expiresAtMillis }, [{ _tag: "RenewAfter", millis: config.renewMillis }]]
    case "RenewFailed":
      return isOver(config, state.expiresAtMillis, input.nowMillis)
        ? [{ _tag: "Lost", generation: state.generation, reason: "unreachable" }, []]
        : [state, [{ _tag: "RenewAfter", millis: Math.ceil(config.renewMillis / 10) }]]
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
