import { HomeserverModel } from "@twinloop/core/testing"
import { DevHomeserver } from "@twinloop/platform/dev"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as Program from "../support/Program.ts"

const main = fileURLToPath(new URL("main.ts", import.meta.url))

const temporaryDirectory = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "twinloop-example-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
)

describe("01-minimal", { timeout: 120_000 }, () => {
  it.live("shows rooms and inbox of its own homeserver, and stops quietly", () =>
    Effect.gen(function* () {
      const program = yield* Program.start(main)
      yield* program.until(/^rooms: .*Room 3.*Room 2.*Room 1/)
      yield* program.until(/^rooms: .* moves to 0/)
      yield* program.until(/^inbox: 2 org\.twinloop\.numbered from @bob:localhost$/)
      yield* program.signal("SIGINT")
      yield* program.until(/^quiet after \d+ ms$/)
      assert.strictEqual(yield* program.exitCode, 0)
    })
  )

  it.live("logs in to a given homeserver once, and is the same device at the next start", () =>
    Effect.gen(function* () {
      const { baseUrl, host } = yield* DevHomeserver.DevHomeserver
      yield* host.attempt((state) => HomeserverModel.addUser(state, { localpart: "carol", password: "secret" }))
      const database = join(yield* temporaryDirectory, "account.db")
      const args = ["--homeserver", baseUrl, "--user", "carol", "--database", database]

      for (const expected of [/^logged in as @carol:localhost$/, /^logged in already$/]) {
        const program = yield* Program.start(main, args, { MATRIX_PASSWORD: "secret" })
        yield* program.until(expected)
        yield* program.until(/^rooms: 0 rooms/)
        yield* program.signal("SIGTERM")
        assert.strictEqual(yield* program.exitCode, 0)
      }
      const devices = yield* host.step((state) => state.users.get("@carol:localhost")?.devices.size)
      assert.strictEqual(devices, 1)
    }).pipe(Effect.provide(DevHomeserver.layer({ port: 0 })))
  )
})
