/**
 * The to-device queues of the homeserver model, which are at once its ledger: what it accepted to deliver to each device,
 * how often it did, and when it was acknowledged.
 *
 * Invariants: a message stays until a request carries a `since` at or beyond it; `pos` plays no part (as on Synapse).
 *
 * Source: client-server API, "Send-to-Device messaging"; MSC4538; Synapse's `deviceinbox` storage.
 */
import { Result } from "effect"
import type { DeviceId, JsonObject, UserId } from "../../matrix/MatrixEvent.ts"
import type { ToDeviceBatch } from "../../matrix/SlidingSync.ts"
import { once } from "./Rooms.ts"
import type { Device, LedgerEntry, ModelState, Outcome, Requester, User } from "./ModelState.ts"
import { firstAfter, nextStream, refuse, touch } from "./ModelState.ts"

/** Synapse sends no more than this per response, whatever `limit` says. */
const maxBatch = 100

/** What `PUT /sendToDevice` carries. */
export interface ToDeviceMessages {
  readonly type: string
  readonly txnId: string
  /** user → device (or `*` for all) → content. */
  readonly messages: { readonly [userId: UserId]: { readonly [deviceId: DeviceId]: JsonObject } }
}

/** Puts one message into a device's queue, in the name of a sender. */
export const enqueue = (
  state: ModelState,
  target: { readonly user: User; readonly device: Device },
  message: { readonly sender: UserId; readonly type: string; readonly content: JsonObject },
  nowMillis: number
): LedgerEntry => {
  const entry: LedgerEntry = {
    number: target.device.ledger.length + 1,
    stream: nextStream(state),
    ...message,
    acceptedAtMillis: nowMillis,
    deliveries: 0
  }
  target.device.ledger.push(entry)
  touch(state, target.user.userId)
  return entry
}

/** `PUT /sendToDevice/{type}/{txnId}`: once per transaction id. Unknown users and devices are ignored, as on Synapse. */
export const sendToDevice = (
  state: ModelState,
  requester: Requester,
  { type, txnId, messages }: ToDeviceMessages,
  nowMillis: number
): Outcome<void> =>
  Result.map(
    once(requester, `toDevice/${type}/${txnId}`, () => {
      const sender = requester.user.userId
      for (const [userId, byDevice] of Object.entries(messages)) {
        const user = state.users.get(userId)
        if (user === undefined) continue
        const targets = Object.entries(byDevice)
        for (const [deviceId, content] of targets) {
          const named = user.devices.get(deviceId)
          // Beside the name of a device, `*` is a name that no device has.
          const isAll = deviceId === "*" && targets.length === 1
          const devices = isAll ? [...user.devices.values()] : named === undefined ? [] : [named]
          for (const device of devices) enqueue(state, { user, device }, { sender, type, content }, nowMillis)
        }
      }
      return Result.succeed("")
    }),
    () => undefined
  )

/** A `since` as a number; `M_INVALID_PARAM` when it isn't one. */
export const parseSince = (since: string): Outcome<number> =>
  /^\d+$/.test(since)
    ? Result.succeed(Number(since))
    : refuse(400, "M_INVALID_PARAM", `the to-device token "${since}" is not a number`)

/** Deletes what a `since` acknowledges. A `since` from the future (a homeserver restored from a backup) deletes nothing. */
export const acknowledge = (state: ModelState, device: Device, since: number, nowMillis: number): void => {
  if (since > state.stream) return
  const end = firstAfter(device.ledger, since)
  for (let index = device.acknowledged; index < end; index++) {
    const entry = device.ledger[index]
    if (entry !== undefined) entry.acknowledgedAtMillis = nowMillis
  }
  device.acknowledged = Math.max(device.acknowledged, end)
}

/** Keeps what comes from here on, until it is released. What came before is delivered as ever. */
export const hold = (state: ModelState, device: Device): void => {
  device.heldAfter ??= state.stream
}

/** Delivers again, and what was held back first. */
export const release = (
  state: ModelState,
  { user, device }: { readonly user: User; readonly device: Device }
): void => {
  device.heldAfter = undefined
  touch(state, user.userId)
}

/** Accepts a message once more, as a sender or a homeserver does that tries again. Undefined for an unknown number. */
export const repeat = (
  state: ModelState,
  target: { readonly user: User; readonly device: Device },
  number: number,
  nowMillis: number
): LedgerEntry | undefined => {
  const entry = target.device.ledger[number - 1]
  if (entry === undefined) return undefined
  const { sender, type, content } = entry
  return enqueue(state, target, { sender, type, content }, nowMillis)
}

/** What is waiting after a `since` (or from the oldest on), with the token that acknowledges it. */
export const pending = (
  state: ModelState,
  device: Device,
  since: number | undefined,
  limit = maxBatch
): { readonly batch: ToDeviceBatch; readonly entries: ReadonlyArray<LedgerEntry> } => {
  if (since !== undefined && since > state.stream)
    return { batch: { nextBatch: String(since), events: [] }, entries: [] }
  const upTo = device.heldAfter ?? state.stream
  const start = Math.max(device.acknowledged, since === undefined ? 0 : firstAfter(device.ledger, since))
  const size = Math.min(limit, maxBatch)
  const entries = device.ledger.slice(start, Math.min(start + size, firstAfter(device.ledger, upTo)))
  // A full batch may not be all there is; then only what was sent may be acknowledged.
  const next = entries.length === size ? entries.at(-1)?.stream : undefined
  return {
    batch: {
      nextBatch: String(next ?? upTo),
      events: entries.map(({ type, sender, content }) => ({ type, sender, content }))
    },
    entries
  }
}

/** Notes that a response carried these messages. */
export const delivered = (entries: ReadonlyArray<LedgerEntry>, nowMillis: number): void => {
  for (const entry of entries) {
    entry.deliveries += 1
    entry.firstDeliveredAtMillis ??= nowMillis
    entry.lastDeliveredAtMillis = nowMillis
  }
}
