import { assert, describe, it } from "@effect/vitest"
import { PushNotification } from "@twinloop/core"
import { Effect, Layer, Result } from "effect"
import fc from "fast-check"
import { layer, PushGateway } from "../../src/push/PushGateway.ts"
import { SqliteClient } from "../../src/sqlite/index.ts"
import { temporaryFile } from "../SqliteKit.ts"
import * as Kit from "./PushKit.ts"

const bytes = (text: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(text)

const joined = (...parts: ReadonlyArray<Uint8Array>): Uint8Array<ArrayBuffer> => new Uint8Array(Buffer.concat(parts))

/** Bodies that are all but right. */
const nearly: fc.Arbitrary<string> = fc
  .record({
    number: fc.nat(400),
    change: fc.oneof(
      fc.constant({}),
      fc.record({ devices: fc.constantFrom([], [Kit.wireDevice(Kit.stranger)], [Kit.wireDevice(), {}], null, 7) }),
      fc.record({ event_id: fc.jsonValue() }),
      fc.record({ room_id: fc.jsonValue() }),
      fc.record({ counts: fc.jsonValue() }),
      fc.record({ prio: fc.jsonValue(), content: fc.jsonValue(), tweaks: fc.jsonValue() })
    )
  })
  .map(({ change, number }) => Kit.body(number, change))

/** What a bad line or a bad program does to them. */
const mutated: fc.Arbitrary<Uint8Array<ArrayBuffer>> = fc
  .tuple(nearly, fc.nat(), fc.nat(255), fc.constantFrom("cut", "flip", "insert", "remove", "twice", "whole"))
  .map(([text, place, byte, how]) => {
    const whole = bytes(text)
    const at = place % whole.length
    const [before, after] = [whole.subarray(0, at), whole.subarray(at)]
    if (how === "cut") return joined(before)
    if (how === "flip") return joined(before, new Uint8Array([byte]), after.subarray(1))
    if (how === "insert") return joined(before, new Uint8Array([byte]), after)
    if (how === "remove") return joined(before, after.subarray(1 + (byte % 8)))
    return how === "twice" ? joined(whole, whole) : whole
  })

const body: fc.Arbitrary<Uint8Array<ArrayBuffer>> = fc.oneof(
  { arbitrary: mutated, weight: 8 },
  { arbitrary: fc.json().map(bytes), weight: 2 },
  { arbitrary: fc.jsonValue().map((notification) => bytes(JSON.stringify({ notification }))), weight: 2 },
  { arbitrary: fc.uint8Array({ maxLength: 64 }).map((any) => joined(any)), weight: 1 },
  {
    arbitrary: fc.constantFrom(
      bytes(`{"notification":${"[".repeat(60_000)}${"]".repeat(60_000)}}`),
      bytes(Kit.body(1, { counts: { unread: 1e308 } }).replace("1e+308", "1e999")),
      bytes(`{"__proto__":{"notification":1},"notification":{"__proto__":{"devices":[]}}}`),
      bytes(Kit.body(2).replace("{", '{"notification":1,')),
      bytes(`\ufeff${Kit.body(3)}`),
      bytes("a".repeat(200_000))
    ),
    weight: 1
  }
)

/** What the body is to come to, by the pure rules. */
const verdict = (content: Uint8Array): PushNotification.Push | undefined => {
  try {
    const json: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(content))
    return Result.getOrUndefined(PushNotification.decode(json))
  } catch {
    return undefined
  }
}

const isKnown = ({ appId, pushKey }: PushNotification.PushDevice): boolean =>
  appId === Kit.device.appId && pushKey === Kit.device.pushKey

describe("Hostile pushes", () => {
  it.live("I7: each of 3000 bodies is answered, and what was answered 200 is in the queue, and nothing else", () =>
    Effect.gen(function* () {
      const { url } = yield* PushGateway
      const accepted = new Set<string>()
      const statuses: { [status: number]: number } = {}
      for (const content of fc.sample(body, { numRuns: 3_000, seed: 20_261_130 })) {
        const { json, status } = yield* Kit.request(url, "POST", content)
        statuses[status] = (statuses[status] ?? 0) + 1
        const push = content.length > 131_072 ? undefined : verdict(content)
        if (push === undefined) {
          assert.include([400, 413], status)
          assert.isString(json["errcode"])
          assert.isString(json["error"])
          continue
        }
        assert.strictEqual(status, 200, new TextDecoder().decode(content))
        const rejected = push.devices.filter((device) => !isKnown(device)).map(({ pushKey }) => pushKey)
        assert.sameMembers(
          json["rejected"] as Array<string>,
          [...new Set(rejected)].filter((key) => key !== "key-1" || !push.devices.some(isKnown))
        )
        if (push._tag === "Event" && push.devices.some(isKnown)) accepted.add(push.request.eventId)
      }
      const sql = yield* SqliteClient.SqliteClient
      const rows = yield* sql<{ id: string }>`SELECT event_id AS id FROM push_queue ORDER BY sequence`
      assert.deepStrictEqual(
        rows.map(({ id }) => id),
        [...accepted]
      )
      assert.deepStrictEqual(yield* sql`SELECT event_id AS id FROM push_seen ORDER BY sequence`, rows)
      // The bodies reach every kind of answer.
      assert.isAbove(accepted.size, 100)
      for (const status of [200, 400, 413]) assert.isAbove(statuses[status] ?? 0, 20)
    }).pipe((use) =>
      Effect.flatMap(temporaryFile, (filename) =>
        Effect.provide(
          Effect.andThen(Kit.register(), use),
          layer({ port: 0 }).pipe(Layer.provideMerge(Kit.queueAt(filename)))
        )
      )
    )
  )
})
