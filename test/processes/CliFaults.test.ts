/** The `twinloop` command when what is around it fails: its reader goes away, a process it asks is stopped. */
import { assert, describe, it } from "@effect/vitest"
import { HomeserverModel } from "@twinloop/core/homeserver"
import { DevHomeserver } from "@twinloop/platform/dev"
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { fileURLToPath } from "node:url"
import * as Account from "./Account.ts"
import * as Program from "./Program.ts"
import * as TemporaryDatabase from "./TemporaryDatabase.ts"

const main = fileURLToPath(new URL(Program.TWINLOOP, import.meta.url))

/** Starts `twinloop run`, closes its standard output after the first line, and gives its end. */
const runUntilNobodyReads = (database: string) =>
  Effect.promise(async () => {
    const child = spawn(process.execPath, [main, "run", "--json", "--database", database], {
      stdio: ["ignore", "pipe", "pipe"]
    })
    let errors = ""
    child.stderr.setEncoding("utf8").on("data", (text: string) => (errors += text))
    child.stdout.once("data", () => child.stdout.destroy())
    const [code] = (await once(child, "close")) as [number | null]
    return { code, errors }
  })

describe("twinloop", () => {
  it.live("I4: stops in order when nobody reads its output any more", () =>
    Effect.gen(function* () {
      const account = yield* Account.make
      const { code, errors } = yield* runUntilNobodyReads(account.database)
      assert.strictEqual(errors, "")
      assert.strictEqual(code, 0)
      const row = yield* Account.lease(account)
      assert.strictEqual(row?.expiresAtMillis ?? 0, 0)
    })
  )

  it.live("asks the other processes, too, when one is stopped", () =>
    Effect.gen(function* () {
      const account = yield* Account.make
      const owner = yield* Account.startCommand(account, "main")
      yield* owner.until("own the stream", Account.owns)
      const other = yield* Account.startCommand(account, "standby")
      yield* other.until("wait for the stream", Account.waits)
      for (const [stopped, living] of [
        [owner, other],
        [other, owner]
      ] as const) {
        yield* stopped.signal("SIGSTOP")
        const status = yield* Program.start<unknown>(
          Program.TWINLOOP,
          "status",
          "--json",
          "--database",
          account.database
        )
        assert.strictEqual(yield* status.ended, 1)
        const [answers, failure] = (yield* status.lines) as [
          ReadonlyArray<{ readonly pid: number; readonly state?: string; readonly error?: string }>,
          { readonly ok: boolean; readonly error: string }
        ]
        assert.strictEqual(answers.find(({ pid }) => pid === living.pid)?.state, "running")
        assert.include(answers.find(({ pid }) => pid === stopped.pid)?.error, "no answer")
        assert.deepInclude(failure, { ok: false })
        yield* stopped.signal("SIGCONT")
      }
    })
  )

  it.live("takes a password with blanks around it as it is", () =>
    Effect.gen(function* () {
      const { baseUrl, host } = yield* DevHomeserver.DevHomeserver
      const password = "  a pässword\t"
      yield* host.attempt((state) => HomeserverModel.addUser(state, { localpart: "alice", password }))
      const database = yield* TemporaryDatabase.make
      const login = yield* Program.start(
        Program.TWINLOOP,
        "login",
        baseUrl,
        "--user",
        "alice",
        "--json",
        "--database",
        database
      )
      yield* login.send(password)
      yield* login.endInput
      assert.strictEqual(yield* login.ended, 0, yield* login.errors)
    }).pipe(Effect.provide(DevHomeserver.layer({ port: 0 })))
  )
})
