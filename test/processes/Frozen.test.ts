/** A process that was frozen while it was asked something: what the broken connection leaves behind must keep nothing alive. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Account from "./Account.ts"
import * as Program from "./Program.ts"

/** Asks a process that can't answer, and gives up. */
const ask = (account: Account.Account, command: string) =>
  Effect.gen(function* () {
    const asked = yield* Program.start<unknown>(Program.TWINLOOP, command, "--database", account.database)
    assert.strictEqual(yield* asked.ended, 1)
    assert.include(yield* asked.errors, "no answer")
    assert.include(yield* asked.errors, "may then still do")
  })

describe("a frozen process", () => {
  for (const [signal, commands] of [
    ["SIGTSTP", ["suspend"]],
    ["SIGSTOP", ["status", "suspend"]]
  ] as const) {
    it.live(`I4: ends at SIGTERM after ${signal}, ${commands.join(", ")} and SIGCONT`, () =>
      Effect.gen(function* () {
        const account = yield* Account.make
        const owner = yield* Account.startCommand(account, "main")
        yield* owner.until("own the stream", Account.owns)
        yield* owner.signal(signal)
        if (signal === "SIGTSTP") yield* owner.until("suspend", Account.isSuspended)
        for (const command of commands) yield* ask(account, command)
        yield* owner.signal("SIGCONT")
        // It answers again, so it has read what those who gave up had asked.
        const status = yield* Program.start<unknown>(Program.TWINLOOP, "status", "--database", account.database)
        assert.strictEqual(yield* status.ended, 0, yield* status.errors)
        yield* owner.signal("SIGTERM")
        assert.strictEqual(yield* owner.ended, 0, yield* owner.errors)
        // A connection may have ended while it was frozen: then it says so, and asks again.
        const said = (yield* owner.errors).split("\n").filter((line) => !line.includes("is tried again"))
        assert.strictEqual(said.join("\n"), "")
      })
    )
  }
})
