/**
 * The turns of a process at its end-to-end machine (`CryptoTurn.ts`), as far as others can tell: memory is current or it is
 * not, and a turn that ends otherwise than well leaves it void.
 *
 * Not here: who takes a turn (`Application.ts`, `Notification.ts`), what is committed (`World.ts`).
 */
import type * as Lease from "../../src/lease/Lease.ts"
import type { ErrorClass, Failed } from "../../src/sync/SupervisionPolicy.ts"
import type { Rules } from "./Rules.ts"
import { NOW, processAt, type System, withProcess } from "./System.ts"

/** One process in its system, under some rules. */
export interface At {
  readonly rules: Rules
  readonly index: number
  readonly fine: boolean
}

export const failed = (one: ErrorClass): Failed => ({
  failure: { class: one, message: "" },
  nowMillis: NOW,
  random: 0
})

/** What a process has that takes void memory for loaded. */
const outdated = { current: false, touched: false, outgoing: false }

/** A turn begins: the grant is dirty until its commit is done, and memory is loaded unless it is. */
export const begin = (system: System, index: number): System => {
  const { memory, turns } = processAt(system, index)
  if (turns?.loaded === true) return withProcess(system, index, { validGeneration: null, memory: memory ?? outdated })
  const fresh = { current: true, touched: false, outgoing: system.world.outgoing }
  return withProcess(system, index, { validGeneration: null, turns: { loaded: true }, memory: fresh })
}

/** Memory is changed; what an earlier turn left half-applied makes it worthless. */
export const touch = (system: System, index: number): System => {
  const memory = processAt(system, index).memory ?? outdated
  return withProcess(system, index, {
    memory: { ...memory, touched: true, current: memory.current && !memory.touched }
  })
}

/** A turn has ended well. */
export const end = (system: System, index: number, fence: Lease.Fence): System =>
  withProcess(system, index, { validGeneration: fence.generation })

/** A turn ended otherwise than well. */
export const voided = ({ index, rules }: At, system: System): System => {
  const { turns } = processAt(system, index)
  if (!rules.voids) return withProcess(system, index, { validGeneration: null })
  return withProcess(system, index, {
    validGeneration: null,
    memory: null,
    turns: turns === null ? null : { loaded: false }
  })
}

/** A turn failed; no other begins when the stream has another owner. */
export const failedBy = (at: At, system: System, one: ErrorClass): System => {
  const next = voided(at, system)
  return one === "stale" ? withProcess(next, at.index, { turns: null }) : next
}
