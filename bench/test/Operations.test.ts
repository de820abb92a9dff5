/**
 * What work costs, in operations: a guard that can't flake, since it counts and takes no time.
 *
 * Not here: pages of the log, requests and rows of the lease (`packages/platform/test/Costs.test.ts`, `StoreCosts.test.ts`).
 *
 * A number here may change with a reason. It must not change by accident: one statement more per event is a tenth of the time of
 * a page.
 */
import { assert, describe, it } from "@effect/vitest"
import { LeaseStore, MainIngest, RoomList, SlidingSyncWire, SyncStore } from "@twinloop/core"
import type { Lease, SlidingSync } from "@twinloop/core"
import { SqliteStores } from "@twinloop/platform"
import { Effect, Layer, Result } from "effect"
import { DatabaseSync, StatementSync } from "node:sqlite"
import { ME, SyntheticAccount } from "../data/SyntheticAccount.ts"
import * as Child from "../Child.ts"

/** The statements that SQLite was given, in order, and how many were prepared. */
interface Counted {
  readonly ran: Array<string>
  prepared: number
}

/** Counts everything that node:sqlite is asked for as long as the scope is open. */
const counting = Effect.acquireRelease(
  Effect.sync(() => {
    const counted: Counted = { ran: [], prepared: 0 }
    const texts = new WeakMap<StatementSync, string>()
    const { prepare } = DatabaseSync.prototype
    const { all, get, run } = StatementSync.prototype
    const note = (statement: StatementSync): void => void counted.ran.push(texts.get(statement) ?? "unknown")
    DatabaseSync.prototype.prepare = function (sql, ...others) {
      const statement = prepare.call(this, sql, ...others)
      texts.set(statement, sql)
      counted.prepared += 1
      return statement
    }
    Object.assign(StatementSync.prototype, {
      run(this: StatementSync, ...values: Parameters<typeof run>) {
        note(this)
        return run.apply(this, values)
      },
      get(this: StatementSync, ...values: Parameters<typeof get>) {
        note(this)
        return get.apply(this, values)
      },
      all(this: StatementSync, ...values: Parameters<typeof all>) {
        note(this)
        return all.apply(this, values)
      }
    })
    return { counted, restore: { prepare, all, get, run } }
  }),
  ({ restore: { prepare, ...methods } }) =>
    Effect.sync(() => {
      DatabaseSync.prototype.prepare = prepare
      Object.assign(StatementSync.prototype, methods)
    })
)

const stores = Layer.unwrap(Effect.map(Child.newDatabase, (filename) => SqliteStores.layer({ filename })))

const layer = Layer.merge(stores, RoomList.layer)

const responseOf = (pos: string, rooms: object): SlidingSync.SyncResponse =>
  Result.getOrThrow(SlidingSyncWire.decodeResponse({ pos, lists: { rooms: { count: 100 } }, rooms, extensions: {} }))

/** Feeds responses as the main loop does, and counts the statements of each. */
const feeder = Effect.gen(function* () {
  const store = yield* SyncStore.SyncStore
  const list = yield* RoomList.RoomList
  const { counted } = yield* counting
  let sentPos: string | undefined
  return Effect.fnUntraced(function* (response: SlidingSync.SyncResponse) {
    const rooms = yield* list.all
    const { changed, commit } = MainIngest.ingest({ ownUserId: ME, connId: "rooms-main", sentPos, rooms }, response)
    counted.ran.length = 0
    counted.prepared = 0
    yield* store.commitMain(commit)
    yield* list.publish({ changed })
    sentPos = response.pos
    return { ran: [...counted.ran], prepared: counted.prepared }
  })
})

const page = (account: SyntheticAccount, timeline: number) =>
  Object.fromEntries(Array.from({ length: 100 }, () => account.initialRoom(timeline)))

const commitsIn = (ran: ReadonlyArray<string>): number => ran.filter((sql) => sql === "COMMIT").length

const sum = (numbers: ReadonlyArray<number>): number => numbers.reduce((all, one) => all + one, 0)

/** Around the rows: how durable, BEGIN, the position, the position again, COMMIT, and how long the log is. */
const AROUND = 6

describe("What a commit costs", () => {
  it.live(
    "a page takes one statement per event, three per room and one commit, and prepares nothing the second time",
    () =>
      Effect.gen(function* () {
        const feed = yield* feeder
        const account = new SyntheticAccount(1)
        for (const [pos, timeline] of [
          ["1", 1],
          ["2", 20]
        ] as const) {
          const response = responseOf(pos, page(account, timeline))
          const events = sum(response.rooms.map((room) => room.requiredState.length + room.timeline.length))
          const { prepared, ran } = yield* feed(response)
          // Per room: whether it is there, its row, and the gap in front of its timeline.
          assert.strictEqual(ran.length, AROUND + 3 * response.rooms.length + events)
          assert.strictEqual(commitsIn(ran), 1)
          if (pos === "2") assert.strictEqual(prepared, 0)
        }
      }).pipe(Effect.scoped, Effect.provide(layer))
  )

  it.live("news take two statements per event, three per room and one commit that isn't synced", () =>
    Effect.gen(function* () {
      const feed = yield* feeder
      const account = new SyntheticAccount(2)
      yield* feed(responseOf("0", page(account, 1)))
      for (let turn = 1; turn <= 20; turn++) {
        const response = responseOf(`${turn}`, account.news()[0])
        const events = sum(response.rooms.map((room) => room.timeline.length))
        const { prepared, ran } = yield* feed(response)
        // Per event: whether it is there, and its row. Per room: where it is, its row, and the end of its timeline.
        assert.strictEqual(ran.length, AROUND + 3 * response.rooms.length + 2 * events)
        assert.strictEqual(commitsIn(ran), 1)
        assert.notInclude(ran, "PRAGMA synchronous = FULL")
        if (turn > 1) assert.strictEqual(prepared, 0)
      }
    }).pipe(Effect.scoped, Effect.provide(layer))
  )

  it.live("a batch of messages takes one statement per message and one synced commit", () =>
    Effect.gen(function* () {
      const store = yield* SyncStore.SyncStore
      const leases = yield* LeaseStore
      const { counted } = yield* counting
      const asked = { name: "extension", permits: 1, count: 1, holder: "a", peer: {}, nowMillis: 0, leaseMillis: 1e9 }
      yield* leases.take(asked)
      const fence: Lease.Fence = { name: "extension", holder: "a", generation: 1 }
      const inbox = Array.from({ length: 100 }, (_, index) => ({
        type: "t",
        sender: "@s:x",
        event: { index },
        encryption: "none" as const
      }))
      counted.ran.length = 0
      yield* store.commitExtension(fence, { position: { since: "1" }, inbox, crypto: [], quarantined: [] })
      // Beside what is around: the fence.
      assert.strictEqual(counted.ran.length, AROUND + 1 + inbox.length)
      assert.strictEqual(commitsIn(counted.ran), 1)
      assert.strictEqual(counted.ran.filter((sql) => sql === "PRAGMA synchronous = FULL").length, 1)
    }).pipe(Effect.scoped, Effect.provide(layer))
  )
})
