import { assert, describe, it } from "@effect/vitest"
import type { JsonObject, TimelineEvent } from "../src/matrix/MatrixEvent.ts"
import * as NotificationFacts from "../src/notification/NotificationFacts.ts"
import { dismiss, judge, type Judged, threadRootOf } from "../src/notification/NotificationRules.ts"
import type { Undecryptable } from "../src/sync/EventDecryptor.ts"
import {
  aMember,
  aMessage,
  anEvent,
  arbitraryContent,
  arbitraryEvent,
  aResponse,
  aRoom
} from "../src/testing/Generators.ts"

const me = "@me:localhost"
const sender = "@sender:localhost"
const room = "!room:localhost"
const nothing = NotificationFacts.none(me)

const rule = (ruleId: string, actions: ReadonlyArray<unknown>, conditions: ReadonlyArray<JsonObject> = []) => ({
  rule_id: ruleId,
  enabled: true,
  actions,
  conditions
})
const rules = (...override: ReadonlyArray<JsonObject>) =>
  NotificationFacts.withAccountData(nothing, [{ type: "m.push_rules", content: { global: { override } } }])

/** Everything about the room and its members is known. */
const knowing = (facts: NotificationFacts.Facts, timeline: ReadonlyArray<TimelineEvent> = []) => {
  const update = aRoom(room, { name: "Kitchen", messages: 0 })
  const requiredState = [...update.requiredState, aMember(sender, "join", "Sam")]
  return NotificationFacts.withSync(facts, aResponse({ pos: "p", rooms: [{ ...update, requiredState, timeline }] }))
}
const result = (facts: NotificationFacts.Facts, more: Partial<Judged> = {}) =>
  judge(facts, { roomId: room, event: aMessage(1), ...more })
const noKey: Undecryptable = { _tag: "Undecryptable", reason: "MissingRoomKey", message: "no key" }
const secret = anEvent(1, { type: "m.room.encrypted", content: {} })

describe("NotificationRules.dismiss", () => {
  it("lets nothing be decrypted that is of no interest: taken back first of all, then one's own, then the ignored", () => {
    const own = aMessage(1, "mine", me)
    const ignoring = NotificationFacts.withAccountData(nothing, [
      { type: "m.ignored_user_list", content: { ignored_users: { [sender]: {} } } }
    ])
    assert.isUndefined(dismiss(nothing, room, aMessage(1)))
    assert.strictEqual(dismiss(nothing, room, { ...own, unsigned: { redacted_because: {} } })?._tag, "Redacted")
    assert.deepInclude(dismiss(nothing, room, own), { _tag: "FilteredOut", reason: "ownEvent" })
    assert.deepInclude(dismiss(ignoring, room, aMessage(1)), { _tag: "FilteredOut", reason: "ignoredSender" })
  })
})

describe("NotificationRules.judge", () => {
  it("shows an event about which everything is known, with nothing missing", () => {
    const facts = knowing(
      rules(rule("all", ["notify", { set_tweak: "sound", value: "x" }, { set_tweak: "highlight" }]))
    )
    const judged = result(facts)
    assert.strictEqual(judged._tag, "Event")
    assert.deepInclude(judged._tag === "Event" ? judged.item : {}, {
      kind: "message",
      isNoisy: true,
      isMention: true,
      missing: []
    })
  })

  it("names the rule that silences, or says that none speaks", () => {
    assert.deepInclude(result(knowing(rules(rule("mute", [])))), { reason: "pushRule", rule: "mute" })
    const none = result(knowing(rules()))
    assert.deepInclude(none, { _tag: "FilteredOut", reason: "pushRule" })
    assert.notProperty(none, "rule")
  })

  it("I7: shows what is known, and names what isn't, with the reason", () => {
    const judged = result(nothing, { why: "the homeserver is on fire" })
    const missing = judged._tag === "Event" ? judged.item.missing : []
    assert.deepStrictEqual(
      missing.map(({ part }) => part),
      ["room", "sender", "pushRules"]
    )
    for (const { message } of missing) assert.include(message, "on fire")
    const known = result(knowing(nothing))
    assert.deepStrictEqual(known._tag === "Event" ? known.item.missing.map(({ part }) => part) : known, ["pushRules"])
  })

  it("judges an event that can't be read as it came, and shows it with the reason", () => {
    const encrypted = [{ kind: "event_match", key: "type", pattern: "m.room.encrypted" }]
    const shown = result(knowing(rules(rule("encrypted", ["notify"], encrypted))), {
      event: secret,
      undecryptable: noKey
    })
    assert.deepInclude(shown, { _tag: "Undecrypted", reason: "MissingRoomKey", message: "no key" })
    assert.isTrue(shown._tag === "Undecrypted" && shown.item.room.isEncrypted)
    const muted = result(knowing(rules(rule("mute", [], encrypted))), { event: secret, undecryptable: noKey })
    assert.deepInclude(muted, { _tag: "FilteredOut", rule: "mute" })
  })

  it("tells the shield of what was decrypted, whose room is encrypted then", () => {
    const judged = result(knowing(nothing), { shield: { color: "red", code: "UnknownDevice" } })
    assert.isTrue(judged._tag === "Event" && judged.item.room.isEncrypted && judged.item.shield?.color === "red")
  })

  it("asks the rules about the thread, when it is known whether the user follows it", () => {
    const condition = { kind: "io.element.msc4306.thread_subscription", subscribed: true }
    const facts = knowing(rules(rule("thread", ["notify"], [condition])))
    const event = anEvent(1, { content: { body: "x", "m.relates_to": { rel_type: "m.thread", event_id: "$root" } } })
    const followed = result(facts, { event, isThreadSubscribed: true })
    assert.isTrue(followed._tag === "Event" && followed.item.threadRootId === "$root")
    assert.strictEqual(result(facts, { event, isThreadSubscribed: false })._tag, "FilteredOut")
    assert.strictEqual(result(facts, { event })._tag, "FilteredOut", "a rule that can't be asked doesn't match")
  })

  it("finds the root of a thread, and none in nonsense", () => {
    const root = (relation: unknown) => threadRootOf(anEvent(1, { content: { "m.relates_to": relation } }))
    assert.strictEqual(root({ rel_type: "m.thread", event_id: "$root" }), "$root")
    for (const nonsense of [undefined, "x", [], { rel_type: "m.thread" }, { rel_type: "m.thread", event_id: 7 }])
      assert.isUndefined(root(nonsense))
    assert.isUndefined(root({ rel_type: "m.replace", event_id: "$root" }))
  })

  it.prop(
    "I7: comes to something, whatever the event and the rules",
    [arbitraryEvent, arbitraryContent],
    ([event, content]) => {
      const facts = NotificationFacts.withAccountData(knowing(nothing, [event]), [{ type: "m.push_rules", content }])
      const judged = result(facts, { event })
      assert.include(["Event", "FilteredOut", "Redacted"], judged._tag)
    }
  )
})
