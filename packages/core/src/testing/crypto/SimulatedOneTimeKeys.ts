/**
 * One-time keys of the simulated engine: made, published, and used up by the message that names one.
 *
 * A key that a message names and that isn't stored, or is used up, makes the message unreadable, as with Olm. So who publishes
 * before he stores, goes back behind what he published, or takes a message twice, loses what others sent him.
 *
 * Gotchas: a key's text names the moment and the generation at which it was made, so that an id that is given to two keys is
 * seen by the homeserver (`HomeserverModel.keyReport`).
 */
import type { JsonObject } from "../../matrix/MatrixEvent.ts"
import * as Json from "../homeserver/JsonShape.ts"
import * as Memory from "./SimulatedMemory.ts"
import * as Records from "./SimulatedRecords.ts"

const ALGORITHM = "signed_curve25519"

const unpublished = ({ records }: Memory.Memory): ReadonlyArray<readonly [string, Records.OneTimeKey]> =>
  [...records.oneTime].filter(([, { isPublished }]) => !isPublished)

/** Takes the homeserver's word on how many are left. */
export const counted = (memory: Memory.Memory, left: number | undefined): void => {
  const account = Records.accountOf(memory.records)
  if (memory.oneTimeKeys === 0 || left === undefined || left === account.oneTimeKeys) return
  Memory.put(memory, "account", "account", { ...account, oneTimeKeys: left })
}

/** Those that are to be published; makes new ones when less than half of them are left. */
export const wanted = (memory: Memory.Memory, generation: number, nowMillis: number): JsonObject => {
  const left = Records.accountOf(memory.records).oneTimeKeys ?? 0
  if (unpublished(memory).length === 0 && left < memory.oneTimeKeys / 2) {
    for (let made = left; made < memory.oneTimeKeys; made++) {
      const number = Memory.nextNumber(memory)
      const key = `simulated-one-time-${memory.own.deviceId}-${number}-${generation}-${nowMillis}`
      Memory.put(memory, "oneTime", `${ALGORITHM}:${number}`, { key, isPublished: false })
    }
  }
  return Object.fromEntries(unpublished(memory).map(([id, { key }]) => [id, { key, signatures: {} }]))
}

/** They are published, or about to be: each once. */
export const published = (memory: Memory.Memory): void => {
  for (const [id, key] of unpublished(memory)) Memory.put(memory, "oneTime", id, { ...key, isPublished: true })
  counted(memory, memory.oneTimeKeys)
}

/** Uses up the key that a message names, if it names one; `false` when that isn't there. */
export const use = (memory: Memory.Memory, content: JsonObject): boolean => {
  const named = Json.objectAt(content, "one_time_key")
  const id = Records.textAt(named, "id")
  if (id === undefined) return true
  if (memory.records.oneTime.get(id)?.key !== named.key) return false
  Memory.put(memory, "oneTime", id, undefined)
  return true
}
