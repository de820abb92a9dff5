/** Sees what passes between a process and its homeserver. */
import type { Homeserver, SlidingSync } from "@twinloop/core"
import { Effect } from "effect"

export interface Exchange {
  readonly request: SlidingSync.SyncRequest
  readonly response: SlidingSync.SyncResponse
}

/** Keeps every sync that was answered, oldest first. */
export const recordSyncs = () => {
  const exchanges: Array<Exchange> = []
  const homeserver = (port: Homeserver.Homeserver["Service"]): Homeserver.Homeserver["Service"] => ({
    ...port,
    sync: (request) =>
      Effect.tap(port.sync(request), (response) => Effect.sync(() => void exchanges.push({ request, response })))
  })
  return { exchanges, homeserver }
}
