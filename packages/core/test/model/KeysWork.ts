/**
 * What becomes of the fibers of a process that a push has started (`Notifications.ts`): the one that tries the lease and uses
 * it, the one that follows another owner, and the one that decrypts.
 *
 * Gotchas: the machine is loaded while the homeserver is asked, whichever is done first. The lease of an owner may be seen to
 * end at any moment, since the time at which it was to end may have been an old one.
 *
 * Not here: what follows from what they tell (`Notification.ts`).
 */
import * as LeaseMachine from "../../src/lease/LeaseMachine.ts"
import * as ExtensionLoopMachine from "../../src/sync/ExtensionLoopMachine.ts"
import type * as NotificationKeysMachine from "../../src/notification/NotificationKeysMachine.ts"
import type { ErrorClass } from "../../src/sync/SupervisionPolicy.ts"
import * as Leases from "./Leases.ts"
import {
  config,
  type Grant,
  type KeysWork,
  NOW,
  notificationAt,
  type NotificationInput,
  spend,
  type System,
  withProcess,
  withWorld
} from "./System.ts"
import * as Turns from "./Turns.ts"
import type { At } from "./Turns.ts"
import * as World from "./World.ts"
import type { Move } from "./World.ts"

type Command = Extract<
  NotificationKeysMachine.Command,
  { _tag: "TryLease" | "Iterate" | "SendOutgoing" | "ExpirePosition" | "WaitForLease" | "WaitForKeys" }
>
type Iterating = Extract<KeysWork, { _tag: "Iterating" }>

export const tell = (system: System, index: number, input: NotificationInput): System =>
  withProcess(system, index, { mailbox: [...notificationAt(system, index).mailbox, input] })

/** Work is done: its result is in the mailbox. */
const finish = (system: System, index: number, input: NotificationInput): System =>
  tell(withProcess(system, index, { work: null }), index, input)

const sent: NotificationInput = { _tag: "Sent", random: 0 }

/** Begins what takes time. */
export const begin = (at: At, system: System, command: Command): System => {
  const { index } = at
  const working = (work: KeysWork): System => withProcess(system, index, { work })
  switch (command._tag) {
    case "TryLease":
      return withProcess(working({ _tag: "Trying", dead: command.presumedDead }), index, { asked: false })
    case "Iterate": {
      const { timeoutMillis } = command
      return working({ _tag: "Iterating", stage: "begun", timeoutMillis, sent: null, response: null })
    }
    case "SendOutgoing": {
      const { grant, turns } = notificationAt(system, index)
      // What can't be sent stays queued for the next owner.
      if (turns === null || grant === null) return finish(system, index, sent)
      const looked = Turns.end(Turns.begin(system, index), index, grant.fence)
      const isWanting = notificationAt(looked, index).memory?.outgoing === true
      return isWanting ? withProcess(looked, index, { work: { _tag: "SendingOutgoing" } }) : finish(looked, index, sent)
    }
    case "ExpirePosition":
      return working({ _tag: "Dropping" })
    case "WaitForLease":
      return working({ _tag: "AwaitingLease", follows: false, expects: false })
    case "WaitForKeys":
      return working({ _tag: "Resting" })
  }
}

/** Ends what runs under the grant; a turn that is cut short is void. */
export const abort = (at: At, system: System): System => {
  const { work } = notificationAt(system, at.index)
  const without = withProcess(system, at.index, { work: null })
  const isTurn = work?._tag === "Iterating" && (work.stage === "applying" || work.stage === "committed")
  return isTurn ? Turns.voided(at, without) : without
}

/** Steps of one process, in words that begin with its name. */
const steps = (system: System, index: number) => {
  const { name } = notificationAt(system, index)
  const isSpoilt = system.world.budget.faults > 0
  const moves: Array<Move> = []
  return {
    moves,
    push: (words: string, next: System, isFault = false): void =>
      void moves.push({ words: `${name} ${words}`, isFault, next }),
    fault: (words: string, make: (from: System) => System): void => {
      if (isSpoilt) moves.push({ words: `${name} ${words}`, isFault: true, next: make(spend(system, "faults")) })
    }
  }
}

const tryingMoves = (at: At, system: System, dead: ReadonlyArray<string>, end: End): ReadonlyArray<Move> => {
  const { index, rules } = at
  const { fault, moves, push } = steps(system, index)
  const [asking] = LeaseMachine.start(true, false, dead)
  const { outcome, taken } = Leases.take(at, system, dead)
  const [state] = rules.leaseStep(config, asking, { _tag: "TakeAnswered", outcome, nowMillis: NOW })
  const answered = (): System => {
    if (state._tag === "Held") return tell(Leases.hold(at, taken, state).held, index, { _tag: "LeaseTaken" })
    if (state._tag !== "Refused") throw new Error(`a lease that is tried once is ${state._tag}`)
    const { blocker } = state
    return finish(withProcess(taken, index, { asked: false }), index, { _tag: "LeaseBusy", blocker })
  }
  const said = outcome._tag.toLowerCase()
  push(`tries the lease: ${said}`, answered())
  push(`tries the lease (${said}), and its time is over before it hears of it`, end(taken), true)
  const fails = (from: System, one: ErrorClass): System =>
    finish(Leases.leave(at, from), index, { _tag: "LeaseFailed", ...Turns.failed(one) })
  fault("can't try the lease just then", (from) => fails(from, "store"))
  fault("can't try the lease at all", (from) => fails(from, "storeTerminal"))
  fault(`tries the lease (${said}) and never hears of it`, (from) =>
    fails(withWorld(from, { table: taken.world.table }), "store")
  )
  return moves
}

/** Once the homeserver has answered and the machine is loaded, the answer is applied in memory. */
const joined = (at: At, system: System, work: Iterating): System => {
  const { index } = at
  const next = withProcess(system, index, { work })
  const { grant, turns } = notificationAt(next, index)
  if (work.response === null || turns?.loaded !== true || grant === null) return next
  const early = at.rules.releasesEarly ? Leases.release(at, next, grant.fence) : next
  return Turns.touch(Turns.begin(withProcess(early, index, { work: { ...work, stage: "applying" } }), index), index)
}

/** The request and the loading of the machine, of which one may be done. */
const askingMoves = (at: At, system: System, grant: Grant, work: Iterating): ReadonlyArray<Move> => {
  const { index, rules } = at
  const { turns } = notificationAt(system, index)
  const { fault, moves, push } = steps(system, index)
  const fails = (from: System, one: ErrorClass): System =>
    finish(from, index, { _tag: "IterateFailed", ...Turns.failed(one) })
  if (turns === null) push("can't load the end-to-end machine under another's lease", fails(system, "stale"))
  else if (!turns.loaded) {
    const loaded = Turns.end(Turns.begin(system, index), index, grant.fence)
    push("loads the end-to-end machine", joined(at, loaded, work))
    fault("can't load the end-to-end machine", (from) => fails(Turns.failedBy(at, from, "store"), "store"))
  }
  if (work.response !== null || work.sent === null) return moves
  const request = ExtensionLoopMachine.requestFrom({ sync: config }, work.sent, work.timeoutMillis)
  const { next, response } = World.answer(rules, system, request)
  push("is answered by the homeserver", joined(at, next, { ...work, response }))
  fault("can't reach the homeserver", (from) => fails(from, "network"))
  fault("reaches the homeserver and never hears of it", (from) => {
    return fails(World.answer(rules, from, request).next, "network")
  })
  fault("is told that its position has expired", (from) => fails(from, "expired"))
  fault("has lost its login", (from) => fails(from, "auth"))
  return moves
}

const iteratingMoves = (at: At, system: System, grant: Grant, work: Iterating): ReadonlyArray<Move> => {
  const { index, rules } = at
  const { name } = notificationAt(system, index)
  const { fault, moves, push } = steps(system, index)
  const { response, sent, stage, timeoutMillis } = work
  const { fence } = grant
  const fails = (from: System, one: ErrorClass): System =>
    finish(from, index, { _tag: "IterateFailed", ...Turns.failed(one) })
  switch (stage) {
    case "begun":
      push("reads the position", joined(at, system, { ...work, stage: "asking", sent: system.world.position }))
      fault("can't read the position", (from) => fails(from, "store"))
      return moves
    case "asking":
      return askingMoves(at, system, grant, work)
    case "applying": {
      if (response === null || sent === null) throw new Error("what isn't there is applied")
      return World.commitMoves(
        system,
        `${name} commits the batch`,
        (from) => World.commitExtension(rules, from, index, fence, sent.since, response),
        (done) => withProcess(done, index, { work: { ...work, stage: "committed" } }),
        (from, one) => fails(Turns.failedBy(at, from, one), one)
      )
    }
    case "committed": {
      const isEmpty = response?.extensions.toDevice?.events.length === 0
      const iterated: NotificationInput = {
        _tag: "Iterated",
        tookMillis: timeoutMillis,
        heldMillis: timeoutMillis,
        isEmpty
      }
      push("confirms the commit", finish(Turns.end(system, index, fence), index, iterated))
      return moves
    }
  }
}

const sendingMoves = (at: At, system: System, { fence }: Grant): ReadonlyArray<Move> => {
  const { index, rules } = at
  const { name } = notificationAt(system, index)
  const { fault, moves } = steps(system, index)
  fault("sends a request, which isn't taken", (from) => finish(from, index, sent))
  const commits = World.commitMoves(
    system,
    `${name} sends a request and commits its answer`,
    (from) => World.commitCrypto(rules, Turns.touch(Turns.begin(from, index), index), index, fence),
    (done) => finish(Turns.end(done, index, fence), index, sent),
    (from, one) => finish(Turns.failedBy(at, from, one), index, sent)
  )
  return [...moves, ...commits]
}

const droppingMoves = ({ index, rules }: At, system: System, { fence }: Grant): ReadonlyArray<Move> => {
  const { fault, moves, push } = steps(system, index)
  const { pos: _, ...position } = system.world.position
  const fails = (from: System, one: ErrorClass): System =>
    finish(from, index, { _tag: "IterateFailed", ...Turns.failed(one) })
  const stands = rules.stands(system.world.table, fence)
  if (stands) push("drops its position", finish(withWorld(system, { position }), index, { _tag: "Expired" }))
  else push("drops its position: refused, stale", fails(system, "stale"))
  fault("can't drop its position", (from) => fails(from, "store"))
  if (stands) fault("drops its position and never hears of it", (from) => fails(withWorld(from, { position }), "store"))
  return moves
}

/** A wait for the lease, in which keys that others commit are heard of. */
const awaitingMoves = (
  { index, rules }: At,
  system: System,
  { expects, follows }: Extract<KeysWork, { _tag: "AwaitingLease" }>
): ReadonlyArray<Move> => {
  const { wants } = notificationAt(system, index)
  const { moves, push } = steps(system, index)
  const isThere = system.world.inbox.length >= wants
  const following = withProcess(system, index, {
    work: { _tag: "AwaitingLease", follows: true, expects: !isThere }
  })
  const told = tell(following, index, { _tag: "KeysCommitted" })
  if (!follows) push("follows what others commit", rules.triesWhenWatched ? told : following)
  else if (expects && isThere) push("hears that its key was committed", told)
  push("has waited for the lease", finish(system, index, { _tag: "KeysWaited" }))
  return moves
}

/** What can become of the work under a grant, or on the way to one. */
const workMoves = (at: At, system: System, end: End): ReadonlyArray<Move> => {
  const { index } = at
  const { grant, work } = notificationAt(system, index)
  if (work === null) return []
  const { moves, push } = steps(system, index)
  if (work._tag === "Trying") return tryingMoves(at, system, work.dead, end)
  if (work._tag === "Resting") {
    push("has waited", finish(system, index, { _tag: "KeysWaited" }))
    return moves
  }
  if (work._tag === "AwaitingLease") return awaitingMoves(at, system, work)
  if (grant === null) throw new Error(`${work._tag} without a grant`)
  switch (work._tag) {
    case "Iterating":
      return iteratingMoves(at, system, grant, work)
    case "SendingOutgoing":
      return sendingMoves(at, system, grant)
    case "Dropping":
      return droppingMoves(at, system, grant)
  }
}

/** What the fiber hears that follows an owner. */
const followingMoves = (system: System, index: number): ReadonlyArray<Move> => {
  const { owner, wants } = notificationAt(system, index)
  if (owner === null) return []
  const { fault, moves, push } = steps(system, index)
  const { holder } = owner
  const isThere = system.world.inbox.length >= wants
  if (!owner.inForce) {
    const watched = withProcess(system, index, { owner: { holder, inForce: true, expects: !isThere } })
    push(`watches ${holder}`, tell(watched, index, { _tag: "OwnerWatched" }))
  } else {
    if (owner.expects && isThere) {
      const heard = withProcess(system, index, { owner: { ...owner, expects: false } })
      push("hears that its key was committed", tell(heard, index, { _tag: "KeysCommitted" }))
    }
    const unwatched = withProcess(system, index, { owner: null })
    push(`sees the lease of ${holder} end`, tell(unwatched, index, { _tag: "OwnerGone", random: 0 }))
    if (Leases.livingAs(system, holder) < 0)
      push(`sees that ${holder} is dead`, tell(unwatched, index, { _tag: "OwnerGone", dead: holder, random: 0 }))
  }
  fault(`can watch ${holder} no longer`, (from) => {
    return tell(withProcess(from, index, { owner: null }), index, { _tag: "WatchFailed", ...Turns.failed("store") })
  })
  return moves
}

const decryptingMoves = (system: System, index: number): ReadonlyArray<Move> => {
  const { decrypts, wants } = notificationAt(system, index)
  if (!decrypts) return []
  const { moves, push } = steps(system, index)
  const isFound = system.world.inbox.length >= wants
  const read = withProcess(system, index, { decrypts: false })
  push(
    isFound ? "can decrypt its event" : "has no key for its event",
    tell(read, index, { _tag: "DecryptAnswered", isFound })
  )
  return moves
}

/** What ends the process. */
type End = (system: System) => System

/** What its fibers can do next. */
export const moves = (at: At, system: System, end: End): ReadonlyArray<Move> => [
  ...workMoves(at, system, end),
  ...followingMoves(system, at.index),
  ...decryptingMoves(system, at.index)
]
