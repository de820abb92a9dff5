/**
 * The application: shows the room list and the inbox as they change.
 *
 * It knows nothing of HTTP, SQLite or processes; those come as one Layer (`main.ts`).
 */
import { Inbox } from "@twinloop/actors"
import { ListDiff, type Room, RoomList } from "@twinloop/core"
import { Console, Effect, Ref, Stream } from "effect"

/** Rooms that fit the screen. */
const SHOWN = 5

const describe = (change: ListDiff.Diff<Room.Room>): string => {
  switch (change._tag) {
    case "Reset":
      return `${change.entries.length} rooms`
    case "Insert":
      return `"${change.entry.displayName}" comes in at ${change.index}`
    case "Remove":
      return `the room at ${change.index} goes away`
    case "Move":
      return `the room at ${change.from} moves to ${change.to}`
    case "Set":
      return `"${change.entry.displayName}" at ${change.index} changes`
  }
}

/** Applies each series of changes to the list on the screen, and prints both. */
export const showRooms = Effect.gen(function* () {
  const rooms = yield* RoomList.RoomList
  const { stream } = yield* rooms.entries()
  const screen = yield* Ref.make<ReadonlyArray<Room.Room>>([])
  yield* Stream.runForEach(
    stream,
    Effect.fnUntraced(function* (changes) {
      const entries = yield* Ref.updateAndGet(screen, (before) => ListDiff.applyAll(before, changes))
      const names = entries.slice(0, SHOWN).map((room) => room.displayName)
      yield* Console.log(`rooms: ${changes.map(describe).join("; ")} -> ${names.join(", ")}`)
    })
  )
}).pipe(Effect.scoped)

/** Prints each to-device event once, also those that came while this program wasn't running. */
export const showInbox = Effect.flatMap(Inbox.Inbox, (inbox) =>
  inbox.consume("minimal", (entry) => Console.log(`inbox: ${entry.sequence} ${entry.type} from ${entry.sender}`))
)
