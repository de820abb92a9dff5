import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Result } from "effect"
import * as Wire from "../src/matrix/SlidingSyncWire.ts"
import { whyNotStateEvent, whyNotTimelineEvent } from "../src/matrix/MatrixEvent.ts"
import type { SyncResponse } from "../src/matrix/SlidingSync.ts"
import * as Generators from "../src/testing/Generators.ts"

const byId = (response: SyncResponse) => ({
  ...response,
  rooms: response.rooms.toSorted((a, b) => (a.roomId < b.roomId ? -1 : 1))
})

const roundTrip = (response: SyncResponse): SyncResponse =>
  Result.getOrThrow(Wire.decodeResponse(JSON.parse(JSON.stringify(Wire.encodeResponse("v4", response)))))

// A text and not the value: JSON has no -0.
const text = (response: SyncResponse): string => JSON.stringify(byId(response))

describe("Generators", () => {
  it.prop("gives responses that survive the wire", { response: Generators.arbitraryResponse }, ({ response }) => {
    const read = roundTrip(response)
    assert.deepStrictEqual(read.quarantined, [])
    assert.deepStrictEqual(JSON.parse(text(read)), JSON.parse(text(response)))
  })

  it.prop(
    "gives events that can be used",
    { event: Generators.arbitraryEvent, state: Generators.arbitraryState },
    (given) => {
      assert.isUndefined(whyNotTimelineEvent(given.event))
      assert.isUndefined(whyNotStateEvent(given.state))
    }
  )

  it.effect("I8: gives the same for the same seed, and something else for another", () =>
    Effect.gen(function* () {
      const sample = (seed: number) => Arbitrary.sampleEffect(Generators.arbitraryRoom, { seed, count: 20 })
      assert.deepStrictEqual(yield* sample(1), yield* sample(1))
      assert.notDeepEqual(yield* sample(1), yield* sample(2))
    })
  )

  it("builds rooms whose parts agree with each other", () => {
    const room = Generators.aRoom("!a:x", { messages: 3, members: ["@b:x", "@c:x"] })
    assert.strictEqual(room.joinedCount, 3)
    assert.deepStrictEqual(room.heroes, [{ userId: "@b:x" }, { userId: "@c:x" }])
    assert.deepStrictEqual(
      room.timeline.map(({ event_id }) => event_id),
      ["$event1", "$event2", "$event3"]
    )
    const update = Generators.aRoom("!a:x", { initial: false, firstMessage: 4, messages: 2 })
    assert.strictEqual(update.numLive, 2)
    assert.deepStrictEqual(update.requiredState, [])
    for (const built of [room, update, Generators.anInvite("!b:x")]) {
      const response = Generators.aResponse({ pos: "1", rooms: [built] })
      assert.deepStrictEqual(roundTrip(response), response)
    }
  })

  it("numbers the messages of a to-device batch", () => {
    const { extensions } = Generators.aToDeviceResponse({ pos: "1", nextBatch: "9", from: 3, to: 5 })
    assert.deepStrictEqual(
      extensions.toDevice?.events.map(({ content }) => content.number),
      [3, 4, 5]
    )
  })
})
