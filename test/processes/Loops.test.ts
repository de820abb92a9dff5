import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Account from "./Account.ts"
import type { ScriptedHomeserver } from "./ScriptedHomeserver.ts"
import * as TemporaryDatabase from "./TemporaryDatabase.ts"

const mainOf = (role: string): string => `rooms-${role}`

const seenOn = (homeserver: ScriptedHomeserver, connId: string) =>
  homeserver.seen.filter((seen) => seen.connId === connId)

/** Requests of a connection in the busiest second there was. */
const busiestSecond = (homeserver: ScriptedHomeserver, connId: string): number => {
  const times = seenOn(homeserver, connId).map((seen) => seen.atMillis)
  return Math.max(0, ...times.map((from) => times.filter((at) => at >= from && at < from + 1_000).length))
}

describe("The two loops of a process", () => {
  it.live("I3: a burst of window changes while the main loop is busy ends at the last one, and to-device goes on", () =>
    Effect.gen(function* () {
      const account = yield* Account.make
      const { homeserver } = account
      homeserver.script.rooms = 500
      const process = yield* Account.startCommand(account, "one")
      yield* process.until("load the rooms", Account.isLoaded)
      homeserver.script.delayMillis.main = 1_000

      const before = homeserver.seen.length
      const said = yield* process.said
      for (let change = 0; change < 300; change++) {
        yield* process.send(`window ${change} ${change + 10}`)
        homeserver.send(1)
        yield* Effect.sleep("5 millis")
      }
      const last: readonly [number, number] = [299, 309]
      yield* TemporaryDatabase.until(
        "a request for the last window",
        Effect.sync(() => seenOn(homeserver, mainOf("one")).at(-1)?.window),
        (window) => window?.[0] === last[0] && window[1] === last[1]
      )
      // It stays the last one: nothing that was on its way comes after it.
      yield* Effect.sleep("2 seconds")
      assert.deepStrictEqual(seenOn(homeserver, mainOf("one")).at(-1)?.window, last)

      // One poll at a time on each connection: what a change made pointless was aborted.
      assert.deepStrictEqual(homeserver.overlaps, [])
      const asked = homeserver.seen.slice(before).filter((seen) => seen.connId === mainOf("one")).length
      console.log(`300 window changes in the time of a few answers: ${asked} requests`)
      assert.isBelow(asked, 60)

      yield* Account.untilApplied(process, 300)
      Account.assertExactlyOnce(yield* Account.inbox(account), 300)
      const times = (yield* process.lines)
        .slice(said)
        .filter((event) => event.event === "inbox")
        .map((event) => event.atMillis)
      const gaps = times.slice(1).map((at, index) => at - times[index]!)
      console.log(`longest gap of the extension loop meanwhile: ${Math.max(...gaps).toFixed(0)} ms`)
      // One answer of the main loop takes a second: had the extension loop waited for one, it would show.
      assert.isBelow(Math.max(...gaps), 900)
    })
  )

  it.live("I3: a main loop whose homeserver never answers doesn't delay to-device messages", () =>
    Effect.gen(function* () {
      const account = yield* Account.make
      const { homeserver } = account
      homeserver.script.held.main = true
      const process = yield* Account.startCommand(account, "one")
      yield* process.until("own the stream", Account.owns)
      homeserver.send(50)
      yield* Account.untilApplied(process, 50)
      assert.isFalse((yield* process.lines).some(Account.isLoaded))
      homeserver.script.held.main = false
      homeserver.tell()
      yield* process.until("load the rooms", Account.isLoaded)
    })
  )
})

describe("Two processes that were given the same role", () => {
  it.live("I1, I2, I10: both go on, nothing is lost or applied twice, and neither hammers the homeserver", () =>
    Effect.gen(function* () {
      const account = yield* Account.make
      const { homeserver } = account
      homeserver.script.rooms = 50
      const programs = yield* Effect.all(
        [Account.startCommand(account, "main"), Account.startCommand(account, "main")],
        {
          concurrency: 2
        }
      )
      for (const program of programs) yield* program.until("start", (event) => event.event === "state")
      yield* TemporaryDatabase.until("an owner", Account.lease(account), (row) => row !== undefined)
      // Two polls on one connection are seen as such: what the test of one process relies on.
      yield* TemporaryDatabase.until(
        "two polls on one connection",
        Effect.sync(() => homeserver.overlaps.includes(mainOf("main"))),
        (isSeen) => isSeen
      )
      const startedAt = yield* Account.nowMillis
      for (let round = 0; round < 60; round++) {
        homeserver.send(5)
        // Something to say on their shared connection, which only one of them can commit.
        if (round % 10 === 0) homeserver.script.rooms++
        homeserver.tell()
        yield* Effect.sleep("50 millis")
      }
      yield* Account.untilInbox(account, 300)
      Account.assertExactlyOnce(yield* Account.inbox(account), 300)

      const requests = seenOn(homeserver, mainOf("main")).length
      const seconds = ((yield* Account.nowMillis) - startedAt) / 1_000
      const busiest = busiestSecond(homeserver, mainOf("main"))
      console.log(
        `${requests} requests on the shared connection in ${seconds.toFixed(1)} s, ${busiest} in the busiest second`
      )
      assert.isBelow(busiest, 60)

      // Neither has given up, and what they say of it names what happened.
      const failures = new Set<string>()
      for (const program of programs) {
        for (const event of yield* program.lines) {
          if (event.event !== "state") continue
          assert.notStrictEqual(event.state, "Terminal")
          if (event.main._tag === "BackingOff")
            failures.add(`${event.main.failure.class}: ${event.main.failure.message}`)
        }
      }
      for (const failure of failures) console.log(`said: ${failure.slice(0, 160)}`)
      for (const failure of failures) assert.match(failure, /^(moved|expired): /)

      // The one that is left has the stream and the connection to itself.
      yield* programs[0].signal("SIGKILL")
      homeserver.send(5)
      yield* Account.untilApplied(programs[1], 305)
      Account.assertExactlyOnce(yield* Account.inbox(account), 305)
    })
  )
})
