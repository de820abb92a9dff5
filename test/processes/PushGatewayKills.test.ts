/**
 * What a push gateway has answered is in the queue, once, however it ends (invariants I2 and I6): a gateway after the other is
 * killed over one database, at every step of accepting a push and at random moments, while pushers send numbered events and
 * send again what isn't answered, as a homeserver does.
 *
 * A line says what was found: lives, pushes, repetitions, and how often the end came after the commit and before the answer.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Random } from "effect"
import type { Point } from "./fixtures/KillPoints.ts"
import * as Program from "./Program.ts"
import * as TemporaryDatabase from "./TemporaryDatabase.ts"

type Line = { readonly event: "listening"; readonly url: string } | { readonly event: "met" }

const devices = ["a", "b", "c"].map((name) => ({ appId: `org.example.${name}`, pushKey: `key-${name}` }))

/** Where gateways end: at a step for the so manieth time, or so long after they began to listen. */
type End = Point | { readonly afterMillis: number }

const points: ReadonlyArray<Point> = ["begin", "statement", "end", "committed"].flatMap((step) =>
  [1, 2, 3, 5, 8].map((count) => ({ step, count }))
)

const RANDOM_ENDS = 20

/** What the pushers know. */
interface Load {
  /** Where to push to; refused while no gateway lives. */
  url: string
  isEnding: boolean
  /** Events that were answered 200, in the order of the answers. */
  readonly answered: Array<string>
  repetitions: number
}

const bodyOf = (eventId: string, { appId, pushKey }: (typeof devices)[number]): string =>
  JSON.stringify({
    notification: {
      event_id: eventId,
      room_id: "!r:example.org",
      prio: "high",
      devices: [{ app_id: appId, pushkey: pushKey, pushkey_ts: 0, data: {} }]
    }
  })

/** Whether a gateway has taken it. Nobody there, a connection that breaks, and any answer but 200 are the same to a homeserver. */
const post = (url: string, body: string): Effect.Effect<boolean> =>
  Effect.promise(async (signal) => {
    try {
      const response = await fetch(url, { method: "POST", body, signal })
      const answer = (await response.json()) as { readonly rejected?: ReadonlyArray<string> }
      if (response.status !== 200) return false
      assert.deepStrictEqual(answer.rejected, [])
      return true
    } catch (error) {
      if (error instanceof TypeError || error instanceof SyntaxError) return false
      throw error
    }
  })

/** Pushes one event after the other, each until it is answered. */
const pushAll = Effect.fnUntraced(function* (load: Load, device: (typeof devices)[number]) {
  for (let number = 1; !load.isEnding; number++) {
    const eventId = `$${device.pushKey}-${number}`
    while (!(yield* post(load.url, bodyOf(eventId, device)))) {
      load.repetitions++
      yield* Effect.sleep("5 millis")
    }
    load.answered.push(eventId)
  }
})

const queued = (database: string) =>
  Effect.map(
    TemporaryDatabase.all<{ readonly id: string }>(database, `SELECT event_id AS id FROM push_queue ORDER BY sequence`),
    (rows) => rows.map(({ id }) => id)
  )

const startGateway = Effect.fnUntraced(function* (database: string, load: Load, point: Point | null) {
  const file = new URL("./fixtures/pushGateway.ts", import.meta.url)
  const args = [database, JSON.stringify(devices), JSON.stringify(point)]
  const gateway = yield* Program.startFile<Line>(file, { args })
  const { line } = yield* gateway.until("listen", (said) => said.event === "listening")
  if (line.event === "listening") load.url = line.url
  return gateway
})

/** One gateway, from its start to its end. Gives how many events were stored by then without an answer. */
const live = Effect.fnUntraced(function* (database: string, load: Load, end: End) {
  const gateway = yield* startGateway(database, load, "step" in end ? end : null)
  if ("afterMillis" in end) {
    yield* Effect.sleep(end.afterMillis)
    yield* gateway.signal("SIGKILL")
  }
  assert.strictEqual(yield* gateway.ended, "SIGKILL", yield* gateway.errors)
  const answered = [...load.answered]
  const stored = new Set(yield* queued(database))
  for (const eventId of answered) assert.isTrue(stored.has(eventId), `${eventId} was answered and is not stored`)
  return stored.size - answered.length
}, Effect.scoped)

describe("A push gateway that is killed", () => {
  it.live("I6: has everything in its queue that it answered, once and in order, after 40 kills", () =>
    Effect.gen(function* () {
      const database = yield* TemporaryDatabase.make
      const load: Load = { url: "http://127.0.0.1:9/", isEnding: false, answered: [], repetitions: 0 }
      const pushers = yield* Effect.forkChild(
        Effect.forEach(devices, (device) => pushAll(load, device), { concurrency: "unbounded", discard: true })
      )
      const moments = yield* Effect.forEach(Array.from({ length: RANDOM_ENDS }), () => Random.nextBetween(0, 60))
      const ends: ReadonlyArray<End> = [...points, ...moments.map((afterMillis) => ({ afterMillis }))]
      let unanswered = 0
      for (const end of ends) unanswered += yield* live(database, load, end)

      yield* startGateway(database, load, null)
      load.isEnding = true
      yield* Fiber.join(pushers)
      const stored = yield* queued(database)
      console.log(
        `${ends.length} lives, ${load.answered.length} pushes, ${load.repetitions} repetitions, ${unanswered} stored and not answered`
      )
      assert.strictEqual(new Set(load.answered).size, load.answered.length)
      assert.sameMembers(stored, load.answered)
      assert.strictEqual(new Set(stored).size, stored.length)
      for (const { pushKey } of devices) {
        const numbers = stored.filter((id) => id.startsWith(`$${pushKey}-`)).map((id) => Number(id.split("-").at(-1)))
        assert.deepStrictEqual(
          numbers,
          numbers.map((_, index) => index + 1)
        )
      }
      // Each life that ended between COMMIT and answer left one.
      assert.isAtLeast(unanswered, points.filter(({ step }) => step === "committed").length)
      assert.isAbove(load.answered.length, ends.length)
    })
  )
})
