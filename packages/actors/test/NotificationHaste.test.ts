import { assert, describe, it } from "@effect/vitest"
import { CryptoEngine, EventDecryptor } from "@twinloop/core"
import { SimulatedCrypto } from "@twinloop/core/testing"
import { Effect, Fiber, Latch, Layer } from "effect"
import { say, startChat } from "./support/Chat.ts"
import { reading, says, setUp as setUpRoom, startNotifier } from "./support/Notifier.ts"
import type { World } from "../src/testing/Simulation.ts"
import { settle } from "../src/testing/Time.ts"

const SECRET = says("secret")

/** A room that Alice's application has stored, before it was suspended. */
const setUp = Effect.fnUntraced(function* (isEncrypted: boolean) {
  const room = yield* setUpRoom(isEncrypted)
  const app = yield* startChat(room.world, "app", { config: { notificationAppRole: "app" } })
  yield* app.service.suspend()
  return room
})

/** A decryptor that writes down what it is asked, and never gets ready. */
const slowDecryptor = (world: World) => {
  const asked: Array<string> = []
  const reader = SimulatedCrypto.makeDecryptor(world.session, world.faults.cryptoRecords)
  const note = (what: string) => Effect.sync(() => void asked.push(what))
  const decryptor = EventDecryptor.EventDecryptor.of({
    ...reader,
    decrypt: (roomId, event) => Effect.andThen(note("decrypt"), reader.decrypt(roomId, event)),
    prepare: Effect.andThen(note("prepare"), Effect.never)
  })
  return { asked, decryptor }
}

describe("Notifications get ready while the homeserver is asked", () => {
  it.effect("to decrypt, when the room is stored as encrypted; nobody waits for it, and nothing of it stays", () =>
    Effect.gen(function* () {
      const { bob, roomId, world } = yield* setUp(true)
      const eventId = yield* say(bob, roomId, "secret")
      const { asked, decryptor } = slowDecryptor(world)
      const { client, fibers } = yield* startNotifier(world, "notify", { decryptor })
      assert.deepStrictEqual(reading(yield* client.resolve({ roomId, eventId })), SECRET)
      assert.deepStrictEqual(asked, ["prepare", "decrypt", "decrypt"])
      yield* client.settled
      assert.strictEqual(yield* fibers, 0)
    })
  )

  it.effect("to decrypt, and not when the room is in the clear", () =>
    Effect.gen(function* () {
      const { bob, roomId, world } = yield* setUp(false)
      const eventId = yield* say(bob, roomId, "hello")
      const { asked, decryptor } = slowDecryptor(world)
      const { client } = yield* startNotifier(world, "notify", { decryptor })
      assert.deepStrictEqual(reading(yield* client.resolve({ roomId, eventId })), says("hello"))
      assert.deepStrictEqual(asked, [])
    })
  )

  it.effect("to apply keys: the machine is made meanwhile, and what came waits for it", () =>
    Effect.gen(function* () {
      const { bob, roomId, world } = yield* setUp(true)
      const eventId = yield* say(bob, roomId, "secret")
      const made = yield* Latch.make(false)
      const engine = SimulatedCrypto.makeEngine(world.session, world.faults.cryptoRecords)
      const slow = CryptoEngine.CryptoEngine.of({
        ...engine,
        reload: (fence) => Effect.andThen(made.await, engine.reload(fence))
      })
      const crypto = Layer.succeed(CryptoEngine.CryptoEngine, slow)
      const { client } = yield* startNotifier(world, "notify", { crypto })
      const mine = Effect.map(world.sim.syncs("encryption"), (syncs) =>
        syncs.filter(({ session }) => session.userId === world.session.userId)
      )
      const before = yield* mine
      const resolving = yield* Effect.forkScoped(client.resolve({ roomId, eventId }))
      yield* settle

      const during = (yield* mine).slice(before.length)
      assert.deepStrictEqual(
        during.map(({ outcome }) => outcome),
        ["answered"]
      )
      assert.isUndefined(resolving.pollUnsafe())

      yield* made.open
      assert.deepStrictEqual(reading(yield* Fiber.join(resolving)), SECRET)
    })
  )
})
