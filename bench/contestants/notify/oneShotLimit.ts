/** The least, in a process that is started for it: `node oneShotLimit.cjs <NotifyTask> <1 or 2> <room> <event>`. */
import type { NotifyTask } from "./NotifyLine.ts"
import * as Raw from "./Raw.ts"

const [task = "", requests, roomId = "", eventId = ""] = process.argv.slice(2)

void Raw.fetch(JSON.parse(task) as NotifyTask, roomId, eventId, Number(requests) as 1 | 2).then((body) => {
  process.stdout.write(`${JSON.stringify({ body })}\n`, () => process.exit(0))
})
