/**
 * A process that says what its signals make it do: `node lifecycleChild.ts <database> [slow|hanging]`. With `slow` it never
 * finishes stopping, with `hanging` it has stopped and never ends. It can be asked over its control socket, too.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Deferred, Effect } from "effect"
import * as ControlServer from "../../packages/platform/src/control/ControlServer.ts"
import * as Lifecycle from "../../packages/platform/src/lifecycle/Lifecycle.ts"
import * as SocketDirectory from "../../packages/platform/src/wake/SocketDirectory.ts"

const [database = "", how] = process.argv.slice(2)
const say = (what: string) => Effect.sync(() => console.log(what))
const stop = Effect.andThen(say("stop"), how === "slow" ? Effect.never : Effect.void)

const program = Effect.gen(function* () {
  const asked = yield* Deferred.make<void>()
  const directory = yield* SocketDirectory.forDatabase(database)
  const control = ControlServer.layer({
    directory,
    handlers: {
      status: Effect.succeed({ pid: process.pid, role: "main", state: "running" }),
      suspend: () => Effect.succeed({ quiet: true, unfinished: [] }),
      resume: Effect.void,
      // It ends the process, and with it the connection over which the answer would go.
      stop: Effect.andThen(Deferred.succeed(asked, undefined), Effect.never)
    }
  })
  const run = Lifecycle.run({ suspend: say("suspend"), resume: say("resume"), stop }).pipe(
    Effect.raceFirst(Deferred.await(asked))
  )
  yield* Effect.andThen(say("ready"), run).pipe(Effect.provide(control))
})

const hang = Effect.andThen(say("closing"), Effect.never)

NodeRuntime.runMain(
  Effect.ensuring(Effect.provide(program, Lifecycle.layerSignals), how === "hanging" ? hang : Effect.void)
)
