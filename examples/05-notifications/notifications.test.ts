import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { fileURLToPath } from "node:url"
import * as Program from "../support/Program.ts"

const main = fileURLToPath(new URL("main.ts", import.meta.url))

describe("05-notifications", { timeout: 120_000 }, () => {
  it.live(
    "shows what is pushed while the application is suspended: a message that is encrypted, and an invitation",
    () =>
      Effect.gen(function* () {
        const program = yield* Program.start(main)
        yield* program.until(/^alice's application is suspended$/)
        yield* program.until(/^she is shown: .*Are you there\?$/)
        yield* program.until(/^she is shown: Garden: .*invites you/)
        assert.strictEqual(yield* program.exitCode, 0)
      })
  )
})
