/**
 * Pushers of the homeserver model: setting, listing and removing them.
 *
 * A pusher belongs to the device that set it first and goes with it, whoever of the account's devices changes it later.
 * Setting one again starts it afresh: what was still to be sent by the old one is not sent.
 *
 * Not here: what is pushed, and when (`Pushes.ts`).
 *
 * Source: client-server API, "Push notifications"; Synapse's `rest/client/pusher.py` and `push/pusherpool.py`.
 */
import { Predicate, Result } from "effect"
import type { DeviceId, JsonObject } from "../../matrix/MatrixEvent.ts"
import { NOTIFY_PATH, type PusherId } from "../../matrix/Pusher.ts"
import { objectAt } from "./JsonShape.ts"
import type { ModelState, Outcome, Requester, StoredPusher, User } from "./ModelState.ts"
import { refuse } from "./ModelState.ts"

const keyOf = ({ appId, pushKey }: PusherId): string => `${appId}\u0000${pushKey}`

const required = ["kind", "app_id", "app_display_name", "device_display_name", "pushkey", "lang", "data"]
const shownMembers = [...required, "profile_tag"]

const idOf = (body: JsonObject): PusherId => ({ appId: String(body.app_id), pushKey: String(body.pushkey) })

const isRemoval = (body: JsonObject): boolean =>
  body.kind === null && body.app_id !== undefined && body.pushkey !== undefined

/** The path of an absolute URL as it is written, without what a URL parser would tidy up; empty when there is none. */
const pathOf = (url: string): string => /^[a-z][a-z0-9+.-]*:\/\/[^/?#]*([^?#]*)/i.exec(url)?.[1] ?? ""

/** The gateway's address, or what is wrong with the pusher in Synapse's words. */
const urlOf = (body: JsonObject): Outcome<string> => {
  const { url } = objectAt(body, "data")
  const configError = (what: string) => refuse(400, "M_MISSING_PARAM", `Config Error: ${what}`)
  if (!Predicate.isObject(body.data)) return configError("'data' key can not be null for HTTP pusher")
  if (url === undefined) return configError("'url' required in data for HTTP pusher")
  if (typeof url !== "string") return configError("'url' must be a string")
  return pathOf(url) === NOTIFY_PATH ? Result.succeed(url) : configError(`'url' must have a path of '${NOTIFY_PATH}'`)
}

const validUrl = (body: JsonObject): Outcome<string> => {
  const missing = required.filter((name) => body[name] === undefined)
  if (missing.length > 0) return refuse(400, "M_MISSING_PARAM", `Missing params: ${missing.join(", ")}`)
  if (body.kind === "email") return refuse(400, "M_THREEPID_NOT_FOUND", "Email not found")
  return body.kind === "http" ? urlOf(body) : refuse(400, "M_INVALID_PARAM", "there are HTTP pushers only")
}

const made = (body: JsonObject, url: string, deviceId: DeviceId, nowMillis: number): StoredPusher => ({
  ...idOf(body),
  deviceId,
  url,
  json: Object.fromEntries(
    shownMembers.map((name) => [name, body[name] ?? (name === "profile_tag" ? "" : null)] as const)
  ),
  setAtMillis: nowMillis,
  queue: [],
  toldUnread: undefined,
  isBadgeDue: false,
  isBusy: false,
  failure: undefined
})

/** Removes a pusher of the user's; one that isn't there is no error. */
export const removePusher = (user: User, id: PusherId): void => void user.pushers.delete(keyOf(id))

/** Whether this very pusher is still the user's: not removed, and not set again since. */
export const isCurrent = (user: User, pusher: StoredPusher): boolean => user.pushers.get(keyOf(pusher)) === pusher

/**
 * `POST /pushers/set`. Refused as by Synapse: `M_MISSING_PARAM` for missing members and for a URL whose path is another one
 * than the push gateway API's.
 */
export const setPusher = (
  state: ModelState,
  { user, device }: Requester,
  body: JsonObject,
  nowMillis: number
): Outcome<void> => {
  if (isRemoval(body)) return Result.succeed(removePusher(user, idOf(body)))
  return Result.map(validUrl(body), (url) => {
    const id = idOf(body)
    if (body.append !== true) for (const other of state.users.values()) if (other !== user) removePusher(other, id)
    const deviceId = user.pushers.get(keyOf(id))?.deviceId ?? device.deviceId
    user.pushers.set(keyOf(id), made(body, url, deviceId, nowMillis))
  })
}

/** The `pushers` of `GET /pushers`. */
export const pushers = (user: User): ReadonlyArray<JsonObject> => [...user.pushers.values()].map(({ json }) => json)

/** Removes the pushers of a device that is gone. */
export const removePushersOf = (user: User, deviceId: DeviceId): void => {
  for (const pusher of user.pushers.values()) if (pusher.deviceId === deviceId) removePusher(user, pusher)
}
