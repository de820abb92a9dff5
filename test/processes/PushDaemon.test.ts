/** The push daemon: what the homeserver pushes is shown once, whoever of the daemon and its worker is killed when. */
import { HomeserverModel } from "@twinloop/core/homeserver"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Random } from "effect"
import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { dirname, join } from "node:path"
import { fileURLToPath, pathToFileURL } from "node:url"
import { bundle } from "../../scripts/bundle.ts"
import type { PushDaemonOptions } from "./fixtures/pushDaemon.ts"
import * as Pushed from "./fixtures/PushedAccount.ts"
import * as Program from "./Program.ts"
import * as TemporaryDatabase from "./TemporaryDatabase.ts"

/** Waits until so many events are shown. */
const untilShown = (account: Pushed.Account, count: number) =>
  TemporaryDatabase.until(
    `${count} notifications`,
    Effect.map(Pushed.shown(account), (shown) => shown.length),
    (shown) => shown >= count
  )

const untilEmpty = ({ database }: Pushed.Account) =>
  TemporaryDatabase.until(
    "an empty queue",
    Effect.map(
      TemporaryDatabase.all<{ readonly count: number }>(database, "SELECT COUNT(*) AS count FROM push_queue"),
      ([row]) => row?.count
    ),
    (count) => count === 0
  )

const enable = (account: Pushed.Account, url: string, ...more: ReadonlyArray<string>) =>
  Pushed.twinloop(["push", "enable", "--json", "--database", account.database, "--url", url, ...more])

interface Registered {
  readonly appId: string
  readonly pushKey: string
}

const registered = ({ database }: Pushed.Account) =>
  TemporaryDatabase.all<Registered & { readonly url: string }>(
    database,
    "SELECT app_id AS appId, push_key AS pushKey, url FROM push_registration"
  )

const pushersOf = ({ host, userId }: Pushed.Account) =>
  Effect.orDie(host.attempt((state) => HomeserverModel.findUser(state, userId))).pipe(
    Effect.map((user) => HomeserverModel.pushers(user).map(({ app_id }) => app_id))
  )

/** Pushes an event as a homeserver does; gives the push keys that are rejected. */
const post = (url: string, { appId, pushKey }: Registered, roomId: string, eventId: string) =>
  Effect.promise(async () => {
    const devices = [{ app_id: appId, pushkey: pushKey, pushkey_ts: 0, data: {} }]
    const body = JSON.stringify({ notification: { event_id: eventId, room_id: roomId, prio: "high", devices } })
    const response = await fetch(url, { method: "POST", body })
    assert.strictEqual(response.status, 200)
    return ((await response.json()) as { readonly rejected: ReadonlyArray<string> }).rejected
  })

// --- a daemon that starts fast

interface Line {
  readonly event?: string
  readonly url?: string
  readonly pid?: number
  /** Of a notification: milliseconds since it was accepted. */
  readonly millis?: number
}

/** The daemon of the fixture in one file, beside the sources. Gone when the scope closes. */
const daemonFile = Effect.acquireRelease(
  Effect.promise(async () => {
    const file = fileURLToPath(
      new URL(`../../node_modules/.cache/twinloop-daemon-${process.pid}/pushDaemon.cjs`, import.meta.url)
    )
    mkdirSync(dirname(file), { recursive: true })
    await bundle(fileURLToPath(new URL("./fixtures/pushDaemon.ts", import.meta.url)), file)
    return pathToFileURL(file)
  }),
  (file) => Effect.sync(() => rmSync(dirname(fileURLToPath(file)), { recursive: true, force: true }))
)

const startFixture = Effect.fnUntraced(function* (
  file: URL,
  { database }: Pushed.Account,
  options: Omit<PushDaemonOptions, "database">
) {
  const daemon = yield* Program.startFile<Line>(file, {
    args: [JSON.stringify({ database, ...options } satisfies PushDaemonOptions)],
    env: { NODE_COMPILE_CACHE: join(dirname(database), "cache") }
  })
  const { line } = yield* daemon.until("listen", ({ event }) => event === "listening")
  return { daemon, url: line.url ?? "", port: Number(new URL(line.url ?? "").port) }
})

const workerOf = (account: Pushed.Account): ReadonlyArray<string> => [
  fileURLToPath(account.program),
  "--queue",
  "--with-parent",
  "--json",
  "--database",
  account.database,
  "--idle",
  "200",
  "--sink",
  `jsonl:${Pushed.shownFile(account)}`
]

/** The processes that a process has started. Linux. */
const childrenOf = (pid: number): ReadonlyArray<number> => {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").filter(Boolean).map(Number)
  } catch {
    // It has ended.
    return []
  }
}

const isAlive = (pid: number): boolean => {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

/** Kills a process of this test's; false when it has ended already. */
const killNow = (pid: number): boolean => {
  try {
    return process.kill(pid, "SIGKILL")
  } catch {
    return false
  }
}

/** Who is killed, and when: at a random moment, or as a notification is written, before the worker has written down that it is. */
type Kill = "daemon" | "worker" | "worker at a notification"

const sizeOf = (file: string): number => statSync(file, { throwIfNoEntry: false })?.size ?? 0

/** How long a notification may take: the homeserver may just be waiting before it pushes again. */
const WRITE_MILLIS = 3_000

/** Waits until something is appended to a file, as closely as possible; false when nothing is for long. */
const written = (file: string): Effect.Effect<boolean> =>
  Effect.promise(async () => {
    const before = sizeOf(file)
    const untilMillis = performance.now() + WRITE_MILLIS
    while (sizeOf(file) === before) {
      if (performance.now() > untilMillis) return false
      await new Promise((next) => setImmediate(next))
    }
    return true
  })

/** Gives whether there was somebody to kill. */
const kill = Effect.fnUntraced(function* (daemon: Program.Program<Line>, account: Pushed.Account, whom: Kill) {
  if (whom === "worker at a notification") {
    if (!(yield* written(Pushed.shownFile(account)))) return false
  } else yield* Effect.sleep(yield* Random.nextIntBetween(0, 350))
  if (whom === "daemon") {
    yield* daemon.signal("SIGKILL")
    yield* daemon.ended
    return true
  }
  const [worker] = childrenOf(daemon.pid)
  return worker !== undefined && killNow(worker)
})

/** Daemons that are killed, each with two of its workers where it comes to that. */
const LIVES = 16
const EVENTS = 100

describe("push-daemon", () => {
  it.live("shows what the homeserver pushes, by a worker that ends, until it is told not to", () =>
    Effect.gen(function* () {
      const account = yield* Pushed.make
      const { daemon, url } = yield* Pushed.startDaemon(account)
      const { database } = account
      assert.deepInclude(yield* enable(account, url), { exitCode: 0, errors: "" })

      const eventId = yield* Pushed.says(account, "dinner is ready")
      const { line } = yield* daemon.until("tell of it", (said) => "eventId" in said)
      assert.deepInclude(line, { eventId, result: "Event", title: "Kitchen", body: "Alice: dinner is ready" })
      assert.strictEqual(yield* untilShown(account, 1), 1)
      const of = ["--json", "--database", database]
      const [list] = (yield* Pushed.twinloop(["push", "list", ...of])).lines
      assert.deepInclude(list, { missing: [] })
      assert.deepInclude((list as { pushers: ReadonlyArray<object> }).pushers[0], { url, isOurs: true })

      // Its key was made here, for this database, and a second time it is the same one.
      const [before] = yield* registered(account)
      assert.match(before?.pushKey ?? "", /^[\w-]{43}$/)
      assert.strictEqual((yield* enable(account, url, "--format", "full")).exitCode, 0)
      assert.deepStrictEqual(yield* registered(account), [before!])

      assert.strictEqual((yield* Pushed.twinloop(["push", "disable", ...of])).exitCode, 0)
      assert.deepStrictEqual([yield* pushersOf(account), yield* registered(account)], [[], []])
      yield* daemon.signal("SIGTERM")
      assert.strictEqual(yield* daemon.ended, 0, yield* daemon.errors)
    })
  )

  it.live("I2, I6: shows each event once, whichever of the daemon and its worker is killed at whatever moment", () =>
    Effect.gen(function* () {
      const account = yield* Pushed.make
      const file = yield* daemonFile
      const worker = workerOf(account)
      const first = yield* startFixture(file, account, { port: 0, worker })
      const { port } = first
      yield* enable(account, first.url)
      yield* first.daemon.signal("SIGKILL")
      yield* first.daemon.ended

      const sent: Array<string> = []
      const kills: { [whom in Kill]: number } = { daemon: 0, worker: 0, "worker at a notification": 0 }
      const say = (count: number) =>
        Effect.gen(function* () {
          for (let n = 0; n < count && sent.length < EVENTS; n++)
            sent.push(yield* Pushed.says(account, `event ${sent.length}`))
        })
      const order: ReadonlyArray<Kill> = ["worker at a notification", "worker", "daemon"]
      for (let life = 0; life < LIVES; life++) {
        const { daemon } = yield* startFixture(file, account, { port, worker })
        for (const whom of order) {
          yield* say(2)
          if (yield* kill(daemon, account, whom)) kills[whom]++
        }
      }
      while (sent.length < EVENTS) sent.push(yield* Pushed.says(account, `event ${sent.length}`))
      yield* startFixture(file, account, { port, worker })
      // The homeserver waits before it pushes again.
      yield* Effect.retry(untilShown(account, EVENTS).pipe(Effect.catchDefect(Effect.fail)), { times: 3 })
      yield* untilEmpty(account)
      const shown = (yield* Pushed.shown(account)).map(({ eventId }) => eventId)
      const { daemon, worker: random, "worker at a notification": writing } = kills
      console.log(
        `killed: ${daemon} daemons, ${random} workers, ${writing} as they wrote; ${shown.length} events shown`
      )
      assert.isAbove(writing, LIVES / 2)
      assert.sameMembers(shown, sent)
      assert.strictEqual(new Set(shown).size, shown.length)
    })
  )

  it.live("shows fifty that come at once, and again, once each", () =>
    Effect.gen(function* () {
      const account = yield* Pushed.make
      const file = yield* daemonFile
      const { daemon, url } = yield* startFixture(file, account, { port: 0, worker: workerOf(account) })
      // Registered, and not pushed to by the homeserver, which would be one at a time.
      yield* enable(account, url)
      yield* Effect.orDie(account.host.attempt((state) => HomeserverModel.findUser(state, account.userId))).pipe(
        Effect.map((user) => user.pushers.clear())
      )
      const [device] = yield* registered(account)
      const eventIds = yield* Effect.forEach(Array.from({ length: 50 }), (_, n) => Pushed.says(account, `event ${n}`))
      const pushAll = Effect.forEach(eventIds, (eventId) => post(url, device!, account.plain, eventId), {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual((yield* pushAll).flat(), [])
      yield* untilShown(account, 50)
      assert.deepStrictEqual((yield* pushAll).flat(), [])
      yield* untilEmpty(account)
      const shown = (yield* Pushed.shown(account)).map(({ eventId }) => eventId)
      assert.deepStrictEqual(shown.sort(), [...eventIds].sort())
      const millis = (yield* daemon.lines).flatMap((line) => line.millis ?? [])
      console.log(`shown ${millis[0]} to ${millis.at(-1)} ms after the push, with the start of the worker`)
    })
  )

  it.live("I7: shows what it finds in the queue when it starts", () =>
    Effect.gen(function* () {
      const account = yield* Pushed.make
      const file = yield* daemonFile
      const idle = join(dirname(account.database), "idle.cjs")
      writeFileSync(idle, `process.stdin.resume().on("end", () => process.exit())`)
      const { daemon, url } = yield* startFixture(file, account, { port: 0, worker: [idle] })
      yield* enable(account, url)
      const eventIds = yield* Effect.forEach(["one", "two", "three"], (body) => Pushed.says(account, body))
      yield* TemporaryDatabase.until(
        "the queue filled",
        TemporaryDatabase.all(account.database, "SELECT 1 FROM push_queue"),
        (rows) => rows.length === eventIds.length
      )
      yield* daemon.signal("SIGKILL")
      yield* daemon.ended
      yield* startFixture(file, account, { port: 0, worker: workerOf(account) })
      yield* untilShown(account, eventIds.length)
      assert.sameMembers(
        (yield* Pushed.shown(account)).map(({ eventId }) => eventId),
        eventIds
      )
    })
  )

  it.live("I7: keeps what is pushed while the login is lost, and says so", () =>
    Effect.gen(function* () {
      const account = yield* Pushed.make
      const file = yield* daemonFile
      const { daemon, url } = yield* startFixture(file, account, { port: 0, worker: workerOf(account) })
      yield* enable(account, url)
      const [device] = yield* registered(account)
      yield* Effect.orDie(
        account.host.request(account.token, (state, requester) => {
          HomeserverModel.logOut(state, requester)
          return HomeserverModel.findUser(state, account.userId)
        })
      )
      const eventId = yield* Pushed.says(account, "dinner is ready")
      assert.deepStrictEqual(yield* post(url, device!, account.plain, eventId), [])
      const errors = yield* TemporaryDatabase.until("the worker's end", daemon.errors, (text) =>
        text.includes("ended with exit code 3")
      )
      assert.include(errors, "Pushes can't be resolved, and wait.")
      const rows = TemporaryDatabase.all(account.database, "SELECT event_id, state, attempts FROM push_queue")
      assert.deepStrictEqual(yield* rows, [{ event_id: eventId, state: "waiting", attempts: 0 }])
      assert.deepStrictEqual(yield* Pushed.shown(account), [])
    })
  )

  it.live("has the homeserver delete the pusher of an application that it doesn't know", () =>
    Effect.gen(function* () {
      const account = yield* Pushed.make
      const file = yield* daemonFile
      const { url } = yield* startFixture(file, account, { port: 0, worker: workerOf(account) })
      yield* enable(account, url)
      const pusher = {
        kind: "http",
        app_id: "org.example.other",
        pushkey: "another key",
        app_display_name: "Other",
        device_display_name: "Other",
        lang: "en",
        append: true,
        data: { url }
      }
      yield* Effect.orDie(
        account.host.request(account.token, (state, requester, nowMillis) =>
          HomeserverModel.setPusher(state, requester, pusher, nowMillis)
        )
      )
      assert.deepStrictEqual((yield* pushersOf(account)).length, 2)
      yield* Pushed.says(account, "dinner is ready")
      yield* TemporaryDatabase.until("one pusher", pushersOf(account), (pushers) => pushers.length === 1)
      assert.deepStrictEqual(yield* pushersOf(account), ["org.twinloop"])
      assert.strictEqual(yield* untilShown(account, 1), 1)
    })
  )

  it.live("I10: ends a worker that lives too long, and takes the last one with it", () =>
    Effect.gen(function* () {
      const account = yield* Pushed.make
      const file = yield* daemonFile
      const stubborn = join(dirname(account.database), "stubborn.cjs")
      writeFileSync(
        stubborn,
        `process.on("SIGTERM", () => console.log(JSON.stringify({ event: "told", pid: process.pid })));
         console.log(JSON.stringify({ event: "started", pid: process.pid }));
         setInterval(() => {}, 1000)`
      )
      const options = { port: 0, worker: [stubborn], workerMillis: 300 }
      const { daemon, url } = yield* startFixture(file, account, options)
      yield* enable(account, url)
      yield* Pushed.says(account, "dinner is ready")
      const first = yield* daemon.until("start a worker", ({ event }) => event === "started")
      const told = yield* daemon.until("tell it to end", ({ event }) => event === "told", { since: first.next })
      assert.strictEqual(told.line.pid, first.line.pid)
      const second = yield* daemon.until("start another", ({ event }) => event === "started", { since: told.next })
      assert.isFalse(isAlive(first.line.pid ?? 0))

      yield* daemon.signal("SIGTERM")
      assert.strictEqual(yield* daemon.ended, 130)
      assert.isFalse(isAlive(second.line.pid ?? 0))
    })
  )
})

/** A homeserver that refuses every pusher, as Synapse does with an address that it may not reach. */
const refusing = Effect.map(
  Effect.acquireRelease(
    Effect.promise(async () => {
      const server = createServer((request, response) => {
        request.resume()
        response.writeHead(400, { "content-type": "application/json" })
        response.end(JSON.stringify({ errcode: "M_MISSING_PARAM", error: "Config Error: 'url' must have a path" }))
      })
      await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening))
      return server
    }),
    (server) =>
      Effect.sync(() => {
        server.close()
        server.closeAllConnections()
      })
  ),
  (server) => `http://127.0.0.1:${(server.address() as AddressInfo).port}`
)

describe("push enable", () => {
  it.live("refuses an address that is none, or has another path", () =>
    Effect.gen(function* () {
      const account = yield* Pushed.make
      for (const url of ["push.example.org", "https://push.example.org/push"]) {
        const { errors, exitCode } = yield* enable(account, url)
        assert.strictEqual(exitCode, 2)
        assert.match(errors, /scheme|\/_matrix\/push\/v1\/notify/)
      }
      assert.deepStrictEqual(yield* registered(account), [])
      assert.strictEqual((yield* enable(account, "https://push.example.org")).exitCode, 0)
      assert.deepInclude((yield* registered(account))[0], { url: "https://push.example.org/_matrix/push/v1/notify" })
    })
  )

  it.live("says what to do when the homeserver refuses or isn't there, and keeps no registration that it refused", () =>
    Effect.gen(function* () {
      const account = yield* Pushed.make
      const { token: accessToken, userId } = account
      const tokens = { accessToken, userId, deviceId: Pushed.BOB }
      const database = yield* TemporaryDatabase.make
      yield* Pushed.logIn(database, yield* refusing, tokens)
      const refused = yield* enable({ ...account, database }, "https://push.example.org")
      assert.strictEqual(refused.exitCode, 5)
      assert.match(refused.errors, /Config Error.*Give an address that the homeserver may reach/)
      assert.deepStrictEqual(yield* registered({ ...account, database }), [])

      const elsewhere = yield* TemporaryDatabase.make
      yield* Pushed.logIn(elsewhere, "http://127.0.0.1:9", tokens)
      const unreachable = yield* enable({ ...account, database: elsewhere }, "https://push.example.org")
      assert.strictEqual(unreachable.exitCode, 5)
      assert.match(unreachable.errors, /Run the same command again once it answers/)

      const nobody = yield* enable({ ...account, database: `${database}-missing` }, "https://push.example.org")
      assert.strictEqual(nobody.exitCode, 3)
    })
  )
})
