/**
 * The extension loop: interprets `ExtensionLoopMachine` with the homeserver, the store, the crypto engine and the lease.
 *
 * Invariants: I1 and I2 (each batch is one fenced commit), I3 (knows nothing of the main loop), I4.
 *
 * Not here: what happens next (`ExtensionLoopMachine`), the transaction (`SyncStore`), the engine's memory and when it is
 * valid (`CryptoTurn.ts`), applying a response (`ExtensionBatch.ts`), consuming the inbox (`Inbox.ts`).
 */
import { type DistributedSemaphore, ExtensionLoopMachine, Homeserver, SyncConfig, SyncStore } from "@twinloop/core"
import { Clock, Duration, Effect, Option, Random, Scope } from "effect"
import type { Cause, Stream } from "effect"
import * as Actor from "./Actor.ts"
import * as CryptoTurn from "./CryptoTurn.ts"
import { EncryptionNews } from "./EncryptionNews.ts"
import * as ExtensionBatch from "./ExtensionBatch.ts"
import type * as Inbox from "./Inbox.ts"
import * as LeaseKeeper from "./LeaseKeeper.ts"
import * as LoopFailure from "./LoopFailure.ts"
import * as OutgoingRequests from "./OutgoingRequests.ts"

type State = ExtensionLoopMachine.State
type Input = ExtensionLoopMachine.Input
type Command = ExtensionLoopMachine.Command

export interface ExtensionSync {
  readonly state: Effect.Effect<State>
  readonly changes: Stream.Stream<State>
  readonly lease: LeaseKeeper.LeaseKeeper
  /** Tries again after a failure that ended the loop. */
  readonly restart: Effect.Effect<void>
  /** Don't wait out a backoff: something says that it may work now. */
  readonly retry: Effect.Effect<void>
  /**
   * This process needs the stream soon: an owner in another process finishes what it commits, and yields. Waits for nothing,
   * and does nothing when the stream is ours; see `DistributedSemaphore.hurry`.
   */
  readonly hurry: Effect.Effect<void>
  readonly crashed: Effect.Effect<Cause.Cause<never>>
}

const orFail = LoopFailure.orInput("extension")

interface Env {
  readonly homeserver: Homeserver.Homeserver["Service"]
  readonly store: SyncStore.SyncStore["Service"]
  readonly turn: CryptoTurn.CryptoTurn["Service"]
  readonly requests: OutgoingRequests.OutgoingRequests["Service"]
  readonly keeper: LeaseKeeper.LeaseKeeper
  readonly news: EncryptionNews["Service"]
  readonly apply: ExtensionBatch.Apply
}

/** While another process owns the stream, what it commits is followed by its signals. */
const waitForGrant = (env: Env, context: Actor.Context<Input>) =>
  Effect.scopedWith((scope) =>
    env.keeper.take(({ peer }) =>
      Effect.andThen(context.send({ _tag: "LockRefused" }), Scope.provide(env.news.watch(peer), scope))
    )
  )

const takeLock = (env: Env, context: Actor.Context<Input>) =>
  waitForGrant(env, context).pipe(
    Effect.tap(env.turn.open),
    Effect.flatMap((grant) =>
      Effect.map(Clock.currentTimeMillis, (nowMillis): Input => ({
        _tag: "LockGranted",
        fence: { name: grant.name, holder: grant.holder, generation: grant.generation },
        isDirty: grant.isDirty,
        nowMillis
      }))
    ),
    orFail("LockFailed")
  )

/** Tells that somebody else needs the grant soon, once this has happened. */
const tellWanted = <A>(generation: number, happens: Effect.Effect<A>, context: Actor.Context<Input>) =>
  context.run(
    "wanted",
    Effect.andThen(
      happens,
      Effect.map(Clock.currentTimeMillis, (nowMillis): Input => ({ _tag: "LockWanted", generation, nowMillis }))
    )
  )

/** Tells of the loss of the grant that is kept, and of who else needs it; sends meanwhile what is wanted at once. */
const watchLock = (env: Env, context: Actor.Context<Input>): Effect.Effect<void> =>
  Effect.flatMap(env.keeper.current, (kept) => {
    if (Option.isNone(kept)) return Effect.void
    const { generation, lost, wanted } = kept.value
    const tellLost = context.run("lost", Effect.as(lost, { _tag: "LockLost", generation } as const))
    const flushing = context.run("flush", env.requests.flushWanted)
    return tellLost.pipe(Effect.andThen(tellWanted(generation, wanted, context)), Effect.andThen(flushing))
  })

/** Under these keys whatever needs the grant runs, besides the work. */
const underGrant = ["lost", "wanted", "flush"] as const

/** Everything that takes time and of which there is one at a time. */
const work = (
  env: Env,
  command: Exclude<Command, { _tag: "AbortWork" | "WatchLock" | "WantLater" | "ReleaseLock" | "DiscardMemory" }>,
  context: Actor.Context<Input>
): Effect.Effect<Input> => {
  switch (command._tag) {
    case "TakeLock":
      return takeLock(env, context)
    case "Reload":
      return env.turn.load.pipe(Effect.as({ _tag: "Reloaded" } as const), orFail("ReloadFailed"))
    case "ReadPosition":
      return env.store.extensionPosition.pipe(
        Effect.map((position) => ({ _tag: "PositionRead", position }) as const),
        orFail("ReadFailed")
      )
    case "Poll": {
      const { epoch } = command
      return Effect.timed(env.homeserver.sync(command.request)).pipe(
        Effect.map(([took, response]): Input => ({
          _tag: "Polled",
          epoch,
          response,
          tookMillis: Duration.toMillis(took)
        })),
        Effect.catch((error) =>
          Effect.map(LoopFailure.of("extension", error), (failed): Input => ({ _tag: "PollFailed", epoch, ...failed }))
        )
      )
    }
    case "Apply":
      return env
        .apply(command.sent, command.response)
        .pipe(Effect.as({ _tag: "Applied" } as const), orFail("ApplyFailed"))
    case "SendOutgoing":
      return env.requests.flush.pipe(
        Effect.andThen(Effect.all({ nowMillis: Clock.currentTimeMillis, random: Random.next })),
        Effect.map((at) => ({ _tag: "Sent", ...at }) as const),
        orFail("ApplyFailed")
      )
    case "ExpirePosition":
      return env.store.expireExtension(command.fence).pipe(
        Effect.andThen(Clock.currentTimeMillis),
        Effect.map((nowMillis) => ({ _tag: "Expired", nowMillis }) as const),
        orFail("ExpireFailed")
      )
    case "Wait":
      return Effect.as(Effect.sleep(command.millis), { _tag: "BackoffElapsed" } as const)
  }
}

const interpret =
  (env: Env) =>
  (command: Command, context: Actor.Context<Input>): Effect.Effect<void> => {
    switch (command._tag) {
      case "AbortWork":
        return context.cancel("work")
      case "WatchLock":
        return watchLock(env, context)
      case "WantLater":
        return tellWanted(command.generation, Effect.sleep(command.millis), context)
      case "DiscardMemory":
        return env.turn.discard
      case "ReleaseLock":
        return Effect.forEach(underGrant, context.cancel, { discard: true }).pipe(
          Effect.andThen(env.turn.close),
          Effect.andThen(env.keeper.release)
        )
      default:
        return context.run("work", work(env, command, context))
    }
  }

/**
 * Starts the extension loop; it ends with the scope, and the lease row is free then.
 *
 * @param semaphore the one that guards the extension stream, made once per process, since it knows whether this process's
 *   memory is still valid
 */
export const make = Effect.fnUntraced(function* (
  semaphore: DistributedSemaphore.DistributedSemaphore
): Effect.fn.Return<
  ExtensionSync,
  never,
  | Homeserver.Homeserver
  | SyncStore.SyncStore
  | CryptoTurn.CryptoTurn
  | OutgoingRequests.OutgoingRequests
  | EncryptionNews
  | Inbox.Inbox
  | Scope.Scope
> {
  const sync = yield* SyncConfig.SyncConfig
  const turn = yield* CryptoTurn.CryptoTurn
  const env: Env = {
    homeserver: yield* Homeserver.Homeserver,
    store: yield* SyncStore.SyncStore,
    turn,
    requests: yield* OutgoingRequests.OutgoingRequests,
    apply: yield* ExtensionBatch.make(turn),
    news: yield* EncryptionNews,
    keeper: yield* LeaseKeeper.make(semaphore)
  }
  // Before the keeper lets go, and after everything that is started below has ended. Turns under another's grant go on.
  const closeTurn = Effect.flatMap(env.keeper.current, (kept) => (Option.isSome(kept) ? env.turn.close : Effect.void))
  yield* Effect.addFinalizer(() => Effect.andThen(env.turn.attach(Effect.void), closeTurn))
  yield* env.turn.attach(env.keeper.hurry)
  const actor = yield* Actor.make<State, Input, Command, never>({
    name: "ExtensionSync",
    initial: ExtensionLoopMachine.initial,
    mailboxCapacity: sync.mailboxCapacity,
    step: (state, input) => ExtensionLoopMachine.step({ sync }, state, input),
    interpret: interpret(env)
  })
  const restart = actor.send({ _tag: "Start" })
  yield* restart
  return {
    state: actor.state,
    changes: actor.changes,
    lease: env.keeper,
    restart,
    retry: actor.send({ _tag: "Retry" }),
    hurry: env.keeper.hurry,
    crashed: actor.crashed
  }
})
