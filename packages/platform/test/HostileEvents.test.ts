/** Events that are JSON, and break whoever stores them as they come (invariant I7). */
import { assert, describe, it } from "@effect/vitest"
import { type MatrixEvent, SlidingSyncWire, SyncStore } from "@twinloop/core"
import { Effect, Result } from "effect"
import { commit, own, temporaryStores } from "./SqliteKit.ts"

/** As far as a homeserver can nest in an event of 64 KiB. */
const levels = 10_000
const deep = (): unknown => JSON.parse("[".repeat(levels) + "]".repeat(levels))

const decode = (json: string) => Result.getOrThrow(SlidingSyncWire.decodeResponse(JSON.parse(json)))

const toDevice = (events: string) =>
  decode(`{"pos":"1","extensions":{"to_device":{"next_batch":"s1","events":[${events}]}}}`)

const good = `{"type":"t","sender":"@s:test","content":{"n":1}}`

describe("Events nested beyond what can be written", () => {
  it.effect("I7: are quarantined, and what came with them is committed", () =>
    Effect.gen(function* () {
      const store = yield* SyncStore.SyncStore
      const bomb = `{"type":"t","sender":"@s:test","content":{"a":${"[".repeat(levels)}${"]".repeat(levels)}}}`
      const response = toDevice(`${good},${bomb},${good}`)
      const inbox = (response.extensions.toDevice?.events ?? []).map((event) => ({
        type: event.type,
        sender: event.sender,
        event,
        encryption: "none" as const
      }))
      const fence = yield* own("a")
      const entries = yield* store.commitExtension(fence, {
        ...commit("s1", []),
        inbox,
        quarantined: response.quarantined
      })
      assert.strictEqual(entries.length, 2)
      const [kept] = yield* store.quarantine(1)
      assert.include(kept?.reason, "nested more than")
      assert.strictEqual((kept!.raw as MatrixEvent.MatrixEvent).sender, "@s:test")
    }).pipe(Effect.provide(temporaryStores))
  )

  it.effect("I7: are quarantined wherever they are in a response", () =>
    Effect.gen(function* () {
      const store = yield* SyncStore.SyncStore
      const bomb = { type: "t", sender: "@s:test", event_id: "$e", state_key: "", content: { a: deep() } }
      const ephemeral = { type: "t", content: { a: deep() } }
      const response = Result.getOrThrow(
        SlidingSyncWire.decodeResponse({
          pos: "1",
          lists: { all: deep() },
          rooms: {
            "!a:test": { timeline: [bomb], required_state: [bomb], invite_state: [bomb], heroes: deep(), name: deep() },
            "!b:test": deep()
          },
          extensions: {
            to_device: deep(),
            e2ee: deep(),
            account_data: { global: [ephemeral], rooms: { "!a:test": [ephemeral] } },
            receipts: { rooms: { "!a:test": ephemeral } },
            typing: { rooms: { "!a:test": ephemeral } }
          }
        })
      )
      assert.isAtLeast(response.quarantined.length, 12)
      yield* store.commitMain({
        connId: "main",
        pos: "1",
        lists: {},
        rooms: [],
        accountData: response.extensions.accountData?.global ?? [],
        quarantined: response.quarantined
      })
      assert.strictEqual(yield* store.quarantineCount, response.quarantined.length)
    }).pipe(Effect.provide(temporaryStores))
  )

  it("as deeply as any homeserver reads them are taken", () => {
    const nested = `{"type":"t","sender":"@s:test","content":{"a":${"[".repeat(400)}${"]".repeat(400)}}}`
    assert.deepStrictEqual(toDevice(nested).quarantined, [])
  })
})

describe("Things too large for any event", () => {
  it("I10: are kept in quarantine by their beginning", () => {
    const { quarantined } = toDevice(`{"mark":"x","junk":"${"a".repeat(1_000_000)}"},{"mark":"y"}`)
    const [large, small] = quarantined
    assert(typeof large?.raw === "string")
    assert.isAtMost(large.raw.length, 65_537)
    assert.match(large.raw, /^\{"mark":"x","junk":"aaa/)
    assert.deepStrictEqual(small?.raw, { mark: "y" })
  })
})

describe("Names that are no text", () => {
  it("I7: are quarantined instead of standing for each other", () => {
    const event = (more: string) => `{"type":"t","sender":"@s:test","event_id":"$e","state_key":"","content":{}${more}}`
    const bad = [
      event(`,"event_id":"$\\ud800"`),
      event(`,"state_key":"\\ud801"`),
      event(`,"type":"\\udfff"`),
      event(`,"sender":"@\\ud800:test"`)
    ].join(",")
    const response = decode(
      `{"pos":"1","rooms":{"!\\ud800":{"initial":true},"!a:test":{"timeline":[${bad}],"required_state":[${bad}]}}}`
    )
    assert.deepStrictEqual(
      response.rooms.map(({ roomId, timeline }) => [roomId, timeline.length]),
      [["!a:test", 0]]
    )
    // A state event needs no id of its own.
    assert.deepStrictEqual(response.rooms[0]?.requiredState.length, 1)
    assert.strictEqual(response.quarantined.length, 1 + 4 + 3)
  })
})
