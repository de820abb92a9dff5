/**
 * The number on the application's icon: how many joined rooms have something unread.
 *
 * A view of the room list with a filter, and its length: no state of its own that could go wrong.
 */
import { ListDiff, type Room, RoomFilters, RoomList } from "@twinloop/core"
import { Effect, Stream } from "effect"

const unread = RoomFilters.all([RoomFilters.joined, RoomFilters.unread])

/** The number, and then its changes. */
export const changes: Stream.Stream<number, never, RoomList.RoomList> = Stream.unwrap(
  Effect.gen(function* () {
    const rooms = yield* RoomList.RoomList
    const { stream } = yield* rooms.entries({ filter: unread })
    return stream.pipe(
      Stream.scan((): ReadonlyArray<Room.Room> => [], ListDiff.applyAll),
      Stream.map((entries) => entries.length),
      Stream.changes
    )
  })
)
