/**
 * What the tests of the worker share: processes of one host with one queue, a client whose results are scripted, and one sink.
 *
 * A process is killed between two of its calls, as SIGKILL does: whatever it still wanted to do then comes to nothing, its
 * finalizers' writes as well.
 */
import {
  type DistributedSemaphore,
  Lease,
  LeaseStore,
  NotificationClient,
  type NotificationItem,
  NotificationSink,
  type StoreError,
  type SyncConfig,
  type Wake
} from "@twinloop/core"
import { WakeMemory } from "@twinloop/core/testing"
import { Clock, Context, Effect, Fiber, Layer, Stream } from "effect"
import type { Scope } from "effect"
import { TestClock } from "effect/testing"
import { PUSH_LEASE, PushQueue } from "../../src/push/PushQueue.ts"
import * as PushWorker from "../../src/push/PushWorker.ts"
import { messageOf } from "../sinks/SinkKit.ts"
import { temporaryFile } from "../SqliteKit.ts"
import * as Kit from "./PushKit.ts"

type Result = NotificationItem.NotificationResult
type Request = NotificationItem.NotificationRequest
type Sink = NotificationSink.NotificationSink["Service"]

/** Lets every fiber go as far as it gets without time passing. */
export const settle = Effect.asVoid(Effect.andThen(TestClock.adjust(0), Effect.repeat(Effect.yieldNow, { times: 300 })))

/** Settles, lets time pass, and settles again. */
export const advance = (millis: number) => Effect.andThen(settle, Effect.andThen(TestClock.adjust(millis), settle))

export const numberOf = ({ eventId }: Request): number => Number(eventId.slice(1))

export const message = (number: number): Result => messageOf(`$${number}`).result
export const silent = (_tag: "FilteredOut" | "Redacted" | "NotFound"): Result =>
  _tag === "FilteredOut" ? { _tag, reason: "pushRule", message: _tag } : { _tag, message: _tag }
export const expired: Result = { _tag: "Expired", missing: ["event"], message: "late" }
export const failed = (failure: NotificationItem.NotificationFailure["class"]): Result => ({
  _tag: "Failed",
  failure: { class: failure, message: failure },
  message: failure
})

export const sinkError = new NotificationSink.SinkError({ sink: "scripted", message: "The screen is dark." })

/** A host, its database, and what is outside of it. What happens is changed by setting a member. */
export interface World {
  readonly filename: string
  readonly hub: WakeMemory.Hub
  /** Numbers of the requests of each call to a client. */
  readonly batches: Array<ReadonlyArray<number>>
  /** How the numbers were resolved by anybody, in this order. */
  readonly resolved: Array<number>
  /** What a push comes to; `attempt` counts from 1. */
  resolve: (number: number, attempt: number) => Effect.Effect<Result>
  /** What a client's stream does once it has no more results of these. */
  over: (numbers: ReadonlyArray<number>) => Effect.Effect<void>
  /** Whether a client says nothing of a number. */
  isMute: (number: number) => boolean
  /** Whether a client says everything twice. */
  repeats: boolean
  /** What has been shown, in this order: a result's tag and its number. */
  readonly shown: Array<string>
  /** What the sink does before it shows, and after. */
  before: (number: number) => Effect.Effect<void, NotificationSink.SinkError>
  after: (number: number) => Effect.Effect<void, NotificationSink.SinkError>
  /** What happens before a push is removed, as by a database that is locked for a moment. */
  beforeDone: Effect.Effect<void>
  /** Absent: the sink can't tell. */
  isKnown: ((number: number) => Effect.Effect<boolean, NotificationSink.SinkError>) | undefined
}

export const makeWorld: Effect.Effect<World, never, Scope.Scope> = Effect.gen(function* () {
  const world: World = {
    filename: yield* temporaryFile,
    hub: yield* WakeMemory.makeHub,
    batches: [],
    resolved: [],
    resolve: (number) => Effect.succeed(message(number)),
    over: () => Effect.void,
    isMute: () => false,
    repeats: false,
    shown: [],
    before: () => Effect.void,
    after: () => Effect.void,
    beforeDone: Effect.void,
    isKnown: (number) => Effect.succeed(numbersOf(world).includes(number))
  }
  return world
})

/** The numbers that have been shown, in this order. */
export const numbersOf = ({ shown }: World): ReadonlyArray<number> => shown.map((one) => Number(one.split(" ")[1]))

const clientOf = (world: World): NotificationClient.NotificationClient["Service"] => {
  const resolveOne = (request: Request) =>
    Effect.suspend(() => {
      const number = numberOf(request)
      world.resolved.push(number)
      const attempt = world.resolved.filter((one) => one === number).length
      return Effect.map(world.resolve(number, attempt), (result) => ({ request, result }))
    })
  const unused = () => Effect.die("the worker wants each result as soon as it is there")
  return {
    resolve: unused,
    resolveMany: unused,
    resolving: (requests) => {
      const numbers = requests.map(numberOf)
      world.batches.push(numbers)
      const told = requests.filter((request) => !world.isMute(numberOf(request)))
      return Stream.fromIterable(world.repeats ? [...told, ...told] : told).pipe(
        Stream.mapEffect(resolveOne, { concurrency: "unbounded", unordered: true }),
        Stream.concat(Stream.drain(Stream.fromEffect(Effect.suspend(() => world.over(numbers)))))
      )
    },
    settled: Effect.void
  }
}

const sinkOf = (world: World): Sink => ({
  name: "scripted",
  show: ({ request, result }) =>
    Effect.gen(function* () {
      const number = numberOf(request)
      yield* world.before(number)
      world.shown.push(`${result._tag} ${number}`)
      yield* world.after(number)
    }),
  ...(world.isKnown !== undefined && { isKnown: (request: Request) => world.isKnown!(numberOf(request)) })
})

// --- processes

/** How a process goes on: after so many calls to what is outside of it, something happens to it. */
interface Life {
  isDead: boolean
  callsLeft: number
  end: Effect.Effect<void>
}

const living = (life: Life) => {
  const call = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.suspend(() => {
      life.callsLeft--
      const fate = life.callsLeft === 0 ? life.end : Effect.void
      return Effect.andThen(
        fate,
        Effect.suspend(() => (life.isDead ? Effect.die("this process is dead") : effect))
      )
    })
  const member = (self: object, value: unknown): unknown => {
    if (Effect.isEffect(value)) return call(value)
    if (typeof value !== "function") return value
    return (...args: ReadonlyArray<unknown>) => {
      const result: unknown = Reflect.apply(value, self, args)
      return Effect.isEffect(result) ? call(result) : result
    }
  }
  return <S extends object>(service: S): S =>
    Object.fromEntries(Object.entries(service).map(([name, value]) => [name, member(service, value)])) as S
}

type Failure = StoreError.StoreError | DistributedSemaphore.LeaseLost | PushWorker.CannotResolve

export interface Process {
  readonly name: string
  readonly worker: Fiber.Fiber<void, Failure>
  /** Reads of the queue by the worker. */
  readonly reads: () => number
  /** Runs something with this process's services. */
  readonly use: <A, E>(effect: Effect.Effect<A, E, Kit.Queue>) => Effect.Effect<A, E>
  /** Ends the process as SIGTERM does. */
  readonly stop: Effect.Effect<void>
  /** Ends it as SIGKILL does. */
  readonly kill: Effect.Effect<void>
}

/** Services of a process without a worker. */
export const open = (world: World, name: string, config: Partial<SyncConfig.SyncConfigShape> = {}) =>
  Layer.build(Kit.queueAt(world.filename, config, world.hub.process(name)))

export interface StartOptions extends Partial<PushWorker.Options> {
  readonly config?: Partial<SyncConfig.SyncConfigShape>
  readonly wake?: Layer.Layer<Wake>
  /** After this many calls to what is outside of it, the process is stopped or killed. */
  readonly fate?: { readonly calls: number; readonly end: "stop" | "kill" }
}

/** Starts a process with a worker, which ends with the scope. */
export const start = Effect.fnUntraced(function* (world: World, name: string, options: StartOptions = {}) {
  const { config = {}, fate, wake = world.hub.process(name), ...rest } = options
  const services = yield* Layer.build(Kit.queueAt(world.filename, config, wake))
  const life: Life = { isDead: false, callsLeft: fate?.calls ?? Number.POSITIVE_INFINITY, end: Effect.void }
  const alive = living(life)
  let reads = 0
  const queue = alive(Context.get(services, PushQueue))
  const counted = PushQueue.of({
    ...queue,
    waiting: (...args) => Effect.suspend(() => (reads++, queue.waiting(...args))),
    nextDueMillis: (...args) => Effect.suspend(() => (reads++, queue.nextDueMillis(...args))),
    done: (...args) =>
      Effect.andThen(
        Effect.suspend(() => world.beforeDone),
        queue.done(...args)
      )
  })
  const context = services.pipe(
    Context.add(PushQueue, counted),
    Context.add(LeaseStore, alive(Context.get(services, LeaseStore))),
    Context.add(NotificationClient.NotificationClient, clientOf(world)),
    Context.add(NotificationSink.NotificationSink, alive(sinkOf(world)))
  )
  const worker = yield* PushWorker.run({ idleMillis: 60_000, ...rest }).pipe(Effect.provide(context), Effect.forkScoped)
  const stop = Effect.sync(() => worker.interruptUnsafe())
  const kill = Effect.andThen(
    world.hub.kill(name),
    Effect.sync(() => {
      life.isDead = true
      worker.interruptUnsafe()
    })
  )
  life.end = fate?.end === "kill" ? kill : stop
  const process: Process = {
    name,
    worker,
    reads: () => reads,
    use: (effect) => Effect.provide(effect, services),
    stop: Effect.andThen(stop, Effect.asVoid(Fiber.await(worker))),
    kill: Effect.andThen(kill, Effect.asVoid(Fiber.await(worker)))
  }
  return process
})

/** A process that accepts, with a registered device. */
export const openGateway = Effect.fnUntraced(function* (world: World) {
  const services = yield* open(world, "gateway")
  const use = <A, E>(effect: Effect.Effect<A, E, Kit.Queue>): Effect.Effect<A, E> => Effect.provide(effect, services)
  yield* use(Kit.register())
  const queue = Context.get(services, PushQueue)
  return {
    use,
    queue,
    accept: (...numbers: ReadonlyArray<number>) => queue.accept(numbers.map((number) => Kit.push(number))),
    /** How many have the lease at this moment. */
    holders: Effect.gen(function* () {
      const { rows } = yield* Context.get(services, LeaseStore).inspect(PUSH_LEASE)
      const nowMillis = yield* Clock.currentTimeMillis
      return rows.filter((row) => Lease.isHeld(row, nowMillis)).length
    })
  }
})

export const range = (first: number, last: number): ReadonlyArray<number> =>
  Array.from({ length: last - first + 1 }, (_, index) => first + index)
