/**
 * Device keys, one-time keys and fallback keys of the homeserver model: uploading, querying, claiming. Nothing is verified.
 *
 * Gotchas: as on Synapse, an upload that is refused for a one-time key has set the device's keys already, and an id can be
 * used anew once its key was handed out. That is a machine's mistake all the same, which `keyReport` shows.
 *
 * Source: client-server API, "End-to-end encryption", "Key management"; Synapse's `handlers/e2e_keys.py`.
 */
import { Predicate, Result } from "effect"
import type { DeviceId, JsonObject, UserId } from "../../matrix/MatrixEvent.ts"
import type { E2eeUpdate } from "../../matrix/SlidingSync.ts"
import { canonicalJson } from "./CanonicalJson.ts"
import * as CrossSigning from "./CrossSigning.ts"
import { devicesChanged } from "./DeviceLists.ts"
import { findDevice } from "./Devices.ts"
import * as Json from "./JsonShape.ts"
import type { Device, KeyFigures, ModelState, Outcome, Requester, User } from "./ModelState.ts"
import { refuse } from "./ModelState.ts"

/** More than this many unclaimed keys of one algorithm are refused. Source: Synapse 1.163. */
const maxOneTimeKeys = 500

const algorithmOf = (keyId: string): string => keyId.split(":")[0] ?? keyId

/** How many one-time keys are left; `signed_curve25519` is always named, as on Synapse. */
const oneTimeKeyCounts = (device: Device): { readonly [algorithm: string]: number } => ({
  signed_curve25519: 0,
  ...Object.fromEntries([...device.oneTimeKeys].map(([algorithm, keys]) => [algorithm, keys.size]))
})

// --- uploading

const isSignatures = (value: unknown): boolean =>
  Predicate.isObject(value) &&
  Object.values(value).every((signatures) => Json.isRecordOf(signatures, Predicate.isString))

const isOneTimeKey = (key: unknown): boolean =>
  Predicate.isString(key) || (Predicate.isObject(key) && Predicate.isString(key.key) && isSignatures(key.signatures))

/** What is wrong with keys under their ids, or undefined. */
const whyNotKeys = (member: string, keys: unknown): string | undefined => {
  if (keys === undefined || keys === null) return undefined
  if (!Predicate.isObject(keys)) return `"${member}" is not an object`
  const [badId] = Object.keys(keys).filter((keyId) => keyId.split(":").length !== 2)
  if (badId !== undefined) return `Invalid ${member} key '${badId}'. Expected "<algorithm>:<device_id>".`
  return Object.values(keys).every(isOneTimeKey) ? undefined : `"${member}" has a key that is none`
}

const whyNotDeviceKeys = ({ user, device }: Requester, keys: unknown): string | undefined => {
  if (keys === undefined) return undefined
  const isComplete =
    Predicate.isObject(keys) &&
    Array.isArray(keys.algorithms) &&
    keys.algorithms.every(Predicate.isString) &&
    Json.isRecordOf(keys.keys, Predicate.isString) &&
    isSignatures(keys.signatures)
  if (!isComplete) return `"device_keys" lacks algorithms, keys or signatures`
  if (keys.user_id !== user.userId)
    return "Provided `user_id` in `device_keys` does not match that of the authenticated user"
  return keys.device_id === device.deviceId
    ? undefined
    : "Provided `device_id` in `device_keys` does not match that of the authenticated user device"
}

const setDeviceKeys = (state: ModelState, { user, device }: Requester, keys: JsonObject): void => {
  if (device.deviceKeys !== undefined && canonicalJson(device.deviceKeys) === canonicalJson(keys)) return
  device.deviceKeys = keys
  devicesChanged(state, user)
}

/** A key's text without its signatures, which may differ each time. */
const textOf = (key: unknown): string => {
  if (!Predicate.isObject(key)) return canonicalJson(key)
  const { signatures: _, ...rest } = key
  return canonicalJson(rest)
}

interface NewKey {
  readonly keyId: string
  readonly key: JsonObject
  readonly isReused: boolean
}

/** The keys that aren't there yet; refused when one that is there came with another value, or when they are too many. */
const newOneTimeKeys = (device: Device, keys: JsonObject): Outcome<ReadonlyArray<NewKey>> => {
  const found: Array<NewKey> = []
  const totals = new Map([...device.oneTimeKeys].map(([algorithm, held]) => [algorithm, held.size]))
  for (const [keyId, key] of Object.entries(keys)) {
    const algorithm = algorithmOf(keyId)
    const held = device.oneTimeKeys.get(algorithm)?.get(keyId)
    if (held !== undefined && textOf(held) === textOf(key)) continue
    if (held !== undefined) {
      device.figures.conflicts += 1
      const values = `Old key: ${canonicalJson(held)}; new key: ${canonicalJson(key)}`
      return refuse(400, "M_UNKNOWN", `One time key ${keyId} already exists. ${values}`)
    }
    const before = device.uploadedKeys.get(keyId)
    // Plain (unsigned) keys are strings; they are given out as they came.
    found.push({ keyId, key: key as JsonObject, isReused: before !== undefined && before !== textOf(key) })
    totals.set(algorithm, (totals.get(algorithm) ?? 0) + 1)
  }
  const [tooMany] = [...totals].filter(([, total]) => total > maxOneTimeKeys)
  return tooMany === undefined
    ? Result.succeed(found)
    : refuse(400, "M_TOO_LARGE", `the device would hold ${tooMany[1]} ${tooMany[0]} keys, over ${maxOneTimeKeys}`)
}

const addOneTimeKeys = (device: Device, keys: JsonObject): Outcome<void> =>
  Result.map(newOneTimeKeys(device, keys), (found) => {
    for (const { keyId, key } of found) {
      const algorithm = algorithmOf(keyId)
      const held = device.oneTimeKeys.get(algorithm) ?? new Map<string, JsonObject>()
      device.oneTimeKeys.set(algorithm, held.set(keyId, key))
      device.uploadedKeys.set(keyId, textOf(key))
    }
    if (found.some(({ isReused }) => isReused)) device.figures.reused += 1
  })

const setFallbackKeys = (device: Device, keys: JsonObject): void => {
  for (const [keyId, key] of Object.entries(keys)) {
    const held = device.fallbackKeys.get(algorithmOf(keyId))
    // The same key again doesn't become unused by that.
    if (held !== undefined && canonicalJson(held.key) === canonicalJson(key)) continue
    device.fallbackKeys.set(algorithmOf(keyId), { keyId, key: key as JsonObject, used: false })
  }
}

/**
 * `POST /keys/upload`. `M_BAD_JSON` for keys of another device or of a wrong shape, `M_UNKNOWN` when a one-time key is there
 * with another value (then none of them is taken), `M_TOO_LARGE` for too many.
 */
export const upload = (state: ModelState, requester: Requester, body: JsonObject): Outcome<JsonObject> =>
  Result.gen(function* () {
    const { device } = requester
    const why =
      whyNotDeviceKeys(requester, body.device_keys) ??
      whyNotKeys("one_time_keys", body.one_time_keys) ??
      whyNotKeys("fallback_keys", body.fallback_keys)
    if (why !== undefined) return yield* refuse(400, "M_BAD_JSON", why)
    if (body.device_keys !== undefined) setDeviceKeys(state, requester, Json.objectAt(body, "device_keys"))
    yield* addOneTimeKeys(device, Json.objectAt(body, "one_time_keys"))
    setFallbackKeys(device, Json.objectAt(body, "fallback_keys"))
    return { one_time_key_counts: oneTimeKeyCounts(device) }
  })

// --- querying and claiming

const serverOf = (userId: UserId): string | undefined => /^@[^:]*:(.+)$/.exec(userId)?.[1]

/** Other homeservers that were asked about; there is no federation, so each of them fails. */
const failuresOf = (state: ModelState, userIds: ReadonlyArray<UserId>): JsonObject =>
  Object.fromEntries(
    userIds.flatMap((userId) => {
      const server = serverOf(userId)
      if (server === undefined || server === state.options.serverName) return []
      return [[server, { status: 403, errcode: "M_FORBIDDEN", message: `Federation denied with ${server}.` }]]
    })
  )

const isLocal = (state: ModelState, userId: UserId): boolean => serverOf(userId) === state.options.serverName

const deviceKeysOf = (user: User | undefined, asked: ReadonlyArray<unknown>): JsonObject =>
  Object.fromEntries(
    [...(user?.devices.values() ?? [])].flatMap((device) => {
      if (asked.length > 0 && !asked.includes(device.deviceId)) return []
      const keys = CrossSigning.signedDeviceKeys(user as User, device)
      return keys === undefined ? [] : [[device.deviceId, keys]]
    })
  )

/** `POST /keys/query`. Every local user is answered for, known or not; other homeservers are `failures`. */
export const query = (state: ModelState, { user: asker }: Requester, body: JsonObject): Outcome<JsonObject> => {
  const { device_keys: asked } = body
  if (!Json.isRecordOf(asked, (ids) => Array.isArray(ids) && ids.every(Predicate.isString)))
    return refuse(400, "M_BAD_JSON", "'device_keys' values must be a list of strings")
  const local = Object.entries(asked).filter(([userId]) => isLocal(state, userId))
  const users = local.flatMap(([userId]) => state.users.get(userId) ?? [])
  return Result.succeed({
    device_keys: Object.fromEntries(
      local.map(([userId, ids]) => [userId, deviceKeysOf(state.users.get(userId), ids as ReadonlyArray<unknown>)])
    ),
    failures: failuresOf(state, Object.keys(asked)),
    ...CrossSigning.keysOf(users, asker)
  })
}

const claimOne = (device: Device, algorithm: string): JsonObject | undefined => {
  const keys = device.oneTimeKeys.get(algorithm)
  const first = keys?.entries().next()
  if (keys !== undefined && first !== undefined && first.done !== true) {
    const [keyId, key] = first.value
    keys.delete(keyId)
    device.figures.claimed += 1
    return { [keyId]: key }
  }
  const fallback = device.fallbackKeys.get(algorithm)
  if (fallback === undefined) return undefined
  fallback.used = true
  device.figures.fallbackUsed += 1
  return { [fallback.keyId]: fallback.key }
}

/** `POST /keys/claim`: each one-time key once, in upload order, then the fallback key again and again. */
export const claim = (state: ModelState, body: JsonObject): Outcome<JsonObject> => {
  const asked = Json.objects(Json.objectAt(body, "one_time_keys"))
  const claimed = asked.map(([userId, byDevice]) => {
    const user = state.users.get(userId)
    const keys = Object.entries(byDevice).flatMap(([deviceId, algorithm]) => {
      const device = user?.devices.get(deviceId)
      const key = device && Predicate.isString(algorithm) ? claimOne(device, algorithm) : undefined
      return key === undefined ? [] : [[deviceId, key] as const]
    })
    return [userId, Object.fromEntries(keys)] as const
  })
  const failures = failuresOf(
    state,
    asked.map(([userId]) => userId)
  )
  return Result.succeed({
    one_time_keys: Object.fromEntries(claimed.filter(([, keys]) => Object.keys(keys).length > 0)),
    failures
  })
}

// --- looking at it

/** The counts of the e2ee extension. */
export const keyCounts = (device: Device): E2eeUpdate => ({
  oneTimeKeysCount: oneTimeKeyCounts(device),
  unusedFallbackKeyTypes: [...device.fallbackKeys].flatMap(([algorithm, { used }]) => (used ? [] : [algorithm]))
})

/** What a device has uploaded, and what became of it. */
export interface KeyReport extends KeyFigures {
  /** algorithm → how many are left. */
  readonly oneTimeKeys: { readonly [algorithm: string]: number }
  /** Ids of one-time keys that were ever accepted. */
  readonly uploaded: number
  readonly unusedFallbackKeyTypes: ReadonlyArray<string>
  readonly deviceKeys: JsonObject | undefined
}

/** A device's keys for whoever inspects the model; `M_NOT_FOUND` for a device that isn't there. */
export const keyReport = (state: ModelState, userId: UserId, deviceId: DeviceId): Outcome<KeyReport> =>
  Result.map(findDevice(state, userId, deviceId), ({ device }) => ({
    ...device.figures,
    oneTimeKeys: oneTimeKeyCounts(device),
    uploaded: device.uploadedKeys.size,
    unusedFallbackKeyTypes: keyCounts(device).unusedFallbackKeyTypes ?? [],
    deviceKeys: device.deviceKeys
  }))
