/**
 * The service around the two loops: start, stop, suspend, resume, and one state for both.
 *
 * Invariants: I3 (each loop has its own supervision and its own state; the service's is derived), I4 (`stop` and `suspend`
 * return when everything is quiet, or at their deadline, and say what could not be finished), I9, I10.
 *
 * Gotchas: several parties may suspend; the loops run again when each of them has resumed. What could not be finished by a
 * deadline goes on ending in the background, and the next start waits for it.
 *
 * Not here: the decisions (`SyncServiceMachine`), the sessions (`LoopRunner`), the loops (`MainSync`, `ExtensionSync`),
 * signals of the operating system (platform's `Lifecycle`).
 */
import {
  type CryptoEngine,
  ExtensionLoopMachine,
  Homeserver,
  type LeaseStore,
  MainLoopMachine,
  type SlidingSync,
  type StoreError,
  SyncConfig,
  SyncServiceMachine,
  SyncStore,
  type Wake
} from "@twinloop/core"
import {
  Clock,
  Context,
  type Duration,
  Effect,
  Layer,
  Option,
  Ref,
  Schema,
  Semaphore,
  Stream,
  SubscriptionRef
} from "effect"
import type { Scope } from "effect"
import { ExtensionLease } from "./ExtensionLease.ts"
import type * as ExtensionSync from "./ExtensionSync.ts"
import type * as LeaseKeeper from "./LeaseKeeper.ts"
import * as LoopRunner from "./LoopRunner.ts"
import * as MainSync from "./MainSync.ts"
import * as StreamServices from "./StreamServices.ts"
import { Suspendables } from "./Suspendables.ts"
import * as SyncIndicator from "./SyncIndicator.ts"

/** Name of the lease that guards the extension stream. */
export const { EXTENSION_LEASE } = ExtensionLoopMachine

/** More rooms were opened at once than the homeserver takes (MSC4186: 100). Close some, then open others. */
export class TooManySubscriptions extends Schema.TaggedError<TooManySubscriptions>(
  "@twinloop/actors/TooManySubscriptions"
)("TooManySubscriptions", { wanted: Schema.Finite, limit: Schema.Finite, message: Schema.String }) {}

/** What `stop` and `suspend` achieved. */
export interface StopReport {
  /** True when nothing of ours runs any more: no fiber, no transaction, no request, and the lease row is free. */
  readonly quiet: boolean
  readonly tookMillis: number
  /** What was still ending at the deadline, in words. It goes on ending. */
  readonly unfinished: ReadonlyArray<string>
}

export interface StopOptions {
  /** How long to wait for quiet; `SyncConfig.stopDeadlineMillis` if not given. */
  readonly deadline?: Duration.Input
}

export interface SuspendOptions extends StopOptions {
  /** Who suspends; the same party must resume. "app" if not given. */
  readonly by?: string
}

export class SyncService extends Context.Service<
  SyncService,
  {
    /** Starts the loops, unless suspended. After `Terminal`, tries again. Starting twice is starting once. */
    readonly start: Effect.Effect<void>
    /** Ends the loops, and waits for what the application does without them, such as resolving a push. */
    stop(options?: StopOptions): Effect.Effect<StopReport>
    /** The same until `resume`, whether started or not. */
    suspend(options?: SuspendOptions): Effect.Effect<StopReport>
    /** Takes back one party's suspension; the loops run again when nobody else suspends. */
    resume(options?: { readonly by?: string }): Effect.Effect<void>
    /**
     * Forgets the positions of both connections, so that everything is sent again; what is acknowledged stays so. The
     * extension connection is left alone when another process owns the stream: it is that process's then; and when the own
     * loop could not be ended within `SyncConfig.stopDeadlineMillis`.
     */
    readonly expireSessions: Effect.Effect<void, StoreError.StoreError>
    /**
     * The part of the room list that is on the screen, 0-based and inclusive, or `undefined` for none. Of a longer one the
     * first `SyncConfig.windowBatch` rooms are asked for; an empty one is none.
     */
    setWindow(window: SlidingSync.Range | undefined): Effect.Effect<void>
    /** The rooms that are open, instead of those before. */
    setSubscriptions(rooms: Iterable<SlidingSync.RoomId>): Effect.Effect<void, TooManySubscriptions>
    readonly state: Effect.Effect<SyncServiceMachine.ServiceState>
    /** The state and then its changes; who reads too slowly misses old ones, and never the newest. */
    readonly changes: Stream.Stream<SyncServiceMachine.ServiceState>
    /**
     * Whether the room list should say that it is being brought up to date: `Hide` first, `Show` when it has been loading
     * or failing for `showAfter`, `Hide` when it has not for `hideAfter`. Changes that are faster than that don't blink.
     */
    indicator(options: SyncIndicator.Options): Stream.Stream<SyncServiceMachine.Indicator>
    /** Whether the extension stream is ours. */
    readonly lease: Effect.Effect<LeaseKeeper.LeaseStatus>
  }
>()("@twinloop/actors/SyncService") {
  /**
   * The service over the given ports, with what it shares with whoever sends encrypted messages; ending the layer's scope
   * stops it.
   */
  static readonly layer: Layer.Layer<SyncService | Shared, never, Ports> = Layer.suspend(() =>
    Layer.effect(SyncService, make).pipe(Layer.provideMerge(StreamServices.layer))
  )
}

/** What the extension loop shares with whoever sends encrypted messages, shows them or is notified of them. */
export type Shared = StreamServices.StreamServices

/** What the service is made of. */
export type Ports = Exclude<LoopRunner.LoopServices, Shared> | CryptoEngine.CryptoEngine | LeaseStore | Wake

/** Under this name the service suspends itself while it forgets positions. */
const EXPIRE = "expireSessions"
/** Who suspends and resumes when it isn't said. */
const APP = "app"

const intend = (env: LoopRunner.Env, change: (intent: SyncServiceMachine.Intent) => SyncServiceMachine.Intent) =>
  SubscriptionRef.update(env.snapshot, (snapshot) => ({ ...snapshot, intent: change(snapshot.intent) }))

const awaitQuiet = (env: LoopRunner.Env) => LoopRunner.awaitSnapshot(env, ({ active }) => active.length === 0)

/**
 * Takes the intent back, waits for quiet until the deadline, and says what has not ended. Unless a session ends now, what was
 * used since the last one has ended is made quiet again: a push that is being resolved may own the stream (invariant I4).
 */
const quieten = Effect.fnUntraced(function* (
  env: LoopRunner.Env,
  change: (intent: SyncServiceMachine.Intent) => SyncServiceMachine.Intent,
  deadline: Duration.Input
) {
  const startedAt = yield* Clock.currentTimeMillis
  const isInSession = yield* SubscriptionRef.modify(env.snapshot, (snapshot) => [
    LoopRunner.isInSession(snapshot),
    { ...snapshot, intent: change(snapshot.intent) }
  ])
  const again = isInSession ? Effect.void : Effect.andThen(LoopRunner.quietAgain(env), awaitQuiet(env))
  yield* Effect.timeoutOption(Effect.andThen(awaitQuiet(env), again), deadline)
  const { active } = yield* SubscriptionRef.get(env.snapshot)
  const report: StopReport = {
    quiet: active.length === 0,
    tookMillis: (yield* Clock.currentTimeMillis) - startedAt,
    unfinished: active
  }
  return report
})

/**
 * Forgets both connections' positions. Nothing of ours runs meanwhile, unless a loop can't be ended in time: the commit of
 * its last page is refused then, and the lease, which it still holds, is not to be had.
 */
const expireSessions = Effect.fnUntraced(
  function* (env: LoopRunner.Env, store: SyncStore.SyncStore["Service"], config: SyncConfig.SyncConfigShape) {
    yield* quieten(env, (intent) => SyncServiceMachine.suspend(intent, EXPIRE), config.stopDeadlineMillis)
    yield* store.expireMain(MainSync.connId(config.role))
    const taken = yield* env.semaphore.tryTake
    if (taken._tag === "Taken") yield* store.expireExtension(taken.grant)
  },
  Effect.scoped,
  (effect, env) =>
    Effect.ensuring(
      effect,
      intend(env, (intent) => SyncServiceMachine.resume(intent, EXPIRE))
    )
)

/** States that are kept for a subscriber that is slow: enough to see a loop come and go. */
const STATES_KEPT = 16

const statesOf = (env: LoopRunner.Env): Stream.Stream<SyncServiceMachine.ServiceState> =>
  SubscriptionRef.changes(env.snapshot).pipe(
    Stream.map(({ extension, intent, main }) => SyncServiceMachine.derive(intent, { main, extension })),
    Stream.changes,
    // A `SubscriptionRef` alone would keep every state for who has stopped reading (invariant I10).
    Stream.buffer({ capacity: STATES_KEPT, strategy: "sliding" })
  )

const changeView = (env: LoopRunner.Env, change: (view: MainLoopMachine.View) => Partial<MainLoopMachine.View>) =>
  Effect.gen(function* () {
    const view = yield* Ref.updateAndGet(env.view, (view) => ({
      ...view,
      ...change(view),
      revision: view.revision + 1
    }))
    yield* LoopRunner.withLoop(env.main, (loop) => loop.look(view))
  })

/** Loops that have given up are given another try. */
const restartFailed = (env: LoopRunner.Env) =>
  Effect.gen(function* () {
    const { extension, main } = yield* SubscriptionRef.get(env.snapshot)
    if (main._tag === "Failed") yield* LoopRunner.withLoop(env.main, (loop) => loop.restart)
    if (extension._tag === "Failed") yield* LoopRunner.withLoop(env.extension, (loop) => loop.restart)
  })

const make: Effect.Effect<SyncService["Service"], never, LoopRunner.LoopServices | ExtensionLease | Scope.Scope> =
  Effect.gen(function* () {
    const config = yield* SyncConfig.SyncConfig
    const homeserver = yield* Homeserver.Homeserver
    const store = yield* SyncStore.SyncStore
    const env: LoopRunner.Env = {
      semaphore: yield* ExtensionLease,
      snapshot: yield* SubscriptionRef.make(LoopRunner.initialSnapshot),
      view: yield* Ref.make(MainLoopMachine.emptyView),
      suspendables: yield* Suspendables,
      main: yield* Ref.make(Option.none<MainSync.MainSync>()),
      extension: yield* Ref.make(Option.none<ExtensionSync.ExtensionSync>())
    }
    yield* Effect.forkScoped(LoopRunner.run(env))
    const oneAtATime = yield* Semaphore.make(1)
    const deadlineOf = (options?: StopOptions): Duration.Input => options?.deadline ?? config.stopDeadlineMillis
    const params = MainLoopMachine.subscriptionParams(config, homeserver.session.userId)

    return SyncService.of({
      start: Effect.andThen(intend(env, SyncServiceMachine.start), restartFailed(env)),
      stop: (options) => quieten(env, SyncServiceMachine.stop, deadlineOf(options)),
      suspend: (options) =>
        quieten(env, (intent) => SyncServiceMachine.suspend(intent, options?.by ?? APP), deadlineOf(options)),
      resume: (options) => intend(env, (intent) => SyncServiceMachine.resume(intent, options?.by ?? APP)),
      expireSessions: oneAtATime.withPermit(expireSessions(env, store, config)),
      setWindow: (window) => changeView(env, () => ({ window })),
      setSubscriptions: (rooms) =>
        Effect.gen(function* () {
          const subscriptions = new Map([...rooms].map((roomId) => [roomId, params] as const))
          if (subscriptions.size > config.maxSubscriptions) {
            return yield* new TooManySubscriptions({
              wanted: subscriptions.size,
              limit: config.maxSubscriptions,
              message: `${subscriptions.size} rooms are open at once; the homeserver takes ${config.maxSubscriptions} (MSC4186). Close some, then open others.`
            })
          }
          yield* changeView(env, () => ({ subscriptions }))
        }),
      state: Effect.map(SubscriptionRef.get(env.snapshot), ({ extension, intent, main }) =>
        SyncServiceMachine.derive(intent, { main, extension })
      ),
      changes: statesOf(env),
      indicator: (options) => SyncIndicator.follow(statesOf(env), options),
      lease: Effect.flatMap(Ref.get(env.extension), (loop): Effect.Effect<LeaseKeeper.LeaseStatus> =>
        Option.isSome(loop) ? loop.value.lease.status : Effect.succeed({ _tag: "Released" })
      )
    })
  })
