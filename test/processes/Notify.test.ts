/** The process that a push starts: what it shows, what it ends with, and that the stream is free when it is gone. */
import { HomeserverModel } from "@twinloop/core/homeserver"
import { Twinloop } from "@twinloop/platform"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { chmodSync, copyFileSync, mkdirSync, rmSync, utimesSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath, pathToFileURL } from "node:url"
import * as BlackHole from "./fixtures/BlackHole.ts"
import * as Pushed from "./fixtures/PushedAccount.ts"
import * as Program from "./Program.ts"
import * as TemporaryDatabase from "./TemporaryDatabase.ts"

/** The row of the lease says that nobody has it. */
const assertFree = Effect.fnUntraced(function* (account: Pushed.Account) {
  assert.strictEqual((yield* Pushed.lease(account))?.expiresAtMillis ?? 0, 0)
})

const untilHeld = (account: Pushed.Account) =>
  TemporaryDatabase.until("the lease taken", Pushed.lease(account), (row) => (row?.expiresAtMillis ?? 0) > 0)

/** Notifies of something that Alice has just said to Bob alone, and finds it whole. */
const assertWhispered = Effect.fnUntraced(function* (account: Pushed.Account, body: string) {
  const { errors, exitCode, lines } = yield* Pushed.notifyOnce(
    account,
    account.encrypted,
    yield* Pushed.whispers(account, body)
  )
  assert.strictEqual(exitCode, 0, errors)
  assert.strictEqual(lines.length, 1)
  // Marked, since nobody has verified Alice's device.
  assert.deepInclude(lines[0], { result: "Event", title: "Cellar", body: `⚠ Alice: ${body}` })
  return lines[0]!
})

/** An account whose homeserver takes connections and says nothing. */
const atBlackHole = Effect.gen(function* () {
  const account = yield* Pushed.make
  const hole = yield* BlackHole.make
  const database = yield* TemporaryDatabase.make
  const { token: accessToken, userId } = account
  yield* Pushed.logIn(database, hole.url, { accessToken, userId, deviceId: Pushed.BOB })
  return { account: { ...account, database }, hole }
})

describe("notify", () => {
  it.live("I4: shows an event in the clear and an encrypted one while no application runs, and frees the stream", () =>
    Effect.gen(function* () {
      const account = yield* Pushed.make
      yield* Pushed.publishKeys(account)
      const plain = yield* Pushed.notifyOnce(account, account.plain, yield* Pushed.says(account, "dinner is ready"))
      assert.strictEqual(plain.exitCode, 0, plain.errors)
      assert.deepInclude(plain.lines[0], { result: "Event", title: "Kitchen", body: "Alice: dinner is ready" })
      assert.isAbove(plain.lines[0]?.peakRssBytes ?? 0, 0)

      const secret = yield* assertWhispered(account, "a surprise")
      assert.isAbove((yield* Pushed.lease(account))?.generation ?? 0, 1)
      yield* assertFree(account)
      const costs = [plain.lines[0], secret].map(
        (line) => `${line?.millis} ms, ${Math.round((line?.peakRssBytes ?? 0) / 1e6)} MB`
      )
      console.log(`in the clear ${costs[0]}; encrypted ${costs[1]}`)
    })
  )

  it.live("I3: shows what the running application has the key to, and leaves the stream to it", () =>
    Effect.gen(function* () {
      const account = yield* Pushed.make
      const app = yield* Pushed.startApp(account)
      yield* app.until("own the stream", Pushed.owns)
      yield* Pushed.untilKeys(account)
      const before = yield* Pushed.lease(account)
      yield* assertWhispered(account, "while it runs")
      const after = yield* Pushed.lease(account)
      assert.match(after?.holder ?? "", /^main#/)
      assert.deepStrictEqual([after?.holder, after?.generation], [before?.holder, before?.generation])
    })
  )

  it.live("I4: takes the stream over from an application that was killed, and frees it", () =>
    Effect.gen(function* () {
      const account = yield* Pushed.make
      const app = yield* Pushed.startApp(account)
      yield* app.until("own the stream", Pushed.owns)
      yield* Pushed.untilKeys(account)
      yield* app.signal("SIGKILL")
      yield* app.ended
      assert.isAbove((yield* Pushed.lease(account))?.expiresAtMillis ?? 0, 0)
      yield* assertWhispered(account, "after its end")
      assert.match((yield* Pushed.lease(account))?.holder ?? "", /^notify#/)
      yield* assertFree(account)
    })
  )

  it.live("I4: has the stream for a moment while the application is suspended", () =>
    Effect.gen(function* () {
      const account = yield* Pushed.make
      const app = yield* Pushed.startApp(account)
      yield* app.until("own the stream", Pushed.owns)
      yield* Pushed.untilKeys(account)
      const of = ["--json", "--database", account.database]
      assert.strictEqual((yield* Pushed.twinloop(["suspend", ...of])).exitCode, 0)
      yield* assertFree(account)
      yield* assertWhispered(account, "while it sleeps")
      yield* assertFree(account)

      const since = yield* app.said
      assert.strictEqual((yield* Pushed.twinloop(["resume", ...of])).exitCode, 0)
      yield* app.until("own the stream again", Pushed.owns, { since })
      yield* assertWhispered(account, "when it is awake")
    })
  )

  it.live("I10: ends at its deadline when the homeserver says nothing", () =>
    Effect.gen(function* () {
      const { account } = yield* atBlackHole
      const { exitCode, lines } = yield* Pushed.notifyOnce(account, account.plain, "$1", "--deadline", "700")
      assert.strictEqual(exitCode, 8)
      assert.deepInclude(lines[0], { eventId: "$1", result: "Expired" })
      yield* assertFree(account)
    })
  )

  it.live("I4: ends at its deadline with the stream free when a key doesn't come", () =>
    Effect.gen(function* () {
      const account = yield* Pushed.make
      yield* Pushed.publishKeys(account)
      const eventId = yield* Pushed.mumbles(account, "for nobody")
      const program = yield* Pushed.startNotify(account, [account.encrypted, eventId, "--deadline", "3000"])
      yield* untilHeld(account)
      const { exitCode, lines } = yield* Pushed.outcome(program)
      assert.strictEqual(exitCode, 8)
      assert.deepInclude(lines[0], { eventId, result: "Undecrypted" })
      yield* assertFree(account)
    })
  )

  it.live("I4: ends with the stream free when it is told to while it waits", () =>
    Effect.gen(function* () {
      const account = yield* Pushed.make
      yield* Pushed.publishKeys(account)
      const eventId = yield* Pushed.mumbles(account, "for nobody")
      for (const signal of ["SIGTERM", "SIGINT"] as const) {
        const program = yield* Pushed.startNotify(account, [account.encrypted, eventId, "--deadline", "60000"])
        yield* untilHeld(account)
        yield* program.signal(signal)
        assert.strictEqual(yield* program.ended, 130, yield* program.errors)
        assert.strictEqual(yield* program.errors, "")
        yield* assertFree(account)
      }
      const { account: lost, hole } = yield* atBlackHole
      const program = yield* Pushed.startNotify(lost, [lost.plain, "$1", "--deadline", "60000"])
      yield* hole.connected
      yield* program.signal("SIGTERM")
      assert.strictEqual(yield* program.ended, 130, yield* program.errors)
      assert.strictEqual(yield* program.errors, "")
    })
  )

  it.live("ends with its parent", () =>
    Effect.gen(function* () {
      const { account, hole } = yield* atBlackHole
      const args = [account.plain, "$1", "--with-parent", "--deadline", "60000"]
      const program = yield* Pushed.startNotify(account, args)
      yield* hole.connected
      yield* program.endInput
      assert.strictEqual(yield* program.ended, 130, yield* program.errors)
    })
  )

  it.live("I10: is ended at once when a sink hangs", () =>
    Effect.gen(function* () {
      const account = yield* Pushed.make
      const hole = yield* BlackHole.make
      const eventId = yield* Pushed.says(account, "dinner is ready")
      const sink = `webhook:${hole.url}/hook`
      const args = [account.plain, eventId, "--sink", sink, "--deadline", "1000"]
      const { errors, exitCode, lines } = yield* Pushed.notifyOnce(account, ...args)
      assert.strictEqual(exitCode, 8)
      assert.match(errors, /still ran 11000 ms after its start/)
      assert.deepInclude(lines[0], { result: "Event" })
    })
  )

  it.live("says that the database is in use by a process that wants it alone", () =>
    Effect.gen(function* () {
      const account = yield* Pushed.make
      yield* Layer.build(Twinloop.layerFoundation({ database: account.database, singleProcess: true }))
      const { errors, exitCode } = yield* Pushed.notifyOnce(account, account.plain, "$1")
      assert.strictEqual(exitCode, 4)
      assert.include(errors, account.database)
      assert.match(errors, /has the database for itself alone/)
    })
  )

  it.live("says that the database can't be written", () =>
    Effect.gen(function* () {
      const account = yield* Pushed.make
      const directory = dirname(account.database)
      chmodSync(account.database, 0o444)
      chmodSync(directory, 0o555)
      yield* Effect.addFinalizer(() => Effect.sync(() => chmodSync(directory, 0o755)))
      // Nothing keeps root from writing.
      const nobody = "data:text/javascript,process.getuid() === 0 && process.setuid(65534)"
      const program = yield* Pushed.startNotify(account, [account.plain, "$1"], ["--import", nobody])
      const { errors, exitCode } = yield* Pushed.outcome(program)
      assert.strictEqual(exitCode, 4)
      assert.match(errors, /can't be written/)
      assert.include(errors, account.database)
    })
  )

  it.live("refreshes an access token while the application does so, and both go on", () =>
    Effect.gen(function* () {
      const account = yield* Pushed.make
      const app = yield* Pushed.startApp(account)
      yield* app.until("own the stream", Pushed.owns)
      yield* Pushed.untilKeys(account)
      const { host, userId } = account
      for (let round = 0; round < 3; round++) {
        const eventIds = yield* Effect.forEach(["a", "b", "c"], (body) => Pushed.says(account, `${body} ${round}`))
        yield* Effect.orDie(
          host.attempt((state, nowMillis) => {
            HomeserverModel.expireTokens(state, userId, Pushed.BOB, nowMillis)
            return HomeserverModel.findUser(state, userId)
          })
        )
        const ended = yield* Effect.forEach(eventIds, (eventId) => Pushed.notifyOnce(account, account.plain, eventId), {
          concurrency: "unbounded"
        })
        for (const { errors, exitCode, lines } of ended) {
          assert.strictEqual(exitCode, 0, errors)
          assert.deepInclude(lines[0], { result: "Event" })
        }
      }
      // The application has neither lost its login nor the stream.
      const since = yield* app.said
      yield* assertWhispered(account, "still here")
      yield* app.until("apply the key of it", ({ event }) => event === "inbox", { since })
    })
  )

  it.live("says where the key file should be", () =>
    Effect.gen(function* () {
      const account = yield* Pushed.make
      yield* Pushed.publishKeys(account)
      rmSync(`${account.database}.key`)
      const eventId = yield* Pushed.whispers(account, "a surprise")
      const { exitCode, lines } = yield* Pushed.notifyOnce(account, account.encrypted, eventId)
      assert.include(lines[0]?.message ?? "", `${account.database}.key`)
      assert.strictEqual(exitCode, 4)
      yield* assertFree(account)
    })
  )

  it.live("says of each event what became of it", () =>
    Effect.gen(function* () {
      const account = yield* Pushed.make
      const known = yield* Pushed.says(account, "dinner is ready")
      const unknown = yield* Pushed.notifyOnce(account, account.plain, known, "$unknown", known)
      assert.strictEqual(unknown.exitCode, 8)
      assert.sameMembers(
        unknown.lines.map(({ eventId, result }) => `${eventId} ${result}`),
        [`${known} Event`, "$unknown NotFound"]
      )
      const elsewhere = yield* Pushed.notifyOnce(account, "!elsewhere:localhost", "$unknown")
      assert.strictEqual(elsewhere.exitCode, 8)
      assert.deepInclude(elsewhere.lines[0], { result: "NotFound" })
    })
  )

  it.live("says that nobody is logged in", () =>
    Effect.gen(function* () {
      const account = yield* Pushed.make
      const missing = `${account.database}-missing`
      const nowhere = yield* Pushed.notifyOnce({ ...account, database: missing }, account.plain, "$1")
      assert.strictEqual(nowhere.exitCode, 3)
      assert.match(nowhere.errors, /There is no database/)
      const eventId = yield* Pushed.says(account, "dinner is ready")
      yield* Effect.orDie(
        account.host.request(account.token, (state, requester) => {
          HomeserverModel.logOut(state, requester)
          return HomeserverModel.findUser(state, account.userId)
        })
      )
      const after = yield* Pushed.notifyOnce(account, account.plain, eventId)
      assert.strictEqual(after.exitCode, 3, after.errors)
    })
  )

  it.live("refuses a command line that it doesn't understand, like the whole command line does", () =>
    Effect.gen(function* () {
      const account = yield* Pushed.make
      for (const args of [["!room"], ["#alias", "$1"], ["!room", "1"], ["!room", "$1", "--idle", "5"], ["--queue"]]) {
        const light = yield* Pushed.notifyOnce(account, ...args)
        assert.strictEqual(light.exitCode, 2, args.join(" "))
        const whole = yield* Pushed.twinloop(["notify", "--json", "--database", account.database, ...args])
        assert.strictEqual(whole.exitCode, 2)
        const [message = ""] = light.errors.split(" See ")
        assert.include(whole.errors, message)
      }
      const eventId = yield* Pushed.says(account, "dinner is ready")
      const whole = yield* Pushed.twinloop(["notify", "--database", account.database, account.plain, eventId])
      assert.deepInclude(whole, { exitCode: 0, errors: "" })
      assert.match(whole.noise.join("\n"), /Kitchen {2}Alice: dinner is ready/)
    })
  )

  it.live("loads nothing of end-to-end encryption until an event needs it", () =>
    Effect.gen(function* () {
      const account = yield* Pushed.make
      yield* Pushed.publishKeys(account)
      // Here is none of the packages that it would load.
      const lonely = join(dirname(account.database), "notify.cjs")
      copyFileSync(fileURLToPath(account.program), lonely)
      const without = { ...account, program: pathToFileURL(lonely) }
      const plain = yield* Pushed.notifyOnce(without, account.plain, yield* Pushed.says(account, "dinner is ready"))
      assert.strictEqual(plain.exitCode, 0, plain.errors)
      assert.deepInclude(plain.lines[0], { result: "Event", body: "Alice: dinner is ready" })

      const secret = yield* Pushed.whispers(account, "a surprise")
      const needing = yield* Pushed.notifyOnce(without, account.encrypted, secret, "--deadline", "5000")
      assert.strictEqual(needing.exitCode, 8)
      assert.match(needing.lines[0]?.message ?? "", /matrix-sdk-crypto-wasm|fake-indexeddb/)
    })
  )
})

describe("The launcher of twinloop", () => {
  const bin = fileURLToPath(new URL("../../packages/platform/bin/twinloop.js", import.meta.url))

  /** A copy of the launcher among files that say which of them runs. */
  const make = Effect.map(TemporaryDatabase.make, (database) => {
    const root = dirname(database)
    const put = (path: string, text: string): string => {
      mkdirSync(dirname(join(root, path)), { recursive: true })
      writeFileSync(join(root, path), text)
      return join(root, path)
    }
    put("package.json", `{ "type": "module" }`)
    const launcher = put("platform/bin/twinloop.js", "")
    copyFileSync(bin, launcher)
    copyFileSync(join(dirname(bin), "../src/cli/notifyBundle.js"), put("platform/src/cli/notifyBundle.js", ""))
    put("platform/src/cli/main.ts", `console.log(JSON.stringify({ ran: "sources" }))`)
    put("actors/src/index.ts", "")
    return {
      launcher: pathToFileURL(launcher),
      source: put("core/src/deep/Lease.ts", ""),
      bundle: put(
        "platform/dist/notify.cjs",
        `console.log(JSON.stringify({ ran: "bundle", args: process.argv.slice(2) }))`
      )
    }
  })

  const run = (file: URL, ...args: ReadonlyArray<string>) =>
    Effect.scoped(
      Effect.flatMap(
        Program.startFile<{ readonly ran: string; readonly args?: ReadonlyArray<string> }>(file, { args }),
        (program) => Effect.map(Pushed.outcome(program), ({ lines: [line] }) => line)
      )
    )

  it.live("runs the one file, but for help, and unless a source is newer", () =>
    Effect.gen(function* () {
      const { bundle, launcher, source } = yield* make
      const inAMinute = new Date(Date.now() + 60_000)
      utimesSync(bundle, inAMinute, inAMinute)
      assert.deepEqual(yield* run(launcher, "notify", "!room", "$1"), { ran: "bundle", args: ["!room", "$1"] })
      assert.deepEqual(yield* run(launcher, "notify", "--help"), { ran: "sources" })
      assert.deepEqual(yield* run(launcher, "status"), { ran: "sources" })

      const later = new Date(inAMinute.getTime() + 1)
      utimesSync(source, later, later)
      assert.deepEqual(yield* run(launcher, "notify", "!room", "$1"), { ran: "sources" })

      utimesSync(bundle, later, later)
      assert.deepInclude(yield* run(launcher, "notify", "!room", "$1"), { ran: "bundle" })
      rmSync(bundle)
      assert.deepEqual(yield* run(launcher, "notify", "!room", "$1"), { ran: "sources" })
    })
  )
})
