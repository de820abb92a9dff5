/**
 * A process that takes turns at the stream with another one: `node handover.ts <HandoverTask>`. Reads `take NUMBER` (waits for
 * the stream, loads its machine unless memory is valid, and commits the batch of that number) and `release`.
 *
 * The stream, the turns at the machine and the commit are the extension loop's own parts; there is no homeserver.
 */
import { CryptoTurn, EncryptionNews } from "@twinloop/actors"
import { CryptoEngine, DistributedSemaphore, SyncConfig, SyncStore } from "@twinloop/core"
import { SqliteStores, WakeSocket } from "@twinloop/platform"
import { Cause, Context, Effect, Exit, Layer, Scope } from "effect"
import { readFileSync } from "node:fs"
import { nowMillis, task } from "../Figures.ts"
import { die, obey, say } from "../lock/LockLine.ts"
import * as Account from "./Account.ts"
import { batchesIn, type HandoverLine, type HandoverTask } from "./HandoverLine.ts"
import type { ToDeviceEvent } from "./KeyDirectory.ts"
import { databaseIn } from "./StoreTask.ts"

const { directory } = task<HandoverTask>()
const database = databaseIn(directory)
const batches = JSON.parse(readFileSync(batchesIn(directory), "utf8")) as ReadonlyArray<ReadonlyArray<ToDeviceEvent>>

/** Long enough for a hand-over to be over: whoever is woken may have to wait until this process does nothing. */
const SAY_MILLIS = 50

const sayLater = (line: HandoverLine): void => void setTimeout(say, SAY_MILLIS, line)

let reloads = 0

/** Counts how often the machine is made. */
const counting = Layer.effect(
  CryptoEngine.CryptoEngine,
  Effect.map(CryptoEngine.CryptoEngine, (engine) =>
    CryptoEngine.CryptoEngine.of({
      ...engine,
      reload: (fence) =>
        Effect.suspend(() => {
          reloads++
          return engine.reload(fence)
        })
    })
  )
).pipe(Layer.provide(Account.encryption))

const services = CryptoTurn.CryptoTurn.layer.pipe(
  Layer.provide(Layer.merge(counting, EncryptionNews.EncryptionNews.layer)),
  Layer.provideMerge(
    Layer.mergeAll(SqliteStores.layer({ filename: database }), WakeSocket.layerDatabase(database)).pipe(
      Layer.provideMerge(SyncConfig.layer({}))
    )
  )
)

const program = Effect.gen(function* () {
  const context = yield* Layer.build(services)
  const turn = Context.get(context, CryptoTurn.CryptoTurn)
  const store = Context.get(context, SyncStore.SyncStore)
  const stream = yield* Effect.provide(DistributedSemaphore.make({ name: "extension", permits: 1 }), context)
  let scope = Scope.makeUnsafe()

  const receive = (batch: ReadonlyArray<ToDeviceEvent>) =>
    Effect.gen(function* () {
      const sent = yield* store.extensionPosition
      const since = `${Number(sent.since ?? 0) + 1}`
      return yield* turn.commit(
        (engine, fence) => engine.receive(fence, { toDevice: batch, fresh: false }),
        (fence, { news, value, writes }) =>
          store.commitExtension(fence, {
            ...(sent.since === undefined ? {} : { sentSince: sent.since }),
            position: { pos: "1", since },
            inbox: value.inbox,
            crypto: writes,
            news,
            quarantined: value.quarantined
          })
      )
    })

  const take = Effect.fnUntraced(function* (number: number) {
    scope = Scope.makeUnsafe()
    say({ event: "asked" } satisfies HandoverLine)
    const grant = yield* Scope.provide(stream.take, scope)
    const takenAtMillis = nowMillis()
    yield* turn.open(grant)
    yield* turn.load
    const loadedAtMillis = nowMillis()
    const batch = batches[number]!
    const entries = yield* receive(batch)
    const atMillis = nowMillis()
    const decrypted = entries.filter(({ encryption }) => encryption === "decrypted").length
    if (decrypted < batch.length) return die(`${decrypted} of ${batch.length} messages were decrypted`)
    sayLater({ event: "committed", takenAtMillis, loadedAtMillis, atMillis, reloads })
  })

  const release = Effect.suspend(() => {
    const atMillis = nowMillis()
    sayLater({ event: "released", atMillis })
    return Effect.andThen(turn.close, Scope.close(scope, Exit.void))
  })

  const runFork = Effect.runForkWith(yield* Effect.context<never>())
  obey((verb, [number]) => {
    const command: Effect.Effect<unknown, unknown> = verb === "take" ? take(Number(number)) : release
    runFork(Effect.catchCause(command, (cause) => Effect.sync(() => die(Cause.pretty(cause)))))
  })
  say({ event: "ready" } satisfies HandoverLine)
  return yield* Effect.never
}).pipe(Effect.scoped)

void Effect.runPromise(program)
