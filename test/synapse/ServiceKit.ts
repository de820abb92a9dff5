/**
 * People on a real Synapse, and the whole service as one of them runs it: HTTP, SQLite, both loops.
 *
 * Includes what people do (rooms, messages, receipts: plain requests, so that nothing of ours is between them and Synapse),
 * and the waiting for what a service then shows.
 *
 * Gotchas: waiting follows the streams that an application follows, and fails with the last thing that was seen.
 *
 * Not here: counting requests (`ServiceRecorder.ts`), the server (`packages/platform/src/synapse`).
 */
import { Inbox, MainSync, SyncService } from "@twinloop/actors"
import { type MatrixEvent, type Room, RoomList, SyncConfig, type SyncServiceMachine, SyncStore } from "@twinloop/core"
import { Login, NodeHomeserver, type Session, SessionStore, Twinloop } from "@twinloop/platform"
import { Context, Duration, Effect, FileSystem, Layer, Option, Queue, Redacted, Stream } from "effect"
import { Synapse } from "../../packages/platform/src/synapse/Synapse.ts"
import type { ApiRequest } from "../../packages/platform/src/synapse/SynapseApi.ts"

/** How long anything may take before a test gives it up: far beyond what a loaded machine needs. */
const limit = Duration.seconds(45)

export type Json = MatrixEvent.JsonObject

// --- people

/** A person with one device, logged in. */
export interface Person {
  readonly session: Session.AccountSession
  readonly userId: string
}

let people = 0

/** A new account with a display name; the user id begins with it. */
export const newPerson = Effect.fnUntraced(function* (displayName: string) {
  const synapse = yield* Synapse
  people += 1
  const session = yield* synapse.register({ username: `${displayName.toLowerCase()}-${people}` })
  const person: Person = { session, userId: session.userId }
  yield* call(person, "PUT", `/_matrix/client/v3/profile/${session.userId}/displayname`, { displayname: displayName })
  return person
})

/**
 * Logs in by password as an application does, with tokens that can be renewed if the homeserver gives such; as the same device
 * again if it is named.
 */
export const passwordLogin = Effect.fnUntraced(function* ({ session, userId }: Person, deviceId?: string) {
  const password = Redacted.make(userId.slice(1).split(":")[0] ?? "")
  const device = deviceId === undefined ? {} : { deviceId }
  const login = Login.byPassword({ homeserver: session.homeserver, user: userId, password, ...device })
  return yield* Effect.provide(login, NodeHomeserver.layerTransport)
})

/** One request by a person; any status is an answer. */
export const ask = Effect.fnUntraced(function* (
  { session }: Person,
  method: ApiRequest["method"],
  path: string,
  body?: unknown
) {
  const synapse = yield* Synapse
  const { accessToken } = session
  return yield* synapse.request({ method, path, accessToken, ...(body === undefined ? {} : { body }) })
})

/** One request by a person, which must succeed. */
export const call = Effect.fnUntraced(function* (
  person: Person,
  method: ApiRequest["method"],
  path: string,
  body?: unknown
) {
  const { json, status } = yield* ask(person, method, path, body)
  if (status !== 200) return yield* Effect.die(`${method} ${path}: ${status} ${JSON.stringify(json)}`)
  return json as Json
})

/** Path of something in a room. */
export const roomPath = (roomId: string, rest: string): string =>
  `/_matrix/client/v3/rooms/${encodeURIComponent(roomId)}/${rest}`

export const createRoom = (by: Person, options: object) =>
  Effect.map(call(by, "POST", "/_matrix/client/v3/createRoom", options), (json) => String(json.room_id))

/** A room whose members have all joined, in the given order. */
export const createJoined = Effect.fnUntraced(function* (by: Person, others: ReadonlyArray<Person>, options: object) {
  const roomId = yield* createRoom(by, { ...options, invite: others.map(({ userId }) => userId) })
  yield* Effect.forEach(others, (other) => join(other, roomId))
  return roomId
})

export const join = (person: Person, roomId: string) => call(person, "POST", roomPath(roomId, "join"), {})
export const leave = (person: Person, roomId: string) => call(person, "POST", roomPath(roomId, "leave"), {})

let transactions = 0

/** Sends an event of any type; its id. */
export const send = (by: Person, roomId: string, type: string, content: unknown) =>
  Effect.suspend(() => {
    transactions += 1
    return Effect.map(call(by, "PUT", roomPath(roomId, `send/${type}/txn${transactions}`), content), (json) =>
      String(json.event_id)
    )
  })

/** Sends a text message; its event id. */
export const say = (by: Person, roomId: string, body: string) =>
  send(by, roomId, "m.room.message", { msgtype: "m.text", body })

export const setState = (by: Person, roomId: string, type: string, content: Json) =>
  Effect.map(call(by, "PUT", roomPath(roomId, `state/${type}/`), content), (json) => String(json.event_id))

export const accountDataPath = ({ userId }: Person, rest: string): string => `/_matrix/client/v3/user/${userId}/${rest}`

export const sendToDevice = Effect.fnUntraced(function* (by: Person, to: Person, type: string, content: unknown) {
  transactions += 1
  const messages = { [to.userId]: { [to.session.deviceId]: content } }
  yield* call(by, "PUT", `/_matrix/client/v3/sendToDevice/${type}/txn${transactions}`, { messages })
})

// --- the service

/** A person's database, shared by their processes. */
export interface Account {
  readonly person: Person
  readonly database: string
}

/** Keeps a login in a person's database, as `twinloop login` does. */
export const logIn = (database: string, session: Session.AccountSession) =>
  Effect.flatMap(SessionStore.SessionStore, (store) => SessionStore.replace(store, session)).pipe(
    Effect.provide(Twinloop.layerFoundation({ database })),
    Effect.orDie
  )

/** A database of a person's own with the login in it; gone when the scope closes. */
export const newAccount = Effect.fnUntraced(function* (person: Person) {
  const fs = yield* FileSystem.FileSystem
  const directory = yield* Effect.orDie(fs.makeTempDirectoryScoped({ prefix: "twinloop-service-" }))
  const account: Account = { person, database: `${directory}/account.db` }
  yield* logIn(account.database, person.session)
  return account
})

/** What every composition of the service provides. */
export type Services = SyncService.SyncService | RoomList.RoomList | SyncStore.SyncStore | Inbox.Inbox

/** A service that runs, as an application sees it. */
export interface Running {
  readonly service: SyncService.SyncService["Service"]
  readonly rooms: RoomList.RoomList["Service"]
  readonly store: SyncStore.SyncStore["Service"]
  readonly inbox: Inbox.Inbox["Service"]
  readonly connId: string
}

/** The first value of a stream that is as wanted. */
const first = Effect.fnUntraced(function* <A>(stream: Stream.Stream<A>, what: string, isWanted: (value: A) => boolean) {
  let last: unknown = "nothing"
  const seen = Stream.tap(stream, (value) => Effect.sync(() => (last = value)))
  const found = yield* Effect.timeoutOption(Stream.runHead(Stream.filter(seen, isWanted)), limit)
  return yield* Option.match(Option.flatten(found), {
    onNone: () => Effect.die(`waited in vain for ${what}; last seen: ${JSON.stringify(last, undefined, 2)}`),
    onSome: Effect.succeed
  })
})

/** Waits until a room is as wanted, and gives it. */
export const untilRoom = (
  { rooms }: Pick<Running, "rooms">,
  roomId: string,
  what: string,
  isWanted: (room: Room.Room) => boolean
): Effect.Effect<Room.Room> => {
  const known = Stream.filter(rooms.changes(roomId), (room) => room !== undefined)
  return first(known, `${what} in ${roomId}`, isWanted)
}

/** Waits until what is stored of a room's timeline is as wanted; looks again whenever the room changes. */
export const untilStored = (
  { connId, rooms, store }: Running,
  roomId: string,
  what: string,
  isWanted: (entries: ReadonlyArray<SyncStore.TimelineEntry>) => boolean
) =>
  first(
    Stream.mapEffect(rooms.changes(roomId), () => Effect.orDie(store.timeline({ connId, roomId, limit: 1_000 }))),
    `${what} in ${roomId}`,
    isWanted
  )

/** Waits until the service's state is as wanted, and gives it. */
export const untilState = (
  { service }: Pick<Running, "service">,
  what: string,
  isWanted: (state: SyncServiceMachine.ServiceState) => boolean
): Effect.Effect<SyncServiceMachine.ServiceState> => first(service.changes, what, isWanted)

/** Waits until every room is loaded and the main loop long polls. */
export const untilLoaded = (running: Pick<Running, "service">) =>
  untilState(running, "all rooms", ({ main }) => main._tag === "Syncing")

/** The service of a built layer. */
export const runningOf = (
  context: Context.Context<Services>,
  config: Partial<SyncConfig.SyncConfigShape>
): Running => ({
  service: Context.get(context, SyncService.SyncService),
  rooms: Context.get(context, RoomList.RoomList),
  store: Context.get(context, SyncStore.SyncStore),
  inbox: Context.get(context, Inbox.Inbox),
  connId: MainSync.connId(config.role ?? SyncConfig.defaults.role)
})

/** Runs the whole service until the scope closes, and waits until it is loaded. */
export const run = Effect.fnUntraced(function* (
  { database }: Account,
  config: Partial<SyncConfig.SyncConfigShape> = {}
) {
  const context = yield* Effect.orDie(Layer.build(Twinloop.layer({ database, config })))
  const running = runningOf(context, config)
  yield* running.service.start
  yield* untilLoaded(running)
  return running
})

/** The entries of an inbox as they come, from the first one; for one taker. */
export const inboxOf = Effect.fnUntraced(function* ({ inbox, service }: Running) {
  const entries = yield* Queue.unbounded<SyncStore.InboxEntry>()
  yield* Effect.forkScoped(inbox.consume("test", (entry) => Queue.offer(entries, entry)))
  const inVain = Effect.flatMap(service.state, ({ extension }) =>
    Effect.die(`waited in vain for the inbox; the extension loop is ${JSON.stringify(extension)}`)
  )
  const take = Effect.timeoutOrElse(Queue.take(entries), { duration: limit, orElse: () => inVain })
  return { take, takeN: (count: number) => Effect.replicateEffect(take, count) }
})

/** The shown names of what a room list shows, from the top. */
export const shownNames = (entries: ReadonlyArray<Room.Room>): ReadonlyArray<string> =>
  entries.map((room) => room.displayName)
