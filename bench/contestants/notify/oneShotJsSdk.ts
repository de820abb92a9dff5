/**
 * matrix-js-sdk in a process that is started by a push: `node oneShotJsSdk.cjs <NotifyTask> <room> <event>`. Its login is
 * restored, and it fetches the event. It has no push rules and no room's name, since it keeps nothing in Node; for the same
 * reason such a process can't decrypt: the keys of the device were in the memory of the one before.
 */
import { silent } from "../start/silence.ts"
import { createClient } from "matrix-js-sdk"
import type { NotifyTask } from "./NotifyLine.ts"

const [task = "", roomId = "", eventId = ""] = process.argv.slice(2)
const { accessToken, baseUrl, deviceId, userId } = JSON.parse(task) as NotifyTask

const client = createClient({ baseUrl, accessToken, userId, deviceId, logger: silent })

void client.fetchRoomEvent(roomId, eventId).then((fetched) => {
  const { body } = client.getEventMapper()(fetched).getContent()
  // It leaves timers behind.
  process.stdout.write(`${JSON.stringify({ body })}\n`, () => process.exit(0))
})
