/**
 * A real Synapse pushes what the dev homeserver pushes, to a gateway on this host; and our own HTTP client sets its pushers.
 */
import { NodeServices } from "@effect/platform-node"
import { afterAll, beforeAll } from "@effect/vitest"
import { pushConformance, type PushHarness } from "@twinloop/core/testing"
import { Effect, Layer, ManagedRuntime } from "effect"
import { Synapse } from "../../packages/platform/src/synapse/Synapse.ts"
import { testGateway } from "../../packages/platform/test/TestGateway.ts"
import * as Users from "./Users.ts"

// Thread subscriptions are behind a switch.
const config = { experimental_features: { msc4306_enabled: true } }

// One server for the whole file; each test has users and a gateway of its own.
const runtime = ManagedRuntime.make(Layer.provide(Synapse.layer({ config }), NodeServices.layer))
beforeAll(() => runtime.context())
afterAll(() => runtime.dispose())

const harness = Effect.gen(function* () {
  const { logIn, newUser, request } = yield* Users.make("/_matrix/client")
  return {
    alice: yield* newUser("alice"),
    bob: yield* newUser("bob"),
    gateway: yield* testGateway,
    logIn,
    request
  } satisfies PushHarness
})

pushConformance(
  "Synapse",
  Effect.flatMap(runtime.contextEffect, (context) => Effect.provideContext(harness, context))
)
