/**
 * What can be met in a simulation, by name: every kind of fault, and what people and platforms do at a bad moment.
 *
 * Includes which kind a request's or a store's fault is of. A kind is counted when it has done something to somebody, and not
 * when it was only drawn.
 *
 * Not here: drawing them (`SimSchedule.ts`), doing them (`SimPorts.ts`, `SimSteps.ts`).
 */
import type { HttpFault, Operation, StoreFault } from "./SimSchedule.ts"

/** Every kind, with what it is. */
export const FAULTS = {
  // The network and the homeserver.
  requestLost: "a request that the homeserver never sees",
  answerLost: "an answer that is lost, after the homeserver has done what was asked",
  answerLostAtProxy: "the same, with a proxy that says 502",
  answerLate: "an answer that comes late",
  requestLate: "a request that arrives when the client has long asked anew: out of order",
  requestTwice: "a request that arrives twice",
  hang: "no answer until the client's own limit",
  outage: "no network for a while",
  badRequest: "400",
  loggedOut: "401, for good",
  forbidden: "403",
  notFound: "404",
  rateLimited: "429",
  serverError: "5xx",
  noJson: "a body that is no JSON",
  positionsExpired: "the homeserver forgets positions of connections",
  tokenExpired: "the access token ends",
  malformedToDevice: "a to-device event that is none",
  malformedEvent: "an event of a room that is none",
  toDeviceRepeated: "a to-device message that its sender sends again",
  toDeviceHeld: "to-device messages that the homeserver keeps back for a while",
  keyLate: "a room key that comes after the message that needs it",
  // Processes.
  killed: "a process is killed",
  killedAtRequest: "a process is killed as it asks, or as it is answered",
  killedAtStore: "a process is killed before or after a call of the database",
  killedBeforePublishing: "a process is killed between a commit and telling of it",
  restarted: "a process is started after another one of its role was killed",
  frozen: "a process is stopped, and goes on later",
  frozenAtStore: "a process is stopped in the middle of a call of the database",
  notifierDisturbed: "a process that a push has started is killed, stopped or interrupted",
  // Clocks.
  clockStepped: "the host's clock is set",
  clocksApart: "the clock of one process is set, and not that of the others",
  // The disk.
  diskFull: "nothing can be written for a while",
  diskFailing: "nothing can be read or written for a while",
  storeBusy: "another process writes for too long",
  storeFull: "one call finds no room",
  storeReadOnly: "one call finds that it may not write",
  storeFailing: "one call meets an error of the disk",
  commitSlow: "a commit takes long",
  commitTwice: "the database is given a commit twice",
  storeSlow: "another call of the database takes long",
  // Signals between processes.
  signalsLost: "signals between processes are lost",
  signalsLate: "they come late, and out of order",
  signalsTwice: "they come twice",
  // What people and platforms do.
  windowChanged: "the list is scrolled, or a room opened",
  stopped: "the loops are stopped",
  suspended: "a process is suspended",
  positionsDropped: "the application forgets its positions",
  pushed: "a push that a process of its own resolves",
  pushedToApplication: "a push that the application resolves",
  pushedWhileSuspending: "a push that is being resolved as the application is suspended",
  sent: "the application sends a message",
  sentEncrypted: "the application sends an encrypted message"
} as const

/** A kind of fault. */
export type FaultKind = keyof typeof FAULTS

/** All of them. */
export const KINDS = Object.keys(FAULTS) as ReadonlyArray<FaultKind>

const refusals: { readonly [status: number]: FaultKind } = {
  200: "noJson",
  400: "badRequest",
  401: "loggedOut",
  403: "forbidden",
  404: "notFound",
  429: "rateLimited"
}

/** The kind of what happens to a request. */
export const httpKind = (fault: HttpFault): FaultKind => {
  switch (fault._tag) {
    case "LostRequest":
      return "requestLost"
    case "LostAnswer":
      return fault.isProxy ? "answerLostAtProxy" : "answerLost"
    case "LateAnswer":
      return "answerLate"
    case "LateRequest":
      return "requestLate"
    case "Twice":
      return "requestTwice"
    case "Hang":
      return "hang"
    case "Refused":
      return refusals[fault.status] ?? "serverError"
    case "Killed":
      return "killedAtRequest"
  }
}

const storeKinds: { readonly [fault in StoreFault]: FaultKind } = {
  busy: "storeBusy",
  full: "storeFull",
  readOnly: "storeReadOnly",
  failing: "storeFailing"
}

/** The kind of a call of the database that fails. */
export const storeKind = (fault: StoreFault): FaultKind => storeKinds[fault]

/** After these somebody is told of what they have made durable. */
const COMMITS: ReadonlySet<Operation> = new Set(["commitExtension", "commitMain", "commitCrypto"])

/** The kind of a wait at a call of the database. */
export const waitKind = (operation: Operation): FaultKind => (COMMITS.has(operation) ? "commitSlow" : "storeSlow")

/** The kind of a kill at a call of the database. */
export const killKind = (operation: Operation, moment: "before" | "after"): FaultKind =>
  moment === "after" && COMMITS.has(operation) ? "killedBeforePublishing" : "killedAtStore"
