/**
 * Wake-ups between simulated processes on one clock, for tests under `TestClock`.
 *
 * A hub is a host; `hub.process(name)` is a process on it, whose `Wake` behaves as the one over local sockets does: signals
 * are kept between subscribing and waiting, several that nobody waited for are one, a dead process is seen by those who
 * watch it, a frozen one is silent.
 *
 * Gotchas: killing a process here ends its signals, not its fibers; the simulation interrupts them. A process that is
 * built again under the same name is a new one: who watched the old one has seen it die.
 *
 * Not here: what every adapter must do (`WakeContract.ts`), the adapter for real processes (`WakeSocket` in platform).
 */
import { Effect, Latch, Layer, Queue } from "effect"
import type { Cause, Scope } from "effect"
import type { Peer } from "../lease/Lease.ts"
import { Wake } from "../lease/Wake.ts"
import type { WakeSignal } from "../lease/Wake.ts"

/** `Gone`: its `Wake` was closed although the process lives. */
type State = "Running" | "Frozen" | "Gone" | "Dead"

interface Watcher {
  readonly topic: string
  /** Holds at most one signal; ends with the watched process. */
  readonly signals: Queue.Queue<void, Cause.Done>
}

/** One run of a named process. */
interface Incarnation {
  readonly name: string
  readonly self: Peer
  /** Open unless frozen: what the process says or hears passes through it. */
  readonly thawed: Latch.Latch
  readonly watchers: Set<Watcher>
  /** Who listens in this process for what it is asked. */
  readonly listeners: Set<Watcher>
  state: State
}

/** A simulated host. */
export interface Hub {
  /**
   * The `Wake` of a process of this name, as a layer; each build is a new process with a pid of its own. When its scope ends,
   * its watchers see `Unreachable`, as of a process that lives and doesn't listen any more.
   */
  process(name: string): Layer.Layer<Wake>
  /** Ends a process at once, as SIGKILL does: its watchers see `Dead`, now and later; it says nothing any more. */
  kill(name: string): Effect.Effect<void>
  /** Stops a process, as SIGSTOP does: it says and hears nothing until it is thawed; who starts to watch it sees `Unreachable`. */
  freeze(name: string): Effect.Effect<void>
  /** Lets a frozen process go on, as SIGCONT does: what it heard and wanted to say meanwhile happens now. */
  thaw(name: string): Effect.Effect<void>
}

const end = (incarnation: Incarnation, state: "Gone" | "Dead"): void => {
  if (incarnation.state === "Dead") return
  incarnation.state = state
  incarnation.thawed.openUnsafe()
  for (const watcher of incarnation.watchers) Queue.endUnsafe(watcher.signals)
  incarnation.watchers.clear()
  incarnation.listeners.clear()
}

const verdict = (peer: Incarnation | undefined): WakeSignal => (peer?.state === "Dead" ? "Dead" : "Unreachable")

const signal = (watchers: ReadonlySet<Watcher>, topic: string): void => {
  for (const watcher of watchers) if (watcher.topic === topic) Queue.offerUnsafe(watcher.signals, undefined)
}

const notify = (self: Incarnation, topic: string): Effect.Effect<void> =>
  self.thawed.whenOpen(Effect.sync(() => signal(self.watchers, topic)))

/** A frozen peer hears it when it is thawed, as from its kernel. */
const ask = (self: Incarnation, peer: Incarnation | undefined, topic: string): Effect.Effect<void> =>
  self.thawed.whenOpen(
    Effect.sync(() => {
      if (self.state !== "Dead") signal(peer?.listeners ?? new Set(), topic)
    })
  )

/** Puts a watcher among others until the scope ends. */
const watch = (watchers: Set<Watcher>, topic: string): Effect.Effect<Watcher, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.map(Queue.sliding<void, Cause.Done>(1), (signals) => {
      const watcher: Watcher = { topic, signals }
      watchers.add(watcher)
      return watcher
    }),
    (watcher) => Effect.sync(() => watchers.delete(watcher))
  )

const asked = (self: Incarnation, topic: string): Effect.Effect<Effect.Effect<void>, never, Scope.Scope> =>
  Effect.map(watch(self.listeners, topic), (watcher) =>
    Queue.take(watcher.signals).pipe(
      // Nothing ends it: who has been killed is asked nothing more.
      Effect.catch(() => Effect.never),
      Effect.tap(self.thawed.await)
    )
  )

const subscribe = (
  self: Incarnation,
  peer: Incarnation | undefined,
  topic: string
): Effect.Effect<Effect.Effect<WakeSignal>, never, Scope.Scope> => {
  if (peer?.state !== "Running") return Effect.succeed(Effect.sync(() => verdict(peer)))
  return Effect.map(watch(peer.watchers, topic), (watcher) =>
    Queue.take(watcher.signals).pipe(
      Effect.as("Signalled" as const),
      Effect.catch(() => Effect.sync(() => verdict(peer))),
      Effect.tap(self.thawed.await)
    )
  )
}

/** A new host without processes. */
export const makeHub: Effect.Effect<Hub> = Effect.sync(() => {
  const incarnations: Array<Incarnation> = []
  const find = (peer: Peer): Incarnation | undefined => incarnations.find((one) => one.self.pid === peer.pid)
  const each = (name: string, change: (incarnation: Incarnation) => void): Effect.Effect<void> =>
    Effect.sync(() => incarnations.filter((one) => one.name === name).forEach(change))

  const spawn = (name: string): Incarnation => {
    const pid = incarnations.length + 1
    const self: Peer = { endpoint: `memory:${name}`, pid, startedAt: `${pid}` }
    const incarnation: Incarnation = {
      name,
      self,
      thawed: Latch.makeUnsafe(true),
      watchers: new Set(),
      listeners: new Set(),
      state: "Running"
    }
    incarnations.push(incarnation)
    return incarnation
  }

  const make = (name: string) =>
    Effect.map(
      Effect.acquireRelease(
        Effect.sync(() => spawn(name)),
        (incarnation) => Effect.sync(() => end(incarnation, "Gone"))
      ),
      (incarnation) =>
        Wake.of({
          self: incarnation.self,
          notify: (topic) => notify(incarnation, topic),
          subscribe: (peer, topic) => subscribe(incarnation, find(peer), topic),
          ask: (peer, topic) => ask(incarnation, find(peer), topic),
          asked: (topic) => asked(incarnation, topic)
        })
    )

  return {
    process: (name) => Layer.effect(Wake, make(name)),
    kill: (name) => each(name, (incarnation) => end(incarnation, "Dead")),
    freeze: (name) =>
      each(name, (incarnation) => {
        if (incarnation.state !== "Running") return
        incarnation.state = "Frozen"
        incarnation.thawed.closeUnsafe()
      }),
    thaw: (name) =>
      each(name, (incarnation) => {
        if (incarnation.state !== "Frozen") return
        incarnation.state = "Running"
        incarnation.thawed.openUnsafe()
      })
  }
})
