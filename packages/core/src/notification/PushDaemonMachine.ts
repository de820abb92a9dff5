/**
 * Decides when the push daemon has a worker: a short-lived process that shows what waits in the queue, and ends.
 *
 * Pure: `step(config, state, input)`. There is one worker at most. It is started when something is due and none runs, told to
 * end when it lives too long, and killed when it doesn't. After its end the queue is looked at again, since something may have
 * been accepted as it went.
 *
 * Invariants: I9 (a worker that crashes, or ends with nothing shown of what is due, is started again with backoff), I10 (one
 * worker at most, each with a limit).
 *
 * Gotchas: what is accepted while a worker runs is told to it through the lease, and not by this machine.
 *
 * Not here: what a worker does (platform's `PushWorker.ts`), processes and timers (platform's `PushDaemon.ts`).
 */
import * as SupervisionPolicy from "../sync/SupervisionPolicy.ts"
import type { SyncConfigShape } from "../sync/SyncConfig.ts"

export interface Config {
  /** How long to wait after crashes. */
  readonly limits: SyncConfigShape
  /** How long a worker may live, in milliseconds; then it is told to end. */
  readonly workerMillis: number
  /** How long it may take to end, in milliseconds; then it is killed. */
  readonly endMillis: number
}

export type Phase =
  /** No worker; the queue is being looked at. `workedOff`: how many waited when the worker started that has just ended. */
  | { readonly _tag: "Looking"; readonly workedOff?: number }
  /** No worker, and nothing is due. */
  | { readonly _tag: "Waiting" }
  /** No worker for a while, since one has failed. */
  | { readonly _tag: "BackingOff" }
  /** A worker runs; `waiting` is how many waited when it started. */
  | { readonly _tag: "Running"; readonly waiting: number }
  /** A worker was told to end. */
  | { readonly _tag: "Ending"; readonly waiting: number }

export interface State {
  readonly phase: Phase
  /** Something was accepted since the queue was last looked at, or while it is. */
  readonly hasNews: boolean
  /** Workers in a row that were of no use. */
  readonly failures: number
}

/** What a look at the queue found. */
export interface Queued {
  readonly waiting: number
  /** When the first one is due, Unix milliseconds; absent when nothing waits. */
  readonly dueMillis?: number
}

export type Input =
  | { readonly _tag: "Accepted" }
  | { readonly _tag: "Looked"; readonly queued: Queued; readonly nowMillis: number; readonly random: number }
  | { readonly _tag: "LookFailed"; readonly random: number }
  | { readonly _tag: "Waited" }
  /** `inOrder`: it says that it has done what there was to do. */
  | { readonly _tag: "WorkerEnded"; readonly inOrder: boolean; readonly random: number }
  /** The time that a worker has is over. */
  | { readonly _tag: "WorkerLate" }

export type Command =
  | { readonly _tag: "Look" }
  | { readonly _tag: "StartWorker" }
  | { readonly _tag: "TellWorker"; readonly signal: "SIGTERM" | "SIGKILL" }
  /** Tells `WorkerLate` after so long, instead of what was watched before. */
  | { readonly _tag: "WatchWorker"; readonly millis: number }
  | { readonly _tag: "UnwatchWorker" }
  /** Tells `Waited` after so long. */
  | { readonly _tag: "Wait"; readonly millis: number }
  | { readonly _tag: "CancelWait" }

type Step = readonly [State, ReadonlyArray<Command>]

/** Timers hold 2^31 - 1 milliseconds; whoever waits for longer looks again. */
const MAX_WAIT_MILLIS = 3_600_000

const look = (state: State, workedOff?: number): Step => [
  { ...state, phase: { _tag: "Looking", ...(workedOff !== undefined && { workedOff }) } },
  [{ _tag: "Look" }]
]

/** Before anything is known. */
export const start: Step = look({ phase: { _tag: "Waiting" }, hasNews: false, failures: 0 })

const backOff = ({ limits }: Config, state: State, random: number): Step => {
  const millis = SupervisionPolicy.backoffMillis(limits, state.failures, random)
  const next: State = { ...state, phase: { _tag: "BackingOff" }, failures: state.failures + 1 }
  return [next, [{ _tag: "Wait", millis }]]
}

const startWorker = ({ workerMillis }: Config, state: State, waiting: number): Step => [
  { ...state, phase: { _tag: "Running", waiting }, hasNews: false },
  [{ _tag: "StartWorker" }, { _tag: "WatchWorker", millis: workerMillis }]
]

const looked = (config: Config, state: State, phase: Extract<Phase, { _tag: "Looking" }>, input: Looked): Step => {
  const { nowMillis, queued, random } = input
  const { dueMillis, waiting } = queued
  const { workedOff } = phase
  const isProgress = workedOff === undefined || waiting < workedOff || state.hasNews
  if (dueMillis !== undefined && dueMillis <= nowMillis) {
    if (!isProgress) return backOff(config, state, random)
    return startWorker(config, workedOff === undefined ? state : { ...state, failures: 0 }, waiting)
  }
  // It may have come after the look.
  if (state.hasNews) return look({ ...state, hasNews: false })
  const idle: State = { phase: { _tag: "Waiting" }, hasNews: false, failures: 0 }
  if (dueMillis === undefined) return [idle, []]
  return [idle, [{ _tag: "Wait", millis: Math.min(MAX_WAIT_MILLIS, dueMillis - nowMillis) }]]
}

type Looked = Extract<Input, { _tag: "Looked" }>

const accepted = (state: State): Step => {
  if (state.phase._tag !== "Waiting") return [{ ...state, hasNews: true }, []]
  const [next, commands] = look(state)
  return [next, [{ _tag: "CancelWait" }, ...commands]]
}

const ended = (config: Config, state: State, { inOrder, random }: Extract<Input, { _tag: "WorkerEnded" }>): Step => {
  const { phase } = state
  if (phase._tag !== "Running" && phase._tag !== "Ending") return [state, []]
  const [next, commands] =
    inOrder || phase._tag === "Ending" ? look(state, phase.waiting) : backOff(config, state, random)
  return [next, [{ _tag: "UnwatchWorker" }, ...commands]]
}

const late = ({ endMillis }: Config, state: State): Step => {
  const { phase } = state
  if (phase._tag === "Ending") return [state, [{ _tag: "TellWorker", signal: "SIGKILL" }]]
  if (phase._tag !== "Running") return [state, []]
  return [
    { ...state, phase: { _tag: "Ending", waiting: phase.waiting } },
    [
      { _tag: "TellWorker", signal: "SIGTERM" },
      { _tag: "WatchWorker", millis: endMillis }
    ]
  ]
}

/** Decides. What comes too late for the phase it was meant for changes nothing. */
export const step = (config: Config, state: State, input: Input): Step => {
  const { phase } = state
  switch (input._tag) {
    case "Accepted":
      return accepted(state)
    case "Looked":
      return phase._tag === "Looking" ? looked(config, state, phase, input) : [state, []]
    case "LookFailed":
      return phase._tag === "Looking" ? backOff(config, state, input.random) : [state, []]
    case "Waited":
      return phase._tag === "Waiting" || phase._tag === "BackingOff" ? look(state) : [state, []]
    case "WorkerEnded":
      return ended(config, state, input)
    case "WorkerLate":
      return late(config, state)
  }
}
