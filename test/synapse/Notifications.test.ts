/**
 * What a push comes to, on a real Synapse and on the dev homeserver: the same stories, with the same results.
 *
 * Not here: encrypted events (`NotificationsEncrypted.test.ts`), the daemon (`PushDaemon.test.ts`).
 */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, layer } from "@effect/vitest"
import { SessionStore, Twinloop } from "@twinloop/platform"
import { Effect, type FileSystem, Layer, Redacted } from "effect"
import { Synapse } from "../../packages/platform/src/synapse/Synapse.ts"
import * as Pushed from "../processes/fixtures/PushedAccount.ts"
import * as EncryptionKit from "./EncryptionKit.ts"
import * as Kit from "./ServiceKit.ts"
import * as Notifying from "./NotificationKit.ts"
import * as Wire from "./Wire.ts"

/** How long an access token that can be renewed lives. */
const LIFE_MILLIS = 3_000

/** Anna with a database, and Bert, with a room that he has made. */
const make = Effect.fnUntraced(function* (options: object = { name: "Kitchen" }) {
  const [me, bert] = [yield* Kit.newPerson("Anna"), yield* Kit.newPerson("Bert")]
  yield* Notifying.setProfile(bert, "avatar_url", "mxc://localhost/bert")
  const roomId = yield* Kit.createJoined(bert, [me], options)
  const account = yield* Kit.newAccount(me)
  return { account, bert, me, roomId }
})

/** Lets Anna's application run for a moment, so that what it stores is known. */
const runApp = (account: Kit.Account, roomId: string, eventId: string) =>
  Effect.scoped(
    Effect.gen(function* () {
      const running = yield* Kit.run(account)
      yield* Kit.untilRoom(running, roomId, "the event", ({ latestEvent }) => latestEvent?.event_id === eventId)
    })
  )

/** An item without what differs from one look to the next. */
const known = ({ event, missing, ...rest }: Notifying.Item): object => ({
  ...rest,
  actions: [],
  missing: missing.map(({ part }) => part),
  eventId: event.event_id,
  content: event.content
})

const mention = ({ userId }: Kit.Person) => ({ "m.mentions": { user_ids: [userId] } })
const text = (body: string, more: object = {}) => ({ msgtype: "m.text", body, ...more })
const edit = (eventId: string, body: string) =>
  text(`* ${body}`, {
    "m.new_content": text(body),
    "m.relates_to": { rel_type: "m.replace", event_id: eventId }
  })
const reaction = (eventId: string) => ({
  "m.relates_to": { rel_type: "m.annotation", event_id: eventId, key: "👍" }
})

/** The same with a login whose access token ends; its end isn't known, so it is found out by being refused. */
const makeEnding = Effect.gen(function* () {
  const [registered, bert] = [yield* Kit.newPerson("Anna"), yield* Kit.newPerson("Bert")]
  const { expiresAtMillis, ...session } = yield* Kit.passwordLogin(registered)
  assert.isDefined(expiresAtMillis)
  assert.isDefined(session.refreshToken)
  const me: Kit.Person = { userId: registered.userId, session }
  const roomId = yield* Kit.createJoined(bert, [me], { name: "Kitchen" })
  const wire = yield* Wire.start((yield* Synapse).baseUrl)
  return { account: yield* Kit.newAccount(EncryptionKit.at(wire.baseUrl, me)), bert, me, roomId, wire }
})

/** The access token in force. */
const tokenOf = ({ database }: Kit.Account) =>
  Effect.flatMap(SessionStore.SessionStore, (store) => store.load).pipe(
    Effect.provide(Twinloop.layerFoundation({ database })),
    Effect.orDie,
    Effect.map((session) => (session === undefined ? "" : Redacted.value(session.session.accessToken)))
  )

const stories = <E>(name: string, homeserver: Layer.Layer<Synapse | FileSystem.FileSystem, E>) =>
  describe(`notifications on ${name}`, () => {
    layer(homeserver, { excludeTestServices: true, timeout: "10 minutes" })((it) => {
      it.effect("I6: are whole, and the same, whether the application has stored the room or has never run", () =>
        Effect.gen(function* () {
          const { account, bert, roomId } = yield* make({ name: "Kitchen", topic: "Food" })
          yield* Kit.setState(bert, roomId, "m.room.avatar", { url: "mxc://localhost/kitchen" })
          const carla = yield* Kit.newPerson("Carla")
          yield* Kit.call(bert, "POST", Kit.roomPath(roomId, "invite"), { user_id: carla.userId })
          const root = yield* Kit.say(bert, roomId, "dinner?")
          const relation = { rel_type: "m.thread", event_id: root }
          const eventId = yield* Kit.send(bert, roomId, "m.room.message", text("at 8", { "m.relates_to": relation }))
          const expected = {
            kind: "message",
            eventId,
            content: text("at 8", { "m.relates_to": relation }),
            sender: {
              userId: bert.userId,
              name: "Bert",
              isNameAmbiguous: false,
              avatarUrl: "mxc://localhost/bert"
            },
            room: {
              roomId,
              name: "Kitchen",
              avatarUrl: "mxc://localhost/kitchen",
              topic: "Food",
              joinRule: "invite",
              isEncrypted: false,
              isDirect: false,
              joinedCount: 2,
              invitedCount: 1
            },
            threadRootId: root,
            actions: [],
            isNoisy: true,
            isMention: false,
            missing: []
          }
          const look = Effect.map(Notifying.resolve(account, roomId, eventId), (result) =>
            known(Notifying.itemOf(result))
          )
          const before = yield* look
          assert.deepEqual(before, expected)
          yield* runApp(account, roomId, eventId)
          assert.deepEqual(yield* look, before)
          // While the application runs.
          yield* Kit.run(account)
          assert.deepEqual(yield* look, before)
        })
      )

      it.effect("are of a direct chat under the other's name", () =>
        Effect.gen(function* () {
          const { account, bert, me, roomId } = yield* make({ is_direct: true })
          const eventId = yield* Kit.say(bert, roomId, "hello")
          const look = Effect.map(Notifying.resolve(account, roomId, eventId), (result) => Notifying.itemOf(result))
          assert.deepInclude((yield* look).room, { name: "Bert", isDirect: false })
          yield* Notifying.setAccountData(me, "m.direct", { [bert.userId]: [roomId] })
          const { room, sender } = yield* look
          assert.deepInclude(room, { name: "Bert", isDirect: true, avatarUrl: "mxc://localhost/bert", joinedCount: 2 })
          assert.strictEqual(sender.name, "Bert")
        })
      )

      it.effect("are invitations, two in one batch and a message with them", () =>
        Effect.gen(function* () {
          const { account, bert, me, roomId } = yield* make()
          const invite = (options: object) => Kit.createRoom(bert, { ...options, invite: [me.userId] })
          const hall = yield* invite({ name: "Hall" })
          const secret = yield* invite({ is_direct: true })
          const requests = [
            { roomId: hall, eventId: yield* Notifying.memberEventId(bert, hall, me) },
            { roomId, eventId: yield* Kit.say(bert, roomId, "look at your invitations") },
            { roomId: secret, eventId: yield* Notifying.memberEventId(bert, secret, me) }
          ]
          const results = yield* Notifying.resolveMany(account, requests)
          assert.deepStrictEqual(results.map(Notifying.brief), ["invite noisy", "message noisy", "invite noisy"])
          const [first, , last] = results.map(Notifying.itemOf)
          assert.deepInclude(first?.room, { roomId: hall, name: "Hall" })
          assert.deepInclude(first?.sender, { userId: bert.userId, name: "Bert", avatarUrl: "mxc://localhost/bert" })
          assert.deepInclude(last?.room, { roomId: secret, name: "Bert", isDirect: true })
          assert.deepStrictEqual([first?.missing, last?.missing], [[], []])
          // A single one as well, and once it is declined there is none.
          assert.strictEqual(
            Notifying.brief(yield* Notifying.resolve(account, hall, requests[0]!.eventId)),
            "invite noisy"
          )
          yield* Kit.leave(me, hall)
          assert.strictEqual((yield* Notifying.resolve(account, hall, requests[0]!.eventId))._tag, "NotFound")
        })
      )

      it.effect("are found far behind the newest events of the room", () =>
        Effect.gen(function* () {
          const { account, bert, roomId } = yield* make()
          const eventId = yield* Kit.say(bert, roomId, "long ago")
          for (let number = 1; number <= 40; number++) yield* Kit.say(bert, roomId, `since then ${number}`)
          const result = yield* Notifying.resolve(account, roomId, eventId)
          assert.strictEqual(Notifying.bodyOf(result), "long ago")
          const { missing, room, sender } = Notifying.itemOf(result)
          assert.deepInclude(room, { name: "Kitchen", joinedCount: 2 })
          assert.deepInclude(sender, { name: "Bert", avatarUrl: "mxc://localhost/bert" })
          assert.deepStrictEqual(missing, [])
        })
      )

      it.effect("say what there is nothing of: unknown, not for this user, taken back", () =>
        Effect.gen(function* () {
          const { account, bert, me, roomId } = yield* make()
          const stranger = yield* Kit.createRoom(bert, { name: "Elsewhere" })
          const taken = yield* Kit.say(bert, roomId, "oops")
          yield* Notifying.redact(bert, roomId, taken)
          const results = yield* Notifying.resolveMany(account, [
            { roomId, eventId: "$nobody-has-ever-sent-this-event-of-this-room-1" },
            { roomId: "!nowhere:localhost", eventId: taken },
            { roomId: stranger, eventId: yield* Kit.say(bert, stranger, "among us") },
            { roomId, eventId: taken },
            { roomId, eventId: yield* Kit.say(bert, roomId, "dinner") }
          ])
          const expected = ["NotFound", "NotFound", "NotFound", "Redacted", "message noisy"]
          assert.deepStrictEqual(results.map(Notifying.brief), expected)
          // Taken back long ago.
          for (let number = 1; number <= 20; number++) yield* Kit.say(bert, roomId, `since then ${number}`)
          assert.strictEqual((yield* Notifying.resolve(account, roomId, taken))._tag, "Redacted")

          const before = yield* Kit.say(bert, roomId, "before she leaves")
          yield* Kit.leave(me, roomId)
          const after = yield* Kit.say(bert, roomId, "when she has left")
          const left = yield* Notifying.resolveMany(
            account,
            [before, after].map((eventId) => ({ roomId, eventId }))
          )
          assert.deepStrictEqual(left.map(Notifying.brief), ["message", "NotFound"])
        })
      )

      it.effect("are judged by the rules that the user has set", () =>
        Effect.gen(function* () {
          const { account, bert, me, roomId } = yield* make()
          const carla = yield* Kit.newPerson("Carla")
          yield* Kit.call(bert, "POST", Kit.roomPath(roomId, "invite"), { user_id: carla.userId })
          yield* Kit.join(carla, roomId)
          const says = (body: string, more: object = {}) => Kit.send(bert, roomId, "m.room.message", text(body, more))
          const plain = yield* says("dinner")
          const everybody = { "m.mentions": { room: true } }
          const events = [
            plain,
            yield* says("Anna!", mention(me)),
            yield* says("everybody!", everybody),
            yield* Kit.send(carla, roomId, "m.room.message", text("everybody!", everybody)),
            yield* says("there is cheesecake"),
            yield* Kit.send(bert, roomId, "m.room.message", { msgtype: "m.notice", body: "beep" }),
            yield* Kit.send(bert, roomId, "m.room.message", edit(plain, "supper")),
            yield* Kit.send(bert, roomId, "m.reaction", reaction(plain)),
            yield* Kit.say(me, roomId, "my own words"),
            yield* Kit.setState(bert, roomId, "m.room.topic", { topic: "Food" }),
            yield* Kit.setState(bert, roomId, "m.room.tombstone", { body: "moved", replacement_room: "!new:localhost" })
          ]
          const look = Effect.map(
            Notifying.resolveMany(
              account,
              events.map((eventId) => ({ roomId, eventId }))
            ),
            (results) => results.map(Notifying.brief)
          )
          yield* Notifying.setPushRule(me, "content", "cake", {
            pattern: "*cake*",
            actions: ["notify", { set_tweak: "sound", value: "default" }, { set_tweak: "highlight" }]
          })
          const unruled = [
            "pushRule .m.rule.suppress_notices",
            "pushRule .m.rule.suppress_edits",
            "pushRule .m.rule.reaction",
            "ownEvent"
          ]
          assert.deepStrictEqual(yield* look, [
            "message",
            "message noisy mention",
            "message mention",
            "message",
            "message noisy mention",
            ...unruled,
            "pushRule",
            "other mention"
          ])
          yield* Notifying.setPushRule(me, "room", roomId, { actions: [] })
          const muted = `pushRule ${roomId}`
          const muffled = ["message noisy mention", "message mention", muted, "message noisy mention"]
          assert.deepStrictEqual(yield* look, [muted, ...muffled, ...unruled, muted, "other mention"])
          yield* Notifying.setPushRule(me, "override", "quiet", {
            conditions: [{ kind: "event_match", key: "room_id", pattern: roomId }],
            actions: []
          })
          assert.deepStrictEqual(
            yield* look,
            events.map((_, index) => (index === 8 ? "ownEvent" : "pushRule quiet"))
          )
        })
      )

      it.effect("are none of a sender whom the user ignores", () =>
        Effect.gen(function* () {
          const { account, bert, me, roomId } = yield* make()
          const eventId = yield* Kit.say(bert, roomId, "hello")
          const hall = yield* Kit.createRoom(bert, { name: "Hall", invite: [me.userId] })
          const invitation = yield* Notifying.memberEventId(bert, hall, me)
          yield* Notifying.setAccountData(me, "m.ignored_user_list", { ignored_users: { [bert.userId]: {} } })
          const late = yield* Kit.say(bert, roomId, "are you there?")
          const requests = [eventId, late].map((one) => ({ roomId, eventId: one }))
          const results = yield* Notifying.resolveMany(account, [...requests, { roomId: hall, eventId: invitation }])
          // Synapse doesn't even tell of them.
          for (const result of results) assert.oneOf(Notifying.brief(result), ["ignoredSender", "NotFound"])
          yield* Notifying.setAccountData(me, "m.ignored_user_list", { ignored_users: {} })
          assert.strictEqual(Notifying.bodyOf(yield* Notifying.resolve(account, roomId, eventId)), "hello")
        })
      )

      it.effect("are resolved twenty at once, each with its own words", () =>
        Effect.gen(function* () {
          const { account, bert, me, roomId } = yield* make()
          const others = yield* Effect.forEach(["Hall", "Attic", "Cellar"], (name) =>
            Kit.createJoined(bert, [me], { name })
          )
          const roomIds = [roomId, ...others]
          const requests = yield* Effect.forEach(Array.from({ length: 20 }), (_, number) => {
            const roomId = roomIds[number % roomIds.length]!
            return Effect.map(Kit.say(bert, roomId, `event ${number}`), (eventId) => ({ roomId, eventId }))
          })
          const results = yield* Notifying.resolveMany(account, requests)
          assert.deepStrictEqual(
            results.map((result) => `${Notifying.itemOf(result).room.name} ${Notifying.bodyOf(result)}`),
            results.map((_, number) => `${["Kitchen", "Hall", "Attic", "Cellar"][number % 4]} event ${number}`)
          )
          // Twenty processes at once.
          const each = yield* Effect.forEach(
            requests,
            (request) => Notifying.resolve(account, request.roomId, request.eventId),
            { concurrency: "unbounded" }
          )
          assert.deepStrictEqual(each.map(Notifying.bodyOf), results.map(Notifying.bodyOf))
        })
      )

      it.effect("I9: renew an access token that has ended, while the application does so too, and both go on", () =>
        Effect.gen(function* () {
          const { account, bert, me, roomId, wire } = yield* makeEnding
          // So old that the application doesn't store it: the homeserver is asked for it each time.
          const old = yield* Kit.say(bert, roomId, "long ago")
          yield* Kit.say(bert, roomId, "a while ago")
          const app = yield* Pushed.startApp(account)
          yield* app.until("own the stream", Pushed.owns)
          const clients = yield* Effect.replicateEffect(Notifying.notifier(account), 3)
          const tokens = new Set<string>()
          for (let round = 0; tokens.size < 4; round++) {
            const eventId = yield* Kit.say(bert, roomId, `round ${round}`)
            yield* Kit.sendToDevice(bert, me, "com.example.round", { round })
            const requests = [old, eventId].map((one) => ({ roomId, eventId: one }))
            const all = yield* Effect.forEach(clients, (client) => client.resolveMany(requests), {
              concurrency: "unbounded"
            })
            for (const results of all)
              assert.deepStrictEqual(results.map(Notifying.bodyOf), ["long ago", `round ${round}`])
            tokens.add(yield* tokenOf(account))
          }
          // Each token is renewed once, whoever finds that it has ended.
          const renewals = yield* wire.about("/refresh")
          for (const { status } of renewals) assert.strictEqual(status, 200)
          const used = renewals.map(({ asked }) => asked["refresh_token"])
          assert.isAtLeast(used.length, 3)
          assert.strictEqual(new Set(used).size, used.length)

          const since = yield* app.said
          yield* Kit.sendToDevice(bert, me, "com.example.last", {})
          yield* app.until("apply the last one", (line) => line.event === "inbox" && line.type === "com.example.last", {
            since
          })
          const failed = (yield* app.lines).filter(
            (line) => line.event === "state" && (line.main._tag === "Failed" || line.extension._tag === "Failed")
          )
          assert.deepStrictEqual(failed, [])
        })
      )

      it.effect("say that the login is lost, whatever is stored", () =>
        Effect.gen(function* () {
          const { account, bert, me, roomId } = yield* make()
          const stored = yield* Kit.say(bert, roomId, "stored")
          yield* runApp(account, roomId, stored)
          const eventId = yield* Kit.say(bert, roomId, "hello")
          yield* Kit.call(me, "POST", "/_matrix/client/v3/logout", {})
          const [result, known] = yield* Notifying.resolveMany(
            account,
            [eventId, stored].map((one) => ({ roomId, eventId: one }))
          )
          assert(result?._tag === "Failed", JSON.stringify(result))
          assert.strictEqual(result.failure.class, "auth")
          assert.match(result.message, /log in again/i)
          // What the application has stored needs no homeserver.
          assert.strictEqual(Notifying.bodyOf(known!), "stored")
        })
      )
    })
  })

const config = { bcrypt_rounds: 4, refreshable_access_token_lifetime: LIFE_MILLIS }
stories("Synapse", Layer.provideMerge(Synapse.layer({ config }), NodeServices.layer))
stories("the dev homeserver", Layer.provideMerge(Notifying.layerDev(LIFE_MILLIS), NodeServices.layer))
