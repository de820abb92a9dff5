/**
 * Alice's application is suspended. Bob writes, and she is shown what: in the clear, encrypted, and that he invites her.
 *
 *     node examples/05-notifications/main.ts
 *
 * It brings its homeserver with it, which pushes as a real one does. What shows the pushes is in `Pushed.ts`.
 */
import { Rooms, SyncService } from "@twinloop/actors"
import type { SyncServiceMachine } from "@twinloop/core"
import { HomeserverModel } from "@twinloop/core/testing"
import { DevHomeserver } from "@twinloop/platform/dev"
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect, FileSystem, Path, Queue, Stream } from "effect"
import * as Person from "../04-encrypted-room/Person.ts"
import * as Pushed from "./Pushed.ts"

/** Bob invites Alice to a new room. */
const invite = Effect.flatMap(DevHomeserver.DevHomeserver, ({ host }) =>
  host.step((state, nowMillis) => {
    const bob = [...state.users.values()].find(({ userId }) => userId.startsWith("@bob:"))
    if (bob === undefined) return
    const invited = [...state.users.keys()].filter((userId) => userId.startsWith("@alice:"))
    HomeserverModel.createRoom(state, bob, { name: "Garden", invite: invited }, nowMillis)
  })
)

/** Suspends the application once its device can be written to: its keys are published when the loop waits for news. */
const suspend = Effect.gen(function* () {
  const service = yield* SyncService.SyncService
  const isReachable = ({ extension }: SyncServiceMachine.ServiceState): boolean => extension._tag === "Syncing"
  yield* Stream.runHead(Stream.filter(service.changes, isReachable))
  yield* service.suspend()
})

const pushed = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const directory = yield* fs.makeTempDirectoryScoped({ prefix: "twinloop-notifications-" })
  const { baseUrl, host } = yield* DevHomeserver.DevHomeserver
  const roomId = yield* Person.makeRoom(host)
  const database = path.join(directory, "alice.db")
  const alice = yield* Person.join("alice", baseUrl, database, roomId)
  const bob = yield* Person.join("bob", baseUrl, path.join(directory, "bob.db"), roomId)

  yield* Effect.provide(suspend, alice.context)
  const shown = yield* Queue.unbounded<string>()
  yield* Pushed.show(database, shown)
  yield* Console.log("alice's application is suspended")

  const send = (body: string) =>
    Effect.provide(
      Effect.flatMap(Rooms.Rooms, (rooms) => rooms.send(roomId, "m.room.message", { msgtype: "m.text", body })),
      bob.context
    )
  // Its key comes with it, and nobody has it yet.
  yield* send("Are you there?")
  yield* Console.log(`she is shown: ${yield* Queue.take(shown)}`)
  yield* invite
  yield* Console.log(`she is shown: ${yield* Queue.take(shown)}`)
})

pushed.pipe(Effect.scoped, Effect.provide([DevHomeserver.layer({ port: 0 }), NodeServices.layer]), NodeRuntime.runMain)
