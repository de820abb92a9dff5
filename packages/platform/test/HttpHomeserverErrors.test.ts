import { assert, describe, it } from "@effect/vitest"
import { Homeserver, HomeserverError } from "@twinloop/core"
import { Effect, Logger, Redacted, Result, Schema } from "effect"
import * as fc from "fast-check"
import { inspect } from "node:util"
import * as HomeserverUrl from "../src/http/HomeserverUrl.ts"
import * as MatrixError from "../src/http/MatrixError.ts"
import {
  accessToken,
  type Answer,
  clientOf,
  json,
  refreshToken,
  scriptedServer,
  type ScriptedServer,
  sessionAt,
  syncRequest,
  withUnstable
} from "./HttpHomeserver.fixture.ts"

const refusal = (status: number, body: unknown, more: Partial<MatrixError.Refusal> = {}): MatrixError.Refusal => ({
  status,
  headers: {},
  json: body,
  posSent: false,
  request: "POST /sync at https://hs.test",
  nowMillis: 1_000,
  ...more
})

describe("MatrixError", () => {
  type Tag = HomeserverError.HomeserverErrorReason["_tag"]
  const table: ReadonlyArray<readonly [status: number, body: unknown, tag: Tag]> = [
    [302, undefined, "BadResponse"],
    [400, { errcode: "M_UNRECOGNIZED" }, "Unsupported"],
    [400, { errcode: "M_RESOURCE_LIMIT_EXCEEDED" }, "Forbidden"],
    [401, { errcode: "M_MISSING_TOKEN" }, "Unauthorized"],
    [401, { errcode: "M_USER_LOCKED", soft_logout: true }, "Forbidden"],
    [401, undefined, "BadRequest"],
    [401, { flows: [], session: "s" }, "UserInteractiveAuth"],
    [401, { flows: [], errcode: "M_FORBIDDEN" }, "UserInteractiveAuth"],
    [401, { flows: [], errcode: "M_UNKNOWN_TOKEN" }, "Unauthorized"],
    [401, { flows: "m.login.password", session: "s" }, "BadRequest"],
    [403, { flows: [], session: "s" }, "Forbidden"],
    [403, { errcode: "M_CONSENT_NOT_GIVEN" }, "Forbidden"],
    [403, undefined, "Forbidden"],
    [404, { errcode: "M_UNRECOGNIZED" }, "Unsupported"],
    [404, undefined, "BadRequest"],
    [405, { errcode: "M_UNRECOGNIZED" }, "Unsupported"],
    [405, undefined, "BadRequest"],
    [408, undefined, "NetworkError"],
    [413, { errcode: "M_TOO_LARGE" }, "BadRequest"],
    [429, undefined, "RateLimited"],
    [503, { errcode: "M_LIMIT_EXCEEDED" }, "RateLimited"],
    [500, { errcode: 5, error: [] }, "ServerError"],
    [524, "a timeout of a proxy", "ServerError"]
  ]
  for (const [status, body, tag] of table) {
    it(`takes ${status} with ${JSON.stringify(body) ?? "no JSON"} for ${tag}`, () => {
      assert.strictEqual(MatrixError.reasonOf(refusal(status, body))._tag, tag)
    })
  }

  it("tells a soft logout from one that ends the device", () => {
    const soft = MatrixError.reasonOf(refusal(401, { errcode: "M_UNKNOWN_TOKEN", soft_logout: true }))
    const hard = MatrixError.reasonOf(refusal(401, { errcode: "M_UNKNOWN_TOKEN" }))
    assert(soft._tag === "Unauthorized" && hard._tag === "Unauthorized")
    assert.isTrue(soft.softLogout)
    assert.isFalse(hard.softLogout)
  })

  it("waits as long as Retry-After says, in seconds or until a date, else as retry_after_ms says", () => {
    const wait = (headers: MatrixError.Refusal["headers"], body: unknown) =>
      MatrixError.retryAfterMillis({ headers, json: body, nowMillis: Date.UTC(2026, 0, 1) })
    assert.strictEqual(wait({ "retry-after": "3" }, { retry_after_ms: 9 }), 3_000)
    assert.strictEqual(wait({ "retry-after": "Thu, 01 Jan 2026 00:00:05 GMT" }, {}), 5_000)
    const dated = { "retry-after": "Thu, 01 Jan 2026 10:00:05 GMT", date: "Thu, 01 Jan 2026 10:00:01 GMT" }
    assert.strictEqual(wait(dated, {}), 4_000)
    assert.strictEqual(wait({ "retry-after": "Wed, 31 Dec 2025 00:00:00 GMT" }, {}), 0)
    assert.strictEqual(wait({ "retry-after": "soon" }, { retry_after_ms: 9 }), 9)
    assert.isUndefined(wait({}, { retry_after_ms: -1 }))
  })

  it("I7: has a reason for whatever is answered, and names the request in it", () => {
    const errcode = fc.constantFrom("M_UNKNOWN_POS", "M_LIMIT_EXCEEDED", "M_UNKNOWN_TOKEN", "M_FORBIDDEN", "M_NEW")
    const body = fc.oneof(fc.jsonValue(), fc.record({ errcode, error: fc.string() }, { requiredKeys: [] }))
    fc.assert(
      fc.property(fc.integer({ min: 300, max: 599 }), body, fc.boolean(), (status, json, posSent) => {
        const reason = MatrixError.reasonOf(refusal(status, json, { posSent }))
        assert.include(reason.message, "POST /sync at https://hs.test")
        assert.include(reason.message, String(status))
        if (reason._tag === "UnknownPosition") assert.isTrue(posSent)
      })
    )
  })

  it("repeats only the beginning of a long error", () => {
    assert.isBelow(MatrixError.reasonOf(refusal(400, { error: "x".repeat(100_000) })).message.length, 500)
  })
})

describe("HomeserverUrl", () => {
  const good: ReadonlyArray<readonly [string, string]> = [
    ["https://hs.test", "https://hs.test"],
    [" https://hs.test/ ", "https://hs.test"],
    ["http://127.0.0.1:8008//", "http://127.0.0.1:8008"],
    ["https://HS.test:443/matrix/", "https://hs.test/matrix"]
  ]
  for (const [input, href] of good) {
    it(`takes "${input}" for ${href}`, () => {
      assert.strictEqual(Result.getOrThrow(HomeserverUrl.parse(input)).href, href)
    })
  }

  const bad: ReadonlyArray<readonly [string, RegExp]> = [
    ["", /scheme/],
    ["hs.test", /scheme, like https/],
    ["localhost:8008", /scheme, like https/],
    ["ftp://hs.test", /scheme, like https/],
    ["https:hs.test", /scheme, like https/],
    ["https://", /scheme, like https/],
    ["https://hs.test?x=1", /query or a fragment/],
    ["https://hs.test/#x", /query or a fragment/],
    ["https://alice:hunter2@hs.test", /user name or password/],
    ["https://alice:hunter2@hs.test:nine", /scheme, like https/],
    ["https:alice:hunter2@hs.test", /scheme, like https/],
    ["alice:hunter2@hs.test", /scheme, like https/],
    ["https://alice:hun/hunter2@hs.test", /scheme, like https/],
    ["https://hs.test/?loginToken=hunter2", /query or a fragment/],
    ["https://hs.test/#hunter2", /query or a fragment/]
  ]
  for (const [input, says] of bad) {
    it(`refuses "${input}" and says why, without repeating a password`, () => {
      const error = Result.getOrThrow(Result.flip(HomeserverUrl.parse(input)))
      assert.match(error.message, says)
      assert.notInclude(error.message, "hunter2")
    })
  }

  it.live("is checked before anything is sent", () =>
    Effect.gen(function* () {
      const session = sessionAt({ url: "hs.test" } as ScriptedServer)
      const error = yield* Effect.flip(Effect.provide(Homeserver.Homeserver, clientOf(session)))
      assert.strictEqual(error._tag, "InvalidHomeserverUrl")
    })
  )
})

describe("secrets", () => {
  const secrets = [accessToken, refreshToken, "hunter2"]
  const assertNone = (text: string) => {
    for (const secret of secrets) assert.notInclude(text, secret)
  }

  /** A homeserver that repeats what it was sent in its errors, which no good one does. */
  const echo =
    (status: number, errcode: string): Answer =>
    (response, received) =>
      json(status, { errcode, error: `you sent ${received.authorization} ${JSON.stringify(received.body)}` })(
        response,
        received
      )

  const faults: ReadonlyArray<readonly [name: string, answer: Answer]> = [
    ["an error that repeats them", echo(400, "M_UNKNOWN")],
    ["a refused token", echo(401, "M_UNKNOWN_TOKEN")],
    ["a reset connection", (response) => response.destroy()],
    ["a body that is cut off", (response) => response.writeHead(200, { "content-length": "9" }).destroy()]
  ]
  for (const [name, answer] of faults) {
    it.live(`are in no message, log line, JSON or inspection of ${name}`, () =>
      Effect.gen(function* () {
        const server = yield* scriptedServer
        withUnstable(server, answer)
        server.on("POST /_matrix/client/v3/refresh", echo(403, "M_FORBIDDEN"))
        const session = sessionAt(server, { refreshToken: Redacted.make(refreshToken) })
        const lines: Array<string> = []
        const logger = Logger.make(({ message, cause }) => lines.push(inspect([message, cause], { depth: 20 })))
        const error = yield* Effect.flatMap(Homeserver.Homeserver, (hs) => hs.sync(syncRequest())).pipe(
          Effect.tapCause((cause) => Effect.logError(session, cause)),
          Effect.flip,
          Effect.provide([clientOf(session), Logger.layer([logger])])
        )
        assert.strictEqual(lines.length, 1)
        assertNone(lines.join())
        assertNone(error.message)
        assertNone(JSON.stringify(error))
        assertNone(inspect(error, { depth: 20, showHidden: true }))
        assertNone(JSON.stringify(yield* Schema.encodeUnknownEffect(HomeserverError.HomeserverError)(error)))
        assertNone(JSON.stringify(session))
      })
    )
  }
})
