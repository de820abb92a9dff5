/**
 * From one main-loop response to what must be stored and what can then be told: a pure function.
 *
 * Includes the pairing of a response's parts by room: update, account data, receipts, typing; and `m.direct`, which is
 * global and says which rooms are direct chats.
 *
 * Invariants: I6 (it only computes; the caller commits first and publishes `changed` after), I7 (what makes no sense goes to
 * the commit's quarantine with a reason, and the rest of the response is used).
 *
 * Gotchas: no Effect inside, since it runs for every event of every response. Typing isn't durable: a stored room never
 * says who types, and rooms of which only that changed are not in the commit.
 *
 * Not here: decoding the wire (`matrix/SlidingSyncWire.ts`), the transaction (`SyncStore.ts`).
 */
import { Struct } from "effect"
import { reasonToKeep } from "../matrix/MatrixEvent.ts"
import type { EphemeralEvent, Quarantined, QuarantineSource, RoomId, UserId } from "../matrix/MatrixEvent.ts"
import { isCount, type RoomUpdate, type SyncResponse } from "../matrix/SlidingSync.ts"
import type { KnownRooms, Room } from "../rooms/Room.ts"
import * as RoomExtensions from "../rooms/RoomExtensions.ts"
import * as RoomState from "../rooms/RoomState.ts"
import { liveEvents } from "../rooms/RoomTimeline.ts"
import type { MainCommit, RoomCommit } from "./SyncStore.ts"

/** What a response is read with. */
export interface IngestContext {
  readonly ownUserId: UserId
  readonly connId: string
  /** The position that the request carried; `undefined` for the first one. */
  readonly sentPos?: string | undefined
  /** Every room that the connection knows, as of the last commit: a `Map`, or `RoomList.all`. */
  readonly rooms: KnownRooms
  /** Rooms that the homeserver's list no longer has: left while nobody looked. */
  readonly gone?: ReadonlyArray<RoomId>
  /** Rooms in each list, to be stored; if not given, those that the response counts. */
  readonly lists?: { readonly [key: string]: number }
}

/** What a response comes to. */
export interface Ingested {
  /** To be made durable, in one transaction. */
  readonly commit: MainCommit
  /** The new values of the rooms in the commit, to publish after it, each room once. */
  readonly changed: ReadonlyArray<Room>
  /** Rooms in each list, as far as the response counts them: to publish after the commit. */
  readonly lists: { readonly [key: string]: number }
  /** New values of rooms of which only typing changed: to publish, not to store. */
  readonly ephemeral: ReadonlyArray<Room>
}

/** What is known of one room while a response is read. */
interface Draft {
  room: Room
  readonly updates: Array<RoomUpdate>
  accountData: ReadonlyArray<EphemeralEvent>
  /** Whether anything durable changed. */
  isStored: boolean
}

interface Reading {
  readonly context: IngestContext
  readonly drafts: Map<RoomId, Draft>
  readonly quarantined: Array<Quarantined>
}

const quarantine = (
  reading: Reading,
  source: QuarantineSource,
  reason: string,
  raw: unknown,
  roomId?: RoomId
): void => {
  reading.quarantined.push({ source, ...(roomId !== undefined && { roomId }), reason: reasonToKeep(reason), raw })
}

const draftOf = (reading: Reading, roomId: RoomId): Draft | undefined => {
  const draft = reading.drafts.get(roomId)
  if (draft !== undefined) return draft
  const room = reading.context.rooms.get(roomId)
  return room === undefined ? undefined : newDraft(reading, room)
}

const newDraft = (reading: Reading, room: Room): Draft => {
  const draft: Draft = { room, updates: [], accountData: [], isStored: false }
  reading.drafts.set(room.roomId, draft)
  return draft
}

/** Changes a draft durably, unless the change gave the same room back. */
const store = (draft: Draft, room: Room): void => {
  if (room === draft.room) return
  draft.room = room
  draft.isStored = true
}

// --- room updates

const counts = ["joinedCount", "invitedCount", "notificationCount", "highlightCount", "numLive"] as const

/** The members of an update that can't be what they are called. A bump stamp may be negative, for history. */
const absurdNumbers = (update: RoomUpdate): ReadonlyArray<(typeof counts)[number] | "bumpStamp"> => {
  const wrong = counts.filter((key) => {
    const value = update[key]
    return value !== undefined && !isCount(value)
  })
  return update.bumpStamp === undefined || Number.isFinite(update.bumpStamp) ? wrong : [...wrong, "bumpStamp"]
}

/** Leaves out what makes no sense, so that one bad number doesn't cost the room its events. */
const sensible = (reading: Reading, update: RoomUpdate): RoomUpdate => {
  const wrong = absurdNumbers(update)
  for (const key of wrong) {
    quarantine(
      reading,
      "room",
      `The room's ${key} is not a possible number and was ignored.`,
      update[key],
      update.roomId
    )
  }
  return wrong.length === 0 ? update : Struct.omit(update, wrong)
}

const readUpdate = (reading: Reading, given: RoomUpdate): void => {
  const { roomId } = given
  if (!roomId.startsWith("!")) {
    quarantine(reading, "room", `"${roomId}" is not a room id.`, given)
    return
  }
  const update = sensible(reading, given)
  const known = draftOf(reading, roomId)
  const draft = known ?? newDraft(reading, RoomState.apply(undefined, update, reading.context))
  if (known !== undefined) draft.room = RoomState.apply(known.room, update, reading.context)
  draft.updates.push(update)
  draft.isStored = true
}

/** A room that is not in the list is left; the homeserver lists every other membership (MSC4186). */
const readGone = (reading: Reading, gone: ReadonlyArray<RoomId>): void => {
  for (const roomId of gone) {
    const draft = reading.drafts.has(roomId) ? undefined : draftOf(reading, roomId)
    if (draft !== undefined) store(draft, RoomState.leave(draft.room, reading.context))
  }
}

// --- extensions

const readDirect = (reading: Reading, global: ReadonlyArray<EphemeralEvent>): void => {
  const direct = global.findLast((event) => event.type === "m.direct")
  if (direct === undefined) return
  const reason = RoomExtensions.whyNotDirect(direct)
  if (reason !== undefined) quarantine(reading, "accountData", `m.direct was read in part: ${reason}.`, direct)
  const rooms = RoomExtensions.directRooms(direct)
  for (const roomId of new Set([...reading.context.rooms.keys(), ...reading.drafts.keys()])) {
    const room = reading.drafts.get(roomId)?.room ?? reading.context.rooms.get(roomId)
    if (room === undefined) continue
    const isDm = rooms.has(roomId) || room.invite?.isDirect === true
    const changed = RoomState.setDm(room, isDm, reading.context)
    if (changed !== room) store(draftOf(reading, roomId) ?? newDraft(reading, room), changed)
  }
}

/** Account data stays raw in the commit, readable or not; gives back that of rooms which aren't known. */
const readAccountData = (
  reading: Reading,
  rooms: { readonly [roomId: RoomId]: ReadonlyArray<EphemeralEvent> }
): { readonly [roomId: RoomId]: ReadonlyArray<EphemeralEvent> } => {
  const unknown: Array<readonly [RoomId, ReadonlyArray<EphemeralEvent>]> = []
  for (const [roomId, events] of Object.entries(rooms)) {
    if (events.length === 0) continue
    for (const event of events) {
      const reason = RoomExtensions.whyNotAccountData(event)
      if (reason !== undefined) quarantine(reading, "accountData", `${event.type}: ${reason}.`, event, roomId)
    }
    const draft = draftOf(reading, roomId)
    if (draft === undefined) {
      unknown.push([roomId, events])
    } else {
      draft.accountData = [...draft.accountData, ...events]
      draft.isStored = true
      draft.room = RoomExtensions.applyAllAccountData(draft.room, events)
    }
  }
  return Object.fromEntries(unknown)
}

const readReceipts = (reading: Reading, receipts: { readonly [roomId: RoomId]: EphemeralEvent }): void => {
  const { ownUserId } = reading.context
  for (const [roomId, event] of Object.entries(receipts)) {
    const reason = RoomExtensions.whyNotReceipts(event)
    if (reason !== undefined) quarantine(reading, "receipts", `m.receipt was read in part: ${reason}.`, event, roomId)
    const draft = draftOf(reading, roomId)
    if (draft !== undefined) {
      const timeline = draft.updates.flatMap((update) => update.timeline)
      const live = draft.updates.flatMap(liveEvents)
      store(draft, RoomExtensions.applyReceipts(draft.room, event, { ownUserId, timeline, live }))
    } else if (RoomExtensions.ownReceipt(event, ownUserId) !== undefined) {
      quarantine(reading, "receipts", "It is a receipt for a room that isn't known.", event, roomId)
    }
  }
}

const readTyping = (reading: Reading, typing: { readonly [roomId: RoomId]: EphemeralEvent }): void => {
  for (const [roomId, event] of Object.entries(typing)) {
    const reason = RoomExtensions.whyNotTyping(event)
    const draft = draftOf(reading, roomId)
    if (reason !== undefined) quarantine(reading, "typing", `m.typing was not read: ${reason}.`, event, roomId)
    // Who types in a room that isn't known concerns nobody, and is over in seconds.
    else if (draft !== undefined) draft.room = RoomExtensions.applyTyping(draft.room, event, reading.context.ownUserId)
  }
}

// --- results

const withoutTyping = (room: Room): Room => (room.typing.length === 0 ? room : { ...room, typing: [] })

/** An initial update voids what the updates before it brought, also within one response. */
const sinceInitial = (updates: ReadonlyArray<RoomUpdate>): ReadonlyArray<RoomUpdate> => {
  const last = updates.findLastIndex((update) => update.initial)
  return last === -1 ? updates : updates.slice(last)
}

const roomCommit = (draft: Draft): RoomCommit => {
  const updates = sinceInitial(draft.updates)
  const limited = updates.find((update) => update.limited === true)
  return {
    room: withoutTyping(draft.room),
    replace: updates[0]?.initial === true,
    state: updates.flatMap((update) => [...update.strippedState, ...update.requiredState]),
    timeline: updates.flatMap((update) => update.timeline),
    ...(limited !== undefined && {
      gap: limited.prevBatch === undefined ? {} : { prevBatch: limited.prevBatch }
    }),
    accountData: draft.accountData
  }
}

const listCounts = (reading: Reading, response: SyncResponse): { readonly [key: string]: number } => {
  const entries = Object.entries(response.lists).map(([key, { count }]) => [key, count] as const)
  for (const [key, count] of entries) {
    if (!isCount(count)) quarantine(reading, "list", `The count of list "${key}" is not a count.`, count)
  }
  return Object.fromEntries(entries.filter(([, count]) => isCount(count)))
}

/**
 * Reads one response of the main loop. Takes any response, fails never.
 *
 * Rooms that only an extension touched are in the commit too, with empty state and timeline. Account data of rooms that
 * aren't known is in the commit's `roomAccountData`.
 */
export const ingest = (context: IngestContext, response: SyncResponse): Ingested => {
  const reading: Reading = { context, drafts: new Map(), quarantined: [...response.quarantined] }
  const { accountData, receipts, typing } = response.extensions
  for (const update of response.rooms) readUpdate(reading, update)
  readGone(reading, context.gone ?? [])
  const roomAccountData = readAccountData(reading, accountData?.rooms ?? {})
  readDirect(reading, accountData?.global ?? [])
  readReceipts(reading, receipts ?? {})
  readTyping(reading, typing ?? {})
  const drafts = [...reading.drafts.values()]
  const stored = drafts.filter((draft) => draft.isStored)
  const isEphemeral = (draft: Draft): boolean => !draft.isStored && draft.room !== context.rooms.get(draft.room.roomId)
  const lists = listCounts(reading, response)
  return {
    commit: {
      connId: context.connId,
      ...(context.sentPos !== undefined && { sentPos: context.sentPos }),
      pos: response.pos,
      lists: context.lists ?? lists,
      rooms: stored.map(roomCommit),
      accountData: accountData?.global ?? [],
      ...(Object.keys(roomAccountData).length > 0 && { roomAccountData }),
      quarantined: reading.quarantined
    },
    changed: stored.map((draft) => draft.room),
    lists,
    ephemeral: drafts.filter(isEphemeral).map((draft) => draft.room)
  }
}
