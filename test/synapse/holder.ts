/** A process that starts Synapse, says where it is, and waits to be killed. */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect } from "effect"
import { make } from "../../packages/platform/src/synapse/Synapse.ts"

NodeRuntime.runMain(
  make().pipe(
    Effect.flatMap(({ baseUrl }) => Console.log(baseUrl)),
    Effect.andThen(Effect.never),
    Effect.scoped,
    Effect.provide(NodeServices.layer)
  )
)
