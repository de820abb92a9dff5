/**
 * An actor: a bounded mailbox, a pure machine, an interpreter of its commands, and a published state.
 *
 * Inputs are taken one at a time, in order. For each, the machine decides the next state and the commands; the state is
 * published, then the commands are interpreted. Whatever takes time runs in a fiber of its own (`run`), whose result comes
 * back as an input.
 *
 * Invariants: I4 (when the scope closes, every fiber of the actor has ended), I10 (the mailbox is bounded: who sends too
 * fast waits).
 *
 * Gotchas: `interpret` itself must be quick. A defect, in the machine or in a fiber, is a broken invariant, and so is an
 * effect that ends as interrupted when nobody interrupted it: `crashed` tells, and whoever made the actor ends it and decides
 * about a new one.
 */
import { Cause, Deferred, Effect, Exit, FiberMap, Queue, SubscriptionRef } from "effect"
import type { Scope, Stream } from "effect"

/** What an interpreter can do besides its effects. */
export interface Context<Input> {
  /**
   * Runs an effect in a fiber of its own under a key; its result, unless `undefined`, is sent to the mailbox. A running one
   * of that key is interrupted first, and has ended when this one starts; so never from a fiber of the same key.
   */
  run<R>(key: string, effect: Effect.Effect<Input | undefined, never, R>): Effect.Effect<void, never, R>
  /** Interrupts the fiber of a key, and waits until it has ended. */
  cancel(key: string): Effect.Effect<void>
  /** Sends an input to the actor itself. Only for effects under `run`: the mailbox may be full. */
  send(input: Input): Effect.Effect<void>
}

export interface Actor<State, Input> {
  /** Sends an input; waits while the mailbox is full. After the actor has ended, nothing happens. */
  send(input: Input): Effect.Effect<void>
  readonly state: Effect.Effect<State>
  /** The state and then its changes, every one of them: they wait in memory for a subscriber, so read them at once. */
  readonly changes: Stream.Stream<State>
  /** Ends with the defect (or the interruption from within) after which the actor can't go on, and never else. */
  readonly crashed: Effect.Effect<Cause.Cause<never>>
}

export interface Options<State, Input, Command, R> {
  readonly name: string
  readonly initial: State
  readonly mailboxCapacity: number
  step(state: State, input: Input): readonly [State, ReadonlyArray<Command>]
  interpret(command: Command, context: Context<Input>): Effect.Effect<void, never, R>
}

/** Starts an actor; it ends with the scope. */
export const make = Effect.fnUntraced(function* <State, Input, Command, R>(
  options: Options<State, Input, Command, R>
): Effect.fn.Return<Actor<State, Input>, never, R | Scope.Scope> {
  const mailbox = yield* Effect.acquireRelease(Queue.bounded<Input>(options.mailboxCapacity), Queue.shutdown)
  const state = yield* SubscriptionRef.make(options.initial)
  const crashed = yield* Deferred.make<Cause.Cause<never>>()
  const fibers = yield* FiberMap.make<string>()

  const crash = (cause: Cause.Cause<never>): Effect.Effect<void> => Effect.asVoid(Deferred.succeed(crashed, cause))
  const watched = <R>(effect: Effect.Effect<void, never, R>): Effect.Effect<void, never, R> =>
    effect.pipe(
      // Also in the finalizers of a fiber that is interrupted.
      Effect.onExit((exit) => (Exit.isFailure(exit) && Cause.hasDies(exit.cause) ? crash(exit.cause) : Effect.void)),
      // An interrupted fiber runs no handler: what comes here ended by itself, even if it ended as interrupted.
      Effect.catchCause(crash)
    )
  const send = (input: Input): Effect.Effect<void> => Effect.asVoid(Queue.offer(mailbox, input))

  const context: Context<Input> = {
    send,
    cancel: (key) => FiberMap.remove(fibers, key),
    run: (key, effect) =>
      effect.pipe(
        Effect.flatMap((input) => (input === undefined ? Effect.void : send(input))),
        watched,
        // Waits for the one before, so that two of a key never overlap, not even in their finalizers.
        (fiber) => Effect.andThen(FiberMap.remove(fibers, key), FiberMap.run(fibers, key, fiber)),
        Effect.asVoid
      )
  }

  const loop = Effect.forever(
    Effect.gen(function* () {
      const input = yield* Queue.take(mailbox)
      const [next, commands] = options.step(yield* SubscriptionRef.get(state), input)
      yield* SubscriptionRef.set(state, next)
      for (const command of commands) yield* options.interpret(command, context)
    })
  )
  yield* loop.pipe(watched, Effect.annotateLogs({ actor: options.name }), Effect.forkScoped)
  return {
    send,
    state: SubscriptionRef.get(state),
    changes: SubscriptionRef.changes(state),
    crashed: Deferred.await(crashed)
  }
})
