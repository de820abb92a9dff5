import { assert, describe, it } from "@effect/vitest"
import { Console, Effect } from "effect"
import * as ExitCode from "../src/cli/ExitCode.ts"

/** What is printed on standard output with `--json` for a failure. */
const printedFor = (failure: ExitCode.CommandFailed) =>
  Effect.gen(function* () {
    const printed: Array<string> = []
    const log = (text: unknown): void => void printed.push(String(text))
    const recording = { ...(yield* Console.Console), log, error: () => {} }
    const failed = yield* Effect.flip(ExitCode.report(true)(failure)).pipe(
      Effect.provideService(Console.Console, recording)
    )
    assert.strictEqual(failed.exitCode, failure.exitCode)
    return printed
  })

describe("ExitCode", () => {
  it.effect("leaves the last line to a result that says itself what failed", () =>
    Effect.gen(function* () {
      const failure = { message: "1 event was lost", exitCode: ExitCode.exitCodes.story }
      assert.deepStrictEqual(yield* printedFor(new ExitCode.CommandFailed({ ...failure, printed: true })), [])
      const [line] = yield* printedFor(new ExitCode.CommandFailed(failure))
      assert.deepInclude(JSON.parse(line!), { ok: false, error: failure.message, exitCode: 7 })
    })
  )
})
