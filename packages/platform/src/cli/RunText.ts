/** What `twinloop run` prints for people: one line per event. */
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
}

export const nothingPrinted: Printed = { line: "", reasons: [] }

const reasonsOf = ({ extension, main }: StateEvent): ReadonlyArray<string> =>
  [main, extension].flatMap((status) => (status._tag === "BackingOff" ? [status.failure.message] : []))

/**
 * The line for a state, or none when it says nothing new: the same words again, or, while the service is offline, another
 * try that fails for a reason that has been told.
 */
export const stateLine = (
  printed: Printed,
  event: StateEvent
): readonly [printed: Printed, line: string | undefined] => {
  const text = line(event)
  if (event.state !== "Offline") return [{ line: text, reasons: [] }, text === printed.line ? undefined : text]
  const reasons = new Set([...printed.reasons, ...reasonsOf(event)])
  const isOld = printed.reasons.length > 0 && reasons.size === printed.reasons.length
  return [{ line: text, reasons: [...reasons] }, isOld ? undefined : text]
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
    case "quiet":
      return event.quiet
        ? `quiet after ${event.tookMillis} ms (${event.by})`
        : `not quiet after ${event.tookMillis} ms (${event.by}); still ending: ${event.unfinished.join(", ")}`
  }
}
