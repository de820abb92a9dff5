import { assert, describe, it } from "@effect/vitest"
import type { HomeserverError as HomeserverErrors, MatrixEvent, SyncStore } from "@twinloop/core"
import { HomeserverError, StoreError } from "@twinloop/core"
import { Effect, Fiber } from "effect"
import { begin, deviceOf, type Line, outcome, ratchetOf, read, say, sentBy, startChat, steps } from "./support/Chat.ts"
import { makeWorld, type ProcessOptions } from "../src/testing/Simulation.ts"
import { advance, settle } from "../src/testing/Time.ts"

/** An account's process, a friend on a device of his own, and a room with both. */
const setUpWith = Effect.fnUntraced(function* (
  room: { readonly isEncrypted?: boolean } = { isEncrypted: true },
  options: ProcessOptions = {}
) {
  const world = yield* makeWorld()
  const bobs = yield* deviceOf(world, "bob", "BOB")
  const bob = yield* startChat(bobs, "bob")
  const roomId = yield* world.sim.addRoom({ members: [world.session.userId, bobs.session.userId], ...room })
  const alice = yield* startChat(world, "app", options)
  return { world, alice, bobs, bob, roomId }
})

const setUp = setUpWith()

/** Users to whom keys were sent, once for each request. */
const sharedWith = (lines: ReadonlyArray<Line>): ReadonlyArray<string> =>
  lines
    .filter(({ what }) => what === "sendToDevice")
    .flatMap(({ body }) => Object.keys((body as { readonly messages: object }).messages))

/** A store whose commits of the engine work so many times more, fail once, and work again. */
const storeFailing = (reason: StoreError.StoreErrorReason) => {
  let left = Infinity
  const wrap = (port: SyncStore.SyncStore["Service"]): SyncStore.SyncStore["Service"] => ({
    ...port,
    commitCrypto: (fence, commit) =>
      Effect.suspend(() => {
        left -= 1
        return left === -1
          ? Effect.fail(new StoreError.StoreError({ operation: "commitCrypto", reason }))
          : port.commitCrypto(fence, commit)
      })
  })
  return { wrap, failAfter: (commits: number) => void (left = commits) }
}

const failing = (reason: HomeserverErrors.HomeserverErrorReason) => ({ _tag: "Fail", reason }) as const
const onFire = new HomeserverError.ServerError({ message: "on fire", status: 502 })
const busy = new StoreError.StoreBusy({ message: "somebody else is writing" })

describe("Rooms.send", () => {
  it.effect("sends to a room in the clear as it is, once, without asking for the stream", () =>
    Effect.gen(function* () {
      const { alice, bob, roomId, world } = yield* setUpWith({})
      yield* alice.service.suspend()
      const eventId = yield* say(alice, roomId, "hello")
      assert.deepStrictEqual(steps(alice.lines), ["send"])
      assert.deepStrictEqual(
        sentBy(alice).map(({ content, type }) => ({ content, type })),
        [{ type: "m.room.message", content: { msgtype: "m.text", body: "hello" } }]
      )
      yield* settle
      const [item] = yield* bob.rooms.timeline(roomId, { limit: 1 })
      assert.deepStrictEqual(item?._tag === "Event" ? [item.event.event_id, item.decryption] : item, [
        eventId,
        undefined
      ])
      assert.strictEqual((yield* world.sim.requests).filter(({ operation }) => operation === "members").length, 0)
    })
  )

  it.effect("sends nothing to a room that isn't known, or isn't joined", () =>
    Effect.gen(function* () {
      const { alice, bobs, roomId, world } = yield* setUp
      const invited = yield* world.sim.addRoom({
        members: [bobs.session.userId],
        invited: [world.session.userId],
        isEncrypted: true
      })
      yield* settle
      yield* world.sim.setMembership({ roomId, userId: world.session.userId, membership: "leave" })
      yield* settle
      alice.lines.length = 0
      for (const [room, why] of [
        ["!nowhere:localhost", "isn't in the room list"],
        [invited, "invite"],
        [roomId, "joined"]
      ] as const) {
        const error = yield* Effect.flip(say(alice, room, "hello"))
        assert.strictEqual(error._tag, "RoomNotJoined")
        assert.include(error.message, why)
      }
      assert.deepStrictEqual(alice.lines, [])
    })
  )

  it.effect(
    "I2: asks who is there, follows and keys their devices, shares, and only then sends, each after its commit",
    () =>
      Effect.gen(function* () {
        const { alice, bob, bobs, roomId } = yield* setUp
        yield* say(alice, roomId, "first")
        assert.deepStrictEqual(steps(alice.lines), [
          "members",
          "commit",
          "keys/query",
          "commit",
          "keys/claim",
          "commit",
          "sendToDevice",
          "commit",
          "send"
        ])
        assert.deepStrictEqual(sharedWith(alice.lines), [bobs.session.userId])
        yield* settle
        assert.deepStrictEqual(yield* read(bob, roomId, 1), ["first"])
        assert.deepStrictEqual(yield* read(alice, roomId, 1), ["first"], "who sent it reads it, too")

        // Then everybody has the key, and one commit is enough: the ratchet's.
        alice.lines.length = 0
        yield* say(alice, roomId, "second")
        assert.deepStrictEqual(steps(alice.lines), ["commit", "send"])
        yield* settle
        assert.deepStrictEqual(yield* read(bob, roomId, 2), ["first", "second"])
      })
  )

  it.effect("I2: sends nothing of what could not be committed, at whichever step; sent again, it goes through", () =>
    Effect.gen(function* () {
      // One more commit works each time, until all do.
      for (let failAt = 0; failAt < 5; failAt++) {
        const store = storeFailing(busy)
        const { alice, bob, roomId } = yield* setUpWith({ isEncrypted: true }, { store: store.wrap })
        store.failAfter(failAt)
        const error = yield* Effect.flip(say(alice, roomId, "hello"))
        assert.deepStrictEqual(error._tag === "StoreError" ? error.reason : error, busy)
        // Each request stands behind its commit, so the last thing is never a request whose commit failed.
        const expected = ["members", "commit", "keys/query", "commit", "keys/claim", "commit", "sendToDevice", "commit"]
        assert.deepStrictEqual(
          steps(alice.lines),
          expected.slice(0, failAt === 0 ? 1 : expected.length).slice(0, steps(alice.lines).length)
        )
        assert.lengthOf(
          alice.lines.filter(({ what }) => what === "commit"),
          failAt
        )
        assert.deepStrictEqual(sentBy(alice), [])

        yield* say(alice, roomId, "hello again")
        yield* settle
        assert.deepStrictEqual(yield* read(bob, roomId, 1), ["hello again"])
      }
    })
  )

  it.effect(
    "I2: a process that is killed between a commit and its request uses no index twice, and shares the key again",
    () =>
      Effect.gen(function* () {
        for (const operation of ["keys/query", "keys/claim", "sendToDevice", "send"] as const) {
          const { alice, bob, roomId, world } = yield* setUp
          yield* world.sim.inject({ operation, deviceId: world.session.deviceId, effect: { _tag: "Hang" }, times: 1 })
          const fiber = yield* begin(say(alice, roomId, "lost"))
          assert.strictEqual(yield* outcome(fiber), "pending")
          yield* alice.kill
          yield* settle

          const next = yield* startChat(world, "next")
          yield* settle
          yield* say(next, roomId, "first")
          yield* say(next, roomId, "second")
          yield* settle
          assert.deepStrictEqual(yield* read(bob, roomId, 2), ["first", "second"], operation)
          const used = [...sentBy(alice), ...sentBy(next)].map(({ content }) => ratchetOf(content))
          assert.lengthOf(new Set(used), operation === "send" ? 3 : 2)
          assert.lengthOf(new Set(used), used.length)
        }
      })
  )

  it.effect("never lets the text out in the clear", () =>
    Effect.gen(function* () {
      const { alice, roomId } = yield* setUp
      yield* say(alice, roomId, "a secret")
      yield* alice.rooms.send(roomId, "org.example.secret", { secret: "a secret" })
      const requests = alice.lines.filter(({ what }) => what !== "commit")
      for (const words of ["a secret", "org.example.secret", "m.room.message"]) {
        assert.notInclude(JSON.stringify(requests), words)
      }
      assert.deepStrictEqual(
        sentBy(alice).map(({ type }) => type),
        ["m.room.encrypted", "m.room.encrypted"]
      )
    })
  )

  it.effect("sends what the homeserver acts on in the clear: reactions and redactions", () =>
    Effect.gen(function* () {
      const { alice, roomId } = yield* setUp
      const content = { "m.relates_to": { rel_type: "m.annotation", event_id: "$x", key: "👍" } }
      yield* alice.rooms.send(roomId, "m.reaction", content)
      yield* alice.rooms.send(roomId, "m.room.redaction", { redacts: "$x" })
      assert.deepStrictEqual(steps(alice.lines), ["send"])
      assert.deepStrictEqual(
        sentBy(alice).map(({ content, type }) => ({ type, content })),
        [
          { type: "m.reaction", content },
          { type: "m.room.redaction", content: { redacts: "$x" } }
        ]
      )
    })
  )

  it.effect("sends to one room in the order of the calls, however slow each is, and to others meanwhile", () =>
    Effect.gen(function* () {
      const { alice, bob, bobs, roomId, world } = yield* setUp
      const other = yield* world.sim.addRoom({ members: [world.session.userId, bobs.session.userId] })
      yield* bob.service.setSubscriptions([roomId])
      yield* settle
      // Whoever didn't wait for the one before would overtake it here.
      const answers = { operation: "members", deviceId: world.session.deviceId, times: 1 } as const
      yield* world.sim.inject({ ...answers, effect: { _tag: "Late", millis: 500 } })
      yield* world.sim.inject({ ...answers, effect: { _tag: "Late", millis: 100 } })
      const bodies = Array.from({ length: 10 }, (_, index) => `message ${index}`)
      const sends = yield* begin(
        Effect.forEach(bodies, (body) => say(alice, roomId, body), { concurrency: "unbounded" })
      )
      yield* begin(say(alice, other, "meanwhile"))
      yield* advance(200)
      assert.deepStrictEqual(yield* read(bob, other, 1), ["meanwhile"])
      assert.strictEqual(yield* outcome(sends), "pending")
      yield* advance("1 second")
      assert.strictEqual(yield* outcome(sends), "sent")
      assert.deepStrictEqual(yield* read(bob, roomId, bodies.length), bodies)
    })
  )

  it.effect("is one event however often it is sent under one transaction id, encrypted or not", () =>
    Effect.gen(function* () {
      for (const isEncrypted of [false, true]) {
        const { alice, bob, roomId, world } = yield* setUpWith({ isEncrypted })
        yield* say(alice, roomId, "before")
        yield* world.sim.inject({
          operation: "send",
          deviceId: world.session.deviceId,
          times: 1,
          effect: { _tag: "Late", millis: 60_000 }
        })
        const first = yield* begin(say(alice, roomId, "hello", "my-id"))
        // The answer doesn't come, and the application gives up.
        yield* Fiber.interrupt(first)
        const again = yield* say(alice, roomId, "hello", "my-id")
        assert.strictEqual(yield* say(alice, roomId, "hello", "my-id"), again)
        yield* settle
        assert.deepStrictEqual(yield* read(bob, roomId, 2), ["before", "hello"])
        assert.deepStrictEqual(
          sentBy(alice).map(({ txnId }) => txnId),
          [sentBy(alice)[0]?.txnId ?? "", "my-id", "my-id", "my-id"]
        )
        assert.notStrictEqual(yield* say(alice, roomId, "hello"), again, "each has an id of its own otherwise")
      }
    })
  )

  it.effect("fails with the homeserver's error at any step, and goes through when it is sent again", () =>
    Effect.gen(function* () {
      for (const operation of ["members", "keys/query", "keys/claim", "sendToDevice", "send"] as const) {
        const { alice, bob, roomId, world } = yield* setUp
        yield* world.sim.inject({ operation, deviceId: world.session.deviceId, times: 1, effect: failing(onFire) })
        const error = yield* Effect.flip(say(alice, roomId, "hello"))
        assert.deepStrictEqual(error._tag === "HomeserverError" ? error.reason : error, onFire, operation)
        assert.lengthOf(sentBy(alice), operation === "send" ? 1 : 0)
        yield* say(alice, roomId, "hello again")
        yield* settle
        assert.deepStrictEqual(yield* read(bob, roomId, 1), ["hello again"], operation)
        assert.strictEqual(sharedWith(alice.lines).length, operation === "sendToDevice" ? 2 : 1)
      }
    })
  )
})

const encryption = (content: MatrixEvent.JsonObject) => ({
  type: "m.room.encryption",
  stateKey: "",
  content: { algorithm: "m.megolm.v1.aes-sha2", ...content }
})

describe("Rooms.send in an encrypted room", () => {
  it.effect("replaces the key as often as the room says, and as usual when what it says is absurd", () =>
    Effect.gen(function* () {
      const { alice, roomId, world } = yield* setUp
      const set = (content: MatrixEvent.JsonObject) =>
        Effect.andThen(world.sim.sendEvent(roomId, { ...encryption(content), sender: world.session.userId }), settle)
      const keys = Effect.map(
        Effect.forEach(["a", "b", "c"], (body) => say(alice, roomId, body)),
        () =>
          new Set(
            sentBy(alice)
              .slice(-3)
              .map(({ content }) => content.session_id)
          ).size
      )
      yield* set({ rotation_period_msgs: 1, rotation_period_ms: 3_600_000 })
      assert.strictEqual(yield* keys, 3)
      assert.deepStrictEqual(alice.settings.at(-1), {
        rotationPeriodMessages: 1,
        rotationPeriodMillis: 3_600_000,
        historyVisibility: "shared",
        sharing: "all"
      })
      for (const absurd of [0, -1, 1.5, "7", null, 1e300, [], {}]) {
        yield* set({ rotation_period_msgs: absurd, rotation_period_ms: absurd })
        yield* keys
        assert.deepStrictEqual(alice.settings.at(-1), { historyVisibility: "shared", sharing: "all" })
      }
      assert.strictEqual(yield* keys, 1)
    })
  )

  it.effect("gives the key to who is invited, unless members alone may read", () =>
    Effect.gen(function* () {
      const { alice, bobs, roomId, world } = yield* setUp
      const carols = yield* deviceOf(world, "carol", "CAROL")
      yield* startChat(carols, "carol")
      yield* world.sim.setMembership({
        roomId,
        userId: carols.session.userId,
        membership: "invite",
        by: world.session.userId
      })
      const visible = Effect.fnUntraced(function* (history_visibility: unknown) {
        yield* world.sim.sendEvent(roomId, {
          type: "m.room.history_visibility",
          stateKey: "",
          sender: world.session.userId,
          content: { history_visibility }
        })
        yield* settle
        alice.lines.length = 0
        yield* say(alice, roomId, "hello")
        return [alice.settings.at(-1)?.historyVisibility, [...sharedWith(alice.lines)].sort()]
      })
      const both = [bobs.session.userId, carols.session.userId]
      assert.deepStrictEqual(yield* visible("joined"), ["joined", [bobs.session.userId]])
      assert.deepStrictEqual(yield* visible("invited"), ["invited", both])
      assert.deepStrictEqual(yield* visible("world_readable"), ["world_readable", both])
      assert.deepStrictEqual(yield* visible({ absurd: true }), ["shared", both])
    })
  )

  it.effect("gives the key to trusted devices alone when that is asked for", () =>
    Effect.gen(function* () {
      const { alice, bob, bobs, roomId } = yield* setUp
      yield* say(alice, roomId, "for all")
      yield* alice.rooms.send(roomId, "m.room.message", { body: "for the trusted" }, { sharing: "trusted" })
      yield* settle
      assert.deepStrictEqual(yield* read(bob, roomId, 2), ["for all", "MissingRoomKey"])
      yield* alice.encryption.setLocalTrust({ ...bobs.session, trust: "verified" })
      yield* alice.rooms.send(roomId, "m.room.message", { body: "for you" }, { sharing: "trusted" })
      yield* settle
      assert.deepStrictEqual(yield* read(bob, roomId, 1), ["for you"])
    })
  )

  it.effect("asks who is in the room once, and again when somebody came or went, or that can't be known", () =>
    Effect.gen(function* () {
      const { alice, bobs, roomId, world } = yield* setUp
      const asked = Effect.fnUntraced(function* () {
        alice.lines.length = 0
        yield* say(alice, roomId, "hello")
        yield* settle
        return alice.lines.filter(({ what }) => what === "members").length
      })
      assert.strictEqual(yield* asked(), 1)
      assert.strictEqual(yield* asked(), 0)
      yield* world.sim.sendMessage(roomId, bobs.session.userId, "hi")
      yield* settle
      assert.strictEqual(yield* asked(), 0, "a message is no change")

      // Somebody comes, and gets the key; he goes, and the key is replaced.
      const carols = yield* deviceOf(world, "carol", "CAROL")
      yield* startChat(carols, "carol")
      const carol = (membership: "invite" | "join" | "leave", by = carols.session.userId) =>
        world.sim.setMembership({ roomId, userId: carols.session.userId, membership, by })
      yield* carol("invite", world.session.userId)
      yield* carol("join")
      yield* settle
      assert.strictEqual(yield* asked(), 1)
      assert.deepStrictEqual(sharedWith(alice.lines), [carols.session.userId])
      yield* carol("leave")
      yield* settle
      assert.strictEqual(yield* asked(), 1)
      assert.deepStrictEqual(sharedWith(alice.lines), [bobs.session.userId])

      // Events are missing: there may have been anything among them.
      yield* world.sim.unreachable
      yield* advance("1 second")
      for (let n = 0; n < 30; n++) yield* world.sim.sendMessage(roomId, bobs.session.userId, `${n}`)
      yield* world.sim.reachable
      yield* advance("2 minutes")
      assert.include(yield* read(alice, roomId, 100), "gap")
      assert.strictEqual(yield* asked(), 1)
      assert.strictEqual(yield* asked(), 0)
    })
  )

  it.effect("asks again when it could not be told", () =>
    Effect.gen(function* () {
      const { alice, roomId, world } = yield* setUp
      yield* world.sim.inject({ operation: "members", times: 1, effect: failing(onFire) })
      yield* Effect.flip(say(alice, roomId, "hello"))
      yield* say(alice, roomId, "hello")
      assert.lengthOf(
        alice.lines.filter(({ what }) => what === "members"),
        2
      )
    })
  )

  it.effect("asks about whose devices have changed before it sends", () =>
    Effect.gen(function* () {
      const { alice, bobs, roomId, world } = yield* setUp
      yield* say(alice, roomId, "one")
      const laptops = yield* deviceOf(world, "bob", "LAPTOP")
      const laptop = yield* startChat(laptops, "laptop")
      alice.lines.length = 0
      yield* say(alice, roomId, "two")
      yield* settle
      assert.deepStrictEqual(sharedWith(alice.lines), [bobs.session.userId])
      assert.deepStrictEqual(yield* read(laptop, roomId, 1), ["two"])
    })
  )
})
