/** A real HTTP server on a free port whose answers are scripted, and clients of it. */
import { Effect, Layer, Redacted } from "effect"
import type { Scope } from "effect"
import { SyncConfig } from "@twinloop/core"
import type { SlidingSync } from "@twinloop/core"
import { createServer } from "node:http"
import type { IncomingMessage, ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import * as NodeHomeserver from "../src/http/NodeHomeserver.ts"
import { RefreshLock } from "../src/http/RefreshLock.ts"
import type { AccountSession } from "../src/http/Session.ts"
import * as SessionStore from "../src/http/SessionStore.ts"

/** A request as the server got it. */
export interface Received {
  readonly method: string
  readonly path: string
  readonly query: { readonly [name: string]: string }
  readonly authorization: string | undefined
  readonly body: unknown
  /** Resolves when the connection that brought the request has closed before it was answered. */
  readonly aborted: Promise<void>
}

export type Answer = (response: ServerResponse, received: Received) => void

export interface ScriptedServer {
  readonly url: string
  /** All requests so far, in the order of their arrival. */
  readonly requests: ReadonlyArray<Received>
  /** Sets the answer to `METHOD /path`; several are given one after the other, the last one again and again. */
  readonly on: (route: string, ...answers: ReadonlyArray<Answer>) => void
  /** The requests for a path. */
  readonly asked: (path: string) => ReadonlyArray<Received>
  /** Resolves with the next request for a path that arrives. */
  readonly next: (path: string) => Promise<Received>
  /** How many connections were ever opened. */
  readonly connections: () => number
}

export const json =
  (status: number, body: unknown, headers: { readonly [name: string]: string } = {}): Answer =>
  (response) => {
    response.writeHead(status, { "content-type": "application/json", ...headers }).end(JSON.stringify(body))
  }

export const text =
  (status: number, contentType: string, body: string): Answer =>
  (response) => {
    response.writeHead(status, { "content-type": contentType }).end(body)
  }

/** Never answers. */
export const hang: Answer = () => undefined

const unrecognized = json(404, { errcode: "M_UNRECOGNIZED", error: "Unrecognized request" })

const readBody = async (request: IncomingMessage): Promise<unknown> => {
  const chunks: Array<Buffer> = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return chunks.length === 0 ? undefined : JSON.parse(Buffer.concat(chunks).toString())
}

const receive = async (request: IncomingMessage, response: ServerResponse): Promise<Received> => {
  const url = new URL(request.url ?? "/", "http://test")
  const aborted = new Promise<void>((resolve) => {
    response.once("close", () => (response.writableFinished ? undefined : resolve()))
  })
  return {
    method: request.method ?? "",
    path: decodeURIComponent(url.pathname),
    query: Object.fromEntries(url.searchParams),
    authorization: request.headers.authorization,
    body: await readBody(request),
    aborted
  }
}

const start = async () => {
  const requests: Array<Received> = []
  const answers = new Map<string, Array<Answer>>()
  const waiting: Array<{ readonly path: string; readonly resolve: (received: Received) => void }> = []
  const handle = async (request: IncomingMessage, response: ServerResponse) => {
    const received = await receive(request, response)
    requests.push(received)
    const script = answers.get(`${received.method} ${received.path}`) ?? [unrecognized]
    const answer = script.length > 1 ? script.shift() : script[0]
    answer?.(response, received)
    for (const waiter of waiting.splice(0)) {
      if (waiter.path === received.path) waiter.resolve(received)
      else waiting.push(waiter)
    }
  }
  // A body that is cut off on purpose ends the handler, and nothing else.
  const server = createServer((request, response) => void handle(request, response).catch(() => response.destroy()))
  let connections = 0
  server.on("connection", () => void connections++)
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  const scripted: ScriptedServer = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    on: (route, ...script) => void answers.set(route, [...script]),
    asked: (path) => requests.filter((received) => received.path === path),
    next: (path) => new Promise((resolve) => waiting.push({ path, resolve })),
    connections: () => connections
  }
  return { server, scripted }
}

/** Starts a server that closes with the scope. Paths without a script are answered with 404 `M_UNRECOGNIZED`. */
export const scriptedServer: Effect.Effect<ScriptedServer, never, Scope.Scope> = Effect.map(
  Effect.acquireRelease(Effect.promise(start), ({ server }) =>
    Effect.promise(
      () =>
        new Promise((resolve) => {
          server.close(resolve)
          server.closeAllConnections()
        })
    )
  ),
  ({ scripted }) => scripted
)

export const unstablePath = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
export const v4Path = "/_matrix/client/v4/sync"
export const versionsPath = "/_matrix/client/versions"

/** Makes the server one that has sliding sync under the unstable endpoint. */
export const withUnstable = (server: ScriptedServer, ...answers: ReadonlyArray<Answer>): void => {
  server.on(
    `GET ${versionsPath}`,
    json(200, { versions: ["v1.12"], unstable_features: { "org.matrix.simplified_msc3575": true } })
  )
  server.on(`POST ${unstablePath}`, ...answers)
}

export const accessToken = "syt_secret_access_token"
export const refreshToken = "syr_secret_refresh_token"

export const sessionAt = (server: ScriptedServer, more: Partial<AccountSession> = {}): AccountSession => ({
  homeserver: server.url,
  userId: "@alice:test",
  deviceId: "DEVICE",
  accessToken: Redacted.make(accessToken),
  ...more
})

/** A client of the server in one process, with a login in memory. */
export const clientOf = (session: AccountSession, config: Partial<SyncConfig.SyncConfigShape> = {}) =>
  NodeHomeserver.layer.pipe(
    Layer.provide([SessionStore.layerMemory(session), RefreshLock.layerSingleProcess, SyncConfig.layer(config)])
  )

/** A request of the extension loop. */
export const syncRequest = (more: Partial<SlidingSync.SyncRequest> = {}): SlidingSync.SyncRequest => ({
  connId: "encryption",
  timeoutMillis: 0,
  lists: {},
  roomSubscriptions: {},
  extensions: { toDevice: { since: "5", limit: 100 }, e2ee: true },
  ...more
})
