import { assert, describe, it } from "@effect/vitest"
import type { SyncStore } from "@twinloop/core"
import { Effect, Schema } from "effect"
import { SyncSim } from "../src/testing/index.ts"
import clockSetBack from "./sim/clock-set-back-under-a-lease-that-stays.json" with { type: "json" }
import keyOfFailure from "./sim/key-of-a-commit-that-seems-to-fail.json" with { type: "json" }
import keyWhileDiskFails from "./sim/key-of-another-while-the-disk-fails.json" with { type: "json" }
import keyOfAnother from "./sim/key-of-another-while-the-disk-is-full.json" with { type: "json" }
import leaveFullDisk from "./sim/leave-full-disk.json" with { type: "json" }
import releaseFullDisk from "./sim/release-full-disk.json" with { type: "json" }
import startDuringOutage from "./sim/start-during-an-outage.json" with { type: "json" }
import stoppedWhileAsking from "./sim/stopped-while-keys-are-asked.json" with { type: "json" }
import suspendedFrozen from "./sim/suspended-while-frozen.json" with { type: "json" }
import suspendedTwice from "./sim/suspended-twice-with-a-push.json" with { type: "json" }
import twoDead from "./sim/two-dead-in-the-way.json" with { type: "json" }

/** Schedules that failed once, each cut down to what it needs. */
const regressions: { readonly [name: string]: unknown } = {
  "a place in the queue that a full disk doesn't let go": leaveFullDisk,
  "a lease that a full disk doesn't let go": releaseFullDisk,
  "a push that an application resolves while it is suspended, and is suspended again": suspendedTwice,
  "a key that another process brings while a full disk keeps the lease away": keyOfAnother,
  "a key that another process brings while a push waits to try the lease again": keyWhileDiskFails,
  "a dead owner and a dead process in the queue, which send a push to and fro": twoDead,
  "a key that comes with a commit which is told to have failed": keyOfFailure,
  "an application that is stopped while it asks for the keys of somebody who is shown": stoppedWhileAsking,
  "an application that is suspended several times while it is frozen": suspendedFrozen,
  "a clock that is set back under a lease which a full disk doesn't let go": clockSetBack,
  "a process that starts while the homeserver is away": startDuringOutage
}

/** Stories of so many seeds, a part to each test, without those that are long: an hour of polling costs a second. */
const PARTS = 12
const SEEDS_PER_PART = 15
const SHORT_MILLIS = 600_000

const play = (seed: number, options: SyncSim.SimOptions = {}) =>
  Effect.flatMap(SyncSim.drawSchedule(seed), (schedule) => SyncSim.run(schedule, options))

/** The stories of a part, each played once. */
const parts = new Map<number, ReadonlyArray<SyncSim.Outcome>>()
const playPart = Effect.fnUntraced(function* (part: number) {
  const known = parts.get(part)
  if (known !== undefined) return known
  const outcomes: Array<SyncSim.Outcome> = []
  for (let seed = part * SEEDS_PER_PART; seed < (part + 1) * SEEDS_PER_PART; seed++) {
    const schedule = yield* SyncSim.drawSchedule(seed)
    if ((schedule.steps.at(-1)?.atMillis ?? 0) <= SHORT_MILLIS) outcomes.push(yield* SyncSim.run(schedule))
  }
  parts.set(part, outcomes)
  return outcomes
})

/** What to say of seeds that fail. */
const explain = ({ schedule, violations }: SyncSim.Outcome): ReadonlyArray<string> =>
  violations.map(({ checker, message }) => `npm run sim -- --seed ${schedule.seed}: ${checker}: ${message}`)

/** Plays the first seeds until one is found whose checkers see what is broken. */
const firstCaught = Effect.fnUntraced(function* (sabotage: SyncSim.Sabotage) {
  for (let seed = 0; seed < 40; seed++) {
    const outcome = yield* play(seed, { sabotage })
    if (outcome.violations.length > 0) return outcome
  }
  return undefined
})

const checkersOf = (outcome: SyncSim.Outcome | undefined) => outcome?.violations.map(({ checker }) => checker) ?? []

describe("SyncSim", () => {
  for (let part = 0; part < PARTS; part++) {
    const first = part * SEEDS_PER_PART
    const last = first + SEEDS_PER_PART - 1
    it.live(
      `I1, I2, I3, I4, I5, I6, I7, I9, I10: hold at every step of the stories of seeds ${first} to ${last}`,
      () =>
        Effect.gen(function* () {
          assert.deepStrictEqual((yield* playPart(part)).flatMap(explain), [])
        }),
      120_000
    )
  }

  it.live(
    "meets every kind of fault in these stories",
    () =>
      Effect.gen(function* () {
        const outcomes = (yield* Effect.forEach(Array.from({ length: PARTS }).keys(), playPart)).flat()
        const never = SyncSim.KINDS.filter((kind) => outcomes.every(({ hits }) => hits[kind] === undefined))
        assert.deepStrictEqual(never, [])
      }),
    600_000
  )

  for (const [name, schedule] of Object.entries(regressions)) {
    it.live(`holds after ${name}`, () =>
      Effect.gen(function* () {
        const outcome = yield* SyncSim.run(yield* Schema.decodeUnknownEffect(SyncSim.Schedule)(schedule))
        assert.deepStrictEqual(explain(outcome), [])
      })
    )
  }

  it.live("I8: plays a schedule the same way twice, and another one for another seed", () =>
    Effect.gen(function* () {
      const [once, again, other] = yield* Effect.forEach([7, 7, 8], (seed) => play(seed))
      assert.strictEqual(once?.digest, again?.digest)
      assert.deepStrictEqual(once, again)
      assert.notStrictEqual(once?.digest, other?.digest)
    })
  )

  it.live("reads back the schedule that it writes as JSON", () =>
    Effect.gen(function* () {
      const schedule = yield* SyncSim.drawSchedule(3)
      const text = yield* Schema.encodeEffect(SyncSim.ScheduleJson)(schedule)
      assert.deepStrictEqual(yield* Schema.decodeEffect(SyncSim.ScheduleJson)(text), schedule)
    })
  )

  describe("catches", () => {
    it.live("I1: a database that checks no fence", () =>
      Effect.gen(function* () {
        const caught = yield* firstCaught({ fences: (leases) => ({ ...leases, holds: () => Effect.succeed(true) }) })
        assert.include(checkersOf(caught), "I1 oneOwner")
      })
    )

    it.live("I2: a process that acknowledges before it has committed", () =>
      Effect.gen(function* () {
        const caught = yield* firstCaught({
          homeserver: (port) => ({
            ...port,
            sync: (request) =>
              Effect.tap(port.sync(request), ({ extensions: { toDevice } }) =>
                toDevice === undefined || toDevice.events.length === 0
                  ? Effect.void
                  : port.sync({
                      ...request,
                      timeoutMillis: 0,
                      extensions: { ...request.extensions, toDevice: { since: toDevice.nextBatch } }
                    } as typeof request)
              )
          })
        })
        assert.include(checkersOf(caught), "I2 acknowledgedIsStored")
      })
    )

    it.live("I6: a process that tells before it has committed", () =>
      Effect.gen(function* () {
        const caught = yield* firstCaught({
          store: (store, later) => ({
            ...store,
            commitMain: (commit) => later(Effect.delay(store.commitMain(commit), 20))
          })
        })
        assert.include(checkersOf(caught), "I6 publishedIsStored")
      })
    )

    it.live("I2: a database that forgets the keys of what it applies", () =>
      Effect.gen(function* () {
        const caught = yield* firstCaught({
          store: (store) => ({
            ...store,
            commitExtension: (fence, commit) =>
              store.commitExtension(fence, {
                ...commit,
                crypto: commit.crypto.filter(({ collection }) => collection !== "keys")
              })
          })
        })
        assert.include(checkersOf(caught), "I2 keyIsKept")
      })
    )

    it.live("I2: a homeserver's port that says that a key was sent, and has not sent it", () =>
      Effect.gen(function* () {
        const caught = yield* firstCaught({ homeserver: (port) => ({ ...port, sendToDevice: () => Effect.void }) })
        assert.include(checkersOf(caught), "I2 keyBeforeMessage")
      })
    )

    it.live("I2: a disk that says that it has committed, and has not", () =>
      Effect.gen(function* () {
        const caught = yield* firstCaught({
          store: (store) => ({
            ...store,
            commitExtension: () => Effect.succeed<ReadonlyArray<SyncStore.InboxEntry>>([])
          })
        })
        assert.isNotEmpty(checkersOf(caught))
      })
    )

    it.live(
      "I4, I9: what it catches is cut down to the steps that it needs, and fails again from its JSON",
      () =>
        Effect.gen(function* () {
          const run = (schedule: SyncSim.Schedule) =>
            SyncSim.run(schedule, {
              sabotage: { fences: (leases) => ({ ...leases, holds: () => Effect.succeed(true) }) }
            })
          for (let seed = 0; ; seed++) {
            const schedule = yield* SyncSim.drawSchedule(seed)
            const outcome = yield* run(schedule)
            if (outcome.violations[0]?.checker !== "I1 oneOwner") continue
            const small = yield* SyncSim.shrink(schedule, outcome, run, 150)
            assert.isBelow(small.schedule.steps.length, 8)
            assert.strictEqual((yield* run(small.schedule)).violations[0]?.checker, "I1 oneOwner")
            return
          }
        }),
      120_000
    )
  })
})
