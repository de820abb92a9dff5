import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { rmSync, writeFileSync } from "node:fs"
import type { RunEvent } from "../../packages/platform/src/cli/RunEvent.ts"
import * as Account from "./Account.ts"
import * as TemporaryDatabase from "./TemporaryDatabase.ts"

/** Waits between tries are short, so that recovery shows soon. */
const config = { backoffMinMillis: 100, backoffMaxMillis: 400 }

type StateEvent = Extract<RunEvent, { event: "state" }>

const isState =
  (accepts: (state: StateEvent) => boolean) =>
  (event: RunEvent): boolean =>
    event.event === "state" && accepts(event)

const failureOf = (status: StateEvent["main"]): string =>
  status._tag === "BackingOff" || status._tag === "Failed" ? `${status.failure.class}: ${status.failure.message}` : ""

describe("The database of a running process", () => {
  for (const [what, replace] of [
    ["deleted", () => {}],
    ["replaced by an empty file", (database: string) => writeFileSync(database, "")]
  ] as const) {
    it.live(`I1, I9: that is ${what} ends the loops in a state that says so, and the process stays`, () =>
      Effect.gen(function* () {
        const account = yield* Account.make
        const { database, homeserver } = account
        const process = yield* Account.start(account, "one", { config })
        yield* process.until("own the stream", Account.owns)
        homeserver.send(3)
        yield* Account.untilApplied(process, 3)
        yield* TemporaryDatabase.until(
          "an acknowledgement",
          Effect.sync(() => homeserver.acknowledged),
          (acknowledged) => acknowledged === 3
        )

        for (const file of ["", "-wal", "-shm"]) rmSync(database + file, { force: true })
        replace(database)
        homeserver.send(3)
        const terminal = yield* process.until(
          "give up",
          isState((state) => state.state === "Terminal")
        )
        const failure = failureOf((terminal.line as StateEvent).extension)
        assert.match(failure, /^storeTerminal: /)
        assert.include(failure, database)
        assert.include(failure, "deleted or replaced")
        // Nothing was acknowledged that isn't stored anywhere.
        assert.strictEqual(homeserver.acknowledged, 3)
        yield* process.signal("SIGTERM")
        assert.strictEqual(yield* process.ended, 0)
      })
    )
  }

  it.live("I2, I9: that has no room left is waited for, and nothing is lost meanwhile", () =>
    Effect.gen(function* () {
      const account = yield* Account.make
      const { homeserver } = account
      const process = yield* Account.start(account, "one", { config, freePages: 8 })
      yield* process.until("own the stream", Account.owns)
      const pump = Effect.gen(function* () {
        homeserver.send(50)
        yield* Effect.sleep("20 millis")
      })
      yield* Effect.repeat(pump, { times: 20 })
      const full = yield* process.until(
        "say that the disk is full",
        isState((state) => state.extension._tag === "BackingOff")
      )
      const failure = failureOf((full.line as StateEvent).extension)
      assert.match(failure, /^store: /)
      assert.include(failure, "no room left")
      assert.isBelow(homeserver.acknowledged, homeserver.sent)

      yield* process.signal("SIGUSR2")
      yield* Account.untilApplied(process, homeserver.sent)
      Account.assertExactlyOnce(yield* Account.inbox(account), homeserver.sent)
    })
  )
})

describe("The inbox of a running process", () => {
  it.live("I9: is consumed again once the database lets its cursor move", () =>
    Effect.gen(function* () {
      const account = yield* Account.make
      const { database, homeserver } = account
      const process = yield* Account.start(account, "one", { config })
      yield* process.until("own the stream", Account.owns)
      yield* TemporaryDatabase.run(
        database,
        `CREATE TRIGGER stuck BEFORE INSERT ON inbox_cursor BEGIN SELECT RAISE(ABORT, 'stuck'); END`
      )
      homeserver.send(3)
      yield* Account.untilInbox(account, 3)
      yield* TemporaryDatabase.until("a warning", process.errors, (errors) => errors.includes("inbox can't be printed"))
      yield* TemporaryDatabase.run(database, `DROP TRIGGER stuck`)
      yield* Account.untilApplied(process, 3)
      yield* TemporaryDatabase.until(
        "a cursor",
        TemporaryDatabase.all<{ readonly sequence: number }>(database, `SELECT sequence FROM inbox_cursor`),
        ([row]) => row?.sequence === 3
      )
    })
  )
})

describe("The homeserver of a running process", () => {
  it.live("I2, I9: that is killed and started again is found again, by both loops", () =>
    Effect.gen(function* () {
      const account = yield* Account.make
      const { homeserver } = account
      const process = yield* Account.start(account, "one", { config })
      yield* process.until("own the stream", Account.owns)
      yield* process.until("load the rooms", Account.isLoaded)
      const { port } = homeserver
      for (let round = 1; round <= 3; round++) {
        const said = yield* process.said
        yield* Effect.promise(() => homeserver.kill())
        const down = yield* process.until(
          "notice",
          isState((state) => state.main._tag === "BackingOff" && state.extension._tag === "BackingOff"),
          { since: said }
        )
        assert.match(failureOf((down.line as StateEvent).main), /^network: /)
        homeserver.send(5)
        yield* Effect.promise(() => homeserver.listen(port))
        yield* process.until(
          "sync again",
          isState((state) => state.main._tag === "Syncing" && state.extension._tag === "Syncing"),
          { since: down.next }
        )
        yield* Account.untilApplied(process, round * 5)
      }
      Account.assertExactlyOnce(yield* Account.inbox(account), 15)
    })
  )

  it.live("I9: whose access token has ended is asked for one new token by two processes", () =>
    Effect.gen(function* () {
      const account = yield* Account.make
      const { homeserver } = account
      homeserver.tokens = { access: "access-0", refresh: "refresh-0" }
      yield* Account.logIn(account, "refresh-0")
      const programs = yield* Effect.all(
        [Account.start(account, "one", { config }), Account.start(account, "two", { config })],
        { concurrency: 2 }
      )
      for (const program of programs) yield* program.until("load the rooms", Account.isLoaded)
      for (let round = 1; round <= 4; round++) {
        homeserver.expireToken()
        // Both are answered, and refused at their next request, which they send at the same moment.
        homeserver.script.rooms++
        homeserver.send(3)
        yield* Account.untilInbox(account, round * 3)
        yield* TemporaryDatabase.until(
          "polls of both with the new token",
          Effect.sync(() => [homeserver.inFlight.get("rooms-one"), homeserver.inFlight.get("rooms-two")]),
          (open) => open.every((count) => count === 1)
        )
        assert.strictEqual(homeserver.refreshed, round)
      }
      assert.strictEqual(homeserver.refreshRefused, 0)
      Account.assertExactlyOnce(yield* Account.inbox(account), 12)
      for (const program of programs) {
        for (const event of yield* program.lines)
          if (event.event === "state") assert.notStrictEqual(event.state, "Terminal", JSON.stringify(event))
      }
    })
  )

  it.live("I9: that has ended the login is a state that says so, in both processes", () =>
    Effect.gen(function* () {
      const account = yield* Account.make
      const { homeserver } = account
      const programs = yield* Effect.all([Account.startCommand(account, "one"), Account.startCommand(account, "two")], {
        concurrency: 2
      })
      for (const program of programs) yield* program.until("load the rooms", Account.isLoaded)
      homeserver.expireToken()
      homeserver.script.rooms++
      homeserver.send(1)
      for (const program of programs) {
        const terminal = yield* program.until(
          "give up",
          isState((state) => state.state === "Terminal" && state.main._tag === "Failed")
        )
        assert.match(failureOf((terminal.line as StateEvent).main), /^auth: .*[Ll]og in again/)
        yield* program.signal("SIGTERM")
        assert.strictEqual(yield* program.ended, 0)
      }
    })
  )
})
