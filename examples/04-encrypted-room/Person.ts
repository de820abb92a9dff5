/** One person of the conversation: an account on the homeserver, and everything that an application composes for it. */
import { type Rooms, SyncService } from "@twinloop/actors"
import { type ListDiff, RoomList } from "@twinloop/core"
import { HomeserverModel } from "@twinloop/core/testing"
import { Login, SessionStore, StoreKey, Twinloop } from "@twinloop/platform"
import type { DevHomeserver } from "@twinloop/platform/dev"
import { type Context, Effect, Layer, Redacted, Result, Stream } from "effect"

export interface Person {
  readonly name: string
  readonly context: Context.Context<Twinloop.Twinloop>
}

type Host = DevHomeserver.DevHomeserver["Service"]["host"]

/** Alice, Bob, and a room of theirs that is encrypted, made by the homeserver itself. */
export const makeRoom = (host: Host) =>
  host.attempt((state, nowMillis) =>
    Result.gen(function* () {
      const alice = yield* HomeserverModel.addUser(state, { localpart: "alice", password: "alice" })
      const bob = yield* HomeserverModel.addUser(state, { localpart: "bob", password: "bob" })
      const [room] = HomeserverModel.addRooms(state, alice, { count: 1 }, nowMillis)
      const { roomId } = room!
      const sender = alice.userId
      const content = { algorithm: "m.megolm.v1.aes-sha2" }
      HomeserverModel.append(state, room!, { type: "m.room.encryption", stateKey: "", sender, content }, nowMillis)
      const invitation = { roomId, target: bob.userId, membership: "invite" as const }
      yield* HomeserverModel.setMember(state, alice, invitation, nowMillis)
      yield* HomeserverModel.join(state, bob, roomId, nowMillis)
      return roomId
    })
  )

/** Logs in, starts both loops, opens the room, and waits until it is there. */
export const join = Effect.fnUntraced(function* (name: string, homeserver: string, database: string, roomId: string) {
  const options: Twinloop.Options = { database, encryption: StoreKey.StoreKey.layerFile(`${database}.key`) }
  const login = Effect.gen(function* () {
    const session = yield* Login.byPassword({ homeserver, user: name, password: Redacted.make(name) })
    yield* SessionStore.replace(yield* SessionStore.SessionStore, session)
  })
  yield* Effect.provide(login, Twinloop.layerFoundation(options))
  const context = yield* Layer.build(Twinloop.layer(options))
  const open = Effect.gen(function* () {
    const service = yield* SyncService.SyncService
    yield* service.setSubscriptions([roomId])
    yield* service.start
    const rooms = yield* RoomList.RoomList
    yield* rooms.changes(roomId).pipe(
      Stream.filter((room) => room?.isEncrypted === true),
      Stream.runHead
    )
  })
  yield* Effect.provide(open, context)
  const person: Person = { name, context }
  return person
})

/** The entries that a change brings or changes. */
export const entriesOf = (change: ListDiff.Diff<Rooms.TimelineItem>): ReadonlyArray<Rooms.TimelineItem> => {
  switch (change._tag) {
    case "Reset":
      return change.entries
    case "Insert":
    case "Set":
      return [change.entry]
    default:
      return []
  }
}

/** A line for a message that came encrypted, and none for anything else. */
export const linesOf = (item: Rooms.TimelineItem): ReadonlyArray<string> => {
  if (item._tag === "Gap" || item.decryption === undefined) return []
  const { decryption, event } = item
  if (decryption._tag === "Undecryptable") return [`(${decryption.message})`]
  return [`${event.sender}: ${String(event.content.body)} [${decryption.shield.code ?? "verified"}]`]
}

/** The newest event: its type, and the names in its content. That is all that a homeserver can read of it. */
export const whatTheHomeserverHas = (host: Host, roomId: string) =>
  Effect.map(
    host.step((state) => state.rooms.get(roomId)?.timeline.at(-1)?.event),
    (event) =>
      `${String(event?.type)} with ${Object.keys(event?.content ?? {})
        .toSorted()
        .join(", ")}`
  )
