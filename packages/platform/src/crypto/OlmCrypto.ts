/**
 * `CryptoEngine` by the Olm machine of matrix-rust-sdk, over the keys in the account's database.
 *
 * Includes the layer. All that the machine stores during a call is staged and given to the caller's fenced commit.
 *
 * Invariants: I1 (each call takes the fence; the machine itself can write nothing), I2, I5 (`reload` makes another machine),
 * I7 (an event that the machine rejects, fails at or traps on is quarantined, and the others of its batch are not).
 *
 * Gotchas:
 * - The machine is remade in 5 ms. So whatever goes wrong, it is thrown away, and never repaired.
 * - `encrypt` traps in Rust when a room has no key, or one that is used up, which only sharing finds out; so each sharing is
 *   good for one event, and others are refused before.
 * - Ids of the machine's requests change each time it is asked; what is to be sent doesn't, until it was sent.
 *
 * Not here: the machine and its errors (`OlmMachine.ts`), reading events of rooms (`OlmReader.ts`).
 */
import { CryptoEngine, CryptoError, Homeserver, type Lease, type MatrixEvent, type SyncStore } from "@twinloop/core"
import type * as Sdk from "@matrix-org/matrix-sdk-crypto-wasm"
import { Effect, Layer, Predicate, Ref } from "effect"
import type { Scope } from "effect"
import type * as SqliteClient from "../sqlite/SqliteClient.ts"
import type { CryptoSdk } from "./CryptoWasm.ts"
import { userIdOf, userIdsOf } from "./MachineIds.ts"
import * as OlmMachine from "./OlmMachine.ts"
import type { StoreKey } from "./StoreKey.ts"

type Changed<A> = CryptoEngine.Changed<A>
type Machine = OlmMachine.OlmMachine
type Call<A> = Effect.Effect<A, CryptoError.CryptoError>

const jsonOf = (text: string): MatrixEvent.JsonObject => JSON.parse(text) as MatrixEvent.JsonObject

const failed = (operation: string, message: string): CryptoError.CryptoError =>
  new CryptoError.CryptoError({ operation, reason: new CryptoError.CryptoFailed({ message }) })

// --- receiving

/** Types of to-device events that bring a room's key, or say that it won't come. Spec: "Key management". */
const roomKeyTypes = new Set(["m.room_key", "m.forwarded_room_key", "m.room_key.withheld"])

const roomKeyNews = ({ event, type }: SyncStore.InboxEvent): ReadonlyArray<SyncStore.EncryptionNews> => {
  if (!roomKeyTypes.has(type) || !Predicate.isObject(event.content)) return []
  const { room_id: roomId, session_id: sessionId } = event.content as MatrixEvent.JsonObject
  return typeof roomId === "string" && typeof sessionId === "string" ? [{ _tag: "RoomKey", roomId, sessionId }] : []
}

/** What became of one event. */
type Processed = { readonly inbox: SyncStore.InboxEvent } | { readonly quarantined: MatrixEvent.Quarantined }

const quarantined = (event: MatrixEvent.MatrixEvent, why: string): Processed => ({
  quarantined: { source: "toDevice", reason: `a to-device event was set aside: ${why}`, raw: event }
})

const processedOf = (sdk: CryptoSdk, event: MatrixEvent.MatrixEvent, processed: ToDevice): Processed => {
  const kind = sdk.ProcessedToDeviceEventType
  const asItCame = { type: event.type, sender: event.sender, event }
  switch (processed.type) {
    case kind.Decrypted: {
      const decrypted = jsonOf(processed.rawEvent)
      const type = typeof decrypted.type === "string" ? decrypted.type : event.type
      return { inbox: { type, sender: event.sender, event: decrypted, encryption: "decrypted" } }
    }
    case kind.UnableToDecrypt:
      return { inbox: { ...asItCame, encryption: "undecryptable" } }
    case kind.PlainText:
      return { inbox: { ...asItCame, encryption: "none" } }
    default:
      return quarantined(event, "the end-to-end machine can't make sense of it")
  }
}

/** What the machine says of an event: the one thing that its four classes have in common. */
interface ToDevice {
  readonly type: number
  readonly rawEvent: string
}

const countsOf = (counts: { readonly [algorithm: string]: number } = {}): Map<string, number> =>
  new Map(Object.entries(counts).filter(([, count]) => Number.isSafeInteger(count) && count >= 0))

const RECEIVE = "take to-device events"

/** Gives the machine a batch, which it takes as a whole or fails at as a whole. */
const receiveAll = (
  machine: Machine,
  batch: CryptoEngine.ReceiveBatch,
  events: ReadonlyArray<MatrixEvent.MatrixEvent>
): Call<ReadonlyArray<Processed>> =>
  machine.call(RECEIVE, async (olm, sdk) => {
    if (batch.fresh) await olm.markAllTrackedUsersAsDirty()
    const { changed = [], left = [] } = batch.e2ee?.deviceLists ?? {}
    const fallback = batch.e2ee?.unusedFallbackKeyTypes
    const processed = await olm.receiveSyncChangesMsc4186(
      JSON.stringify(events),
      new sdk.DeviceLists(userIdsOf(sdk, changed), userIdsOf(sdk, left)),
      countsOf(batch.e2ee?.oneTimeKeysCount),
      fallback === undefined ? undefined : new Set(fallback),
      new sdk.DecryptionSettings(sdk.TrustRequirement.Untrusted)
    )
    if (processed.length !== events.length) {
      throw new Error(`${events.length} events were given and ${processed.length} came back`)
    }
    return events.map((event, index) => processedOf(sdk, event, processed[index] as ToDevice))
  })

// --- requests

const kinds: { readonly [type: number]: CryptoEngine.OutgoingRequest["request"]["_tag"] } = {
  0: "Keys",
  1: "Keys",
  2: "Keys",
  3: "ToDevice",
  4: "Keys",
  5: "RoomEvent"
}

/** By the machine's `RequestType`. */
const keysKinds: { readonly [type: number]: Homeserver.KeysRequest["kind"] } = {
  0: "upload",
  1: "query",
  2: "claim",
  4: "signatures"
}

/** What the machine's request classes have, each some of it. */
interface MachineRequest {
  /** Absent when the machine doesn't want to know the answer. */
  readonly id?: string
  readonly type: number
  readonly body: string
  readonly event_type?: string
  readonly txn_id?: string
  readonly room_id?: string
}

const messagesOf = (body: string): Homeserver.SendToDevice["messages"] =>
  // The machine made it as the spec has it.
  (jsonOf(body) as unknown as { readonly messages: Homeserver.SendToDevice["messages"] }).messages

const requestOf = (made: MachineRequest): ReadonlyArray<CryptoEngine.OutgoingRequest> => {
  const { body, event_type: type = "", id = unmarked, room_id: roomId = "", txn_id: txnId = "" } = made
  switch (kinds[made.type]) {
    case "Keys":
      return [{ id, request: { _tag: "Keys", keys: { kind: keysKinds[made.type] ?? "query", body: jsonOf(body) } } }]
    case "ToDevice":
      return [{ id, request: { _tag: "ToDevice", toDevice: { type, txnId, messages: messagesOf(body) } } }]
    case "RoomEvent":
      return [{ id, request: { _tag: "RoomEvent", event: { roomId, type, txnId, content: jsonOf(body) } } }]
    default:
      // A backup of room keys: nothing here turns it on.
      return []
  }
}

const requestsOf = (made: ReadonlyArray<unknown>): ReadonlyArray<CryptoEngine.OutgoingRequest> =>
  made.flatMap((request) => requestOf(request as MachineRequest))

/** Id of a request whose answer the machine doesn't want to know. */
const unmarked = ""

/** The machine's `RequestType` of a request, or `undefined` for one whose answer it doesn't want. */
const typeOf = (sdk: CryptoSdk, { request }: CryptoEngine.OutgoingRequest): Sdk.RequestType | undefined => {
  switch (request._tag) {
    case "ToDevice":
      return sdk.RequestType.ToDevice
    case "RoomEvent":
      return sdk.RequestType.RoomMessage
    case "Keys":
      return {
        upload: sdk.RequestType.KeysUpload,
        query: sdk.RequestType.KeysQuery,
        claim: sdk.RequestType.KeysClaim,
        signatures: sdk.RequestType.SignatureUpload,
        deviceSigning: undefined
      }[request.keys.kind]
  }
}

/** Whose devices the answer to a request tells. */
const devicesNews = (
  { request }: CryptoEngine.OutgoingRequest,
  response: MatrixEvent.JsonObject
): ReadonlyArray<SyncStore.EncryptionNews> => {
  const tells = request._tag === "Keys" && request.keys.kind === "query" && Predicate.isObject(response.device_keys)
  if (!tells) return []
  return Object.keys(response.device_keys as object).map((userId) => ({ _tag: "Devices", userId }))
}

const badAnswer = (cause: unknown): CryptoError.CryptoBadAnswer =>
  new CryptoError.CryptoBadAnswer({
    message: `the homeserver's answer is not what was asked for (${OlmMachine.messageOf(cause)}); the request stays queued: look at the homeserver, and at a proxy before it`
  })

/** The machine says so when it can't read an answer; what else it fails at is no matter of the answer's. */
const whyBadAnswer = (cause: unknown): CryptoError.CryptoErrorReason | undefined =>
  OlmMachine.messageOf(cause).startsWith("deserialization failed") ? badAnswer(cause) : undefined

// --- settings

const settingsOf = (sdk: CryptoSdk, settings: CryptoEngine.RoomKeySettings): Sdk.EncryptionSettings => {
  const made = new sdk.EncryptionSettings()
  made.historyVisibility = {
    invited: sdk.HistoryVisibility.Invited,
    joined: sdk.HistoryVisibility.Joined,
    shared: sdk.HistoryVisibility.Shared,
    world_readable: sdk.HistoryVisibility.WorldReadable
  }[settings.historyVisibility]
  made.sharingStrategy = {
    all: () => sdk.CollectStrategy.allDevices(),
    trusted: () => sdk.CollectStrategy.onlyTrustedDevices(),
    identity: () => sdk.CollectStrategy.identityBasedStrategy()
  }[settings.sharing]()
  // In microseconds.
  if (settings.rotationPeriodMillis !== undefined) made.rotationPeriod = BigInt(settings.rotationPeriodMillis) * 1000n
  if (settings.rotationPeriodMessages !== undefined)
    made.rotationPeriodMessages = BigInt(settings.rotationPeriodMessages)
  return made
}

// --- the engine

/** What is in memory: a machine, and which rooms have a key in it that is good for one event more. */
interface Loaded {
  readonly machine: Machine
  readonly keyed: Set<string>
}

interface Env {
  readonly account: OlmMachine.Account
  readonly host: Ref.Ref<OlmMachine.Host | undefined>
  readonly loaded: Ref.Ref<Loaded | undefined>
}

/** The host, another one if the last has died. */
const hostOf = Effect.fnUntraced(function* (env: Env) {
  const known = yield* Ref.get(env.host)
  if (known !== undefined && known.trapped() === undefined) return known
  const host = yield* OlmMachine.makeHost
  yield* Ref.set(env.host, host)
  return host
})

const discard = (env: Env): Effect.Effect<void> =>
  Effect.map(Ref.getAndSet(env.loaded, undefined), (loaded) => loaded?.machine.close())

const reload = Effect.fnUntraced(function* (env: Env) {
  yield* discard(env)
  const machine = yield* OlmMachine.open(env.account, yield* hostOf(env), { writable: true })
  const loaded: Loaded = { machine, keyed: new Set() }
  yield* Ref.set(env.loaded, loaded)
  return loaded
})

/** What is in memory; a caller that hasn't loaded it has broken the port's rule, and is told so. */
const memory = (env: Env, operation: string): Call<Loaded> =>
  Ref.get(env.loaded).pipe(
    Effect.filterOrFail(Predicate.isNotUndefined, () =>
      failed(operation, "nothing is loaded; reload the engine before it is used")
    )
  )

/** A call with what it wants written. */
const change = <A>(
  env: Env,
  operation: string,
  body: (loaded: Loaded) => Call<A>,
  newsOf: (value: A) => ReadonlyArray<SyncStore.EncryptionNews> = () => []
): Call<Changed<A>> =>
  Effect.flatMap(memory(env, operation), (loaded) =>
    Effect.map(body(loaded), (value) => ({
      value,
      writes: loaded.machine.database.writes(),
      news: newsOf(value)
    }))
  )

/** Whether a batch failed by what is in it, as far as can be told: not by the database, nor by the key. */
const mayBePoison = ({ reason }: CryptoError.CryptoError): boolean =>
  reason._tag === "CryptoTrapped" || reason._tag === "CryptoFailed"

type Events = ReadonlyArray<MatrixEvent.MatrixEvent>

/**
 * Finds the first event of a batch at which the machine fails, by giving it one event after the other; `undefined` when it
 * takes them all. The machine is void afterwards.
 */
const firstPoison = Effect.fnUntraced(function* (env: Env, batch: CryptoEngine.ReceiveBatch, events: Events) {
  const { machine } = yield* reload(env)
  for (const event of events) {
    const result = yield* Effect.result(receiveAll(machine, batch, [event]))
    if (result._tag === "Success") continue
    if (!mayBePoison(result.failure)) return yield* result.failure
    return { event, error: result.failure }
  }
  return undefined
})

/** Whether a batch brought a room's key twice. */
const hasTwins = (processed: ReadonlyArray<Processed>): boolean => {
  const keys = processed.flatMap((one) =>
    "inbox" in one && one.inbox.encryption === "decrypted"
      ? roomKeyNews(one.inbox).map((news) => JSON.stringify(news))
      : []
  )
  return new Set(keys).size < keys.length
}

/**
 * Takes a batch. When it brings a room's key twice, the machine is given it again, one event after the other: it compares a key
 * with the stored one, and not with one of the same batch, so the last would win, also over one that reads earlier messages
 * (matrix-sdk-crypto 0.19). A sender shares a key again when he learns of a new session of ours.
 */
const receiveWhole = Effect.fnUntraced(function* (
  env: Env,
  machine: Machine,
  batch: CryptoEngine.ReceiveBatch,
  events: Events
) {
  const processed = yield* receiveAll(machine, batch, events)
  if (!hasTwins(processed)) return processed
  const { machine: again } = yield* reload(env)
  const first = yield* receiveAll(again, batch, events.slice(0, 1))
  const bare: CryptoEngine.ReceiveBatch = { toDevice: [], fresh: false }
  const others = yield* Effect.forEach(events.slice(1), (event) => receiveAll(again, bare, [event]))
  return [first, ...others].flat()
})

/** Takes a batch, and sets aside the events at which the machine fails (invariant I7). */
const receiveSifted = Effect.fnUntraced(function* (
  env: Env,
  batch: CryptoEngine.ReceiveBatch,
  first: CryptoError.CryptoError
) {
  let error = first
  let { toDevice: events } = batch
  const aside: Array<Processed> = []
  while (events.length > 0 && mayBePoison(error)) {
    const poison = yield* firstPoison(env, batch, events)
    if (poison !== undefined) {
      aside.push(quarantined(poison.event, `the end-to-end machine failed at it (${poison.error.reason.message})`))
      events = events.filter((event) => event !== poison.event)
    }
    const { machine } = yield* reload(env)
    const result = yield* Effect.result(receiveWhole(env, machine, batch, events))
    if (result._tag === "Success") return [...result.success, ...aside]
    // It takes each alone and not all of them: no event is to blame.
    if (poison === undefined) return yield* result.failure
    error = result.failure
  }
  return yield* error
})

const badIds = (sdk: CryptoSdk, batch: CryptoEngine.ReceiveBatch): ReadonlyArray<MatrixEvent.Quarantined> => {
  const { changed = [], left = [] } = batch.e2ee?.deviceLists ?? {}
  return [...changed, ...left]
    .filter((text) => userIdOf(sdk, text) === undefined)
    .map((text) => ({
      source: "extension" as const,
      reason: "the device lists name a user whose id is none, so nothing is known of his devices",
      raw: { device_lists: { changed: [text] } }
    }))
}

const receivedOf = (
  processed: ReadonlyArray<Processed>,
  aside: ReadonlyArray<MatrixEvent.Quarantined>
): CryptoEngine.Received => ({
  inbox: processed.flatMap((one) => ("inbox" in one ? [one.inbox] : [])),
  quarantined: [...processed.flatMap((one) => ("quarantined" in one ? [one.quarantined] : [])), ...aside]
})

const receive = Effect.fnUntraced(function* (env: Env, batch: CryptoEngine.ReceiveBatch) {
  const { machine } = yield* memory(env, RECEIVE)
  const processed = yield* receiveWhole(env, machine, batch, batch.toDevice).pipe(
    Effect.catchIf(
      (error) => batch.toDevice.length > 0 && mayBePoison(error),
      (error) => receiveSifted(env, batch, error)
    )
  )
  // The machine may be another one by now.
  return yield* change(
    env,
    RECEIVE,
    (loaded) => Effect.succeed(receivedOf(processed, badIds(loaded.machine.sdk, batch))),
    ({ inbox }) => inbox.flatMap(roomKeyNews)
  )
})

const markSent = (env: Env, request: CryptoEngine.OutgoingRequest, response: MatrixEvent.JsonObject) =>
  change(
    env,
    "take an answer",
    ({ machine }) =>
      machine.call(
        "take an answer",
        async (olm, sdk) => {
          const type = typeOf(sdk, request)
          if (type !== undefined && request.id !== unmarked)
            await olm.markRequestAsSent(request.id, type, JSON.stringify(response))
        },
        whyBadAnswer
      ),
    () => devicesNews(request, response)
  )

const claim = (env: Env, users: ReadonlyArray<string>) =>
  change(env, "claim one-time keys", ({ machine }) =>
    machine.call("claim one-time keys", async (olm, sdk) => {
      const made = await olm.getMissingSessions(userIdsOf(sdk, users))
      return made === null ? [] : requestsOf([made])
    })
  )

type ShareRoomKey = Parameters<CryptoEngine.CryptoEngine["Service"]["shareRoomKey"]>[1]

const shareRoomKey = (env: Env, { roomId, settings, users }: ShareRoomKey) =>
  change(env, "share a room key", ({ keyed, machine }) =>
    machine.call("share a room key", async (olm, sdk) => {
      const made = await olm.shareRoomKey(new sdk.RoomId(roomId), userIdsOf(sdk, users), settingsOf(sdk, settings))
      keyed.add(roomId)
      return requestsOf(made)
    })
  )

type Encrypt = Parameters<CryptoEngine.CryptoEngine["Service"]["encrypt"]>[1]

/**
 * JSON in which half of a surrogate pair is U+FFFD, as in any UTF-8. The machine would encrypt it as it is, and no machine
 * reads it then: the message would be lost for everybody.
 */
const wellFormed = (content: MatrixEvent.JsonObject): string =>
  // `JSON.stringify` escapes surrogates only when they are alone; a backslash of the text's own is escaped, too.
  JSON.stringify(content).replace(/\\(?:ud[89a-f][0-9a-f]{2}|.)/g, (escaped) =>
    escaped.startsWith("\\ud") ? "\\ufffd" : escaped
  )

const encrypt = (env: Env, { content, roomId, type }: Encrypt) =>
  change(env, "encrypt an event", ({ keyed, machine }) =>
    // It may be used up by this one.
    keyed.delete(roomId)
      ? machine.call("encrypt an event", async (olm, sdk) =>
          jsonOf(await olm.encryptRoomEvent(new sdk.RoomId(roomId), type, wellFormed(content)))
        )
      : Effect.fail(
          failed(
            "encrypt an event",
            `the room ${roomId} may have no key to encrypt with; share one first (shareRoomKey)`
          )
        )
  )

const elsewhere =
  "the account has cross-signing keys already, and this device hasn't got the private ones; verify this device from the one that has them, or make new keys with `reset`, after which everybody who verified this account must do so again"

const bootstrapCrossSigning = (env: Env, { reset }: { readonly reset: boolean }) =>
  change(env, "make cross-signing keys", ({ machine }) =>
    machine.call("make cross-signing keys", async (olm, sdk) => {
      const { hasMaster, hasSelfSigning, hasUserSigning } = await olm.crossSigningStatus()
      const isOurs = hasMaster && hasSelfSigning && hasUserSigning
      const known = await olm.getIdentity(new sdk.UserId(env.account.session.userId))
      if (!reset && !isOurs && known !== undefined) throw new Error(elsewhere)
      const made = await olm.bootstrapCrossSigning(reset)
      const signing: CryptoEngine.OutgoingRequest = {
        id: unmarked,
        request: {
          _tag: "Keys",
          keys: { kind: "deviceSigning", body: jsonOf(made.uploadSigningKeysRequest.body) }
        }
      }
      const device = made.uploadKeysRequest
      const keys = device === undefined ? [] : requestsOf([device])
      // The machine believes that its device is signed when the homeserver says so, and Synapse takes its time to say that it does.
      const query = olm.queryKeysForUsers([new sdk.UserId(env.account.session.userId)])
      return [...keys, signing, ...requestsOf([made.uploadSignaturesRequest, query])]
    })
  )

type SetLocalTrust = Parameters<CryptoEngine.CryptoEngine["Service"]["setLocalTrust"]>[1]

const setLocalTrust = (env: Env, { deviceId, trust, userId }: SetLocalTrust) =>
  change(
    env,
    "set a device's trust",
    ({ machine }) =>
      machine.call("set a device's trust", async (olm, sdk) => {
        const user = userIdOf(sdk, userId)
        const device = user === undefined ? undefined : await olm.getDevice(user, new sdk.DeviceId(deviceId))
        if (device === undefined) throw new Error(`no device ${deviceId} of ${userId} is known; track the user first`)
        const { BlackListed, Unset, Verified } = sdk.LocalTrust
        await device.setLocalTrust({ verified: Verified, blocked: BlackListed, unset: Unset }[trust])
      }),
    () => [{ _tag: "Devices", userId }]
  )

const make: Effect.Effect<
  CryptoEngine.CryptoEngine["Service"],
  never,
  Homeserver.Homeserver | SqliteClient.SqliteClient | StoreKey | Scope.Scope
> = Effect.gen(function* () {
  const { session } = yield* Homeserver.Homeserver
  const env: Env = {
    account: yield* OlmMachine.accountOf(session),
    host: yield* Ref.make<OlmMachine.Host | undefined>(undefined),
    loaded: yield* Ref.make<Loaded | undefined>(undefined)
  }
  yield* Effect.addFinalizer(() => discard(env))
  return CryptoEngine.CryptoEngine.of({
    reload: (_fence: Lease.Fence) => Effect.asVoid(reload(env)),
    committed: Effect.map(Ref.get(env.loaded), (loaded) => loaded?.machine.database.committed()),
    discard: discard(env),
    receive: (_fence, batch) => receive(env, batch),
    outgoing: () =>
      change(env, "collect requests", ({ machine }) =>
        machine.call("collect requests", async (olm) => requestsOf(await olm.outgoingRequests()))
      ),
    markSent: (_fence, request, response) => markSent(env, request, response),
    track: (_fence, users) =>
      change(env, "track users", ({ machine }) =>
        machine.call("track users", (olm, sdk) => olm.updateTrackedUsers(userIdsOf(sdk, users)))
      ),
    claim: (_fence, users) => claim(env, users),
    shareRoomKey: (_fence, room) => shareRoomKey(env, room),
    encrypt: (_fence, event) => encrypt(env, event),
    bootstrapCrossSigning: (_fence, options) => bootstrapCrossSigning(env, options),
    setLocalTrust: (_fence, device) => setLocalTrust(env, device)
  })
})

/** The engine of the account whose database and login are given. It loads nothing until it is told to. */
export const layer: Layer.Layer<
  CryptoEngine.CryptoEngine,
  never,
  Homeserver.Homeserver | SqliteClient.SqliteClient | StoreKey
> = Layer.effect(CryptoEngine.CryptoEngine, make)
