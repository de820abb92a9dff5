/**
 * Notification processes of a simulated host: everything between the push and what is shown is real but the cipher.
 *
 * Includes a room that two people share, and whether a process has left anything behind.
 */
import { CryptoEngine, EventDecryptor, ExtensionLoopMachine, NotificationClient } from "@twinloop/core"
import type { MatrixEvent, NotificationItem } from "@twinloop/core"
import { HomeserverModel, SimulatedCrypto } from "@twinloop/core/testing"
import { Context, Effect, Exit, Layer, Result, Scope } from "effect"
import * as Notifications from "../../src/Notifications.ts"
import { deviceOf, startChat } from "./Chat.ts"
import { makeWorld, type Process, type ProcessOptions, startProcess, type World } from "./Simulation.ts"
import { settle } from "./Time.ts"

type Decryptor = EventDecryptor.EventDecryptor["Service"]

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
    /** Runs in the process: it ends with it. */
    fork: <A, E>(effect: Effect.Effect<A, E>) => Effect.forkIn(effect, scope),
    /** Fibers that the client has started and not ended. */
    fibers: Effect.map(process.fibers, (running) => running - idle)
  }
})

/** Bob's device, and a room called Kitchen that he shares with Alice, the world's user. */
export const setUp = Effect.fnUntraced(function* (isEncrypted: boolean) {
  const world = yield* makeWorld()
  const bobs = yield* deviceOf(world, "bob", "BOB")
  const bob = yield* startChat(bobs, "bob")
  const roomId = yield* addRoom(world, "Kitchen", isEncrypted)
  yield* settle
  return { world, bobs, bob, roomId }
})

export const BOB = "@bob:localhost"

/** A room that Bob has made and Alice is in, and in which he is called Bob. */
export const addRoom = Effect.fnUntraced(function* (world: World, name: string, isEncrypted: boolean) {
  const roomId = yield* world.sim.addRoom({ members: [BOB, world.session.userId], isEncrypted, name })
  const content = { membership: "join", displayname: "Bob" }
  yield* world.sim.sendEvent(roomId, { type: "m.room.member", sender: BOB, stateKey: BOB, content })
  return roomId
})

/** Whether nobody owns the extension stream. */
export const isStreamFree = (world: World) =>
  Effect.map(world.leases.inspect(ExtensionLoopMachine.EXTENSION_LEASE), ({ rows }) =>
    rows.every(({ expiresAtMillis }) => expiresAtMillis === 0)
  )

/** Push rules of these overrides alone. */
export const setRules = (world: World, ...override: ReadonlyArray<MatrixEvent.JsonObject>) =>
  world.sim.setAccountData(world.session.userId, "m.push_rules", { global: { override } })

export const notifyAll = { rule_id: "all", enabled: true, conditions: [], actions: ["notify"] }

/** What a result says, as a person reads it. */
export const reading = (result: NotificationItem.NotificationResult | undefined): unknown => {
  switch (result?._tag) {
    case "Event":
      return { room: result.item.room.name, sender: result.item.sender.name, body: result.item.event.content.body }
    case "FilteredOut":
      return { filtered: result.rule ?? result.reason }
    case "Undecrypted":
      return { undecrypted: result.reason }
    default:
      return result?._tag
  }
}

/** A message by Bob in the Kitchen. */
export const says = (body: string, room = "Kitchen") => ({ room, sender: "Bob", body })

/** The item of a result that has one; anything else is the test's failure. */
export const itemOf = (result: NotificationItem.NotificationResult) =>
  result._tag === "Event" ? Effect.succeed(result.item) : Effect.die(result)

const withDevice = (
  world: World,
  change: (state: HomeserverModel.ModelState, requester: HomeserverModel.Requester) => void
) =>
  world.sim.model((state, nowMillis) =>
    change(state, Result.getOrThrow(HomeserverModel.authenticate(state, world.session.accessToken, nowMillis)))
  )

/** Keys that are sent from here on don't arrive before `deliverKeys`. */
export const holdKeys = (world: World) => withDevice(world, (state, { device }) => HomeserverModel.hold(state, device))

export const deliverKeys = (world: World) =>
  withDevice(world, (state, requester) => HomeserverModel.release(state, requester))
