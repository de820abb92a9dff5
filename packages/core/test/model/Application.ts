/**
 * What an application of the model can do next: the decisions are those of the pure machines, the rest is what the interpreters
 * do (`ExtensionSync.ts`, `LeaseKeeper.ts`, `DistributedSemaphore.ts`).
 *
 * Not here: commands that take time (`LoopWork.ts`), being killed and started (`Process.ts`).
 */
import * as LeaseMachine from "../../src/lease/LeaseMachine.ts"
import * as ExtensionLoopMachine from "../../src/sync/ExtensionLoopMachine.ts"
import * as Leases from "./Leases.ts"
import * as LoopWork from "./LoopWork.ts"
import {
  type Acquiring,
  type Application,
  applicationAt,
  config,
  type Grant,
  NOW,
  type Running,
  spend,
  type System,
  withProcess
} from "./System.ts"
import * as Turns from "./Turns.ts"
import type { At } from "./Turns.ts"
import type { Move } from "./World.ts"

type Input = ExtensionLoopMachine.Input
type Command = ExtensionLoopMachine.Command

// --- the lease

/** Times of a machine that waits don't matter: any wait may end at any moment. */
const timeless = (machine: Acquiring["machine"]): Acquiring["machine"] =>
  machine._tag === "Asking"
    ? machine
    : { ...machine, untilMillis: NOW, blocker: { ...machine.blocker, expiresAtMillis: NOW } }

/** Interprets what asking for the lease has come to. */
const acquire = (at: At, system: System, [machine, commands]: LeaseMachine.Step, isLooking = true): System => {
  const { index } = at
  const process = applicationAt(system, index)
  switch (machine._tag) {
    case "Held": {
      const { grant, held, isDirty } = Leases.hold(at, system, machine)
      const granted: Input = { _tag: "LockGranted", fence: grant.fence, isDirty, nowMillis: NOW }
      return LoopWork.tell(withProcess(held, index, { hurries: false }), index, granted)
    }
    case "Refused": {
      const refused = LoopWork.tell(system, index, { _tag: "LockRefused" })
      return acquire(at, withProcess(refused, index, { asked: false }), LeaseMachine.start(false, process.hurries))
    }
    case "Lost":
      throw new Error("a lease that isn't held can't be lost")
    default: {
      let next = system
      let waits: Acquiring["waits"] | undefined
      for (const command of commands) {
        if (command._tag === "Ask") next = Leases.askPeer(next, command.blocker.holder)
        if (command._tag === "Take") waits = command
        if (command._tag === "Await") waits = { ...command, untilMillis: NOW }
      }
      if (waits === undefined) throw new Error(`${machine._tag} waits for nothing`)
      const work: Acquiring = { _tag: "Acquiring", machine: timeless(machine), waits }
      const acquiring = withProcess(next, index, { work })
      // A look that follows another is one with it: a process that is late looks late at all.
      return isLooking && waits._tag === "Take" ? look(at, acquiring, work) : acquiring
    }
  }
}

/** What the store says to the take that is waited for. */
const take = (at: At, system: System, { machine, waits }: Acquiring): ReturnType<typeof Leases.take> => {
  if (waits._tag !== "Take") throw new Error("nothing is taken")
  return Leases.take(at, system, waits.presumedDead, isOnce(machine) ? undefined : waits.urgent)
}

const isOnce = (machine: Acquiring["machine"]): boolean => machine._tag === "Asking" && machine.once

/** Takes, and reads the answer. */
const look = (at: At, system: System, work: Acquiring): System => {
  const { outcome, taken } = take(at, system, work)
  const input: LeaseMachine.Input = { _tag: "TakeAnswered", outcome, nowMillis: NOW }
  return acquire(at, taken, at.rules.leaseStep(config, work.machine, input))
}

type WokenBy = Extract<LeaseMachine.Input, { _tag: "Woken" }>["by"]

/** What ends a wait for the lease. */
const awaitingMoves = (at: At, system: System, work: Acquiring): ReadonlyArray<Move> => {
  const { index, rules } = at
  const { hurries, name } = applicationAt(system, index)
  const { machine, waits } = work
  if (waits._tag !== "Await" || machine._tag !== "Waiting") return []
  const wake = (by: WokenBy, from: System, isLooking: boolean): System =>
    acquire(at, from, rules.leaseStep(config, machine, { _tag: "Woken", by, nowMillis: NOW }), isLooking)
  const woken = (by: WokenBy, words: string, from = system): Move => ({
    words: `${name} ${words}`,
    isFault: from !== system,
    next: wake(by, from, true)
  })
  const { holder } = machine.blocker
  const canFail = waits.signal && system.world.budget.faults > 0
  const looking = wake("Time", system, false)
  const looks = applicationAt(looking, index).work
  return [
    ...(looks?._tag === "Acquiring" ? takingMoves(at, looking, looks) : []),
    ...(waits.hurry && hurries ? [woken("Hurried", "waits in a hurry from now on, and looks at the lease")] : []),
    ...(waits.signal ? [woken("Signalled", "is woken and looks at the lease")] : []),
    ...(waits.signal && Leases.livingAs(system, holder) < 0
      ? [woken("Dead", `sees that ${holder} is dead, and looks`)]
      : []),
    ...(canFail ? [woken("Unreachable", `can watch ${holder} no longer`, spend(system, "faults"))] : [])
  ]
}

/** What can become of a take. */
const takingMoves = (at: At, system: System, work: Acquiring): ReadonlyArray<Move> => {
  const { index, rules } = at
  const { name, hurries } = applicationAt(system, index)
  const { outcome, taken } = take(at, system, work)
  const said = outcome._tag.toLowerCase()
  const moves: Array<Move> = [
    { words: `${name} takes the lease: ${said}`, isFault: false, next: look(at, system, work) }
  ]
  if (system.world.budget.suspends > 0) {
    const words = `${name} takes the lease (${said}), and is suspended before it hears of it`
    moves.push(Leases.quietly(words, index, suspend(at, spend(taken, "suspends")), true))
  }
  if (system.world.budget.faults > 0) {
    const without = (from: System): System => {
      const spent = spend(from, "faults")
      // What fails transiently is waited for instead, after whatever was granted was given back.
      return isOnce(work.machine)
        ? acquire(at, Leases.leave(at, spent), LeaseMachine.start(false, hurries))
        : acquire(at, spent, rules.leaseStep(config, work.machine, { _tag: "TakeFailed", nowMillis: NOW }))
    }
    const broken = LoopWork.finish(Leases.leave(at, spend(system, "faults")), index, {
      _tag: "LockFailed",
      ...Turns.failed("storeTerminal")
    })
    moves.push(
      { words: `${name} can't ask for the lease just then`, isFault: true, next: without(system) },
      { words: `${name} takes the lease (${said}) and never hears of it`, isFault: true, next: without(taken) },
      { words: `${name} can't ask for the lease at all`, isFault: true, next: broken }
    )
  }
  return moves
}

const tellLost = (system: System, index: number, { fence }: Grant): System =>
  LoopWork.tell(system, index, { _tag: "LockLost", generation: fence.generation })

const tellWanted = (system: System, index: number, grant: Grant, nowMillis: number): System =>
  LoopWork.tell(withProcess(system, index, { grant: { ...grant, wanted: "told" } }), index, {
    _tag: "LockWanted",
    generation: grant.fence.generation,
    nowMillis
  })

/** How the loop is told of its grant. */
const told = (index: number): Leases.Told => ({
  lost: (system, grant) => tellLost(system, index, grant),
  wanted: [
    {
      words: "learns early that another needs the lease",
      tell: (system, grant) => tellWanted(system, index, grant, NOW)
    },
    {
      words: "learns that another needs the lease",
      tell: (system, grant) => tellWanted(system, index, grant, NOW + config.yieldAfterMillis)
    }
  ]
})

/** What the fibers do that keep a lease. */
const keepingMoves = (at: At, system: System, grant: Grant): ReadonlyArray<Move> => {
  const { index } = at
  const later: Move = {
    words: `${applicationAt(system, index).name} has kept the lease for long enough`,
    isFault: false,
    next: tellWanted(system, index, grant, NOW + config.yieldAfterMillis)
  }
  return [...Leases.keepingMoves(at, told(index), system, grant), ...(grant.wanted === "later" ? [later] : [])]
}

// --- the loop

/** What doesn't change what the loop does later: times, words, and how many failures there were beyond the first. */
const plain = (state: ExtensionLoopMachine.State): ExtensionLoopMachine.State => {
  const next: Record<string, unknown> = { ...state }
  if ("attempt" in state) next["attempt"] = Math.min(1, state.attempt)
  if ("hasty" in state) next["hasty"] = Math.min(LoopWork.HASTY + 1, state.hasty)
  if ("untilMillis" in state) next["untilMillis"] = NOW
  if ("delayMillis" in state) next["delayMillis"] = Math.min(1, state.delayMillis)
  if ("failure" in state) next["failure"] = { class: state.failure.class, message: "" }
  return next as unknown as ExtensionLoopMachine.State
}

/** Interprets commands in order, up to one that has to wait. */
const interpret = (at: At, system: System, commands: ReadonlyArray<Command>): System => {
  const { index } = at
  let next = system
  for (const [place, command] of commands.entries()) {
    const { grant } = applicationAt(next, index)
    switch (command._tag) {
      case "AbortWork":
        next = LoopWork.abort(at, next)
        break
      case "DiscardMemory":
        next = LoopWork.discard(at, next)
        break
      case "WatchLock":
        if (grant === null) break
        next = withProcess(next, index, { grant: { ...grant, watched: true } })
        if (grant.keeping._tag === "Lost") next = tellLost(next, index, grant)
        break
      case "WantLater":
        if (grant !== null) next = withProcess(next, index, { grant: { ...grant, wanted: "later" } })
        break
      case "ReleaseLock":
        next = withProcess(next, index, { turns: null })
        if (grant === null) break
        return withProcess(next, index, {
          grant: null,
          asked: false,
          releasing: { fence: grant.fence, after: commands.slice(place + 1) }
        })
      case "TakeLock":
        next = acquire(at, withProcess(next, index, { asked: false }), LeaseMachine.start(true), false)
        break
      default:
        next = LoopWork.begin(at, next, command)
    }
  }
  return next
}

/** The loop takes an input. */
const feed = (at: At, system: System, input: Input): System => {
  const { loop } = applicationAt(system, at.index)
  const [state, commands] = at.rules.loopStep({ sync: config }, loop, input)
  return interpret(at, withProcess(system, at.index, { loop: plain(state) }), commands)
}

/** The loop takes what is in the mailbox, as far as it gets. */
const drain = (at: At, system: System): System => {
  const { mailbox, life, releasing } = applicationAt(system, at.index)
  const [input, ...mail] = mailbox
  if (input === undefined || releasing !== null || life !== "runs") return system
  return drain(at, feed(at, withProcess(system, at.index, { mailbox: mail }), input))
}

// --- the process

/** An application whose loop has just been started. */
export const started = {
  loop: ExtensionLoopMachine.initial,
  mailbox: [{ _tag: "Start" }],
  releasing: null,
  work: null
} as const

/** The loop ends with its fibers, and the lease is let go. */
const suspend = (at: At, system: System): System => {
  const { index, rules } = at
  const { grant, releasing, work } = applicationAt(system, index)
  const fence = grant?.fence ?? releasing?.fence
  const aborted = LoopWork.abort(at, system)
  const leaves = work?._tag === "Acquiring"
  const quiet = { ...started, mailbox: [], grant: null, turns: null, asked: false }
  if (!rules.releasesOnSuspend || (fence === undefined && !leaves))
    return withProcess(aborted, index, { ...quiet, life: "suspended" })
  return withProcess(aborted, index, { ...quiet, life: "closing", releasing: { fence: fence ?? null, after: [] } })
}

/** Lets the lease go, and goes on. */
const releasingMoves = (
  at: At,
  system: System,
  { fence, after }: NonNullable<Application["releasing"]>
): ReadonlyArray<Move> => {
  const { index } = at
  const { life, name } = applicationAt(system, index)
  const goOn = (from: System): System =>
    life === "closing"
      ? withProcess(from, index, { releasing: null, life: "suspended" })
      : interpret(at, withProcess(from, index, { releasing: null }), after)
  const words = fence === null ? "leaves the queue" : "releases the lease"
  const released = fence === null ? Leases.leave(at, system) : Leases.release(at, system, fence)
  const moves: Array<Move> = [Leases.quietly(`${name} ${words}`, index, goOn(released), false)]
  if (system.world.budget.faults > 0) {
    moves.push({ words: `${name} can't do so: it ${words}`, isFault: true, next: goOn(spend(system, "faults")) })
  }
  return moves
}

const hasInput = ({ mailbox }: Application, tag: Input["_tag"]): boolean => mailbox.some(({ _tag }) => _tag === tag)

/** What others in the process want of the loop. */
const wishes = (at: At, system: System): ReadonlyArray<Move> => {
  const { index } = at
  const process = applicationAt(system, index)
  const { grant, hurries, loop, name } = process
  const { budget } = system.world
  const moves: Array<Move> = []
  const push = (words: string, next: System, isFault = false): void => {
    moves.push({ words: `${name} ${words}`, isFault, next })
  }
  const isWaiting = loop._tag === "BackingOff" || loop._tag === "Resting"
  if (isWaiting && budget.wishes > 0)
    push("is told to try again", LoopWork.tell(spend(system, "wishes"), index, { _tag: "Retry" }), true)
  if (loop._tag === "Failed" && !hasInput(process, "Start"))
    push("is told to start again", LoopWork.tell(system, index, { _tag: "Start" }))
  if (hurries) push("is in a hurry no longer", withProcess(system, index, { hurries: false }))
  else if (grant === null && budget.wishes > 0)
    push("is in a hurry", withProcess(spend(system, "wishes"), index, { hurries: true }), true)
  return moves
}

const workMoves = (at: At, system: System, work: Acquiring | Running): ReadonlyArray<Move> => {
  if (work._tag === "Running") return LoopWork.runningMoves(at, system, work)
  return work.waits._tag === "Await" ? awaitingMoves(at, system, work) : takingMoves(at, system, work)
}

/** Everything that an application that lives can do next, or that can be done to it. */
export const moves = (at: At, system: System): ReadonlyArray<Move> => {
  const { index } = at
  const { grant, life, mailbox, name, releasing, work } = applicationAt(system, index)
  const moves: Array<Move> = []
  const [input, ...mail] = mailbox
  if (life === "suspended") {
    moves.push({
      words: `${name} is resumed`,
      isFault: false,
      next: withProcess(system, index, { ...started, life: "runs" })
    })
  }
  if (releasing !== null) moves.push(...releasingMoves(at, system, releasing))
  else if (input !== undefined) {
    const next = feed(at, withProcess(system, index, { mailbox: mail }), input)
    moves.push({ words: `${name}'s loop takes ${input._tag}`, isFault: false, next })
  }
  const worked = work === null ? [] : workMoves(at, system, work)
  moves.push(
    ...(at.fine || mailbox.length > 0 ? worked : worked.map((move) => ({ ...move, next: drain(at, move.next) })))
  )
  if (grant !== null) moves.push(...keepingMoves(at, system, grant))
  if (life === "runs") {
    moves.push(...wishes(at, system))
    if (system.world.budget.suspends > 0)
      moves.push(Leases.quietly(`${name} is suspended`, index, suspend(at, spend(system, "suspends")), true))
  }
  return moves
}
