/**
 * Decides the extension loop: wait for the lock, reload when dirty, then read, poll, apply and send, for as long as the
 * lock is held and nobody else needs it soon.
 *
 * Pure: `step(config, state, input)`; the interpreter is `ExtensionSync` (actors).
 *
 * Invariants: I1 (every write carries the grant's fence; a lost grant ends the work under it), I2 (the position is read
 * from the store before every request, and a response is applied against the position that was sent), I3 (nothing of the
 * main loop is known here), I5 (reload whenever memory isn't known to be valid for this generation), I9, I10.
 *
 * Gotchas: the lock is held from one iteration to the next and while the loop backs off (ADR 0008): an owner that can't
 * reach the homeserver doesn't help anybody by letting go, since the other process is on the same host. A loop that gives
 * up does let go. So does one whose lock is wanted (ADR 0023): it finishes a commit and what follows it to be sent, ends any wait,
 * and queues again. What it was given last it keeps for `yieldAfterMillis`, and it has sent at least once what was queued.
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
type Failed = SupervisionPolicy.Failed

/** The connection that carries only the end-to-end extensions; every process uses the same one, under the lock. */
export const EXTENSION_CONN_ID = "encryption"

/** Name of the lease that guards the extension stream, in every process. */
export const EXTENSION_LEASE = "extension"

/** Where a backoff goes on. */
export type Resume = "lock" | "reload" | "read"

/** What stays true while the loop goes round under a grant. */
interface Going {
  readonly fence: Fence
  readonly attempt: number
  readonly epoch: number
  /** Whether an answer was applied since the grant and the last failure: only then the loop is known to be in sync. */
  readonly answered: boolean
  /** Long polls in a row that were answered at once with nothing. */
  readonly hasty: number
}

/** What is known of the lock that is held. */
export interface Hold {
  /** Unix milliseconds until which it isn't let go for somebody else. */
  readonly keepUntilMillis: number
  /** Somebody else needs it soon, and it has been kept for long enough. */
  readonly wanted: boolean
}

/** What the loop is at; with `hold` where it has a fence. */
export type State = Phase & { readonly hold?: Hold }

type Phase =
  | { readonly _tag: "Idle" }
  /** The lock is being taken; `refused` once it is known that another process is in the way. */
  | { readonly _tag: "WaitingForLock"; readonly attempt: number; readonly epoch: number; readonly refused: boolean }
  | { readonly _tag: "Reloading"; readonly fence: Fence; readonly attempt: number; readonly epoch: number }
  /** The stored position is being read. `epoch` numbers the requests, so that a late answer is told from the awaited one. */
  | ({ readonly _tag: "Reading" } & Going)
  | ({
      readonly _tag: "Polling"
      readonly position: ExtensionPosition
    } & Going)
  /** The response is being decrypted and committed. */
  | ({ readonly _tag: "Applying" } & Going)
  /** Requests of the end-to-end machine are being sent. */
  | ({ readonly _tag: "Sending" } & Going)
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
  /** Everything is applied, and the next request waits: the homeserver doesn't hold the line open. */
  | ({ readonly _tag: "Resting"; readonly failure: Failure; readonly untilMillis: number } & Going)
  /** Nothing that the loop can do helps. The lock has been let go. */
  | { readonly _tag: "Failed"; readonly failure: Failure }

export type Input =
  | { readonly _tag: "Start" }
  | { readonly _tag: "LockGranted"; readonly fence: Fence; readonly isDirty: boolean; readonly nowMillis: number }
  /** Another process is in the way; the lock is waited for. */
  | { readonly _tag: "LockRefused" }
  | ({ readonly _tag: "LockFailed" } & Failed)
  /** The grant with this generation is gone. */
  | { readonly _tag: "LockLost"; readonly generation: number }
  /** Another process waits for the lock of this generation, and needs it soon. */
  | { readonly _tag: "LockWanted"; readonly generation: number; readonly nowMillis: number }
  | { readonly _tag: "Reloaded" }
  | ({ readonly _tag: "ReloadFailed" } & Failed)
  | { readonly _tag: "PositionRead"; readonly position: ExtensionPosition }
  | ({ readonly _tag: "ReadFailed" } & Failed)
  | { readonly _tag: "Polled"; readonly epoch: number; readonly response: SyncResponse; readonly tookMillis: number }
  | ({ readonly _tag: "PollFailed"; readonly epoch: number } & Failed)
  | { readonly _tag: "Applied" }
  /** Decrypting or committing failed, for a response or for the answer to a sent request. */
  | ({ readonly _tag: "ApplyFailed" } & Failed)
  /** The requests were sent, or the homeserver could not take them and they stay queued; either way the loop goes on. */
  | { readonly _tag: "Sent"; readonly nowMillis: number; readonly random: number }
  | { readonly _tag: "Expired"; readonly nowMillis: number }
  | ({ readonly _tag: "ExpireFailed" } & Failed)
  | { readonly _tag: "BackoffElapsed" }
  /** Don't wait any longer: something says that it may work now. */
  | { readonly _tag: "Retry" }

export type Command =
  | { readonly _tag: "TakeLock" }
  /**
   * Tell when the grant is lost and when it is wanted, also if it is already. Not before the grant is known here, to be
   * understood.
   */
  | { readonly _tag: "WatchLock" }
  /** Tell again that the grant is wanted, when this much time has passed. */
  | { readonly _tag: "WantLater"; readonly generation: number; readonly millis: number }
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
type PhaseStep = readonly [Phase, ReadonlyArray<Command>]

export interface Config {
  readonly sync: SyncConfigShape
}

export const initial: State = { _tag: "Idle" }

/** The request from a position; the homeserver may hold it for as long when there is nothing to say. */
export const requestFrom = (config: Config, position: ExtensionPosition, timeoutMillis: number): SyncRequest => ({
  connId: EXTENSION_CONN_ID,
  ...(position.pos === undefined ? {} : { pos: position.pos }),
  timeoutMillis,
  ...(config.sync.presence === undefined ? {} : { setPresence: config.sync.presence }),
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

/**
 * The loop's request. The first one after a grant or a failure is answered at once, so that a loop for which nothing comes
 * learns within one round trip that it is in sync, and not after a whole long poll.
 */
const requestOf = (config: Config, position: ExtensionPosition, answered: boolean): SyncRequest =>
  requestFrom(config, position, answered ? config.sync.pollTimeoutMillis : 0)

const takeLock = (attempt: number, epoch: number): PhaseStep => [
  { _tag: "WaitingForLock", attempt, epoch, refused: false },
  [{ _tag: "TakeLock" }]
]

const read = ({ fence, attempt, epoch, answered, hasty }: Going): PhaseStep => [
  { _tag: "Reading", fence, attempt, epoch, answered, hasty },
  [{ _tag: "ReadPosition" }]
]

const reload = (fence: Fence, attempt: number, epoch: number): PhaseStep => [
  { _tag: "Reloading", fence, attempt, epoch },
  [{ _tag: "Reload", fence }]
]

/** Sends what the end-to-end machine has queued before the next request, so that its effects are in the next response. */
const send = ({ fence, attempt, epoch, answered, hasty }: Going): PhaseStep => [
  { _tag: "Sending", fence, attempt, epoch, answered, hasty },
  [{ _tag: "SendOutgoing", fence }]
]

/** How a loop goes round that has not been answered since the grant or a failure. */
const unanswered = ({ fence, attempt, epoch }: Omit<Going, "answered" | "hasty">): Going => ({
  fence,
  attempt,
  epoch,
  answered: false,
  hasty: 0
})

/** What the machine was at when something failed. */
interface At {
  readonly fence: Fence | undefined
  readonly attempt: number
  readonly epoch: number
  readonly resume: Resume
}

const at = ({ fence, attempt, epoch }: Omit<At, "resume">, resume: Resume): At => ({ fence, attempt, epoch, resume })

const giveUp = (at: At, failure: Failure): PhaseStep => [
  { _tag: "Failed", failure },
  at.fence === undefined ? [] : [{ _tag: "DiscardMemory" }, { _tag: "ReleaseLock" }]
]

const backOff = (at: At, failure: Failure, nowMillis: number, delayMillis: number): PhaseStep => [
  { _tag: "BackingOff", ...at, failure, untilMillis: nowMillis + delayMillis },
  [{ _tag: "Wait", millis: delayMillis }]
]

/** The stream is somebody else's: lets go and waits for it, at once the first time, with backoff when it goes on like that. */
const stale = (at: At, input: Failed, delayMillis: number): PhaseStep => {
  const attempt = at.attempt + 1
  const [next, commands] =
    at.attempt === 0
      ? takeLock(attempt, at.epoch)
      : backOff({ ...at, fence: undefined, attempt, resume: "lock" }, input.failure, input.nowMillis, delayMillis)
  return [next, [{ _tag: "DiscardMemory" }, { _tag: "ReleaseLock" }, ...commands]]
}

const failed = (config: Config, at: At, input: Failed): PhaseStep => {
  const { failure } = input
  const decision = SupervisionPolicy.decide(config.sync, failure, at.attempt, input.random)
  const attempt = at.attempt + 1
  if (decision._tag === "GiveUp") return giveUp(at, failure)
  const { fence, epoch } = at
  if (failure.class === "stale" && fence !== undefined) return stale(at, input, decision.delayMillis)
  // Only a poll can find the position expired; after anything else memory comes first.
  if (decision._tag === "Restart" && fence !== undefined && at.resume === "read") {
    return [
      { _tag: "Expiring", fence, attempt, epoch, delayMillis: decision.delayMillis, failure },
      [{ _tag: "ExpirePosition", fence }]
    ]
  }
  return backOff({ ...at, attempt }, failure, input.nowMillis, decision.delayMillis)
}

/** A commit that failed leaves memory void: nothing half-applied survives (invariants I2, I5). */
const applyFailed = (
  config: Config,
  state: Extract<Phase, { _tag: "Applying" | "Sending" }>,
  input: Failed
): PhaseStep => {
  const [next, commands] = failed(config, at(state, "reload"), input)
  const discards = commands.some((command) => command._tag === "DiscardMemory")
  return discards ? [next, commands] : [next, [{ _tag: "DiscardMemory" }, ...commands]]
}

const lockLost = (
  state: Extract<Phase, { fence: unknown }>,
  input: Extract<Input, { _tag: "LockLost" }>
): PhaseStep => {
  if (state.fence?.generation !== input.generation) return [state, []]
  const [next, commands] = takeLock(0, state.epoch)
  return [next, [{ _tag: "AbortWork" }, { _tag: "DiscardMemory" }, { _tag: "ReleaseLock" }, ...commands]]
}

const resumed = (state: Extract<Phase, { _tag: "BackingOff" }>): PhaseStep => {
  const { fence, attempt, epoch } = state
  if (fence === undefined || state.resume === "lock") return takeLock(attempt, epoch)
  return state.resume === "reload" ? reload(fence, attempt, epoch) : read(unanswered({ fence, attempt, epoch }))
}

const granted = (input: Extract<Input, { _tag: "LockGranted" }>, attempt: number, epoch: number): PhaseStep => {
  const { fence, isDirty } = input
  const [next, commands] = isDirty ? reload(fence, attempt, epoch) : read(unanswered({ fence, attempt, epoch }))
  return [next, [{ _tag: "WatchLock" }, ...commands]]
}

const waitingForLock = (config: Config, state: Extract<Phase, { _tag: "WaitingForLock" }>, input: Input): PhaseStep => {
  const { attempt, epoch } = state
  switch (input._tag) {
    case "LockGranted":
      return granted(input, attempt, epoch)
    case "LockRefused":
      return [{ ...state, refused: true }, []]
    case "LockFailed":
      return failed(config, { fence: undefined, attempt, epoch, resume: "lock" }, input)
    default:
      return [state, []]
  }
}

const reloading = (config: Config, state: Extract<Phase, { _tag: "Reloading" }>, input: Input): PhaseStep => {
  switch (input._tag) {
    case "Reloaded":
      // What an owner before us left unsent goes out first.
      return send(unanswered(state))
    case "ReloadFailed":
      return failed(config, at(state, "reload"), input)
    default:
      return [state, []]
  }
}

const reading = (config: Config, state: Extract<Phase, { _tag: "Reading" }>, input: Input): PhaseStep => {
  const { fence, attempt, answered, hasty } = state
  switch (input._tag) {
    case "PositionRead": {
      const epoch = state.epoch + 1
      return [
        { _tag: "Polling", fence, attempt, epoch, answered, hasty, position: input.position },
        [{ _tag: "Poll", epoch, request: requestOf(config, input.position, answered) }]
      ]
    }
    case "ReadFailed":
      return failed(config, at(state, "read"), input)
    default:
      return [state, []]
  }
}

/** Whether a response brought nothing for the end-to-end machine or the inbox. What can't be understood is nothing. */
const isEmpty = ({ extensions: { e2ee, toDevice } }: SyncResponse): boolean =>
  (toDevice?.events.length ?? 0) + (e2ee?.deviceLists?.changed.length ?? 0) + (e2ee?.deviceLists?.left.length ?? 0) ===
  0

const polled = (
  config: Config,
  state: Extract<Phase, { _tag: "Polling" }>,
  input: Extract<Input, { _tag: "Polled" }>
): PhaseStep => {
  const { fence, attempt, epoch, answered, position } = state
  const { response, tookMillis } = input
  const { timeoutMillis } = requestOf(config, position, answered)
  const hasty = SupervisionPolicy.hasty(state.hasty, { timeoutMillis, tookMillis, isEmpty: isEmpty(response) })
  return [
    { _tag: "Applying", fence, attempt, epoch, answered, hasty },
    [{ _tag: "Apply", fence, sent: position, response }]
  ]
}

/** Reads again, at once or after a rest. */
const sent = (
  config: Config,
  state: Extract<Phase, { _tag: "Sending" }>,
  input: Extract<Input, { _tag: "Sent" }>
): PhaseStep => {
  const millis = SupervisionPolicy.restMillis(config.sync, state.hasty, input.random)
  if (millis === undefined) return read(state)
  const failure = SupervisionPolicy.hastyFailure
  return [{ ...state, _tag: "Resting", failure, untilMillis: input.nowMillis + millis }, [{ _tag: "Wait", millis }]]
}

const polling = (config: Config, state: Extract<Phase, { _tag: "Polling" }>, input: Input): PhaseStep => {
  switch (input._tag) {
    case "Polled":
      return input.epoch === state.epoch ? polled(config, state, input) : [state, []]
    case "PollFailed":
      return input.epoch === state.epoch ? failed(config, at(state, "read"), input) : [state, []]
    default:
      return [state, []]
  }
}

const expiring = (config: Config, state: Extract<Phase, { _tag: "Expiring" }>, input: Input): PhaseStep => {
  const { failure } = state
  switch (input._tag) {
    case "Expired":
      return state.delayMillis === 0
        ? read(unanswered(state))
        : backOff(at(state, "read"), failure, input.nowMillis, state.delayMillis)
    case "ExpireFailed":
      return failed(config, at(state, "read"), input)
    default:
      return [state, []]
  }
}

/** What follows from an input, whether anybody else wants the lock or not. */
const advance = (config: Config, state: Phase, input: Input): PhaseStep => {
  if (input._tag === "LockLost" && "fence" in state) return lockLost(state, input)
  switch (state._tag) {
    case "Idle":
    case "Failed":
      return input._tag === "Start" ? takeLock(0, 0) : [state, []]
    case "WaitingForLock":
      return waitingForLock(config, state, input)
    case "Reloading":
      return reloading(config, state, input)
    case "Reading":
      return reading(config, state, input)
    case "Polling":
      return polling(config, state, input)
    case "Applying":
      if (input._tag === "Applied") return send({ ...state, attempt: 0, answered: true })
      return input._tag === "ApplyFailed" ? applyFailed(config, state, input) : [state, []]
    case "Sending":
      if (input._tag === "Sent") return sent(config, state, input)
      return input._tag === "ApplyFailed" ? applyFailed(config, state, input) : [state, []]
    case "Expiring":
      return expiring(config, state, input)
    case "BackingOff":
      return input._tag === "BackoffElapsed" || input._tag === "Retry" ? resumed(state) : [state, []]
    case "Resting":
      return input._tag === "BackoffElapsed" || input._tag === "Retry" ? read(state) : [state, []]
  }
}

const fenceOf = (phase: Phase): Fence | undefined => ("fence" in phase ? phase.fence : undefined)

/** What is known of the lock after a step: anew with each grant, nothing without one. */
const holdAfter = (config: Config, hold: Hold | undefined, next: Phase, input: Input): Hold | undefined => {
  if (fenceOf(next) === undefined) return undefined
  return input._tag === "LockGranted"
    ? { keepUntilMillis: input.nowMillis + config.sync.yieldAfterMillis, wanted: false }
    : hold
}

/**
 * Whether the lock can be let go between two phases: nothing is being committed, dropped, loaded or sent. What crypto wants
 * sent after a commit is left to the next owner, who begins with it.
 */
const isBetween = (before: Phase, after: Phase): boolean => {
  switch (after._tag) {
    case "Reading":
    case "Polling":
    case "Resting":
    case "BackingOff":
      return true
    case "Sending":
      return before._tag === "Applying"
    default:
      return false
  }
}

/** Commands that clean up; what is left of a step when the work that it begins is not to be done. */
const isCleaning = ({ _tag }: Command): boolean => _tag === "DiscardMemory" || _tag === "WatchLock"

/** Lets the lock go if somebody else needs it and nothing is in the way of that, and queues for it again. */
const yieldIfWanted = (before: Phase, [next, commands]: Step): Step => {
  if (next.hold?.wanted !== true || !("fence" in next) || !isBetween(before, next)) return [next, commands]
  const [waiting, taking] = takeLock(next.attempt, next.epoch)
  // Memory stays as it is: the next grant says whether it is still valid (invariant I5).
  return [waiting, [{ _tag: "AbortWork" }, ...commands.filter(isCleaning), { _tag: "ReleaseLock" }, ...taking]]
}

const lockWanted = (config: Config, state: State, input: Extract<Input, { _tag: "LockWanted" }>): Step => {
  const { hold } = state
  const { generation, nowMillis } = input
  if (hold === undefined || hold.wanted || fenceOf(state)?.generation !== generation) return [state, []]
  const millis = hold.keepUntilMillis - nowMillis
  // Farther away than it can be is a clock that was set back.
  if (millis > 0 && millis <= config.sync.yieldAfterMillis) return [state, [{ _tag: "WantLater", generation, millis }]]
  return yieldIfWanted(state, [{ ...state, hold: { ...hold, wanted: true } }, []])
}

/** What follows from an input. Inputs that don't belong to the state are late answers and change nothing. */
export const step = (config: Config, state: State, input: Input): Step => {
  if (input._tag === "LockWanted") return lockWanted(config, state, input)
  const [next, commands] = advance(config, state, input)
  if (next === state) return [state, commands]
  const hold = holdAfter(config, state.hold, next, input)
  return yieldIfWanted(state, [hold === undefined ? next : { ...next, hold }, commands])
}
