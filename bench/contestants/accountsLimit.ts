/**
 * What any implementation has to keep for many accounts: an open database with the same tables, and two requests that the
 * homeserver holds. `node --expose-gc accountsLimit.ts <AccountsTask>`.
 */
import { Agent, request, type ClientRequest } from "node:http"
import { DatabaseSync } from "node:sqlite"
import * as AccountFiles from "./AccountFiles.ts"
import type { AccountsTask } from "./AccountsTask.ts"
import { finish, task } from "./Figures.ts"
import * as ManyAccounts from "./ManyAccounts.ts"

const asked = task<AccountsTask>()
const agent = new Agent({ keepAlive: true })
const SYNC = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"

interface Asked {
  readonly connId: string
  readonly pos?: string
}

/** Asks for nothing but the position; the first answer comes at once, the next is held. */
const sync = (number: number, { connId, pos }: Asked): ClientRequest => {
  const query = pos === undefined ? "timeout=0" : `timeout=30000&pos=${encodeURIComponent(pos)}`
  const headers = { authorization: `Bearer ${AccountFiles.tokenOf(number)}`, "content-type": "application/json" }
  const asking = request(`${asked.baseUrl}${SYNC}?${query}`, { method: "POST", agent, headers })
  // A request that is given up ends with an error.
  asking.on("error", () => {})
  asking.end(JSON.stringify({ conn_id: connId, lists: {}, extensions: {} }))
  return asking
}

/** The position in the answer. */
const answerTo = (asking: ClientRequest): Promise<string> =>
  new Promise((resolve) =>
    asking.once("response", (response) => {
      let text = ""
      response.setEncoding("utf8").on("data", (part: string) => (text += part))
      response.once("end", () => resolve((JSON.parse(text) as { readonly pos: string }).pos))
    })
  )

const hold = async (number: number, connId: string): Promise<ClientRequest> =>
  sync(number, { connId, pos: await answerTo(sync(number, { connId })) })

const kept = new Set<object>()

const start: ManyAccounts.Start = async (number) => {
  const db = new DatabaseSync(AccountFiles.fileOf(asked.directory, number), { timeout: 0 })
  db.exec("PRAGMA synchronous = NORMAL; UPDATE account_session SET revision = revision + 1")
  const held = await Promise.all([hold(number, "rooms"), hold(number, "extension")])
  const account = { db, held }
  kept.add(account)
  return async () => {
    for (const request of held) request.destroy()
    db.close()
    kept.delete(account)
  }
}

void AccountFiles.prepare(asked)
  .then(() => ManyAccounts.measure(asked.accounts, start))
  .then(finish)
