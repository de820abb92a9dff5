/**
 * Two processes over one SQLite file: who owns the extension stream, and what happens when the owner is suspended.
 *
 *     node examples/02-two-processes/main.ts
 *
 * The homeserver is one of our own, in this process. The owner is suspended as a terminal does it (^Z) and as a phone does
 * it: it is told, it becomes quiet, it freezes.
 */
import { HomeserverModel } from "@twinloop/core/testing"
import { Login, SessionStore, Twinloop } from "@twinloop/platform"
import { DevHomeserver } from "@twinloop/platform/dev"
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect, FileSystem, Path, Redacted } from "effect"
import { fileURLToPath } from "node:url"
import * as Program from "../support/Program.ts"

const processFile = fileURLToPath(new URL("process.ts", import.meta.url))

/** An account on the homeserver, logged in; the login is kept in the database, for both processes. */
const prepare = Effect.fnUntraced(function* (database: string) {
  const { baseUrl, host } = yield* DevHomeserver.DevHomeserver
  yield* host.attempt((state) => HomeserverModel.addUser(state, { localpart: "alice", password: "alice" }))
  yield* Effect.gen(function* () {
    const password = Redacted.make("alice")
    const session = yield* Login.byPassword({ homeserver: baseUrl, user: "alice", password })
    yield* SessionStore.replace(yield* SessionStore.SessionStore, session)
  }).pipe(Effect.provide(Twinloop.layerFoundation({ database })))
})

/** Waits for a line of a process, prints it, and gives the number of the line. */
const hear = Effect.fnUntraced(function* (program: Program.Program, pattern: RegExp, since = 0) {
  const { line, number } = yield* program.until(pattern, since)
  yield* Console.log(`  ${line}`)
  return number
})

const story = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const database = path.join(yield* fs.makeTempDirectoryScoped({ prefix: "twinloop-two-" }), "account.db")
  yield* prepare(database)

  yield* Console.log("main starts, then standby:")
  const main = yield* Program.start(processFile, ["main", database])
  yield* hear(main, /owns the stream/)
  const standby = yield* Program.start(processFile, ["standby", database])
  yield* hear(standby, /waits for the stream/)

  yield* Console.log("main is suspended:")
  yield* main.signal("SIGTSTP")
  const suspended = yield* hear(main, /is suspended/)
  yield* hear(standby, /owns the stream/)

  yield* Console.log("main is resumed:")
  yield* main.signal("SIGCONT")
  yield* hear(main, /waits for the stream/, suspended)

  yield* Console.log("standby is killed:")
  yield* standby.signal("SIGKILL")
  yield* hear(main, /owns the stream/, suspended)

  yield* main.signal("SIGTERM")
  yield* Console.log(`main has stopped, exit code ${yield* main.exitCode}`)
}).pipe(Effect.scoped, Effect.provide([DevHomeserver.layer({ port: 0 }), NodeServices.layer]))

NodeRuntime.runMain(story)
