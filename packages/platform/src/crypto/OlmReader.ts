/**
 * `EventDecryptor` by an Olm machine that can't write, over the keys that are committed in the account's database.
 *
 * Includes the layer. The machine has a WebAssembly of its own, so that reading and the owner's work never wait for one
 * another's locks; it is made when the first event is to be decrypted, or when `prepare` says that one may come.
 *
 * Invariants: I6 (what isn't committed can't be read), I7 (every event gets an answer, and no ciphertext is shown as two).
 *
 * Gotchas: decrypting would like to write in two cases, that the sender of a key is known better by now, and that a key is
 * to be asked for. The first is dropped and found out again each time, the second is turned off.
 *
 * Not here: showing and retrying (actors: `Rooms`), the machine and its errors (`OlmMachine.ts`).
 */
import { type CryptoError, EventDecryptor, Homeserver, type MatrixEvent } from "@twinloop/core"
import type * as Sdk from "@matrix-org/matrix-sdk-crypto-wasm"
import { Effect, Layer, Predicate, Semaphore } from "effect"
import type { Scope } from "effect"
import type * as SqliteClient from "../sqlite/SqliteClient.ts"
import type { CryptoSdk } from "./CryptoWasm.ts"
import { roomIdOf, userIdOf } from "./MachineIds.ts"
import { MessageIndexes } from "./MessageIndexes.ts"
import * as OlmMachine from "./OlmMachine.ts"
import type { StoreKey } from "./StoreKey.ts"

type Machine = OlmMachine.OlmMachine
type Call<A> = Effect.Effect<A, CryptoError.CryptoError>

const MEGOLM = "m.megolm.v1.aes-sha2"

const sentences: { readonly [reason in EventDecryptor.UndecryptableReason]: string } = {
  MissingRoomKey: "the key of this message hasn't come yet; it is decrypted when it does",
  Withheld: "the sender keeps the key of this message from this device",
  UnknownMessageIndex: "the key that came is for later messages only; ask the sender, or another device, for this one",
  MismatchedIdentityKeys: "the key of this message isn't its sender's, so it may be forged",
  MismatchedSender: "this message names another sender than the owner of its key, so it may be forged",
  UnknownSenderDevice: "the device that sent this message isn't known",
  UnsignedSenderDevice: "the sender hasn't signed the device that sent this message",
  SenderIdentityVerificationViolation: "the sender was verified and has other keys since; verify the sender again",
  Replayed: "this is the ciphertext of another message, sent again by somebody who isn't its sender",
  Malformed: "this is not an encrypted message as the specification has them",
  UnsupportedAlgorithm: "this message is encrypted in a way that isn't known here",
  NoEncryption: "this application was composed without end-to-end encryption",
  Failed: "this message can't be decrypted: it is damaged, or it was encrypted for something else"
}

type Undecryptable = EventDecryptor.Undecryptable
type Extra = Partial<Pick<Undecryptable, "sessionId" | "withheld">>

const undecryptable = (
  reason: EventDecryptor.UndecryptableReason,
  extra: Extra = {},
  detail?: string
): Undecryptable => ({
  _tag: "Undecryptable",
  reason,
  message: detail === undefined ? sentences[reason] : `${sentences[reason]} (${detail})`,
  ...extra
})

/** Says why an event isn't one that the machine can be asked about. */
const whyNotAsked = ({ content, type }: MatrixEvent.TimelineEvent): Undecryptable | undefined => {
  const { algorithm, ciphertext, session_id: sessionId } = content
  if (type !== "m.room.encrypted" || typeof algorithm !== "string") return undecryptable("Malformed")
  if (algorithm !== MEGOLM) return undecryptable("UnsupportedAlgorithm", {}, algorithm)
  return typeof ciphertext === "string" && typeof sessionId === "string" ? undefined : undecryptable("Malformed")
}

/** The event as the machine wants it: with its room, and with a time, which not every homeserver sends. */
const eventFor = (roomId: string, event: MatrixEvent.TimelineEvent): string =>
  JSON.stringify({
    ...event,
    room_id: roomId,
    origin_server_ts: Number.isSafeInteger(event.origin_server_ts) ? event.origin_server_ts : 0
  })

/** What the machine's `MegolmDecryptionError` has. */
interface Refusal {
  readonly code: number
  readonly description: string
  readonly withheldCode: string | undefined
  readonly maybe_withheld: string | undefined
}

const isRefusal = (cause: unknown): cause is Refusal =>
  Predicate.hasProperty(cause, "code") && Predicate.hasProperty(cause, "description")

/** How the machine's reader says that it couldn't read a key from the store. */
const isStoreFailure = ({ description }: Refusal): boolean => description.includes("crypto store")

const refusalOf = (sdk: CryptoSdk, refusal: Refusal, sessionId: string): Undecryptable => {
  const { description, maybe_withheld: words, withheldCode: code } = refusal
  if (code !== undefined) {
    return undecryptable(
      "Withheld",
      { sessionId, withheld: { code, ...(words === undefined ? {} : { message: words }) } },
      words
    )
  }
  const names: { readonly [code: number]: EventDecryptor.UndecryptableReason } = {
    [sdk.DecryptionErrorCode.MissingRoomKey]: "MissingRoomKey",
    [sdk.DecryptionErrorCode.UnknownMessageIndex]: "UnknownMessageIndex",
    [sdk.DecryptionErrorCode.MismatchedIdentityKeys]: "MismatchedIdentityKeys",
    [sdk.DecryptionErrorCode.MismatchedSender]: "MismatchedSender",
    [sdk.DecryptionErrorCode.UnknownSenderDevice]: "UnknownSenderDevice",
    [sdk.DecryptionErrorCode.UnsignedSenderDevice]: "UnsignedSenderDevice",
    [sdk.DecryptionErrorCode.SenderIdentityVerificationViolation]: "SenderIdentityVerificationViolation"
  }
  const reason = names[refusal.code] ?? "Failed"
  return undecryptable(reason, { sessionId }, reason === "Failed" ? description : undefined)
}

const shieldOf = (sdk: CryptoSdk, decrypted: Sdk.DecryptedRoomEvent): EventDecryptor.Shield => {
  // What to show is what clients show. Where they show nothing, the strict answer says why the sender isn't certain.
  const shown = decrypted.shieldState(false)
  const { color } = shown
  const { code, message } = shown.code === undefined ? decrypted.shieldState(true) : shown
  const colors = {
    [sdk.ShieldColor.Red]: "red",
    [sdk.ShieldColor.Grey]: "grey",
    [sdk.ShieldColor.None]: "none"
  } as const
  return {
    color: colors[color],
    // The enumeration's names are the port's.
    ...(code === undefined ? {} : { code: sdk.ShieldStateCode[code] as EventDecryptor.ShieldCode }),
    ...(message === undefined ? {} : { message })
  }
}

const decryptedOf = (
  sdk: CryptoSdk,
  event: MatrixEvent.TimelineEvent,
  decrypted: Sdk.DecryptedRoomEvent,
  sessionId: string
): EventDecryptor.Decrypted => {
  // The machine has made it, of an event that is one.
  const inner = JSON.parse(decrypted.event) as Pick<MatrixEvent.TimelineEvent, "type" | "content">
  const device = decrypted.senderDevice
  return {
    _tag: "Decrypted",
    event: { ...event, type: inner.type, content: inner.content },
    shield: shieldOf(sdk, decrypted),
    sessionId,
    senderKey: decrypted.senderCurve25519Key,
    ...(device === undefined ? {} : { senderDevice: device.toString() })
  }
}

const DECRYPT = "decrypt an event"

const decryptWith = (
  machine: Machine,
  roomId: string,
  event: MatrixEvent.TimelineEvent,
  sessionId: string
): Call<EventDecryptor.Decryption> =>
  machine.call(DECRYPT, async (olm, sdk): Promise<EventDecryptor.Decryption> => {
    const room = roomIdOf(sdk, roomId)
    if (room === undefined) return undecryptable("Malformed", { sessionId })
    const settings = new sdk.DecryptionSettings(sdk.TrustRequirement.Untrusted)
    try {
      return decryptedOf(sdk, event, await olm.decryptRoomEvent(eventFor(roomId, event), room, settings), sessionId)
    } catch (cause) {
      if (!isRefusal(cause) || isStoreFailure(cause)) throw cause
      return refusalOf(sdk, cause, sessionId)
    }
  })

/** An event that is another one's ciphertext isn't shown, or a homeserver could have people say again what they once said. */
const unlessReplayed = (
  shown: MessageIndexes,
  { content, event_id: eventId }: MatrixEvent.TimelineEvent,
  decryption: EventDecryptor.Decryption
): EventDecryptor.Decryption => {
  if (decryption._tag === "Undecryptable") return decryption
  const { sessionId } = decryption
  const first = shown.firstOf(sessionId, String(content.ciphertext), eventId)
  return first === eventId ? decryption : undecryptable("Replayed", { sessionId }, first)
}

const deviceOf = (device: Sdk.Device): EventDecryptor.DeviceTrust => {
  const { displayName } = device
  const fingerprint = device.ed25519Key?.toBase64()
  return {
    userId: device.userId.toString(),
    deviceId: device.deviceId.toString(),
    ...(displayName === undefined ? {} : { displayName }),
    ...(fingerprint === undefined ? {} : { fingerprint }),
    isVerified: device.isVerified(),
    isCrossSigned: device.isCrossSignedByOwner(),
    isBlocked: device.isBlacklisted()
  }
}

const statusOf = (machine: Machine, { deviceId, userId }: Homeserver.Session): Call<EventDecryptor.EncryptionStatus> =>
  machine.call("read the encryption's status", async (olm, sdk) => {
    const { hasMaster, hasSelfSigning, hasUserSigning } = await olm.crossSigningStatus()
    const own = await olm.getDevice(new sdk.UserId(userId), new sdk.DeviceId(deviceId))
    const { curve25519, ed25519 } = olm.identityKeys
    return {
      deviceKeys: { ed25519: ed25519.toBase64(), curve25519: curve25519.toBase64() },
      crossSigning: { master: hasMaster, selfSigning: hasSelfSigning, userSigning: hasUserSigning },
      isDeviceVerified: own?.isCrossSigningTrusted() ?? false,
      roomKeys: (await olm.roomKeyCounts()).total,
      trackedUsers: (await olm.trackedUsers()).size
    }
  })

const emptyStatus: EventDecryptor.EncryptionStatus = {
  crossSigning: { master: false, selfSigning: false, userSigning: false },
  isDeviceVerified: false,
  roomKeys: 0,
  trackedUsers: 0
}

const isNoStore = ({ reason }: CryptoError.CryptoError): boolean => reason._tag === "CryptoNoStore"

const make: Effect.Effect<
  EventDecryptor.EventDecryptor["Service"],
  never,
  Homeserver.Homeserver | SqliteClient.SqliteClient | StoreKey | Scope.Scope
> = Effect.gen(function* () {
  const { session } = yield* Homeserver.Homeserver
  const account = yield* OlmMachine.accountOf(session)
  // One at a time: the Rust code runs on this thread anyway, and no machine is closed under a call.
  const one = yield* Semaphore.make(1)
  let host: OlmMachine.Host | undefined
  let machine: Machine | undefined
  const shown = new MessageIndexes()

  const close = Effect.sync(() => {
    machine?.close()
    machine = undefined
  })
  const open = Effect.gen(function* () {
    if (host === undefined || host.trapped() !== undefined) host = yield* OlmMachine.makeHost
    machine = yield* OlmMachine.open(account, host, { writable: false })
    return machine
  })
  /** With the machine, whose memory is void after an error or an interruption. */
  const using = <A>(body: (machine: Machine) => Call<A>): Call<A> =>
    one.withPermit(
      Effect.suspend(() => (machine === undefined ? open : Effect.succeed(machine))).pipe(
        Effect.flatMap(body),
        Effect.onError(() => close)
      )
    )
  /** With a machine that has just read what is stored, for what a machine keeps in memory. */
  const usingFresh = <A>(body: (machine: Machine) => Call<A>): Call<A> =>
    Effect.andThen(one.withPermit(close), using(body))

  yield* Effect.addFinalizer(() => close)
  return EventDecryptor.EventDecryptor.of({
    decrypt: (roomId, event) =>
      Effect.suspend(() => {
        const answer = whyNotAsked(event)
        if (answer !== undefined) return Effect.succeed(answer)
        const sessionId = String(event.content.session_id)
        return using((current) => decryptWith(current, roomId, event, sessionId)).pipe(
          Effect.map((decryption) => unlessReplayed(shown, event, decryption)),
          Effect.catchIf(isNoStore, () => Effect.succeed(undecryptable("MissingRoomKey", { sessionId })))
        )
      }),
    devices: (userId) =>
      using((current) =>
        current.call("read a user's devices", async (olm, sdk) => {
          const user = userIdOf(sdk, userId)
          return user === undefined ? [] : (await olm.getUserDevices(user)).devices().map(deviceOf)
        })
      ).pipe(Effect.catchIf(isNoStore, () => Effect.succeed([]))),
    status: usingFresh((current) => statusOf(current, session)).pipe(
      Effect.catchIf(isNoStore, () => Effect.succeed(emptyStatus))
    ),
    prepare: Effect.ignore(using(() => Effect.void))
  })
})

/** The reading half of the account whose database and login are given. It loads nothing until it is asked. */
export const layer: Layer.Layer<
  EventDecryptor.EventDecryptor,
  never,
  Homeserver.Homeserver | SqliteClient.SqliteClient | StoreKey
> = Layer.effect(EventDecryptor.EventDecryptor, make)
