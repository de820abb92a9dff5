/**
 * What the homeserver model tells about rooms in a sliding sync: lists, windows, subscriptions, and the news of one room.
 *
 * News are reckoned from what this connection was sent of the room before (`RoomStatus`), not from the request's position:
 * a room that fell out of the window and comes back continues where it stopped, with a gap if it must.
 *
 * Source: MSC4186; order, membership and optional members as Synapse has them.
 */
import type { RoomId, StateEvent, TimelineEvent, UserId } from "../../matrix/MatrixEvent.ts"
import type { Hero, ListFilters, RoomUpdate, SyncRequest } from "../../matrix/SlidingSync.ts"
import { emptyRoomUpdate } from "../../matrix/SlidingSync.ts"
import type { ModelState, Requester, Room, StoredEvent, User, UserRoom } from "./ModelState.ts"
import { firstAfter } from "./ModelState.ts"
import { strippedState, tokenAt, visibleEnd } from "./RoomHistory.ts"
import { isBump, shown, stateEvent, stateText } from "./Rooms.ts"
import * as StateSelection from "./StateSelection.ts"

/** What one connection was sent of one room. */
export interface RoomStatus {
  /** Everything up to this stream number. */
  readonly sentUpTo: number
  readonly membership: string
  readonly timelineLimit: number
  readonly selection: StateSelection.StateSelection
  /** Members who were sent because they appeared in the timeline. */
  readonly lazySent: ReadonlySet<UserId>
  /** Receipts and account data, up to these stream numbers. */
  readonly receiptsUpTo: number
  readonly accountDataUpTo: number
}

/** A room that the request asks for, with the union of what its lists and its subscription want. */
export interface WantedRoom {
  readonly userRoom: UserRoom
  timelineLimit: number
  selection: StateSelection.StateSelection
  readonly lists: Array<string>
}

const recency = ({ room, membership, memberStream }: UserRoom): number =>
  membership === "join" ? room.lastStream : memberStream

/** The user's rooms, most recent first. Sorting again is nearly free, since little has moved. */
export const sortedRooms = (user: User): ReadonlyArray<UserRoom> => {
  if (user.unsorted) {
    user.sortedRooms.sort((a, b) => recency(b) - recency(a))
    user.unsorted = false
  }
  return user.sortedRooms
}

/** Rooms that one left by oneself are listed only when that is news. */
const isListed = ({ leftBySelf, memberStream }: UserRoom, fromStream: number | undefined): boolean =>
  !leftBySelf || (fromStream !== undefined && memberStream > fromStream)

const hasTag = (userRoom: UserRoom, tags: ReadonlyArray<string>): boolean => {
  const own = userRoom.accountData.get("m.tag")?.content.tags
  return typeof own === "object" && own !== null && tags.some((tag) => tag in own)
}

const inSpace = (state: ModelState, roomId: RoomId, spaces: ReadonlyArray<RoomId>): boolean =>
  spaces.some((space) => {
    const child = state.rooms.get(space)?.state.get("m.space.child")?.get(roomId)
    return child !== undefined && Array.isArray(child.event.content.via)
  })

const passesTypes = (room: Room, { roomTypes, notRoomTypes }: ListFilters): boolean => {
  if (roomTypes === undefined && notRoomTypes === undefined) return true
  const type = stateText(room, "m.room.create", "type") ?? null
  return (roomTypes === undefined || roomTypes.includes(type)) && notRoomTypes?.includes(type) !== true
}

const passes = (state: ModelState, user: User, userRoom: UserRoom, filters: ListFilters): boolean => {
  const { room } = userRoom
  return (
    passesTypes(room, filters) &&
    (filters.isDm === undefined || filters.isDm === user.directRooms.has(room.roomId)) &&
    (filters.isEncrypted === undefined || filters.isEncrypted === room.state.has("m.room.encryption")) &&
    (filters.isInvite === undefined || filters.isInvite === (userRoom.membership === "invite")) &&
    (filters.tags === undefined || hasTag(userRoom, filters.tags)) &&
    (filters.notTags === undefined || !hasTag(userRoom, filters.notTags)) &&
    (filters.spaces === undefined || inSpace(state, room.roomId, filters.spaces))
  )
}

/** The rooms that a request asks for, and how many each of its lists has in all. */
export const wanted = (
  state: ModelState,
  { user }: Requester,
  request: SyncRequest,
  fromStream: number | undefined
): {
  readonly rooms: ReadonlyMap<RoomId, WantedRoom>
  readonly counts: { readonly [list: string]: { readonly count: number } }
} => {
  const rooms = new Map<RoomId, WantedRoom>()
  const want = (userRoom: UserRoom, timelineLimit: number, selection: StateSelection.StateSelection, list?: string) => {
    const known = rooms.get(userRoom.room.roomId)
    if (known === undefined) {
      rooms.set(userRoom.room.roomId, { userRoom, timelineLimit, selection, lists: list === undefined ? [] : [list] })
      return
    }
    known.timelineLimit = Math.max(known.timelineLimit, timelineLimit)
    known.selection = StateSelection.union(state, user.userId, known.selection, selection)
    if (list !== undefined) known.lists.push(list)
  }
  const counts: Array<readonly [string, { readonly count: number }]> = []
  for (const [name, list] of Object.entries(request.lists)) {
    const { filters = {} } = list
    const selection = StateSelection.select(state, user.userId, list.requiredState)
    const matching = sortedRooms(user).filter(
      (userRoom) => isListed(userRoom, fromStream) && passes(state, user, userRoom, filters)
    )
    counts.push([name, { count: matching.length }])
    for (const userRoom of matching.slice(list.range[0], list.range[1] + 1))
      want(userRoom, list.timelineLimit, selection, name)
  }
  for (const [roomId, params] of Object.entries(request.roomSubscriptions)) {
    const userRoom = user.rooms.get(roomId)
    // A subscription to a room that one has nothing to do with is ignored without a word, as on Synapse.
    if (userRoom !== undefined)
      want(userRoom, params.timelineLimit, StateSelection.select(state, user.userId, params.requiredState))
  }
  return { rooms, counts: Object.fromEntries(counts) }
}

/** The news of one room, and what the connection knows of it afterwards. */
export interface RoomNews {
  readonly update: RoomUpdate
  readonly status: RoomStatus
}

const inviteNews = (
  state: ModelState,
  requester: Requester,
  { userRoom, timelineLimit, selection, lists }: WantedRoom,
  before: RoomStatus | undefined
): RoomNews | undefined => {
  const { room, memberStream, membership } = userRoom
  if (before !== undefined && before.sentUpTo >= memberStream) return undefined
  const name = stateText(room, "m.room.name", "name")
  const avatar = stateText(room, "m.room.avatar", "url")
  return {
    update: {
      ...emptyRoomUpdate(room.roomId),
      initial: true,
      membership,
      lists,
      bumpStamp: memberStream,
      notificationCount: 0,
      highlightCount: 0,
      ...(name !== undefined && { name }),
      ...(avatar !== undefined && { avatar }),
      ...(requester.user.directRooms.has(room.roomId) && { isDm: true }),
      strippedState: strippedState(userRoom, requester)
    },
    status: {
      sentUpTo: state.stream,
      membership,
      timelineLimit,
      selection,
      lazySent: new Set(),
      receiptsUpTo: 0,
      accountDataUpTo: 0
    }
  }
}

const maxHeroes = 5

const heroesOf = (room: Room, me: UserId): ReadonlyArray<Hero> => {
  const others = [...room.members].filter(([userId]) => userId !== me)
  const present = others.filter(([, membership]) => membership === "join" || membership === "invite")
  return (present.length > 0 ? present : others).slice(0, maxHeroes).map(([userId]) => {
    const content = stateEvent(room, "m.room.member", userId)?.event.content ?? {}
    return {
      userId,
      ...(typeof content.displayname === "string" && { displayName: content.displayname }),
      ...(typeof content.avatar_url === "string" && { avatarUrl: content.avatar_url })
    }
  })
}

/** What is new in the room, as far as the user may see it. */
interface Span {
  readonly initial: boolean
  /** The events since the connection was last told, ascending. */
  readonly fresh: ReadonlyArray<StoredEvent>
  readonly timeline: ReadonlyArray<StoredEvent>
  readonly limited: boolean
  readonly expanded: boolean
}

const spanOf = ({ userRoom, timelineLimit }: WantedRoom, before: RoomStatus | undefined): Span => {
  const { timeline } = userRoom.room
  const end = visibleEnd(userRoom)
  const rejoined = before !== undefined && userRoom.membership === "join" && before.membership !== "join"
  const initial = before === undefined || rejoined
  const firstFresh = initial ? 0 : firstAfter(timeline, before.sentUpTo)
  const expanded = !initial && timelineLimit > before.timelineLimit
  const from = expanded ? 0 : firstFresh
  const start = Math.max(from, end - timelineLimit)
  return {
    initial,
    fresh: timeline.slice(firstFresh, Math.max(firstFresh, end)),
    timeline: timelineLimit === 0 ? [] : timeline.slice(start, Math.max(start, end)),
    limited: start > from,
    expanded
  }
}

const memberTarget = ({ event }: StoredEvent): UserId | undefined =>
  event.type === "m.room.member" ? event.state_key : undefined

const lazyMembers = (room: Room, span: Span, sent: ReadonlySet<UserId>): ReadonlyMap<UserId, StoredEvent> => {
  const found = new Map<UserId, StoredEvent>()
  const add = (userId: UserId | undefined): void => {
    const event = userId === undefined ? undefined : stateEvent(room, "m.room.member", userId)
    if (userId !== undefined && event !== undefined) found.set(userId, event)
  }
  for (const stored of span.timeline) if (!sent.has(stored.event.sender)) add(stored.event.sender)
  // A changed membership is told even of those who are known. After a gap only those in sight are.
  for (const stored of span.initial || span.limited ? span.timeline : span.fresh) add(memberTarget(stored))
  return found
}

const requiredState = (
  { userRoom: { room, membership, memberStream }, selection }: WantedRoom,
  before: RoomStatus | undefined,
  span: Span
): { readonly events: ReadonlySet<StoredEvent>; readonly lazySent: ReadonlySet<UserId> } => {
  const sent = span.initial ? new Set<UserId>() : (before?.lazySent ?? new Set<UserId>())
  const events =
    span.initial || before === undefined
      ? StateSelection.stateOf(room, selection.selectors)
      : StateSelection.stateOf(room, StateSelection.added(before.selection, selection))
  if (!span.initial) {
    for (const stored of span.fresh) {
      const { type, state_key } = stored.event
      if (state_key === undefined || stateEvent(room, type, state_key) !== stored) continue
      if (StateSelection.matches(selection, type, state_key)) events.add(stored)
    }
  }
  const lazy = selection.lazy ? lazyMembers(room, span, sent) : new Map<UserId, StoredEvent>()
  lazy.forEach((stored) => events.add(stored))
  // Whoever has left sees the room as it was then.
  if (membership !== "join") for (const stored of events) if (stored.stream > memberStream) events.delete(stored)
  return { events, lazySent: lazy.size === 0 ? sent : new Set([...sent, ...lazy.keys()]) }
}

/** A text that is told when the room is new or its event is among the fresh ones; null when it was removed. */
const newText = (room: Room, span: Span, type: string, member: string): string | null | undefined => {
  const value = stateText(room, type, member)
  if (span.initial) return value
  return span.fresh.some(({ event }) => event.type === type) ? (value ?? null) : undefined
}

/** The news of a room that was joined or left, or undefined when there are none. */
const roomNews = (
  state: ModelState,
  requester: Requester,
  wantedRoom: WantedRoom,
  before: RoomStatus | undefined,
  fromStream: number | undefined
): RoomNews | undefined => {
  const { userRoom, timelineLimit, selection, lists } = wantedRoom
  const { room, membership } = userRoom
  const span = spanOf(wantedRoom, before)
  const isNews =
    span.initial ||
    span.expanded ||
    span.fresh.length > 0 ||
    (before !== undefined && StateSelection.added(before.selection, selection).length > 0)
  if (!isNews) return undefined
  const { events, lazySent } = requiredState(wantedRoom, before, span)
  const name = newText(room, span, "m.room.name", "name")
  const avatar = newText(room, span, "m.room.avatar", "url")
  const membersChanged = span.initial || span.fresh.some((stored) => memberTarget(stored) !== undefined)
  const isJoined = membership === "join"
  const bumped =
    span.initial ||
    span.limited ||
    timelineLimit === 0 ||
    !isJoined ||
    span.timeline.some(({ event }) => isBump(event.type))
  const show = (stored: StoredEvent): TimelineEvent => shown(stored, requester)
  const update: RoomUpdate = {
    ...emptyRoomUpdate(room.roomId),
    initial: span.initial,
    membership,
    lists,
    notificationCount: 0,
    highlightCount: 0,
    ...(bumped && { bumpStamp: room.bumpStamp }),
    ...(membersChanged && isJoined && { joinedCount: room.joinedCount, invitedCount: room.invitedCount }),
    ...(name !== undefined && { name }),
    ...(avatar !== undefined && { avatar }),
    ...(membersChanged &&
      isJoined &&
      stateText(room, "m.room.name", "name") === undefined && { heroes: heroesOf(room, requester.user.userId) }),
    ...(requester.user.directRooms.has(room.roomId) && { isDm: true }),
    requiredState: [...events].map(show) as ReadonlyArray<StateEvent>,
    timeline: span.timeline.map(show),
    expandedTimeline: span.expanded,
    ...(timelineLimit > 0 && {
      limited: span.limited,
      prevBatch: tokenAt(span.timeline[0] === undefined ? state.stream : span.timeline[0].stream - 1),
      numLive: fromStream === undefined ? 0 : span.timeline.length - firstAfter(span.timeline, fromStream)
    })
  }
  const status: RoomStatus = {
    sentUpTo: state.stream,
    membership,
    timelineLimit,
    selection,
    lazySent,
    receiptsUpTo: span.initial ? 0 : (before?.receiptsUpTo ?? 0),
    accountDataUpTo: before?.accountDataUpTo ?? 0
  }
  return { update, status }
}

/** The news of one room for one connection, or undefined when there are none. `fromStream` is the request's position. */
export const news = (
  state: ModelState,
  requester: Requester,
  wantedRoom: WantedRoom,
  before: RoomStatus | undefined,
  fromStream: number | undefined
): RoomNews | undefined => {
  const { membership } = wantedRoom.userRoom
  return membership === "invite" || membership === "knock"
    ? inviteNews(state, requester, wantedRoom, before)
    : roomNews(state, requester, wantedRoom, before, fromStream)
}
