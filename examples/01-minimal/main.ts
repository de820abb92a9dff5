/**
 * The smallest whole application: log in once, follow the rooms and the inbox, suspend and stop as the host wants.
 *
 *     node examples/01-minimal/main.ts
 *     MATRIX_PASSWORD=secret node examples/01-minimal/main.ts --homeserver https://matrix.example.org --user me --database me.db
 *
 * Without a homeserver it brings one, and an account on it.
 */
import { SyncService } from "@twinloop/actors"
import { Lifecycle, Login, SessionStore, Twinloop } from "@twinloop/platform"
import { DevHomeserver } from "@twinloop/platform/dev"
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Config, Console, Effect, FileSystem, Option, Path, Redacted } from "effect"
import { Command, Flag } from "effect/cli"
import { showInbox, showRooms } from "./App.ts"
import * as DemoHomeserver from "./DemoHomeserver.ts"

/** Logs in unless a login is kept in the database, where every process of the account finds it. */
const logIn = Effect.fnUntraced(function* (homeserver: string, user: string, password: Redacted.Redacted) {
  const sessions = yield* SessionStore.SessionStore
  if ((yield* sessions.load) !== undefined) return yield* Console.log("logged in already")
  const session = yield* Login.byPassword({ homeserver, user, password, deviceName: "Twinloop example" })
  yield* SessionStore.replace(sessions, session)
  yield* Console.log(`logged in as ${session.userId}`)
})

/** Starts both loops, and returns when the host has said stop and everything is quiet. */
const follow = Effect.gen(function* () {
  const service = yield* SyncService.SyncService
  yield* Effect.forkScoped(showRooms)
  yield* Effect.forkScoped(showInbox)
  yield* service.setWindow([0, 19])
  yield* service.start
  yield* Lifecycle.run({
    suspend: service.suspend(),
    resume: service.resume(),
    stop: Effect.flatMap(service.stop(), ({ quiet, tookMillis, unfinished }) =>
      Console.log(quiet ? `quiet after ${tookMillis} ms` : `still ending: ${unfinished.join(", ")}`)
    )
  })
}).pipe(Effect.scoped)

const run = Effect.fnUntraced(function* (homeserver: string, user: string, password: Redacted.Redacted, file: string) {
  yield* Effect.provide(logIn(homeserver, user, password), Twinloop.layerFoundation({ database: file }))
  yield* Effect.provide(follow, [Twinloop.layer({ database: file }), Lifecycle.layerSignals])
})

/** The demo's homeserver forgets everything when it ends, so its database does not outlive it either. */
const demo = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const directory = yield* fs.makeTempDirectoryScoped({ prefix: "twinloop-minimal-" })
  const baseUrl = yield* DemoHomeserver.start
  yield* Console.log(`a homeserver of our own listens on ${baseUrl}; end with ^C`)
  yield* run(baseUrl, "alice", Redacted.make("alice"), path.join(directory, "account.db"))
}).pipe(Effect.scoped, Effect.provide(DevHomeserver.layer({ port: 0 })))

const main = Command.make(
  "minimal",
  {
    homeserver: Flag.String("homeserver").pipe(
      Flag.withDescription("Such as https://matrix.example.org"),
      Flag.optional
    ),
    user: Flag.String("user").pipe(Flag.withDescription("User id or name"), Flag.withDefault("alice")),
    database: Flag.String("database").pipe(Flag.withDescription("SQLite file"), Flag.withDefault("minimal.db"))
  },
  Effect.fnUntraced(function* ({ database, homeserver, user }) {
    if (Option.isNone(homeserver)) return yield* demo
    yield* run(homeserver.value, user, yield* Config.Redacted("MATRIX_PASSWORD"), database)
  })
)

Command.run(main, { version: "0.1.0" }).pipe(Effect.provide(NodeServices.layer), NodeRuntime.runMain)
