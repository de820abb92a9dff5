/**
 * What is stored, read back after somebody else has written it: each target puts a text into a column of a database and reads.
 *
 * Not here: the records of the crypto store, which are bytes (`Targets.ts`).
 */
import { LeaseStore, SyncStore } from "@twinloop/core"
import { Context, Effect, Layer } from "effect"
import type { Scope } from "effect"
import * as SessionStore from "../../packages/platform/src/http/SessionStore.ts"
import * as SqliteSessionStore from "../../packages/platform/src/http/SqliteSessionStore.ts"
import { SqliteClient } from "../../packages/platform/src/sqlite/SqliteClient.ts"
import * as SqliteStores from "../../packages/platform/src/sqlite/SqliteStores.ts"
import type { Target } from "./Targets.ts"

/** An event as it is stored. */
const event = { type: "t", sender: "@b:x", event_id: "$e", origin_server_ts: 1, content: { body: "hello" } }

interface Column {
  readonly name: string
  readonly seed: string
  /** Puts the text in its place. */
  readonly write: string
  readonly read: Effect.Effect<unknown, unknown, SyncStore.SyncStore | LeaseStore | SessionStore.SessionStore>
}

const withStore = <A, E>(use: (store: SyncStore.SyncStore["Service"]) => Effect.Effect<A, E>) =>
  Effect.flatMap(SyncStore.SyncStore, use)

const claim = {
  name: "stream",
  permits: 1,
  count: 1,
  holder: "me",
  peer: {},
  nowMillis: 1,
  leaseMillis: 1_000
}

const columns: ReadonlyArray<Column> = [
  {
    name: "room summary",
    seed: JSON.stringify({ roomId: "!r:x", name: "Kitchen", membership: "join", heroes: [], bumpStamp: 1 }),
    write: `INSERT OR REPLACE INTO room (number, connection, room_id, summary) VALUES (1, 'stored', '!r:x', ?)`,
    read: withStore((store) => Effect.all([store.loadMain("stored"), store.room("stored", "!r:x")]))
  },
  {
    name: "inbox row",
    seed: JSON.stringify({ type: "t", sender: "@a:x", content: { n: 1 } }),
    write: `INSERT OR REPLACE INTO inbox (sequence, generation, type, sender, encryption, event) VALUES (1, 1, 't', 's', 'none', ?)`,
    read: withStore((store) => store.readInbox({ after: 0, limit: 10 }))
  },
  {
    name: "timeline row",
    seed: JSON.stringify(event),
    write: `WITH room(number) AS (SELECT 7) INSERT OR REPLACE INTO timeline_entry (number, room, position, event_id, event)
      SELECT number, number, 0, '$e', ? FROM room`,
    read: withStore((store) =>
      Effect.all([store.timeline({ connId: "rows", roomId: "!r:x", limit: 5 }), store.event("rows", "!r:x", "$e")])
    )
  },
  {
    name: "state row",
    seed: JSON.stringify({ ...event, state_key: "" }),
    write: `INSERT OR REPLACE INTO state_event (number, room, type, state_key, event) VALUES (7, 7, 't', '', ?)`,
    read: withStore((store) => store.state({ connId: "rows", roomId: "!r:x", type: "t" }))
  },
  {
    name: "account data row",
    seed: JSON.stringify({ type: "t", content: { n: 1 } }),
    write: `INSERT OR REPLACE INTO account_data (connection, room_id, type, event) VALUES ('rows', '', 't', ?)`,
    read: withStore((store) => store.accountData({ connId: "rows", type: "t" }))
  },
  {
    name: "quarantine row",
    seed: JSON.stringify({ type: 7 }),
    write: `INSERT OR REPLACE INTO quarantine (id, source, reason, raw, at_millis) VALUES (1, 'timeline', 'r', ?, 1)`,
    read: withStore((store) => store.quarantine(10))
  },
  {
    name: "encryption news",
    seed: JSON.stringify({ _tag: "RoomKey", roomId: "!r:x", sessionId: "s" }),
    write: `INSERT OR REPLACE INTO encryption_news (sequence, news) VALUES (1, ?)`,
    read: withStore((store) => store.encryptionNews({ after: 0, limit: 10 }))
  },
  {
    name: "lists of a connection",
    seed: JSON.stringify({ all: 3 }),
    write: `INSERT OR REPLACE INTO connection (id, pos, lists) VALUES ('listed', '1', ?)`,
    read: withStore((store) => store.mainPosition("listed"))
  },
  {
    name: "lease row",
    seed: JSON.stringify({ pid: 1, startedAt: "a.1", endpoint: "/x" }),
    write: `INSERT OR REPLACE INTO lease (name, slot, holder, generation, expires_at_millis, lease_millis, peer)
      VALUES ('stream', 0, 'other', 1, 500, 1000, ?)`,
    read: Effect.flatMap(LeaseStore, (leases) => leases.take(claim))
  },
  {
    name: "session row",
    seed: "https://matrix.example.org",
    write: `INSERT OR REPLACE INTO account_session (id, homeserver, user_id, device_id, access_token, refresh_token,
      expires_at_millis, revision) VALUES (1, ?1, ?1, ?1, ?1, ?1, 1, 1)`,
    read: Effect.flatMap(SessionStore.SessionStore, (store) => store.load)
  }
]

/** The targets, over one database, and its store. */
export const make = Effect.fnUntraced(function* (
  filename: string
): Effect.fn.Return<
  { readonly targets: ReadonlyArray<Target>; readonly store: SyncStore.SyncStore["Service"] },
  unknown,
  Scope.Scope
> {
  const context = yield* Layer.build(
    SqliteSessionStore.layer.pipe(Layer.provideMerge(SqliteStores.layer({ filename })))
  )
  const { now } = Context.get(context, SqliteClient)
  // The room whose rows are read.
  now.get(`INSERT INTO room (number, connection, room_id, summary) VALUES (7, 'rows', '!r:x', '{}')`)
  const targets = columns.map(({ name, read, seed, write }): Target => ({
    name: `stored ${name}`,
    weight: 1,
    seeds: [seed],
    take: (text) =>
      Effect.andThen(
        Effect.sync(() => now.get(write, text)),
        Effect.provide(read, context)
      )
  }))
  return { targets, store: Context.get(context, SyncStore.SyncStore) }
})
