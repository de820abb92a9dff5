/**
 * A process with Twinloop's `DistributedSemaphore` of one permit, over the database and the sockets that an application
 * uses: `node twinloop.ts <LockTask>`.
 */
import { DistributedSemaphore, SyncConfig } from "@twinloop/core"
import { SqliteStores, WakeSocket } from "@twinloop/platform"
import { Effect, Exit, Layer, ManagedRuntime, Scope } from "effect"
import { task } from "../Figures.ts"
import { die, type Lock, type LockTask } from "./LockLine.ts"
import { run } from "./Member.ts"

const make = async ({ config, database }: LockTask): Promise<Lock> => {
  const runtime = ManagedRuntime.make(
    Layer.mergeAll(SqliteStores.layer({ filename: database }), WakeSocket.layerDatabase(database)).pipe(
      Layer.provideMerge(SyncConfig.layer(config))
    )
  )
  await runtime.runPromise(Effect.void)
  const semaphores = new Map<string, Promise<DistributedSemaphore.DistributedSemaphore>>()
  const named = (name: string) => {
    const semaphore = semaphores.get(name) ?? runtime.runPromise(DistributedSemaphore.make({ name, permits: 1 }))
    semaphores.set(name, semaphore)
    return semaphore
  }
  return {
    take: async (name) => {
      const semaphore = await named(name)
      const scope = Scope.makeUnsafe()
      const grant = await runtime.runPromise(Scope.provide(semaphore.take, scope))
      runtime.runFork(Effect.flatMap(grant.lost, (lost) => Effect.sync(() => die(lost.message))))
      return () => runtime.runPromise(Scope.close(scope, Exit.void))
    }
  }
}

run(make(task<LockTask>()))
