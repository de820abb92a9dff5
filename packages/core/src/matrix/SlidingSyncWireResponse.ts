/**
 * A sliding-sync response on the wire, in both spellings. Reached through `SlidingSyncWire.ts`.
 *
 * Reading accepts both spellings at once, and what real homeservers leave out: `lists`, `rooms`, `extensions`, counts and
 * each extension may be absent or null.
 *
 * Invariants: I7 (only a response without a usable `pos` fails; all else that can't be understood is quarantined).
 *
 * Gotchas: Schema checks only the envelope. Events are checked by plain functions, once each, because a page holds
 * thousands of them; they stay the very objects that `JSON.parse` made.
 */
import { Predicate, Record, Result, Schema } from "effect"
import type { Spelling } from "../sync/Homeserver.ts"
import {
  isStateDeletion,
  keepable,
  reasonToKeep,
  whyNotEphemeralEvent,
  whyNotEvent,
  whyNotStateEvent,
  whyNotTimelineEvent
} from "./MatrixEvent.ts"
import type {
  EphemeralEvent,
  JsonObject,
  MatrixEvent,
  Quarantined,
  QuarantineSource,
  RoomId,
  StateEvent,
  TimelineEvent
} from "./MatrixEvent.ts"
import type {
  E2eeUpdate,
  ExtensionsResponse,
  Hero,
  Membership,
  RoomUpdate,
  SyncResponse,
  ToDeviceBatch
} from "./SlidingSync.ts"

// --- writing

const withoutUndefined = Record.filter(Predicate.isNotUndefined)

const unlessEmpty = <A>(items: ReadonlyArray<A>): ReadonlyArray<A> | undefined =>
  items.length === 0 ? undefined : items
const ifTrue = (flag: boolean): true | undefined => (flag ? true : undefined)

const encodeHero = (hero: Hero): JsonObject =>
  withoutUndefined({ user_id: hero.userId, displayname: hero.displayName, avatar_url: hero.avatarUrl })

/** What only one of the spellings can say. Synapse leaves a removed name or state event out instead of signalling it. */
const encodeRoomDialect = (spelling: Spelling, room: RoomUpdate): JsonObject =>
  spelling === "v4"
    ? {
        membership: room.membership,
        lists: room.lists,
        name: room.name,
        avatar: room.avatar,
        required_state: unlessEmpty(room.requiredState),
        stripped_state: unlessEmpty(room.strippedState),
        expanded_timeline: ifTrue(room.expandedTimeline)
      }
    : {
        notification_count: room.notificationCount,
        highlight_count: room.highlightCount,
        name: room.name ?? undefined,
        avatar: room.avatar ?? undefined,
        required_state: unlessEmpty(room.requiredState.filter((event) => !isStateDeletion(event))),
        invite_state: unlessEmpty(room.strippedState),
        unstable_expanded_timeline: ifTrue(room.expandedTimeline)
      }

const encodeRoom = (spelling: Spelling, room: RoomUpdate): JsonObject => ({
  ...room.unknown,
  ...withoutUndefined({
    ...encodeRoomDialect(spelling, room),
    initial: ifTrue(room.initial),
    heroes: room.heroes?.map(encodeHero),
    is_dm: room.isDm,
    bump_stamp: room.bumpStamp,
    joined_count: room.joinedCount,
    invited_count: room.invitedCount,
    timeline: unlessEmpty(room.timeline),
    limited: room.limited,
    prev_batch: room.prevBatch,
    num_live: room.numLive
  })
})

const encodeE2ee = (e2ee: E2eeUpdate): JsonObject =>
  withoutUndefined({
    device_one_time_keys_count: e2ee.oneTimeKeysCount,
    device_unused_fallback_key_types: e2ee.unusedFallbackKeyTypes,
    device_lists: e2ee.deviceLists
  })

const encodeExtensions = (spelling: Spelling, extensions: ExtensionsResponse): JsonObject => {
  const { toDevice, e2ee } = extensions
  return {
    ...extensions.unknown,
    ...withoutUndefined({
      [spelling === "v4" ? "org.matrix.msc4538.to_device" : "to_device"]: toDevice && {
        next_batch: toDevice.nextBatch,
        events: toDevice.events
      },
      [spelling === "v4" ? "org.matrix.msc4543.e2ee" : "e2ee"]: e2ee && encodeE2ee(e2ee),
      account_data: extensions.accountData,
      receipts: extensions.receipts && { rooms: extensions.receipts },
      typing: extensions.typing && { rooms: extensions.typing }
    })
  }
}

/**
 * Writes a response. What the unstable spelling can't say is left out, as Synapse leaves it out: `membership`, a room's
 * `lists`, removed names and avatars, deleted state. v4 has no unread counts. What was quarantined is not written.
 */
export const encodeResponse = (spelling: Spelling, response: SyncResponse): JsonObject => ({
  ...response.unknown,
  pos: response.pos,
  lists: response.lists,
  rooms: Object.fromEntries(response.rooms.map((room) => [room.roomId, encodeRoom(spelling, room)])),
  extensions: encodeExtensions(spelling, response.extensions)
})

// --- reading

/** Where to put what can't be understood. */
type Report = (source: QuarantineSource, reason: string, raw: unknown, roomId?: RoomId) => void

const isAbsent = (value: unknown): value is null | undefined => value === undefined || value === null

const unknownMembers = (object: JsonObject, known: ReadonlySet<string>): JsonObject =>
  Object.fromEntries(Object.entries(object).filter(([key]) => !known.has(key)))

const isStringArray = (value: unknown): value is ReadonlyArray<string> =>
  Array.isArray(value) && value.every(Predicate.isString)

/** The usable ones of an array of events; the others are reported, one by one. */
const usable = <A>(
  raw: unknown,
  name: string,
  whyNot: (event: unknown) => string | undefined,
  report: (reason: string, raw: unknown) => void
): ReadonlyArray<A> => {
  if (isAbsent(raw)) return []
  if (!Array.isArray(raw)) {
    report(`"${name}" is not an array`, raw)
    return []
  }
  return raw.filter((event): event is A => {
    const reason = whyNot(event)
    if (reason === undefined) return true
    report(`an event of "${name}" can't be used: ${reason}`, event)
    return false
  })
}

/** The members of a JSON object, or none when it is absent; anything else is reported. */
const members = (raw: unknown, report: (reason: string, raw: unknown) => void, name: string): JsonObject => {
  if (isAbsent(raw)) return {}
  if (Predicate.isObject(raw)) return raw as JsonObject
  report(`"${name}" is not a JSON object`, raw)
  return {}
}

const memberships: ReadonlySet<unknown> = new Set<Membership>(["join", "invite", "knock", "leave", "ban"])
const isMembership = (value: unknown): value is Membership => memberships.has(value)

const decodeHeroes = (
  raw: unknown,
  report: (reason: string, raw: unknown) => void
): ReadonlyArray<Hero> | undefined => {
  if (isAbsent(raw)) return undefined
  if (!Array.isArray(raw)) {
    report(`"heroes" is not an array`, raw)
    return undefined
  }
  return raw.flatMap((hero: unknown): ReadonlyArray<Hero> => {
    if (!Predicate.isObject(hero) || typeof hero.user_id !== "string") {
      report(`a hero has no "user_id"`, hero)
      return []
    }
    return [
      {
        userId: hero.user_id,
        ...(typeof hero.displayname === "string" && { displayName: hero.displayname }),
        ...(typeof hero.avatar_url === "string" && { avatarUrl: hero.avatar_url })
      }
    ]
  })
}

const knownRoomMembers: ReadonlySet<string> = new Set([
  "initial",
  "membership",
  "name",
  "avatar",
  "heroes",
  "is_dm",
  "bump_stamp",
  "joined_count",
  "invited_count",
  "notification_count",
  "highlight_count",
  "required_state",
  "timeline",
  "limited",
  "prev_batch",
  "num_live",
  "expanded_timeline",
  "unstable_expanded_timeline",
  "stripped_state",
  "invite_state",
  "lists"
])

const isNullableString = (value: unknown): value is string | null => value === null || typeof value === "string"

const decodeRoom = (roomId: RoomId, raw: JsonObject, report: Report): RoomUpdate => {
  const reportRoom = (reason: string, value: unknown) => report("room", reason, value, roomId)
  // One member, if it is there and has its type. A mistyped one is reported, and the rest of the room is still used.
  const field = <A>(name: string, is: (value: unknown) => value is A, kind: string): A | undefined => {
    const value = raw[name]
    if (value === undefined || is(value)) return value
    if (value !== null) reportRoom(`its "${name}" is not ${kind}`, value)
    return undefined
  }
  const flag = (name: string) => field(name, Predicate.isBoolean, "a boolean")
  const count = (name: string) => field(name, Predicate.isNumber, "a number")
  const events = <A>(source: QuarantineSource, name: string, whyNot: (event: unknown) => string | undefined) =>
    usable<A>(raw[name], name, whyNot, (reason, event) => report(source, reason, event, roomId))
  const optional = {
    membership: field("membership", isMembership, "a membership"),
    name: field("name", isNullableString, "a string or null"),
    avatar: field("avatar", isNullableString, "a string or null"),
    heroes: decodeHeroes(raw.heroes, reportRoom),
    isDm: flag("is_dm"),
    bumpStamp: count("bump_stamp"),
    joinedCount: count("joined_count"),
    invitedCount: count("invited_count"),
    notificationCount: count("notification_count"),
    highlightCount: count("highlight_count"),
    limited: flag("limited"),
    prevBatch: field("prev_batch", Predicate.isString, "a string"),
    numLive: count("num_live"),
    lists: field("lists", isStringArray, "an array of strings")
  }
  return {
    roomId,
    initial: flag("initial") ?? false,
    ...(withoutUndefined(optional) as Defined<typeof optional>),
    requiredState: events("state", "required_state", (event) =>
      isStateDeletion(event) ? undefined : whyNotStateEvent(event)
    ),
    timeline: events<TimelineEvent>("timeline", "timeline", whyNotTimelineEvent),
    expandedTimeline: flag("expanded_timeline") ?? flag("unstable_expanded_timeline") ?? false,
    strippedState: [
      ...events<StateEvent>("strippedState", "stripped_state", whyNotStateEvent),
      ...events<StateEvent>("strippedState", "invite_state", whyNotStateEvent)
    ],
    unknown: unknownMembers(raw, knownRoomMembers)
  }
}

/** A record whose undefined members have been left out. */
type Defined<R> = { readonly [K in keyof R]?: Exclude<R[K], undefined> }

const decodeRooms = (raw: unknown, report: Report): ReadonlyArray<RoomUpdate> =>
  Object.entries(members(raw, (reason, value) => report("room", reason, value), "rooms")).flatMap(([roomId, room]) => {
    if (Predicate.isObject(room) && roomId.isWellFormed()) return [decodeRoom(roomId, room as JsonObject, report)]
    const reason = Predicate.isObject(room) ? "the room's id is not text" : "the room is not a JSON object"
    report("room", reason, room, roomId)
    return []
  })

const decodeLists = (raw: unknown, report: Report): SyncResponse["lists"] =>
  Object.fromEntries(
    Object.entries(members(raw, (reason, value) => report("list", reason, value), "lists")).flatMap(([key, list]) => {
      if (Predicate.isObject(list) && typeof list.count === "number") return [[key, { count: list.count }]]
      // A list without a count says nothing; the count that is known stays.
      if (!isAbsent(list) && !(Predicate.isObject(list) && isAbsent(list.count)))
        report("list", `the list "${key}" has no usable "count"`, list)
      return []
    })
  )

const decodeToDevice = (raw: unknown, report: Report): ToDeviceBatch | undefined => {
  const section = members(raw, (reason, value) => report("extension", reason, value), "to_device")
  if (typeof section.next_batch === "string" && section.next_batch !== "") {
    return {
      nextBatch: section.next_batch,
      events: usable<MatrixEvent>(section.events, "to_device", whyNotEvent, (reason, event) =>
        report("toDevice", reason, event)
      )
    }
  }
  // Without a token the events can't be acknowledged, so they will come again: using them now would apply them twice.
  if (Object.keys(section).length > 0)
    report("extension", `"to_device" has no usable "next_batch", so its events can't be acknowledged`, raw)
  return undefined
}

const decodeKeyCounts = (raw: unknown, report: Report): E2eeUpdate["oneTimeKeysCount"] => {
  if (isAbsent(raw)) return undefined
  const counts = members(raw, (reason, value) => report("extension", reason, value), "device_one_time_keys_count")
  return Object.fromEntries(
    Object.entries(counts).flatMap(([algorithm, count]) => {
      if (typeof count === "number") return [[algorithm, count]]
      report("extension", `the count of one-time keys of "${algorithm}" is not a number`, count)
      return []
    })
  )
}

const decodeE2ee = (raw: unknown, report: Report): E2eeUpdate | undefined => {
  if (isAbsent(raw)) return undefined
  const strings = (value: unknown, name: string): ReadonlyArray<string> | undefined => {
    if (isAbsent(value) || isStringArray(value)) return value ?? undefined
    report("extension", `"${name}" is not an array of strings`, value)
    return undefined
  }
  const section = members(raw, (reason, value) => report("extension", reason, value), "e2ee")
  const counts = decodeKeyCounts(section.device_one_time_keys_count, report)
  const types = strings(section.device_unused_fallback_key_types, "device_unused_fallback_key_types")
  const lists = members(section.device_lists, (reason, value) => report("extension", reason, value), "device_lists")
  return {
    ...(counts && { oneTimeKeysCount: counts }),
    ...(types && { unusedFallbackKeyTypes: types }),
    ...(Predicate.isObject(section.device_lists) && {
      deviceLists: { changed: strings(lists.changed, "changed") ?? [], left: strings(lists.left, "left") ?? [] }
    })
  }
}

const decodeAccountData = (raw: unknown, report: Report): ExtensionsResponse["accountData"] => {
  if (isAbsent(raw)) return undefined
  const events = (value: unknown, roomId?: RoomId) =>
    usable<EphemeralEvent>(value, "account_data", whyNotEphemeralEvent, (reason, event) =>
      report("accountData", reason, event, roomId)
    )
  const problem = (reason: string, value: unknown) => report("accountData", reason, value)
  const section = members(raw, problem, "account_data")
  const rooms = Object.entries(members(section.rooms, problem, "account_data.rooms"))
  return {
    global: events(section.global),
    rooms: Object.fromEntries(rooms.map(([roomId, value]) => [roomId, events(value, roomId)]))
  }
}

/** Receipts and typing: one event per room. */
const decodePerRoom = (
  raw: unknown,
  source: "receipts" | "typing",
  report: Report
): { readonly [roomId: RoomId]: EphemeralEvent } | undefined => {
  if (isAbsent(raw)) return undefined
  const problem = (reason: string, value: unknown) => report(source, reason, value)
  const rooms = members(members(raw, problem, source).rooms, problem, `${source}.rooms`)
  return Object.fromEntries(
    Object.entries(rooms).flatMap(([roomId, event]): ReadonlyArray<readonly [RoomId, EphemeralEvent]> => {
      const reason = whyNotEphemeralEvent(event)
      if (reason === undefined) return [[roomId, event as EphemeralEvent]]
      report(source, `the event of "${source}" can't be used: ${reason}`, event, roomId)
      return []
    })
  )
}

const toDeviceNames = ["to_device", "org.matrix.msc4538.to_device"]
const e2eeNames = ["e2ee", "org.matrix.msc4543.e2ee"]
const knownExtensions: ReadonlySet<string> = new Set([
  ...toDeviceNames,
  ...e2eeNames,
  "account_data",
  "receipts",
  "typing"
])

const decodeExtensions = (raw: unknown, report: Report): ExtensionsResponse => {
  const section = members(raw, (reason, value) => report("extension", reason, value), "extensions")
  const first = (candidates: ReadonlyArray<string>) =>
    candidates.map((name) => section[name]).find((value) => !isAbsent(value))
  const optional = {
    toDevice: decodeToDevice(first(toDeviceNames), report),
    e2ee: decodeE2ee(first(e2eeNames), report),
    accountData: decodeAccountData(section.account_data, report),
    receipts: decodePerRoom(section.receipts, "receipts", report),
    typing: decodePerRoom(section.typing, "typing", report)
  }
  return {
    ...(withoutUndefined(optional) as Defined<typeof optional>),
    unknown: unknownMembers(section, knownExtensions)
  }
}

const decodeEnvelope = Schema.decodeUnknownResult(Schema.Struct({ pos: Schema.NonEmptyString }))
const knownMembers: ReadonlySet<string> = new Set(["pos", "lists", "rooms", "extensions"])

/**
 * Reads a response in either spelling. Fails, with one sentence, only when there is no `pos` to go on from; everything
 * else that can't be understood is in `quarantined` (invariant I7), and what is not known here is in `unknown`.
 */
export const decodeResponse = (json: unknown): Result.Result<SyncResponse, string> =>
  Result.mapBoth(decodeEnvelope(json), {
    onFailure: (error) => `the sync response has no usable "pos": ${error.message}`,
    onSuccess: ({ pos }) => {
      const response = json as JsonObject
      const quarantined: Array<Quarantined> = []
      const report: Report = (source, reason, raw, roomId) => {
        quarantined.push({
          source,
          reason: reasonToKeep(reason),
          raw: keepable(raw),
          ...(roomId !== undefined && { roomId })
        })
      }
      return {
        pos,
        lists: decodeLists(response.lists, report),
        rooms: decodeRooms(response.rooms, report),
        extensions: decodeExtensions(response.extensions, report),
        quarantined,
        unknown: unknownMembers(response, knownMembers)
      }
    }
  })
