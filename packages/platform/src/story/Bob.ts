/**
 * The other user of the story, as an account of this library in the story's own process: on a database and a key file of its
 * own, following its rooms, and writing to them through `Rooms.send`.
 *
 * Not here: what he sends and when (`Sender.ts`).
 */
import { Metrics, Rooms, SyncService } from "@twinloop/actors"
import { Homeserver, type HomeserverError, type MatrixEvent, type Room, RoomList } from "@twinloop/core"
import { Context, Effect, Layer, Metric, Predicate, Schedule, Stream } from "effect"
import { StoreKey } from "../crypto/StoreKey.ts"
import type { AccountSession } from "../http/Session.ts"
import * as SessionStore from "../http/SessionStore.ts"
import * as Twinloop from "../Twinloop.ts"
import { StoryError } from "./StoryError.ts"

/** A text message to a room. */
export interface Text {
  readonly roomId: MatrixEvent.RoomId
  readonly txnId: string
  readonly body: string
}

export interface Bob {
  readonly homeserver: Homeserver.Homeserver["Service"]
  /** Encrypts a message, shares its key first with who is in the room, and sends it. */
  write(text: Text): Effect.Effect<MatrixEvent.EventId, Rooms.SendError>
  /** Waits until a device can be encrypted for: until it has published its keys. */
  untilReachable(device: Homeserver.Session): Effect.Effect<void, StoryError>
  /** How many of his uploads of one-time keys were refused because the homeserver has others under their ids. */
  readonly conflicts: Effect.Effect<number>
}

/** Longer than a busy machine takes for any of this. */
const LIMIT = "30 seconds"

const failing = (what: string) => (error: { readonly message: string }) =>
  new StoryError({ message: `bob could not ${what}: ${error.message}` })

const inTime = <A, E, R>(what: string, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | StoryError, R> =>
  Effect.timeoutOrElse(effect, {
    duration: LIMIT,
    orElse: () => new StoryError({ message: `bob could not ${what} within ${LIMIT}` })
  })

const isReady = (room: Room.Room | undefined): boolean => room?.membership === "join" && room.isEncrypted

const hasKeys = (answer: MatrixEvent.JsonObject, { deviceId, userId }: Homeserver.Session): boolean => {
  const users = answer.device_keys
  const devices = Predicate.isObject(users) ? (users as MatrixEvent.JsonObject)[userId] : undefined
  return Predicate.isObject(devices) && deviceId in devices
}

/** Keeps the login, starts the account, and waits until it has the rooms. It stops with the scope. */
export const make = Effect.fn("Bob.make")(function* (options: {
  readonly session: AccountSession
  readonly database: string
  readonly rooms: ReadonlyArray<MatrixEvent.RoomId>
}) {
  const { database, rooms, session } = options
  const composed = { database, encryption: StoreKey.layerFile(`${database}.key`) }
  yield* Effect.flatMap(SessionStore.SessionStore, (store) => SessionStore.replace(store, session)).pipe(
    Effect.provide(Twinloop.layerFoundation(composed)),
    Effect.mapError(failing("keep his login"))
  )
  const context = yield* Effect.mapError(Layer.build(Twinloop.layer(composed)), failing("start"))
  yield* Context.get(context, SyncService.SyncService).start
  const list = Context.get(context, RoomList.RoomList)
  const ready = Effect.forEach(rooms, (roomId) => Stream.runHead(Stream.filter(list.changes(roomId), isReady)), {
    discard: true
  })
  yield* inTime("see his rooms", ready)
  const homeserver = Context.get(context, Homeserver.Homeserver)
  const writer = Context.get(context, Rooms.Rooms)

  const knows = (device: Homeserver.Session): Effect.Effect<boolean, HomeserverError.HomeserverError> =>
    Effect.map(homeserver.keys({ kind: "query", body: { device_keys: { [device.userId]: [] } } }), (answer) =>
      hasKeys(answer, device)
    )
  const bob: Bob = {
    homeserver,
    write: ({ body, roomId, txnId }) => writer.send(roomId, "m.room.message", { msgtype: "m.text", body }, { txnId }),
    untilReachable: (device) =>
      knows(device).pipe(
        Effect.repeat({ until: (isKnown) => isKnown, schedule: Schedule.spaced("20 millis") }),
        Effect.mapError(failing("ask for keys")),
        Effect.asVoid,
        (asking) => inTime(`find the keys of ${device.userId}`, asking)
      ),
    // Nobody else of this process uploads keys.
    conflicts: Effect.map(Metric.value(Metrics.oneTimeKeyConflicts), ({ count }) => Number(count))
  }
  return bob
})
