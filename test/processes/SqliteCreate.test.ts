import { assert, describe, it } from "@effect/vitest"
import { SyncStore } from "@twinloop/core"
import { Migrations, SqliteStores } from "@twinloop/platform"
import { Clock, Effect } from "effect"
import { SqlClient } from "effect/sql"
import { execFile } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

const child = fileURLToPath(new URL("./sqliteCreateChild.ts", import.meta.url))
const processes = 3
const turns = 20

const temporaryDirectory = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "twinloop-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
)

const runChild = (filename: string, startAtMillis: number): Effect.Effect<ReadonlyArray<number>> =>
  Effect.promise(() =>
    promisify(execFile)(process.execPath, [child, filename, String(startAtMillis), String(turns)])
  ).pipe(Effect.map(({ stdout }) => JSON.parse(stdout) as ReadonlyArray<number>))

describe("processes that create one database at the same moment", () => {
  it.live("I1, I2: all open it, and own the extension stream in turns without a lost or doubled batch", () =>
    Effect.gen(function* () {
      // Inside a directory that is missing as well, so that they race for that too.
      const filename = join(yield* temporaryDirectory, "new", "account.db")
      // Starting Node and loading Effect takes most of a second.
      const startAtMillis = (yield* Clock.currentTimeMillis) + 3_000
      const generations = yield* Effect.all(
        Array.from({ length: processes }, () => runChild(filename, startAtMillis)),
        { concurrency: "unbounded" }
      )

      yield* Effect.gen(function* () {
        const store = yield* SyncStore.SyncStore
        const sql = yield* SqlClient.SqlClient
        const total = processes * turns
        const rows = yield* store.readInbox({ after: 0, limit: 1_000 })
        assert.deepStrictEqual(
          rows.map((row) => row.sequence),
          Array.from({ length: total }, (_, index) => index + 1)
        )
        assert.deepStrictEqual(yield* store.extensionPosition, { since: String(total) })
        for (const sender of new Set(rows.map((row) => row.sender))) {
          const indexes = rows.filter((row) => row.sender === sender).map((row) => row.event["index"])
          assert.deepStrictEqual(
            indexes,
            Array.from({ length: turns }, (_, index) => index)
          )
        }
        // A generation has one owner, whose turns follow each other.
        const owners = new Map(rows.map((row) => [row.generation, row.sender]))
        for (const row of rows) assert.strictEqual(owners.get(row.generation), row.sender)
        assert.deepStrictEqual(
          rows.map((row) => row.generation),
          generations.flat().toSorted((a, b) => a - b)
        )
        assert.lengthOf(yield* sql`SELECT * FROM twinloop_migrations`, Migrations.knownVersion, "each step ran once")
      }).pipe(Effect.provide(SqliteStores.layer({ filename })))
    })
  )
})
