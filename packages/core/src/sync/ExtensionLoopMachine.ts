/**
 * Decides the extension loop: wait for the lock, reload when dirty, then read, poll, apply and send, for as long as the
 * lock is held.
 *
 * Pure: `step(config, state, input)`; the interpreter is `ExtensionSync` (actors).
 *
 * Invariants: I1 (every write carries the grant's fence; a lost grant ends the work under it), I2 (the position is read
 * from the store before every request, and a response is applied against the position that was sent), I3 (nothing of the
 * main loop is known here), I5 (reload whenever memory isn't known to be valid for this generation), I9, I10.
 *
 * Gotchas: the lock is held from one iteration to the next and while the loop backs off (ADR 0008): an owner that can't
 * reach the homeserver doesn't help anybody by letting go, since the other process is on the same host. A loop that gives
 * up does let go.
 *
 * Not here: who gets the lock (`Lease.ts`), the transaction (`SyncStore.ts`), what an error leads to
 * (`SupervisionPolicy.ts`).
 */
import type { Fence } from "../lease/Lease.ts"
import type { SyncRequest, SyncResponse } from "../matrix/SlidingSync.ts"
import * as SupervisionPolicy from "./SupervisionPolicy.ts"
import type { SyncConfigShape } from "./SyncConfig.ts"
import type { ExtensionPosition } from "./SyncStore.ts"

type Failure = SupervisionPolicy.Failure

/** The connection that carries only the end-to-end extensions; every process uses the same one, under the lock. */
export const EXTENSION_CONN_ID = "encryption"

/** Where a backoff goes on. */
export type Resume = "lock" | "reload" | "read"

export type State =
  | { readonly _tag: "Idle" }
  | { readonly _tag: "WaitingForLock"; readonly attempt: number }
  | { readonly _tag: "Reloading"; readonly fence: Fence; readonly attempt: number }
  /** The stored position is being read. */
  | { readonly _tag: "Reading"; readonly fence: Fence; readonly attempt: number; readonly epoch: number }
  | {
      readonly _tag: "Polling"
      readonly fence: Fence
      readonly attempt: number
      readonly epoch: number
      readonly position: ExtensionPosition
    }
  /** The response is being decrypted and committed. */
  | { readonly _tag: "Applying"; readonly fence: Fence; readonly attempt: number; readonly epoch: number }
  /** Requests of the end-to-end machine are being sent. */
  | { readonly _tag: "Sending"; readonly fence: Fence; readonly attempt: number; readonly epoch: number }
  /** The stored `pos` is being dropped; then the connection starts afresh, after the delay. */
  | {
      readonly _tag: "Expiring"
      readonly fence: Fence
      readonly attempt: number
      readonly epoch: number
      readonly delayMillis: number
      readonly failure: Failure
    }
  | {
      readonly _tag: "BackingOff"
      readonly fence: Fence | undefined
      readonly attempt: number
      readonly epoch: number
      readonly resume: Resume
      readonly failure: Failure
      readonly untilMillis: number
    }
  /** Nothing that the loop can do helps. The lock has been let go. */
  | { readonly _tag: "Failed"; readonly failure: Failure }

/** Inputs that carry a failure also carry the time, and a random number in [0, 1) for the jitter. */
interface Failed {
  readonly failure: Failure
  readonly nowMillis: number
  readonly random: number
}

export type Input =
  | { readonly _tag: "Start" }
  | { readonly _tag: "LockGranted"; readonly fence: Fence; readonly isDirty: boolean }
  | ({ readonly _tag: "LockFailed" } & Failed)
  /** The grant with this generation is gone. */
  | { readonly _tag: "LockLost"; readonly generation: number }
  | { readonly _tag: "Reloaded" }
  | ({ readonly _tag: "ReloadFailed" } & Failed)
  | { readonly _tag: "PositionRead"; readonly position: ExtensionPosition }
  | ({ readonly _tag: "ReadFailed" } & Failed)
  | { readonly _tag: "Polled"; readonly epoch: number; readonly response: SyncResponse }
  | ({ readonly _tag: "PollFailed"; readonly epoch: number } & Failed)
  | { readonly _tag: "Applied" }
  /** Decrypting or committing failed, for a response or for the answer to a sent request. */
  | ({ readonly _tag: "ApplyFailed" } & Failed)
  /** The requests were sent, or the homeserver could not take them and they stay queued; either way the loop goes on. */
  | { readonly _tag: "Sent" }
  | { readonly _tag: "Expired"; readonly nowMillis: number }
  | ({ readonly _tag: "ExpireFailed" } & Failed)
  | { readonly _tag: "BackoffElapsed" }
  /** Don't wait any longer: something says that it may work now. */
  | { readonly _tag: "Retry" }

export type Command =
  | { readonly _tag: "TakeLock" }
  /** Close the grant's scope: the lease row is free, or the first waiter's, when this is done. */
  | { readonly _tag: "ReleaseLock" }
  | { readonly _tag: "Reload"; readonly fence: Fence }
  | { readonly _tag: "ReadPosition" }
  | { readonly _tag: "Poll"; readonly epoch: number; readonly request: SyncRequest }
  /** End whatever runs under the grant: the request, a backoff, an application that isn't committed yet. */
  | { readonly _tag: "AbortWork" }
  | {
      readonly _tag: "Apply"
      readonly fence: Fence
      readonly sent: ExtensionPosition
      readonly response: SyncResponse
    }
  | { readonly _tag: "SendOutgoing"; readonly fence: Fence }
  /** The end-to-end machine's memory is void. */
  | { readonly _tag: "DiscardMemory" }
  | { readonly _tag: "ExpirePosition"; readonly fence: Fence }
  | { readonly _tag: "Wait"; readonly millis: number }

export type Step = readonly [State, ReadonlyArray<Command>]

export interface Config {
  readonly sync: SyncConfigShape
}

export const initial: State = { _tag: "Idle" }

const requestOf = (config: Config, position: ExtensionPosition): SyncRequest => ({
  connId: EXTENSION_CONN_ID,
  ...(position.pos === undefined ? {} : { pos: position.pos }),
  timeoutMillis: config.sync.pollTimeoutMillis,
  lists: {},
  roomSubscriptions: {},
  extensions: {
    e2ee: true,
    toDevice: {
      limit: config.sync.toDeviceLimit,
      ...(position.since === undefined ? {} : { since: position.since })
    }
  }
})

const takeLock = (attempt: number): Step => [{ _tag: "WaitingForLock", attempt }, [{ _tag: "TakeLock" }]]

const read = (fence: Fence, attempt: number, epoch: number): Step => [
  { _tag: "Reading", fence, attempt, epoch },
  [{ _tag: "ReadPosition" }]
]

const reload = (fence: Fence, attempt: number): Step => [
  { _tag: "Reloading", fence, attempt },
  [{ _tag: "Reload", fence }]
]

/** Sends what the end-to-end machine has queued before the next request, so that its effects are in the next response. */
const send = (fence: Fence, attempt: number, epoch: number): Step => [
  { _tag: "Sending", fence, attempt, epoch },
  [{ _tag: "SendOutgoing", fence }]
]

/** What the machine was at when something failed. */
interface At {
  readonly fence: Fence | undefined
  readonly attempt: number
  readonly epoch: number
  readonly resume: Resume
}

const giveUp = (at: At, failure: Failure): Step => [
  { _tag: "Failed", failure },
  at.fence === undefined ? [] : [{ _tag: "DiscardMemory" }, { _tag: "ReleaseLock" }]
]

const failed = (config: Config, at: At, input: Failed): Step => {
  const { failure } = input
  const decision = SupervisionPolicy.decide(config.sync, failure, at.attempt, input.random)
  const attempt = at.attempt + 1
  if (decision._tag === "GiveUp") return giveUp(at, failure)
  if (decision._tag === "Restart" && failure.class === "expired" && at.fence !== undefined) {
    const { fence, epoch } = at
    return [
      { _tag: "Expiring", fence, attempt, epoch, delayMillis: decision.delayMillis, failure },
      [{ _tag: "ExpirePosition", fence }]
    ]
  }
  return [
    {
      _tag: "BackingOff",
      fence: at.fence,
      attempt,
      epoch: at.epoch,
      resume: at.resume,
      failure,
      untilMillis: input.nowMillis + decision.delayMillis
    },
    [{ _tag: "Wait", millis: decision.delayMillis }]
  ]
}

/** A commit that failed leaves memory void: nothing half-applied survives (invariants I2, I5). */
const applyFailed = (config: Config, state: Extract<State, { _tag: "Applying" | "Sending" }>, input: Failed): Step => {
  const { fence, attempt, epoch } = state
  if (input.failure.class === "stale") {
    const [next, commands] = takeLock(attempt + 1)
    return [next, [{ _tag: "DiscardMemory" }, { _tag: "ReleaseLock" }, ...commands]]
  }
  const [next, commands] = failed(config, { fence, attempt, epoch, resume: "reload" }, input)
  return next._tag === "Failed" ? [next, commands] : [next, [{ _tag: "DiscardMemory" }, ...commands]]
}

const lockLost = (state: Extract<State, { fence: unknown }>, input: Extract<Input, { _tag: "LockLost" }>): Step => {
  if (state.fence?.generation !== input.generation) return [state, []]
  const [next, commands] = takeLock(0)
  return [next, [{ _tag: "AbortWork" }, { _tag: "DiscardMemory" }, { _tag: "ReleaseLock" }, ...commands]]
}

const resumed = (state: Extract<State, { _tag: "BackingOff" }>): Step => {
  const { fence, attempt, epoch } = state
  if (fence === undefined || state.resume === "lock") return takeLock(attempt)
  return state.resume === "reload" ? reload(fence, attempt) : read(fence, attempt, epoch)
}

const waitingForLock = (config: Config, state: Extract<State, { _tag: "WaitingForLock" }>, input: Input): Step => {
  switch (input._tag) {
    case "LockGranted":
      return input.isDirty ? reload(input.fence, state.attempt) : read(input.fence, state.attempt, 0)
    case "LockFailed":
      return failed(config, { fence: undefined, attempt: state.attempt, epoch: 0, resume: "lock" }, input)
    default:
      return [state, []]
  }
}

const reloading = (config: Config, state: Extract<State, { _tag: "Reloading" }>, input: Input): Step => {
  switch (input._tag) {
    case "Reloaded":
      // What an owner before us left unsent goes out first.
      return send(state.fence, state.attempt, 0)
    case "ReloadFailed":
      return failed(config, { ...state, epoch: 0, resume: "reload" }, input)
    default:
      return [state, []]
  }
}

const reading = (config: Config, state: Extract<State, { _tag: "Reading" }>, input: Input): Step => {
  const { fence, attempt } = state
  switch (input._tag) {
    case "PositionRead": {
      const epoch = state.epoch + 1
      return [
        { _tag: "Polling", fence, attempt, epoch, position: input.position },
        [{ _tag: "Poll", epoch, request: requestOf(config, input.position) }]
      ]
    }
    case "ReadFailed":
      return failed(config, { ...state, resume: "read" }, input)
    default:
      return [state, []]
  }
}

const polling = (config: Config, state: Extract<State, { _tag: "Polling" }>, input: Input): Step => {
  const { fence, attempt, epoch } = state
  switch (input._tag) {
    case "Polled":
      return input.epoch === epoch
        ? [
            { _tag: "Applying", fence, attempt, epoch },
            [{ _tag: "Apply", fence, sent: state.position, response: input.response }]
          ]
        : [state, []]
    case "PollFailed":
      return input.epoch === epoch ? failed(config, { ...state, resume: "read" }, input) : [state, []]
    default:
      return [state, []]
  }
}

const expiring = (config: Config, state: Extract<State, { _tag: "Expiring" }>, input: Input): Step => {
  const { fence, attempt, epoch, failure } = state
  switch (input._tag) {
    case "Expired":
      if (state.delayMillis === 0) return read(fence, attempt, epoch)
      return [
        {
          _tag: "BackingOff",
          fence,
          attempt,
          epoch,
          resume: "read",
          failure,
          untilMillis: input.nowMillis + state.delayMillis
        },
        [{ _tag: "Wait", millis: state.delayMillis }]
      ]
    case "ExpireFailed":
      return failed(config, { ...state, resume: "read" }, input)
    default:
      return [state, []]
  }
}

/** What follows from an input. Inputs that don't belong to the state are late answers and change nothing. */
export const step = (config: Config, state: State, input: Input): Step => {
  if (input._tag === "LockLost" && "fence" in state) return lockLost(state, input)
  switch (state._tag) {
    case "Idle":
    case "Failed":
      return input._tag === "Start" ? takeLock(0) : [state, []]
    case "WaitingForLock":
      return waitingForLock(config, state, input)
    case "Reloading":
      return reloading(config, state, input)
    case "Reading":
      return reading(config, state, input)
    case "Polling":
      return polling(config, state, input)
    case "Applying":
      if (input._tag === "Applied") return send(state.fence, 0, state.epoch)
      return input._tag === "ApplyFailed" ? applyFailed(config, state, input) : [state, []]
    case "Sending":
      if (input._tag === "Sent") return read(state.fence, state.attempt, state.epoch)
      return input._tag === "ApplyFailed" ? applyFailed(config, state, input) : [state, []]
    case "Expiring":
      return expiring(config, state, input)
    case "BackingOff":
      return input._tag === "BackoffElapsed" || input._tag === "Retry" ? resumed(state) : [state, []]
  }
}
