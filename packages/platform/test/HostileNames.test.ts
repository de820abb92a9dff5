/**
 * Names that objects have by themselves, texts of 64 KiB and numbers that are none, as names and values of everything that a
 * homeserver or a member of a room can name, on the whole way: wire, ingest, both stores, room list, notification, words.
 */
import { assert, describe, it } from "@effect/vitest"
import {
  LeaseStoreMemory,
  MainIngest,
  type MatrixEvent,
  type NotificationClient,
  NotificationFacts,
  type NotificationItem,
  NotificationKinds,
  NotificationText,
  PushRules,
  RoomListMachine,
  type SlidingSync,
  SlidingSyncWire,
  SyncStore
} from "@twinloop/core"
import { SyncStoreMemory } from "@twinloop/core/testing"
import { Effect, HashMap, Layer, Result } from "effect"
import fc from "fast-check"
import * as SinkRecord from "../src/push/sinks/SinkRecord.ts"
import { temporaryStores } from "./SqliteKit.ts"

const me = "@me:test"

const names = [
  ["__proto__", "constructor", "prototype", "toString", "valueOf", "hasOwnProperty", "toJSON", "then", "length"],
  [
    "",
    " ",
    "\0",
    "\ud800",
    "a\udfffb",
    "x".repeat(65_536),
    "\ud800".repeat(10_000),
    "{}",
    "[object Object]",
    "-0",
    "1e400"
  ]
].flat()

/** A value as JSON text: what `JSON.stringify` doesn't write is among them. */
const values = [
  ["null", "true", "-0", "1e400", "-1e400", "5e-324", "9".repeat(400), "9007199254740993", '""', "[]", "{}"],
  ['{"__proto__":{"polluted":1}}', '{"constructor":{"prototype":{"polluted":1}}}', '{"toString":1,"valueOf":1}'],
  [`${"[".repeat(2_000)}${"]".repeat(2_000)}`, `${'{"a":'.repeat(2_000)}1${"}".repeat(2_000)}`],
  [JSON.stringify("y".repeat(65_536))]
].flat()

interface Chosen {
  readonly name: string
  readonly other: string
  readonly value: string
}

const chosen: fc.Arbitrary<Chosen> = fc.record({
  name: fc.constantFrom(...names),
  other: fc.constantFrom(...names),
  value: fc.constantFrom(...values)
})

/** A response in which the names are everywhere where a name can be. */
const textOf = ({ name, other, value }: Chosen): string => {
  const [n, o] = [JSON.stringify(name), JSON.stringify(other)]
  const content = `{${n}:${value},"body":${value},"name":${o},"membership":${n},"displayname":${n},"m.relates_to":${value},"room_version":${value},"additional_creators":${value},"users":${value}}`
  const event = (type: string, sender: string, stateKey: string) =>
    `{"type":${type},"sender":${sender},"state_key":${stateKey},"event_id":${o},"origin_server_ts":1,"content":${content},${n}:${value}}`
  const state = [
    event(n, n, o),
    event('"m.room.member"', n, n),
    event('"m.room.name"', n, '""'),
    event('"m.room.power_levels"', n, '""'),
    event('"m.room.create"', o, '""')
  ].join(",")
  const message = `{"type":"m.room.message","sender":${n},"event_id":"$m","origin_server_ts":1,"content":{"msgtype":${n},"body":"hi","format":${o},${n}:${value}}}`
  const room = `{"initial":true,"name":${n},"required_state":[${state}],"timeline":[${message},${event(n, n, o)}],"heroes":[{"user_id":${n},"displayname":${o}}],"bump_stamp":1,"joined_count":2,${n}:${value}}`
  const rule = `{"rule_id":${n},"default":false,"enabled":true,"conditions":[{"kind":${n}},{"kind":"event_match","key":${n},"pattern":${o}},{"kind":"event_property_is","key":"content.__proto__.polluted","value":1}],"actions":[${n},{"set_tweak":${n},"value":${value}}]}`
  const rules = `{"type":"m.push_rules","content":{"global":{"override":[${rule}],"content":[{"rule_id":${o},"default":false,"enabled":true,"pattern":${n},"actions":["notify"]}],${n}:${value}}}}`
  const direct = `{"type":"m.direct","content":{${n}:[${n},"!r:test"],${o}:${value}}}`
  const own = `{"type":${n},"content":${content}}`
  const receipt = `{"type":"m.receipt","content":{${n}:{"m.read":{${n}:{"ts":1,"thread_id":${o}}}}}}`
  const extensions = `{"to_device":{"next_batch":${JSON.stringify(`t${name}`)},"events":[${event(n, n, o)}]},"e2ee":{"device_one_time_keys_count":{${n}:1},"device_lists":{"changed":[${n}],"left":[${o}]}},"account_data":{"global":[${rules},${direct},${own}],"rooms":{${n}:[${own}],"!r:test":[${own}]}},"receipts":{"rooms":{${n}:${receipt},"!r:test":${receipt}}},"typing":{"rooms":{${n}:{"type":"m.typing","content":{"user_ids":[${n}]}}}}}`
  return `{"pos":"1","lists":{${n}:{"count":3},"all":{"count":1}},"rooms":{${n}:${room},"!r:test":${room}},"extensions":${extensions},${o}:${value}}`
}

/** What both stores give back of what they were given. */
const stored = (ingested: MainIngest.Ingested, { name, other }: Chosen) =>
  Effect.gen(function* () {
    const store = yield* SyncStore.SyncStore
    yield* store.commitMain(ingested.commit)
    const ids = ingested.changed.map(({ roomId }) => roomId)
    const main = yield* store.loadMain("main")
    return {
      lists: Object.entries(main.lists).sort(),
      rooms: [...main.rooms].sort((one, two) => (one.roomId < two.roomId ? -1 : 1)),
      byId: yield* Effect.forEach(ids, (roomId) => store.room("main", roomId)),
      missing: yield* store.room("main", `not ${name}`),
      timeline: yield* Effect.forEach(ids, (roomId) => store.timeline({ connId: "main", roomId, limit: 10 })),
      event: yield* store.event("main", "!r:test", other),
      state: yield* Effect.forEach([name, "m.room.member"], (type) =>
        store.state({ connId: "main", roomId: "!r:test", type })
      ),
      key: yield* store.state({ connId: "main", roomId: "!r:test", type: name, stateKey: other }),
      data: yield* Effect.forEach([name, "m.push_rules"], (type) => store.accountData({ connId: "main", type })),
      roomData: yield* store.accountData({ connId: "main", type: name, roomId: name }),
      quarantine: (yield* store.quarantine(100)).map(({ raw, reason }) => ({ raw, reason }))
    }
  })

const resolvedOf = (
  facts: NotificationFacts.Facts,
  roomId: string,
  event: MatrixEvent.TimelineEvent
): NotificationClient.Resolved => {
  const rules = facts.rules ?? { rules: [] }
  const { isMention, isNoisy } = PushRules.evaluate(rules, event, NotificationFacts.ruleContext(facts, roomId))
  const item: NotificationItem.NotificationItem = {
    kind: NotificationKinds.kindOf(event, me),
    event,
    sender: NotificationFacts.senderOf(facts, roomId, event.sender),
    room: NotificationFacts.roomOf(facts, roomId),
    isNoisy,
    isMention,
    missing: []
  }
  return { request: { roomId, eventId: event.event_id }, result: { _tag: "Event", item } }
}

const shown = (response: SlidingSync.SyncResponse, ingested: MainIngest.Ingested) => {
  const rooms = HashMap.fromIterable(ingested.changed.map((room) => [room.roomId, room] as const))
  const list = RoomListMachine.entries(RoomListMachine.make(rooms))
  const facts = NotificationFacts.withSync(NotificationFacts.none(me), response)
  const texts = response.rooms.flatMap(({ roomId, timeline }) =>
    timeline.map((event) => {
      const resolved = resolvedOf(facts, roomId, event)
      return [NotificationText.textOf(resolved), JSON.parse(SinkRecord.jsonOf(resolved, 0))] as const
    })
  )
  return { list, texts }
}

const prototypes = [Object.prototype, Array.prototype, String.prototype, Function.prototype, Map.prototype]
const members = () => prototypes.map((prototype) => Object.getOwnPropertyNames(prototype).length)

const play = Effect.fnUntraced(function* (choice: Chosen) {
  const before = members()
  const response = Result.getOrThrow(SlidingSyncWire.decodeResponse(JSON.parse(textOf(choice))))
  const ingested = MainIngest.ingest({ ownUserId: me, connId: "main", rooms: new Map() }, response)
  const { list, texts } = shown(response, ingested)
  assert.isTrue(list.some(({ roomId }) => roomId === "!r:test"))
  for (const { displayName } of list) {
    assert.isNotEmpty(displayName)
  }
  for (const [text] of texts) {
    assert.isAtMost([...(text?.title ?? "")].length, NotificationText.maxTitle)
    assert.isAtMost([...(text?.body ?? "")].length, NotificationText.maxBody)
  }
  const inMemory = yield* Effect.provide(
    stored(ingested, choice),
    Layer.fresh(Layer.provide(SyncStoreMemory.layer, LeaseStoreMemory.layerMemory))
  )
  const inSqlite = yield* Effect.provide(stored(ingested, choice), Layer.fresh(temporaryStores))
  // As JSON, which has neither -0 nor infinities: a store may keep what it was given by its text.
  for (const [part, value] of Object.entries(inMemory)) {
    const [one, two] = [JSON.stringify(value), JSON.stringify(inSqlite[part as keyof typeof inSqlite])]
    assert.isTrue(one === two, `${part}, of ${JSON.stringify(choice).slice(0, 200)}`)
  }
  assert.isUndefined(inSqlite.missing)
  assert.deepStrictEqual(members(), before)
  assert.isUndefined(({} as { readonly polluted?: unknown }).polluted)
})

describe("Names that objects have by themselves, and texts and numbers without measure", () => {
  it.live(
    "I7: are names and values like others on the whole way, and the same in both stores",
    () =>
      Effect.gen(function* () {
        for (const name of names) yield* play({ name, other: "__proto__", value: values[0]! })
        for (const value of values) yield* play({ name: "constructor", other: "toString", value })
        for (const choice of fc.sample(chosen, { numRuns: 20, seed: 20_261_130 })) yield* play(choice)
      }).pipe(Effect.scoped),
    60_000
  )

  it("I10: a hundred thousand of them take no longer than as many of others", () => {
    const many = (of: (index: number) => string) =>
      `{${Array.from({ length: 100_000 }, (_, index) => of(index)).join()}}`
    const json = `{"pos":"1","lists":${many((index) => `"l${index}":{"count":1}`)},"rooms":{},"extensions":{"receipts":{"rooms":${many((index) => `"!r${index}":{"type":"m.receipt","content":{}}`)}},"e2ee":{"device_one_time_keys_count":${many((index) => `"k${index}":1`)}}}}`
    const response = Result.getOrThrow(SlidingSyncWire.decodeResponse(JSON.parse(json)))
    assert.strictEqual(Object.keys(response.lists).length, 100_000)
    MainIngest.ingest({ ownUserId: me, connId: "main", rooms: new Map() }, response)
  })
})
