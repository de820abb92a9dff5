/**
 * What stands between a simulated homeserver and its clients: scripted faults, a network that can go, and a log.
 *
 * Reached through `HomeserverSim.ts`, which puts calls through it.
 */
import { Effect } from "effect"
import type { DeviceId } from "../../matrix/MatrixEvent.ts"
import type { SyncRequest } from "../../matrix/SlidingSync.ts"
import type { Session } from "../../sync/Homeserver.ts"
import * as Errors from "../../sync/HomeserverError.ts"

/** Operations of the port, as they are named in errors, faults and the log. */
export type Operation =
  | "versions"
  | "sync"
  | "send"
  | "state"
  | "sendToDevice"
  | `keys/${string}`
  | "members"
  | "context"
  | "pushers"
  | "pushers/set"
  | "thread/subscription"

/** How a call is spoilt. */
export type FaultEffect =
  /** The call fails; the homeserver has not seen it. */
  | { readonly _tag: "Fail"; readonly reason: Errors.HomeserverErrorReason }
  /** The homeserver never answers, and does nothing. */
  | { readonly _tag: "Hang" }
  /** The homeserver does its work, and the answer is under way for this long. */
  | { readonly _tag: "Late"; readonly millis: number }
  /** A sync is answered with this JSON, whatever it is. */
  | { readonly _tag: "Reply"; readonly json: unknown }

/** A scripted fault: which calls, how many, and how. */
export interface Fault {
  /** Which calls it concerns: all, without these. */
  readonly operation?: Operation
  readonly connId?: string
  readonly deviceId?: DeviceId
  /** How many calls it spoils; for ever when absent. */
  readonly times?: number
  readonly effect: FaultEffect
}

/** A fault that was injected. */
export interface InjectedFault {
  /** How many calls it has spoilt. */
  readonly hits: Effect.Effect<number>
  readonly remove: Effect.Effect<void>
}

/** One call as the homeserver saw it. `aborted`: the client ended it before the answer. */
export interface SeenRequest {
  readonly id: number
  readonly operation: Operation
  readonly session: Session
  /** Of a sync. */
  readonly request?: SyncRequest
  readonly startedAtMillis: number
  endedAtMillis?: number
  outcome: "pending" | "answered" | "failed" | "aborted"
}

const logLimit = 10_000

/** What a call fails with while the homeserver is unreachable. */
export const unreachableReason = (): Errors.NetworkError =>
  new Errors.NetworkError({ message: "the simulated homeserver is unreachable", timedOut: false })

interface Plan {
  readonly fault: Fault
  hits: number
}

/** The faults that are in force. */
export const makeFaults = () => {
  const plans = new Set<Plan>()
  const fits = ({ fault }: Plan, operation: Operation, session: Session, connId: string | undefined): boolean =>
    (fault.operation === undefined || fault.operation === operation) &&
    (fault.connId === undefined || fault.connId === connId) &&
    (fault.deviceId === undefined || fault.deviceId === session.deviceId)
  const inject = (fault: Fault): Effect.Effect<InjectedFault> =>
    Effect.sync(() => {
      const plan: Plan = { fault, hits: 0 }
      plans.add(plan)
      return { hits: Effect.sync(() => plan.hits), remove: Effect.sync(() => void plans.delete(plan)) }
    })
  /** The fault for this call, if one fits; it counts as used. */
  const next = (operation: Operation, session: Session, connId: string | undefined): FaultEffect | undefined => {
    for (const plan of plans) {
      if (!fits(plan, operation, session, connId)) continue
      plan.hits += 1
      if (plan.fault.times !== undefined && plan.hits >= plan.fault.times) plans.delete(plan)
      return plan.fault.effect
    }
    return undefined
  }
  return { inject, next }
}

/** The log of calls. */
export const makeLog = () => {
  const requests: Array<SeenRequest> = []
  let lastId = 0
  const start = (entry: Pick<SeenRequest, "operation" | "session" | "request" | "startedAtMillis">): SeenRequest => {
    const seen: SeenRequest = { id: ++lastId, ...entry, outcome: "pending" }
    requests.push(seen)
    if (requests.length > logLimit) requests.shift()
    return seen
  }
  return { requests, start }
}

/** Whether the homeserver can be reached, and a way to cut what is in flight. */
export const makeNetwork = () => {
  const inFlight = new Set<() => void>()
  let isUp = true
  const cut: Effect.Effect<never, Errors.HomeserverErrorReason> = Effect.callback((resume) => {
    const fail = () => resume(Effect.fail(unreachableReason()))
    if (!isUp) return fail()
    inFlight.add(fail)
    return Effect.sync(() => inFlight.delete(fail))
  })
  const set = (up: boolean) =>
    Effect.sync(() => {
      isUp = up
      if (!up) inFlight.forEach((fail) => fail())
    })
  return { cut, set, isUp: () => isUp }
}
