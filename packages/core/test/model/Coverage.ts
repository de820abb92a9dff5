/**
 * Says which inputs and commands of the machines a visit of all states has met: a model in which some never occur proves
 * nothing about them.
 */
import type * as LeaseMachine from "../../src/lease/LeaseMachine.ts"
import type * as NotificationKeysMachine from "../../src/notification/NotificationKeysMachine.ts"
import type * as ExtensionLoopMachine from "../../src/sync/ExtensionLoopMachine.ts"
import type { Rules } from "./Rules.ts"

const loopInputs: Record<ExtensionLoopMachine.Input["_tag"], true> = {
  Start: true,
  LockGranted: true,
  LockRefused: true,
  LockFailed: true,
  LockLost: true,
  LockWanted: true,
  Reloaded: true,
  ReloadFailed: true,
  PositionRead: true,
  ReadFailed: true,
  Polled: true,
  PollFailed: true,
  Applied: true,
  ApplyFailed: true,
  Sent: true,
  Expired: true,
  ExpireFailed: true,
  BackoffElapsed: true,
  Retry: true
}

const loopCommands: Record<ExtensionLoopMachine.Command["_tag"], true> = {
  TakeLock: true,
  WatchLock: true,
  WantLater: true,
  ReleaseLock: true,
  Reload: true,
  ReadPosition: true,
  Poll: true,
  AbortWork: true,
  Apply: true,
  SendOutgoing: true,
  DiscardMemory: true,
  ExpirePosition: true,
  Wait: true
}

const loopStates: Record<ExtensionLoopMachine.State["_tag"], true> = {
  Idle: true,
  WaitingForLock: true,
  Reloading: true,
  Reading: true,
  Polling: true,
  Applying: true,
  Sending: true,
  Expiring: true,
  BackingOff: true,
  Resting: true,
  Failed: true
}

const leaseInputs: Record<LeaseMachine.Input["_tag"], true> = {
  TakeAnswered: true,
  TakeFailed: true,
  Woken: true,
  RenewAnswered: true,
  RenewFailed: true,
  Asked: true
}

const leaseCommands: Record<LeaseMachine.Command["_tag"], true> = {
  Take: true,
  Watch: true,
  Ask: true,
  Await: true,
  RenewAfter: true
}

const leaseStates: Record<LeaseMachine.State["_tag"], true> = {
  Asking: true,
  Waiting: true,
  Held: true,
  Refused: true,
  Lost: true
}

const keysInputs: Record<NotificationKeysMachine.Input["_tag"], true> = {
  LeaseTaken: true,
  LeaseBusy: true,
  LeaseFailed: true,
  LeaseLost: true,
  LeaseWanted: true,
  Iterated: true,
  IterateFailed: true,
  Sent: true,
  Expired: true,
  KeysWaited: true,
  OwnerWatched: true,
  OwnerGone: true,
  WatchFailed: true
}

const keysCommands: Record<NotificationKeysMachine.Command["_tag"], true> = {
  TryLease: true,
  WatchGrant: true,
  Iterate: true,
  SendOutgoing: true,
  ExpirePosition: true,
  ReleaseLease: true,
  WatchOwner: true,
  UnwatchOwner: true,
  WaitForLease: true,
  StopWaiting: true,
  WaitForKeys: true
}

const keysStates: Record<NotificationKeysMachine.State["_tag"], true> = {
  Idle: true,
  Trying: true,
  Iterating: true,
  Sending: true,
  Expiring: true,
  Resting: true,
  Waiting: true,
  Watching: true,
  Checking: true,
  GivenUp: true
}

const named = (what: string, tags: Record<string, true>): ReadonlyArray<string> =>
  Object.keys(tags).map((tag) => `${what} ${tag}`)

/** What a visit meets when bounds are large enough; an input counts when it changes something. */
export const expectedOf = ({ notifications }: { readonly notifications: number }): ReadonlyArray<string> => [
  ...named("loop state", loopStates),
  ...named("loop input", loopInputs),
  ...named("loop command", loopCommands),
  ...named("lease state", leaseStates),
  ...named("lease input", leaseInputs),
  ...named("lease command", leaseCommands),
  ...(notifications === 0
    ? []
    : [...named("keys state", keysStates), ...named("keys input", keysInputs), ...named("keys command", keysCommands)])
]

/** Rules that note in `seen` what they meet. */
export const recording = (rules: Rules, seen: Set<string>): Rules => {
  const note = <State extends { readonly _tag: string }>(
    machine: string,
    before: State,
    input: { readonly _tag: string },
    [after, commands]: readonly [State, ReadonlyArray<{ readonly _tag: string }>]
  ): void => {
    seen.add(`${machine} state ${before._tag}`).add(`${machine} state ${after._tag}`)
    if (after !== before || commands.length > 0) seen.add(`${machine} input ${input._tag}`)
    for (const command of commands) seen.add(`${machine} command ${command._tag}`)
  }
  return {
    ...rules,
    leaseStep: (config, state, input) => {
      const step = rules.leaseStep(config, state, input)
      note("lease", state, input, step)
      return step
    },
    loopStep: (config, state, input) => {
      const step = rules.loopStep(config, state, input)
      note("loop", state, input, step)
      return step
    },
    keysStep: (config, state, input, need) => {
      const step = rules.keysStep(config, state, input, need)
      note("keys", state, input, step)
      return step
    },
    keysConsider: (config, state, need, random) => {
      const step = rules.keysConsider(config, state, need, random)
      note("keys", state, { _tag: "Considered" }, step)
      return step
    }
  }
}

/** What was expected and not met. */
export const missing = (seen: ReadonlySet<string>, bounds: { readonly notifications: number }): ReadonlyArray<string> =>
  expectedOf(bounds).filter((one) => !seen.has(one))
