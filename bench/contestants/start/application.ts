/**
 * Twinloop as an application that starts again with the rooms that it knows: `node application.cjs <database> <rooms>`. Says
 * when all of them are known and up to date, then stops and ends.
 */
import { SyncService } from "@twinloop/actors"
import { RoomList } from "@twinloop/core"
import { Twinloop } from "@twinloop/platform"
import { Effect, Stream } from "effect"
import { say } from "./StartLine.ts"

const [database = "", wanted = ""] = process.argv.slice(2)

const program = Effect.gen(function* () {
  const service = yield* SyncService.SyncService
  yield* service.setWindow([0, 19])
  yield* service.start
  yield* Stream.runHead(Stream.filter(service.changes, ({ main }) => main._tag === "Syncing"))
  const rooms = (yield* (yield* RoomList.RoomList).rooms).length
  if (rooms !== Number(wanted)) return yield* Effect.die(new Error(`${rooms} of ${wanted} rooms are known`))
  say({ done: "synced", rooms })
  yield* service.stop()
})

void Effect.runPromise(Effect.provide(program, Twinloop.layer({ database })))
