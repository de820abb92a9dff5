/**
 * What a process does with the lease whoever in it asked for it: the calls of the store, and the fibers that keep a grant
 * (`DistributedSemaphore.ts`).
 *
 * Not here: waiting in the queue (`Application.ts`), trying once (`Notification.ts`).
 */
import type * as Lease from "../../src/lease/Lease.ts"
import type * as LeaseMachine from "../../src/lease/LeaseMachine.ts"
import {
  config,
  EXTENSION,
  type Grant,
  NOW,
  type Process,
  processAt,
  spend,
  type System,
  withProcess,
  withWorld
} from "./System.ts"
import type { At } from "./Turns.ts"
import type { Move } from "./World.ts"

/** The process that has this holder's id, if it lives. */
export const livingAs = (system: System, holder: string): number =>
  system.processes.findIndex((process) => process.holder === holder && process.life !== "dead")

/** Whether a process hears that a peer asks: who has the lease or asks for it does. */
export const listens = ({ grant, work }: Process): boolean =>
  grant !== null || work?._tag === "Acquiring" || work?._tag === "Trying"

/** A process that a peer asks to yield. */
export const asked = (process: Process): Process => (listens(process) ? { ...process, asked: true } : process)

/** A peer is asked to yield, if it listens. */
export const askPeer = (system: System, holder: string): System => {
  const index = livingAs(system, holder)
  return index < 0 || !listens(processAt(system, index)) ? system : withProcess(system, index, { asked: true })
}

/** What the store says to a take; without `urgent`, to one that doesn't queue. */
export const take = (
  { index, rules }: At,
  system: System,
  presumedDead: ReadonlyArray<string>,
  urgent?: boolean
): { readonly outcome: Lease.TakeOutcome; readonly taken: System } => {
  const [table, outcome] = rules.take(system.world.table, {
    name: EXTENSION,
    permits: 1,
    count: 1,
    holder: processAt(system, index).holder,
    peer: {},
    nowMillis: NOW,
    leaseMillis: config.leaseMillis,
    ...(urgent === undefined ? {} : { enqueueMillis: config.ticketMillis, urgent }),
    ...(presumedDead.length === 0 ? {} : { presumedDead })
  })
  return { outcome, taken: withWorld(system, { table }) }
}

/** The grant of what was taken, and that turns can be had from here on. */
export const hold = (
  { index, rules }: At,
  system: System,
  keeping: Extract<LeaseMachine.State, { _tag: "Held" }>
): { readonly grant: Grant; readonly held: System; readonly isDirty: boolean } => {
  const { holder, validGeneration } = processAt(system, index)
  const fence: Lease.Fence = { name: EXTENSION, holder, generation: keeping.generation }
  const isDirty = rules.isDirty(validGeneration, keeping.generation)
  const grant: Grant = { fence, keeping, listens: true, watched: false, wanted: "no" }
  return { grant, isDirty, held: withProcess(system, index, { work: null, grant, turns: { loaded: !isDirty } }) }
}

export const release = ({ rules }: At, system: System, fence: Lease.Fence): System => {
  const { handoverMillis } = config
  const [table] = rules.release(system.world.table, { fence, nowMillis: NOW, handoverMillis })
  return withWorld(system, { table })
}

export const leave = ({ index, rules }: At, system: System): System => {
  const { holder } = processAt(system, index)
  const { handoverMillis } = config
  const [table] = rules.leave(system.world.table, { holder, nowMillis: NOW, handoverMillis })
  return withWorld(system, { table })
}

/** How an actor is told of its grant. */
export interface Told {
  lost(system: System, grant: Grant): System
  /** Each way in which it may hear that another needs the lease, in words. */
  readonly wanted: ReadonlyArray<{ readonly words: string; tell(system: System, grant: Grant): System }>
}

const asHeld = (state: LeaseMachine.State): Grant["keeping"] => {
  if (state._tag !== "Held" && state._tag !== "Lost") throw new Error(`a lease that is kept is ${state._tag}`)
  return state
}

/** What becomes of a lease that is kept, after something that its keeper was told. */
const keep = ({ index, rules }: At, told: Told, system: System, grant: Grant, input: LeaseMachine.Input): System => {
  const [state, commands] = rules.leaseStep(config, grant.keeping, input)
  const keeping = asHeld(state)
  const renew = commands.find((command) => command._tag === "RenewAfter")
  const listens = renew?._tag === "RenewAfter" ? renew.asked : grant.listens
  const kept = { ...grant, keeping, listens }
  const next = withProcess(system, index, { grant: kept })
  return keeping._tag === "Lost" && grant.watched ? told.lost(next, kept) : next
}

/** What the fibers do that keep a lease. */
export const keepingMoves = (at: At, told: Told, system: System, grant: Grant): ReadonlyArray<Move> => {
  const { index, rules } = at
  const { asked, name } = processAt(system, index)
  const { fence, keeping } = grant
  if (keeping._tag !== "Held") return []
  const moves: Array<Move> = []
  const push = (words: string, next: System, isFault = false): void => {
    moves.push({ words: `${name} ${words}`, isFault, next })
  }
  if (grant.listens && asked) {
    push(
      "hears that a peer asks",
      keep(at, told, withProcess(system, index, { asked: false }), grant, { _tag: "Asked" })
    )
  }
  const { leaseMillis } = config
  const [table, outcome] = rules.renew(system.world.table, { fence, nowMillis: NOW, leaseMillis })
  const renewed = withWorld(system, { table })
  push(
    `renews: ${outcome._tag === "NotHeld" ? "not held" : "renewed"}`,
    keep(at, told, renewed, grant, { _tag: "RenewAnswered", outcome, nowMillis: NOW })
  )
  if (system.world.budget.faults > 0) {
    push("can't renew", keep(at, told, spend(system, "faults"), grant, { _tag: "RenewFailed", nowMillis: NOW }), true)
  }
  if (keeping.wanted && grant.watched && grant.wanted === "no") {
    for (const { tell, words } of told.wanted) push(words, tell(system, grant))
  }
  return moves
}

/** What a process that is quiet must not have, or `undefined` (invariant I4). */
const unquiet = (system: System, { holder, life, name }: Process): string | undefined => {
  const { rows, waiters } = system.world.table
  const is = life === "suspended" ? "is suspended" : "has ended"
  if (rows.some((row) => row.holder === holder && row.expiresAtMillis > NOW))
    return `I4: ${name} ${is} and owns the lease`
  return waiters.some((waiter) => waiter.holder === holder) ? `I4: ${name} ${is} and waits for the lease` : undefined
}

/** A step after which a process may be quiet, in order. */
export const quietly = (words: string, index: number, next: System, isFault: boolean): Move => {
  const process = processAt(next, index)
  const isQuiet = process.life === "suspended" || process.life === "dead"
  const violation = isQuiet ? unquiet(next, process) : undefined
  return { words, isFault, next, ...(violation && { violation }) }
}
