import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import type { JsonObject } from "../src/matrix/MatrixEvent.ts"
import * as Model from "../src/testing/HomeserverModel.ts"

const get = <A>(outcome: Model.Outcome<A>): A => Result.getOrThrowWith(outcome, ({ message }) => new Error(message))
const refusal = <A>(outcome: Model.Outcome<A>): Model.Refusal => Result.getOrThrow(Result.flip(outcome))

const requester = (state: Model.ModelState, localpart: string): Model.Requester => {
  const user = get(Model.ensureUser(state, { localpart, password: "secret" }))
  return get(Model.authenticate(state, Model.startSession(state, user, {}, 0).accessToken, 0))
}

const gateway = "https://push.test/_matrix/push/v1/notify"

const pusherOf = (pushkey = "key", data: JsonObject = {}): JsonObject => ({
  kind: "http",
  app_id: "app",
  pushkey,
  app_display_name: "Test",
  device_display_name: "Phone",
  lang: "en",
  data: { url: gateway, format: "event_id_only", ...data }
})

/** Alice and Bob in a room, and Bob's pusher, set at 5 seconds. */
const makeWorld = (data: JsonObject = {}) => {
  const state = Model.make()
  const [alice, bob] = [requester(state, "alice"), requester(state, "bob")]
  const { roomId } = Model.createRoom(state, alice.user, { name: "Kitchen", invite: [bob.user.userId] }, 0)
  get(Model.join(state, bob.user, roomId, 0))
  get(Model.setPusher(state, bob, pusherOf("key", data), 5_000))
  let sent = 0
  const send = (type: string, content: JsonObject, inRoom = roomId): string =>
    get(Model.send(state, alice, { roomId: inRoom, type, content, txnId: String((sent += 1)) }, 0))
  const say = (body: string, inRoom = roomId): string => send("m.room.message", { msgtype: "m.text", body }, inRoom)
  const next = (nowMillis = 0) => Model.takePush(state, nowMillis)
  /** The next push, which must be there. */
  const take = (nowMillis = 0): Model.Push => {
    const push = next(nowMillis)
    assert("body" in push, "there is something to push")
    return push
  }
  const answer = (push: Model.Push, rejected: ReadonlyArray<string> = []) => Model.pushAnswered(state, push, rejected)
  /** Takes all pushes that are due, and gives the ids of their events; an empty one for the unread count alone. */
  const drain = (nowMillis = 0): ReadonlyArray<string> => {
    const ids: Array<string> = []
    for (let push = next(nowMillis); "body" in push; push = next(nowMillis)) {
      ids.push(push.action?.stored.event.event_id ?? "")
      answer(push)
    }
    return ids
  }
  return { state, alice, bob, roomId, send, say, next, take, answer, drain }
}

const notification = ({ body }: Model.Push): JsonObject => body.notification as JsonObject

describe("HomeserverModel pushers", () => {
  it("are refused as by Synapse when something is missing, or the URL's path is another one", () => {
    const { state, bob } = makeWorld()
    const refused = (body: JsonObject) => refusal(Model.setPusher(state, bob, body, 0))
    const { lang: _, ...withoutLang } = pusherOf()
    assert.deepInclude(refused(withoutLang), { status: 400, errcode: "M_MISSING_PARAM" })
    assert.include(refused(withoutLang).message, "lang")
    for (const url of ["https://push.test/", `${gateway}/`, "nowhere", 7, undefined]) {
      const { errcode, message } = refused({ ...pusherOf(), data: { url } })
      assert.deepStrictEqual([errcode, message.startsWith("Config Error: ")], ["M_MISSING_PARAM", true])
    }
    get(Model.setPusher(state, bob, pusherOf("query", { url: `${gateway}?x=1` }), 0))
  })

  it("of other accounts with the same id are removed, unless it is appended", () => {
    const { state, alice, bob } = makeWorld()
    const count = ({ user }: Model.Requester) => Model.pushers(user).length
    get(Model.setPusher(state, alice, { ...pusherOf(), append: true }, 0))
    assert.deepStrictEqual([count(alice), count(bob)], [1, 1])
    get(Model.setPusher(state, alice, pusherOf(), 0))
    assert.deepStrictEqual([count(alice), count(bob)], [1, 0])
    get(Model.setPusher(state, alice, { kind: null, app_id: "app", pushkey: "key" }, 0))
    assert.strictEqual(count(alice), 0)
  })

  it("go with the device that set them first, and with no other", () => {
    const { state, bob } = makeWorld()
    const other = get(
      Model.authenticate(state, Model.startSession(state, bob.user, { deviceId: "OTHER" }, 0).accessToken, 0)
    )
    get(Model.setPusher(state, other, pusherOf("key"), 0))
    get(Model.setPusher(state, other, pusherOf("of the other"), 0))
    Model.logOut(state, other)
    assert.deepStrictEqual(
      Model.pushers(bob.user).map(({ pushkey }) => pushkey),
      ["key"]
    )
    Model.logOut(state, bob)
    assert.deepStrictEqual(Model.pushers(bob.user), [])
  })
})

describe("HomeserverModel pushes", () => {
  it("say no more than ids in the format for ids", () => {
    const { bob, roomId, say, take } = makeWorld({ room_ids: [1] })
    const eventId = say("hello")
    const push = take()
    assert.deepInclude(push, { url: gateway, userId: bob.user.userId, deviceId: bob.device.deviceId })
    assert.deepStrictEqual(push.body, {
      notification: {
        event_id: eventId,
        room_id: roomId,
        // There are two in the room, so the message sounds.
        prio: "high",
        counts: { unread: 1 },
        devices: [{ app_id: "app", pushkey: "key", pushkey_ts: 5, data: { room_ids: [1], format: "event_id_only" } }]
      }
    })
  })

  it("tell the event, the names and the tweaks in the full format", () => {
    const { alice, bob, roomId, say, send, take, answer } = makeWorld({ format: undefined })
    const eventId = say("hello")
    const first = take()
    assert.deepInclude(notification(first), {
      id: eventId,
      event_id: eventId,
      room_id: roomId,
      type: "m.room.message",
      sender: alice.user.userId,
      content: { msgtype: "m.text", body: "hello" },
      sender_display_name: alice.user.userId,
      room_name: "Kitchen"
    })
    assert.notProperty(notification(first), "membership")
    const [device] = notification(first).devices as ReadonlyArray<JsonObject>
    assert.deepStrictEqual(device?.tweaks, { sound: "default" })
    answer(first)
    send("m.room.message", { body: "", "m.mentions": { user_ids: [bob.user.userId] } })
    const [mentioned] = notification(take()).devices as ReadonlyArray<JsonObject>
    assert.deepStrictEqual(mentioned?.tweaks, { sound: "default", highlight: true })
  })

  it("come in order, one at a time, and only of what came after the pusher", () => {
    const { state, bob, say, take, next, answer, drain } = makeWorld()
    const ids = ["a", "b", "c"].map((body) => say(body))
    get(Model.setPusher(state, bob, pusherOf("late"), 0))
    const first = take()
    assert.notProperty(next(), "body", "the first one is under way")
    answer(first)
    assert.deepStrictEqual([first.action?.stored.event.event_id, ...drain()], ids)
    const last = say("d")
    assert.deepStrictEqual(drain(), [last, last], "one for each pusher")
  })

  it("are not of one's own events, of muted rooms, of ignored senders, of edits", () => {
    const { state, bob, roomId, say, send, drain } = makeWorld()
    get(Model.send(state, bob, { roomId, type: "m.room.message", content: { body: "mine" }, txnId: "1" }, 0))
    send("m.room.message", { body: "* x", "m.relates_to": { rel_type: "m.replace", event_id: "$1" } })
    const mute = { kind: "override", ruleId: "mute", actions: [] }
    const conditions = [{ kind: "event_match", key: "room_id", pattern: roomId }]
    get(Model.setPushRule(state, bob.user, { ...mute, conditions }))
    say("muted")
    get(Model.changePushRule(state, bob.user, mute, { enabled: false }))
    const ignored = { type: "m.ignored_user_list", content: { ignored_users: { "@alice:localhost": {} } } }
    get(Model.setAccountData(state, bob.user, ignored))
    say("ignored")
    assert.deepStrictEqual(drain(), [])
    get(Model.setAccountData(state, bob.user, { ...ignored, content: {} }))
    assert.deepStrictEqual(drain(), [])
    assert.deepStrictEqual([say("heard")], drain())
  })

  it("are of encrypted events, with a high priority", () => {
    const { state, bob, send, take } = makeWorld()
    const quiet = { kind: "underride", ruleId: ".m.rule.encrypted_room_one_to_one" }
    get(Model.changePushRule(state, bob.user, quiet, { actions: ["notify"] }))
    send("m.room.encrypted", { algorithm: "m.megolm.v1.aes-sha2", ciphertext: "x" })
    assert.strictEqual(notification(take()).prio, "high")
  })

  it("are of an invitation, which counts as unread until it is answered", () => {
    const { state, alice, bob, say, take, answer } = makeWorld({ format: undefined })
    const { roomId } = Model.createRoom(state, alice.user, { invite: [bob.user.userId] }, 0)
    say("hello", roomId)
    const invitation = take()
    assert.deepInclude(notification(invitation), {
      room_id: roomId,
      type: "m.room.member",
      membership: "invite",
      user_is_target: true,
      counts: { unread: 1 }
    })
    assert.notProperty(notification(invitation), "room_name")
    answer(invitation)
    say("in the kitchen")
    const second = take()
    assert.deepStrictEqual(notification(second).counts, { unread: 2 })
    answer(second)
    get(Model.join(state, bob.user, roomId, 0))
    say("in the kitchen again")
    assert.deepStrictEqual(notification(take()).counts, { unread: 1 }, "rooms are counted, not messages")
  })

  it("leave out what was redacted before it was sent", () => {
    const { state, alice, roomId, say, drain } = makeWorld()
    const [redacted, kept] = [say("oops"), say("hello")]
    get(Model.redact(state, alice, { roomId, eventId: redacted, txnId: "r", content: {} }, 0))
    assert.deepStrictEqual(drain(), [kept])
  })

  it("tell the unread count when it was changed by reading, once, whether it arrives or not", () => {
    const { state, bob, roomId, say, take, next, drain } = makeWorld()
    const read = (eventId: string) => get(Model.setReceipt(state, bob, { roomId, type: "m.read", eventId }, 0))
    const first = say("a")
    const last = say("b")
    drain()
    read(first)
    assert.notProperty(next(), "body", "the room is as unread as before")
    read(last)
    const poke = take()
    assert.deepStrictEqual(poke.body, {
      notification: {
        id: "",
        type: null,
        sender: "",
        counts: { unread: 0 },
        devices: [{ app_id: "app", pushkey: "key", pushkey_ts: 5, data: { format: "event_id_only" } }]
      }
    })
    Model.pushFailed(state, poke, 0)
    assert.deepStrictEqual(drain(), [])
    read(last)
    assert.deepStrictEqual(drain(), [])
  })

  it("don't tell an unread count that the gateway was told with an event meanwhile", () => {
    const { state, bob, roomId, say, take, next, answer } = makeWorld()
    const first = say("a")
    answer(take(), [])
    say("b")
    const second = take()
    get(Model.setPusher(state, bob, pusherOf("fresh"), 0))
    say("c")
    const fresh = take()
    assert.strictEqual(fresh.pushKey, "fresh")
    // The gateway of the fresh one was told nothing yet, and the room stays unread.
    get(Model.setReceipt(state, bob, { roomId, type: "m.read", eventId: first }, 0))
    answer(fresh)
    answer(second)
    const third = take()
    assert.deepStrictEqual([third.pushKey, third.action === undefined], ["key", false])
    assert.notProperty(next(), "body")
  })

  it("are tried again after 1, 2, 4, … seconds, at most an hour apart, the same event first", () => {
    const { state, say, take, next, drain } = makeWorld()
    const ids = [say("a")]
    let nowMillis = 0
    const waits: Array<number> = []
    for (let attempt = 0; attempt < 15; attempt++) {
      const push = take(nowMillis)
      assert.strictEqual(push.action?.stored.event.event_id, ids[0])
      Model.pushFailed(state, push, nowMillis)
      // What comes now doesn't make it try earlier.
      ids.push(say(`later ${attempt}`))
      const waiting = next(nowMillis)
      assert("untilMillis" in waiting && waiting.untilMillis !== undefined)
      assert.notProperty(next(waiting.untilMillis - 1), "body")
      waits.push((waiting.untilMillis - nowMillis) / 1_000)
      nowMillis = waiting.untilMillis
    }
    assert.deepStrictEqual(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600, 3600])
    assert.deepStrictEqual(drain(nowMillis), ids)
  })

  it("give an event up after a day of failures, and go on with the next one", () => {
    const { state, say, take } = makeWorld()
    const [first, second] = [say("a"), say("b")]
    const day = 24 * 3_600_000
    Model.pushFailed(state, take(0), 0)
    Model.pushFailed(state, take(day), day)
    const last = take(day + 3_600_000)
    assert.strictEqual(last.action?.stored.event.event_id, first)
    Model.pushFailed(state, last, day + 3_600_000)
    const next = take(day + 3_600_000)
    assert.strictEqual(next.action?.stored.event.event_id, second)
    Model.pushFailed(state, next, day + 3_600_000)
    assert.deepInclude(Model.takePush(state, day + 3_600_000), { untilMillis: day + 3_601_000 }, "patient anew")
  })

  it("end with the pusher whose key is rejected, and with no other", () => {
    const { state, bob, say, take, answer, drain } = makeWorld()
    get(Model.setPusher(state, bob, pusherOf("other"), 0))
    say("hello")
    const [first, second] = [take(), take()]
    answer(first, ["other"])
    assert.strictEqual(Model.pushers(bob.user).length, 2, "it is not the one that was sent")
    answer(second, ["other"])
    assert.deepStrictEqual(
      Model.pushers(bob.user).map(({ pushkey }) => pushkey),
      ["key"]
    )
    say("again")
    assert.strictEqual(drain().length, 1)
  })

  it("that are answered late concern no pusher that was set since", () => {
    const { state, bob, say, take, answer, drain } = makeWorld()
    say("old")
    const old = take()
    get(Model.setPusher(state, bob, pusherOf(), 0))
    answer(old, ["key"])
    assert.strictEqual(Model.pushers(bob.user).length, 1)
    const event = say("new")
    assert.deepStrictEqual(drain(), [event])
  })
})

describe("HomeserverModel push rules", () => {
  const own = { kind: "room", ruleId: "!a:b", actions: [] }

  it("are set first of their kind, before and after others, and deleted", () => {
    const { state, bob } = makeWorld()
    const ids = () =>
      ((Model.pushRules(bob.user).global as JsonObject).room as ReadonlyArray<JsonObject>).map(({ rule_id }) => rule_id)
    const set = (ruleId: string, place: Partial<Model.NewPushRule> = {}) =>
      Model.setPushRule(state, bob.user, { ...own, ruleId, ...place })
    get(set("one"))
    get(set("two"))
    get(set("three", { before: "one" }))
    get(set("four", { after: "two" }))
    assert.deepStrictEqual(ids(), ["two", "four", "three", "one"])
    get(Model.deletePushRule(state, bob.user, { kind: "room", ruleId: "three" }))
    assert.deepStrictEqual(ids(), ["two", "four", "one"])
    assert.strictEqual(refusal(set("five", { after: "three" })).status, 400)
    assert.strictEqual(refusal(set(".m.rule.mine")).status, 400)
    assert.strictEqual(refusal(set("x", { kind: "override" })).status, 400)
  })

  it("stay off when they are set again, and default ones can be changed but not deleted", () => {
    const { state, bob } = makeWorld()
    get(Model.setPushRule(state, bob.user, own))
    get(Model.changePushRule(state, bob.user, own, { enabled: false }))
    get(Model.setPushRule(state, bob.user, { ...own, actions: ["notify"] }))
    assert.deepStrictEqual(get(Model.pushRule(bob.user, own)), {
      rule_id: "!a:b",
      default: false,
      enabled: false,
      actions: ["notify"]
    })
    const reaction = { kind: "override", ruleId: ".m.rule.reaction" }
    get(Model.changePushRule(state, bob.user, reaction, { actions: ["notify"] }))
    assert.deepInclude(get(Model.pushRule(bob.user, reaction)), { actions: ["notify"], default: true })
    assert.strictEqual(refusal(Model.deletePushRule(state, bob.user, reaction)).errcode, "M_NOT_FOUND")
  })
})

describe("HomeserverModel thread subscriptions", () => {
  it("are of threads that one sees, and not taken up again for what came before one left", () => {
    const { state, bob, roomId, say, send } = makeWorld()
    const thread = { roomId, threadRootId: say("root") }
    const relation = { rel_type: "m.thread", event_id: thread.threadRootId }
    const reply = send("m.room.message", { body: "reply", "m.relates_to": relation })
    const missing = refusal(Model.threadSubscription(bob, thread))
    assert.deepInclude(missing, { status: 404, errcode: "M_NOT_FOUND" })
    get(Model.subscribeToThread(state, bob, thread, reply))
    assert.deepStrictEqual(get(Model.threadSubscription(bob, thread)), { automatic: true })
    get(Model.subscribeToThread(state, bob, thread, undefined))
    get(Model.subscribeToThread(state, bob, thread, reply))
    assert.deepStrictEqual(get(Model.threadSubscription(bob, thread)), { automatic: false })
    get(Model.unsubscribeFromThread(state, bob, thread))
    assert.strictEqual(refusal(Model.threadSubscription(bob, thread)).errcode, "M_NOT_FOUND")
    assert.strictEqual(refusal(Model.subscribeToThread(state, bob, thread, reply)).status, 409)
    assert.strictEqual(refusal(Model.subscribeToThread(state, bob, thread, thread.threadRootId)).status, 400)
    const stranger = requester(state, "carol")
    assert.strictEqual(refusal(Model.subscribeToThread(state, stranger, thread, undefined)).errcode, "M_NOT_FOUND")
  })
})
