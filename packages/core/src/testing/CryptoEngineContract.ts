/**
 * What every `CryptoEngine` must do; run over `PassThroughCrypto`, and over whatever decrypts.
 *
 * Includes order, bad events (invariant I7), that nothing becomes durable but by the caller's commit (I2), and the round of
 * `receive`, `committed`, `discard` and `reload` (I5).
 *
 * Gotchas: the harness stands for the caller and for the database. What the engine wants written is given to `commit`; an
 * engine that is reloaded must be as what was committed says, and not as it was.
 *
 * Not here: what an engine makes of encrypted events, which needs a second device.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Scope } from "effect"
import type { Fence } from "../lease/Lease.ts"
import type { JsonObject, MatrixEvent } from "../matrix/MatrixEvent.ts"
import type { CryptoEngine, OutgoingRequest, ReceiveBatch, Received } from "../sync/CryptoEngine.ts"
import type { CryptoError } from "../sync/CryptoError.ts"
import type { CryptoWrite } from "../sync/SyncStore.ts"

/** An engine over a database of its own, and the other side of that database. */
export interface CryptoEngineUnderTest {
  readonly engine: CryptoEngine["Service"]
  /** Makes these records durable, as the fenced commit does. */
  commit(writes: ReadonlyArray<CryptoWrite>): Effect.Effect<void>
  /** Everything that is durable, in a form that can be compared. */
  readonly stored: Effect.Effect<unknown>
}

/** How the contract gets at an engine. */
export interface CryptoEngineHarness {
  /** An engine that isn't loaded yet, over an empty database. */
  readonly open: Effect.Effect<CryptoEngineUnderTest, never, Scope.Scope>
  /** An engine that runs real cryptography may need the real clock. */
  readonly clock: "live" | "test"
}

const fenceOf = (generation: number): Fence => ({ name: "stream", holder: "main#1", generation })
const fence = fenceOf(1)

/** An event that no engine has reason to keep to itself. */
const plain = (number: number): MatrixEvent => ({
  type: "org.example.numbered",
  sender: "@s:example.org",
  content: { number },
  unknown: { kept: [null, number] }
})

/** Events that are bad in every way in which an engine could stumble over them. */
const bad: ReadonlyArray<MatrixEvent> = [
  { type: "m.room.encrypted", sender: "@s:example.org", content: {} },
  { type: "m.room.encrypted", sender: "not a user id", content: { algorithm: "m.olm.v1.curve25519-aes-sha2" } },
  {
    type: "m.room.encrypted",
    sender: "@s:example.org",
    content: { algorithm: 7, ciphertext: "no object", sender_key: null }
  },
  { type: "m.room_key", sender: "@s:example.org", content: { algorithm: "m.megolm.v1.aes-sha2", session_key: "?" } },
  { type: "m.room_key_request", sender: "", content: { action: { nested: [] } } },
  { type: "m.key.verification.start", sender: "@s:example.org", content: { method: [] } },
  { type: "", sender: "@s:example.org", content: {} }
]

const batchOf = (toDevice: ReadonlyArray<MatrixEvent>, more: Partial<ReceiveBatch> = {}): ReceiveBatch => ({
  toDevice,
  fresh: false,
  ...more
})

/** The numbers of the plain events that came out, in order. */
const numbersOf = ({ inbox }: Received): ReadonlyArray<unknown> =>
  inbox
    .filter(({ type }) => type === "org.example.numbered")
    .map(({ event }) => (event.content as JsonObject | undefined)?.number)

const loaded = (harness: CryptoEngineHarness) => Effect.tap(harness.open, ({ engine }) => engine.reload(fence))

/** Receives a batch and commits what comes of it, as the extension loop does. */
const applied = Effect.fnUntraced(function* (
  { commit, engine }: CryptoEngineUnderTest,
  batch: ReceiveBatch,
  under: Fence = fence
): Effect.fn.Return<Received, CryptoError> {
  const received = yield* engine.receive(under, batch)
  yield* commit(received.writes)
  yield* engine.committed
  return received.value
})

/** What the engine wants sent, with what that needs committed. */
const asked = Effect.fnUntraced(function* ({ commit, engine }: CryptoEngineUnderTest) {
  const { value, writes } = yield* engine.outgoing(fence)
  yield* commit(writes)
  yield* engine.committed
  return value
})

/** A request without its id, which an engine may choose anew. */
const contentOf = ({ request }: OutgoingRequest) => request

type Test = (title: string, body: Effect.Effect<void, CryptoError, Scope.Scope>) => void

const receives = (test: Test, harness: CryptoEngineHarness): void => {
  test(
    "gives the events in order, with everything that was in them, and says that they were not encrypted",
    Effect.gen(function* () {
      const under = yield* loaded(harness)
      const first = yield* applied(under, batchOf([plain(1), plain(2), plain(3)], { fresh: true }))
      const second = yield* applied(under, batchOf([plain(4), plain(5)]))
      assert.deepStrictEqual([...numbersOf(first), ...numbersOf(second)], [1, 2, 3, 4, 5])
      for (const [index, { encryption, event, sender }] of first.inbox.entries()) {
        assert.deepStrictEqual({ ...event }, { ...plain(index + 1) })
        assert.deepStrictEqual([encryption, sender], ["none", "@s:example.org"])
      }
      assert.deepStrictEqual(first.quarantined, [])
    })
  )

  test(
    "I7: reports each bad event, and gives what stands before, between and after them",
    Effect.gen(function* () {
      const under = yield* loaded(harness)
      const events = bad.flatMap((event, index) => [plain(index), event])
      const received = yield* applied(under, batchOf([...events, plain(bad.length)]))
      assert.deepStrictEqual(numbersOf(received), [...bad.keys(), bad.length])
      // Nothing is dropped in silence: an event is in the inbox, or in the quarantine.
      assert.isAtLeast(received.inbox.length + received.quarantined.length, events.length + 1)
      for (const { reason } of received.quarantined) assert.isNotEmpty(reason)
      for (const { encryption, type } of received.inbox) {
        if (type === "m.room.encrypted") assert.strictEqual(encryption, "undecryptable")
      }
      // Nor is the engine worse for it.
      assert.deepStrictEqual(numbersOf(yield* applied(under, batchOf([plain(100)]))), [100])
    })
  )

  test(
    "takes a batch that has nothing, and one that has only bookkeeping",
    Effect.gen(function* () {
      const under = yield* loaded(harness)
      const e2ee = {
        oneTimeKeysCount: { signed_curve25519: 50, unknown: 0 },
        unusedFallbackKeyTypes: [],
        deviceLists: { changed: ["@s:example.org"], left: ["@gone:example.org"] }
      }
      for (const batch of [batchOf([]), batchOf([], { fresh: true }), batchOf([], { e2ee })]) {
        const { inbox, quarantined } = yield* applied(under, batch)
        assert.deepStrictEqual([inbox, quarantined], [[], []])
      }
    })
  )
}

const durability = (test: Test, harness: CryptoEngineHarness): void => {
  test(
    "I2: makes nothing durable by itself: not by loading, nor receiving, nor being asked what to send, nor discarding",
    Effect.gen(function* () {
      const { engine, stored } = yield* harness.open
      const before = yield* stored
      yield* engine.reload(fence)
      yield* engine.receive(fence, batchOf([plain(1), ...bad], { e2ee: { oneTimeKeysCount: {} }, fresh: true }))
      assert.deepStrictEqual(yield* stored, before)
      yield* engine.discard
      yield* engine.reload(fence)
      yield* engine.outgoing(fence)
      assert.deepStrictEqual(yield* stored, before)
    })
  )

  test(
    "I5: after a discard and a reload it takes the same batch again, as if it had never come",
    Effect.gen(function* () {
      const under = yield* loaded(harness)
      yield* applied(under, batchOf([plain(1)], { fresh: true }))
      const batch = batchOf([plain(2), plain(3)])
      yield* under.engine.receive(fence, batch)
      yield* under.engine.discard
      yield* under.engine.reload(fence)
      assert.deepStrictEqual(numbersOf(yield* applied(under, batch)), [2, 3])
    })
  )

  test(
    "I5: goes on under a later generation once it is reloaded, from what was committed",
    Effect.gen(function* () {
      const under = yield* loaded(harness)
      yield* applied(under, batchOf([plain(1)], { fresh: true }))
      const committed = yield* under.stored
      yield* under.engine.reload(fenceOf(3))
      assert.deepStrictEqual(yield* under.stored, committed)
      assert.deepStrictEqual(numbersOf(yield* applied(under, batchOf([plain(2)]), fenceOf(3))), [2])
    })
  )

  test(
    "discards and reloads as often as it is told to, whatever came before",
    Effect.gen(function* () {
      const under = yield* harness.open
      yield* under.engine.discard
      yield* under.engine.discard
      yield* under.engine.reload(fence)
      yield* under.engine.reload(fence)
      assert.deepStrictEqual(numbersOf(yield* applied(under, batchOf([plain(1)]))), [1])
    })
  )
}

const outgoing = (test: Test, harness: CryptoEngineHarness): void => {
  test(
    "wants the same sent until it was sent, also after a discard and a reload",
    Effect.gen(function* () {
      const under = yield* loaded(harness)
      const first = yield* asked(under)
      const ids = first.map(({ id }) => id)
      assert.lengthOf(new Set(ids), ids.length)
      assert.deepStrictEqual((yield* asked(under)).map(contentOf), first.map(contentOf))
      yield* under.engine.discard
      yield* under.engine.reload(fence)
      assert.deepStrictEqual((yield* asked(under)).map(contentOf), first.map(contentOf))
    })
  )
}

/**
 * Registers the contract's tests for an engine, under its name. Every test opens an engine of its own.
 *
 * @example
 * ```ts
 * cryptoEngineContract("PassThroughCrypto", {
 *   clock: "test",
 *   open: Effect.map(Effect.provide(CryptoEngine, PassThroughCrypto.layer), (engine) => ({
 *     engine,
 *     commit: () => Effect.void,
 *     stored: Effect.succeed([])
 *   }))
 * })
 * ```
 */
export const cryptoEngineContract = (name: string, harness: CryptoEngineHarness): void => {
  const run = harness.clock === "live" ? it.live : it.effect
  const test: Test = (title, body) => run(title, () => body)
  describe(`${name} keeps the contract of CryptoEngine`, () => {
    receives(test, harness)
    durability(test, harness)
    outgoing(test, harness)
  })
}
