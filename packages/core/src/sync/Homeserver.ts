/**
 * Port to the homeserver: what the loops, the crypto engine and the application ask of it.
 *
 * Adapters: `HttpHomeserver` (platform), `HomeserverModel`'s client (testing). Each call is one request; retrying is the
 * caller's decision (`SupervisionPolicy`). Every call is interruptible, and interrupting it ends the HTTP request itself.
 *
 * Not here: log-in and token refresh, which need an account and a place to keep it (platform `Login`, `SessionStore`).
 */
import { Context } from "effect"
import type { Effect } from "effect"
import type { DeviceId, EventId, JsonObject, RoomId, TimelineEvent, UserId } from "../matrix/MatrixEvent.ts"
import type { SyncRequest, SyncResponse } from "../matrix/SlidingSync.ts"
import type { HomeserverError } from "./HomeserverError.ts"

/** Whose device this is. */
export interface Session {
  readonly userId: UserId
  readonly deviceId: DeviceId
}

/** The two spellings of MSC4186 that exist: Synapse's unstable endpoint, and `/v4/sync` of the merged text. */
export type Spelling = "unstable" | "v4"

/** What the homeserver offers, as asked from `/versions` with the account's token (a feature may be per user). */
export interface Capabilities {
  readonly versions: ReadonlyArray<string>
  readonly unstableFeatures: { readonly [feature: string]: boolean }
  /** The spelling to use, or `undefined` when the homeserver offers no simplified sliding sync. */
  readonly slidingSync: Spelling | undefined
}

export interface SendEvent {
  readonly roomId: RoomId
  readonly type: string
  readonly content: JsonObject
  /** Makes a retry harmless: the same id gives the same event. Spec: "Transaction identifiers". */
  readonly txnId: string
}

export interface SendToDevice {
  readonly type: string
  readonly txnId: string
  /** user → device (or `*` for all) → content. */
  readonly messages: { readonly [userId: UserId]: { readonly [deviceId: DeviceId]: JsonObject } }
}

/** A request of the end-to-end machine whose body and response are opaque to us. Spec: "End-to-end encryption", "Key management". */
export interface KeysRequest {
  readonly kind: "upload" | "query" | "claim" | "signatures" | "deviceSigning"
  readonly body: JsonObject
}

/** An event with its surroundings. Spec: `GET /rooms/{roomId}/context/{eventId}`. */
export interface EventContext {
  readonly event: TimelineEvent
  readonly state: ReadonlyArray<JsonObject>
}

export class Homeserver extends Context.Service<
  Homeserver,
  {
    /** The account and device whose token the calls carry. */
    readonly session: Session
    /** `GET /versions`; also what the offline probe asks, since it costs the homeserver nothing. */
    readonly capabilities: Effect.Effect<Capabilities, HomeserverError>
    /** One sliding-sync request, in whichever spelling the homeserver has. Fails with `Unsupported` when it has none. */
    sync(request: SyncRequest): Effect.Effect<SyncResponse, HomeserverError>
    /** `PUT /rooms/{roomId}/send/{type}/{txnId}` */
    sendEvent(event: SendEvent): Effect.Effect<EventId, HomeserverError>
    /** `PUT /sendToDevice/{type}/{txnId}` */
    sendToDevice(messages: SendToDevice): Effect.Effect<void, HomeserverError>
    /** `POST /keys/…`; gives the response's JSON. */
    keys(request: KeysRequest): Effect.Effect<JsonObject, HomeserverError>
    /** `GET /rooms/{roomId}/context/{eventId}?limit=0` */
    eventContext(roomId: RoomId, eventId: EventId): Effect.Effect<EventContext, HomeserverError>
  }
>()("@twinloop/core/Homeserver") {}
