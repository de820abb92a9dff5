/**
 * A homeserver as a deterministic state machine: users, devices, rooms, sliding sync, to-device queues, keys, pushes.
 *
 * `make` gives the state; every other function takes it, together with who asks and the time in Unix milliseconds, and gives
 * an `Outcome`: what the homeserver answers, or the `Refusal` with which it declines (status, errcode, message). Nothing
 * waits, nothing is random, nothing is read from a clock.
 *
 * Includes the to-device **ledger** (`ledger`): everything that was accepted for a device, how often it was delivered and
 * when it was acknowledged. It is what "lost" and "duplicated" are measured against.
 *
 * Gotchas: the state is mutable and has one owner (why: `homeserver/ModelState.ts`).
 *
 * Not here: long polls (`homeserver/HomeserverHost.ts`), faults and the `Homeserver` port (`HomeserverSim.ts`), HTTP
 * (platform `DevHomeserver`).
 *
 * @example
 * ```ts
 * const state = HomeserverModel.make()
 * const alice = Result.getOrThrow(HomeserverModel.addUser(state, { localpart: "alice" }))
 * const room = HomeserverModel.createRoom(state, alice, { name: "Kitchen" }, 0)
 * ```
 */
import { Result } from "effect"
import type { DeviceId, JsonObject, UserId } from "../matrix/MatrixEvent.ts"
import type { KeysRequest } from "../sync/Homeserver.ts"
import * as Accounts from "./homeserver/Accounts.ts"
import * as CrossSigning from "./homeserver/CrossSigning.ts"
import * as DeviceKeys from "./homeserver/DeviceKeys.ts"
import type { LedgerEntry, ModelState, Outcome, Requester, Room, User } from "./homeserver/ModelState.ts"
import { refuse } from "./homeserver/ModelState.ts"
import * as Rooms from "./homeserver/Rooms.ts"
import * as ToDeviceQueue from "./homeserver/ToDeviceQueue.ts"

export {
  type LedgerEntry,
  make,
  type ModelOptions,
  type ModelState,
  type Outcome,
  type Refusal,
  type Requester
} from "./homeserver/ModelState.ts"
export {
  addFilter,
  addUser,
  authenticate,
  expireTokens,
  findUser,
  logIn,
  profile,
  refresh,
  startSession,
  type Tokens,
  userIdOf
} from "./homeserver/Accounts.ts"
export {
  append,
  createRoom,
  join,
  leave,
  type NewEvent,
  type NewRoom,
  redact,
  send,
  setMember,
  setProfile
} from "./homeserver/Rooms.ts"
export { context, event, members, messages, state as roomState, stateContent } from "./homeserver/RoomHistory.ts"
export { pushers, removePusher, setPusher } from "./homeserver/Pushers.ts"
export { type Push, pushAnswered, pushFailed, type PushOwner, takePush } from "./homeserver/Pushes.ts"
export {
  changePushRule,
  deletePushRule,
  type NewPushRule,
  pushRule,
  type PushRuleId,
  pushRules,
  pushRulesOfKind,
  setPushRule
} from "./homeserver/PushRuleEdits.ts"
export { subscribeToThread, threadSubscription, unsubscribeFromThread } from "./homeserver/ThreadSubscriptions.ts"
export { accountData, setAccountData, setReceipt, setTyping } from "./homeserver/RoomSignals.ts"
export { enqueue, hold, release, repeat, sendToDevice } from "./homeserver/ToDeviceQueue.ts"
export { keyReport, type KeyReport } from "./homeserver/DeviceKeys.ts"
export { changes as keyChanges } from "./homeserver/DeviceLists.ts"
export { deleteDevices, devices, findDevice, logOut, removeDevices, renameDevice } from "./homeserver/Devices.ts"
export * as SyncConnection from "./homeserver/SyncConnection.ts"

/** `POST /keys/…`: the end-to-end machine's requests, by kind. */
export const keys = (state: ModelState, requester: Requester, { kind, body }: KeysRequest): Outcome<JsonObject> => {
  switch (kind) {
    case "upload":
      return DeviceKeys.upload(state, requester, body)
    case "query":
      return DeviceKeys.query(state, requester, body)
    case "claim":
      return DeviceKeys.claim(state, body)
    case "signatures":
      return CrossSigning.uploadSignatures(state, requester, body)
    case "deviceSigning":
      return CrossSigning.uploadKeys(state, requester, body)
  }
}

/** Everything that was ever accepted for a device, ascending; empty for an unknown one. */
export const ledger = (state: ModelState, userId: UserId, deviceId: DeviceId): ReadonlyArray<LedgerEntry> =>
  state.users.get(userId)?.devices.get(deviceId)?.ledger ?? []

/** Adds many named rooms at once, with one message each; the last one made is the most recent. */
export const addRooms = (
  state: ModelState,
  creator: User,
  { count, namePrefix = "Room" }: { readonly count: number; readonly namePrefix?: string },
  nowMillis: number
): ReadonlyArray<Room> =>
  Array.from({ length: count }, (_, index) => {
    const room = Rooms.createRoom(state, creator, { name: `${namePrefix} ${index + 1}` }, nowMillis)
    const content = { msgtype: "m.text", body: `first message of room ${index + 1}` }
    Rooms.append(state, room, { type: "m.room.message", sender: creator.userId, content }, nowMillis)
    return room
  })

/** To-device messages `{ number }` for one device, with the ledger's own numbers; gives those numbers. */
export const sendNumbered = (
  state: ModelState,
  request: {
    readonly userId: UserId
    readonly deviceId: DeviceId
    readonly count: number
    readonly sender: UserId
    readonly type?: string
  },
  nowMillis: number
): Outcome<ReadonlyArray<number>> =>
  Result.flatMap(Accounts.findUser(state, request.userId), (user) => {
    const { count, sender, type = "org.twinloop.numbered" } = request
    const device = user.devices.get(request.deviceId)
    if (device === undefined) return refuse(404, "M_NOT_FOUND", `${user.userId} has no device ${request.deviceId}`)
    const numbers = Array.from({ length: count }, () => {
      const content = { number: device.ledger.length + 1 }
      return ToDeviceQueue.enqueue(state, { user, device }, { sender, type, content }, nowMillis).number
    })
    return Result.succeed(numbers)
  })

/** The user of this name, added if there is none. */
export const ensureUser = (state: ModelState, user: Accounts.NewUser): Outcome<User> => {
  const known = state.users.get(Accounts.userIdOf(state, user.localpart))
  return known === undefined ? Accounts.addUser(state, user) : Accounts.findUser(state, known.userId)
}
