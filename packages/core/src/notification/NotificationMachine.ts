/**
 * Decides how pushes become something to show, several at once, under one deadline.
 *
 * For each push (`NotificationEventMachine`): find the event (the application's own store, then a short sliding sync
 * (`NotificationFetchMachine`), then `/context`), decrypt it, come by its key if that isn't there
 * (`NotificationKeysMachine`), ask what the push rules need to know, judge. All of it side by side; each result is emitted as
 * soon as it is known, a call before others.
 *
 * Pure: `step(config, state, input)`; the interpreter is `Notifications` (actors). Every input is first taken into what is
 * known; then `plan` begins whatever is wanting and not under way.
 *
 * Invariants: I1 (see `NotificationKeysMachine`), I7 (a push gets a result whatever happens, and its reason), I9 (what fails
 * is tried again until the deadline), I10 (after the deadline nothing is waited for).
 *
 * Gotchas: one homeserver that hangs must not cost a notification: after `HEDGE_MILLIS` without an answer of the sliding sync
 * the surroundings are asked for as well, and what they tell is enough.
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
import type { SyncResponse } from "../matrix/SlidingSync.ts"
import type { Failure } from "../sync/SupervisionPolicy.ts"
import * as NotificationEventMachine from "./NotificationEventMachine.ts"
import * as NotificationFacts from "./NotificationFacts.ts"
import type { Facts, StoredRoom } from "./NotificationFacts.ts"
import * as NotificationFetchMachine from "./NotificationFetchMachine.ts"
import type { NotificationRequest, NotificationResult } from "./NotificationItem.ts"
import * as NotificationKeysMachine from "./NotificationKeysMachine.ts"

type Item = NotificationEventMachine.State
type ItemInput = NotificationEventMachine.Input
type AnyEvent = NotificationEventMachine.AnyEvent

/** After this long without an answer to the sliding sync the surroundings are asked for, in milliseconds. */
export const HEDGE_MILLIS = 1_000

/** Names a push among those of a batch. */
export type Key = NotificationEventMachine.Key

/** The name of a push, by its room and event. */
export const { keyOf } = NotificationEventMachine

export interface State {
  readonly facts: Facts
  readonly items: ReadonlyArray<Item>
  readonly fetch: NotificationFetchMachine.State
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
  | Extract<NotificationFetchMachine.Input, { _tag: "SyncFailed" | "SyncLate" | "SyncWaited" }>
  /** What was heard of one event; with its surroundings comes the state of its room. */
  | (Exclude<ItemInput, { _tag: "ContextFound" }> & { readonly key: Key })
  | (Extract<ItemInput, { _tag: "ContextFound" }> & { readonly key: Key; readonly state: ReadonlyArray<JsonObject> })
  /** Keys of these sessions were committed; absent: any may have been. */
  | { readonly _tag: "KeysCommitted"; readonly sessions?: ReadonlySet<string> }
  | { readonly _tag: "DeadlinePassed" }
  | NotificationKeysMachine.Input

export type Command =
  | { readonly _tag: "ReadStore"; readonly wanted: ReadonlyMap<RoomId, ReadonlyArray<EventId>> }
  | NotificationFetchMachine.Command
  | NotificationEventMachine.Command
  | { readonly _tag: "Emit"; readonly key: Key; readonly result: NotificationResult }
  | NotificationKeysMachine.Command

export type Step = readonly [State, ReadonlyArray<Command>]

export type Config = NotificationFetchMachine.Config

/** What every step is given besides the input. */
export interface Now {
  /** Unix milliseconds. */
  readonly nowMillis: number
  /** In [0, 1). */
  readonly random: number
}

// --- the beginning

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
  const once = new Map(requests.map((request) => [keyOf(request), request]))
  const items = [...once.values()].map(NotificationEventMachine.initial)
  const state: State = {
    facts: NotificationFacts.none(ownUserId),
    items,
    fetch: NotificationFetchMachine.initial,
    keys: NotificationKeysMachine.initial,
    deadlineMillis,
    deadlinePassed: false
  }
  return [state, [{ _tag: "ReadStore", wanted: wantedOf(items) }]]
}

/** Whether everything has a result and nothing is going on any more. */
export const isOver = (state: State): boolean =>
  state.deadlinePassed ||
  (state.items.every(NotificationEventMachine.hasResult) && !NotificationKeysMachine.isAtWork(state.keys))

// --- taking in

const changeItems = (state: State, change: (item: Item) => Item): State => ({
  ...state,
  items: state.items.map(change)
})

/** The homeserver can't be asked any more. */
const failAll = (state: State, failure: Failure): State =>
  changeItems({ ...state, fetch: { ...state.fetch, failure } }, (item) =>
    NotificationEventMachine.withoutHomeserver(item, failure)
  )

const found = (state: State, events: ReadonlyMap<Key, AnyEvent>): State =>
  changeItems(state, (item) => NotificationEventMachine.found(item, events.get(item.key)))

const byKey = (roomId: RoomId, events: ReadonlyArray<TimelineEvent>): ReadonlyArray<readonly [Key, AnyEvent]> =>
  events.map((event) => [keyOf({ roomId, eventId: event.event_id }), event])

const fetchInput = (config: Config, state: State, input: NotificationFetchMachine.Input): Step => {
  const [fetch, commands] = NotificationFetchMachine.step(config, state.fetch, input)
  const next = { ...state, fetch }
  const { failure } = fetch
  return [failure !== undefined && NotificationFetchMachine.isRefused(fetch) ? failAll(next, failure) : next, commands]
}

const storeRead = (config: Config, state: State, input: Extract<Input, { _tag: "StoreRead" }>): Step => {
  const facts = input.rooms.reduce(
    NotificationFacts.withStored,
    NotificationFacts.withAccountData(state.facts, input.accountData)
  )
  const events = new Map(input.rooms.flatMap(({ events, room }) => byKey(room.roomId, events)))
  return fetchInput(config, found({ ...state, facts }, events), { _tag: "Begun" })
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

const synced = (config: Config, state: State, { response }: Extract<Input, { _tag: "Synced" }>): Step => {
  const { ownUserId } = state.facts
  const events = new Map(response.rooms.flatMap(({ roomId, timeline }) => byKey(roomId, timeline)))
  for (const { roomId, strippedState } of response.rooms) {
    const invitation = invitationIn(ownUserId, strippedState)
    if (invitation === undefined) continue
    for (const { key, request } of state.items.filter(NotificationEventMachine.isMissing)) {
      if (request.roomId === roomId && !events.has(key)) events.set(key, invitation)
    }
  }
  const known = found({ ...state, facts: NotificationFacts.withSync(state.facts, response) }, events)
  return fetchInput(config, known, { _tag: "Answered", pos: response.pos })
}

const itemInput = (config: Config, state: State, key: Key, input: ItemInput): Step => {
  const stepped = state.items.map((item) =>
    item.key === key ? NotificationEventMachine.step(config.sync, item, input) : ([item, []] as const)
  )
  return [{ ...state, items: stepped.map(([item]) => item) }, stepped.flatMap(([, commands]) => commands)]
}

const contextFound = (config: Config, state: State, input: Extract<Input, { _tag: "ContextFound" }>): Step => {
  const item = state.items.find(({ key }) => key === input.key)
  if (item === undefined) return [state, []]
  const facts = NotificationFacts.withContext(state.facts, item.request.roomId, input.state)
  return itemInput(config, { ...state, facts }, input.key, input)
}

const contextFailed = (config: Config, state: State, input: Extract<Input, { _tag: "ContextFailed" }>): Step => {
  const isOpen = state.items.some((item) => item.key === input.key && !NotificationEventMachine.hasResult(item))
  const [next, commands] = itemInput(config, state, input.key, input)
  return [
    isOpen && NotificationEventMachine.isHopeless(config.sync, input) ? failAll(next, input.failure) : next,
    commands
  ]
}

const retryWith = (state: State, sessions: ReadonlySet<string> | undefined): State =>
  changeItems(state, (item) => NotificationEventMachine.retry(item, sessions))

// --- the keys

const keysNeedOf = ({ deadlineMillis, items }: State, nowMillis: number): NotificationKeysMachine.Need => ({
  awaiting: items.filter(NotificationEventMachine.isAwaitingKey).length,
  decrypting: items.filter(NotificationEventMachine.isBeingDecrypted).length,
  remainingMillis: deadlineMillis - nowMillis
})

/** Who waits for a key when nothing brings one any more waits no longer. */
const withKeys = (state: State, [keys, commands]: NotificationKeysMachine.Step): Step => {
  const next = { ...state, keys }
  if (keys._tag !== "GivenUp") return [next, commands]
  const { failure } = keys
  const { fail, isAwaitingKey } = NotificationEventMachine
  return [changeItems(next, (item) => (isAwaitingKey(item) ? fail(item, failure) : item)), commands]
}

/**
 * Whether any key may have come: with what was applied, with a commit that seems to have failed, or before anybody watched or
 * had the stream.
 */
const mayBringKeys = (input: NotificationKeysMachine.Input): boolean => {
  switch (input._tag) {
    case "Iterated":
    case "LeaseTaken":
    case "OwnerWatched":
      return true
    case "IterateFailed":
      return input.failure.class === "store"
    default:
      return false
  }
}

const keysInput = (config: Config, state: State, input: NotificationKeysMachine.Input, now: Now): Step => {
  const need = keysNeedOf(state, now.nowMillis)
  const [next, commands] = withKeys(state, NotificationKeysMachine.step(config.sync, state.keys, input, need))
  return [mayBringKeys(input) ? retryWith(next, undefined) : next, commands]
}

// --- what is wanting

const fetchNeedOf = (state: State): NotificationFetchMachine.Need => {
  const missing = state.items.filter(NotificationEventMachine.isMissing)
  const isWanting = (item: Item): boolean =>
    !NotificationEventMachine.hasResult(item) &&
    (NotificationEventMachine.isMissing(item) || !NotificationEventMachine.isKnownPlace(state, item))
  return {
    rooms: new Map([...wantedOf(state.items.filter(isWanting))].map(([roomId, { length }]) => [roomId, length])),
    missing: missing.length,
    upToContext: missing.filter(NotificationEventMachine.isUpToContext).length
  }
}

/** A call first, then what the homeserver calls urgent, then in the order of the requests. */
const inOrder = ({ facts, items }: State): ReadonlyArray<Item> => {
  const rank = (item: Item): number => NotificationEventMachine.rank(item, facts.ownUserId)
  return items.toSorted((one, two) => rank(one) - rank(two))
}

/** All results so far, in the order in which they are told. */
export const results = (state: State): ReadonlyArray<{ readonly key: Key; readonly result: NotificationResult }> =>
  inOrder(state).flatMap(({ key, result }) => (result === undefined ? [] : [{ key, result }]))

const emits = (before: State, after: State): ReadonlyArray<Command> => {
  const known = new Set(results(before).map(({ key }) => key))
  return results(after).flatMap((one): ReadonlyArray<Command> => (known.has(one.key) ? [] : [{ _tag: "Emit", ...one }]))
}

/** Begins what is wanting. */
const plan = (config: Config, state: State, now: Now): Step => {
  const [fetch, syncCommands] = NotificationFetchMachine.consider(config, state.fetch, fetchNeedOf(state))
  const syncing = { ...state, fetch }
  const considered = new Map(
    inOrder(syncing).map((item) => [item.key, NotificationEventMachine.consider(syncing, item)] as const)
  )
  const items = syncing.items.map((item) => considered.get(item.key)?.[0] ?? item)
  const itemCommands = [...considered.values()].flatMap(([, commands]) => commands)
  const next = { ...syncing, items }
  const need = keysNeedOf(next, now.nowMillis)
  const keysStep = NotificationKeysMachine.consider(config.sync, next.keys, need, now.random)
  const [last, keysCommands] = withKeys(next, keysStep)
  return [last, [...syncCommands, ...itemCommands, ...keysCommands]]
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

const keyless = ({ keys }: State): string => {
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

const end = (state: State): State =>
  changeItems({ ...state, deadlinePassed: true }, (item) =>
    NotificationEventMachine.expire(state, item, keyless(state))
  )

const takeIn = (config: Config, state: State, input: Input, now: Now): Step => {
  switch (input._tag) {
    case "StoreRead":
      return storeRead(config, state, input)
    case "Synced":
      return synced(config, state, input)
    case "SyncFailed":
    case "SyncLate":
    case "SyncWaited":
      return fetchInput(config, state, input)
    case "ContextFound":
      return contextFound(config, state, input)
    case "ContextFailed":
      return contextFailed(config, state, input)
    case "ContextRefused":
    case "DecryptAnswered":
    case "DecryptFailed":
    case "ThreadAnswered":
      return itemInput(config, state, input.key, input)
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
