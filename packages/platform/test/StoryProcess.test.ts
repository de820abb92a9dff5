import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Option } from "effect"
import { TestClock } from "effect/testing"
import { closeSync, openSync } from "node:fs"
import { createServer } from "node:net"
import * as AppProcess from "../src/story/AppProcess.ts"
import * as Connections from "../src/story/Connections.ts"
import { temporaryFile } from "./SqliteKit.ts"

describe("A process of the story", () => {
  it.effect("I10: that does not end when it should fails the story instead of holding it up", () =>
    Effect.gen(function* () {
      const app = yield* AppProcess.start("main", yield* temporaryFile)
      // It is stopped before it can find that nobody is logged in, and never ends by itself.
      yield* Effect.sync(() => process.kill(app.pid, "SIGSTOP"))
      const waiting = yield* Effect.forkChild(Effect.flip(app.exitCode))
      yield* TestClock.adjust("1 minute")
      const error = yield* Fiber.join(waiting)
      assert.include(error.message, "did not end")
    }).pipe(Effect.provide(NodeServices.layer))
  )

  it.live.skipIf(process.platform !== "linux")("has its connections counted while its descriptors come and go", () =>
    Effect.gen(function* () {
      const server = createServer()
      yield* Effect.acquireRelease(
        Effect.callback<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void))),
        () => Effect.sync(() => server.close())
      )
      const file = openSync("/dev/null", "r")
      // Listing its own descriptors, this process lists one that is closed before it is looked at.
      const counted = yield* Connections.count(process.pid)
      closeSync(file)
      assert.isAtLeast(
        Option.getOrElse(counted, () => -1),
        1
      )
    })
  )
})
