/** The push daemon: what the homeserver pushes is shown once, whoever of the daemon and its worker is killed when. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Pushed from "./fixtures/PushedAccount.ts"
import * as TemporaryDatabase from "./TemporaryDatabase.ts"

/** Waits until so many events are shown. */
const untilShown = (account: Pushed.Account, count: number) =>
  TemporaryDatabase.until(`${count} notifications`, Pushed.shown(account), (shown) => shown.length >= count)

describe("push-daemon", () => {
  it.live("shows what the homeserver pushes, by a worker that ends, and pushes no more once it is told so", () =>
    Effect.gen(function* () {
      const account = yield* Pushed.make
      const { daemon, url } = yield* Pushed.startDaemon(account)
      const { database } = account
      const enabled = yield* Pushed.twinloop(["push", "enable", "--json", "--database", database, "--url", url])
      assert.deepInclude(enabled, { exitCode: 0, errors: "" })

      const eventId = yield* Pushed.says(account, "dinner is ready")
      const { line } = yield* daemon.until("tell of it", (said) => "eventId" in said)
      assert.deepInclude(line, { eventId, result: "Event", title: "Kitchen", body: "Alice: dinner is ready" })
      assert.deepStrictEqual(
        (yield* untilShown(account, 1)).map((shown) => shown.eventId),
        [eventId]
      )
      console.log("millis from acceptance", "millis" in line && line.millis)

      yield* daemon.signal("SIGTERM")
      assert.strictEqual(yield* daemon.ended, 0, yield* daemon.errors)
    })
  )
})
