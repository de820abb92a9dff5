/**
 * Twinloop opens an account with many room keys, and decrypts: `node store.ts <StoreTask>`. The owner's machine first, as it is
 * made at the start and after another process has had the stream, then the reader's.
 */
import { Effect } from "effect"
import { finish, nowMillis, quantile, task } from "../Figures.ts"
import * as Account from "./Account.ts"
import * as StoreTask from "./StoreTask.ts"

const { directory } = task<StoreTask.StoreTask>()

const RELOADS = 30

/** Times an effect, in milliseconds. */
const timed = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<number, E, R> =>
  Effect.suspend(() => {
    const from = nowMillis()
    return Effect.map(effect, () => nowMillis() - from)
  })

const program = Effect.gen(function* () {
  const { engine, fence, reader } = yield* Account.open(StoreTask.databaseIn(directory))
  yield* engine.reload(fence)
  const openMillis = process.uptime() * 1_000
  const reload = timed(Effect.andThen(engine.discard, engine.reload(fence)))
  const reloads = yield* Effect.replicateEffect(reload, RELOADS)
  const decrypt = StoreTask.events(directory).map(({ event, roomId }) =>
    timed(
      Effect.flatMap(reader.decrypt(roomId, event), (answer) =>
        answer._tag === "Decrypted" ? Effect.void : Effect.die(new Error(answer.message))
      )
    )
  )
  const [firstDecryptMillis = Number.NaN, ...others] = yield* Effect.all(decrypt)
  return {
    openMillis,
    reloadMillis: quantile(reloads, 0.5),
    firstDecryptMillis,
    nextDecryptMillis: quantile(others, 0.5),
    residentMegabytes: process.memoryUsage.rss() / 1e6
  }
}).pipe(Effect.scoped)

void Effect.runPromise(program).then(finish)
