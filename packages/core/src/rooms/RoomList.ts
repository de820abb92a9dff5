/**
 * The rooms as the application sees them: all of them, one of them, or live views with filter, order and pages.
 *
 * Invariants: I6 (nothing appears here that wasn't given to `publish` or `reset`, which the main loop alone calls, after its
 * commit), I10 (a subscriber that is slow costs one page and `SyncConfig.diffBacklog` changes, never more: it is given the
 * whole list again instead).
 *
 * Gotchas: what belongs together changes together, in one `Ref`. Subscribers are only woken; each then reads the newest
 * state, so that nobody holds up the main loop, and states in between may go unseen.
 *
 * Not here: the decisions of a view (`RoomListMachine.ts`), windows and subscriptions at the homeserver (main loop).
 */
import { Context, Effect, HashMap, Layer, Option, PubSub, Ref, type Scope, Stream } from "effect"
import type { RoomId } from "../matrix/MatrixEvent.ts"
import { SyncConfig } from "../sync/SyncConfig.ts"
import type { Diff } from "./ListDiff.ts"
import type { KnownRooms, Room } from "./Room.ts"
import type { RoomFilter } from "./RoomFilters.ts"
import * as RoomListMachine from "./RoomListMachine.ts"

/** What one commit of the main loop changed. */
export interface RoomListUpdate {
  /** New values of rooms that changed or came. */
  readonly changed: ReadonlyArray<Room>
  /** Rooms that are no longer known. */
  readonly removed?: ReadonlyArray<RoomId>
  /** Rooms in each list, as counted by the homeserver; absent or empty if it didn't count. */
  readonly lists?: { readonly [key: string]: number }
}

/** Everything that a connection knows, as `SyncStore.loadMain` gives it. */
export interface RoomListSnapshot {
  readonly rooms: ReadonlyArray<Room>
  readonly lists?: { readonly [key: string]: number }
}

/** A live view. It ends with the scope in which it was made. */
export interface RoomListEntries {
  /**
   * The entries and their changes, first a `Reset`. Never an empty series.
   *
   * For one consumer: what one has been given, another won't see. Ends when the scope of the view closes.
   */
  readonly stream: Stream.Stream<ReadonlyArray<Diff<Room>>>
  /** Shows other rooms; yields a `Reset`. The number of pages stays. */
  setFilter(filter: RoomFilter): Effect.Effect<void>
  /** Shows one page more. */
  readonly addOnePage: Effect.Effect<void>
  /** Shows the first page only. */
  readonly resetToOnePage: Effect.Effect<void>
}

interface View {
  readonly machine: RoomListMachine.RoomListView
  /** Changes that the consumer hasn't taken yet. */
  readonly pending: ReadonlyArray<Diff<Room>>
}

interface State {
  readonly rooms: RoomListMachine.Rooms
  readonly loading: RoomListMachine.LoadingState
  readonly views: ReadonlyMap<number, View>
  readonly nextView: number
}

const empty: State = { rooms: HashMap.empty(), loading: RoomListMachine.notLoaded, views: new Map(), nextView: 0 }

/** Adds to what is pending: a `Reset` voids what was before it, and too long a backlog becomes one. */
const enqueue = (view: View, [machine, changes]: RoomListMachine.Step, backlog: number): View => {
  const lastReset = changes.findLastIndex(({ _tag }) => _tag === "Reset")
  const pending = lastReset === -1 ? [...view.pending, ...changes] : changes.slice(lastReset)
  return { machine, pending: pending.length > backlog ? [RoomListMachine.reset(machine)] : pending }
}

const stepView = (view: View, input: RoomListMachine.RoomListInput, backlog: number): View =>
  enqueue(view, RoomListMachine.step(view.machine, input), backlog)

const stepViews = (state: State, input: RoomListMachine.RoomListInput, backlog: number): State["views"] =>
  new Map([...state.views].map(([id, view]) => [id, stepView(view, input, backlog)]))

const publishTo = (state: State, { changed, lists = {}, removed = [] }: RoomListUpdate, backlog: number): State => {
  const loading = RoomListMachine.load(state.loading, lists)
  if (changed.length === 0 && removed.length === 0) return { ...state, loading }
  const present = HashMap.setMany(
    state.rooms,
    changed.map((room) => [room.roomId, room] as const)
  )
  const rooms = HashMap.removeMany(present, removed)
  const touched = [...changed.map((room) => room.roomId), ...removed]
  return { ...state, rooms, loading, views: stepViews(state, { _tag: "Update", rooms, touched }, backlog) }
}

const resetTo = (state: State, { lists = {}, rooms: given }: RoomListSnapshot, backlog: number): State => {
  const rooms = HashMap.fromIterable(given.map((room) => [room.roomId, room] as const))
  const loading = RoomListMachine.load(state.loading, lists)
  return { ...state, rooms, loading, views: stepViews(state, { _tag: "Replace", rooms }, backlog) }
}

const addView = (state: State, options: RoomListMachine.ViewOptions): readonly [number, State] => {
  const machine = RoomListMachine.make(state.rooms, options)
  const views = new Map(state.views).set(state.nextView, { machine, pending: [RoomListMachine.reset(machine)] })
  return [state.nextView, { ...state, views, nextView: state.nextView + 1 }]
}

const changeView = (state: State, id: number, change: (view: View) => View): State => {
  const view = state.views.get(id)
  return view === undefined ? state : { ...state, views: new Map(state.views).set(id, change(view)) }
}

const removeView = (state: State, id: number): State => {
  const views = new Map(state.views)
  views.delete(id)
  return { ...state, views }
}

const takePending = (state: State, id: number): readonly [ReadonlyArray<Diff<Room>>, State] => [
  state.views.get(id)?.pending ?? [],
  changeView(state, id, (view) => ({ ...view, pending: [] }))
]

const roomIn = (state: State, roomId: RoomId): Room | undefined =>
  Option.getOrUndefined(HashMap.get(state.rooms, roomId))

const knownRooms = (state: State): KnownRooms => ({
  get: (roomId) => roomIn(state, roomId),
  keys: () => HashMap.keys(state.rooms)
})

/** Identity tells whether a value is another one: a changed room is another object. */
const isSame = <A>(left: A, right: A): boolean => left === right

export class RoomList extends Context.Service<
  RoomList,
  {
    /** Tells what a commit changed. Only the main loop calls it, after the commit (invariant I6). */
    publish(update: RoomListUpdate): Effect.Effect<void>
    /** Replaces everything, each view's list too; the loading state never goes back. Only the main loop calls it. */
    reset(snapshot: RoomListSnapshot): Effect.Effect<void>
    /** A live view, until the scope closes. */
    entries(options?: RoomListMachine.ViewOptions): Effect.Effect<RoomListEntries, never, Scope.Scope>
    /** One room, or `undefined` if it isn't known. */
    get(roomId: RoomId): Effect.Effect<Room | undefined>
    /** One room as it changes: its value at first, `undefined` while it isn't known. */
    changes(roomId: RoomId): Stream.Stream<Room | undefined>
    /** All rooms as they are, by id; a snapshot that costs nothing. */
    readonly all: Effect.Effect<KnownRooms>
    /** All rooms, in no particular order. */
    readonly rooms: Effect.Effect<ReadonlyArray<Room>>
    /** Whether the homeserver has said how many rooms there are. */
    readonly loading: Effect.Effect<RoomListMachine.LoadingState>
    /** The same as it changes, from its value at first. */
    readonly loadingState: Stream.Stream<RoomListMachine.LoadingState>
  }
>()("@twinloop/core/RoomList") {}

type Change = (apply: (state: State) => State) => Effect.Effect<void>

const makeEntries = Effect.fnUntraced(function* (
  state: Ref.Ref<State>,
  changed: PubSub.PubSub<void>,
  change: Change,
  backlog: number,
  options: RoomListMachine.ViewOptions
): Effect.fn.Return<RoomListEntries, never, Scope.Scope> {
  const wakeUps = yield* PubSub.subscribe(changed)
  const id = yield* Effect.acquireRelease(
    Ref.modify(state, (current) => addView(current, options)),
    (id) => Ref.update(state, (current) => removeView(current, id))
  )
  const send = (input: RoomListMachine.RoomListInput): Effect.Effect<void> =>
    change((current) => changeView(current, id, (view) => stepView(view, input, backlog)))
  return {
    stream: Stream.fromSubscription(wakeUps).pipe(
      Stream.mapEffect(() => Ref.modify(state, (current) => takePending(current, id))),
      Stream.filter((changes) => changes.length > 0)
    ),
    setFilter: (filter) => send({ _tag: "SetFilter", filter }),
    addOnePage: send({ _tag: "AddOnePage" }),
    resetToOnePage: send({ _tag: "ResetToOnePage" })
  }
})

/** An empty room list, not loaded. Its streams end when the scope closes. */
export const make: Effect.Effect<RoomList["Service"], never, Scope.Scope> = Effect.gen(function* () {
  const { diffBacklog } = yield* SyncConfig
  const state = yield* Ref.make(empty)
  // One wake-up is as good as many, so one is kept; it is replayed, so that a new subscriber starts with what is.
  const changed = yield* Effect.acquireRelease(PubSub.sliding<void>({ capacity: 1, replay: 1 }), PubSub.shutdown)
  yield* PubSub.publish(changed, undefined)
  const change: Change = (apply) => Effect.andThen(Ref.update(state, apply), PubSub.publish(changed, undefined))
  const follow = <A>(read: (state: State) => A): Stream.Stream<A> =>
    Stream.fromPubSub(changed).pipe(
      Stream.mapEffect(() => Effect.map(Ref.get(state), read)),
      Stream.changesWith(isSame)
    )
  return RoomList.of({
    publish: (update) => change((current) => publishTo(current, update, diffBacklog)),
    reset: (snapshot) => change((current) => resetTo(current, snapshot, diffBacklog)),
    entries: (options = {}) => makeEntries(state, changed, change, diffBacklog, options),
    get: (roomId) => Effect.map(Ref.get(state), (current) => roomIn(current, roomId)),
    changes: (roomId) => follow((current) => roomIn(current, roomId)),
    all: Effect.map(Ref.get(state), knownRooms),
    rooms: Effect.map(Ref.get(state), (current) => HashMap.toValues(current.rooms)),
    loading: Effect.map(Ref.get(state), (current) => current.loading),
    loadingState: follow((current) => current.loading)
  })
})

/** A room list of its own per build of the layer. */
export const layer: Layer.Layer<RoomList> = Layer.effect(RoomList, make)
