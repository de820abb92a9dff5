/**
 * Simulated processes of one account on one host: the database, the homeserver and the sockets are shared, everything else
 * each has for itself. Under `TestClock`.
 *
 * @example
 * ```ts
 * const world = yield* makeWorld()
 * const app = yield* startProcess(world, "app")
 * yield* app.service.start
 * yield* world.sim.sendNumbered(world.session, 10)
 * yield* settle
 * assert.deepStrictEqual(yield* appliedNumbers(world), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
 * ```
 */
import {
  type CryptoEngine,
  Homeserver,
  LeaseStore,
  LeaseStoreMemory,
  PassThroughCrypto,
  RoomList,
  SyncConfig,
  SyncStore,
  Wake
} from "@twinloop/core"
import { HomeserverSim, SyncStoreMemory, WakeMemory } from "@twinloop/core/testing"
import { Clock, Context, Effect, Exit, Layer, Metric, Scope, Struct } from "effect"
import * as Inbox from "../Inbox.ts"
import type { Suspendable } from "../Suspendables.ts"
import { Suspendables } from "../Suspendables.ts"
import * as SyncService from "../SyncService.ts"
import { makeGate } from "./Gate.ts"

const same = <A>(port: A): A => port

/** Everything that processes share. */
export interface World {
  readonly sim: HomeserverSim.HomeserverSim["Service"]
  /** The device whose processes are simulated. */
  readonly session: HomeserverSim.SimSession
  readonly hub: WakeMemory.Hub
  readonly leases: LeaseStore["Service"]
  readonly store: SyncStore.SyncStore["Service"]
  readonly faults: SyncStoreMemory.SyncStoreMemory["Service"]
}

/**
 * A host with an empty database, and a homeserver with one account on it.
 *
 * @param fences what the database believes of its lease rows when it checks a fence, for a look at what a checker sees
 */
export const makeWorld = Effect.fnUntraced(function* (
  options?: HomeserverSim.SimOptions,
  fences: (leases: LeaseStore["Service"]) => LeaseStore["Service"] = same
) {
  const database = SyncStoreMemory.layer.pipe(
    Layer.provide(Layer.effect(LeaseStore, Effect.map(LeaseStore, fences))),
    Layer.provideMerge(LeaseStoreMemory.layerMemory)
  )
  const shared = yield* Layer.build(Layer.merge(HomeserverSim.layer(options), database))
  const sim = Context.get(shared, HomeserverSim.HomeserverSim)
  const world: World = {
    sim,
    session: yield* sim.session("alice", "DEVICE"),
    hub: yield* WakeMemory.makeHub,
    leases: Context.get(shared, LeaseStore),
    store: Context.get(shared, SyncStore.SyncStore),
    faults: Context.get(shared, SyncStoreMemory.SyncStoreMemory)
  }
  return world
})

export interface ProcessOptions {
  readonly config?: Partial<SyncConfig.SyncConfigShape>
  readonly crypto?: Layer.Layer<CryptoEngine.CryptoEngine>
  readonly suspendables?: ReadonlyArray<Suspendable>
  /** Puts something between the process and its ports. */
  readonly homeserver?: (port: Homeserver.Homeserver["Service"]) => Homeserver.Homeserver["Service"]
  readonly store?: (port: SyncStore.SyncStore["Service"]) => SyncStore.SyncStore["Service"]
  readonly leases?: (port: LeaseStore["Service"]) => LeaseStore["Service"]
  readonly wake?: (port: Wake["Service"]) => Wake["Service"]
  readonly roomList?: (list: RoomList.RoomList["Service"]) => RoomList.RoomList["Service"]
  /** More that its fibers are given: a logger, say. */
  readonly references?: Layer.Layer<never>
}

export interface Process {
  readonly service: SyncService.SyncService["Service"]
  readonly rooms: RoomList.RoomList["Service"]
  readonly inbox: Inbox.Inbox["Service"]
  /** Everything that the process is made of, for actors that are made by hand. */
  readonly context: Context.Context<Services>
  /** Fibers of the process that have started and not ended. */
  readonly fibers: Effect.Effect<number>
  /** Whether it has not been killed. */
  readonly isAlive: Effect.Effect<boolean>
  /** Ends the process in an orderly way. */
  readonly end: Effect.Effect<void>
  /** SIGKILL: nothing of it reaches the outside any more, not even a finalizer. */
  readonly kill: Effect.Effect<void>
  /** SIGSTOP and SIGCONT. */
  readonly freeze: Effect.Effect<void>
  readonly thaw: Effect.Effect<void>
  /** Sets the clock that it reads forward, or with a negative number back. Timers that run go on as they were. */
  stepClock(millis: number): Effect.Effect<void>
}

type Services = Layer.Success<ReturnType<typeof servicesOf>>

const servicesOf = (
  ports: Layer.Layer<Ports>,
  crypto: Layer.Layer<CryptoEngine.CryptoEngine>,
  rooms: Layer.Layer<RoomList.RoomList>
) =>
  SyncService.SyncService.layer.pipe(
    Layer.provideMerge(Layer.mergeAll(Inbox.Inbox.layer, rooms, crypto)),
    Layer.provideMerge(ports)
  )

type Ports = Homeserver.Homeserver | SyncStore.SyncStore | LeaseStore | Wake

/** Counts the fibers of whoever is given the layer. */
const fiberCounter = () => {
  let running = 0
  const layer = Layer.succeed(Metric.FiberRuntimeMetrics, {
    recordFiberStart: () => void running++,
    recordFiberEnd: () => void running--
  })
  return { layer, running: Effect.sync(() => running) }
}

/** Starts a process of this name; its loops don't run yet. It is ended with the scope. */
export const startProcess = Effect.fnUntraced(function* (world: World, name: string, options: ProcessOptions = {}) {
  const gate = yield* makeGate
  const fibers = fiberCounter()
  const port = options.homeserver?.(world.sim.homeserver(world.session)) ?? world.sim.homeserver(world.session)
  const ports = Layer.mergeAll(
    Layer.succeed(Homeserver.Homeserver, gate.through(port)),
    Layer.succeed(SyncStore.SyncStore, gate.through((options.store ?? same)(world.store))),
    Layer.succeed(LeaseStore, gate.through((options.leases ?? same)(world.leases))),
    Layer.effect(Wake, Effect.map(Wake, options.wake ?? same)).pipe(Layer.provide(world.hub.process(name)))
  )
  const rooms = Layer.effect(RoomList.RoomList, Effect.map(RoomList.make, options.roomList ?? same))
  const references = Layer.mergeAll(
    SyncConfig.layer({ role: name, ...options.config }),
    Layer.succeed(Clock.Clock, gate.clock(yield* Clock.Clock)),
    Layer.succeed(Suspendables, options.suspendables ?? []),
    fibers.layer,
    options.references ?? Layer.empty
  )
  const scope = yield* Scope.make()
  const services = servicesOf(ports, options.crypto ?? PassThroughCrypto.layer, rooms)
  const context = yield* Layer.buildWithScope(Layer.provideMerge(services, references), scope)
  const end = Effect.when(Scope.close(scope, Exit.void), gate.isOpen)
  yield* Effect.addFinalizer(() => end)
  const process: Process = {
    service: Context.get(context, SyncService.SyncService),
    rooms: Context.get(context, RoomList.RoomList),
    inbox: Context.get(context, Inbox.Inbox),
    context,
    fibers: fibers.running,
    isAlive: gate.isOpen,
    end: Effect.asVoid(end),
    kill: Effect.andThen(gate.kill, world.hub.kill(name)),
    freeze: Effect.andThen(gate.freeze, world.hub.freeze(name)),
    thaw: Effect.andThen(gate.thaw, world.hub.thaw(name)),
    stepClock: gate.stepClock
  }
  return process
})

/** The numbers of the to-device events in the inbox, in the order in which they were applied. */
export const appliedNumbers = (world: World): Effect.Effect<ReadonlyArray<unknown>> =>
  world.store.readInbox({ after: 0, limit: 1_000_000 }).pipe(
    Effect.map((entries) => entries.map(({ event }) => Struct.get(event.content as Record<string, unknown>, "number"))),
    Effect.orDie
  )

/** The numbers that the homeserver has accepted for the device, in order: what must have been applied. */
export const acceptedNumbers = (world: World): Effect.Effect<ReadonlyArray<unknown>> =>
  Effect.map(world.sim.ledger(world.session), (ledger) => ledger.map(({ number }) => number))
