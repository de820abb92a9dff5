/**
 * The room list of a real Synapse, through the whole service: names, avatars, memberships, kinds and order are what the spec
 * says, and stay so as rooms change.
 */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, layer } from "@effect/vitest"
import { ListDiff, type Room, RoomFilters } from "@twinloop/core"
import { Effect, Layer, Queue, Stream } from "effect"
import { Synapse } from "../../packages/platform/src/synapse/Synapse.ts"
import * as Kit from "./ServiceKit.ts"
import * as Recorder from "./ServiceRecorder.ts"

/** A person with the service running, and two others. */
const world = Effect.gen(function* () {
  const [me, bert, carl] = [yield* Kit.newPerson("Anna"), yield* Kit.newPerson("Bert"), yield* Kit.newPerson("Carl")]
  const account = yield* Kit.newAccount(me)
  return { me, bert, carl, account, running: yield* Kit.run(account) }
})

const setAvatar = (person: Kit.Person, url: string) =>
  Kit.call(person, "PUT", `/_matrix/client/v3/profile/${person.userId}/avatar_url`, { avatar_url: url })

const setDirect = (person: Kit.Person, direct: Kit.Json) =>
  Kit.call(person, "PUT", Kit.accountDataPath(person, "account_data/m.direct"), direct)

const moderate = (by: Kit.Person, roomId: string, action: "kick" | "ban" | "unban" | "invite", target: Kit.Person) =>
  Kit.call(by, "POST", Kit.roomPath(roomId, action), { user_id: target.userId })

const isCalled = (name: string) => (room: Room.Room) => room.displayName === name
const isMember = (membership: Room.Room["membership"]) => (room: Room.Room) => room.membership === membership

describe("the service's room list on Synapse", () => {
  const synapse = Layer.provideMerge(Synapse.layer(), NodeServices.layer)

  layer(synapse, { excludeTestServices: true, timeout: "10 minutes" })((it) => {
    it.effect("names rooms as the spec says: name, alias, heroes, or those who were there", () =>
      Effect.gen(function* () {
        const { bert, carl, me, running } = yield* world
        const dora = yield* Kit.newPerson("Dora")

        const named = yield* Kit.createJoined(bert, [me], { name: "Garden" })
        yield* Kit.untilRoom(running, named, "the name", isCalled("Garden"))

        const aliased = yield* Kit.createJoined(bert, [me], { room_alias_name: "shed" })
        yield* Kit.untilRoom(running, aliased, "the alias", isCalled("#shed:localhost"))

        // Nameless: all the others, and when one leaves and another comes, those.
        const group = yield* Kit.createJoined(bert, [me, carl, dora], {})
        yield* Kit.untilRoom(running, group, "three heroes", isCalled("Bert, Carl and Dora"))
        yield* Kit.leave(dora, group)
        yield* Kit.untilRoom(running, group, "two heroes", isCalled("Bert and Carl"))

        // Everybody else has left.
        yield* Kit.leave(carl, group)
        yield* Kit.untilRoom(running, group, "one hero", isCalled("Bert"))
        yield* Kit.leave(bert, group)
        const empty = yield* Kit.untilRoom(running, group, "nobody else", ({ joinedCount }) => joinedCount === 1)
        assert.match(empty.displayName, /^Empty Room \(was /)

        // An invitation counts: the invited one stands for the room.
        const waiting = yield* Kit.createRoom(me, { invite: [bert.userId] })
        const invited = yield* Kit.untilRoom(running, waiting, "the invited one", isCalled("Bert"))
        assert.deepStrictEqual([invited.joinedCount, invited.invitedCount], [1, 1])

        // More than the five heroes that a homeserver names.
        const crowd = yield* Effect.forEach(["E", "F", "G", "H", "I", "J"], Kit.newPerson)
        const large = yield* Kit.createJoined(bert, [me, carl, ...crowd], {})
        const counted = yield* Kit.untilRoom(running, large, "nine members", ({ joinedCount }) => joinedCount === 9)
        assert.match(counted.displayName, /^Bert, Carl, .* and 3 others$/)
      })
    )

    it.effect("follows a name that is set, changed and removed", () =>
      Effect.gen(function* () {
        const { bert, me, running } = yield* world
        const roomId = yield* Kit.createJoined(bert, [me], {})
        yield* Kit.untilRoom(running, roomId, "the hero's name", isCalled("Bert"))
        yield* Kit.setState(bert, roomId, "m.room.name", { name: "First" })
        yield* Kit.untilRoom(running, roomId, "the name", isCalled("First"))
        yield* Kit.setState(bert, roomId, "m.room.name", { name: "Second" })
        yield* Kit.untilRoom(running, roomId, "the new name", isCalled("Second"))
        // Synapse refuses a name event without a name; an empty one removes it (spec: "m.room.name").
        yield* Kit.setState(bert, roomId, "m.room.name", { name: "" })
        const { name } = yield* Kit.untilRoom(running, roomId, "the hero's name again", isCalled("Bert"))
        assert.isUndefined(name)

        // Set and removed again between two answers, or nearly so.
        yield* Kit.setState(bert, roomId, "m.room.name", { name: "Third" })
        yield* Kit.setState(bert, roomId, "m.room.name", { name: "" })
        yield* Kit.setState(bert, roomId, "m.room.topic", { topic: "after the name" })
        const after = yield* Kit.untilRoom(running, roomId, "the topic", ({ topic }) => topic === "after the name")
        assert.deepStrictEqual([after.displayName, after.name], ["Bert", undefined])
      })
    )

    it.effect("takes back a name that is redacted", () =>
      Effect.gen(function* () {
        const { bert, me, running } = yield* world
        const roomId = yield* Kit.createJoined(bert, [me], {})
        const eventId = yield* Kit.setState(bert, roomId, "m.room.name", { name: "Rude" })
        yield* Kit.untilRoom(running, roomId, "the name", isCalled("Rude"))
        yield* Kit.call(bert, "PUT", Kit.roomPath(roomId, `redact/${encodeURIComponent(eventId)}/rude`), {})
        yield* Kit.untilRoom(running, roomId, "the hero's name", isCalled("Bert"))
      })
    )

    it.effect("names a hero anew when they change their name", () =>
      Effect.gen(function* () {
        const { bert, me, running } = yield* world
        const roomId = yield* Kit.createJoined(bert, [me], {})
        yield* Kit.untilRoom(running, roomId, "the hero", isCalled("Bert"))
        yield* Kit.call(bert, "PUT", `/_matrix/client/v3/profile/${bert.userId}/displayname`, { displayname: "Albert" })
        yield* Kit.untilRoom(running, roomId, "the hero's new name", isCalled("Albert"))
      })
    )

    it.effect("shows a direct chat as one, with the other's name and avatar", () =>
      Effect.gen(function* () {
        const { bert, carl, me, running } = yield* world
        yield* setAvatar(bert, "mxc://localhost/bert")
        const roomId = yield* Kit.createJoined(bert, [me], { is_direct: true, preset: "trusted_private_chat" })
        const joined = yield* Kit.untilRoom(running, roomId, "the chat", isMember("join"))
        assert.strictEqual(joined.displayName, "Bert")
        yield* setDirect(me, { [bert.userId]: [roomId] })
        const chat = yield* Kit.untilRoom(running, roomId, "the mark", ({ isDm }) => isDm)
        assert.deepStrictEqual([chat.displayName, chat.avatar], ["Bert", "mxc://localhost/bert"])

        // The mark is taken off on another device, and set on another room.
        const other = yield* Kit.createJoined(carl, [me], {})
        yield* setDirect(me, { [carl.userId]: [other] })
        yield* Kit.untilRoom(running, other, "the mark of another room", ({ isDm }) => isDm)
        const plain = yield* Kit.untilRoom(running, roomId, "no mark", ({ isDm }) => !isDm)
        assert.isUndefined(plain.avatar)
      })
    )

    it.effect("shows a room's avatar as it is set, changed and removed", () =>
      Effect.gen(function* () {
        const { me, running } = yield* world
        const roomId = yield* Kit.createRoom(me, { name: "Pictures" })
        const shows = (url: string | undefined) =>
          Kit.untilRoom(running, roomId, `the avatar ${url}`, ({ avatar }) => avatar === url)
        yield* shows(undefined)
        yield* Kit.setState(me, roomId, "m.room.avatar", { url: "mxc://localhost/one" })
        yield* shows("mxc://localhost/one")
        yield* Kit.setState(me, roomId, "m.room.avatar", { url: "mxc://localhost/two" })
        yield* shows("mxc://localhost/two")
        yield* Kit.setState(me, roomId, "m.room.avatar", {})
        yield* shows(undefined)
      })
    )

    it.effect("shows an invite with its inviter and name, and then the room that is joined and left", () =>
      Effect.gen(function* () {
        const { bert, me, running } = yield* world
        const roomId = yield* Kit.createRoom(bert, { name: "Party", invite: [me.userId] })
        const invited = yield* Kit.untilRoom(running, roomId, "the invite", isMember("invite"))
        assert.strictEqual(invited.displayName, "Party")
        assert.deepStrictEqual(invited.invite, {
          inviter: bert.userId,
          inviterDisplayName: "Bert",
          isDirect: false
        })

        yield* Kit.join(me, roomId)
        const joined = yield* Kit.untilRoom(running, roomId, "the room", isMember("join"))
        assert.isUndefined(joined.invite)
        assert.deepStrictEqual([joined.displayName, joined.joinedCount, joined.invitedCount], ["Party", 2, 0])

        yield* Kit.leave(me, roomId)
        yield* Kit.untilRoom(running, roomId, "the room left", isMember("leave"))
        yield* moderate(bert, roomId, "invite", me)
        yield* Kit.untilRoom(running, roomId, "the second invite", isMember("invite"))
        yield* Kit.join(me, roomId)
        const again = yield* Kit.untilRoom(running, roomId, "the room again", isMember("join"))
        assert.deepStrictEqual([again.displayName, again.joinedCount], ["Party", 2])
      })
    )

    it.effect(
      "calls a nameless invite to a direct chat like its inviter, and forgets one that is refused or taken back",
      () =>
        Effect.gen(function* () {
          const { bert, me, running } = yield* world
          const refused = yield* Kit.createRoom(bert, { is_direct: true, invite: [me.userId] })
          const invited = yield* Kit.untilRoom(running, refused, "the invite", isMember("invite"))
          assert.deepStrictEqual([invited.displayName, invited.isDm, invited.invite?.isDirect], ["Bert", true, true])
          yield* Kit.leave(me, refused)
          yield* Kit.untilRoom(running, refused, "the refusal", isMember("leave"))

          const takenBack = yield* Kit.createRoom(bert, { name: "Oops", invite: [me.userId] })
          yield* Kit.untilRoom(running, takenBack, "the invite", isMember("invite"))
          yield* moderate(bert, takenBack, "kick", me)
          const left = yield* Kit.untilRoom(running, takenBack, "the end of the invite", isMember("leave"))
          assert.isUndefined(left.invite)
        })
    )

    it.effect("shows a knock, and the room once somebody has answered it", () =>
      Effect.gen(function* () {
        const { bert, me, running } = yield* world
        const rule = { type: "m.room.join_rules", state_key: "", content: { join_rule: "knock" } }
        const roomId = yield* Kit.createRoom(bert, { name: "Club", initial_state: [rule] })
        yield* Kit.call(me, "POST", `/_matrix/client/v3/knock/${encodeURIComponent(roomId)}`, {})
        const knocked = yield* Kit.untilRoom(running, roomId, "the knock", isMember("knock"))
        assert.strictEqual(knocked.displayName, "Club")
        yield* moderate(bert, roomId, "invite", me)
        yield* Kit.untilRoom(running, roomId, "the answer", isMember("invite"))
      })
    )

    it.effect("shows being kicked and banned", () =>
      Effect.gen(function* () {
        const { bert, me, running } = yield* world
        const kicked = yield* Kit.createJoined(bert, [me], { name: "Kicked" })
        const banned = yield* Kit.createJoined(bert, [me], { name: "Banned" })
        yield* Kit.untilRoom(running, kicked, "the room", isMember("join"))
        yield* Kit.untilRoom(running, banned, "the room", isMember("join"))
        yield* moderate(bert, kicked, "kick", me)
        yield* moderate(bert, banned, "ban", me)
        const left = yield* Kit.untilRoom(running, kicked, "the kick", isMember("leave"))
        const out = yield* Kit.untilRoom(running, banned, "the ban", isMember("ban"))
        assert.deepStrictEqual([left.displayName, out.displayName], ["Kicked", "Banned"])
        yield* moderate(bert, banned, "unban", me)
        yield* Kit.untilRoom(running, banned, "the end of the ban", isMember("leave"))
      })
    )

    it.effect("tells a space from a room, and sees encryption switched on", () =>
      Effect.gen(function* () {
        const { me, running } = yield* world
        const space = yield* Kit.createRoom(me, { name: "House", creation_content: { type: "m.space" } })
        const room = yield* Kit.createRoom(me, { name: "Kitchen" })
        assert.strictEqual((yield* Kit.untilRoom(running, space, "the space", isCalled("House"))).roomType, "m.space")
        const plain = yield* Kit.untilRoom(running, room, "the room", isCalled("Kitchen"))
        assert.deepStrictEqual([plain.roomType, plain.isEncrypted], [undefined, false])
        yield* Kit.setState(me, room, "m.room.encryption", { algorithm: "m.megolm.v1.aes-sha2" })
        yield* Kit.untilRoom(running, room, "encryption", ({ isEncrypted }) => isEncrypted)
      })
    )

    it.effect("shows an upgraded room once, as the one that replaces it", () =>
      Effect.gen(function* () {
        const { me, running } = yield* world
        const old = yield* Kit.createRoom(me, { name: "Old town", room_version: "10" })
        yield* Kit.untilRoom(running, old, "the room", isCalled("Old town"))
        const upgraded = yield* Kit.call(me, "POST", Kit.roomPath(old, "upgrade"), { new_version: "11" })
        const successor = String(upgraded.replacement_room)
        yield* Kit.untilRoom(running, old, "the tombstone", ({ replacedBy }) => replacedBy === successor)
        yield* Kit.untilRoom(running, successor, "the successor", isCalled("Old town"))
        const view = yield* running.rooms.entries({ filter: RoomFilters.deduplicateVersions })
        const [changes] = yield* Stream.runCollect(Stream.take(view.stream, 1))
        assert.deepStrictEqual(
          ListDiff.applyAll([], changes ?? []).map((room) => room.roomId),
          [successor]
        )
      })
    )

    it.effect(
      "loads 130 rooms page by page, the most recent first, each room once; a message moves a room to the top",
      () =>
        Effect.gen(function* () {
          const [me, bert] = [yield* Kit.newPerson("Anna"), yield* Kit.newPerson("Bert")]
          const names = Array.from({ length: 130 }, (_, index) => `Room ${index + 1}`)
          const ids = yield* Effect.forEach(names, (name, index) =>
            index === 0 ? Kit.createJoined(bert, [me], { name }) : Kit.createRoom(me, { name })
          )
          const account = yield* Kit.newAccount(me)
          const { recorded, running } = yield* Recorder.run(account)

          // The requests ask page by page, the last for all; what came with each is what was missing, the most recent first.
          const answers = (yield* recorded.main).slice(0, 3)
          assert.deepStrictEqual(
            answers.map(({ request }) => request.lists.rooms?.range),
            [
              [0, 19],
              [20, 99],
              [0, 129]
            ]
          )
          const pages = answers.map(({ response }) => new Set(response.rooms.map((room) => room.roomId)))
          const recentFirst = [...ids].reverse()
          assert.deepStrictEqual(pages[0], new Set(recentFirst.slice(0, 20)))
          assert.deepStrictEqual(pages[1], new Set(recentFirst.slice(20, 100)))
          assert.deepStrictEqual(pages[2], new Set(recentFirst.slice(100)))
          assert.deepStrictEqual(yield* running.rooms.loading, { _tag: "Loaded", maximumNumberOfRooms: 130 })

          // The list as an application shows it.
          const view = yield* running.rooms.entries()
          const changes = yield* Queue.unbounded<ReadonlyArray<ListDiff.Diff<Room.Room>>>()
          yield* Effect.forkScoped(Stream.runForEach(view.stream, (diffs) => Queue.offer(changes, diffs)))
          const shown = ListDiff.applyAll([], yield* Queue.take(changes))
          assert.deepStrictEqual(Kit.shownNames(shown), [...names].reverse())

          // The oldest room is talked in: one move to the top, and its new value.
          const eventId = yield* Kit.say(bert, ids[0] ?? "", "hello")
          const moved = yield* Queue.take(changes)
          assert.deepStrictEqual(
            moved.map(({ _tag }) => _tag),
            ["Move", "Set"]
          )
          assert.deepStrictEqual(moved[0], { _tag: "Move", from: 129, to: 0 })
          const after = ListDiff.applyAll(shown, moved)
          assert.deepStrictEqual(Kit.shownNames(after), ["Room 1", ...names.slice(1).reverse()])
          assert.strictEqual(after[0]?.latestEvent?.event_id, eventId)
        })
    )
  })
})
