/**
 * What devices need of a homeserver so that they can write to one another: their keys, one-time keys, and to-device messages.
 * In memory, without HTTP: the benchmarks of encryption are about what comes after it.
 */
import type { MatrixEvent } from "@twinloop/core"

export type JsonObject = MatrixEvent.JsonObject

/** Which request for keys: as `Homeserver.KeysRequest` names them. */
export type Kind = "upload" | "query" | "claim" | "signatures" | "deviceSigning"

export interface Device {
  readonly userId: string
  readonly deviceId: string
}

export type ToDeviceEvent = MatrixEvent.MatrixEvent

interface Upload {
  readonly device_keys?: JsonObject
  readonly one_time_keys?: JsonObject
}

interface Claim {
  readonly one_time_keys: { readonly [userId: string]: { readonly [deviceId: string]: string } }
}

const nameOf = ({ deviceId, userId }: Device): string => `${userId} ${deviceId}`

export class KeyDirectory {
  readonly #devices = new Map<string, Map<string, JsonObject>>()
  readonly #oneTimeKeys = new Map<string, Map<string, unknown>>()
  readonly #toDevice = new Map<string, Array<ToDeviceEvent>>()

  #oneTimeKeysOf(device: Device): Map<string, unknown> {
    const name = nameOf(device)
    const known = this.#oneTimeKeys.get(name) ?? new Map<string, unknown>()
    this.#oneTimeKeys.set(name, known)
    return known
  }

  #upload(from: Device, { device_keys: deviceKeys, one_time_keys: keys = {} }: Upload): JsonObject {
    if (deviceKeys !== undefined) {
      const devices = this.#devices.get(from.userId) ?? new Map<string, JsonObject>()
      this.#devices.set(from.userId, devices.set(from.deviceId, deviceKeys))
    }
    const known = this.#oneTimeKeysOf(from)
    for (const [id, key] of Object.entries(keys)) known.set(id, key)
    return { one_time_key_counts: { signed_curve25519: known.size } }
  }

  #query(body: JsonObject): JsonObject {
    const users = Object.keys(body["device_keys"] as JsonObject)
    const devices = users.map((userId) => [userId, Object.fromEntries(this.#devices.get(userId) ?? [])])
    return { device_keys: Object.fromEntries(devices), failures: {} }
  }

  #claim({ one_time_keys: wanted }: Claim): JsonObject {
    const one = (device: Device): JsonObject => {
      const keys = this.#oneTimeKeysOf(device)
      const [first] = keys
      if (first === undefined) return {}
      keys.delete(first[0])
      return Object.fromEntries([first])
    }
    const claimed = Object.entries(wanted).map(([userId, devices]) => [
      userId,
      Object.fromEntries(Object.keys(devices).map((deviceId) => [deviceId, one({ userId, deviceId })]))
    ])
    return { one_time_keys: Object.fromEntries(claimed), failures: {} }
  }

  /** Answers a request for keys. */
  answer(from: Device, kind: Kind, body: JsonObject): JsonObject {
    if (kind === "upload") return this.#upload(from, body as Upload)
    if (kind === "query") return this.#query(body)
    if (kind === "claim") return this.#claim(body as unknown as Claim)
    throw new Error(`nobody asks for ${kind} here`)
  }

  /** Sends messages to devices. */
  send(sender: string, type: string, messages: { readonly [userId: string]: JsonObject }): void {
    for (const [userId, devices] of Object.entries(messages)) {
      for (const [deviceId, content] of Object.entries(devices)) {
        const name = nameOf({ userId, deviceId })
        const waiting = this.#toDevice.get(name) ?? []
        waiting.push({ type, sender, content: content as JsonObject })
        this.#toDevice.set(name, waiting)
      }
    }
  }

  /** The messages for a device since the last call. */
  take(device: Device): ReadonlyArray<ToDeviceEvent> {
    const waiting = this.#toDevice.get(nameOf(device)) ?? []
    this.#toDevice.delete(nameOf(device))
    return waiting
  }
}
