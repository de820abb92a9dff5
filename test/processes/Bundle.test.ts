import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { dirname, join } from "node:path"
import { fileURLToPath, pathToFileURL } from "node:url"
import type { StartLine } from "../../bench/contestants/start/StartLine.ts"
import { bundle } from "../../scripts/bundle.ts"
import * as Account from "./Account.ts"
import * as Program from "./Program.ts"

const entry = fileURLToPath(new URL("../../bench/contestants/start/oneShot.ts", import.meta.url))

/** Runs the one-shot program, as one file, to its end; gives what it said. */
const runOnce = Effect.fnUntraced(function* (account: Account.Account, file: URL) {
  const cache = join(dirname(account.database), "cache")
  const program = yield* Program.startFile<StartLine>(file, {
    args: [account.database],
    env: { NODE_COMPILE_CACHE: cache }
  })
  const { line } = yield* program.until("say that it is done", () => true)
  assert.strictEqual(yield* program.ended, 0, yield* program.errors)
  return line
}, Effect.scoped)

describe("A program in one file", () => {
  it.live("I1, I2: takes the stream once, commits what came, and leaves the lease free", () =>
    Effect.gen(function* () {
      const account = yield* Account.make
      const file = join(dirname(account.database), "oneShot.cjs")
      yield* Effect.promise(() => bundle(entry, file))

      account.homeserver.send(3)
      const first = yield* runOnce(account, pathToFileURL(file))
      assert.strictEqual(first.messages, 3)
      assert.strictEqual((yield* Account.lease(account))?.expiresAtMillis, 0)

      // Nothing of the sources is needed any more, and what was compiled by the first run is used by the second one.
      account.homeserver.send(2)
      const second = yield* runOnce(account, pathToFileURL(file))
      assert.strictEqual(second.messages, 2)
      Account.assertExactlyOnce(yield* Account.inbox(account), 5)
    })
  )

  it.live("I1: leaves the stream to the process that owns it", () =>
    Effect.gen(function* () {
      const account = yield* Account.make
      const file = join(dirname(account.database), "oneShot.cjs")
      yield* Effect.promise(() => bundle(entry, file))
      const owner = yield* Account.start(account, "main")
      yield* owner.until("own the stream", Account.owns)

      const line = yield* runOnce(account, pathToFileURL(file))
      assert.strictEqual(line.done, "busy")
      assert.match((yield* Account.lease(account))?.holder ?? "", /^main#/)
    })
  )
})
