/**
 * The account's end-to-end encryption as the application sees it: its status, devices and their trust, and encrypting.
 *
 * What changes keys belongs to the owner of the extension stream. So whoever encrypts, here, first sees to it that this
 * process is the owner: if another one is, it is asked to yield, and that is waited for, for a bounded time.
 *
 * Invariants: I1, I2 (all through `CryptoTurn`), I3 (nothing here waits for the main loop, and the extension loop never for
 * the network on behalf of this).
 *
 * Gotchas: what is encrypted is committed before anybody sees it: a ratchet that is stored never goes back.
 *
 * Not here: rooms and their timelines (`Rooms.ts`), the turns (`CryptoTurn.ts`).
 */
import {
  type CryptoEngine,
  type CryptoError,
  EventDecryptor,
  type HomeserverError,
  type MatrixEvent,
  type StoreError,
  SyncConfig
} from "@twinloop/core"
import { Context, Effect, Layer, Predicate, Schedule, Schema, Semaphore } from "effect"
import { CryptoTurn, isStale } from "./CryptoTurn.ts"
import { OutgoingRequests, type Stayed } from "./OutgoingRequests.ts"

/**
 * This process could not become the owner of the extension stream in time. The service doesn't run here, or another process
 * owns the stream and doesn't yield; nothing was sent. Start the service, or look at the other process (`twinloop status`).
 */
export class StreamNotOwned extends Schema.TaggedError<StreamNotOwned>("@twinloop/actors/StreamNotOwned")(
  "StreamNotOwned",
  { message: Schema.String, waitedMillis: Schema.Finite }
) {}

/** What can go wrong while something is encrypted. */
export type EncryptionError =
  | StreamNotOwned
  | CryptoError.CryptoError
  | StoreError.StoreError
  | HomeserverError.HomeserverError

/** What is to be encrypted, and for whom. */
export interface RoomEvent {
  readonly roomId: MatrixEvent.RoomId
  readonly type: string
  readonly content: MatrixEvent.JsonObject
  /** Everybody who may read it. */
  readonly users: ReadonlyArray<MatrixEvent.UserId>
  readonly settings: CryptoEngine.RoomKeySettings
}

export interface BootstrapOptions {
  /** Makes new keys also where there are some: everybody who verified this account must do so again. Default false. */
  readonly reset?: boolean
  /**
   * Answers the homeserver's question who this is: given what `UserInteractiveAuth` told, the `auth` to send. Without it the
   * error is the caller's. Spec: "User-Interactive Authentication API".
   */
  readonly authenticate?: (
    asked: HomeserverError.UserInteractiveAuth
  ) => Effect.Effect<MatrixEvent.JsonObject, HomeserverError.HomeserverError>
}

export class Encryption extends Context.Service<
  Encryption,
  {
    /** What encryption is like on this device, as committed. Any process may ask. */
    readonly status: Effect.Effect<EventDecryptor.EncryptionStatus, CryptoError.CryptoError>
    /** The known devices of a user, with how far they are trusted. Any process may ask. */
    devices(
      userId: MatrixEvent.UserId
    ): Effect.Effect<ReadonlyArray<EventDecryptor.DeviceTrust>, CryptoError.CryptoError>
    /** Says what the user thinks of a known device, on this device alone. */
    setLocalTrust(device: {
      readonly userId: MatrixEvent.UserId
      readonly deviceId: MatrixEvent.DeviceId
      readonly trust: CryptoEngine.LocalTrust
    }): Effect.Effect<void, EncryptionError>
    /** Makes the account's cross-signing keys unless this device has them, and publishes them. Spec: "Cross-signing". */
    bootstrapCrossSigning(options?: BootstrapOptions): Effect.Effect<void, EncryptionError>
    /** Waits until this process owns the extension stream, and asks whoever else does to yield. `encrypt` does so, too. */
    readonly own: Effect.Effect<void, StreamNotOwned>
    /** Encrypts an event for a room: follows the devices, shares the key, gives the content of `m.room.encrypted`. `Rooms.send` does it all. */
    encrypt(event: RoomEvent): Effect.Effect<MatrixEvent.JsonObject, EncryptionError>
  }
>()("@twinloop/actors/Encryption") {
  static readonly layer: Layer.Layer<Encryption, never, CryptoTurn | OutgoingRequests | EventDecryptor.EventDecryptor> =
    Layer.effect(
      Encryption,
      Effect.suspend(() => make)
    )
}

/** How often something is begun again because the stream was lost in the middle of it. */
const LOSSES = 5

/** How often a key is shared again because the machine was made anew before it encrypted. */
const REMADE = 3

const isFailed = (error: EncryptionError): boolean =>
  error._tag === "CryptoError" && error.reason._tag === "CryptoFailed"

const isAuthAsked = (
  error: HomeserverError.HomeserverError
): error is HomeserverError.HomeserverError & { readonly reason: HomeserverError.UserInteractiveAuth } =>
  error.reason._tag === "UserInteractiveAuth"

/** The request with its answer to the homeserver's question. */
const withAuth = (request: CryptoEngine.OutgoingRequest, auth: MatrixEvent.JsonObject): CryptoEngine.OutgoingRequest =>
  request.request._tag === "Keys"
    ? {
        ...request,
        request: { _tag: "Keys", keys: { ...request.request.keys, body: { ...request.request.keys.body, auth } } }
      }
    : request

/** Whether a request asks about the devices of one of these users. */
const asksAbout =
  (users: ReadonlyArray<MatrixEvent.UserId>) =>
  ({ request: { request } }: Stayed): boolean => {
    if (request._tag !== "Keys" || request.keys.kind !== "query") return false
    const asked = request.keys.body.device_keys
    return Predicate.isObject(asked) && users.some((userId) => userId in asked)
  }

const make = Effect.gen(function* () {
  const config = yield* SyncConfig.SyncConfig
  const turn = yield* CryptoTurn
  const requests = yield* OutgoingRequests
  const decryptor = yield* EventDecryptor.EventDecryptor
  // The machine wants claims and shares made one after the other (matrix-sdk-crypto, `get_missing_sessions`).
  const one = yield* Semaphore.make(1)

  const owned: Effect.Effect<void, StreamNotOwned> = Effect.gen(function* () {
    if (yield* turn.isOpen) return
    // Again and again: what is asked before the own loop waits, or knows that it has lost the stream, reaches nobody.
    yield* Effect.raceFirst(turn.opened, Effect.repeat(turn.hurry, Schedule.spaced(config.waitPollMillis)))
  }).pipe(
    Effect.timeoutOrElse({
      duration: config.sendWaitMillis,
      orElse: () =>
        Effect.fail(
          new StreamNotOwned({
            waitedMillis: config.sendWaitMillis,
            message: `this process could not become the owner of the extension stream within ${config.sendWaitMillis} ms, so nothing was sent. Start the sync service here, or see with "twinloop status" which process owns the stream; then try again.`
          })
        )
    })
  )

  /** Does something as the owner, and begins again when the stream is lost meanwhile. */
  const asOwner = <A>(effect: Effect.Effect<A, EncryptionError>): Effect.Effect<A, EncryptionError> =>
    Effect.andThen(owned, effect).pipe(Effect.retry({ while: isStale, times: LOSSES }))

  const encrypt = Effect.fn("Encryption.encrypt")(function* ({ content, roomId, settings, type, users }: RoomEvent) {
    yield* turn.change((engine, fence) => engine.track(fence, users))
    // Whose devices could not be asked about would be given no key, and could never read the event.
    const unasked = (yield* requests.flush).find(asksAbout(users))
    if (unasked !== undefined) return yield* unasked.error
    yield* requests.send(yield* turn.change((engine, fence) => engine.claim(fence, users)))
    const share = Effect.flatMap(
      turn.change((engine, fence) => engine.shareRoomKey(fence, { roomId, users, settings })),
      requests.send
    )
    const encrypted = turn.change((engine, fence) => engine.encrypt(fence, { roomId, type, content }))
    // A turn in between may have made the machine anew, which then wants to be told again with whom the key is shared.
    return yield* Effect.andThen(share, encrypted).pipe(Effect.retry({ while: isFailed, times: REMADE }))
  })

  /** Sends a request; one that is answered with a question is sent again with the answer. */
  const sendAuthenticated = (request: CryptoEngine.OutgoingRequest, { authenticate }: BootstrapOptions) =>
    requests
      .send([request])
      .pipe(
        Effect.catchTag("HomeserverError", (error) =>
          authenticate !== undefined && isAuthAsked(error)
            ? Effect.flatMap(authenticate(error.reason), (auth) => requests.send([withAuth(request, auth)]))
            : Effect.fail(error)
        )
      )

  const bootstrap = Effect.fn("Encryption.bootstrapCrossSigning")(function* (options: BootstrapOptions) {
    yield* requests.flush
    const made = yield* turn.change((engine, fence) =>
      engine.bootstrapCrossSigning(fence, { reset: options.reset ?? false })
    )
    for (const request of made) yield* sendAuthenticated(request, options)
    // The last one has told this device that it is signed; what the machine wants of others by that is sent at once.
    yield* requests.flush
  })

  return Encryption.of({
    status: decryptor.status,
    devices: decryptor.devices,
    setLocalTrust: (device) =>
      one.withPermit(asOwner(turn.change((engine, fence) => engine.setLocalTrust(fence, device)))),
    bootstrapCrossSigning: (options = {}) => one.withPermit(asOwner(bootstrap(options))),
    own: owned,
    encrypt: (event) => one.withPermit(asOwner(encrypt(event)))
  })
})
