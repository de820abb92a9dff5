import { assert, describe, it } from "@effect/vitest"
import { CryptoError, ListDiff, type MatrixEvent, StoreError, SyncConfig, SyncStore } from "@twinloop/core"
import { HomeserverModel, type HomeserverSim } from "@twinloop/core/testing"
import { Effect, Exit, Latch, Scope, Stream } from "effect"
import type { TimelineChanges, TimelineItem } from "../src/Rooms.ts"
import { EXTENSION_LEASE } from "../src/SyncService.ts"
import { begin, type Chat, deviceOf, outcome, read, reading, say, startChat } from "./support/Chat.ts"
import { makeWorld, type World } from "../src/testing/Simulation.ts"
import { advance, settle } from "../src/testing/Time.ts"

const { waitPollMillis } = SyncConfig.defaults

/** An account's process and a friend's, an encrypted room with both, and what the homeserver says of its devices is known. */
const setUp = Effect.gen(function* () {
  const world = yield* makeWorld()
  const bobs = yield* deviceOf(world, "bob", "BOB")
  const bob = yield* startChat(bobs, "bob")
  const roomId = yield* world.sim.addRoom({ members: [world.session.userId, bobs.session.userId], isEncrypted: true })
  const alice = yield* startChat(world, "app")
  yield* alice.service.setSubscriptions([roomId])
  yield* settle
  return { world, alice, bobs, bob, roomId }
})

/** Messages of both, and everybody knows the other's device. */
const talk = Effect.fnUntraced(function* ({ alice, bob, roomId }: Effect.Success<typeof setUp>) {
  yield* say(bob, roomId, "one")
  yield* say(alice, roomId, "two")
  yield* say(bob, roomId, "three")
  yield* settle
  yield* read(alice, roomId)
  yield* settle
  alice.decrypted.length = 0
})

/** Keeps back what comes for a device, until it is let through. */
const holdBack = (world: World, session: HomeserverSim.SimSession) => {
  const deviceOf = (state: HomeserverModel.ModelState) => {
    const user = state.users.get(session.userId)
    const device = user?.devices.get(session.deviceId)
    return user === undefined || device === undefined ? undefined : { user, device }
  }
  return {
    hold: world.sim.model((state) => {
      const target = deviceOf(state)
      if (target !== undefined) HomeserverModel.hold(state, target.device)
    }),
    release: world.sim.model((state) => {
      const target = deviceOf(state)
      if (target !== undefined) HomeserverModel.release(state, target)
    })
  }
}

/** Follows a live timeline as an application does. */
const follow = Effect.fnUntraced(function* (chat: Pick<Chat, "rooms">, roomId: string, limit = 10) {
  const scope = yield* Scope.make()
  const stream = yield* Scope.provide(chat.rooms.live(roomId, { limit }), scope)
  const seen: Array<TimelineChanges> = []
  const fiber = yield* begin(Stream.runForEach(stream, (changes) => Effect.sync(() => void seen.push(changes))))
  const items = (): ReadonlyArray<TimelineItem> => seen.reduce<ReadonlyArray<TimelineItem>>(ListDiff.applyAll, [])
  return {
    seen,
    fiber,
    items,
    texts: () => items().map(reading),
    /** What came since the last time, each change by its name and what it is of. */
    news: () =>
      seen
        .splice(1)
        .flat()
        .map((change) => [change._tag, "entry" in change ? reading(change.entry) : ""]),
    close: Scope.close(scope, Exit.void)
  }
})

const busy = new StoreError.StoreBusy({ message: "somebody else is writing" })
const readOnly = new StoreError.StoreReadOnly({ message: "the disk is read-only" })
const trapped = new CryptoError.CryptoError({
  operation: "decrypt",
  reason: new CryptoError.CryptoTrapped({ message: "the machine trapped" })
})

const shieldOf = (item: TimelineItem | undefined): unknown =>
  item?._tag === "Event" && item.decryption?._tag === "Decrypted" ? (item.decryption.shield.code ?? "none") : item

describe("Rooms.timeline", () => {
  it.effect("decrypts what is encrypted, by pages, and lets state, clear text and gaps pass", () =>
    Effect.gen(function* () {
      const world = yield* setUp
      const { alice, bob, bobs, roomId } = world
      yield* talk(world)
      yield* world.world.sim.sendMessage(roomId, bobs.session.userId, "in the clear")
      yield* settle
      assert.deepStrictEqual(yield* read(alice, roomId, 4), ["one", "two", "three", "in the clear"])
      const newest = yield* alice.rooms.timeline(roomId, { limit: 2 })
      const older = yield* alice.rooms.timeline(roomId, { limit: 2, before: newest[0]?.index ?? 0 })
      assert.deepStrictEqual(older.map(reading), ["one", "two"])
      const [one, clear] = [older[0], newest[1]]
      assert.strictEqual(one?._tag === "Event" ? one.decryption?._tag : one?._tag, "Decrypted")
      assert.isTrue(clear?._tag === "Event" && clear.decryption === undefined)
      // The friend looks at the room through its latest event alone, so events are missing there.
      const all = yield* read(bob, roomId, 100)
      assert.includeMembers([...all], ["gap", "m.room.member", "in the clear"])
    })
  )

  it.effect("shows what can't be decrypted as it came, with the reason", () =>
    Effect.gen(function* () {
      const { alice, bob, roomId, world } = yield* setUp
      yield* holdBack(world, world.session).hold
      yield* say(bob, roomId, "too early")
      yield* settle
      const [item] = yield* alice.rooms.timeline(roomId, { limit: 1 })
      if (item?._tag !== "Event" || item.decryption?._tag !== "Undecryptable") return assert.fail("it is decrypted")
      assert.strictEqual(item.decryption.reason, "MissingRoomKey")
      assert.strictEqual(item.event.type, "m.room.encrypted")
      assert.strictEqual(item.event.content.session_id, item.decryption.sessionId)
      const event: MatrixEvent.TimelineEvent = item.event
      assert.deepStrictEqual(yield* alice.rooms.show(roomId, event), { event, decryption: item.decryption })
    })
  )

  it.effect("fails when the machine or the store does, with their errors", () =>
    Effect.gen(function* () {
      const world = yield* setUp
      const { alice, roomId } = world
      yield* talk(world)
      alice.failures.push(trapped)
      assert.strictEqual(yield* Effect.flip(alice.rooms.timeline(roomId, { limit: 3 })), trapped)
      yield* world.world.faults.failNext("timeline", readOnly)
      const error = yield* Effect.flip(alice.rooms.timeline(roomId, { limit: 3 }))
      assert.deepStrictEqual(error.reason, readOnly)
      assert.deepStrictEqual(yield* read(alice, roomId, 3), ["one", "two", "three"])
    })
  )
})

describe("Rooms.show", () => {
  it.effect("decrypts a room's latest event, and gives what is clear as it is", () =>
    Effect.gen(function* () {
      const world = yield* setUp
      const { alice, roomId } = world
      yield* talk(world)
      const latest = (yield* alice.list.get(roomId))?.latestEvent
      if (latest === undefined) return assert.fail("there is no latest event")
      assert.strictEqual(latest.type, "m.room.encrypted")
      const shown = yield* alice.rooms.show(roomId, latest)
      assert.deepStrictEqual([shown.event.type, shown.event.content.body], ["m.room.message", "three"])
      assert.strictEqual(shown.event.event_id, latest.event_id)
      const clear = { ...latest, type: "m.room.message", content: { body: "clear" } }
      assert.deepStrictEqual(yield* alice.rooms.show(roomId, clear), { event: clear })
      alice.failures.push(trapped)
      assert.strictEqual(yield* Effect.flip(alice.rooms.show(roomId, latest)), trapped)
    })
  )

  it.effect("asks about a sender's devices once, whatever is shown of him and however often", () =>
    Effect.gen(function* () {
      const { alice, bob, bobs, roomId } = yield* setUp
      yield* say(bob, roomId, "one")
      yield* say(bob, roomId, "two")
      yield* settle
      const asked = () =>
        alice.lines.filter(
          ({ body, what }) => what === "keys/query" && JSON.stringify(body).includes(bobs.session.userId)
        ).length
      assert.strictEqual(asked(), 0)
      const [first] = yield* alice.rooms.timeline(roomId, { limit: 1 })
      assert.strictEqual(shieldOf(first), "UnknownDevice")
      for (let n = 0; n < 5; n++) yield* read(alice, roomId)
      yield* settle
      yield* read(alice, roomId)
      const followed = alice.followed.length
      for (let n = 0; n < 5; n++) yield* Effect.andThen(read(alice, roomId), settle)
      yield* advance("1 minute")
      assert.strictEqual(asked(), 1)
      assert.lengthOf(alice.followed, followed, "nor is the machine told again whom to follow")
      assert.strictEqual(shieldOf((yield* alice.rooms.timeline(roomId, { limit: 1 }))[0]), "UnsignedDevice")
    })
  )
})

describe("Rooms.live", () => {
  it.effect("gives what is there, and then what comes, and decrypts nothing twice", () =>
    Effect.gen(function* () {
      const world = yield* setUp
      const { alice, bob, roomId } = world
      yield* talk(world)
      const timeline = yield* follow(alice, roomId, 5)
      assert.lengthOf(timeline.seen, 1)
      assert.strictEqual(timeline.seen[0]?.[0]?._tag, "Reset")
      assert.deepStrictEqual(timeline.texts().slice(-3), ["one", "two", "three"])
      assert.lengthOf(alice.decrypted, 3)
      yield* say(bob, roomId, "four")
      yield* settle
      assert.lengthOf(alice.decrypted, 4)
      assert.deepStrictEqual(timeline.texts().slice(-2), ["three", "four"])
      // Typing, say, changes the room and not its timeline.
      const changes = timeline.seen.length
      yield* world.world.sim.setAccountData(world.world.session.userId, "m.fully_read", { event_id: "$x" }, roomId)
      yield* settle
      assert.lengthOf(timeline.seen, changes)
      assert.lengthOf(alice.decrypted, 4)
    })
  )

  it.effect("changes a gap when less is missing there, so that it leads to what still is", () =>
    Effect.gen(function* () {
      const { alice, bobs, roomId, world } = yield* setUp
      for (let n = 0; n < 60; n++) yield* world.sim.sendMessage(roomId, bobs.session.userId, `${n}`)
      yield* alice.service.setSubscriptions([])
      yield* alice.service.expireSessions
      yield* world.sim.sendMessage(roomId, bobs.session.userId, "newest")
      yield* settle
      const timeline = yield* follow(alice, roomId, 100)
      yield* alice.service.setSubscriptions([roomId])
      yield* settle
      assert.deepStrictEqual(timeline.items(), yield* alice.rooms.timeline(roomId, { limit: 100 }))
    })
  )

  it.effect("changes an entry when its key comes late, and no other", () =>
    Effect.gen(function* () {
      const world = yield* setUp
      const { alice, bob, bobs, roomId } = world
      yield* talk(world)
      const { hold, release } = holdBack(world.world, world.world.session)
      yield* hold
      // Each message has a key of its own, and the first one's never comes.
      yield* world.world.sim.sendEvent(roomId, {
        type: "m.room.encryption",
        stateKey: "",
        sender: bobs.session.userId,
        content: { algorithm: "m.megolm.v1.aes-sha2", rotation_period_msgs: 1 }
      })
      yield* settle
      yield* bob.encryption.setLocalTrust({ ...world.world.session, trust: "blocked" })
      yield* say(bob, roomId, "unseen")
      yield* bob.encryption.setLocalTrust({ ...world.world.session, trust: "unset" })
      yield* say(bob, roomId, "late")
      yield* settle
      const timeline = yield* follow(alice, roomId)
      assert.deepStrictEqual(timeline.texts().slice(-2), ["MissingRoomKey", "MissingRoomKey"])
      const late = timeline.items().at(-1)
      alice.decrypted.length = 0
      yield* release
      yield* settle
      assert.deepStrictEqual(timeline.news(), [["Set", "late"]])
      assert.deepStrictEqual(alice.decrypted, [late?._tag === "Event" ? late.event.event_id : ""])
    })
  )

  it.effect("changes an entry at once when the stream's owner, another process, has stored its key", () =>
    Effect.gen(function* () {
      const world = yield* setUp
      const { alice, bob, roomId } = world
      const other = yield* startChat(world.world, "other")
      yield* other.service.setSubscriptions([roomId])
      const { hold, release } = holdBack(world.world, world.world.session)
      yield* hold
      yield* say(bob, roomId, "late")
      yield* settle
      const timeline = yield* follow(other, roomId, 1)
      assert.deepStrictEqual([yield* alice.isOwner, yield* other.isOwner], [true, false])
      assert.deepStrictEqual(timeline.texts(), ["MissingRoomKey"])
      yield* release
      yield* settle
      assert.deepStrictEqual(timeline.news(), [["Set", "late"]])
    })
  )

  it.effect("changes the shields of a user whose devices changed, and looks at nobody else's entries", () =>
    Effect.gen(function* () {
      const world = yield* setUp
      const { alice, bobs, roomId } = world
      yield* talk(world)
      const timeline = yield* follow(alice, roomId, 3)
      assert.deepStrictEqual(timeline.items().map(shieldOf), ["UnsignedDevice", "UnsignedDevice", "UnsignedDevice"])
      alice.decrypted.length = 0
      yield* alice.encryption.setLocalTrust({ ...bobs.session, trust: "verified" })
      yield* settle
      assert.lengthOf(alice.decrypted, 2)
      assert.deepStrictEqual(timeline.items().map(shieldOf), ["none", "UnsignedDevice", "none"])
      assert.deepStrictEqual(timeline.news(), [
        ["Set", "one"],
        ["Set", "three"]
      ])
      // The same again changes nothing to be seen.
      yield* alice.encryption.setLocalTrust({ ...bobs.session, trust: "verified" })
      yield* settle
      assert.deepStrictEqual(timeline.news(), [])
    })
  )

  it.effect("looks at everything again when news were missed", () =>
    Effect.gen(function* () {
      const world = yield* setUp
      const { alice, roomId } = world
      yield* talk(world)
      const timeline = yield* follow(alice, roomId, 3)
      alice.decrypted.length = 0
      const [row] = (yield* world.world.leases.inspect(EXTENSION_LEASE)).rows
      yield* world.world.store.commitCrypto(
        { name: EXTENSION_LEASE, holder: row?.holder ?? "", generation: row?.generation ?? 0 },
        {
          crypto: [],
          news: Array.from({ length: SyncStore.ENCRYPTION_NEWS_KEPT + 1 }, () => ({
            _tag: "Devices" as const,
            userId: "@nobody:localhost"
          }))
        }
      )
      yield* advance(waitPollMillis)
      assert.lengthOf(alice.decrypted, 3)
      assert.deepStrictEqual(timeline.news(), [])
    })
  )

  it.effect("I10: has as many entries as were asked for", () =>
    Effect.gen(function* () {
      const world = yield* setUp
      const { alice, bob, roomId } = world
      yield* talk(world)
      const timeline = yield* follow(alice, roomId, 3)
      for (let n = 0; n < 20; n++) {
        yield* say(bob, roomId, `${n}`)
        yield* settle
        assert.lengthOf(timeline.items(), 3)
      }
      assert.deepStrictEqual(timeline.texts(), ["17", "18", "19"])
      assert.lengthOf(alice.decrypted, 23)
    })
  )

  it.effect("I10: who is slow is given the newest, and not everything in between", () =>
    Effect.gen(function* () {
      const world = yield* setUp
      const { alice, bob, roomId } = world
      yield* talk(world)
      const ready = yield* Latch.make(true)
      const stream = yield* alice.rooms.live(roomId, { limit: 3 })
      const seen: Array<TimelineChanges> = []
      yield* begin(
        Stream.runForEach(stream, (changes) =>
          Effect.andThen(
            Effect.sync(() => void seen.push(changes)),
            ready.await
          )
        )
      )
      yield* ready.close
      for (let n = 0; n < 60; n++) {
        yield* say(bob, roomId, `${n}`)
        yield* settle
      }
      assert.isAtMost(seen.length, 2)
      yield* ready.open
      yield* settle
      const items = seen.reduce<ReadonlyArray<TimelineItem>>(ListDiff.applyAll, [])
      assert.deepStrictEqual(items.map(reading), ["57", "58", "59"])
      assert.isBelow(seen.length, 40)
    })
  )

  it.effect("ends with its scope", () =>
    Effect.gen(function* () {
      const { alice, bob, roomId } = yield* setUp
      const timeline = yield* follow(alice, roomId)
      assert.strictEqual(yield* outcome(timeline.fiber), "pending")
      yield* timeline.close
      yield* settle
      assert.strictEqual(yield* outcome(timeline.fiber), "sent")
      const changes = timeline.seen.length
      yield* say(bob, roomId, "unseen")
      yield* settle
      assert.lengthOf(timeline.seen, changes)
    })
  )

  it.effect("I9: goes on when the store was busy, whatever it was read for", () =>
    Effect.gen(function* () {
      const world = yield* setUp
      const { alice, bob, bobs, roomId } = world
      yield* talk(world)
      const { faults } = world.world
      yield* faults.failNext("timeline", busy)
      const timeline = yield* follow(alice, roomId, 3)
      yield* advance("2 seconds")
      assert.deepStrictEqual(timeline.texts(), ["one", "two", "three"])
      for (const operation of ["encryptionNews", "timeline"] as const) {
        yield* faults.failNext(operation, busy)
        yield* faults.failNext(operation, busy)
      }
      yield* alice.encryption.setLocalTrust({ ...bobs.session, trust: "verified" })
      yield* say(bob, roomId, "four")
      yield* advance("5 seconds")
      assert.deepStrictEqual(timeline.texts(), ["two", "three", "four"])
      assert.strictEqual(shieldOf(timeline.items()[1]), "none")
      assert.strictEqual(yield* outcome(timeline.fiber), "pending")
    })
  )

  it.effect("fails when the machine fails, or the store for good, with their errors", () =>
    Effect.gen(function* () {
      const world = yield* setUp
      const { alice, bob, roomId } = world
      yield* talk(world)
      const first = yield* follow(alice, roomId)
      alice.failures.push(trapped)
      yield* say(bob, roomId, "four")
      yield* settle
      assert.strictEqual(yield* outcome(first.fiber), trapped)

      const second = yield* follow(alice, roomId)
      yield* world.world.faults.failNext("timeline", readOnly)
      yield* say(bob, roomId, "five")
      yield* settle
      const error = yield* outcome(second.fiber)
      assert.deepStrictEqual(error instanceof StoreError.StoreError ? error.reason : error, readOnly)
      // Begun again, it is as if nothing had been.
      assert.deepStrictEqual((yield* follow(alice, roomId, 2)).texts(), ["four", "five"])
    })
  )

  it.effect("I4: looks at nothing while the service is suspended, and goes on when it is resumed", () =>
    Effect.gen(function* () {
      const world = yield* setUp
      const { bob, roomId } = world
      let looks = 0
      const other = yield* startChat(world.world, "other", {
        store: (port) => ({
          ...port,
          encryptionNews: (request) =>
            Effect.suspend(() => {
              looks += 1
              return port.encryptionNews(request)
            })
        })
      })
      yield* other.service.setSubscriptions([roomId])
      yield* talk(world)
      const timeline = yield* follow(other, roomId, 3)
      assert.isTrue((yield* other.service.suspend()).quiet)
      const before = looks
      yield* say(bob, roomId, "four")
      yield* advance("1 hour")
      assert.deepStrictEqual(timeline.news(), [])
      assert.strictEqual(looks, before)
      yield* other.service.resume()
      yield* advance("1 minute")
      assert.deepStrictEqual(timeline.texts(), ["two", "three", "four"])
    })
  )
})
