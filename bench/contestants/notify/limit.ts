/** The least, in a process that runs: `node limit.cjs <NotifyTask> <1 or 2>`, which is how many requests it makes for a push. */
import { nowMillis, task } from "../Figures.ts"
import { obey, say } from "../lock/LockLine.ts"
import type { NotifyLine, NotifyTask } from "./NotifyLine.ts"
import * as Raw from "./Raw.ts"

const account = task<NotifyTask>()
const requests = Number(process.argv[3]) as 1 | 2

const sayLine = (line: NotifyLine): void => say(line)

const push = async (roomId: string, eventId: string, sinceMillis: number): Promise<void> => {
  const body = await Raw.fetch(account, roomId, eventId, requests)
  sayLine({ event: "resolved", body, resolvedMillis: nowMillis() - sinceMillis, requests })
  sayLine({ event: "settled", requests })
}

obey((_, [roomId = "", eventId = ""]) => void push(roomId, eventId, nowMillis()))
sayLine({ event: "ready" })
