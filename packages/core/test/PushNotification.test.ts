import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import fc from "fast-check"
import * as PushNotification from "../src/notification/PushNotification.ts"

const device = {
  app_id: "org.example.app",
  pushkey: "key",
  pushkey_ts: 1_700_000_000,
  data: { format: "event_id_only" }
}

const known = {
  appId: "org.example.app",
  pushKey: "key",
  pushkeyTs: 1_700_000_000,
  data: { format: "event_id_only" }
}

const idsOnly = {
  event_id: "$e:example.org",
  room_id: "!r:example.org",
  prio: "high",
  counts: { unread: 2 },
  devices: [device]
}

const decoded = (notification: unknown) => Result.getOrThrow(PushNotification.decode({ notification }))

const refusal = (body: unknown) => {
  const result = PushNotification.decode(body)
  return Result.isFailure(result) ? [result.failure.errcode, result.failure.message] : assert.fail("it was taken")
}

describe("PushNotification", () => {
  it("reads a push that has only ids", () => {
    assert.deepStrictEqual(decoded(idsOnly), {
      _tag: "Event",
      request: { roomId: "!r:example.org", eventId: "$e:example.org", isUrgent: true },
      counts: { unread: 2, missedCalls: 0 },
      devices: [known]
    })
  })

  it("reads a full push as Synapse sends it, and takes its ids only", () => {
    const full = {
      ...idsOnly,
      id: "$e:example.org",
      type: "m.room.message",
      sender: "@a:example.org",
      membership: null,
      user_is_target: false,
      content: { body: "hello" },
      sender_display_name: "A",
      room_name: "Kitchen",
      devices: [{ ...device, tweaks: { sound: "default" } }]
    }
    assert.deepStrictEqual(decoded(full), decoded(idsOnly))
  })

  it("reads a poke that has only counts as Synapse sends it", () => {
    const poke = { id: "", type: null, sender: "", counts: { unread: 7, missed_calls: 1 }, devices: [device] }
    assert.deepStrictEqual(decoded(poke), {
      _tag: "Badge",
      counts: { unread: 7, missedCalls: 1 },
      devices: [known]
    })
  })

  it("takes counts that are there and say nothing as zero, and doesn't make up counts that aren't", () => {
    assert.deepStrictEqual(decoded({ counts: {}, devices: [device] }).counts, { unread: 0, missedCalls: 0 })
    assert.isUndefined(decoded({ devices: [device] }).counts)
  })

  it("takes a missing or unknown priority for a high one", () => {
    const urgency = (prio: unknown) => {
      const push = decoded({ ...idsOnly, prio })
      return push._tag === "Event" && push.request.isUrgent
    }
    assert.deepStrictEqual([undefined, "high", "odd", 3, "low"].map(urgency), [true, true, true, true, false])
  })

  it("knows the event's id by its old name", () => {
    const { event_id: id, ...rest } = idsOnly
    assert.deepStrictEqual(decoded({ ...rest, id }), decoded(idsOnly))
  })

  it("loses no push by what only decorates it", () => {
    const odd = { ...idsOnly, counts: "many", devices: [{ ...device, pushkey_ts: "yesterday", data: [1] }] }
    assert.deepStrictEqual(decoded(odd), {
      _tag: "Event",
      request: { roomId: "!r:example.org", eventId: "$e:example.org", isUrgent: true },
      devices: [{ appId: "org.example.app", pushKey: "key", data: {} }]
    })
    for (const unread of [-1, 1.5, "1", null, 1e300]) {
      assert.isUndefined(decoded({ ...idsOnly, counts: { unread } }).counts)
    }
  })

  it("says what is missing, and what is not what it should be", () => {
    assert.deepStrictEqual(refusal([]), ["M_BAD_JSON", "the body is not an object"])
    assert.deepStrictEqual(refusal({}), ["M_MISSING_PARAM", `"notification" is missing`])
    assert.deepStrictEqual(refusal({ notification: 1 }), ["M_BAD_JSON", `"notification" is not an object`])
    const of = (change: object) => refusal({ notification: { ...idsOnly, ...change } })
    assert.deepStrictEqual(of({ devices: undefined }), ["M_MISSING_PARAM", `"notification.devices" is missing`])
    assert.deepStrictEqual(of({ devices: [] }), ["M_MISSING_PARAM", `"notification.devices[0]" is missing`])
    assert.deepStrictEqual(of({ devices: {} }), ["M_BAD_JSON", `"notification.devices" is not an array`])
    assert.deepStrictEqual(of({ devices: [device, { app_id: "a" }] }), [
      "M_MISSING_PARAM",
      `"notification.devices[1].pushkey" is missing`
    ])
    assert.deepStrictEqual(of({ devices: [{ ...device, app_id: 1 }] }), [
      "M_BAD_JSON",
      `"notification.devices[0].app_id" is not a string`
    ])
    assert.deepStrictEqual(of({ room_id: undefined }), ["M_MISSING_PARAM", `"notification.room_id" is missing`])
    assert.deepStrictEqual(of({ event_id: "" }), ["M_MISSING_PARAM", `"notification.event_id" is missing`])
    assert.deepStrictEqual(of({ event_id: 7 }), ["M_BAD_JSON", `"notification.event_id" is not a string`])
    for (const event_id of ["$\u0000", "$\ud800", `$${"ü".repeat(200)}`])
      assert.strictEqual(of({ event_id })[0], "M_BAD_JSON")
  })

  it("I7: answers any JSON with a push that can be used or with a reason", () => {
    const json = fc.jsonValue() as fc.Arbitrary<unknown>
    const perhaps = (value: unknown): fc.Arbitrary<unknown> =>
      fc.oneof(
        { arbitrary: fc.constant(value), weight: 10 },
        { arbitrary: json, weight: 1 },
        { arbitrary: fc.constant(undefined), weight: 1 }
      )
    const anyDevice = fc.record({
      app_id: perhaps("a"),
      pushkey: perhaps("k"),
      pushkey_ts: perhaps(1),
      data: perhaps({})
    })
    const notification = fc.record({
      event_id: fc.oneof(perhaps("$e"), fc.constant(undefined)),
      id: perhaps(""),
      room_id: fc.oneof(perhaps("!r"), fc.constant(null)),
      prio: perhaps("low"),
      counts: fc.oneof(json, fc.record({ unread: perhaps(1), missed_calls: perhaps(1) })),
      devices: fc.oneof({ arbitrary: fc.array(anyDevice, { maxLength: 2 }), weight: 5 }, { arbitrary: json, weight: 1 })
    })
    const body = fc.oneof(
      { arbitrary: fc.record({ notification }), weight: 5 },
      { arbitrary: fc.record({ notification: json }), weight: 1 },
      { arbitrary: json, weight: 1 }
    )
    const seen = { Event: 0, Badge: 0, refused: 0 }
    fc.assert(
      fc.property(body, (value) => {
        const result = PushNotification.decode(value)
        if (Result.isFailure(result)) {
          seen.refused++
          return assert.isAbove(result.failure.message.length, 10)
        }
        const push = result.success
        seen[push._tag]++
        assert.isAbove(push.devices.length, 0)
        for (const { appId, pushKey, data } of push.devices) {
          assert.isString(appId)
          assert.isString(pushKey)
          assert.isFalse(Array.isArray(data))
        }
        if (push.counts !== undefined) assert.isAtLeast(push.counts.unread, 0)
        if (push._tag === "Event") {
          assert.isNotEmpty(push.request.eventId)
          assert.isNotEmpty(push.request.roomId)
        }
      }),
      { numRuns: 5_000 }
    )
    // The generator reaches all three.
    for (const count of Object.values(seen)) assert.isAbove(count, 50)
  })
})
