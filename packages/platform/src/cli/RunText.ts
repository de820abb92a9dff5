/** What `twinloop run` prints for people: one line per event, and one that changes while rooms are loaded. */
import * as Printable from "../Printable.ts"
import type { RunEvent } from "./RunEvent.ts"

type StateEvent = Extract<RunEvent, { event: "state" }>
type Status = StateEvent["main"]

const loop = (status: Status): string => {
  switch (status._tag) {
    case "Stopped":
      return "stopped"
    case "TakingLock":
      return "taking the stream"
    case "WaitingForLock":
      return "waiting: another process owns the stream"
    case "Loading":
      return status.total === undefined ? "loading" : `loading, ${status.loaded ?? 0} of ${status.total} rooms`
    case "Syncing":
      return status.generation === undefined
        ? "in sync"
        : `in sync, owner of the stream (generation ${status.generation})`
    case "BackingOff":
      return `trying again: ${status.failure.message}`
    case "Failed":
      return `given up: ${status.failure.message}`
  }
}

const states = (event: StateEvent): string => {
  const [main, extension] = [loop(event.main), loop(event.extension)]
  const loops = main === extension ? `both loops: ${main}` : `main: ${main}; extension: ${extension}`
  return `${event.state.toLowerCase()}  ${loops}`
}

/** What has been printed of the service's states. */
export interface Printed {
  readonly line: string
  /** Why it is offline, as far as that has been said since it is. */
  readonly reasons: ReadonlyArray<string>
  /** Whether it said how far loading has come. */
  readonly isLoading: boolean
}

export const nothingPrinted: Printed = { line: "", reasons: [], isLoading: false }

/** What to print for a state: a line that stays, or how far it has come, in place of the line that said so before. */
export interface Said {
  readonly text: string
  readonly isProgress: boolean
}

const reasonsOf = ({ extension, main }: StateEvent): ReadonlyArray<string> =>
  [main, extension].flatMap((status) => (status._tag === "BackingOff" ? [status.failure.message] : []))

/**
 * What to say of a state, or nothing when it says nothing new: the same words again, or, while the service is offline,
 * another try that fails for a reason that has been told.
 */
export const ofState = (printed: Printed, event: StateEvent): readonly [printed: Printed, said: Said | undefined] => {
  const text = line(event)
  const isLoading = event.main._tag === "Loading" && event.main.total !== undefined
  const said = { text, isProgress: isLoading && printed.isLoading }
  if (event.state !== "Offline") {
    return [{ line: text, reasons: [], isLoading }, text === printed.line ? undefined : said]
  }
  const reasons = new Set([...printed.reasons, ...reasonsOf(event)])
  const isOld = printed.reasons.length > 0 && reasons.size === printed.reasons.length
  return [{ line: text, reasons: [...reasons], isLoading }, isOld ? undefined : said]
}

/** One line for an event, whatever words of others are in it. */
export const line = (event: RunEvent): string => Printable.line(words(event))

const words = (event: RunEvent): string => {
  switch (event.event) {
    case "state":
      return states(event)
    case "rooms":
      return `rooms: ${event.rooms}`
    case "inbox":
      return `to-device ${event.sequence}: ${event.type} from ${event.sender}${event.encryption === "none" ? "" : ` (${event.encryption})`}`
    case "encryption":
      return `encrypted: the key to the end-to-end keys is in ${event.keyFile}; keep it with the database, as safe as a password`
    case "quiet":
      return event.quiet
        ? `quiet after ${event.tookMillis} ms (${event.by})`
        : `not quiet after ${event.tookMillis} ms (${event.by}); still ending: ${event.unfinished.join(", ")}`
  }
}
