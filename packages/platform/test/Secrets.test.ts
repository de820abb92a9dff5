/**
 * No token, password or key is in anything that is emitted: logs of every level, spans, errors however they are printed.
 *
 * The homeserver repeats everything that it is told, in every kind of refusal.
 */
import { assert, describe, it } from "@effect/vitest"
import { Homeserver, NotificationSink } from "@twinloop/core"
import { Cause, Effect, Exit, Layer, Logger, Redacted, References, Tracer } from "effect"
import { chmodSync, writeFileSync } from "node:fs"
import { inspect } from "node:util"
import { join } from "node:path"
import { StoreKey } from "../src/crypto/StoreKey.ts"
import * as Login from "../src/http/Login.ts"
import * as NodeHomeserver from "../src/http/NodeHomeserver.ts"
import { SessionStore } from "../src/http/SessionStore.ts"
import * as SqliteSessionStore from "../src/http/SqliteSessionStore.ts"
import { WebhookSink } from "../src/push/sinks/index.ts"
import { SqliteClient } from "../src/sqlite/SqliteClient.ts"
import {
  type Answer,
  clientOf,
  json,
  scriptedServer,
  type ScriptedServer,
  sessionAt,
  syncRequest,
  unstablePath,
  versionsPath
} from "./HttpHomeserver.fixture.ts"
import * as SinkKit from "./sinks/SinkKit.ts"
import { storesAt, temporaryDirectory } from "./SqliteKit.ts"

const keyBytes = Uint8Array.from({ length: 32 }, (_, index) => 17 + index * 7)

const secrets = {
  accessToken: "syt_SECRET_access_token",
  refreshToken: "syr_SECRET_refresh_token",
  newAccessToken: "syt_SECRET_new_access",
  password: String.raw`SECRET "correct" hörse\battery`,
  loginToken: "SECRET_login_token",
  pushKey: "SECRET_push_key",
  webhook: "SECRET_webhook_secret",
  webhookQuery: "SECRET_webhook_query",
  keyBase64: Buffer.from(keyBytes).toString("base64"),
  keyHex: Buffer.from(keyBytes).toString("hex"),
  keyNumbers: [...keyBytes.subarray(0, 8)].join(", ")
}

/** Everything that somebody could see. */
interface Seen {
  readonly texts: Array<string>
}

const print = (value: unknown): string =>
  inspect(value, { depth: 12, showHidden: true, maxStringLength: Infinity, maxArrayLength: Infinity })

const see = (seen: Seen, value: unknown): void => {
  seen.texts.push(print(value))
  if (value instanceof Error) seen.texts.push(value.message, String(value.stack), JSON.stringify(value))
}

/** A tracer and a logger that keep all they are given. */
const watching = (seen: Seen) => {
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      seenSpans.push(span)
      return span
    }
  })
  const seenSpans: Array<Tracer.NativeSpan> = []
  const logger = Logger.make((options) => see(seen, [options.message, Cause.pretty(options.cause), options.cause]))
  const layer = Layer.mergeAll(
    Layer.succeed(Tracer.Tracer, tracer),
    Logger.layer([logger]),
    Layer.succeed(References.MinimumLogLevel, "Trace")
  )
  const spans = Effect.sync(() => {
    for (const { attributes, events, name, status } of seenSpans)
      see(seen, { name, attributes: [...attributes], events, status })
    return seenSpans.length
  })
  return { layer, spans }
}

/** Runs what may fail, and looks at how. */
const attempt = <A, E, R>(seen: Seen, run: Effect.Effect<A, E, R>): Effect.Effect<void, never, R> =>
  Effect.map(Effect.exit(run), (exit) => {
    see(seen, exit)
    if (Exit.isFailure(exit)) {
      see(seen, Cause.squash(exit.cause))
      seen.texts.push(Cause.pretty(exit.cause))
    }
  }).pipe(Effect.tap(Effect.logDebug("done")))

/** Repeats the request in a refusal: the token that it carried, and its body. */
const echo =
  (status: number, errcode: string): Answer =>
  (response, received) => {
    const said = `${received.authorization} ${JSON.stringify(received.body)}`
    json(status, { errcode, error: said, more: { [said]: said }, session: said })(response, received)
  }

const refusals: ReadonlyArray<Answer> = [
  ...[400, 403, 404, 409, 413, 429, 500, 502].map((status) => echo(status, "M_UNKNOWN")),
  echo(401, "M_UNKNOWN_TOKEN"),
  echo(403, "M_FORBIDDEN"),
  (response, { authorization, body }) => response.writeHead(200).end(`<html>${authorization} ${JSON.stringify(body)}`),
  (response, { authorization, body }) => json(200, { errcode: `${authorization}`, body })(response, {} as never),
  (response, { authorization = "" }) =>
    response.writeHead(302, { location: `https://${authorization.replace("Bearer ", "")}.example.org/` }).end(),
  (response) => response.destroy()
]

const session = (server: ScriptedServer) =>
  sessionAt(server, {
    accessToken: Redacted.make(secrets.accessToken),
    refreshToken: Redacted.make(secrets.refreshToken)
  })

const calls = Effect.fnUntraced(function* (seen: Seen, server: ScriptedServer) {
  for (const answer of refusals) {
    for (const route of [`POST ${unstablePath}`, `GET ${versionsPath}`, "POST /_matrix/client/v3/refresh"])
      server.on(route, answer)
    for (const route of ["login", "pushers/set"]) server.on(`POST /_matrix/client/v3/${route}`, answer)
    server.on(
      "GET /_matrix/client/v3/login",
      json(200, { flows: [{ type: "m.login.password" }, { type: "m.login.token" }] })
    )
    const pusher = {
      appId: "a",
      pushKey: secrets.pushKey,
      kind: "http" as const,
      url: "https://x.test/_matrix/push/v1/notify"
    }
    const using = Effect.gen(function* () {
      const homeserver = yield* Homeserver.Homeserver
      yield* attempt(seen, homeserver.sync(syncRequest()))
      yield* attempt(seen, homeserver.capabilities)
      yield* attempt(seen, homeserver.removePusher(pusher))
      yield* attempt(seen, homeserver.keys({ kind: "deviceSigning", body: { auth: { password: secrets.password } } }))
    })
    yield* attempt(seen, Effect.provide(using, Layer.fresh(clientOf(session(server)))))
    const where = { homeserver: server.url }
    const login = Effect.gen(function* () {
      yield* attempt(seen, Login.byPassword({ ...where, user: "alice", password: Redacted.make(secrets.password) }))
      yield* attempt(seen, Login.byToken({ ...where, loginToken: Redacted.make(secrets.loginToken) }))
      yield* attempt(seen, Login.useAccessToken({ ...where, accessToken: Redacted.make(secrets.accessToken) }))
    })
    yield* Effect.provide(login, Layer.fresh(NodeHomeserver.layerTransport))
  }
})

const keyFiles = Effect.fnUntraced(function* (seen: Seen, directory: string) {
  const path = join(directory, "account.key")
  const read = Effect.flatMap(StoreKey, (store) => store.key({ isNew: false }))
  for (const [text, mode] of [
    [secrets.keyBase64, 0o600],
    [secrets.keyBase64, 0o644],
    [`${secrets.keyBase64}${secrets.keyBase64}`, 0o600],
    [secrets.keyHex, 0o600]
  ] as const) {
    writeFileSync(path, text)
    chmodSync(path, mode)
    yield* attempt(seen, Effect.provide(read, StoreKey.layerFile(path)))
  }
  const short = StoreKey.layer(Redacted.make(keyBytes.subarray(1)))
  yield* attempt(seen, Effect.provide(read, short))
})

/** A login whose table is gone, damaged or refuses its row. */
const database = Effect.fnUntraced(function* (seen: Seen, server: ScriptedServer, directory: string) {
  const saving = Effect.gen(function* () {
    const store = yield* SessionStore
    const sql = yield* SqliteClient
    yield* attempt(seen, store.save(session(server), undefined))
    yield* sql`CREATE TRIGGER refuse BEFORE INSERT ON account_session BEGIN SELECT RAISE(ABORT, 'no'); END`
    yield* attempt(seen, store.save(session(server), undefined))
    yield* attempt(seen, sql`INSERT INTO account_session (id, access_token) VALUES (1, ${secrets.accessToken})`)
    yield* sql`DROP TABLE account_session`
    yield* attempt(seen, store.save(session(server), undefined))
    yield* attempt(seen, store.load)
  })
  const stores = storesAt(join(directory, "account.db"))
  yield* Effect.provide(saving, Layer.fresh(SqliteSessionStore.layer.pipe(Layer.provideMerge(stores))))
})

const webhook = Effect.fnUntraced(function* (seen: Seen) {
  for (const url of [
    `http://127.0.0.1:1/hook?key=${secrets.webhookQuery}`,
    `http://user:${secrets.webhookQuery}@127.0.0.1:1/`
  ]) {
    const layer = WebhookSink.layer({ url, secret: Redacted.make(secrets.webhook) })
    const show = Effect.flatMap(NotificationSink.NotificationSink, (sink) => sink.show(SinkKit.messageOf("$e")))
    yield* attempt(seen, Effect.provide(show, Layer.provide(layer, NodeHomeserver.layerTransport)))
  }
})

describe("Secrets", () => {
  it.live("are in no log, span or error, whatever fails, and however it is printed", () =>
    Effect.gen(function* () {
      const seen: Seen = { texts: [] }
      const { layer, spans } = watching(seen)
      yield* Effect.gen(function* () {
        const server = yield* scriptedServer
        const directory = yield* temporaryDirectory
        yield* calls(seen, server)
        yield* keyFiles(seen, directory)
        yield* database(seen, server, directory)
        yield* webhook(seen)
      }).pipe(Effect.provide(layer))
      assert.isAbove(yield* spans, 50)
      assert.isAbove(seen.texts.length, 300)
      for (const [name, secret] of Object.entries(secrets)) {
        // As it is, and as JSON in JSON writes it down.
        const escaped = JSON.stringify(JSON.stringify(secret).slice(1, -1)).slice(1, -1)
        const found = seen.texts.find((text) => text.includes(secret) || text.includes(escaped.slice(0, 12)))
        assert.isUndefined(
          found,
          `${name} in ${found?.slice(Math.max(0, found.indexOf(secret) - 300), found.indexOf(secret) + 100)}`
        )
      }
    }).pipe(Effect.scoped)
  )
})
