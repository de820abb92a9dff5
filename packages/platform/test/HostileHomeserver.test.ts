/** What a homeserver, or a proxy in front of it, can say to break a client that believes it. */
import { assert, describe, it } from "@effect/vitest"
import { Homeserver, HomeserverError } from "@twinloop/core"
import { Effect, Layer, Redacted } from "effect"
import * as Login from "../src/http/Login.ts"
import * as MatrixError from "../src/http/MatrixError.ts"
import * as MatrixHttp from "../src/http/MatrixHttp.ts"
import * as NodeHomeserver from "../src/http/NodeHomeserver.ts"
import { RefreshLock } from "../src/http/RefreshLock.ts"
import { tokensOf } from "../src/http/Session.ts"
import { SessionStore } from "../src/http/SessionStore.ts"
import * as SqliteSessionStore from "../src/http/SqliteSessionStore.ts"
import {
  type Answer,
  clientOf,
  json,
  scriptedServer,
  type ScriptedServer,
  sessionAt,
  syncRequest,
  text,
  withUnstable
} from "./HttpHomeserver.fixture.ts"
import { temporaryStores } from "./SqliteKit.ts"

const refreshPath = "/_matrix/client/v3/refresh"
const ended = json(401, { errcode: "M_UNKNOWN_TOKEN", error: "Access token has expired" })

const reasonOfSync = (server: ScriptedServer, session = sessionAt(server)) =>
  Effect.flatMap(Homeserver.Homeserver, (homeserver) => homeserver.sync(syncRequest())).pipe(
    Effect.flip,
    Effect.map(({ reason }) => reason),
    Effect.provide(clientOf(session))
  )

describe("A hostile Retry-After", () => {
  it.live("I7: that is no number of any clock is a rate limit like another", () =>
    Effect.gen(function* () {
      const server = yield* scriptedServer
      withUnstable(server, json(429, { errcode: "M_LIMIT_EXCEEDED" }, { "retry-after": "9".repeat(400) }))
      const reason = yield* reasonOfSync(server)
      assert.strictEqual(reason._tag, "RateLimited")
    })
  )

  it("is a whole number of milliseconds that a clock can count", () => {
    const wait = MatrixError.retryAfterMillis({
      headers: { "retry-after": "9".repeat(400) },
      json: undefined,
      nowMillis: 0
    })
    assert.strictEqual(wait, Number.MAX_SAFE_INTEGER)
  })
})

describe("A hostile answer to a refresh", () => {
  const refused: ReadonlyArray<readonly [name: string, answer: Answer, lost: boolean]> = [
    ["a proxy's 403", text(403, "text/html", "<h1>Forbidden</h1>"), false],
    ["a locked account", json(403, { errcode: "M_USER_LOCKED" }), false],
    ["a homeserver at its limit", json(403, { errcode: "M_RESOURCE_LIMIT_EXCEEDED" }), false],
    ["a refused refresh token", json(403, { errcode: "M_FORBIDDEN" }), true],
    ["an unknown refresh token", json(401, { errcode: "M_UNKNOWN_TOKEN" }), true]
  ]
  for (const [name, answer, lost] of refused) {
    it.live(`I9: ${name} is ${lost ? "a lost login" : "no lost login"}`, () =>
      Effect.gen(function* () {
        const server = yield* scriptedServer
        withUnstable(server, ended)
        server.on(`POST ${refreshPath}`, answer)
        const reason = yield* reasonOfSync(server, sessionAt(server, { refreshToken: Redacted.make("r0") }))
        assert.strictEqual(reason._tag === "Unauthorized", lost, reason.message)
      })
    )
  }

  it.live("I9: tokens with an end that no database can hold are stored, and used", () =>
    Effect.gen(function* () {
      for (const expires_in_ms of [3_600_000.5, 1e17, 1e308, -1e308]) {
        const server = yield* scriptedServer
        withUnstable(server, ended, json(200, { pos: "1/s" }))
        server.on(`POST ${refreshPath}`, json(200, { access_token: "a1", refresh_token: "r1", expires_in_ms }))
        const stored = yield* Effect.gen(function* () {
          const store = yield* SessionStore
          yield* store.save(sessionAt(server, { refreshToken: Redacted.make("r0") }), undefined)
          const client = Layer.provide(NodeHomeserver.layer, [
            Layer.succeed(SessionStore, store),
            RefreshLock.layerSingleProcess
          ])
          yield* Effect.provide(
            Effect.flatMap(Homeserver.Homeserver, (homeserver) => homeserver.sync(syncRequest())),
            client
          )
          return yield* store.load
        }).pipe(Effect.provide(Layer.fresh(Layer.provide(SqliteSessionStore.layer, temporaryStores))))
        assert.strictEqual(stored && Redacted.value(stored.session.accessToken), "a1")
      }
    }).pipe(Effect.scoped)
  )

  it("I10: a token's life is between nothing and a year", () => {
    const endOf = (expires_in_ms: number) => tokensOf({ access_token: "a", expires_in_ms }, 1_000).expiresAtMillis
    assert.strictEqual(endOf(-1), 1_000)
    assert.strictEqual(endOf(5.9), 1_005)
    assert.strictEqual(endOf(1e308), 1_000 + 365 * 24 * 3_600_000)
  })
})

describe("A hostile identifier", () => {
  const call = (use: (homeserver: Homeserver.Homeserver["Service"]) => Effect.Effect<unknown, unknown>) =>
    Effect.gen(function* () {
      const server = yield* scriptedServer
      const error = yield* Effect.flatMap(Homeserver.Homeserver, use).pipe(
        Effect.flip,
        Effect.provide(clientOf(sessionAt(server)))
      )
      assert(error instanceof HomeserverError.HomeserverError)
      return { server, reason: error.reason }
    })

  it.live("that is a direction in a path goes nowhere", () =>
    Effect.gen(function* () {
      for (const id of [".", ".."]) {
        const context = yield* call((homeserver) => homeserver.eventContext("!room:test", id))
        assert.strictEqual(context.reason._tag, "BadRequest")
        const sent = yield* call((homeserver) =>
          homeserver.sendEvent({ roomId: id, type: "m.room.message", txnId: "t", content: {} })
        )
        assert.strictEqual(sent.reason._tag, "BadRequest")
        const members = yield* call((homeserver) => homeserver.members(id))
        assert.strictEqual(members.reason._tag, "BadRequest")
        const state = yield* call((homeserver) =>
          homeserver.sendState({ roomId: "!room:test", type: "m.x", stateKey: id, content: {} })
        )
        assert.strictEqual(state.reason._tag, "BadRequest")
        const servers = [context.server, sent.server, members.server, state.server]
        assert.deepStrictEqual(
          servers.flatMap(({ requests }) => requests),
          []
        )
      }
    })
  )

  it.live("I7: that is no text at all is unknown to the homeserver, and no defect", () =>
    Effect.gen(function* () {
      const { reason, server } = yield* call((homeserver) => homeserver.eventContext("!a\ud800b:test", "$e"))
      assert.strictEqual(reason._tag, "Unsupported")
      assert.deepStrictEqual(
        server.requests.map(({ path }) => path),
        ["/_matrix/client/v3/rooms/!a\ufffdb:test/context/$e"]
      )
    })
  )

  it("that has every reserved character stays one segment", () => {
    const url = new URL(MatrixHttp.pathOf("v3", "!r/../a?b#c%2f\r\n\0", "x"), "https://hs.test")
    assert.strictEqual(url.pathname.split("/").length, 6)
    assert.strictEqual(url.search + url.hash, "")
  })
})

describe("A hostile echo", () => {
  it.live("of a password that JSON spells otherwise is in no message", () =>
    Effect.gen(function* () {
      const server = yield* scriptedServer
      const password = 'p"\u00e9\\w\u00f6rd'
      const spelled = JSON.stringify(`no: ${password}`).replace(
        /[^ -~]/g,
        (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`
      )
      server.on("GET /_matrix/client/v3/login", json(200, { flows: [{ type: "m.login.password" }] }))
      server.on(
        "POST /_matrix/client/v3/login",
        text(400, "application/json", `{"errcode":"M_UNKNOWN","error":${spelled}}`)
      )
      const error = yield* Effect.flip(
        Login.byPassword({ homeserver: server.url, user: "alice", password: Redacted.make(password) })
      )
      assert.include(error.message, "<redacted>")
      assert.notInclude(error.message, password)
    }).pipe(Effect.provide(NodeHomeserver.layerTransport))
  )
})
