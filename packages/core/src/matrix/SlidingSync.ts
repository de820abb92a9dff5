/**
 * Simplified sliding sync (MSC4186), free of spelling: what a client asks and what a homeserver answers.
 *
 * The machines, the stores and the homeserver model speak only this. `SlidingSyncWire` turns it into either of the two
 * spellings that exist (the unstable endpoint that Synapse serves, and `/v4/sync` of the merged text) and back.
 *
 * Events inside are raw (`MatrixEvent.ts`). Fields of the wire that are not known here are kept in `unknown`, so that a
 * round trip loses nothing.
 *
 * Source: MSC4186; extensions MSC4538 (to-device), MSC4543 (e2ee), MSC4508 (common format, typing).
 */
import type {
  DeviceId,
  EphemeralEvent,
  EventId,
  JsonObject,
  MatrixEvent,
  Quarantined,
  RoomId,
  StateDeletion,
  StateEvent,
  TimelineEvent,
  UserId
} from "./MatrixEvent.ts"

export type { DeviceId, EventId, RoomId, UserId }

/** Inclusive, 0-based window into a list that the homeserver sorts by recency. */
export type Range = readonly [start: number, end: number]

/** `[type, state key]`; `*` is a wildcard, `$LAZY` and `$ME` are special state keys of `m.room.member` (MSC4186). */
export type StateSelector = readonly [type: string, stateKey: string]

/** State that says what a room is called and looks like, and who in its timeline is who. */
export const summaryState = (ownUserId: UserId): ReadonlyArray<StateSelector> => [
  ["m.room.name", ""],
  ["m.room.encryption", ""],
  ["m.room.member", "$LAZY"],
  ["m.room.member", "$ME"],
  // Some homeservers don't know `$ME` (continuwuity, and the merged MSC4186 has none): the explicit id says the same.
  ["m.room.member", ownUserId],
  ["m.room.topic", ""],
  ["m.room.avatar", ""],
  ["m.room.canonical_alias", ""]
]

/** What to send of a room. */
export interface RoomParams {
  readonly requiredState: ReadonlyArray<StateSelector>
  /** Events of the timeline at most; 0 leaves the timeline out altogether. */
  readonly timelineLimit: number
}

/** Filters of a list; all given ones must hold. */
export interface ListFilters {
  readonly isDm?: boolean
  readonly isEncrypted?: boolean
  readonly isInvite?: boolean
  readonly spaces?: ReadonlyArray<RoomId>
  readonly roomTypes?: ReadonlyArray<string | null>
  readonly notRoomTypes?: ReadonlyArray<string | null>
  readonly tags?: ReadonlyArray<string>
  readonly notTags?: ReadonlyArray<string>
}

/** One list. Exactly one range is sent per list: Synapse answers 500 to a list with none or several. */
export interface ListRequest extends RoomParams {
  readonly range: Range
  readonly filters?: ListFilters
}

/** The extensions that are switched on. An absent one is off. */
export interface ExtensionsRequest {
  /** `since` is the acknowledgement: the homeserver deletes what came before it. `limit` is 1 or more, never 0 (MSC4538). */
  readonly toDevice?: { readonly since?: string; readonly limit?: number }
  readonly e2ee?: true
  readonly accountData?: true
  readonly receipts?: true
  readonly typing?: true
}

/** How the user appears to others while a connection syncs. Spec: "Presence". */
export type Presence = "online" | "unavailable" | "offline"

/** One request on one connection. */
export interface SyncRequest {
  /** 1–16 characters; positions of different connections are independent. */
  readonly connId: string
  /** The position of the previous response on this connection; absent starts the connection afresh. */
  readonly pos?: string
  /** How long the homeserver may hold the request open when there is nothing to say, in milliseconds; 0 answers at once. */
  readonly timeoutMillis: number
  /** Absent says nothing; a homeserver takes that for `online`. Synapse's sliding sync ignores it. */
  readonly setPresence?: Presence
  readonly lists: { readonly [key: string]: ListRequest }
  readonly roomSubscriptions: { readonly [roomId: RoomId]: RoomParams }
  readonly extensions: ExtensionsRequest
}

/** A member that stands for a room without a name. Spec: "Calculating the display name for a room". */
export interface Hero {
  readonly userId: UserId
  readonly displayName?: string
  readonly avatarUrl?: string
}

/** The requester's membership of a room. */
export type Membership = "join" | "invite" | "knock" | "leave" | "ban"

/** What changed in one room. An absent field is unchanged; `null` is removed. */
export interface RoomUpdate {
  readonly roomId: RoomId
  /** True when this replaces everything known about the room. */
  readonly initial: boolean
  readonly membership?: Membership
  readonly name?: string | null
  readonly avatar?: string | null
  readonly heroes?: ReadonlyArray<Hero>
  readonly isDm?: boolean
  /** Sort key for recency: larger is more recent. Not a time. */
  readonly bumpStamp?: number
  readonly joinedCount?: number
  readonly invitedCount?: number
  /** Always 0 on Synapse, absent in the merged text: unread counts are the client's to compute. */
  readonly notificationCount?: number
  readonly highlightCount?: number
  readonly requiredState: ReadonlyArray<StateEvent | StateDeletion>
  /** Ascending. */
  readonly timeline: ReadonlyArray<TimelineEvent>
  /** True when there are events between what was known and `timeline`: a gap that starts at `prevBatch`. */
  readonly limited?: boolean
  readonly prevBatch?: string
  /** How many of the last timeline events happened after the request's position; the others are history. */
  readonly numLive?: number
  readonly expandedTimeline: boolean
  /** State of a room that the requester is invited to or knocks at. */
  readonly strippedState: ReadonlyArray<StateEvent>
  /** Which lists the room is in (merged text only). */
  readonly lists?: ReadonlyArray<string>
  /** Members of the room's JSON that are not known here. */
  readonly unknown: JsonObject
}

/** To-device events, oldest first; `nextBatch` is the `since` that acknowledges them once they are durable. */
export interface ToDeviceBatch {
  readonly nextBatch: string
  readonly events: ReadonlyArray<MatrixEvent>
}

/** What the end-to-end machine must know. An absent field is unchanged (MSC4543). */
export interface E2eeUpdate {
  readonly oneTimeKeysCount?: { readonly [algorithm: string]: number }
  readonly unusedFallbackKeyTypes?: ReadonlyArray<string>
  readonly deviceLists?: { readonly changed: ReadonlyArray<UserId>; readonly left: ReadonlyArray<UserId> }
}

/** What the extensions brought. An absent extension said nothing. */
export interface ExtensionsResponse {
  readonly toDevice?: ToDeviceBatch
  readonly e2ee?: E2eeUpdate
  readonly accountData?: {
    readonly global: ReadonlyArray<EphemeralEvent>
    readonly rooms: { readonly [roomId: RoomId]: ReadonlyArray<EphemeralEvent> }
  }
  readonly receipts?: { readonly [roomId: RoomId]: EphemeralEvent }
  readonly typing?: { readonly [roomId: RoomId]: EphemeralEvent }
  /** Extensions that are not known here, by their wire name. */
  readonly unknown: JsonObject
}

/** One response. */
export interface SyncResponse {
  readonly pos: string
  /** `count` is the number of rooms in the whole list, after filters. */
  readonly lists: { readonly [key: string]: { readonly count: number } }
  readonly rooms: ReadonlyArray<RoomUpdate>
  readonly extensions: ExtensionsResponse
  /** What the response held that can't be understood (invariant I7). */
  readonly quarantined: ReadonlyArray<Quarantined>
  /** Members of the response's JSON that are not known here. */
  readonly unknown: JsonObject
}

/** Whether a number can be a number of things: a homeserver may say any. */
export const isCount = (value: number): boolean => Number.isSafeInteger(value) && value >= 0

/** A room update that changes nothing, to spread over. */
export const emptyRoomUpdate = (roomId: RoomId): RoomUpdate => ({
  roomId,
  initial: false,
  requiredState: [],
  timeline: [],
  expandedTimeline: false,
  strippedState: [],
  unknown: {}
})

/** A response that says nothing but its position, to spread over. */
export const emptyResponse = (pos: string): SyncResponse => ({
  pos,
  lists: {},
  rooms: [],
  extensions: { unknown: {} },
  quarantined: [],
  unknown: {}
})
