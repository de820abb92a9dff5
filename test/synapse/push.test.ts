/**
 * A real Synapse pushes what the dev homeserver pushes, to a gateway on this host; and our own HTTP client sets its pushers.
 */
import { NodeServices } from "@effect/platform-node"
import { afterAll, beforeAll } from "@effect/vitest"
import type { Homeserver, MatrixEvent } from "@twinloop/core"
import { pushConformance, type PushHarness } from "@twinloop/core/testing"
import { Effect, Layer, ManagedRuntime, Redacted } from "effect"
import * as HttpHomeserver from "../../packages/platform/src/http/HttpHomeserver.ts"
import * as NodeHomeserver from "../../packages/platform/src/http/NodeHomeserver.ts"
import { RefreshLock } from "../../packages/platform/src/http/RefreshLock.ts"
import type { AccountSession } from "../../packages/platform/src/http/Session.ts"
import * as SessionStore from "../../packages/platform/src/http/SessionStore.ts"
import { Synapse } from "../../packages/platform/src/synapse/Synapse.ts"
import { testGateway } from "../../packages/platform/test/TestGateway.ts"

type Client = Homeserver.Homeserver["Service"]

const client = "/_matrix/client"

// Thread subscriptions are behind a switch.
const config = { experimental_features: { msc4306_enabled: true } }

// One server for the whole file; each test has users and a gateway of its own.
const runtime = ManagedRuntime.make(Layer.provide(Synapse.layer({ config }), NodeServices.layer))
beforeAll(() => runtime.context())
afterAll(() => runtime.dispose())

interface LoggedIn {
  readonly user_id: string
  readonly device_id: string
  readonly access_token: string
}

let users = 0

const harness = Effect.gen(function* () {
  const synapse = yield* Synapse
  const sessions = new Map<Client, AccountSession>()
  const clientFor = (session: AccountSession) =>
    HttpHomeserver.make.pipe(
      Effect.provide([
        SessionStore.layerMemory(session),
        RefreshLock.layerSingleProcess,
        NodeHomeserver.layerTransport
      ]),
      Effect.tap((port) => Effect.sync(() => sessions.set(port, session)))
    )
  const newUser = (name: string) => {
    users += 1
    return Effect.flatMap(synapse.register({ username: `${name}${users}` }), clientFor)
  }
  const logIn = Effect.fnUntraced(function* (as: Client) {
    const user = as.session.userId
    const password = user.slice(1).split(":")[0] ?? ""
    const body = { type: "m.login.password", identifier: { type: "m.id.user", user }, password }
    const { json } = yield* synapse.request({ method: "POST", path: `${client}/v3/login`, body })
    const { access_token, device_id, user_id } = json as LoggedIn
    const accessToken = Redacted.make(access_token)
    return yield* clientFor({ homeserver: synapse.baseUrl, userId: user_id, deviceId: device_id, accessToken })
  })
  return {
    alice: yield* newUser("alice"),
    bob: yield* newUser("bob"),
    gateway: yield* testGateway,
    logIn,
    request: (by, { path, ...rest }) =>
      Effect.map(
        synapse.request({ ...rest, path: client + path, accessToken: sessions.get(by)!.accessToken }),
        ({ status, json }) => ({ status, json: json as MatrixEvent.JsonObject })
      )
  } satisfies PushHarness
})

pushConformance(
  "Synapse",
  Effect.flatMap(runtime.contextEffect, (context) => Effect.provideContext(harness, context))
)
