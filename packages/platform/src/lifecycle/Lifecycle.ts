/**
 * Lets the host's signals stop, suspend and resume a process.
 *
 * SIGTERM and SIGINT stop it. SIGTSTP (^Z) suspends what runs in it, and then really stops the process; SIGCONT resumes it.
 * `run` does what a `LifecycleSource` asks for; `layerSignals` is the source of POSIX signals.
 *
 * Exit codes: a process that stops in order ends by itself (0 unless its program says otherwise); a second SIGINT or SIGTERM
 * while it is stopping ends it at once with `exitCodes` (130, 143), until it is gone.
 *
 * Invariants: I4 (the process freezes only after `suspend` has returned, so never with a lock held), I10 (only the latest
 * wish is kept, however many signals come).
 *
 * Gotchas: SIGSTOP and SIGKILL can't be seen; the lease's expiry and the fence (invariant I1) answer for those. A process
 * that was frozen by SIGSTOP was not suspended, so SIGCONT resumes nothing in it.
 *
 * Not here: deadlines, which `suspend` and `stop` themselves keep; suspending from outside (`ControlServer.ts`).
 */
import { Effect, Fiber, Layer, Queue, Stream, SubscriptionRef } from "effect"
import type { Scope } from "effect"
import { LifecycleSource } from "./LifecycleSource.ts"
import type { LifecycleEvent } from "./LifecycleSource.ts"

/** What a process that is ended at once by a second signal exits with: 128 + the signal's number, as shells do. */
export const exitCodes = { SIGINT: 130, SIGTERM: 143 } as const

/** What to do; each returns within a deadline of its own. Called one at a time, and `resume` only after `suspend`. */
export interface LifecycleHandlers<R = never> {
  readonly suspend: Effect.Effect<unknown, never, R>
  readonly resume: Effect.Effect<unknown, never, R>
  readonly stop: Effect.Effect<unknown, never, R>
}

/** How the process is, or is wanted to be. */
type Condition = "Running" | "Suspended" | "Stopped"

const wanted = { Suspend: "Suspended", Resume: "Running", Stop: "Stopped" } as const satisfies Record<
  LifecycleEvent["_tag"],
  Condition
>

/** Notes what the host wants; a second `Stop` aborts. Nothing is wanted any more after the first one. */
const note = (
  source: LifecycleSource["Service"],
  wish: SubscriptionRef.SubscriptionRef<Condition>,
  event: LifecycleEvent
): Effect.Effect<void> =>
  Effect.flatMap(SubscriptionRef.get(wish), (current) => {
    if (current !== "Stopped") return SubscriptionRef.set(wish, wanted[event._tag])
    return event._tag === "Stop" ? source.abort(event.exitCode) : Effect.void
  })

/** Waits until something else is wanted than what is. */
const nextWish = (wish: SubscriptionRef.SubscriptionRef<Condition>, actual: Condition): Effect.Effect<Condition> =>
  SubscriptionRef.changes(wish).pipe(
    Stream.filter((wanted) => wanted !== actual),
    Stream.runHead,
    Effect.flatMap(Effect.fromOption),
    // The stream of changes ends only with the fiber.
    Effect.orDie
  )

/**
 * Does what the host asks for, until it asks to stop and that is done. Of several wishes that come while one is being
 * fulfilled, the last one counts; a wish to stop is never overridden.
 *
 * @example
 * ```ts
 * Lifecycle.run({
 *   suspend: service.suspend({ deadline: "5 seconds" }),
 *   resume: service.resume,
 *   stop: service.stop({ deadline: "5 seconds" })
 * }).pipe(Effect.provide(Lifecycle.layerSignals))
 * ```
 */
export const run = Effect.fnUntraced(function* <R>(
  handlers: LifecycleHandlers<R>
): Effect.fn.Return<void, never, R | LifecycleSource> {
  const source = yield* LifecycleSource
  const wish = yield* SubscriptionRef.make<Condition>("Running")
  const noting = yield* Effect.forkChild(Stream.runForEach(source.events, (event) => note(source, wish, event)))
  let actual: Condition = "Running"
  while (actual !== "Stopped") {
    actual = yield* nextWish(wish, actual)
    if (actual === "Stopped") yield* handlers.stop
    if (actual === "Running") yield* handlers.resume
    if (actual === "Suspended") {
      yield* handlers.suspend
      // SIGCONT may have come meanwhile, and comes only once: freezing now would be for good.
      if ((yield* SubscriptionRef.get(wish)) === "Suspended") yield* source.freeze
    }
  }
  yield* Fiber.interrupt(noting)
})

const events = {
  SIGINT: { _tag: "Stop", exitCode: exitCodes.SIGINT },
  SIGTERM: { _tag: "Stop", exitCode: exitCodes.SIGTERM },
  SIGTSTP: { _tag: "Suspend" },
  SIGCONT: { _tag: "Resume" }
} as const satisfies Partial<Record<NodeJS.Signals, LifecycleEvent>>

/** Signals to remember until somebody asks: far more than a human sends while a process starts. */
const backlog = 16

/** What signals have said so far, as of the turn of the event loop in which each is told. */
interface Said {
  /** The host was told to stop: from there on, the next one ends the process. */
  stop: boolean
  /** The last word was to suspend, and not to go on. */
  suspend: boolean
}

/** Acts on a signal itself where nobody may be left who reads the queue: a second wish to stop. */
const listen = (signal: keyof typeof events, queue: Queue.Queue<LifecycleEvent>, said: Said) => (): void => {
  const event: LifecycleEvent = events[signal]
  if (event._tag === "Stop" && said.stop) process.exit(event.exitCode)
  if (event._tag === "Stop") said.stop = true
  else said.suspend = event._tag === "Suspend"
  Queue.offerUnsafe(queue, event)
}

/**
 * Takes a signal over for as long as the scope lasts; one that stops, until the process is gone once it has come. Whoever
 * listened before is set aside and comes back afterwards: the usual main function of a Node program interrupts everything
 * at SIGINT, in the middle of an orderly stop.
 */
const takeOver = (signal: keyof typeof events, queue: Queue.Queue<LifecycleEvent>, said: Said) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const others = process.listeners(signal)
      const listener = listen(signal, queue, said)
      process.removeAllListeners(signal).on(signal, listener)
      return { listener, others }
    }),
    ({ listener, others }) =>
      Effect.sync(() => {
        // What still closes after the scope may hang, too; only the listener can end the process then.
        if (said.stop && events[signal]._tag === "Stop") return
        process.off(signal, listener)
        for (const other of others) process.on(signal, other)
      })
  )

/**
 * Stops the process, unless it was told to go on meanwhile. Signals wait in a pipe until the event loop polls; after two turns
 * it has, whichever phase it was in. A SIGCONT that came before is known by then, and would not come again.
 */
const freeze = (said: Said): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const stop = (): void => {
      if (said.suspend) process.kill(process.pid, "SIGSTOP")
      resume(Effect.void)
    }
    setImmediate(() => setImmediate(stop))
  })

const makeSignals: Effect.Effect<LifecycleSource["Service"], never, Scope.Scope> = Effect.gen(function* () {
  const queue = yield* Queue.sliding<LifecycleEvent>(backlog)
  const said: Said = { stop: false, suspend: false }
  for (const signal of ["SIGINT", "SIGTERM", "SIGTSTP", "SIGCONT"] as const) yield* takeOver(signal, queue, said)
  return LifecycleSource.of({
    events: Stream.fromQueue(queue),
    freeze: freeze(said),
    abort: (exitCode) => Effect.sync(() => process.exit(exitCode))
  })
})

/** POSIX signals as the source, from the build of the layer on: a signal that comes before `run` is not lost. */
export const layerSignals: Layer.Layer<LifecycleSource> = Layer.effect(LifecycleSource, makeSignals)
