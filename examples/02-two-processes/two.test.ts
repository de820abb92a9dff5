import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { fileURLToPath } from "node:url"
import * as Program from "../support/Program.ts"

const main = fileURLToPath(new URL("main.ts", import.meta.url))

describe("02-two-processes", () => {
  it.live(
    "I1, I4: the stream has one owner, and moves on when the owner is suspended or killed",
    () =>
      Effect.gen(function* () {
        const program = yield* Program.start(main)
        const story = [
          /main owns the stream, generation 1$/,
          /standby waits for the stream$/,
          /main is suspended$/,
          /standby owns the stream, generation 2$/,
          /main waits for the stream$/,
          /main owns the stream, generation 3$/,
          /main has stopped, exit code 0$/
        ]
        let line = 0
        for (const expected of story) line = (yield* program.until(expected, line)).number
        assert.strictEqual(yield* program.exitCode, 0)
      }),
    120_000
  )
})
