/**
 * Decides when the short sliding sync of notifications is made, and what it asks for.
 *
 * Pure: `step(config, state, input)` and `consider(config, state, need)`. It is a part of `NotificationMachine`, which says
 * what is needed.
 *
 * Invariants: I3 (a connection of its own: nothing of the main one is touched), I9 (what fails is tried again with backoff),
 * I10 (an event is looked for so often and no more, and nobody waits for a sync that hangs).
 *
 * Gotchas: a position lasts for one batch of pushes, and not beyond a failure: the answer after it is whole.
 *
 * Not here: what the answers tell (`NotificationFacts.ts`), the surroundings that are asked for instead
 * (`NotificationEventMachine.ts`).
 */
import type { RoomId, UserId } from "../matrix/MatrixEvent.ts"
import { type RoomParams, type StateSelector, summaryState, type SyncRequest } from "../matrix/SlidingSync.ts"
import * as SupervisionPolicy from "../sync/SupervisionPolicy.ts"
import type { SyncConfigShape } from "../sync/SyncConfig.ts"
import * as NotificationFacts from "./NotificationFacts.ts"

type Failure = SupervisionPolicy.Failure
type Failed = SupervisionPolicy.Failed

/** The connection of notifications; without a position that lasts, so every process may use it at any time. */
const NOTIFICATION_CONN_ID = "notifications"

/** Sliding syncs in which an event may be missing before it is not found. */
const SYNC_ATTEMPTS = 3
/** How long each sync after the first waits for an event that isn't there yet, in milliseconds. */
export const POLL_MILLIS = 1_000
/** Timeline events that are asked for per room, and at most. */
const TIMELINE_LIMIT = 16
const TIMELINE_LIMIT_MAX = 100
/** Invitations that are asked for. */
const INVITES: readonly [number, number] = [0, 16]
const INVITES_LIST = "invites"

export interface State {
  /** `waiting`: for the store, or for a backoff to pass. `ended`: the homeserver has no sliding sync, or nothing helps. */
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

export type Input =
  /** What is stored is known: the homeserver is asked for the rest. */
  | { readonly _tag: "Begun" }
  /** It was answered, up to this position. */
  | { readonly _tag: "Answered"; readonly pos: string }
  | ({ readonly _tag: "SyncFailed" } & Failed)
  /** The sync under way takes long. */
  | { readonly _tag: "SyncLate" }
  | { readonly _tag: "SyncWaited" }

export type Command =
  | { readonly _tag: "Sync"; readonly request: SyncRequest }
  | { readonly _tag: "AbortSync" }
  | { readonly _tag: "WaitToSync"; readonly millis: number }

export type Step = readonly [State, ReadonlyArray<Command>]

export interface Config {
  readonly sync: SyncConfigShape
  readonly ownUserId: UserId
}

/** What is needed at present. */
export interface Need {
  /** Rooms of which something is missing, and how many of their events are wanted. */
  readonly rooms: ReadonlyMap<RoomId, number>
  /** Events that aren't there. */
  readonly missing: number
  /** Those of them about which their surroundings decide, or will soon. */
  readonly upToContext: number
}

/** Nothing is asked of the homeserver until it is known what the store has. */
export const initial: State = { phase: "waiting", answers: 0, attempt: 0, isLate: false }

/** Whether the sync that is under way is likely to tell more about the rooms and the account. */
export const isAwaited = ({ isLate, phase }: State): boolean => phase === "syncing" && !isLate

/** Whether the first sync has yet to be answered, to fail or to take long. */
export const isPending = ({ answers, failure, isLate }: State): boolean =>
  answers === 0 && failure === undefined && !isLate

/** Whether it brings no event any more that it hasn't brought. */
export const isLast = ({ answers, phase }: State): boolean => phase === "ended" || answers >= SYNC_ATTEMPTS

/** Whether the homeserver can't be asked at all any more, be it in another way. */
export const isRefused = ({ failure, phase }: State): boolean =>
  phase === "ended" && failure !== undefined && failure.class !== "unsupported"

const failed = ({ sync }: Config, { answers, attempt }: State, { failure, random }: Failed): Step => {
  const decision = SupervisionPolicy.decide(sync, failure, attempt, random)
  const next: State = { phase: "waiting", answers, attempt: attempt + 1, isLate: true, failure }
  if (failure.class === "unsupported" || decision._tag === "GiveUp") return [{ ...next, phase: "ended" }, []]
  if (decision.delayMillis === 0) return [{ ...next, phase: "idle" }, []]
  return [next, [{ _tag: "WaitToSync", millis: decision.delayMillis }]]
}

/** What follows from an input. */
export const step = (config: Config, state: State, input: Input): Step => {
  switch (input._tag) {
    case "Begun":
      return [{ ...state, phase: "idle" }, []]
    case "Answered":
      return [{ phase: "idle", pos: input.pos, answers: state.answers + 1, attempt: 0, isLate: false }, []]
    case "SyncFailed":
      return failed(config, state, input)
    case "SyncLate":
      return [state.phase === "syncing" ? { ...state, isLate: true } : state, []]
    case "SyncWaited":
      return [state.phase === "waiting" ? { ...state, phase: "idle" } : state, []]
  }
}

const roomState = (ownUserId: UserId): ReadonlyArray<StateSelector> => [
  ...summaryState(ownUserId),
  ["io.element.functional_members", ""],
  ["org.matrix.msc3401.call.member", "*"],
  ...NotificationFacts.ROOM_STATE.map((type): StateSelector => [type, ""])
]

/** The request for what is missing, from the position of the last answer if there is one. */
const requestOf = ({ ownUserId, sync }: Config, { answers, pos }: State, { rooms }: Need): SyncRequest => {
  const requiredState = roomState(ownUserId)
  const params = ([roomId, wanted]: readonly [RoomId, number]): readonly [RoomId, RoomParams] => [
    roomId,
    { requiredState, timelineLimit: Math.min(TIMELINE_LIMIT_MAX, Math.max(TIMELINE_LIMIT, 2 * wanted)) }
  ]
  return {
    connId: NOTIFICATION_CONN_ID,
    ...(pos !== undefined && { pos }),
    timeoutMillis: answers > 0 ? POLL_MILLIS : 0,
    ...(sync.presence !== undefined && { setPresence: sync.presence }),
    lists: { [INVITES_LIST]: { range: INVITES, filters: { isInvite: true }, requiredState, timelineLimit: 1 } },
    roomSubscriptions: Object.fromEntries([...rooms].slice(0, sync.maxSubscriptions).map(params)),
    extensions: { accountData: true }
  }
}

/** What follows from what is needed: a sync, and again as long as an event is missing whose surroundings don't tell of it. */
export const consider = (config: Config, state: State, need: Need): Step => {
  const { answers, phase } = state
  if (need.missing === 0) {
    const isNeeded = phase !== "syncing" || answers === 0 || need.rooms.size > 0
    return isNeeded ? [state, []] : [{ ...state, phase: "idle" }, [{ _tag: "AbortSync" }]]
  }
  const isDue = phase === "idle" && answers < SYNC_ATTEMPTS
  if (!isDue || (answers > 0 && need.upToContext === need.missing)) return [state, []]
  return [{ ...state, phase: "syncing", isLate: false }, [{ _tag: "Sync", request: requestOf(config, state, need) }]]
}
