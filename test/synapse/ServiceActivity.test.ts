/**
 * What goes on beside the timelines on a real Synapse, through the whole service: what makes a room unread, what the account's
 * other devices do, and the inbox of to-device events.
 */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, layer } from "@effect/vitest"
import type { Room } from "@twinloop/core"
import { Login, NodeHomeserver } from "@twinloop/platform"
import { Effect, Layer, Redacted } from "effect"
import { Synapse } from "../../packages/platform/src/synapse/Synapse.ts"
import * as Kit from "./ServiceKit.ts"

/** A person with the service running, the same person on another device, and another in a room with them. */
const world = Effect.gen(function* () {
  const [me, bert] = [yield* Kit.newPerson("Anna"), yield* Kit.newPerson("Bert")]
  const roomId = yield* Kit.createJoined(bert, [me], { name: "Talk" })
  const running = yield* Kit.run(yield* Kit.newAccount(me))
  return { me, elsewhere: yield* onAnotherDevice(me), bert, roomId, running }
})

const onAnotherDevice = Effect.fnUntraced(function* ({ userId, session }: Kit.Person) {
  const password = Redacted.make(userId.slice(1).split(":")[0] ?? "")
  const login = Login.byPassword({ homeserver: session.homeserver, user: userId, password })
  const other = yield* Effect.provide(login, NodeHomeserver.layerTransport)
  assert.notStrictEqual(other.deviceId, session.deviceId)
  const person: Kit.Person = { userId, session: other }
  return person
})

const isUnread =
  (count: number) =>
  ({ unread }: Room.Room): boolean =>
    unread.liveSinceRead === count

const setRoomData = (by: Kit.Person, roomId: string, type: string, content: Kit.Json) =>
  Kit.call(by, "PUT", Kit.accountDataPath(by, `rooms/${encodeURIComponent(roomId)}/account_data/${type}`), content)

describe("the service's account on Synapse", () => {
  const synapse = Layer.provideMerge(Synapse.layer(), NodeServices.layer)

  layer(synapse, { excludeTestServices: true, timeout: "10 minutes" })((it) => {
    it.effect("counts what others say since the receipt, which any device of the account may send", () =>
      Effect.gen(function* () {
        const { bert, elsewhere, me, roomId, running } = yield* world
        const receipt = (by: Kit.Person, type: string, eventId: string) =>
          Kit.call(by, "POST", Kit.roomPath(roomId, `receipt/${type}/${encodeURIComponent(eventId)}`), {})
        yield* Kit.say(bert, roomId, "one")
        yield* Kit.say(bert, roomId, "two")
        yield* Kit.untilRoom(running, roomId, "two messages", isUnread(2))

        // What one says oneself, and changes of state, don't count.
        yield* Kit.setState(bert, roomId, "m.room.topic", { topic: "new" })
        yield* Kit.say(me, roomId, "mine")
        const three = yield* Kit.say(bert, roomId, "three")
        const before = yield* Kit.untilRoom(running, roomId, "three messages", isUnread(3))
        assert.strictEqual(before.latestEvent?.event_id, three)

        yield* receipt(elsewhere, "m.read", three)
        const read = yield* Kit.untilRoom(running, roomId, "the receipt", isUnread(0))
        assert.strictEqual(read.unread.readReceipt, three)

        const four = yield* Kit.say(bert, roomId, "four")
        yield* Kit.untilRoom(running, roomId, "a message after the receipt", isUnread(1))
        yield* receipt(elsewhere, "m.read.private", four)
        const again = yield* Kit.untilRoom(running, roomId, "the private receipt", isUnread(0))
        assert.strictEqual(again.unread.readReceipt, four)

        // Others' receipts don't matter. The mark comes after the receipt, so it has been read when the mark is there.
        const five = yield* Kit.say(bert, roomId, "five")
        yield* Kit.untilRoom(running, roomId, "a message after the receipt", isUnread(1))
        yield* receipt(bert, "m.read", five)
        yield* setRoomData(elsewhere, roomId, "m.marked_unread", { unread: true })
        const { unread } = yield* Kit.untilRoom(running, roomId, "the mark", (room) => room.unread.markedUnread)
        assert.deepStrictEqual([unread.readReceipt, unread.liveSinceRead], [four, 1])
      })
    )

    it.effect("follows marks, tags and the read marker that another device sets and takes back", () =>
      Effect.gen(function* () {
        const { bert, elsewhere, roomId, running } = yield* world
        const until = (what: string, isWanted: (room: Room.Room) => boolean) =>
          Kit.untilRoom(running, roomId, what, isWanted)

        yield* setRoomData(elsewhere, roomId, "m.marked_unread", { unread: true })
        yield* until("the mark", ({ unread }) => unread.markedUnread)
        yield* setRoomData(elsewhere, roomId, "m.marked_unread", { unread: false })
        yield* until("no mark", ({ unread }) => !unread.markedUnread)

        const eventId = yield* Kit.say(bert, roomId, "read up to here")
        yield* Kit.call(elsewhere, "POST", Kit.roomPath(roomId, "read_markers"), { "m.fully_read": eventId })
        yield* until("the read marker", ({ unread }) => unread.fullyRead === eventId)

        const tag = (name: string) => Kit.accountDataPath(elsewhere, `rooms/${encodeURIComponent(roomId)}/tags/${name}`)
        yield* Kit.call(elsewhere, "PUT", tag("m.favourite"), { order: 0.5 })
        yield* Kit.call(elsewhere, "PUT", tag("u.work"), {})
        const tagged = yield* until("both tags", ({ tags }) => tags?.length === 2)
        assert.deepStrictEqual(tagged.tags, ["m.favourite", "u.work"])
        yield* Kit.call(elsewhere, "DELETE", tag("m.favourite"))
        yield* until("one tag", ({ tags }) => tags?.length === 1)
        yield* Kit.call(elsewhere, "DELETE", tag("u.work"))
        yield* until("no tag", ({ tags }) => tags === undefined || tags.length === 0)
      })
    )

    it.effect("stores account data of any type, global and of rooms, as another device sets it", () =>
      Effect.gen(function* () {
        const { bert, elsewhere, roomId, running } = yield* world
        const { connId, store } = running
        const content = { "com.example": ["anything", { deep: null }] }
        yield* Kit.call(elsewhere, "PUT", Kit.accountDataPath(elsewhere, "account_data/com.example.global"), content)
        yield* setRoomData(elsewhere, roomId, "com.example.room", content)
        // What comes later has told when it is there.
        yield* Kit.call(elsewhere, "PUT", Kit.accountDataPath(elsewhere, "account_data/m.direct"), {
          [bert.userId]: [roomId]
        })
        yield* Kit.untilRoom(running, roomId, "the direct chat", ({ isDm }) => isDm)
        const global = yield* store.accountData({ connId, type: "com.example.global" })
        const ofRoom = yield* store.accountData({ connId, type: "com.example.room", roomId })
        assert.deepStrictEqual([global?.content, ofRoom?.content], [content, content])
      })
    )

    it.effect("shows who types, until they stop, and never oneself", () =>
      Effect.gen(function* () {
        const { bert, me, roomId, running } = yield* world
        const types = (person: Kit.Person, typing: boolean) =>
          Kit.call(person, "PUT", Kit.roomPath(roomId, `typing/${encodeURIComponent(person.userId)}`), {
            typing,
            ...(typing ? { timeout: 30_000 } : {})
          })
        yield* types(me, true)
        yield* types(bert, true)
        const typing = yield* Kit.untilRoom(running, roomId, "somebody typing", (room) => room.typing.length > 0)
        assert.deepStrictEqual(typing.typing, [bert.userId])
        yield* types(bert, false)
        yield* Kit.untilRoom(running, roomId, "nobody typing", (room) => room.typing.length === 0)
      })
    )

    it.effect("I2: to-device events reach the inbox once, in order, as they came: encrypted, unknown, odd", () =>
      Effect.gen(function* () {
        const { bert, me, running } = yield* world
        const inbox = yield* Kit.inboxOf(running)
        const encrypted = { algorithm: "m.olm.v1.curve25519-aes-sha2", sender_key: "key", ciphertext: { key: {} } }
        const sent: ReadonlyArray<readonly [type: string, content: Kit.Json]> = [
          ["m.room.encrypted", encrypted],
          ["com.example.unknown", { anything: [1, null, { "": "" }] }],
          ["m.room_key_request", {}],
          ["com.example.nul", { text: "a\u0000b", emoji: "\u{1F469}\u200D\u{1F680}", separator: "\u2028\u{10FFFF}" }],
          // To-device content is no canonical JSON, so fractions and large numbers pass.
          ["com.example.numbers", { fraction: 0.1, large: 1e21, largest: Number.MAX_SAFE_INTEGER, negative: -0.5 }],
          ["com.example.long", { text: "x".repeat(20_000) }]
        ]
        yield* Effect.forEach(sent, ([type, content]) => Kit.sendToDevice(bert, me, type, content))
        const entries = yield* inbox.takeN(sent.length)
        assert.deepStrictEqual(
          entries.map(({ type, sender, encryption }) => [type, sender, encryption]),
          sent.map(([type], index) => [type, bert.userId, index === 0 ? "undecryptable" : "none"])
        )
        assert.deepStrictEqual(
          entries.map(({ event }) => event.content),
          sent.map(([, content]) => content)
        )
        assert.deepStrictEqual(
          entries.map(({ sequence }) => sequence),
          sent.map((_, index) => index + 1)
        )
      })
    )

    it.effect("I7: Synapse refuses lone surrogates and integers out of range, and both loops go on", () =>
      Effect.gen(function* () {
        const { bert, me, roomId, running } = yield* world
        const inbox = yield* Kit.inboxOf(running)
        const sendPath = (txnId: string) => Kit.roomPath(roomId, `send/m.room.message/${txnId}`)
        const inRoom = yield* Kit.ask(bert, "PUT", sendPath("lone"), { msgtype: "m.text", body: "lone \ud800" })
        const tooLarge = yield* Kit.ask(bert, "PUT", sendPath("large"), {
          msgtype: "m.text",
          body: "",
          number: 2 ** 60
        })
        const toDevice = yield* Kit.ask(bert, "PUT", "/_matrix/client/v3/sendToDevice/com.example.lone/lone", {
          messages: { [me.userId]: { [me.session.deviceId]: { text: "lone \udc00" } } }
        })
        // To Synapse, a lone surrogate is an internal error, and not the client's.
        assert.deepStrictEqual([inRoom.status, tooLarge.status, toDevice.status], [500, 400, 500])

        const eventId = yield* Kit.say(bert, roomId, "after")
        yield* Kit.untilRoom(running, roomId, "the next message", (room) => room.latestEvent?.event_id === eventId)
        yield* Kit.sendToDevice(bert, me, "com.example.after", {})
        assert.strictEqual((yield* inbox.take).type, "com.example.after")
        assert.strictEqual(yield* running.store.quarantineCount, 0)
      })
    )
  })
})
