import { assert, describe, it } from "@effect/vitest"
import { Homeserver } from "@twinloop/core"
import type { HomeserverError } from "@twinloop/core"
import { Effect, Fiber, Layer } from "effect"
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import * as HttpHomeserver from "../src/http/HttpHomeserver.ts"
import { HttpSockets } from "../src/http/HttpSockets.ts"
import * as HttpTransport from "../src/http/HttpTransport.ts"
import { RefreshLock } from "../src/http/RefreshLock.ts"
import * as SessionStore from "../src/http/SessionStore.ts"
import {
  accessToken,
  type Answer,
  clientOf,
  hang,
  json,
  scriptedServer,
  type ScriptedServer,
  sessionAt,
  syncRequest,
  text,
  unstablePath,
  v4Path,
  versionsPath,
  withUnstable
} from "./HttpHomeserver.fixture.ts"

const ok = json(200, { pos: "1/s", rooms: {}, extensions: {} })

const sync = (request = syncRequest()) =>
  Effect.flatMap(Homeserver.Homeserver, (homeserver) => homeserver.sync(request))

const reasonOf = <A, R>(
  effect: Effect.Effect<A, HomeserverError.HomeserverError, R>
): Effect.Effect<HomeserverError.HomeserverErrorReason, A, R> => Effect.map(Effect.flip(effect), ({ reason }) => reason)

/** Runs a call against a server with sliding sync that gives these answers to it, one after the other. */
const answered = <A, E>(
  answers: ReadonlyArray<Answer>,
  use: (server: ScriptedServer) => Effect.Effect<A, E, Homeserver.Homeserver>,
  config: Parameters<typeof clientOf>[1] = {}
) =>
  Effect.gen(function* () {
    const server = yield* scriptedServer
    withUnstable(server, ...answers)
    return yield* Effect.provide(use(server), clientOf(sessionAt(server), config))
  })

describe("HttpHomeserver", () => {
  describe("the spelling", () => {
    it.live("is the unstable one where that is there, and nobody asks /versions", () =>
      answered([ok], (server) =>
        Effect.gen(function* () {
          const response = yield* sync(syncRequest({ timeoutMillis: 7 }))
          assert.strictEqual(response.pos, "1/s")
          assert.strictEqual(server.requests.length, 1)
          const [asked] = server.asked(unstablePath)
          assert.strictEqual(asked?.authorization, `Bearer ${accessToken}`)
          assert.deepStrictEqual(asked?.query, { timeout: "7" })
          assert.deepStrictEqual(asked?.body, {
            conn_id: "encryption",
            extensions: { to_device: { enabled: true, since: "5", limit: 100 }, e2ee: { enabled: true } }
          })
        })
      )
    )

    it.live("carries a position in its own way", () =>
      answered([ok], (server) =>
        Effect.gen(function* () {
          yield* sync(syncRequest({ pos: "0/s1", timeoutMillis: 7 }))
          assert.deepStrictEqual(server.asked(unstablePath)[0]?.query, { pos: "0/s1", timeout: "7" })
        })
      )
    )

    it.live("is the other one when the endpoint turns out not to be there, and stays so", () =>
      Effect.gen(function* () {
        const server = yield* scriptedServer
        withUnstable(server, json(405, { errcode: "M_UNRECOGNIZED", error: "?" }))
        server.on(`POST ${v4Path}`, ok)
        const asked = sync(syncRequest({ pos: "9" }))
        yield* Effect.provide(Effect.andThen(asked, asked), clientOf(sessionAt(server)))
        assert.strictEqual(server.asked(unstablePath).length, 1)
        assert.strictEqual(server.asked(v4Path).length, 2)
        assert.propertyVal(server.asked(v4Path)[0]?.body, "pos", "9")
      })
    )

    it.live("is the merged one where a proxy lets only that through, and has no errcode for the other", () =>
      Effect.gen(function* () {
        const server = yield* scriptedServer
        withUnstable(server, text(404, "text/html", "<html>not here</html>"))
        server.on(`POST ${v4Path}`, ok)
        const asked = sync(syncRequest())
        yield* Effect.provide(Effect.andThen(asked, asked), clientOf(sessionAt(server)))
        assert.strictEqual(server.asked(unstablePath).length, 1)
        assert.strictEqual(server.asked(v4Path).length, 2)
      })
    )

    it.live("is none where neither endpoint is there, and is looked for again after that", () =>
      answered([json(404, { errcode: "M_UNRECOGNIZED", error: "?" }), ok], (server) =>
        Effect.gen(function* () {
          const reason = yield* reasonOf(sync())
          assert.strictEqual(reason._tag, "Unsupported")
          assert.include(reason.message, "MSC4186")
          assert.strictEqual(server.requests.length, 2)
          yield* sync()
          assert.strictEqual(server.asked(unstablePath).length, 2)
        })
      )
    )
  })

  describe("a bad answer", () => {
    const html = "<!DOCTYPE html><html><body>502 Bad Gateway</body></html>"
    const cases: ReadonlyArray<
      readonly [name: string, answer: Answer, tag: HomeserverError.HomeserverErrorReason["_tag"], says: RegExp]
    > = [
      ["malformed JSON", text(200, "application/json", '{"pos": '), "BadResponse", /not JSON/],
      ["JSON that isn't an object", json(200, ["pos"]), "BadResponse", /instead of a JSON object/],
      ["an empty body", text(200, "application/json", ""), "BadResponse", /an empty body/],
      ["wrong types", json(200, { pos: 5, rooms: [] }), "BadResponse", /pos/],
      ["HTML from a proxy with 200", text(200, "text/html", html), "BadResponse", /HTML.*proxy/s],
      ["HTML from a proxy with 502", text(502, "text/html", html), "ServerError", /502/],
      ["500", json(500, { errcode: "M_UNKNOWN", error: "Internal server error" }), "ServerError", /500 M_UNKNOWN/],
      ["503", text(503, "text/plain", ""), "ServerError", /503/],
      ["401 with M_UNKNOWN_TOKEN", json(401, { errcode: "M_UNKNOWN_TOKEN", error: "?" }), "Unauthorized", /Log in/],
      ["403", json(403, { errcode: "M_FORBIDDEN", error: "no" }), "Forbidden", /no retry/i],
      ["404 with M_NOT_FOUND", json(404, { errcode: "M_NOT_FOUND", error: "?" }), "NotFound", /404/],
      ["404 from a proxy", text(404, "text/html", html), "BadRequest", /address/],
      ["429", json(429, { errcode: "M_LIMIT_EXCEEDED", retry_after_ms: 1500 }), "RateLimited", /1500 ms/],
      ["400", json(400, { errcode: "M_BAD_JSON", error: "extra" }), "BadRequest", /M_BAD_JSON \("extra"\)/]
    ]
    for (const [name, answer, tag, says] of cases) {
      it.live(`of ${name} is ${tag}`, () =>
        answered([answer], () =>
          Effect.gen(function* () {
            const error = yield* Effect.flip(sync())
            assert.strictEqual(error.reason._tag, tag)
            assert.match(error.message, says)
            assert.match(error.message, /^sync: /)
          })
        )
      )
    }

    it.live("names the request and the homeserver, so that a person knows where to look", () =>
      answered([json(500, {})], (server) =>
        Effect.gen(function* () {
          const { message } = yield* Effect.flip(sync())
          assert.include(message, `POST ${unstablePath} at ${server.url}`)
        })
      )
    )

    it.live("is none for JSON under a wrong content type", () =>
      answered([text(200, "text/plain", '{"pos":"1/s"}')], () => sync())
    )

    const clients = {
      "node:http": HttpSockets.layer,
      undici: Layer.provide(HttpTransport.layerHttpClient, NodeHttpClient.layerUndici),
      fetch: Layer.provide(HttpTransport.layerHttpClient, NodeHttpClient.layerFetch)
    }
    for (const [name, client] of Object.entries(clients)) {
      it.live(`that redirects is not followed by ${name}, so that no other place sees the token`, () =>
        Effect.gen(function* () {
          const [server, other] = [yield* scriptedServer, yield* scriptedServer]
          withUnstable(server, json(307, {}, { location: `${other.url}/elsewhere` }))
          const homeserver = HttpHomeserver.layer.pipe(
            Layer.provide([SessionStore.layerMemory(sessionAt(server)), RefreshLock.layerSingleProcess, client])
          )
          const reason = yield* Effect.provide(reasonOf(sync()), homeserver)
          assert.strictEqual(reason._tag, "BadResponse")
          assert.include(reason.message, other.url)
          assert.strictEqual(other.requests.length, 0)
        })
      )
    }
  })

  it.live("I7: an event without a sender is quarantined, and the rest of the response is used", () => {
    const good = { type: "m.room_key", sender: "@bob:test", content: { n: 1 } }
    const bad = { type: "m.room_key", content: { n: 2 } }
    const body = { pos: "2/s", extensions: { to_device: { next_batch: "7", events: [bad, good] } } }
    return answered([json(200, body)], () =>
      Effect.gen(function* () {
        const response = yield* sync()
        assert.deepStrictEqual(response.extensions.toDevice, { nextBatch: "7", events: [good] })
        assert.strictEqual(response.quarantined.length, 1)
        assert.deepStrictEqual(response.quarantined[0]?.raw, bad)
        assert.include(response.quarantined[0]?.reason, "sender")
      })
    )
  })

  describe("an expired position", () => {
    const unknownPos = json(400, { errcode: "M_UNKNOWN_POS", error: "Unknown position" })
    const invalidToken = json(400, { errcode: "M_UNKNOWN", error: "Invalid stream token" })

    it.live("is told by M_UNKNOWN_POS, and by Synapse's words for a position that it can't parse", () =>
      answered([unknownPos, invalidToken], () =>
        Effect.gen(function* () {
          assert.strictEqual((yield* reasonOf(sync(syncRequest({ pos: "1/s" }))))._tag, "UnknownPosition")
          assert.strictEqual((yield* reasonOf(sync(syncRequest({ pos: "1/s" }))))._tag, "UnknownPosition")
        })
      )
    )

    it.live("can't be the reason when no position was sent", () =>
      answered([unknownPos, invalidToken], () =>
        Effect.gen(function* () {
          assert.strictEqual((yield* reasonOf(sync()))._tag, "BadRequest")
          assert.strictEqual((yield* reasonOf(sync()))._tag, "BadRequest")
        })
      )
    )
  })

  describe("I10: size", () => {
    const event = { type: "m.dummy", sender: "@bob:test", content: { body: "x".repeat(20_000) } }
    const events = Array.from({ length: 1_000 }, () => event)
    const big = { pos: "3/s", extensions: { to_device: { next_batch: "9", events } } }

    it.live("a response of 20 MB is accepted", () =>
      answered([json(200, big)], () =>
        Effect.map(sync(), (response) => assert.strictEqual(response.extensions.toDevice?.events.length, 1_000))
      )
    )

    it.live("a response over the limit is not read to its end", () =>
      Effect.gen(function* () {
        const endless: Answer = (response) => {
          response.writeHead(200, { "content-type": "application/json" })
          const more = () => {
            while (!response.destroyed && response.write("x".repeat(65_536)));
            if (!response.destroyed) response.once("drain", more)
          }
          more()
        }
        const config = { maxResponseBytes: 1_000_000 }
        yield* answered(
          [endless],
          (server) =>
            Effect.gen(function* () {
              const reason = yield* reasonOf(sync())
              assert(reason._tag === "ResponseTooLarge")
              assert.strictEqual(reason.limitBytes, 1_000_000)
              yield* Effect.promise(() => server.asked(unstablePath)[0]!.aborted)
            }),
          config
        )
      })
    )
  })

  describe("the connection", () => {
    it.live("I4: closes when the call is interrupted", () =>
      answered([hang], (server) =>
        Effect.gen(function* () {
          const arrives = server.next(unstablePath)
          const call = yield* Effect.forkChild(sync(syncRequest({ timeoutMillis: 30_000 })))
          const received = yield* Effect.promise(() => arrives)
          yield* Fiber.interrupt(call)
          yield* Effect.promise(() => received.aborted)
        })
      )
    )

    it.live("I4: closes when the call is interrupted in the middle of the body", () => {
      const half: Answer = (response) => {
        response.writeHead(200, { "content-type": "application/json" })
        response.write('{"pos": "1/s", ')
      }
      return answered([half], (server) =>
        Effect.gen(function* () {
          const arrives = server.next(unstablePath)
          const call = yield* Effect.forkChild(sync())
          const received = yield* Effect.promise(() => arrives)
          yield* Effect.sleep("20 millis")
          yield* Fiber.interrupt(call)
          yield* Effect.promise(() => received.aborted)
        })
      )
    })

    it.live("answers the next call as if nothing was when an interrupted one is answered late", () => {
      let late: (() => void) | undefined
      const held: Answer = (response, received) => {
        late = () => json(200, { pos: "stale" })(response, received)
      }
      return answered([held, ok], (server) =>
        Effect.gen(function* () {
          const arrives = server.next(unstablePath)
          const call = yield* Effect.forkChild(sync())
          yield* Effect.promise(() => arrives)
          yield* Fiber.interrupt(call)
          late?.()
          assert.strictEqual((yield* sync()).pos, "1/s")
        })
      )
    })

    it.live("I10: is given up after the poll's time and the network's", () =>
      answered(
        [hang],
        (server) =>
          Effect.gen(function* () {
            const reason = yield* reasonOf(sync(syncRequest({ timeoutMillis: 40 })))
            assert(reason._tag === "NetworkError")
            assert.isTrue(reason.timedOut)
            assert.include(reason.message, "within 100 ms")
            yield* Effect.promise(() => server.asked(unstablePath)[0]!.aborted)
          }),
        { networkTimeoutMillis: 60 }
      )
    )

    it.live("that the server resets is a NetworkError", () =>
      answered([ok, (response) => response.socket?.resetAndDestroy()], () =>
        Effect.gen(function* () {
          yield* sync()
          const reason = yield* reasonOf(sync())
          assert(reason._tag === "NetworkError")
          assert.isFalse(reason.timedOut)
        })
      )
    )

    it.live("that ends before the announced length is a NetworkError", () => {
      const truncated: Answer = (response) => {
        response.writeHead(200, { "content-type": "application/json", "content-length": "100" })
        response.write('{"pos": "1/s"')
        setImmediate(() => response.destroy())
      }
      return answered([truncated], () =>
        Effect.map(reasonOf(sync()), (reason) => assert.strictEqual(reason._tag, "NetworkError"))
      )
    })

    it.live("is kept for the next call", () => {
      const ports = new Set<number | undefined>()
      const counting: Answer = (response, received) => {
        ports.add(response.socket?.remotePort)
        ok(response, received)
      }
      return answered([counting], () =>
        Effect.gen(function* () {
          for (let call = 0; call < 20; call++) yield* sync()
          // Two, since undici frees a connection a moment after the body has ended.
          assert.isAtMost(ports.size, 2)
        })
      )
    })

    it.live("that is refused is a NetworkError that says so", () =>
      Effect.gen(function* () {
        const url = yield* Effect.scoped(Effect.map(scriptedServer, (server) => server.url))
        const session = { ...sessionAt({ url } as ScriptedServer) }
        const reason = yield* Effect.provide(reasonOf(sync()), clientOf(session))
        assert(reason._tag === "NetworkError")
        assert.match(reason.message, /ECONNREFUSED.*Nothing listens there/)
      })
    )

    it.live("to a host that isn't known is a NetworkError that says so", () =>
      Effect.gen(function* () {
        const session = sessionAt({ url: "http://homeserver.invalid" } as ScriptedServer)
        const reason = yield* Effect.provide(reasonOf(sync()), clientOf(session))
        assert(reason._tag === "NetworkError")
        assert.match(reason.message, /ENOTFOUND|EAI_AGAIN/)
      })
    )
  })

  describe("the other calls", () => {
    const call = <A, E>(
      route: string,
      answer: Answer,
      use: (homeserver: Homeserver.Homeserver["Service"], server: ScriptedServer) => Effect.Effect<A, E>
    ) =>
      answered([ok], (server) => {
        server.on(route, answer)
        return Effect.flatMap(Homeserver.Homeserver, (homeserver) => use(homeserver, server))
      })

    it.live("send an event under its transaction id, with every part of the path encoded", () => {
      const route = "PUT /_matrix/client/v3/rooms/!a/b:test/send/m.room.message/t 1"
      return call(route, json(200, { event_id: "$1" }), (homeserver, server) =>
        Effect.gen(function* () {
          const content = { msgtype: "m.text", body: "hi" }
          const sent = yield* homeserver.sendEvent({
            roomId: "!a/b:test",
            type: "m.room.message",
            txnId: "t 1",
            content
          })
          assert.strictEqual(sent, "$1")
          assert.deepStrictEqual(server.requests[0]?.body, content)
        })
      )
    })

    it.live("set a state, under its key if it has one", () => {
      const content = { algorithm: "m.megolm.v1.aes-sha2" }
      const route = "PUT /_matrix/client/v3/rooms/!a:test/state/m.room.encryption"
      return call(route, json(200, { event_id: "$1" }), (homeserver, server) =>
        Effect.gen(function* () {
          const state = { roomId: "!a:test", type: "m.room.encryption", content }
          assert.strictEqual(yield* homeserver.sendState({ ...state, stateKey: "" }), "$1")
          assert.deepStrictEqual(server.requests[0]?.body, content)
          server.on(`${route}/a/b`, json(200, { event_id: "$2" }))
          assert.strictEqual(yield* homeserver.sendState({ ...state, stateKey: "a/b" }), "$2")
          server.on(route, json(200, { event_id: "" }))
          assert.strictEqual((yield* reasonOf(homeserver.sendState({ ...state, stateKey: "" })))._tag, "BadResponse")
        })
      )
    })

    it.live("send to devices", () => {
      const messages = { "@bob:test": { "*": { n: 1 } } }
      return call("PUT /_matrix/client/v3/sendToDevice/m.x/t1", json(200, {}), (homeserver, server) =>
        Effect.gen(function* () {
          yield* homeserver.sendToDevice({ type: "m.x", txnId: "t1", messages })
          assert.deepStrictEqual(server.requests[0]?.body, { messages })
        })
      )
    })

    const kinds = {
      upload: "keys/upload",
      query: "keys/query",
      claim: "keys/claim",
      signatures: "keys/signatures/upload",
      deviceSigning: "keys/device_signing/upload"
    } as const
    for (const kind of Object.keys(kinds) as ReadonlyArray<keyof typeof kinds>) {
      it.live(`pass on ${kinds[kind]} as it is`, () =>
        call(`POST /_matrix/client/v3/${kinds[kind]}`, json(200, { answer: kind }), (homeserver, server) =>
          Effect.gen(function* () {
            assert.deepStrictEqual(yield* homeserver.keys({ kind, body: { asked: 1 } }), { answer: kind })
            assert.deepStrictEqual(server.requests[0]?.body, { asked: 1 })
          })
        )
      )
    }

    describe("ask for the members of a room", () => {
      const route = "GET /_matrix/client/v3/rooms/!a:test/members"
      const member = (state_key: unknown, membership: unknown, rest: object = {}) => ({
        type: "m.room.member",
        sender: "@alice:test",
        state_key,
        content: { membership },
        ...rest
      })

      it.live("and give who is there or may come in, each once", () => {
        const chunk = [
          member("@alice:test", "join"),
          member("@bob:test", "invite"),
          member("@carol:test", "knock"),
          member("@dan:test", "ban"),
          member("@erin:test", "leave"),
          member("@alice:test", "join")
        ]
        return call(route, json(200, { chunk }), (homeserver, server) =>
          Effect.gen(function* () {
            assert.deepStrictEqual(yield* homeserver.members("!a:test"), [
              { userId: "@alice:test", membership: "join" },
              { userId: "@bob:test", membership: "invite" },
              { userId: "@carol:test", membership: "knock" }
            ])
            assert.deepStrictEqual(server.requests[0]?.query, { not_membership: "leave" })
          })
        )
      })

      it.live("I7: and leave out what is no membership of anybody", () => {
        const chunk = [
          null,
          "@mallory:test",
          [],
          {},
          member(undefined, "join"),
          member(5, "join"),
          member("mallory", "join"),
          member("@mallory", "join"),
          member("@mall\ud800ory:test", "join"),
          member("@mallory:test", "owner"),
          member("@mallory:test", "toString"),
          member("@mallory:test", "join", { type: "m.room.name" }),
          member("@mallory:test", "join", { content: null }),
          member("@mallory:test", "join", { content: ["join"] }),
          member("@bob:test", "join")
        ]
        return call(route, json(200, { chunk }), (homeserver) =>
          Effect.map(homeserver.members("!a:test"), (members) =>
            assert.deepStrictEqual(members, [{ userId: "@bob:test", membership: "join" }])
          )
        )
      })

      const answers: ReadonlyArray<
        readonly [name: string, answer: Answer, tag: HomeserverError.HomeserverErrorReason["_tag"]]
      > = [
        ["HTML", text(200, "text/html", "<h1>Welcome</h1>"), "BadResponse"],
        ["no chunk", json(200, {}), "BadResponse"],
        ["a chunk that is no list", json(200, { chunk: { 0: member("@bob:test", "join") } }), "BadResponse"],
        ["403", json(403, { errcode: "M_FORBIDDEN", error: "not in room" }), "Forbidden"]
      ]
      for (const [name, answer, tag] of answers) {
        it.live(`and take ${name} for ${tag}`, () =>
          call(route, answer, (homeserver) =>
            Effect.map(Effect.flip(homeserver.members("!a:test")), (error) => {
              assert.strictEqual(error.reason._tag, tag)
              assert.match(error.message, /^members: /)
            })
          )
        )
      }
    })

    describe("that ask for interactive authentication", () => {
      const route = "POST /_matrix/client/v3/keys/device_signing/upload"
      const password = "correct horse"
      const flows = [{ stages: ["m.login.password"] }, { stages: ["m.login.sso", "m.login.dummy"] }]
      const params = { "m.login.sso": { a: [1, { b: "c" }] } }

      it.live("say how it can be done, and that the login is still valid", () =>
        call(route, json(401, { session: "s1", flows, params }), (homeserver) =>
          Effect.gen(function* () {
            const reason = yield* reasonOf(homeserver.keys({ kind: "deviceSigning", body: {} }))
            assert(reason._tag === "UserInteractiveAuth")
            assert.deepInclude(reason, { session: "s1", flows, params, completed: [] })
            assert.isUndefined(reason.errcode)
            assert.include(reason.message, "still valid")
          })
        )
      )

      it.live("say what was wrong, and repeat no password", () => {
        const echo = { errcode: "M_FORBIDDEN", error: `not "${password}"`, completed: ["m.login.dummy", 7] }
        const hostile = {
          flows: [null, {}, { stages: [`is ${password}`, 3] }],
          params: { [password]: 1, a: [password] }
        }
        const auth = { type: "m.login.password", password, session: "s1" }
        return call(route, json(401, { session: "s1", ...echo, ...hostile }), (homeserver) =>
          Effect.gen(function* () {
            const reason = yield* reasonOf(homeserver.keys({ kind: "deviceSigning", body: { auth } }))
            assert(reason._tag === "UserInteractiveAuth")
            assert.deepInclude(reason, { session: "s1", errcode: "M_FORBIDDEN", completed: ["m.login.dummy"] })
            assert.deepStrictEqual(reason.flows, [{ stages: ["<redacted>"] }])
            assert.deepStrictEqual(reason.params, { a: ["<redacted>"] })
            assert.notInclude(JSON.stringify(reason), password)
          })
        )
      })

      it.live("I7: are understood however deep the answer is nested", () => {
        const deep = `${"[".repeat(20_000)}${"]".repeat(20_000)}`
        const answer = text(401, "application/json", `{"flows":[],"params":{"a":${deep}}}`)
        return call(route, answer, (homeserver) =>
          Effect.gen(function* () {
            const reason = yield* reasonOf(homeserver.keys({ kind: "deviceSigning", body: {} }))
            assert(reason._tag === "UserInteractiveAuth")
            assert.isUndefined(reason.session)
            assert.include(JSON.stringify(reason.params), "<redacted>")
          })
        )
      })
    })

    it.live("give an event with its state, and refuse one that can't be read", () => {
      const event = { type: "m.x", sender: "@bob:test", content: {}, event_id: "$1" }
      const state = [{ type: "m.room.name", state_key: "", content: { name: "n" } }]
      const route = "GET /_matrix/client/v3/rooms/!a:test/context/$1"
      return call(route, json(200, { event, state }), (homeserver, server) =>
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* homeserver.eventContext("!a:test", "$1"), { event, state })
          assert.deepStrictEqual(server.requests[0]?.query, { limit: "0", filter: '{"lazy_load_members":true}' })
          server.on(route, json(200, { event: { ...event, sender: 5 } }))
          const reason = yield* reasonOf(homeserver.eventContext("!a:test", "$1"))
          assert.strictEqual(reason._tag, "BadResponse")
          assert.include(reason.message, "sender")
        })
      )
    })

    const merged: ReadonlyArray<readonly [name: string, versions: unknown]> = [
      ["an extension's flag", { versions: ["v1.12"], unstable_features: { "org.matrix.msc4538": true } }],
      ["a stable extension's flag", { versions: [], unstable_features: { "org.matrix.msc4543.stable": true } }],
      ["a version of the specification that has it", { versions: ["v1.19", "v1.20"] }]
    ]
    for (const [name, versions] of merged) {
      it.live(`know the merged spelling by ${name}`, () =>
        Effect.gen(function* () {
          const server = yield* scriptedServer
          server.on(`GET ${versionsPath}`, json(200, versions))
          const { capabilities } = yield* Effect.provide(Homeserver.Homeserver, clientOf(sessionAt(server)))
          assert.strictEqual((yield* capabilities).slidingSync, "v4")
        })
      )
    }

    it.live("ask for capabilities anew each time, for the offline probe", () =>
      answered([ok], (server) =>
        Effect.gen(function* () {
          const homeserver = yield* Homeserver.Homeserver
          const found = yield* homeserver.capabilities
          yield* homeserver.capabilities
          assert.strictEqual(found.slidingSync, "unstable")
          assert.deepStrictEqual(found.versions, ["v1.12"])
          assert.strictEqual(server.asked(versionsPath).length, 2)
        })
      )
    )
  })
})
