/**
 * The dev homeserver over HTTP as the conformance suites of the test kit want it: users with our own HTTP client each, and plain
 * requests as anybody.
 *
 * Not here: the suites themselves (`@twinloop/core/testing`), a real Synapse (`test/synapse/Users.ts`).
 */
import { Homeserver } from "@twinloop/core"
import type { ConformanceHarness, EncryptionHarness, PushHarness } from "@twinloop/core/testing"
import { Context, Effect, Layer, Redacted } from "effect"
import type { Scope } from "effect"
import { NodeHomeserver, RefreshLock, SessionStore } from "../src/http/index.ts"
import { newKey } from "./SigningKeys.ts"
import { testGateway } from "./TestGateway.ts"

export type Client = Homeserver.Homeserver["Service"]
export type Json = { readonly [key: string]: unknown }

/** Where a dev homeserver listens. */
export interface Place {
  readonly baseUrl: string
}

export const v3 = "/_matrix/client/v3"

export interface Answer {
  readonly status: number
  readonly json: Json
}

export interface Ask {
  readonly method?: string
  /** An object is sent as JSON, a text as it is. */
  readonly body?: Json | string
  readonly token?: string | undefined
  readonly origin?: string
}

/** A plain request; any status is an answer. */
export const ask = (
  { baseUrl }: Place,
  path: string,
  { method, body, token, origin }: Ask = {}
): Effect.Effect<Answer> =>
  Effect.promise(async (signal) => {
    const response = await fetch(baseUrl + path, {
      method: method ?? (body === undefined ? "GET" : "POST"),
      headers: {
        ...(token && { authorization: `Bearer ${token}` }),
        ...(origin && { origin }),
        ...(body !== undefined && { "content-type": "application/json" })
      },
      signal,
      ...(body !== undefined && { body: typeof body === "string" ? body : JSON.stringify(body) })
    })
    return { status: response.status, json: (await response.json()) as Json }
  })

/** A login, as the homeserver tells it. */
export interface Account {
  readonly user_id: string
  readonly device_id: string
  readonly access_token: string
}

export const addUser = (place: Place, username: string): Effect.Effect<Account> =>
  Effect.map(ask(place, "/_twinloop/users", { body: { username } }), ({ json }) => json as unknown as Account)

/** The HTTP adapter for an account, as an application has it. */
export const clientOf = ({ baseUrl }: Place, account: Account): Effect.Effect<Client, unknown, Scope.Scope> => {
  const session = {
    homeserver: baseUrl,
    userId: account.user_id,
    deviceId: account.device_id,
    accessToken: Redacted.make(account.access_token)
  }
  const stored = Layer.merge(SessionStore.layerMemory(session), RefreshLock.layerSingleProcess)
  return Effect.map(Layer.build(Layer.provide(NodeHomeserver.layer, stored)), (context) =>
    Context.get(context, Homeserver.Homeserver)
  )
}

/** The password of a client's user, which is his name. */
const passwordOf = ({ session }: Client): string => session.userId.slice(1).split(":")[0] ?? ""

/** Clients of a homeserver, and what each of them is logged in by. */
const clients = (place: Place) => {
  const tokens = new Map<Client, string>()
  const clientFor = (account: Account) =>
    Effect.tap(clientOf(place, account), (client) => Effect.sync(() => tokens.set(client, account.access_token)))
  return {
    tokens,
    newUser: (username: string) => Effect.flatMap(addUser(place, username), clientFor),
    logIn: (as: Client) => {
      const identifier = { type: "m.id.user", user: as.session.userId }
      const body = { type: "m.login.password", identifier, password: passwordOf(as) }
      return Effect.flatMap(ask(place, `${v3}/login`, { body }), ({ json }) => clientFor(json as unknown as Account))
    }
  }
}

/** For `syncConformance`. */
export const syncHarness = (place: Place): Effect.Effect<ConformanceHarness, unknown, Scope.Scope> =>
  Effect.gen(function* () {
    const { newUser, tokens } = clients(place)
    const alice = yield* newUser("alice")
    const { deviceId: device_id, userId: user_id } = alice.session
    return {
      alice,
      bob: yield* newUser("bob"),
      stranger: yield* clientOf(place, { user_id, device_id, access_token: "made up" }),
      createRoom: (by, body) =>
        Effect.map(ask(place, `${v3}/createRoom`, { body, token: tokens.get(by) }), ({ json }) => String(json.room_id)),
      joinRoom: (by, roomId) =>
        Effect.asVoid(ask(place, `${v3}/join/${encodeURIComponent(roomId)}`, { body: {}, token: tokens.get(by) }))
    }
  })

/** For `encryptionConformance`. */
export const encryptionHarness = (place: Place): Effect.Effect<EncryptionHarness, unknown, Scope.Scope> =>
  Effect.gen(function* () {
    const { logIn, newUser, tokens } = clients(place)
    return {
      alice: yield* newUser("alice"),
      bob: yield* newUser("bob"),
      passwordOf,
      logIn,
      request: (by, { path, ...rest }) => ask(place, v3 + path, { ...rest, token: tokens.get(by) }),
      newKey
    }
  })

/** For `pushConformance`, with a gateway. */
export const pushHarness = (place: Place): Effect.Effect<PushHarness, unknown, Scope.Scope> =>
  Effect.gen(function* () {
    const { logIn, newUser, tokens } = clients(place)
    return {
      alice: yield* newUser("alice"),
      bob: yield* newUser("bob"),
      gateway: yield* testGateway,
      logIn,
      request: (by, { path, ...rest }) => ask(place, `/_matrix/client${path}`, { ...rest, token: tokens.get(by) })
    }
  })
