/**
 * Decides how pushes become something to show, several at once, under one deadline.
 *
 * For each push: find the event (the application's own store, then a short sliding sync, then `/context`), decrypt it, come by
 * its key if that isn't there (`NotificationKeysMachine`), ask what the push rules need to know, judge. All of it side by
 * side; each result is emitted as soon as it is known, a call before others.
 *
 * Pure: `step(config, state, input)`; the interpreter is `Notifications` (actors). Every input is first taken into what is
 * known; then `plan` begins whatever is wanting and not under way.
 *
 * Invariants: I1 (see `NotificationKeysMachine`), I7 (a push gets a result whatever happens, and its reason), I9 (what fails
 * is tried again until the deadline), I10 (after the deadline nothing is waited for).
 *
 * Gotchas: one homeserver that hangs must not cost a notification: after `HEDGE_MILLIS` without an answer of the sliding sync
 * the surroundings are asked for as well, and what they tell is enough. A push may arrive before the event can be read
 * everywhere, so an event is not found only when it was looked for several times.
 *
 * Not here: what is known (`NotificationFacts.ts`), what an event comes to (`NotificationRules.ts`).
 */
import type {
  EphemeralEvent,
  EventId,
  JsonObject,
  RoomId,
  StateEvent,
  TimelineEvent,
  UserId
} from "../matrix/MatrixEvent.ts"
import * as PushRules from "../matrix/PushRules.ts"
import type { RoomParams, StateSelector, SyncRequest, SyncResponse } from "../matrix/SlidingSync.ts"
import type { Decryption, Undecryptable } from "../sync/EventDecryptor.ts"
import * as SupervisionPolicy from "../sync/SupervisionPolicy.ts"
import type { SyncConfigShape } from "../sync/SyncConfig.ts"
import * as NotificationFacts from "./NotificationFacts.ts"
import type { Facts, StoredRoom } from "./NotificationFacts.ts"
import type { NotificationRequest, NotificationResult } from "./NotificationItem.ts"
import * as NotificationKeysMachine from "./NotificationKeysMachine.ts"
import { kindOf } from "./NotificationKinds.ts"
import { dismiss, judge, threadRootOf } from "./NotificationRules.ts"

type Failure = SupervisionPolicy.Failure
type Failed = SupervisionPolicy.Failed
type AnyEvent = TimelineEvent | StateEvent

/** The connection of notifications; without a position that lasts, so every process may use it at any time. */
export const NOTIFICATION_CONN_ID = "notifications"

/** Sliding syncs in which an event may be missing before it is not found. */
export const SYNC_ATTEMPTS = 3
/** How long each sync after the first waits for an event that isn't there yet, in milliseconds. */
export const POLL_MILLIS = 1_000
/** After this long without an answer to the sliding sync the surroundings are asked for, in milliseconds. */
export const HEDGE_MILLIS = 1_000
/** How often an event that can't be decrypted for no reason of its own is tried. */
const DECRYPT_TRIES = 3
/** Timeline events that are asked for per room, and at most. */
const TIMELINE_LIMIT = 16
const TIMELINE_LIMIT_MAX = 100
/** Invitations that are asked for. */
const INVITES: readonly [number, number] = [0, 16]
const INVITES_LIST = "invites"

/** Names a push among those of a batch. */
export type Key = string

export const keyOf = ({ eventId, roomId }: NotificationRequest): Key => `${roomId} ${eventId}`

/** Whether an event's surroundings were asked for; `forbidden`: this user may not see them. */
type Context = "untried" | "asking" | "answered" | "refused" | "forbidden"

/** How far the decryption of an event has come. */
type Reading = "toDecrypt" | "decrypting" | "awaitingKey" | "done"

interface Item {
  readonly key: Key
  readonly request: NotificationRequest
  /** As it came, once it is there. */
  readonly event?: AnyEvent
  readonly reading: Reading
  /** A key that it may want came while it was being decrypted, perhaps too late for that. */
  readonly isOutdated: boolean
  readonly decryptTries: number
  readonly decryption?: Decryption
  readonly context: Context
  readonly contextTries: number
  /** Why its surroundings haven't come yet. */
  readonly contextFailure?: Failure
  /** Whether the user follows its thread: asked for when a rule wants to know. */
  readonly thread: "unasked" | "asking" | "unknown" | "subscribed" | "unsubscribed"
  readonly result?: NotificationResult
}

interface Fetch {
  /** `waiting`: for a backoff to pass. `ended`: the homeserver has no sliding sync. */
  readonly phase: "idle" | "syncing" | "waiting" | "ended"
  readonly pos?: string
  /** Answers so far. */
  readonly answers: number
  /** Failures in a row. */
  readonly attempt: number
  /** The sync that is under way takes so long that nobody waits for it any more. */
  readonly isLate: boolean
  /** The last failure, as long as nothing was answered. */
  readonly failure?: Failure
}

export interface State {
  readonly facts: Facts
  readonly items: ReadonlyArray<Item>
  readonly fetch: Fetch
  readonly keys: NotificationKeysMachine.State
  /** Unix milliseconds. */
  readonly deadlineMillis: number
  readonly deadlinePassed: boolean
}

/** A room as it is stored, and the wanted events of it that are. */
export interface Stored extends StoredRoom {
  readonly events: ReadonlyArray<TimelineEvent>
}

export type Input =
  /** What the application's own connection has. */
  | {
      readonly _tag: "StoreRead"
      readonly rooms: ReadonlyArray<Stored>
      readonly accountData: ReadonlyArray<EphemeralEvent>
    }
  | { readonly _tag: "Synced"; readonly response: SyncResponse }
  | ({ readonly _tag: "SyncFailed" } & Failed)
  /** The sync under way takes long. */
  | { readonly _tag: "SyncLate" }
  | { readonly _tag: "SyncWaited" }
  | {
      readonly _tag: "ContextFound"
      readonly key: Key
      readonly event: TimelineEvent
      readonly state: ReadonlyArray<JsonObject>
    }
  /** `isForbidden`: the homeserver doesn't let this user see it, and won't. Otherwise it doesn't know it. */
  | { readonly _tag: "ContextRefused"; readonly key: Key; readonly isForbidden: boolean }
  | ({ readonly _tag: "ContextFailed"; readonly key: Key } & Failed)
  | { readonly _tag: "DecryptAnswered"; readonly key: Key; readonly decryption: Decryption }
  | ({ readonly _tag: "DecryptFailed"; readonly key: Key } & Failed)
  | { readonly _tag: "ThreadAnswered"; readonly key: Key; readonly isSubscribed: boolean | undefined }
  /** Keys of these sessions were committed; absent: any may have been. */
  | { readonly _tag: "KeysCommitted"; readonly sessions?: ReadonlySet<string> }
  | { readonly _tag: "DeadlinePassed" }
  | NotificationKeysMachine.Input

export type Command =
  | { readonly _tag: "ReadStore"; readonly wanted: ReadonlyMap<RoomId, ReadonlyArray<EventId>> }
  | { readonly _tag: "Sync"; readonly request: SyncRequest }
  | { readonly _tag: "AbortSync" }
  | { readonly _tag: "WaitToSync"; readonly millis: number }
  | {
      readonly _tag: "FetchContext"
      readonly key: Key
      readonly roomId: RoomId
      readonly eventId: EventId
      /** Wait this long first. */
      readonly millis: number
    }
  | {
      readonly _tag: "Decrypt"
      readonly key: Key
      readonly roomId: RoomId
      readonly event: TimelineEvent
      /** Wait this long first. */
      readonly millis: number
    }
  | { readonly _tag: "AskThread"; readonly key: Key; readonly roomId: RoomId; readonly rootId: EventId }
  | { readonly _tag: "Emit"; readonly key: Key; readonly result: NotificationResult }
  | NotificationKeysMachine.Command

export type Step = readonly [State, ReadonlyArray<Command>]

export interface Config {
  readonly sync: SyncConfigShape
  readonly ownUserId: UserId
}

/** What every step is given besides the input. */
export interface Now {
  /** Unix milliseconds. */
  readonly nowMillis: number
  /** In [0, 1). */
  readonly random: number
}

// --- the beginning

const itemOf = (request: NotificationRequest): Item => ({
  key: keyOf(request),
  request,
  reading: "toDecrypt",
  isOutdated: false,
  decryptTries: 0,
  context: "untried",
  contextTries: 0,
  thread: "unasked"
})

const wantedOf = (items: ReadonlyArray<Item>): ReadonlyMap<RoomId, ReadonlyArray<EventId>> => {
  const wanted = new Map<RoomId, ReadonlyArray<EventId>>()
  for (const { request } of items) wanted.set(request.roomId, [...(wanted.get(request.roomId) ?? []), request.eventId])
  return wanted
}

/** Begins with pushes, each named once. */
export const start = (
  { ownUserId }: Config,
  requests: ReadonlyArray<NotificationRequest>,
  deadlineMillis: number
): Step => {
  const items = [...new Map(requests.map((request) => [keyOf(request), request])).values()].map(itemOf)
  const state: State = {
    facts: NotificationFacts.none(ownUserId),
    items,
    // Nothing is asked of the homeserver until it is known what the store has.
    fetch: { phase: "waiting", answers: 0, attempt: 0, isLate: false },
    keys: NotificationKeysMachine.initial,
    deadlineMillis,
    deadlinePassed: false
  }
  return [state, [{ _tag: "ReadStore", wanted: wantedOf(items) }]]
}

/** Whether everything has a result and nothing is going on any more. */
export const isOver = (state: State): boolean =>
  state.deadlinePassed || (state.items.every(hasResult) && !NotificationKeysMachine.isAtWork(state.keys))

const hasResult = ({ result }: Item): boolean => result !== undefined

/** Whether an event has been looked for and isn't there yet. */
const isMissing = (item: Item): boolean => item.result === undefined && item.event === undefined

// --- taking in

const updateItem = (state: State, key: Key, change: (item: Item) => Item): State => ({
  ...state,
  items: state.items.map((item) => (item.key === key ? change(item) : item))
})

const failItem = (item: Item, failure: Failure): Item => ({
  ...item,
  result: { _tag: "Failed", failure, message: failure.message }
})

/** The homeserver can't be asked any more: an event that is there goes on without what is missing, the others have failed. */
const failAll = (state: State, failure: Failure): State => ({
  ...state,
  fetch: { ...state.fetch, failure },
  items: state.items.map((item) => {
    if (hasResult(item)) return item
    return item.event === undefined ? failItem(item, failure) : { ...item, context: "refused" }
  })
})

const found = (state: State, events: ReadonlyMap<Key, AnyEvent>): State => ({
  ...state,
  items: state.items.map((item) => {
    const event = item.event ?? events.get(item.key)
    return event === undefined || event === item.event ? item : { ...item, event }
  })
})

const byKey = (roomId: RoomId, events: ReadonlyArray<TimelineEvent>): ReadonlyArray<readonly [Key, AnyEvent]> =>
  events.map((event) => [keyOf({ roomId, eventId: event.event_id }), event])

const storeRead = (state: State, input: Extract<Input, { _tag: "StoreRead" }>): State => {
  const facts = input.rooms.reduce(
    NotificationFacts.withStored,
    NotificationFacts.withAccountData(state.facts, input.accountData)
  )
  const events = new Map(input.rooms.flatMap(({ events, room }) => byKey(room.roomId, events)))
  return found({ ...state, facts, fetch: { ...state.fetch, phase: "idle" } }, events)
}

/**
 * The event that invites the user, from the stripped state of a room to which he is invited: it has no id there, and stands
 * for whichever event of that room was pushed.
 */
const invitationIn = (ownUserId: UserId, state: ReadonlyArray<StateEvent>): StateEvent | undefined =>
  state.findLast(
    ({ content, state_key, type }) =>
      type === "m.room.member" && state_key === ownUserId && content.membership === "invite"
  )

const synced = (state: State, { response }: Extract<Input, { _tag: "Synced" }>): State => {
  const { ownUserId } = state.facts
  const events = new Map(response.rooms.flatMap(({ roomId, timeline }) => byKey(roomId, timeline)))
  for (const { roomId, strippedState } of response.rooms) {
    const invitation = invitationIn(ownUserId, strippedState)
    if (invitation === undefined) continue
    for (const { key, request } of state.items.filter(isMissing)) {
      if (request.roomId === roomId && !events.has(key)) events.set(key, invitation)
    }
  }
  const { answers } = state.fetch
  const fetch: Fetch = { phase: "idle", pos: response.pos, answers: answers + 1, attempt: 0, isLate: false }
  return found({ ...state, facts: NotificationFacts.withSync(state.facts, response), fetch }, events)
}

const syncFailed = (config: Config, state: State, input: Failed): Step => {
  const { failure } = input
  const { answers, attempt } = state.fetch
  const decision = SupervisionPolicy.decide(config.sync, failure, attempt, input.random)
  // Without a position: whatever has become of it, the next answer is whole.
  const fetch: Fetch = { phase: "waiting", answers, attempt: attempt + 1, isLate: true, failure }
  if (failure.class === "unsupported") return [{ ...state, fetch: { ...fetch, phase: "ended" } }, []]
  if (decision._tag === "GiveUp") return [failAll({ ...state, fetch: { ...fetch, phase: "ended" } }, failure), []]
  if (decision.delayMillis === 0) return [{ ...state, fetch: { ...fetch, phase: "idle" } }, []]
  return [{ ...state, fetch }, [{ _tag: "WaitToSync", millis: decision.delayMillis }]]
}

const contextFound = (state: State, input: Extract<Input, { _tag: "ContextFound" }>): State => {
  const item = state.items.find(({ key }) => key === input.key)
  if (item === undefined) return state
  const facts = NotificationFacts.withContext(state.facts, item.request.roomId, input.state)
  return updateItem({ ...state, facts }, input.key, (known) => ({
    ...known,
    context: "answered",
    event: known.event ?? input.event
  }))
}

const contextFailed = (config: Config, state: State, input: Extract<Input, { _tag: "ContextFailed" }>): Step => {
  const item = state.items.find(({ key }) => key === input.key)
  if (item === undefined || hasResult(item)) return [state, []]
  const contextTries = item.contextTries + 1
  const decision = SupervisionPolicy.decide(config.sync, input.failure, item.contextTries, input.random)
  if (decision._tag === "GiveUp") return [failAll(state, input.failure), []]
  // An event that is there only lacked a name, which isn't worth a wait.
  if (item.event !== undefined)
    return [updateItem(state, input.key, (known) => ({ ...known, context: "refused", contextTries })), []]
  const { eventId, roomId } = item.request
  return [
    updateItem(state, input.key, (known) => ({ ...known, contextTries, contextFailure: input.failure })),
    [{ _tag: "FetchContext", key: input.key, roomId, eventId, millis: Math.max(1, decision.delayMillis) }]
  ]
}

/** Whether another try can help: the key may still come. */
const isForWantOfKey = ({ reason }: Undecryptable): boolean => reason === "MissingRoomKey"

const decryptAnswered = (state: State, { decryption, key }: Extract<Input, { _tag: "DecryptAnswered" }>): State => {
  const awaits = decryption._tag === "Undecryptable" && isForWantOfKey(decryption)
  return updateItem(state, key, (item) => {
    if (!awaits) return { ...item, decryption, reading: "done" }
    return { ...item, decryption, isOutdated: false, reading: item.isOutdated ? "toDecrypt" : "awaitingKey" }
  })
}

const decryptFailed = (config: Config, state: State, input: Extract<Input, { _tag: "DecryptFailed" }>): Step => {
  const item = state.items.find(({ key }) => key === input.key)
  if (item?.event === undefined || hasResult(item)) return [state, []]
  const { failure } = input
  const decision = SupervisionPolicy.decide(config.sync, failure, item.decryptTries, input.random)
  const decryptTries = item.decryptTries + 1
  if (decision._tag === "GiveUp" || decryptTries >= DECRYPT_TRIES)
    return [updateItem(state, input.key, (known) => failItem(known, failure)), []]
  const { request } = item
  // Only an event of a timeline is decrypted.
  const event = item.event as TimelineEvent
  return [
    updateItem(state, input.key, (known) => ({ ...known, decryptTries })),
    [{ _tag: "Decrypt", key: input.key, roomId: request.roomId, event, millis: Math.max(1, decision.delayMillis) }]
  ]
}

const sessionOf = ({ decryption }: Item): string | undefined =>
  decryption?._tag === "Undecryptable" ? decryption.sessionId : undefined

/** Events that wait for one of these keys are tried again. */
const retryWith = (state: State, sessions: ReadonlySet<string> | undefined): State => ({
  ...state,
  items: state.items.map((item) => {
    const session = sessionOf(item)
    const concerns = sessions === undefined || session === undefined || sessions.has(session)
    if (hasResult(item) || !concerns) return item
    if (item.reading === "decrypting") return { ...item, isOutdated: true }
    return item.reading === "awaitingKey" ? { ...item, reading: "toDecrypt" } : item
  })
})

// --- the keys

const needOf = (state: State, nowMillis: number): NotificationKeysMachine.Need => {
  const open = state.items.filter((item) => !hasResult(item))
  return {
    awaiting: open.filter(({ reading }) => reading === "awaitingKey").length,
    decrypting: open.filter((item) => item.event !== undefined && isBeingDecrypted(item)).length,
    remainingMillis: state.deadlineMillis - nowMillis
  }
}

const isBeingDecrypted = ({ decryption, reading }: Item): boolean =>
  reading === "decrypting" || (reading === "toDecrypt" && decryption !== undefined)

/** Who waits for a key when nothing brings one any more waits no longer. */
const failAwaiting = (state: State): State => {
  if (state.keys._tag !== "GivenUp") return state
  const { failure } = state.keys
  const result: NotificationResult = { _tag: "Failed", failure, message: failure.message }
  const fails = (item: Item): boolean => !hasResult(item) && item.reading === "awaitingKey"
  if (!state.items.some(fails)) return state
  return { ...state, items: state.items.map((item) => (fails(item) ? { ...item, result } : item)) }
}

const withKeys = (state: State, [keys, commands]: NotificationKeysMachine.Step): Step => [
  failAwaiting(keys === state.keys ? state : { ...state, keys }),
  commands
]

const keysInput = (config: Config, state: State, input: NotificationKeysMachine.Input, now: Now): Step => {
  const stepped = NotificationKeysMachine.step(config.sync, state.keys, input, needOf(state, now.nowMillis))
  const [next, commands] = withKeys(state, stepped)
  // What was applied may hold any key, and so may what was committed before anybody watched.
  const mayHaveCome = input._tag === "Iterated" || input._tag === "OwnerWatched"
  return [mayHaveCome ? retryWith(next, undefined) : next, commands]
}

// --- what is wanting

const isEncrypted = (event: AnyEvent): event is TimelineEvent =>
  event.type === "m.room.encrypted" && event.state_key === undefined && event.event_id !== undefined

/** Whether the sync that is under way is likely to tell more about the room and the account. */
const isSyncAwaited = ({ fetch }: State): boolean => fetch.phase === "syncing" && !fetch.isLate

type Planned = readonly [Item, ReadonlyArray<Command>]

const fetchContext = (item: Item): Planned => {
  const { eventId, roomId } = item.request
  return [{ ...item, context: "asking" }, [{ _tag: "FetchContext", key: item.key, roomId, eventId, millis: 0 }]]
}

const notFound = (item: Item): Item => ({
  ...item,
  result: {
    _tag: "NotFound",
    message:
      item.context === "forbidden"
        ? `the homeserver doesn't let this user see the event ${item.request.eventId}; he may have left the room ${item.request.roomId}`
        : `the homeserver doesn't know the event ${item.request.eventId} in the room ${item.request.roomId}`
  }
})

/** An event that isn't there: its surroundings are asked for when the sync doesn't bring it, and once more in the end. */
const planMissing = (state: State, item: Item): Planned => {
  const { fetch } = state
  if (isSyncAwaited(state) || (fetch.answers === 0 && fetch.failure === undefined && !fetch.isLate)) return [item, []]
  const isLast = fetch.phase === "ended" || fetch.answers >= SYNC_ATTEMPTS
  switch (item.context) {
    case "untried":
      return fetchContext(item)
    case "forbidden":
      // An invitation, which nobody may look into, comes with the sync.
      return fetch.answers > 0 || isLast ? [notFound(item), []] : [item, []]
    case "refused":
      if (!isLast) return [item, []]
      return item.contextTries < 2 && fetch.phase !== "ended" ? fetchContext(item) : [notFound(item), []]
    default:
      return [item, []]
  }
}

const isKnownPlace = ({ facts }: State, { event, request }: Item): boolean =>
  event === undefined ||
  (NotificationFacts.isRoomKnown(facts, request.roomId) &&
    NotificationFacts.isSenderKnown(facts, request.roomId, event.sender))

/** The thread about which the push rules want to know, if they do. */
const threadAsked = ({ facts }: State, event: AnyEvent): EventId | undefined =>
  facts.rules !== undefined && PushRules.asksAboutThread(facts.rules) ? threadRootOf(event) : undefined

const judged = (state: State, item: Item, event: AnyEvent): NotificationResult => {
  const { decryption, request, thread } = item
  const { failure } = state.fetch
  return judge(state.facts, {
    roomId: request.roomId,
    event: decryption?._tag === "Decrypted" ? decryption.event : event,
    shield: decryption?._tag === "Decrypted" ? decryption.shield : undefined,
    undecryptable: decryption?._tag === "Undecryptable" ? decryption : undefined,
    isThreadSubscribed: thread === "subscribed" ? true : thread === "unsubscribed" ? false : undefined,
    why: failure?.message
  })
}

/** An event that is there, up to its result. */
const planFound = (state: State, item: Item, event: AnyEvent): Planned => {
  const { key, request } = item
  const { roomId } = request
  const dismissed = dismiss(state.facts, roomId, event)
  if (dismissed !== undefined) return [{ ...item, result: dismissed }, []]
  if (isEncrypted(event) && item.reading !== "done") {
    if (item.reading !== "toDecrypt") return [item, []]
    return [{ ...item, reading: "decrypting" }, [{ _tag: "Decrypt", key, roomId, event, millis: 0 }]]
  }
  const isPlaceKnown = isKnownPlace(state, item)
  if (isSyncAwaited(state) && (!isPlaceKnown || state.facts.rules === undefined)) return [item, []]
  // An invitation has no surroundings that the user may see.
  if (!isPlaceKnown && event.event_id !== undefined) {
    if (item.context === "untried") return fetchContext(item)
    if (item.context === "asking") return [item, []]
  }
  const shown = item.decryption?._tag === "Decrypted" ? item.decryption.event : event
  const rootId = threadAsked(state, shown)
  if (rootId !== undefined && item.thread === "unasked")
    return [{ ...item, thread: "asking" }, [{ _tag: "AskThread", key, roomId, rootId }]]
  if (item.thread === "asking") return [item, []]
  return [{ ...item, result: judged(state, item, event) }, []]
}

const planItem = (state: State, item: Item): Planned => {
  if (hasResult(item)) return [item, []]
  return item.event === undefined ? planMissing(state, item) : planFound(state, item, item.event)
}

const roomState = (ownUserId: UserId): ReadonlyArray<StateSelector> => [
  ["m.room.name", ""],
  ["m.room.encryption", ""],
  ["m.room.member", "$LAZY"],
  ["m.room.member", "$ME"],
  // Some homeservers don't know `$ME`.
  ["m.room.member", ownUserId],
  ["m.room.topic", ""],
  ["m.room.avatar", ""],
  ["m.room.canonical_alias", ""],
  ["io.element.functional_members", ""],
  ["org.matrix.msc3401.call.member", "*"],
  ...NotificationFacts.ROOM_STATE.map((type): StateSelector => [type, ""])
]

/** The request for what is missing, from the position of the last answer if there is one. */
const requestOf = ({ ownUserId, sync }: Config, state: State): SyncRequest => {
  const { answers, pos } = state.fetch
  const requiredState = roomState(ownUserId)
  const open = state.items.filter((item) => !hasResult(item))
  const wanted = [...wantedOf(open.filter((item) => isMissing(item) || !isKnownPlace(state, item)))]
  const params = ([roomId, { length }]: readonly [RoomId, ReadonlyArray<EventId>]): readonly [RoomId, RoomParams] => [
    roomId,
    { requiredState, timelineLimit: Math.min(TIMELINE_LIMIT_MAX, Math.max(TIMELINE_LIMIT, 2 * length)) }
  ]
  return {
    connId: NOTIFICATION_CONN_ID,
    ...(pos !== undefined && { pos }),
    timeoutMillis: answers > 0 ? POLL_MILLIS : 0,
    ...(sync.presence !== undefined && { setPresence: sync.presence }),
    lists: { [INVITES_LIST]: { range: INVITES, filters: { isInvite: true }, requiredState, timelineLimit: 1 } },
    roomSubscriptions: Object.fromEntries(wanted.slice(0, sync.maxSubscriptions).map(params)),
    extensions: { accountData: true }
  }
}

/** Whether the surroundings decide, or will soon, about an event that the first sync hasn't brought. */
const isUpToContext = ({ context, contextTries }: Item): boolean =>
  context === "untried" || context === "forbidden" || (context === "asking" && contextTries === 0)

/** The sliding sync: once, and again as long as an event is missing whose surroundings don't come or aren't known. */
const planSync = (config: Config, state: State): Step => {
  const { fetch } = state
  const missing = state.items.filter(isMissing)
  if (missing.length === 0) {
    const isAwaited = state.items.some((item) => !hasResult(item) && !isKnownPlace(state, item))
    return fetch.phase === "syncing" && fetch.answers > 0 && !isAwaited
      ? [{ ...state, fetch: { ...fetch, phase: "idle" } }, [{ _tag: "AbortSync" }]]
      : [state, []]
  }
  const isDue = fetch.phase === "idle" && fetch.answers < SYNC_ATTEMPTS
  if (!isDue || (fetch.answers > 0 && missing.every(isUpToContext))) return [state, []]
  const next: Fetch = { ...fetch, phase: "syncing", isLate: false }
  return [{ ...state, fetch: next }, [{ _tag: "Sync", request: requestOf(config, state) }]]
}

/** A call first, then what the homeserver calls urgent, then in the order of the requests. */
const rank = (state: State, { event, decryption, request }: Item): number => {
  const shown = decryption?._tag === "Decrypted" ? decryption.event : event
  if (shown !== undefined && kindOf(shown, state.facts.ownUserId) === "call") return 0
  return request.isUrgent === true ? 1 : 2
}

/** All results so far, in the order in which they are told. */
export const results = (state: State): ReadonlyArray<{ readonly key: Key; readonly result: NotificationResult }> =>
  state.items
    .toSorted((one, two) => rank(state, one) - rank(state, two))
    .flatMap(({ key, result }) => (result === undefined ? [] : [{ key, result }]))

const emits = (before: State, after: State): ReadonlyArray<Command> => {
  const known = new Set(results(before).map(({ key }) => key))
  return results(after).flatMap((one): ReadonlyArray<Command> => (known.has(one.key) ? [] : [{ _tag: "Emit", ...one }]))
}

/** Begins what is wanting. */
const plan = (config: Config, state: State, now: Now): Step => {
  const [syncing, syncCommands] = planSync(config, state)
  const order = syncing.items.toSorted((one, two) => rank(syncing, one) - rank(syncing, two))
  const planned = new Map(order.map((item) => [item.key, planItem(syncing, item)] as const))
  const items = syncing.items.map((item) => planned.get(item.key)?.[0] ?? item)
  const itemCommands = [...planned.values()].flatMap(([, commands]) => commands)
  const next = { ...syncing, items }
  const need = needOf(next, now.nowMillis)
  const considered = NotificationKeysMachine.consider(config.sync, next.keys, need, now.random)
  const [last, keyCommands] = withKeys(next, considered)
  return [last, [...syncCommands, ...itemCommands, ...keyCommands]]
}

/** Plans until nothing follows any more: a push that gets its result may end what others needed. */
const planAll = (config: Config, state: State, now: Now): Step => {
  const [next, commands] = plan(config, state, now)
  const settled = next.items.every((item, index) => item === state.items[index])
  if (settled && next.keys === state.keys && next.fetch === state.fetch) return [next, commands]
  const [last, more] = planAll(config, next, now)
  return [last, [...commands, ...more]]
}

// --- the end

const ownerWords = ({ keys }: State): string => {
  switch (keys._tag) {
    case "Watching":
    case "Checking":
      return `; the process ${keys.blocker.holder} owns the stream of keys, and has committed none for it`
    case "Waiting":
    case "Trying":
      return "; the stream of keys could not be had"
    default:
      return ""
  }
}

/** What is left when the time is over: as much as is known, and what is missing. */
const expired = (state: State, item: Item): NotificationResult => {
  const { contextFailure, decryption, event, reading } = item
  const why = contextFailure ?? state.fetch.failure
  const failure = why === undefined ? "" : ` (${why.message})`
  if (event === undefined)
    return {
      _tag: "Expired",
      missing: ["event"],
      message: `the homeserver hasn't said in time what the event ${item.request.eventId} is${failure}`
    }
  if (isEncrypted(event) && reading !== "done") {
    if (decryption?._tag !== "Undecryptable")
      return { _tag: "Expired", missing: ["decryption"], message: "the event was not decrypted in time" }
    const message = `${decryption.message}, and it has not come in time${ownerWords(state)}`
    return judged(state, { ...item, decryption: { ...decryption, message } }, event)
  }
  return judged(state, item, event)
}

const end = (state: State): State => ({
  ...state,
  deadlinePassed: true,
  items: state.items.map((item) => (hasResult(item) ? item : { ...item, result: expired(state, item) }))
})

const takeIn = (config: Config, state: State, input: Input, now: Now): Step => {
  switch (input._tag) {
    case "StoreRead":
      return [storeRead(state, input), []]
    case "Synced":
      return [synced(state, input), []]
    case "SyncFailed":
      return syncFailed(config, state, input)
    case "SyncLate":
      return [state.fetch.phase === "syncing" ? { ...state, fetch: { ...state.fetch, isLate: true } } : state, []]
    case "SyncWaited":
      return [state.fetch.phase === "waiting" ? { ...state, fetch: { ...state.fetch, phase: "idle" } } : state, []]
    case "ContextFound":
      return [contextFound(state, input), []]
    case "ContextRefused": {
      const context = input.isForbidden ? "forbidden" : "refused"
      return [updateItem(state, input.key, (item) => ({ ...item, context, contextTries: item.contextTries + 1 })), []]
    }
    case "ContextFailed":
      return contextFailed(config, state, input)
    case "DecryptAnswered":
      return [decryptAnswered(state, input), []]
    case "DecryptFailed":
      return decryptFailed(config, state, input)
    case "ThreadAnswered": {
      const thread = input.isSubscribed === undefined ? "unknown" : input.isSubscribed ? "subscribed" : "unsubscribed"
      return [updateItem(state, input.key, (item) => ({ ...item, thread })), []]
    }
    case "KeysCommitted":
      return [retryWith(state, input.sessions), []]
    case "DeadlinePassed":
      return [end(state), []]
    default:
      return keysInput(config, state, input, now)
  }
}

/** What follows from an input, results first. Late answers change nothing, and after the deadline nothing follows. */
export const step = (config: Config, state: State, input: Input, now: Now): Step => {
  if (state.deadlinePassed) return [state, []]
  const [taken, first] = takeIn(config, state, input, now)
  const [planned, more] = taken.deadlinePassed ? [taken, []] : planAll(config, taken, now)
  return [planned, [...emits(state, planned), ...first, ...more]]
}
