/**
 * What one process of the model can do next: the decisions are those of the pure machines, the rest is what the interpreters
 * do (`ExtensionSync.ts`, `CryptoTurn.ts`, `LeaseKeeper.ts`, `DistributedSemaphore.ts`), one step for each moment at which
 * somebody else may come between or the process may die.
 *
 * A frozen process is one that does nothing while others do: nothing needs to be said about that.
 *
 * Gotchas: a mailbox keeps its order, so an answer that comes too late is in it before whatever is begun later. What is read
 * and what is loaded counts from the moment at which the store is looked at; between that and the answer, nothing of the
 * process depends on it.
 */
import type * as Lease from "../../src/lease/Lease.ts"
import * as LeaseMachine from "../../src/lease/LeaseMachine.ts"
import * as ExtensionLoopMachine from "../../src/sync/ExtensionLoopMachine.ts"
import type { ErrorClass, Failed } from "../../src/sync/SupervisionPolicy.ts"
import type { Rules } from "./Rules.ts"
import {
  type Acquiring,
  config,
  EXTENSION,
  type Grant,
  NOW,
  type Process,
  processAt,
  type Running,
  type System,
  withProcess,
  withWorld
} from "./System.ts"
import * as World from "./World.ts"
import type { Move } from "./World.ts"

type Input = ExtensionLoopMachine.Input
type Command = ExtensionLoopMachine.Command

/** One process in its system, under some rules. */
interface At {
  readonly rules: Rules
  readonly index: number
  readonly fine: boolean
}

const failed = (one: ErrorClass): Failed => ({ failure: { class: one, message: "" }, nowMillis: NOW, random: 0 })

const tell = (system: System, index: number, ...inputs: ReadonlyArray<Input>): System =>
  withProcess(system, index, { mailbox: [...processAt(system, index).mailbox, ...inputs] })

/** Work is done: its result is in the mailbox. */
const finish = (system: System, index: number, input: Input): System =>
  tell(withProcess(system, index, { work: null }), index, input)

// --- the end-to-end machine's turns

/** A turn begins: the grant is dirty until its commit is done, and memory is loaded unless it is. */
const beginTurn = (system: System, index: number): System => {
  const { memory, turns } = processAt(system, index)
  if (turns?.loaded === true) return withProcess(system, index, { validGeneration: null, memory: memory ?? outdated })
  const fresh = { current: true, touched: false, outgoing: system.world.outgoing }
  return withProcess(system, index, { validGeneration: null, turns: { loaded: true }, memory: fresh })
}

/** What a process has that takes void memory for loaded. */
const outdated = { current: false, touched: false, outgoing: false }

/** Memory is changed; what an earlier turn left half-applied makes it worthless. */
const touch = (system: System, index: number): System => {
  const memory = processAt(system, index).memory ?? outdated
  return withProcess(system, index, {
    memory: { ...memory, touched: true, current: memory.current && !memory.touched }
  })
}

const endTurn = (system: System, index: number, fence: Lease.Fence): System =>
  withProcess(system, index, { validGeneration: fence.generation })

/** A turn ended otherwise than well. */
const voidTurn = ({ index, rules }: At, system: System): System => {
  const { turns } = processAt(system, index)
  if (!rules.voids) return withProcess(system, index, { validGeneration: null })
  return withProcess(system, index, {
    validGeneration: null,
    memory: null,
    turns: turns === null ? null : { loaded: false }
  })
}

/** A turn failed; no other begins when the stream has another owner. */
const failTurn = (at: At, system: System, tag: "ReloadFailed" | "ApplyFailed", one: ErrorClass): System => {
  const voided = voidTurn(at, system)
  const shut = one === "stale" ? withProcess(voided, at.index, { turns: null }) : voided
  return finish(shut, at.index, { _tag: tag, ...failed(one) })
}

const discard = (at: At, system: System): System =>
  processAt(system, at.index).turns === null ? withProcess(system, at.index, { memory: null }) : voidTurn(at, system)

/** Ends what is under way; a turn that is cut short is void. */
const abort = (at: At, system: System): System => {
  const { work } = processAt(system, at.index)
  if (work?._tag !== "Running") return withProcess(system, at.index, { work: null })
  const { command, stage } = work
  const isTurn = command._tag === "Apply" || command._tag === "Reload" || stage === "committed"
  const without = withProcess(system, at.index, { work: null })
  return isTurn ? voidTurn(at, without) : without
}

// --- the lease

const asHeld = (state: LeaseMachine.State): Extract<LeaseMachine.State, { _tag: "Held" | "Lost" }> => {
  if (state._tag !== "Held" && state._tag !== "Lost") throw new Error(`a lease that is kept is ${state._tag}`)
  return state
}

/** Times of a machine that waits don't matter: any wait may end at any moment. */
const timeless = (machine: Acquiring["machine"]): Acquiring["machine"] =>
  machine._tag === "Asking"
    ? machine
    : { ...machine, untilMillis: NOW, blocker: { ...machine.blocker, expiresAtMillis: NOW } }

/** The process that has this holder's id, if it lives. */
const livingAs = (system: System, holder: string): number =>
  system.processes.findIndex((process) => process.holder === holder && process.life !== "dead")

/** A peer is asked to yield, if it listens: who has the lease or asks for it does. */
const askPeer = (system: System, holder: string): System => {
  const index = livingAs(system, holder)
  if (index < 0) return system
  const { grant, work } = processAt(system, index)
  return grant === null && work?._tag !== "Acquiring" ? system : withProcess(system, index, { asked: true })
}

/** Interprets what asking for the lease has come to. */
const acquire = (at: At, system: System, [machine, commands]: LeaseMachine.Step, isLooking = true): System => {
  const { index, rules } = at
  const process = processAt(system, index)
  switch (machine._tag) {
    case "Held": {
      const fence: Lease.Fence = { name: EXTENSION, holder: process.holder, generation: machine.generation }
      const isDirty = rules.isDirty(process.validGeneration, machine.generation)
      const grant: Grant = { fence, keeping: machine, listens: true, watched: false, wanted: "no" }
      const held = withProcess(system, index, { work: null, grant, hurries: false, turns: { loaded: !isDirty } })
      return tell(held, index, { _tag: "LockGranted", fence, isDirty, nowMillis: NOW })
    }
    case "Refused": {
      const refused = tell(system, index, { _tag: "LockRefused" })
      return acquire(at, withProcess(refused, index, { asked: false }), LeaseMachine.start(false, process.hurries))
    }
    case "Lost":
      throw new Error("a lease that isn't held can't be lost")
    default: {
      let next = system
      let waits: Acquiring["waits"] | undefined
      for (const command of commands) {
        if (command._tag === "Ask") next = askPeer(next, command.blocker.holder)
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

/** What the store says to a take. */
const take = ({ index, rules }: At, system: System, { machine, waits }: Acquiring) => {
  const { holder } = processAt(system, index)
  if (waits._tag !== "Take") throw new Error(`${holder} takes nothing`)
  const [table, outcome] = rules.take(system.world.table, {
    name: EXTENSION,
    permits: 1,
    count: 1,
    holder,
    peer: {},
    nowMillis: NOW,
    leaseMillis: config.leaseMillis,
    ...(isOnce(machine) ? {} : { enqueueMillis: config.ticketMillis, urgent: waits.urgent }),
    ...(waits.presumedDead.length === 0 ? {} : { presumedDead: waits.presumedDead })
  })
  return { outcome, taken: withWorld(system, { table }) }
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
  const { hurries, name } = processAt(system, index)
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
  const looks = processAt(looking, index).work
  return [
    ...(looks?._tag === "Acquiring" ? takingMoves(at, looking, looks) : []),
    ...(waits.hurry && hurries ? [woken("Hurried", "waits in a hurry from now on, and looks at the lease")] : []),
    ...(waits.signal ? [woken("Signalled", "is woken and looks at the lease")] : []),
    ...(waits.signal && livingAs(system, holder) < 0 ? [woken("Dead", `sees that ${holder} is dead, and looks`)] : []),
    ...(canFail ? [woken("Unreachable", `can watch ${holder} no longer`, spend(system, "faults"))] : [])
  ]
}

/** What can become of a take. */
const takingMoves = (at: At, system: System, work: Acquiring): ReadonlyArray<Move> => {
  const { index, rules } = at
  const { name, hurries } = processAt(system, index)
  const { outcome, taken } = take(at, system, work)
  const said = outcome._tag.toLowerCase()
  const moves: Array<Move> = [
    { words: `${name} takes the lease: ${said}`, isFault: false, next: look(at, system, work) }
  ]
  if (system.world.budget.suspends > 0) {
    const words = `${name} takes the lease (${said}), and is suspended before it hears of it`
    moves.push(suspended(words, index, suspend(at, spend(taken, "suspends")), true))
  }
  if (system.world.budget.faults > 0) {
    const without = (from: System): System => {
      const spent = spend(from, "faults")
      // What fails transiently is waited for instead, after whatever was granted was given back.
      return isOnce(work.machine)
        ? acquire(at, leave(at, spent), LeaseMachine.start(false, hurries))
        : acquire(at, spent, rules.leaseStep(config, work.machine, { _tag: "TakeFailed", nowMillis: NOW }))
    }
    const broken = finish(leave(at, spend(system, "faults")), index, { _tag: "LockFailed", ...failed("storeTerminal") })
    moves.push(
      { words: `${name} can't ask for the lease just then`, isFault: true, next: without(system) },
      { words: `${name} takes the lease (${said}) and never hears of it`, isFault: true, next: without(taken) },
      { words: `${name} can't ask for the lease at all`, isFault: true, next: broken }
    )
  }
  return moves
}

const release = ({ rules }: At, system: System, fence: Lease.Fence): System => {
  const { handoverMillis } = config
  const [table] = rules.release(system.world.table, { fence, nowMillis: NOW, handoverMillis })
  return withWorld(system, { table })
}

const leave = ({ index, rules }: At, system: System): System => {
  const { holder } = processAt(system, index)
  const { handoverMillis } = config
  const [table] = rules.leave(system.world.table, { holder, nowMillis: NOW, handoverMillis })
  return withWorld(system, { table })
}

/** What becomes of a lease that is kept, after something that its keeper was told. */
const keep = ({ index, rules }: At, system: System, grant: Grant, input: LeaseMachine.Input): System => {
  const [state, commands] = rules.leaseStep(config, grant.keeping, input)
  const keeping = asHeld(state)
  const renew = commands.find((command) => command._tag === "RenewAfter")
  const listens = renew?._tag === "RenewAfter" ? renew.asked : grant.listens
  const next = withProcess(system, index, { grant: { ...grant, keeping, listens } })
  return keeping._tag === "Lost" && grant.watched ? tellLost(next, index, grant) : next
}

const tellLost = (system: System, index: number, { fence }: Grant): System =>
  tell(system, index, { _tag: "LockLost", generation: fence.generation })

const tellWanted = (system: System, index: number, grant: Grant, nowMillis: number): System =>
  tell(withProcess(system, index, { grant: { ...grant, wanted: "told" } }), index, {
    _tag: "LockWanted",
    generation: grant.fence.generation,
    nowMillis
  })

/** What the fibers do that keep a lease. */
const keepingMoves = (at: At, system: System, grant: Grant): ReadonlyArray<Move> => {
  const { index, rules } = at
  const { asked, name } = processAt(system, index)
  const { fence, keeping } = grant
  const moves: Array<Move> = []
  const push = (words: string, next: System, isFault = false): void => {
    moves.push({ words: `${name} ${words}`, isFault, next })
  }
  if (keeping._tag === "Held") {
    if (grant.listens && asked) {
      push("hears that a peer asks", keep(at, withProcess(system, index, { asked: false }), grant, { _tag: "Asked" }))
    }
    const { leaseMillis } = config
    const [table, outcome] = rules.renew(system.world.table, { fence, nowMillis: NOW, leaseMillis })
    const renewed = withWorld(system, { table })
    push(
      `renews: ${outcome._tag === "NotHeld" ? "not held" : "renewed"}`,
      keep(at, renewed, grant, { _tag: "RenewAnswered", outcome, nowMillis: NOW })
    )
    if (system.world.budget.faults > 0) {
      push("can't renew", keep(at, spend(system, "faults"), grant, { _tag: "RenewFailed", nowMillis: NOW }), true)
    }
    if (keeping.wanted && grant.watched && grant.wanted === "no") {
      push("learns early that another needs the lease", tellWanted(system, index, grant, NOW))
      push("learns that another needs the lease", tellWanted(system, index, grant, NOW + config.yieldAfterMillis))
    }
  }
  if (grant.wanted === "later") {
    push("has kept the lease for long enough", tellWanted(system, index, grant, NOW + config.yieldAfterMillis))
  }
  return moves
}

// --- the loop

/** What doesn't change what the loop does later: times, words, and how many failures there were beyond the first. */
const plain = (state: ExtensionLoopMachine.State): ExtensionLoopMachine.State => {
  const next: Record<string, unknown> = { ...state }
  if ("attempt" in state) next["attempt"] = Math.min(1, state.attempt)
  if ("hasty" in state) next["hasty"] = Math.min(HASTY + 1, state.hasty)
  if ("untilMillis" in state) next["untilMillis"] = NOW
  if ("delayMillis" in state) next["delayMillis"] = Math.min(1, state.delayMillis)
  if ("failure" in state) next["failure"] = { class: state.failure.class, message: "" }
  return next as unknown as ExtensionLoopMachine.State
}

/** Hasty answers in a row after which the next one lets the loop rest. */
const HASTY = 5

/** Begins what takes time. Applying a response changes memory at once; it is durable later. */
const begin = (at: At, system: System, command: Running["command"]): System => {
  const { index } = at
  const begun = withProcess(system, index, { work: { _tag: "Running", command, stage: "begun" } })
  const { turns } = processAt(system, index)
  switch (command._tag) {
    case "Apply":
      return turns === null ? failTurnUnbegun(begun, index, "ApplyFailed") : touch(beginTurn(begun, index), index)
    case "Reload":
      return turns === null
        ? failTurnUnbegun(begun, index, "ReloadFailed")
        : withProcess(begun, index, { validGeneration: null })
    case "SendOutgoing": {
      if (turns === null) return failTurnUnbegun(begun, index, "ApplyFailed")
      const looked = endTurn(beginTurn(begun, index), index, command.fence)
      return processAt(looked, index).memory?.outgoing === true ? looked : finish(looked, index, sent)
    }
    default:
      return begun
  }
}

const failTurnUnbegun = (system: System, index: number, tag: "ReloadFailed" | "ApplyFailed"): System =>
  finish(system, index, { _tag: tag, ...failed("stale") })

const sent: Input = { _tag: "Sent", nowMillis: NOW, random: 0 }

/** Interprets commands in order, up to one that has to wait. */
const interpret = (at: At, system: System, commands: ReadonlyArray<Command>): System => {
  const { index } = at
  let next = system
  for (const [place, command] of commands.entries()) {
    const { grant } = processAt(next, index)
    switch (command._tag) {
      case "AbortWork":
        next = abort(at, next)
        break
      case "DiscardMemory":
        next = discard(at, next)
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
        next = begin(at, next, command)
    }
  }
  return next
}

/** The loop takes an input. */
const feed = (at: At, system: System, input: Input): System => {
  const { loop } = processAt(system, at.index)
  const [state, commands] = at.rules.loopStep({ sync: config }, loop, input)
  return interpret(at, withProcess(system, at.index, { loop: plain(state) }), commands)
}

/** The loop takes what is in the mailbox, as far as it gets. */
const drain = (at: At, system: System): System => {
  const { mailbox, life, releasing } = processAt(system, at.index)
  const [input, ...mail] = mailbox
  if (input === undefined || releasing !== null || life !== "runs") return system
  return drain(at, feed(at, withProcess(system, at.index, { mailbox: mail }), input))
}

const spend = (system: System, what: "crashes" | "faults" | "suspends" | "wishes"): System => {
  const { budget } = system.world
  return withWorld(system, { budget: { ...budget, [what]: budget[what] - 1 } })
}

/** What can become of a command that is under way. */
const runningMoves = (at: At, system: System, { command, stage }: Running): ReadonlyArray<Move> => {
  const { index, rules } = at
  const { loop, name, turns } = processAt(system, index)
  const spent = system.world.budget.faults > 0 ? spend(system, "faults") : undefined
  const moves: Array<Move> = []
  const push = (words: string, next: System): void =>
    void moves.push({ words: `${name} ${words}`, isFault: false, next })
  const fault = (words: string, make: (from: System) => System): void => {
    if (spent !== undefined) moves.push({ words: `${name} ${words}`, isFault: true, next: make(spent) })
  }
  const commits = (
    words: string,
    transaction: (from: System) => World.Committed,
    after: (done: System) => System,
    refused: (from: System, one: ErrorClass) => System
  ): void => {
    const result = transaction(system)
    if (result._tag === "Refused") push(`${words}: refused, ${result.class}`, refused(system, result.class))
    else {
      const { next, violation } = result
      moves.push({ words: `${name} ${words}`, isFault: false, next: after(next), ...(violation && { violation }) })
    }
    fault(`fails before it ${words}`, (from) => refused(from, "crypto"))
    fault(`can use the store no longer when it ${words}`, (from) => refused(from, "storeTerminal"))
    fault(`${words} and never hears of it`, (from) => {
      const result = transaction(from)
      return refused(result._tag === "Refused" ? from : result.next, "store")
    })
  }
  switch (command._tag) {
    case "Reload": {
      const loaded = endTurn(beginTurn(system, index), index, command.fence)
      push("loads the end-to-end machine", finish(loaded, index, { _tag: "Reloaded" }))
      fault("can't load the end-to-end machine", (from) => failTurn(at, from, "ReloadFailed", "store"))
      break
    }
    case "ReadPosition":
      push("reads the position", finish(system, index, { _tag: "PositionRead", position: system.world.position }))
      fault("can't read the position", (from) => finish(from, index, { _tag: "ReadFailed", ...failed("store") }))
      break
    case "Poll": {
      const { epoch, request } = command
      const { next, response } = World.answer(rules, system, request)
      const tookMillis = request.timeoutMillis
      push("is answered by the homeserver", finish(next, index, { _tag: "Polled", epoch, response, tookMillis }))
      if (tookMillis > 0 && response.extensions.toDevice?.events.length === 0 && loop._tag === "Polling") {
        fault("is answered at once and with nothing, again and again", (from) => {
          const hasty = withProcess(World.answer(rules, from, request).next, index, { loop: { ...loop, hasty: HASTY } })
          return finish(hasty, index, { _tag: "Polled", epoch, response, tookMillis: 0 })
        })
      }
      const fails = (from: System, one: ErrorClass): System =>
        finish(from, index, { _tag: "PollFailed", epoch, ...failed(one) })
      fault("can't reach the homeserver", (from) => fails(from, "network"))
      fault("reaches the homeserver and never hears of it", (from) =>
        fails(World.answer(rules, from, request).next, "network")
      )
      fault("is told that its position has expired", (from) => fails(from, "expired"))
      fault("has lost its login", (from) => fails(from, "auth"))
      break
    }
    case "Apply": {
      if (stage === "committed") {
        push("confirms the commit", finish(endTurn(system, index, command.fence), index, { _tag: "Applied" }))
        break
      }
      commits(
        "commits the batch",
        (from) => World.commitExtension(rules, from, index, command.fence, command.sent.since, command.response),
        (done) => withProcess(done, index, { work: { _tag: "Running", command, stage: "committed" } }),
        (from, one) => failTurn(at, from, "ApplyFailed", one)
      )
      break
    }
    case "SendOutgoing": {
      fault("sends a request, which isn't taken", (from) => finish(from, index, sent))
      if (turns === null) break
      commits(
        "sends a request and commits its answer",
        (from) => {
          return World.commitCrypto(rules, touch(beginTurn(from, index), index), index, command.fence)
        },
        (done) => finish(endTurn(done, index, command.fence), index, sent),
        (from, one) => failTurn(at, from, "ApplyFailed", one)
      )
      break
    }
    case "ExpirePosition": {
      const { pos: _, ...position } = system.world.position
      const fails = (from: System, one: ErrorClass): System =>
        finish(from, index, { _tag: "ExpireFailed", ...failed(one) })
      const expired = (from: System): System => withWorld(from, { position })
      const stands = rules.stands(system.world.table, command.fence)
      if (stands) push("drops its position", finish(expired(system), index, { _tag: "Expired", nowMillis: NOW }))
      else push("drops its position: refused, stale", fails(system, "stale"))
      fault("can't drop its position", (from) => fails(from, "store"))
      if (stands) fault("drops its position and never hears of it", (from) => fails(expired(from), "store"))
      break
    }
    case "Wait":
      push("has waited", finish(system, index, { _tag: "BackoffElapsed" }))
  }
  return moves
}

// --- the process

/** A process that has just been started, or resumed with what its semaphore knows. */
const started = {
  loop: ExtensionLoopMachine.initial,
  mailbox: [{ _tag: "Start" }],
  releasing: null,
  work: null
} as const

/** The parts of a process that don't outlive it. */
const unborn = {
  grant: null,
  validGeneration: null,
  turns: null,
  memory: null,
  hurries: false,
  asked: false
} as const

export const start = (rules: Rules, name: string): Process => ({
  name,
  holder: rules.holderOf(name, 0),
  life: "runs",
  ...started,
  ...unborn
})

/** A holder's id that nobody remembers stands for one that was never used. */
const freshHolder = (rules: Rules, system: System, name: string): string => {
  const text = JSON.stringify(system)
  const starts = Array.from({ length: 20 }, (_, at) => rules.holderOf(name, at))
  return starts.find((holder) => !text.includes(JSON.stringify(holder))) ?? rules.holderOf(name, 0)
}

/** The loop ends with its fibers, and the lease is let go. */
const suspend = (at: At, system: System): System => {
  const { index, rules } = at
  const { grant, releasing, work } = processAt(system, index)
  const fence = grant?.fence ?? releasing?.fence
  const aborted = abort(at, system)
  const leaves = work?._tag === "Acquiring"
  const quiet = { ...started, mailbox: [], grant: null, turns: null, asked: false }
  if (!rules.releasesOnSuspend || (fence === undefined && !leaves))
    return withProcess(aborted, index, { ...quiet, life: "suspended" })
  return withProcess(aborted, index, { ...quiet, life: "closing", releasing: { fence: fence ?? null, after: [] } })
}

/** What a suspended process must not have, or `undefined` (invariant I4). */
const unquiet = (system: System, { holder, name }: Process): string | undefined => {
  const { rows, waiters } = system.world.table
  if (rows.some((row) => row.holder === holder && row.expiresAtMillis > NOW))
    return `I4: ${name} is suspended and owns the lease`
  return waiters.some((waiter) => waiter.holder === holder)
    ? `I4: ${name} is suspended and waits for the lease`
    : undefined
}

const suspended = (words: string, index: number, next: System, isFault: boolean): Move => {
  const process = processAt(next, index)
  const violation = process.life === "suspended" ? unquiet(next, process) : undefined
  return { words, isFault, next, ...(violation && { violation }) }
}

/** Lets the lease go, and goes on. */
const releasingMoves = (
  at: At,
  system: System,
  { fence, after }: NonNullable<Process["releasing"]>
): ReadonlyArray<Move> => {
  const { index } = at
  const { life, name } = processAt(system, index)
  const goOn = (from: System): System =>
    life === "closing"
      ? withProcess(from, index, { releasing: null, life: "suspended" })
      : interpret(at, withProcess(from, index, { releasing: null }), after)
  const words = fence === null ? "leaves the queue" : "releases the lease"
  const released = fence === null ? leave(at, system) : release(at, system, fence)
  const moves: Array<Move> = [suspended(`${name} ${words}`, index, goOn(released), false)]
  if (system.world.budget.faults > 0) {
    moves.push({ words: `${name} can't do so: it ${words}`, isFault: true, next: goOn(spend(system, "faults")) })
  }
  return moves
}

const hasInput = ({ mailbox }: Process, tag: Input["_tag"]): boolean => mailbox.some(({ _tag }) => _tag === tag)

/** What others in the process want of the loop. */
const wishes = (at: At, system: System): ReadonlyArray<Move> => {
  const { index } = at
  const process = processAt(system, index)
  const { grant, hurries, loop, name } = process
  const { budget } = system.world
  const moves: Array<Move> = []
  const push = (words: string, next: System, isFault = false): void => {
    moves.push({ words: `${name} ${words}`, isFault, next })
  }
  const isWaiting = loop._tag === "BackingOff" || loop._tag === "Resting"
  if (isWaiting && budget.wishes > 0)
    push("is told to try again", tell(spend(system, "wishes"), index, { _tag: "Retry" }), true)
  if (loop._tag === "Failed" && !hasInput(process, "Start"))
    push("is told to start again", tell(system, index, { _tag: "Start" }))
  if (hurries) push("is in a hurry no longer", withProcess(system, index, { hurries: false }))
  else if (grant === null && budget.wishes > 0)
    push("is in a hurry", withProcess(spend(system, "wishes"), index, { hurries: true }), true)
  return moves
}

const workMoves = (at: At, system: System, work: Acquiring | Running): ReadonlyArray<Move> => {
  if (work._tag === "Running") return runningMoves(at, system, work)
  return work.waits._tag === "Await" ? awaitingMoves(at, system, work) : takingMoves(at, system, work)
}

const livingMoves = (at: At, system: System): ReadonlyArray<Move> => {
  const { index } = at
  const { grant, life, mailbox, name, releasing, work } = processAt(system, index)
  const { budget } = system.world
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
    if (budget.suspends > 0)
      moves.push(suspended(`${name} is suspended`, index, suspend(at, spend(system, "suspends")), true))
  }
  if (budget.crashes > 0) {
    const next = withProcess(spend(system, "crashes"), index, { ...started, ...unborn, mailbox: [], life: "dead" })
    moves.push({ words: `${name} is killed`, isFault: true, next })
  }
  return moves
}

/** Everything that a process can do next, or that can be done to it. */
export const moves = (rules: Rules, fine: boolean, system: System, index: number): ReadonlyArray<Move> => {
  const { life, name } = processAt(system, index)
  if (life !== "dead") return livingMoves({ rules, index, fine }, system)
  const holder = freshHolder(rules, withProcess(system, index, { holder: "" }), name)
  const next = withProcess(system, index, { ...started, ...unborn, mailbox: [{ _tag: "Start" }], life: "runs", holder })
  return [{ words: `${name} is started again`, isFault: false, next }]
}
