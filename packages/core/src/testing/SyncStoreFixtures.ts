/**
 * What the tests of `syncStoreContract` share: small rooms, events and batches, and views of what is stored.
 */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import type { Fence } from "../lease/Lease.ts"
import { LeaseStore } from "../lease/LeaseStore.ts"
import type { StateEvent, TimelineEvent } from "../matrix/MatrixEvent.ts"
import type { Room } from "../rooms/Room.ts"
import type { StoreError, StoreErrorReason } from "../sync/StoreError.ts"
import { SyncStore } from "../sync/SyncStore.ts"
import type { ExtensionCommit, InboxEvent, MainCommit, RoomCommit, TimelineEntry } from "../sync/SyncStore.ts"

/** What a contract test works on. */
export type Stores = SyncStore | LeaseStore

/** Registers one test in stores of its own. */
export type Test = (title: string, body: Effect.Effect<void, StoreError, Stores>) => void

/** The lease that the tests own. */
export const name = "stream"
/** The connection that the tests use. */
export const connId = "main"
/** The room that the tests use. */
export const roomId = "!a:example.org"

/** Takes the lease, from whoever has it: each call is a hundred seconds after the one before. */
export const own = (holder: string, round = 0): Effect.Effect<Fence, StoreError, LeaseStore> =>
  Effect.gen(function* () {
    const leases = yield* LeaseStore
    const nowMillis = round * 100_000
    const outcome = yield* leases.take({
      name,
      permits: 1,
      count: 1,
      holder,
      peer: {},
      nowMillis,
      leaseMillis: 10_000
    })
    return outcome._tag === "Granted"
      ? { name, holder, generation: outcome.generation }
      : assert.fail(`${outcome.blocker.holder} has the lease`)
  })

/** An inbox event with this in its content. */
export const inboxEvent = (body: unknown): InboxEvent => ({
  type: "org.example.numbered",
  sender: "@s:example.org",
  event: { type: "org.example.numbered", content: { body } },
  encryption: "none"
})

/** A batch that ends at this token. */
export const batch = (since: string, more: Partial<ExtensionCommit> = {}): ExtensionCommit => ({
  position: { since, pos: `pos-${since}` },
  inbox: [],
  crypto: [],
  quarantined: [],
  ...more
})

/** A room that nothing is known of. */
export const room = (id: string, more: Partial<Room> = {}): Room => ({
  roomId: id,
  membership: "join",
  displayName: `Room ${id}`,
  heroes: [],
  joinedCount: 2,
  invitedCount: 0,
  isDm: false,
  isEncrypted: false,
  bumpStamp: 1,
  unread: { notificationCount: 0, highlightCount: 0, markedUnread: false, liveSinceRead: 0 },
  typing: [],
  ...more
})

/** A message with this id. */
export const event = (id: string, content: TimelineEvent["content"] = {}): TimelineEvent => ({
  event_id: id,
  type: "m.room.message",
  sender: "@s:example.org",
  content
})

/** A piece of state. */
export const stateEvent = (type: string, state_key: string, content: StateEvent["content"] = {}): StateEvent => ({
  type,
  state_key,
  sender: "@s:example.org",
  content
})

/** A change of the room that changes nothing. */
export const roomCommit = (more: Partial<RoomCommit> = {}): RoomCommit => ({
  room: room(roomId),
  replace: false,
  state: [],
  timeline: [],
  accountData: [],
  ...more
})

/** A page without rooms that ends at this position. */
export const page = (pos: string, more: Partial<MainCommit> = {}): MainCommit => ({
  connId,
  pos,
  lists: {},
  rooms: [],
  accountData: [],
  quarantined: [],
  ...more
})

/** Events with these ids, as a page on top of what came before. */
export const messages = (
  sentPos: string | undefined,
  pos: string,
  ids: ReadonlyArray<string>,
  more: Partial<RoomCommit> = {}
) =>
  page(pos, {
    ...(sentPos === undefined ? {} : { sentPos }),
    rooms: [roomCommit({ timeline: ids.map((id) => event(id)), ...more })]
  })

/** Event ids of a timeline, with `gap <token>` for a gap. */
export const idsOf = (entries: ReadonlyArray<TimelineEntry>): ReadonlyArray<string> =>
  entries.map((entry) => (entry._tag === "Event" ? entry.event.event_id : `gap ${entry.prevBatch ?? "?"}`))

/** The whole stored timeline of the room, as ids. */
export const timelineIds = Effect.gen(function* () {
  const store = yield* SyncStore
  return idsOf(yield* store.timeline({ connId, roomId, limit: 100 }))
})

/** Why something was refused. */
export const reasonOf = <A>(
  self: Effect.Effect<A, StoreError, Stores>
): Effect.Effect<StoreErrorReason, never, Stores> =>
  Effect.match(self, { onFailure: (error) => error.reason, onSuccess: () => assert.fail("it was not refused") })

/** Everything that a commit of the extension stream could have changed. */
export const extensionState = Effect.gen(function* () {
  const store = yield* SyncStore
  return {
    position: yield* store.extensionPosition,
    inbox: yield* store.readInbox({ after: 0, limit: 1_000 }),
    quarantined: yield* store.quarantineCount
  }
})

/** Everything that a commit of the main loop could have changed. */
export const mainState = Effect.gen(function* () {
  const store = yield* SyncStore
  return {
    main: yield* store.loadMain(connId),
    timeline: yield* store.timeline({ connId, roomId, limit: 1_000 }),
    state: yield* store.state({ connId, roomId, type: "m.room.name" }),
    accountData: yield* store.accountData({ connId, type: "m.direct" }),
    quarantined: yield* store.quarantineCount
  }
})

/** Something to quarantine. */
export const thing = (index: number) => ({ source: "toDevice", reason: `reason ${index}`, raw: { index } }) as const
