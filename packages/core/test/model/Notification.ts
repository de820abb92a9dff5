/**
 * What a process of the model does that a push has started, as far as the extension stream is concerned
 * (`Notifications.ts`, under the rules of `NotificationKeysMachine`): it decrypts its event, and when the key isn't there it
 * owns the stream for a moment, or follows whoever owns it.
 *
 * Gotchas: how much time is left is not known here. The deadline may pass at any moment, and then the process ends.
 *
 * Not here: what becomes of work that takes time (`KeysWork.ts`), being killed and started (`Process.ts`), finding the event
 * and showing it (`NotificationMachine.ts`).
 */
import * as NotificationKeysMachine from "../../src/notification/NotificationKeysMachine.ts"
import * as KeysWork from "./KeysWork.ts"
import * as Leases from "./Leases.ts"
import {
  config,
  type Notification,
  notificationAt,
  NOW,
  type NotificationInput,
  spend,
  type System,
  withProcess
} from "./System.ts"
import type { At } from "./Turns.ts"
import type { Move } from "./World.ts"

type Command = NotificationKeysMachine.Command
type Keys = NotificationKeysMachine.State

/** A process that isn't at anything. */
export const ended = {
  keys: NotificationKeysMachine.initial,
  mailbox: [],
  releasing: null,
  work: null,
  wants: 0,
  reading: "over",
  decrypts: false,
  owner: null
} as const

/** What a push may start: a process for any of the events that there will be. */
export const startMoves = (system: System, index: number, events: number): ReadonlyArray<Move> =>
  Array.from({ length: events }, (_, at) => at + 1).map((wants) => ({
    words: `a push starts ${notificationAt(system, index).name}, which needs the key of event ${wants}`,
    isFault: true,
    next: withProcess(system, index, { ...ended, wants, reading: "decrypting", decrypts: true })
  }))

const needOf = ({ reading }: Notification): NotificationKeysMachine.Need => ({
  awaiting: reading === "awaitingKey" ? 1 : 0,
  decrypting: reading === "awaitingKey" || reading === "over" ? 0 : 1,
  remainingMillis: config.notificationDeadlineMillis
})

/** Tries in a row after which the lease is tried only when some time has passed. */
const TRIES = 3

/**
 * What doesn't change what the machine does later: times, words, and what it only counts. How often it has tried the lease is not
 * known either: once its owner has gone, it may be tried at once or after a while.
 */
const plain = (state: Keys): Keys => {
  const next: Record<string, unknown> = { ...state }
  const owns = "iterations" in state
  if ("attempt" in state) next["attempt"] = owns ? Math.min(1, state.attempt) : 0
  if (owns) next["iterations"] = Math.min(NotificationKeysMachine.ITERATIONS, state.iterations)
  if (owns) next["hasty"] = 0
  if ("blocker" in state) next["blocker"] = { ...state.blocker, expiresAtMillis: NOW }
  if ("failure" in state) next["failure"] = { class: state.failure.class, message: "" }
  if ("gone" in state && state.gone !== undefined) next["gone"] = { dead: state.gone.dead, random: 0 }
  return next as unknown as Keys
}

/** An event that waits for a key is tried again; one that is being tried, after that. */
const retry = (system: System, index: number): System => {
  const { reading } = notificationAt(system, index)
  if (reading === "awaitingKey") return withProcess(system, index, { reading: "toDecrypt" })
  return reading === "decrypting" ? withProcess(system, index, { reading: "outdated" }) : system
}

/** An event that waits for a key which nothing brings any more waits no longer. */
const failAwaiting = (system: System, index: number): System => {
  const { keys, reading } = notificationAt(system, index)
  return keys._tag === "GivenUp" && reading === "awaitingKey" ? withProcess(system, index, { reading: "over" }) : system
}

/** The machine has decided. */
const decided = (system: System, index: number, keys: Keys): System =>
  failAwaiting(withProcess(system, index, { keys: plain(keys) }), index)

/** Begins what is wanting, until nothing follows any more (`NotificationMachine.planAll`). */
const plan = (at: At, system: System, before: ReadonlyArray<Command>): readonly [System, ReadonlyArray<Command>] => {
  const { index, rules } = at
  const { keys, reading } = notificationAt(system, index)
  const tried = reading === "toDecrypt" ? withProcess(system, index, { reading: "decrypting", decrypts: true }) : system
  const [next, commands] = rules.keysConsider(config, keys, needOf(notificationAt(tried, index)), 0)
  const all = [...before, ...commands]
  const planned = next === keys ? failAwaiting(tried, index) : decided(tried, index, next)
  return planned === system ? [planned, all] : plan(at, planned, all)
}

const takeIn = (at: At, system: System, input: NotificationInput): readonly [System, ReadonlyArray<Command>] => {
  const { index, rules } = at
  const process = notificationAt(system, index)
  switch (input._tag) {
    case "KeysCommitted":
      return [retry(system, index), []]
    case "DecryptAnswered": {
      const missing = process.reading === "outdated" ? "toDecrypt" : "awaitingKey"
      return [withProcess(system, index, input.isFound ? { reading: "over", wants: 0 } : { reading: missing }), []]
    }
    default: {
      const [keys, commands] = rules.keysStep(config, process.keys, input, needOf(process))
      const mayHaveCome =
        input._tag === "Iterated" ||
        input._tag === "LeaseTaken" ||
        (input._tag === "IterateFailed" && input.failure.class === "store") ||
        (input._tag === "OwnerWatched" && rules.triesWhenWatched)
      const next = decided(system, index, keys)
      return [mayHaveCome ? retry(next, index) : next, commands]
    }
  }
}

/** How the machine is told of its grant. */
const told = (index: number): Leases.Told => ({
  lost: (system) => KeysWork.tell(system, index, { _tag: "LeaseLost" }),
  wanted: [
    {
      words: "learns that another needs the lease",
      tell: (system, grant) =>
        KeysWork.tell(withProcess(system, index, { grant: { ...grant, wanted: "told" } }), index, {
          _tag: "LeaseWanted"
        })
    }
  ]
})

/** Interprets commands in order, up to one that has to wait. */
const interpret = (at: At, system: System, commands: ReadonlyArray<Command>): System => {
  const { index } = at
  let next = system
  for (const [place, command] of commands.entries()) {
    const { grant } = notificationAt(next, index)
    switch (command._tag) {
      case "WatchGrant":
        if (grant === null) break
        next = withProcess(next, index, { grant: { ...grant, watched: true } })
        if (grant.keeping._tag === "Lost") next = told(index).lost(next, grant)
        break
      case "ReleaseLease":
        next = withProcess(KeysWork.abort(at, next), index, { turns: null })
        if (grant === null) break
        return withProcess(next, index, {
          grant: null,
          asked: false,
          releasing: { fence: grant.fence, after: commands.slice(place + 1) }
        })
      case "WatchOwner":
        next = withProcess(next, index, {
          owner: { holder: command.blocker.holder, inForce: false, expects: false }
        })
        break
      case "StopWaiting":
        next = withProcess(next, index, { work: null })
        break
      case "UnwatchOwner":
        next = withProcess(next, index, { owner: null })
        break
      default:
        next = KeysWork.begin(at, next, command)
    }
  }
  return finishIfOver(next, index)
}

/** A process that has its result, and is at nothing any more, ends. */
const finishIfOver = (system: System, index: number): System => {
  const { grant, keys, reading, releasing } = notificationAt(system, index)
  const isOver = reading === "over" && !NotificationKeysMachine.isAtWork(keys) && releasing === null && grant === null
  return isOver ? withProcess(system, index, quiet) : system
}

/** What is left of a process that has ended. */
const quiet = {
  ...ended,
  life: "dead",
  grant: null,
  validGeneration: null,
  turns: null,
  memory: null,
  asked: false
} as const

/** The actor takes an input. */
const feed = (at: At, system: System, input: NotificationInput): System => {
  const [taken, first] = takeIn(at, system, input)
  const [planned, commands] = plan(at, taken, first)
  return interpret(at, planned, commands)
}

/** The actor takes what is in the mailbox, as far as it gets. */
const drain = (at: At, system: System): System => {
  const { life, mailbox, releasing } = notificationAt(system, at.index)
  const [input, ...mail] = mailbox
  if (input === undefined || releasing !== null || life !== "runs") return system
  return drain(at, feed(at, withProcess(system, at.index, { mailbox: mail }), input))
}

/** What comes of the next input in the mailbox, whether or not the lease has been tried often. */
const ways = (system: System, index: number, go: (from: System) => System): ReadonlyArray<System> => {
  const { keys, mailbox } = notificationAt(system, index)
  const matters = mailbox[0]?._tag === "OwnerGone" || mailbox[0]?._tag === "LeaseBusy"
  if (!matters || (keys._tag !== "Watching" && keys._tag !== "Checking")) return [go(system)]
  return [go(system), go(withProcess(system, index, { keys: { ...keys, attempt: TRIES } }))]
}

/** The actor ends with its fibers, and lets go what it has. */
const end = (at: At, system: System): System => {
  const { index, rules } = at
  const { grant, releasing, work } = notificationAt(system, index)
  const fence = grant?.fence ?? releasing?.fence
  const leaves = work?._tag === "Trying"
  if (!rules.releasesOnSuspend || (fence === undefined && !leaves)) return withProcess(system, index, quiet)
  return withProcess(system, index, { ...quiet, life: "closing", releasing: { fence: fence ?? null, after: [] } })
}

/** Lets the lease go, and goes on. */
const releasingMoves = (
  at: At,
  system: System,
  { fence, after }: NonNullable<Notification["releasing"]>
): ReadonlyArray<Move> => {
  const { index } = at
  const { life, name } = notificationAt(system, index)
  const goOn = (from: System): System => {
    const next = withProcess(from, index, { releasing: null })
    return life === "closing" ? withProcess(next, index, { life: "dead" }) : interpret(at, next, after)
  }
  const released = fence === null ? Leases.leave(at, system) : Leases.release(at, system, fence)
  const words = fence === null ? "gives back what it may have" : "releases the lease"
  const moves: Array<Move> = [Leases.quietly(`${name} ${words}`, index, goOn(released), false)]
  if (system.world.budget.faults > 0)
    moves.push({ words: `${name} can't do so: it ${words}`, isFault: true, next: goOn(spend(system, "faults")) })
  return moves
}

/** Everything that such a process can do next while it lives, or that can be done to it. */
export const moves = (at: At, system: System): ReadonlyArray<Move> => {
  const { index } = at
  const { grant, life, mailbox, name, releasing } = notificationAt(system, index)
  const [input, ...mail] = mailbox
  const moves: Array<Move> = []
  if (releasing !== null) moves.push(...releasingMoves(at, system, releasing))
  else if (input !== undefined) {
    const take = (from: System): System => feed(at, withProcess(from, index, { mailbox: mail }), input)
    for (const next of ways(system, index, take))
      moves.push({ words: `${name} takes ${input._tag}`, isFault: false, next })
  }
  const isPrompt = !at.fine && mailbox.length === 0
  for (const move of KeysWork.moves(at, system, (from) => end(at, from))) {
    const nexts = isPrompt ? ways(move.next, index, (from) => drain(at, from)) : [move.next]
    for (const next of nexts) moves.push({ ...move, next })
  }
  if (grant !== null) moves.push(...Leases.keepingMoves(at, told(index), system, grant))
  if (life === "runs") moves.push(Leases.quietly(`the time of ${name} is over`, index, end(at, system), true))
  return moves
}
