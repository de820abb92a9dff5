import { assert, describe, it } from "@effect/vitest"
import { CryptoError, type Homeserver, HomeserverError, SyncConfig } from "@twinloop/core"
import { Clock, Effect, Fiber } from "effect"
import { EXTENSION_LEASE } from "../src/SyncService.ts"
import {
  begin,
  type Chat,
  deviceOf,
  openChat,
  outcome,
  ratchetOf,
  read,
  say,
  sentBy,
  startChat
} from "./support/Chat.ts"
import { makeWorld, type ProcessOptions, type World } from "../src/testing/Simulation.ts"
import { advance, settle } from "../src/testing/Time.ts"

const { renewMillis, sendWaitMillis, waitPollMillis, yieldAfterMillis } = SyncConfig.defaults

/** An account's process that owns the stream, a friend on a device of his own, and an encrypted room with both. */
const setUpWith = Effect.fnUntraced(function* (options: ProcessOptions = {}, made?: World) {
  const world = made ?? (yield* makeWorld())
  const bobs = yield* deviceOf(world, "bob", "BOB")
  const bob = yield* startChat(bobs, "bob")
  const roomId = yield* world.sim.addRoom({ members: [world.session.userId, bobs.session.userId], isEncrypted: true })
  yield* bob.service.setSubscriptions([roomId])
  const alice = yield* startChat(world, "app", options)
  assert.isTrue(yield* alice.isOwner)
  return { world, alice, bobs, bob, roomId }
})

const setUp = setUpWith()

const generation = (world: World) =>
  Effect.map(world.leases.inspect(EXTENSION_LEASE), ({ rows }) => rows[0]?.generation ?? 0)

/** Another holder takes the lease away, and gives it back at once. */
const steal = Effect.fnUntraced(function* (world: World) {
  const [row] = (yield* world.leases.inspect(EXTENSION_LEASE)).rows
  const taken = yield* world.leases.take({
    name: EXTENSION_LEASE,
    permits: 1,
    count: 1,
    holder: "thief",
    peer: {},
    nowMillis: yield* Clock.currentTimeMillis,
    leaseMillis: 10_000,
    presumedDead: [row?.holder ?? ""]
  })
  if (taken._tag !== "Granted") return assert.fail("nobody can take it")
  yield* world.leases.release({
    fence: { name: EXTENSION_LEASE, holder: "thief", generation: taken.generation },
    nowMillis: yield* Clock.currentTimeMillis,
    handoverMillis: 3_000
  })
})

/** No two messages were made with the same key and index. */
const assertRatchets = (chats: ReadonlyArray<Chat>): void => {
  const used = chats.flatMap(sentBy).map(({ content }) => ratchetOf(content))
  assert.lengthOf(new Set(used), used.length)
}

describe("Encryption, in a process that isn't the owner of the stream", () => {
  it.effect("fails after sendWaitMillis where the service doesn't run, and sends nothing", () =>
    Effect.gen(function* () {
      const { alice, roomId } = yield* setUp
      yield* alice.service.stop()
      alice.lines.length = 0
      const sending = yield* begin(Effect.flip(say(alice, roomId, "hello")))
      yield* advance(sendWaitMillis - 1)
      assert.strictEqual(yield* outcome(sending), "pending")
      yield* advance(1)
      const error = yield* Fiber.join(sending)
      assert.deepStrictEqual(error._tag === "StreamNotOwned" ? error.waitedMillis : error, sendWaitMillis)
      assert.include(error.message, "nothing was sent")
      // Nor is it asked who is in the room: people may leave while the stream is waited for.
      assert.deepStrictEqual(alice.lines, [])
    })
  )

  it.effect("fails after sendWaitMillis when the owner doesn't yield, since it is at a commit", () =>
    Effect.gen(function* () {
      const { alice, roomId, world } = yield* setUp
      const other = yield* startChat(world, "other")
      yield* world.faults.delayNext("commitExtension", 60_000)
      yield* world.sim.sendNumbered(world.session, 1)
      yield* settle
      const sending = yield* begin(Effect.flip(say(other, roomId, "hello")))
      yield* advance(sendWaitMillis)
      assert.strictEqual((yield* Fiber.join(sending))._tag, "StreamNotOwned")
      assert.deepStrictEqual(sentBy(other), [])
      assert.isTrue(yield* alice.isOwner)
    })
  )

  it.effect("asks the owner to yield, and sends without time passing", () =>
    Effect.gen(function* () {
      const { alice, bob, roomId, world } = yield* setUp
      yield* say(alice, roomId, "from the app")
      const other = yield* startChat(world, "other")
      yield* advance("1 second")
      const before = yield* Clock.currentTimeMillis
      const sending = yield* begin(say(other, roomId, "from the other"))
      assert.strictEqual(yield* outcome(sending), "sent")
      assert.strictEqual(yield* Clock.currentTimeMillis, before)
      assert.deepStrictEqual([yield* alice.isOwner, yield* other.isOwner], [false, true])
      assert.strictEqual(yield* generation(world), 2)

      // The one that was the owner asks in its turn, and waits until the stream was kept for a while.
      const again = yield* begin(say(alice, roomId, "from the app again"))
      assert.strictEqual(yield* outcome(again), "pending")
      yield* advance(yieldAfterMillis)
      assert.strictEqual(yield* outcome(again), "sent")
      for (const chat of [bob, alice, other]) {
        const shown = yield* read(chat, roomId)
        for (const body of ["from the other", "from the app again"]) assert.include(shown, body)
      }
      assert.strictEqual(new Set([...sentBy(alice), ...sentBy(other)].map(({ content }) => content.session_id)).size, 1)
      assertRatchets([alice, other])
    })
  )

  it.effect("asks the owner also when the own loop begins to wait for the stream only later", () =>
    Effect.gen(function* () {
      const { alice, roomId, world } = yield* setUp
      const other = yield* startChat(world, "other")
      yield* other.service.suspend()
      const sending = yield* begin(say(other, roomId, "hello"))
      yield* advance("6 seconds")
      yield* other.service.resume()
      yield* advance(waitPollMillis)
      assert.strictEqual(yield* outcome(sending), "sent")
      assert.isFalse(yield* alice.isOwner)
    })
  )

  it.effect("disturbs nobody for whoever has stopped waiting", () =>
    Effect.gen(function* () {
      const { alice, roomId, world } = yield* setUp
      const other = yield* startChat(world, "other")
      yield* other.service.suspend()
      const sending = yield* begin(Effect.flip(say(other, roomId, "hello")))
      yield* advance(sendWaitMillis)
      yield* Fiber.join(sending)
      yield* other.service.resume()
      yield* advance("1 minute")
      assert.isTrue(yield* alice.isOwner)
    })
  )

  it.effect("says what it has to say of devices, and lets every process see it", () =>
    Effect.gen(function* () {
      const { alice, bobs, roomId, world } = yield* setUp
      yield* say(alice, roomId, "hello")
      const other = yield* startChat(world, "other")
      yield* advance("1 second")
      yield* other.encryption.setLocalTrust({ ...bobs.session, trust: "blocked" })
      for (const { encryption } of [alice, other]) {
        assert.deepStrictEqual(
          (yield* encryption.devices(bobs.session.userId)).map(({ deviceId, isBlocked }) => [deviceId, isBlocked]),
          [["BOB", true]]
        )
      }
      const error = yield* Effect.flip(
        other.encryption.setLocalTrust({ userId: bobs.session.userId, deviceId: "GHOST", trust: "verified" })
      )
      assert.deepStrictEqual(error._tag === "CryptoError" ? error.reason._tag : error, "CryptoFailed")
      yield* other.encryption.setLocalTrust({ ...bobs.session, trust: "unset" })
      assert.isFalse((yield* alice.encryption.devices(bobs.session.userId))[0]?.isBlocked)
    })
  )
})

/** The stream is stolen at the first so many claims: in the middle of sending. */
const stolenAtClaims = (world: World, times: number) => {
  let claims = 0
  const homeserver = (port: Homeserver.Homeserver["Service"]): Homeserver.Homeserver["Service"] => ({
    ...port,
    keys: (request) =>
      Effect.tap(port.keys(request), () => {
        if (request.kind !== "claim") return Effect.void
        claims += 1
        return claims <= times ? Effect.orDie(steal(world)) : Effect.void
      })
  })
  return { claims: () => claims, homeserver }
}

describe("Encryption, when the machine has been made anew before it encrypts", () => {
  const reason = new CryptoError.CryptoFailed({ message: "the room may have no key to encrypt with" })
  const refusal = new CryptoError.CryptoError({ operation: "encrypt an event", reason })

  it.effect("shares the key again, which sends nothing, and sends the message once", () =>
    Effect.gen(function* () {
      const { alice, bob, roomId } = yield* setUp
      alice.refusals.push(refusal)
      yield* say(alice, roomId, "hello")
      assert.lengthOf(alice.settings, 2)
      assert.lengthOf(sentBy(alice), 1)
      yield* settle
      assert.include(JSON.stringify(yield* read(bob, roomId)), "hello")
    })
  )

  it.effect("gives up when that doesn't help, and sends nothing", () =>
    Effect.gen(function* () {
      const { alice, roomId } = yield* setUp
      alice.refusals.push(...Array.from({ length: 10 }, () => refusal))
      const error = yield* Effect.flip(say(alice, roomId, "hello"))
      assert.strictEqual(error, refusal)
      assert.lengthOf(sentBy(alice), 0)
    })
  )
})

describe("Encryption, when the stream is lost in the middle", () => {
  it.effect("I1: begins again once the stream is this process's, and sends once", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld()
      const theft = stolenAtClaims(world, 1)
      const { alice, bob, roomId } = yield* setUpWith({ homeserver: theft.homeserver }, world)
      const sending = yield* begin(say(alice, roomId, "hello"))
      assert.strictEqual(yield* outcome(sending), "pending", "it learns of the loss by its next renewal")
      yield* advance(renewMillis)
      assert.strictEqual(yield* outcome(sending), "sent")
      assert.strictEqual(yield* generation(world), 3)
      assert.strictEqual(theft.claims(), 2)
      assert.deepStrictEqual(yield* read(bob, roomId, 1), ["hello"])
    })
  )

  it.effect("gives up when it is lost again and again, with the store's refusal", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld()
      const theft = stolenAtClaims(world, 100)
      const { alice, bobs, roomId } = yield* setUpWith({ homeserver: theft.homeserver }, world)
      const sending = yield* begin(Effect.flip(say(alice, roomId, "hello")))
      for (let n = 0; n < 10; n++) yield* advance(renewMillis)
      const error = yield* Fiber.join(sending)
      assert.deepStrictEqual(error._tag === "StoreError" ? error.reason._tag : error, "StaleGeneration")
      assert.strictEqual(theft.claims(), 6)
      assert.isEmpty(sentBy(alice))
      assert.isNotEmpty(yield* alice.encryption.devices(bobs.session.userId))
    })
  )

  it.effect("I1: an owner that froze while it sent uses nothing that it had in memory", () =>
    Effect.gen(function* () {
      const { alice, bob, roomId, world } = yield* setUp
      yield* say(alice, roomId, "one")
      const other = yield* startChat(world, "other")
      yield* world.sim.inject({
        operation: "members",
        deviceId: world.session.deviceId,
        times: 1,
        effect: { _tag: "Late", millis: 1_000 }
      })
      yield* world.sim.setMembership({ roomId, userId: world.session.userId, membership: "join" })
      yield* settle
      const sending = yield* begin(say(alice, roomId, "three"))
      yield* alice.freeze
      yield* advance("12 seconds")
      assert.isTrue(yield* other.isOwner)
      yield* say(other, roomId, "two")
      yield* alice.thaw
      yield* advance("5 seconds")
      assert.strictEqual(yield* outcome(sending), "sent")
      yield* advance("5 seconds")
      assert.deepStrictEqual((yield* read(bob, roomId)).slice(-2), ["two", "three"])
      assertRatchets([alice, other])
    })
  )
})

describe("Encryption, when the service is suspended", () => {
  it.effect("I4: is quiet with sends under way; they go on after it is resumed", () =>
    Effect.gen(function* () {
      for (const operation of ["keys/query", "keys/claim", "sendToDevice"] as const) {
        const { alice, bob, roomId, world } = yield* setUp
        const deviceId = world.session.deviceId
        yield* world.sim.inject({ operation, deviceId, times: 1, effect: { _tag: "Late", millis: 1_000 } })
        const sending = yield* begin(say(alice, roomId, "hello"))
        const report = yield* alice.service.suspend()
        assert.deepStrictEqual([report.quiet, report.unfinished], [true, []])
        const commits = alice.lines.filter(({ what }) => what === "commit").length
        yield* advance("3 seconds")
        assert.strictEqual(yield* outcome(sending), "pending", operation)
        assert.lengthOf(
          alice.lines.filter(({ what }) => what === "commit"),
          commits,
          "nothing is written meanwhile"
        )
        const { rows } = yield* world.leases.inspect(EXTENSION_LEASE)
        assert.isTrue(rows.every(({ expiresAtMillis }) => expiresAtMillis === 0))

        yield* alice.service.resume()
        yield* settle
        assert.strictEqual(yield* outcome(sending), "sent", operation)
        yield* settle
        assert.deepStrictEqual(yield* read(bob, roomId, 1), ["hello"], operation)
      }
    })
  )

  it.effect("fails what is under way when it isn't resumed in time", () =>
    Effect.gen(function* () {
      const { alice, roomId } = yield* setUp
      yield* alice.service.suspend()
      const sending = yield* begin(Effect.flip(say(alice, roomId, "hello")))
      yield* advance(sendWaitMillis)
      assert.strictEqual((yield* Fiber.join(sending))._tag, "StreamNotOwned")
      yield* alice.service.resume()
      yield* settle
      yield* say(alice, roomId, "hello")
    })
  )
})

describe("Encryption.bootstrapCrossSigning", () => {
  const password = (text: string) => (asked: HomeserverError.UserInteractiveAuth) =>
    Effect.succeed({
      type: "m.login.password",
      identifier: { type: "m.id.user", user: "alice" },
      password: text,
      ...(asked.session === undefined ? {} : { session: asked.session })
    })

  it.effect("makes and publishes keys, after which this device knows itself to be signed; again is nothing new", () =>
    Effect.gen(function* () {
      const { alice, bob, roomId, world } = yield* setUp
      const before = yield* alice.encryption.status
      assert.deepStrictEqual([before.crossSigning.master, before.isDeviceVerified], [false, false])
      yield* alice.encryption.bootstrapCrossSigning()
      const after = yield* alice.encryption.status
      assert.deepStrictEqual(after.crossSigning, { master: true, selfSigning: true, userSigning: true })
      assert.isTrue(after.isDeviceVerified)
      yield* alice.encryption.bootstrapCrossSigning()
      assert.deepStrictEqual((yield* alice.encryption.status).crossSigning, after.crossSigning)

      // Who sees the account knows it, too.
      yield* say(bob, roomId, "hello")
      const [device] = yield* bob.encryption.devices(world.session.userId)
      assert.isTrue(device?.isCrossSigned)
    })
  )

  it.effect("asks who it is before it replaces keys: the error is the caller's, or `authenticate` answers", () =>
    Effect.gen(function* () {
      const { alice } = yield* setUp
      yield* alice.encryption.bootstrapCrossSigning()
      const reset = (options: Parameters<Chat["encryption"]["bootstrapCrossSigning"]>[0]) =>
        alice.encryption.bootstrapCrossSigning({ reset: true, ...options })
      const reasonOf = Effect.map(Effect.flip(reset({})), (error) =>
        error._tag === "HomeserverError" ? error.reason._tag : error
      )
      assert.strictEqual(yield* reasonOf, "UserInteractiveAuth")
      const refused = yield* Effect.flip(reset({ authenticate: password("wrong") }))
      assert.deepStrictEqual(
        refused._tag === "HomeserverError" && refused.reason._tag === "UserInteractiveAuth" && refused.reason.errcode,
        "M_FORBIDDEN"
      )
      assert.isFalse((yield* alice.encryption.status).isDeviceVerified)
      yield* reset({ authenticate: password("alice") })
      assert.isTrue((yield* alice.encryption.status).isDeviceVerified)
    })
  )

  it.effect("fails where another device has the account's keys, and with what `authenticate` fails", () =>
    Effect.gen(function* () {
      const { alice, world } = yield* setUp
      yield* alice.encryption.bootstrapCrossSigning()
      const tablet = yield* startChat(yield* deviceOf(world, "alice", "TABLET"), "tablet")
      const error = yield* Effect.flip(tablet.encryption.bootstrapCrossSigning())
      assert.include(error.message, "reset")
      const giveUp = new HomeserverError.HomeserverError({
        operation: "ask the user",
        reason: new HomeserverError.Forbidden({ message: "he said no", errcode: "M_FORBIDDEN" })
      })
      const no = yield* Effect.flip(
        tablet.encryption.bootstrapCrossSigning({ reset: true, authenticate: () => Effect.fail(giveUp) })
      )
      assert.strictEqual(no, giveUp)
    })
  )

  it.effect("fails where the service isn't started, after sendWaitMillis", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld()
      const alice = yield* openChat(world, "app")
      const made = yield* begin(Effect.flip(alice.encryption.bootstrapCrossSigning()))
      yield* advance(sendWaitMillis)
      assert.strictEqual((yield* Fiber.join(made))._tag, "StreamNotOwned")
      yield* alice.service.start
      yield* settle
      yield* alice.encryption.bootstrapCrossSigning()
    })
  )
})
