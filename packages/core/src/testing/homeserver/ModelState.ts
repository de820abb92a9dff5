/**
 * The state of the homeserver model, and the few rules that all of its parts share: ids, the stream, refusals, wake-ups.
 *
 * The state is mutable and belongs to one caller: with 10 000 rooms and 100 000 to-device events, copying it per step would
 * cost more than the step. It is deterministic all the same: what a function does depends only on the state, its arguments
 * and `nowMillis`; there is no clock, no randomness and no input or output in here.
 *
 * Gotchas: everything that happens takes the next number of one `stream`, as on Synapse, so "since" is one number whatever
 * it is about. Whoever hears of a change is put into `touched`; `HomeserverHost` wakes their long polls.
 *
 * Not here: waiting (`HomeserverHost.ts`), faults (`HomeserverSim.ts`), HTTP (platform `DevHomeserver`).
 */
import { Result } from "effect"
import type { DeviceId, EventId, JsonObject, RoomId, TimelineEvent, UserId } from "../../matrix/MatrixEvent.ts"
import type { Membership } from "../../matrix/SlidingSync.ts"
import type { Connection } from "./SyncConnection.ts"
import type { StateSelection } from "./StateSelection.ts"

/** Why a request was not served: an HTTP status with a Matrix error. Spec: "Standard error response". */
export interface Refusal {
  readonly status: number
  readonly errcode: string
  /** What is wrong, to what. */
  readonly message: string
  /** With 401: the session is kept, log in again with the same device. Spec: "Soft logout". */
  readonly softLogout?: boolean
  /** With 401: the request has to say who makes it. Spec: "User-Interactive Authentication API". */
  readonly interactive?: InteractiveStages
}

/** What a request that needs interactive authentication is answered with. `completed`: after a stage that failed. */
export interface InteractiveStages {
  readonly session: string
  readonly flows: ReadonlyArray<{ readonly stages: ReadonlyArray<string> }>
  readonly params: JsonObject
  readonly completed?: ReadonlyArray<string>
}

/** An interactive authentication that was begun. */
export interface AuthSession {
  readonly session: string
  /** Method and path of the request that it is for. */
  readonly operation: string
  /** Who has passed its stage. */
  passedBy: UserId | undefined
}

/** What a model function gives: its value, or why it was refused. */
export type Outcome<A> = Result.Result<A, Refusal>

/** Refuses a request. */
export const refuse = (status: number, errcode: string, message: string): Result.Result<never, Refusal> =>
  Result.fail({ status, errcode, message })

/** A timeline event as it is kept. `stream` orders everything that happens on the homeserver. */
export interface StoredEvent {
  readonly stream: number
  event: TimelineEvent
  /** Who sent it with which transaction id, so that the same device can recognise it. */
  readonly transaction?: { readonly deviceId: DeviceId; readonly txnId: string }
}

/** One user's receipt in one room. Spec: "Receipts". */
export interface StoredReceipt {
  readonly stream: number
  readonly userId: UserId
  readonly type: string
  readonly eventId: EventId
  readonly atMillis: number
}

/** A room: everything that happened in it, and what holds now. */
export interface Room {
  readonly roomId: RoomId
  /** Ascending by `stream`. */
  readonly timeline: Array<StoredEvent>
  /** type → state key → the event that holds. */
  readonly state: Map<string, Map<string, StoredEvent>>
  readonly members: Map<UserId, Membership>
  joinedCount: number
  invitedCount: number
  lastStream: number
  /** Stream number of the last event that makes the room recent (MSC4186). */
  bumpStamp: number
  /** user → when it ends, Unix milliseconds. */
  readonly typing: Map<UserId, number>
  typingStream: number
  /** By user and type. */
  readonly receipts: Map<string, StoredReceipt>
  receiptsStream: number
}

/** A room from the point of view of a user. */
export interface UserRoom {
  readonly room: Room
  membership: Membership
  /** Stream number of the user's membership event. */
  memberStream: number
  /** True when the user left by himself, and was not kicked. */
  leftBySelf: boolean
  /** Whether the user has ever been in it: who was only invited has seen nothing of it. */
  wasJoined: boolean
  /** type → content. */
  readonly accountData: Map<string, StoredAccountData>
  accountDataStream: number
  /** What the user was notified of and has not read. Ascending. */
  unread: Array<StoredEvent>
}

/** One type of account data. */
export interface StoredAccountData {
  readonly stream: number
  readonly content: JsonObject
}

/** One to-device message for one device: what the homeserver accepted to deliver, and what became of it. */
export interface LedgerEntry {
  /** 1, 2, 3, ... per device, in the order of acceptance. */
  readonly number: number
  readonly stream: number
  readonly sender: UserId
  readonly type: string
  readonly content: JsonObject
  readonly acceptedAtMillis: number
  /** How many responses carried it. */
  deliveries: number
  firstDeliveredAtMillis?: number
  lastDeliveredAtMillis?: number
  /** When a `since` at or beyond it arrived; from then on it is not delivered any more. */
  acknowledgedAtMillis?: number
}

/** The key that is given out when the one-time keys are used up; `used` once it was. */
export interface FallbackKey {
  readonly keyId: string
  readonly key: JsonObject
  used: boolean
}

/** What became of a device's uploads and claims, in numbers, for whoever looks for keys that were made twice or lost. */
export interface KeyFigures {
  /** One-time keys that were handed out. */
  claimed: number
  /** Uploads that were refused, since an id that is still there came with another key. */
  conflicts: number
  /** Uploads that were taken although an id of theirs had been another key before, which had been handed out already. */
  reused: number
  /** How often a fallback key was handed out. */
  fallbackUsed: number
}

/** A device of a user: its to-device queue, its keys, its sync connections. */
export interface Device {
  readonly deviceId: DeviceId
  displayName: string | undefined
  /** All that was ever accepted, ascending; what comes before `acknowledged` (an index) has been deleted. */
  readonly ledger: Array<LedgerEntry>
  acknowledged: number
  /** Messages with a later stream number are held back; none are when it is undefined. */
  heldAfter: number | undefined
  deviceKeys: JsonObject | undefined
  /** Signatures by the user's own cross-signing keys, which were uploaded later: key id → signature. */
  readonly signatures: Map<string, unknown>
  /** algorithm → key id → key, in upload order. */
  readonly oneTimeKeys: Map<string, Map<string, JsonObject>>
  /** Every one-time key id ever uploaded, with its last key's text without signatures. */
  readonly uploadedKeys: Map<string, string>
  readonly fallbackKeys: Map<string, FallbackKey>
  readonly figures: KeyFigures
  readonly connections: Map<string, Connection>
  /** What was done under a transaction id, so that a retry does it only once. */
  readonly transactions: Map<string, string>
}

/** An event of which a user is to be told. */
export interface PushAction {
  readonly room: Room
  readonly stored: StoredEvent
  /** What the matching push rule sets: `sound`, `highlight`. */
  readonly tweaks: JsonObject
}

/** A pusher that has failed since its last success. */
export interface PushFailure {
  readonly sinceMillis: number
  /** How long the next failure will make it wait. */
  readonly backoffMillis: number
  readonly retryAtMillis: number
}

/** An HTTP pusher, and what it still has to send. */
export interface StoredPusher {
  readonly appId: string
  readonly pushKey: string
  readonly deviceId: DeviceId
  readonly url: string
  /** As `GET /pushers` has it. */
  readonly json: JsonObject
  readonly setAtMillis: number
  /** Oldest first. */
  queue: Array<PushAction>
  /** The unread count that the gateway was told last. */
  toldUnread: number | undefined
  /** True when the user has read something, and the gateway is to be told the count. */
  isBadgeDue: boolean
  /** True from when something is taken to be sent until it is answered or has failed. */
  isBusy: boolean
  failure: PushFailure | undefined
}

/** Whether a user follows a thread (MSC4306). */
export interface ThreadSubscription {
  readonly isSubscribed: boolean
  readonly automatic: boolean
  readonly stream: number
}

/** A user with his devices, his rooms and what he keeps on the homeserver. */
export interface User {
  readonly userId: UserId
  readonly password: string | undefined
  displayName: string | undefined
  avatarUrl: string | undefined
  readonly devices: Map<DeviceId, Device>
  readonly rooms: Map<RoomId, UserRoom>
  /** The same rooms, most recent first; valid unless `unsorted`. */
  readonly sortedRooms: Array<UserRoom>
  unsorted: boolean
  readonly accountData: Map<string, StoredAccountData>
  /** Rooms that the account data `m.direct` names. */
  directRooms: ReadonlySet<RoomId>
  readonly crossSigning: { master?: JsonObject; selfSigning?: JsonObject; userSigning?: JsonObject }
  /** Signatures that the user made of master keys, his own among them: whose key and which → key id → signature. */
  readonly madeSignatures: Map<string, Map<string, unknown>>
  /** By app id and push key. */
  readonly pushers: Map<string, StoredPusher>
  /** By room and thread root. */
  readonly threads: Map<string, ThreadSubscription>
  readonly filters: Map<string, JsonObject>
  /** Grows with everything that may concern the user's polls. */
  version: number
}

/** Whose an access token is, and how long it lasts. */
export interface AccessToken {
  readonly userId: UserId
  readonly deviceId: DeviceId
  /** Unix milliseconds; absent when it doesn't expire. */
  expiresAtMillis?: number
  /** The refresh token that this one replaces, until it is first used. */
  replacesRefreshToken?: string
}

/** Whose a refresh token is, and whether it can still be used. */
export interface RefreshToken {
  readonly userId: UserId
  readonly deviceId: DeviceId
  /** True once a token that came of it has been used. */
  superseded: boolean
  replaces?: string
}

/** A change of membership, for `device_lists`. */
export interface MembershipChange {
  readonly stream: number
  readonly roomId: RoomId
  readonly userId: UserId
  readonly before: Membership | undefined
  readonly now: Membership
}

/** What can be chosen about a homeserver. */
export interface ModelOptions {
  readonly serverName: string
  /** Lifetime of access tokens that come with a refresh token, in milliseconds. Synapse's default is 5 minutes. */
  readonly accessTokenLifetimeMillis: number
}

/** A homeserver. Only the functions of `HomeserverModel` change it. */
export interface ModelState {
  readonly options: ModelOptions
  /** The number of the last thing that happened. */
  stream: number
  lastId: number
  readonly users: Map<UserId, User>
  readonly rooms: Map<RoomId, Room>
  readonly events: Map<EventId, { readonly room: Room; readonly stored: StoredEvent }>
  readonly accessTokens: Map<string, AccessToken>
  readonly refreshTokens: Map<string, RefreshToken>
  /** Ascending. */
  readonly membershipChanges: Array<MembershipChange>
  /** Ascending. */
  readonly deviceListChanges: Array<{
    readonly stream: number
    readonly userId: UserId
    /** Where the user was then. */
    readonly roomIds: ReadonlySet<RoomId>
  }>
  /** Ascending. Who signed whose keys. */
  readonly signatureChanges: Array<{ readonly stream: number; readonly userId: UserId; readonly signer: UserId }>
  readonly authSessions: Map<string, AuthSession>
  readonly selections: Map<string, StateSelection>
  /** Users whose polls must be looked at again; emptied by the host. */
  readonly touched: Set<UserId>
  /** Grows with everything that may let a pusher send something. */
  pushVersion: number
}

/** A homeserver without users. */
export const make = (options: Partial<ModelOptions> = {}): ModelState => ({
  options: { serverName: "localhost", accessTokenLifetimeMillis: 300_000, ...options },
  stream: 0,
  lastId: 0,
  users: new Map(),
  rooms: new Map(),
  events: new Map(),
  accessTokens: new Map(),
  refreshTokens: new Map(),
  membershipChanges: [],
  deviceListChanges: [],
  signatureChanges: [],
  authSessions: new Map(),
  selections: new Map(),
  touched: new Set(),
  pushVersion: 0
})

/** The next number of the stream. */
export const nextStream = (state: ModelState): number => ++state.stream

/** The next number for an id; ids are predictable, which is what a test wants. */
export const nextId = (state: ModelState): number => ++state.lastId

/** Notes that something happened which the user's polls may have to tell. */
export const touch = (state: ModelState, userId: UserId): void => {
  const user = state.users.get(userId)
  if (user === undefined) return
  user.version += 1
  state.touched.add(userId)
}

/** Index of the first item whose `stream` is greater than `since`, in an array that ascends by `stream`. */
export const firstAfter = (items: ReadonlyArray<{ readonly stream: number }>, since: number): number => {
  let low = 0
  let high = items.length
  while (low < high) {
    const middle = (low + high) >>> 1
    const item = items[middle]
    if (item !== undefined && item.stream <= since) low = middle + 1
    else high = middle
  }
  return low
}

/** Who makes a request, and with which device. */
export interface Requester {
  readonly user: User
  readonly device: Device
}
