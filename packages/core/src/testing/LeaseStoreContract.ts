/**
 * What every `LeaseStore` adapter must do; run over memory and over SQLite.
 *
 * Time is a parameter of the port, so nothing here waits. The cases of matrix-rust-sdk's lock tests are among them, in
 * terms of generations.
 *
 * Not here: waiting, renewing and giving up, which are the semaphore's (`DistributedSemaphore`).
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Layer } from "effect"
import type { Fence, TakeOutcome, TakeRequest } from "../lease/Lease.ts"
import { LeaseStore } from "../lease/LeaseStore.ts"
import type { StoreError } from "../sync/StoreError.ts"

const name = "stream"
const hour = 3_600_000
/** When each test begins: far enough from 0 that a clock can be set back. */
const start = 10 * hour
const lease = 1_000
const ticket = 1_500
const handover = 200

type Asked = Partial<TakeRequest>

const take = (holder: string, nowMillis: number, more: Asked = {}) =>
  Effect.flatMap(LeaseStore, (store) =>
    store.take({ name, permits: 1, count: 1, holder, peer: {}, nowMillis, leaseMillis: lease, ...more })
  )

const queue = (holder: string, nowMillis: number, more: Asked = {}) =>
  take(holder, nowMillis, { enqueueMillis: ticket, ...more })

const granted = (outcome: TakeOutcome): Extract<TakeOutcome, { _tag: "Granted" }> => {
  if (outcome._tag === "Busy") return assert.fail(`${outcome.blocker.kind} ${outcome.blocker.holder} stands in the way`)
  return outcome
}

/** Takes and must succeed; gives the fence. */
const own = (holder: string, nowMillis: number, more: Asked = {}): Effect.Effect<Fence, StoreError, LeaseStore> =>
  Effect.map(take(holder, nowMillis, more), (outcome) => ({ name, holder, generation: granted(outcome).generation }))

const blockerOf = (outcome: TakeOutcome) => (outcome._tag === "Busy" ? outcome.blocker.holder : undefined)

const release = (fence: Fence, nowMillis: number) =>
  Effect.flatMap(LeaseStore, (store) => store.release({ fence, nowMillis, handoverMillis: handover }))

const leave = (holder: string, nowMillis: number) =>
  Effect.flatMap(LeaseStore, (store) => store.leave({ name, holder, nowMillis, handoverMillis: handover }))

const renewal = (fence: Fence, nowMillis: number) =>
  Effect.flatMap(LeaseStore, (store) => store.renew({ fence, nowMillis, leaseMillis: lease }))

/** Renews; gives the new expiry, or `undefined` when it was refused. */
const renew = (fence: Fence, nowMillis: number) =>
  Effect.map(renewal(fence, nowMillis), (outcome) => (outcome._tag === "Renewed" ? outcome.expiresAtMillis : undefined))

/** Renews, which must succeed; whether somebody needs it soon. */
const isWanted = (fence: Fence, nowMillis: number) =>
  Effect.map(renewal(fence, nowMillis), (outcome) =>
    outcome._tag === "Renewed" ? outcome.wanted : assert.fail("the lease is somebody else's")
  )

const holds = (fence: Fence) => Effect.flatMap(LeaseStore, (store) => store.holds(fence))
const inspect = Effect.flatMap(LeaseStore, (store) => store.inspect(name))

/** A test in a store of its own. */
type Test = (name: string, body: Effect.Effect<void, StoreError, LeaseStore>) => void

const ownership = (test: Test): void => {
  test(
    "gives the first owner generation 1, and the same one for as long as nobody else owns",
    Effect.gen(function* () {
      const fence = yield* own("a", start)
      assert.strictEqual(fence.generation, 1)

      // Again while it holds, after it expired, and after it released: a process that lost its handle recovers.
      assert.strictEqual((yield* own("a", start + 10)).generation, 1)
      assert.strictEqual((yield* own("a", start + 10 * lease)).generation, 1)
      assert.deepStrictEqual(yield* release(fence, start + 10 * lease), { _tag: "Released", handedTo: [] })
      assert.strictEqual((yield* own("a", start + 10 * lease)).generation, 1)
    })
  )

  test(
    "refuses another holder and says who is in the way, until when, and how to watch him",
    Effect.gen(function* () {
      const peer = { endpoint: "/run/a.sock", pid: 7, startedAt: "12345" }
      yield* own("a", start, { peer })
      assert.deepStrictEqual(yield* take("b", start + lease - 1), {
        _tag: "Busy",
        blocker: { kind: "holder", holder: "a", peer, expiresAtMillis: start + lease }
      })
      // Who only tried leaves nothing behind.
      assert.deepStrictEqual((yield* inspect).waiters, [])
    })
  )

  test(
    "I1: counts the generation up by one whenever ownership passes, and never else",
    Effect.gen(function* () {
      const generations: Array<number> = []
      for (const [turn, holder] of ["a", "b", "b", "a", "b", "a"].entries()) {
        const fence = yield* own(holder, start + turn)
        generations.push(fence.generation)
        yield* release(fence, start + turn)
      }
      assert.deepStrictEqual(generations, [1, 2, 2, 3, 4, 5])
    })
  )

  test(
    "I1: lets exactly one of many askers have a free lease",
    Effect.gen(function* () {
      const holders = Array.from({ length: 20 }, (_, index) => `holder-${index}`)
      const outcomes = yield* Effect.forEach(holders, (holder) => take(holder, start), { concurrency: "unbounded" })
      assert.strictEqual(outcomes.filter((outcome) => outcome._tag === "Granted").length, 1)
    })
  )

  test(
    "keeps names apart",
    Effect.gen(function* () {
      yield* own("a", start)
      yield* own("b", start, { name: "another" })
      const store = yield* LeaseStore
      assert.deepStrictEqual(yield* store.inspect("nobody's"), { rows: [], waiters: [] })
      assert.strictEqual(yield* store.holds({ name: "another", holder: "a", generation: 1 }), false)
    })
  )

  test(
    "shows what it knows",
    Effect.gen(function* () {
      yield* own("a", start, { peer: { pid: 7 } })
      yield* queue("b", start + 5, { peer: { endpoint: "x" } })
      assert.deepStrictEqual(yield* inspect, {
        rows: [
          {
            slot: 0,
            holder: "a",
            generation: 1,
            expiresAtMillis: start + lease,
            leaseMillis: lease,
            peer: { pid: 7 }
          }
        ],
        waiters: [
          {
            ticket: 1,
            holder: "b",
            count: 1,
            expiresAtMillis: start + 5 + ticket,
            ticketMillis: ticket,
            peer: { endpoint: "x" },
            urgent: false
          }
        ]
      })
    })
  )
}

const expiry = (test: Test): void => {
  test(
    "lets another take an expired lease, under a new generation",
    Effect.gen(function* () {
      yield* own("a", start)
      assert.strictEqual(blockerOf(yield* take("b", start + lease - 1)), "a")
      assert.strictEqual((yield* own("b", start + lease)).generation, 2)
    })
  )

  test(
    "renews for whoever still owns, also after the expiry if nobody came",
    Effect.gen(function* () {
      const fence = yield* own("a", start)
      assert.strictEqual(yield* renew(fence, start + 500), start + 500 + lease)
      assert.strictEqual(blockerOf(yield* take("b", start + lease + 400)), "a")
      assert.strictEqual(yield* renew(fence, start + 5 * lease), start + 6 * lease)
      assert.strictEqual(blockerOf(yield* take("b", start + 5 * lease)), "a")
    })
  )

  test(
    "I1: refuses the renewal and the release of who lost the lease, and changes nothing",
    Effect.gen(function* () {
      const lost = yield* own("a", start)
      const owner = yield* own("b", start + lease)
      const before = yield* inspect
      assert.strictEqual(yield* renew(lost, start + lease + 1), undefined)
      assert.deepStrictEqual(yield* release(lost, start + lease + 1), { _tag: "NotHeld" })
      assert.deepStrictEqual(yield* inspect, before)

      // Not even the same holder's older generation counts.
      const again = yield* own("a", start + 3 * lease)
      assert.notStrictEqual(again.generation, lost.generation)
      assert.strictEqual(yield* renew(lost, start + 3 * lease), undefined)
      assert.strictEqual(yield* holds(owner), false)
    })
  )

  test(
    "I1: lets a fence stand until somebody else takes the lease, whatever the clock says",
    Effect.gen(function* () {
      const fence = yield* own("a", start)
      assert.strictEqual(yield* holds(fence), true)
      assert.strictEqual(yield* holds({ ...fence, generation: 2 }), false)
      assert.strictEqual(yield* holds({ ...fence, holder: "b" }), false)
      yield* own("b", start + lease)
      assert.strictEqual(yield* holds(fence), false)
    })
  )

  for (const [direction, step] of [
    ["forward", hour],
    ["back", -hour]
  ] as const) {
    test(
      `survives a clock that is set ${direction} by an hour: the lease counts as expired, and nobody waits for it`,
      Effect.gen(function* () {
        yield* own("a", start)
        assert.strictEqual(blockerOf(yield* take("b", start + 1)), "a")
        assert.strictEqual((yield* own("b", start + step)).generation, 2)
        // The new lease is measured by the new clock.
        assert.strictEqual(blockerOf(yield* take("a", start + step + 1)), "b")
      })
    )
  }

  test(
    "takes from a holder that is known to be dead before his lease expires",
    Effect.gen(function* () {
      yield* own("a", start)
      assert.strictEqual(blockerOf(yield* take("b", start + 1, { presumedDead: ["c"] })), "a")
      assert.strictEqual((yield* own("b", start + 1, { presumedDead: ["a"] })).generation, 2)
    })
  )
}

const queueing = (test: Test): void => {
  test(
    "hands a released lease to the first waiter, under a new generation",
    Effect.gen(function* () {
      const fence = yield* own("a", start)
      assert.strictEqual(blockerOf(yield* queue("b", start + 1)), "a")
      assert.strictEqual(blockerOf(yield* queue("c", start + 2)), "a")
      assert.deepStrictEqual(yield* release(fence, start + 10), { _tag: "Released", handedTo: ["b"] })

      // It is his at once: neither the one behind, nor the greedy holder, nor a newcomer can take it.
      assert.strictEqual(blockerOf(yield* queue("c", start + 11)), "b")
      assert.strictEqual(blockerOf(yield* take("a", start + 11)), "b")
      assert.strictEqual(blockerOf(yield* take("d", start + 11)), "b")
      const handed = granted(yield* queue("b", start + 12))
      assert.strictEqual(handed.generation, 2)
      assert.isBelow(handed.expiresAtMillis, start + 12 + lease)
      // The first renewal confirms it, for a whole lease.
      assert.strictEqual(yield* renew({ name, holder: "b", generation: 2 }, start + 13), start + 13 + lease)
      assert.strictEqual(yield* holds(fence), false)
    })
  )

  test(
    "serves waiters in the order in which they came",
    Effect.gen(function* () {
      let fence = yield* own("a", start)
      for (const holder of ["b", "c", "d"]) yield* queue(holder, start)
      const served: Array<string> = []
      for (let turn = 1; turn <= 3; turn++) {
        const outcome = yield* release(fence, start + turn)
        const [next = ""] = outcome._tag === "Released" ? outcome.handedTo : []
        served.push(next)
        fence = yield* own(next, start + turn)
      }
      assert.deepStrictEqual(served, ["b", "c", "d"])
    })
  )

  test(
    "lets nobody pass the first waiter when the lease expires",
    Effect.gen(function* () {
      yield* own("a", start)
      yield* queue("b", start + lease - 10)
      assert.strictEqual(blockerOf(yield* take("c", start + lease)), "b")
      // Nor the last owner, if he comes back too late to renew.
      assert.strictEqual(granted(yield* queue("b", start + lease + 1)).generation, 2)
    })
  )

  test(
    "offers a lease that isn't confirmed in time to the next",
    Effect.gen(function* () {
      const fence = yield* own("a", start)
      yield* queue("b", start)
      yield* queue("c", start)
      yield* release(fence, start + 1)
      assert.strictEqual(blockerOf(yield* queue("c", start + handover)), "b")
      const next = granted(yield* queue("c", start + 1 + handover))
      assert.strictEqual(next.generation, 3)
    })
  )

  test(
    "forgets a waiter that doesn't refresh its ticket, and keeps the place of one that does",
    Effect.gen(function* () {
      const fence = yield* own("a", start)
      yield* queue("dead", start)
      yield* queue("b", start)
      yield* queue("b", start + 1_000)
      assert.deepStrictEqual(yield* release(fence, start + ticket), { _tag: "Released", handedTo: ["b"] })
    })
  )

  test(
    "passes a waiter that is known to be dead",
    Effect.gen(function* () {
      yield* own("a", start)
      yield* queue("b", start + lease - 1)
      assert.strictEqual(blockerOf(yield* take("c", start + lease)), "b")
      assert.strictEqual((yield* own("c", start + lease, { presumedDead: ["b"] })).generation, 2)
    })
  )

  test(
    "lets a waiter leave, and passes on what it was handed meanwhile",
    Effect.gen(function* () {
      const fence = yield* own("a", start)
      for (const holder of ["b", "c", "d"]) yield* queue(holder, start)
      assert.strictEqual((yield* leave("c", start + 1))._tag, "Released")
      yield* release(fence, start + 2)
      assert.deepStrictEqual(yield* leave("b", start + 3), { _tag: "Released", handedTo: ["d"] })
      assert.deepStrictEqual(yield* leave("b", start + 4), { _tag: "NotHeld" })
      yield* own("d", start + 5)
      assert.deepStrictEqual((yield* inspect).waiters, [])
    })
  )
}

const urgency = (test: Test): void => {
  test(
    "tells a holder that renews of a waiter who needs it soon, and of no other",
    Effect.gen(function* () {
      const fence = yield* own("a", start)
      assert.deepStrictEqual(yield* renewal(fence, start + 1), {
        _tag: "Renewed",
        expiresAtMillis: start + 1 + lease,
        wanted: false
      })
      yield* queue("b", start + 2)
      assert.strictEqual(yield* isWanted(fence, start + 3), false)
      yield* queue("c", start + 4, { urgent: true })
      assert.strictEqual(yield* isWanted(fence, start + 5), true)
      // Who only tries waits for nothing.
      yield* leave("c", start + 6)
      yield* take("d", start + 7, { urgent: true })
      assert.strictEqual(yield* isWanted(fence, start + 8), false)
    })
  )

  test(
    "makes a place in the queue urgent that was taken before, and lets it be so without being told again",
    Effect.gen(function* () {
      const fence = yield* own("a", start)
      yield* queue("b", start)
      yield* queue("b", start + 1, { urgent: true })
      assert.strictEqual(yield* isWanted(fence, start + 2), true)
      // Neither a look nor a refresh takes it back, and the place stays the same.
      for (const later of [3, 1_000]) yield* queue("b", start + later)
      assert.strictEqual(yield* isWanted(fence, start + 1_001), true)
      assert.deepStrictEqual(
        (yield* inspect).waiters.map((waiter) => [waiter.ticket, waiter.holder, waiter.urgent]),
        [[1, "b", true]]
      )
    })
  )

  test(
    "lets who needs it soon overtake nobody, and tells the next owner the same",
    Effect.gen(function* () {
      const fence = yield* own("a", start)
      yield* queue("b", start)
      yield* queue("c", start, { urgent: true })
      assert.deepStrictEqual(yield* release(fence, start + 1), { _tag: "Released", handedTo: ["b"] })
      const { generation } = granted(yield* queue("b", start + 2))
      const next = { name, holder: "b", generation }
      assert.strictEqual(yield* isWanted(next, start + 3), true)
      assert.deepStrictEqual(yield* release(next, start + 4), { _tag: "Released", handedTo: ["c"] })
      // Who has it is in no hurry any more.
      assert.strictEqual(yield* isWanted({ name, holder: "c", generation: generation + 1 }, start + 5), false)
    })
  )

  test(
    "forgets the urgency with the place: when it lapses, is given up, or is left by a clock that is set back",
    Effect.gen(function* () {
      const fence = yield* own("a", start)
      yield* queue("b", start, { urgent: true })
      assert.strictEqual(yield* isWanted(fence, start + ticket - 1), true)
      assert.strictEqual(yield* isWanted(fence, start + ticket), false)
      assert.strictEqual(yield* isWanted(fence, start - hour), false)
      yield* renew(fence, start + ticket)
      yield* queue("b", start + ticket)
      assert.strictEqual(yield* isWanted(fence, start + ticket + 1), false)
    })
  )
}

const permits = (test: Test): void => {
  const three = { permits: 3 }

  test(
    "gives out as many permits as there are, each with its own slot",
    Effect.gen(function* () {
      const taken = yield* Effect.forEach(["a", "b", "c"], (holder) => take(holder, start, three))
      assert.deepStrictEqual(
        taken.map((outcome) => granted(outcome).slots),
        [[0], [1], [2]]
      )
      // The first to expire is the one to watch.
      yield* renew({ name, holder: "a", generation: granted(taken[0]!).generation }, start + 10)
      assert.strictEqual(blockerOf(yield* take("d", start + 20, three)), "b")
    })
  )

  test(
    "gives all the permits that are asked for, or none",
    Effect.gen(function* () {
      const two = yield* own("a", start, { ...three, count: 2 })
      assert.strictEqual(blockerOf(yield* take("b", start, { ...three, count: 2 })), "a")
      const one = yield* own("c", start, three)
      yield* release(two, start + 1)
      assert.strictEqual(granted(yield* take("b", start + 2, { ...three, count: 2 })).slots.length, 2)
      assert.strictEqual(yield* holds(one), true)
      assert.strictEqual(yield* holds(two), false)
    })
  )

  test(
    "lets no smaller request pass a larger one that came first",
    Effect.gen(function* () {
      const a = yield* own("a", start, { ...three, count: 2 })
      yield* queue("large", start, { ...three, count: 3 })
      assert.strictEqual((yield* queue("small", start, three))._tag, "Busy")
      const c = yield* release(a, start + 1)
      assert.deepStrictEqual(c, { _tag: "Released", handedTo: [] })
      assert.strictEqual(granted(yield* queue("large", start + 2, { ...three, count: 3 })).slots.length, 3)
    })
  )
}

/**
 * Registers the contract's tests for an adapter, under its name. Every test builds the layer afresh, and the store that it
 * gives must be empty.
 *
 * @example
 * ```ts
 * leaseStoreContract("LeaseStoreMemory", LeaseStoreMemory.layerMemory)
 * ```
 */
export const leaseStoreContract = (adapter: string, layer: Layer.Layer<LeaseStore, StoreError>): void => {
  const test: Test = (title, body) => it.effect(title, () => Effect.provide(body, layer))
  describe(`${adapter} keeps the contract of LeaseStore`, () => {
    ownership(test)
    expiry(test)
    queueing(test)
    urgency(test)
    permits(test)
  })
}
