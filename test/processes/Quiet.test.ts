import { assert, describe, it } from "@effect/vitest"
import { ControlClient } from "@twinloop/platform"
import { Effect, Option } from "effect"
import { readdirSync, readFileSync } from "node:fs"
import { dirname } from "node:path"
import { DatabaseSync } from "node:sqlite"
import * as Connections from "../../packages/platform/src/story/Connections.ts"
import * as Account from "./Account.ts"
import * as TemporaryDatabase from "./TemporaryDatabase.ts"

const isLinux = process.platform === "linux"

/** An account with one process that owns the stream and has all rooms. */
const startOwner = Effect.fnUntraced(function* (account: Account.Account, role = "one") {
  const owner = yield* Account.startCommand(account, role)
  yield* owner.until("own the stream", Account.owns)
  yield* owner.until("load the rooms", Account.isLoaded)
  return owner
})

const controlOf = (account: Account.Account, pid: number) =>
  Effect.flatMap(ControlClient.find(account.database, pid), ([target]) => ControlClient.connect(target))

/** Opens the database for nobody but this process, without waiting for anybody. */
const assertNobodyLocks = (database: string) =>
  Effect.sync(() => {
    const db = new DatabaseSync(database, { timeout: 0 })
    try {
      db.exec("BEGIN EXCLUSIVE; CREATE TABLE mine (id INTEGER); ROLLBACK")
    } finally {
      db.close()
    }
  })

/** I4: the lease row is free, no connection is open, nobody else's write waits. */
const assertQuiet = Effect.fnUntraced(function* (account: Account.Account, pid: number) {
  assert.strictEqual((yield* Account.lease(account))?.expiresAtMillis, 0)
  yield* assertNobodyLocks(account.database)
  if (isLinux) assert.deepStrictEqual(yield* Connections.count(pid), Option.some(0))
  assert.strictEqual(yield* Account.waiters(account), 0)
})

/** As the kernel sees it: `T` is stopped. */
const stateOf = (pid: number) =>
  Effect.sync(() =>
    readFileSync(`/proc/${pid}/stat`, "utf8")
      .replace(/^.*\) /s, "")
      .slice(0, 1)
  )

describe("A process that is suspended or stopped", () => {
  it.live("I4: is quiet when suspend over the control socket returns, and goes on at resume", () =>
    Effect.gen(function* () {
      const account = yield* Account.make
      const { homeserver } = account
      const owner = yield* startOwner(account)
      homeserver.send(3)
      yield* Account.untilApplied(owner, 3)
      const { generation } = (yield* Account.lease(account))!
      const control = yield* controlOf(account, owner.pid)
      for (let round = 0; round < 3; round++) {
        const report = yield* control.suspend(2_000)
        assert.deepStrictEqual(report.unfinished, [])
        yield* assertQuiet(account, owner.pid)

        // Nothing is asked of the homeserver while there would be something to fetch.
        const requests = homeserver.requests
        homeserver.send(2)
        homeserver.script.rooms++
        homeserver.tell()
        yield* Effect.sleep("700 millis")
        assert.strictEqual(homeserver.requests, requests)
        assert.strictEqual((yield* control.status).state, "suspended")

        yield* control.resume
        yield* Account.untilApplied(owner, 3 + 2 * (round + 1))
        console.log(`quiet after ${report.tookMillis} ms`)
        assert.isBelow(report.tookMillis ?? 0, 1_000)
      }
      // Nobody else wanted it: it is the same owner under the same generation.
      assert.strictEqual((yield* Account.lease(account))?.generation, generation)
      Account.assertExactlyOnce(yield* Account.inbox(account), 9)
    })
  )

  it.live("I4: hands the stream over to the one that waits, and waits for it after resume", () =>
    Effect.gen(function* () {
      const account = yield* Account.make
      const { homeserver } = account
      const owner = yield* startOwner(account)
      const other = yield* Account.startCommand(account, "two")
      yield* other.until("wait for the lock", Account.waits)
      yield* TemporaryDatabase.until("a queue", Account.waiters(account), (count) => count === 1)

      const control = yield* controlOf(account, owner.pid)
      yield* control.suspend(2_000)
      const quiet = yield* owner.until("be suspended", Account.isSuspended)
      // When suspend has returned, the lease is the other's already.
      assert.match((yield* Account.lease(account))?.holder ?? "", /^two#/)
      if (isLinux) assert.deepStrictEqual(yield* Connections.count(owner.pid), Option.some(0))
      const owned = yield* other.until("own the stream", Account.owns)
      console.log(
        `suspend to the other's sync: ${(owned.line.atMillis - quiet.line.atMillis).toFixed(1)} ms after quiet`
      )
      assert.isBelow(owned.line.atMillis - quiet.line.atMillis, 900)
      homeserver.send(4)
      yield* Account.untilApplied(other, 4)

      const said = yield* owner.said
      yield* control.resume
      yield* owner.until("wait for the lock", Account.waits, { since: said })
      yield* other.signal("SIGTERM")
      yield* owner.until("own the stream", Account.owns, { since: said })
      homeserver.send(4)
      yield* Account.untilInbox(account, 8)
      Account.assertExactlyOnce(yield* Account.inbox(account), 8)
    })
  )

  it.live.skipIf(!isLinux)("I4: is quiet when the terminal has stopped it, and goes on when it is continued", () =>
    Effect.gen(function* () {
      const account = yield* Account.make
      const { homeserver } = account
      const owner = yield* startOwner(account)
      for (let round = 0; round < 2; round++) {
        const said = yield* owner.said
        yield* owner.signal("SIGTSTP")
        yield* TemporaryDatabase.until("a stop", stateOf(owner.pid), (state) => state === "T")
        yield* assertQuiet(account, owner.pid)
        const requests = homeserver.requests
        homeserver.send(2)
        yield* Effect.sleep("300 millis")
        assert.strictEqual(homeserver.requests, requests)

        yield* owner.signal("SIGCONT")
        yield* owner.until("own the stream", Account.owns, { since: said })
        yield* Account.untilApplied(owner, 2 * (round + 1))
      }
      Account.assertExactlyOnce(yield* Account.inbox(account), 4)
    })
  )

  it.live("I4: doesn't run for the terminal while an operator has suspended it", () =>
    Effect.gen(function* () {
      const account = yield* Account.make
      const { homeserver } = account
      const owner = yield* startOwner(account)
      const control = yield* controlOf(account, owner.pid)
      yield* control.suspend(2_000)
      yield* owner.signal("SIGTSTP")
      yield* TemporaryDatabase.until("a stop", stateOf(owner.pid), (state) => state === "T")
      yield* owner.signal("SIGCONT")
      assert.strictEqual((yield* control.status).state, "suspended")
      const requests = homeserver.requests
      yield* Effect.sleep("300 millis")
      assert.strictEqual(homeserver.requests, requests)
      const said = yield* owner.said
      yield* control.resume
      yield* owner.until("own the stream", Account.owns, { since: said })
    })
  )

  it.live("stops at once while it waits for the lock, and gives up its place in the queue", () =>
    Effect.gen(function* () {
      const account = yield* Account.make
      yield* startOwner(account)
      for (const signal of ["SIGTERM", "SIGINT"] as const) {
        const waiter = yield* Account.startCommand(account, "two")
        yield* waiter.until("wait for the lock", Account.waits)
        yield* TemporaryDatabase.until("a queue", Account.waiters(account), (count) => count === 1)
        const asked = yield* Account.nowMillis
        yield* waiter.signal(signal)
        assert.strictEqual(yield* waiter.ended, 0)
        const took = (yield* Account.nowMillis) - asked
        console.log(`${signal} to the end of a waiting process: ${took.toFixed(0)} ms`)
        assert.isBelow(took, 1_000)
        assert.strictEqual(yield* Account.waiters(account), 0)
      }
    })
  )

  it.live("ends in order when its parent does, and leaves the lease free and no socket behind", () =>
    Effect.gen(function* () {
      const account = yield* Account.make
      const owner = yield* startOwner(account)
      yield* owner.endInput
      assert.strictEqual(yield* owner.ended, 0)
      assert.strictEqual((yield* Account.lease(account))?.expiresAtMillis, 0)
      const sockets = readdirSync(dirname(account.database), { recursive: true }).filter((file) =>
        /[wc]-\d+/.test(String(file))
      )
      assert.deepStrictEqual(sockets, [])
    })
  )

  it.live(
    "ends at once at a second signal, while a database that another process keeps locked makes it slow to stop",
    () =>
      Effect.gen(function* () {
        for (const [signal, code] of [
          ["SIGINT", 130],
          ["SIGTERM", 143]
        ] as const) {
          const account = yield* Account.make
          const owner = yield* startOwner(account)
          yield* Effect.scoped(
            Effect.gen(function* () {
              yield* Effect.acquireRelease(
                Effect.sync(() => {
                  const db = new DatabaseSync(account.database, { timeout: 5_000 })
                  db.exec("BEGIN IMMEDIATE")
                  return db
                }),
                (db) => Effect.sync(() => db.close())
              )
              const said = yield* owner.said
              yield* owner.signal("SIGTERM")
              // Its loops are ending; the lease can't be written.
              yield* owner.until("begin to stop", (event) => event.event === "state" && event.state === "Idle", {
                since: said
              })
              const asked = yield* Account.nowMillis
              yield* owner.signal(signal)
              assert.strictEqual(yield* owner.ended, code)
              assert.isBelow((yield* Account.nowMillis) - asked, 1_000)
            })
          )
        }
      })
  )
})
