/**
 * The invariants as functions: each is given facts, and says in a sentence what is wrong, or `undefined` when nothing is.
 *
 * Includes I1, I2, I3, I4, I5, I6, I7, I9 and I10. I8 is the simulation itself: the same schedule twice gives the same
 * digest.
 *
 * Not here: how the facts are gathered (`SimLook.ts`, `SimRecord.ts`, `SimPorts.ts`), encryption (`SimCipherWatch.ts`).
 */
import type { Lease, NotificationItem, Room, SyncServiceMachine, SyncStore } from "@twinloop/core"
import type { HomeserverModel } from "@twinloop/core/testing"

type Verdict = string | undefined

/** Everything about one process whose loops are meant to run, or not to, at one moment. */
export interface ProcessFacts {
  readonly name: string
  readonly nowMillis: number
  /** Suspended or stopped, and it was said that it is quiet. */
  readonly isQuiet: boolean
  /** Started, not suspended, alive and not frozen. */
  readonly shouldRun: boolean
  readonly state: SyncServiceMachine.ServiceState
  /** Fibers beyond those of a process that does nothing. */
  readonly fibers: number
  readonly requests: ReadonlyMap<string, number>
  readonly calls: ReadonlyMap<string, number>
  readonly ownsLease: boolean
  readonly disturbedUntil: { readonly main: number; readonly extension: number }
  readonly isTerminalExcused: boolean
  /** Processes' clocks are so far apart that each takes the other's lease for one that is over. */
  readonly isSkewed: boolean
}

/** Everything that is shared, at one moment. */
export interface SharedFacts {
  readonly since: number
  readonly ledger: ReadonlyArray<HomeserverModel.LedgerEntry>
  /** Rows of the inbox so far, oldest first. */
  readonly inbox: ReadonlyArray<SyncStore.InboxEntry>
  /** To-device events in quarantine. */
  readonly quarantinedToDevice: number
  readonly quarantineKept: number
  readonly quarantineRows: number
  readonly table: Lease.LeaseTable
  readonly processes: number
  readonly engineViolations: ReadonlyArray<string>
  readonly defects: ReadonlyArray<string>
}

/** After its last disturbance, a loop is in sync within this: the longest backoff, a poll, and its limit. */
export const RECOVERY_MILLIS = 150_000

/** More fibers than this has no process at work. */
const FIBER_LIMIT = 150

/** A room as it is stored: who is typing isn't. */
export const roomText = (room: Room.Room): string => JSON.stringify({ ...room, typing: [] })

const isWellFormed = ({ content }: HomeserverModel.LedgerEntry): boolean => typeof content === "object"

const numberOf = (content: unknown): unknown =>
  typeof content === "object" && content !== null && "number" in content ? content.number : undefined

const busyOnes = (counts: ReadonlyMap<string, number>): ReadonlyArray<string> =>
  [...counts].flatMap(([name, count]) => (count > 0 ? [name] : []))

/** I1: whoever has just committed is the owner whom the lease row names. */
export const oneOwner = (
  fence: { readonly holder: string; readonly generation: number },
  row: Lease.LeaseRow | undefined,
  what: string
): Verdict =>
  row?.holder === fence.holder && row.generation === fence.generation
    ? undefined
    : `${fence.holder} did ${what} under generation ${fence.generation}, while ${row?.holder ?? "nobody"} owns the stream under generation ${row?.generation ?? 0}`

/** I1: generations in the inbox never go back. */
export const generationsGrow = ({ inbox }: SharedFacts): Verdict => {
  const index = inbox.findIndex((entry, at) => at > 0 && entry.generation < (inbox[at - 1]?.generation ?? 0))
  const entry = inbox[index]
  return entry === undefined
    ? undefined
    : `inbox row ${entry.sequence} was committed under generation ${entry.generation}, after a row of generation ${inbox[index - 1]?.generation}`
}

/** I2: the inbox has what the homeserver accepted up to the stored `since`: all of it, nothing else, once, in order. */
export const exactlyOnceInOrder = ({ inbox, ledger, since }: SharedFacts): Verdict => {
  const expected = ledger.filter((entry) => entry.stream <= since && isWellFormed(entry))
  for (let index = 0; index < Math.max(expected.length, inbox.length); index++) {
    const entry = inbox[index]
    // A message that its sender sends again has the number that it had.
    const wanted = numberOf(expected[index]?.content)
    const applied = numberOf(entry?.event.content)
    if (applied === wanted && (entry === undefined || entry.sequence === index + 1)) continue
    return `inbox row ${index + 1} should be to-device event ${wanted === undefined ? "none" : String(wanted)} and is ${entry === undefined ? "missing" : String(applied)}; since ${since} is stored, ${inbox.length} rows are there, ${expected.length} should be`
  }
  return undefined
}

/** I2: what the homeserver has deleted because it was acknowledged is stored. */
export const acknowledgedIsStored = ({ ledger, since }: SharedFacts): Verdict => {
  const lost = ledger.find(({ acknowledgedAtMillis, stream }) => acknowledgedAtMillis !== undefined && stream > since)
  return lost === undefined
    ? undefined
    : `to-device event ${lost.number} was acknowledged, so the homeserver has deleted it, and isn't stored (since ${since})`
}

/** I3, I9: a loop that nothing has disturbed for a while is in sync, whatever the other one does. */
export const independentLoops = (facts: ProcessFacts): Verdict => {
  if (!facts.shouldRun) return undefined
  const { extension, main } = facts.state
  const hasGivenUp = (loop: "main" | "extension") => facts.isTerminalExcused && facts.state[loop]._tag === "Failed"
  const isDue = (loop: "main" | "extension") =>
    !hasGivenUp(loop) && facts.nowMillis > facts.disturbedUntil[loop] + RECOVERY_MILLIS
  if (isDue("main") && main._tag !== "Syncing") {
    return `the main loop of ${facts.name} is ${main._tag}, though nothing has disturbed it since ${facts.disturbedUntil.main} ms`
  }
  return !facts.isSkewed && isDue("extension") && !["Syncing", "WaitingForLock", "TakingLock"].includes(extension._tag)
    ? `the extension loop of ${facts.name} is ${extension._tag}, though nothing has disturbed it since ${facts.disturbedUntil.extension} ms`
    : undefined
}

/** I4: who was told that everything is quiet finds nothing that runs. */
export const stoppedIsQuiet = (facts: ProcessFacts): Verdict => {
  if (!facts.isQuiet) return undefined
  const requests = busyOnes(facts.requests)
  const calls = busyOnes(facts.calls)
  if (requests.length > 0) return `${facts.name} is quiet, and waits for ${requests.join(", ")}`
  if (calls.length > 0) return `${facts.name} is quiet, and is in the database for ${calls.join(", ")}`
  if (facts.ownsLease && !facts.isTerminalExcused && !facts.isSkewed)
    return `${facts.name} is quiet, and owns the extension stream`
  return facts.fibers > 0 ? `${facts.name} is quiet, and ${facts.fibers} of its fibers run` : undefined
}

/** I4: who was told that everything is quiet finds no push unresolved that was there when he asked for it. */
export const pushesAreOver = (
  name: string,
  pushes: ReadonlyArray<{ readonly result?: unknown; readonly startedAtMillis: number }>
): Verdict => {
  const open = pushes.find(({ result }) => result === undefined)
  return open === undefined
    ? undefined
    : `${name} is quiet, and still resolves a push of ${open.startedAtMillis} ms, which came before quiet was asked for`
}

/** I5: memory was used as it may be. */
export const validMemory = ({ engineViolations }: SharedFacts): Verdict =>
  engineViolations[0] === undefined ? undefined : `the end-to-end machine was used wrongly: ${engineViolations[0]}`

/** I6: every room that an application is told of was committed as it is told. */
export const publishedIsStored = (
  name: string,
  rooms: ReadonlyArray<Room.Room>,
  isCommitted: (text: string) => boolean
): Verdict => {
  const room = rooms.find((room) => !isCommitted(roomText(room)))
  return room === undefined
    ? undefined
    : `${name} tells of room ${room.roomId} (${room.displayName}) as it has never been committed`
}

/** I6: a timeline that is kept open shows what a look at the store shows. */
export const liveIsStored = (name: string, live: ReadonlyArray<unknown>, stored: ReadonlyArray<unknown>): Verdict => {
  const index = stored.findIndex((item, at) => JSON.stringify(item) !== JSON.stringify(live[at]))
  if (index === -1 && live.length === stored.length) return undefined
  const at = index === -1 ? stored.length : index
  return `the open timeline of ${name} shows ${live.length} entries of ${stored.length}; entry ${at} is ${JSON.stringify(live[at])}, and ${JSON.stringify(stored[at])} is stored`
}

/** I6: the application handles only rows that are stored. */
export const handledIsStored = (name: string, sequence: number, lastSequence: number): Verdict =>
  sequence <= lastSequence
    ? undefined
    : `${name} hands over inbox row ${sequence}, while ${lastSequence} is the last one that is stored`

/** I2: a consumer is passed over no row. */
export const handledInOrder = (name: string, sequence: number, handled: number): Verdict =>
  sequence <= handled + 1 ? undefined : `${name} hands over inbox row ${sequence} after ${handled}`

/** I7: what was malformed up to the stored `since` is in quarantine, each once. */
export const malformedIsCounted = ({ ledger, quarantinedToDevice, since }: SharedFacts): Verdict => {
  const malformed = ledger.filter((entry) => entry.stream <= since && !isWellFormed(entry)).length
  return malformed === quarantinedToDevice
    ? undefined
    : `${malformed} malformed to-device events have come up to since ${since}, and ${quarantinedToDevice} are in quarantine`
}

/** I7: nothing that arrives, and no fault, is a defect. */
export const noDefect = ({ defects }: SharedFacts): Verdict =>
  defects[0] === undefined ? undefined : `a defect: ${defects[0]}`

/** I9: a loop gives up only after what it can't recover from. */
export const terminalIsEarned = (facts: ProcessFacts): Verdict =>
  facts.state._tag !== "Terminal" || facts.isTerminalExcused
    ? undefined
    : `the ${facts.state.loop} loop of ${facts.name} has given up: ${facts.state.failure.message}`

/** I10: one request per connection, and so many fibers. */
export const boundedProcess = (facts: ProcessFacts): Verdict => {
  const doubled = [...facts.requests].find(([key, count]) => key.startsWith("sync ") && count > 1)
  if (doubled !== undefined) return `${facts.name} has ${doubled[1]} requests at once for ${doubled[0]}`
  return facts.fibers > FIBER_LIMIT ? `${facts.name} has ${facts.fibers} fibers` : undefined
}

/** I10: the queue for the lease, and the quarantine, are no longer than they may be. */
export const boundedStore = (facts: SharedFacts): Verdict => {
  if (facts.table.waiters.length > facts.processes) {
    return `${facts.table.waiters.length} wait for the extension stream, of ${facts.processes} processes that there ever were`
  }
  return facts.quarantineRows > facts.quarantineKept
    ? `${facts.quarantineRows} rows are in quarantine, ${facts.quarantineKept} may be`
    : undefined
}

/** I10: a push has a result at its deadline. */
export const notifiedInTime = (
  name: string,
  startedAtMillis: number,
  deadlineMillis: number,
  nowMillis: number
): Verdict =>
  nowMillis <= startedAtMillis + deadlineMillis
    ? undefined
    : `${name} has no result ${nowMillis - startedAtMillis} ms after its push; ${deadlineMillis} ms are its deadline`

/** I9: with all faults over, what the homeserver has is what is stored, and somebody owns the stream. */
export const backInSync = (facts: SharedFacts, owners: number, behind: ReadonlyArray<string>): Verdict => {
  const last = facts.ledger.findLast(isWellFormed)
  if (last !== undefined && last.stream > facts.since) {
    return `all faults are over, and to-device event ${last.number} (stream ${last.stream}) isn't applied; since ${facts.since} is stored`
  }
  if (owners !== 1) return `all faults are over, and ${owners} processes own the extension stream`
  return behind[0] === undefined ? undefined : `all faults are over, and ${behind[0]}`
}

/** What became of a push, and what was in its way. */
export interface NotifiedFacts {
  readonly name: string
  readonly result: NotificationItem.NotificationResult
  /** What the sender wrote. */
  readonly body: string
  /** The process was stopped or interrupted. */
  readonly isExcused: boolean
  /** Its requests, or the homeserver, were disturbed. */
  readonly isDisturbed: boolean
  /** How long ago the message's key was committed; absent when it wasn't, or there is none. */
  readonly keyIsThereForMillis: number | undefined
}

/** A key that is stored for so long is found by whoever waits for it, whether or not a signal told of it. */
export const KEY_NOTICED_MILLIS = 3_000

/** I7: what is shown is what was written; and when nothing is shown, there is a reason. */
export const notifiedTruly = (facts: NotifiedFacts): Verdict => {
  const { body, isDisturbed, isExcused, keyIsThereForMillis, name, result } = facts
  switch (result._tag) {
    case "Event": {
      const shown = result.item.event.content.body
      return shown === body ? undefined : `${name} shows ${JSON.stringify(shown)}, and "${body}" was written`
    }
    case "Undecrypted": {
      if (result.reason !== "MissingRoomKey") return `${name} can't read "${body}": ${result.message}`
      return isExcused || keyIsThereForMillis === undefined || keyIsThereForMillis <= KEY_NOTICED_MILLIS
        ? undefined
        : `${name} can't read "${body}", whose key is stored for ${keyIsThereForMillis} ms: ${result.message}`
    }
    case "FilteredOut":
    case "Redacted":
      return `${name} doesn't show "${body}": ${result.message}`
    case "NotFound":
    case "Expired":
    case "Failed":
      return isExcused || isDisturbed
        ? undefined
        : `${name} doesn't show "${body}", though nothing was in its way: ${result._tag}, ${result.message}`
  }
}
