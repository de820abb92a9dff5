/**
 * One account for tests, all in memory and in virtual time: a simulated homeserver, a simulated database, and processes.
 *
 * Compose it once, and write every test of an application against it.
 */
import { Inbox, SyncService } from "@twinloop/actors"
import {
  Homeserver,
  type LeaseStore,
  LeaseStoreMemory,
  PassThroughCrypto,
  RoomList,
  SyncConfig,
  type SyncStore
} from "@twinloop/core"
import { HomeserverSim, SyncStoreMemory, WakeMemory } from "@twinloop/core/testing"
import { Context, Effect, Layer } from "effect"

/** What a process of the account provides to the application. */
export type AppServices = SyncService.SyncService | Inbox.Inbox | RoomList.RoomList | Homeserver.Homeserver

/** What the processes of the account share. */
export class TestAccount extends Context.Service<
  TestAccount,
  {
    /** The device that the application runs on. */
    readonly session: HomeserverSim.SimSession
    /** A process of this role, its loops not started; each build is another one. */
    process(role: string): Layer.Layer<AppServices>
  }
>()("@twinloop/examples/TestAccount") {
  static readonly layer = Layer.effect(
    TestAccount,
    Effect.gen(function* () {
      const sim = yield* HomeserverSim.HomeserverSim
      const session = yield* sim.session("alice", "PHONE")
      const hub = yield* WakeMemory.makeHub
      const database = yield* Effect.context<LeaseStore | SyncStore.SyncStore>()
      return TestAccount.of({
        session,
        process: (role) =>
          SyncService.SyncService.layer.pipe(
            Layer.provide(PassThroughCrypto.layer),
            Layer.provideMerge(Layer.mergeAll(Inbox.Inbox.layer, RoomList.layer)),
            Layer.provideMerge(Layer.succeed(Homeserver.Homeserver, sim.homeserver(session))),
            Layer.provide([hub.process(role), Layer.succeedContext(database), SyncConfig.layer({ role })])
          )
      })
    })
  ).pipe(
    Layer.provideMerge(SyncStoreMemory.layer),
    Layer.provideMerge(LeaseStoreMemory.layerMemory),
    Layer.provideMerge(HomeserverSim.layer())
  )
}
