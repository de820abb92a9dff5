import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { fileURLToPath } from "node:url"
import * as Program from "../support/Program.ts"

const main = fileURLToPath(new URL("main.ts", import.meta.url))

describe("04-encrypted-room", { timeout: 120_000 }, () => {
  it.live("two people read one another, and the homeserver neither", () =>
    Effect.gen(function* () {
      const program = yield* Program.start(main)
      yield* program.until(/^bob sees: @alice:localhost: Can you read this\? \[UnsignedDevice\]$/)
      yield* program.until(/^bob sees: @bob:localhost: I can, and nobody else\. \[UnsignedDevice\]$/)
      const { line } = yield* program.until(/^what the homeserver has: m\.room\.encrypted with .*ciphertext/)
      assert.notMatch(line, /body|msgtype/)
      assert.strictEqual(yield* program.exitCode, 0)
    })
  )
})
