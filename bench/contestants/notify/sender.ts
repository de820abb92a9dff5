/**
 * Who writes: another account of Twinloop, `node sender.cjs <NotifyTask>`. Says when it has sent an event, which is when the
 * homeserver has taken both the event and the to-device messages with its key.
 */
import { Rooms, SyncService } from "@twinloop/actors"
import { Homeserver, RoomList } from "@twinloop/core"
import { StoreKey, Twinloop } from "@twinloop/platform"
import { Effect, Stream } from "effect"
import { task } from "../Figures.ts"
import { die, obey, say } from "../lock/LockLine.ts"
import type { NotifyLine, NotifyTask } from "./NotifyLine.ts"

const { database } = task<NotifyTask>()

const sayLine = (line: NotifyLine): void => say(line)

const program = Effect.gen(function* () {
  const service = yield* SyncService.SyncService
  const rooms = yield* Rooms.Rooms
  const list = yield* RoomList.RoomList
  const homeserver = yield* Homeserver.Homeserver
  const runFork = Effect.runForkWith(yield* Effect.context<never>())
  let sent = 0

  /** Waits until a device has published its keys. */
  const reach = (userId: string, deviceId: string): Effect.Effect<void, unknown> =>
    homeserver.keys({ kind: "query", body: { device_keys: { [userId]: [] } } }).pipe(
      Effect.map(({ device_keys: users }) => deviceId in ((users as { [userId: string]: object })[userId] ?? {})),
      Effect.flatMap((isThere) =>
        isThere ? Effect.sync(() => sayLine({ event: "reached" })) : Effect.delay(reach(userId, deviceId), 20)
      )
    )
  const send = Effect.fnUntraced(function* (roomId: string, body: string) {
    yield* Stream.runHead(Stream.filter(list.changes(roomId), (room) => room?.membership === "join"))
    const content = { msgtype: "m.text", body }
    const eventId = yield* rooms.send(roomId, "m.room.message", content, { txnId: `bench-${process.pid}-${sent++}` })
    sayLine({ event: "said", eventId })
  })

  yield* service.start
  yield* Stream.runHead(Stream.filter(service.changes, ({ extension }) => extension._tag === "Syncing"))
  obey((verb, [first = "", second = ""]) => {
    const command: Effect.Effect<void, unknown> = verb === "reach" ? reach(first, second) : send(first, second)
    runFork(Effect.catchCause(command, (cause) => Effect.sync(() => die(String(cause)))))
  })
  sayLine({ event: "ready" })
  return yield* Effect.never
})

void Effect.runPromise(
  Effect.provide(program, Twinloop.layer({ database, encryption: StoreKey.StoreKey.layerFile(`${database}.key`) }))
)
