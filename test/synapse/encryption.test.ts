/**
 * A real Synapse, through our own HTTP client, does for an end-to-end machine what the dev homeserver does.
 */
import { NodeServices } from "@effect/platform-node"
import { afterAll, beforeAll } from "@effect/vitest"
import { encryptionConformance, type EncryptionHarness } from "@twinloop/core/testing"
import { Effect, Layer, ManagedRuntime } from "effect"
import { Synapse } from "../../packages/platform/src/synapse/Synapse.ts"
import { newKey } from "../../packages/platform/test/SigningKeys.ts"
import * as Users from "./Users.ts"

// One server for the whole file; each test has users of its own.
const runtime = ManagedRuntime.make(Layer.provide(Synapse.layer(), NodeServices.layer))
beforeAll(() => runtime.context())
afterAll(() => runtime.dispose())

const harness = Effect.gen(function* () {
  const { logIn, newUser, passwordOf, request } = yield* Users.make("/_matrix/client/v3")
  return {
    alice: yield* newUser("alice"),
    bob: yield* newUser("bob"),
    passwordOf,
    logIn,
    request,
    newKey
  } satisfies EncryptionHarness
})

encryptionConformance(
  "Synapse",
  Effect.flatMap(runtime.contextEffect, (context) => Effect.provideContext(harness, context))
)
