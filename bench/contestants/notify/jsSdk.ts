/**
 * matrix-js-sdk as a client that runs all the time, since it knows no other process: `node jsSdk.ts <NotifyTask>`. Its login is
 * restored, its encryption is that of its WebAssembly with the store in memory, and its sliding sync brings rooms and keys.
 *
 * For a push it fetches the event, decrypts it (waiting for the key if that isn't there yet), and asks the push rules, which
 * it has by then.
 *
 * Gotchas: not bundled, since the package looks for its WebAssembly beside itself.
 */
import { silent } from "../start/silence.ts"
import { createClient, MatrixEventEvent } from "matrix-js-sdk"
import type { MatrixClient, MatrixEvent } from "matrix-js-sdk"
import { SlidingSync, SlidingSyncEvent, SlidingSyncState } from "matrix-js-sdk/lib/sliding-sync.js"
import { nowMillis, task } from "../Figures.ts"
import { die, obey, say } from "../lock/LockLine.ts"
import type { NotifyLine, NotifyTask } from "./NotifyLine.ts"
import { requests } from "./Requests.ts"

const { accessToken, baseUrl, deviceId, userId } = task<NotifyTask>()

const sayLine = (line: NotifyLine): void => say(line)

const decrypted = (event: MatrixEvent): Promise<void> =>
  new Promise((resolve) => {
    const look = (): void => {
      if (!event.isDecryptionFailure() && event.getType() !== "m.room.encrypted") resolve()
    }
    event.on(MatrixEventEvent.Decrypted, look)
    look()
  })

const resolve = async (client: MatrixClient, roomId: string, eventId: string): Promise<string> => {
  const event = client.getEventMapper()({ room_id: roomId, ...(await client.fetchRoomEvent(roomId, eventId)) })
  if (event.isEncrypted()) {
    await client.decryptEventIfNeeded(event)
    await decrypted(event)
  }
  if (client.getPushActionsForEvent(event)?.notify !== true) return die(`${eventId} is not to be shown`)
  if (client.getRoom(roomId)?.name === undefined) return die(`the room of ${eventId} has no name`)
  return String(event.getContent()["body"])
}

const push = async (client: MatrixClient, roomId: string, eventId: string, sinceMillis: number): Promise<void> => {
  const before = requests()
  const body = await resolve(client, roomId, eventId)
  const made = requests() - before
  sayLine({ event: "resolved", body, resolvedMillis: nowMillis() - sinceMillis, requests: made })
  sayLine({ event: "settled", requests: requests() - before })
}

const program = async (): Promise<void> => {
  const client = createClient({ baseUrl, accessToken, userId, deviceId, logger: silent })
  await client.initRustCrypto({ useIndexedDB: false })
  const list = { ranges: [[0, 19]], timeline_limit: 1, required_state: [["*", "*"]] }
  const subscription = { timeline_limit: 20, required_state: [] }
  const slidingSync = new SlidingSync(baseUrl, new Map([["rooms", list]]), subscription, client, 30_000)
  const synced = new Promise<void>((resolve) => {
    slidingSync.on(SlidingSyncEvent.Lifecycle, (state) => {
      if (state === SlidingSyncState.Complete && client.getRooms().length > 0) resolve()
    })
  })
  await client.startClient({ slidingSync, disablePresence: true })
  await synced
  obey((_, [roomId = "", eventId = ""]) => void push(client, roomId, eventId, nowMillis()))
  sayLine({ event: "ready" })
}

void program()
