/**
 * Test data: builders that make one plausible thing with a few words, and arbitraries that make many odd ones.
 *
 * The builders give what a homeserver would send, in full, and take what a test cares about; the same arguments always give
 * the same thing. The arbitraries are Effect's own (`Arbitrary`), so they work with `it.prop`, shrink, and are reproducible
 * from a seed. They give anything that is well-typed, including empty ids, strange keys and unknown members.
 *
 * Gotchas: `arbitraryResponse` gives what both spellings can say alike, and nothing that is quarantined.
 *
 * @example
 * ```ts
 * const response = aResponse({ pos: "1", rooms: [aRoom("!a:x", { name: "Kitchen", messages: 3 })] })
 * ```
 */
import { Arbitrary, Schema } from "effect"
import type {
  EphemeralEvent,
  JsonObject,
  MatrixEvent,
  RoomId,
  StateEvent,
  TimelineEvent,
  UserId
} from "../matrix/MatrixEvent.ts"
import type { ExtensionsResponse, Hero, RoomUpdate, SyncResponse } from "../matrix/SlidingSync.ts"
import { emptyResponse, emptyRoomUpdate } from "../matrix/SlidingSync.ts"

// --- builders

const sender: UserId = "@sender:localhost"
const me: UserId = "@me:localhost"

/** A timeline event; `number` tells it from others and puts it in order. */
export const anEvent = (number: number, overrides: Partial<TimelineEvent> = {}): TimelineEvent => ({
  type: "m.room.message",
  sender,
  event_id: `$event${number}`,
  origin_server_ts: 1_700_000_000_000 + number * 1_000,
  content: { msgtype: "m.text", body: `message ${number}` },
  ...overrides
})

/** A text message. */
export const aMessage = (number: number, body = `message ${number}`, by: UserId = sender): TimelineEvent =>
  anEvent(number, { sender: by, content: { msgtype: "m.text", body } })

/** A state event. */
export const aState = (
  type: string,
  content: JsonObject,
  { stateKey = "", by = sender }: { readonly stateKey?: string; readonly by?: UserId } = {}
): StateEvent => ({
  type,
  sender: by,
  state_key: stateKey,
  event_id: `$state-${type}-${stateKey}`,
  origin_server_ts: 1_700_000_000_000,
  content
})

/** A membership event. */
export const aMember = (userId: UserId, membership = "join", displayName?: string): StateEvent =>
  aState(
    "m.room.member",
    { membership, ...(displayName !== undefined && { displayname: displayName }) },
    { stateKey: userId, by: userId }
  )

/** What a test may care about in a room. */
export interface RoomOptions {
  readonly name?: string
  /** How many text messages its timeline has; they are numbered from `firstMessage` (1 by default) on. */
  readonly messages?: number
  readonly firstMessage?: number
  /** Joined members besides `@me:localhost`. */
  readonly members?: ReadonlyArray<UserId>
  readonly initial?: boolean
  /** Whatever else the test wants to be different. */
  readonly overrides?: Partial<RoomUpdate>
}

/** A joined room as it is sent for the first time (unless `initial` is false). */
export const aRoom = (roomId: RoomId, options: RoomOptions = {}): RoomUpdate => {
  const { name, messages = 1, firstMessage = 1, members = [sender], initial = true } = options
  const timeline = Array.from({ length: messages }, (_, index) => aMessage(firstMessage + index))
  return {
    ...emptyRoomUpdate(roomId),
    initial,
    bumpStamp: firstMessage + messages,
    ...(initial && {
      joinedCount: members.length + 1,
      invitedCount: 0,
      requiredState: [
        aState("m.room.create", { room_version: "11" }),
        aMember(me),
        ...(name === undefined ? [] : [aState("m.room.name", { name })])
      ]
    }),
    ...(name === undefined ? initial && { heroes: members.map((userId) => ({ userId })) } : { name }),
    timeline,
    limited: initial,
    prevBatch: `t${firstMessage - 1}`,
    numLive: initial ? 0 : messages,
    ...options.overrides
  }
}

/** A room that one is invited to. */
export const anInvite = (roomId: RoomId, inviter: UserId = sender): RoomUpdate => ({
  ...emptyRoomUpdate(roomId),
  initial: true,
  strippedState: [
    aState("m.room.create", { room_version: "11" }),
    aMember(inviter),
    { ...aMember(me, "invite"), sender: inviter }
  ]
})

/** A to-device message `{ number }`. */
export const aToDevice = (number: number, by: UserId = sender): MatrixEvent => ({
  type: "org.twinloop.numbered",
  sender: by,
  content: { number }
})

/** A response: a position, and what is given. */
export const aResponse = ({ pos, ...rest }: Partial<SyncResponse> & { readonly pos: string }): SyncResponse => ({
  ...emptyResponse(pos),
  ...rest
})

/** A response of the extension loop with to-device messages `from`..`to` (none when `to < from`). */
export const aToDeviceResponse = (batch: {
  readonly pos: string
  readonly nextBatch: string
  readonly from: number
  readonly to: number
}): SyncResponse =>
  aResponse({
    pos: batch.pos,
    extensions: {
      toDevice: {
        nextBatch: batch.nextBatch,
        events: Array.from({ length: Math.max(0, batch.to - batch.from + 1) }, (_, index) =>
          aToDevice(batch.from + index)
        )
      },
      e2ee: { oneTimeKeysCount: { signed_curve25519: 50 }, unusedFallbackKeyTypes: ["signed_curve25519"] },
      unknown: {}
    }
  })

// --- arbitraries

/** Text of any kind that UTF-8 can carry, short. */
export const arbitraryText: Arbitrary.Arbitrary<string> = Arbitrary.schema(
  Schema.String.check(
    Schema.isMaxLength(12),
    Schema.makeFilter((text: string) => text.isWellFormed())
  )
)

/** A position or a token, which is never empty. */
const token = Arbitrary.schema(
  Schema.NonEmptyString.check(
    Schema.isMaxLength(12),
    Schema.makeFilter((text: string) => text.isWellFormed())
  )
)
const count = Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 1_000_000 })))
const flag = Arbitrary.schema(Schema.Boolean)

/**
 * Text for the name of a member: without what JSON escapes. V8 13.6 (Node 24.21) now and then reads an escaped name wrongly:
 * `JSON.parse` gives `{ "a\\": 1 }` for `{"a\t":1}` when it has read `{"a":1}` before.
 */
const unescaped = (name: string): string => name.replace(/[\p{Cc}\p{Cs}"\\]/gu, "")

const arbitraryName = Arbitrary.map(arbitraryText, unescaped)

const withNames = (json: Schema.Json): Schema.Json => {
  if (Array.isArray(json)) return json.map(withNames)
  if (typeof json !== "object" || json === null) return json
  return Object.fromEntries(Object.entries(json).map(([name, value]) => [unescaped(name), withNames(value)]))
}

/** Any JSON. */
const arbitraryJson = Arbitrary.map(Arbitrary.schema(Schema.Json), withNames)

/** Any JSON object. */
export const arbitraryContent: Arbitrary.Arbitrary<JsonObject> = Arbitrary.map(
  Arbitrary.schema(Schema.Record(Schema.String, Schema.Json)),
  (content) => withNames(content) as JsonObject
)

const few = <A>(item: Arbitrary.Arbitrary<A>): Arbitrary.Arbitrary<Array<A>> => Arbitrary.array(item, { maxLength: 3 })

// A later entry replaces an earlier one of the same key, as in a JSON text.
const record = <A>(value: Arbitrary.Arbitrary<A>): Arbitrary.Arbitrary<{ readonly [key: string]: A }> =>
  few(Arbitrary.all([arbitraryName, value])).pipe(Arbitrary.map((entries) => Object.fromEntries(entries)))

// Names that nothing of ours has, so that they stay unknown.
const unknown = few(Arbitrary.all([arbitraryName, arbitraryJson])).pipe(
  Arbitrary.map((entries): JsonObject =>
    Object.fromEntries(entries.map(([key, value]) => [`org.example.${key}`, value]))
  )
)

/** Each member of the record, or not. */
const partial = <A extends object>(members: {
  readonly [K in keyof A]: Arbitrary.Arbitrary<A[K]>
}): Arbitrary.Arbitrary<Partial<A>> =>
  few(Arbitrary.schema(Schema.Literals(Object.keys(members) as [keyof A & string]))).pipe(
    Arbitrary.flatMap((keys) =>
      Arbitrary.all(Object.fromEntries([...new Set(keys)].map((key) => [key, members[key]])))
    ),
    Arbitrary.map((value) => value as Partial<A>)
  )

/** A timeline event with any content and unknown members. */
export const arbitraryEvent: Arbitrary.Arbitrary<TimelineEvent> = Arbitrary.all({
  known: Arbitrary.all({
    type: arbitraryText,
    sender: arbitraryText,
    event_id: arbitraryText,
    origin_server_ts: count,
    content: arbitraryContent
  }),
  unknown
}).pipe(Arbitrary.map(({ known, unknown }) => ({ ...unknown, ...known })))

/** A state event. */
export const arbitraryState: Arbitrary.Arbitrary<StateEvent> = Arbitrary.all({
  type: arbitraryText,
  sender: arbitraryText,
  state_key: arbitraryText,
  content: arbitraryContent
})

const arbitraryEphemeral: Arbitrary.Arbitrary<EphemeralEvent> = Arbitrary.all({
  type: arbitraryText,
  content: arbitraryContent
})

const arbitraryHero: Arbitrary.Arbitrary<Hero> = Arbitrary.all({ userId: arbitraryText, displayName: arbitraryText })

type Told = Omit<RoomUpdate, "roomId" | "initial" | "expandedTimeline" | "requiredState" | "timeline" | "strippedState">

const arbitraryTold: Arbitrary.Arbitrary<Partial<Told>> = partial<
  Required<
    Pick<
      Told,
      | "name"
      | "avatar"
      | "heroes"
      | "isDm"
      | "bumpStamp"
      | "joinedCount"
      | "invitedCount"
      | "limited"
      | "prevBatch"
      | "numLive"
    >
  >
>({
  name: arbitraryText,
  avatar: arbitraryText,
  heroes: few(arbitraryHero),
  isDm: flag,
  bumpStamp: count,
  joinedCount: count,
  invitedCount: count,
  limited: flag,
  prevBatch: arbitraryText,
  numLive: count
})

/** What changed in one room, whatever it may be. */
export const arbitraryRoom: Arbitrary.Arbitrary<RoomUpdate> = Arbitrary.all({
  told: arbitraryTold,
  rest: Arbitrary.all({
    roomId: arbitraryName,
    initial: flag,
    expandedTimeline: flag,
    requiredState: few(arbitraryState),
    timeline: few(arbitraryEvent),
    strippedState: few(arbitraryState),
    unknown
  })
}).pipe(Arbitrary.map(({ told, rest }) => ({ ...told, ...rest })))

const arbitraryExtensions: Arbitrary.Arbitrary<ExtensionsResponse> = Arbitrary.all({
  told: partial<Required<Omit<ExtensionsResponse, "unknown">>>({
    toDevice: Arbitrary.all({ nextBatch: token, events: few(arbitraryEvent) }),
    e2ee: Arbitrary.all({
      oneTimeKeysCount: record(count),
      unusedFallbackKeyTypes: few(arbitraryText),
      deviceLists: Arbitrary.all({ changed: few(arbitraryText), left: few(arbitraryText) })
    }),
    accountData: Arbitrary.all({ global: few(arbitraryEphemeral), rooms: record(few(arbitraryEphemeral)) }),
    receipts: record(arbitraryEphemeral),
    typing: record(arbitraryEphemeral)
  }),
  unknown
}).pipe(Arbitrary.map(({ told, unknown }) => ({ ...told, unknown })))

const distinctRooms = (rooms: ReadonlyArray<RoomUpdate>): ReadonlyArray<RoomUpdate> => [
  ...new Map(rooms.map((room) => [room.roomId, room])).values()
]

/** A whole response. */
export const arbitraryResponse: Arbitrary.Arbitrary<SyncResponse> = Arbitrary.all({
  pos: token,
  lists: record(Arbitrary.all({ count })),
  rooms: few(arbitraryRoom).pipe(Arbitrary.map(distinctRooms)),
  extensions: arbitraryExtensions,
  quarantined: Arbitrary.Constant([]),
  unknown
})
