import { Context, Effect, Layer, Redacted } from "effect"
import { Homeserver } from "@twinloop/core"
import type { MatrixEvent } from "@twinloop/core"
import { pushConformance, type PushHarness } from "@twinloop/core/testing"
import { DevHomeserver, layer } from "../src/dev/DevHomeserver.ts"
import { NodeHomeserver, RefreshLock, SessionStore } from "../src/http/index.ts"
import { testGateway } from "./TestGateway.ts"

type Client = Homeserver.Homeserver["Service"]
type Dev = DevHomeserver["Service"]

interface Account {
  readonly user_id: string
  readonly device_id: string
  readonly access_token: string
}

interface Ask {
  readonly method: string
  readonly path: string
  readonly body?: MatrixEvent.JsonObject
  readonly token?: string | undefined
}

const ask = ({ baseUrl }: Dev, { method, path, body, token }: Ask) =>
  Effect.promise(async (signal) => {
    const response = await fetch(baseUrl + path, {
      method,
      headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
      signal,
      ...(body !== undefined && { body: JSON.stringify(body) })
    })
    return { status: response.status, json: (await response.json()) as MatrixEvent.JsonObject }
  })

const harness = Effect.gen(function* () {
  const dev = Context.get(yield* Layer.build(layer({ port: 0 })), DevHomeserver)
  const tokens = new Map<Client, string>()
  const clientOf = Effect.fnUntraced(function* ({ user_id, device_id, access_token }: Account) {
    const accessToken = Redacted.make(access_token)
    const session = { homeserver: dev.baseUrl, userId: user_id, deviceId: device_id, accessToken }
    const stored = Layer.merge(SessionStore.layerMemory(session), RefreshLock.layerSingleProcess)
    const client = Context.get(yield* Layer.build(Layer.provide(NodeHomeserver.layer, stored)), Homeserver.Homeserver)
    tokens.set(client, access_token)
    return client
  })
  const post = (path: string, body: MatrixEvent.JsonObject) =>
    Effect.map(ask(dev, { method: "POST", path, body }), ({ json }) => json as unknown as Account)
  const newUser = (username: string) => Effect.flatMap(post("/_twinloop/users", { username }), clientOf)
  return {
    alice: yield* newUser("alice"),
    bob: yield* newUser("bob"),
    gateway: yield* testGateway,
    logIn: ({ session: { userId } }) => {
      const identifier = { type: "m.id.user", user: userId }
      const password = userId.slice(1).split(":")[0] ?? ""
      return Effect.flatMap(
        post("/_matrix/client/v3/login", { type: "m.login.password", identifier, password }),
        clientOf
      )
    },
    request: (by, { path, ...rest }) => ask(dev, { ...rest, path: `/_matrix/client${path}`, token: tokens.get(by) })
  } satisfies PushHarness
})

pushConformance("the dev homeserver", harness)
