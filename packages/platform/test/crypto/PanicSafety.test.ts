import { assert, describe, it } from "@effect/vitest"
import { type CryptoError, SyncConfig } from "@twinloop/core"
import { Context, Effect, Fiber, Layer, Redacted } from "effect"
import { TestClock } from "effect/testing"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import * as OlmMachine from "../../src/crypto/OlmMachine.ts"
import { StoreKey } from "../../src/crypto/StoreKey.ts"
import { SqliteClient } from "../../src/sqlite/SqliteClient.ts"
import { temporaryStores } from "../SqliteKit.ts"
import * as Kit from "./CryptoKit.ts"

/** Collects garbage, and lets the finalizers run that follow. */
const collectGarbage = Effect.promise(async () => {
  setFlagsFromString("--expose-gc")
  const collect: () => void = runInNewContext("gc")
  for (let round = 0; round < 5; round++) {
    collect()
    await new Promise((resolve) => setImmediate(resolve))
  }
})

/** What would have ended the process since this was begun. */
const watchProcess = Effect.acquireRelease(
  Effect.sync(() => {
    const seen: Array<unknown> = []
    const note = (cause: unknown) => void seen.push(cause)
    process.on("uncaughtException", note).on("unhandledRejection", note)
    return { seen, note }
  }),
  ({ note }) => Effect.sync(() => void process.off("uncaughtException", note).off("unhandledRejection", note))
)

/** An account without a homeserver, whose store nobody has made yet. */
const openAccount = Effect.gen(function* () {
  const context = yield* Layer.build(Layer.merge(temporaryStores, StoreKey.layer(Redacted.make(Kit.testKey))))
  const account: OlmMachine.Account = {
    session: { userId: "@alice:localhost", deviceId: "ALICE" },
    client: Context.get(context, SqliteClient),
    keys: Context.get(context, StoreKey)
  }
  return account
})

const openMachine = Effect.gen(function* () {
  const account = yield* openAccount
  const host = yield* OlmMachine.makeHost
  return { account, host, machine: yield* OlmMachine.open(account, host, { writable: true }) }
})

/** Traps, since the room has no key. */
const trap = (machine: OlmMachine.OlmMachine) =>
  machine.call("encrypt", (olm, sdk) => olm.encryptRoomEvent(new sdk.RoomId("!room:localhost"), "t", "{}"))

const neverEnds = (machine: OlmMachine.OlmMachine) => machine.call("wait", () => new Promise<void>(() => {}))

const keyOf = (machine: OlmMachine.OlmMachine) =>
  machine.call("read the key", (olm) => olm.identityKeys.ed25519.toBase64())

const assertTrapped = (error: CryptoError.CryptoError, detail?: RegExp) => {
  assert.strictEqual(error.reason._tag, "CryptoTrapped")
  if (detail !== undefined) assert.match(error.message, detail)
}

/** Lets what waits in Node's queues go one step further. */
const step = (steps: number) =>
  Effect.promise(
    () => new Promise<void>((resolve) => (steps % 20 === 0 ? setImmediate(resolve) : process.nextTick(resolve)))
  )

/** Interrupts something after each number of steps until it ends before that, and does something else after each time. */
const interruptEverywhere = <A, E, B, F>(body: Effect.Effect<A, E>, then: Effect.Effect<B, F>) =>
  Effect.gen(function* () {
    let ended = false
    for (let steps = 0; !ended; steps += 3) {
      const running = yield* Effect.forkChild(body)
      for (let done = 1; done <= steps; done++) yield* step(done)
      ended = running.pollUnsafe() !== undefined
      yield* Fiber.interrupt(running)
      yield* then
    }
  })

describe("A trap of the machine", () => {
  it.live("I9: fails its call with what Rust said, and every other call of the same instance, and nothing else", () =>
    Effect.gen(function* () {
      const { seen } = yield* watchProcess
      const { machine } = yield* openMachine
      const other = yield* openMachine
      const id = new machine.sdk.UserId("@alice:localhost")
      const waiting = yield* Effect.forkChild(Effect.flip(neverEnds(machine)))
      yield* Effect.yieldNow
      assertTrapped(yield* Effect.flip(trap(machine)), /Session wasn't created nor shared/)
      assertTrapped(yield* Fiber.join(waiting), /Session wasn't created nor shared/)
      assert.isTrue(machine.isDead())
      assertTrapped(yield* Effect.flip(keyOf(machine)), /next call makes another machine/)
      machine.close()
      // Its locks may be held and its memory half changed, so none of its code runs any more.
      assert.notStrictEqual(id.toString(), "@alice:localhost")
      assert.isFalse(other.machine.isDead())
      assert.isNotEmpty(yield* keyOf(other.machine))
      yield* collectGarbage
      assert.deepStrictEqual(seen, [])
    })
  )

  it.live(
    "I9: costs no more than the instance: another one works, also when the first one's garbage is collected",
    () =>
      Effect.gen(function* () {
        const { seen } = yield* watchProcess
        for (let round = 0; round < 5; round++) {
          const { account, machine } = yield* openMachine
          // Things that the collector will want to give back to the instance.
          for (let made = 0; made < 1_000; made++) void new machine.sdk.UserId("@alice:localhost")
          yield* Effect.flip(trap(machine))
          const another = yield* OlmMachine.open(account, yield* OlmMachine.makeHost, { writable: true })
          yield* collectGarbage
          assert.isNotEmpty(yield* keyOf(another))
          another.close()
        }
        assert.deepStrictEqual(seen, [])
      })
  )

  it.live("I9: fails what comes after it on the same instance, instead of leaving it waiting", () =>
    Effect.gen(function* () {
      const { account, host, machine } = yield* openMachine
      yield* Effect.flip(trap(machine))
      assertTrapped(yield* Effect.flip(OlmMachine.open(account, host, { writable: true })))
    })
  )
})

describe("A call of the machine", () => {
  it.effect("I10: that doesn't end is given up in time, together with its instance", () =>
    Effect.gen(function* () {
      const { account, host, machine } = yield* openMachine
      const { cryptoCallMillis } = yield* SyncConfig.SyncConfig
      const waiting = yield* Effect.forkChild(Effect.flip(neverEnds(machine)))
      const other = yield* Effect.forkChild(Effect.flip(neverEnds(machine)))
      yield* TestClock.adjust(cryptoCallMillis - 1)
      assert.isFalse(machine.isDead())
      yield* TestClock.adjust(1)
      const error = yield* Fiber.join(waiting)
      assertTrapped(error)
      assert.include(error.message, `${cryptoCallMillis} ms`)
      assertTrapped(yield* Fiber.join(other))
      assert.isDefined(host.trapped())
      const another = yield* OlmMachine.open(account, yield* OlmMachine.makeHost, { writable: true })
      assert.isNotEmpty(yield* keyOf(another))
    })
  )

  it.live("may be interrupted and its machine closed at any moment, and another one takes its place", () =>
    Effect.gen(function* () {
      const { seen } = yield* watchProcess
      const sim = yield* Kit.openHomeserver
      const alice = yield* Kit.openDevice(sim, "alice", "ALICE")
      const bob = yield* Kit.openDevice(sim, "bob", "BOB")
      const room = yield* Kit.openRoom(sim, alice, bob)
      const event = yield* Kit.send(sim, alice, room, "hello")
      const polled = yield* Kit.poll(bob)
      const before = yield* Kit.rows(bob)
      yield* interruptEverywhere(
        Kit.absorb(bob, polled),
        Effect.andThen(bob.engine.discard, bob.engine.reload(bob.fence))
      )
      assert.deepStrictEqual(yield* Kit.rows(bob), before)
      yield* Kit.commitBatch(bob, yield* Kit.absorb(bob, polled))
      assert.strictEqual(yield* Kit.read(bob, room, event), "hello")
      yield* collectGarbage
      assert.deepStrictEqual(seen, [])
    })
  )

  it.live("may be interrupted while it opens the first store, and what is opened next is all of one piece", () =>
    Effect.gen(function* () {
      const alice = yield* Kit.openProcess(yield* Kit.openHomeserver, "alice", "ALICE")
      yield* Kit.own(alice)
      yield* alice.engine.reload(alice.fence)
      const deviceKeys = Effect.map(
        Kit.change(alice, (engine, fence) => engine.outgoing(fence)),
        ([first]) => (first?.request._tag === "Keys" ? first.request.keys.body.device_keys : undefined)
      )
      yield* interruptEverywhere(
        alice.engine.reload(alice.fence),
        Effect.gen(function* () {
          yield* alice.engine.reload(alice.fence)
          const made = yield* deviceKeys
          assert.isDefined(made)
          yield* alice.engine.reload(alice.fence)
          assert.deepStrictEqual(yield* deviceKeys, made)
          yield* Kit.clear(alice)
          yield* alice.engine.discard
        })
      )
    })
  )
})

describe("An engine whose machine has trapped", () => {
  it.effect("I9: makes another one when it is reloaded, and neither the reader nor other accounts notice", () =>
    Effect.gen(function* () {
      const sim = yield* Kit.openHomeserver
      const alice = yield* Kit.openDevice(sim, "alice", "ALICE")
      const bob = yield* Kit.openDevice(sim, "bob", "BOB")
      const room = yield* Kit.openRoom(sim, alice, bob)
      const settings = { rotationPeriodMillis: 3_600_000 }
      const first = yield* Kit.send(sim, alice, room, "first", settings)
      yield* Kit.share(alice, room, settings)
      // The key has got too old between the sharing and the encrypting.
      yield* TestClock.adjust("2 hours")
      const before = yield* Kit.rows(alice)
      const error = yield* Effect.flip(Kit.sendNow(sim, alice, room, "second"))
      assert.strictEqual(error.reason._tag, "CryptoTrapped")
      assert.include(error.message, "expired")
      assert.strictEqual(yield* Kit.read(alice, room, first), "first")
      yield* alice.engine.discard
      assert.deepStrictEqual(yield* Kit.rows(alice), before)
      yield* alice.engine.reload(alice.fence)
      const second = yield* Kit.send(sim, alice, room, "second", settings)
      yield* Kit.settle(bob)
      for (const process of [alice, bob]) assert.strictEqual(yield* Kit.read(process, room, second), "second")
    })
  )
})
