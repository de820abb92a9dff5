/**
 * Encrypted rooms on a real Synapse, shared with matrix-js-sdk and its own end-to-end machine: what one side sends, the other
 * reads, with the same words and as much trust as is due.
 */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { EventType, RelationType } from "matrix-js-sdk"
import { EventShieldReason } from "matrix-js-sdk/lib/crypto-api/index.js"
import { Synapse } from "../../packages/platform/src/synapse/Synapse.ts"
import * as EncryptionKit from "./EncryptionKit.ts"
import * as JsSdk from "./JsSdk.ts"
import * as Kit from "./ServiceKit.ts"
import * as Wire from "./Wire.ts"

/** Anna with our service and Bert with matrix-js-sdk, joined to an encrypted room that Anna made. */
const pair = Effect.fnUntraced(function* (settings: Kit.Json = {}, options: Kit.Json = {}) {
  const wire = yield* Wire.start((yield* Synapse).baseUrl)
  const [me, theirs] = [
    EncryptionKit.at(wire.baseUrl, yield* Kit.newPerson("Anna")),
    EncryptionKit.at(wire.baseUrl, yield* Kit.newPerson("Bert"))
  ]
  const roomId = yield* Kit.createJoined(
    me,
    [theirs],
    EncryptionKit.encrypted(settings, { preset: "trusted_private_chat", ...options })
  )
  const anna = yield* EncryptionKit.run(yield* Kit.newAccount(me))
  const bert = yield* JsSdk.start(theirs)
  yield* EncryptionKit.untilEncrypted(anna, roomId)
  yield* JsSdk.untilEncrypted(bert, roomId)
  yield* JsSdk.untilKnows(bert, me)
  return { anna, me, bert, theirs, roomId, wire, timeline: yield* EncryptionKit.live(anna, roomId) }
})

const text = (body: string): Kit.Json => ({ msgtype: "m.text", body })

/** Texts that are easily broken on the way. */
const oddTexts = [
  "",
  "👩‍👩‍👧‍👦 🏳️‍🌈 e\u0301 \u{10FFFF}",
  "\u0000\u0007\u2028\u202e \\ \" ' </script>",
  '{"msgtype":"m.text","body":"nested"}',
  "no escape: \\ud83d \\\\ud83d",
  "m".repeat(45_000)
]

describe("encrypted rooms with matrix-js-sdk on Synapse", () => {
  const synapse = Layer.provideMerge(Synapse.layer({ config: { bcrypt_rounds: 4 } }), NodeServices.layer)

  layer(synapse, { excludeTestServices: true, timeout: "10 minutes" })((it) => {
    it.effect("reads what the other side sends, and is read, with the sender's device and a shield", () =>
      Effect.gen(function* () {
        const { anna, bert, me, roomId, theirs, timeline } = yield* pair()

        const hello = yield* timeline.decrypted(yield* JsSdk.say(bert, roomId, "hello Anna"))
        assert.strictEqual(hello.event.type, "m.room.message")
        assert.deepStrictEqual(hello.event.content, text("hello Anna"))
        assert.strictEqual(hello.event.sender, theirs.userId)
        assert(hello.decryption?._tag === "Decrypted")
        assert.strictEqual(hello.decryption.senderDevice, theirs.session.deviceId)
        assert.strictEqual(
          hello.decryption.senderKey,
          (yield* Effect.promise(() => bert.crypto.getOwnDeviceKeys())).curve25519
        )
        // Nobody has cross-signing keys yet.
        assert.deepInclude(hello.decryption.shield, { color: "red", code: "UnsignedDevice" })

        const answer = yield* JsSdk.untilDecrypted(bert, roomId, yield* EncryptionKit.say(anna, roomId, "hello Bert"))
        assert.deepStrictEqual(answer.getContent(), text("hello Bert"))
        assert.strictEqual(answer.getSender(), me.userId)
        const { deviceKeys } = yield* Effect.orDie(anna.encryption.status)
        assert.strictEqual(answer.getSenderKey(), deviceKeys?.curve25519)
        const info = yield* Effect.promise(() => bert.crypto.getEncryptionInfoForEvent(answer))
        assert.strictEqual(info?.shieldReason, EventShieldReason.UNSIGNED_DEVICE)

        // What one sent oneself is read as well.
        const own = yield* timeline.decrypted(answer.getId() ?? "")
        assert.deepStrictEqual(own.event.content, text("hello Bert"))
        assert(own.decryption?._tag === "Decrypted")
        assert.strictEqual(own.decryption.senderDevice, me.session.deviceId)
      })
    )

    it.effect("keeps relations: a reply, an edit and a reaction, both ways", () =>
      Effect.gen(function* () {
        const { anna, bert, roomId, timeline } = yield* pair()
        const reply = (eventId: string, body: string): Kit.Json => ({
          ...text(body),
          "m.relates_to": { "m.in_reply_to": { event_id: eventId } }
        })
        const edit = (eventId: string, body: string): Kit.Json => ({
          ...text(`* ${body}`),
          "m.new_content": text(body),
          "m.relates_to": { rel_type: RelationType.Replace, event_id: eventId }
        })
        const reaction = (eventId: string): Kit.Json => ({
          "m.relates_to": { rel_type: RelationType.Annotation, event_id: eventId, key: "👍" }
        })

        const theirs = yield* JsSdk.say(bert, roomId, "to be answered")
        yield* timeline.decrypted(theirs)
        const replied = yield* EncryptionKit.send(anna, roomId, "m.room.message", reply(theirs, "answered"))
        const seen = yield* JsSdk.untilDecrypted(bert, roomId, replied)
        assert.strictEqual(seen.replyEventId, theirs)
        assert.strictEqual(seen.getContent().body, "answered")
        const edited = yield* EncryptionKit.send(anna, roomId, "m.room.message", edit(replied, "answered better"))
        yield* JsSdk.untilEvent(
          bert,
          roomId,
          "the edited text",
          (event) => event.getId() === replied && event.getContent().body === "answered better"
        )
        const liked = yield* EncryptionKit.send(anna, roomId, "m.reaction", reaction(theirs))
        const like = yield* JsSdk.untilEvent(bert, roomId, "the reaction", (event) => event.getId() === liked)
        // The relation is in the clear anyway, and only so the homeserver counts it.
        assert.strictEqual(like.getWireType(), "m.reaction")
        assert.deepInclude(like.getRelation(), { rel_type: RelationType.Annotation, event_id: theirs, key: "👍" })

        const ours = yield* EncryptionKit.say(anna, roomId, "to be answered too")
        yield* JsSdk.untilDecrypted(bert, roomId, ours)
        const answer = yield* timeline.decrypted(yield* JsSdk.send(bert, roomId, "m.room.message", reply(ours, "yes")))
        assert.deepStrictEqual(answer.event.content, reply(ours, "yes"))
        const changed = yield* JsSdk.send(bert, roomId, "m.room.message", edit(answer.event.event_id, "no"))
        assert.deepStrictEqual((yield* timeline.decrypted(changed)).event.content, edit(answer.event.event_id, "no"))
        const likedBack = yield* JsSdk.send(bert, roomId, "m.reaction", reaction(ours))
        const likeBack = yield* timeline.until("the reaction", ({ event }) => event.event_id === likedBack)
        assert.deepStrictEqual(likeBack.event.content, reaction(ours))
        assert.isUndefined(likeBack.decryption)

        // The homeserver sees that they relate, and not what they say.
        const raw = yield* Kit.call(bert.person, "GET", Kit.roomPath(roomId, `event/${edited}`))
        assert.strictEqual(raw["type"], "m.room.encrypted")
        assert.deepStrictEqual((raw["content"] as Kit.Json)["m.relates_to"], {
          rel_type: RelationType.Replace,
          event_id: replied
        })
      })
    )

    it.effect("takes a redaction of either side for what it is", () =>
      Effect.gen(function* () {
        const { anna, bert, roomId, timeline } = yield* pair({}, { room_version: "11" })
        const ours = yield* EncryptionKit.say(anna, roomId, "regretted")
        const seen = yield* JsSdk.untilDecrypted(bert, roomId, ours)
        yield* EncryptionKit.send(anna, roomId, "m.room.redaction", { redacts: ours, reason: "a slip" })
        yield* JsSdk.untilEvent(bert, roomId, "the redaction", (event) => event === seen && event.isRedacted())

        const theirs = yield* JsSdk.say(bert, roomId, "regretted too")
        yield* timeline.decrypted(theirs)
        yield* Effect.promise(() => bert.client.redactEvent(roomId, theirs))
        const gone = yield* timeline.until("the redaction", ({ event }) => event.type === "m.room.redaction")
        assert.isUndefined(gone.decryption)
      })
    )

    it.effect("takes odd and long texts as they are, and says when one is too long", () =>
      Effect.gen(function* () {
        const { anna, bert, roomId, timeline } = yield* pair()
        yield* Effect.forEach(oddTexts, (body) =>
          Effect.gen(function* () {
            const there = yield* JsSdk.untilDecrypted(bert, roomId, yield* EncryptionKit.say(anna, roomId, body))
            assert.strictEqual(there.getContent().body, body)
            const here = yield* timeline.decrypted(yield* JsSdk.say(bert, roomId, body))
            assert.strictEqual(here.event.content["body"], body)
          })
        )

        // Half of a surrogate pair is what a text that is cut at a length ends with.
        const half = yield* EncryptionKit.say(anna, roomId, "half: \ud83d")
        assert.strictEqual((yield* JsSdk.untilDecrypted(bert, roomId, half)).getContent().body, "half: \ufffd")
        assert.strictEqual((yield* timeline.decrypted(half)).event.content["body"], "half: \ufffd")
        // The other side sends it as it is, and then nobody can read it.
        const theirHalf = yield* timeline.undecryptable(yield* JsSdk.say(bert, roomId, "half: \ud83d"))
        assert.deepInclude(theirHalf.decryption, { _tag: "Undecryptable", reason: "Failed" })

        const long = anna.conversations.send(roomId, "m.room.message", text("m".repeat(60_000)))
        const tooLong = yield* Effect.flip(long)
        assert(tooLong._tag === "HomeserverError")
        assert.deepInclude({ ...tooLong.reason }, { _tag: "BadRequest", errcode: "M_TOO_LARGE" })

        // What was not sent leaves no trace.
        const next = yield* JsSdk.untilDecrypted(bert, roomId, yield* EncryptionKit.say(anna, roomId, "and on"))
        assert.strictEqual(next.getContent().body, "and on")
      })
    )

    it.effect("leaves state in the clear", () =>
      Effect.gen(function* () {
        const { anna, bert, me, roomId, timeline } = yield* pair()
        yield* EncryptionKit.say(anna, roomId, "before")
        const named = yield* Kit.setState(me, roomId, "m.room.name", { name: "Secret garden" })
        const shown = yield* timeline.until("the name", ({ event }) => event.event_id === named)
        assert.isUndefined(shown.decryption)
        assert.deepStrictEqual(shown.event.content, { name: "Secret garden" })
        yield* Kit.untilRoom(anna, roomId, "the name", (room) => room.displayName === "Secret garden")
        yield* JsSdk.untilEvent(bert, roomId, "the name", (event) => event.getId() === named)
        yield* Effect.promise(() => bert.client.sendStateEvent(roomId, EventType.RoomTopic, { topic: "roses" }))
        const topic = yield* timeline.until("the topic", ({ event }) => event.type === "m.room.topic")
        assert.deepStrictEqual(topic.event.content["topic"], "roses")
      })
    )
  })
})
