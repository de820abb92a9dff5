/**
 * Events, rooms and push rules that have to do with each other, so that rules match about as often as not.
 *
 * Values come from short lists that overlap: words with capitals, accents and emoji, names that are words, patterns made of
 * those words. Rules come in the order in which a homeserver gives them.
 */
import type { MatrixEvent } from "@twinloop/core"
import { HomeserverModel } from "@twinloop/core/homeserver"
import { Result } from "effect"
import * as fc from "fast-check"

export type JsonObject = MatrixEvent.JsonObject

export const alice = "@alice:x.org"
export const bob = "@bob:x.org"
export const carol = "@carol:x.org"
export const roomId = "!kitchen:x.org"

/** An event as it is once decrypted, without the room's id. */
export interface Sent extends JsonObject {
  readonly type: string
  readonly sender: string
  readonly content: JsonObject
}

export interface RoomFacts {
  readonly version: "10" | "12"
  readonly creator: string
  /** Display names of the joined members by user id, null for one without. */
  readonly names: { readonly [userId: string]: string | null }
  /** More members that have joined, whose member events haven't been loaded. */
  readonly joinedCount: number
  readonly powerLevels: JsonObject | undefined
  readonly isThreadSubscribed: boolean
}

export interface Case {
  readonly event: Sent
  readonly wasEncrypted: boolean
  readonly room: RoomFacts
  /** `global` of `m.push_rules`. */
  readonly global: Rules
}

const often = <A>(value: A, other: fc.Arbitrary<A>, weight = 3): fc.Arbitrary<A> =>
  fc.oneof({ weight, arbitrary: fc.constant(value) }, { weight: 1, arbitrary: other })

// --- texts

const words = [
  "lunch",
  "Bread",
  "alice",
  "Ada",
  "@room",
  "c++",
  "über",
  "ОБЕД",
  "δρόμος",
  "𐐀𐐁",
  "😀",
  "a_b",
  "x1",
  "(soup)",
  "Ada (@alice:x.org)",
  alice
]
const word = fc.constantFrom(...words)
const changed = fc
  .tuple(word, fc.constantFrom("same", "upper", "lower"))
  .map(([text, how]) => (how === "upper" ? text.toUpperCase() : how === "lower" ? text.toLowerCase() : text))
const separator = fc.constantFrom(" ", " ", " ", ", ", "!", "\n", "\n", "-", "_", "", "1", "é", "👍")
const body = fc.oneof(
  {
    weight: 9,
    arbitrary: fc.array(fc.tuple(changed, separator), { maxLength: 4 }).map((parts) => parts.flat().join(""))
  },
  { weight: 1, arbitrary: fc.constantFrom("lunch\nand bread", "lunch and bread", "to Ada (@alice:x.org)") },
  { weight: 1, arbitrary: fc.constantFrom<unknown>("", 5, null, ["lunch"]) }
)
const pattern = fc.oneof(
  { weight: 6, arbitrary: changed },
  { weight: 2, arbitrary: fc.tuple(changed, changed).map(([one, other]) => `${one}*${other}`) },
  { weight: 1, arbitrary: changed.map((text) => `${text.slice(0, 2)}*`) },
  { weight: 1, arbitrary: changed.map((text) => `*${text.slice(-2)}`) },
  { weight: 1, arbitrary: changed.map((text) => `${text.slice(0, 1)}?${text.slice(2)}`) },
  { weight: 1, arbitrary: fc.constantFrom("lunch*bread", "Lunch*and*") },
  { weight: 1, arbitrary: fc.constantFrom("*", "", "?", "**", "+", "[a-z]*", "a.ice", "lunch|bread") }
)

// --- rooms

const level = fc.constantFrom<unknown>(0, 20, 49, 50, 51, 100, "50", "5", -1)
const powerLevels = fc.record(
  {
    users: fc.dictionary(fc.constantFrom(alice, bob, carol), level, { maxKeys: 3 }),
    users_default: level,
    notifications: fc.dictionary(fc.constantFrom("room", "all"), level, { maxKeys: 2 })
  },
  { requiredKeys: [] }
)
const names = fc
  .record({
    [alice]: fc.constantFrom("Ada", "alice", "über", "A*", "c++", "😀", "lunch", "ОБЕД", null),
    [bob]: fc.constantFrom("Bob", "Bob", "Ada", null),
    [carol]: fc.constantFrom("Carol", null)
  })
  .chain((all) => fc.boolean().map((isCarolLoaded) => (isCarolLoaded ? all : { [alice]: all[alice], [bob]: all[bob] })))
const room = fc
  .record({
    version: fc.constantFrom("10", "12"),
    creator: fc.constantFrom(alice, bob, carol),
    names,
    joinedCount: fc.constantFrom(1, 2, 2, 3, 10, 11),
    powerLevels: fc.option(powerLevels, { nil: undefined }),
    isThreadSubscribed: fc.boolean()
  })
  // A room of version 12 has power levels from its beginning.
  .map((facts) => ({ ...facts, powerLevels: facts.version === "12" ? (facts.powerLevels ?? {}) : facts.powerLevels }))

// --- events

const value = fc.constantFrom<unknown>("lunch", 1, 0, 1.5, true, false, null)
const relation = fc.constantFrom<JsonObject>(
  { rel_type: "m.thread", event_id: "$root" },
  { rel_type: "m.replace", event_id: "$old" },
  { "m.in_reply_to": { event_id: "$old" } }
)
const mentions = fc.constantFrom<unknown>(
  {},
  { user_ids: [alice] },
  { user_ids: [carol, alice] },
  { user_ids: [carol] },
  { room: true },
  { room: "true" },
  null
)
const optional = <A>(arbitrary: fc.Arbitrary<A>) => fc.option(arbitrary, { nil: undefined, freq: 2 })
const withoutUndefined = (object: JsonObject): JsonObject =>
  Object.fromEntries(Object.entries(object).filter(([, item]) => item !== undefined))

const sender = fc.constantFrom(bob, bob, carol)
const message = fc
  .record({
    type: often("m.room.message", fc.constantFrom("m.reaction", "m.call.invite", "m.sticker", "org.example.poll")),
    sender,
    msgtype: often<unknown>("m.text", fc.constantFrom<unknown>("m.notice", "M.NOTICE", undefined), 5),
    body,
    topic: optional(changed),
    list: optional(fc.array(fc.oneof(value, changed), { maxLength: 3 })),
    "a.b": optional(fc.record({ "c\\d": value, "": changed })),
    flag: value,
    "m.relates_to": optional(relation),
    "m.mentions": optional(mentions),
    "m.intent": optional(fc.constant("m.ring"))
  })
  .map(({ sender, type, ...content }): Sent => ({ type, sender, content: withoutUndefined(content) }))
const state = fc.constantFrom<Sent>(
  { type: "m.room.member", sender: bob, state_key: alice, content: { membership: "invite" } },
  { type: "m.room.member", sender: carol, state_key: carol, content: { membership: "join", displayname: "Ada" } },
  { type: "m.room.tombstone", sender: bob, state_key: "", content: { body: "lunch" } },
  { type: "m.room.server_acl", sender: bob, state_key: "", content: {} },
  { type: "m.room.topic", sender: carol, state_key: "", content: { topic: "Lunch" } }
)

// --- rules

const path = fc.constantFrom(
  "content.body",
  "content.body",
  "content.topic",
  "content.msgtype",
  "type",
  "sender",
  "state_key",
  "room_id",
  "content.flag",
  "content.a\\.b.c\\d",
  "content.a\\.b.c\\\\d",
  "content.a\\.b.",
  "content.a.b.c",
  "content.list",
  "content.list.0",
  "content.body.length",
  "content.m\\.relates_to.rel_type",
  "content.m\\.mentions.room"
)
const known = fc.constantFrom(
  "m.room.message",
  "m.room.*",
  "*member",
  "m.text",
  "M.Notice",
  bob,
  alice,
  roomId,
  "m.thread"
)
const condition: fc.Arbitrary<JsonObject> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ kind: fc.constant("event_match"), key: path, pattern: fc.oneof(pattern, known) })
  },
  { weight: 3, arbitrary: pattern.map((pattern) => ({ kind: "event_match", key: "content.body", pattern })) },
  { weight: 2, arbitrary: fc.constant({ kind: "event_match", key: "type", pattern: "m.room.message" }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("event_match"), key: path, value: known }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("event_property_is"),
      key: fc.oneof(path, fc.constantFrom("content.flag", "content.list.0")),
      value: fc.oneof(value, known, word)
    })
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("event_property_contains"),
      key: fc.constantFrom("content.list", "content.m\\.mentions.user_ids", "content.body"),
      value: fc.oneof(value, fc.constantFrom(alice, carol), word)
    })
  },
  { weight: 2, arbitrary: fc.constant({ kind: "contains_display_name" }) },
  {
    weight: 2,
    arbitrary: fc
      .tuple(fc.constantFrom("", "==", "<", ">", "<=", ">=", "=", "=>", "a"), fc.constantFrom("2", "3", "10", "02", ""))
      .map(([operator, count]) => ({ kind: "room_member_count", is: `${operator}${count}` }))
  },
  {
    weight: 2,
    arbitrary: fc.constantFrom("room", "all", "other").map((key) => ({ kind: "sender_notification_permission", key }))
  },
  {
    weight: 1,
    arbitrary: fc.boolean().map((subscribed) => ({ kind: "io.element.msc4306.thread_subscription", subscribed }))
  },
  {
    weight: 1,
    arbitrary: fc.constantFrom({ kind: "org.matrix.msc3914.call_started" }, { kind: "org.example.moon" }, {})
  }
)

const actions = fc.subarray<unknown>([
  "notify",
  "dont_notify",
  "coalesce",
  { set_tweak: "sound", value: "default" },
  { set_tweak: "highlight" },
  { set_tweak: "highlight", value: false }
])
const enabled = often(true, fc.constant(false), 4)

const rules = <A extends JsonObject>(extra: fc.Arbitrary<A>, max: number) =>
  fc.array(fc.record({ extra, enabled, actions }), { maxLength: max }).map((all) =>
    all.map(({ extra, ...rule }, index): JsonObject => ({
      rule_id: `mine${index}`,
      default: false,
      ...rule,
      ...extra
    }))
  )
const conditions = fc.record({ conditions: fc.array(condition, { minLength: 1, maxLength: 2 }) })

const switched = (list: unknown, switches: ReadonlyArray<boolean>): ReadonlyArray<JsonObject> =>
  (list as ReadonlyArray<JsonObject>).map((rule, index) => ({
    ...rule,
    enabled: rule.enabled === true ? switches[index % switches.length] : switches.slice(0, 5).every((on) => !on)
  }))
const switches = fc.array(fc.boolean(), { minLength: 13, maxLength: 13 })

type Rules = { readonly [kind: string]: ReadonlyArray<JsonObject> }

/** The rules that the dev homeserver gives to Alice, in the order in which Synapse has them. */
const serverRules = (): Rules => {
  const user = HomeserverModel.ensureUser(HomeserverModel.make({ serverName: "x.org" }), { localpart: "alice" })
  return Result.getOrThrow(user).accountData.get("m.push_rules")?.content.global as Rules
}

const global = fc
  .record({
    override: rules(conditions, 2),
    content: rules(fc.record({ pattern }), 2),
    postcontent: rules(conditions, 1),
    room: rules(fc.constantFrom({ rule_id: roomId }, { rule_id: "!other" }, { rule_id: "!KITCHEN:x.org" }), 1),
    sender: rules(fc.constantFrom({ rule_id: bob }, { rule_id: carol }, { rule_id: "@BOB:x.org" }), 1),
    underride: rules(conditions, 1),
    switches,
    hasDefaults: fc.boolean()
  })
  .map(({ hasDefaults, switches, ...mine }): Case["global"] => {
    if (!hasDefaults) return mine
    const server = serverRules()
    const [master, ...override] = switched(server.override, switches)
    return {
      ...mine,
      override: [master ?? {}, ...mine.override, ...override],
      content: [...mine.content, ...switched(server.content, switches)],
      underride: [...mine.underride, ...switched(server.underride, switches)]
    }
  })

export const arbitraryCase: fc.Arbitrary<Case> = fc.record({
  event: fc.oneof({ weight: 9, arbitrary: message }, { weight: 1, arbitrary: state }),
  wasEncrypted: fc.boolean(),
  room,
  global
})
