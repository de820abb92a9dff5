/**
 * A homeserver in the test's own process, whose answers a test holds back, delays, refuses and counts.
 *
 * Includes the sliding-sync endpoint (unstable spelling) with positions, rooms and the to-device queue, login, whoami and
 * refresh. A to-device event is deleted when a request acknowledges it by `since`, and only then: what a client lost is lost.
 *
 * Not here: what homeservers do beyond that (the embedded homeserver).
 */
import { Effect } from "effect"
import type { Scope } from "effect"
import { createServer } from "node:http"
import type { IncomingMessage, Server, ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"

type Json = { readonly [key: string]: unknown }

/** A sync request as it came in. */
export interface Seen {
  /** Monotonic milliseconds. */
  readonly atMillis: number
  readonly connId: string
  readonly pos: string | undefined
  readonly since: string | undefined
  /** The range of the list `window`, if the request has one. */
  readonly window: readonly [number, number] | undefined
}

/** Whether a connection carries to-device messages. */
type Loop = "main" | "extension"

/** What the test decides. */
export interface Script {
  /** Rooms of the account. */
  rooms: number
  /** How long each answer of a loop is kept back, in milliseconds. */
  readonly delayMillis: { main: number; extension: number }
  /** Answers of a loop that are ready wait until this is false again; see `tell`. */
  readonly held: { main: boolean; extension: boolean }
}

interface Connection {
  positions: ReadonlyArray<number>
  readonly sentRooms: Set<number>
  lists: string
}

interface Tokens {
  access: string
  refresh: string | undefined
}

/** Well above the time in which the end of a socket is seen, and below the delays that tests script. */
const OVERLAP_MILLIS = 100

/** How long a refresh takes. */
const REFRESH_MILLIS = 100

const DEVICE = "DEVICE"
export const USER = "@alice:scripted"
export const PASSWORD = "correct horse"

const monotonicMillis = (): number => Number(process.hrtime.bigint()) / 1e6

const bodyOf = async (request: IncomingMessage): Promise<Json> => {
  let text = ""
  for await (const chunk of request) text += String(chunk)
  return text === "" ? {} : (JSON.parse(text) as Json)
}

const objectAt = (json: Json, ...path: ReadonlyArray<string>): Json =>
  path.reduce<Json>((inner, key) => (inner[key] ?? {}) as Json, json)

export class ScriptedHomeserver {
  readonly script: Script = {
    rooms: 3,
    delayMillis: { main: 0, extension: 0 },
    held: { main: false, extension: false }
  }
  /** Sync requests, oldest first. */
  readonly seen: Array<Seen> = []
  /** How many requests of any kind have come in. */
  requests = 0
  /** Requests per connection that have no answer and whose client is still there. */
  readonly inFlight = new Map<string, number>()
  /** Connections on which a request was still open some time after a newer one had come in. */
  readonly overlaps: Array<string> = []
  /** `POST /refresh` that were answered with tokens, and that were refused. */
  refreshed = 0
  refreshRefused = 0
  /** To-device events that were sent to the account, by number, from 1 on. */
  sent = 0
  /** Up to which the client has acknowledged. */
  acknowledged = 0
  tokens: Tokens = { access: "access-0", refresh: undefined }

  private readonly connections = new Map<string, Connection>()
  /** The newest request of each connection. */
  private readonly open = new Map<string, ServerResponse>()
  private readonly waiting = new Set<() => void>()
  private server: Server = this.newServer()
  private pos = 0

  get port(): number {
    return (this.server.address() as AddressInfo).port
  }

  get baseUrl(): string {
    return `http://127.0.0.1:${this.port}`
  }

  /** Sends numbered to-device events to the account. */
  send(count: number): void {
    this.sent += count
    this.tell()
  }

  /** Lets every request look again whether there is an answer: after a change of the script. */
  tell(): void {
    for (const look of this.waiting) look()
  }

  /** Ends the validity of the access token, as time does. */
  expireToken(): void {
    this.tokens = { ...this.tokens, access: `${this.tokens.access}-ended` }
  }

  listen(port = 0): Promise<void> {
    return new Promise((resolve) => this.server.listen({ host: "127.0.0.1", port }, resolve))
  }

  /** Dies as a killed process does: every connection is reset, and no position is known afterwards. Can `listen` again. */
  kill(): Promise<void> {
    const { server } = this
    this.server = this.newServer()
    this.connections.clear()
    return new Promise((resolve) => {
      server.close(() => resolve())
      server.closeAllConnections()
    })
  }

  private newServer(): Server {
    return createServer((request, response) => {
      // A client that goes away in the middle of its request gets no answer.
      this.handle(request, response).catch(() => response.destroy())
    })
  }

  private async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.requests++
    const url = new URL(request.url ?? "", "http://scripted")
    const body = await bodyOf(request)
    const path = url.pathname.replace("/_matrix/client/", "")
    if (path === "v3/login" || path === "v3/refresh") return this.handleLogin(path, request, body, response)
    const anonymous = path === "versions" && request.headers.authorization === undefined
    if (!anonymous && request.headers.authorization !== `Bearer ${this.tokens.access}`) {
      const softLogout = this.tokens.refresh !== undefined
      return answer(response, 401, { errcode: "M_UNKNOWN_TOKEN", error: "unknown token", soft_logout: softLogout })
    }
    if (path === "versions") {
      return answer(response, 200, {
        versions: ["v1.12"],
        unstable_features: { "org.matrix.simplified_msc3575": true }
      })
    }
    if (path === "v3/account/whoami") return answer(response, 200, { user_id: USER, device_id: DEVICE })
    if (path === "v3/keys/upload") return answer(response, 200, { one_time_key_counts: { signed_curve25519: 50 } })
    if (path === "v3/keys/query") return answer(response, 200, { device_keys: {} })
    if (path.endsWith("simplified_msc3575/sync")) return this.sync(url, body, response)
    return answer(response, 404, { errcode: "M_UNRECOGNIZED", error: "not part of the script" })
  }

  private handleLogin(path: string, request: IncomingMessage, body: Json, response: ServerResponse): void {
    if (request.method === "GET") return answer(response, 200, { flows: [{ type: "m.login.password" }] })
    if (path === "v3/login") {
      return body["password"] === PASSWORD
        ? answer(response, 200, { user_id: USER, device_id: DEVICE, access_token: this.tokens.access })
        : answer(response, 403, { errcode: "M_FORBIDDEN", error: "Invalid username or password" })
    }
    if (body["refresh_token"] !== this.tokens.refresh) {
      this.refreshRefused++
      return answer(response, 401, { errcode: "M_UNKNOWN_TOKEN", error: "unknown refresh token" })
    }
    this.refreshed++
    const tokens = { access: `access-${this.refreshed}`, refresh: `refresh-${this.refreshed}` }
    // Slowly, so that two that ask at the same moment are both accepted, and seen.
    setTimeout(() => {
      this.tokens = tokens
      answer(response, 200, { access_token: tokens.access, refresh_token: tokens.refresh })
    }, REFRESH_MILLIS)
  }

  private sync(url: URL, body: Json, response: ServerResponse): void {
    const connId = String(body["conn_id"] ?? "")
    const pos = url.searchParams.get("pos") ?? undefined
    const toDevice = objectAt(body, "extensions", "to_device")
    const loop: Loop = toDevice["enabled"] === true ? "extension" : "main"
    const since = toDevice["since"] === undefined ? undefined : String(toDevice["since"])
    const ranges = objectAt(body, "lists", "window")["ranges"] as ReadonlyArray<readonly [number, number]> | undefined
    this.seen.push({ atMillis: monotonicMillis(), connId, pos, since, window: ranges?.[0] })
    this.countInFlight(connId, response)

    const known = this.connections.get(connId)
    if (pos !== undefined && known?.positions.includes(Number(pos)) !== true) {
      return answer(response, 400, { errcode: "M_UNKNOWN_POS", error: "Unknown position" })
    }
    const connection: Connection =
      pos === undefined || known === undefined ? { positions: [], sentRooms: new Set(), lists: "" } : known
    this.connections.set(connId, connection)
    if (since !== undefined) this.acknowledged = Math.max(this.acknowledged, Number(since))
    const timeoutMillis = Number(url.searchParams.get("timeout") ?? 0)
    this.answerWhenReady(loop, connection, pos === undefined ? 0 : timeoutMillis, body, since, response)
  }

  private countInFlight(connId: string, response: ServerResponse): void {
    const before = this.open.get(connId)
    // The end of an aborted request and its successor come on two sockets, in any order.
    setTimeout(() => {
      if (before !== undefined && !before.closed) this.overlaps.push(connId)
    }, OVERLAP_MILLIS)
    this.open.set(connId, response)
    this.inFlight.set(connId, (this.inFlight.get(connId) ?? 0) + 1)
    response.once("close", () => this.inFlight.set(connId, (this.inFlight.get(connId) ?? 0) - 1))
  }

  /** Holds the line open until there is something to say, the time is over, or the client is gone. */
  private answerWhenReady(
    loop: Loop,
    connection: Connection,
    timeoutMillis: number,
    body: Json,
    since: string | undefined,
    response: ServerResponse
  ): void {
    const untilMillis = monotonicMillis() + timeoutMillis
    const look = (): void => {
      const news = loop === "extension" ? this.hasEvents(since) : this.hasRooms(connection, body)
      if (this.script.held[loop] || (!news && monotonicMillis() < untilMillis)) return
      finish()
      const delay = this.script.delayMillis[loop]
      const send = (): void => answer(response, 200, this.respond(loop, connection, body, since))
      if (delay === 0) send()
      else setTimeout(() => (response.destroyed ? undefined : send()), delay)
    }
    const timer = setTimeout(look, timeoutMillis + 1)
    const finish = (): void => {
      clearTimeout(timer)
      this.waiting.delete(look)
    }
    this.waiting.add(look)
    response.once("close", finish)
    look()
  }

  private hasEvents(since: string | undefined): boolean {
    return this.sent > Math.max(Number(since ?? 0), this.acknowledged)
  }

  /** Rooms in the windows of a request, by number; the newest one is the first of every list. */
  private wantedRooms(body: Json): ReadonlyArray<number> {
    const wanted = new Set<number>()
    for (const list of Object.values(objectAt(body, "lists")) as ReadonlyArray<Json>) {
      const [start, end] = (list["ranges"] as ReadonlyArray<readonly [number, number]>)[0] ?? [0, -1]
      const last = Math.min(end, this.script.rooms - 1)
      for (let position = start; position <= last; position++) wanted.add(this.script.rooms - 1 - position)
    }
    return [...wanted]
  }

  /** Rooms that the connection doesn't know, or other lists than those of its request before. */
  private hasRooms(connection: Connection, body: Json): boolean {
    return (
      connection.lists !== JSON.stringify(body["lists"]) ||
      this.wantedRooms(body).some((room) => !connection.sentRooms.has(room))
    )
  }

  private respond(loop: Loop, connection: Connection, body: Json, since: string | undefined): Json {
    const pos = ++this.pos
    // A homeserver knows the position that it gave and the one before, for a client that didn't get the answer.
    connection.positions = [...connection.positions.slice(-1), pos]
    return { pos: String(pos), ...(loop === "extension" ? this.toDevice(body, since) : this.roomsOf(connection, body)) }
  }

  private toDevice(body: Json, since: string | undefined): Json {
    const limit = Number(objectAt(body, "extensions", "to_device")["limit"] ?? 100)
    const from = Math.max(Number(since ?? 0), this.acknowledged)
    const to = Math.min(this.sent, from + limit)
    const events = Array.from({ length: to - from }, (_, index) => ({
      type: "m.test",
      sender: "@bob:scripted",
      content: { number: from + index + 1 }
    }))
    return { lists: {}, rooms: {}, extensions: { to_device: { next_batch: String(to), events } } }
  }

  private roomsOf(connection: Connection, body: Json): Json {
    const rooms: Record<string, Json> = {}
    for (const room of this.wantedRooms(body)) {
      if (connection.sentRooms.has(room)) continue
      connection.sentRooms.add(room)
      rooms[`!room${room}:scripted`] = {
        initial: true,
        name: `Room ${room}`,
        bump_stamp: room + 1,
        required_state: [],
        timeline: []
      }
    }
    connection.lists = JSON.stringify(body["lists"])
    const lists = Object.fromEntries(
      Object.keys(objectAt(body, "lists")).map((key) => [key, { count: this.script.rooms }])
    )
    return { lists, rooms, extensions: {} }
  }
}

const answer = (response: ServerResponse, status: number, json: Json): void => {
  response.writeHead(status, { "content-type": "application/json" })
  response.end(JSON.stringify(json))
}

/** A homeserver that listens until the scope closes. */
export const make: Effect.Effect<ScriptedHomeserver, never, Scope.Scope> = Effect.acquireRelease(
  Effect.promise(async () => {
    const homeserver = new ScriptedHomeserver()
    await homeserver.listen()
    return homeserver
  }),
  (homeserver) => Effect.promise(() => homeserver.kill())
)
