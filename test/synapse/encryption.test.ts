/**
 * A real Synapse, through our own HTTP client, does for an end-to-end machine what the dev homeserver does.
 */
import { NodeServices } from "@effect/platform-node"
import { afterAll, beforeAll } from "@effect/vitest"
import type { Homeserver, MatrixEvent } from "@twinloop/core"
import { encryptionConformance, type EncryptionHarness } from "@twinloop/core/testing"
import { Effect, Layer, ManagedRuntime, Redacted } from "effect"
import * as HttpHomeserver from "../../packages/platform/src/http/HttpHomeserver.ts"
import * as NodeHomeserver from "../../packages/platform/src/http/NodeHomeserver.ts"
import { RefreshLock } from "../../packages/platform/src/http/RefreshLock.ts"
import type { AccountSession } from "../../packages/platform/src/http/Session.ts"
import * as SessionStore from "../../packages/platform/src/http/SessionStore.ts"
import { Synapse } from "../../packages/platform/src/synapse/Synapse.ts"
import { newKey } from "../../packages/platform/test/SigningKeys.ts"

type Client = Homeserver.Homeserver["Service"]

const v3 = "/_matrix/client/v3"

// One server for the whole file; each test has users of its own.
const runtime = ManagedRuntime.make(Layer.provide(Synapse.layer(), NodeServices.layer))
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
      Effect.tap((client) => Effect.sync(() => sessions.set(client, session)))
    )
  const newUser = (name: string) => {
    users += 1
    return Effect.flatMap(synapse.register({ username: `${name}${users}`, password: `secret of ${name}` }), clientFor)
  }
  const passwordOf = ({ session }: Client) => `secret of ${/^@([a-z]+)/.exec(session.userId)?.[1]}`
  const logIn = Effect.fnUntraced(function* (as: Client) {
    const identifier = { type: "m.id.user", user: as.session.userId }
    const body = { type: "m.login.password", identifier, password: passwordOf(as) }
    const { json } = yield* synapse.request({ method: "POST", path: `${v3}/login`, body })
    const { access_token, device_id, user_id } = json as LoggedIn
    const accessToken = Redacted.make(access_token)
    return yield* clientFor({ homeserver: synapse.baseUrl, userId: user_id, deviceId: device_id, accessToken })
  })
  return {
    alice: yield* newUser("alice"),
    bob: yield* newUser("bob"),
    passwordOf,
    logIn,
    request: (by, { path, ...rest }) =>
      Effect.map(
        synapse.request({ ...rest, path: v3 + path, accessToken: sessions.get(by)!.accessToken }),
        ({ status, json }) => ({ status, json: json as MatrixEvent.JsonObject })
      ),
    newKey
  } satisfies EncryptionHarness
})

encryptionConformance(
  "Synapse",
  Effect.flatMap(runtime.contextEffect, (context) => Effect.provideContext(harness, context))
)
