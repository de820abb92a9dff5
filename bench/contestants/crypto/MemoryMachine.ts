/**
 * The Olm machine of matrix-rust-sdk as its package has it, with its store in memory and nothing of ours around it: the
 * limit of what is measured, and whoever sends what is received.
 *
 * Gotchas: all machines made here live in one WebAssembly instance.
 */
import type * as Sdk from "@matrix-org/matrix-sdk-crypto-wasm"
import { createRequire } from "node:module"
import type { Device, JsonObject, KeyDirectory, Kind } from "./KeyDirectory.ts"

const load = createRequire(import.meta.url)

/** The package, loaded when it is first needed and from where the program is: a bundle has it beside itself. */
let loaded: typeof Sdk | undefined
export const sdk = (): typeof Sdk => (loaded ??= load("@matrix-org/matrix-sdk-crypto-wasm") as typeof Sdk)

export interface MemoryMachine extends Device {
  readonly olm: Sdk.OlmMachine
}

interface Request {
  readonly id?: string
  readonly type: number
  readonly body: string
  readonly event_type?: string
}

const kinds: { readonly [type: number]: Kind } = { 0: "upload", 1: "query", 2: "claim" }
const TO_DEVICE = 3

/** Sends a request of the machine's, and tells it the answer. */
export const send = async (directory: KeyDirectory, machine: MemoryMachine, request: Request): Promise<void> => {
  const body = JSON.parse(request.body) as JsonObject
  let answer: JsonObject = {}
  if (request.type === TO_DEVICE) {
    const { messages } = body as { readonly messages: { readonly [userId: string]: JsonObject } }
    directory.send(machine.userId, request.event_type ?? "", messages)
  } else {
    answer = directory.answer(machine, kinds[request.type]!, body)
  }
  if (request.id !== undefined) await machine.olm.markRequestAsSent(request.id, request.type, JSON.stringify(answer))
}

/** Sends what the machine wants sent, until it wants nothing more. */
export const flush = async (directory: KeyDirectory, machine: MemoryMachine): Promise<void> => {
  for (;;) {
    const requests = (await machine.olm.outgoingRequests()) as ReadonlyArray<Request>
    if (requests.length === 0) return
    for (const request of requests) await send(directory, machine, request)
  }
}

/** A new device, unknown to anybody. */
export const create = async (device: Device): Promise<MemoryMachine> => {
  const { DeviceId, OlmMachine, UserId } = sdk()
  const olm = await OlmMachine.initialize(new UserId(device.userId), new DeviceId(device.deviceId))
  return { ...device, olm }
}

/** A new device whose keys are published. */
export const open = async (directory: KeyDirectory, device: Device): Promise<MemoryMachine> => {
  const machine = await create(device)
  await flush(directory, machine)
  return machine
}

/** Takes a batch of to-device messages; gives how many room keys were in it. */
export const receive = async ({ olm }: MemoryMachine, events: ReadonlyArray<unknown>): Promise<number> => {
  const { DecryptionSettings, DeviceLists, ProcessedToDeviceEventType, TrustRequirement } = sdk()
  const processed = await olm.receiveSyncChangesMsc4186(
    JSON.stringify(events),
    new DeviceLists([], []),
    new Map(),
    undefined,
    new DecryptionSettings(TrustRequirement.Untrusted)
  )
  return processed.filter(({ type }) => type === ProcessedToDeviceEventType.Decrypted).length
}

/** Decrypts an event of a room; gives what is in it. */
export const decrypt = async ({ olm }: MemoryMachine, roomId: string, event: object): Promise<unknown> => {
  const { DecryptionSettings, RoomId, TrustRequirement } = sdk()
  const settings = new DecryptionSettings(TrustRequirement.Untrusted)
  const decrypted = await olm.decryptRoomEvent(
    JSON.stringify({ ...event, room_id: roomId }),
    new RoomId(roomId),
    settings
  )
  return JSON.parse(decrypted.event)
}
