/** The process that a push starts: what it shows, what it ends with, and that the stream is free when it is gone. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Pushed from "./fixtures/PushedAccount.ts"

/** The row of the lease says that nobody has it. */
const assertFree = Effect.fnUntraced(function* (account: Pushed.Account) {
  assert.strictEqual((yield* Pushed.lease(account))?.expiresAtMillis ?? 0, 0)
})

describe("notify", () => {
  it.live(
    "I4: shows an event in the clear and an encrypted one while no application runs, and leaves the stream free",
    () =>
      Effect.gen(function* () {
        const account = yield* Pushed.make
        yield* Pushed.publishKeys(account)
        const plain = yield* Pushed.notifyOnce(account, account.plain, yield* Pushed.says(account, "dinner is ready"))
        assert.strictEqual(plain.exitCode, 0, plain.errors)
        assert.deepInclude(plain.lines[0], { result: "Event", title: "Kitchen", body: "Alice: dinner is ready" })
        assert.isAbove(plain.lines[0]?.peakRssBytes ?? 0, 0)

        const secret = yield* Pushed.notifyOnce(
          account,
          account.encrypted,
          yield* Pushed.whispers(account, "a surprise")
        )
        assert.strictEqual(secret.exitCode, 0, secret.errors)
        // Marked, since nobody has verified Alice's device.
        assert.deepInclude(secret.lines[0], { result: "Event", title: "Cellar", body: "⚠ Alice: a surprise" })
        assert.deepStrictEqual([plain.lines.length, secret.lines.length], [1, 1])
        assert.isAbove((yield* Pushed.lease(account))?.generation ?? 0, 1)
        yield* assertFree(account)
        const costs = [plain, secret].map(
          ({ lines: [line] }) => `${line?.millis} ms, ${Math.round((line?.peakRssBytes ?? 0) / 1e6)} MB`
        )
        console.log(`in the clear ${costs[0]}; encrypted ${costs[1]}`)
      })
  )
})
