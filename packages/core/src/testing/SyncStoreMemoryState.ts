/**
 * What `SyncStoreMemory` holds, as one immutable value, and the transactions on it as pure functions.
 *
 * A transaction gives the next value or a refusal, so that a refused or failed one has changed nothing.
 */
import { Result } from "effect"
import type { Fence } from "../lease/Lease.ts"
import type { EphemeralEvent, RoomId, StateDeletion, StateEvent } from "../matrix/MatrixEvent.ts"
import type { Room } from "../rooms/Room.ts"
import { Moved } from "../sync/StoreError.ts"
import { ENCRYPTION_NEWS_KEPT } from "../sync/SyncStore.ts"
import type {
  CryptoCommit,
  CryptoWrite,
  EncryptionNewsEntry,
  ExtensionCommit,
  ExtensionPosition,
  InboxEntry,
  MainCommit,
  QuarantineEntry,
  RoomCommit,
  TimelineEntry
} from "../sync/SyncStore.ts"
import * as TimelineOrder from "../sync/TimelineOrder.ts"

/** A room as one connection sees it. */
export interface RoomRecord {
  readonly room: Room
  /** By {@link stateKeyOf}. */
  readonly state: ReadonlyMap<string, StateEvent>
  readonly timeline: ReadonlyArray<TimelineEntry>
}

/** What belongs to one connection. */
export interface ConnectionRecord {
  readonly pos?: string
  readonly lists: { readonly [key: string]: number }
  readonly rooms: ReadonlyMap<RoomId, RoomRecord>
  /** By {@link accountDataKeyOf}. */
  readonly accountData: ReadonlyMap<string, EphemeralEvent>
}

/** A stored record of the crypto engine. */
export interface CryptoRecord {
  readonly collection: string
  readonly key: Uint8Array
  readonly value: Uint8Array
}

/** Everything that is stored. */
export interface State {
  readonly position: ExtensionPosition
  readonly inbox: ReadonlyArray<InboxEntry>
  readonly lastSequence: number
  readonly cursors: ReadonlyMap<string, number>
  readonly crypto: ReadonlyMap<string, CryptoRecord>
  /** Oldest first. */
  readonly news: ReadonlyArray<EncryptionNewsEntry>
  readonly connections: ReadonlyMap<string, ConnectionRecord>
  /** Oldest first. */
  readonly quarantine: ReadonlyArray<QuarantineEntry>
  readonly quarantineCount: number
}

/** The answer to the caller and the next value, or the refusal. */
export type Step<A> = Result.Result<readonly [A, State], Moved>

/** When it happens, and how many quarantined things stay. */
export interface QuarantineOptions {
  readonly nowMillis: number
  readonly kept: number
}

/** Nothing stored. */
export const empty: State = {
  position: {},
  inbox: [],
  lastSequence: 0,
  cursors: new Map(),
  crypto: new Map(),
  news: [],
  connections: new Map(),
  quarantine: [],
  quarantineCount: 0
}

const emptyConnection: ConnectionRecord = { lists: {}, rooms: new Map(), accountData: new Map() }

/** Key of a piece of state. */
export const stateKeyOf = (event: { readonly type: string; readonly state_key: string }): string =>
  JSON.stringify([event.type, event.state_key])

/** Key of a piece of account data, global without a room. */
export const accountDataKeyOf = (type: string, roomId?: RoomId): string => JSON.stringify([roomId ?? null, type])

/** What a real store keeps of a value: its JSON. Throws, as a real store does, on what JSON can't say. */
const stored = <A>(value: A): A => JSON.parse(JSON.stringify(value)) as A

const moved = (token: "since" | "pos", sent: string | undefined, is: string | undefined): Moved =>
  new Moved({
    message: `the request was sent with ${token} ${sent ?? "absent"}, but ${is ?? "absent"} is stored, nothing was written; drop the response and read the position again`,
    token,
    ...(sent === undefined ? {} : { sent }),
    ...(is === undefined ? {} : { stored: is })
  })

const withQuarantine = (state: State, things: ExtensionCommit["quarantined"], options: QuarantineOptions): State => {
  const added = stored(things).map((thing, index) => ({
    ...thing,
    id: state.quarantineCount + index + 1,
    atMillis: options.nowMillis
  }))
  const quarantine = [...state.quarantine, ...added]
  return {
    ...state,
    quarantine: quarantine.slice(Math.max(0, quarantine.length - options.kept)),
    quarantineCount: state.quarantineCount + added.length
  }
}

const withCrypto = (
  records: ReadonlyMap<string, CryptoRecord>,
  writes: ReadonlyArray<CryptoWrite>
): ReadonlyMap<string, CryptoRecord> => {
  const next = new Map(records)
  for (const { collection, key, value } of writes) {
    const id = JSON.stringify([collection, [...key]])
    if (value === null) next.delete(id)
    else next.set(id, { collection, key: key.slice(), value: value.slice() })
  }
  return next
}

/** The engine's records and its news, after the fence was found to stand. */
export const commitCrypto = (state: State, { crypto, news = [] }: CryptoCommit): State => {
  const last = state.news.at(-1)?.sequence ?? 0
  const entries = stored(news).map((piece, index) => ({ sequence: last + index + 1, news: piece }))
  return {
    ...state,
    crypto: withCrypto(state.crypto, crypto),
    news: [...state.news, ...entries].slice(-ENCRYPTION_NEWS_KEPT)
  }
}

/** The fenced commit, after the fence was found to stand. */
export const commitExtension = (
  state: State,
  fence: Fence,
  commit: ExtensionCommit,
  options: QuarantineOptions
): Step<ReadonlyArray<InboxEntry>> => {
  if (state.position.since !== commit.sentSince) {
    return Result.fail(moved("since", commit.sentSince, state.position.since))
  }
  const entries = stored(commit.inbox).map((event, index) => ({
    ...event,
    sequence: state.lastSequence + index + 1,
    generation: fence.generation
  }))
  const next: State = {
    ...commitCrypto(state, commit),
    position: stored(commit.position),
    inbox: [...state.inbox, ...entries],
    lastSequence: state.lastSequence + entries.length
  }
  return Result.succeed([entries, withQuarantine(next, commit.quarantined, options)])
}

/** Drops the extension connection's `pos`. */
export const expireExtension = (state: State): State => {
  const { pos: _, ...position } = state.position
  return { ...state, position }
}

const withState = (
  state: ReadonlyMap<string, StateEvent>,
  changes: ReadonlyArray<StateEvent | StateDeletion>
): ReadonlyMap<string, StateEvent> => {
  const next = new Map(state)
  for (const change of stored(changes)) {
    if ("content" in change) next.set(stateKeyOf(change), change)
    else next.delete(stateKeyOf(change))
  }
  return next
}

const storedTimeline = (entries: ReadonlyArray<TimelineEntry>): TimelineOrder.StoredTimeline => {
  const indexes = new Map(
    entries.flatMap((entry) => (entry._tag === "Event" ? [[entry.event.event_id, entry.index] as const] : []))
  )
  return {
    indexOf: (eventId) => indexes.get(eventId),
    last: (before = Infinity) => {
      const entry = entries.findLast((entry) => entry.index < before)
      return entry === undefined ? undefined : { index: entry.index, isGap: entry._tag === "Gap" }
    }
  }
}

const withTimeline = (entries: ReadonlyArray<TimelineEntry>, commit: RoomCommit): ReadonlyArray<TimelineEntry> => {
  const placed = TimelineOrder.place(storedTimeline(entries), stored(commit.timeline), commit.gap)
  const { closed, gap, events } = placed
  const byIndex = new Map(entries.map((entry) => [entry.index, entry]))
  for (const index of closed) byIndex.delete(index)
  if (gap !== undefined) byIndex.set(gap.index, { _tag: "Gap", ...gap })
  for (const { index, event } of events) byIndex.set(index, { _tag: "Event", index, event })
  return [...byIndex.values()].sort((a, b) => a.index - b.index)
}

const withRoom = (before: RoomRecord | undefined, commit: RoomCommit): RoomRecord => {
  const kept = commit.replace ? undefined : before
  return {
    room: stored({ ...commit.room, typing: [] }),
    state: withState(kept?.state ?? new Map(), commit.state),
    timeline: withTimeline(kept?.timeline ?? [], commit)
  }
}

const withPage = (connection: ConnectionRecord, commit: MainCommit): ConnectionRecord => {
  const rooms = new Map(connection.rooms)
  const accountData = new Map(connection.accountData)
  for (const event of stored(commit.accountData)) accountData.set(accountDataKeyOf(event.type), event)
  for (const change of commit.rooms) {
    const { roomId } = change.room
    rooms.set(roomId, withRoom(rooms.get(roomId), change))
    for (const event of stored(change.accountData)) accountData.set(accountDataKeyOf(event.type, roomId), event)
  }
  for (const [roomId, events] of Object.entries(commit.roomAccountData ?? {})) {
    for (const event of stored(events)) accountData.set(accountDataKeyOf(event.type, roomId), event)
  }
  return { pos: commit.pos, lists: stored(commit.lists), rooms, accountData }
}

/** What belongs to a connection, empty for a new one. */
export const connectionOf = (state: State, connId: string): ConnectionRecord =>
  state.connections.get(connId) ?? emptyConnection

const withConnection = (state: State, connId: string, connection: ConnectionRecord): State => ({
  ...state,
  connections: new Map(state.connections).set(connId, connection)
})

/** Writes one page. */
export const commitMain = (state: State, commit: MainCommit, options: QuarantineOptions): Step<void> => {
  const connection = connectionOf(state, commit.connId)
  if (connection.pos !== commit.sentPos) return Result.fail(moved("pos", commit.sentPos, connection.pos))
  const next = withConnection(state, commit.connId, withPage(connection, commit))
  return Result.succeed([undefined, withQuarantine(next, commit.quarantined, options)])
}

/** Drops a connection's `pos`. */
export const expireMain = (state: State, connId: string): State => {
  const { pos: _, ...connection } = connectionOf(state, connId)
  return withConnection(state, connId, connection)
}

/** Moves a cursor forward, never beyond the last row, and deletes rows that all have read, except the newest `keep`. */
export const advanceInbox = (
  state: State,
  request: { readonly consumer: string; readonly sequence: number; readonly keep: number }
): State => {
  const target = Math.min(request.sequence, state.lastSequence)
  const cursors = new Map(state.cursors)
  cursors.set(request.consumer, Math.max(target, cursors.get(request.consumer) ?? 0))
  const readByAll = Math.min(...cursors.values(), state.lastSequence - request.keep)
  return { ...state, cursors, inbox: state.inbox.filter((entry) => entry.sequence > readByAll) }
}

/** Removes a cursor, so that rows no longer wait for it. */
export const forgetConsumer = (state: State, consumer: string): State => ({
  ...state,
  cursors: new Map([...state.cursors].filter(([other]) => other !== consumer))
})
