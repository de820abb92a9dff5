/**
 * A real Synapse, through our own HTTP client, does what the model does: the conformance suite that the test kit ships.
 */
import { NodeServices } from "@effect/platform-node"
import { afterAll, beforeAll } from "@effect/vitest"
import type { Homeserver } from "@twinloop/core"
import { Effect, Layer, ManagedRuntime, Redacted } from "effect"
import { syncConformance } from "../../packages/core/src/testing/SyncConformance.ts"
import * as HttpHomeserver from "../../packages/platform/src/http/HttpHomeserver.ts"
import * as NodeHomeserver from "../../packages/platform/src/http/NodeHomeserver.ts"
import { RefreshLock } from "../../packages/platform/src/http/RefreshLock.ts"
import type { AccountSession } from "../../packages/platform/src/http/Session.ts"
import * as SessionStore from "../../packages/platform/src/http/SessionStore.ts"
import { Synapse } from "../../packages/platform/src/synapse/Synapse.ts"

type Client = Homeserver.Homeserver["Service"]

// One server for the whole file; each test has users of its own.
const runtime = ManagedRuntime.make(Layer.provide(Synapse.layer(), NodeServices.layer))
beforeAll(() => runtime.context())
afterAll(() => runtime.dispose())

/** A client of one device, as an application has it, with its login in memory. */
const clientOf = (session: AccountSession) =>
  HttpHomeserver.make.pipe(
    Effect.provide([SessionStore.layerMemory(session), RefreshLock.layerSingleProcess, NodeHomeserver.layerTransport])
  )

let users = 0

const newUser = Effect.fnUntraced(function* (name: string) {
  const synapse = yield* Synapse
  users += 1
  return yield* synapse.register({ username: `${name}${users}` })
})

const harness = Effect.gen(function* () {
  const synapse = yield* Synapse
  const sessions = { alice: yield* newUser("alice"), bob: yield* newUser("bob") }
  const alice = yield* clientOf(sessions.alice)
  const bob = yield* clientOf(sessions.bob)
  const stranger = yield* clientOf({ ...sessions.alice, accessToken: Redacted.make("made up") })
  const post = Effect.fnUntraced(function* (by: Client, path: string, body: unknown) {
    const { accessToken } = by === alice ? sessions.alice : sessions.bob
    const { status, json } = yield* synapse.request({ method: "POST", path, body, accessToken })
    return status === 200 ? (json as { readonly room_id: string }).room_id : yield* Effect.fail(json)
  })
  return {
    alice,
    bob,
    stranger,
    createRoom: (by: Client, options: object) => post(by, "/_matrix/client/v3/createRoom", options),
    joinRoom: (by: Client, roomId: string) =>
      Effect.asVoid(post(by, `/_matrix/client/v3/join/${encodeURIComponent(roomId)}`, {}))
  }
})

syncConformance(
  "Synapse",
  Effect.flatMap(runtime.contextEffect, (context) => Effect.provideContext(harness, context))
)
