/**
 * Rooms to write to and to read from, encrypted or not: the application need not know which.
 *
 * Includes `send`, timelines with decrypted events, and live timelines whose entries change when a key comes late.
 *
 * Invariants: I3 (reading asks nobody for the stream), I6 (what is shown is committed), I7 (what can't be decrypted is shown as
 * such, with the reason), I10 (a live timeline has as many entries as were asked for).
 *
 * Gotchas: decrypted text is never stored: it is made from the stored event and the stored key each time it is shown. So it
 * is gone when the key is, and how far its sender is trusted is always said as of today.
 *
 * Not here: which rooms there are (`RoomList`), encrypting (`Encryption.ts`).
 */
import {
  type CryptoEngine,
  type CryptoError,
  EventDecryptor,
  Homeserver,
  ListDiff,
  type MatrixEvent,
  type Room,
  RoomList,
  type StoreError,
  SyncConfig,
  SyncStore
} from "@twinloop/core"
import { Cause, Context, Effect, Latch, Layer, Random, RcMap, Schema, Semaphore, Stream } from "effect"
import type { Scope } from "effect"
import { Encryption, type EncryptionError } from "./Encryption.ts"
import { EncryptionNews, type News } from "./EncryptionNews.ts"
import * as MainSync from "./MainSync.ts"
import { OutgoingRequests } from "./OutgoingRequests.ts"
import { patiently } from "./Patience.ts"

/** The room isn't known, or this user hasn't joined it, so nothing was sent. Wait until it is in the room list, or join it. */
export class RoomNotJoined extends Schema.TaggedError<RoomNotJoined>("@twinloop/actors/RoomNotJoined")(
  "RoomNotJoined",
  {
    roomId: Schema.String,
    message: Schema.String
  }
) {}

/** What can go wrong while an event is sent. */
export type SendError = RoomNotJoined | EncryptionError

export interface SendOptions {
  /** Makes a repetition harmless: the same id gives the same event. A new one if not given. Spec: "Transaction identifiers". */
  readonly txnId?: string
  /** Who is given the key, in an encrypted room; `all` if not given. */
  readonly sharing?: CryptoEngine.KeySharing
}

/** An entry of a timeline as it is shown. `index` ascends and is the entry's name within the room. */
export type TimelineItem =
  | {
      readonly _tag: "Event"
      readonly index: number
      /** The event to show: decrypted if it could be, otherwise as it came. */
      readonly event: MatrixEvent.TimelineEvent
      /** Absent for an event that was sent in the clear. */
      readonly decryption?: EventDecryptor.Decryption
    }
  /** Events are missing here. */
  | { readonly _tag: "Gap"; readonly index: number; readonly prevBatch?: string }

/** Changes of a live timeline: `ListDiff.applyAll` makes them. */
export type TimelineChanges = ReadonlyArray<ListDiff.Diff<TimelineItem>>

type ReadError = StoreError.StoreError | CryptoError.CryptoError

export class Rooms extends Context.Service<
  Rooms,
  {
    /**
     * Sends an event to a joined room, encrypted if the room is, and gives its id. Events to one room are sent in the order
     * of the calls. In an encrypted room the key is shared first with who is in the room by then. Reactions and redactions go
     * in the clear there too, as other clients send them: a homeserver couldn't count the ones and do the others otherwise.
     */
    send(
      roomId: MatrixEvent.RoomId,
      type: string,
      content: MatrixEvent.JsonObject,
      options?: SendOptions
    ): Effect.Effect<MatrixEvent.EventId, SendError>
    /** The newest `limit` entries before `before` (exclusive), ascending, decrypted. */
    timeline(
      roomId: MatrixEvent.RoomId,
      options: { readonly limit: number; readonly before?: number }
    ): Effect.Effect<ReadonlyArray<TimelineItem>, ReadError>
    /**
     * The newest `limit` entries and how they change, until the scope closes: a `Reset` first. An entry that couldn't be
     * decrypted changes when its key comes, whichever process stored it, and an entry's shield when its sender's devices do.
     */
    live(
      roomId: MatrixEvent.RoomId,
      options: { readonly limit: number }
    ): Effect.Effect<Stream.Stream<TimelineChanges, ReadError>, StoreError.StoreError, Scope.Scope>
    /** One event as it is shown, such as a room's `latestEvent`. */
    show(
      roomId: MatrixEvent.RoomId,
      event: MatrixEvent.TimelineEvent
    ): Effect.Effect<ShownEvent, CryptoError.CryptoError>
  }
>()("@twinloop/actors/Rooms") {
  static readonly layer: Layer.Layer<
    Rooms,
    never,
    | Encryption
    | EncryptionNews
    | OutgoingRequests
    | EventDecryptor.EventDecryptor
    | Homeserver.Homeserver
    | RoomList.RoomList
    | SyncStore.SyncStore
  > = Layer.effect(
    Rooms,
    Effect.suspend(() => make)
  )
}

/** An event to show, decrypted if it could be. */
export interface ShownEvent {
  readonly event: MatrixEvent.TimelineEvent
  readonly decryption?: EventDecryptor.Decryption
}

const isEncrypted = (event: MatrixEvent.TimelineEvent): boolean =>
  event.type === "m.room.encrypted" && event.state_key === undefined

/** The event as it came: what is decrypted again. */
interface Entry {
  readonly item: TimelineItem
  readonly stored: SyncStore.TimelineEntry
}

const sessionOf = ({ item }: Entry): string | undefined =>
  item._tag === "Event" && item.decryption?._tag === "Undecryptable" ? item.decryption.sessionId : undefined

/** Whether a piece of news may change how an entry is shown. */
const concerns =
  (roomId: MatrixEvent.RoomId, news: News) =>
  (entry: Entry): boolean => {
    const { item } = entry
    if (item._tag !== "Event" || item.decryption === undefined) return false
    switch (news._tag) {
      case "Missed":
        return true
      case "RoomKey":
        return news.roomId === roomId && sessionOf(entry) === news.sessionId
      case "Devices":
        return item.event.sender === news.userId
    }
  }

const isSame = (left: TimelineItem, right: TimelineItem): boolean => JSON.stringify(left) === JSON.stringify(right)

const positive = (value: unknown): number | undefined =>
  typeof value === "number" && Number.isSafeInteger(value) && value > 0 ? value : undefined

const visibilities = ["invited", "joined", "shared", "world_readable"] as const

/** A room's settings by its state; what is absurd in it is as if it weren't there. */
const settingsOf = (
  encryption: MatrixEvent.JsonObject,
  visibility: unknown,
  sharing: CryptoEngine.KeySharing
): CryptoEngine.RoomKeySettings => {
  const millis = positive(encryption.rotation_period_ms)
  const messages = positive(encryption.rotation_period_msgs)
  return {
    ...(millis === undefined ? {} : { rotationPeriodMillis: millis }),
    ...(messages === undefined ? {} : { rotationPeriodMessages: messages }),
    historyVisibility: visibilities.find((known) => known === visibility) ?? "shared",
    sharing
  }
}

/** Who was in a room, as of an event of its timeline. */
interface Members {
  readonly at: MatrixEvent.EventId | undefined
  readonly members: ReadonlyArray<Homeserver.RoomMember>
}

/** Entries that are looked through for a change of members; after more, the homeserver is asked again. */
const MEMBERS_LOOK = 100
/** Rooms whose members are remembered. */
const MEMBERS_KEPT = 100
/** Senders that are remembered as followed; who is forgotten is asked for again when he is shown, which costs a look. */
const SENDERS_KEPT = 1_000

interface Env {
  readonly connId: string
  readonly config: SyncConfig.SyncConfigShape
  readonly homeserver: Homeserver.Homeserver["Service"]
  readonly store: SyncStore.SyncStore["Service"]
  readonly rooms: RoomList.RoomList["Service"]
  readonly encryption: Encryption["Service"]
  readonly decryptor: EventDecryptor.EventDecryptor["Service"]
  readonly news: EncryptionNews["Service"]
  readonly requests: OutgoingRequests["Service"]
  /** By room, oldest use first. */
  readonly members: Map<MatrixEvent.RoomId, Members>
  /** Whose devices are followed since something of theirs was shown, oldest first. */
  readonly senders: Set<MatrixEvent.UserId>
}

// --- reading

/**
 * Follows the devices of who is shown: what a message brings with it tells of the sender's device, and not of what becomes of
 * it. Who is followed already isn't asked for again, unless the device isn't known all the same.
 */
const followSender = (env: Env, sender: MatrixEvent.UserId, decryption: EventDecryptor.Decryption) => {
  if (decryption._tag !== "Decrypted") return Effect.void
  const isUnknown = decryption.shield.code === "UnknownDevice"
  if (env.senders.has(sender) && !isUnknown) return Effect.void
  env.senders.add(sender)
  const oldest = env.senders.values().next().value
  if (env.senders.size > SENDERS_KEPT && oldest !== undefined) env.senders.delete(oldest)
  return env.requests.want([sender])
}

const show = Effect.fnUntraced(function* (
  env: Env,
  roomId: MatrixEvent.RoomId,
  event: MatrixEvent.TimelineEvent
): Effect.fn.Return<ShownEvent, CryptoError.CryptoError> {
  if (!isEncrypted(event)) return { event }
  const decryption = yield* env.decryptor.decrypt(roomId, event)
  // What the homeserver answers is news.
  yield* followSender(env, event.sender, decryption)
  return { event: decryption._tag === "Decrypted" ? decryption.event : event, decryption }
})

const entryOf = Effect.fnUntraced(function* (env: Env, roomId: MatrixEvent.RoomId, stored: SyncStore.TimelineEntry) {
  const { index } = stored
  const item: TimelineItem =
    stored._tag === "Gap" ? stored : { _tag: "Event", index, ...(yield* show(env, roomId, stored.event)) }
  return { item, stored }
})

const read = (env: Env, roomId: MatrixEvent.RoomId, options: { readonly limit: number; readonly before?: number }) =>
  env.store.timeline({ connId: env.connId, roomId, ...options })

/** Tells an entry from others that are or were at its index: what is missing at a gap may have become more or less. */
const nameOf = (stored: SyncStore.TimelineEntry): string | undefined =>
  stored._tag === "Gap" ? `gap ${stored.prevBatch ?? ""}` : stored.event.event_id

/** The stored entry that an entry was made of, if it is still the same. */
const isStill = (entry: Entry | undefined, stored: SyncStore.TimelineEntry): entry is Entry =>
  entry !== undefined && nameOf(entry.stored) === nameOf(stored)

/** The window as it is stored by now; what was shown before isn't decrypted again. */
const reread = Effect.fnUntraced(function* (
  env: Env,
  roomId: MatrixEvent.RoomId,
  limit: number,
  before: ReadonlyArray<Entry>
) {
  const known = new Map(before.map((entry) => [entry.stored.index, entry]))
  // Nobody begins a live timeline again because another process was writing.
  const stored = yield* patiently(env.config)(read(env, roomId, { limit }))
  return yield* Effect.forEach(stored, (one) => {
    const entry = known.get(one.index)
    return isStill(entry, one) ? Effect.succeed(entry) : entryOf(env, roomId, one)
  })
})

/** Decrypts again what the news are about. */
const retold = (env: Env, roomId: MatrixEvent.RoomId, news: ReadonlyArray<News>, before: ReadonlyArray<Entry>) =>
  Effect.forEach(before, (entry) =>
    news.some((piece) => concerns(roomId, piece)(entry))
      ? Effect.map(entryOf(env, roomId, entry.stored), (again) => (isSame(again.item, entry.item) ? entry : again))
      : Effect.succeed(entry)
  )

type Signal = { readonly _tag: "Room" } | { readonly _tag: "News"; readonly news: ReadonlyArray<News> }

const live = Effect.fnUntraced(function* (env: Env, roomId: MatrixEvent.RoomId, limit: number) {
  const follower = yield* env.news.follow
  const closed = yield* Latch.make(false)
  yield* Effect.addFinalizer(() => closed.open)
  let entries: ReadonlyArray<Entry> | undefined
  const step = Effect.fnUntraced(function* (signal: Signal): Effect.fn.Return<TimelineChanges, ReadError> {
    const before = entries
    const next =
      signal._tag === "Room" || before === undefined
        ? yield* reread(env, roomId, limit, before ?? [])
        : yield* retold(env, roomId, signal.news, before)
    entries = next
    const items = next.map(({ item }) => item)
    if (before === undefined) return [{ _tag: "Reset", entries: items }]
    return ListDiff.diff(
      before.map(({ item }) => item),
      items,
      ({ index }) => index
    )
  })
  const changed = Stream.map(env.rooms.changes(roomId), (): Signal => ({ _tag: "Room" }))
  // Without its subscription nothing comes any more, and the stream ends by its scope.
  const next = Effect.catchCauseIf(follower.next, Cause.hasInterruptsOnly, () => Effect.never)
  const told = Stream.map(Stream.fromEffectRepeat(next), (news): Signal => ({ _tag: "News", news }))
  return Stream.merge(changed, told, { haltStrategy: "left" }).pipe(
    Stream.mapEffect(step),
    Stream.filter((changes) => changes.length > 0),
    Stream.interruptWhen(closed.await)
  )
})

// --- writing

/** Whether the timeline tells, from an event on, that nobody came or went; with the newest event's id. */
const unchangedSince = Effect.fnUntraced(function* (env: Env, roomId: MatrixEvent.RoomId, known: Members | undefined) {
  const entries = yield* read(env, roomId, { limit: MEMBERS_LOOK })
  const newest = entries.findLast((entry) => entry._tag === "Event")?.event.event_id
  const from = entries.findIndex((entry) => entry._tag === "Event" && entry.event.event_id === known?.at)
  const isQuiet =
    from !== -1 &&
    entries.slice(from + 1).every((entry) => entry._tag === "Event" && entry.event.type !== "m.room.member")
  return { newest, isQuiet }
})

/** Who is in the room: asked of the homeserver, since sliding sync tells members lazily, unless nobody came or went since. */
const membersOf = Effect.fnUntraced(function* (env: Env, roomId: MatrixEvent.RoomId) {
  const known = env.members.get(roomId)
  const { isQuiet, newest } = yield* unchangedSince(env, roomId, known)
  const members = known !== undefined && isQuiet ? known.members : yield* env.homeserver.members(roomId)
  env.members.delete(roomId)
  env.members.set(roomId, { at: newest, members })
  const oldest = env.members.keys().next().value
  if (env.members.size > MEMBERS_KEPT && oldest !== undefined) env.members.delete(oldest)
  return members
})

const stateOf = Effect.fnUntraced(function* (env: Env, roomId: MatrixEvent.RoomId, type: string) {
  const [event] = yield* env.store.state({ connId: env.connId, roomId, type, stateKey: "" })
  return event?.content ?? {}
})

/** Content for the room, and the type under which it goes. */
const encrypted = Effect.fnUntraced(function* (
  env: Env,
  event: { readonly roomId: MatrixEvent.RoomId; readonly type: string; readonly content: MatrixEvent.JsonObject },
  sharing: CryptoEngine.KeySharing
) {
  const { roomId } = event
  // First, since it may take a while in which people leave.
  yield* env.encryption.own
  const { history_visibility: visibility } = yield* stateOf(env, roomId, "m.room.history_visibility")
  const settings = settingsOf(yield* stateOf(env, roomId, "m.room.encryption"), visibility, sharing)
  // Who is invited may read from then on, unless only members may.
  const readers = settings.historyVisibility === "joined" ? ["join"] : ["join", "invite"]
  const members = yield* membersOf(env, roomId)
  const users = members.filter(({ membership }) => readers.includes(membership)).map(({ userId }) => userId)
  return yield* env.encryption.encrypt({ ...event, users, settings })
})

const joined = (roomId: MatrixEvent.RoomId, room: Room.Room | undefined): Effect.Effect<Room.Room, RoomNotJoined> =>
  room?.membership === "join"
    ? Effect.succeed(room)
    : Effect.fail(
        new RoomNotJoined({
          roomId,
          message:
            room === undefined
              ? `the room ${roomId} isn't in the room list, so nothing was sent; wait until the service has synced it`
              : `this account is not joined to the room ${roomId} (${room.membership}), so nothing was sent; join it first`
        })
      )

/** What no client encrypts, since the homeserver acts on it. Spec: "Reactions", "Redactions". */
const clear = new Set(["m.reaction", "m.room.redaction"])

const newTxnId = Effect.map(
  Effect.all([Random.nextIntBetween(0, 2 ** 32), Random.nextIntBetween(0, 2 ** 32)]),
  (parts) => `twinloop-${parts.map((part) => part.toString(16).padStart(8, "0")).join("")}`
)

const send = Effect.fn("Rooms.send")(function* (
  env: Env,
  event: { readonly roomId: MatrixEvent.RoomId; readonly type: string; readonly content: MatrixEvent.JsonObject },
  options: SendOptions
): Effect.fn.Return<MatrixEvent.EventId, SendError> {
  const { roomId } = event
  const room = yield* Effect.flatMap(env.rooms.get(roomId), (known) => joined(roomId, known))
  const txnId = options.txnId ?? (yield* newTxnId)
  if (!room.isEncrypted || clear.has(event.type)) return yield* env.homeserver.sendEvent({ ...event, txnId })
  const content = yield* encrypted(env, event, options.sharing ?? "all")
  return yield* env.homeserver.sendEvent({ roomId, type: "m.room.encrypted", content, txnId })
})

const make = Effect.gen(function* () {
  const config = yield* SyncConfig.SyncConfig
  const env: Env = {
    config,
    connId: MainSync.connId(config.role),
    homeserver: yield* Homeserver.Homeserver,
    store: yield* SyncStore.SyncStore,
    rooms: yield* RoomList.RoomList,
    encryption: yield* Encryption,
    decryptor: yield* EventDecryptor.EventDecryptor,
    news: yield* EncryptionNews,
    requests: yield* OutgoingRequests,
    members: new Map(),
    senders: new Set()
  }
  // One queue per room that is being written to.
  const queues = yield* RcMap.make({ lookup: (_roomId: MatrixEvent.RoomId) => Semaphore.make(1) })
  return Rooms.of({
    send: (roomId, type, content, options = {}) =>
      Effect.scoped(
        Effect.flatMap(RcMap.get(queues, roomId), (queue) =>
          queue.withPermit(send(env, { roomId, type, content }, options))
        )
      ),
    timeline: (roomId, options) =>
      Effect.flatMap(read(env, roomId, options), (stored) =>
        Effect.forEach(stored, (one) => Effect.map(entryOf(env, roomId, one), ({ item }) => item))
      ),
    live: (roomId, { limit }) => live(env, roomId, limit),
    show: (roomId, event) => show(env, roomId, event)
  })
})
