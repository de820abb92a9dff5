import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import type { AddressInfo } from "node:net"
import { DatabaseSync } from "node:sqlite"
import type { RunEvent } from "../../packages/platform/src/cli/RunEvent.ts"
import * as Account from "./Account.ts"
import * as Program from "./Program.ts"
import { PASSWORD } from "./ScriptedHomeserver.ts"
import * as TemporaryDatabase from "./TemporaryDatabase.ts"

const flagsOf = {
  dev: ["--homeserver", "--rooms", "--keep", "--json"],
  homeserver: ["--port", "--user", "--no-user", "--rooms", "--with-parent", "--json"],
  login: ["--user", "--by", "--database", "--json"],
  run: ["--database", "--role", "--deadline", "--with-parent", "--exit-on-terminal", "--key-file", "--json"],
  status: ["--database", "--pid", "--json"],
  lease: ["--database", "--pid", "--json"],
  suspend: ["--database", "--pid", "--deadline", "--json"],
  resume: ["--database", "--pid", "--json"],
  stop: ["--database", "--pid", "--json"]
} as const

const asking = ["status", "lease", "suspend", "resume", "stop"] as const

interface Outcome {
  readonly code: number | NodeJS.Signals
  readonly out: string
  readonly err: string
}

/** A terminal's escape codes begin with this character. */
const ESCAPE = "\u001b"

/** Runs `twinloop` to its end, with an input; whatever it prints off a terminal has no escape codes. */
const twinloop = Effect.fnUntraced(function* (args: ReadonlyArray<string>, input = "") {
  const program = yield* Program.start<unknown>(Program.TWINLOOP, ...args)
  yield* program.send(input)
  yield* program.endInput
  const code = yield* program.ended
  const outcome: Outcome = { code, out: yield* program.output, err: yield* program.errors }
  assert.notInclude(outcome.out + outcome.err, ESCAPE)
  return outcome
}, Effect.scoped)

/** As many at a time as a small machine has cores to start them. */
const forEach = <A>(all: ReadonlyArray<A>, run: (one: A) => Effect.Effect<void>) =>
  Effect.forEach(all, run, { concurrency: 2, discard: true })

/** The JSON of a run: the whole of standard output, in one line. */
const jsonOf = ({ out }: Outcome): unknown => {
  const lines = out.split("\n").filter((line) => line !== "")
  assert.lengthOf(lines, 1, out)
  return JSON.parse(lines[0]!)
}

/** A failure with `--json` says the same on both streams. */
const assertFailure = (outcome: Outcome, exitCode: number): string => {
  assert.strictEqual(outcome.code, exitCode, outcome.out + outcome.err)
  const json = jsonOf(outcome) as { readonly ok: boolean; readonly error: string; readonly exitCode: number }
  assert.deepStrictEqual([json.ok, json.exitCode], [false, exitCode])
  assert.include(outcome.err, json.error)
  return json.error
}

describe("twinloop", () => {
  it.live("lists the flags of every command in its help", () =>
    Effect.gen(function* () {
      yield* forEach(Object.entries(flagsOf), ([command, flags]) =>
        Effect.map(twinloop([command, "--help"]), ({ code, err, out }) => {
          assert.deepStrictEqual([code, err], [0, ""])
          for (const flag of flags) assert.include(out, flag, `twinloop ${command} --help`)
        })
      )
      const { code, out } = yield* twinloop(["--help"])
      assert.strictEqual(code, 0)
      for (const command of Object.keys(flagsOf)) assert.match(out, new RegExp(`^  ${command} `, "m"))
      for (const exitCode of [0, 1, 2, 3, 4, 5, 6, 7, 130, 143]) assert.match(out, new RegExp(`\\b${exitCode}\\b`))
    })
  )

  it.live("ends with 2 and a hint when it is used wrongly", () =>
    Effect.gen(function* () {
      const wrong: ReadonlyArray<readonly [args: ReadonlyArray<string>, hint: string]> = [
        [["status", "--jsn"], "--json"],
        [["run", "--rol", "main"], "--role"],
        [["run", "--role", "much-too-long"], "1 to 8 letters, digits or dashes"],
        [["homeserver", "--port", "70000"], "--port"],
        [["homeserver", "--rooms", "-1"], "--rooms"],
        [["homeserver", "--port", "0", "--user", "Not a name"], "lower-case"],
        [["homeserver", "--port", "0", "--user", "alice", "--no-user"], "contradict"],
        [["suspend", "--deadline", "soon"], "--deadline"],
        [["suspend", "--deadline", "-5"], "--deadline"],
        [["dev", "--rooms", "-3"], "between 1 and 10000"],
        [["frobnicate"], "frobnicate"],
        [["login"], "homeserver"],
        [["login", "http://127.0.0.1:1", "--by", "magic"], "access-token"]
      ]
      yield* forEach(wrong, ([args, hint]) =>
        Effect.map(twinloop(args), ({ code, err, out }) => {
          assert.deepStrictEqual([code, out], [2, ""], args.join(" "))
          assert.include(err, hint, args.join(" "))
        })
      )
      const asJson = yield* twinloop(["status", "--jsn", "--json"])
      assert.include(assertFailure(asJson, 2), "--jsn")
      const noPassword = yield* twinloop(["login", "http://127.0.0.1:1", "--user", "alice", "--json"])
      assert.include(assertFailure(noPassword, 2), "No password came on standard input")
    })
  )

  it.live("ends with 6 when no process runs on the database", () =>
    Effect.gen(function* () {
      const database = yield* TemporaryDatabase.make
      yield* forEach(asking, (command) =>
        Effect.map(twinloop([command, "--json", "--database", database]), (outcome) => {
          const error = assertFailure(outcome, 6)
          assert.include(error, database)
          assert.include(error, "twinloop run")
        })
      )
      const { code, err, out } = yield* twinloop(["status", "--database", database])
      assert.deepStrictEqual([code, out], [6, ""])
      assert.include(err, "no twinloop process is running")
    })
  )

  it.live("ends with 3 when nobody is logged in", () =>
    Effect.gen(function* () {
      const database = yield* TemporaryDatabase.make
      const command = `twinloop login HOMESERVER --user NAME --database ${database}`
      const missing = assertFailure(yield* twinloop(["run", "--json", "--database", database]), 3)
      assert.include(missing, `There is no database ${database}`)
      assert.include(missing, command)
      assert.isFalse(existsSync(database))
      // An empty file is an empty database.
      writeFileSync(database, "")
      const empty = assertFailure(yield* twinloop(["run", "--json", "--database", database]), 3)
      assert.include(empty, `${database} holds no login`)
      assert.include(empty, command)
    })
  )

  it.live("ends with 4 when the database can't be used, names the file, and leaves it as it was", () =>
    Effect.gen(function* () {
      const database = yield* TemporaryDatabase.make
      const directory = `${database}.directory`
      mkdirSync(directory)
      const text = `${database}.txt`
      const content = "These are the notes of somebody, and no database.\n".repeat(100)
      writeFileSync(text, content)
      for (const file of [directory, text, `${database}-missing/below/a.db`]) {
        const isThere = file !== `${database}-missing/below/a.db`
        const error = assertFailure(yield* twinloop(["run", "--json", "--database", file]), isThere ? 4 : 3)
        assert.include(error, file)
        const login = ["login", "http://127.0.0.1:1", "--user", "alice", "--json", "--database", file]
        assert.include(assertFailure(yield* twinloop(login, PASSWORD), 4), file)
      }
      assert.strictEqual(readFileSync(text, "utf8"), content)
    })
  )

  it.live("ends with 4 when the key isn't that of the stored end-to-end keys, and changes nothing", () =>
    Effect.gen(function* () {
      const account = yield* Account.make
      const { database } = account
      const keyFile = `${database}.key`
      const run = (...args: ReadonlyArray<string>) => twinloop(["run", "--json", "--database", database, ...args])
      const stored = TemporaryDatabase.all<object>(database, `SELECT * FROM crypto_record ORDER BY collection, key`)

      const first = yield* Account.startCommand(account, "main")
      yield* first.until("say where the key is", (event) => event.event === "encryption" && event.keyFile === keyFile)
      yield* first.until("own the stream", Account.owns)
      yield* first.signal("SIGTERM")
      assert.strictEqual(yield* first.ended, 0)
      assert.strictEqual(statSync(keyFile).mode & 0o777, 0o600)
      const key = readFileSync(keyFile, "utf8")
      const keys = yield* stored
      assert.isNotEmpty(keys)

      renameSync(keyFile, `${keyFile}.elsewhere`)
      assert.include(assertFailure(yield* run(), 4), `the key file ${keyFile} is missing`)
      assert.isFalse(existsSync(keyFile))
      writeFileSync(keyFile, `${Buffer.alloc(32, 1).toString("base64")}\n`, { mode: 0o600 })
      assert.include(assertFailure(yield* run(), 4), "the key doesn't open the end-to-end keys")
      writeFileSync(keyFile, "half a k")
      assert.include(assertFailure(yield* run(), 4), "bytes instead of 32")
      writeFileSync(keyFile, key)
      chmodSync(keyFile, 0o644)
      assert.include(assertFailure(yield* run(), 4), "can be read by other users")
      assert.deepStrictEqual(yield* stored, keys)

      const elsewhere = yield* Program.start<RunEvent>(
        Program.TWINLOOP,
        "run",
        "--json",
        "--with-parent",
        "--database",
        database,
        "--key-file",
        `${keyFile}.elsewhere`
      )
      yield* elsewhere.until("own the stream", Account.owns)
    })
  )

  it.live("logs in with a secret from standard input, and never shows it", () =>
    Effect.gen(function* () {
      const account = yield* Account.make
      const { homeserver } = account
      const database = `${account.database}.new`
      const login = (input: string, ...args: ReadonlyArray<string>) =>
        twinloop(["login", homeserver.baseUrl, "--json", "--database", database, ...args], input)

      const wrong = yield* login("a wrong guess", "--user", "alice")
      assertFailure(wrong, 3)
      assert.notInclude(wrong.out + wrong.err, "a wrong guess")
      const wrongToken = yield* login("no-token", "--by", "access-token")
      assertFailure(wrongToken, 3)
      assert.notInclude(wrongToken.out + wrongToken.err, "no-token")
      assertFailure(yield* twinloop(["run", "--json", "--database", database]), 3)

      for (const [secret, args] of [
        [PASSWORD, ["--user", "alice"]],
        [homeserver.tokens.access, ["--by", "access-token"]]
      ] as const) {
        const right = yield* login(secret, ...args)
        assert.deepStrictEqual([right.code, right.err], [0, ""])
        assert.deepInclude(jsonOf(right) as object, { ok: true, userId: "@alice:scripted", database })
        assert.notInclude(right.out, homeserver.tokens.access)
      }
    })
  )

  it.live("ends with 5 when the homeserver can't be reached, or its port is taken", () =>
    Effect.gen(function* () {
      const database = yield* TemporaryDatabase.make
      const taken = yield* Effect.acquireRelease(
        Effect.promise(
          () =>
            new Promise<ReturnType<typeof createServer>>((resolve) => {
              const server = createServer((socket) => socket.destroy())
              server.listen({ host: "127.0.0.1", port: 0 }, () => resolve(server))
            })
        ),
        (server) => Effect.sync(() => server.close())
      )
      const port = String((taken.address() as AddressInfo).port)
      const error = assertFailure(yield* twinloop(["homeserver", "--json", "--port", port]), 5)
      assert.include(error, port)
      // What answers there is no homeserver; and nothing at all answers at port 1.
      for (const address of [`http://127.0.0.1:${port}`, "http://127.0.0.1:1", "not an address"]) {
        const login = ["login", address, "--user", "alice", "--json", "--database", database]
        assertFailure(yield* twinloop(login, PASSWORD), 5)
      }
    })
  )

  it.live("says everything of a running process in JSON, and nothing else on standard output", () =>
    Effect.gen(function* () {
      const account = yield* Account.make
      const owner = yield* Account.startCommand(account, "one")
      yield* owner.until("own the stream", Account.owns)
      yield* owner.until("load the rooms", Account.isLoaded)
      const ask = (command: string, ...args: ReadonlyArray<string>) =>
        Effect.map(twinloop([command, "--json", "--database", account.database, ...args]), (outcome) => {
          assert.deepStrictEqual([outcome.code, outcome.err], [0, ""])
          const answers = jsonOf(outcome) as ReadonlyArray<{ readonly [key: string]: unknown }>
          assert.lengthOf(answers, 1)
          assert.strictEqual(answers[0]?.["pid"], owner.pid)
          return answers[0]!
        })
      const status = yield* ask("status")
      assert.deepInclude(status, { role: "one", state: "running", rooms: 3, userId: "@alice:scripted" })
      const { fingerprint, ...encryption } = status["encryption"] as { readonly [key: string]: unknown }
      assert.match(String(fingerprint), /^[A-Za-z0-9+/]{43}$/)
      const keyFile = `${account.database}.key`
      assert.deepStrictEqual(encryption, { keyFile, isVerified: false, roomKeys: 0, oneTimeKeyConflicts: 0 })
      const asText = yield* twinloop(["status", "--database", account.database])
      assert.include(asText.out, `encryption device ${String(fingerprint)}, not verified`)
      assert.include(asText.out, `0 room keys, 0 one-time key conflicts; key in ${keyFile}`)
      assert.deepInclude(yield* ask("lease", "--pid", `${owner.pid}`), {
        name: "extension",
        isMine: true,
        generation: 1
      })
      assert.deepInclude(yield* ask("suspend", "--deadline", "2000"), { quiet: true, unfinished: [] })
      assert.deepInclude(yield* ask("status"), { state: "suspended" })
      assert.deepInclude(yield* ask("resume"), { resumed: true })
      assertFailure(yield* twinloop(["status", "--json", "--database", account.database, "--pid", "1"]), 6)
      assert.deepInclude(yield* ask("stop"), { quiet: true, unfinished: [] })
      assert.strictEqual(yield* owner.ended, 0)
      assert.deepStrictEqual(yield* owner.noise, [])
      assert.strictEqual(yield* owner.errors, "")

      const homeserver = yield* Program.start<{ readonly event: string }>(
        Program.TWINLOOP,
        "homeserver",
        "--json",
        "--with-parent",
        "--port",
        "0"
      )
      yield* homeserver.until("listen", (line) => line.event === "listening")
      yield* homeserver.endInput
      assert.strictEqual(yield* homeserver.ended, 0)
      assert.deepStrictEqual(yield* homeserver.noise, [])
    })
  )

  it.live("I4: stops at its deadline, says what it could not finish, and warns on standard error only", () =>
    Effect.gen(function* () {
      const account = yield* Account.make
      const owner = yield* Program.start<RunEvent>(
        Program.TWINLOOP,
        "run",
        "--json",
        "--with-parent",
        "--deadline",
        "300",
        "--database",
        account.database
      )
      yield* owner.until("own the stream", Account.owns)
      const locked = new DatabaseSync(account.database, { timeout: 5_000 })
      yield* Effect.addFinalizer(() => Effect.sync(() => locked.close()))
      locked.exec("BEGIN IMMEDIATE")
      const asked = yield* Account.nowMillis
      yield* owner.signal("SIGTERM")
      const { line } = yield* owner.until("stop", ({ event }) => event === "quiet")
      assert.isBelow((yield* Account.nowMillis) - asked, 2_000)
      assert.deepInclude(line, { by: "stop", quiet: false })
      assert.isNotEmpty(line.event === "quiet" ? line.unfinished : [])
      // The database stays locked for longer than a write waits for it (5 s).
      assert.strictEqual(yield* owner.ended, 0)
      assert.deepStrictEqual(yield* owner.noise, [])
      assert.match(yield* owner.errors, /could not be released/)
    })
  )
})
