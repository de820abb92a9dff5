/**
 * The few requests that the harness itself makes of a Synapse: health, registration by the shared secret, and the trick that
 * expires a position.
 *
 * Not here: being a Matrix client (`http/HttpHomeserver.ts`).
 */
import { Duration, Effect, Redacted, Schema } from "effect"
import { FetchHttpClient, HttpClient, HttpClientRequest } from "effect/http"
import { createHmac } from "node:crypto"
import type { AccountSession } from "../http/Session.ts"
import { RequestFailed, SynapseError } from "./SynapseError.ts"

export interface ApiRequest {
  readonly method: "GET" | "POST" | "PUT" | "DELETE"
  /** From the root, with its query: `/_matrix/...`. */
  readonly path: string
  readonly body?: unknown
  readonly accessToken?: Redacted.Redacted
}

/** Status and JSON body, whatever the status is; `json` is `undefined` when the body is no JSON. */
export interface ApiResponse {
  readonly status: number
  readonly json: unknown
}

const requestLimit = Duration.minutes(1)

const failed = (message: string, status?: number): SynapseError =>
  new SynapseError({ reason: new RequestFailed({ message, ...(status === undefined ? {} : { status }) }) })

/**
 * One request, without any retry. Fails with `RequestFailed` where no answer came within a minute; any status is an answer.
 */
export const request = Effect.fn("SynapseApi.request")(
  function* (baseUrl: string, { method, path, body, accessToken }: ApiRequest) {
    const client = yield* HttpClient.HttpClient
    let outgoing = HttpClientRequest.make(method)(baseUrl + path)
    if (body !== undefined) outgoing = HttpClientRequest.bodyJsonUnsafe(outgoing, body)
    if (accessToken !== undefined) outgoing = HttpClientRequest.bearerToken(outgoing, accessToken)
    const answer = Effect.gen(function* () {
      const response = yield* client.execute(outgoing)
      const json = yield* Effect.orElseSucceed(response.json, () => undefined)
      return { status: response.status, json } satisfies ApiResponse
    })
    return yield* answer.pipe(
      Effect.timeout(requestLimit),
      Effect.mapError((error) => failed(`${method} ${path}: ${error.message}`))
    )
  },
  (effect) => Effect.provide(effect, FetchHttpClient.layer)
)

const decode = <S extends Schema.Top & { readonly DecodingServices: never }>(
  schema: S,
  what: string,
  { status, json }: ApiResponse
): Effect.Effect<S["Type"], SynapseError> =>
  Schema.decodeUnknownEffect(schema)(json).pipe(
    Effect.mapError(() => failed(`${what}: ${status} ${JSON.stringify(json)}`, status))
  )

const Nonce = Schema.Struct({ nonce: Schema.String })

const Registered = Schema.Struct({
  user_id: Schema.String,
  access_token: Schema.String,
  device_id: Schema.String
})

export interface Registration {
  /** Local part of the user id. */
  readonly username: string
  /** Default: the username. */
  readonly password?: string
  readonly admin?: boolean
}

const registerPath = "/_synapse/admin/v1/register"

/** Makes an account by the shared secret, with a first device. Fails with `RequestFailed`, also when the name is taken. */
export const register = Effect.fn("SynapseApi.register")(function* (
  baseUrl: string,
  secret: string,
  { username, password = username, admin = false }: Registration
) {
  const { nonce } = yield* Effect.flatMap(request(baseUrl, { method: "GET", path: registerPath }), (response) =>
    decode(Nonce, "registration", response)
  )
  const mac = createHmac("sha1", secret)
    .update([nonce, username, password, admin ? "admin" : "notadmin"].join("\0"))
    .digest("hex")
  const body = { nonce, username, password, admin, mac }
  const answer = yield* request(baseUrl, { method: "POST", path: registerPath, body })
  const user = yield* decode(Registered, `registration of ${username}`, answer)
  return {
    homeserver: baseUrl,
    userId: user.user_id,
    deviceId: user.device_id,
    accessToken: Redacted.make(user.access_token, { label: "access token" })
  } satisfies AccountSession
})

/**
 * Makes the homeserver forget the position of one sliding-sync connection: a request without `pos` replaces the connection,
 * so the next one with the old `pos` is answered by `M_UNKNOWN_POS`. It must name a list, since a connection without one
 * records nothing.
 */
export const expirePosition = Effect.fn("SynapseApi.expirePosition")(function* (
  baseUrl: string,
  session: Pick<AccountSession, "accessToken">,
  connId: string
) {
  const list = { ranges: [[0, 0]], required_state: [["m.room.create", ""]], timeline_limit: 1 }
  const answer = yield* request(baseUrl, {
    method: "POST",
    path: "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync",
    body: { conn_id: connId, lists: { expire: list } },
    accessToken: session.accessToken
  })
  if (answer.status !== 200) return yield* failed(`expiring ${connId}: ${JSON.stringify(answer.json)}`, answer.status)
})
