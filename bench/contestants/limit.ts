/**
 * The least that a durable client has to do with the same bytes: parse them, and write one row per event with one prepared
 * statement. `node limit.ts <SyncTask>`.
 *
 * Initial load and to-device messages: the responses are fetched beforehand, and what is measured is `JSON.parse` and the
 * rows (all rooms in one transaction, with `synchronous=NORMAL`; a transaction per batch of messages, with FULL).
 * Incremental responses: one after the other over HTTP, with undici, parsed and written in a transaction each.
 */
import { DatabaseSync, type StatementSync } from "node:sqlite"
import { Agent, request } from "undici"
import { BATCH } from "../homeserver/CannedHomeserver.ts"
import { finish, nowMillis, peakMegabytes, plan, task } from "./Figures.ts"
import type { SyncTask } from "./SyncTask.ts"

interface Event {
  readonly type: string
  readonly sender: string
  readonly event_id?: string
  readonly origin_server_ts?: number
}

interface Response {
  readonly pos: string
  readonly rooms: {
    readonly [id: string]: { readonly required_state?: ReadonlyArray<Event>; readonly timeline: ReadonlyArray<Event> }
  }
  readonly extensions: { readonly to_device?: { readonly next_batch: string; readonly events: ReadonlyArray<Event> } }
}

const { baseUrl, database, news, rooms, toDevice } = task<SyncTask>()

/** Rooms per page, as Twinloop asks for them. */
const PAGE = 100

const db = new DatabaseSync(database)
db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL")
db.exec("CREATE TABLE event (number INTEGER PRIMARY KEY, room TEXT, id TEXT, type TEXT, at INTEGER, json TEXT)")
const insert = db.prepare("INSERT INTO event (room, id, type, at, json) VALUES (?, ?, ?, ?, ?)")
const begin = db.prepare("BEGIN IMMEDIATE")
const commit = db.prepare("COMMIT")

const write = (insert: StatementSync, room: string, events: ReadonlyArray<Event>): void => {
  for (const event of events) {
    const { event_id = null, origin_server_ts = null, type } = event
    insert.run(room, event_id, type, origin_server_ts, JSON.stringify(event))
  }
}

const writeRooms = (response: Response): void => {
  for (const id in response.rooms) {
    const { required_state = [], timeline } = response.rooms[id]!
    write(insert, id, required_state)
    write(insert, id, timeline)
  }
}

const agent = new Agent()
const headers = { "content-type": "application/json", authorization: "Bearer bench-token" }

const ask = async (query: string, body: object): Promise<Buffer> => {
  const url = `${baseUrl}/_matrix/client/unstable/org.matrix.simplified_msc3575/sync?${query}`
  const answer = await request(url, { method: "POST", headers, body: JSON.stringify(body), dispatcher: agent })
  return Buffer.from(await answer.body.arrayBuffer())
}

const listRequest = (end: number) => ({
  conn_id: "limit",
  lists: { rooms: { ranges: [[0, end]], timeline_limit: 1, required_state: [["*", "*"]] } },
  extensions: { account_data: { enabled: true }, receipts: { enabled: true }, typing: { enabled: true } }
})

const parse = (bytes: Buffer): Response => JSON.parse(bytes.toString("utf8")) as Response

const figures: Record<string, number> = {}

const pages: Array<Buffer> = []
let pos: string | undefined
for (let end = PAGE - 1; ; end += PAGE) {
  const page = await ask(pos === undefined ? "timeout=0" : `timeout=0&pos=${pos}`, listRequest(end))
  pages.push(page)
  pos = /"pos":"([^"]+)"/.exec(page.subarray(0, 200).toString())![1]!
  if (end >= rooms - 1) break
}
const startedAt = nowMillis()
begin.run()
for (const page of pages) writeRooms(parse(page))
commit.run()
figures["ingestMillis"] = nowMillis() - startedAt
figures["peakMegabytes"] = peakMegabytes()

if (news > 0) {
  const from = nowMillis()
  await plan(baseUrl, { kind: "news", count: news })
  for (let count = 0; count < news; count++) {
    const response = parse(await ask(`timeout=30000&pos=${pos}`, listRequest(rooms - 1)))
    begin.run()
    writeRooms(response)
    commit.run()
    pos = response.pos
  }
  figures["responsesPerSecond"] = (news * 1_000) / (nowMillis() - from)
}
if (toDevice > 0) {
  const batches: Array<Buffer> = []
  await plan(baseUrl, { kind: "toDevice", count: toDevice })
  const body = { conn_id: "limit-to-device", extensions: { to_device: { enabled: true }, e2ee: { enabled: true } } }
  let since = parse(await ask("timeout=0", body)).pos
  for (let count = 0; count < toDevice; count++) {
    const batch = await ask(`timeout=30000&pos=${since}`, body)
    since = parse(batch).pos
    batches.push(batch)
  }
  db.exec("PRAGMA synchronous = FULL")
  const from = nowMillis()
  for (const batch of batches) {
    const { events } = parse(batch).extensions.to_device!
    begin.run()
    write(insert, "", events)
    commit.run()
  }
  figures["toDevicePerSecond"] = (toDevice * BATCH * 1_000) / (nowMillis() - from)
}
db.close()
finish(figures)
