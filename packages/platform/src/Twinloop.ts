/**
 * Everything composed for Node: what an application provides to have its rooms and its inbox in sync.
 *
 * Includes `layer` (an account in a SQLite file, shared by processes), `layerNotifier` (a process of the same account that only
 * resolves pushes) and what they are made of, for those who compose
 * otherwise; and `layerShared`, what many accounts in one process have together.
 *
 * Gotchas: Effect builds a Layer once, also across a `provide` inside another one, and most parts here are the same Layers
 * for every account. So what belongs to an account is built fresh, or an account that is provided inside another one's
 * would be given that one's rooms and its login.
 *
 * Not here: logging in (`Login`), which comes first.
 */
import { Encryption, Inbox, Notifications, Rooms, StreamServices, Suspendables, SyncService } from "@twinloop/actors"
import {
  type CryptoEngine,
  EventDecryptor,
  type Homeserver,
  NotificationClient,
  PassThroughCrypto,
  RoomList,
  type StoreError,
  SyncConfig,
  type Wake
} from "@twinloop/core"
import { Effect, Layer } from "effect"
import * as OlmCrypto from "./crypto/OlmCrypto.ts"
import * as OlmReader from "./crypto/OlmReader.ts"
import type { StoreKey } from "./crypto/StoreKey.ts"
import type { InvalidHomeserverUrl } from "./http/HomeserverUrl.ts"
import * as HttpHomeserver from "./http/HttpHomeserver.ts"
import { HttpSockets } from "./http/HttpSockets.ts"
import type { HttpTransport } from "./http/HttpTransport.ts"
import { HttpUsers } from "./http/HttpUsers.ts"
import { RefreshLock } from "./http/RefreshLock.ts"
import type { SessionStore } from "./http/SessionStore.ts"
import type { NotLoggedIn } from "./http/SessionTokens.ts"
import * as SqliteSessionStore from "./http/SqliteSessionStore.ts"
import * as SqliteClient from "./sqlite/SqliteClient.ts"
import * as SqliteStores from "./sqlite/SqliteStores.ts"
import * as WakeSocket from "./wake/WakeSocket.ts"

export interface Options {
  /** Path of the SQLite file; it is made if it is missing, and so is the last component of its directory. All processes of the account name the same. */
  readonly database: string
  /** The account is this process's alone: others can't open the file, and the lock costs nothing. Default false. */
  readonly singleProcess?: boolean
  /**
   * The key under which end-to-end keys are stored, and with it end-to-end encryption: `StoreKey.layer` or
   * `StoreKey.layerFile`. Without it, nothing is encrypted or decrypted, and rooms that are encrypted can't be written to.
   */
  readonly encryption?: Layer.Layer<StoreKey>
  /** Limits, intervals and the role of this process, where they differ from `SyncConfig.defaults`. */
  readonly config?: Partial<SyncConfig.SyncConfigShape>
}

/** What the accounts of a process share. */
export type Shared = HttpSockets | HttpTransport | HttpUsers

/** The account's storage, its lock, its wake-ups and its HTTP client: what logging in needs too. */
export type Foundation =
  | SqliteStores.SqliteStores
  | SessionStore
  | RefreshLock
  | Wake
  | WakeSocket.WakeListening
  | Shared

/** What an application works with. */
export type Twinloop =
  | Foundation
  | Homeserver.Homeserver
  | CryptoEngine.CryptoEngine
  | RoomList.RoomList
  | Inbox.Inbox
  | SyncService.SyncService
  | SyncService.Shared
  | EventDecryptor.EventDecryptor
  | Encryption.Encryption
  | Rooms.Rooms
  | NotificationClient.NotificationClient

/** What a process works with that only resolves pushes. */
export type Notifier =
  | Foundation
  | Homeserver.Homeserver
  | CryptoEngine.CryptoEngine
  | Inbox.Inbox
  | SyncService.Shared
  | EventDecryptor.EventDecryptor
  | NotificationClient.NotificationClient

/**
 * What many accounts in one process share: the HTTP connections. Provided around them, it is built once, and each
 * {@link layer} inside takes it from there; an account that is alone needs no thought of it.
 *
 * @example
 * ```ts
 * import { SyncService } from "@twinloop/actors"
 * import { Twinloop } from "@twinloop/platform"
 * import { Effect } from "effect"
 *
 * const follow = (database: string) =>
 *   Effect.flatMap(SyncService.SyncService, (service) => Effect.andThen(service.start, Effect.never)).pipe(
 *     Effect.provide(Twinloop.layer({ database }))
 *   )
 * const all = Effect.forEach(["alice.db", "bob.db"], follow, { concurrency: "unbounded" }).pipe(
 *   Effect.provide(Twinloop.layerShared)
 * )
 * ```
 */
export const layerShared: Layer.Layer<Shared> = HttpUsers.layer.pipe(Layer.provideMerge(HttpSockets.layer))

const layerStores = ({ config = {}, database, singleProcess }: Options) => {
  const stores =
    singleProcess === true
      ? Layer.mergeAll(SqliteStores.layerSingleProcess({ filename: database }), WakeSocket.layerNone)
      : Layer.mergeAll(SqliteStores.layer({ filename: database }), WakeSocket.layerDatabase(database))
  return Layer.mergeAll(SqliteSessionStore.layer, RefreshLock.layer).pipe(
    Layer.provideMerge(stores),
    Layer.provideMerge(SyncConfig.layer(config))
  )
}

/** Opens the account's database, and what its processes share. Everything closes with the layer's scope. */
export const layerFoundation = (options: Options): Layer.Layer<Foundation, StoreError.StoreError> =>
  Layer.merge(Layer.fresh(layerStores(options)), layerShared)

/**
 * What else must end before a process is suspended: pushes that are being resolved, which may own the stream for a moment, and
 * sockets. The control socket stays, since it is how one resumes.
 */
const suspendables = Layer.effect(
  Suspendables.Suspendables,
  Effect.gen(function* () {
    const http = yield* Effect.flatMap(HttpUsers, (users) => users.join)
    const wake = yield* WakeSocket.WakeListening
    const database = yield* SqliteClient.SqliteClient
    const notifications = yield* NotificationClient.NotificationClient
    return [
      { name: "pushes that are being resolved", suspend: notifications.settled, resume: Effect.void },
      { name: "copying the database's log", suspend: database.settled, resume: Effect.void },
      { name: "HTTP connections", suspend: http.quiet, resume: http.wake },
      { name: "the wake-up socket", suspend: wake.close, resume: wake.open }
    ]
  })
)

/** Who encrypts and decrypts: the Olm machine, or nobody. */
const layerCrypto = ({ encryption }: Options) =>
  encryption === undefined
    ? Layer.mergeAll(PassThroughCrypto.layer, EventDecryptor.EventDecryptor.layerNone)
    : Layer.mergeAll(OlmCrypto.layer, OlmReader.layer).pipe(Layer.provide(encryption))

/**
 * The account's service over HTTP and SQLite, not started yet: `SyncService.start`.
 *
 * Fails when the database can't be used (`StoreError`), or nobody is logged in (`NotLoggedIn`).
 *
 * @example
 * ```ts
 * import { SyncService } from "@twinloop/actors"
 * import { RoomList } from "@twinloop/core"
 * import { Twinloop } from "@twinloop/platform"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const service = yield* SyncService.SyncService
 *   yield* service.start
 *   const rooms = yield* RoomList.RoomList
 *   return yield* rooms.rooms
 * })
 * const app = Effect.provide(program, Twinloop.layer({ database: "account.db" }))
 * ```
 */
export const layer = (
  options: Options
): Layer.Layer<Twinloop, StoreError.StoreError | NotLoggedIn | InvalidHomeserverUrl> =>
  Layer.fresh(
    Rooms.Rooms.layer.pipe(
      Layer.provideMerge(Encryption.Encryption.layer),
      Layer.provideMerge(SyncService.SyncService.layer),
      Layer.provide(suspendables),
      Layer.provideMerge(Notifications.layer),
      Layer.provideMerge(StreamServices.layer),
      Layer.provideMerge(Layer.mergeAll(Inbox.Inbox.layer, RoomList.layer, layerCrypto(options))),
      Layer.provideMerge(HttpHomeserver.layer),
      Layer.provideMerge(layerStores(options))
    )
  ).pipe(Layer.provideMerge(layerShared))

/**
 * What differs from `SyncConfig.defaults` in a process that only resolves pushes: nobody has come online by it, and a request
 * that is lost must leave time for another one before the deadline.
 */
export const notifierConfig = {
  role: "notify",
  presence: "offline",
  networkTimeoutMillis: 5_000,
  backoffMaxMillis: 5_000
} as const satisfies Partial<SyncConfig.SyncConfigShape>

/**
 * A process that resolves pushes for the account, and has no loops: started by a push, gone a moment later. It reads what the
 * application has stored, and takes the extension stream for a moment when a key is missing and the application doesn't own
 * it. End-to-end encryption is loaded when an event needs it.
 *
 * Fails when the database can't be used (`StoreError`), or nobody is logged in (`NotLoggedIn`).
 *
 * @example
 * ```ts
 * import { NotificationClient } from "@twinloop/core"
 * import { StoreKey, Twinloop } from "@twinloop/platform"
 * import { Effect } from "effect"
 *
 * const show = Effect.gen(function* () {
 *   const client = yield* NotificationClient.NotificationClient
 *   const result = yield* client.resolve({ roomId: "!kitchen:example.org", eventId: "$event" })
 *   if (result._tag === "Event") yield* Effect.log(`${result.item.sender.name} in ${result.item.room.name}`)
 *   yield* client.settled
 * })
 * const encryption = StoreKey.StoreKey.layerFile("account.db.key")
 * const notifier = Effect.provide(show, Twinloop.layerNotifier({ database: "account.db", encryption }))
 * ```
 */
export const layerNotifier = (
  options: Options
): Layer.Layer<Notifier, StoreError.StoreError | NotLoggedIn | InvalidHomeserverUrl> =>
  Layer.fresh(
    Notifications.layer.pipe(
      Layer.provideMerge(StreamServices.layer),
      Layer.provideMerge(Layer.merge(Inbox.Inbox.layer, layerCrypto(options))),
      Layer.provideMerge(HttpHomeserver.layer),
      Layer.provideMerge(layerStores({ ...options, config: { ...notifierConfig, ...options.config } }))
    )
  ).pipe(Layer.provideMerge(layerShared))
