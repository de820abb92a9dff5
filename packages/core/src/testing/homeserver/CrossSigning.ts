/**
 * Cross-signing keys of the homeserver model, and the signatures that are added to keys later.
 *
 * Includes who is shown what: a user-signing key its owner only; a signature of a master key whoever made it only; a
 * signature of a device everybody.
 *
 * Gotchas: what Synapse verifies is only looked for here, since there is no cryptography in the model: the key that should
 * have signed must be named among the signatures.
 *
 * Source: client-server API, "Cross-signing"; MSC3967; Synapse's `handlers/e2e_keys.py`.
 */
import { Predicate, Result } from "effect"
import type { JsonObject, UserId } from "../../matrix/MatrixEvent.ts"
import { canonicalJson } from "./CanonicalJson.ts"
import { devicesChanged, signaturesChanged } from "./DeviceLists.ts"
import { confirm } from "./InteractiveAuth.ts"
import * as Json from "./JsonShape.ts"
import type { Device, ModelState, Outcome, Refusal, Requester, User } from "./ModelState.ts"
import { refuse } from "./ModelState.ts"

const kinds = [
  { kind: "master", member: "master_key", usage: "master" },
  { kind: "selfSigning", member: "self_signing_key", usage: "self_signing" },
  { kind: "userSigning", member: "user_signing_key", usage: "user_signing" }
] as const

// --- keys

/** The id of a cross-signing key, `ed25519:<public key>`, and the public key. */
const keyIdOf = (key: JsonObject): { readonly keyId: string; readonly publicKey: string } => {
  const [[keyId, publicKey] = ["", ""]] = Object.entries(Json.objectAt(key, "keys"))
  return { keyId, publicKey: String(publicKey) }
}

const signatureBy = (signed: JsonObject, userId: UserId, keyId: string): unknown =>
  Json.objectAt(Json.objectAt(signed, "signatures"), userId)[keyId]

const whyNotKey = (key: unknown, userId: UserId, usage: string, masterKeyId: string): Refusal | undefined => {
  const isKey =
    Predicate.isObject(key) &&
    key.user_id === userId &&
    Array.isArray(key.usage) &&
    key.usage.includes(usage) &&
    Object.keys(Json.objectAt(key as JsonObject, "keys")).length === 1
  if (!isKey) return { status: 400, errcode: "M_INVALID_PARAM", message: `Invalid ${usage} key` }
  return usage === "master" || signatureBy(key as JsonObject, userId, masterKeyId) !== undefined
    ? undefined
    : { status: 400, errcode: "M_INVALID_SIGNATURE", message: `Invalid signature on ${usage} key` }
}

const checkKeys = ({ user }: Requester, body: JsonObject): Outcome<void> => {
  const master = body.master_key ?? user.crossSigning.master
  if (!Predicate.isObject(master)) return refuse(400, "M_MISSING_PARAM", "No master key available")
  const { keyId } = keyIdOf(master as JsonObject)
  const [why] = kinds.flatMap(({ member, usage }) =>
    body[member] === undefined ? [] : (whyNotKey(body[member], user.userId, usage, keyId) ?? [])
  )
  return why === undefined ? Result.succeed(undefined) : Result.fail(why)
}

const isSame = (a: unknown, b: unknown): boolean => canonicalJson(a) === canonicalJson(b)

/**
 * `POST /keys/device_signing/upload`. The first keys of an account, and the same ones again, need no interactive
 * authentication; others do.
 */
export const uploadKeys = (state: ModelState, requester: Requester, body: JsonObject): Outcome<JsonObject> =>
  Result.gen(function* () {
    const { user } = requester
    const differs = kinds.some(
      ({ kind, member }) => body[member] !== undefined && !isSame(user.crossSigning[kind], body[member])
    )
    if (!differs) return {}
    if (user.crossSigning.master !== undefined)
      yield* confirm(state, requester, { operation: "POST /keys/device_signing/upload", auth: body.auth })
    yield* checkKeys(requester, body)
    for (const { kind, member } of kinds)
      if (body[member] !== undefined) user.crossSigning[kind] = body[member] as JsonObject
    if (body.user_signing_key !== undefined) signaturesChanged(state, user, user.userId)
    if (body.master_key !== undefined || body.self_signing_key !== undefined) devicesChanged(state, user)
    return {}
  })

// --- signatures

const madeKey = (target: UserId, publicKey: string): string => `${target}\u0000${publicKey}`

const withSignatures = (
  key: JsonObject,
  userId: UserId,
  made: ReadonlyMap<string, unknown> | undefined
): JsonObject => {
  if (made === undefined || made.size === 0) return key
  const signatures = Json.objectAt(key, "signatures")
  const own = { ...Json.objectAt(signatures, userId), ...Object.fromEntries(made) }
  return { ...key, signatures: { ...signatures, [userId]: own } }
}

/** A device's keys as everybody is shown them; undefined while it has none. */
export const signedDeviceKeys = (user: User, device: Device): JsonObject | undefined => {
  const { deviceKeys, displayName, signatures } = device
  if (deviceKeys === undefined) return undefined
  const unsigned = displayName === undefined ? {} : { device_display_name: displayName }
  return { ...withSignatures(deviceKeys, user.userId, signatures), unsigned }
}

/** A cross-signing key as somebody is shown it: with the signatures that he made. */
const shownTo = (viewer: User, owner: User, key: JsonObject): JsonObject =>
  withSignatures(key, viewer.userId, viewer.madeSignatures.get(madeKey(owner.userId, keyIdOf(key).publicKey)))

/** The cross-signing part of an answer of `POST /keys/query`. */
export const keysOf = (users: ReadonlyArray<User>, viewer: User): JsonObject => {
  const of = (kind: keyof User["crossSigning"], owners: ReadonlyArray<User>): JsonObject =>
    Object.fromEntries(
      owners.flatMap((owner) => {
        const key = owner.crossSigning[kind]
        return key === undefined ? [] : [[owner.userId, shownTo(viewer, owner, key)]]
      })
    )
  return {
    master_keys: of("master", users),
    self_signing_keys: of("selfSigning", users),
    user_signing_keys: of(
      "userSigning",
      users.filter((user) => user === viewer)
    )
  }
}

const notFound = (message: string): Refusal => ({ status: 404, errcode: "M_NOT_FOUND", message })
const invalidSignature: Refusal = { status: 400, errcode: "M_INVALID_SIGNATURE", message: "Invalid signature" }

const withoutSignatures = (key: JsonObject): JsonObject => ({ ...key, signatures: undefined, unsigned: undefined })

const matches = (signed: JsonObject, stored: JsonObject): boolean =>
  isSame(withoutSignatures(signed), withoutSignatures(stored))

const doesNotMatch: Refusal = { status: 400, errcode: "M_UNKNOWN", message: "Key does not match" }

/** The user's self-signing key signed one of his devices. */
const signDevice = (user: User, deviceId: string, signed: JsonObject, selfSigning: JsonObject): Refusal | undefined => {
  const { keyId } = keyIdOf(selfSigning)
  const signature = signatureBy(signed, user.userId, keyId)
  if (signature === undefined) return invalidSignature
  const device = user.devices.get(deviceId)
  if (device?.deviceKeys === undefined) return notFound("Unknown device")
  if (!matches(signed, device.deviceKeys)) return doesNotMatch
  device.signatures.set(keyId, signature)
  return undefined
}

const addMade = (signer: User, target: UserId, key: JsonObject, made: JsonObject): void => {
  const at = madeKey(target, keyIdOf(key).publicKey)
  const signatures = signer.madeSignatures.get(at) ?? new Map<string, unknown>()
  for (const [keyId, signature] of Object.entries(made)) signatures.set(keyId, signature)
  signer.madeSignatures.set(at, signatures)
}

/** The user's devices signed his master key. */
const signOwnMaster = (user: User, signed: JsonObject, master: JsonObject): Refusal | undefined => {
  const made = Json.objectAt(Json.objectAt(signed, "signatures"), user.userId)
  const isKnown = (keyId: string): boolean => {
    const deviceKeys = user.devices.get(keyId.slice(keyId.indexOf(":") + 1))?.deviceKeys
    return deviceKeys !== undefined && keyId in Json.objectAt(deviceKeys, "keys")
  }
  if (!Object.keys(made).every(isKnown)) return invalidSignature
  if (!matches(signed, master)) return doesNotMatch
  addMade(user, user.userId, master, made)
  return undefined
}

const signOwn = (user: User, keyId: string, signed: JsonObject): Refusal | undefined => {
  const { master, selfSigning } = user.crossSigning
  if (selfSigning === undefined) return notFound(`No self_signing key found for ${user.userId}`)
  if (master === undefined) return notFound(`No master key found for ${user.userId}`)
  if (!Predicate.isObject(Json.objectAt(signed, "signatures")[user.userId])) return invalidSignature
  return keyId === keyIdOf(master).publicKey
    ? signOwnMaster(user, signed, master)
    : signDevice(user, keyId, signed, selfSigning)
}

/** The user's user-signing key signed somebody's master key. */
const signOther = (
  state: ModelState,
  signer: User,
  target: UserId,
  { keyId, signed }: { readonly keyId: string; readonly signed: JsonObject }
): Refusal | undefined => {
  const { userSigning } = signer.crossSigning
  if (userSigning === undefined) return notFound(`No user_signing key found for ${signer.userId}`)
  const master = state.users.get(target)?.crossSigning.master
  if (master === undefined) return notFound(`No master key found for ${target}`)
  if (keyId !== keyIdOf(master).publicKey) return notFound("Unknown device")
  const by = keyIdOf(userSigning).keyId
  const signature = signatureBy(signed, signer.userId, by)
  if (!matches(signed, master)) return doesNotMatch
  if (signature === undefined) return invalidSignature
  addMade(signer, target, master, { [by]: signature })
  return undefined
}

/**
 * `POST /keys/signatures/upload`: signatures of one's own devices and master key, and of other users' master keys. Those
 * that can't be taken are `failures`, by user and key.
 */
export const uploadSignatures = (state: ModelState, { user }: Requester, body: JsonObject): Outcome<JsonObject> => {
  const failures: { [userId: UserId]: { [keyId: string]: JsonObject } } = {}
  for (const [target, byKey] of Json.objects(body)) {
    let added = 0
    for (const [keyId, signed] of Json.objects(byKey)) {
      const isOwn = target === user.userId
      const why = isOwn ? signOwn(user, keyId, signed) : signOther(state, user, target, { keyId, signed })
      if (why === undefined) added += 1
      else failures[target] = { ...failures[target], [keyId]: { ...why } }
    }
    if (added > 0 && target === user.userId) devicesChanged(state, user)
    if (added > 0 && target !== user.userId) signaturesChanged(state, user, target)
  }
  return Result.succeed({ failures })
}
