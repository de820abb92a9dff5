import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import * as Account from "./Account.ts"
import type * as ScriptedHomeserver from "./ScriptedHomeserver.ts"
import * as TemporaryDatabase from "./TemporaryDatabase.ts"

/** Short, so that a take-over by expiry takes a second, and long enough for a busy machine to renew in time. */
const shortLease = { leaseMillis: 1_500, renewMillis: 400, waitPollMillis: 200 }

const HOUR = 3_600_000

/** Two processes, the first of which owns the stream. */
const startTwo = Effect.fnUntraced(function* (
  account: Account.Account,
  options: Parameters<typeof Account.start>[2] = {}
) {
  const [first, second] = yield* Effect.all(
    [
      Effect.tap(Account.start(account, "one", options), (program) => program.until("own the stream", Account.owns)),
      Effect.andThen(
        TemporaryDatabase.until("an owner", Account.lease(account), (row) => row !== undefined),
        Account.start(account, "two", options)
      )
    ],
    { concurrency: 2 }
  )
  yield* second.until("wait for the lock", Account.waits)
  yield* TemporaryDatabase.until("a place in the queue", Account.waiters(account), (count) => count === 1)
  return [first, second] as const
})

/** The owner's long poll is on the line. */
const untilPolling = (homeserver: ScriptedHomeserver.ScriptedHomeserver) =>
  TemporaryDatabase.until(
    "a poll on the line",
    Effect.sync(
      () => homeserver.inFlight.get("encryption") === 1 && homeserver.seen.some(({ since }) => since === "0")
    ),
    (isPolling) => isPolling
  )

/** Lets a process end in order. */
const stop = (program: Account.Process) =>
  Effect.gen(function* () {
    yield* program.signal("SIGTERM")
    assert.strictEqual(yield* program.ended, 0)
  })

describe("Two processes of an account", () => {
  it.live("I2: a kill in the middle of a batch loses nothing and applies nothing twice, five times over", () =>
    Effect.gen(function* () {
      const account = yield* Account.make
      const { homeserver } = account
      const takeovers: Array<number> = []
      let [owner, waiter] = yield* startTwo(account)
      const pump = yield* Effect.forkScoped(
        Effect.forever(
          Effect.andThen(
            Effect.sync(() => homeserver.send(5)),
            Effect.sleep("5 millis")
          )
        )
      )
      for (let round = 0; round < 5; round++) {
        // Some batches later, whenever that is: at another instruction each time.
        const before = homeserver.acknowledged
        yield* TemporaryDatabase.until(
          "more batches",
          Effect.sync(() => homeserver.acknowledged),
          (acknowledged) => acknowledged > before + 40 + round * 13
        )
        const killedAt = yield* Account.nowMillis
        yield* owner.signal("SIGKILL")
        const owned = yield* waiter.until("own the stream", Account.owns)
        takeovers.push(owned.line.atMillis - killedAt)
        const next = yield* Account.start(account, `r${round}`)
        yield* next.until("wait for the lock", Account.waits)
        ;[owner, waiter] = [waiter, next]
      }
      yield* Fiber.interrupt(pump)
      yield* Account.untilInbox(account, homeserver.sent)
      console.log(`SIGKILL of the owner to the next one's sync: ${takeovers.map((ms) => ms.toFixed(0)).join(", ")} ms`)
      assert.isBelow(Math.max(...takeovers), 2_000)
      const rows = yield* Account.inbox(account)
      Account.assertExactlyOnce(rows, homeserver.sent)
      // Each of the five that were killed had applied something, and the one that is left.
      assert.strictEqual((yield* Account.lease(account))?.generation, 6)
    })
  )

  for (const [what, renewMillis] of [
    ["finds its grant lost", shortLease.renewMillis],
    // It never asks whether the lease is still its own, so that only the fence stands between it and the data.
    ["believes that it still owns", 600_000]
  ] as const) {
    it.live(`I1, I2: an owner that was stopped with a response in flight, and then ${what}, writes nothing`, () =>
      Effect.gen(function* () {
        const account = yield* Account.make
        const { homeserver } = account
        const config = renewMillis > shortLease.leaseMillis ? { leaseMillis: 5_000, renewMillis } : shortLease
        const [stale, next] = yield* startTwo(account, { config: { ...config, waitPollMillis: 200 } })
        yield* untilPolling(homeserver)

        // The response arrives while the owner is stopped: the kernel keeps it.
        homeserver.script.held.extension = true
        homeserver.send(5)
        yield* stale.signal("SIGSTOP")
        homeserver.script.held.extension = false
        homeserver.tell()

        // The other takes over after the lease, and is sent the same batch: nobody has acknowledged it.
        yield* next.until("own the stream", Account.owns)
        yield* Account.untilApplied(next, 5)
        const before = yield* stale.said
        yield* stale.signal("SIGCONT")
        yield* stale.until("wait for the lock", Account.waits, { since: before })
        Account.assertExactlyOnce(yield* Account.inbox(account), 5)

        // It goes on when the other one has stopped, without applying anything again.
        const waiting = yield* stale.said
        yield* stop(next)
        yield* stale.until("own the stream", Account.owns, { since: waiting })
        homeserver.send(3)
        yield* Account.untilApplied(stale, 8)
        const rows = yield* Account.inbox(account)
        Account.assertExactlyOnce(rows, 8)
        assert.lengthOf(new Set(rows.map((row) => row.generation)), 2)
      })
    )
  }

  it.live("a stop that is shorter than the lease changes nothing", () =>
    Effect.gen(function* () {
      const account = yield* Account.make
      const { homeserver } = account
      const [owner, waiter] = yield* startTwo(account)
      homeserver.send(2)
      yield* Account.untilApplied(owner, 2)
      const generation = (yield* Account.lease(account))?.generation
      const said = yield* owner.said
      yield* owner.signal("SIGSTOP")
      homeserver.send(3)
      yield* Effect.sleep("1500 millis")
      yield* owner.signal("SIGCONT")
      yield* Account.untilApplied(owner, 5)
      assert.strictEqual((yield* Account.lease(account))?.generation, generation)
      assert.isFalse((yield* waiter.lines).some(Account.owns))
      // Neither of its loops has so much as noticed.
      const states = (yield* owner.lines).slice(said).filter((event) => event.event === "state")
      assert.deepStrictEqual(states, [])
      Account.assertExactlyOnce(yield* Account.inbox(account), 5)
    })
  )

  it.live("I1, I2: simulated clocks an hour apart apply nothing twice", () =>
    Effect.gen(function* () {
      for (const clockOffsetMillis of [HOUR, -HOUR]) {
        const account = yield* Account.make
        const { homeserver } = account
        const right = yield* Account.start(account, "right")
        const shifted = yield* Account.start(account, "shifted", { clockOffsetMillis })
        yield* right.until("own the stream", Account.owns)
        yield* shifted.until("start", (event) => event.event === "state")
        for (let sent = 0; sent < 300; sent += 3) {
          homeserver.send(3)
          yield* Effect.sleep("10 millis")
        }
        yield* Account.untilInbox(account, 300)
        Account.assertExactlyOnce(yield* Account.inbox(account), 300)

        yield* right.signal("SIGKILL")
        homeserver.send(10)
        yield* Account.untilInbox(account, 310)
        Account.assertExactlyOnce(yield* Account.inbox(account), 310)
        yield* stop(shifted)
      }
    })
  )
})
