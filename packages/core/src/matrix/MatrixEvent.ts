/**
 * Events as they come over the wire, kept raw.
 *
 * Includes the event shapes, the checks that decide whether an event can be used, and the quarantine entry for one that
 * can't. Events keep their wire spelling (`event_id`, `state_key`) and their unknown fields, because `content` belongs to
 * the sender and is decoded only by whoever reads it.
 *
 * Invariants: I7 (a malformed event is told apart, never thrown on, never dropped silently).
 *
 * Not here: what an event does to a room (`rooms/Room.ts`), the sync envelope (`SlidingSync.ts`).
 */
import { Predicate } from "effect"

/** `!opaque:server` (or `!opaque` from room version 12 on). Spec: appendices, "Room IDs". */
export type RoomId = string
/** `@localpart:server`. Spec: appendices, "User Identifiers". */
export type UserId = string
/** `$opaque`. Spec: appendices, "Event IDs". */
export type EventId = string
/** Opaque, chosen by the homeserver at login. */
export type DeviceId = string

/** A JSON object whose members are not known. */
export type JsonObject = { readonly [key: string]: unknown }

/** What every event has. Spec: client-server API, "Events". */
export interface MatrixEvent {
  readonly type: string
  readonly sender: UserId
  readonly content: JsonObject
  readonly [key: string]: unknown
}

/** An event in a room's timeline: it has an id and, normally, the sender's server's time in milliseconds. */
export interface TimelineEvent extends MatrixEvent {
  readonly event_id: EventId
  readonly origin_server_ts?: number
  readonly state_key?: string
  readonly unsigned?: JsonObject
}

/** A state event, full or stripped (stripped ones have no `event_id`). Spec: "Stripped state". */
export interface StateEvent extends MatrixEvent {
  readonly state_key: string
  readonly event_id?: EventId
  readonly origin_server_ts?: number
}

/** A state event that no longer exists. The merged MSC4186 signals it as `{type, state_key}` without content. */
export interface StateDeletion {
  readonly type: string
  readonly state_key: string
}

/** An event of account data, typing or receipts: a type and a content, nothing else is promised. */
export interface EphemeralEvent {
  readonly type: string
  readonly content: JsonObject
  readonly [key: string]: unknown
}

/** Where a quarantined thing was found. `roomId` is given for everything that belongs to a room. */
export type QuarantineSource =
  | "toDevice"
  | "timeline"
  | "state"
  | "strippedState"
  | "room"
  | "list"
  | "accountData"
  | "receipts"
  | "typing"
  | "extension"

/** Something that arrived and can't be understood, kept with its raw JSON and the reason (invariant I7). */
export interface Quarantined {
  readonly source: QuarantineSource
  readonly roomId?: RoomId
  /** What is wrong, to what, in one sentence. */
  readonly reason: string
  /** The JSON value as it was received. */
  readonly raw: unknown
}

const missing = (raw: JsonObject, key: string, kind: string): string =>
  raw[key] === undefined ? `it has no "${key}"` : `its "${key}" is not ${kind}`

/**
 * Says why a JSON value can't be used as an event, or `undefined` when it can.
 *
 * A plain function and no Schema decode, since it runs once per event of every response.
 */
export const whyNotEvent = (raw: unknown): string | undefined => {
  if (!Predicate.isObject(raw)) return "it is not a JSON object"
  if (typeof raw.type !== "string") return missing(raw, "type", "a string")
  if (typeof raw.sender !== "string") return missing(raw, "sender", "a string")
  if (!Predicate.isObject(raw.content)) return missing(raw, "content", "a JSON object")
  return undefined
}

/** Like {@link whyNotEvent}, for an event in a timeline: it must also have an `event_id`. */
export const whyNotTimelineEvent = (raw: unknown): string | undefined => {
  const reason = whyNotEvent(raw)
  if (reason !== undefined) return reason
  const event = raw as JsonObject
  if (typeof event.event_id !== "string") return missing(event, "event_id", "a string")
  if (event.state_key !== undefined && typeof event.state_key !== "string")
    return missing(event, "state_key", "a string")
  return undefined
}

/** Like {@link whyNotEvent}, for a state event: it must also have a `state_key`. */
export const whyNotStateEvent = (raw: unknown): string | undefined => {
  const reason = whyNotEvent(raw)
  if (reason !== undefined) return reason
  const event = raw as JsonObject
  return typeof event.state_key === "string" ? undefined : missing(event, "state_key", "a string")
}

/** Whether a state entry is a deletion stub of the merged MSC4186: a type and a state key, and no content. */
export const isStateDeletion = (raw: unknown): raw is StateDeletion =>
  Predicate.isObject(raw) &&
  typeof raw.type === "string" &&
  typeof raw.state_key === "string" &&
  raw.content === undefined

/** Says why a JSON value can't be used as account data, typing or a receipt, or `undefined` when it can. */
export const whyNotEphemeralEvent = (raw: unknown): string | undefined => {
  if (!Predicate.isObject(raw)) return "it is not a JSON object"
  if (typeof raw.type !== "string") return missing(raw, "type", "a string")
  if (!Predicate.isObject(raw.content)) return missing(raw, "content", "a JSON object")
  return undefined
}
