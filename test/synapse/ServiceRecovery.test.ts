/**
 * What survives on a real Synapse, through the whole service: a restart over the same file, an expired position, a homeserver
 * that is away. The room list is right afterwards, nothing is fetched twice without need, to-device events come once.
 */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, layer } from "@effect/vitest"
import type { Room } from "@twinloop/core"
import { Effect, Fiber, Layer } from "effect"
import { Synapse } from "../../packages/platform/src/synapse/Synapse.ts"
import * as Kit from "./ServiceKit.ts"
import * as Recorder from "./ServiceRecorder.ts"

const isMember = (membership: Room.Room["membership"]) => (room: Room.Room) => room.membership === membership
const says = (body: string) => (room: Room.Room) => room.latestEvent?.content.body === body

const numbers = (from: number, to: number): Array<number> =>
  Array.from({ length: to - from + 1 }, (_, index) => from + index)

const sendNumbers = (by: Kit.Person, to: Kit.Person, from: number, count: number) =>
  Effect.forEach(numbers(from, from + count - 1), (number) =>
    Kit.sendToDevice(by, to, "com.example.numbered", { number })
  )

/** Everything in the inbox. */
const storedNumbers = ({ store }: Kit.Running) =>
  Effect.map(store.readInbox({ after: 0, limit: 1_000 }), (entries) =>
    entries.map(({ event }) => (event.content as Kit.Json).number)
  )

/** Ids of the rooms that came with a recorder's answers, in order, with repetitions. */
const roomsOf = (answers: ReadonlyArray<Recorder.Answered>): ReadonlyArray<string> =>
  answers.flatMap(({ response }) => response.rooms.map((room) => room.roomId))

describe("the service's recovery on Synapse", () => {
  const synapse = Layer.provideMerge(Synapse.layer(), NodeServices.layer)

  layer(synapse, { excludeTestServices: true, timeout: "10 minutes" })((it) => {
    it.effect("goes on where it was after a restart: only what changed meanwhile is sent", () =>
      Effect.gen(function* () {
        const [me, bert] = [yield* Kit.newPerson("Anna"), yield* Kit.newPerson("Bert")]
        const names = numbers(1, 30).map((number) => `Room ${number}`)
        const ids = yield* Effect.forEach(names, (name) => Kit.createRoom(me, { name }))
        const talk = yield* Kit.createJoined(bert, [me], { name: "Talk" })
        const account = yield* Kit.newAccount(me)
        const before = yield* Effect.gen(function* () {
          const { recorded, running } = yield* Recorder.run(account)
          assert.deepStrictEqual([...roomsOf(yield* recorded.main)].sort(), [...ids, talk].sort())
          return yield* running.rooms.rooms
        }).pipe(Effect.scoped)

        // Nothing has happened: everything is known at once, and no room is sent.
        yield* Effect.gen(function* () {
          const { recorded, running } = yield* Recorder.run(account)
          assert.deepStrictEqual(roomsOf(yield* recorded.main), [])
          const byId = (rooms: ReadonlyArray<Room.Room>) => new Map(rooms.map((room) => [room.roomId, room]))
          assert.deepStrictEqual(byId(yield* running.rooms.rooms), byId(before))
        }).pipe(Effect.scoped)

        // One message, in the room that is the last of the list.
        yield* Kit.say(bert, talk, "meanwhile")
        const { recorded, running } = yield* Recorder.run(account)
        yield* Kit.untilRoom(running, talk, "the message", says("meanwhile"))
        const answers = yield* recorded.main
        assert.deepStrictEqual(roomsOf(answers), [talk])
        assert.isTrue(answers.every(({ request }) => request.pos !== undefined))
        assert.isTrue(answers.every(({ response }) => response.rooms.every((room) => !room.initial)))
      })
    )

    it.effect("knows after a restart what was joined, left, refused and closed to it meanwhile", () =>
      Effect.gen(function* () {
        const [me, bert] = [yield* Kit.newPerson("Anna"), yield* Kit.newPerson("Bert")]
        const create = (name: string) => Kit.createJoined(bert, [me], { name })
        const [stays, left, kicked, banned] = [
          yield* create("Stays"),
          yield* create("Left"),
          yield* create("Kicked"),
          yield* create("Banned")
        ]
        const invited = yield* Kit.createRoom(bert, { name: "Accepted", invite: [me.userId] })
        const refused = yield* Kit.createRoom(bert, { name: "Refused", invite: [me.userId] })
        const account = yield* Kit.newAccount(me)
        yield* Effect.gen(function* () {
          const running = yield* Kit.run(account)
          const joined = (yield* running.rooms.rooms).filter(isMember("join"))
          assert.deepStrictEqual(joined.length, 4)
          assert.deepStrictEqual((yield* running.rooms.rooms).length, 6)
        }).pipe(Effect.scoped)

        yield* Kit.leave(me, left)
        yield* Kit.leave(me, refused)
        yield* Kit.join(me, invited)
        yield* Kit.call(bert, "POST", Kit.roomPath(kicked, "kick"), { user_id: me.userId })
        yield* Kit.call(bert, "POST", Kit.roomPath(banned, "ban"), { user_id: me.userId })
        const created = yield* create("Created")
        const asked = yield* Kit.createRoom(bert, { name: "Asked", invite: [me.userId] })

        const running = yield* Kit.run(account)
        const memberships = Object.fromEntries(
          (yield* running.rooms.rooms).map((room) => [room.displayName, room.membership])
        )
        assert.deepStrictEqual(memberships, {
          Stays: "join",
          Left: "leave",
          Kicked: "leave",
          Banned: "ban",
          Accepted: "join",
          Refused: "leave",
          Created: "join",
          Asked: "invite"
        })
        assert.strictEqual((yield* running.rooms.get(stays))?.joinedCount, 2)
        assert.strictEqual((yield* running.rooms.get(created))?.joinedCount, 2)
        assert.strictEqual((yield* running.rooms.get(asked))?.invite?.inviter, bert.userId)
      })
    )

    it.effect("knows after its position has expired while offline what was joined and left meanwhile", () =>
      Effect.gen(function* () {
        const synapse = yield* Synapse
        const [me, bert] = [yield* Kit.newPerson("Anna"), yield* Kit.newPerson("Bert")]
        const left = yield* Kit.createJoined(bert, [me], { name: "Left" })
        const stays = yield* Kit.createJoined(bert, [me], { name: "Stays" })
        const account = yield* Kit.newAccount(me)
        const connId = yield* Effect.scoped(Effect.map(Kit.run(account), (running) => running.connId))

        yield* Kit.leave(me, left)
        const joined = yield* Kit.createJoined(bert, [me], { name: "Joined" })
        yield* synapse.expirePosition(me.session, connId)

        const running = yield* Kit.run(account)
        yield* Kit.untilRoom(running, left, "the leaving", isMember("leave"))
        yield* Kit.untilRoom(running, joined, "the joining", isMember("join"))
        yield* Kit.untilRoom(running, stays, "what stays", isMember("join"))
      })
    )

    it.effect("I9: recovers from an expired position while it runs, and the other loop doesn't notice", () =>
      Effect.gen(function* () {
        const synapse = yield* Synapse
        const [me, bert] = [yield* Kit.newPerson("Anna"), yield* Kit.newPerson("Bert")]
        const roomId = yield* Kit.createJoined(bert, [me], { name: "Before" })
        const { recorded, running } = yield* Recorder.run(yield* Kit.newAccount(me))
        const inbox = yield* Kit.inboxOf(running)
        yield* sendNumbers(bert, me, 1, 5)
        yield* inbox.takeN(5)

        yield* synapse.expirePosition(me.session, running.connId)
        yield* Kit.setState(bert, roomId, "m.room.name", { name: "After" })
        yield* sendNumbers(bert, me, 6, 5)
        yield* Kit.untilRoom(running, roomId, "the new name", (room) => room.displayName === "After")
        yield* inbox.takeN(5)
        assert.deepStrictEqual(yield* storedNumbers(running), numbers(1, 10))
        const afresh = (yield* recorded.main).filter(({ request }) => request.pos === undefined)
        assert.strictEqual(afresh.length, 2)
        yield* Kit.untilLoaded(running)
      })
    )

    it.effect("I2, I9: is right after an outage: offline meanwhile, then every change, and to-device events once", () =>
      Effect.gen(function* () {
        const synapse = yield* Synapse
        const [me, bert] = [yield* Kit.newPerson("Anna"), yield* Kit.newPerson("Bert")]
        const talk = yield* Kit.createJoined(bert, [me], { name: "Talk" })
        const left = yield* Kit.createJoined(bert, [me], { name: "Left" })
        const running = yield* Kit.run(yield* Kit.newAccount(me), { backoffMaxMillis: 2_000 })
        const inbox = yield* Kit.inboxOf(running)
        yield* sendNumbers(bert, me, 1, 3)
        yield* inbox.takeN(3)

        yield* synapse.outage(Kit.untilState(running, "being offline", ({ _tag }) => _tag === "Offline"))
        // At once, so that some of it happens before the loops are back, and some after.
        const talking = yield* Effect.forkScoped(sendNumbers(bert, me, 4, 20))
        yield* Kit.say(bert, talk, "back again")
        yield* Kit.leave(me, left)
        const joined = yield* Kit.createJoined(bert, [me], { name: "Joined" })

        yield* Kit.untilRoom(running, talk, "the message", says("back again"))
        yield* Kit.untilRoom(running, left, "the leaving", isMember("leave"))
        yield* Kit.untilRoom(running, joined, "the joining", isMember("join"))
        yield* Kit.untilState(running, "running", ({ _tag }) => _tag === "Running")
        yield* Fiber.join(talking)
        yield* inbox.takeN(20)
        assert.deepStrictEqual(yield* storedNumbers(running), numbers(1, 23))
        const memberships = (yield* running.rooms.rooms).map((room) => [room.displayName, room.membership])
        assert.deepStrictEqual(Object.fromEntries(memberships), { Talk: "join", Left: "leave", Joined: "join" })
      })
    )

    it.effect("I2: to-device events that come while nobody runs are applied once by who comes next", () =>
      Effect.gen(function* () {
        const [me, bert] = [yield* Kit.newPerson("Anna"), yield* Kit.newPerson("Bert")]
        const account = yield* Kit.newAccount(me)
        const turn = Effect.fnUntraced(function* (role: string, from: number) {
          yield* sendNumbers(bert, me, from, 10)
          const running = yield* Kit.run(account, { role })
          const inbox = yield* Kit.inboxOf(running)
          // What was consumed before is not given again: the cursor is durable.
          const entries = yield* inbox.takeN(10)
          assert.deepStrictEqual(
            entries.map(({ sequence }) => sequence),
            numbers(from, from + 9)
          )
          assert.deepStrictEqual(yield* storedNumbers(running), numbers(1, from + 9))
        }, Effect.scoped)
        yield* turn("main", 1)
        yield* turn("standby", 11)
        yield* turn("main", 21)
      })
    )
  })
})
