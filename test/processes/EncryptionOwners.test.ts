/** Two processes of an account that both send encrypted messages, which only the owner of the stream can. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Encrypted from "./fixtures/EncryptedAccount.ts"

const TURNS = 20
const FREEZES = 10

describe("Two processes with end-to-end keys", () => {
  it.live("I1, I2: send in turns, and each time the stream goes to and fro, with nothing lost or doubled", () =>
    Effect.gen(function* () {
      const account = yield* Encrypted.make
      const first = yield* Encrypted.start(account)
      yield* Encrypted.begin(account, first, { config: { role: "first" } })
      yield* first.until("own the stream", Encrypted.owns)
      yield* first.until("upload keys", (line) => line.event === "uploads")
      const second = yield* Encrypted.start(account)
      yield* Encrypted.begin(account, second, { config: { role: "second" } })
      yield* second.until("wait for the lock", Encrypted.waits)

      const bodies: Array<string> = []
      for (let turn = 0; turn < TURNS; turn++) {
        for (const [name, process] of [
          ["first", first],
          ["second", second]
        ] as const) {
          const body = `${name} ${turn}`
          bodies.push(body)
          const since = yield* process.said
          yield* Encrypted.aliceSays(account, `alice, while ${body}`, turn)
          yield* Encrypted.tell(process, { do: "send", messages: Encrypted.want(account, [body]) })
          yield* process.until(`send ${body}`, (line) => line.event === "sent" && line.body === body, { since })
        }
      }
      yield* Encrypted.untilApplied(account)
      yield* Encrypted.hear(account, first)
      yield* Encrypted.hear(account, second)
      const { conflicts, duplicated, lost } = yield* Encrypted.judge(account, bodies)
      assert.deepStrictEqual([lost, duplicated, conflicts], [[], [], 0])
      // Each message was sent by another owner than the one before, but for the first.
      const [row] = yield* Encrypted.lease(account)
      assert.isAtLeast(row?.generation ?? 0, 2 * TURNS)
      console.log(`to and fro: ${bodies.length} messages, ${row?.generation} owners, 0 lost, 0 duplicated`)
    })
  )

  it.live("I1, I2: an owner that is frozen in the middle of a batch writes nothing when it wakes up", () =>
    Effect.gen(function* () {
      const account = yield* Encrypted.make
      let owner = yield* Encrypted.start(account)
      // It never asks whether the lease is still its own, so that only the fence stands between it and the keys.
      const config = { leaseMillis: 1_000, renewMillis: 600_000 }
      yield* Encrypted.begin(account, owner, { config: { ...config, role: "first" } })
      yield* owner.until("own the stream", Encrypted.owns)
      yield* owner.until("upload keys", (line) => line.event === "uploads")
      let waiter = yield* Encrypted.start(account)
      yield* Encrypted.begin(account, waiter, { config: { ...config, role: "second" } })
      yield* waiter.until("start", (line) => line.event === "state")

      for (let turn = 0; turn < FREEZES; turn++) {
        const [wasOwner, wasWaiter] = [yield* owner.said, yield* waiter.said]
        const point = { step: "store.commitExtension:before", count: 1, signal: "SIGSTOP" } as const
        yield* Encrypted.tell(owner, { do: "arm", point })
        yield* Encrypted.aliceSays(account, `alice ${turn}`, turn)
        yield* Encrypted.carolSays(account, `carol ${turn}`)
        yield* owner.until("stop in a batch", (line) => line.event === "met", { since: wasOwner })
        yield* waiter.until("own the stream", Encrypted.owns, { since: wasWaiter })
        yield* Encrypted.untilApplied(account)
        const before = yield* Encrypted.rows(account)
        yield* owner.signal("SIGCONT")
        const { line } = yield* owner.until("be refused", (line) => line.event === "refused", { since: wasOwner })
        assert.strictEqual(line.event === "refused" && line.reason, "StaleGeneration")
        assert.deepStrictEqual(yield* Encrypted.rows(account), before)
        ;[owner, waiter] = [waiter, owner]
      }
      yield* Encrypted.untilApplied(account)
      const { conflicts, duplicated, lost } = yield* Encrypted.judge(account, [])
      assert.deepStrictEqual([lost, duplicated, conflicts], [[], [], 0])
      console.log(`frozen in a batch: ${FREEZES} take-overs, 0 lost, 0 duplicated`)
    })
  )
})
