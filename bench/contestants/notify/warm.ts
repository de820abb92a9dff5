/**
 * Twinloop as a process that resolves one push after the other, as a push gateway's worker: `node warm.cjs <NotifyTask>`.
 *
 * A push counts from the line that tells its ids. The next one should wait until everything has settled.
 */
import { NotificationClient } from "@twinloop/core"
import { StoreKey, Twinloop } from "@twinloop/platform"
import { Cause, Effect } from "effect"
import { nowMillis, task } from "../Figures.ts"
import { die, obey, say } from "../lock/LockLine.ts"
import type { NotifyLine, NotifyTask } from "./NotifyLine.ts"
import { requests } from "./Requests.ts"

const { database } = task<NotifyTask>()

const sayLine = (line: NotifyLine): void => say(line)

const program = Effect.gen(function* () {
  const client = yield* NotificationClient.NotificationClient
  const runFork = Effect.runForkWith(yield* Effect.context<never>())
  const push = Effect.fnUntraced(function* (roomId: string, eventId: string, sinceMillis: number) {
    const before = requests()
    const result = yield* client.resolve({ roomId, eventId })
    if (result._tag !== "Event") return die(`${eventId} is ${result._tag}: ${result.message}`)
    const body = String(result.item.event.content.body)
    sayLine({ event: "resolved", body, resolvedMillis: nowMillis() - sinceMillis, requests: requests() - before })
    yield* client.settled
    sayLine({ event: "settled", requests: requests() - before })
  })
  obey((_, [roomId = "", eventId = ""]) => {
    runFork(
      Effect.catchCause(push(roomId, eventId, nowMillis()), (cause) => Effect.sync(() => die(Cause.pretty(cause))))
    )
  })
  sayLine({ event: "ready" })
  return yield* Effect.never
})

const encryption = StoreKey.StoreKey.layerFile(`${database}.key`)
void Effect.runPromise(Effect.provide(program, Twinloop.layerNotifier({ database, encryption })))
