/**
 * Decides what becomes of one pushed event: that it is there, is decrypted, and is judged by the push rules.
 *
 * Pure: `step(config, state, input)` takes in what was heard of the event, `consider(known, state)` begins what is wanting,
 * and `expire` says what is left at the deadline. It is a part of `NotificationMachine`, which has one of these for each push.
 *
 * Invariants: I7 (a push gets a result whatever happens, and its reason), I9 (what fails is tried again with backoff).
 *
 * Gotchas: a push may arrive before the event can be read everywhere, so its surroundings are asked for a second time before
 * it is not found. A key may come while the event is being decrypted, too late for that: then it is decrypted once more.
 *
 * Not here: how keys come (`NotificationKeysMachine.ts`), what the rules say (`NotificationRules.ts`).
 */
import type { EventId, RoomId, StateEvent, TimelineEvent, UserId } from "../matrix/MatrixEvent.ts"
import * as PushRules from "../matrix/PushRules.ts"
import type { Decryption, Undecryptable } from "../sync/EventDecryptor.ts"
import * as SupervisionPolicy from "../sync/SupervisionPolicy.ts"
import type { SyncConfigShape } from "../sync/SyncConfig.ts"
import * as NotificationFacts from "./NotificationFacts.ts"
import * as NotificationFetchMachine from "./NotificationFetchMachine.ts"
import type { NotificationRequest, NotificationResult } from "./NotificationItem.ts"
import { kindOf } from "./NotificationKinds.ts"
import { dismiss, judge, threadRootOf } from "./NotificationRules.ts"

type Failure = SupervisionPolicy.Failure
type Failed = SupervisionPolicy.Failed

/** An event of a timeline, or one of a room's state, as an invitation is. */
export type AnyEvent = TimelineEvent | StateEvent

/** How often an event that can't be decrypted for no reason of its own is tried. */
const DECRYPT_TRIES = 3
/** How often the surroundings of an event are asked for that the homeserver doesn't know. */
const CONTEXT_TRIES = 2

/** Names a push among those of a batch. */
export type Key = string

/** The name of a push, by its room and event. */
export const keyOf = ({ eventId, roomId }: NotificationRequest): Key => `${roomId} ${eventId}`

export interface State {
  readonly key: Key
  readonly request: NotificationRequest
  /** As it came, once it is there. */
  readonly event?: AnyEvent
  /** How far the decryption has come. */
  readonly reading: "toDecrypt" | "decrypting" | "awaitingKey" | "done"
  /** A key that it may want came while it was being decrypted, perhaps too late for that. */
  readonly isOutdated: boolean
  readonly decryptTries: number
  readonly decryption?: Decryption
  /** Whether its surroundings were asked for; `forbidden`: this user may not see them. */
  readonly context: "untried" | "asking" | "answered" | "refused" | "forbidden"
  readonly contextTries: number
  /** Why its surroundings haven't come yet. */
  readonly contextFailure?: Failure
  /** Whether the user follows its thread: asked for when a rule wants to know. */
  readonly thread: "unasked" | "asking" | "unknown" | "subscribed" | "unsubscribed"
  readonly result?: NotificationResult
}

export type Input =
  /** Its surroundings were answered. */
  | { readonly _tag: "ContextFound"; readonly event: TimelineEvent }
  /** `isForbidden`: the homeserver doesn't let this user see it, and won't. Otherwise it doesn't know it. */
  | { readonly _tag: "ContextRefused"; readonly isForbidden: boolean }
  | ({ readonly _tag: "ContextFailed" } & Failed)
  | { readonly _tag: "DecryptAnswered"; readonly decryption: Decryption }
  | ({ readonly _tag: "DecryptFailed" } & Failed)
  | { readonly _tag: "ThreadAnswered"; readonly isSubscribed: boolean | undefined }

export type Command =
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

export type Step = readonly [State, ReadonlyArray<Command>]

/** What is known besides the event itself. */
export interface Known {
  readonly facts: NotificationFacts.Facts
  readonly fetch: NotificationFetchMachine.State
}

/** Nothing is known of it yet. */
export const initial = (request: NotificationRequest): State => ({
  key: keyOf(request),
  request,
  reading: "toDecrypt",
  isOutdated: false,
  decryptTries: 0,
  context: "untried",
  contextTries: 0,
  thread: "unasked"
})

// --- what it is at

/** Whether it is known what it comes to. */
export const hasResult = ({ result }: State): boolean => result !== undefined

/** Whether it has been looked for and isn't there yet. */
export const isMissing = (state: State): boolean => state.result === undefined && state.event === undefined

/** Whether it waits for a key. */
export const isAwaitingKey = (state: State): boolean => !hasResult(state) && state.reading === "awaitingKey"

/** Whether it is being decrypted, after which it may wait for a key. */
export const isBeingDecrypted = ({ decryption, event, reading, result }: State): boolean =>
  result === undefined &&
  event !== undefined &&
  (reading === "decrypting" || (reading === "toDecrypt" && decryption !== undefined))

/** Whether its surroundings decide about it, or will soon, when the first sync hasn't brought it. */
export const isUpToContext = ({ context, contextTries }: State): boolean =>
  context === "untried" || context === "forbidden" || (context === "asking" && contextTries === 0)

/** Whether the room and the sender are known; as long as it isn't there itself, nothing more is wanted of them. */
export const isKnownPlace = ({ facts }: Known, { event, request }: State): boolean =>
  event === undefined ||
  (NotificationFacts.isRoomKnown(facts, request.roomId) &&
    NotificationFacts.isSenderKnown(facts, request.roomId, event.sender))

/** A call first, then what the homeserver calls urgent. */
export const rank = ({ decryption, event, request }: State, ownUserId: UserId): number => {
  const shown = decryption?._tag === "Decrypted" ? decryption.event : event
  if (shown !== undefined && kindOf(shown, ownUserId) === "call") return 0
  return request.isUrgent === true ? 1 : 2
}

// --- taking in

/** It is there, unless it was before. */
export const found = (state: State, event: AnyEvent | undefined): State =>
  event === undefined || state.event !== undefined ? state : { ...state, event }

/** Nothing brings what it waits for. */
export const fail = (state: State, failure: Failure): State => ({
  ...state,
  result: { _tag: "Failed", failure, message: failure.message }
})

/** The homeserver can't be asked any more: when it is there, it goes on without what is missing. */
export const withoutHomeserver = (state: State, failure: Failure): State => {
  if (hasResult(state)) return state
  return state.event === undefined ? fail(state, failure) : { ...state, context: "refused" }
}

/** Keys of these sessions have come, or any, without: it is tried again if it waits for one of them. */
export const retry = (state: State, sessions: ReadonlySet<string> | undefined): State => {
  const { decryption, reading } = state
  const session = decryption?._tag === "Undecryptable" ? decryption.sessionId : undefined
  const concerns = sessions === undefined || session === undefined || sessions.has(session)
  if (hasResult(state) || !concerns) return state
  if (reading === "decrypting") return { ...state, isOutdated: true }
  return reading === "awaitingKey" ? { ...state, reading: "toDecrypt" } : state
}

/** Whether the homeserver won't answer anything else either. */
export const isHopeless = (config: SyncConfigShape, { failure, random }: Failed): boolean =>
  SupervisionPolicy.decide(config, failure, 0, random)._tag === "GiveUp"

const contextFailed = (config: SyncConfigShape, state: State, { failure, random }: Failed): Step => {
  const { event, key, request } = state
  const contextTries = state.contextTries + 1
  const decision = SupervisionPolicy.decide(config, failure, state.contextTries, random)
  if (decision._tag === "GiveUp") return [withoutHomeserver(state, failure), []]
  // An event that is there only lacked a name, which isn't worth a wait.
  if (event !== undefined) return [{ ...state, context: "refused", contextTries }, []]
  const { eventId, roomId } = request
  return [
    { ...state, contextTries, contextFailure: failure },
    [{ _tag: "FetchContext", key, roomId, eventId, millis: Math.max(1, decision.delayMillis) }]
  ]
}

/** Whether another try can help: the key may still come. */
const isForWantOfKey = ({ reason }: Undecryptable): boolean => reason === "MissingRoomKey"

const decryptAnswered = (state: State, decryption: Decryption): State =>
  decryption._tag === "Undecryptable" && isForWantOfKey(decryption)
    ? { ...state, decryption, isOutdated: false, reading: state.isOutdated ? "toDecrypt" : "awaitingKey" }
    : { ...state, decryption, reading: "done" }

const decryptFailed = (config: SyncConfigShape, state: State, { failure, random }: Failed): Step => {
  const { event, key, request } = state
  const decision = SupervisionPolicy.decide(config, failure, state.decryptTries, random)
  const decryptTries = state.decryptTries + 1
  if (decision._tag === "GiveUp" || decryptTries >= DECRYPT_TRIES) return [fail(state, failure), []]
  // Only an event of a timeline is decrypted.
  const encrypted = event as TimelineEvent
  const millis = Math.max(1, decision.delayMillis)
  return [{ ...state, decryptTries }, [{ _tag: "Decrypt", key, roomId: request.roomId, event: encrypted, millis }]]
}

/** What follows from an input. What comes after the result changes nothing of it. */
export const step = (config: SyncConfigShape, state: State, input: Input): Step => {
  switch (input._tag) {
    case "ContextFound":
      return [{ ...state, context: "answered", event: state.event ?? input.event }, []]
    case "ContextRefused": {
      const context = input.isForbidden ? "forbidden" : "refused"
      return [{ ...state, context, contextTries: state.contextTries + 1 }, []]
    }
    case "ContextFailed":
      return hasResult(state) ? [state, []] : contextFailed(config, state, input)
    case "DecryptAnswered":
      return [decryptAnswered(state, input.decryption), []]
    case "DecryptFailed":
      return hasResult(state) || state.event === undefined ? [state, []] : decryptFailed(config, state, input)
    case "ThreadAnswered": {
      const thread = input.isSubscribed === undefined ? "unknown" : input.isSubscribed ? "subscribed" : "unsubscribed"
      return [{ ...state, thread }, []]
    }
  }
}

// --- what is wanting

const isEncrypted = (event: AnyEvent): event is TimelineEvent =>
  event.type === "m.room.encrypted" && event.state_key === undefined && event.event_id !== undefined

const fetchContext = (state: State): Step => {
  const { eventId, roomId } = state.request
  return [{ ...state, context: "asking" }, [{ _tag: "FetchContext", key: state.key, roomId, eventId, millis: 0 }]]
}

const notFound = (state: State): State => {
  const { eventId, roomId } = state.request
  const message =
    state.context === "forbidden"
      ? `the homeserver doesn't let this user see the event ${eventId}; he may have left the room ${roomId}`
      : `the homeserver doesn't know the event ${eventId} in the room ${roomId}`
  return { ...state, result: { _tag: "NotFound", message } }
}

/** An event that isn't there: its surroundings are asked for when the sync doesn't bring it, and once more in the end. */
const considerMissing = ({ fetch }: Known, state: State): Step => {
  if (NotificationFetchMachine.isAwaited(fetch) || NotificationFetchMachine.isPending(fetch)) return [state, []]
  const isLast = NotificationFetchMachine.isLast(fetch)
  switch (state.context) {
    case "untried":
      return fetchContext(state)
    case "forbidden":
      // An invitation, which nobody may look into, comes with the sync.
      return fetch.answers > 0 || isLast ? [notFound(state), []] : [state, []]
    case "refused":
      if (!isLast) return [state, []]
      return state.contextTries < CONTEXT_TRIES && fetch.phase !== "ended" ? fetchContext(state) : [notFound(state), []]
    default:
      return [state, []]
  }
}

/** The thread about which the push rules want to know, if they do. */
const threadAsked = ({ facts }: Known, event: AnyEvent): EventId | undefined =>
  facts.rules !== undefined && PushRules.asksAboutThread(facts.rules) ? threadRootOf(event) : undefined

const judged = ({ facts, fetch }: Known, { decryption, request, thread }: State, event: AnyEvent): NotificationResult =>
  judge(facts, {
    roomId: request.roomId,
    event: decryption?._tag === "Decrypted" ? decryption.event : event,
    shield: decryption?._tag === "Decrypted" ? decryption.shield : undefined,
    undecryptable: decryption?._tag === "Undecryptable" ? decryption : undefined,
    isThreadSubscribed: thread === "subscribed" ? true : thread === "unsubscribed" ? false : undefined,
    why: fetch.failure?.message
  })

/** An event that is there, up to its result. */
const considerFound = (known: Known, state: State, event: AnyEvent): Step => {
  const { key, request } = state
  const { roomId } = request
  const dismissed = dismiss(known.facts, roomId, event)
  if (dismissed !== undefined) return [{ ...state, result: dismissed }, []]
  if (isEncrypted(event) && state.reading !== "done") {
    if (state.reading !== "toDecrypt") return [state, []]
    return [{ ...state, reading: "decrypting" }, [{ _tag: "Decrypt", key, roomId, event, millis: 0 }]]
  }
  const isPlaceKnown = isKnownPlace(known, state)
  const wantsMore = !isPlaceKnown || known.facts.rules === undefined
  if (wantsMore && NotificationFetchMachine.isAwaited(known.fetch)) return [state, []]
  // An invitation has no surroundings that the user may see.
  if (!isPlaceKnown && event.event_id !== undefined) {
    if (state.context === "untried") return fetchContext(state)
    if (state.context === "asking") return [state, []]
  }
  const shown = state.decryption?._tag === "Decrypted" ? state.decryption.event : event
  const rootId = threadAsked(known, shown)
  if (rootId !== undefined && state.thread === "unasked")
    return [{ ...state, thread: "asking" }, [{ _tag: "AskThread", key, roomId, rootId }]]
  if (state.thread === "asking") return [state, []]
  return [{ ...state, result: judged(known, state, event) }, []]
}

/** What follows from what is known: begins what is wanting, or says what the event comes to. */
export const consider = (known: Known, state: State): Step => {
  if (hasResult(state)) return [state, []]
  return state.event === undefined ? considerMissing(known, state) : considerFound(known, state, state.event)
}

// --- the end

/** What is left when the time is over: as much as is known, and what is missing. `keyless`: why a key hasn't come. */
export const expire = (known: Known, state: State, keyless: string): State => {
  if (hasResult(state)) return state
  const { contextFailure, decryption, event, reading, request } = state
  const why = contextFailure ?? known.fetch.failure
  const failure = why === undefined ? "" : ` (${why.message})`
  if (event === undefined) {
    const message = `the homeserver hasn't said in time what the event ${request.eventId} is${failure}`
    return { ...state, result: { _tag: "Expired", missing: ["event"], message } }
  }
  if (!isEncrypted(event) || reading === "done") return { ...state, result: judged(known, state, event) }
  if (decryption?._tag !== "Undecryptable") {
    const message = "the event was not decrypted in time"
    return { ...state, result: { _tag: "Expired", missing: ["decryption"], message } }
  }
  const message = `${decryption.message}, and it has not come in time${keyless}`
  return { ...state, result: judged(known, { ...state, decryption: { ...decryption, message } }, event) }
}
