/**
 * matrix-js-sdk as another person's client: its own sync, classic or sliding, and its own Olm machine in memory.
 *
 * Includes waiting for what its timelines show, decrypted or not.
 *
 * Gotchas: all its clients in a process share one WebAssembly instance, the npm package's own; ours are loaded privately.
 */
import { Effect, Redacted } from "effect"
import type { Scope } from "effect"
import {
  ClientEvent,
  createClient,
  type MatrixClient,
  type MatrixEvent,
  MatrixEventEvent,
  type Room,
  RoomEvent,
  SyncState
} from "matrix-js-sdk"
import { CryptoEvent } from "matrix-js-sdk/lib/crypto-api/index.js"
import { logger } from "matrix-js-sdk/lib/logger.js"
import { SlidingSync } from "matrix-js-sdk/lib/sliding-sync.js"
import type * as Kit from "./ServiceKit.ts"

const quiet = {
  trace: () => {},
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
  getChild: () => quiet
}

// Parts of it log to a global logger, whatever logger the client is given.
Object.assign(logger, quiet, { log: () => {} })

/** A person whose client is matrix-js-sdk. */
export interface JsSdk {
  readonly person: Kit.Person
  readonly client: MatrixClient
  readonly crypto: NonNullable<ReturnType<MatrixClient["getCrypto"]>>
}

/** Far beyond what a loaded machine needs. */
const LIMIT_MILLIS = 45_000

/** A list of its sliding sync; without one, it has all rooms that there may be in a test. */
interface RoomsList {
  readonly ranges: Array<Array<number>>
  readonly timeline_limit: number
}

const allRooms: RoomsList = { ranges: [[0, 99]], timeline_limit: 50 }

const everything = [["*", "*"]]

/** How long a poll waits. */
const POLL_MILLIS = 20_000

const slidingSyncOf = (client: MatrixClient, list: RoomsList): SlidingSync =>
  new SlidingSync(
    client.baseUrl,
    new Map([["all", { ...list, required_state: everything }]]),
    { timeline_limit: allRooms.timeline_limit, required_state: everything },
    client,
    POLL_MILLIS
  )

const prepared = (client: MatrixClient, slidingSync?: SlidingSync) =>
  Effect.callback<void>((resume) => {
    const look = (state: SyncState): void => {
      if (state !== SyncState.Prepared && state !== SyncState.Syncing) return
      client.off(ClientEvent.Sync, look)
      resume(Effect.void)
    }
    client.on(ClientEvent.Sync, look)
    void client.startClient({
      initialSyncLimit: 50,
      disablePresence: true,
      ...(slidingSync !== undefined && { slidingSync })
    })
  })

/** A client with its crypto, which has not started; it stops with the scope. */
const make = Effect.fnUntraced(function* (person: Kit.Person): Effect.fn.Return<JsSdk, never, Scope.Scope> {
  const { accessToken, deviceId, homeserver: baseUrl, userId } = person.session
  const client = createClient({ baseUrl, userId, deviceId, accessToken: Redacted.value(accessToken), logger: quiet })
  yield* Effect.acquireRelease(
    Effect.promise(() => client.initRustCrypto({ useIndexedDB: false })),
    () =>
      Effect.sync(() => {
        // Its machine is left to the collector: closed under a call that runs, it throws where nobody can catch.
        Object.assign(client, { cryptoBackend: undefined })
        client.stopClient()
      })
  )
  const crypto = client.getCrypto()
  if (crypto === undefined) return yield* Effect.die("matrix-js-sdk has no crypto")
  return { person, client, crypto }
})

/** Starts a person's client with its crypto, and waits for its first sync; it stops with the scope. */
export const start = (person: Kit.Person): Effect.Effect<JsSdk, never, Scope.Scope> =>
  Effect.tap(make(person), ({ client }) => prepared(client))

/** The same with its own sliding sync (MSC4186) instead of the classic one. */
export const startSliding = Effect.fnUntraced(function* (
  person: Kit.Person,
  list: RoomsList = allRooms
): Effect.fn.Return<JsSdk & { readonly sliding: SlidingSync }, never, Scope.Scope> {
  const user = yield* make(person)
  const sliding = slidingSyncOf(user.client, list)
  yield* prepared(user.client, sliding)
  return { ...user, sliding }
})

/** Everything that may change what a client shows. */
const signals = [
  RoomEvent.Timeline,
  RoomEvent.MyMembership,
  MatrixEventEvent.Decrypted,
  ClientEvent.Room,
  ClientEvent.Event,
  ClientEvent.Sync,
  CryptoEvent.DevicesUpdated,
  CryptoEvent.KeysChanged,
  CryptoEvent.UserTrustStatusChanged
] as const

/** Waits until a look at a client finds something; looks again whenever anything happens there. */
export const until = <A>(
  { client }: JsSdk,
  what: string,
  look: () => A | undefined | Promise<A | undefined>,
  seen: () => unknown = () => ""
): Effect.Effect<A> =>
  Effect.callback<A>((resume) => {
    const listener = (): void => {
      void Promise.resolve(look()).then((found) => {
        if (found !== undefined) resume(Effect.succeed(found))
      })
    }
    for (const signal of signals) client.on(signal, listener)
    listener()
    return Effect.sync(() => {
      for (const signal of signals) client.off(signal, listener)
    })
  }).pipe(
    Effect.timeoutOrElse({
      duration: LIMIT_MILLIS,
      orElse: () => Effect.die(`matrix-js-sdk waited in vain for ${what}; last seen: ${JSON.stringify(seen())}`)
    })
  )

const eventsOf = (user: JsSdk, roomId: string): ReadonlyArray<MatrixEvent> =>
  user.client.getRoom(roomId)?.getLiveTimeline().getEvents() ?? []

/** What a room's timeline shows. */
export const events = (user: JsSdk, roomId: string): Effect.Effect<ReadonlyArray<MatrixEvent>> =>
  Effect.sync(() => [...eventsOf(user, roomId)])

const shown = (event: MatrixEvent): unknown => [
  event.getId(),
  event.getType(),
  event.getContent().body,
  event.decryptionFailureReason
]

/** Waits until an event in a room's timeline is as wanted. */
export const untilEvent = (
  user: JsSdk,
  roomId: string,
  what: string,
  isWanted: (event: MatrixEvent) => boolean
): Effect.Effect<MatrixEvent> =>
  until(
    user,
    what,
    () => eventsOf(user, roomId).find(isWanted),
    () => eventsOf(user, roomId).map(shown)
  )

/** Waits until an event is decrypted, and gives it. */
export const untilDecrypted = (user: JsSdk, roomId: string, eventId: string): Effect.Effect<MatrixEvent> =>
  untilEvent(
    user,
    roomId,
    `${eventId}, decrypted`,
    (event) =>
      event.getId() === eventId &&
      event.isEncrypted() &&
      event.getClearContent() !== null &&
      !event.isDecryptionFailure()
  )

/** Waits until it is told why an event can't be decrypted. */
export const untilFailed = (user: JsSdk, roomId: string, eventId: string): Effect.Effect<MatrixEvent> =>
  untilEvent(
    user,
    roomId,
    `${eventId}, which it can't decrypt`,
    (event) => event.getId() === eventId && event.isDecryptionFailure()
  )

/** Waits until a room is joined and its state says that it is encrypted. */
export const untilEncrypted = (user: JsSdk, roomId: string): Effect.Effect<Room> =>
  until(user, `the encrypted room ${roomId}`, async () => {
    const room = user.client.getRoom(roomId)
    const isEncrypted = await user.crypto.isEncryptionEnabledInRoom(roomId)
    return room?.getMyMembership() === "join" && isEncrypted ? room : undefined
  })

/** Waits until the devices of a user that it knows of are as wanted. */
export const untilDevices = (
  user: JsSdk,
  userId: string,
  isWanted: (deviceIds: ReadonlyArray<string>) => boolean
): Effect.Effect<ReadonlyArray<string>> =>
  until(user, `the devices of ${userId}`, async () => {
    const ids = [...((await user.crypto.getUserDeviceInfo([userId], true)).get(userId)?.keys() ?? [])]
    return isWanted(ids) ? ids : undefined
  })

/** Waits until it knows a person's device: before, it can give it no key. */
export const untilKnows = (user: JsSdk, { session, userId }: Kit.Person): Effect.Effect<void> =>
  Effect.asVoid(untilDevices(user, userId, (ids) => ids.includes(session.deviceId)))

/** Sends an event of any type, encrypted if the room is; its id. */
export const send = (user: JsSdk, roomId: string, type: string, content: object): Effect.Effect<string> =>
  Effect.promise(() => user.client.sendEvent(roomId, type as never, content as never)).pipe(
    Effect.map(({ event_id: eventId }) => eventId)
  )

/** Sends a text message; its event id. */
export const say = (user: JsSdk, roomId: string, body: string): Effect.Effect<string> =>
  send(user, roomId, "m.room.message", { msgtype: "m.text", body })
