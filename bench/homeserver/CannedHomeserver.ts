/**
 * A homeserver that answers simplified sliding sync from a can: the rooms of a synthetic account, rendered beforehand, so
 * that what is measured is the client and not this.
 *
 * It answers as Synapse 1.163 does (unstable spelling): each room is sent once per connection, in full, when a window
 * first covers it; `ops` repeats the ids of the whole window in every answer; a request with nothing to answer is held for
 * its timeout. What comes after that is planned over HTTP: `POST /bench/plan` with a {@link Plan}.
 *
 * Gotchas: node:http without a framework, since it shares two cores with what it serves. It checks no token and keeps no
 * account: each token has connections of its own, and all see the same rooms. Nothing here is a homeserver beyond what the
 * benchmarks ask.
 *
 * Not here: the process it runs in (`server.ts`), the rooms themselves (`SyntheticAccount.ts`).
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http"
import { DEVICE, ME, SyntheticAccount } from "../data/SyntheticAccount.ts"

export interface Options {
  readonly seed: number
  readonly rooms: number
  /** Timeline events per room when it is first sent. */
  readonly timeline: number
  /** How many pieces of news are ready: as many as all plans together ask for. */
  readonly news: number
  /** How many different batches of to-device messages are ready; plans go round in them. */
  readonly batches: number
}

/** To-device messages per batch: the homeserver's own limit (MSC4538). */
export const BATCH = 100

/** What to answer from now on to requests that would otherwise be held. */
export interface Plan {
  readonly kind: "news" | "toDevice" | "nothing"
  /** How many such answers. */
  readonly count: number
  /** How long to wait before each. */
  readonly delayMillis?: number
}

/** When an answer was given to the operating system, on the monotonic clock of the host. */
export interface Answered {
  readonly connId: string
  /** True for an answer of the current plan. */
  readonly planned: boolean
  /** True when the request came without a position. */
  readonly fresh: boolean
  readonly askedAtMillis: number
  readonly answeredAtMillis: number
  /** Rooms and bytes in the answer. */
  readonly rooms: number
  readonly bytes: number
  /** Of news: the highest bump stamp in it; each piece has a higher one than those before. */
  readonly stamp?: number
}

/** What a plan is answered with: of news, the highest bump stamp in the last piece. */
export interface Planned {
  readonly stamp?: number
}

interface Connection {
  readonly sent: Set<number>
  count: number
}

interface Asked {
  readonly connId: string
  /** The token with the id: accounts share no connection. */
  readonly connection: string
  readonly fresh: boolean
  readonly timeoutMillis: number
  /** List key and window. */
  readonly windows: ReadonlyArray<readonly [key: string, start: number, end: number]>
  readonly toDevice: boolean
  readonly e2ee: boolean
  readonly askedAtMillis: number
}

interface SyncBody {
  readonly conn_id?: string
  readonly lists?: {
    readonly [key: string]: { readonly range?: [number, number]; readonly ranges?: ReadonlyArray<[number, number]> }
  }
  readonly extensions?: { readonly [name: string]: { readonly enabled?: boolean } | undefined }
}

const nowMillis = (): number => Number(process.hrtime.bigint()) / 1e6

const SYNC = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"

/** What clients ask beside sync; the answers say as little as they can. */
const others: ReadonlyArray<readonly [RegExp, object]> = [
  [/\/versions$/, { versions: ["v1.11", "v1.12"], unstable_features: { "org.matrix.simplified_msc3575": true } }],
  [/\/whoami$/, { user_id: ME, device_id: DEVICE }],
  [/\/pushrules\/?$/, { global: { override: [], content: [], room: [], sender: [], underride: [] } }],
  [/\/filter$/, { filter_id: "0" }],
  [/\/capabilities$/, { capabilities: {} }],
  [/\/keys\/upload$/, { one_time_key_counts: { signed_curve25519: 50 } }],
  [/\/keys\/query$/, { device_keys: {} }],
  [/\/voip\/turnServer$/, {}]
]

const readBody = async (request: IncomingMessage): Promise<string> => {
  const chunks: Array<Buffer> = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString()
}

const e2ee = `"e2ee":{"device_one_time_keys_count":{"signed_curve25519":50},"device_unused_fallback_key_types":["signed_curve25519"]}`
const roomExtensions = `"account_data":{"global":[],"rooms":{}},"receipts":{"rooms":{}},"typing":{"rooms":{}}`

export class CannedHomeserver {
  private readonly ids: Array<string> = []
  private readonly rooms: Array<Buffer> = []
  private readonly news: Array<{ readonly rooms: number; readonly stamp: number; readonly json: string }> = []
  private readonly batches: Array<string> = []
  /** The list that was rendered last, by its key and window. */
  private readonly lists = new Map<string, string>()
  private readonly connections = new Map<string, Connection>()
  private readonly parked = new Set<() => void>()
  private plan: Plan = { kind: "nothing", count: 0 }
  private planned = 0
  /** News told since a client came afresh, over all plans. */
  private told = 0
  private log: Array<Answered> = []
  readonly server: Server

  constructor(options: Options) {
    const account = new SyntheticAccount(options.seed)
    for (let number = 0; number < options.rooms; number++) {
      const [id, room] = account.initialRoom(options.timeline)
      this.ids.push(id)
      this.rooms.push(Buffer.from(`${JSON.stringify(id)}:${JSON.stringify(room)}`))
    }
    // A list is sorted by recency, and the last room is the most recent.
    this.ids.reverse()
    this.rooms.reverse()
    for (let number = 0; number < options.news; number++) {
      const [rooms, stamp] = account.news()
      this.news.push({ rooms: Object.keys(rooms).length, stamp, json: JSON.stringify(rooms) })
    }
    for (let number = 0; number < options.batches; number++) {
      this.batches.push(JSON.stringify(account.toDevice(BATCH)))
    }
    this.server = createServer((request, response) => {
      void this.serve(request, response)
    })
    this.server.keepAliveTimeout = 60_000
  }

  private async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const askedAtMillis = nowMillis()
    const url = new URL(request.url ?? "/", "http://localhost")
    const body = await readBody(request)
    if (url.pathname === SYNC) {
      const asked = JSON.parse(body === "" ? "{}" : body) as SyncBody
      this.sync(this.asked(url, asked, request.headers.authorization ?? "", askedAtMillis), response)
    } else if (url.pathname === "/bench/plan") {
      answer(response, 200, Buffer.from(JSON.stringify(this.begin(JSON.parse(body) as Plan))))
      // Who finds nothing in the new plan is held again, and not asked twice.
      const held = [...this.parked]
      for (const retry of held) retry()
    } else if (url.pathname === "/bench/log") {
      answer(response, 200, Buffer.from(JSON.stringify(this.log)))
    } else {
      const known = others.find(([path]) => path.test(url.pathname))
      const json = known?.[1] ?? { errcode: "M_UNRECOGNIZED", error: "Not in the can" }
      answer(response, known === undefined ? 404 : 200, Buffer.from(JSON.stringify(json)))
    }
  }

  private begin(plan: Plan): Planned {
    this.plan = plan
    this.planned = 0
    this.log = []
    return plan.kind === "news" ? { stamp: this.news[this.told + plan.count - 1]!.stamp } : {}
  }

  private asked(url: URL, body: SyncBody, authorization: string, askedAtMillis: number): Asked {
    const windows = Object.entries(body.lists ?? {}).map(([key, list]) => {
      const [start, end] = list.range ?? list.ranges?.[0] ?? [0, -1]
      return [key, start, Math.min(end, this.rooms.length - 1)] as const
    })
    const asks = (name: string) => body.extensions?.[name]?.enabled === true
    return {
      connId: body.conn_id ?? "",
      connection: `${authorization} ${body.conn_id ?? ""}`,
      fresh: !url.searchParams.has("pos"),
      timeoutMillis: Number(url.searchParams.get("timeout") ?? 0),
      windows,
      toDevice: asks("to_device"),
      e2ee: asks("e2ee"),
      askedAtMillis
    }
  }

  private sync(asked: Asked, response: ServerResponse): void {
    const known = this.connections.get(asked.connection)
    const connection = known === undefined || asked.fresh ? { sent: new Set<number>(), count: 0 } : known
    this.connections.set(asked.connection, connection)
    const rooms = this.unsent(asked, connection)
    // The next contestant is told the same news.
    if (asked.fresh && asked.windows.length > 0) this.told = 0
    const isPlanned = this.planned < this.plan.count && this.concerns(asked)
    if (rooms.length > 0 || asked.fresh || (asked.timeoutMillis === 0 && !isPlanned)) {
      this.respond(asked, response, connection, rooms, false)
    } else if (isPlanned) {
      this.planned += 1
      const { delayMillis = 0 } = this.plan
      const respond = () => this.respond(asked, response, connection, [], true)
      if (delayMillis === 0) respond()
      else setTimeout(respond, delayMillis)
    } else {
      this.park(asked, response, connection)
    }
  }

  /** Whether the plan has something for such a request. */
  private concerns(asked: Asked): boolean {
    return this.plan.kind === "toDevice" ? asked.toDevice : this.plan.kind === "news" && asked.windows.length > 0
  }

  private park(asked: Asked, response: ServerResponse, connection: Connection): void {
    const leave = () => {
      clearTimeout(timer)
      this.parked.delete(retry)
    }
    const retry = () => {
      leave()
      this.sync(asked, response)
    }
    const timer = setTimeout(() => {
      leave()
      this.respond(asked, response, connection, [], false)
    }, asked.timeoutMillis)
    this.parked.add(retry)
    response.once("close", leave)
  }

  /** Rooms in the windows that the connection has not been sent. */
  private unsent({ windows }: Asked, connection: Connection): ReadonlyArray<Buffer> {
    const rooms: Array<Buffer> = []
    for (const [, start, end] of windows) {
      for (let place = start; place <= end; place++) {
        if (connection.sent.has(place)) continue
        connection.sent.add(place)
        rooms.push(this.rooms[place]!)
      }
    }
    return rooms
  }

  /** The lists of an answer; rendered once per window, since long polls repeat it. */
  private listsOf({ windows }: Asked): string {
    return windows
      .map(([key, start, end]) => {
        const name = `${key} ${start} ${end}`
        const known = this.lists.get(name)
        if (known !== undefined) return known
        const op = { op: "SYNC", range: [start, end], room_ids: this.ids.slice(start, end + 1) }
        const list = `${JSON.stringify(key)}:${JSON.stringify({ count: this.rooms.length, ops: [op] })}`
        this.lists.clear()
        this.lists.set(name, list)
        return list
      })
      .join(",")
  }

  private extensionsOf(asked: Asked, batch: string | undefined): string {
    const toDevice = batch ?? `{"next_batch":"1000000","events":[]}`
    return [
      ...(asked.toDevice ? [`"to_device":${toDevice}`] : []),
      ...(asked.e2ee ? [e2ee] : []),
      ...(asked.windows.length > 0 ? [roomExtensions] : [])
    ].join(",")
  }

  private respond(
    asked: Asked,
    response: ServerResponse,
    connection: Connection,
    rooms: ReadonlyArray<Buffer>,
    planned: boolean
  ): void {
    connection.count += 1
    const isNews = planned && this.plan.kind === "news"
    const news = isNews ? this.news[this.told++] : undefined
    const batch = planned && !isNews ? this.batches[this.planned % this.batches.length] : undefined
    const parts = [
      Buffer.from(`{"pos":"${connection.count}/s${this.planned}","lists":{${this.listsOf(asked)}},"rooms":`),
      ...(news === undefined ? braced(rooms) : [Buffer.from(news.json)]),
      Buffer.from(`,"extensions":{${this.extensionsOf(asked, batch)}}}`)
    ]
    const body = Buffer.concat(parts)
    answer(response, 200, body)
    this.log.push({
      connId: asked.connId,
      planned,
      fresh: asked.fresh,
      askedAtMillis: asked.askedAtMillis,
      answeredAtMillis: nowMillis(),
      rooms: rooms.length + (news?.rooms ?? 0),
      bytes: body.length,
      ...(news === undefined ? {} : { stamp: news.stamp })
    })
  }
}

const comma = Buffer.from(",")

/** Members joined into an object. */
const braced = (members: ReadonlyArray<Buffer>): ReadonlyArray<Buffer> => [
  Buffer.from("{"),
  ...members.flatMap((member, index) => (index === 0 ? [member] : [comma, member])),
  Buffer.from("}")
]

const answer = (response: ServerResponse, status: number, body: Buffer): void => {
  response.writeHead(status, { "content-type": "application/json", "content-length": body.length })
  response.end(body)
}
