/**
 * The writing half of the simulated cipher; see `SimulatedCrypto.ts`.
 *
 * Gotchas: as strict as the port's rules are, so that a caller that breaks one is told: a call before the one before it was
 * committed or discarded, or while nothing is loaded, fails; so does an `encrypt` whose key was not shared with everybody.
 *
 * Not here: keys of rooms (`SimulatedRoomKeys.ts`), one-time keys (`SimulatedOneTimeKeys.ts`).
 */
import { Clock, Effect, Predicate, Result } from "effect"
import type { DeviceId, JsonObject, MatrixEvent, UserId } from "../../matrix/MatrixEvent.ts"
import { type Changed, CryptoEngine, type OutgoingRequest } from "../../sync/CryptoEngine.ts"
import { type CryptoBadAnswer, CryptoError, type CryptoFailed } from "../../sync/CryptoError.ts"
import type { KeysRequest, Session } from "../../sync/Homeserver.ts"
import type { InboxEvent } from "../../sync/SyncStore.ts"
import * as Json from "../homeserver/JsonShape.ts"
import type { CryptoRecord } from "../SyncStoreMemoryState.ts"
import * as Memory from "./SimulatedMemory.ts"
import * as OneTimeKeys from "./SimulatedOneTimeKeys.ts"
import * as Records from "./SimulatedRecords.ts"
import * as RoomKeys from "./SimulatedRoomKeys.ts"

const keysRequest = (id: string, kind: KeysRequest["kind"], body: JsonObject): OutgoingRequest => ({
  id,
  request: { _tag: "Keys", keys: { kind, body } }
})

// --- receiving

const outdate = (memory: Memory.Memory, users: Iterable<UserId>): void => {
  for (const userId of users) {
    const known = memory.records.users.get(userId)
    memory.asked.delete(userId)
    if (known !== undefined) Memory.put(memory, "users", userId, { ...known, isOutdated: true })
  }
}

/** What became of an event that should bring a key. */
type Taken = "taken" | "malformed" | "undecryptable"

/** Stores the key that an event brings. */
const takeKey = (memory: Memory.Memory, { content, sender }: MatrixEvent): Taken => {
  const roomId = Records.textAt(content, "room_id")
  const sessionId = Records.textAt(content, "session_id")
  const firstIndex = Number.parseInt(Records.textAt(content, "session_key") ?? "", 10)
  if (
    content.algorithm !== RoomKeys.MEGOLM ||
    roomId === undefined ||
    sessionId === undefined ||
    Number.isNaN(firstIndex)
  )
    return "malformed"
  if (!OneTimeKeys.use(memory, content)) return "undecryptable"
  const name = Records.nameOf(roomId, sessionId)
  // The key that reads more is kept.
  if (firstIndex < (memory.records.keys.get(name)?.firstIndex ?? Infinity)) {
    Memory.put(memory, "keys", name, { sender, firstIndex })
    memory.news.push({ _tag: "RoomKey", roomId, sessionId })
  }
  return "taken"
}

const inboxOf = (event: MatrixEvent, isReadable: boolean): InboxEvent => ({
  type: event.type,
  sender: event.sender,
  event,
  encryption: isReadable ? "none" : "undecryptable"
})

const receive = (
  memory: Memory.Memory,
  { e2ee, fresh, toDevice }: Parameters<CryptoEngine["Service"]["receive"]>[1]
) => {
  const { changed = [], left = [] } = e2ee?.deviceLists ?? {}
  outdate(memory, fresh ? memory.records.users.keys() : changed)
  for (const userId of left) Memory.put(memory, "users", userId, undefined)
  OneTimeKeys.counted(memory, e2ee?.oneTimeKeysCount?.signed_curve25519)
  const taken = toDevice.map((event) => ({
    event,
    as: event.type === "m.room_key" ? takeKey(memory, event) : undefined
  }))
  const isReadable = ({ as, event }: (typeof taken)[number]) =>
    event.type !== "m.room.encrypted" && as !== "undecryptable"
  return Result.succeed({
    inbox: taken.filter(({ as }) => as !== "malformed").map((one) => inboxOf(one.event, isReadable(one))),
    quarantined: taken
      .filter(({ as }) => as === "malformed")
      .map(({ event: raw }) => ({ source: "toDevice" as const, reason: "it is no room key", raw }))
  })
}

// --- requests

const deviceKeysOf = (own: Session): JsonObject => {
  const { curve25519, ed25519 } = Records.keysOf(own)
  return {
    user_id: own.userId,
    device_id: own.deviceId,
    algorithms: ["m.olm.v1.curve25519-aes-sha2", RoomKeys.MEGOLM],
    keys: { [`curve25519:${own.deviceId}`]: curve25519, [`ed25519:${own.deviceId}`]: ed25519 },
    signatures: { [own.userId]: { [`ed25519:${own.deviceId}`]: "simulated" } }
  }
}

/** The device's keys, with a fallback key that is never used up and some that are used once. */
const uploadOf = (memory: Memory.Memory, generation: number, nowMillis: number): JsonObject => {
  const { own, records } = memory
  const oneTimeKeys = OneTimeKeys.wanted(memory, generation, nowMillis)
  const fallback = { key: `simulated-fallback-${own.deviceId}`, fallback: true, signatures: {} }
  return {
    ...(!Records.accountOf(records).isUploaded && {
      device_keys: deviceKeysOf(own),
      fallback_keys: { "signed_curve25519:FALLBACK": fallback }
    }),
    ...(Object.keys(oneTimeKeys).length > 0 && { one_time_keys: oneTimeKeys })
  }
}

/** Its own keys, and whom it wants to know more about. */
const outgoing = (
  memory: Memory.Memory,
  generation: number,
  nowMillis: number
): Memory.Answer<ReadonlyArray<OutgoingRequest>> => {
  const { records } = memory
  const requests: Array<OutgoingRequest> = []
  const upload = uploadOf(memory, generation, nowMillis)
  if (Object.keys(upload).length > 0) requests.push(keysRequest("upload", "upload", upload))
  const outdated = [...records.users].filter(([, { isOutdated }]) => isOutdated).map(([userId]) => userId)
  for (const userId of outdated) memory.asked.add(userId)
  if (outdated.length > 0) {
    const asked = Object.fromEntries(outdated.map((userId) => [userId, []]))
    requests.push(keysRequest(`query ${outdated.join(" ")}`, "query", { device_keys: asked }))
  }
  return Result.succeed(requests)
}

/** The id and the public half of a cross-signing key. */
const publicKeyOf = (keys: JsonObject, member: string, userId: UserId) =>
  Object.entries(Json.objectAt(Json.objectAt(Json.objectAt(keys, member), userId), "keys"))[0]

const takeDevices = (memory: Memory.Memory, answer: JsonObject): Memory.Answer<void> => {
  if (!Predicate.isObject(answer.device_keys)) return Memory.badAnswer("device_keys")
  for (const [userId, told] of Json.objects(Json.objectAt(answer, "device_keys"))) {
    const [selfSigning = ""] = publicKeyOf(answer, "self_signing_keys", userId) ?? []
    const [, master] = publicKeyOf(answer, "master_keys", userId) ?? []
    const devices = Json.objects(told).map(([deviceId, keys]): readonly [DeviceId, Records.Device] => {
      const fingerprint = Records.textAt(Json.objectAt(keys, "keys"), `ed25519:${deviceId}`)
      const isCrossSigned = selfSigning in Json.objectAt(Json.objectAt(keys, "signatures"), userId)
      return [deviceId, { isCrossSigned, ...(fingerprint === undefined ? {} : { fingerprint }) }]
    })
    Memory.put(memory, "users", userId, {
      // Who has changed since is asked about again.
      isOutdated: !memory.asked.delete(userId),
      devices: Object.fromEntries(devices),
      ...(Predicate.isString(master) ? { master } : {})
    })
    memory.news.push({ _tag: "Devices", userId })
  }
  return Result.succeed(undefined)
}

const takeClaimed = (memory: Memory.Memory, answer: JsonObject): Memory.Answer<void> => {
  if (!Predicate.isObject(answer.one_time_keys)) return Memory.badAnswer("one_time_keys")
  for (const [userId, byDevice] of Json.objects(Json.objectAt(answer, "one_time_keys")))
    for (const deviceId of Object.keys(byDevice)) Memory.put(memory, "sessions", Records.nameOf(userId, deviceId), true)
  return Result.succeed(undefined)
}

/** The devices that a request named have the key that it brought. */
const takeShared = (memory: Memory.Memory, messages: JsonObject): void => {
  for (const [userId, byDevice] of Json.objects(messages)) {
    for (const [deviceId, content] of Json.objects(byDevice)) {
      const roomId = Records.textAt(content, "room_id") ?? ""
      const key = memory.records.rooms.get(roomId)
      if (key === undefined || key.sessionId !== content.session_id) continue
      const holders = { ...key.holders, [userId]: [...(key.holders[userId] ?? []), deviceId] }
      Memory.put(memory, "rooms", roomId, { ...key, holders })
    }
  }
}

const markSent = (memory: Memory.Memory, { request }: OutgoingRequest, answer: JsonObject): Memory.Answer<void> => {
  if (request._tag === "ToDevice") takeShared(memory, request.toDevice.messages)
  if (request._tag !== "Keys") return Result.succeed(undefined)
  switch (request.keys.kind) {
    case "upload":
      if (!Predicate.isObject(answer.one_time_key_counts)) return Memory.badAnswer("one_time_key_counts")
      Memory.put(memory, "account", "account", { ...Records.accountOf(memory.records), isUploaded: true })
      OneTimeKeys.published(memory)
      break
    case "query":
      return takeDevices(memory, answer)
    case "claim":
      return takeClaimed(memory, answer)
    case "signatures":
    case "deviceSigning":
  }
  return Result.succeed(undefined)
}

const track = (memory: Memory.Memory, users: ReadonlyArray<UserId>): void => {
  for (const userId of users)
    if (!memory.records.users.has(userId)) Memory.put(memory, "users", userId, { isOutdated: true, devices: {} })
}

const claim = (memory: Memory.Memory, users: ReadonlyArray<UserId>): Memory.Answer<ReadonlyArray<OutgoingRequest>> => {
  const { own, records } = memory
  const missing = users.flatMap((userId) => {
    const devices = Records.devicesOf(records, own, userId)
      .map(({ deviceId }) => deviceId)
      .filter((deviceId) => deviceId !== own.deviceId && !records.sessions.has(Records.nameOf(userId, deviceId)))
    const wanted = Object.fromEntries(devices.map((deviceId) => [deviceId, "signed_curve25519"]))
    return devices.length === 0 ? [] : [[userId, wanted] as const]
  })
  const body = { one_time_keys: Object.fromEntries(missing) }
  return Result.succeed(missing.length === 0 ? [] : [keysRequest("claim", "claim", body)])
}

// --- trust

const elsewhere =
  "the account has cross-signing keys already, and this device hasn't got the private ones; make new keys with `reset`"

const bootstrapCrossSigning = (
  memory: Memory.Memory,
  { reset }: { readonly reset: boolean }
): Memory.Answer<ReadonlyArray<OutgoingRequest>> => {
  const { own, records } = memory
  const mine = Records.accountOf(records).master
  const theirs = records.users.get(own.userId)?.master
  if (!reset && theirs !== undefined && theirs !== mine) return Memory.failed(elsewhere)
  const master =
    mine === undefined || reset ? `${Records.keysOf(own).ed25519}-${Records.accountOf(records).made + 1}` : mine
  if (master !== mine) Memory.nextNumber(memory, { master })
  const keyOf = (usage: string, name: string, by: string) => ({
    user_id: own.userId,
    usage: [usage],
    keys: { [`ed25519:${name}`]: name },
    signatures: { [own.userId]: { [`ed25519:${by}`]: "simulated" } }
  })
  const body = {
    master_key: keyOf("master", master, own.deviceId),
    self_signing_key: keyOf("self_signing", `${master}-self`, master),
    user_signing_key: keyOf("user_signing", `${master}-user`, master)
  }
  const signatures = { [own.userId]: { [`ed25519:${master}-self`]: "simulated" } }
  const signed = { [own.userId]: { [own.deviceId]: { ...deviceKeysOf(own), signatures } } }
  memory.asked.add(own.userId)
  return Result.succeed([
    keysRequest("deviceSigning", "deviceSigning", body),
    keysRequest("signatures", "signatures", signed),
    keysRequest("query own", "query", { device_keys: { [own.userId]: [] } })
  ])
}

const setLocalTrust = (
  memory: Memory.Memory,
  { deviceId, trust, userId }: Parameters<CryptoEngine["Service"]["setLocalTrust"]>[1]
): Memory.Answer<void> => {
  if (memory.records.users.get(userId)?.devices[deviceId] === undefined)
    return Memory.failed(`no device ${deviceId} of ${userId} is known; track the user first`)
  Memory.put(memory, "trust", Records.nameOf(userId, deviceId), trust === "unset" ? undefined : trust)
  memory.news.push({ _tag: "Devices", userId })
  return Result.succeed(undefined)
}

// --- the engine

/**
 * An engine of one process over the account's records.
 *
 * @param options.oneTimeKeys how many the homeserver is to have; none, and the fallback key for all, if not given
 */
export const makeEngine = (
  own: Session,
  stored: Effect.Effect<ReadonlyArray<CryptoRecord>>,
  { oneTimeKeys = 0 }: { readonly oneTimeKeys?: number } = {}
): CryptoEngine["Service"] => {
  let memory: Memory.Memory | undefined
  const change = <A>(
    operation: string,
    body: (memory: Memory.Memory, nowMillis: number) => Memory.Answer<A>
  ): Effect.Effect<Changed<A>, CryptoError> =>
    Effect.flatMap(Clock.currentTimeMillis, (nowMillis): Effect.Effect<Changed<A>, CryptoFailed | CryptoBadAnswer> => {
      if (memory === undefined) return Effect.fromResult(Memory.failed("nothing is loaded; reload the engine first"))
      if (memory.isPending)
        return Effect.fromResult(Memory.failed("the call before was neither committed nor discarded"))
      const { news, writes } = memory
      memory.isPending = true
      return Effect.map(Effect.fromResult(body(memory, nowMillis)), (value) => ({
        value,
        writes: writes.splice(0),
        news: news.splice(0)
      }))
    }).pipe(Effect.mapError((reason) => new CryptoError({ operation, reason })))
  return CryptoEngine.of({
    reload: () =>
      Effect.map(stored, (all) => {
        const records = Records.read(all)
        const fresh = { writes: [], news: [], isPending: false, readers: new Map(), asked: new Set<UserId>() }
        memory = { records, own, oneTimeKeys, ...fresh }
        // Who else one is: told with the writes of a later call.
        track(memory, [own.userId])
      }),
    committed: Effect.sync(() => {
      if (memory !== undefined) memory.isPending = false
    }),
    discard: Effect.sync(() => void (memory = undefined)),
    receive: (_fence, batch) => change("take to-device events", (memory) => receive(memory, batch)),
    outgoing: ({ generation }) =>
      change("collect requests", (memory, nowMillis) => outgoing(memory, generation, nowMillis)),
    markSent: (_fence, request, answer) => change("take an answer", (memory) => markSent(memory, request, answer)),
    track: (_fence, users) => change("track users", (memory) => Result.succeed(track(memory, users))),
    claim: (_fence, users) => change("claim one-time keys", (memory) => claim(memory, users)),
    shareRoomKey: (_fence, room) =>
      change("share a room key", (memory, nowMillis) => RoomKeys.shareRoomKey(memory, room, nowMillis)),
    encrypt: (_fence, event) => change("encrypt an event", (memory) => RoomKeys.encrypt(memory, event)),
    bootstrapCrossSigning: (_fence, options) =>
      change("make cross-signing keys", (memory) => bootstrapCrossSigning(memory, options)),
    setLocalTrust: (_fence, device) => change("set a device's trust", (memory) => setLocalTrust(memory, device))
  })
}
