/**
 * Device keys, one-time keys, cross-signing keys and device lists of the homeserver model. Signatures are kept, not checked.
 *
 * Source: client-server API, "End-to-end encryption", "Key management"; MSC4543 for `device_lists`.
 */
import { Predicate, Result } from "effect"
import type { DeviceId, JsonObject, UserId } from "../../matrix/MatrixEvent.ts"
import type { E2eeUpdate } from "../../matrix/SlidingSync.ts"
import type { Device, ModelState, Outcome, Requester, User } from "./ModelState.ts"
import { firstAfter, nextStream, refuse, touch } from "./ModelState.ts"

const objectAt = (json: JsonObject, member: string): JsonObject => {
  const value = json[member]
  return Predicate.isObject(value) ? (value as JsonObject) : {}
}

const objects = (json: JsonObject): ReadonlyArray<readonly [string, JsonObject]> =>
  Object.entries(json).flatMap(([key, value]) =>
    Predicate.isObject(value) ? [[key, value as JsonObject] as const] : []
  )

const algorithmOf = (keyId: string): string => keyId.split(":")[0] ?? keyId

/** How many one-time keys are left; `signed_curve25519` is always named, as on Synapse. */
export const oneTimeKeyCounts = (device: Device): { readonly [algorithm: string]: number } => ({
  signed_curve25519: 0,
  ...Object.fromEntries([...device.oneTimeKeys].map(([algorithm, keys]) => [algorithm, keys.size]))
})

/** Tells everybody who shares a room with the user that his devices or keys changed. */
const devicesChanged = (state: ModelState, user: User): void => {
  state.deviceListChanges.push({ stream: nextStream(state), userId: user.userId })
  touch(state, user.userId)
  for (const { room } of user.rooms.values()) {
    if (room.members.get(user.userId) !== "join") continue
    for (const [userId, membership] of room.members) if (membership === "join") touch(state, userId)
  }
}

const addOneTimeKeys = (device: Device, keys: JsonObject): Outcome<void> => {
  for (const [keyId, key] of Object.entries(keys)) {
    const text = JSON.stringify(key)
    const uploaded = device.uploadedKeys.get(keyId)
    if (uploaded !== undefined && uploaded !== text)
      return refuse(400, "M_UNKNOWN", `one time key ${keyId} already exists with another value`)
    if (uploaded !== undefined) continue
    const algorithm = algorithmOf(keyId)
    const byId = device.oneTimeKeys.get(algorithm) ?? new Map<string, JsonObject>()
    // Plain (unsigned) keys are strings; they are given out as they came.
    byId.set(keyId, key as JsonObject)
    device.oneTimeKeys.set(algorithm, byId)
    device.uploadedKeys.set(keyId, text)
  }
  return Result.succeed(undefined)
}

/** `POST /keys/upload`; 400 when a one-time key's id was used for another key. */
export const upload = (state: ModelState, { user, device }: Requester, body: JsonObject): Outcome<JsonObject> =>
  Result.map(addOneTimeKeys(device, objectAt(body, "one_time_keys")), () => {
    for (const [keyId, key] of objects(objectAt(body, "fallback_keys")))
      device.fallbackKeys.set(algorithmOf(keyId), { keyId, key, used: false })
    if (Predicate.isObject(body.device_keys)) {
      device.deviceKeys = body.device_keys as JsonObject
      devicesChanged(state, user)
    }
    return { one_time_key_counts: oneTimeKeyCounts(device) }
  })

const deviceKeysOf = (user: User, asked: unknown): JsonObject => {
  const only = Array.isArray(asked) && asked.length > 0 ? new Set<unknown>(asked) : undefined
  return Object.fromEntries(
    [...user.devices.values()].flatMap(({ deviceId, displayName, deviceKeys }) => {
      if (deviceKeys === undefined || (only && !only.has(deviceId))) return []
      const unsigned = displayName === undefined ? {} : { device_display_name: displayName }
      return [[deviceId, { ...deviceKeys, unsigned }]]
    })
  )
}

/** `POST /keys/query`. The user-signing key is shown to its owner only. */
export const query = (state: ModelState, requester: Requester, body: JsonObject): Outcome<JsonObject> => {
  const asked = Object.entries(objectAt(body, "device_keys")).flatMap(([userId, devices]) => {
    const user = state.users.get(userId)
    return user === undefined ? [] : [[user, devices] as const]
  })
  const crossSigning = (kind: keyof User["crossSigning"], users: ReadonlyArray<User>): JsonObject =>
    Object.fromEntries(
      users.flatMap((user) => (user.crossSigning[kind] ? [[user.userId, user.crossSigning[kind]]] : []))
    )
  const users = asked.map(([user]) => user)
  return Result.succeed({
    device_keys: Object.fromEntries(asked.map(([user, devices]) => [user.userId, deviceKeysOf(user, devices)])),
    failures: {},
    master_keys: crossSigning("master", users),
    self_signing_keys: crossSigning("selfSigning", users),
    user_signing_keys: crossSigning(
      "userSigning",
      users.filter((user) => user === requester.user)
    )
  })
}

const claimOne = (device: Device, algorithm: string): JsonObject | undefined => {
  const keys = device.oneTimeKeys.get(algorithm)
  const first = keys?.entries().next()
  if (keys !== undefined && first !== undefined && first.done !== true) {
    const [keyId, key] = first.value
    keys.delete(keyId)
    return { [keyId]: key }
  }
  const fallback = device.fallbackKeys.get(algorithm)
  if (fallback === undefined) return undefined
  fallback.used = true
  return { [fallback.keyId]: fallback.key }
}

/** `POST /keys/claim`: each one-time key once, in upload order, then the fallback key again and again. */
export const claim = (state: ModelState, body: JsonObject): Outcome<JsonObject> => {
  const claimed = objects(objectAt(body, "one_time_keys")).map(([userId, byDevice]) => {
    const user = state.users.get(userId)
    const keys = Object.entries(byDevice).flatMap(([deviceId, algorithm]) => {
      const device = user?.devices.get(deviceId)
      const key = device && Predicate.isString(algorithm) ? claimOne(device, algorithm) : undefined
      return key === undefined ? [] : [[deviceId, key] as const]
    })
    return [userId, Object.fromEntries(keys)] as const
  })
  return Result.succeed({
    one_time_keys: Object.fromEntries(claimed.filter(([, keys]) => Object.keys(keys).length > 0)),
    failures: {}
  })
}

/** `POST /keys/device_signing/upload`, without user-interactive authentication. */
export const uploadCrossSigning = (state: ModelState, { user }: Requester, body: JsonObject): Outcome<JsonObject> => {
  const names = { master: "master_key", selfSigning: "self_signing_key", userSigning: "user_signing_key" } as const
  for (const kind of ["master", "selfSigning", "userSigning"] as const) {
    const key = body[names[kind]]
    if (Predicate.isObject(key)) user.crossSigning[kind] = key as JsonObject
  }
  devicesChanged(state, user)
  return Result.succeed({})
}

const withSignatures = (key: JsonObject, signed: JsonObject): JsonObject => {
  const merged = { ...objectAt(key, "signatures") }
  for (const [userId, signatures] of objects(objectAt(signed, "signatures")))
    merged[userId] = { ...objectAt(merged, userId), ...signatures }
  return { ...key, signatures: merged }
}

const addSignature = (user: User, keyId: string, signed: JsonObject): void => {
  const device = user.devices.get(keyId)
  if (device?.deviceKeys !== undefined) device.deviceKeys = withSignatures(device.deviceKeys, signed)
  // A cross-signing key is named by its public key.
  const { master } = user.crossSigning
  if (master !== undefined && Object.values(objectAt(master, "keys")).includes(keyId))
    user.crossSigning.master = withSignatures(master, signed)
}

/** `POST /keys/signatures/upload`: signatures are added to the keys that they sign. */
export const uploadSignatures = (state: ModelState, body: JsonObject): Outcome<JsonObject> => {
  for (const [userId, byKey] of objects(body)) {
    const user = state.users.get(userId)
    if (user === undefined) continue
    for (const [keyId, signed] of objects(byKey)) addSignature(user, keyId, signed)
    devicesChanged(state, user)
  }
  return Result.succeed({ failures: {} })
}

const sharesRoom = (a: User, b: UserId): boolean => {
  for (const { room, membership } of a.rooms.values())
    if (membership === "join" && room.members.get(b) === "join") return true
  return false
}

/** Whose devices the requester must look at again after a stream number, and whose no longer. */
export const deviceLists = (
  state: ModelState,
  { user }: Requester,
  since: number
): NonNullable<E2eeUpdate["deviceLists"]> => {
  const updated = new Set(
    state.deviceListChanges.slice(firstAfter(state.deviceListChanges, since)).map(({ userId }) => userId)
  )
  const concerned = new Set(updated)
  for (const change of state.membershipChanges.slice(firstAfter(state.membershipChanges, since))) {
    const room = state.rooms.get(change.roomId)
    if (change.userId === user.userId) room?.members.forEach((_, userId) => concerned.add(userId))
    else if (room?.members.get(user.userId) === "join") concerned.add(change.userId)
  }
  const changed = [...concerned].filter((userId) => userId === user.userId || sharesRoom(user, userId))
  const deviceChanged = new Set(changed)
  const left = [...concerned].filter((userId) => !deviceChanged.has(userId) && wasShared(state, user, userId, since))
  // One's own joining and leaving says nothing about one's own devices.
  return { changed: changed.filter((userId) => userId !== user.userId || updated.has(userId)), left }
}

/** Whether a user shared a room before: he, or the requester, left one in the meantime. */
const wasShared = (state: ModelState, user: User, other: UserId, since: number): boolean =>
  state.membershipChanges.slice(firstAfter(state.membershipChanges, since)).some(({ joined, roomId, userId }) => {
    if (joined || (userId !== other && userId !== user.userId)) return false
    const members = state.rooms.get(roomId)?.members
    return members !== undefined && members.has(other) && members.has(user.userId)
  })

/** `GET /keys/changes?from=…`: `from` is a position of a sliding sync, or a token of history. */
export const changes = (state: ModelState, requester: Requester, from: string): Outcome<JsonObject> => {
  const [, stream] = /^(?:t|\d+\/s)(\d+)$/.exec(from) ?? []
  return stream === undefined
    ? refuse(400, "M_INVALID_PARAM", `"${from}" is not a token`)
    : Result.succeed({ ...deviceLists(state, requester, Number(stream)) })
}

/** The counts of the e2ee extension. */
export const keyCounts = (device: Device): E2eeUpdate => ({
  oneTimeKeysCount: oneTimeKeyCounts(device),
  unusedFallbackKeyTypes: [...device.fallbackKeys].flatMap(([algorithm, { used }]) => (used ? [] : [algorithm]))
})

/** `GET /devices`, and the devices of an account for whoever inspects the model. */
export const devices = (user: User): ReadonlyArray<{ readonly device_id: DeviceId; readonly display_name?: string }> =>
  [...user.devices.values()].map(({ deviceId, displayName }) => ({
    device_id: deviceId,
    ...(displayName !== undefined && { display_name: displayName })
  }))
