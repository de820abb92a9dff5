import { assert, describe, it } from "@effect/vitest"
import type { CryptoEngine, MatrixEvent, SlidingSync } from "@twinloop/core"
import { Effect } from "effect"
import * as Kit from "./CryptoKit.ts"

/** Objects within one another. */
const nested = (levels: number): MatrixEvent.JsonObject => {
  let value: MatrixEvent.JsonObject = {}
  for (let level = 0; level < levels; level++) value = { a: value }
  return value
}

/** What nobody expects in the place of anything. */
const values: ReadonlyArray<unknown> = [
  null,
  true,
  0,
  -1,
  1e300,
  2 ** 60,
  "",
  "x",
  "\ud800",
  "\u0000",
  "x".repeat(100_000),
  [],
  {},
  ["x"],
  nested(200),
  { ["\udfff"]: 1 }
]

/** Copies of some JSON in which one thing, at whatever depth, is another or missing. */
const spoilt = (json: unknown): ReadonlyArray<unknown> => {
  if (typeof json !== "object" || json === null) return values
  const object = json as MatrixEvent.JsonObject
  return [
    ...values,
    ...Object.keys(object).flatMap((name) => {
      const { [name]: value, ...others } = object
      return [others, ...spoilt(value).map((other) => ({ ...object, [name]: other }))]
    })
  ]
}

/** Those that the decoder of the wire lets through: the others never get to an engine. */
const spoiltEvents = <E extends MatrixEvent.MatrixEvent>(event: E): ReadonlyArray<E> =>
  spoilt(event).filter((other): other is E => {
    if (typeof other !== "object" || other === null) return false
    const { content, sender, type } = other as Partial<MatrixEvent.MatrixEvent>
    return typeof type === "string" && typeof sender === "string" && typeof content === "object" && content !== null
  })

/** Alice's and Bob's first devices in one encrypted room, and the event that brings Alice the key of a message. */
const scene = Effect.gen(function* () {
  const sim = yield* Kit.openHomeserver
  const alice = yield* Kit.openDevice(sim, "alice", "ALICE")
  const bob = yield* Kit.openDevice(sim, "bob", "BOB")
  const room = yield* Kit.openRoom(sim, alice, bob)
  const message = yield* Kit.send(sim, bob, room, "hello")
  const { response } = yield* Kit.poll(alice)
  const [key] = response.extensions.toDevice?.events ?? []
  assert.isDefined(key)
  return { sim, alice, bob, room, message, key: key! }
})

const numbered = (number: number): MatrixEvent.MatrixEvent => ({
  type: "org.example.numbered",
  sender: "@s:localhost",
  content: { number }
})

const numbersOf = ({ inbox }: CryptoEngine.Received) =>
  inbox.flatMap(({ event, type }) =>
    type === "org.example.numbered" ? [(event.content as MatrixEvent.JsonObject).number] : []
  )

const take = (process: Kit.Process, toDevice: ReadonlyArray<MatrixEvent.MatrixEvent>, e2ee?: SlidingSync.E2eeUpdate) =>
  Kit.change(process, (engine, fence) =>
    engine.receive(fence, { toDevice, fresh: false, ...(e2ee === undefined ? {} : { e2ee }) })
  )

/** Takes events with good ones before, between and after them; none is lost, and the good ones are all there. */
const assertTakes = Effect.fnUntraced(function* (process: Kit.Process, events: ReadonlyArray<MatrixEvent.MatrixEvent>) {
  const received = yield* take(process, [
    ...events.flatMap((event, index) => [numbered(index), event]),
    numbered(events.length)
  ])
  assert.deepStrictEqual(numbersOf(received), [...events.keys(), events.length])
  assert.lengthOf([...received.inbox, ...received.quarantined], 2 * events.length + 1)
  for (const { raw, reason, source } of received.quarantined) {
    assert.strictEqual(source, "toDevice")
    assert.isNotEmpty(reason)
    assert.include(events, raw)
  }
  return received
})

const named = (type: string, content: unknown, sender = "@bob:localhost"): MatrixEvent.MatrixEvent => ({
  type,
  sender,
  content: content as MatrixEvent.JsonObject
})

describe("Hostile to-device events", () => {
  it.live("I7: an event that brings a key and is spoilt in one place harms nothing around it, nor the key itself", () =>
    Effect.gen(function* () {
      const { alice, key, message, room } = yield* scene
      const isSame = (a: unknown, b: unknown) => JSON.stringify(a) === JSON.stringify(b)
      const events = spoiltEvents(key).filter(({ content }) => !isSame(content.ciphertext, key.content.ciphertext))
      assert.isAbove(events.length, 50)
      const { inbox } = yield* assertTakes(alice, events)
      for (const { encryption } of inbox) assert.notStrictEqual(encryption, "decrypted")
      assert.strictEqual(yield* Kit.read(alice, room, message), "MissingRoomKey")
      yield* take(alice, [key])
      assert.strictEqual(yield* Kit.read(alice, room, message), "hello")
    })
  )

  it.live("I7: whatever the type says, wrong contents are set aside or applied as they came", () =>
    Effect.gen(function* () {
      const { alice } = yield* scene
      const types = [
        "m.room_key",
        "m.forwarded_room_key",
        "m.room_key.withheld",
        "m.room_key_request",
        "m.secret.request",
        "m.secret.send",
        "m.dummy",
        "m.key.verification.request",
        "m.key.verification.start",
        "m.key.verification.key",
        "m.key.verification.mac",
        "m.key.verification.done",
        "m.key.verification.cancel",
        "org.example.other",
        "",
        "\ud800"
      ]
      const contents = [{}, [], nested(400), { transaction_id: "t", from_device: 7, methods: null }, { ["\ud800"]: 1 }]
      yield* assertTakes(
        alice,
        types.flatMap((type) => contents.map((content) => named(type, content)))
      )
    })
  )

  it.live("I7: keys in plain text are not believed", () =>
    Effect.gen(function* () {
      const { alice, message, room } = yield* scene
      const key = {
        algorithm: "m.megolm.v1.aes-sha2",
        room_id: room.roomId,
        session_id: message.content.session_id,
        session_key: "AgAAAAA"
      }
      const { inbox } = yield* assertTakes(alice, [named("m.room_key", key), named("m.forwarded_room_key", key)])
      for (const { type } of inbox) assert.strictEqual(type, "org.example.numbered")
      assert.strictEqual(yield* Kit.read(alice, room, message), "MissingRoomKey")
      assert.strictEqual((yield* alice.reader.status).roomKeys, 0)
    })
  )

  it.live("I7: an event for another device, one of another sender, and unknown algorithms can't be decrypted", () =>
    Effect.gen(function* () {
      const { alice, key, message, room } = yield* scene
      const [ciphertext] = Object.values(key.content.ciphertext as object)
      const events = [
        { ...key, content: { ...key.content, ciphertext: { ["A".repeat(43)]: ciphertext } } },
        { ...key, sender: alice.session.userId },
        { ...key, content: { ...key.content, algorithm: "org.example.unknown" } },
        { ...key, content: message.content }
      ]
      const { inbox } = yield* assertTakes(alice, events)
      const undecryptable = inbox.filter(({ encryption }) => encryption === "undecryptable")
      assert.lengthOf(undecryptable, events.length)
      assert.strictEqual(yield* Kit.read(alice, room, message), "MissingRoomKey")
    })
  )

  it.live("I7: keys that come late, twice, or in another order all serve", () =>
    Effect.gen(function* () {
      const { alice, bob, key, room, sim } = yield* scene
      const rooms = yield* Effect.forEach([1, 2, 3, 4], () => Kit.openRoom(sim, alice, bob))
      const messages = yield* Effect.forEach(rooms, (one) => Kit.send(sim, bob, one, one.roomId))
      const { response } = yield* Kit.poll(alice)
      const keys = response.extensions.toDevice?.events.slice(1) ?? []
      const { inbox } = yield* assertTakes(alice, [...keys.toReversed(), ...keys, key, key])
      assert.lengthOf(
        inbox.filter(({ encryption }) => encryption === "decrypted"),
        5
      )
      for (const [index, one] of rooms.entries())
        assert.strictEqual(yield* Kit.read(alice, one, messages[index]!), one.roomId)
      assert.strictEqual(yield* Kit.read(alice, room, messages[0]!), "MissingRoomKey")
    })
  )

  it.live("I7: an event at which the machine fails is found and set aside, and the batch is taken without it", () =>
    Effect.gen(function* () {
      const { alice, key, message, room } = yield* scene
      // Nothing that comes from the wire: writing it as JSON throws, in the middle of the call.
      const poison = [{ x: 1n }, nested(100_000)].map((content) => named("org.example.poison", content))
      const received = yield* take(alice, [numbered(1), poison[0]!, key, poison[1]!, numbered(2)])
      assert.deepStrictEqual(numbersOf(received), [1, 2])
      assert.deepStrictEqual(
        received.quarantined.map(({ raw }) => raw),
        poison
      )
      for (const { reason } of received.quarantined) assert.include(reason, "failed at it")
      assert.strictEqual(yield* Kit.read(alice, room, message), "hello")
      assert.deepStrictEqual(numbersOf(yield* take(alice, [numbered(3)])), [3])
    })
  )

  it.live("hands no private key on to the inbox", () =>
    Effect.gen(function* () {
      const { alice, key } = yield* scene
      const [brought] = (yield* take(alice, [key])).inbox
      assert.strictEqual(brought?.type, "m.room_key")
      assert.deepInclude(brought?.event.content, { session_key: "" })
    })
  )
})

describe("Hostile bookkeeping", () => {
  it.live("I7: ids that are none are set aside, and the others are followed", () =>
    Effect.gen(function* () {
      const { alice, bob } = yield* scene
      yield* Kit.change(alice, (engine, fence) => engine.track(fence, ["nobody", bob.session.userId, "\ud800", ""]))
      yield* Kit.flush(alice)
      const bad = ["", "bob", "@", "\ud800", `@x:${"y".repeat(100_000)}`, "@a:b\u0000"]
      const { inbox, quarantined } = yield* take(alice, [numbered(1)], {
        deviceLists: { changed: [...bad, bob.session.userId], left: [...bad, "@gone:localhost"] }
      })
      assert.lengthOf(inbox, 1)
      assert.isAtLeast(quarantined.length, 8)
      for (const { reason } of quarantined) assert.isNotEmpty(reason)
      const asked = (yield* Kit.flush(alice)).map(({ request }) =>
        request._tag === "Keys" ? Object.keys(request.keys.body.device_keys as object) : []
      )
      assert.deepStrictEqual(asked, [[bob.session.userId]])
    })
  )

  it.live("I7: absurd counts change nothing", () =>
    Effect.gen(function* () {
      const { alice } = yield* scene
      const counts: ReadonlyArray<unknown> = [-5, 1e300, 1.5, Number.NaN, "5", null, {}, 2 ** 53]
      for (const count of counts) {
        const e2ee = {
          oneTimeKeysCount: { signed_curve25519: count, "\ud800": count },
          unusedFallbackKeyTypes: ["\ud800", "", "x".repeat(100_000), "signed_curve25519"]
        }
        const received = yield* take(alice, [numbered(1)], e2ee as SlidingSync.E2eeUpdate)
        assert.deepStrictEqual(numbersOf(received), [1])
        assert.deepStrictEqual(yield* Kit.flush(alice), [])
      }
    })
  )
})

describe("Hostile room events", () => {
  it.live("I7: each gets an answer, and the good one is read after them", () =>
    Effect.gen(function* () {
      const { alice, message, room } = yield* scene
      yield* Kit.receive(alice)
      const events = spoiltEvents(message)
      assert.isAbove(events.length, 50)
      const before = yield* Kit.rows(alice)
      for (const event of events) {
        const answer = yield* alice.reader.decrypt(room.roomId, event)
        if (answer._tag === "Undecryptable") assert.isNotEmpty(answer.message)
        else assert.deepStrictEqual(answer.event.content.body, "hello")
      }
      assert.strictEqual(yield* Kit.read(alice, room, message), "hello")
      assert.deepStrictEqual(yield* Kit.rows(alice), before)
    })
  )

  it.live("I7: a room's id may be anything, too", () =>
    Effect.gen(function* () {
      const { alice, message } = yield* scene
      yield* Kit.receive(alice)
      for (const roomId of ["", "!", "no room", "\ud800", "!x:localhost", `!${"x".repeat(100_000)}:localhost`]) {
        const answer = yield* alice.reader.decrypt(roomId, message)
        assert.strictEqual(answer._tag, "Undecryptable")
      }
    })
  )

  it.live("I7: a ciphertext that was changed is damaged", () =>
    Effect.gen(function* () {
      const { alice, message, room } = yield* scene
      yield* Kit.receive(alice)
      assert.strictEqual(yield* Kit.read(alice, room, message), "hello")
      const text = String(message.content.ciphertext)
      const changed = {
        ...message,
        content: { ...message.content, ciphertext: `${text.slice(0, 10)}AAAA${text.slice(14)}` }
      }
      assert.strictEqual(yield* Kit.read(alice, room, changed), "Failed")
    })
  )

  it.live("I7: a user's id may be anything when his devices are asked for", () =>
    Effect.gen(function* () {
      const { alice } = yield* scene
      for (const userId of ["", "bob", "\ud800", "@nobody:localhost"])
        assert.deepStrictEqual(yield* alice.reader.devices(userId), [])
    })
  )
})
