/** A process that starts Synapse, says where it and its directory are, and waits to be killed. */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect } from "effect"
import { make } from "../../packages/platform/src/synapse/Synapse.ts"

NodeRuntime.runMain(
  make().pipe(
    Effect.flatMap(({ baseUrl, directory }) => Console.log(`${baseUrl} ${directory}`)),
    Effect.andThen(Effect.never),
    Effect.scoped,
    Effect.provide(NodeServices.layer)
  )
)
