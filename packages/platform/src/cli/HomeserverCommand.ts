/** `twinloop homeserver`: the embedded homeserver by itself, for development. */
import { Deferred, Effect, Layer, Schema } from "effect"
import { Command, Flag } from "effect/cli"
import * as DevHomeserver from "../dev/DevHomeserver.ts"
import * as Lifecycle from "../lifecycle/Lifecycle.ts"
import * as Flags from "./Flags.ts"
import * as Output from "./Output.ts"
import * as Parent from "./Parent.ts"

/** Serves until the operating system or the parent says stop. */
const serve = Effect.fnUntraced(function* (json: boolean, withParent: boolean) {
  const { baseUrl, port } = yield* DevHomeserver.DevHomeserver
  const stopped = yield* Deferred.make<void>()
  const stop = Deferred.succeed(stopped, undefined)
  if (withParent)
    yield* Effect.forkScoped(
      Effect.andThen(
        Parent.lines(() => Effect.void),
        stop
      )
    )
  yield* Effect.forkScoped(Lifecycle.run({ suspend: Effect.void, resume: Effect.void, stop }))
  yield* Output.result(json, { event: "listening", baseUrl, port }, [
    `The embedded homeserver listens on ${baseUrl}. It forgets everything when it ends. End it with ^C.`
  ])
  yield* Deferred.await(stopped)
}, Effect.scoped)

export const homeserverCommand = Command.make(
  "homeserver",
  {
    port: Flag.Int("port").pipe(
      Flag.withDescription("Port of 127.0.0.1; 0 takes a free one"),
      Flag.withSchema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 65_535 }))),
      Flag.withDefault(8008)
    ),
    withParent: Flags.withParent,
    json: Flags.json
  },
  ({ json, port, withParent }) =>
    serve(json, withParent).pipe(Effect.provide(Layer.merge(DevHomeserver.layer({ port }), Lifecycle.layerSignals)))
).pipe(
  Command.withDescription("Serve the embedded homeserver: for development and tests, on this machine only"),
  Command.withExamples([
    {
      command: "twinloop homeserver --port 8008",
      description: "Then: twinloop login http://127.0.0.1:8008 --user NAME"
    }
  ])
)
