/**
 * A semaphore whose permits are shared by processes: Effect's `Semaphore`, over a `LeaseStore`.
 *
 * Includes `make`, the scoped `take` and `tryTake`, `withPermits`, `hurry`, and the `Grant` with its generation. Waiting is
 * interruptible, first come first served, and ends by signal, with a bounded poll behind it. Who waits can ask who holds to
 * yield: `hurry` on the one side, `Grant.wanted` on the other.
 *
 * Invariants: I1 (a grant carries the generation that every write must show), I4 (the lease row is free when the scope is
 * closed), I5 (`isDirty` compares with the one generation under which memory is valid), I10.
 *
 * Gotchas: `effect` under `withPermits` fails with `LeaseLost` at once when the grant is lost; a grant from `take` only
 * says so (`lost`), and whoever took it must race his work against it. Either way the fence in the commit is what protects
 * the data. `wanted` is a wish: nothing is lost when it isn't granted, and when it is, the permit goes to the first waiter,
 * who need not be the one in a hurry; that one then learns the same.
 *
 * Not here: the rules (`Lease.ts`), the decisions (`LeaseMachine.ts`).
 */
import {
  Cause,
  Clock,
  Deferred,
  Effect,
  Exit,
  Layer,
  Option,
  Random,
  Ref,
  Schedule,
  Schema,
  Scope,
  ScopedRef,
  Semaphore
} from "effect"
import type { StoreError } from "../sync/StoreError.ts"
import { SyncConfig, type SyncConfigShape } from "../sync/SyncConfig.ts"
import type { Blocker, Fence, TakeRequest } from "./Lease.ts"
import * as LeaseMachine from "./LeaseMachine.ts"
import { LeaseStore } from "./LeaseStore.ts"
import * as LeaseStoreMemory from "./LeaseStoreMemory.ts"
import { Wake, type WakeSignal } from "./Wake.ts"

/** The grant is gone: another holder took the lease, or the store could not be asked for as long as the lease lasts. */
export class LeaseLost extends Schema.TaggedError<LeaseLost>("@twinloop/core/LeaseLost")("LeaseLost", {
  name: Schema.String,
  generation: Schema.Finite,
  reason: Schema.Literals(["takenOver", "unreachable"]),
  message: Schema.String
}) {}

/** Proof of ownership, valid while its scope is open and `lost` has not happened. */
export interface Grant extends Fence {
  /** True when what is in memory may be outdated: somebody else owned it since, or nothing was loaded yet (invariant I5). */
  readonly isDirty: boolean
  /** What is in memory was loaded or committed under this generation. */
  readonly markClean: Effect.Effect<void>
  /** What is in memory is void; the next grant is dirty, whoever owned it in between. */
  readonly markDirty: Effect.Effect<void>
  /** Happens when the grant is lost, and never else. */
  readonly lost: Effect.Effect<LeaseLost>
  /**
   * Happens when another process is known to wait that needs a permit soon (`hurry`), and never else: within milliseconds by
   * its signal, at the next renewal at the latest. With several permits every holder is told.
   */
  readonly wanted: Effect.Effect<void>
}

export interface DistributedSemaphore {
  readonly name: string
  readonly permits: number
  /** Waits for a permit, in order of arrival; it is released when the scope closes. Fails when the store can't be used. */
  readonly take: Effect.Effect<Grant, StoreError, Scope.Scope>
  /** A permit if one is free and nobody waits, without waiting; otherwise who has it. */
  readonly tryTake: Effect.Effect<TryTaken, StoreError, Scope.Scope>
  /** The same for who has seen these holders die (`Wake` said `Dead`): their leases stand in nobody's way. */
  tryTakeAfter(dead: ReadonlyArray<string>): Effect.Effect<TryTaken, StoreError, Scope.Scope>
  /**
   * Whoever in this process waits for a permit, or begins to within `HURRY_MILLIS`, needs it soon: his place in the queue
   * says so, and whoever stands in the way is asked to yield (`Grant.wanted`). Nobody is overtaken. It is over with the next
   * permit that this process gets, and does nothing while it has all that there are. Waits for nothing.
   */
  readonly hurry: Effect.Effect<void>
  /** Runs an effect while holding `permits` permits, all of them or none; fails with `LeaseLost` at once when they are lost. */
  withPermits(
    permits: number
  ): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | LeaseLost | StoreError, R>
  /** `withPermits(1)` */
  withPermit<A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E | LeaseLost | StoreError, R>
  /** Runs an effect if a permit is free at once, else gives `None`. */
  withPermitIfAvailable<A, E, R>(
    self: Effect.Effect<A, E, R>
  ): Effect.Effect<Option.Option<A>, E | LeaseLost | StoreError, R>
}

export type TryTaken =
  | { readonly _tag: "Taken"; readonly grant: Grant }
  | { readonly _tag: "Busy"; readonly blocker: Blocker }

/**
 * How long a hurry lasts for whoever doesn't wait yet, in milliseconds: as long as the one who needs the permit is likely to
 * wait for it. Longer, and a process that once was in a hurry would disturb an owner for nothing.
 */
export const HURRY_MILLIS = 5_000

/** The topic on which a holder tells its watchers that a name's lease has moved, and on which it is asked to yield. */
export const topic = (name: string): string => `lease:${name}`

/** One holder identity of this process; a grant uses one at a time, so that two grants are never the same holder. */
interface Lane {
  readonly holder: string
  /** The generation under which memory is valid, if any (invariant I5: the only such record). */
  readonly validGeneration: Ref.Ref<number | undefined>
}

/** Whether this process needs a permit soon, and whom to tell. */
interface Hurry {
  /** Unix milliseconds; 0 when it doesn't. */
  untilMillis: number
  /** Permits that this process has. */
  held: number
  /** Those who wait, and aren't urgent yet. */
  readonly waiting: Set<() => void>
}

interface Options {
  readonly name: string
  /** How many permits there are, over all processes; every process must say the same. */
  readonly permits: number
}

/** What every step of one semaphore works with. */
interface Env {
  readonly options: Options
  readonly store: LeaseStore["Service"]
  readonly wake: Wake["Service"]
  readonly config: SyncConfigShape
  /** This process's share: no more fibers ask the store for a permit than there are permits. */
  readonly local: Semaphore.Semaphore
  /** Queues this process's own fibers: Effect's `Semaphore` lets one that wants less overtake one that wants more. */
  readonly turn: Semaphore.Semaphore
  /** Lanes not in use. */
  readonly lanes: Array<Lane>
  readonly hurry: Hurry
}

type Held = Extract<LeaseMachine.State, { _tag: "Held" }>
type Refused = Extract<LeaseMachine.State, { _tag: "Refused" }>

/** Whether asking the store again can help. */
const isTransient = (error: StoreError): boolean =>
  error.reason._tag === "StoreBusy" || error.reason._tag === "StoreFull"

const lostError = (fence: Fence, reason: LeaseMachine.LostReason): LeaseLost => {
  const what = `The lease "${fence.name}" (generation ${fence.generation})`
  return new LeaseLost({
    name: fence.name,
    generation: fence.generation,
    reason,
    message:
      reason === "takenOver"
        ? `${what} was taken over by another process. The work under it was stopped; nothing can be written under it.`
        : `${what} could not be renewed for as long as it lasts, so another process may own it. The work under it was stopped.`
  })
}

type Take = Extract<LeaseMachine.Command, { _tag: "Take" }>

const takeOnce = (env: Env, lane: Lane, count: number, once: boolean, { presumedDead, urgent }: Take) =>
  Effect.gen(function* () {
    const asked: TakeRequest = {
      name: env.options.name,
      permits: env.options.permits,
      count,
      holder: lane.holder,
      peer: env.wake.self,
      nowMillis: yield* Clock.currentTimeMillis,
      leaseMillis: env.config.leaseMillis
    }
    const outcome = yield* env.store.take({
      ...asked,
      ...(once ? {} : { enqueueMillis: env.config.ticketMillis, urgent }),
      ...(presumedDead.length === 0 ? {} : { presumedDead })
    })
    return { _tag: "TakeAnswered" as const, outcome, nowMillis: yield* Clock.currentTimeMillis }
  }).pipe(
    Effect.catchIf(
      (error) => isTransient(error) && !once,
      () => Effect.map(Clock.currentTimeMillis, (nowMillis) => ({ _tag: "TakeFailed" as const, nowMillis }))
    )
  )

/** Says that this process is in a hurry, unless it has all permits. */
const hurry = (env: Env): Effect.Effect<void> =>
  Effect.map(Clock.currentTimeMillis, (nowMillis) => {
    if (env.hurry.held >= env.options.permits) return
    env.hurry.untilMillis = nowMillis + HURRY_MILLIS
    for (const tell of env.hurry.waiting) tell()
  })

/** Waits until this process is in a hurry. Looks and begins to listen in one step, so that none is missed. */
const awaitHurry = (env: Env, nowMillis: number): Effect.Effect<"Hurried"> =>
  Effect.callback((resume) => {
    const { untilMillis, waiting } = env.hurry
    const tell = (): void => {
      waiting.delete(tell)
      resume(Effect.succeed("Hurried"))
    }
    if (nowMillis < untilMillis) return tell()
    waiting.add(tell)
    return Effect.sync(() => waiting.delete(tell))
  })

type Await = Extract<LeaseMachine.Command, { _tag: "Await" }>

/** Waits for a signal, a hurry or the time, whichever comes first. */
const awaitSignal = Effect.fnUntraced(function* (env: Env, watched: Effect.Effect<WakeSignal>, command: Await) {
  const startedAt = yield* Clock.currentTimeMillis
  const millis = Math.max(0, command.untilMillis - startedAt)
  const signal = command.signal ? watched : Effect.never
  const first = command.hurry ? Effect.raceFirst(awaitHurry(env, startedAt), signal) : signal
  const by = yield* Effect.timeoutOption(first, millis)
  const nowMillis = yield* Clock.currentTimeMillis
  return { _tag: "Woken" as const, by: Option.getOrElse(by, () => "Time" as const), nowMillis }
})

/** Asks, watches and waits until the lease is held, or (`once`) refused. */
const ask = Effect.fnUntraced(function* (
  env: Env,
  lane: Lane,
  count: number,
  once: boolean,
  dead: ReadonlyArray<string>
) {
  const watched = yield* ScopedRef.make<Effect.Effect<WakeSignal>>(() => Effect.never)
  const isHurried = (yield* Clock.currentTimeMillis) < env.hurry.untilMillis
  let [state, commands] = LeaseMachine.start(once, !once && isHurried, dead)
  while (state._tag === "Asking" || state._tag === "Waiting") {
    let input: LeaseMachine.Input | undefined
    for (const command of commands) {
      switch (command._tag) {
        case "Watch":
          yield* ScopedRef.set(watched, env.wake.subscribe(command.blocker.peer, topic(env.options.name)))
          break
        case "Ask":
          yield* env.wake.ask(command.blocker.peer, topic(env.options.name))
          break
        case "Take":
          input = yield* takeOnce(env, lane, count, once, command)
          break
        case "Await":
          input = yield* awaitSignal(env, yield* ScopedRef.get(watched), command)
          break
        case "RenewAfter":
          return yield* Effect.die("a lease that isn't held can't be renewed")
      }
    }
    if (input === undefined) return yield* Effect.die("a state that waits for nothing can't go on")
    ;[state, commands] = LeaseMachine.step(env.config, state, input)
  }
  return state as Held | Refused
}, Effect.scoped)

const renewOnce = Effect.fnUntraced(function* (env: Env, fence: Fence, expiresAtMillis: number) {
  const nowMillis = yield* Clock.currentTimeMillis
  // Never waits longer for the store than the lease lasts, and for at least one try when it is over.
  const patienceMillis = Math.min(env.config.leaseMillis, Math.max(env.config.renewMillis, expiresAtMillis - nowMillis))
  return yield* env.store.renew({ fence, nowMillis, leaseMillis: env.config.leaseMillis }).pipe(
    Effect.timeout(patienceMillis),
    Effect.tapCauseIf(Cause.hasDies, (cause) =>
      Effect.logError(
        `The lease "${fence.name}" could not be renewed: the store met a defect. It is tried again.`,
        cause
      )
    ),
    // A defect too: a keeper that died would never say that the grant is lost.
    Effect.matchCauseEffect({
      onSuccess: (outcome) =>
        Effect.map(Clock.currentTimeMillis, (nowMillis) => ({ _tag: "RenewAnswered" as const, outcome, nowMillis })),
      onFailure: () => Effect.map(Clock.currentTimeMillis, (nowMillis) => ({ _tag: "RenewFailed" as const, nowMillis }))
    })
  )
})

/** Renews for as long as the lease is ours, and says when it is wanted; ends with the reason for which it isn't ours. */
const keep = Effect.fnUntraced(function* (
  env: Env,
  fence: Fence,
  held: Held,
  asked: Effect.Effect<void>,
  onWanted: Effect.Effect<unknown>
) {
  let state: LeaseMachine.State = held
  let millis = LeaseMachine.firstRenewAfter(env.config, held.expiresAtMillis, yield* Clock.currentTimeMillis)
  let listens = true
  while (state._tag === "Held") {
    const isAsked = yield* Effect.timeoutOption(listens ? asked : Effect.never, millis)
    const input: LeaseMachine.Input = Option.isSome(isAsked)
      ? { _tag: "Asked" }
      : yield* renewOnce(env, fence, state.expiresAtMillis)
    const [next, commands]: LeaseMachine.Step = LeaseMachine.step(env.config, state, input)
    for (const command of commands) {
      if (command._tag !== "RenewAfter") continue
      millis = command.millis
      listens = command.asked
    }
    state = next
    if (state._tag === "Held" && state.wanted) yield* onWanted
  }
  return state._tag === "Lost" ? lostError(fence, state.reason) : yield* Effect.die("a held lease ends by being lost")
})

/** An error in its own words, a defect with where it happened: neither may keep a scope from closing. */
const whatFailed = (cause: Cause.Cause<StoreError>): string =>
  Option.match(Cause.findErrorOption(cause), {
    onNone: () => Cause.pretty(cause),
    onSome: (error) => error.message
  })

/**
 * A store that is busy or full is asked again for so long, in milliseconds: until what it should forget is over by itself. Who
 * is told before that the lease row is free would be told something wrong (invariant I4): a place in the queue is handed the
 * lease that another process releases.
 */
const untilOver =
  ({ renewMillis }: SyncConfigShape, millis: number) =>
  <A>(effect: Effect.Effect<A, StoreError>): Effect.Effect<A, StoreError> =>
    Effect.flatMap(Clock.currentTimeMillis, (startedAtMillis) => {
      // By the clock, since a try at a busy store takes up to `SyncConfig.storeBusyMillis`.
      const isTooEarly = Effect.map(Clock.currentTimeMillis, (nowMillis) => nowMillis < startedAtMillis + millis)
      return Effect.retry(effect, {
        while: (error) => (isTransient(error) ? isTooEarly : Effect.succeed(false)),
        schedule: Schedule.spaced(Math.ceil(renewMillis / 10)),
        // However the clock is set meanwhile.
        times: Math.ceil(millis / Math.ceil(renewMillis / 10))
      })
    })

const release = (env: Env, fence: Fence) =>
  Effect.gen(function* () {
    // An idle process takes longer to wake up than the store to write, so a waiter is woken first. It may look too early, which
    // costs a read, and is told again.
    yield* env.wake.notify(topic(fence.name))
    yield* Clock.currentTimeMillis.pipe(
      Effect.flatMap((nowMillis) => env.store.release({ fence, nowMillis, handoverMillis: env.config.handoverMillis })),
      untilOver(env.config, env.config.leaseMillis)
    )
    yield* env.wake.notify(topic(fence.name))
  }).pipe(
    Effect.catchCause((cause) =>
      Effect.logWarning(
        `The lease "${fence.name}" could not be released; others get it when it expires, in ${env.config.leaseMillis} ms at most. ${whatFailed(cause)}`
      )
    )
  )

/** Gives up a place in the queue, and whatever was granted at that very moment. */
const leave = (env: Env, lane: Lane) =>
  Effect.gen(function* () {
    const { name } = env.options
    const { handoverMillis, ticketMillis } = env.config
    yield* Clock.currentTimeMillis.pipe(
      Effect.flatMap((nowMillis) => env.store.leave({ name, holder: lane.holder, nowMillis, handoverMillis })),
      untilOver(env.config, ticketMillis)
    )
    yield* env.wake.notify(topic(name))
  }).pipe(
    Effect.catchCause((cause) =>
      Effect.logWarning(
        `A place in the queue for the lease "${env.options.name}" could not be given up; it lapses in ${env.config.ticketMillis} ms. ${whatFailed(cause)}`
      )
    )
  )

const grantOf = Effect.fnUntraced(function* (env: Env, lane: Lane, held: Held, asked: Effect.Effect<void>) {
  const fence: Fence = { name: env.options.name, holder: lane.holder, generation: held.generation }
  const lost = yield* Deferred.make<LeaseLost>()
  const wanted = yield* Deferred.make<void>()
  const keeping = keep(env, fence, held, asked, Deferred.succeed(wanted, undefined))
  yield* Effect.forkScoped(Effect.flatMap(keeping, (error) => Deferred.succeed(lost, error)))
  const grant: Grant = {
    ...fence,
    isDirty: (yield* Ref.get(lane.validGeneration)) !== held.generation,
    markClean: Ref.set(lane.validGeneration, held.generation),
    markDirty: Ref.set(lane.validGeneration, undefined),
    lost: Deferred.await(lost),
    wanted: Deferred.await(wanted)
  }
  return grant
})

/** Counts the permits as this process's until the scope closes; the hurry is over. */
const countHeld = (env: Env, scope: Scope.Scope, count: number): Effect.Effect<void> =>
  Effect.suspend(() => {
    env.hurry.held += count
    env.hurry.untilMillis = 0
    return Scope.addFinalizer(
      scope,
      Effect.sync(() => {
        env.hurry.held -= count
      })
    )
  })

/** Gets `count` permits from the store for as long as the scope is open; the local permits are held already. */
const acquire = Effect.fnUntraced(function* (env: Env, count: number, once: boolean, dead: ReadonlyArray<string> = []) {
  const lane = yield* Effect.acquireRelease(
    Effect.sync(() => env.lanes.shift()!),
    (lane) => Effect.sync(() => env.lanes.unshift(lane))
  )
  const scope = yield* Effect.scope
  // Before the lease can be ours, so that nobody asks for it unheard.
  const asked = yield* env.wake.asked(topic(env.options.name))
  const state = yield* Effect.uninterruptibleMask((restore) =>
    restore(ask(env, lane, count, once, dead)).pipe(
      Effect.onExit((exit) => (Exit.isFailure(exit) ? leave(env, lane) : Effect.void)),
      Effect.tap((state) =>
        state._tag === "Held"
          ? Effect.andThen(
              Scope.addFinalizer(
                scope,
                release(env, { name: env.options.name, holder: lane.holder, generation: state.generation })
              ),
              countHeld(env, scope, count)
            )
          : Effect.void
      )
    )
  )
  return state._tag === "Held"
    ? { _tag: "Taken" as const, grant: yield* grantOf(env, lane, state, asked) }
    : { _tag: "Busy" as const, blocker: state.blocker }
})

/**
 * Runs an acquisition in a scope of its own within the caller's: what doesn't end in a grant gives everything back at once,
 * and not when the caller's scope closes.
 */
const orNothing = Effect.fnUntraced(function* <E>(acquisition: Effect.Effect<TryTaken, E, Scope.Scope>) {
  const own = yield* Scope.fork(yield* Effect.scope)
  const taken = yield* Scope.provide(acquisition, own).pipe(
    Effect.onError((cause) => Scope.close(own, Exit.failCause(cause)))
  )
  if (taken._tag === "Busy") yield* Scope.close(own, Exit.void)
  return taken
})

const waitFor = Effect.fnUntraced(function* (env: Env, count: number) {
  const takenHere = env.turn.withPermit(env.local.takeScoped(count))
  const taken = yield* orNothing(Effect.andThen(takenHere, acquire(env, count, false)))
  return taken._tag === "Taken" ? taken.grant : yield* Effect.die("a take that waits can't be refused")
})

/** Another fiber of this process has it: the blocker is ourselves, and nobody knows for how long. */
const busyHere = (env: Env): TryTaken => ({
  _tag: "Busy",
  blocker: { kind: "holder", holder: env.config.role, peer: env.wake.self, expiresAtMillis: Number.POSITIVE_INFINITY }
})

/** A local permit for as long as the scope is open, if one is free and nobody waits for it. */
const takeHere = (env: Env): Effect.Effect<boolean, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.map(env.turn.withPermitsIfAvailable(1)(env.local.takeIfAvailable(1)), Option.contains(true)),
    (taken) => (taken ? env.local.release(1) : Effect.void)
  )

const tryOnce = (env: Env, dead: ReadonlyArray<string> = []): Effect.Effect<TryTaken, StoreError, Scope.Scope> =>
  orNothing(
    Effect.flatMap(takeHere(env), (here) => (here ? acquire(env, 1, true, dead) : Effect.succeed(busyHere(env))))
  )

const guarded = <A, E, R>(grant: Grant, self: Effect.Effect<A, E, R>) =>
  Effect.raceFirst(self, Effect.flatMap(grant.lost, Effect.fail))

const hex = Effect.map(Random.nextIntBetween(0, 2 ** 32), (n) => n.toString(16).padStart(8, "0"))

const makeLanes = Effect.fnUntraced(function* (instance: string, permits: number) {
  const lanes: Array<Lane> = []
  for (let lane = 0; lane < permits; lane++) {
    const validGeneration = yield* Ref.make<number | undefined>(undefined)
    lanes.push({ holder: permits === 1 ? instance : `${instance}/${lane}`, validGeneration })
  }
  return lanes
})

/**
 * Makes a semaphore. Nothing is asked of the store until a permit is wanted.
 *
 * The holder's id is the configured role with 8 random bytes, so two processes can't be the same one by accident, even
 * when both were given the same role.
 */
export const make = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<DistributedSemaphore, never, LeaseStore | Wake> {
  const config = yield* SyncConfig
  const env: Env = {
    options,
    config,
    store: yield* LeaseStore,
    wake: yield* Wake,
    local: yield* Semaphore.make(options.permits),
    turn: yield* Semaphore.make(1),
    lanes: yield* makeLanes(`${config.role}#${yield* hex}${yield* hex}`, options.permits),
    hurry: { untilMillis: 0, held: 0, waiting: new Set() }
  }
  const withPermits: DistributedSemaphore["withPermits"] = (count) => (self) =>
    count >= 1 && count <= options.permits
      ? Effect.scoped(Effect.flatMap(waitFor(env, count), (grant) => guarded(grant, self)))
      : Effect.die(
          new RangeError(
            `withPermits(${count}) on "${options.name}": it has ${options.permits} permits, ask for 1 to that many`
          )
        )
  return {
    ...options,
    take: waitFor(env, 1),
    tryTake: tryOnce(env),
    tryTakeAfter: (dead) => tryOnce(env, dead),
    hurry: hurry(env),
    withPermits,
    withPermit: withPermits(1),
    withPermitIfAvailable: (self) =>
      Effect.scoped(
        Effect.flatMap(tryOnce(env), (taken) =>
          taken._tag === "Busy" ? Effect.succeedNone : Effect.asSome(guarded(taken.grant, self))
        )
      )
  }
})

/** For an application that is one process: nobody else can contend, nothing is stored, nothing is watched. */
export const layerSingleProcess: Layer.Layer<LeaseStore | Wake> = Layer.merge(
  LeaseStoreMemory.layerMemory,
  Wake.layerNone
)
