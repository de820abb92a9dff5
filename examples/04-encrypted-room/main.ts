/**
 * Two people talk in an encrypted room, each with a database, a key file and keys of their own.
 *
 *     node examples/04-encrypted-room/main.ts
 *
 * It brings its homeserver with it. Everything of it that isn't the conversation is in `Person.ts`.
 */
import { Rooms } from "@twinloop/actors"
import { DevHomeserver } from "@twinloop/platform/dev"
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect, Fiber, FileSystem, Path, Stream } from "effect"
import * as Person from "./Person.ts"

/** What there is to read in a room, once it is: an entry that waits for its key changes when the key comes. */
const readable = Effect.fnUntraced(function* (roomId: string) {
  const rooms = yield* Rooms.Rooms
  const timeline = yield* rooms.live(roomId, { limit: 20 })
  return timeline.pipe(
    Stream.flatMap((changes) => Stream.fromIterable(changes)),
    Stream.flatMap((change) => Stream.fromIterable(Person.entriesOf(change))),
    Stream.flatMap((item) => Stream.fromIterable(Person.linesOf(item)))
  )
})

/** Prints what somebody sees, until he has read what somebody said. */
const readUntil = (person: Person.Person, roomId: string, last: string) =>
  Effect.gen(function* () {
    const lines = yield* readable(roomId)
    yield* lines.pipe(
      Stream.tap((line) => Console.log(`${person.name} sees: ${line}`)),
      Stream.takeUntil((line) => line.includes(last)),
      Stream.runDrain
    )
  }).pipe(Effect.scoped, Effect.provide(person.context))

const say = (person: Person.Person, roomId: string, body: string) =>
  Effect.flatMap(Rooms.Rooms, (rooms) => rooms.send(roomId, "m.room.message", { msgtype: "m.text", body })).pipe(
    Effect.provide(person.context)
  )

const conversation = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const directory = yield* fs.makeTempDirectoryScoped({ prefix: "twinloop-encrypted-" })
  const { baseUrl, host } = yield* DevHomeserver.DevHomeserver
  const roomId = yield* Person.makeRoom(host)
  const alice = yield* Person.join("alice", baseUrl, path.join(directory, "alice.db"), roomId)
  const bob = yield* Person.join("bob", baseUrl, path.join(directory, "bob.db"), roomId)
  const reading = yield* Effect.forkChild(readUntil(bob, roomId, "nobody else"))
  yield* say(alice, roomId, "Can you read this?")
  yield* say(bob, roomId, "I can, and nobody else.")
  yield* Fiber.join(reading)
  yield* Console.log(`what the homeserver has: ${yield* Person.whatTheHomeserverHas(host, roomId)}`)
})

conversation.pipe(
  Effect.scoped,
  Effect.provide([DevHomeserver.layer({ port: 0 }), NodeServices.layer]),
  NodeRuntime.runMain
)
