import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import * as Kit from "./CryptoKit.ts"

/** Alice's and Bob's first devices in one encrypted room, and their homeserver. */
const couple = Effect.gen(function* () {
  const sim = yield* Kit.openHomeserver
  const alice = yield* Kit.openDevice(sim, "alice", "ALICE")
  const bob = yield* Kit.openDevice(sim, "bob", "BOB")
  return { sim, alice, bob, room: yield* Kit.openRoom(sim, alice, bob) }
})

/** What was claimed of a device's one-time keys on the homeserver, one after the other. */
const claimKeys = (by: Kit.Process, from: Kit.Process, count: number) =>
  Effect.forEach(Array.from({ length: count }), () =>
    by.homeserver.keys({
      kind: "claim",
      body: { one_time_keys: { [from.session.userId]: { [from.session.deviceId]: "signed_curve25519" } } }
    })
  )

const sessionsOf = (events: ReadonlyArray<{ readonly content: { readonly [name: string]: unknown } }>) =>
  events.map(({ content }) => content.session_id)

describe("Devices that talk", () => {
  it.live("read one another's messages, in both directions", () =>
    Effect.gen(function* () {
      const { alice, bob, room, sim } = yield* couple
      const hello = yield* Kit.send(sim, alice, room, "hello")
      assert.strictEqual(yield* Kit.read(bob, room, hello), "MissingRoomKey")
      yield* Kit.settle(bob)
      assert.strictEqual(yield* Kit.read(bob, room, hello), "hello")
      assert.strictEqual(yield* Kit.read(alice, room, hello), "hello")
      const answer = yield* Kit.send(sim, bob, room, "hi")
      yield* Kit.settle(alice)
      assert.strictEqual(yield* Kit.read(alice, room, answer), "hi")
    })
  )

  it.live("take many keys in one batch, in order", () =>
    Effect.gen(function* () {
      const { alice, bob, room, sim } = yield* couple
      const rooms = yield* Effect.forEach(Array.from({ length: 30 }), () => Kit.openRoom(sim, alice, bob))
      const events = yield* Effect.forEach(rooms, (one, index) => Kit.send(sim, alice, one, `${index}`))
      const { inbox, news } = yield* Kit.receive(bob)
      assert.deepStrictEqual(
        inbox.map(({ encryption, event, type }) => [type, encryption, (event.content as { room_id: string }).room_id]),
        rooms.map(({ roomId }) => ["m.room_key", "decrypted", roomId])
      )
      assert.deepStrictEqual(
        news,
        rooms.map(({ roomId }, index) => ({
          _tag: "RoomKey" as const,
          roomId,
          sessionId: String(events[index]!.content.session_id)
        }))
      )
      for (const [index, event] of events.entries()) {
        assert.strictEqual(yield* Kit.read(bob, rooms[index]!, event), `${index}`)
      }
      assert.strictEqual(yield* Kit.read(bob, room, events[0]!), "MissingRoomKey")
    })
  )

  it.live(
    "I6: read what another process has committed, and don't read what it hasn't, without reopening anything",
    () =>
      Effect.gen(function* () {
        const { alice, bob, room, sim } = yield* couple
        const other = yield* Kit.openProcess(sim, "bob", "BOB", { filename: bob.filename })
        const first = yield* Kit.send(sim, alice, room, "first", { rotationPeriodMessages: 1 })
        assert.strictEqual(yield* Kit.read(other, room, first), "MissingRoomKey")
        const batch = yield* Kit.absorb(bob, yield* Kit.poll(bob))
        // In the owner's memory, and nowhere else.
        for (const process of [bob, other]) assert.strictEqual(yield* Kit.read(process, room, first), "MissingRoomKey")
        yield* bob.store.commitExtension(bob.fence, batch)
        yield* bob.engine.committed
        for (const process of [bob, other]) assert.strictEqual(yield* Kit.read(process, room, first), "first")
        const second = yield* Kit.send(sim, alice, room, "second", { rotationPeriodMessages: 1 })
        assert.notStrictEqual(second.content.session_id, first.content.session_id)
        yield* Kit.receive(bob)
        for (const process of [bob, other]) assert.strictEqual(yield* Kit.read(process, room, second), "second")
      })
  )

  it.live("I5: go on after a reload, with the sessions that they had", () =>
    Effect.gen(function* () {
      const { alice, bob, room, sim } = yield* couple
      for (const body of ["1", "2", "3"]) {
        const event = yield* Kit.send(sim, alice, room, body, { rotationPeriodMessages: 1 })
        yield* Kit.receive(bob)
        assert.strictEqual(yield* Kit.read(bob, room, event), body)
        yield* alice.engine.reload(alice.fence)
        yield* bob.engine.reload(bob.fence)
      }
      const claimed = yield* Kit.change(alice, (engine, fence) => engine.claim(fence, room.users))
      assert.deepStrictEqual(claimed, [])
    })
  )

  it.live("I5: go on with a room's key after a reload, at the index where it was", () =>
    Effect.gen(function* () {
      const { alice, bob, room, sim } = yield* couple
      const first = yield* Kit.send(sim, alice, room, "first")
      yield* alice.engine.reload(alice.fence)
      const requests = yield* Kit.share(alice, room)
      assert.deepStrictEqual(requests, [])
      const second = yield* Kit.sendNow(sim, alice, room, "second")
      assert.strictEqual(second.content.session_id, first.content.session_id)
      assert.notStrictEqual(second.content.ciphertext, first.content.ciphertext)
      yield* Kit.receive(bob)
      assert.strictEqual(yield* Kit.read(bob, room, first), "first")
      assert.strictEqual(yield* Kit.read(bob, room, second), "second")
    })
  )

  it.live("I2: take the same batch again after a discard, and nothing of the first time is left", () =>
    Effect.gen(function* () {
      const { alice, bob, room, sim } = yield* couple
      const event = yield* Kit.send(sim, alice, room, "hello")
      const before = yield* Kit.rows(bob)
      const polled = yield* Kit.poll(bob)
      const first = yield* Kit.absorb(bob, polled)
      yield* bob.engine.discard
      assert.deepStrictEqual(yield* Kit.rows(bob), before)
      yield* bob.engine.reload(bob.fence)
      const second = yield* Kit.absorb(bob, polled)
      assert.deepStrictEqual(second.inbox, first.inbox)
      assert.strictEqual(second.inbox[0]?.encryption, "decrypted")
      yield* bob.store.commitExtension(bob.fence, second)
      yield* bob.engine.committed
      assert.strictEqual(yield* Kit.read(bob, room, event), "hello")
    })
  )

  it.live("I5: keep nothing of what wasn't committed over a reload, also without a discard", () =>
    Effect.gen(function* () {
      const { alice, bob, room, sim } = yield* couple
      const event = yield* Kit.send(sim, alice, room, "hello")
      const polled = yield* Kit.poll(bob)
      const { inbox } = yield* Kit.absorb(bob, polled)
      yield* bob.engine.reload(bob.fence)
      const again = yield* Kit.absorb(bob, polled)
      assert.deepStrictEqual(again.inbox, inbox)
      yield* Kit.commitBatch(bob, again)
      assert.strictEqual(yield* Kit.read(bob, room, event), "hello")
    })
  )

  it.live("I5: do nothing after a discard, until they are reloaded", () =>
    Effect.gen(function* () {
      const { bob } = yield* couple
      yield* bob.engine.discard
      for (const call of [
        Effect.asVoid(bob.engine.outgoing(bob.fence)),
        Effect.asVoid(bob.engine.receive(bob.fence, { toDevice: [], fresh: false }))
      ]) {
        const error = yield* Effect.flip(call)
        assert.strictEqual(error.reason._tag, "CryptoFailed")
        assert.include(error.message, "reload")
      }
    })
  )

  it.live("I2: write each change once", () =>
    Effect.gen(function* () {
      const { alice, bob, room, sim } = yield* couple
      yield* Kit.send(sim, alice, room, "hello")
      const { crypto } = yield* Kit.receive(bob)
      assert.isAbove(crypto.length, 0)
      const { writes } = yield* bob.engine.outgoing(bob.fence)
      assert.deepStrictEqual(writes, [])
    })
  )

  it.live("call an event undecryptable that was already decrypted, and are none the worse", () =>
    Effect.gen(function* () {
      const { alice, bob, room, sim } = yield* couple
      const event = yield* Kit.send(sim, alice, room, "hello")
      const polled = yield* Kit.poll(bob)
      yield* Kit.commitBatch(bob, yield* Kit.absorb(bob, polled))
      const again = yield* Kit.absorb(bob, polled)
      assert.deepStrictEqual(
        again.inbox.map(({ encryption }) => encryption),
        ["undecryptable"]
      )
      yield* bob.engine.discard
      yield* bob.engine.reload(bob.fence)
      assert.strictEqual(yield* Kit.read(bob, room, event), "hello")
      const next = yield* Kit.send(sim, alice, room, "next", { rotationPeriodMessages: 1 })
      yield* Kit.receive(bob)
      assert.strictEqual(yield* Kit.read(bob, room, next), "next")
    })
  )
})

describe("A room's key", () => {
  it.live("is replaced after as many messages as the room says", () =>
    Effect.gen(function* () {
      const { alice, bob, room, sim } = yield* couple
      const events = yield* Effect.forEach(["1", "2", "3", "4", "5"], (body) =>
        Kit.send(sim, alice, room, body, { rotationPeriodMessages: 2 })
      )
      const [a, b, c, d, e] = sessionsOf(events)
      assert.deepStrictEqual([a, c], [b, d])
      assert.lengthOf(new Set([a, c, e]), 3)
      yield* Kit.receive(bob)
      for (const [index, event] of events.entries())
        assert.strictEqual(yield* Kit.read(bob, room, event), `${index + 1}`)
    })
  )

  it.effect("I8: is replaced when Effect's clock says that it is old", () =>
    Effect.gen(function* () {
      const { alice, room, sim } = yield* couple
      const settings = { rotationPeriodMillis: 3_600_000 * 2 }
      const first = yield* Kit.send(sim, alice, room, "1", settings)
      yield* TestClock.adjust(settings.rotationPeriodMillis - 1_000)
      const second = yield* Kit.send(sim, alice, room, "2", settings)
      yield* TestClock.adjust(2_000)
      const third = yield* Kit.send(sim, alice, room, "3", settings)
      const [a, b, c] = sessionsOf([first, second, third])
      assert.strictEqual(b, a)
      assert.notStrictEqual(c, a)
    })
  )

  it.live("is replaced when a member has left, who can't read what follows", () =>
    Effect.gen(function* () {
      const { alice, bob, room, sim } = yield* couple
      const first = yield* Kit.send(sim, alice, room, "1")
      yield* sim.setMembership({ roomId: room.roomId, userId: bob.session.userId, membership: "leave" })
      yield* Kit.settle(alice)
      const second = yield* Kit.send(sim, alice, { ...room, users: [alice.session.userId] }, "2")
      yield* Kit.settle(bob)
      assert.strictEqual(yield* Kit.read(bob, room, first), "1")
      assert.strictEqual(yield* Kit.read(bob, room, second), "MissingRoomKey")
      assert.strictEqual(yield* Kit.read(alice, room, second), "2")
    })
  )

  it.live("is replaced when a device that had it was deleted", () =>
    Effect.gen(function* () {
      const { alice, bob, room, sim } = yield* couple
      const second = yield* Kit.openDevice(sim, "bob", "BOB2")
      const first = yield* Kit.send(sim, alice, room, "1")
      yield* Kit.logOut(sim, second)
      yield* Kit.settle(alice, bob)
      const next = yield* Kit.send(sim, alice, room, "2")
      assert.notStrictEqual(next.content.session_id, first.content.session_id)
      assert.deepStrictEqual(
        (yield* alice.reader.devices(bob.session.userId)).map(({ deviceId }) => deviceId),
        ["BOB"]
      )
      yield* Kit.settle(bob)
      assert.strictEqual(yield* Kit.read(bob, room, next), "2")
    })
  )

  it.live("is kept from a device that isn't verified, if the room is for such only, and the device is told", () =>
    Effect.gen(function* () {
      const { alice, bob, room, sim } = yield* couple
      const event = yield* Kit.send(sim, alice, room, "secret", { sharing: "trusted" })
      const { news } = yield* Kit.receive(bob)
      const answer = yield* bob.reader.decrypt(room.roomId, event)
      assert.deepInclude(answer, { _tag: "Undecryptable", reason: "Withheld" })
      assert.strictEqual(answer._tag === "Undecryptable" ? answer.withheld?.code : undefined, "m.unverified")
      // Whoever shows the message is told to look again.
      const sessionId = String(event.content.session_id)
      assert.deepStrictEqual(news, [{ _tag: "RoomKey", roomId: room.roomId, sessionId }])
    })
  )

  it.live("doesn't read what was sent before a device was given it", () =>
    Effect.gen(function* () {
      const { alice, room, sim } = yield* couple
      const before = yield* Kit.send(sim, alice, room, "before")
      const late = yield* Kit.openDevice(sim, "bob", "LATE")
      yield* Kit.settle(alice)
      const after = yield* Kit.send(sim, alice, room, "after")
      assert.strictEqual(after.content.session_id, before.content.session_id)
      yield* Kit.settle(late)
      assert.strictEqual(yield* Kit.read(late, room, after), "after")
      assert.strictEqual(yield* Kit.read(late, room, before), "UnknownMessageIndex")
    })
  )

  it.live("is shared again until it was, also after a reload in between", () =>
    Effect.gen(function* () {
      const { alice, bob, room, sim } = yield* couple
      yield* Kit.share(bob, room)
      yield* Kit.settle(alice)
      yield* Kit.change(alice, (engine, fence) => engine.track(fence, room.users))
      yield* Kit.settle(alice)
      const asked = { ...room, settings: Kit.defaultSettings }
      const lost = yield* Kit.change(alice, (engine, fence) => engine.shareRoomKey(fence, asked))
      assert.lengthOf(lost, 1)
      yield* alice.engine.reload(alice.fence)
      const event = yield* Kit.send(sim, alice, room, "hello")
      yield* Kit.receive(bob)
      assert.strictEqual(yield* Kit.read(bob, room, event), "hello")
    })
  )

  it.live("is good for one event each time that it is shared, since only sharing finds out that it is used up", () =>
    Effect.gen(function* () {
      const { alice, bob, room, sim } = yield* couple
      const unshared = yield* Effect.flip(Kit.sendNow(sim, alice, room, "1"))
      assert.strictEqual(unshared.reason._tag, "CryptoFailed")
      assert.include(unshared.message, "shareRoomKey")
      yield* Kit.send(sim, alice, room, "1", { rotationPeriodMessages: 1 })
      const usedUp = yield* Effect.flip(Kit.sendNow(sim, alice, room, "2"))
      assert.strictEqual(usedUp.reason._tag, "CryptoFailed")
      const event = yield* Kit.send(sim, alice, room, "2", { rotationPeriodMessages: 1 })
      yield* Kit.receive(bob)
      assert.strictEqual(yield* Kit.read(bob, room, event), "2")
    })
  )

  it.live("reaches fifty devices", () =>
    Effect.gen(function* () {
      const sim = yield* Kit.openHomeserver
      const alice = yield* Kit.openDevice(sim, "alice", "ALICE")
      const others = yield* Effect.forEach(Array.from({ length: 50 }), (_, index) =>
        Kit.openDevice(sim, `user${index % 10}`, `D${index}`)
      )
      const room = yield* Kit.openRoom(sim, alice, ...others)
      const event = yield* Kit.send(sim, alice, room, "everybody")
      for (const one of others) {
        yield* Kit.receive(one)
        assert.strictEqual(yield* Kit.read(one, room, event), "everybody")
      }
    })
  )
})

describe("One-time keys", () => {
  it.effect(
    "are made anew when they have been claimed, and so is the fallback key when it was used and is a week old",
    () =>
      Effect.gen(function* () {
        const { alice, bob, room, sim } = yield* couple
        yield* claimKeys(alice, bob, 50)
        yield* TestClock.adjust("8 days")
        // The fifty-first gets the fallback key.
        const event = yield* Kit.send(sim, alice, room, "hello")
        const { inbox } = yield* Kit.receive(bob)
        assert.deepStrictEqual(
          inbox.map(({ encryption }) => encryption),
          ["decrypted"]
        )
        assert.strictEqual(yield* Kit.read(bob, room, event), "hello")
        const [upload] = yield* Kit.flush(bob)
        assert.strictEqual(upload?.request._tag === "Keys" ? upload.request.keys.kind : undefined, "upload")
        const body = upload?.request._tag === "Keys" ? upload.request.keys.body : {}
        assert.lengthOf(Object.keys(body.one_time_keys as object), 50)
        assert.lengthOf(Object.keys(body.fallback_keys as object), 1)
        // Who claims now gets one of them, and is understood.
        const carol = yield* Kit.openDevice(sim, "carol", "CAROL")
        const another = yield* Kit.openRoom(sim, carol, bob)
        const second = yield* Kit.send(sim, carol, another, "from carol")
        yield* Kit.receive(bob)
        assert.strictEqual(yield* Kit.read(bob, another, second), "from carol")
      })
  )

  it.live("are topped up to fifty, and never uploaded with two values under one id", () =>
    Effect.gen(function* () {
      const { alice, bob, sim } = yield* couple
      for (const taken of [1, 30, 50]) {
        yield* claimKeys(alice, bob, taken)
        yield* bob.engine.reload(bob.fence)
        yield* Kit.settle(bob)
        const left = yield* sim.model(
          (state) => state.users.get(bob.session.userId)!.devices.get("BOB")!.oneTimeKeys.get("signed_curve25519")!.size
        )
        assert.strictEqual(left, 50)
      }
    })
  )
})

describe("The devices of tracked users", () => {
  it.live("are asked for anew after a fresh start of the connection", () =>
    Effect.gen(function* () {
      const { alice, bob, room, sim } = yield* couple
      yield* Kit.send(sim, alice, room, "hello")
      assert.deepStrictEqual(yield* Kit.flush(alice), [])
      yield* sim.expirePositions(alice.session)
      yield* alice.store.expireExtension(alice.fence)
      yield* Kit.receive(alice)
      const asked = (yield* Kit.flush(alice)).flatMap(({ request }) =>
        request._tag === "Keys" && request.keys.kind === "query"
          ? Object.keys(request.keys.body.device_keys as object)
          : []
      )
      assert.sameMembers(asked, [alice.session.userId, bob.session.userId])
    })
  )

  it.live("are asked for when one is added, and the news say whose", () =>
    Effect.gen(function* () {
      const { alice, bob, room, sim } = yield* couple
      yield* Kit.send(sim, alice, room, "hello")
      const { last } = yield* alice.store.encryptionNewsKept
      yield* Kit.openDevice(sim, "bob", "BOB2")
      yield* Kit.settle(alice)
      const news = yield* alice.store.encryptionNews({ after: last, limit: 100 })
      assert.deepInclude(
        news.map(({ news }) => news),
        { _tag: "Devices", userId: bob.session.userId }
      )
      assert.sameMembers(
        (yield* alice.reader.devices(bob.session.userId)).map(({ deviceId }) => deviceId),
        ["BOB", "BOB2"]
      )
    })
  )
})
