/** The push daemon: what the homeserver pushes is shown once, whoever of the daemon and its worker is killed when. */
import { HomeserverModel } from "@twinloop/core/homeserver"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { writeFileSync } from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { dirname, join } from "node:path"
import * as KilledDaemons from "./fixtures/KilledDaemons.ts"
import * as Pushed from "./fixtures/PushedAccount.ts"
import * as TemporaryDatabase from "./TemporaryDatabase.ts"

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

/** Daemons that are killed, each with two of its workers where it comes to that. */
const LIVES = 16
const EVENTS = 100

/** Has the homeserver push three events to a daemon that only queues them, and dies; gives their ids. */
const queueThree = Effect.fnUntraced(function* (account: Pushed.Account, file: URL) {
  const idle = join(dirname(account.database), "idle.cjs")
  writeFileSync(idle, `process.stdin.resume().on("end", () => process.exit())`)
  const { daemon, url } = yield* KilledDaemons.start(file, account, { port: 0, worker: [idle] })
  yield* enable(account, url)
  const eventIds = yield* Effect.forEach(["one", "two", "three"], (body) => Pushed.says(account, body))
  yield* TemporaryDatabase.until(
    "the queue filled",
    TemporaryDatabase.all(account.database, "SELECT 1 FROM push_queue"),
    (rows) => rows.length === eventIds.length
  )
  yield* daemon.signal("SIGKILL")
  yield* daemon.ended
  return eventIds
})

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
      assert.strictEqual(yield* KilledDaemons.untilShown(account, 1), 1)
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
      const file = yield* KilledDaemons.daemonFile
      const worker = KilledDaemons.workerOf(account)
      const dyingWorker = KilledDaemons.workerOf(account, KilledDaemons.dyingAsItWrites)
      const first = yield* KilledDaemons.start(file, account, { port: 0, worker })
      const { port } = first
      yield* enable(account, first.url)
      yield* first.daemon.signal("SIGKILL")
      yield* first.daemon.ended

      const sent: Array<string> = []
      const said: Array<string> = []
      const kills: { [whom in KilledDaemons.Kill]: number } = { daemon: 0, worker: 0, "worker at a notification": 0 }
      const say = (count: number) =>
        Effect.gen(function* () {
          for (let n = 0; n < count && sent.length < EVENTS; n++)
            sent.push(yield* Pushed.says(account, `event ${sent.length}`))
        })
      const order: ReadonlyArray<KilledDaemons.Kill> = ["worker at a notification", "worker", "daemon"]
      for (let life = 0; life < LIVES; life++) {
        const { daemon } = yield* KilledDaemons.start(file, account, { port, worker: dyingWorker })
        for (const whom of order) {
          yield* say(2)
          if (yield* KilledDaemons.kill(daemon, account, whom)) kills[whom]++
        }
        said.push(yield* daemon.errors)
      }
      while (sent.length < EVENTS) sent.push(yield* Pushed.says(account, `event ${sent.length}`))
      yield* KilledDaemons.start(file, account, { port, worker })
      // The homeserver waits before it pushes again.
      yield* Effect.retry(KilledDaemons.untilShown(account, EVENTS).pipe(Effect.catchDefect(Effect.fail)), { times: 3 })
      yield* KilledDaemons.untilEmpty(account)
      const shown = (yield* Pushed.shown(account)).map(({ eventId }) => eventId)
      const { daemon, worker: random, "worker at a notification": writing } = kills
      console.log(
        `killed: ${daemon} daemons, ${random} workers, ${writing} as they wrote; ${shown.length} events shown`
      )
      assert.isAbove(writing, LIVES / 2)
      assert.include(said.join(), "The process that shows pushes was killed, by somebody")
      assert.sameMembers(shown, sent)
      assert.strictEqual(new Set(shown).size, shown.length)
    })
  )

  it.live("shows fifty that come at once, and again, once each", () =>
    Effect.gen(function* () {
      const account = yield* Pushed.make
      const file = yield* KilledDaemons.daemonFile
      const { daemon, url } = yield* KilledDaemons.start(file, account, {
        port: 0,
        worker: KilledDaemons.workerOf(account)
      })
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
      yield* KilledDaemons.untilShown(account, 50)
      assert.deepStrictEqual((yield* pushAll).flat(), [])
      yield* KilledDaemons.untilEmpty(account)
      const shown = (yield* Pushed.shown(account)).map(({ eventId }) => eventId)
      assert.deepStrictEqual(shown.sort(), [...eventIds].sort())
      const millis = (yield* daemon.lines).flatMap((line) => line.millis ?? [])
      console.log(`shown ${millis[0]} to ${millis.at(-1)} ms after the push, with the start of the worker`)
    })
  )

  it.live("I7: shows what it finds in the queue when it starts", () =>
    Effect.gen(function* () {
      const account = yield* Pushed.make
      const file = yield* KilledDaemons.daemonFile
      const eventIds = yield* queueThree(account, file)
      yield* KilledDaemons.start(file, account, { port: 0, worker: KilledDaemons.workerOf(account) })
      yield* KilledDaemons.untilShown(account, eventIds.length)
      assert.sameMembers(
        (yield* Pushed.shown(account)).map(({ eventId }) => eventId),
        eventIds
      )
    })
  )

  it.live("I10: ends a worker that has taken its memory, when what it has in hand is shown", () =>
    Effect.gen(function* () {
      const account = yield* Pushed.make
      const eventIds = yield* queueThree(account, yield* KilledDaemons.daemonFile)
      // It would wait for more for an hour.
      const budget = ["--queue", "--max-rss", "1", "--idle", "3600000", "--sink", `jsonl:${Pushed.shownFile(account)}`]
      const { exitCode, lines } = yield* Pushed.notifyOnce(account, ...budget)
      assert.strictEqual(exitCode, 0)
      assert.sameMembers(
        lines.map(({ eventId }) => eventId),
        eventIds
      )
    })
  )

  it.live("I7: keeps what is pushed while the login is lost, and says so", () =>
    Effect.gen(function* () {
      const account = yield* Pushed.make
      const file = yield* KilledDaemons.daemonFile
      const { daemon, url } = yield* KilledDaemons.start(file, account, {
        port: 0,
        worker: KilledDaemons.workerOf(account)
      })
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
      const file = yield* KilledDaemons.daemonFile
      const { url } = yield* KilledDaemons.start(file, account, { port: 0, worker: KilledDaemons.workerOf(account) })
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
      assert.strictEqual(yield* KilledDaemons.untilShown(account, 1), 1)
    })
  )

  it.live("I10: ends a worker that lives too long, and takes the last one with it", () =>
    Effect.gen(function* () {
      const account = yield* Pushed.make
      const file = yield* KilledDaemons.daemonFile
      const stubborn = join(dirname(account.database), "stubborn.cjs")
      writeFileSync(
        stubborn,
        `process.on("SIGTERM", () => console.log(JSON.stringify({ event: "told", pid: process.pid })));
         console.log(JSON.stringify({ event: "started", pid: process.pid }));
         setInterval(() => {}, 1000)`
      )
      const options = { port: 0, worker: [stubborn], workerMillis: 300 }
      const { daemon, url } = yield* KilledDaemons.start(file, account, options)
      yield* enable(account, url)
      yield* Pushed.says(account, "dinner is ready")
      const first = yield* daemon.until("start a worker", ({ event }) => event === "started")
      const told = yield* daemon.until("tell it to end", ({ event }) => event === "told", { since: first.next })
      assert.strictEqual(told.line.pid, first.line.pid)
      const second = yield* daemon.until("start another", ({ event }) => event === "started", { since: told.next })
      assert.isFalse(KilledDaemons.isAlive(first.line.pid ?? 0))

      yield* daemon.signal("SIGTERM")
      assert.strictEqual(yield* daemon.ended, 130)
      assert.isFalse(KilledDaemons.isAlive(second.line.pid ?? 0))
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
