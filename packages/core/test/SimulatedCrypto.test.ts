import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import type { Fence } from "../src/lease/Lease.ts"
import type { JsonObject, TimelineEvent } from "../src/matrix/MatrixEvent.ts"
import type { Changed, OutgoingRequest, RoomKeySettings } from "../src/sync/CryptoEngine.ts"
import type { CryptoError } from "../src/sync/CryptoError.ts"
import type { Session } from "../src/sync/Homeserver.ts"
import { cryptoEngineContract } from "../src/testing/CryptoEngineContract.ts"
import * as HomeserverSim from "../src/testing/HomeserverSim.ts"
import * as SimulatedCrypto from "../src/testing/SimulatedCrypto.ts"
import * as State from "../src/testing/SyncStoreMemoryState.ts"

const fence: Fence = { name: "stream", holder: "main#1", generation: 1 }

const ROOM = "!room:sim"

/** An engine and a reader over records of their own. */
const open = (own: Session, oneTimeKeys = 0) => {
  let database = State.empty
  const stored = Effect.sync(() => [...database.crypto.values()])
  return {
    engine: SimulatedCrypto.makeEngine(own, stored, { oneTimeKeys }),
    reader: SimulatedCrypto.makeDecryptor(own, stored),
    stored,
    commit: (crypto: Changed<unknown>["writes"], news: Changed<unknown>["news"] = []) =>
      Effect.sync(() => void (database = State.commitCrypto(database, { crypto, news }))),
    news: Effect.sync(() => database.news.map((entry) => entry.news))
  }
}

cryptoEngineContract("SimulatedCrypto with one-time keys", {
  clock: "test",
  open: Effect.sync(() => open({ userId: "@alice:sim", deviceId: "DEVICE" }, 4))
})

describe("SimulatedCrypto with one-time keys", () => {
  const own = { userId: "@alice:sim", deviceId: "DEVICE" }

  /** An engine that publishes keys, and what it would publish. */
  const openOwn = Effect.fnUntraced(function* () {
    const { commit, engine } = open(own, 4)
    yield* engine.reload(fence)
    const done = <A>(call: Effect.Effect<Changed<A>, CryptoError>) =>
      Effect.gen(function* () {
        const { news, value, writes } = yield* call
        yield* commit(writes, news)
        yield* engine.committed
        return value
      })
    const wanted = Effect.map(done(engine.outgoing(fence)), ([upload]) => {
      const keys = upload?.request._tag === "Keys" ? (upload.request.keys.body.one_time_keys ?? {}) : {}
      return { upload, keys: Object.entries(keys as { readonly [id: string]: { readonly key: string } }) }
    })
    const bring = (id: string, key: string) => {
      const content = { algorithm: "m.megolm.v1.aes-sha2", room_id: ROOM, session_id: id, session_key: "0" }
      const event = { type: "m.room_key", sender: "@bob:sim", content: { ...content, one_time_key: { id, key } } }
      return Effect.map(done(engine.receive(fence, { toDevice: [event], fresh: false })), ({ inbox }) =>
        inbox.map(({ encryption }) => encryption)
      )
    }
    const count = (left: number) =>
      done(
        engine.receive(fence, {
          toDevice: [],
          fresh: false,
          e2ee: { oneTimeKeysCount: { signed_curve25519: left } }
        })
      )
    return { engine, done, wanted, bring, count }
  })

  it.effect("takes a room's key by each of them once, and by no other", () =>
    Effect.gen(function* () {
      const { bring, wanted } = yield* openOwn()
      const { keys } = yield* wanted
      assert.lengthOf(keys, 4)
      const [[id, { key }] = ["", { key: "" }]] = keys
      assert.deepStrictEqual(yield* bring(id, "another key"), ["undecryptable"])
      assert.deepStrictEqual(yield* bring(id, key), ["none"])
      assert.deepStrictEqual(yield* bring(id, key), ["undecryptable"])
    })
  )

  it.effect("publishes the same ones until they are sent, and new ones when less than half are left", () =>
    Effect.gen(function* () {
      const { count, done, engine, wanted } = yield* openOwn()
      const first = yield* wanted
      yield* engine.discard
      yield* engine.reload(fence)
      assert.deepStrictEqual((yield* wanted).keys, first.keys)
      if (first.upload !== undefined) yield* done(engine.markSent(fence, first.upload, { one_time_key_counts: {} }))
      yield* count(2)
      assert.lengthOf((yield* wanted).keys, 0)
      yield* count(1)
      const more = (yield* wanted).keys
      assert.lengthOf(more, 3)
      const ids = first.keys.map(([id]) => id)
      assert.isTrue(more.every(([id]) => !ids.includes(id)))
    })
  )
})

cryptoEngineContract("SimulatedCrypto", {
  clock: "test",
  open: Effect.sync(() => open({ userId: "@alice:sim", deviceId: "DEVICE" }))
})

/** A device on a homeserver, whose engine's writes are committed at once. */
const openDevice = Effect.fnUntraced(function* (localpart: string, deviceId: string) {
  const sim = yield* HomeserverSim.HomeserverSim
  const session = yield* sim.session(localpart, deviceId)
  const port = sim.homeserver(session)
  const device = open(session)
  const { engine } = device
  yield* engine.reload(fence)
  const done = <A>(call: Effect.Effect<Changed<A>, CryptoError>) =>
    Effect.gen(function* () {
      const { news, value, writes } = yield* call
      yield* device.commit(writes, news)
      yield* engine.committed
      return value
    })
  const post = Effect.fnUntraced(function* (request: OutgoingRequest) {
    const { request: asked } = request
    const answer: JsonObject =
      asked._tag === "Keys"
        ? yield* port.keys(asked.keys)
        : asked._tag === "ToDevice"
          ? yield* Effect.as(port.sendToDevice(asked.toDevice), {})
          : {}
    yield* done(engine.markSent(fence, request, answer))
  })
  const flush = Effect.flatMap(done(engine.outgoing(fence)), (all) => Effect.forEach(all, post, { discard: true }))
  yield* flush
  let taken = 0
  return {
    ...device,
    session,
    done,
    post,
    flush,
    /** Receives what the homeserver has for it. */
    receive: Effect.gen(function* () {
      const queue = yield* sim.ledger(session)
      const toDevice = queue.slice(taken).map(({ content, sender, type }) => ({ content, sender, type }))
      taken = queue.length
      return yield* done(engine.receive(fence, { toDevice, fresh: false }))
    }),
    /** What changed about somebody's devices. */
    tell: (...changed: ReadonlyArray<string>) =>
      done(engine.receive(fence, { toDevice: [], fresh: false, e2ee: { deviceLists: { changed, left: [] } } }))
  }
})

type Device = Effect.Success<ReturnType<typeof openDevice>>

const everybody: RoomKeySettings = { historyVisibility: "shared", sharing: "all" }

const follow = Effect.fnUntraced(function* ({ done, engine, flush, post }: Device, users: ReadonlyArray<string>) {
  yield* done(engine.track(fence, users))
  yield* flush
  for (const request of yield* done(engine.claim(fence, users))) yield* post(request)
})

/** Shares the room's key; gives the devices to which it was sent. */
const share = Effect.fnUntraced(function* (
  { done, engine, post }: Device,
  users: ReadonlyArray<string>,
  settings: RoomKeySettings = everybody
) {
  const requests = yield* done(engine.shareRoomKey(fence, { roomId: ROOM, users, settings }))
  for (const request of requests) yield* post(request)
  return requests.flatMap(({ request }) =>
    request._tag === "ToDevice" ? Object.values(request.toDevice.messages).flatMap((each) => Object.keys(each)) : []
  )
})

const encrypt = Effect.fnUntraced(function* ({ done, engine, session }: Device, body: string) {
  const content = yield* done(engine.encrypt(fence, { roomId: ROOM, type: "m.room.message", content: { body } }))
  const event: TimelineEvent = { type: "m.room.encrypted", sender: session.userId, event_id: "$sent", content }
  return event
})

/** Sends a message to all of them, in every step. */
const send = Effect.fnUntraced(function* (
  device: Device,
  users: ReadonlyArray<string>,
  body: string,
  settings?: RoomKeySettings
) {
  yield* follow(device, users)
  yield* share(device, users, settings)
  return yield* encrypt(device, body)
})

const shown = ({ reader }: Device, event: TimelineEvent) =>
  Effect.map(reader.decrypt(ROOM, event), (decryption) =>
    decryption._tag === "Decrypted" ? decryption.event.content.body : decryption.reason
  )

const sessionOf = ({ content }: TimelineEvent) => content.session_id

const setUp = Effect.gen(function* () {
  const alice = yield* openDevice("alice", "A")
  const bob = yield* openDevice("bob", "B")
  return { alice, bob, users: [alice.session.userId, bob.session.userId] }
})

const test = (title: string, body: Effect.Effect<void, unknown, HomeserverSim.HomeserverSim>): void =>
  it.effect(title, () => Effect.provide(body, HomeserverSim.layer()))

describe("SimulatedCrypto", () => {
  test(
    "lets who has the key read, as soon as it is committed, and nobody else",
    Effect.gen(function* () {
      const { alice, bob, users } = yield* setUp
      const event = yield* send(alice, users, "hello")
      assert.notInclude(JSON.stringify(event), "hello")
      assert.strictEqual(yield* shown(alice, event), "hello", "who sent it")
      assert.strictEqual(yield* shown(bob, event), "MissingRoomKey")
      yield* bob.receive
      assert.strictEqual(yield* shown(bob, event), "hello")
      assert.deepStrictEqual(
        (yield* bob.news).filter(({ _tag }) => _tag === "RoomKey"),
        [{ _tag: "RoomKey", roomId: ROOM, sessionId: String(sessionOf(event)) }]
      )
      assert.strictEqual(yield* shown(yield* openDevice("carol", "C"), event), "MissingRoomKey")
    })
  )

  test(
    "shares a key once, with who is new from that message on, and another one when somebody leaves",
    Effect.gen(function* () {
      const { alice, bob, users } = yield* setUp
      const first = yield* send(alice, users, "first")
      const carol = yield* openDevice("carol", "C")
      const all = [...users, carol.session.userId]
      yield* follow(alice, all)
      assert.deepStrictEqual(yield* share(alice, all), ["C"])
      const second = yield* encrypt(alice, "second")
      yield* carol.receive
      assert.deepStrictEqual(
        [yield* shown(carol, first), yield* shown(carol, second)],
        ["UnknownMessageIndex", "second"]
      )
      const third = yield* send(alice, users, "third")
      assert.strictEqual(sessionOf(first), sessionOf(second))
      assert.notStrictEqual(sessionOf(second), sessionOf(third))
      yield* Effect.all([bob.receive, carol.receive])
      assert.deepStrictEqual([yield* shown(bob, third), yield* shown(carol, third)], ["third", "MissingRoomKey"])
    })
  )

  test(
    "replaces a key that is used up, by messages or by time, and one of another visibility",
    Effect.gen(function* () {
      const { alice, users } = yield* setUp
      const settings = { ...everybody, rotationPeriodMessages: 2, rotationPeriodMillis: 1_000 }
      const sessions: Array<unknown> = []
      for (let n = 0; n < 3; n++) sessions.push(sessionOf(yield* send(alice, users, "x", settings)))
      yield* TestClock.adjust(1_000)
      sessions.push(sessionOf(yield* send(alice, users, "x", settings)))
      sessions.push(sessionOf(yield* send(alice, users, "x", { ...settings, historyVisibility: "joined" })))
      const numbers = sessions.map((session) => [...new Set(sessions)].indexOf(session))
      assert.deepStrictEqual(numbers, [0, 0, 1, 2, 3])
    })
  )

  test(
    "I2: never gives an index twice, not after a reload either",
    Effect.gen(function* () {
      const { alice, users } = yield* setUp
      const first = yield* send(alice, users, "same")
      yield* alice.engine.discard
      yield* alice.engine.reload(fence)
      const second = yield* send(alice, users, "same")
      assert.strictEqual(sessionOf(first), sessionOf(second))
      assert.notStrictEqual(first.content.ciphertext, second.content.ciphertext)
    })
  )

  test(
    "refuses what breaks the rules of the port",
    Effect.gen(function* () {
      const { alice, users } = yield* setUp
      const why = <A>(call: Effect.Effect<A, CryptoError>) => Effect.map(Effect.flip(call), ({ message }) => message)
      yield* send(alice, users, "one")
      assert.include(yield* why(encrypt(alice, "one sharing is for one event")), "shareRoomKey")
      yield* alice.engine.discard
      assert.include(yield* why(alice.engine.outgoing(fence)), "reload")
      yield* alice.engine.reload(fence)
      yield* alice.engine.outgoing(fence)
      assert.include(yield* why(alice.engine.outgoing(fence)), "neither committed nor discarded")
      yield* alice.engine.reload(fence)

      // A key that somebody hasn't got yet isn't used.
      const carol = yield* openDevice("carol", "C")
      yield* follow(alice, [...users, carol.session.userId])
      const room = { roomId: ROOM, users: [...users, carol.session.userId], settings: everybody }
      yield* alice.done(alice.engine.shareRoomKey(fence, room))
      assert.include(yield* why(encrypt(alice, "not yet")), "hasn't got the key")
      yield* alice.engine.reload(fence)
      assert.include(
        yield* why(alice.engine.setLocalTrust(fence, { userId: users[1]!, deviceId: "GHOST", trust: "blocked" })),
        "GHOST"
      )
    })
  )

  test(
    "gives no key to a device that is blocked, and to verified or signed ones alone when that is asked for",
    Effect.gen(function* () {
      const { alice, bob, users } = yield* setUp
      const trust = (value: "verified" | "blocked" | "unset") =>
        alice.done(alice.engine.setLocalTrust(fence, { userId: users[1]!, deviceId: "B", trust: value }))
      yield* follow(alice, users)
      assert.deepStrictEqual(yield* share(alice, users, { ...everybody, sharing: "trusted" }), [])
      assert.deepStrictEqual(yield* share(alice, users, { ...everybody, sharing: "identity" }), [])
      yield* trust("verified")
      assert.deepStrictEqual(yield* share(alice, users, { ...everybody, sharing: "trusted" }), ["B"])
      yield* trust("blocked")
      assert.deepStrictEqual(yield* share(alice, users), [])
      const unread = yield* encrypt(alice, "unread")
      yield* bob.receive
      assert.strictEqual(yield* shown(bob, unread), "MissingRoomKey")
      yield* trust("unset")
      for (const request of yield* bob.done(bob.engine.bootstrapCrossSigning(fence, { reset: false })))
        yield* bob.post(request)
      yield* alice.tell(users[1]!)
      yield* alice.flush
      assert.deepStrictEqual(yield* share(alice, users, { ...everybody, sharing: "identity" }), ["B"])
    })
  )

  test(
    "says how far a sender is to be trusted",
    Effect.gen(function* () {
      const { alice, bob, users } = yield* setUp
      const event = yield* send(alice, users, "hello")
      yield* bob.receive
      const shield = (of: TimelineEvent = event) =>
        Effect.map(bob.reader.decrypt(ROOM, of), (decryption) =>
          decryption._tag === "Decrypted" ? decryption.shield.code : decryption._tag
        )
      assert.strictEqual(yield* shield(), "UnknownDevice")
      yield* follow(bob, users)
      assert.strictEqual(yield* shield(), "UnsignedDevice")
      for (const request of yield* alice.done(alice.engine.bootstrapCrossSigning(fence, { reset: false })))
        yield* alice.post(request)
      yield* bob.tell(users[0]!)
      yield* bob.flush
      assert.strictEqual(yield* shield(), "UnverifiedIdentity")
      yield* bob.done(bob.engine.setLocalTrust(fence, { userId: users[0]!, deviceId: "A", trust: "verified" }))
      assert.isUndefined(yield* shield())
      assert.strictEqual(yield* shield({ ...event, sender: "@mallory:sim" }), "MismatchedSender")
      assert.deepStrictEqual(yield* bob.reader.devices(users[0]!), [
        {
          userId: users[0]!,
          deviceId: "A",
          fingerprint: `simulated-ed25519-${users[0]}-A`,
          isVerified: true,
          isCrossSigned: true,
          isBlocked: false
        }
      ])
    })
  )

  test(
    "makes cross-signing keys once, and not in place of others unless told to",
    Effect.gen(function* () {
      const { alice } = yield* setUp
      const bootstrap = (device: Device, reset: boolean) =>
        Effect.flatMap(device.done(device.engine.bootstrapCrossSigning(fence, { reset })), (requests) =>
          Effect.forEach(requests, device.post, { discard: true })
        )
      assert.isFalse((yield* alice.reader.status).crossSigning.master)
      yield* bootstrap(alice, false)
      const status = yield* alice.reader.status
      assert.deepStrictEqual([status.crossSigning.master, status.isDeviceVerified], [true, true])
      // Again is nothing new, so the homeserver doesn't ask who it is.
      yield* bootstrap(alice, false)
      const other = yield* openDevice("alice", "OTHER")
      assert.include((yield* Effect.flip(bootstrap(other, false))).message, "already")
      yield* other.engine.reload(fence)
      const error = yield* Effect.flip(bootstrap(other, true))
      assert.strictEqual(error.reason._tag, "UserInteractiveAuth", "the account's keys aren't replaced without asking")
    })
  )

  test(
    "shows why an event stays encrypted, whatever it is",
    Effect.gen(function* () {
      const { alice, users } = yield* setUp
      const event = yield* send(alice, users, "hello")
      const reasons = (contents: ReadonlyArray<JsonObject>) =>
        Effect.forEach(contents, (content) => shown(alice, { ...event, content }))
      const { content } = event
      assert.deepStrictEqual(
        yield* reasons([
          {},
          { algorithm: "org.example.rot13" },
          { ...content, session_id: 7 },
          { ...content, session_id: "other" },
          { ...content, ciphertext: "?" },
          { ...content, ciphertext: btoa('{"index":') }
        ]),
        ["Malformed", "UnsupportedAlgorithm", "Malformed", "MissingRoomKey", "Malformed", "Malformed"]
      )
      const elsewhere = yield* alice.reader.decrypt("!other:sim", event)
      assert.strictEqual(elsewhere._tag, "Undecryptable")
    })
  )
})
