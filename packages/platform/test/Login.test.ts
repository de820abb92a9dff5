import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import { TestClock } from "effect/testing"
import * as Login from "../src/http/Login.ts"
import * as NodeHomeserver from "../src/http/NodeHomeserver.ts"
import { RefreshLock } from "../src/http/RefreshLock.ts"
import * as SessionStore from "../src/http/SessionStore.ts"
import { json, scriptedServer, type ScriptedServer, sessionAt, text, versionsPath } from "./HttpHomeserver.fixture.ts"

const loginPath = "/_matrix/client/v3/login"
const logoutPath = "/_matrix/client/v3/logout"
const whoamiPath = "/_matrix/client/v3/account/whoami"
const refreshPath = "/_matrix/client/v3/refresh"

const unknownToken = json(401, { errcode: "M_UNKNOWN_TOKEN", error: "?" })

const homeserver = Effect.gen(function* () {
  const server = yield* scriptedServer
  server.on(`GET ${loginPath}`, json(200, { flows: [{ type: "m.login.password" }, { type: "m.login.token" }] }))
  server.on(
    `POST ${loginPath}`,
    json(200, {
      user_id: "@alice:test",
      device_id: "DEVICE",
      access_token: "a1",
      refresh_token: "r1",
      expires_in_ms: 300_000
    })
  )
  server.on(
    `GET ${versionsPath}`,
    json(200, { versions: [], unstable_features: { "org.matrix.simplified_msc3575": true } })
  )
  server.on(`POST ${logoutPath}`, json(200, {}))
  server.on(`GET ${whoamiPath}`, json(200, { user_id: "@alice:test", device_id: "DEVICE" }))
  return server
})

const password = Redacted.make("hunter2")

const byPassword = (server: ScriptedServer, more: Partial<Login.DeviceOptions> = {}) =>
  Login.byPassword({ homeserver: `${server.url}/`, user: "alice", password, ...more })

const client = NodeHomeserver.layerTransport

const reasonOf = <A, R>(effect: Effect.Effect<A, Login.LoginError, R>) =>
  Effect.map(Effect.flip(effect), ({ reason }) => reason)

describe("Login", () => {
  it.effect("by password gives a session, with a refresh token and the end of the access token by the Clock", () =>
    Effect.gen(function* () {
      const server = yield* homeserver
      yield* TestClock.setTime(1_000)
      const session = yield* byPassword(server, { deviceName: "test" })
      assert.strictEqual(session.homeserver, server.url)
      assert.strictEqual(session.userId, "@alice:test")
      assert.strictEqual(session.deviceId, "DEVICE")
      assert.strictEqual(Redacted.value(session.accessToken), "a1")
      assert.strictEqual(session.refreshToken && Redacted.value(session.refreshToken), "r1")
      assert.strictEqual(session.expiresAtMillis, 301_000)
      const sent = server.requests.find(({ method }) => method === "POST")
      assert.deepStrictEqual(sent?.body, {
        type: "m.login.password",
        refresh_token: true,
        initial_device_display_name: "test",
        identifier: { type: "m.id.user", user: "alice" },
        password: "hunter2"
      })
    }).pipe(Effect.provide(client))
  )

  it.live("by password keeps the device that it is given", () =>
    Effect.gen(function* () {
      const server = yield* homeserver
      yield* byPassword(server, { deviceId: "DEVICE" })
      const sent = server.requests.find(({ method }) => method === "POST")
      assert.propertyVal(sent?.body, "device_id", "DEVICE")
    }).pipe(Effect.provide(client))
  )

  it.live("by login token", () =>
    Effect.gen(function* () {
      const server = yield* homeserver
      yield* Login.byToken({ homeserver: server.url, loginToken: Redacted.make("t1") })
      const sent = server.requests.find(({ method }) => method === "POST")
      assert.deepStrictEqual(sent?.body, { type: "m.login.token", refresh_token: true, token: "t1" })
    }).pipe(Effect.provide(client))
  )

  it.live("with a wrong password says so, and doesn't repeat it", () =>
    Effect.gen(function* () {
      const server = yield* homeserver
      const wrong = Redacted.make("correcthorse")
      server.on(`POST ${loginPath}`, json(403, { errcode: "M_FORBIDDEN", error: "Invalid password correcthorse" }))
      const reason = yield* reasonOf(Login.byPassword({ homeserver: server.url, user: "alice", password: wrong }))
      assert.strictEqual(reason._tag, "WrongCredentials")
      assert.include(reason.message, "Invalid password <redacted>")
      assert.include(reason.message, "Check the name and the password.")
    }).pipe(Effect.provide(client))
  )

  it.live("quotes nothing when the secret is short enough to be a part of what is said", () =>
    Effect.gen(function* () {
      const server = yield* homeserver
      server.on(`POST ${loginPath}`, json(403, { errcode: "M_FORBIDDEN", error: "Is the user's name right?" }))
      for (const short of ["s", "M", "hunter2"]) {
        const password = Redacted.make(short)
        const reason = yield* reasonOf(Login.byPassword({ homeserver: server.url, user: "alice", password }))
        assert.strictEqual(reason._tag, "WrongCredentials")
        assert.include(reason.message, "was answered with 403 M_FORBIDDEN. Check")
        assert.notInclude(reason.message, "redacted")
      }
    }).pipe(Effect.provide(client))
  )

  it.live("of a kind that the homeserver doesn't offer names those that it does, and sends no secret", () =>
    Effect.gen(function* () {
      const server = yield* homeserver
      server.on(`GET ${loginPath}`, json(200, { flows: [{ type: "m.login.sso" }] }))
      const reason = yield* reasonOf(byPassword(server))
      assert(reason._tag === "UnsupportedFlow")
      assert.deepStrictEqual(reason.offered, ["m.login.sso"])
      assert.include(reason.message, "m.login.sso")
      assert.strictEqual(server.requests.length, 1)
    }).pipe(Effect.provide(client))
  )

  it.live("at an address where nothing listens is Unreachable", () =>
    Effect.gen(function* () {
      const url = yield* Effect.scoped(Effect.map(scriptedServer, (server) => server.url))
      const reason = yield* reasonOf(Login.byPassword({ homeserver: url, user: "alice", password }))
      assert.strictEqual(reason._tag, "Unreachable")
      assert.include(reason.message, "Nothing listens there")
    }).pipe(Effect.provide(client))
  )

  it.live("at something that is no homeserver says so", () =>
    Effect.gen(function* () {
      const server = yield* scriptedServer
      server.on(`GET ${loginPath}`, text(200, "text/html", "<html>"))
      const reason = yield* reasonOf(byPassword(server))
      assert(reason._tag === "LoginRefused")
      assert.strictEqual(reason.reason._tag, "BadResponse")
      assert.include(reason.message, "HTML")
    }).pipe(Effect.provide(client))
  )

  it.live("at an address that is none says so", () =>
    Effect.gen(function* () {
      const reason = yield* reasonOf(Login.byPassword({ homeserver: "hs.test", user: "alice", password }))
      assert.strictEqual(reason._tag, "InvalidHomeserverUrl")
    }).pipe(Effect.provide(client))
  )

  it.live("that is limited says when to try again", () =>
    Effect.gen(function* () {
      const server = yield* homeserver
      server.on(`POST ${loginPath}`, json(429, { errcode: "M_LIMIT_EXCEEDED" }, { "retry-after": "2" }))
      const reason = yield* reasonOf(byPassword(server))
      assert(reason._tag === "LoginRefused")
      assert.include(reason.message, "2000 ms")
    }).pipe(Effect.provide(client))
  )

  describe("to a homeserver without sliding sync", () => {
    const without = Effect.tap(homeserver, (server) =>
      Effect.sync(() => server.on(`GET ${versionsPath}`, json(200, { versions: ["v1.11"] })))
    )

    it.live("is undone, so that no dead device stays", () =>
      Effect.gen(function* () {
        const server = yield* without
        const reason = yield* reasonOf(byPassword(server))
        assert.strictEqual(reason._tag, "NoSlidingSync")
        assert.strictEqual(server.asked(versionsPath)[0]?.authorization, "Bearer a1")
        assert.strictEqual(server.asked(logoutPath)[0]?.authorization, "Bearer a1")
      }).pipe(Effect.provide(client))
    )

    it.live("leaves a device alone that was there before", () =>
      Effect.gen(function* () {
        const server = yield* without
        yield* reasonOf(byPassword(server, { deviceId: "DEVICE" }))
        assert.strictEqual(server.asked(logoutPath).length, 0)
      }).pipe(Effect.provide(client))
    )
  })

  describe("with an access token", () => {
    const use = (server: ScriptedServer) =>
      Login.useAccessToken({ homeserver: server.url, accessToken: Redacted.make("a9") })

    it.live("asks whose it is", () =>
      Effect.gen(function* () {
        const server = yield* homeserver
        const session = yield* use(server)
        assert.strictEqual(session.deviceId, "DEVICE")
        assert.notProperty(session, "refreshToken")
        assert.strictEqual(server.asked(whoamiPath)[0]?.authorization, "Bearer a9")
      }).pipe(Effect.provide(client))
    )

    it.live("that isn't valid, or is no device's, is WrongCredentials", () =>
      Effect.gen(function* () {
        const server = yield* homeserver
        server.on(`GET ${whoamiPath}`, unknownToken, json(200, { user_id: "@bot:test" }))
        assert.strictEqual((yield* reasonOf(use(server)))._tag, "WrongCredentials")
        const reason = yield* reasonOf(use(server))
        assert.strictEqual(reason._tag, "WrongCredentials")
        assert.include(reason.message, "no device")
      }).pipe(Effect.provide(client))
    )
  })

  describe("that is stored", () => {
    const stored = Effect.fnUntraced(function* (server: ScriptedServer) {
      const store = yield* SessionStore.makeMemory(sessionAt(server, { refreshToken: Redacted.make("r0") }))
      const services = [
        Layer.succeed(SessionStore.SessionStore, store),
        RefreshLock.layerSingleProcess,
        client
      ] as const
      return { store, services: Layer.mergeAll(...services) }
    })

    /** Refuses the stored token once, and gives another one for its refresh token. */
    const ended = (server: ScriptedServer, route: string, body: unknown) => {
      server.on(route, unknownToken, json(200, body))
      server.on(`POST ${refreshPath}`, json(200, { access_token: "a2", refresh_token: "r2" }))
    }

    it.live("is named by whoami, with an ended token renewed", () =>
      Effect.gen(function* () {
        const server = yield* homeserver
        const { services } = yield* stored(server)
        ended(server, `GET ${whoamiPath}`, { user_id: "@alice:test", device_id: "DEVICE" })
        const who = yield* Effect.provide(Login.whoami, services)
        assert.deepStrictEqual(who, { userId: "@alice:test", deviceId: "DEVICE" })
      })
    )

    it.live("ends at the homeserver and in the store, with an ended token renewed", () =>
      Effect.gen(function* () {
        const server = yield* homeserver
        const { services, store } = yield* stored(server)
        ended(server, `POST ${logoutPath}`, {})
        yield* Effect.provide(Login.logout, services)
        assert.strictEqual(server.asked(logoutPath)[1]?.authorization, "Bearer a2")
        assert.isUndefined(yield* store.load)
        const again = yield* Effect.flip(Effect.provide(Login.logout, services))
        assert.strictEqual(again._tag, "NotLoggedIn")
      })
    )

    it.live("counts as ended when the homeserver has ended it already", () =>
      Effect.gen(function* () {
        const server = yield* homeserver
        const { services, store } = yield* stored(server)
        server.on(`POST ${logoutPath}`, unknownToken)
        server.on(`POST ${refreshPath}`, unknownToken)
        yield* Effect.provide(Login.logout, services)
        assert.isUndefined(yield* store.load)
      })
    )

    it.live("stays stored when the homeserver can't be asked", () =>
      Effect.gen(function* () {
        const server = yield* homeserver
        const { services, store } = yield* stored(server)
        server.on(`POST ${logoutPath}`, json(503, {}))
        const error = yield* Effect.flip(Effect.provide(Login.logout, services))
        assert.strictEqual(error._tag, "LoginError")
        assert.isDefined(yield* store.load)
      })
    )
  })
})
