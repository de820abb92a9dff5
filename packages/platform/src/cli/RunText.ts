/** What `twinloop run` prints for people: one line per event. */
import * as Printable from "../Printable.ts"
import type { RunEvent } from "./RunEvent.ts"

type Status = Extract<RunEvent, { event: "state" }>["main"]

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

/** One line for an event, whatever words of others are in it. */
export const line = (event: RunEvent): string => Printable.line(words(event))

const words = (event: RunEvent): string => {
  switch (event.event) {
    case "state":
      return `${event.state.toLowerCase()}  main: ${loop(event.main)}; extension: ${loop(event.extension)}`
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
