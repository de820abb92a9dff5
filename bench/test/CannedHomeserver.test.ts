import { assert, describe, it } from "@effect/vitest"
import { SlidingSyncWire } from "@twinloop/core"
import { Effect, Result } from "effect"
import { createHash } from "node:crypto"
import type { AddressInfo } from "node:net"
import { SyntheticAccount } from "../data/SyntheticAccount.ts"
import { CannedHomeserver, type Answered, type Plan } from "../homeserver/CannedHomeserver.ts"

const SYNC = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"

const hashOf = (seed: number): string => {
  const account = new SyntheticAccount(seed)
  const all = [account.initialRoom(3), account.initialRoom(3), account.news(), account.toDevice(2)]
  return createHash("sha256").update(JSON.stringify(all)).digest("hex")
}

/** A canned homeserver with three rooms for as long as the scope is open, and how to talk to it. */
const served = Effect.map(
  Effect.acquireRelease(
    Effect.promise(async () => {
      const { server } = new CannedHomeserver({ seed: 42, rooms: 3, timeline: 2, news: 5, batches: 2 })
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
      return server
    }),
    (server) =>
      Effect.sync(() => {
        server.closeAllConnections()
        server.close()
      })
  ),
  (server) => {
    const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    const post = (path: string, body: object, token = "one") =>
      Effect.promise(async () => {
        const headers = { authorization: `Bearer ${token}` }
        return (await fetch(base + path, { method: "POST", headers, body: JSON.stringify(body) })).json()
      })
    return {
      plan: (plan: Plan) => post("/bench/plan", plan),
      log: Effect.promise(async () => (await (await fetch(`${base}/bench/log`)).json()) as ReadonlyArray<Answered>),
      /** What one request for a window is answered with, decoded. */
      sync: (query: string, [start, end]: readonly [number, number], token = "one") =>
        Effect.map(
          post(`${SYNC}?${query}`, { conn_id: "c", lists: { all: { ranges: [[start, end]] } } }, token),
          (json) => Result.getOrThrow(SlidingSyncWire.decodeResponse(json))
        )
    }
  }
)

describe("SyntheticAccount", () => {
  it("gives the same for a seed on every machine, and something else for another seed", () => {
    assert.strictEqual(hashOf(42), "9e9834e393bf13cb47275543e0ffc939314e163500d980c7b76161cb9f881523")
    assert.notStrictEqual(hashOf(43), hashOf(42))
  })
})

describe("CannedHomeserver", () => {
  it.live("sends each room once per connection, the most recent first, and nothing that can't be read", () =>
    Effect.gen(function* () {
      const { sync } = yield* served
      const first = yield* sync("timeout=0", [0, 1])
      const last = yield* sync(`timeout=0&pos=${first.pos}`, [2, 2])
      const all = yield* sync(`timeout=0&pos=${last.pos}`, [0, 9])
      assert.deepStrictEqual(
        [first, last, all].map(({ rooms }) => rooms.length),
        [2, 1, 0]
      )
      assert.deepStrictEqual(all.lists["all"], { count: 3 })
      assert.isAbove(first.rooms[0]?.bumpStamp ?? 0, last.rooms[0]?.bumpStamp ?? 0)
      for (const { quarantined } of [first, last, all]) assert.deepStrictEqual(quarantined, [])
      // Another account, and the same one afresh, begin with nothing.
      assert.lengthOf((yield* sync("timeout=0", [0, 9], "two")).rooms, 3)
      assert.lengthOf((yield* sync("timeout=0", [0, 9])).rooms, 3)
    })
  )

  it.live("answers what is planned, and holds a request when nothing is", () =>
    Effect.gen(function* () {
      const { log, plan, sync } = yield* served
      const { pos } = yield* sync("timeout=0", [0, 9])
      assert.property(yield* plan({ kind: "news", count: 2 }), "stamp")
      const news = [yield* sync(`timeout=30000&pos=${pos}`, [0, 9]), yield* sync(`timeout=30000&pos=${pos}`, [0, 9])]
      for (const { rooms } of news) assert.isAbove(rooms.length, 0)
      const held = yield* sync(`timeout=50&pos=${pos}`, [0, 9])
      assert.lengthOf(held.rooms, 0)
      const answers = yield* log
      assert.deepStrictEqual(
        answers.map(({ planned }) => planned),
        [true, true, false]
      )
      assert.isAtLeast(answers[2]!.answeredAtMillis - answers[2]!.askedAtMillis, 49)
    })
  )
})
