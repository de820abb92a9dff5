import { assert, describe, it } from "@effect/vitest"
import { Clock, Context, Deferred, Effect, Exit, Fiber, Latch, Layer, Option, Random, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as DistributedSemaphore from "../src/lease/DistributedSemaphore.ts"
import { isHeld } from "../src/lease/Lease.ts"
import { DEAF_MILLIS } from "../src/lease/LeaseMachine.ts"
import { LeaseStore } from "../src/lease/LeaseStore.ts"
import * as LeaseStoreMemory from "../src/lease/LeaseStoreMemory.ts"
import { Wake } from "../src/lease/Wake.ts"
import { StoreBusy, StoreError, StoreFull, StoreReadOnly } from "../src/sync/StoreError.ts"
import * as SyncConfig from "../src/sync/SyncConfig.ts"
import * as WakeMemory from "../src/testing/WakeMemory.ts"

const name = "stream"
const { leaseMillis, renewMillis, storeBusyMillis, waitPollMillis } = SyncConfig.defaults
type Store = LeaseStore["Service"]

interface Options {
  readonly permits?: number
  /** Its signals reach nobody. */
  readonly mute?: boolean
  /** How it sees the store. */
  readonly through?: (store: Store) => Store
}

const muted = (wake: Wake["Service"]): Wake["Service"] => ({
  ...wake,
  notify: () => Effect.void,
  ask: () => Effect.void
})

/** A host: one store, and processes that can signal each other. */
const makeHost = Effect.gen(function* () {
  const hub = yield* WakeMemory.makeHub
  const store = yield* LeaseStoreMemory.make
  const open = Effect.fnUntraced(function* (process: string, options: Options = {}) {
    const wake = Context.get(yield* Layer.build(hub.process(process)), Wake)
    return yield* DistributedSemaphore.make({ name, permits: options.permits ?? 1 }).pipe(
      Effect.provideService(LeaseStore, options.through?.(store) ?? store),
      Effect.provideService(Wake, options.mute === true ? muted(wake) : wake),
      Effect.provideService(SyncConfig.SyncConfig, { ...SyncConfig.defaults, role: process })
    )
  })
  const table = store.inspect(name)
  return {
    hub,
    store,
    open,
    owner: Effect.gen(function* () {
      const nowMillis = yield* Clock.currentTimeMillis
      return (yield* table).rows.find((row) => isHeld(row, nowMillis))?.holder.split("#")[0]
    }),
    queue: Effect.map(table, ({ waiters }) => waiters.map((waiter) => waiter.holder.split("#")[0]))
  }
})

/** A grant, and the means to let it go. */
const hold = Effect.fnUntraced(function* (semaphore: DistributedSemaphore.DistributedSemaphore) {
  const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
  const grant = yield* Scope.provide(semaphore.take, scope)
  return { grant, release: Scope.close(scope, Exit.void) }
})

/** Lets everything happen that needs no time. */
const settle = TestClock.adjust(0)

/** Starts something that waits, and lets it come as far as it can. */
const begin = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.tap(Effect.forkScoped(effect, { startImmediately: true }), () => settle)

const isWaiting = (fiber: Fiber.Fiber<unknown, unknown>) => assert.isUndefined(fiber.pollUnsafe())

/** A gate that is open, and open again when the test ends, so that what waits there can end too. */
const makeGate = Effect.acquireRelease(Latch.make(true), (gate) => gate.open)

/** A store that doesn't answer while the gate is closed, as that of a process that is frozen or cut off. */
const behind =
  (gate: Latch.Latch) =>
  (store: Store): Store => ({
    ...store,
    take: (request) => gate.whenOpen(store.take(request)),
    renew: (request) => gate.whenOpen(store.renew(request)),
    release: (request) => gate.whenOpen(store.release(request))
  })

const operation = "take a lease"
const busyError = new StoreError({ operation, reason: new StoreBusy({ message: "busy" }) })
const brokenError = new StoreError({ operation, reason: new StoreReadOnly({ message: "read-only" }) })

describe("DistributedSemaphore hands over", () => {
  it.effect("gives a waiter the permit by signal, without any time passing", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      const a = yield* hold(yield* host.open("a"))
      const b = yield* begin(hold(yield* host.open("b")))
      assert.deepStrictEqual(yield* host.queue, ["b"])
      isWaiting(b)

      yield* a.release
      const { grant } = yield* Fiber.join(b)
      assert.strictEqual(grant.generation, 2)
      assert.strictEqual(yield* Clock.currentTimeMillis, 0)
    })
  )

  it.effect("tells a waiter again that was woken before the release was written", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      const gate = yield* makeGate
      const a = yield* hold(yield* host.open("a", { through: behind(gate) }))
      const b = yield* begin(hold(yield* host.open("b")))

      // It is woken by the first signal, and looks too early.
      yield* gate.close
      const releasing = yield* begin(a.release)
      isWaiting(releasing)
      isWaiting(b)

      yield* gate.open
      yield* settle
      assert.isDefined(b.pollUnsafe(), "it would wait for its poll")
      assert.strictEqual((yield* Fiber.join(b)).grant.generation, 2)
      assert.strictEqual(yield* Clock.currentTimeMillis, 0)
    })
  )

  it.effect("serves the fibers of a process in the order in which they came, also when a later one wants less", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      const semaphore = yield* host.open("a", { permits: 2 })
      const first = yield* hold(semaphore)
      const served: Array<string> = []
      const both = yield* begin(semaphore.withPermits(2)(Effect.sync(() => void served.push("both"))))
      const one = yield* begin(semaphore.withPermit(Effect.sync(() => void served.push("one"))))
      assert.deepStrictEqual(served, [], "one permit is free, and somebody waits for it")
      assert.strictEqual((yield* semaphore.withPermitIfAvailable(Effect.void))._tag, "None", "somebody waits for it")

      yield* first.release
      yield* Fiber.join(both)
      yield* Fiber.join(one)
      assert.deepStrictEqual(served, ["both", "one"])
    })
  )

  it.effect("goes on with the next fiber of a process when the first one gives up", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      const semaphore = yield* host.open("a", { permits: 2 })
      yield* hold(semaphore)
      const both = yield* begin(semaphore.withPermits(2)(Effect.void))
      const one = yield* begin(semaphore.withPermit(Effect.void))
      isWaiting(one)
      yield* Fiber.interrupt(both)
      yield* Fiber.join(one)
    })
  )

  it.effect("serves processes in the order in which they came, the greedy holder last", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      const served: Array<string> = []
      const work = (process: string) =>
        Effect.flatMap(host.open(process), (semaphore) =>
          semaphore.withPermit(
            Effect.andThen(
              Effect.sync(() => void served.push(process)),
              Effect.sleep(100)
            )
          )
        )
      const greedy = yield* host.open("a")
      const first = yield* hold(greedy)
      const waiting = yield* Effect.forEach(["b", "c", "d"], (process) => begin(work(process)))
      yield* first.release
      const again = yield* begin(greedy.withPermit(Effect.sync(() => void served.push("a"))))
      yield* TestClock.adjust(300)
      yield* Effect.forEach([...waiting, again], (fiber) => Fiber.join(fiber))
      assert.deepStrictEqual(served, ["b", "c", "d", "a"])
    })
  )

  it.effect("I10: a lost signal costs no more than one poll", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      const a = yield* hold(yield* host.open("a", { mute: true }))
      const b = yield* begin(hold(yield* host.open("b")))
      // Right after a look, which is when the next one is farthest.
      yield* TestClock.adjust(waitPollMillis)
      yield* TestClock.adjust(1)
      yield* a.release
      yield* TestClock.adjust(waitPollMillis - 2)
      isWaiting(b)
      yield* TestClock.adjust(1)
      assert.strictEqual((yield* Fiber.join(b)).grant.generation, 2)
    })
  )

  it.effect("takes from a killed holder at once", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      const a = yield* hold(yield* host.open("a"))
      const b = yield* begin(hold(yield* host.open("b")))
      yield* host.hub.kill("a")
      yield* Fiber.join(b)
      assert.strictEqual(yield* Clock.currentTimeMillis, 0)
      assert.isFalse(yield* host.store.holds(a.grant))
    })
  )

  it.effect("passes a waiter at once that is killed before it can confirm", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      const a = yield* hold(yield* host.open("a"))
      const gate = yield* makeGate
      yield* begin(hold(yield* host.open("b", { through: behind(gate) })))
      const c = yield* begin(hold(yield* host.open("c")))
      yield* gate.close
      yield* a.release
      yield* settle
      assert.strictEqual(yield* host.owner, "b")
      isWaiting(c)

      yield* host.hub.kill("b")
      assert.strictEqual((yield* Fiber.join(c)).grant.generation, 3)
      assert.strictEqual(yield* Clock.currentTimeMillis, 0)
    })
  )

  it.effect("takes over at once when the holder and the first waiter die together, with a few looks", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      let looks = 0
      const counting = (store: Store): Store => ({
        ...store,
        take: (request) =>
          Effect.andThen(
            Effect.sync(() => (looks = looks + 1)),
            store.take(request)
          )
      })
      const gate = yield* makeGate
      yield* hold(yield* host.open("a"))
      yield* begin(hold(yield* host.open("b", { through: behind(gate) })))
      const c = yield* begin(hold(yield* host.open("c", { through: counting })))
      const d = yield* begin(hold(yield* host.open("d", { through: counting })))
      yield* gate.close
      yield* host.hub.kill("b")
      yield* host.hub.kill("a")
      const next = yield* Fiber.join(c)
      assert.strictEqual(yield* Clock.currentTimeMillis, 0)
      assert.isAtMost(looks, 20)
      yield* next.release
      yield* Fiber.join(d)
    })
  )

  it.effect("takes from a frozen holder when its lease is over", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      const gate = yield* makeGate
      const a = yield* hold(yield* host.open("a", { through: behind(gate) }))
      const b = yield* begin(hold(yield* host.open("b")))
      yield* Effect.acquireRelease(host.hub.freeze("a"), () => host.hub.thaw("a"))
      yield* Effect.acquireRelease(gate.close, () => gate.open)
      yield* TestClock.adjust(leaseMillis - 1)
      isWaiting(b)
      yield* TestClock.adjust(2)
      assert.strictEqual((yield* Fiber.join(b)).grant.generation, 2)
      assert.isFalse(yield* host.store.holds(a.grant))
    })
  )

  for (const [direction, stepMillis] of [
    ["forward", 3_600_000],
    ["back", -3_600_000]
  ] as const) {
    it.effect(`is held by one when the clock is set ${direction} by an hour, whoever looks first`, () =>
      Effect.gen(function* () {
        const clock = yield* Clock.Clock
        const host = yield* makeHost
        let offsetMillis = 36_000_000
        const stepped: Clock.Clock = {
          ...clock,
          currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() + offsetMillis,
          currentTimeMillis: Effect.map(clock.currentTimeMillis, (millis) => millis + offsetMillis)
        }
        yield* Effect.gen(function* () {
          const a = yield* hold(yield* host.open("a"))
          const lost = yield* begin(a.grant.lost)
          yield* TestClock.adjust(1_000)
          offsetMillis += stepMillis

          // The owner renews first, by its timer: it goes on.
          yield* TestClock.adjust(renewMillis)
          const b = yield* begin(hold(yield* host.open("b")))
          yield* TestClock.adjust(leaseMillis)
          isWaiting(b)

          // The waiter looks first: it owns, and the old owner finds out at its next renewal.
          offsetMillis += stepMillis
          yield* TestClock.adjust(waitPollMillis)
          assert.strictEqual((yield* Fiber.join(b)).grant.generation, 2)
          assert.isFalse(yield* host.store.holds(a.grant))
          yield* TestClock.adjust(renewMillis)
          assert.strictEqual((yield* Fiber.join(lost)).reason, "takenOver")
        }).pipe(Effect.provideService(Clock.Clock, stepped))
      })
    )
  }
})

describe("DistributedSemaphore waits and ends", () => {
  it.effect("leaves the queue when it is interrupted, so that the next waiter isn't delayed", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      const a = yield* hold(yield* host.open("a"))
      const b = yield* begin(hold(yield* host.open("b")))
      const c = yield* begin(hold(yield* host.open("c")))
      assert.deepStrictEqual(yield* host.queue, ["b", "c"])
      yield* Fiber.interrupt(b)
      assert.deepStrictEqual(yield* host.queue, ["c"])
      yield* a.release
      yield* Fiber.join(c)
      assert.strictEqual(yield* Clock.currentTimeMillis, 0)
    })
  )

  it.effect("I4: has freed the row when the scope is closed", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      const a = yield* hold(yield* host.open("a"))
      assert.strictEqual(yield* host.owner, "a")
      yield* a.release
      assert.isUndefined(yield* host.owner)
    })
  )

  it.effect("writes nothing to the store after it has ended", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      const a = yield* hold(yield* host.open("a"))
      yield* a.release
      const before = yield* host.store.inspect(name)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* host.store.inspect(name), before)
    })
  )

  it.effect("holds a permit for as long as it likes", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      const a = yield* hold(yield* host.open("a"))
      const b = yield* begin(hold(yield* host.open("b")))
      yield* TestClock.adjust("1 hour")
      isWaiting(b)
      assert.isTrue(yield* host.store.holds(a.grant))
    })
  )

  it.effect("I10: holder and waiter write less than once in two seconds together while nothing happens", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      let writes = 0
      const count = <A, E>(call: Effect.Effect<A, E>) =>
        Effect.gen(function* () {
          const before = yield* host.store.inspect(name)
          const result = yield* call
          const after = yield* host.store.inspect(name)
          if (JSON.stringify(before) !== JSON.stringify(after)) writes = writes + 1
          return result
        })
      const through = (store: Store): Store => ({
        ...store,
        take: (request) => count(store.take(request)),
        renew: (request) => count(store.renew(request))
      })
      yield* hold(yield* host.open("a", { through }))
      yield* begin(hold(yield* host.open("b", { through })))
      writes = 0
      yield* TestClock.adjust("10 minutes")
      assert.isAtMost(writes, 300)
      // Both are alive, so both have written.
      assert.isAbove(writes, 200)
    })
  )

  it.effect("asks again by the poll when the store is busy", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      let busy = true
      const failing = (store: Store): Store => ({
        ...store,
        take: (request) => Effect.suspend(() => (busy ? Effect.fail(busyError) : store.take(request)))
      })
      const a = yield* begin(hold(yield* host.open("a", { through: failing })))
      yield* TestClock.adjust("1 minute")
      isWaiting(a)
      busy = false
      yield* TestClock.adjust(waitPollMillis)
      assert.strictEqual((yield* Fiber.join(a)).grant.generation, 1)
    })
  )

  it.effect("fails when the store can't be used, and can be asked again in the same scope", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      let broken = true
      const failing = (store: Store): Store => ({
        ...store,
        take: (request) => Effect.suspend(() => (broken ? Effect.fail(brokenError) : store.take(request)))
      })
      const semaphore = yield* host.open("a", { through: failing })
      assert.strictEqual(yield* Effect.flip(semaphore.take), brokenError)
      assert.strictEqual(yield* Effect.flip(semaphore.tryTake), brokenError)
      broken = false
      const fiber = yield* begin(semaphore.take)
      assert.strictEqual((yield* Fiber.join(fiber)).generation, 1)
    })
  )
})

describe("DistributedSemaphore.withPermit", () => {
  /** Work that never ends, and tells how it was ended. */
  const endless = (semaphore: DistributedSemaphore.DistributedSemaphore) =>
    Effect.gen(function* () {
      const ended = yield* Deferred.make<Exit.Exit<never>>()
      const work = Effect.onExit(Effect.never, (exit) => Deferred.succeed(ended, exit))
      return { ended: Deferred.await(ended), result: yield* begin(Effect.flip(semaphore.withPermit(work))) }
    })

  it.effect("I1: ends the work and fails with LeaseLost when another takes over", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      const { ended, result } = yield* endless(yield* host.open("a"))
      const [row] = (yield* host.store.inspect(name)).rows
      yield* host.store.take({
        name,
        permits: 1,
        count: 1,
        holder: "thief",
        peer: {},
        nowMillis: yield* Clock.currentTimeMillis,
        leaseMillis,
        presumedDead: [row?.holder ?? "nobody"]
      })
      isWaiting(result)
      yield* TestClock.adjust(renewMillis)
      const error = yield* Fiber.join(result)
      if (error._tag !== "LeaseLost") return assert.fail(error.message)
      assert.deepStrictEqual([error.reason, error.generation, error.name], ["takenOver", 1, name])
      assert.isTrue(Exit.hasInterrupts(yield* ended))
      // The thief keeps what he has.
      assert.strictEqual(yield* host.owner, "thief")
    })
  )

  it.effect("ends the work when the store doesn't answer for as long as the lease lasts, and not earlier", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      const gate = yield* makeGate
      const { result } = yield* endless(yield* host.open("a", { through: behind(gate) }))
      yield* gate.close
      yield* TestClock.adjust(leaseMillis - 1)
      isWaiting(result)
      yield* gate.open
      yield* TestClock.adjust(leaseMillis)
      isWaiting(result)

      yield* Effect.acquireRelease(gate.close, () => gate.open)
      yield* TestClock.adjust(2 * leaseMillis)
      yield* gate.open
      const error = yield* Fiber.join(result)
      assert.strictEqual(error._tag === "LeaseLost" ? error.reason : error._tag, "unreachable")
    })
  )

  it.effect("ends the work when the store fails for as long as the lease lasts", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      const through = (store: Store): Store => ({ ...store, renew: () => Effect.fail(busyError) })
      const { result } = yield* endless(yield* host.open("a", { through }))
      yield* TestClock.adjust(leaseMillis - 1)
      isWaiting(result)
      yield* TestClock.adjust(renewMillis / 10 + 1)
      assert.strictEqual((yield* Fiber.join(result))._tag, "LeaseLost")
    })
  )

  it.effect(
    "ends the work when the store meets a defect for as long as the lease lasts, and lets the scope close",
    () =>
      Effect.gen(function* () {
        const host = yield* makeHost
        const broken = Effect.die(new Error("a bug in the store"))
        const a = yield* host.open("a", {
          through: (store) => ({ ...store, renew: () => broken, release: () => broken })
        })
        const work = yield* begin(Effect.flip(a.withPermit(Effect.never)))
        yield* TestClock.adjust(leaseMillis + renewMillis)
        const error = yield* Fiber.join(work)
        assert.strictEqual(error._tag === "LeaseLost" ? error.reason : error._tag, "unreachable")
      })
  )

  it.effect("I4: a release that a full disk refuses is tried again, and is done when the lease is free", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      const full = new StoreError({ operation: "release", reason: new StoreFull({ message: "full" }) })
      let isFull = true
      const through = (store: Store): Store => ({
        ...store,
        release: (request) => Effect.suspend(() => (isFull ? Effect.fail(full) : store.release(request)))
      })
      const a = yield* hold(yield* host.open("a", { through }))
      const released = yield* begin(a.release)
      yield* TestClock.adjust(1_000)
      isWaiting(released)
      assert.strictEqual(yield* host.owner, "a")
      isFull = false
      yield* TestClock.adjust(1_000)
      yield* Fiber.join(released)
      assert.isUndefined(yield* host.owner)
    })
  )

  it.effect(
    "I10: a release that a locked database refuses, each time after a long wait, is given up when the lease is over",
    () =>
      Effect.gen(function* () {
        const host = yield* makeHost
        const through = (store: Store): Store => ({
          ...store,
          release: () => Effect.delay(Effect.fail(busyError), storeBusyMillis)
        })
        const a = yield* hold(yield* host.open("a", { through }))
        const released = yield* begin(a.release)
        yield* TestClock.adjust(leaseMillis - 1)
        isWaiting(released)
        yield* TestClock.adjust(storeBusyMillis + 1)
        yield* Fiber.join(released)
      })
  )

  it.effect("I4: who gives up waiting while the disk is full is handed nothing afterwards", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      let isFull = false
      const full = new StoreError({ operation: "leave", reason: new StoreFull({ message: "full" }) })
      const through = (store: Store): Store => ({
        ...store,
        leave: (request) => Effect.suspend(() => (isFull ? Effect.fail(full) : store.leave(request)))
      })
      const a = yield* hold(yield* host.open("a"))
      const waiting = yield* begin(hold(yield* host.open("b", { through })))
      isFull = true
      const left = yield* begin(Fiber.interrupt(waiting))
      yield* TestClock.adjust(1_000)
      isWaiting(left)
      isFull = false
      yield* TestClock.adjust(1_000)
      yield* Fiber.join(left)
      yield* a.release
      assert.isUndefined(yield* host.owner)
    })
  )

  it.effect("gives the work's own result or failure, and the permit back", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      const semaphore = yield* host.open("a")
      assert.strictEqual(yield* semaphore.withPermit(Effect.succeed(7)), 7)
      assert.strictEqual(yield* Effect.flip(semaphore.withPermit(Effect.fail("no"))), "no")
      assert.isUndefined(yield* host.owner)
    })
  )

  it.effect("lets one fiber at a time work, of all processes together", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      let [inside, most, done] = [0, 0, 0]
      const work = Effect.gen(function* () {
        inside = inside + 1
        most = Math.max(most, inside)
        yield* Effect.sleep(10)
        inside = inside - 1
        done = done + 1
      })
      const semaphores = yield* Effect.forEach(["a", "b", "c"], (process) => host.open(process))
      const all = Effect.forEach(
        [...semaphores, ...semaphores, ...semaphores],
        (semaphore) => semaphore.withPermit(work),
        { concurrency: "unbounded" }
      )
      const fiber = yield* begin(all)
      // Nine times 10 ms of work and not a moment between.
      yield* TestClock.adjust(90)
      yield* Fiber.join(fiber)
      assert.deepStrictEqual([most, done], [1, 9])
    })
  )

  it.effect("lets two fibers of one process exclude each other, the second without asking the store", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      const semaphore = yield* host.open("a")
      const first = yield* hold(semaphore)
      const second = yield* begin(hold(semaphore))
      isWaiting(second)
      assert.deepStrictEqual(yield* host.queue, [])
      yield* first.release
      assert.strictEqual((yield* Fiber.join(second)).grant.generation, first.grant.generation)
    })
  )

  it.effect("gives out as many permits as there are, and several at once to who asks for them", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      const [a, b] = [yield* host.open("a", { permits: 3 }), yield* host.open("b", { permits: 3 })]
      const one = yield* hold(a)
      const two = yield* begin(b.withPermits(2)(Effect.never))
      isWaiting(two)
      const three = yield* begin(b.withPermits(3)(Effect.succeed("all")))
      isWaiting(three)
      yield* Fiber.interrupt(two)
      isWaiting(three)
      yield* one.release
      assert.strictEqual(yield* Fiber.join(three), "all")
    })
  )

  it.effect("refuses to ask for more permits than there are", () =>
    Effect.gen(function* () {
      const semaphore = yield* (yield* makeHost).open("a", { permits: 2 })
      for (const permits of [0, 3]) {
        const exit = yield* Effect.exit(semaphore.withPermits(permits)(Effect.void))
        assert.isTrue(Exit.hasDies(exit))
      }
    })
  )

  it.effect("runs the work without waiting, or not at all", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      const [a, b] = [yield* host.open("a"), yield* host.open("b")]
      const held = yield* hold(a)
      assert.isTrue(Option.isNone(yield* b.withPermitIfAvailable(Effect.succeed(1))))
      yield* held.release
      assert.deepStrictEqual(yield* b.withPermitIfAvailable(Effect.succeed(1)), Option.some(1))
      assert.isUndefined(yield* host.owner)
    })
  )
})

describe("DistributedSemaphore.hurry", () => {
  /** A holder, a waiter, and what the holder is told. */
  const contending = Effect.fnUntraced(function* (options: Options = {}) {
    const host = yield* makeHost
    const a = yield* hold(yield* host.open("a"))
    const wanted = yield* begin(a.grant.wanted)
    const semaphore = yield* host.open("b", options)
    return { host, a, wanted, semaphore }
  })
  const isUrgent = (host: Effect.Success<typeof makeHost>) =>
    Effect.map(host.store.inspect(name), ({ waiters }) => waiters.map(({ urgent }) => urgent))

  it.effect("tells the holder by signal that it is wanted, without any time passing", () =>
    Effect.gen(function* () {
      const { a, host, semaphore, wanted } = yield* contending()
      const b = yield* begin(hold(semaphore))
      yield* TestClock.adjust("1 minute")
      isWaiting(wanted)
      const before = yield* Clock.currentTimeMillis
      yield* semaphore.hurry
      yield* settle
      yield* Fiber.join(wanted)
      assert.deepStrictEqual(yield* isUrgent(host), [true])
      yield* a.release
      yield* Fiber.join(b)
      assert.strictEqual(yield* Clock.currentTimeMillis, before)
    })
  )

  it.effect("tells it of who begins to wait after the hurry, and not of who begins long after it", () =>
    Effect.gen(function* () {
      const asked: Array<boolean | undefined> = []
      const watching = (store: Store): Store => ({
        ...store,
        take: (request) =>
          Effect.andThen(
            Effect.sync(() => void asked.push(request.urgent)),
            store.take(request)
          )
      })
      const { semaphore, wanted } = yield* contending({ through: watching })
      yield* semaphore.hurry
      yield* TestClock.adjust(DistributedSemaphore.HURRY_MILLIS)
      const late = yield* begin(hold(semaphore))
      yield* TestClock.adjust(leaseMillis)
      isWaiting(wanted)
      yield* Fiber.interrupt(late)

      yield* semaphore.hurry
      yield* TestClock.adjust(DistributedSemaphore.HURRY_MILLIS - 1)
      isWaiting(wanted)
      assert.notInclude(asked, true)
      asked.length = 0
      yield* begin(hold(semaphore))
      yield* Fiber.join(wanted)
      // From the first look on, so that its place is written once.
      assert.deepStrictEqual([...new Set(asked)], [true])
    })
  )

  it.effect("I10: without signals, the holder learns it at the next renewal at the latest", () =>
    Effect.gen(function* () {
      const { semaphore, wanted } = yield* contending({ mute: true })
      yield* begin(hold(semaphore))
      yield* semaphore.hurry
      yield* settle
      isWaiting(wanted)
      yield* TestClock.adjust(renewMillis - 1)
      isWaiting(wanted)
      yield* TestClock.adjust(1)
      yield* Fiber.join(wanted)
    })
  )

  it.effect("believes the store and not the signal, and I10: however often it is asked", () =>
    Effect.gen(function* () {
      let renewals = 0
      const counting = (store: Store): Store => ({
        ...store,
        renew: (request) =>
          Effect.andThen(
            Effect.sync(() => (renewals = renewals + 1)),
            store.renew(request)
          )
      })
      const host = yield* makeHost
      const a = yield* hold(yield* host.open("a", { through: counting }))
      const wanted = yield* begin(a.grant.wanted)
      const liar = Context.get(yield* Layer.build(host.hub.process("c")), Wake)
      const [row] = (yield* host.store.inspect(name)).rows
      for (let asked = 0; asked < 1_000; asked++) {
        yield* liar.ask(row?.peer ?? {}, DistributedSemaphore.topic(name))
        yield* TestClock.adjust(1)
      }
      isWaiting(wanted)
      assert.isAbove(renewals, 0)
      assert.isAtMost(renewals, 10)

      // Who asks for good reason is heard all the same.
      const semaphore = yield* host.open("b")
      yield* begin(hold(semaphore))
      yield* semaphore.hurry
      yield* TestClock.adjust(DEAF_MILLIS)
      yield* Fiber.join(wanted)
    })
  )

  it.effect("lets nobody be overtaken: each owner before the one in a hurry is told in turn", () =>
    Effect.gen(function* () {
      const { a, host, semaphore, wanted } = yield* contending()
      const first = yield* begin(hold(yield* host.open("first")))
      const b = yield* begin(hold(semaphore))
      assert.deepStrictEqual(yield* host.queue, ["first", "b"])
      yield* semaphore.hurry
      yield* settle
      yield* Fiber.join(wanted)
      assert.deepStrictEqual(yield* isUrgent(host), [false, true])

      yield* a.release
      const next = yield* Fiber.join(first)
      yield* settle
      yield* next.grant.wanted
      isWaiting(b)
      yield* next.release
      yield* Fiber.join(b)
      assert.strictEqual(yield* Clock.currentTimeMillis, 0)
    })
  )

  it.effect("is over with the permit that it was for, and nothing to a process that has it", () =>
    Effect.gen(function* () {
      const { a, host, semaphore } = yield* contending()
      const waiting = yield* begin(hold(semaphore))
      yield* semaphore.hurry
      yield* settle
      yield* a.release
      const b = yield* Fiber.join(waiting)
      yield* semaphore.hurry

      // The one that yielded waits again, in no hurry, and so does the other after it.
      const again = yield* begin(hold(yield* host.open("c")))
      assert.deepStrictEqual(yield* isUrgent(host), [false])
      yield* b.release
      const c = yield* Fiber.join(again)
      const wanted = yield* begin(c.grant.wanted)
      yield* begin(hold(semaphore))
      assert.deepStrictEqual(yield* isUrgent(host), [false])
      isWaiting(wanted)
    })
  )

  it.effect("hears what is asked of it before it knows that the lease is its own", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      const gate = yield* makeGate
      const through = (store: Store): Store => ({
        ...store,
        take: (request) => Effect.tap(store.take(request), gate.await)
      })
      yield* gate.close
      const slow = yield* begin(hold(yield* host.open("slow", { through })))
      assert.strictEqual(yield* host.owner, "slow")
      const semaphore = yield* host.open("b")
      yield* semaphore.hurry
      yield* begin(hold(semaphore))
      yield* gate.open
      yield* settle
      const wanted = yield* begin((yield* Fiber.join(slow)).grant.wanted)
      yield* Fiber.join(wanted)
      assert.strictEqual(yield* Clock.currentTimeMillis, 0)
    })
  )
})

describe("DistributedSemaphore.tryTake", () => {
  it.effect("says who has it, leaves no trace, and doesn't keep its own process from waiting for it", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      const a = yield* hold(yield* host.open("a"))
      const semaphore = yield* host.open("b")
      const tried = yield* semaphore.tryTake
      assert.strictEqual(tried._tag === "Busy" ? tried.blocker.holder : "nobody", a.grant.holder)
      assert.deepStrictEqual(yield* host.queue, [])

      // The scope of the attempt is still open.
      const b = yield* begin(semaphore.take)
      yield* a.release
      assert.strictEqual((yield* Fiber.join(b)).generation, 2)
    })
  )

  it.effect("doesn't wait for another fiber of its own process", () =>
    Effect.gen(function* () {
      const semaphore = yield* (yield* makeHost).open("a")
      const held = yield* hold(semaphore)
      const tried = yield* semaphore.tryTake
      assert.strictEqual(tried._tag === "Busy" ? tried.blocker.holder : "nobody", "a")
      yield* held.release
      assert.strictEqual((yield* semaphore.tryTake)._tag, "Taken")
    })
  )

  it.effect("doesn't pass a waiter", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      const gate = yield* makeGate
      const a = yield* hold(yield* host.open("a"))
      yield* begin(hold(yield* host.open("b", { through: behind(gate) })))
      yield* gate.close
      yield* a.release
      assert.strictEqual((yield* (yield* host.open("c")).tryTake)._tag, "Busy")
    })
  )

  it.effect("takes from a holder that was seen to die before its lease is over, and from no other", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      const a = yield* hold(yield* host.open("a"))
      const b = yield* host.open("b")
      yield* host.hub.kill("a")
      assert.strictEqual((yield* b.tryTake)._tag, "Busy", "nobody has said that it is dead")
      assert.strictEqual((yield* b.tryTakeAfter([]))._tag, "Busy")
      assert.strictEqual((yield* b.tryTakeAfter(["a#0"]))._tag, "Busy")
      const taken = yield* b.tryTakeAfter(["a#0", a.grant.holder])
      assert.strictEqual(taken._tag === "Taken" ? taken.grant.generation : taken, 2)
      assert.isFalse(yield* host.store.holds(a.grant))
    })
  )

  it.effect("takes what was handed to a waiter that was seen to die", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      const gate = yield* makeGate
      const a = yield* hold(yield* host.open("a"))
      yield* begin(hold(yield* host.open("b", { through: behind(gate) })))
      yield* gate.close
      yield* a.release
      yield* settle
      const dead = (yield* host.store.inspect(name)).rows.map(({ holder }) => holder)
      const c = yield* host.open("c")
      assert.strictEqual((yield* c.tryTakeAfter([]))._tag, "Busy")
      assert.strictEqual((yield* c.tryTakeAfter(dead))._tag, "Taken")
    })
  )
})

describe("DistributedSemaphore knows whether memory is valid", () => {
  it.effect("I5: is dirty at first, clean when nobody came between, dirty again after markDirty", () =>
    Effect.gen(function* () {
      const semaphore = yield* (yield* makeHost).open("a")
      const dirty = (then: (grant: DistributedSemaphore.Grant) => Effect.Effect<void>) =>
        Effect.scoped(Effect.flatMap(semaphore.take, (grant) => Effect.as(then(grant), grant.isDirty)))
      assert.isTrue(yield* dirty(() => Effect.void))
      // Nobody said that it was loaded.
      assert.isTrue(yield* dirty((grant) => grant.markClean))
      assert.isFalse(yield* dirty(() => Effect.void))
      assert.isFalse(yield* dirty((grant) => grant.markDirty))
      assert.isTrue(yield* dirty(() => Effect.void))
    })
  )

  it.effect("I5: is dirty whenever the other process owned it in between", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      const own = (semaphore: DistributedSemaphore.DistributedSemaphore) =>
        Effect.scoped(
          Effect.flatMap(semaphore.take, (grant) => Effect.as(grant.markClean, [grant.generation, grant.isDirty]))
        )
      const [a, b] = [yield* host.open("a"), yield* host.open("b")]
      for (let turn = 0; turn < 3; turn++) {
        assert.deepStrictEqual(yield* own(a), [2 * turn + 1, true])
        assert.deepStrictEqual(yield* own(a), [2 * turn + 1, false])
        assert.deepStrictEqual(yield* own(b), [2 * turn + 2, true])
        assert.deepStrictEqual(yield* own(b), [2 * turn + 2, false])
      }
    })
  )

  it.effect("I8: names a process the same for the same seed, and otherwise for another", () =>
    Effect.gen(function* () {
      const nameOf = (seed: string) =>
        Effect.gen(function* () {
          const host = yield* makeHost
          return (yield* hold(yield* host.open("main"))).grant.holder
        }).pipe(Random.withSeed(seed))
      assert.strictEqual(yield* nameOf("one"), yield* nameOf("one"))
      assert.notStrictEqual(yield* nameOf("one"), yield* nameOf("other"))
    })
  )

  it.effect("I1: never takes two processes of the same role for one", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      const a = yield* hold(yield* host.open("main"))
      const tried = yield* (yield* host.open("main")).tryTake
      assert.strictEqual(tried._tag, "Busy")
      assert.match(a.grant.holder, /^main#[0-9a-f]{16}$/)
    })
  )

  it.effect("needs nothing but its layer in a single process", () =>
    Effect.gen(function* () {
      const semaphore = yield* DistributedSemaphore.make({ name, permits: 1 })
      assert.strictEqual(yield* semaphore.withPermit(Effect.succeed(7)), 7)
    }).pipe(Effect.provide(DistributedSemaphore.layerSingleProcess))
  )
})
