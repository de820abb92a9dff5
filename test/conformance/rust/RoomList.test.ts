/**
 * The sync service and the list of rooms of matrix-rust-sdk on the dev homeserver: it shows what ours shows, stays in sync, and
 * recovers.
 *
 * Not here: encrypted rooms (`Encryption.test.ts`).
 */
import { assert, describe, layer } from "@effect/vitest"
import type { Room } from "@twinloop/core"
import { ListDiff } from "@twinloop/core"
import { Effect, Stream } from "effect"
import { isDeepStrictEqual } from "node:util"
import { Synapse } from "../../../packages/platform/src/synapse/Synapse.ts"
import * as EncryptionKit from "../../synapse/EncryptionKit.ts"
import * as Kit from "../../synapse/ServiceKit.ts"
import * as Wire from "../../synapse/Wire.ts"
import * as RustSdk from "./RustSdk.ts"
import * as Scene from "./Scene.ts"

const memberships = { join: "Joined", invite: "Invited", leave: "Left", knock: "Knocked", ban: "Banned" } as const

/** What both clients show of a room. */
const shownByUs = (room: Room.Room) => ({
  roomId: room.roomId,
  name: room.displayName,
  membership: memberships[room.membership],
  isEncrypted: room.isEncrypted,
  notifications: room.unread.notificationCount,
  highlights: room.unread.highlightCount
})

const shownByThem = ({ highlights, isEncrypted, membership, name, notifications, roomId }: RustSdk.ShownRoom) => ({
  roomId,
  name,
  membership,
  isEncrypted,
  notifications,
  highlights
})

/** Our list of rooms as it is. */
const listOf = Effect.fnUntraced(function* ({ rooms }: Kit.Running) {
  const { stream } = yield* rooms.entries()
  const [changes = []] = yield* Stream.runCollect(Stream.take(stream, 1))
  return ListDiff.applyAll<Room.Room>([], changes)
})

const namesOf = (rooms: ReadonlyArray<RustSdk.ShownRoom>): ReadonlyArray<string | null> => rooms.map(({ name }) => name)

/** What the SDK complains of on Synapse as well: errors that it asked for, and things that come in another order than it likes. */
const usual = [
  "matrix_sdk::http_client: Error while sending request",
  "matrix_sdk_base::room::room_info: Unable to get the room version rules",
  "matrix_sdk_crypto::backups: Trying to backup room keys but no backup key was found",
  "matrix_sdk_crypto::store: The user has a pending `/keys/query` request",
  "matrix_sdk_crypto::identities::manager: Our own device might have been deleted",
  "matrix_sdk::latest_events::room_latest_events: Room is unknown",
  "matrix_sdk_ui::timeline::tasks: No avatar changes to update"
]

/** Rita with a room of Otto's, which she has opened. */
const opened = Effect.fnUntraced(function* () {
  const [rita, otto] = [yield* Kit.newPerson("Rita"), yield* Kit.newPerson("Otto")]
  const roomId = yield* Kit.createJoined(otto, [rita], { name: "Kitchen" })
  const client = yield* RustSdk.logIn(rita)
  yield* RustSdk.start(client)
  yield* RustSdk.open(client, roomId)
  return { client, otto, rita, roomId }
})

/** Waits until a room's timeline has these messages, each once and in this order, and no others; loads what was before. */
const untilMessages = Effect.fnUntraced(function* (
  client: RustSdk.RustSdk,
  roomId: string,
  bodies: ReadonlyArray<string>
) {
  yield* client.ask("paginate", { roomId })
  yield* RustSdk.untilTimeline(client, roomId, `exactly ${bodies.join(", ")}`, (events) => {
    const messages = events.filter(({ content }) => content.kind === "Message")
    return isDeepStrictEqual(
      messages.map(({ content }) => content.body),
      bodies
    )
  })
})

describe(`the rooms of matrix-rust-sdk on ${Scene.place}`, () => {
  layer(Scene.homeserver, { excludeTestServices: true, timeout: "10 minutes" })((it) => {
    it.effect("are those that we show: names, memberships, counts and order, and again when they have been read", () =>
      Effect.gen(function* () {
        const [rita, otto] = [yield* Kit.newPerson("Rita"), yield* Kit.newPerson("Otto")]
        const kitchen = yield* Kit.createJoined(otto, [rita], { name: "Kitchen" })
        const unnamed = yield* Kit.createJoined(otto, [rita], {})
        const cellar = yield* Kit.createJoined(otto, [rita], EncryptionKit.encrypted({}, { name: "Cellar" }))
        const attic = yield* Kit.createRoom(otto, { name: "Attic", invite: [rita.userId] })
        yield* Kit.say(otto, kitchen, "one")
        yield* Kit.say(otto, unnamed, "hello")

        const client = yield* RustSdk.logIn(rita)
        yield* RustSdk.start(client)
        const running = yield* Kit.run(yield* Kit.newAccount(rita))
        const ours = (yield* listOf(running)).map(shownByUs)
        // Where invitations stand among the rooms is a matter of taste.
        const isSame = (rooms: ReadonlyArray<RustSdk.ShownRoom>): boolean =>
          ["Joined", "Invited"].every((membership) =>
            isDeepStrictEqual(
              rooms.map(shownByThem).filter((room) => room.membership === membership),
              ours.filter((room) => room.membership === membership)
            )
          )
        const theirs = yield* RustSdk.untilRooms(client, `what we list, ${JSON.stringify(ours)}`, isSame)
        assert.deepStrictEqual(
          new Map(theirs.map(({ name, roomId }) => [roomId, name])),
          new Map([
            [kitchen, "Kitchen"],
            [unnamed, "Otto"],
            [cellar, "Cellar"],
            [attic, "Attic"]
          ])
        )

        // What is said from now on is unread, until it is read.
        yield* RustSdk.open(client, kitchen)
        yield* Kit.say(otto, kitchen, "two")
        const mention = { msgtype: "m.text", body: "Rita!", "m.mentions": { user_ids: [rita.userId] } }
        yield* Kit.send(otto, kitchen, "m.room.message", mention)
        yield* RustSdk.untilRoom(client, kitchen, "what is unread", ({ unreadMentions }) => unreadMentions === 1)
        yield* Kit.untilRoom(running, kitchen, "what is unread", ({ unread }) => unread.liveSinceRead === 2)
        assert.deepStrictEqual(yield* client.ask("markAsRead", { roomId: kitchen }), { isSent: true })
        const read = yield* RustSdk.untilRoom(
          client,
          kitchen,
          "nothing unread",
          ({ unreadMessages }) => unreadMessages === 0
        )
        assert.deepStrictEqual([read.unreadMentions, read.unreadNotifications], [0, 0])
        yield* Kit.untilRoom(running, kitchen, "nothing unread", ({ unread }) => unread.liveSinceRead === 0)
      })
    )

    it.effect("follow what happens: a new room, a name, a message that moves one to the top, a join, a leave", () =>
      Effect.gen(function* () {
        const { client, otto, rita, roomId } = yield* opened()
        const hall = yield* Kit.createRoom(otto, { name: "Hall", invite: [rita.userId] })
        const invited = yield* RustSdk.untilRoom(
          client,
          hall,
          "the invitation",
          ({ latest }) => latest?.kind === "Invite"
        )
        assert.deepStrictEqual([invited.membership, invited.latest?.inviter], ["Invited", otto.userId])
        yield* RustSdk.untilRoom(client, hall, "the name", ({ name }) => name === "Hall")
        yield* client.ask("join", { roomId: hall })
        yield* RustSdk.open(client, hall)
        yield* Kit.say(otto, hall, "first")
        yield* RustSdk.untilRooms(client, "the hall on top", (rooms) => rooms[0]?.latest?.body === "first")

        yield* Kit.setState(otto, roomId, "m.room.name", { name: "Larder" })
        yield* RustSdk.untilRoom(client, roomId, "the new name", ({ name }) => name === "Larder")
        const eventId = yield* Kit.say(otto, roomId, "second")
        const rooms = yield* RustSdk.untilRooms(client, "the larder on top", ([top]) => top?.latest?.body === "second")
        assert.deepStrictEqual(namesOf(rooms), ["Larder", "Hall"])
        const shown = yield* RustSdk.untilMessage(client, roomId, eventId)
        assert.deepStrictEqual([shown.sender, shown.senderName], [otto.userId, "Otto"])

        const { eventId: answer, isEncrypted } = yield* RustSdk.say(client, roomId, "an answer")
        assert.isFalse(isEncrypted)
        const sent = yield* Kit.call(otto, "GET", Kit.roomPath(roomId, `event/${encodeURIComponent(answer)}`))
        assert.deepInclude(sent, { sender: rita.userId, type: "m.room.message" })
        assert.deepInclude(sent["content"], { body: "an answer" })

        yield* client.ask("leave", { roomId: hall })
        yield* RustSdk.untilRooms(client, "the hall gone", (list) => list.every((room) => room.roomId !== hall))
      })
    )

    it.effect("are followed again, each message once, when the homeserver has forgotten the positions", () =>
      Effect.gen(function* () {
        const [rita, otto] = [yield* Kit.newPerson("Rita"), yield* Kit.newPerson("Otto")]
        const roomId = yield* Kit.createJoined(otto, [rita], { name: "Kitchen" })
        const client = yield* RustSdk.logIn(rita, { givesUp: true })
        yield* RustSdk.start(client)
        yield* Kit.say(otto, roomId, "before")
        yield* RustSdk.untilRoom(client, roomId, "the name", ({ name }) => name === "Kitchen")
        yield* Scene.expire(client)
        // It says so, and the application starts it again.
        yield* RustSdk.untilState(client, "Error")
        const during = yield* Kit.say(otto, roomId, "during")
        yield* RustSdk.start(client)
        yield* RustSdk.open(client, roomId)
        yield* RustSdk.untilMessage(client, roomId, during)
        yield* RustSdk.untilMessage(client, roomId, yield* Kit.say(otto, roomId, "after"))
        yield* untilMessages(client, roomId, ["before", "during", "after"])
        assert.strictEqual((yield* RustSdk.states(client)).at(-1), "Running")
      })
    )

    it.effect("are followed again without being started when it waits for the homeserver itself", () =>
      Effect.gen(function* () {
        const { client, otto, roomId } = yield* opened()
        yield* RustSdk.untilMessage(client, roomId, yield* Kit.say(otto, roomId, "before"))
        yield* Scene.expire(client)
        yield* RustSdk.untilState(client, "Offline")
        yield* RustSdk.untilState(client, "Running")
        yield* RustSdk.untilMessage(client, roomId, yield* Kit.say(otto, roomId, "after"))
        yield* untilMessages(client, roomId, ["before", "after"])
      })
    )

    it.effect("are followed again, and what waited is sent, when the homeserver was away", () =>
      Effect.gen(function* () {
        const { client, otto, rita, roomId } = yield* opened()
        yield* Scene.whileAway(
          Effect.gen(function* () {
            yield* RustSdk.untilState(client, "Offline")
            yield* client.ask("queue", { roomId, body: "said while it was away" })
          })
        )
        yield* RustSdk.untilState(client, "Running")
        const queued = yield* RustSdk.untilEvent(
          client,
          roomId,
          "what waited, sent",
          ({ content, eventId }) => eventId !== null && content.body === "said while it was away"
        )
        const sent = yield* Kit.call(otto, "GET", Kit.roomPath(roomId, `event/${encodeURIComponent(queued.eventId!)}`))
        assert.strictEqual(sent["sender"], rita.userId)
        yield* RustSdk.untilMessage(client, roomId, yield* Kit.say(otto, roomId, "welcome back"))
        yield* untilMessages(client, roomId, ["said while it was away", "welcome back"])
      })
    )

    it.effect("cost no request that the homeserver doesn't know, and no warning but the usual ones", () =>
      Effect.gen(function* () {
        const [person, otto] = [yield* Kit.newPerson("Rita"), yield* Kit.newPerson("Otto")]
        const wire = yield* Wire.start((yield* Synapse).baseUrl)
        const rita = EncryptionKit.at(wire.baseUrl, person)
        const roomId = yield* Kit.createJoined(otto, [rita], EncryptionKit.encrypted({}, { name: "Cellar" }))
        const client = yield* RustSdk.logIn(rita)
        yield* RustSdk.start(client)
        yield* RustSdk.open(client, roomId)
        yield* RustSdk.untilMessage(client, roomId, yield* Kit.say(otto, roomId, "in the clear"))
        yield* RustSdk.say(client, roomId, "an answer")
        yield* client.ask("markAsRead", { roomId })
        yield* RustSdk.stop(client)
        const refused = (yield* wire.exchanges).filter(({ status }) => status >= 400)
        assert.deepStrictEqual(
          [...new Set(refused.map(({ method, path, status }) => `${method} ${path} ${status}`))],
          // That nothing is there is what it wants to know.
          [`GET ${Kit.accountDataPath(rita, "account_data/m.secret_storage.default_key")} 404`]
        )
        const warnings = yield* RustSdk.warnings(client)
        assert.deepStrictEqual(
          warnings.filter((line) => !usual.some((part) => line.includes(part))),
          []
        )
      })
    )
  })
})
