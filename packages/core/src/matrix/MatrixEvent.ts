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
  /** The JSON value as it was received; cut when it is nested too deeply or is too large: see {@link keepable}. */
  readonly raw: unknown
}

/**
 * Levels of arrays and objects in an event that are taken. V8 reads any depth, but overflows its stack when it writes about
 * 4000 levels; Synapse's Python reads about 1000; serde_json 128.
 */
const maxNesting = 500

const nestsDeeperThan = (value: unknown, levels: number): boolean => {
  if (typeof value !== "object" || value === null) return false
  if (levels === 0) return true
  if (Array.isArray(value)) return value.some((item) => nestsDeeperThan(item, levels - 1))
  for (const key in value) if (nestsDeeperThan((value as JsonObject)[key], levels - 1)) return true
  return false
}

const cutBelow = (value: unknown, levels: number): unknown => {
  if (typeof value !== "object" || value === null) return value
  if (levels === 0) return "…"
  if (Array.isArray(value)) return value.map((item) => cutBelow(item, levels - 1))
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, cutBelow(item, levels - 1)]))
}

/** A JSON value that can be written as JSON again: itself, or a copy without what is nested too deeply. */
export const writable = (raw: unknown): unknown => (nestsDeeperThan(raw, maxNesting) ? cutBelow(raw, maxNesting) : raw)

/** An event is 64 KiB at most (spec: "Size limits"); what can't be understood and is larger is kept by its beginning. */
const maxKept = 65_536

/** UTF-16 code units of a reason: some sentences. What it quotes can be as long as an event. */
const maxReason = 500

/** A reason as it is kept: not without end, and text that every store gives back as it was. */
export const reasonToKeep = (reason: string): string => reason.slice(0, maxReason).toWellFormed()

/** A JSON value as it is kept in quarantine: {@link writable}, and small enough that a hostile server can't fill the disk. */
export const keepable = (raw: unknown): unknown => {
  const kept = writable(raw)
  const text = JSON.stringify(kept) ?? ""
  return text.length > maxKept ? `${text.slice(0, maxKept)}…`.toWellFormed() : kept
}

const tooDeep = (raw: JsonObject): string | undefined =>
  nestsDeeperThan(raw, maxNesting) ? `it is nested more than ${maxNesting} levels deep` : undefined

/** A string that every store and every address can hold as it is: without half a surrogate pair, which JSON can spell. */
const isText = (value: unknown): value is string => typeof value === "string" && value.isWellFormed()

const missing = (raw: JsonObject, key: string, kind: string): string => {
  if (raw[key] === undefined) return `it has no "${key}"`
  return `its "${key}" is not ${typeof raw[key] === "string" ? "text: half of a character is missing" : kind}`
}

/**
 * Says why a JSON value can't be used as an event, or `undefined` when it can.
 *
 * A plain function and no Schema decode, since it runs once per event of every response.
 */
export const whyNotEvent = (raw: unknown): string | undefined => {
  if (!Predicate.isObject(raw)) return "it is not a JSON object"
  if (!isText(raw.type)) return missing(raw, "type", "a string")
  if (!isText(raw.sender)) return missing(raw, "sender", "a string")
  if (!Predicate.isObject(raw.content)) return missing(raw, "content", "a JSON object")
  return tooDeep(raw as JsonObject)
}

/** Like {@link whyNotEvent}, for an event in a timeline: it must also have an `event_id`. */
export const whyNotTimelineEvent = (raw: unknown): string | undefined => {
  const reason = whyNotEvent(raw)
  if (reason !== undefined) return reason
  const event = raw as JsonObject
  if (!isText(event.event_id)) return missing(event, "event_id", "a string")
  if (event.state_key !== undefined && !isText(event.state_key)) return missing(event, "state_key", "a string")
  return undefined
}

/** Like {@link whyNotEvent}, for a state event: it must also have a `state_key`. */
export const whyNotStateEvent = (raw: unknown): string | undefined => {
  const reason = whyNotEvent(raw)
  if (reason !== undefined) return reason
  const event = raw as JsonObject
  return isText(event.state_key) ? undefined : missing(event, "state_key", "a string")
}

/** Whether a state entry is a deletion stub of the merged MSC4186: a type and a state key, and no content. */
export const isStateDeletion = (raw: unknown): raw is StateDeletion =>
  Predicate.isObject(raw) && isText(raw.type) && isText(raw.state_key) && raw.content === undefined

/** Says why a JSON value can't be used as account data, typing or a receipt, or `undefined` when it can. */
export const whyNotEphemeralEvent = (raw: unknown): string | undefined => {
  if (!Predicate.isObject(raw)) return "it is not a JSON object"
  if (!isText(raw.type)) return missing(raw, "type", "a string")
  if (!Predicate.isObject(raw.content)) return missing(raw, "content", "a JSON object")
  return tooDeep(raw as JsonObject)
}
