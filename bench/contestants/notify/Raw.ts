/**
 * The least that a notification takes: its requests, one after the other on one connection of `node:http`, and reading the JSON
 * of the answers. Nothing is decrypted, stored or locked, and no push rule is asked.
 *
 * The event comes with `/context`, as it also tells the room's state. Its key comes by one sliding sync for to-device messages,
 * which acknowledges nothing.
 */
import type { NotifyTask } from "./NotifyLine.ts"

// Not by an import, which also loads undici.
const http = process.getBuiltinModule("node:http")
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })

/** What an event is that is not decrypted. */
interface Fetched {
  readonly event: { readonly content: { readonly body?: string } }
}

const request = ({ accessToken, baseUrl }: NotifyTask, method: string, path: string, body?: object): Promise<unknown> =>
  new Promise((resolve, reject) => {
    const headers = { authorization: `Bearer ${accessToken}`, "content-type": "application/json" }
    const sent = http.request(`${baseUrl}/_matrix/client${path}`, { method, headers, agent }, (answer) => {
      let text = ""
      answer.setEncoding("utf8").on("data", (part: string) => (text += part))
      answer.once("end", () => {
        if (answer.statusCode === 200) resolve(JSON.parse(text))
        else reject(new Error(`${method} ${path}: ${answer.statusCode} ${text}`))
      })
    })
    sent.once("error", reject)
    sent.end(body === undefined ? undefined : JSON.stringify(body))
  })

/** Asks so many times: for the event, and for its key. Gives the event's text, which is empty when it is encrypted. */
export const fetch = async (task: NotifyTask, roomId: string, eventId: string, requests: 1 | 2): Promise<string> => {
  const path = `/v3/rooms/${encodeURIComponent(roomId)}/context/${encodeURIComponent(eventId)}?limit=0`
  const { event } = (await request(task, "GET", path)) as Fetched
  if (requests === 2) {
    const extensions = { e2ee: { enabled: true }, to_device: { enabled: true, limit: 100 } }
    const sync = "/unstable/org.matrix.simplified_msc3575/sync?timeout=0"
    await request(task, "POST", sync, { conn_id: "limit", lists: {}, extensions })
  }
  return event.content.body ?? ""
}
