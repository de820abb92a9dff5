import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import fc from "fast-check"
import type { Spelling } from "../src/sync/Homeserver.ts"
import type { SyncRequest, SyncResponse } from "../src/matrix/SlidingSync.ts"
import { emptyResponse, emptyRoomUpdate } from "../src/matrix/SlidingSync.ts"
import * as Wire from "../src/matrix/SlidingSyncWire.ts"
import { arbitraryResponse } from "../src/testing/Generators.ts"

const spellings: ReadonlyArray<Spelling> = ["unstable", "v4"]

const request: SyncRequest = {
  connId: "main",
  pos: "5/s1",
  timeoutMillis: 30_000,
  lists: {
    all: {
      range: [0, 19],
      timelineLimit: 1,
      requiredState: [
        ["m.room.name", ""],
        ["m.room.member", "@me:x"],
        ["m.room.member", "$ME"],
        ["m.room.member", "$LAZY"]
      ],
      filters: { isInvite: false, roomTypes: [null, "m.space"] }
    }
  },
  roomSubscriptions: { "!a:x": { requiredState: [["*", "*"]], timelineLimit: 20 } },
  extensions: { toDevice: { since: "7", limit: 100 }, e2ee: true, accountData: true }
}

const decoded = (json: unknown): SyncResponse => Result.getOrThrow(Wire.decodeResponse(json))
const throughText = (json: unknown): unknown => JSON.parse(JSON.stringify(json))

const json = fc.jsonValue() as fc.Arbitrary<unknown>
const text = fc.string({ maxLength: 12 })
const event = fc.record({
  type: text,
  sender: text,
  event_id: text,
  content: fc.dictionary(text, json, { maxKeys: 3 })
})

describe("SlidingSyncWire requests", () => {
  it("writes the unstable spelling with pos and timeout in the query", () => {
    assert.deepStrictEqual(throughText(Wire.encodeRequest("unstable", request)), {
      path: "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync",
      query: { pos: "5/s1", timeout: "30000" },
      body: {
        conn_id: "main",
        lists: {
          all: {
            ranges: [[0, 19]],
            timeline_limit: 1,
            required_state: [
              ["m.room.name", ""],
              ["m.room.member", "@me:x"],
              ["m.room.member", "$ME"],
              ["m.room.member", "$LAZY"]
            ],
            filters: { is_invite: false, room_types: [null, "m.space"] }
          }
        },
        room_subscriptions: { "!a:x": { required_state: [["*", "*"]], timeline_limit: 20 } },
        extensions: {
          to_device: { enabled: true, since: "7", limit: 100 },
          e2ee: { enabled: true },
          account_data: { enabled: true }
        }
      }
    })
  })

  it("writes v4 with everything in the body, without $ME, and with prefixed extensions", () => {
    assert.deepStrictEqual(throughText(Wire.encodeRequest("v4", request)), {
      path: "/_matrix/client/v4/sync",
      query: {},
      body: {
        conn_id: "main",
        pos: "5/s1",
        timeout: 30_000,
        lists: {
          all: {
            range: [0, 19],
            timeline_limit: 1,
            required_state: {
              include: [
                { type: "m.room.name", state_key: "" },
                { type: "m.room.member", state_key: "@me:x" }
              ],
              lazy_members: true
            },
            filters: { is_invited: false, room_types: [null, "m.space"] }
          }
        },
        room_subscriptions: {
          "!a:x": {
            required_state: { include: [{ type: "*", state_key: "*" }], lazy_members: false },
            timeline_limit: 20
          }
        },
        extensions: {
          "org.matrix.msc4538.to_device": { enabled: true, since: "7", limit: 100 },
          "org.matrix.msc4543.e2ee": { enabled: true },
          account_data: { enabled: true }
        }
      }
    })
  })

  for (const spelling of spellings) {
    it(`reads back what it wrote in ${spelling}`, () => {
      const wire = Wire.encodeRequest(spelling, request)
      const list = request.lists.all!
      const requiredState = list.requiredState.filter(([, key]) => spelling === "unstable" || key !== "$ME")
      assert.deepStrictEqual(Result.getOrThrow(Wire.decodeRequest(spelling, wire)), {
        ...request,
        lists: { all: { ...list, requiredState } }
      })
    })
  }

  it("says the presence only when it is asked to, in the query and in v4 in the body", () => {
    const said = { unstable: (wire: Wire.WireRequest) => wire.query, v4: (wire: Wire.WireRequest) => wire.body }
    for (const spelling of spellings) {
      const silent = Wire.encodeRequest(spelling, request)
      assert.notProperty(silent.query, "set_presence")
      assert.notProperty(silent.body, "set_presence")
      assert.notProperty(Result.getOrThrow(Wire.decodeRequest(spelling, silent)), "setPresence")
      for (const setPresence of ["online", "unavailable", "offline"] as const) {
        const wire = Wire.encodeRequest(spelling, { ...request, setPresence })
        assert.propertyVal(said[spelling](wire), "set_presence", setPresence)
        assert.strictEqual(Result.getOrThrow(Wire.decodeRequest(spelling, wire)).setPresence, setPresence)
      }
    }
  })

  it("reads plain extension names in v4, and leaves out what is not enabled", () => {
    const body = { conn_id: "e", extensions: { to_device: { enabled: true }, e2ee: {}, typing: { enabled: false } } }
    assert.deepStrictEqual(Result.getOrThrow(Wire.decodeRequest("v4", { query: {}, body })).extensions, {
      toDevice: {}
    })
  })

  it("refuses a wrong type, a limit of 0 and several windows, and names the member", () => {
    const reason = (body: unknown) =>
      Result.getOrThrow(Result.flip(Wire.decodeRequest("unstable", { query: {}, body })))
    assert.include(reason({ conn_id: 1 }), "conn_id")
    assert.include(reason({ extensions: { to_device: { enabled: true, limit: 0 } } }), "limit")
    const params = { required_state: [], timeline_limit: 0 }
    assert.include(
      reason({
        lists: {
          a: {
            ...params,
            ranges: [
              [0, 1],
              [5, 9]
            ]
          }
        }
      }),
      "ranges"
    )
    assert.include(reason({ lists: { a: { ranges: [[0, 1]], timeline_limit: 1 } } }), "required_state")
  })
})

describe("SlidingSyncWire responses", () => {
  it("reads either spelling, whatever was asked", () => {
    const invite = { type: "m.room.member", sender: "@b:x", state_key: "@a:x", content: { membership: "invite" } }
    const unstable = decoded({
      pos: "1",
      rooms: { "!r": { invite_state: [invite], unstable_expanded_timeline: true } }
    })
    const merged = decoded({ pos: "1", rooms: { "!r": { stripped_state: [invite], expanded_timeline: true } } })
    assert.deepStrictEqual(unstable, merged)
    assert.deepStrictEqual(merged.rooms[0]?.strippedState, [invite])
    assert.isTrue(merged.rooms[0]?.expandedTimeline)
  })

  it("reads a response that has nothing but its position", () => {
    assert.deepStrictEqual(decoded({ pos: "1" }), emptyResponse("1"))
    assert.deepStrictEqual(decoded({ pos: "1", lists: null, rooms: null, extensions: null }), emptyResponse("1"))
    assert.deepStrictEqual(decoded({ pos: "1", rooms: { "!r": {} }, lists: { all: {} } }), {
      ...emptyResponse("1"),
      rooms: [emptyRoomUpdate("!r")]
    })
  })

  it("takes a null name as removed and a stub without content as deleted state", () => {
    const { rooms, quarantined } = decoded({
      pos: "1",
      rooms: { "!r": { name: null, required_state: [{ type: "m.room.topic", state_key: "" }] } }
    })
    assert.isNull(rooms[0]?.name)
    assert.deepStrictEqual(rooms[0]?.requiredState, [{ type: "m.room.topic", state_key: "" }])
    assert.deepStrictEqual(quarantined, [])
  })

  it("I7: quarantines a malformed event with its raw JSON and keeps the others", () => {
    const good = { type: "m.x", sender: "@a:x", event_id: "$1", content: {} }
    const bad = { type: "m.x", event_id: "$2", content: {}, mark: 1 }
    const { rooms, quarantined, extensions } = decoded({
      pos: "1",
      rooms: { "!r": { timeline: [good, bad] }, "!broken": 7 },
      extensions: { to_device: { next_batch: "4", events: [good, "?"] } }
    })
    assert.deepStrictEqual(rooms, [{ ...emptyRoomUpdate("!r"), timeline: [good] }])
    assert.deepStrictEqual(extensions.toDevice, { nextBatch: "4", events: [good] })
    assert.deepStrictEqual(
      quarantined.map(({ source, roomId, raw }) => ({ source, roomId, raw })),
      [
        { source: "timeline", roomId: "!r", raw: bad },
        { source: "room", roomId: "!broken", raw: 7 },
        { source: "toDevice", roomId: undefined, raw: "?" }
      ]
    )
    assert.include(quarantined[0]?.reason, "sender")
  })

  it("I7: quarantines a mistyped member of a room and uses the rest", () => {
    const { rooms, quarantined } = decoded({ pos: "1", rooms: { "!r": { bump_stamp: "late", joined_count: 3 } } })
    assert.deepStrictEqual(rooms, [{ ...emptyRoomUpdate("!r"), joinedCount: 3 }])
    assert.deepStrictEqual(quarantined, [
      { source: "room", roomId: "!r", reason: `its "bump_stamp" is not a number`, raw: "late" }
    ])
  })

  it("I2: does not use to-device events that can't be acknowledged", () => {
    // An empty token would be refused when it is sent, for good.
    for (const token of [{}, { next_batch: 7 }, { next_batch: "" }]) {
      const section = { ...token, events: [{ type: "m.x", sender: "@a:x", content: {} }] }
      const { extensions, quarantined } = decoded({ pos: "1", extensions: { to_device: section } })
      assert.isUndefined(extensions.toDevice)
      assert.deepStrictEqual(quarantined[0]?.raw, section)
    }
    assert.isTrue(Result.isFailure(Wire.decodeResponse({ pos: "" })))
  })

  it("fails only without a usable position", () => {
    for (const wrong of [{}, { pos: 3 }, null, [], "html", { pos: null }]) {
      assert.isTrue(Result.isFailure(Wire.decodeResponse(wrong)), JSON.stringify(wrong))
    }
  })

  it("I7: never throws and never loses an event, whatever the JSON", () => {
    const anything = fc.record(
      {
        pos: fc.constant("1"),
        rooms: fc.oneof(
          json,
          fc.dictionary(text, fc.oneof(json, fc.record({ timeline: fc.array(fc.oneof(json, event)) })))
        ),
        lists: json,
        extensions: fc.oneof(json, fc.dictionary(fc.constantFrom("to_device", "e2ee", "typing", "account_data"), json))
      },
      { requiredKeys: ["pos"] }
    )
    fc.assert(
      fc.property(anything, (input) => {
        const raw = throughText(input) as { rooms?: { [id: string]: { timeline?: unknown } | null } }
        const { rooms, quarantined } = decoded(raw)
        for (const [roomId, given] of Object.entries(raw.rooms ?? {})) {
          if (!Array.isArray(given?.timeline)) continue
          const kept = rooms.find((room) => room.roomId === roomId)?.timeline.length ?? 0
          const refused = quarantined.filter((q) => q.roomId === roomId && q.source === "timeline").length
          assert.strictEqual(kept + refused, given.timeline.length)
        }
      })
    )
  })

  for (const spelling of spellings) {
    it.prop(
      `survives the round trip in ${spelling}, unknown members included`,
      { response: arbitraryResponse },
      ({ response }) => {
        const read = decoded(throughText(Wire.encodeResponse(spelling, response)))
        assert.sameDeepMembers([...read.rooms], throughText(response.rooms) as Array<unknown>)
        assert.deepStrictEqual({ ...read, rooms: [] }, throughText({ ...response, rooms: [] }))
      }
    )
  }

  it("leaves out of each spelling what it can't say", () => {
    const full: SyncResponse = {
      ...emptyResponse("1"),
      rooms: [
        {
          ...emptyRoomUpdate("!r"),
          membership: "join",
          lists: ["all"],
          name: null,
          notificationCount: 0,
          requiredState: [{ type: "m.room.topic", state_key: "" }]
        }
      ]
    }
    assert.deepStrictEqual(Wire.encodeResponse("unstable", full).rooms, { "!r": { notification_count: 0 } })
    assert.deepStrictEqual(Wire.encodeResponse("v4", full).rooms, {
      "!r": {
        membership: "join",
        lists: ["all"],
        name: null,
        required_state: [{ type: "m.room.topic", state_key: "" }]
      }
    })
  })
})
