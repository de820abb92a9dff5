/**
 * The least that a durable client has to do with the same bytes: parse them, and write one row per event with one prepared
 * statement. `node limit.ts <SyncTask>`.
 *
 * Initial load and to-device messages: the responses are fetched beforehand, and what is measured is `JSON.parse` and the
 * rows (all rooms in one transaction, with `synchronous=NORMAL`; a transaction per batch of messages, with FULL). "In series"
 * is the same with the responses fetched one after the other, over HTTP with undici, and a transaction for each; so are
 * incremental responses.
 */
import { DatabaseSync } from "node:sqlite"
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

/** A database with one table, one statement that writes it, and transactions. */
const open = (name: string) => {
  const db = new DatabaseSync(name)
  db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL")
  db.exec("CREATE TABLE event (number INTEGER PRIMARY KEY, room TEXT, id TEXT, type TEXT, at INTEGER, json TEXT)")
  const insert = db.prepare("INSERT INTO event (room, id, type, at, json) VALUES (?, ?, ?, ?, ?)")
  const write = (room: string, events: ReadonlyArray<Event>): void => {
    for (const event of events) {
      const { event_id = null, origin_server_ts = null, type } = event
      insert.run(room, event_id, type, origin_server_ts, JSON.stringify(event))
    }
  }
  return {
    begin: db.prepare("BEGIN IMMEDIATE"),
    commit: db.prepare("COMMIT"),
    /** From now on each commit is synced to disk. */
    sync: () => db.exec("PRAGMA synchronous = FULL"),
    write,
    writeRooms: ({ rooms }: Response): void => {
      for (const id in rooms) {
        const { required_state = [], timeline } = rooms[id]!
        write(id, required_state)
        write(id, timeline)
      }
    },
    close: () => db.close()
  }
}

const agent = new Agent()
const headers = { "content-type": "application/json", authorization: "Bearer bench-token" }

const ask = async (query: string, body: object): Promise<Buffer> => {
  const url = `${baseUrl}/_matrix/client/unstable/org.matrix.simplified_msc3575/sync?${query}`
  const answer = await request(url, { method: "POST", headers, body: JSON.stringify(body), dispatcher: agent })
  return Buffer.from(await answer.body.arrayBuffer())
}

const listRequest = (connId: string, start: number, end: number) => ({
  conn_id: connId,
  lists: { rooms: { ranges: [[start, end]], timeline_limit: 1, required_state: [["*", "*"]] } },
  extensions: { account_data: { enabled: true }, receipts: { enabled: true }, typing: { enabled: true } }
})

const parse = (bytes: Buffer): Response => JSON.parse(bytes.toString("utf8")) as Response

const figures: Record<string, number> = {}

/** Asks for all pages, each with the position of the one before; gives the last position. */
const askForPages = async (connId: string, use: (page: Buffer) => void): Promise<string> => {
  let query = "timeout=0"
  let pos = ""
  for (let start = 0; start < rooms; start += PAGE) {
    const page = await ask(query, listRequest(connId, start, Math.min(start + PAGE, rooms) - 1))
    use(page)
    pos = /"pos":"([^"]+)"/.exec(page.subarray(0, 200).toString())![1]!
    query = `timeout=0&pos=${pos}`
  }
  return pos
}

const load = async (): Promise<void> => {
  const pages: Array<Buffer> = []
  await askForPages("limit", (page) => pages.push(page))
  const db = open(database)
  let startedAt = nowMillis()
  db.begin.run()
  for (const page of pages) db.writeRooms(parse(page))
  db.commit.run()
  figures["ingestMillis"] = nowMillis() - startedAt
  figures["peakMegabytes"] = peakMegabytes()
  db.close()

  const series = open(`${database}-series`)
  startedAt = nowMillis()
  await askForPages("series", (page) => {
    const response = parse(page)
    series.begin.run()
    series.writeRooms(response)
    series.commit.run()
  })
  figures["ingestInSeriesMillis"] = nowMillis() - startedAt
  series.close()
}

const follow = async (): Promise<void> => {
  const db = open(`${database}-news`)
  let pos = await askForPages("news", () => {})
  const from = nowMillis()
  await plan(baseUrl, { kind: "news", count: news })
  for (let count = 0; count < news; count++) {
    const response = parse(await ask(`timeout=30000&pos=${pos}`, listRequest("news", 0, rooms - 1)))
    db.begin.run()
    db.writeRooms(response)
    db.commit.run()
    pos = response.pos
  }
  figures["responsesPerSecond"] = (news * 1_000) / (nowMillis() - from)
  db.close()
}

/** Asks for batches of messages, one after the other. */
const askForBatches = async (connId: string, use: (batch: Buffer) => void): Promise<number> => {
  const body = { conn_id: connId, extensions: { to_device: { enabled: true }, e2ee: { enabled: true } } }
  let { pos } = parse(await ask("timeout=0", body))
  await plan(baseUrl, { kind: "toDevice", count: toDevice })
  const from = nowMillis()
  for (let count = 0; count < toDevice; count++) {
    const batch = await ask(`timeout=30000&pos=${pos}`, body)
    pos = /"pos":"([^"]+)"/.exec(batch.subarray(0, 200).toString())![1]!
    use(batch)
  }
  return nowMillis() - from
}

const takeMessages = async (): Promise<void> => {
  const db = open(`${database}-messages`)
  db.sync()
  const take = (batch: Buffer): void => {
    const { events } = parse(batch).extensions.to_device!
    db.begin.run()
    db.write("", events)
    db.commit.run()
  }
  const batches: Array<Buffer> = []
  await askForBatches("messages", (batch) => batches.push(batch))
  const from = nowMillis()
  for (const batch of batches) take(batch)
  const perSecond = (millis: number): number => (toDevice * BATCH * 1_000) / millis
  figures["toDevicePerSecond"] = perSecond(nowMillis() - from)
  figures["toDeviceInSeriesPerSecond"] = perSecond(await askForBatches("messages in series", take))
  db.close()
}

void load()
  .then(() => (news > 0 ? follow() : undefined))
  .then(() => (toDevice > 0 ? takeMessages() : undefined))
  .then(() => finish(figures))
