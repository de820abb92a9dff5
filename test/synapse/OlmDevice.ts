/**
 * A device that is nothing but an Olm machine in memory and the requests that it wants made: many of them make a large room.
 *
 * It shares the npm package's WebAssembly with matrix-js-sdk; ours are loaded privately.
 */
import {
  DecryptionSettings,
  DeviceId,
  DeviceLists,
  EncryptionSettings,
  OlmMachine,
  RequestType,
  RoomId,
  TrustRequirement,
  UserId
} from "@matrix-org/matrix-sdk-crypto-wasm"
import { Effect } from "effect"
import * as Kit from "./ServiceKit.ts"

export interface OlmDevice {
  readonly person: Kit.Person
  readonly machine: OlmMachine
}

interface MachineRequest {
  readonly id: string
  readonly type: RequestType
  readonly body: string
  readonly event_type?: string
  readonly txn_id?: string
}

const paths: { readonly [type: number]: string } = {
  [RequestType.KeysUpload]: "keys/upload",
  [RequestType.KeysQuery]: "keys/query",
  [RequestType.KeysClaim]: "keys/claim"
}

const post = Effect.fnUntraced(function* ({ machine, person }: OlmDevice, request: MachineRequest) {
  const path = paths[request.type]
  const body = JSON.parse(request.body) as Kit.Json
  const answer =
    path === undefined
      ? yield* Kit.call(person, "PUT", `/_matrix/client/v3/sendToDevice/${request.event_type}/${request.txn_id}`, body)
      : yield* Kit.call(person, "POST", `/_matrix/client/v3/${path}`, body)
  yield* Effect.promise(() => machine.markRequestAsSent(request.id, request.type, JSON.stringify(answer)))
})

const postAll = (device: OlmDevice, requests: ReadonlyArray<unknown>) =>
  Effect.forEach(requests, (request) => post(device, request as MachineRequest), { discard: true })

const flush = (device: OlmDevice) =>
  Effect.flatMap(
    Effect.promise(() => device.machine.outgoingRequests()),
    (requests) => postAll(device, requests)
  )

/** Makes a device's keys and publishes them. */
export const make = Effect.fnUntraced(function* (person: Kit.Person) {
  const { deviceId, userId } = person.session
  const machine = yield* Effect.promise(() => OlmMachine.initialize(new UserId(userId), new DeviceId(deviceId)))
  const device: OlmDevice = { person, machine }
  yield* flush(device)
  return device
})

const untrusting = () => new DecryptionSettings(TrustRequirement.Untrusted)

const nobody = { account_data: { types: [] }, presence: { types: [] }, room: { rooms: [] } }

/** Takes the to-device messages that wait for it. */
export const receive = Effect.fnUntraced(function* ({ machine, person }: OlmDevice) {
  const filter = encodeURIComponent(JSON.stringify(nobody))
  const answer = yield* Kit.call(person, "GET", `/_matrix/client/v3/sync?timeout=0&filter=${filter}`)
  const { events = [] } = (answer["to_device"] ?? {}) as { readonly events?: ReadonlyArray<object> }
  yield* Effect.promise(() =>
    machine.receiveSyncChanges(JSON.stringify(events), new DeviceLists([], []), new Map(), undefined, untrusting())
  )
  return events.length
})

/** The text of an event of a room, decrypted. */
export const decrypt = Effect.fnUntraced(function* ({ machine, person }: OlmDevice, roomId: string, eventId: string) {
  const event = yield* Kit.call(person, "GET", Kit.roomPath(roomId, `event/${eventId}`))
  const decrypted = yield* Effect.promise(() =>
    machine.decryptRoomEvent(JSON.stringify(event), new RoomId(roomId), untrusting())
  )
  return String((JSON.parse(decrypted.event) as { readonly content: Kit.Json }).content["body"])
})

/** Says something that one user can read; the event's id. */
export const say = Effect.fnUntraced(function* (device: OlmDevice, roomId: string, to: string, body: string) {
  const { machine, person } = device
  yield* Effect.promise(() => machine.updateTrackedUsers([new UserId(to)]))
  yield* flush(device)
  const claim = yield* Effect.promise(() => machine.getMissingSessions([new UserId(to)]))
  yield* postAll(device, claim === null || claim === undefined ? [] : [claim])
  yield* postAll(
    device,
    yield* Effect.promise(() => machine.shareRoomKey(new RoomId(roomId), [new UserId(to)], new EncryptionSettings()))
  )
  const content = JSON.stringify({ msgtype: "m.text", body })
  const encrypted = yield* Effect.promise(() => machine.encryptRoomEvent(new RoomId(roomId), "m.room.message", content))
  return yield* Kit.send(person, roomId, "m.room.encrypted", JSON.parse(encrypted))
})
