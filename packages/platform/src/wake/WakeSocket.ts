/**
 * Wake-ups between processes of one host over local sockets: Unix domain sockets, named pipes on Windows.
 *
 * Each process listens on a socket of its own; whoever waits for something of a peer connects to the peer's. A byte is a
 * signal, the end of the stream is the peer's end, confirmed by pid and start time. Whoever asks a peer for something
 * connects, says so, and hangs up.
 *
 * Invariants: I10 (`ackMillis`; `Signals.ts`, `WakeListener.ts`).
 *
 * Gotchas: a stopped process (SIGSTOP, a suspended app) accepts connections, in the kernel's backlog, but says nothing: it
 * is `Unreachable` after `ackMillis`. One that is stopped later looks alive and silent, which is why every wait has a poll
 * behind it. Several signals that nobody has waited for are one.
 *
 * Not here: where sockets live (`SocketDirectory.ts`), the listening side (`WakeListener.ts`).
 */
import { Wake } from "@twinloop/core"
import type { Lease, WakeSignal } from "@twinloop/core"
import { Context, Deferred, Effect, Layer, Option } from "effect"
import type { Scope } from "effect"
import { createConnection } from "node:net"
import type { Socket } from "node:net"
import * as ProcessIdentity from "./ProcessIdentity.ts"
import { Signals } from "./Signals.ts"
import * as SocketDirectory from "./SocketDirectory.ts"
import * as WakeListener from "./WakeListener.ts"

/** How long a peer may take to acknowledge a subscription, or to be asked: wide of a stalled event loop, far below a lease. */
const ackMillis = 250

/** A subscription as the callbacks of its socket see it. */
interface Watch {
  readonly signals: Signals
  /** `true` when the peer has acknowledged, `false` when the stream ended before. */
  readonly acknowledged: Deferred.Deferred<boolean>
}

const open = (endpoint: string, topic: string, watch: Watch): Socket => {
  let isAcknowledged = false
  const socket = createConnection({ path: endpoint })
  socket.on("data", (chunk) => {
    const signals = isAcknowledged ? chunk.length : chunk.length - 1
    isAcknowledged = true
    Deferred.doneUnsafe(watch.acknowledged, Effect.succeed(true))
    if (signals > 0) watch.signals.offer()
  })
  // Refused, absent, reset: `close` follows, and says all that there is to say.
  socket.on("error", () => {})
  socket.once("close", () => {
    Deferred.doneUnsafe(watch.acknowledged, Effect.succeed(false))
    watch.signals.end()
  })
  socket.unref().write(WakeListener.keyOf(topic))
  return socket
}

/** `Absent`: there is nothing to connect to. `Silent`: it accepted the connection and doesn't answer. */
type Started = Watch | "Absent" | "Silent"

const start = Effect.fnUntraced(function* (
  endpoint: string | undefined,
  topic: string
): Effect.fn.Return<Started, never, Scope.Scope> {
  if (endpoint === undefined) return "Absent"
  const watch: Watch = {
    signals: new Signals(),
    acknowledged: yield* Deferred.make<boolean>()
  }
  const socket = yield* Effect.acquireRelease(
    // A path that no socket can have is refused with an exception.
    Effect.option(Effect.try(() => open(endpoint, topic, watch))),
    // In the next turn of the event loop: closing takes as long as a look at the store, and a new holder need not wait for it.
    (socket) => Effect.sync(() => Option.map(socket, (open) => setImmediate(() => open.destroy())))
  )
  if (Option.isNone(socket)) return "Absent"
  const answer = yield* Effect.timeoutOption(Deferred.await(watch.acknowledged), ackMillis)
  if (Option.isSome(answer)) return watch
  socket.value.destroy()
  return "Silent"
})

const ended = (isDead: Effect.Effect<boolean>): Effect.Effect<WakeSignal> =>
  Effect.map(isDead, (dead) => (dead ? "Dead" : "Unreachable"))

const wait = (peer: Lease.Peer, started: Started): Effect.Effect<WakeSignal> => {
  if (started === "Silent") return Effect.succeed("Unreachable")
  if (started === "Absent") return ended(Effect.map(ProcessIdentity.check(peer), (liveness) => liveness === "Dead"))
  return Effect.flatMap(started.signals.next, (isSignal) =>
    isSignal ? Effect.succeed("Signalled" as const) : ended(ProcessIdentity.confirmDead(peer))
  )
}

const subscribe: Wake["Service"]["subscribe"] = (peer, topic) =>
  Effect.map(start(peer.endpoint, topic), (started) => wait(peer, started))

/** Says one thing and hangs up; what was said waits in the kernel for a peer that is frozen. */
const say = (endpoint: string, message: string): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const done = (): void => resume(Effect.void)
    try {
      const socket = createConnection({ path: endpoint })
      // Refused, absent, reset: there is nobody to ask.
      socket.on("error", () => {}).once("close", done)
      socket.unref().end(message, done)
      return Effect.sync(() => socket.destroy())
    } catch {
      // A path that no socket can have.
      return done()
    }
  })

const ask: Wake["Service"]["ask"] = ({ endpoint }, topic) =>
  endpoint === undefined
    ? Effect.void
    : Effect.asVoid(Effect.timeoutOption(say(endpoint, WakeListener.askOf(topic)), ackMillis))

/**
 * The listening socket of this process, to be closed while it is suspended (invariant I4) and opened when it resumes. Who
 * watches a closed one finds it `Unreachable` at once, instead of waiting for a frozen process. Neither ever fails.
 */
export class WakeListening extends Context.Service<
  WakeListening,
  { readonly close: Effect.Effect<void>; readonly open: Effect.Effect<void> }
>()("@twinloop/platform/WakeListening") {}

const warn = (error: SocketDirectory.SocketDirectoryError): Effect.Effect<void> =>
  Effect.logWarning(`no wake-ups for other processes: ${error.message}`)

const makeContext = Effect.fnUntraced(function* (
  directory: string
): Effect.fn.Return<Context.Context<Wake | WakeListening>, never, Scope.Scope> {
  const identity = yield* ProcessIdentity.self
  const listener = yield* WakeListener.make(directory).pipe(Effect.tapError(warn), Effect.option)
  if (Option.isNone(listener)) {
    const nobody = WakeListening.of({ close: Effect.void, open: Effect.void })
    const wake = Wake.of({
      self: identity,
      notify: () => Effect.void,
      subscribe,
      ask,
      asked: () => Effect.succeed(Effect.never)
    })
    return Context.make(Wake, wake).pipe(Context.add(WakeListening, nobody))
  }
  const { endpoint, notify, asked, close, open } = listener.value
  const listening = WakeListening.of({ close, open: Effect.catch(open, warn) })
  const wake = Wake.of({ self: { ...identity, endpoint }, notify, subscribe, ask, asked })
  return Context.make(Wake, wake).pipe(Context.add(WakeListening, listening))
})

/**
 * The `Wake` of this process, with its socket in a private directory (`SocketDirectory.forDatabase`) until the scope ends.
 *
 * Never fails: where there can be no socket (a file system without them, a directory of somebody else), a warning is logged,
 * others can't watch this process, and their polls do the work.
 */
export const make = (options: { readonly directory: string }): Effect.Effect<Wake["Service"], never, Scope.Scope> =>
  Effect.map(makeContext(options.directory), (context) => Context.get(context, Wake))

/** The `Wake` of this process over local sockets in a directory, and the means to close its own while suspended. */
export const layer = (options: { readonly directory: string }): Layer.Layer<Wake | WakeListening> =>
  Layer.effectContext(makeContext(options.directory))

/**
 * The same, in the directory that belongs to a database file.
 *
 * @example
 * ```ts
 * const Live = DistributedSemaphore.layer.pipe(Layer.provide(WakeSocket.layerDatabase("/data/alice.db")))
 * ```
 */
export const layerDatabase = (filename: string): Layer.Layer<Wake | WakeListening> =>
  Layer.effectContext(Effect.flatMap(SocketDirectory.forDatabase(filename), makeContext))

/** For an application that is one process: no socket, nobody to wake. */
export const layerNone: Layer.Layer<Wake | WakeListening> = Layer.merge(
  Wake.layerNone,
  Layer.succeed(WakeListening, { close: Effect.void, open: Effect.void })
)
