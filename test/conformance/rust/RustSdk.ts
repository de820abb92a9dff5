/**
 * matrix-rust-sdk as somebody's client: the program of this folder (`src/main.rs`), told what to do and listened to.
 *
 * Includes waiting for what it shows. What it told last counts, and everything after; what it took back doesn't.
 *
 * Gotchas: it logs in by itself, so it is a device of its own besides the one that `ServiceKit` made for the person. A store
 * outlives the process, so a further process can go on with it.
 *
 * Not here: building the program (`scripts/rust.ts`), what it can be asked for (`src/protocol.rs`).
 */
import { Effect, FileSystem, Schedule } from "effect"
import { fileURLToPath } from "node:url"
import * as Program from "../../processes/Program.ts"
import * as EncryptionKit from "../../synapse/EncryptionKit.ts"
import * as Kit from "../../synapse/ServiceKit.ts"

/** A room as its list of rooms shows it. */
export interface ShownRoom {
  readonly roomId: string
  readonly name: string | null
  readonly membership: "Joined" | "Invited" | "Left" | "Knocked" | "Banned"
  readonly isEncrypted: boolean
  readonly joined: number
  readonly latest: Content | null
  /** As the homeserver counts. */
  readonly notifications: number
  readonly highlights: number
  /** As the SDK counts what it could read. */
  readonly unreadMessages: number
  readonly unreadNotifications: number
  readonly unreadMentions: number
}

/** What an event says. */
export interface Content {
  readonly kind: "Message" | "UnableToDecrypt" | "Redacted" | "MessageLike" | "FailedToParse" | "State" | "Invite"
  readonly body?: string
  readonly inviter?: string
  readonly why?: string
}

/** An event as a timeline shows it. */
export interface ShownEvent {
  /** None while it is being sent. */
  readonly eventId: string | null
  readonly sender: string
  readonly senderName: string | null
  readonly senderDevice: string | null
  readonly content: Content
}

/** What it makes of a push. */
export type Notified =
  | { readonly status: "NotFound" | "FilteredOut" | "Redacted" }
  | {
      readonly status: "Event"
      readonly isInvite: boolean
      readonly event: Kit.Json
      readonly sender: string
      readonly senderName: string | null
      readonly roomName: string
      readonly isEncrypted: boolean | null
      readonly isDirect: boolean
      readonly joined: number
      readonly isNoisy: boolean | null
      readonly hasMention: boolean | null
    }

/** A login, as the program gives and takes it. */
export interface Session {
  readonly user_id: string
  readonly device_id: string
  readonly access_token: string
  readonly refresh_token?: string
}

interface Told {
  readonly told?: "state" | "rooms" | "timeline"
  readonly id?: number
  readonly ok?: unknown
  readonly error?: string
  readonly state?: string
  readonly why?: string
  readonly rooms?: ReadonlyArray<ShownRoom>
  readonly roomId?: string
  readonly events?: ReadonlyArray<ShownEvent>
}

/** How a client is set up. */
export interface Options {
  /** Gives up when the homeserver is away or has forgotten a position, until it is started again. */
  readonly givesUp?: boolean
  /** The name under which it shares its store with other processes; alone without. */
  readonly holder?: string
}

/** A client that is logged in. */
export interface RustSdk {
  readonly person: Kit.Person
  readonly session: Session
  /** The folder of its stores. */
  readonly store: string
  readonly program: Program.Program<Told>
  readonly ask: (command: string, args?: object) => Effect.Effect<unknown>
}

/** Far beyond what a loaded machine needs. */
const LIMIT_MILLIS = 60_000

const executable = fileURLToPath(new URL("target/debug/twinloop-conformance-rust", import.meta.url))

const waiting = { limitMillis: LIMIT_MILLIS }

const asking = (program: Program.Program<Told>) => {
  let last = 0
  return Effect.fnUntraced(function* (command: string, args: object = {}) {
    last += 1
    const id = last
    const since = yield* program.said
    yield* program.send(JSON.stringify({ id, command, ...args }))
    const { line } = yield* program.until(`answer ${command}`, (said) => said.id === id, { ...waiting, since })
    if (line.error === undefined) return line.ok
    return yield* Effect.die(new Error(`${command}: ${line.error}\n${yield* program.errors}`))
  })
}

const begin = Effect.fnUntraced(function* (
  person: Kit.Person,
  store: string,
  options: Options,
  command: string,
  args: object
) {
  const program = yield* Program.startExecutable<Told>(executable)
  const ask = asking(program)
  const setup = { homeserver: person.session.homeserver, store, ...options }
  const session = (yield* ask(command, { ...setup, ...args })) as Session
  const client: RustSdk = { person, session, store, program, ask }
  return client
})

/** Logs a person in by password, in a store of its own; it ends with the scope, and the store is gone. */
export const logIn = Effect.fnUntraced(function* (person: Kit.Person, options: Options = {}) {
  const fs = yield* FileSystem.FileSystem
  const store = yield* Effect.orDie(fs.makeTempDirectoryScoped({ prefix: "twinloop-rust-" }))
  const password = EncryptionKit.passwordOf(person)
  return yield* begin(person, store, options, "login", { user: person.userId, password })
})

/** A further process over the store of another one, with its login. */
export const restore = ({ person, session, store }: RustSdk, options: Options = {}) =>
  begin(person, store, options, "restore", { session })

/** Waits until a device's keys are at the homeserver: before, nobody can give it any. */
export const untilPublished = Effect.fnUntraced(function* (person: Kit.Person, deviceId: string) {
  const { userId } = person
  const ask = Kit.call(person, "POST", "/_matrix/client/v3/keys/query", { device_keys: { [userId]: [deviceId] } })
  const isThere = Effect.map(ask, ({ device_keys: known }) =>
    Object.hasOwn((known as { readonly [userId: string]: object })[userId] ?? {}, deviceId)
  )
  yield* Effect.repeat(isThere, { until: (answer) => answer, schedule: Schedule.spaced("20 millis") }).pipe(
    Effect.timeoutOrElse({
      duration: LIMIT_MILLIS,
      orElse: () => Effect.die(new Error(`waited in vain for the keys of ${deviceId}`))
    })
  )
})

/** Starts the sync service, and waits until it runs and others can give it keys. */
export const start = Effect.fnUntraced(function* (client: RustSdk) {
  yield* client.ask("start")
  yield* untilState(client, "Running")
  yield* untilPublished(client.person, client.session.device_id)
})

export const stop = Effect.fnUntraced(function* (client: RustSdk) {
  yield* client.ask("stop")
  yield* untilState(client, "Idle")
})

/** The first thing that it tells which is as wanted; the last one of its kind that was told may be it. */
const until = Effect.fnUntraced(function* (
  { program }: RustSdk,
  what: string,
  isOfKind: (told: Told) => boolean,
  isWanted: (told: Told) => boolean
) {
  const since = Math.max(0, (yield* program.lines).findLastIndex(isOfKind))
  const { line } = yield* program.until(what, (told) => isOfKind(told) && isWanted(told), { ...waiting, since })
  return line
})

/** Waits for a state of the sync service. */
export const untilState = (client: RustSdk, state: string) =>
  until(
    client,
    `be ${state}`,
    ({ told }) => told === "state",
    (told) => told.state === state
  )

/** The states of the sync service that it went through, oldest first. */
export const states = ({ program }: RustSdk) =>
  Effect.map(program.lines, (lines) => lines.flatMap(({ state, told }) => (told === "state" ? [String(state)] : [])))

/** Waits until its list of rooms is as wanted. */
export const untilRooms = (client: RustSdk, what: string, isWanted: (rooms: ReadonlyArray<ShownRoom>) => boolean) =>
  Effect.map(
    until(
      client,
      `list ${what}`,
      ({ told }) => told === "rooms",
      ({ rooms = [] }) => isWanted(rooms)
    ),
    ({ rooms = [] }) => rooms
  )

/** Waits until a room in its list is as wanted. */
export const untilRoom = (client: RustSdk, roomId: string, what: string, isWanted: (room: ShownRoom) => boolean) =>
  Effect.map(
    untilRooms(client, `${what} of ${roomId}`, (rooms) =>
      rooms.some((room) => room.roomId === roomId && isWanted(room))
    ),
    (rooms) => rooms.find((room) => room.roomId === roomId)!
  )

/** Shows a room from now on, as somebody who opens it. */
export const open = Effect.fnUntraced(function* (client: RustSdk, roomId: string) {
  yield* untilRoom(client, roomId, "joining", ({ membership }) => membership === "Joined")
  yield* client.ask("open", { roomId })
})

/** Waits until the timeline of an open room is as wanted. */
export const untilTimeline = (
  client: RustSdk,
  roomId: string,
  what: string,
  isWanted: (events: ReadonlyArray<ShownEvent>) => boolean
): Effect.Effect<ReadonlyArray<ShownEvent>> =>
  Effect.map(
    until(
      client,
      `show ${what}`,
      (told) => told.told === "timeline" && told.roomId === roomId,
      ({ events = [] }) => isWanted(events)
    ),
    ({ events = [] }) => events
  )

/** Waits until an event of an open room is as wanted. */
export const untilEvent = (
  client: RustSdk,
  roomId: string,
  what: string,
  isWanted: (event: ShownEvent) => boolean
): Effect.Effect<ShownEvent> =>
  Effect.map(
    untilTimeline(client, roomId, what, (events) => events.some(isWanted)),
    (events) => events.find(isWanted)!
  )

/** Waits until a message is shown, decrypted if it was encrypted. */
export const untilMessage = (client: RustSdk, roomId: string, eventId: string) =>
  untilEvent(
    client,
    roomId,
    `the message ${eventId}`,
    (event) => event.eventId === eventId && event.content.kind === "Message"
  )

/** Waits until it knows a person's device: before, it can give it no key. */
export const untilKnows = (client: RustSdk, { session, userId }: Kit.Person) =>
  client.ask("knows", { userId, deviceId: session.deviceId })

/** Sends a text, encrypted if the room is; the event's id, and whether it was encrypted. */
export const say = (client: RustSdk, roomId: string, body: string) =>
  Effect.map(
    client.ask("send", { roomId, body }),
    (sent) => sent as { readonly eventId: string; readonly isEncrypted: boolean }
  )

/** What it makes of a push, while the sync service is in this process or in another one. */
export const notification = (client: RustSdk, process: "single" | "multiple", roomId: string, eventId: string) =>
  Effect.map(client.ask("notification", { roomId, eventId, process }), (shown) => shown as Notified)

/** What it couldn't make sense of, or failed at: the warnings that the SDK logs. */
export const warnings = ({ program }: RustSdk) =>
  Effect.map(program.errors, (text) => text.split("\n").filter((line) => line !== ""))
