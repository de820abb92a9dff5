/**
 * What happens to every process of the model: it is started, it does what its role does, it is killed.
 *
 * A frozen process is one that does nothing while others do: nothing needs to be said about that.
 *
 * Not here: what an application does (`Application.ts`), what a process does that a push has started (`Notification.ts`).
 */
import * as Application from "./Application.ts"
import * as Notification from "./Notification.ts"
import type { Rules } from "./Rules.ts"
import { type Process, processAt, spend, type System, withProcess } from "./System.ts"
import type { Move } from "./World.ts"

/** The parts of a process that don't outlive it. */
const unborn = { grant: null, validGeneration: null, turns: null, memory: null, asked: false } as const

/** An application whose loop has just been started. */
export const application = (rules: Rules, name: string): Process => ({
  role: "application",
  name,
  holder: rules.holderOf(name, 0),
  life: "runs",
  ...Application.started,
  ...unborn,
  hurries: false
})

/** A process that no push has started yet. */
export const notification = (rules: Rules, name: string): Process => ({
  role: "notification",
  name,
  holder: rules.holderOf(name, 0),
  life: "dead",
  ...Notification.ended,
  ...unborn
})

/** A holder's id that nobody remembers stands for one that was never used. */
const freshHolder = (rules: Rules, system: System, name: string): string => {
  const text = JSON.stringify(system)
  const starts = Array.from({ length: 20 }, (_, at) => rules.holderOf(name, at))
  return starts.find((holder) => !text.includes(JSON.stringify(holder))) ?? rules.holderOf(name, 0)
}

/** A process that is dead is started: an application by whoever runs it, another one by a push. */
const startMoves = (rules: Rules, events: number, system: System, index: number): ReadonlyArray<Move> => {
  const { name, role } = processAt(system, index)
  const holder = freshHolder(rules, withProcess(system, index, { holder: "" }), name)
  if (role === "application") {
    const next = withProcess(system, index, { ...Application.started, ...unborn, hurries: false, life: "runs", holder })
    return [{ words: `${name} is started again`, isFault: false, next }]
  }
  if (system.world.budget.pushes === 0) return []
  const begun = withProcess(spend(system, "pushes"), index, { ...unborn, life: "runs", holder })
  return Notification.startMoves(begun, index, events)
}

/** Everything that a process can do next, or that can be done to it, when there will be so many events. */
export const moves = (
  rules: Rules,
  { events, fine }: { readonly events: number; readonly fine: boolean },
  system: System,
  index: number
): ReadonlyArray<Move> => {
  const { life, name, role } = processAt(system, index)
  if (life === "dead") return startMoves(rules, events, system, index)
  const at = { rules, index, fine }
  const moves = role === "application" ? Application.moves(at, system) : Notification.moves(at, system)
  if (system.world.budget.crashes === 0) return moves
  const end = role === "application" ? { ...Application.started, mailbox: [], hurries: false } : Notification.ended
  const next = withProcess(spend(system, "crashes"), index, { ...end, ...unborn, life: "dead" })
  return [...moves, { words: `${name} is killed`, isFault: true, next }]
}
