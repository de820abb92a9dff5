import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { JsonObject, MatrixEvent } from "../src/matrix/MatrixEvent.ts"
import { pathNames } from "../src/matrix/PushConditions.ts"
import * as PushRules from "../src/matrix/PushRules.ts"
import { defaultPushRules } from "../src/testing/homeserver/DefaultPushRules.ts"

const alice = "@alice:x.org"
const bob = "@bob:x.org"
const room = "!kitchen:x.org"
const context: PushRules.RuleContext = { ownUserId: alice, roomId: room }

const message = (body: unknown, more: JsonObject = {}): MatrixEvent => ({
  type: "m.room.message",
  sender: bob,
  event_id: "$1",
  content: { msgtype: "m.text", body, ...more }
})

const notify = ["notify"]

const wireRule = (ruleId: string, more: JsonObject = {}): JsonObject => ({
  rule_id: ruleId,
  default: ruleId.startsWith("."),
  enabled: true,
  actions: notify,
  ...more
})

/** Reads rules of which none may be left out. */
const read = (global: JsonObject): PushRules.Ruleset => {
  const { quarantined, ruleset } = PushRules.decode({ global })
  assert.deepStrictEqual(quarantined, [])
  return ruleset
}

const oneRule = (...conditions: ReadonlyArray<JsonObject>): PushRules.Ruleset =>
  read({ override: [wireRule("mine", { conditions })] })

/** Whether an event meets a condition. */
const meets = (condition: JsonObject, event: MatrixEvent, more: Partial<PushRules.RuleContext> = {}): boolean =>
  PushRules.evaluate(oneRule(condition), event, { ...context, ...more }).isNotify

const decidedBy = (ruleset: PushRules.Ruleset, event: MatrixEvent, more: Partial<PushRules.RuleContext> = {}) =>
  PushRules.evaluate(ruleset, event, { ...context, ...more }).rule?.ruleId

const pattern = (key: string, pattern: string): JsonObject => ({ kind: "event_match", key, pattern })

const is = (key: string, value: unknown): JsonObject => ({ kind: "event_property_is", key, value })

describe("PushRules event_match", () => {
  it("takes the whole value, case aside", () => {
    assert.isTrue(meets(pattern("content.topic", "lunc?*"), message("", { topic: "LUNCH plans" })))
    assert.isTrue(meets(pattern("type", "M.Room.*"), message("")))
    for (const topic of [" lunch", "lunc", null, 3, ["lunch"], { lunch: 1 }])
      assert.isFalse(meets(pattern("content.topic", "lunc?*"), message("", { topic })), JSON.stringify(topic))
    assert.isFalse(meets(pattern("content.topic", "*"), message("")), "an absent value")
  })

  it("takes the empty pattern for the empty value", () => {
    assert.isTrue(meets(pattern("state_key", ""), { ...message(""), state_key: "" }))
    assert.isFalse(meets(pattern("state_key", ""), { ...message(""), state_key: "a" }))
    assert.isFalse(meets(pattern("state_key", ""), message("")))
  })

  it("looks between word boundaries in the body, and nowhere else", () => {
    for (const body of [
      "An example event.",
      "exple",
      "An exciting triple-whammy",
      "«EXAMPLE»",
      "éexample",
      "a\nexample"
    ])
      assert.isTrue(meets(pattern("content.body", "ex*ple"), message(body)), body)
    for (const body of ["An example_ event", "1example", "", "hexample", 5])
      assert.isFalse(meets(pattern("content.body", "ex*ple"), message(body)), String(body))
    assert.isFalse(meets(pattern("content.formatted_body", "example"), message("", { formatted_body: "an example" })))
  })

  it("lets a part begin or end with the boundary itself", () => {
    assert.isTrue(meets(pattern("content.body", "@room"), message("hey all@room!")))
    assert.isTrue(meets(pattern("content.body", "c++"), message("c++11")))
    assert.isFalse(meets(pattern("content.body", "@room"), message("@rooms")))
  })

  it("knows the room's id, whatever the event says", () => {
    assert.isTrue(meets(pattern("room_id", room), message("")))
    assert.isFalse(meets(pattern("room_id", "!other"), { ...message(""), room_id: "!other" }))
  })

  it("doesn't hold without a key or a pattern that are text", () => {
    for (const wrong of [
      { key: "content.body" },
      { pattern: "*" },
      { key: 1, pattern: "*" },
      { key: "type", pattern: 1 },
      { key: ["type"], pattern: "*" }
    ])
      assert.isFalse(meets({ kind: "event_match", ...wrong }, message("a")), JSON.stringify(wrong))
  })
})

describe("PushRules paths", () => {
  it("split at dots that no backslash escapes", () => {
    for (const [path, names] of [
      ["a.b", ["a", "b"]],
      ["content.m\\.mentions.room", ["content", "m.mentions", "room"]],
      ["a\\\\.b", ["a\\", "b"]],
      ["a\\b\\", ["a\\b\\"]],
      [".a.", ["", "a", ""]],
      ["", [""]]
    ] as const)
      assert.deepStrictEqual(pathNames(path), names, path)
  })

  it("lead through own properties of objects only", () => {
    const event = message("abc", JSON.parse('{"a.b": {"": "x"}, "list": ["x"], "__proto__": {"c": "x"}}'))
    assert.isTrue(meets(is("content.a\\.b.", "x"), event))
    assert.isTrue(meets(is("content.__proto__.c", "x"), event), "an own property of that name")
    for (const path of ["content.list.0", "content.list.length", "content.body.length", "content.constructor.name"])
      for (const value of ["x", 1, 3, "Object"]) assert.isFalse(meets(is(path, value), event), path)
    assert.isFalse(meets(is("content.a\\.b.__proto__.__proto__", null), event), "what every object inherits")
    assert.isFalse(meets({ kind: "constructor" }, event))
    assert.isFalse(meets({ kind: "__proto__" }, event))
  })
})

describe("PushRules event_property_is and event_property_contains", () => {
  it("compare text, integers, booleans and null exactly", () => {
    for (const value of ["x", "", 0, -5, true, false, null]) {
      assert.isTrue(meets(is("content.v", value), message("", { v: value })), JSON.stringify(value))
      assert.isTrue(
        meets({ ...is("content.v", value), kind: "event_property_contains" }, message("", { v: [[], value] }))
      )
    }
    for (const [wanted, found] of [
      ["x", "X"],
      [1, "1"],
      [true, 1],
      [null, undefined],
      [undefined, undefined],
      [0, false],
      [1.5, 1.5],
      [2 ** 53, 2 ** 53]
    ]) {
      assert.isFalse(meets(is("content.v", wanted), message("", { v: found })), `${wanted} and ${found}`)
      const contains = { ...is("content.v", wanted), kind: "event_property_contains" }
      assert.isFalse(meets(contains, message("", { v: [found] })), `${wanted} in a list of ${found}`)
    }
  })

  it("never take a list or an object for equal, nor a value for a list of it", () => {
    const shared = {}
    assert.isFalse(meets(is("content.v", shared), message("", { v: shared })))
    assert.isFalse(meets({ ...is("content.v", shared), kind: "event_property_contains" }, message("", { v: [shared] })))
    assert.isFalse(meets({ ...is("content.v", "a"), kind: "event_property_contains" }, message("", { v: "a" })))
  })
})

describe("PushRules room_member_count", () => {
  it("compares with the joined members", () => {
    const counts = [1, 2, 3]
    const cases: ReadonlyArray<readonly [condition: string, holds: Array<boolean>]> = [
      ["2", [false, true, false]],
      ["==2", [false, true, false]],
      ["<2", [true, false, false]],
      [">2", [false, false, true]],
      ["<=2", [true, true, false]],
      [">=2", [false, true, true]]
    ]
    for (const [condition, expected] of cases)
      assert.deepStrictEqual(
        counts.map((joinedCount) => meets({ kind: "room_member_count", is: condition }, message(""), { joinedCount })),
        expected,
        condition
      )
  })

  it("doesn't hold for what is no comparison, nor for a count that isn't known", () => {
    for (const condition of ["", "=2", "2.0", " 2", "2 ", "=>2", "==", "-2", 2, undefined, "٢"])
      assert.isFalse(
        meets({ kind: "room_member_count", is: condition }, message(""), { joinedCount: 2 }),
        String(condition)
      )
    assert.isFalse(meets({ kind: "room_member_count", is: ">=0" }, message("")))
  })
})

describe("PushRules sender_notification_permission", () => {
  const may = (powerLevels: JsonObject | undefined, more: Partial<PushRules.RuleContext> = {}, key: unknown = "room") =>
    meets({ kind: "sender_notification_permission", key }, message(""), { powerLevels, ...more })

  it("needs 50 unless the room says otherwise", () => {
    assert.isTrue(may({ users: { [bob]: 50 } }))
    assert.isFalse(may({ users: { [bob]: 49 } }))
    assert.isTrue(may({ users: { [bob]: 20 }, notifications: { room: 20 } }))
    assert.isFalse(may({ users: { [bob]: 60 }, notifications: { room: 61 } }))
    assert.isTrue(may({ users: { [bob]: 50 }, notifications: { room: 61 } }, {}, "other"))
  })

  it("takes the default power for whom the room doesn't name, 0 if there is none", () => {
    assert.isTrue(may({ users_default: 50 }))
    assert.isFalse(may({ users: { [bob]: 0 }, users_default: 50 }))
    assert.isFalse(may({}))
    assert.isFalse(may(undefined))
    assert.isTrue(may({ notifications: { room: 0 } }))
  })

  it("lets those who made the room do it", () => {
    assert.isTrue(may({ notifications: { room: 100 } }, { creators: [alice, bob] }))
    assert.isFalse(may(undefined, { creators: [alice] }))
  })

  it("reads levels that are text, as old rooms have them, and passes over what is no level", () => {
    assert.isTrue(may({ users: { [bob]: " 50 " }, notifications: { room: "+50" } }))
    assert.isFalse(may({ users: { [bob]: 60 }, notifications: { room: 0 } }, {}, 3))
    assert.isTrue(may({ users: { [bob]: 60 }, notifications: { room: "0x46" } }))
    assert.isTrue(may({ users: { [bob]: null }, users_default: "50", notifications: { room: [] } }))
    assert.isFalse(may({ users: [100], notifications: "room" }))
    assert.isFalse(may({ users: {}, notifications: {} }, {}, "constructor"))
  })
})

describe("PushRules contains_display_name", () => {
  const named = (ownDisplayName: string | undefined, body: unknown) =>
    meets({ kind: "contains_display_name" }, message(body), { ownDisplayName })

  it("finds the name as a word, taken literally, case aside", () => {
    assert.isTrue(named("Alice", "hey ALICE!"))
    assert.isTrue(named("A*", "hey a*"))
    assert.isFalse(named("A*", "hey alice"))
    assert.isFalse(named("Al", "hey Alice"))
    assert.isFalse(named("Alice", { alice: "Alice" }))
  })

  it("doesn't hold for a user without a name", () => {
    assert.isFalse(named(undefined, "hey alice"))
    assert.isFalse(named("", "hey alice"))
  })
})

describe("PushRules thread_subscription", () => {
  const asks = (subscribed: unknown): JsonObject => ({ kind: "io.element.msc4306.thread_subscription", subscribed })
  const inThread = message("a", { "m.relates_to": { rel_type: "m.thread", event_id: "$root" } })

  it("holds in a thread of which it is known whether the user follows it", () => {
    for (const isThreadSubscribed of [true, false, undefined])
      for (const wanted of [true, false, "true", undefined])
        assert.strictEqual(
          meets(asks(wanted), inThread, { isThreadSubscribed }),
          typeof wanted === "boolean" && wanted === isThreadSubscribed
        )
    assert.isFalse(meets(asks(false), message("a"), { isThreadSubscribed: false }))
  })

  it("is announced, so that whoever evaluates finds out about the thread", () => {
    assert.isTrue(PushRules.asksAboutThread(oneRule(is("type", "a"), asks(true))))
    assert.isTrue(PushRules.asksAboutThread(read({ postcontent: [wireRule(".t", { conditions: [asks(true)] })] })))
    const off = read({ underride: [wireRule("mine", { enabled: false, conditions: [asks(true)] })] })
    assert.isFalse(PushRules.asksAboutThread(off))
    assert.isFalse(PushRules.asksAboutThread(read(defaultPushRules(alice).global as JsonObject)))
  })
})

describe("PushRules order", () => {
  it("asks override, content, postcontent, room, sender, underride", () => {
    const lists: { readonly [kind: string]: ReadonlyArray<JsonObject> } = {
      underride: [wireRule("under")],
      sender: [wireRule(bob)],
      room: [wireRule(room)],
      postcontent: [wireRule("post")],
      content: [wireRule("keyword", { pattern: "lunch" })],
      override: [wireRule("over")]
    }
    const expected = ["over", "keyword", "post", room, bob, "under", undefined]
    const left = new Map(Object.entries(lists))
    for (const kind of ["override", "content", "postcontent", "room", "sender", "underride", "none"]) {
      assert.strictEqual(decidedBy(read(Object.fromEntries(left)), message("lunch?")), expected.shift(), kind)
      left.delete(kind)
    }
  })

  it("asks the master first, then the user's rules before the server's, each as they come", () => {
    const ids = [".b", "2", ".m.rule.master", "1", ".a", "3"]
    const ruleset = read({ override: ids.map((id) => wireRule(id)) })
    assert.deepStrictEqual(
      ruleset.rules.map(({ ruleId }) => ruleId),
      [".m.rule.master", "2", "1", "3", ".b", ".a"]
    )
  })

  it("passes over rules that are off, and those of which one condition doesn't hold or isn't known", () => {
    const ruleset = read({
      override: [
        wireRule(".m.rule.master", { enabled: false, actions: [] }),
        wireRule("off", { enabled: false }),
        wireRule("half", { conditions: [is("type", "m.room.message"), is("type", "other")] }),
        wireRule("new", { conditions: [{ kind: "org.example.moon_is_full" }] }),
        wireRule("kindless", { conditions: [{}] }),
        wireRule("no conditions")
      ]
    })
    assert.strictEqual(decidedBy(ruleset, message("a")), "no conditions")
  })

  it("asks rules of rooms and senders for exactly that room and sender", () => {
    const ruleset = read({
      room: [wireRule("!KITCHEN:x.org"), wireRule("!*")],
      sender: [wireRule("@BOB:x.org"), wireRule("*")]
    })
    assert.isUndefined(decidedBy(ruleset, message("a")))
  })

  it("leaves the old rules about mentions out where the event says whom it mentions", () => {
    const rules = {
      override: [
        wireRule(".m.rule.contains_display_name", { conditions: [{ kind: "contains_display_name" }] }),
        wireRule(".m.rule.roomnotif", { conditions: [pattern("content.body", "@room")] })
      ],
      content: [wireRule(".m.rule.contains_user_name", { pattern: "alice" }), wireRule("mine", { pattern: "bread" })]
    }
    const named = { ownDisplayName: "Queen" }
    for (const [body, decided] of [
      ["queen", ".m.rule.contains_display_name"],
      ["@room", ".m.rule.roomnotif"],
      ["alice", ".m.rule.contains_user_name"]
    ] as const) {
      assert.strictEqual(decidedBy(read(rules), message(body), named), decided)
      for (const mentions of [{}, { user_ids: [alice] }, null, "x"])
        assert.isUndefined(decidedBy(read(rules), message(body, { "m.mentions": mentions }), named))
    }
    assert.strictEqual(decidedBy(read(rules), message("bread", { "m.mentions": {} })), "mine")
  })
})

describe("PushRules evaluation", () => {
  const outcome = (...actions: ReadonlyArray<unknown>) =>
    PushRules.evaluate(read({ override: [wireRule("mine", { actions })] }), message("a"), context)

  it("tells the sound and the highlight, which is true without a value", () => {
    const loud = outcome("notify", { set_tweak: "sound", value: "ring" }, { set_tweak: "highlight" })
    assert.deepInclude(loud, { isNotify: true, isNoisy: true, isMention: true, sound: "ring" })
    assert.deepInclude(outcome("notify"), { isNotify: true, isNoisy: false, isMention: false })
    assert.isFalse(outcome("notify", { set_tweak: "highlight", value: false }).isMention)
    assert.isFalse(outcome("notify", { set_tweak: "highlight" }, { set_tweak: "highlight", value: false }).isMention)
    assert.notProperty(outcome("notify", { set_tweak: "sound" }), "sound")
  })

  it("drops the actions of old, and is quiet without notify", () => {
    assert.deepStrictEqual(outcome("dont_notify", "coalesce").actions, [])
    const quiet = outcome("dont_notify", { set_tweak: "sound", value: "default" })
    assert.deepInclude(quiet, { isNotify: false, isNoisy: false })
    assert.notProperty(quiet, "sound")
    assert.isTrue(outcome("coalesce", "notify").isNotify)
  })

  it("is quiet, and names no rule, where none matches", () => {
    const nothing = { rule: undefined, actions: [], isNotify: false, isNoisy: false, isMention: false }
    assert.deepStrictEqual(PushRules.evaluate({ rules: [] }, message("a"), context), nothing)
  })

  it("gives the rules of a new account the meaning that the spec gives them", () => {
    const ruleset = read(defaultPushRules(alice).global as JsonObject)
    const say = (event: MatrixEvent, more: Partial<PushRules.RuleContext> = {}) =>
      PushRules.evaluate(ruleset, event, { ...context, joinedCount: 5, ...more })
    const rules = (event: MatrixEvent, more: Partial<PushRules.RuleContext> = {}) => say(event, more).rule?.ruleId
    assert.deepInclude(say(message("a")), { isNotify: true, isNoisy: false, isMention: false })
    assert.deepInclude(say(message("a"), { joinedCount: 2 }), { isNotify: true, isNoisy: true, isMention: false })
    assert.deepInclude(say(message("a", { "m.mentions": { user_ids: [alice] } })), { isNoisy: true, isMention: true })
    assert.deepInclude(say(message("so, Alice")), { isNoisy: true, isMention: true })
    assert.isFalse(say(message("alice", { msgtype: "m.notice" })).isNotify)
    assert.isFalse(say(message("* a", { "m.relates_to": { rel_type: "m.replace" } })).isNotify)
    const everybody = message("a", { "m.mentions": { room: true } })
    assert.strictEqual(rules(everybody), ".m.rule.message")
    assert.strictEqual(rules(everybody, { powerLevels: { users_default: 50 } }), ".m.rule.is_room_mention")
    assert.strictEqual(rules(message("@room"), { creators: [bob] }), ".m.rule.roomnotif")
    const invite = { type: "m.room.member", sender: bob, state_key: alice, content: { membership: "invite" } }
    assert.strictEqual(rules(invite), ".m.rule.invite_for_me")
    assert.strictEqual(rules({ ...invite, state_key: "@carol:x.org" }), ".m.rule.member_event")
    assert.strictEqual(rules({ ...invite, type: "m.room.encrypted" }), ".m.rule.encrypted")
    assert.strictEqual(rules({ ...invite, type: "m.reaction" }), ".m.rule.reaction")
    const answer = { ...invite, type: "org.matrix.msc3381.poll.response" }
    assert.strictEqual(rules(answer), ".org.matrix.msc3930.rule.poll_response")
  })
})

describe("PushRules reading (I7)", () => {
  it("leaves out what is no rule, says so, and keeps the others", () => {
    const wrong: ReadonlyArray<readonly [kind: string, raw: unknown]> = [
      ["override", 3],
      ["override", null],
      ["override", ["a"]],
      ["room", wireRule("", { rule_id: 3 })],
      ["sender", { ...wireRule("a"), enabled: undefined }],
      ["underride", wireRule("a", { actions: "notify" })],
      ["underride", wireRule("a", { actions: ["notify", 3] })],
      ["underride", wireRule("a", { conditions: {} })],
      ["underride", wireRule("a", { conditions: ["event_match"] })],
      ["content", wireRule("a")]
    ]
    for (const [kind, raw] of wrong) {
      const good = wireRule("good", kind === "content" ? { pattern: "a" } : {})
      const { quarantined, ruleset } = PushRules.decode({ global: { [kind]: [raw, good] } })
      assert.deepStrictEqual(
        ruleset.rules.map(({ ruleId }) => ruleId),
        ["good"]
      )
      assert.deepStrictEqual(
        quarantined.map((entry) => entry.raw),
        [raw],
        kind
      )
      assert.match(quarantined[0]?.reason ?? "", new RegExp(`^A push rule of kind "${kind}" can't be used: .*\\.$`))
    }
  })

  it("tells lists that are none, kinds that aren't known, and content without rules", () => {
    const told = (content: JsonObject) => PushRules.decode(content).quarantined.map(({ raw }) => raw)
    assert.deepStrictEqual(told({ global: { override: { a: 1 } } }), [{ a: 1 }])
    assert.deepStrictEqual(told({ global: { overboard: [], __proto__: null } }), [[]])
    assert.deepStrictEqual(told({ global: [] }), [{ global: [] }])
    assert.deepStrictEqual(told({}), [{}])
    assert.deepStrictEqual(told({ global: {} }), [])
  })
})

describe("PushRules and hostile input (I7)", () => {
  const json = fc.jsonValue({ maxDepth: 4 })
  const name = fc.constantFrom("content", "body", "type", "sender", "room_id", "m.mentions", "a", "__proto__", "length")
  const tree = fc.letrec<{ value: unknown }>((tie) => ({
    value: fc.oneof(
      { maxDepth: 4 },
      fc.oneof(json, fc.string({ unit: "binary" }), name),
      fc.array(tie("value"), { maxLength: 4 }),
      fc.dictionary(name, tie("value"), { maxKeys: 5 })
    )
  })).value
  const key = fc.array(fc.oneof(name, fc.string()), { maxLength: 5 }).map((names) => names.join("."))
  const condition = fc.record(
    {
      kind: fc.constantFrom(
        "event_match",
        "event_property_is",
        "event_property_contains",
        "contains_display_name",
        "room_member_count",
        "sender_notification_permission",
        "io.element.msc4306.thread_subscription",
        "toString"
      ),
      key: fc.oneof(key, tree),
      pattern: fc.oneof(fc.string(), tree),
      value: tree,
      is: fc.oneof(fc.stringMatching(/^[<>=]{0,2}\d{0,20}$/), tree),
      subscribed: fc.oneof(fc.boolean(), tree)
    },
    { requiredKeys: [] }
  )
  const mostly = <A>(arbitrary: fc.Arbitrary<A>) => fc.oneof({ weight: 9, arbitrary }, { weight: 1, arbitrary: tree })
  const rule = fc.record({
    rule_id: mostly(fc.oneof(fc.string(), fc.constantFrom(".m.rule.master", ".m.rule.roomnotif"))),
    default: mostly(fc.boolean()),
    enabled: mostly(fc.constant(true)),
    pattern: mostly(fc.string()),
    conditions: mostly(fc.array(condition, { maxLength: 3 })),
    actions: mostly(fc.constant(["notify"]))
  })
  const global = fc.dictionary(
    fc.constantFrom("override", "content", "postcontent", "room", "sender", "underride", "other"),
    mostly(fc.array(mostly(rule), { maxLength: 4 }))
  )

  it("never throws, for any JSON that is called an event, rules or power levels", () => {
    let matched = 0
    fc.assert(
      fc.property(
        fc.record({ global: mostly(global) }),
        fc.oneof(fc.dictionary(name, tree), tree),
        fc.record({ powerLevels: tree, ownDisplayName: fc.string(), joinedCount: fc.nat() }),
        (content, event, facts) => {
          const { quarantined, ruleset } = PushRules.decode(content)
          const known = { ...context, ...facts } as unknown as PushRules.RuleContext
          const { actions, rule } = PushRules.evaluate(ruleset, event as MatrixEvent, known)
          assert.isArray(actions)
          if (rule !== undefined) matched += 1
          for (const { raw, reason } of quarantined) assert.isString(`${reason}${JSON.stringify(raw)}`)
        }
      ),
      { numRuns: 2_000 }
    )
    // Garbage that is all refused would prove nothing.
    assert.isAbove(matched, 300)
  })

  it("stands deep nesting and huge values", () => {
    const depth = 100_000
    const deep = JSON.parse(`${'{"a":'.repeat(depth)}"x"${"}".repeat(depth)}`) as JsonObject
    const path = `content${".a".repeat(depth)}`
    assert.isTrue(meets(is(path, "x"), { ...message(""), content: deep }))
    const { quarantined } = PushRules.decode({ global: { override: [deep], underride: deep } })
    assert.lengthOf(quarantined, 2)
    assert.isFalse(meets(is("content.".repeat(depth), "x"), message("")))
  })

  it("ends for many rules of many stars on a body as long as an event can be", () => {
    const body = "a".repeat(65_536)
    const content = Array.from({ length: 40 }, (_, index) => wireRule(`${index}`, { pattern: `${"*a".repeat(200)}*b` }))
    assert.isUndefined(decidedBy(read({ content }), message(body)))
  })
})
