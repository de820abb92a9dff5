/**
 * Devices of the homeserver model: they come with a log-in, and go with a log-out or when they are deleted.
 *
 * Source: client-server API, "Device Management"; Synapse's `handlers/device.py`.
 */
import { Result } from "effect"
import type { DeviceId, UserId } from "../../matrix/MatrixEvent.ts"
import { devicesChanged } from "./DeviceLists.ts"
import { confirm } from "./InteractiveAuth.ts"
import type { Device, ModelState, Outcome, Requester, User } from "./ModelState.ts"
import { refuse } from "./ModelState.ts"
import { removePushersOf } from "./Pushers.ts"

/** The device of this id, made if there is none. */
export const ensureDevice = (
  state: ModelState,
  user: User,
  deviceId: DeviceId,
  displayName: string | undefined
): Device => {
  const known = user.devices.get(deviceId)
  if (known !== undefined) return known
  const device: Device = {
    deviceId,
    displayName,
    ledger: [],
    acknowledged: 0,
    heldAfter: undefined,
    deviceKeys: undefined,
    signatures: new Map(),
    oneTimeKeys: new Map(),
    uploadedKeys: new Map(),
    fallbackKeys: new Map(),
    figures: { claimed: 0, conflicts: 0, reused: 0, fallbackUsed: 0 },
    connections: new Map(),
    transactions: new Map()
  }
  user.devices.set(deviceId, device)
  devicesChanged(state, user)
  return device
}

/** The device, or `M_NOT_FOUND`. */
export const findDevice = (
  state: ModelState,
  userId: UserId,
  deviceId: DeviceId
): Outcome<{ readonly user: User; readonly device: Device }> => {
  const user = state.users.get(userId)
  const device = user?.devices.get(deviceId)
  return user === undefined || device === undefined
    ? refuse(404, "M_NOT_FOUND", `${userId} has no device ${deviceId}`)
    : Result.succeed({ user, device })
}

/** Ends the sessions of a device. */
export const dropTokens = (
  state: ModelState,
  { userId, deviceId }: { readonly userId: UserId; readonly deviceId: DeviceId }
): void => {
  for (const tokens of [state.accessTokens, state.refreshTokens]) {
    for (const [text, token] of tokens) if (token.userId === userId && token.deviceId === deviceId) tokens.delete(text)
  }
}

/** Makes devices vanish, with their sessions, their keys, their to-device queues and their pushers. Unknown ones are no error. */
export const removeDevices = (state: ModelState, user: User, deviceIds: ReadonlyArray<DeviceId>): void => {
  for (const deviceId of deviceIds) {
    dropTokens(state, { userId: user.userId, deviceId })
    user.devices.delete(deviceId)
    removePushersOf(user, deviceId)
  }
  devicesChanged(state, user)
}

/** `POST /logout` */
export const logOut = (state: ModelState, { user, device }: Requester): void =>
  removeDevices(state, user, [device.deviceId])

/** `DELETE /devices/{deviceId}` and `POST /delete_devices`, once interactive authentication has said who asks. */
export const deleteDevices = (
  state: ModelState,
  requester: Requester,
  request: { readonly deviceIds: ReadonlyArray<DeviceId>; readonly operation: string; readonly auth: unknown }
): Outcome<void> =>
  Result.map(confirm(state, requester, request), () => removeDevices(state, requester.user, request.deviceIds))

/** `PUT /devices/{deviceId}`: the name that others are shown with the keys. */
export const renameDevice = (
  state: ModelState,
  { user }: Requester,
  deviceId: DeviceId,
  displayName: string | undefined
): Outcome<void> =>
  Result.map(findDevice(state, user.userId, deviceId), ({ device }) => {
    device.displayName = displayName ?? device.displayName
    devicesChanged(state, user)
  })

/** `GET /devices`, and the devices of an account for whoever inspects the model. */
export const devices = (user: User): ReadonlyArray<{ readonly device_id: DeviceId; readonly display_name?: string }> =>
  [...user.devices.values()].map(({ deviceId, displayName }) => ({
    device_id: deviceId,
    ...(displayName !== undefined && { display_name: displayName })
  }))
