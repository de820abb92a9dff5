/**
 * Decides how a notification comes by a room key that isn't there: own the extension stream for a moment, or wait for what
 * its owner commits.
 *
 * Pure: `step(config, state, input, need)`. It is a part of `NotificationMachine`, which says what is needed.
 *
 * Invariants: I1 (every iteration runs under the grant, and a lost grant ends it), I3 (never queues for the lease, so it
 * holds up nobody: the lease is tried, again only when its owner has let go or gone), I9 (what fails is tried again with
 * backoff), I10 (every wait ends with the deadline).
 *
 * Gotchas: who owns the stream makes two iterations at least, whether or not the first brings the key: the second one
 * acknowledges what the first has stored, and brings the effects of what was sent after it. A process that needs the stream
 * soon is yielded to after the iteration that is being made, or at once when that only waits for something new, and then
 * watched like any other owner. While it waits to try the lease again, others may have the stream, and what they commit
 * is followed.
 *
 * Not here: which events wait for keys (`NotificationEventMachine.ts`), the fenced commit (`ExtensionLoopMachine.ts` describes the
 * same loop in the long run).
 */
import type { Blocker } from "../lease/Lease.ts"
import { DEAD_KEPT } from "../lease/LeaseMachine.ts"
import * as SupervisionPolicy from "../sync/SupervisionPolicy.ts"
import type { SyncConfigShape } from "../sync/SyncConfig.ts"

type Failure = SupervisionPolicy.Failure
type Failed = SupervisionPolicy.Failed

/** Iterations that are made under a grant at least. */
export const ITERATIONS = 2

/** How often in a row the lease may be tried at once because its owner seems to be gone; then with backoff. */
const PROMPT_TRIES = 3

/** What stays true while the stream is ours. */
interface Owning {
  /** Iterations that were applied. */
  readonly iterations: number
  /** Failures in a row. */
  readonly attempt: number
  /** Long polls in a row that were answered at once with nothing. */
  readonly hasty: number
  /** Another process needs the stream soon. */
  readonly isWanted: boolean
}

/** What stays true while the stream isn't ours and a key is missing. */
interface Seeking {
  /** Tries of the lease, or watches of an owner, in a row that came to nothing. */
  readonly attempt: number
  /** Holders and waiters that were seen to be dead since the lease was last ours: nobody waits for them again. */
  readonly dead: ReadonlyArray<string>
}

export type State =
  | { readonly _tag: "Idle" }
  /** The lease is being tried. */
  | ({ readonly _tag: "Trying" } & Seeking)
  /** A request is on its way, or its response is being applied. `holds`: the homeserver may wait before it answers. */
  | ({ readonly _tag: "Iterating"; readonly holds: boolean } & Owning)
  /** The response is applied: what the end-to-end machine wants sent is being sent, and events are tried again. */
  | ({ readonly _tag: "Sending"; readonly isSent: boolean } & Owning)
  /** The connection's position is being dropped. */
  | ({ readonly _tag: "Expiring" } & Owning)
  /** Waits to try an iteration again. */
  | ({ readonly _tag: "Resting" } & Owning)
  /** Waits to try the lease again. */
  | ({ readonly _tag: "Waiting" } & Seeking)
  /** The stream is another's, whose commits are watched. `isSure`: it was still his when the watch was in force. */
  | ({ readonly _tag: "Watching"; readonly blocker: Blocker; readonly isSure: boolean } & Seeking)
  /**
   * The watch is in force, and the lease is tried once more: an owner that let go before it was not heard. `gone`: he was heard
   * to go meanwhile, maybe after the try.
   */
  | ({ readonly _tag: "Checking"; readonly blocker: Blocker; readonly gone?: Gone } & Seeking)
  /** Nothing that can be done brings a key. */
  | { readonly _tag: "GivenUp"; readonly failure: Failure }

/** How an owner has gone; with `dead`, for certain. */
interface Gone {
  readonly dead?: string
  readonly random: number
}

export type Input =
  | { readonly _tag: "LeaseTaken" }
  | { readonly _tag: "LeaseBusy"; readonly blocker: Blocker }
  | ({ readonly _tag: "LeaseFailed" } & Failed)
  /** The grant is gone. */
  | { readonly _tag: "LeaseLost" }
  | { readonly _tag: "LeaseWanted" }
  /** A response was applied: `isEmpty` if it brought nothing. `heldMillis`: how long the homeserver might have held it. */
  | {
      readonly _tag: "Iterated"
      readonly tookMillis: number
      readonly heldMillis: number
      readonly isEmpty: boolean
    }
  | ({ readonly _tag: "IterateFailed" } & Failed)
  | { readonly _tag: "Sent"; readonly random: number }
  | { readonly _tag: "Expired" }
  /** A wait is over, be it for the lease or for another iteration. */
  | { readonly _tag: "KeysWaited" }
  /** The owner of the stream is being watched, so that from here on none of its keys is missed, nor its end. */
  | { readonly _tag: "OwnerWatched" }
  /** The owner has let go, or its lease is over; with `dead`, it is gone for certain. */
  | ({ readonly _tag: "OwnerGone" } & Gone)
  /** The owner is watched no longer, because the store can't be read. */
  | ({ readonly _tag: "WatchFailed" } & Failed)

export type Command =
  | { readonly _tag: "TryLease"; readonly presumedDead: ReadonlyArray<string> }
  /**
   * Tell when the grant is lost and when it is wanted, also if it is already. Not before the grant is known here, to be
   * understood.
   */
  | { readonly _tag: "WatchGrant" }
  /** Ask and apply, under the grant; the homeserver may hold the request for this long. */
  | { readonly _tag: "Iterate"; readonly timeoutMillis: number }
  | { readonly _tag: "SendOutgoing" }
  | { readonly _tag: "ExpirePosition" }
  /** End what runs under the grant, and give it back. */
  | { readonly _tag: "ReleaseLease" }
  /** Tell of what this owner commits, and of its end, instead of another's. */
  | { readonly _tag: "WatchOwner"; readonly blocker: Blocker }
  | { readonly _tag: "UnwatchOwner" }
  /** Wait to try the lease again, and tell meanwhile of what others commit, who may have the stream. */
  | { readonly _tag: "WaitForLease"; readonly millis: number }
  /** Nothing is waited for any more. */
  | { readonly _tag: "StopWaiting" }
  /** Wait to make another iteration. */
  | { readonly _tag: "WaitForKeys"; readonly millis: number }

export type Step = readonly [State, ReadonlyArray<Command>]

/** What is needed at present. */
export interface Need {
  /** Events whose keys aren't there. */
  readonly awaiting: number
  /** Events that are being decrypted, which may come to wait. */
  readonly decrypting: number
  /** How long the deadline is away, in milliseconds. */
  readonly remainingMillis: number
}

export const initial: State = { _tag: "Idle" }

const unseen: Seeking = { attempt: 0, dead: [] }

const tryLease = ({ attempt, dead }: Seeking): Step => [
  { _tag: "Trying", attempt, dead },
  [{ _tag: "TryLease", presumedDead: dead }]
]

const iterate = (config: SyncConfigShape, owning: Owning, need: Need): Step => {
  // The first one is answered at once; the others wait for what is still missing.
  const waits = owning.iterations > 0 && need.awaiting > 0
  const timeoutMillis = waits ? Math.max(0, Math.min(config.pollTimeoutMillis, need.remainingMillis)) : 0
  const { attempt, hasty, isWanted, iterations } = owning
  const holds = timeoutMillis > 0
  return [{ _tag: "Iterating", holds, iterations, attempt, hasty, isWanted }, [{ _tag: "Iterate", timeoutMillis }]]
}

/** Gives the stream back; then waits for its next owner if a key is still missing. */
const release = (need: Need): Step => {
  const [next, commands] = need.awaiting > 0 ? tryLease(unseen) : [initial, []]
  return [next, [{ _tag: "ReleaseLease" }, ...commands]]
}

const giveUp = (failure: Failure, owns: boolean): Step => [
  { _tag: "GivenUp", failure },
  owns ? [{ _tag: "ReleaseLease" }] : []
]

const rest = (owning: Owning, millis: number): Step => {
  const { attempt, hasty, isWanted, iterations } = owning
  return [{ _tag: "Resting", iterations, attempt, hasty, isWanted }, [{ _tag: "WaitForKeys", millis }]]
}

const iterateFailed = (config: SyncConfigShape, state: Owning, input: Failed, need: Need): Step => {
  const { failure, random } = input
  const decision = SupervisionPolicy.decide(config, failure, state.attempt, random)
  if (decision._tag === "GiveUp") return giveUp(failure, true)
  if (failure.class === "stale") return release(need)
  const { hasty, isWanted, iterations } = state
  const failed = { iterations, hasty, isWanted, attempt: state.attempt + 1 }
  if (decision._tag === "Restart" && failure.class !== "moved")
    return [{ _tag: "Expiring", ...failed }, [{ _tag: "ExpirePosition" }]]
  return rest(failed, decision.delayMillis)
}

/** Goes on when what was applied has been made use of, and what follows from it has been sent. */
const goOn = (
  config: SyncConfigShape,
  state: Extract<State, { _tag: "Sending" }>,
  need: Need,
  random: number
): Step => {
  if (!state.isSent || need.decrypting > 0) return [state, []]
  if (state.isWanted) return release(need)
  if (need.awaiting === 0 && state.iterations >= ITERATIONS) return release(need)
  // The deadline is there: an iteration that can't wait would be followed by another one until it has passed.
  if (need.awaiting > 0 && need.remainingMillis <= 0) return rest(state, config.backoffMinMillis)
  const millis = SupervisionPolicy.restMillis(config, state.hasty, random)
  return millis === undefined ? iterate(config, state, need) : rest(state, millis)
}

const owned = (config: SyncConfigShape, state: Extract<State, Owning>, input: Input, need: Need): Step => {
  switch (input._tag) {
    case "LeaseLost":
      return release(need)
    case "LeaseWanted": {
      const wanted = { ...state, isWanted: true }
      // One that is answered at once ends first. One that waits for something new is let go: what comes reaches the next owner.
      const isIdle = state._tag === "Resting" || (state._tag === "Iterating" && state.holds)
      return isIdle ? release(need) : [wanted, []]
    }
    case "IterateFailed":
      return iterateFailed(config, state, input, need)
    default:
      break
  }
  switch (state._tag) {
    case "Iterating": {
      if (input._tag !== "Iterated") return [state, []]
      const answer = { timeoutMillis: input.heldMillis, tookMillis: input.tookMillis, isEmpty: input.isEmpty }
      const { isWanted, iterations } = state
      const hasty = SupervisionPolicy.hasty(state.hasty, answer)
      return [
        { _tag: "Sending", isSent: false, iterations: iterations + 1, attempt: 0, hasty, isWanted },
        [{ _tag: "SendOutgoing" }]
      ]
    }
    case "Sending":
      return input._tag === "Sent" ? goOn(config, { ...state, isSent: true }, need, input.random) : [state, []]
    case "Expiring":
      return input._tag === "Expired" ? iterate(config, state, need) : [state, []]
    case "Resting":
      return input._tag === "KeysWaited" ? iterate(config, state, need) : [state, []]
  }
}

const waitForLease = ({ attempt, dead }: Seeking, millis: number): Step => [
  { _tag: "Waiting", attempt: attempt + 1, dead },
  [{ _tag: "WaitForLease", millis }]
]

const leaseFailed = (config: SyncConfigShape, seeking: Seeking, { failure, random }: Failed): Step => {
  const decision = SupervisionPolicy.decide(config, failure, seeking.attempt, random)
  return decision._tag === "GiveUp" ? giveUp(failure, false) : waitForLease(seeking, decision.delayMillis)
}

/** What is known once somebody has gone. */
const knowing = ({ attempt, dead }: Seeking, gone: Gone | undefined): Seeking => ({
  attempt,
  dead: gone?.dead === undefined ? dead : [...dead, gone.dead].slice(-DEAD_KEPT)
})

const ownerGone = (config: SyncConfigShape, before: Seeking, gone: Gone): Step => {
  const seeking = knowing(before, gone)
  const { attempt } = seeking
  if (gone.dead !== undefined || attempt < PROMPT_TRIES) return tryLease({ ...seeking, attempt: attempt + 1 })
  return waitForLease(seeking, SupervisionPolicy.backoffMillis(config, attempt - PROMPT_TRIES, gone.random))
}

const watch = (blocker: Blocker, { attempt, dead }: Seeking): Step => [
  { _tag: "Watching", blocker, attempt, dead, isSure: false },
  [{ _tag: "WatchOwner", blocker }]
]

const watching = (config: SyncConfigShape, state: Extract<State, { _tag: "Watching" }>, input: Input): Step => {
  const { attempt, blocker, dead } = state
  switch (input._tag) {
    case "OwnerWatched":
      if (state.isSure) return [state, []]
      return [{ _tag: "Checking", blocker, attempt, dead }, [{ _tag: "TryLease", presumedDead: dead }]]
    case "OwnerGone":
      return ownerGone(config, state, input)
    case "WatchFailed":
      return leaseFailed(config, state, input)
    default:
      return [state, []]
  }
}

const own = (config: SyncConfigShape, need: Need): Step => {
  const [next, commands] = iterate(config, { iterations: 0, attempt: 0, hasty: 0, isWanted: false }, need)
  return [next, [{ _tag: "WatchGrant" }, ...commands]]
}

/** Whoever was watched is watched no longer. */
const unwatch = ([next, commands]: Step): Step => [next, [{ _tag: "UnwatchOwner" }, ...commands]]

const checked = (config: SyncConfigShape, state: Extract<State, { _tag: "Checking" }>, found: Blocker): Step => {
  const { attempt, blocker, dead, gone } = state
  if (found.holder !== blocker.holder) return watch(found, knowing(state, gone))
  return gone === undefined
    ? [{ _tag: "Watching", blocker, attempt, dead, isSure: true }, []]
    : ownerGone(config, state, gone)
}

const checking = (
  config: SyncConfigShape,
  state: Extract<State, { _tag: "Checking" }>,
  input: Input,
  need: Need
): Step => {
  switch (input._tag) {
    case "LeaseTaken":
      return unwatch(own(config, need))
    case "LeaseBusy":
      return checked(config, state, input.blocker)
    case "LeaseFailed":
      return unwatch(leaseFailed(config, knowing(state, state.gone), input))
    case "OwnerGone":
    case "WatchFailed":
      return [{ ...state, gone: input }, []]
    default:
      return [state, []]
  }
}

const trying = (config: SyncConfigShape, state: Extract<State, { _tag: "Trying" }>, input: Input, need: Need): Step => {
  switch (input._tag) {
    case "LeaseTaken":
      return own(config, need)
    case "LeaseBusy":
      return watch(input.blocker, state)
    case "LeaseFailed":
      return leaseFailed(config, state, input)
    default:
      return [state, []]
  }
}

/** What follows from an input. Inputs that don't belong to the state are late answers and change nothing. */
export const step = (config: SyncConfigShape, state: State, input: Input, need: Need): Step => {
  switch (state._tag) {
    case "Idle":
    case "GivenUp":
      return [state, []]
    case "Trying":
      return trying(config, state, input, need)
    case "Waiting":
      return input._tag === "KeysWaited" ? tryLease(state) : [state, []]
    case "Watching":
      return watching(config, state, input)
    case "Checking":
      return checking(config, state, input, need)
    default:
      return owned(config, state, input, need)
  }
}

/** What follows from what is needed, when nothing else has happened: begins, goes on, or ends what is needed no longer. */
export const consider = (config: SyncConfigShape, state: State, need: Need, random: number): Step => {
  const isNeeded = need.awaiting + need.decrypting > 0
  switch (state._tag) {
    case "Idle":
      return need.awaiting > 0 ? tryLease(unseen) : [state, []]
    case "Sending":
      return goOn(config, state, need, random)
    case "Iterating":
      // A poll that waits for what nobody needs: nothing that it might bring is lost by ending it.
      return isNeeded || state.iterations < ITERATIONS ? [state, []] : release(need)
    case "Resting":
      return isNeeded ? [state, []] : release(need)
    case "Waiting":
      return isNeeded ? [state, []] : [initial, [{ _tag: "StopWaiting" }]]
    case "Watching":
      return isNeeded ? [state, []] : [initial, [{ _tag: "UnwatchOwner" }]]
    default:
      return [state, []]
  }
}

/** Whether anything is going on that must end before the process may. */
export const isAtWork = (state: State): boolean => state._tag !== "Idle" && state._tag !== "GivenUp"
