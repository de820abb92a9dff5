/**
 * One of several processes that open the same new database at the same moment and then own the extension stream in turns.
 *
 * Arguments: the database file, when to start (Unix milliseconds), how many turns to take. Prints the generation of each
 * turn as one line of JSON.
 */
import { LeaseStore, SyncStore } from "@twinloop/core"
import type { Lease } from "@twinloop/core"
import { SqliteStores } from "@twinloop/platform"
import { Clock, Effect, Schedule } from "effect"

const [filename = "", startAtMillis = "0", turns = "0"] = process.argv.slice(2)
const holder = `child-${process.pid}`
const name = "stream"

const takeTurn = Effect.gen(function* () {
  const leases = yield* LeaseStore
  const nowMillis = yield* Clock.currentTimeMillis
  const request = {
    name,
    permits: 1,
    count: 1,
    holder,
    peer: {},
    nowMillis,
    leaseMillis: 10_000,
    enqueueMillis: 15_000
  }
  const outcome = yield* leases.take(request)
  return outcome._tag === "Granted" ? outcome : yield* Effect.fail(outcome)
}).pipe(Effect.retry({ while: (refusal) => refusal._tag === "Busy", schedule: Schedule.spaced("2 millis") }))

/** One batch on top of what the owner before left. */
const turn = (index: number) =>
  Effect.gen(function* () {
    const leases = yield* LeaseStore
    const store = yield* SyncStore.SyncStore
    const { generation } = yield* takeTurn
    const fence: Lease.Fence = { name, holder, generation }
    const { since } = yield* store.extensionPosition
    yield* store.commitExtension(fence, {
      ...(since === undefined ? {} : { sentSince: since }),
      position: { since: String(Number(since ?? "0") + 1) },
      inbox: [{ type: "turn", sender: holder, event: { index }, encryption: "none" }],
      crypto: [],
      quarantined: []
    })
    yield* leases.release({ fence, nowMillis: yield* Clock.currentTimeMillis, handoverMillis: 5_000 })
    return generation
  })

const main = Effect.gen(function* () {
  const nowMillis = yield* Clock.currentTimeMillis
  yield* Effect.sleep(Math.max(0, Number(startAtMillis) - nowMillis))
  const all = Effect.forEach(
    Array.from({ length: Number(turns) }, (_, index) => index),
    turn
  )
  return yield* Effect.provide(all, SqliteStores.layer({ filename }))
})

console.log(JSON.stringify(await Effect.runPromise(main)))
