/**
 * Makes the loops follow the intent: opens them when they should run, ends them when they should not, one session at a time.
 *
 * Includes the session (two supervised loops and the offline probe) and the record of what is active.
 *
 * Invariants: I3 (a scope and a supervision for each loop), I4 (`active` names what has not ended yet; empty is quiet).
 *
 * Gotchas: opening is decided in the same step that records it, so whoever takes the intent back either prevents the
 * opening or sees it as active. A session that ends slowly delays the next one, not the caller.
 *
 * Not here: who wants what (`SyncService`).
 */
import {
  type DistributedSemaphore,
  Homeserver,
  type MainLoopMachine,
  type RoomList,
  SupervisionPolicy,
  SyncConfig,
  SyncServiceMachine,
  type SyncStore
} from "@twinloop/core"
import { Clock, Effect, Exit, Option, PubSub, Random, Ref, Scope, Stream, SubscriptionRef } from "effect"
import type { CryptoTurn } from "./CryptoTurn.ts"
import { EncryptionNews } from "./EncryptionNews.ts"
import * as ExtensionSync from "./ExtensionSync.ts"
import * as Inbox from "./Inbox.ts"
import * as MainSync from "./MainSync.ts"
import type { OutgoingRequests } from "./OutgoingRequests.ts"
import * as Supervised from "./Supervised.ts"
import type { Suspendable } from "./Suspendables.ts"

/** What the loops need. */
export type LoopServices =
  | Homeserver.Homeserver
  | SyncStore.SyncStore
  | CryptoTurn
  | OutgoingRequests
  | EncryptionNews
  | RoomList.RoomList
  | Inbox.Inbox

/** What is wanted, what is so, and what has not ended yet. */
export interface Snapshot extends SyncServiceMachine.Loops {
  readonly intent: SyncServiceMachine.Intent
  /** Names of the parts that have started and not ended. */
  readonly active: ReadonlyArray<string>
}

export const initialSnapshot: Snapshot = {
  intent: SyncServiceMachine.initialIntent,
  active: [],
  main: SyncServiceMachine.stopped,
  extension: SyncServiceMachine.stopped
}

const MAIN = "the main loop"
const EXTENSION = "the extension loop and its lease"
/** Until the first of them is at it, which has a name. */
const RESOURCES = "the other parts"

/** The living loops, if any; each may be between two lives (`Supervised`). */
export interface Handles {
  readonly main: Ref.Ref<Option.Option<MainSync.MainSync>>
  readonly extension: Ref.Ref<Option.Option<ExtensionSync.ExtensionSync>>
}

export interface Env extends Handles {
  readonly semaphore: DistributedSemaphore.DistributedSemaphore
  readonly snapshot: SubscriptionRef.SubscriptionRef<Snapshot>
  /** What the application looks at; outlives the sessions. */
  readonly view: Ref.Ref<MainLoopMachine.View>
  /** What else must be quiet when the loops don't run. */
  readonly suspendables: ReadonlyArray<Suspendable>
}

/** Does something with a loop if it lives. */
export const withLoop = <A>(
  handle: Ref.Ref<Option.Option<A>>,
  use: (loop: A) => Effect.Effect<void>
): Effect.Effect<void> =>
  Effect.flatMap(Ref.get(handle), (current) => (Option.isSome(current) ? use(current.value) : Effect.void))

const setStatus = (env: Env, status: Partial<SyncServiceMachine.Loops>): Effect.Effect<void> =>
  SubscriptionRef.update(env.snapshot, (snapshot) => ({ ...snapshot, ...status }))

const ended = (env: Env, name: string): Effect.Effect<void> =>
  SubscriptionRef.update(env.snapshot, (snapshot) => ({
    ...snapshot,
    active: snapshot.active.filter((other) => other !== name)
  }))

/** Waits until the snapshot is as asked; looks at the present one first. No stream: a process may have a thousand who wait. */
export const awaitSnapshot = (env: Env, predicate: (snapshot: Snapshot) => boolean): Effect.Effect<void> =>
  Effect.scoped(
    Effect.gen(function* () {
      const snapshots = yield* PubSub.subscribe(env.snapshot.pubsub)
      while (!predicate(yield* PubSub.take(snapshots)));
    })
  )

/**
 * Keeps the handle of a living loop, and publishes its status when that changes, until the scope ends. `ready` runs once
 * others see the handle.
 */
const follow = <A, S>(
  handle: Ref.Ref<Option.Option<A>>,
  loop: A & { readonly changes: Stream.Stream<S> },
  statusOf: (state: S) => SyncServiceMachine.LoopStatus,
  publish: (status: SyncServiceMachine.LoopStatus) => Effect.Effect<void>,
  ready: Effect.Effect<void>
): Effect.Effect<void, never, Scope.Scope> =>
  Effect.gen(function* () {
    yield* Effect.acquireRelease(Ref.set(handle, Option.some(loop)), () => Ref.set(handle, Option.none()))
    // A loop that goes round has another state twice per response, and the same status for hours.
    const statuses = Stream.changes(Stream.map(loop.changes, statusOf))
    yield* Effect.forkScoped(Effect.andThen(ready, Stream.runForEach(statuses, publish)))
  })

const runMain = (env: Env) =>
  Supervised.run(
    "main",
    Effect.flatMap(Ref.get(env.view), MainSync.make),
    (loop) =>
      follow(
        env.main,
        loop,
        SyncServiceMachine.mainStatus,
        (main) => setStatus(env, { main }),
        // The view may have changed since the loop was made, when nobody could tell it.
        Effect.flatMap(Ref.get(env.view), loop.look)
      ),
    setStatus(env, { main: SyncServiceMachine.stopped })
  )

const runExtension = (env: Env) =>
  Supervised.run(
    "extension",
    ExtensionSync.make(env.semaphore),
    (loop) =>
      follow(
        env.extension,
        loop,
        SyncServiceMachine.extensionStatus,
        (extension) => setStatus(env, { extension }),
        Effect.void
      ),
    setStatus(env, { extension: SyncServiceMachine.stopped })
  )

/** Lets the loops that wait for the network try at once. One that waits for something else is left to it (invariant I3). */
const retryOffline = Effect.fnUntraced(function* (env: Env) {
  const { extension, main } = yield* SubscriptionRef.get(env.snapshot)
  if (SyncServiceMachine.isOffline(main)) yield* withLoop(env.main, (loop) => loop.retry)
  if (SyncServiceMachine.isOffline(extension)) yield* withLoop(env.extension, (loop) => loop.retry)
})

/** Whether the homeserver answers, whatever it says. */
const answers = Effect.fnUntraced(function* () {
  const config = yield* SyncConfig.SyncConfig
  const homeserver = yield* Homeserver.Homeserver
  const answered = yield* homeserver.capabilities.pipe(
    Effect.as(true),
    Effect.catch((error) => Effect.succeed(error.reason._tag !== "NetworkError")),
    // The probe only shortens a wait: a defect of the homeserver's adapter must not end it for good.
    Effect.catchDefect(() => Effect.succeed(false)),
    Effect.timeoutOption(config.probeTimeoutMillis)
  )
  return Option.getOrElse(answered, () => false)
})

/** What the probe remembers from one outage to the next. */
interface Outages {
  attempt: number
  lastMillis: number
}

/**
 * While a loop waits for the network: asks `/versions` after a wait, and lets that loop try at once when an answer comes.
 *
 * The backoff starts over only when nobody has waited for the network for a while: an answer that didn't help counts as a
 * failure, so that a homeserver that answers the probe and drops the sync isn't asked in a hot loop.
 */
const probe = Effect.fnUntraced(function* (env: Env, outages: Outages) {
  const config = yield* SyncConfig.SyncConfig
  if ((yield* Clock.currentTimeMillis) - outages.lastMillis > config.backoffMaxMillis) outages.attempt = 0
  yield* Effect.sleep(SupervisionPolicy.backoffMillis(config, outages.attempt, yield* Random.next))
  outages.attempt = outages.attempt + 1
  outages.lastMillis = yield* Clock.currentTimeMillis
  const stillOffline = SyncServiceMachine.needsProbe(yield* SubscriptionRef.get(env.snapshot))
  if (stillOffline && (yield* answers())) yield* retryOffline(env)
})

const isOver = (snapshot: Snapshot): boolean => !SyncServiceMachine.shouldRun(snapshot.intent)

/** Waits until the loops should not run any more, and probes while one of them is offline. */
const watch = Effect.fnUntraced(function* (env: Env) {
  const outages: Outages = { attempt: 0, lastMillis: Number.NEGATIVE_INFINITY }
  while (true) {
    yield* awaitSnapshot(env, (snapshot) => isOver(snapshot) || SyncServiceMachine.needsProbe(snapshot))
    if (isOver(yield* SubscriptionRef.get(env.snapshot))) return
    yield* Effect.raceFirst(probe(env, outages), awaitSnapshot(env, isOver))
  }
})

/**
 * An integrator's part that breaks, or ends as interrupted when nobody interrupted it, must not keep the loops from ending, or
 * from ever starting again.
 */
const guarded = (part: Suspendable, effect: Effect.Effect<void>): Effect.Effect<void> =>
  Effect.catchCause(effect, (cause) =>
    Effect.logError(`"${part.name}" met a defect when it was suspended or resumed. The loops go on without it.`, cause)
  )

/** Ends one part and takes it off the record. */
const end = (env: Env, scope: Scope.Closeable, name: string) =>
  Effect.andThen(Scope.close(scope, Exit.void), ended(env, name))

/** Whether what follows the store for other processes' commits does so. */
const setActive = Effect.fnUntraced(function* (active: boolean) {
  yield* (yield* Inbox.Inbox).setActive(active)
  yield* (yield* EncryptionNews).setActive(active)
})

const setRecord = (env: Env, active: ReadonlyArray<string>): Effect.Effect<void> =>
  SubscriptionRef.update(env.snapshot, (snapshot) => ({ ...snapshot, active }))

/** Makes the other parts quiet, one after the other; the one that it is at is on the record. */
const endOthers = (env: Env): Effect.Effect<void> =>
  Effect.forEach(env.suspendables, (part) => Effect.andThen(setRecord(env, [part.name]), guarded(part, part.suspend)), {
    discard: true
  }).pipe(Effect.andThen(setRecord(env, [])))

/** Whether a session is there that has yet to make the other parts quiet. */
export const isInSession = ({ active }: Snapshot): boolean => active.includes(MAIN) || active.includes(EXTENSION)

/**
 * Has what is used without the loops made quiet, too: pushes are resolved and requests are sent while those don't run. Nothing
 * when they run, or are about to. `run` does it, so that it goes on when who asked for it doesn't wait, and a session waits.
 */
export const quietAgain = (env: Env): Effect.Effect<void> =>
  SubscriptionRef.update(env.snapshot, (snapshot) =>
    isOver(snapshot) && snapshot.active.length === 0 ? { ...snapshot, active: [RESOURCES] } : snapshot
  )

const endSession = Effect.fnUntraced(function* (env: Env, main: Scope.Closeable, extension: Scope.Closeable) {
  yield* setActive(false)
  // Side by side, so that a slow part doesn't hold the other up.
  yield* Effect.all([end(env, extension, EXTENSION), end(env, main, MAIN)], { concurrency: "unbounded", discard: true })
  yield* setStatus(env, { main: SyncServiceMachine.stopped, extension: SyncServiceMachine.stopped })
  yield* endOthers(env)
})

/** One run of the loops, from the opening until the intent is taken back and everything is quiet. */
const session = Effect.fnUntraced(function* (env: Env) {
  const main = yield* Scope.make()
  const extension = yield* Scope.make()
  yield* Effect.gen(function* () {
    yield* Effect.forEach([...env.suspendables].reverse(), (part) => guarded(part, part.resume), { discard: true })
    yield* setActive(true)
    yield* Effect.forkIn(runMain(env), main)
    yield* Effect.forkIn(runExtension(env), extension)
    yield* watch(env)
  }).pipe(Effect.ensuring(endSession(env, main, extension)))
})

/** Opens, in the step that records it, if that is wanted and nothing is active. */
const claim = (env: Env): Effect.Effect<boolean> =>
  SubscriptionRef.modify(env.snapshot, (snapshot) =>
    SyncServiceMachine.shouldRun(snapshot.intent) && snapshot.active.length === 0
      ? [true, { ...snapshot, active: [MAIN, EXTENSION, RESOURCES] }]
      : [false, snapshot]
  )

/** Follows the intent until interrupted; then everything has ended. */
export const run = Effect.fnUntraced(function* (env: Env): Effect.fn.Return<never, never, LoopServices> {
  while (true) {
    yield* awaitSnapshot(env, ({ active, intent }) => SyncServiceMachine.shouldRun(intent) || active.length > 0)
    if (yield* claim(env)) yield* session(env)
    // Between sessions nothing is active but what `quietAgain` has named.
    else if ((yield* SubscriptionRef.get(env.snapshot)).active.length > 0) yield* endOthers(env)
  }
})
