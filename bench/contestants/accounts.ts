/** Many accounts of Twinloop in one process: `node --expose-gc accounts.ts <AccountsTask>`. */
import { Inbox, SyncService } from "@twinloop/actors"
import { PassThroughCrypto, RoomList, Wake } from "@twinloop/core"
import { SqliteStores, Twinloop } from "@twinloop/platform"
import { type Context, Effect, Exit, Layer, Scope, Stream } from "effect"
import * as AccountFiles from "./AccountFiles.ts"
import type { AccountsTask } from "./AccountsTask.ts"
import { type Figures, finish, task } from "./Figures.ts"
import * as ManyAccounts from "./ManyAccounts.ts"
import * as MemoryPorts from "./MemoryPorts.ts"

const asked = task<AccountsTask>()

/** The service over ports that are provided. */
const actors = SyncService.SyncService.layer.pipe(
  Layer.provide(Layer.mergeAll(Inbox.Inbox.layer, RoomList.layer, PassThroughCrypto.layer))
)

/** How the service of an account is made. */
const layers = {
  actors: () => Layer.provide(actors, MemoryPorts.layer),
  sqlite: (filename: string) =>
    Layer.provide(actors, Layer.mergeAll(SqliteStores.layer({ filename }), MemoryPorts.homeserver, Wake.layerNone)),
  whole: (database: string) => Twinloop.layer({ database }),
  single: (database: string) => Twinloop.layer({ database, singleProcess: true })
}

/** Starts the service and waits until both loops are in sync. */
const inSync = Effect.gen(function* () {
  const service = yield* SyncService.SyncService
  yield* service.start
  const states = Stream.filter(
    service.changes,
    ({ extension, main }) => main._tag === "Syncing" && extension._tag === "Syncing"
  )
  yield* Stream.runHead(states)
})

const startIn =
  (shared: Context.Context<never>): ManyAccounts.Start =>
  async (number) => {
    const scope = Scope.makeUnsafe()
    const layer = layers[asked.parts](AccountFiles.fileOf(asked.directory, number))
    const started = Effect.flatMap(Layer.buildWithScope(layer, scope), (context) => Effect.provide(inSync, context))
    await Effect.runPromise(Effect.provideContext(started, shared))
    return () => Effect.runPromise(Scope.close(scope, Exit.void))
  }

const work = async (): Promise<Figures> => {
  if (asked.parts !== "actors") await AccountFiles.prepare(asked)
  const shared = await Effect.runPromise(Layer.buildWithScope(Twinloop.layerShared, Scope.makeUnsafe()))
  return ManyAccounts.measure(asked.accounts, startIn(shared))
}

void work().then(finish)
