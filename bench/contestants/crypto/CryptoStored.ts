/** A message of the account as it is stored, for processes that show one and end. */
import { SyncStore } from "@twinloop/core"
import { Effect } from "effect"

const ROOM = "!room0:bench"

/** Its room and the event, encrypted. */
export const storedMessage = Effect.gen(function* () {
  const store = yield* SyncStore.SyncStore
  const event = yield* store.event("main", ROOM, "$event0")
  return event === undefined ? yield* Effect.die(new Error("the message isn't stored")) : { roomId: ROOM, event }
})
