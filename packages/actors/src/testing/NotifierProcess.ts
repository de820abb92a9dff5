/**
 * Notification processes of a simulated host: everything between the push and what is shown is real but the cipher.
 *
 * Not here: processes whose loops run (`Simulation.ts`).
 */
import { CryptoEngine, EventDecryptor, ExtensionLoopMachine, NotificationClient } from "@twinloop/core"
import { SimulatedCrypto } from "@twinloop/core/testing"
import { Context, Effect, Exit, Layer, Scope } from "effect"
import * as Notifications from "../Notifications.ts"
import { type Process, type ProcessOptions, startProcess, type World } from "./Simulation.ts"

type Decryptor = EventDecryptor.EventDecryptor["Service"]

/**
 * Reads an event once as many to-device events were applied as its content's `wants` says: the last of them stands for its key.
 */
export const inboxDecryptor = (world: World): Decryptor => ({
  devices: () => Effect.succeed([]),
  status: Effect.die("nobody asks"),
  decrypt: (_, event) =>
    Effect.map(Effect.orDie(world.store.readInbox({ after: 0, limit: 1_000_000 })), (entries) =>
      entries.length < Number(event.content.wants)
        ? { _tag: "Undecryptable", reason: "MissingRoomKey", message: "no key yet" }
        : {
            _tag: "Decrypted",
            event: { ...event, type: "m.room.message", content: { body: "read" } },
            shield: { color: "none" },
            sessionId: "s",
            senderKey: "k"
          }
    )
})

/** The client in a process, whose loops need not run: the application's, or one that a push has started. */
export const clientIn = Effect.fnUntraced(function* (
  world: World,
  process: Pick<Process, "context">,
  decryptor: Decryptor = SimulatedCrypto.makeDecryptor(world.session, world.faults.cryptoRecords)
) {
  const context = yield* Layer.build(
    Notifications.layer.pipe(
      Layer.provide(Layer.succeed(EventDecryptor.EventDecryptor, decryptor)),
      Layer.provide(Layer.succeedContext(process.context))
    )
  )
  return Context.get(context, NotificationClient.NotificationClient)
})

export interface NotifierOptions extends ProcessOptions {
  readonly decryptor?: Decryptor
}

/** A process that a push has started. */
export const startNotifier = Effect.fnUntraced(function* (
  world: World,
  name = "notify",
  { decryptor, ...options }: NotifierOptions = {}
) {
  const engine = SimulatedCrypto.makeEngine(world.session, world.faults.cryptoRecords)
  const process = yield* startProcess(world, name, {
    crypto: Layer.succeed(CryptoEngine.CryptoEngine, engine),
    ...options,
    config: { notificationAppRole: "app", ...options.config }
  })
  const idle = yield* process.fibers
  const scope = yield* Scope.make()
  yield* Effect.addFinalizer(() => Effect.when(Scope.close(scope, Exit.void), process.isAlive))
  const client = yield* Scope.provide(clientIn(world, process, decryptor), scope)
  return {
    process,
    client,
    /** Runs in the process, by its clock: it ends with it. */
    fork: <A, E>(effect: Effect.Effect<A, E>) => Effect.forkIn(Effect.provideContext(effect, process.context), scope),
    /** Fibers that the client has started and not ended. */
    fibers: Effect.map(process.fibers, (running) => running - idle)
  }
})

/** Whether nobody owns the extension stream. */
export const isStreamFree = (world: World) =>
  Effect.map(world.leases.inspect(ExtensionLoopMachine.EXTENSION_LEASE), ({ rows }) =>
    rows.every(({ expiresAtMillis }) => expiresAtMillis === 0)
  )
