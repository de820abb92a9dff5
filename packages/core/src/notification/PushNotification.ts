/**
 * What a homeserver sends to a push gateway: the body of `POST /_matrix/push/v1/notify`, read.
 *
 * Includes both formats (`event_id_only`, and full, of which nothing more is taken: what the homeserver sees of an event isn't
 * what is shown) and the poke that has only counts, sent when something was read.
 *
 * Invariants: I7 (nothing is thrown; what can't be understood is refused with a reason in words).
 *
 * Gotchas: what only decorates a push never costs it: counts, `pushkey_ts` and `data` that aren't what they should be count as
 * absent. A refusal makes the homeserver try again for a day, with everything that comes after waiting behind.
 *
 * Not here: HTTP, and which devices are known (platform's `PushGateway.ts` and `PushQueue.ts`).
 *
 * Source: push gateway API, `POST /_matrix/push/v1/notify`; Synapse's `httppusher.py`.
 */
import { Predicate, Result } from "effect"
import type { JsonObject } from "../matrix/MatrixEvent.ts"
import type { PusherId } from "../matrix/Pusher.ts"
import type { NotificationRequest } from "./NotificationItem.ts"

/** What waits for the user, as the homeserver counts. Spec: "Counts whose value is zero should be omitted". */
export interface PushCounts {
  /** Unread rooms or messages, as the homeserver is configured, and invitations. */
  readonly unread: number
  readonly missedCalls: number
}

/** A device that the push is for. */
export interface PushDevice extends PusherId {
  /** When the push key was last changed, Unix seconds. */
  readonly pushkeyTs?: number
  /** The pusher's `data` without its `url`. */
  readonly data: JsonObject
}

/** There is something new. */
export interface EventPush {
  readonly _tag: "Event"
  readonly request: NotificationRequest
  /** Absent when the homeserver doesn't say. */
  readonly counts?: PushCounts
  /** One at least. */
  readonly devices: ReadonlyArray<PushDevice>
}

/** Only the counts have changed, since something was read. */
export interface BadgePush {
  readonly _tag: "Badge"
  readonly counts?: PushCounts
  readonly devices: ReadonlyArray<PushDevice>
}

export type Push = EventPush | BadgePush

/** Why a body is no push. */
export interface Malformed {
  readonly _tag: "Malformed"
  /** Spec: "Standard error response". */
  readonly errcode: "M_BAD_JSON" | "M_MISSING_PARAM"
  /** What is wrong, with which member, in a sentence. */
  readonly message: string
}

/** The most bytes that an id of Matrix has. Spec: appendices, "Common Identifier Format". */
const MAX_ID_BYTES = 255

type Decoded<A> = Result.Result<A, Malformed>

const bad = (message: string): Decoded<never> => Result.fail({ _tag: "Malformed", errcode: "M_BAD_JSON", message })

const missing = (path: string): Decoded<never> =>
  Result.fail({ _tag: "Malformed", errcode: "M_MISSING_PARAM", message: `"${path}" is missing` })

const isObject = (value: unknown): value is JsonObject => Predicate.isObject(value) && !Array.isArray(value)

const objectAt = (value: unknown, path: string): Decoded<JsonObject> => {
  if (value === undefined || value === null) return missing(path)
  return isObject(value) ? Result.succeed(value) : bad(`"${path}" is not an object`)
}

const stringAt = (value: unknown, path: string): Decoded<string> => {
  if (value === undefined || value === null) return missing(path)
  return Predicate.isString(value) ? Result.succeed(value) : bad(`"${path}" is not a string`)
}

const bytesOf = (text: string): number => new TextEncoder().encode(text).length

/** What no id has, and what a database or a terminal might take for something else. */
const isOdd = (text: string): boolean => /[\p{Cc}\p{Cs}]/u.test(text)

/** An id; `undefined` when there is none, which a poke says with nothing, `null` or "". */
const idAt = (value: unknown, path: string): Decoded<string | undefined> => {
  if (value === undefined || value === null || value === "") return Result.succeed(undefined)
  if (!Predicate.isString(value)) return bad(`"${path}" is not a string`)
  if (bytesOf(value) > MAX_ID_BYTES) return bad(`"${path}" has more than ${MAX_ID_BYTES} bytes`)
  return isOdd(value) ? bad(`"${path}" has control characters or halves of characters`) : Result.succeed(value)
}

const countOf = (value: unknown): number | undefined =>
  Number.isSafeInteger(value) && Number(value) >= 0 ? Number(value) : undefined

const countsOf = (counts: unknown): PushCounts | undefined => {
  if (!isObject(counts)) return undefined
  const { missed_calls = 0, unread = 0 } = counts
  const [unreadCount, missedCalls] = [countOf(unread), countOf(missed_calls)]
  return unreadCount === undefined ? undefined : { unread: unreadCount, missedCalls: missedCalls ?? 0 }
}

const deviceAt = (value: unknown, path: string): Decoded<PushDevice> =>
  Result.gen(function* () {
    const device = yield* objectAt(value, path)
    const appId = yield* stringAt(device["app_id"], `${path}.app_id`)
    const pushKey = yield* stringAt(device["pushkey"], `${path}.pushkey`)
    const { data, pushkey_ts } = device
    return {
      appId,
      pushKey,
      ...(Number.isFinite(pushkey_ts) ? { pushkeyTs: Number(pushkey_ts) } : {}),
      data: isObject(data) ? data : {}
    }
  })

const devicesAt = (value: unknown, path: string): Decoded<ReadonlyArray<PushDevice>> => {
  if (value === undefined || value === null) return missing(path)
  if (!Array.isArray(value)) return bad(`"${path}" is not an array`)
  if (value.length === 0) return missing(`${path}[0]`)
  return Result.all(value.map((device, index) => deviceAt(device, `${path}[${index}]`)))
}

/** Which event it is about; `undefined` for a poke. An event without its room, or the other way round, is neither. */
const requestOf = (notification: JsonObject): Decoded<NotificationRequest | undefined> =>
  Result.gen(function* () {
    const path = "notification"
    const named = yield* idAt(notification["event_id"], `${path}.event_id`)
    // The name that it had in older versions of the specification; Synapse sends both in the full format.
    const eventId = named ?? (yield* idAt(notification["id"], `${path}.id`))
    const roomId = yield* idAt(notification["room_id"], `${path}.room_id`)
    if (eventId === undefined && roomId === undefined) return undefined
    if (eventId === undefined) return yield* missing(`${path}.event_id`)
    if (roomId === undefined) return yield* missing(`${path}.room_id`)
    return { roomId, eventId, isUrgent: notification["prio"] !== "low" }
  })

/**
 * Reads the JSON of a push. Never throws; gives why it is malformed otherwise. A missing priority is a high one (spec).
 *
 * @example
 * ```ts
 * import { PushNotification } from "@twinloop/core"
 *
 * const push = PushNotification.decode({
 *   notification: {
 *     event_id: "$event",
 *     room_id: "!room:example.org",
 *     prio: "low",
 *     counts: { unread: 2 },
 *     devices: [{ app_id: "org.example.app", pushkey: "key", pushkey_ts: 1_700_000_000, data: {} }]
 *   }
 * })
 * ```
 */
export const decode = (json: unknown): Result.Result<Push, Malformed> =>
  Result.gen(function* () {
    if (!isObject(json)) return yield* bad("the body is not an object")
    const notification = yield* objectAt(json["notification"], "notification")
    const devices = yield* devicesAt(notification["devices"], "notification.devices")
    const request = yield* requestOf(notification)
    const counts = countsOf(notification["counts"])
    const rest = { ...(counts === undefined ? {} : { counts }), devices }
    return request === undefined ? { _tag: "Badge" as const, ...rest } : { _tag: "Event" as const, request, ...rest }
  })
