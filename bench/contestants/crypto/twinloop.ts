/**
 * Twinloop's end-to-end encryption: `node twinloop.ts <CryptoTask>`. Each batch is received, and committed under a fence and
 * synced to disk together with its messages; then the reader decrypts an event of each room, from what is committed.
 */
import { Effect } from "effect"
import { finish, nowMillis, peakMegabytes, task } from "../Figures.ts"
import * as Account from "./Account.ts"
import { BATCH, type CryptoTask, SENDERS, WARM_UP } from "./CryptoTask.ts"
import { KeyDirectory } from "./KeyDirectory.ts"
import { type RoomEvent, Senders } from "./Senders.ts"

const { batches, database, passes } = task<CryptoTask>()

const decryptAll = (account: Account.Account, events: ReadonlyArray<RoomEvent>) =>
  Effect.forEach(
    events,
    ({ event, roomId }) =>
      Effect.flatMap(account.reader.decrypt(roomId, event), (answer) =>
        answer._tag === "Decrypted" ? Effect.void : Effect.die(new Error(answer.message))
      ),
    { discard: true }
  )

const program = Effect.gen(function* () {
  const directory = new KeyDirectory()
  const account = yield* Account.open(database)
  yield* account.engine.reload(account.fence)
  yield* Account.flush(account, directory)
  const senders = yield* Effect.promise(() => Senders.open(directory, Account.ME, SENDERS))
  yield* Account.change(account, account.engine.track(account.fence, senders.userIds))
  yield* Account.flush(account, directory)

  const events: Array<RoomEvent> = []
  let took = 0
  for (let turn = 0; turn < WARM_UP + batches; turn++) {
    const batch = yield* Effect.promise(() => senders.batch(BATCH))
    events.push(...batch.events)
    const from = nowMillis()
    const decrypted = yield* Account.receive(account, batch.toDevice, turn)
    if (turn >= WARM_UP) took += nowMillis() - from
    if (decrypted !== BATCH) return yield* Effect.die(new Error(`${decrypted} of ${BATCH} messages were decrypted`))
  }
  const figures: Record<string, number> = {}
  if (passes === 0) figures["messagesPerSecond"] = (batches * BATCH * 1_000) / took
  if (passes > 0) {
    yield* decryptAll(account, events)
    const from = nowMillis()
    for (let pass = 0; pass < passes; pass++) yield* decryptAll(account, events)
    figures["eventsPerSecond"] = (passes * events.length * 1_000) / (nowMillis() - from)
  }
  return { ...figures, peakMegabytes: peakMegabytes() }
}).pipe(Effect.scoped)

void Effect.runPromise(program).then(finish)
