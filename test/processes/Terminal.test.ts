/** A process that can't go on by itself: it ends with the reason if it is asked to, and goes on after a new login if not. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { RunEvent } from "../../packages/platform/src/cli/RunEvent.ts"
import * as Account from "./Account.ts"
import * as Program from "./Program.ts"
import { PASSWORD } from "./ScriptedHomeserver.ts"

const isTerminal = (event: RunEvent): boolean => event.event === "state" && event.state === "Terminal"

/** Ends the login at the homeserver, and lets the loops' polls return to see it. */
const endLogin = ({ homeserver }: Account.Account) => {
  homeserver.expireToken()
  homeserver.script.rooms++
  homeserver.send(1)
}

/** Runs a command that succeeds. */
const command = Effect.fnUntraced(function* (input: string, ...args: ReadonlyArray<string>) {
  const program = yield* Program.start<unknown>(Program.TWINLOOP, ...args)
  yield* program.send(input)
  yield* program.endInput
  assert.strictEqual(yield* program.ended, 0, yield* program.errors)
}, Effect.scoped)

describe("a process whose login has ended", () => {
  it.live("stops in order and exits with 3 when it shall exit on such an end", () =>
    Effect.gen(function* () {
      const account = yield* Account.make
      const { database } = account
      const owner = yield* Program.start<RunEvent>(
        Program.TWINLOOP,
        "run",
        "--json",
        "--exit-on-terminal",
        "--database",
        database
      )
      yield* owner.until("load the rooms", Account.isLoaded)
      endLogin(account)
      assert.strictEqual(yield* owner.ended, 3)
      assert.isTrue((yield* owner.lines).some((event) => event.event === "quiet" && event.by === "stop" && event.quiet))
      assert.match(yield* owner.errors, /loop has given up: .*[Ll]og in again/)
    })
  )

  it.live("goes on after a new login, a suspend and a resume", () =>
    Effect.gen(function* () {
      const account = yield* Account.make
      const { database, homeserver } = account
      const owner = yield* Account.startCommand(account, "main")
      yield* owner.until("load the rooms", Account.isLoaded)
      endLogin(account)
      yield* owner.until("give up", isTerminal)
      yield* command(PASSWORD, "login", homeserver.baseUrl, "--user", "alice", "--database", database)
      const since = yield* owner.said
      yield* command("", "suspend", "--database", database)
      yield* command("", "resume", "--database", database)
      const { next } = yield* owner.until("sync the rooms again", Account.isLoaded, { since })
      homeserver.send(1)
      yield* owner.until("apply what was sent", (event) => event.event === "inbox", { since })
      assert.isFalse((yield* owner.lines).slice(next).some(isTerminal))
      yield* owner.signal("SIGTERM")
      assert.strictEqual(yield* owner.ended, 0)
    })
  )
})
