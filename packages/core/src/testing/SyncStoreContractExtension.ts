/**
 * The part of `syncStoreContract` about the extension stream: fenced commits, the inbox, the quarantine.
 */
import { assert } from "@effect/vitest"
import { Effect, Exit } from "effect"
import { TestClock } from "effect/testing"
import * as SyncConfig from "../sync/SyncConfig.ts"
import { ENCRYPTION_NEWS_KEPT, type EncryptionNews, SyncStore } from "../sync/SyncStore.ts"
import {
  name,
  roomId,
  own,
  inboxEvent,
  batch,
  event,
  stateEvent,
  roomCommit,
  page,
  messages,
  reasonOf,
  extensionState,
  mainState,
  thing
} from "./SyncStoreFixtures.ts"
import type { Test } from "./SyncStoreFixtures.ts"

const extension = (test: Test): void => {
  test(
    "starts with nothing",
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* extensionState, { position: {}, inbox: [], quarantined: 0 })
    })
  )

  test(
    "I2: makes position, inbox and quarantine of a batch durable together, in order",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const fence = yield* own("a")
      const first = yield* store.commitExtension(fence, batch("s1", { inbox: [1, 2, 3].map(inboxEvent) }))
      assert.deepStrictEqual(
        first,
        [1, 2, 3].map((body) => ({ ...inboxEvent(body), sequence: body, generation: 1 }))
      )
      const second = batch("s2", { sentSince: "s1", inbox: [inboxEvent(4)], quarantined: [thing(1)] })
      const rows = yield* store.commitExtension(fence, second)
      assert.deepStrictEqual(yield* extensionState, {
        position: { since: "s2", pos: "pos-s2" },
        inbox: [...first, ...rows],
        quarantined: 1
      })
    })
  )

  test(
    "keeps what events hold, also what is odd",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const odd = { text: "\u0000 \ud800 é 🎈 '\"\\", deep: [[{ n: -0.5, none: null, yes: true }]], "": "" }
      yield* store.commitExtension(yield* own("a"), batch("s1", { inbox: [inboxEvent(odd)] }))
      const [row] = yield* store.readInbox({ after: 0, limit: 1 })
      assert.deepStrictEqual(row?.event, inboxEvent(odd).event)
    })
  )

  test(
    "takes what is absent in the position as absent",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const fence = yield* own("a")
      yield* store.commitExtension(fence, batch("s1"))
      yield* store.commitExtension(fence, batch("s1", { sentSince: "s1", position: { since: "s1" } }))
      assert.deepStrictEqual(yield* store.extensionPosition, { since: "s1" })
    })
  )

  test(
    "drops the connection's position and never the acknowledged token",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const fence = yield* own("a")
      yield* store.expireExtension(fence)
      yield* store.commitExtension(fence, batch("s1"))
      yield* store.expireExtension(fence)
      assert.deepStrictEqual(yield* store.extensionPosition, { since: "s1" })
    })
  )
}

const roomKey = (sessionId: string): EncryptionNews => ({ _tag: "RoomKey", roomId, sessionId })
const record = (value: number) => ({ collection: "c", key: new Uint8Array([1]), value: new Uint8Array([value]) })

/** What a reader of the news sees. */
const newsState = Effect.gen(function* () {
  const store = yield* SyncStore
  return { kept: yield* store.encryptionNewsKept, news: yield* store.encryptionNews({ after: 0, limit: 10 }) }
})

const engine = (test: Test): void => {
  test(
    "starts without news",
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* newsState, { kept: { first: 0, last: 0 }, news: [] })
    })
  )

  test(
    "I2: makes the engine's records and its news durable together, and leaves the stream where it is",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const fence = yield* own("a")
      yield* store.commitExtension(fence, batch("s1", { inbox: [inboxEvent(1)], news: [roomKey("one")] }))
      const before = yield* extensionState
      const devices: EncryptionNews = { _tag: "Devices", userId: "@other:example.org" }
      yield* store.commitCrypto(fence, { crypto: [record(1)], news: [roomKey("two"), devices] })
      yield* store.commitCrypto(fence, { crypto: [] })
      assert.deepStrictEqual(yield* extensionState, before)
      const { kept, news } = yield* newsState
      assert.deepStrictEqual(kept, { first: 1, last: 3 })
      assert.deepStrictEqual(news, [
        { sequence: 1, news: roomKey("one") },
        { sequence: 2, news: roomKey("two") },
        { sequence: 3, news: devices }
      ])
      assert.deepStrictEqual(yield* store.encryptionNews({ after: 1, limit: 1 }), news.slice(1, 2))
      assert.deepStrictEqual(yield* store.encryptionNews({ after: 3, limit: 1 }), [])
    })
  )

  test(
    "I1: refuses the engine's records under a stale generation, with their news",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const stale = yield* own("a")
      yield* store.commitCrypto(stale, { crypto: [record(1)], news: [roomKey("one")] })
      yield* own("b", 1)
      const before = yield* newsState
      const late = store.commitCrypto(stale, { crypto: [record(2)], news: [roomKey("two")] })
      const reason = yield* reasonOf(late)
      assert.deepInclude(reason, { _tag: "StaleGeneration", name, generation: 1, currentGeneration: 2 })
      assert.deepStrictEqual(yield* newsState, before)
    })
  )

  test(
    "I10: keeps the newest news, and goes on counting",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const fence = yield* own("a")
      const many = Array.from({ length: ENCRYPTION_NEWS_KEPT }, (_, index) => roomKey(`${index}`))
      yield* store.commitCrypto(fence, { crypto: [], news: many })
      yield* store.commitCrypto(fence, { crypto: [], news: [roomKey("a"), roomKey("b")] })
      assert.deepStrictEqual(yield* store.encryptionNewsKept, { first: 3, last: ENCRYPTION_NEWS_KEPT + 2 })
    })
  )
}

const refusals = (test: Test): void => {
  test(
    "I1: refuses a stale generation, and writes nothing",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const stale = yield* own("a")
      yield* store.commitExtension(stale, batch("s1", { inbox: [inboxEvent(1)] }))
      const owner = yield* own("b", 1)
      const before = yield* extensionState
      const late = batch("s2", { sentSince: "s1", inbox: [inboxEvent(2)], quarantined: [thing(1)] })

      const reason = yield* reasonOf(store.commitExtension(stale, late))
      assert.strictEqual(reason._tag, "StaleGeneration")
      assert.deepInclude(reason, { name, generation: 1, currentGeneration: 2 })
      assert.strictEqual((yield* reasonOf(store.expireExtension(stale)))._tag, "StaleGeneration")
      assert.deepStrictEqual(yield* extensionState, before)

      // The owner goes on from the same place.
      yield* store.commitExtension(owner, late)
      const { inbox } = yield* extensionState
      assert.deepStrictEqual(
        inbox.map((entry) => entry.generation),
        [1, 2]
      )
    })
  )

  test(
    "I1: refuses a fence of another holder, another name or no lease at all",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const fence = yield* own("a")
      for (const wrong of [
        { ...fence, holder: "b" },
        { ...fence, name: "other" },
        { ...fence, generation: 0 },
        { ...fence, generation: 2 }
      ]) {
        assert.strictEqual((yield* reasonOf(store.commitExtension(wrong, batch("s1"))))._tag, "StaleGeneration")
      }
      assert.deepStrictEqual(yield* store.extensionPosition, {})
    })
  )

  test(
    "I1: accepts the owner whose lease has expired while nobody else took it",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const fence = yield* own("a")
      yield* TestClock.adjust("1 hour")
      yield* store.commitExtension(fence, batch("s1"))
      assert.strictEqual((yield* store.extensionPosition).since, "s1")
    })
  )

  test(
    "I2: refuses a response to a request that was sent with another token, and writes nothing",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const fence = yield* own("a")
      const early = yield* reasonOf(store.commitExtension(fence, batch("s2", { sentSince: "s1" })))
      assert.strictEqual(early._tag, "Moved")
      assert.deepInclude(early, { token: "since", sent: "s1" })

      yield* store.commitExtension(fence, batch("s1", { inbox: [inboxEvent(1)] }))
      const before = yield* extensionState
      const without = yield* reasonOf(store.commitExtension(fence, batch("s2", { inbox: [inboxEvent(2)] })))
      assert.deepInclude(without, { token: "since", stored: "s1" })
      assert.deepStrictEqual(yield* extensionState, before)
    })
  )

  test(
    "I2: applies a response that is committed twice once",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const fence = yield* own("a")
      yield* store.commitExtension(fence, batch("s1"))
      const response = batch("s2", { sentSince: "s1", inbox: [inboxEvent(1)] })
      yield* store.commitExtension(fence, response)
      assert.strictEqual((yield* reasonOf(store.commitExtension(fence, response)))._tag, "Moved")
      // Nor does it help to own anew.
      const next = yield* own("b", 1)
      assert.strictEqual((yield* reasonOf(store.commitExtension(next, response)))._tag, "Moved")
      assert.strictEqual((yield* extensionState).inbox.length, 1)
    })
  )

  test(
    "I2: applies one of several responses to the same token that are committed at once",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const fence = yield* own("a")
      const exits = yield* Effect.forEach(
        ["s1", "s2", "s3"],
        (since) => Effect.exit(store.commitExtension(fence, batch(since, { inbox: [inboxEvent(since)] }))),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(exits.filter(Exit.isSuccess).length, 1)
      assert.strictEqual((yield* extensionState).inbox.length, 1)
    })
  )

  test(
    "I2: leaves nothing of a transaction that fails midway",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const fence = yield* own("a")
      yield* store.commitExtension(fence, batch("s1", { inbox: [inboxEvent(1)] }))
      yield* store.commitMain(messages(undefined, "p1", ["$1"]))
      const before = { extension: yield* extensionState, main: yield* mainState }

      // What JSON can't say fails when its turn comes, after the rows before it were written.
      const inbox = [inboxEvent(2), inboxEvent(3n)]
      assert.isTrue(
        Exit.isFailure(yield* Effect.exit(store.commitExtension(fence, batch("s2", { sentSince: "s1", inbox }))))
      )
      const timeline = [event("$2"), event("$3", { body: 3n })]
      const broken = page("p2", {
        sentPos: "p1",
        rooms: [roomCommit({ state: [stateEvent("m.room.name", "", { name: "new" })], timeline })],
        quarantined: [thing(1)]
      })
      assert.isTrue(Exit.isFailure(yield* Effect.exit(store.commitMain(broken))))
      assert.deepStrictEqual({ extension: yield* extensionState, main: yield* mainState }, before)

      // And the store is none the worse for it.
      const [row] = yield* store.commitExtension(fence, batch("s2", { sentSince: "s1", inbox: [inboxEvent(2)] }))
      assert.strictEqual(row?.sequence, 2)
    })
  )
}

const inbox = (test: Test): void => {
  const fill = (count: number) =>
    Effect.gen(function* () {
      const store = yield* SyncStore
      const bodies = Array.from({ length: count }, (_, index) => index + 1)
      yield* store.commitExtension(yield* own("a"), batch("s1", { inbox: bodies.map(inboxEvent) }))
      return store
    })
  const sequences = Effect.map(extensionState, (state) => state.inbox.map((entry) => entry.sequence))

  test(
    "reads the inbox piece by piece",
    Effect.gen(function* () {
      const store = yield* fill(5)
      const rows = yield* store.readInbox({ after: 1, limit: 3 })
      assert.deepStrictEqual(
        rows.map((row) => row.sequence),
        [2, 3, 4]
      )
      assert.deepStrictEqual(yield* store.readInbox({ after: 5, limit: 3 }), [])
    })
  )

  test(
    "moves a consumer's cursor forward only, and never beyond the last row",
    Effect.gen(function* () {
      const store = yield* fill(5)
      assert.strictEqual(yield* store.inboxCursor("app"), 0)
      for (const [sequence, stands] of [
        [3, 3],
        [2, 3],
        [99, 5]
      ] as const) {
        yield* store.advanceInbox({ consumer: "app", sequence, keep: 10 })
        assert.strictEqual(yield* store.inboxCursor("app"), stands)
      }
    })
  )

  test(
    "deletes what every consumer has passed, except the newest rows",
    Effect.gen(function* () {
      const store = yield* fill(6)
      yield* store.advanceInbox({ consumer: "slow", sequence: 2, keep: 0 })
      yield* store.advanceInbox({ consumer: "fast", sequence: 6, keep: 0 })
      assert.deepStrictEqual(yield* sequences, [3, 4, 5, 6])
      yield* store.advanceInbox({ consumer: "slow", sequence: 6, keep: 2 })
      assert.deepStrictEqual(yield* sequences, [5, 6])
    })
  )

  test(
    "I10: waits no longer for a consumer that is forgotten, which starts at the oldest row when it comes back",
    Effect.gen(function* () {
      const store = yield* fill(6)
      yield* store.advanceInbox({ consumer: "gone", sequence: 1, keep: 0 })
      yield* store.advanceInbox({ consumer: "app", sequence: 4, keep: 0 })
      yield* store.forgetConsumer("gone")
      // Forgetting deletes nothing by itself: another consumer's step does, up to where that one stands.
      assert.deepStrictEqual(yield* sequences, [2, 3, 4, 5, 6])
      yield* store.advanceInbox({ consumer: "app", sequence: 4, keep: 0 })
      assert.deepStrictEqual(yield* sequences, [5, 6])
      assert.strictEqual(yield* store.inboxCursor("app"), 4)
      assert.strictEqual(yield* store.inboxCursor("gone"), 0)
      yield* store.forgetConsumer("gone")
    })
  )

  test(
    "I2: never gives a sequence number twice, also after all rows were deleted",
    Effect.gen(function* () {
      const store = yield* fill(3)
      yield* store.advanceInbox({ consumer: "app", sequence: 3, keep: 0 })
      assert.deepStrictEqual(yield* sequences, [])
      const fence = yield* own("b", 1)
      const [row] = yield* store.commitExtension(fence, batch("s2", { sentSince: "s1", inbox: [inboxEvent(4)] }))
      assert.strictEqual(row?.sequence, 4)
    })
  )
}

const quarantine = (test: Test): void => {
  test(
    "I7: keeps what can't be understood with its JSON, newest first, and counts it",
    Effect.gen(function* () {
      const store = yield* SyncStore
      yield* TestClock.setTime(5_000)
      const odd = { source: "timeline", roomId, reason: "it is not a JSON object", raw: [null, "x"] } as const
      yield* store.commitMain(page("p1", { quarantined: [odd] }))
      yield* store.commitExtension(yield* own("a"), batch("s1", { quarantined: [thing(1), thing(2)] }))
      assert.deepStrictEqual(yield* store.quarantine(10), [
        { ...thing(2), id: 3, atMillis: 5_000 },
        { ...thing(1), id: 2, atMillis: 5_000 },
        { ...odd, id: 1, atMillis: 5_000 }
      ])
      assert.strictEqual((yield* store.quarantine(1)).length, 1)
      assert.strictEqual(yield* store.quarantineCount, 3)
    })
  )

  test(
    "I10: keeps the newest of them up to the limit, and counts all",
    Effect.gen(function* () {
      const store = yield* SyncStore
      const fence = yield* own("a")
      const things = [1, 2, 3, 4, 5].map(thing)
      yield* store
        .commitExtension(fence, batch("s1", { quarantined: things }))
        .pipe(Effect.provide(SyncConfig.layer({ quarantineKept: 2 })))
      const kept = yield* store.quarantine(10)
      assert.deepStrictEqual(
        kept.map((entry) => entry.raw),
        [{ index: 5 }, { index: 4 }]
      )
      assert.strictEqual(yield* store.quarantineCount, 5)
    })
  )
}

/** Registers the tests of the extension stream, the inbox and the quarantine. */
export const extensionContract = (test: Test): void => {
  extension(test)
  engine(test)
  refusals(test)
  inbox(test)
  quarantine(test)
}
