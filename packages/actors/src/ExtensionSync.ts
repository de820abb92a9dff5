/**
 * The extension loop: interprets `ExtensionLoopMachine` with the homeserver, the store, the crypto engine and the lease.
 *
 * Invariants: I1 and I2 (each batch is one fenced commit), I3 (knows nothing of the main loop), I4, I5 (memory counts as
 * void from the moment a batch enters it until its commit is done), I6 (the inbox is announced after the commit), I7.
 *
 * Not here: what happens next (`ExtensionLoopMachine`), the transaction (`SyncStore`), consuming the inbox (`Inbox.ts`).
 */
import {
  CryptoEngine,
  type DistributedSemaphore,
  ExtensionLoopMachine,
  Homeserver,
  type HomeserverError,
  type Lease,
  type MatrixEvent,
  type SlidingSync,
  SyncConfig,
  SyncStore
} from "@twinloop/core"
import { Clock, Duration, Effect, Exit, Option, Random, Result } from "effect"
import type { Cause, Scope, Stream } from "effect"
import * as Actor from "./Actor.ts"
import * as Inbox from "./Inbox.ts"
import * as LeaseKeeper from "./LeaseKeeper.ts"
import * as LoopFailure from "./LoopFailure.ts"
import * as Metrics from "./Metrics.ts"

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
  readonly crashed: Effect.Effect<Cause.Cause<never>>
}

const orFail = LoopFailure.orInput("extension")

interface Env {
  readonly homeserver: Homeserver.Homeserver["Service"]
  readonly store: SyncStore.SyncStore["Service"]
  readonly crypto: CryptoEngine.CryptoEngine["Service"]
  readonly keeper: LeaseKeeper.LeaseKeeper
  readonly inbox: Inbox.Inbox["Service"]
}

/** Runs something that touches the engine's memory: void until it is done, valid afterwards (invariant I5). */
const touching = <A, E, R>(env: Env, effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const grant = yield* env.keeper.current
    if (Option.isSome(grant)) yield* grant.value.markDirty
    // Cut short or broken, nobody comes back to it: what the engine was at is void. A failure is the machine's to answer.
    const result = yield* Effect.onExit(effect, (exit) =>
      Exit.hasInterrupts(exit) || Exit.hasDies(exit) ? env.crypto.discard : Effect.void
    )
    if (Option.isSome(grant)) yield* grant.value.markClean
    return result
  })

/** One response: decrypt in memory, commit under the fence, then tell. */
const apply = Effect.fnUntraced(function* (
  env: Env,
  fence: Lease.Fence,
  sent: SyncStore.ExtensionPosition,
  response: SlidingSync.SyncResponse
) {
  const { e2ee, toDevice } = response.extensions
  const received = yield* env.crypto.receive(fence, {
    toDevice: toDevice?.events ?? [],
    ...(e2ee === undefined ? {} : { e2ee }),
    fresh: sent.pos === undefined
  })
  const since = toDevice?.nextBatch ?? sent.since
  const quarantined = [...response.quarantined, ...received.quarantined]
  const entries = yield* env.store.commitExtension(fence, {
    ...(sent.since === undefined ? {} : { sentSince: sent.since }),
    position: { pos: response.pos, ...(since === undefined ? {} : { since }) },
    inbox: received.inbox,
    crypto: received.writes,
    quarantined
  })
  yield* env.crypto.committed
  if (entries.length > 0) yield* env.inbox.committed(entries)
  yield* Metrics.applied(entries.length, quarantined.length)
})

const sendOne = (env: Env, outgoing: CryptoEngine.OutgoingRequest) =>
  outgoing.request._tag === "Keys"
    ? env.homeserver.keys(outgoing.request.keys)
    : Effect.as(env.homeserver.sendToDevice(outgoing.request.toDevice), {})

/** Whether the homeserver has refused this one request, and may well take others. */
const isRefusal = ({ reason }: HomeserverError.HomeserverError): boolean =>
  reason._tag === "BadRequest" || reason._tag === "Forbidden" || reason._tag === "NotFound"

/** Takes the answer to a request into memory, and commits what comes of it under the fence. */
const commitSent = Effect.fnUntraced(function* (
  env: Env,
  fence: Lease.Fence,
  outgoing: CryptoEngine.OutgoingRequest,
  response: MatrixEvent.JsonObject
) {
  const writes = yield* env.crypto.markSent(fence, outgoing, response)
  const position = yield* env.store.extensionPosition
  yield* env.store.commitExtension(fence, {
    ...(position.since === undefined ? {} : { sentSince: position.since }),
    position,
    inbox: [],
    crypto: writes,
    quarantined: []
  })
  yield* env.crypto.committed
})

/**
 * Sends what the engine has queued. What the homeserver refuses stays queued without holding up what is behind it; when it
 * takes nothing just then, everything waits for the next iteration. Either way the loop goes on.
 */
const sendOutgoing = Effect.fnUntraced(function* (env: Env, fence: Lease.Fence) {
  for (const outgoing of yield* env.crypto.outgoing(fence)) {
    const answer = yield* Effect.result(sendOne(env, outgoing))
    if (Result.isSuccess(answer)) {
      yield* commitSent(env, fence, outgoing, answer.success)
      continue
    }
    yield* Effect.logWarning(
      `A request of the end-to-end machine stays queued and is tried again. ${answer.failure.message}`
    )
    if (!isRefusal(answer.failure)) return
  }
})

const takeLock = (env: Env, context: Actor.Context<Input>) =>
  env.keeper.take(context.send({ _tag: "LockRefused" })).pipe(
    Effect.map((grant): Input => ({
      _tag: "LockGranted",
      fence: { name: grant.name, holder: grant.holder, generation: grant.generation },
      isDirty: grant.isDirty
    })),
    orFail("LockFailed")
  )

/** Tells of the loss of the grant that is kept. */
const watchLock = (env: Env, context: Actor.Context<Input>): Effect.Effect<void> =>
  Effect.flatMap(env.keeper.current, (grant) =>
    Option.isNone(grant)
      ? Effect.void
      : context.run(
          "lost",
          Effect.map(grant.value.lost, ({ generation }): Input => ({ _tag: "LockLost", generation }))
        )
  )

/** Everything that takes time and of which there is one at a time. */
const work = (
  env: Env,
  command: Exclude<Command, { _tag: "AbortWork" | "WatchLock" | "ReleaseLock" | "DiscardMemory" }>,
  context: Actor.Context<Input>
): Effect.Effect<Input> => {
  switch (command._tag) {
    case "TakeLock":
      return takeLock(env, context)
    case "Reload":
      return touching(env, env.crypto.reload(command.fence)).pipe(
        Effect.as({ _tag: "Reloaded" } as const),
        orFail("ReloadFailed")
      )
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
      return touching(env, apply(env, command.fence, command.sent, command.response)).pipe(
        Effect.as({ _tag: "Applied" } as const),
        orFail("ApplyFailed")
      )
    case "SendOutgoing":
      return touching(env, sendOutgoing(env, command.fence)).pipe(
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
      case "DiscardMemory":
        return Effect.andThen(Effect.flatMap(env.keeper.current, markDirty), env.crypto.discard)
      case "ReleaseLock":
        return Effect.andThen(context.cancel("lost"), env.keeper.release)
      default:
        return context.run("work", work(env, command, context))
    }
  }

const markDirty = (grant: Option.Option<DistributedSemaphore.Grant>): Effect.Effect<void> =>
  Option.isSome(grant) ? grant.value.markDirty : Effect.void

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
  Homeserver.Homeserver | SyncStore.SyncStore | CryptoEngine.CryptoEngine | Inbox.Inbox | Scope.Scope
> {
  const sync = yield* SyncConfig.SyncConfig
  const env: Env = {
    homeserver: yield* Homeserver.Homeserver,
    store: yield* SyncStore.SyncStore,
    crypto: yield* CryptoEngine.CryptoEngine,
    inbox: yield* Inbox.Inbox,
    keeper: yield* LeaseKeeper.make(semaphore)
  }
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
    crashed: actor.crashed
  }
})
