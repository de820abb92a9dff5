/**
 * Port to the homeserver: what the loops, the crypto engine and the application ask of it.
 *
 * Adapters: `HttpHomeserver` (platform), `HomeserverModel`'s client (testing). Each call is one request; retrying is the
 * caller's decision (`SupervisionPolicy`). Every call is interruptible, and interrupting it ends the HTTP request itself.
 *
 * Not here: log-in and token refresh, which need an account and a place to keep it (platform `Login`, `SessionStore`).
 */
import { Context, Predicate } from "effect"
import type { Effect } from "effect"
import type { DeviceId, EventId, JsonObject, RoomId, TimelineEvent, UserId } from "../matrix/MatrixEvent.ts"
import type { Pusher, PusherId } from "../matrix/Pusher.ts"
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

/** A state event to set: the same type and state key again replaces it. */
export interface SendState {
  readonly roomId: RoomId
  readonly type: string
  /** Empty for what the room has one of: its name, its encryption. */
  readonly stateKey: string
  readonly content: JsonObject
}

/** Somebody who is in a room, or may come in. */
export interface RoomMember {
  readonly userId: UserId
  readonly membership: "join" | "invite" | "knock"
}

const memberships: ReadonlySet<unknown> = new Set<RoomMember["membership"]>(["join", "invite", "knock"])

/** What a user id must be to be anybody's: text, with a name and a server. Spec: appendices, "User Identifiers". */
const isUserId = (value: unknown): value is UserId =>
  typeof value === "string" && value.isWellFormed() && /^@[^:]*:./.test(value)

/** Reads the `chunk` of `GET /rooms/{roomId}/members`, for adapters; see `members` of the port. */
export const roomMembers = (chunk: ReadonlyArray<unknown>): ReadonlyArray<RoomMember> => {
  const members = new Map<UserId, RoomMember>()
  for (const event of chunk) {
    if (!Predicate.isObject(event) || event.type !== "m.room.member" || !Predicate.isObject(event.content)) continue
    const { state_key: userId } = event
    const { membership } = event.content
    if (isUserId(userId) && memberships.has(membership))
      members.set(userId, { userId, membership: membership as RoomMember["membership"] })
  }
  return [...members.values()]
}

export interface SendToDevice {
  readonly type: string
  readonly txnId: string
  /** user → device (or `*` for all) → content. */
  readonly messages: { readonly [userId: UserId]: { readonly [deviceId: DeviceId]: JsonObject } }
}

/**
 * A request of the end-to-end machine whose body and response are opaque to us. Spec: "End-to-end encryption", "Key management".
 *
 * `deviceSigning` may be answered with `UserInteractiveAuth`; it is then sent again with `auth` in its body.
 */
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
    /** `PUT /rooms/{roomId}/state/{type}/{stateKey}`; how encryption is turned on (`m.room.encryption`). Repeating it is harmless. */
    sendState(event: SendState): Effect.Effect<EventId, HomeserverError>
    /** `PUT /sendToDevice/{type}/{txnId}` */
    sendToDevice(messages: SendToDevice): Effect.Effect<void, HomeserverError>
    /** `POST /keys/…`; gives the response's JSON. `deviceSigning` can fail with `UserInteractiveAuth`. */
    keys(request: KeysRequest): Effect.Effect<JsonObject, HomeserverError>
    /**
     * `GET /rooms/{roomId}/members?not_membership=leave`: whom an encrypted room's keys may concern, banned and departed users
     * left out. Needed because a sliding sync tells members lazily. Spec: "Getting events for a room".
     *
     * What is no membership is left out as well (I7); each user is named once.
     */
    members(roomId: RoomId): Effect.Effect<ReadonlyArray<RoomMember>, HomeserverError>
    /**
     * `GET /rooms/{roomId}/context/{eventId}?limit=0`, with members loaded lazily: of all memberships only those that matter to
     * the event come, its sender's above all. The user's own may be missing.
     */
    eventContext(roomId: RoomId, eventId: EventId): Effect.Effect<EventContext, HomeserverError>
    /**
     * `GET /pushers`: the HTTP pushers of the account, those of all its devices. Others (email, say) are left out, and so is
     * what is no pusher (I7).
     */
    readonly pushers: Effect.Effect<ReadonlyArray<Pusher>, HomeserverError>
    /**
     * `POST /pushers/set`: has the homeserver push what happens from now on to the pusher's URL. It replaces the account's
     * pusher of the same id, if there is one, and ends when this device logs out or the gateway rejects its push key.
     *
     * Always sent with `append`: without it the homeserver would also remove the pushers of *other* accounts with the same app
     * id and push key, which a host with several accounts behind one key would miss without having been told. `BadRequest` when
     * the homeserver doesn't take it, because of its URL for instance, whose path must be `NOTIFY_PATH`.
     */
    setPusher(pusher: Pusher): Effect.Effect<void, HomeserverError>
    /** `POST /pushers/set` with a null kind. Removing what isn't there is no error. */
    removePusher(id: PusherId): Effect.Effect<void, HomeserverError>
    /**
     * `GET /rooms/{roomId}/thread/{threadRootId}/subscription` (MSC4306, unstable): whether the user follows a thread. False
     * for one that he doesn't, and for one that isn't there; `Unsupported` where the homeserver has no thread subscriptions.
     */
    isThreadSubscribed(roomId: RoomId, threadRootId: EventId): Effect.Effect<boolean, HomeserverError>
  }
>()("@twinloop/core/Homeserver") {}
