/**
 * matrix-js-sdk as an application that starts with nothing, since it keeps nothing in Node:
 * `node applicationJsSdk.cjs <address> <rooms>`. Says when all rooms are known, then ends.
 */
import { silent } from "./silence.ts"
import { createClient } from "matrix-js-sdk"
import { SlidingSync, SlidingSyncEvent, SlidingSyncState } from "matrix-js-sdk/lib/sliding-sync.js"
import { DEVICE, ME } from "../../data/SyntheticAccount.ts"
import { say } from "./StartLine.ts"

const [baseUrl = "", wanted = ""] = process.argv.slice(2)

const client = createClient({ baseUrl, accessToken: "bench-token", userId: ME, deviceId: DEVICE, logger: silent })
const list = { ranges: [[0, Number(wanted) - 1]], timeline_limit: 1, required_state: [["*", "*"]] }
const subscription = { timeline_limit: 20, required_state: [] }
const slidingSync = new SlidingSync(baseUrl, new Map([["rooms", list]]), subscription, client, 30_000)

slidingSync.on(SlidingSyncEvent.Lifecycle, (state) => {
  const rooms = client.getRooms().length
  if (state !== SlidingSyncState.Complete || rooms !== Number(wanted)) return
  say({ done: "synced", rooms })
  process.exit(0)
})
void client.startClient({ slidingSync, disablePresence: true })
