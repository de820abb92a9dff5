/**
 * Decides the main loop: which windows to ask for, when to hold the line open, and how to recover.
 *
 * Phases: `init` (the first window, so that something shows at once) → `settingUp` (page by page, until every room is there)
 * → `running` (long polls). After an error, an expired position or a long silence: `recovering` (the first
 * window again, so that the next response is small) → `settingUp` → `running`.
 *
 * Pure: `step(config, state, input)`; the interpreter is `MainSync` (actors).
 *
 * Invariants: I2 in spirit (a response is committed against the position it answers), I3 (nothing of the extension loop is
 * known here), I6 (a view counts as answered only after the commit), I9, I10 (one request at a time, one page at a time).
 *
 * Gotchas: a change of view aborts a long poll, but never a request that is answered at once: a storm of changes would
 * otherwise abort every request and starve the loop (ADR 0009). Changes meanwhile coalesce, since only the newest view is
 * kept.
 *
 * Not here: what a response does to rooms (`MainIngest.ts`), what an error leads to (`SupervisionPolicy.ts`).
 */
import type { UserId } from "../matrix/MatrixEvent.ts"
import {
  isCount,
  type ListRequest,
  type Range,
  type RoomId,
  type RoomParams,
  type StateSelector,
  summaryState,
  type SyncRequest,
  type SyncResponse
} from "../matrix/SlidingSync.ts"
import * as SupervisionPolicy from "./SupervisionPolicy.ts"
import type { SyncConfigShape } from "./SyncConfig.ts"

/** What the application looks at. */
export interface View {
  /** Grows with every change. */
  readonly revision: number
  /**
   * The part of the list that is on the screen, to be sent with a longer timeline; 0-based, inclusive. Asked for as far as
   * it can be: whole numbers, from 0 on, `windowBatch` rooms at most; not at all when it is empty.
   */
  readonly window: Range | undefined
  /** Rooms that are open. */
  readonly subscriptions: ReadonlyMap<RoomId, RoomParams>
}

export const emptyView: View = { revision: 0, window: undefined, subscriptions: new Map() }

export type Phase = "init" | "settingUp" | "running" | "recovering"

/** Key of the list that holds every room. */
export const ROOMS_LIST = "rooms"
/** Key of the list that is the part on the screen. */
export const WINDOW_LIST = "window"

/** State that a room list needs to name, sort and show a room (as matrix-rust-sdk's `DEFAULT_REQUIRED_STATE`). */
const listState = (ownUserId: UserId): ReadonlyArray<StateSelector> => [
  ...summaryState(ownUserId),
  ["m.room.power_levels", ""],
  ["m.room.join_rules", ""],
  ["m.room.tombstone", ""],
  ["m.room.create", ""],
  ["m.room.history_visibility", ""],
  ["io.element.functional_members", ""],
  ["m.space.parent", "*"],
  ["m.space.child", "*"]
]

/** What a subscription asks for unless the application says otherwise: the list's state and the pinned events. */
export const subscriptionParams = (config: SyncConfigShape, ownUserId: UserId): RoomParams => ({
  requiredState: [...listState(ownUserId), ["m.room.pinned_events", ""]],
  timelineLimit: config.subscriptionTimelineLimit
})

/** What stays true from one iteration to the next. */
export interface Loop {
  readonly phase: Phase
  readonly pos: string | undefined
  readonly view: View
  /** Revision of the view that the last committed response answered; the next request for another one isn't held open. */
  readonly answered: number | undefined
  /** Rooms in the list as the homeserver counts them, once known. */
  readonly count: number | undefined
  /** The first room of the next request's window, by its place in the list. */
  readonly from: number
  /** Where the next request's window ends, exclusive. */
  readonly window: number
  /** Where the last committed window ended: how far loading has come. */
  readonly loaded: number
  /** How many rooms the next page has. */
  readonly batch: number
  /** Failures in a row. */
  readonly attempt: number
  /** Long polls in a row that were answered at once with nothing. */
  readonly hasty: number
  readonly respondedAtMillis: number
  /** After a start without position: rooms known before that the homeserver hasn't sent again yet. */
  readonly unseen: ReadonlySet<RoomId> | undefined
  /** Numbers the requests, so that a late answer is told from the awaited one. */
  readonly epoch: number
}

export type State =
  | { readonly _tag: "Idle"; readonly view: View }
  | { readonly _tag: "Loading"; readonly view: View; readonly attempt: number }
  | {
      readonly _tag: "Polling"
      readonly loop: Loop
      readonly request: SyncRequest
      /** Revision of the view that the request asks for. */
      readonly asked: number
      readonly aborting: boolean
    }
  | {
      readonly _tag: "Committing"
      /** Where the loop stands once this is committed. */
      readonly loop: Loop
      /** Where it stood when it asked, and goes on from if the commit fails. */
      readonly before: Loop
      readonly asked: number
    }
  /** The stored position is being dropped; then the connection starts afresh, after the delay. */
  | { readonly _tag: "Expiring"; readonly loop: Loop; readonly delayMillis: number; readonly failure: Failure }
  | { readonly _tag: "BackingOff"; readonly loop: Loop; readonly failure: Failure; readonly untilMillis: number }
  /** Waits to read the store again. */
  | {
      readonly _tag: "LoadBackingOff"
      readonly view: View
      readonly attempt: number
      readonly failure: Failure
      readonly untilMillis: number
    }
  /** Nothing that the loop can do helps. */
  | { readonly _tag: "Failed"; readonly view: View; readonly failure: Failure }

type Failure = SupervisionPolicy.Failure
type Failed = SupervisionPolicy.Failed

export type Input =
  | { readonly _tag: "Start" }
  | {
      readonly _tag: "Loaded"
      readonly pos: string | undefined
      readonly count: number | undefined
      readonly rooms: Iterable<RoomId>
      readonly nowMillis: number
    }
  | ({ readonly _tag: "LoadFailed" } & Failed)
  | { readonly _tag: "ViewChanged"; readonly view: View }
  | {
      readonly _tag: "Polled"
      readonly epoch: number
      readonly response: SyncResponse
      readonly tookMillis: number
      readonly nowMillis: number
    }
  | ({ readonly _tag: "PollFailed"; readonly epoch: number } & Failed)
  | { readonly _tag: "PollAborted"; readonly epoch: number; readonly nowMillis: number }
  | { readonly _tag: "Committed"; readonly nowMillis: number; readonly random: number }
  | ({ readonly _tag: "CommitFailed" } & Failed)
  /** The stored position is gone; `rooms` are all rooms known so far. */
  | { readonly _tag: "Expired"; readonly rooms: Iterable<RoomId>; readonly nowMillis: number }
  | { readonly _tag: "BackoffElapsed"; readonly nowMillis: number }
  /** Don't wait any longer: something says that it may work now. */
  | { readonly _tag: "Retry"; readonly nowMillis: number }

export type Command =
  | { readonly _tag: "Load" }
  | { readonly _tag: "Poll"; readonly epoch: number; readonly request: SyncRequest }
  /** End the request at HTTP level, then say `PollAborted`. */
  | { readonly _tag: "AbortPoll"; readonly epoch: number }
  /**
   * Make the response durable and publish it. `gone` are rooms that the homeserver's list no longer has. `lists` are the
   * counts to store: none while rooms known before may still turn out to be gone, which is how the next `Loaded` tells a
   * fresh start that was cut short.
   */
  | {
      readonly _tag: "Commit"
      readonly request: SyncRequest
      readonly response: SyncResponse
      readonly gone: ReadonlyArray<RoomId>
      readonly lists: { readonly [key: string]: number }
    }
  | { readonly _tag: "Expire" }
  | { readonly _tag: "Wait"; readonly millis: number }

export type Step = readonly [State, ReadonlyArray<Command>]

/** What the machine is configured with. */
export interface Config {
  readonly sync: SyncConfigShape
  readonly connId: string
  readonly ownUserId: UserId
}

export const initial: State = { _tag: "Idle", view: emptyView }

/** Whether every room of the list is in the window. */
const isLoaded = (loop: Loop): boolean => loop.count !== undefined && loop.from === 0 && loop.window >= loop.count

const roomsList = (config: Config, loop: Loop): ListRequest => ({
  range: [loop.from, Math.max(loop.from, loop.window - 1)],
  requiredState: listState(config.ownUserId),
  timelineLimit: config.sync.listTimelineLimit
})

/** The part of the list that can be asked for. A homeserver would refuse another, for as long as it is looked at. */
const shownRange = (config: Config, window: Range | undefined): Range | undefined => {
  if (window === undefined) return undefined
  const start = Math.max(0, Math.floor(window[0]))
  const end = Math.min(Math.ceil(window[1]), start + config.sync.windowBatch - 1)
  return Number.isSafeInteger(start) && start <= end ? [start, end] : undefined
}

const lists = (config: Config, loop: Loop): SyncRequest["lists"] => {
  const rooms = { [ROOMS_LIST]: roomsList(config, loop) }
  const range = shownRange(config, loop.view.window)
  if (range === undefined) return rooms
  return { ...rooms, [WINDOW_LIST]: { ...subscriptionParams(config.sync, config.ownUserId), range } }
}

/** The request that a loop sends next. Nothing is sticky in MSC4186: every request says everything. */
const requestOf = (config: Config, loop: Loop): SyncRequest => ({
  connId: config.connId,
  ...(loop.pos === undefined ? {} : { pos: loop.pos }),
  timeoutMillis: loop.phase === "running" && loop.answered === loop.view.revision ? config.sync.pollTimeoutMillis : 0,
  ...(config.sync.presence === undefined ? {} : { setPresence: config.sync.presence }),
  lists: lists(config, loop),
  roomSubscriptions: Object.fromEntries(loop.view.subscriptions),
  extensions: { accountData: true, receipts: true, typing: true }
})

const recovering = (config: Config, loop: Loop): Loop => ({
  ...loop,
  phase: "recovering",
  loaded: 0,
  from: 0,
  window: Math.min(config.sync.initialWindow, loop.batch),
  answered: undefined
})

const poll = (config: Config, loop: Loop, nowMillis: number): Step => {
  const silent = loop.phase === "running" && nowMillis - loop.respondedAtMillis > config.sync.silenceMillis
  const next = { ...(silent ? recovering(config, loop) : loop), epoch: loop.epoch + 1 }
  const request = requestOf(config, next)
  return [
    { _tag: "Polling", loop: next, request, asked: next.view.revision, aborting: false },
    [{ _tag: "Poll", epoch: next.epoch, request }]
  ]
}

/** How many rooms the list has, if the homeserver says so and it can be. */
const countOf = (response: SyncResponse): number | undefined => {
  const count = response.lists[ROOMS_LIST]?.count
  return count !== undefined && isCount(count) ? count : undefined
}

/**
 * The batch for the next growth. A connection that goes on from a stored position is sent only news, so its windows are
 * nearly empty: they double as long as they are, which takes 10 requests instead of 100 for 10 000 rooms, and few for a
 * homeserver that counts rooms which it never sends. A batch that was made smaller, because a response was too large,
 * stays so: it would grow over empty windows and be too large again.
 */
const nextBatch = (config: Config, loop: Loop, response: SyncResponse): number => {
  const { windowBatch } = config.sync
  const mayDouble = loop.batch >= windowBatch
  return mayDouble && response.rooms.length <= loop.batch / 10 ? loop.batch * 2 : Math.min(loop.batch, windowBatch)
}

/** The batch after a response that was too large. */
const smallerBatch = (config: Config, loop: Loop): number =>
  Math.max(1, Math.floor(Math.min(loop.batch, config.sync.windowBatch) / 2))

/**
 * Where the loop stands after a committed response: the next page, and with the last one every room.
 *
 * A page is asked for by itself, and not with all before it: Synapse repeats the ids of the whole window in each response,
 * half a megabyte for 10 000 rooms (ADR 0021). The homeserver remembers what it has sent of the others; what changed there
 * meanwhile, and rooms that moved up past the page, come with the last request, which is for all of them.
 */
const grown = (config: Config, committed: Loop): Loop => {
  const { initialWindow, windowBatch } = config.sync
  const count = committed.count ?? 0
  const loop = { ...committed, loaded: Math.min(committed.window, count) }
  if (isLoaded(loop)) {
    return {
      ...loop,
      phase: "running",
      from: 0,
      window: Math.max(count, initialWindow),
      batch: Math.min(loop.batch, windowBatch)
    }
  }
  const isFirst = loop.window <= initialWindow && loop.window < loop.batch
  const end = Math.min(isFirst ? loop.batch : loop.window + loop.batch, count)
  return { ...loop, phase: "settingUp", from: end === count ? 0 : loop.window, window: end }
}

/** Whether a response brought nothing to show. What can't be understood is nothing. */
const isEmpty = ({ extensions: { accountData, receipts = {}, typing = {} }, rooms }: SyncResponse): boolean =>
  rooms.length === 0 &&
  (accountData?.global.length ?? 0) === 0 &&
  [accountData?.rooms ?? {}, receipts, typing].every((byRoom) => Object.keys(byRoom).length === 0)

const polled = (
  config: Config,
  state: Extract<State, { _tag: "Polling" }>,
  input: Extract<Input, { _tag: "Polled" }>
): Step => {
  const { loop, request } = state
  const { response } = input
  // A room that can't be read is in the list all the same.
  const received = new Set([...response.rooms, ...response.quarantined].map(({ roomId }) => roomId))
  const unseen = loop.unseen === undefined ? undefined : new Set([...loop.unseen].filter((id) => !received.has(id)))
  const counted = countOf(response) ?? loop.count
  // A homeserver that never counts gives no end to grow to: the first window is all there is then.
  const answer = { timeoutMillis: request.timeoutMillis, tookMillis: input.tookMillis, isEmpty: isEmpty(response) }
  const answered = {
    ...loop,
    pos: response.pos,
    count: counted ?? 0,
    attempt: 0,
    hasty: SupervisionPolicy.hasty(loop.hasty, answer),
    respondedAtMillis: input.nowMillis
  }
  const settled = isLoaded(answered)
  const next: Loop = {
    ...answered,
    batch: nextBatch(config, loop, response),
    unseen: settled ? undefined : unseen
  }
  const gone = settled && unseen !== undefined && counted !== undefined ? [...unseen] : []
  const isOpen = !settled && unseen !== undefined && unseen.size > 0
  const lists = isOpen || counted === undefined ? {} : { [ROOMS_LIST]: counted }
  return [
    { _tag: "Committing", loop: next, before: loop, asked: state.asked },
    [{ _tag: "Commit", request, response, gone, lists }]
  ]
}

/** What a failure leads to. From `running` the loop recovers with a small window; before that it resumes where it was. */
const failed = (config: Config, loop: Loop, input: Failed): Step => {
  const { failure } = input
  const decision = SupervisionPolicy.decide(config.sync, failure, loop.attempt, input.random)
  const tried = { ...loop, attempt: loop.attempt + 1 }
  switch (decision._tag) {
    case "GiveUp":
      return [{ _tag: "Failed", view: loop.view, failure }, []]
    case "Restart":
      return [{ _tag: "Expiring", loop: tried, delayMillis: decision.delayMillis, failure }, [{ _tag: "Expire" }]]
    case "Retry": {
      const isTooLarge = failure.class === "tooLarge"
      const next = isTooLarge ? { ...tried, batch: smallerBatch(config, loop) } : tried
      return [
        {
          _tag: "BackingOff",
          loop: loop.phase === "running" || isTooLarge ? recovering(config, next) : next,
          failure,
          untilMillis: input.nowMillis + decision.delayMillis
        },
        [{ _tag: "Wait", millis: decision.delayMillis }]
      ]
    }
  }
}

const freshLoop = (config: Config, view: View, input: Extract<Input, { _tag: "Loaded" }>): Loop => ({
  phase: "init",
  pos: input.pos,
  view,
  answered: undefined,
  count: input.count,
  from: 0,
  window: config.sync.initialWindow,
  batch: config.sync.windowBatch,
  attempt: 0,
  hasty: 0,
  respondedAtMillis: input.nowMillis,
  loaded: 0,
  unseen: input.pos === undefined ? new Set(input.rooms) : undefined,
  epoch: 0
})

/** Goes on from the stored position; or begins again, when that of a start that was cut short is stored. */
const loaded = (config: Config, view: View, input: Extract<Input, { _tag: "Loaded" }>): Step => {
  const loop = freshLoop(config, view, input)
  if (input.pos === undefined || input.count !== undefined) return poll(config, loop, input.nowMillis)
  const message = "The last start was cut short before every room was seen again, so the connection starts afresh."
  return [
    // Without a position also if the store refuses to drop it: a commit is refused then, and it is dropped after that.
    { _tag: "Expiring", loop: { ...loop, pos: undefined }, delayMillis: 0, failure: { class: "expired", message } },
    [{ _tag: "Expire" }]
  ]
}

const loading = (config: Config, state: Extract<State, { _tag: "Loading" }>, input: Input): Step => {
  switch (input._tag) {
    case "Loaded":
      return loaded(config, state.view, input)
    case "LoadFailed": {
      const decision = SupervisionPolicy.decide(config.sync, input.failure, state.attempt, input.random)
      if (decision._tag === "GiveUp") return [{ _tag: "Failed", view: state.view, failure: input.failure }, []]
      return [
        {
          _tag: "LoadBackingOff",
          view: state.view,
          attempt: state.attempt + 1,
          failure: input.failure,
          untilMillis: input.nowMillis + decision.delayMillis
        },
        [{ _tag: "Wait", millis: decision.delayMillis }]
      ]
    }
    case "ViewChanged":
      return [{ ...state, view: input.view }, []]
    default:
      return [state, []]
  }
}

const polling = (config: Config, state: Extract<State, { _tag: "Polling" }>, input: Input): Step => {
  switch (input._tag) {
    case "ViewChanged": {
      const next = { ...state, loop: { ...state.loop, view: input.view } }
      const held = state.request.timeoutMillis > 0 && !state.aborting
      return held ? [{ ...next, aborting: true }, [{ _tag: "AbortPoll", epoch: state.loop.epoch }]] : [next, []]
    }
    case "Polled":
      return input.epoch === state.loop.epoch ? polled(config, state, input) : [state, []]
    case "PollFailed":
      return input.epoch === state.loop.epoch ? failed(config, state.loop, input) : [state, []]
    case "PollAborted":
      return input.epoch === state.loop.epoch ? poll(config, state.loop, input.nowMillis) : [state, []]
    default:
      return [state, []]
  }
}

/** Asks again, at once or after a rest. */
const committed = (
  config: Config,
  state: Extract<State, { _tag: "Committing" }>,
  input: Extract<Input, { _tag: "Committed" }>
): Step => {
  const loop = { ...grown(config, state.loop), answered: state.asked }
  const millis = SupervisionPolicy.restMillis(config.sync, loop.hasty, input.random)
  if (millis === undefined) return poll(config, loop, input.nowMillis)
  return [
    {
      _tag: "BackingOff",
      loop,
      failure: SupervisionPolicy.hastyFailure,
      untilMillis: input.nowMillis + millis
    },
    [{ _tag: "Wait", millis }]
  ]
}

const committing = (config: Config, state: Extract<State, { _tag: "Committing" }>, input: Input): Step => {
  switch (input._tag) {
    case "Committed":
      return committed(config, state, input)
    case "CommitFailed":
      // Nothing of the response is durable: the same position is sent again, and the homeserver says the same again.
      return failed(config, { ...state.before, view: state.loop.view }, input)
    case "ViewChanged":
      return [{ ...state, loop: { ...state.loop, view: input.view } }, []]
    default:
      return [state, []]
  }
}

const expiring = (config: Config, state: Extract<State, { _tag: "Expiring" }>, input: Input): Step => {
  switch (input._tag) {
    case "Expired": {
      const loop: Loop = {
        ...recovering(config, state.loop),
        pos: undefined,
        count: undefined,
        unseen: new Set(input.rooms)
      }
      if (state.delayMillis === 0) return poll(config, loop, input.nowMillis)
      return [
        { _tag: "BackingOff", loop, failure: state.failure, untilMillis: input.nowMillis + state.delayMillis },
        [{ _tag: "Wait", millis: state.delayMillis }]
      ]
    }
    case "CommitFailed":
      return failed(config, state.loop, input)
    case "ViewChanged":
      return [{ ...state, loop: { ...state.loop, view: input.view } }, []]
    default:
      return [state, []]
  }
}

const backingOff = (config: Config, state: Extract<State, { _tag: "BackingOff" }>, input: Input): Step => {
  switch (input._tag) {
    case "BackoffElapsed":
    case "Retry":
      return poll(config, state.loop, input.nowMillis)
    case "ViewChanged":
      return [{ ...state, loop: { ...state.loop, view: input.view } }, []]
    default:
      return [state, []]
  }
}

const viewOf = (state: State): View => ("loop" in state ? state.loop.view : state.view)

/** A view that was overtaken by a newer one on its way here. */
const isOvertaken = (state: State, input: Input): boolean =>
  input._tag === "ViewChanged" && input.view.revision <= viewOf(state).revision

const start = (view: View): Step => [{ _tag: "Loading", view, attempt: 0 }, [{ _tag: "Load" }]]

/** What follows from an input. Inputs that don't belong to the state are late answers and change nothing. */
export const step = (config: Config, state: State, input: Input): Step => {
  if (isOvertaken(state, input)) return [state, []]
  switch (state._tag) {
    case "Idle":
    case "Failed":
      if (input._tag === "Start") return start(state.view)
      return input._tag === "ViewChanged" ? [{ ...state, view: input.view }, []] : [state, []]
    case "Loading":
      return loading(config, state, input)
    case "LoadBackingOff":
      if (input._tag === "BackoffElapsed" || input._tag === "Retry") {
        return [{ _tag: "Loading", view: state.view, attempt: state.attempt }, [{ _tag: "Load" }]]
      }
      return input._tag === "ViewChanged" ? [{ ...state, view: input.view }, []] : [state, []]
    case "Polling":
      return polling(config, state, input)
    case "Committing":
      return committing(config, state, input)
    case "Expiring":
      return expiring(config, state, input)
    case "BackingOff":
      return backingOff(config, state, input)
  }
}
