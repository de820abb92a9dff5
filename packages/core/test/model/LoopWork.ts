/**
 * What becomes of a command of the extension loop that takes time (`work` in `ExtensionSync.ts`, `ExtensionBatch.ts`,
 * `OutgoingRequests.ts`), one step for each moment at which somebody else may come between or the process may die.
 *
 * Gotchas: a mailbox keeps its order, so an answer that comes too late is in it before whatever is begun later. What is read
 * and what is loaded counts from the moment at which the store is looked at; between that and the answer, nothing of the
 * process depends on it.
 *
 * Not here: the lease, and what else an application does (`Application.ts`).
 */
import type * as ExtensionLoopMachine from "../../src/sync/ExtensionLoopMachine.ts"
import type { ErrorClass } from "../../src/sync/SupervisionPolicy.ts"
import { applicationAt, NOW, type Running, spend, type System, withProcess, withWorld } from "./System.ts"
import * as Turns from "./Turns.ts"
import type { At } from "./Turns.ts"
import * as World from "./World.ts"
import type { Move } from "./World.ts"

type Input = ExtensionLoopMachine.Input

export const tell = (system: System, index: number, ...inputs: ReadonlyArray<Input>): System =>
  withProcess(system, index, { mailbox: [...applicationAt(system, index).mailbox, ...inputs] })

/** Work is done: its result is in the mailbox. */
export const finish = (system: System, index: number, input: Input): System =>
  tell(withProcess(system, index, { work: null }), index, input)

/** A turn failed, and the loop is told. */
const failTurn = (at: At, system: System, tag: "ReloadFailed" | "ApplyFailed", one: ErrorClass): System =>
  finish(Turns.failedBy(at, system, one), at.index, { _tag: tag, ...Turns.failed(one) })

export const discard = (at: At, system: System): System =>
  applicationAt(system, at.index).turns === null
    ? withProcess(system, at.index, { memory: null })
    : Turns.voided(at, system)

/** Ends what is under way; a turn that is cut short is void. */
export const abort = (at: At, system: System): System => {
  const { work } = applicationAt(system, at.index)
  if (work?._tag !== "Running") return withProcess(system, at.index, { work: null })
  const { command, stage } = work
  const isTurn = command._tag === "Apply" || command._tag === "Reload" || stage === "committed"
  const without = withProcess(system, at.index, { work: null })
  return isTurn ? Turns.voided(at, without) : without
}

/** Hasty answers in a row after which the next one lets the loop rest. */
export const HASTY = 5

/** Begins what takes time. Applying a response changes memory at once; it is durable later. */
export const begin = (at: At, system: System, command: Running["command"]): System => {
  const { index } = at
  const begun = withProcess(system, index, { work: { _tag: "Running", command, stage: "begun" } })
  const { turns } = applicationAt(system, index)
  switch (command._tag) {
    case "Apply":
      return turns === null
        ? failTurnUnbegun(begun, index, "ApplyFailed")
        : Turns.touch(Turns.begin(begun, index), index)
    case "Reload":
      return turns === null
        ? failTurnUnbegun(begun, index, "ReloadFailed")
        : withProcess(begun, index, { validGeneration: null })
    case "SendOutgoing": {
      if (turns === null) return failTurnUnbegun(begun, index, "ApplyFailed")
      const looked = Turns.end(Turns.begin(begun, index), index, command.fence)
      return applicationAt(looked, index).memory?.outgoing === true ? looked : finish(looked, index, sent)
    }
    default:
      return begun
  }
}

const failTurnUnbegun = (system: System, index: number, tag: "ReloadFailed" | "ApplyFailed"): System =>
  finish(system, index, { _tag: tag, ...Turns.failed("stale") })

const sent: Input = { _tag: "Sent", nowMillis: NOW, random: 0 }

/** What can become of a command that is under way. */
export const runningMoves = (at: At, system: System, { command, stage }: Running): ReadonlyArray<Move> => {
  const { index, rules } = at
  const { loop, name, turns } = applicationAt(system, index)
  const spent = system.world.budget.faults > 0 ? spend(system, "faults") : undefined
  const moves: Array<Move> = []
  const push = (words: string, next: System): void =>
    void moves.push({ words: `${name} ${words}`, isFault: false, next })
  const fault = (words: string, make: (from: System) => System): void => {
    if (spent !== undefined) moves.push({ words: `${name} ${words}`, isFault: true, next: make(spent) })
  }
  switch (command._tag) {
    case "Reload": {
      const loaded = Turns.end(Turns.begin(system, index), index, command.fence)
      push("loads the end-to-end machine", finish(loaded, index, { _tag: "Reloaded" }))
      fault("can't load the end-to-end machine", (from) => failTurn(at, from, "ReloadFailed", "store"))
      break
    }
    case "ReadPosition":
      push("reads the position", finish(system, index, { _tag: "PositionRead", position: system.world.position }))
      fault("can't read the position", (from) => finish(from, index, { _tag: "ReadFailed", ...Turns.failed("store") }))
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
        finish(from, index, { _tag: "PollFailed", epoch, ...Turns.failed(one) })
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
        push("confirms the commit", finish(Turns.end(system, index, command.fence), index, { _tag: "Applied" }))
        break
      }
      moves.push(
        ...World.commitMoves(
          system,
          `${name} commits the batch`,
          (from) => World.commitExtension(rules, from, index, command.fence, command.sent.since, command.response),
          (done) => withProcess(done, index, { work: { _tag: "Running", command, stage: "committed" } }),
          (from, one) => failTurn(at, from, "ApplyFailed", one)
        )
      )
      break
    }
    case "SendOutgoing": {
      fault("sends a request, which isn't taken", (from) => finish(from, index, sent))
      if (turns === null) break
      moves.push(
        ...World.commitMoves(
          system,
          `${name} sends a request and commits its answer`,
          (from) => World.commitCrypto(rules, Turns.touch(Turns.begin(from, index), index), index, command.fence),
          (done) => finish(Turns.end(done, index, command.fence), index, sent),
          (from, one) => failTurn(at, from, "ApplyFailed", one)
        )
      )
      break
    }
    case "ExpirePosition": {
      const { pos: _, ...position } = system.world.position
      const fails = (from: System, one: ErrorClass): System =>
        finish(from, index, { _tag: "ExpireFailed", ...Turns.failed(one) })
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
