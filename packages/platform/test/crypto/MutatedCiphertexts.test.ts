/**
 * Ciphertexts whose key the device has, changed in every way: what is shown is what was sent, by whom it was sent, or nothing;
 * and the genuine one is read afterwards.
 */
import { assert, describe, it } from "@effect/vitest"
import type { EventDecryptor, MatrixEvent } from "@twinloop/core"
import { Effect } from "effect"
import { indexOf } from "../../src/crypto/MessageIndexes.ts"
import * as Kit from "./CryptoKit.ts"

/** Two messages of Bob's in a room that Alice is in, and another room; Alice hasn't taken the key yet. */
const scene = Effect.gen(function* () {
  const sim = yield* Kit.openHomeserver
  const alice = yield* Kit.openDevice(sim, "alice", "ALICE")
  const bob = yield* Kit.openDevice(sim, "bob", "BOB")
  const [room, other] = [yield* Kit.openRoom(sim, alice, bob), yield* Kit.openRoom(sim, alice, bob)]
  const message = yield* Kit.send(sim, bob, room, "hello")
  const second = yield* Kit.send(sim, bob, room, "again")
  const { response } = yield* Kit.poll(alice)
  const [key] = response.extensions.toDevice?.events ?? []
  assert.isDefined(key)
  return { sim, alice, bob, room, other, message, second, key: key! }
})

/** Texts that differ from a base64 text in one bit of what it stands for, every third one, or are cut, or longer. */
const changedTexts = (text: string): ReadonlyArray<string> => {
  const bytes = Buffer.from(text, "base64")
  const write = (changed: Buffer) => changed.toString("base64").replace(/=+$/, "")
  const flipped = Array.from({ length: Math.floor((bytes.length * 8) / 3) }, (_, index) => {
    const bit = index * 3
    const changed = Buffer.from(bytes)
    changed[bit >> 3]! ^= 1 << (bit & 7)
    return write(changed)
  })
  const cut = Array.from({ length: bytes.length >> 1 }, (_, index) => write(bytes.subarray(0, index * 2)))
  const longer = [
    Buffer.concat([bytes, bytes]),
    Buffer.concat([bytes, Buffer.alloc(1)]),
    Buffer.concat([Buffer.alloc(1), bytes])
  ]
  return [
    ...flipped,
    ...cut,
    ...longer.map(write),
    `${text}=`,
    `${text} `,
    ` ${text}`,
    `${text}\u0000`,
    text.toLowerCase(),
    ""
  ]
}

const withContent = <E extends MatrixEvent.MatrixEvent>(event: E, content: MatrixEvent.JsonObject): E => ({
  ...event,
  content: { ...event.content, ...content }
})

describe("Room events whose key is there", () => {
  const shown = (answer: EventDecryptor.Decryption) =>
    answer._tag === "Decrypted" ? [answer.event.content, answer.event.sender, answer.shield] : answer.reason

  it.live("I7: with a changed ciphertext show what was sent, or nothing", () =>
    Effect.gen(function* () {
      const { alice, message, room } = yield* scene
      yield* Kit.receive(alice)
      const genuine = shown(yield* alice.reader.decrypt(room.roomId, message))
      assert.deepInclude(genuine[0] as object, { body: "hello" })
      const texts = changedTexts(String(message.content.ciphertext))
      assert.isAbove(texts.length, 400)
      let read = 0
      for (const ciphertext of texts) {
        const answer = shown(yield* alice.reader.decrypt(room.roomId, withContent(message, { ciphertext })))
        if (typeof answer === "string") continue
        assert.deepStrictEqual(answer, genuine)
        read++
      }
      // Those that stand for the same bytes.
      assert.isBelow(read, 6)
      assert.deepStrictEqual(shown(yield* alice.reader.decrypt(room.roomId, message)), genuine)
    })
  )

  it.live("I7: of another sender, session, room or algorithm are not shown, and never better trusted", () =>
    Effect.gen(function* () {
      const { alice, message, other, room, second } = yield* scene
      yield* Kit.receive(alice)
      const genuine = shown(yield* alice.reader.decrypt(room.roomId, message))
      const wrong: ReadonlyArray<MatrixEvent.TimelineEvent> = [
        withContent(message, { session_id: "A".repeat(43) }),
        withContent(message, { session_id: String(message.content.session_id).toLowerCase() }),
        withContent(message, { algorithm: "m.megolm.v2.aes-sha2" }),
        withContent(message, { algorithm: "m.olm.v1.curve25519-aes-sha2" })
      ]
      for (const event of wrong) {
        const answer = yield* alice.reader.decrypt(room.roomId, event)
        assert.strictEqual(answer._tag, "Undecryptable", JSON.stringify(event.content))
      }
      assert.strictEqual((yield* alice.reader.decrypt(other.roomId, message))._tag, "Undecryptable")
      for (const sender of [alice.session.userId, "@mallory:localhost"]) {
        // It is what was said, and a red shield says that this one hasn't said it.
        const answer = yield* alice.reader.decrypt(room.roomId, { ...message, sender })
        assert(answer._tag === "Decrypted")
        assert.deepInclude(answer.shield, { color: "red", code: "MismatchedSender" })
      }
      // What names the device beside the ciphertext is not believed: it changes nothing, or nothing is shown.
      for (const content of [{ sender_key: "A".repeat(43) }, { device_id: "ALICE" }, { device_id: "MALLORY" }]) {
        const answer = shown(yield* alice.reader.decrypt(room.roomId, withContent(message, content)))
        if (typeof answer !== "string") assert.deepStrictEqual(answer, genuine)
      }
      const mixed = withContent(message, { ciphertext: second.content.ciphertext })
      const answer = yield* alice.reader.decrypt(room.roomId, mixed)
      // The first event with the ciphertext of the second: one that Bob has sent, and that is shown once.
      assert.strictEqual(answer._tag === "Decrypted" && answer.event.content.body, "again")
      assert.strictEqual(shown(yield* alice.reader.decrypt(room.roomId, second)), "Replayed")
    })
  )

  it.live("I7: that are sent again by somebody else are not shown twice", () =>
    Effect.gen(function* () {
      const { alice, message, room, second } = yield* scene
      yield* Kit.receive(alice)
      for (const event of [message, second, message])
        assert.isArray(shown(yield* alice.reader.decrypt(room.roomId, event)))
      for (const event of [message, second]) {
        const replayed = { ...event, event_id: "$replayed", origin_server_ts: event.origin_server_ts! + 3_600_000 }
        const answer = yield* alice.reader.decrypt(room.roomId, replayed)
        assert.strictEqual(shown(answer), "Replayed")
        assert(answer._tag === "Undecryptable")
        assert.include(answer.message, event.event_id)
      }
      // The genuine ones stay what they are.
      for (const event of [message, second]) assert.isArray(shown(yield* alice.reader.decrypt(room.roomId, event)))
    })
  )

  it("are numbered as they are", () => {
    const numbered = (...digits: ReadonlyArray<number>) => Buffer.from([3, 8, ...digits, 0x12, 0x10]).toString("base64")
    assert.deepStrictEqual(
      [numbered(0), numbered(7), numbered(0x80, 1), numbered(0xff, 0xff, 0xff, 0xff, 0x0f)].map(indexOf),
      [0, 7, 128, 4_294_967_295]
    )
    assert.deepStrictEqual(["", "AA", "AwgAEnB".slice(0, 2), "BAgA", "!!!!"].map(indexOf), Array(5).fill(undefined))
  })
})

describe("To-device events whose session is there", () => {
  const take = (process: Kit.Process, toDevice: ReadonlyArray<MatrixEvent.MatrixEvent>) =>
    Kit.change(process, (engine, fence) => engine.receive(fence, { toDevice, fresh: false }))

  it.live("I7: with a changed ciphertext are decrypted as they were sent, or not at all, and harm no session", () =>
    Effect.gen(function* () {
      const { alice, bob, key, message, room, sim } = yield* scene
      const [[device, olm] = ["", {}]] = Object.entries(
        key.content.ciphertext as { [key: string]: MatrixEvent.JsonObject }
      )
      const body = String(olm.body)
      const texts = changedTexts(body)
      assert.isAbove(texts.length, 400)
      const step = Math.ceil(texts.length / 300)
      const events = [
        ...texts.filter((_, index) => index % step === 0).map((text) => ({ ...olm, body: text })),
        ...[0, 1, 2, -1, "0", null].map((type) => ({ ...olm, type }))
      ].map((changed) => withContent(key, { ciphertext: { [device]: changed } }))
      const genuine = events.filter(({ content }) => JSON.stringify(content) === JSON.stringify(key.content))
      let taken = 0
      for (let at = 0; at < events.length; at += 50) {
        const { inbox, quarantined } = yield* take(alice, events.slice(at, at + 50))
        taken += inbox.length + quarantined.length
        for (const { encryption, event, type } of inbox) {
          if (encryption !== "decrypted") continue
          assert.strictEqual(type, "m.room_key")
          assert.deepInclude((event as MatrixEvent.MatrixEvent).content, {
            room_id: room.roomId,
            session_id: message.content.session_id
          })
        }
      }
      assert.strictEqual(taken, events.length)
      if (genuine.length === 0) yield* take(alice, [key])
      assert.strictEqual(yield* Kit.read(alice, room, message), "hello")
      // Bob's session works on, in both directions, and what is sent again is not taken again.
      const again = (yield* take(alice, [key, key])).inbox
      for (const { encryption } of again) assert.strictEqual(encryption, "undecryptable")
      yield* Kit.settle(alice, bob)
      const answer = yield* Kit.send(sim, alice, room, "answer")
      yield* Kit.settle(alice, bob)
      assert.strictEqual(yield* Kit.read(bob, room, answer), "answer")
    })
  )
})
