/** Users of a real Synapse for the conformance suites: our own HTTP client for each, and requests as anybody. */
import type { Homeserver, MatrixEvent } from "@twinloop/core"
import { Effect, Redacted } from "effect"
import * as HttpHomeserver from "../../packages/platform/src/http/HttpHomeserver.ts"
import * as NodeHomeserver from "../../packages/platform/src/http/NodeHomeserver.ts"
import { RefreshLock } from "../../packages/platform/src/http/RefreshLock.ts"
import type { AccountSession } from "../../packages/platform/src/http/Session.ts"
import * as SessionStore from "../../packages/platform/src/http/SessionStore.ts"
import { Synapse } from "../../packages/platform/src/synapse/Synapse.ts"

export type Client = Homeserver.Homeserver["Service"]

interface LoggedIn {
  readonly user_id: string
  readonly device_id: string
  readonly access_token: string
}

interface Request {
  readonly method: "GET" | "POST" | "PUT" | "DELETE"
  readonly path: string
  readonly body?: unknown
}

let users = 0

/** Makes users whose paths of requests begin with `prefix`. A user's password is "secret of" and his name. */
export const make = Effect.fnUntraced(function* (prefix: string) {
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
  const passwordOf = ({ session }: Client) => `secret of ${/^@([a-z]+)/.exec(session.userId)?.[1]}`
  return {
    passwordOf,
    /** A new user with a device. */
    newUser: (name: string) => {
      users += 1
      return Effect.flatMap(synapse.register({ username: `${name}${users}`, password: `secret of ${name}` }), clientFor)
    },
    /** One more device of a user. */
    logIn: Effect.fnUntraced(function* (as: Client) {
      const identifier = { type: "m.id.user", user: as.session.userId }
      const body = { type: "m.login.password", identifier, password: passwordOf(as) }
      const { json } = yield* synapse.request({ method: "POST", path: "/_matrix/client/v3/login", body })
      const { access_token, device_id, user_id } = json as LoggedIn
      const accessToken = Redacted.make(access_token)
      return yield* clientFor({ homeserver: synapse.baseUrl, userId: user_id, deviceId: device_id, accessToken })
    }),
    /** A request of a user's device that the port doesn't have. */
    request: (by: Client, { path, ...rest }: Request) =>
      Effect.map(
        synapse.request({ ...rest, path: prefix + path, accessToken: sessions.get(by)!.accessToken }),
        ({ status, json }) => ({ status, json: json as MatrixEvent.JsonObject })
      )
  }
})
