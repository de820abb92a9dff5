import { assert, describe, it } from "@effect/vitest"
import type { StoreError, SyncConfig } from "@twinloop/core"
import { Deferred, Effect, Exit, Fiber, Layer, Logger, Scope } from "effect"
import { connect, createServer, type Socket } from "node:net"
import { DatabaseSync } from "node:sqlite"
import type { CannotListen } from "../../src/http/CannotListen.ts"
import { layer, type Options, PushGateway } from "../../src/push/PushGateway.ts"
import { PushQueue } from "../../src/push/PushQueue.ts"
import { SqliteClient } from "../../src/sqlite/index.ts"
import { temporaryFile } from "../SqliteKit.ts"
import * as Kit from "./PushKit.ts"

type Everything = Kit.Queue | PushGateway

const gatewayAt = (
  filename: string,
  config: Partial<SyncConfig.SyncConfigShape> = {},
  options: Partial<Options> = {}
): Layer.Layer<Everything, StoreError.StoreError | CannotListen> =>
  Layer.fresh(layer({ port: 0, ...options }).pipe(Layer.provideMerge(Kit.queueAt(filename, config))))

/** With a gateway on a database of its own, that knows one device. */
const test =
  (config: Partial<SyncConfig.SyncConfigShape> = {}) =>
  <A, E>(use: Effect.Effect<A, E, Everything>) =>
    Effect.flatMap(temporaryFile, (filename) =>
      Effect.provide(Effect.andThen(Kit.register(), use), gatewayAt(filename, config), { local: true })
    )

const send = (content?: string | Uint8Array<ArrayBuffer>, method = "POST") =>
  Effect.flatMap(PushGateway, ({ url }) => Kit.request(url, method, content))

const at = (path: string, method: string) =>
  Effect.flatMap(PushGateway, ({ port }) =>
    Kit.request(`http://127.0.0.1:${port}${path}`, method, method === "GET" ? undefined : "{}")
  )

const brief = ({ json, status }: Kit.Answer) => [status, json["errcode"] ?? json["rejected"]]

/** Keeps the database locked, as another process that writes, until it is told to end. */
const lock = Effect.map(SqliteClient.SqliteClient, ({ config }) => {
  const other = new DatabaseSync(config.filename)
  other.exec("BEGIN IMMEDIATE")
  return Effect.sync(() => other.close())
})

/** A connection that says something, and what is heard on it until it ends. */
const converse = Effect.fnUntraced(function* (first: string) {
  const { port } = yield* PushGateway
  const ended = yield* Deferred.make<string>()
  const connected = yield* Deferred.make<void>()
  const socket = yield* Effect.acquireRelease(
    Effect.sync(() => {
      let heard = ""
      const socket: Socket = connect(port, "127.0.0.1", () => {
        if (first !== "") socket.write(first)
        Deferred.doneUnsafe(connected, Effect.void)
      })
      socket.setEncoding("utf8").on("data", (text: string) => (heard += text))
      socket.on("error", () => {}).on("close", () => Deferred.doneUnsafe(ended, Effect.succeed(heard)))
      return socket
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )
  yield* Deferred.await(connected)
  return { socket, ended: Effect.timeout(Deferred.await(ended), "10 seconds") }
})

const head = "POST /_matrix/push/v1/notify HTTP/1.1\r\nhost: x\r\n"

describe("PushGateway", () => {
  it.live("takes both formats and pokes, and answers once they are in the queue", () =>
    Effect.gen(function* () {
      const queue = yield* PushQueue
      assert.deepStrictEqual(brief(yield* send(Kit.body(1))), [200, []])
      const full = {
        id: "$2",
        type: "m.room.message",
        sender: "@a:x",
        content: { body: "hello" },
        room_name: "Kitchen"
      }
      assert.deepStrictEqual(brief(yield* send(Kit.body(2, { ...full, prio: "low" }))), [200, []])
      assert.deepStrictEqual(
        (yield* queue.waiting(10)).map(({ request }) => request),
        [
          { roomId: "!r:example.org", eventId: "$1", isUrgent: true },
          { roomId: "!r:example.org", eventId: "$2", isUrgent: false }
        ]
      )
      const poke = { id: "", type: null, sender: "", counts: { unread: 7 }, devices: [Kit.wireDevice()] }
      assert.deepStrictEqual(brief(yield* send(JSON.stringify({ notification: poke }))), [200, []])
      assert.strictEqual((yield* queue.badge)?.unread, 7)
      assert.strictEqual(yield* queue.size, 2)
    }).pipe(test())
  )

  it.live("rejects devices that aren't registered, and takes the others", () =>
    Effect.gen(function* () {
      const { appId, pushKey } = Kit.device
      const known = Kit.wireDevice()
      const stranger = Kit.wireDevice(Kit.stranger)
      const otherApp = Kit.wireDevice({ appId: "org.example.other", pushKey })
      assert.deepStrictEqual(brief(yield* send(Kit.body(1, { devices: [stranger] }))), [200, ["key-2"]])
      assert.deepStrictEqual(brief(yield* send(Kit.body(1, { devices: [otherApp] }))), [200, ["key-1"]])
      assert.deepStrictEqual(yield* Kit.due(), [])
      assert.deepStrictEqual(brief(yield* send(Kit.body(1, { devices: [stranger, known, stranger] }))), [
        200,
        ["key-2"]
      ])
      // The key alone would delete the pusher that is known.
      assert.deepStrictEqual(brief(yield* send(Kit.body(2, { devices: [otherApp, known] }))), [200, []])
      assert.deepStrictEqual(yield* Kit.due(), [1, 2])
      assert.strictEqual(appId, known.app_id)
    }).pipe(test())
  )

  it.live("keeps the order in which a homeserver pushes, and a repetition once", () =>
    Effect.gen(function* () {
      const numbers = Array.from({ length: 100 }, (_, index) => index)
      for (const number of numbers) {
        assert.strictEqual((yield* send(Kit.body(number))).status, 200)
        if (number % 7 === 0) assert.deepStrictEqual(brief(yield* send(Kit.body(number))), [200, []])
      }
      assert.deepStrictEqual(yield* Kit.due(), numbers)
    }).pipe(test())
  )

  it.live("says what is wrong with a request", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(brief(yield* send("{")), [400, "M_NOT_JSON"])
      assert.deepStrictEqual(brief(yield* send("")), [400, "M_NOT_JSON"])
      assert.deepStrictEqual(brief(yield* send(new Uint8Array([0x22, 0xff, 0x22]))), [400, "M_NOT_JSON"])
      assert.deepStrictEqual(brief(yield* send("[]")), [400, "M_BAD_JSON"])
      assert.deepStrictEqual(brief(yield* send("{}")), [400, "M_MISSING_PARAM"])
      const { json } = yield* send(Kit.body(1, { devices: [{ app_id: "a" }] }))
      assert.strictEqual(json["error"], `"notification.devices[0].pushkey" is missing`)
      assert.deepStrictEqual(brief(yield* at("/", "GET")), [404, "M_UNRECOGNIZED"])
      assert.deepStrictEqual(brief(yield* at("/_matrix/push/v1/notify/x", "POST")), [404, "M_UNRECOGNIZED"])
      assert.deepStrictEqual(brief(yield* at("/__proto__", "POST")), [404, "M_UNRECOGNIZED"])
      const wrong = yield* send("{}", "PUT")
      assert.deepStrictEqual(brief(wrong), [405, "M_UNRECOGNIZED"])
      assert.strictEqual(wrong.headers.get("allow"), "POST")
      assert.deepStrictEqual(brief(yield* at("/health", "POST")), [405, "M_UNRECOGNIZED"])
      assert.strictEqual((yield* at("/health?x=1", "GET")).status, 200)
      assert.deepStrictEqual(yield* Kit.due(), [])
    }).pipe(test())
  )

  it.live("I10: refuses a body that is too large, with and without its length, and waits for no more of it", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(brief(yield* send(Kit.body(1, { content: "a".repeat(2_000) }))), [413, "M_TOO_LARGE"])
      // Only ever announced.
      const announced = yield* converse(`${head}content-length: 1001\r\n\r\n{`)
      assert.match(yield* announced.ended, /^HTTP\/1.1 413 /)
      // Without an end.
      const endless = yield* converse(`${head}transfer-encoding: chunked\r\n\r\n`)
      const chunk = `400\r\n${"a".repeat(1_024)}\r\n`
      yield* Effect.sync(() => endless.socket.write(chunk + chunk))
      assert.match(yield* endless.ended, /^HTTP\/1.1 413 [^]*M_TOO_LARGE/)
      assert.deepStrictEqual(brief(yield* send(Kit.body(1))), [200, []])
    }).pipe(Effect.scoped, test({ pushBodyBytes: 1_000 }))
  )

  it.live("I10: puts off what there is no room for, and takes it when something was shown", () =>
    Effect.gen(function* () {
      const queue = yield* PushQueue
      yield* send(Kit.body(1))
      yield* send(Kit.body(2))
      const full = yield* send(Kit.body(3))
      assert.deepStrictEqual(brief(full), [503, "M_LIMIT_EXCEEDED"])
      assert.strictEqual(full.headers.get("retry-after"), "5")
      const fence = yield* Kit.own("shows")
      const [first] = yield* queue.waiting(1)
      yield* queue.done(fence, [first!.sequence])
      assert.deepStrictEqual(brief(yield* send(Kit.body(3))), [200, []])
      assert.deepStrictEqual(yield* Kit.due(), [2, 3])
    }).pipe(test({ pushQueueLimit: 2 }))
  )

  it.live("I9: has a push sent again while the database can't be used, and logs nothing of it", () =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      const logger = Logger.make(({ message }) => void lines.push(JSON.stringify(message)))
      yield* Effect.gen(function* () {
        const unlock = yield* lock
        const busy = yield* send(Kit.body(1))
        assert.deepStrictEqual(brief(busy), [503, "M_UNKNOWN"])
        assert.strictEqual(busy.headers.get("retry-after"), "5")
        yield* unlock
        assert.deepStrictEqual(brief(yield* send(Kit.body(1))), [200, []])
      }).pipe(test({ storeBusyMillis: 30 }), Effect.provide(Logger.layer([logger])))
      assert.isTrue(lines.some((line) => line.includes("could not be stored")))
      for (const line of lines) {
        assert.notInclude(line, "key-1")
        assert.notInclude(line, "$1")
      }
    })
  )

  it.live("I10: serves so many requests and connections at once", () =>
    Effect.gen(function* () {
      const unlock = yield* lock
      // Requests one after the other on one connection, none of which waits for the answer to the one before.
      const content = Kit.body(1)
      const one = `${head}content-length: ${content.length}\r\n\r\n${content}`
      const last = one.replace("host: x", "host: x\r\nconnection: close")
      const pipelined = yield* converse(one.repeat(64) + last)
      // All are being served once a request that came after them was answered.
      assert.strictEqual((yield* at("/health", "GET")).status, 200)
      yield* unlock
      const answers = [...(yield* pipelined.ended).matchAll(/HTTP\/1.1 (\d+)/g)].map(([, status]) => status)
      assert.deepStrictEqual(answers, [...Array.from({ length: 64 }, () => "200"), "503"])

      const open = yield* Effect.forEach(Array.from({ length: 64 }), () => converse(""))
      const refused = yield* converse("")
      assert.strictEqual(yield* refused.ended, "")
      open[0]!.socket.destroy()
      yield* open[0]!.ended
      open[1]!.socket.write("GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
      assert.match(yield* open[1]!.ended, /^HTTP\/1.1 200/)
    }).pipe(Effect.scoped, test())
  )

  it.live("I10: gives up a request that doesn't arrive", () =>
    Effect.gen(function* () {
      const dribbling = yield* Effect.forEach(
        ["", "POST /_matrix", head, `${head}content-length: 100\r\n\r\n{`],
        converse
      )
      for (const { ended } of dribbling) yield* ended
      assert.deepStrictEqual(brief(yield* send(Kit.body(1))), [200, []])
    }).pipe(Effect.scoped, test({ pushRequestMillis: 200 }))
  )

  it.live("I4: finishes what is being committed when it closes, and waits for nobody else", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(gatewayAt(filename), scope)
      const within = Effect.provide(context)
      yield* within(Kit.register())
      const unlock = yield* within(lock)
      yield* within(converse(`${head}content-length: 100\r\n\r\n{`))
      const content = Kit.body(1)
      const pushing = yield* within(converse(`${head}content-length: ${content.length}\r\n\r\n${content}`))
      // It is being served once a request that came after it was answered.
      assert.strictEqual((yield* within(at("/health", "GET"))).status, 200)
      // As the end of a program closes it: nothing can be interrupted.
      const closing = yield* Effect.forkChild(Effect.uninterruptible(Scope.close(scope, Exit.void)), {
        startImmediately: true
      })
      yield* unlock
      assert.match(yield* pushing.ended, /^HTTP\/1.1 200 [^]*\nconnection: close\r/)
      yield* Fiber.join(closing)
      const { url } = yield* within(PushGateway)
      assert.isTrue(Exit.isFailure(yield* Effect.exit(Kit.request(url, "POST", content))))
      assert.deepStrictEqual(yield* Kit.within(filename)(Kit.due()), [1])
    }).pipe(Effect.scoped)
  )

  it.live("says why it can't listen", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      const build = (options: Partial<Options>) => Effect.scoped(Layer.build(gatewayAt(filename, {}, options)))
      const why = (options: Partial<Options>) =>
        Effect.map(Effect.flip(build(options)), (error) => [error._tag, error.message])
      for (const host of ["0.0.0.0", "::", "", "192.0.2.1", "example.org"]) {
        const [tag, message] = yield* why({ host })
        assert.strictEqual(tag, "CannotListen")
        assert.include(message, `other machines may reach the push gateway on "${host}"`)
      }
      for (const options of [{ host: "0.0.0.0", allowRemote: true }, { host: "localhost" }, { host: "127.0.0.2" }]) {
        yield* build(options)
      }
      const taken = yield* Effect.acquireRelease(
        Effect.callback<ReturnType<typeof createServer>>((resume) => {
          const server = createServer().listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
        }),
        (server) => Effect.sync(() => server.close())
      )
      const { port } = taken.address() as { readonly port: number }
      const [tag, message] = yield* why({ port })
      assert.strictEqual(tag, "CannotListen")
      assert.include(message, `another program listens on port ${port} of 127.0.0.1 already`)
    }).pipe(Effect.scoped)
  )
})
