/**
 * A notification as JSON, for files and webhooks:
 *
 * ```json
 * { "at": "2026-01-31T12:00:00.000Z", "roomId": "!kitchen:hs", "eventId": "$1", "result": "Event", "kind": "message",
 *   "title": "Kitchen", "body": "Alice: dinner", "urgency": "normal",
 *   "room": { "roomId": "!kitchen:hs", "name": "Kitchen", "isEncrypted": true, "isDirect": false },
 *   "sender": { "userId": "@alice:hs", "name": "Alice", "isNameAmbiguous": false },
 *   "missing": [] }
 * ```
 *
 * `at` is when it was shown. `title`, `body` and `urgency` are absent where there is nothing to show (`NotFound`); `kind`,
 * `room` and `sender` where the event isn't known; `message` is there if `result` isn't `Event`, and says why. `missing` has
 * `{ "part", "message" }` for each thing that could not be found out.
 *
 * Invariants: I7 (a result without words is told as well), I10 (each string is cut, so that a line stays small).
 *
 * Gotchas: `title` and `body` are harmless on a terminal; every other string is as its sender wrote it.
 */
import { type NotificationClient, type NotificationItem, NotificationText } from "@twinloop/core"
import * as Printable from "../../Printable.ts"

/** UTF-16 units of a string, at most: four times of what the spec allows for an id, or of what is shown of a message. */
const maxString = 1_000

/** A string as it stands in a record. */
export const cut = (text: string): string =>
  text.length > maxString ? `${text.slice(0, maxString - 1)}…`.toWellFormed() : text

export interface SinkRecord {
  /** ISO 8601, UTC. */
  readonly at: string
  readonly roomId: string
  readonly eventId: string
  readonly result: NotificationItem.NotificationResult["_tag"]
  readonly kind?: NotificationItem.NotificationKind
  readonly title?: string
  readonly body?: string
  readonly urgency?: NotificationText.Urgency
  readonly message?: string
  readonly room?: NotificationItem.NotificationRoom
  readonly sender?: NotificationItem.NotificationSender
  readonly missing: ReadonlyArray<{ readonly part: string; readonly message: string }>
}

const missingOf = (result: NotificationItem.NotificationResult): SinkRecord["missing"] => {
  if (result._tag === "Expired") return result.missing.map((part) => ({ part, message: result.message }))
  return "item" in result ? result.item.missing : []
}

/** The record of what a push came to. `atMillis` is Unix time. */
export const recordOf = (resolved: NotificationClient.Resolved, atMillis: number): SinkRecord => {
  const { request, result } = resolved
  return {
    at: new Date(atMillis).toISOString(),
    roomId: request.roomId,
    eventId: request.eventId,
    result: result._tag,
    ...("item" in result && { kind: result.item.kind }),
    ...NotificationText.textOf(resolved),
    ...("message" in result && { message: result.message }),
    ...("item" in result && { room: result.item.room, sender: result.item.sender }),
    missing: missingOf(result)
  }
}

/** A record, or one with more in it, in one line without the line's end. */
export const stringify = <Record extends SinkRecord>(record: Record): string =>
  Printable.json(record, (_key, value: unknown) => (typeof value === "string" ? cut(value) : value))

/** The record of what a push came to, in one line. */
export const jsonOf = (resolved: NotificationClient.Resolved, atMillis: number): string =>
  stringify(recordOf(resolved, atMillis))
