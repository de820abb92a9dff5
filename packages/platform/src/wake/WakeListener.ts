/**
 * The listening side of the wake-ups: this process's own socket, who watches it, and what it is asked.
 *
 * A subscriber connects, sends the key of one topic (`keyOf`), and gets one byte when it is subscribed and one byte per
 * signal; the end of the stream says that this process is gone or listens no more. Who asks for something sends `askOf` the
 * topic instead, and gets no answer.
 *
 * Invariants: I10. Who says nothing for `silenceMillis`, or what is neither, is cut off. A subscriber that doesn't read (a stopped process) costs at most what the kernel buffers for one socket
 * plus one byte: as long as a byte to it waits in this process, it gets no other, and needs no other, since signals carry no
 * data. Nobody waits for it. However often something is asked, one signal of it is kept.
 *
 * Gotchas: nothing here keeps the process alive. `node:net` is used directly, since `effect/socket` waits for `drain` and
 * can't `unref`.
 *
 * Not here: watching others (`WakeSocket.ts`).
 */
import { Effect, ScopedRef } from "effect"
import type { Scope } from "effect"
import { createServer } from "node:net"
import type { Server, Socket } from "node:net"
import { sha256 } from "./Digest.ts"
import { Signals } from "./Signals.ts"
import { claim, publish, SocketDirectoryError } from "./SocketDirectory.ts"
import type { SocketFile } from "./SocketDirectory.ts"

/** Ten times the processes of one database that anyone has seen; beyond it, watchers are refused and poll. */
const maxSubscribers = 256

/** How a topic is named on the wire: always 64 characters, whatever it contains. */
export const keyOf = (topic: string): string => sha256(topic)

/** What asks for something of a topic on the wire: a mark, and the key. */
export const askOf = (topic: string): string => `?${keyOf(topic)}`

const isKey = /^[0-9a-f]{64}$/

/** How long a connection may take to say what it wants: it is sent with the connection, by a process that isn't frozen. */
const silenceMillis = 2_000

/** The only thing that this side ever sends: once as the acknowledgement, then per signal. */
const byte = Buffer.of(1)

/** Everybody who watches this process, and what it listens for. */
interface Subscribers {
  /** All connections, also those that have not said their topic yet. */
  readonly connections: Set<Socket>
  readonly byKey: Map<string, Set<Socket>>
  /** Who in this process waits to be asked, by key; stays while the socket is closed. */
  readonly listeners: Map<string, Set<Signals>>
}

const subscribe = (subscribers: Subscribers, key: string, socket: Socket): void => {
  const others = subscribers.byKey.get(key) ?? new Set()
  subscribers.byKey.set(key, others.add(socket))
  socket.once("close", () => {
    others.delete(socket)
    if (others.size === 0) subscribers.byKey.delete(key)
  })
}

/** Does what a connection wants, once it has said all of it. */
const obey = (subscribers: Subscribers, socket: Socket, key: string, isAsk: boolean): void => {
  socket.setTimeout(0)
  // Whatever follows is read and dropped, so that it can't pile up.
  socket.resume()
  if (isAsk) {
    for (const signals of subscribers.listeners.get(key) ?? []) signals.offer()
    socket.end()
  } else {
    subscribe(subscribers, key, socket)
    socket.write(byte)
  }
}

const accept = (subscribers: Subscribers, socket: Socket): void => {
  let received = ""
  const onData = (chunk: string): void => {
    received += chunk
    const isAsk = received.startsWith("?")
    const start = isAsk ? 1 : 0
    const key = received.slice(start, start + 64)
    if (key.length < 64) return
    socket.off("data", onData)
    if (isKey.test(key)) obey(subscribers, socket, key, isAsk)
    else socket.destroy()
  }
  // Not a subscriber, who is silent for good: this ends with the first thing that is understood.
  socket.setTimeout(silenceMillis, () => socket.destroy())
  subscribers.connections.add(socket)
  socket.once("close", () => subscribers.connections.delete(socket))
  // A subscriber that went away is no error; `close` follows and forgets it.
  socket.on("error", () => {})
  socket.setEncoding("latin1").on("data", onData).unref()
}

const listen = (server: Server, file: SocketFile): Effect.Effect<void, SocketDirectoryError> =>
  Effect.callback((resume) => {
    server.once("error", (cause) =>
      resume(
        Effect.fail(
          new SocketDirectoryError({ message: `can't listen on ${file.address}`, directory: file.path, cause })
        )
      )
    )
    server.listen({ path: file.address }, () => {
      // Later errors are failures to accept somebody (no file descriptors left): he polls.
      server.removeAllListeners("error").on("error", () => {})
      resume(Effect.void)
    })
  })

const close = (server: Server, subscribers: Subscribers): Effect.Effect<void> =>
  Effect.callback((resume) => {
    for (const socket of subscribers.connections) socket.destroy()
    // The callback has an error when it never listened; closed is closed.
    server.close(() => resume(Effect.void))
  })

/** Accepts subscribers until the scope ends, which ends all their streams. */
const serve = Effect.fnUntraced(function* (
  file: SocketFile,
  subscribers: Subscribers
): Effect.fn.Return<void, SocketDirectoryError, Scope.Scope> {
  const server = yield* Effect.acquireRelease(
    Effect.sync(() => createServer((socket) => accept(subscribers, socket)).unref()),
    (server) => close(server, subscribers)
  )
  server.maxConnections = maxSubscribers
  yield* listen(server, file)
  yield* publish(file)
})

/** A socket of this process that others watch. */
export interface WakeListener {
  /** Where others connect to; the same after `open`. */
  readonly endpoint: string
  /** Tells the subscribers of a topic, without waiting for any of them. */
  readonly notify: (topic: string) => Effect.Effect<void>
  /** Listens until the scope ends for what is asked of this process; also while the socket is closed, when nobody can ask. */
  readonly asked: (topic: string) => Effect.Effect<Effect.Effect<void>, never, Scope.Scope>
  /** Stops listening and ends the streams of all subscribers. Closing twice is closing once. */
  readonly close: Effect.Effect<void>
  /** Listens again. Opening twice is opening once. */
  readonly open: Effect.Effect<void, SocketDirectoryError>
}

const listenFor = (
  { listeners }: Subscribers,
  topic: string
): Effect.Effect<Effect.Effect<void>, never, Scope.Scope> => {
  const key = keyOf(topic)
  return Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => {
        const signals = new Signals()
        listeners.set(key, (listeners.get(key) ?? new Set()).add(signals))
        return signals
      }),
      (signals) =>
        Effect.sync(() => {
          const all = listeners.get(key)
          all?.delete(signals)
          if (all?.size === 0) listeners.delete(key)
        })
    ),
    (signals) => Effect.asVoid(signals.next)
  )
}

/** Listens in a private directory until the scope ends, which also removes the file. */
export const make = Effect.fnUntraced(function* (
  directory: string
): Effect.fn.Return<WakeListener, SocketDirectoryError, Scope.Scope> {
  const subscribers: Subscribers = { connections: new Set(), byKey: new Map(), listeners: new Map() }
  const file = yield* claim(directory, "w")
  /** A digest takes as long as telling somebody; there are as many as leases. */
  const keys = new Map<string, string>()
  const knownKeyOf = (topic: string): string => {
    const key = keys.get(topic) ?? keyOf(topic)
    keys.set(topic, key)
    return key
  }
  const state = yield* ScopedRef.make<"open" | "closed">(() => "closed")
  const open = Effect.flatMap(ScopedRef.get(state), (current) =>
    current === "open" ? Effect.void : ScopedRef.set(state, Effect.as(serve(file, subscribers), "open" as const))
  )
  yield* open
  return {
    endpoint: file.address,
    notify: (topic) =>
      Effect.sync(() => {
        // Most often nobody watches, and then there is no key to compute.
        if (subscribers.byKey.size === 0) return
        for (const socket of subscribers.byKey.get(knownKeyOf(topic)) ?? []) {
          if (socket.writableLength === 0) socket.write(byte)
        }
      }),
    asked: (topic) => listenFor(subscribers, topic),
    close: ScopedRef.set(state, Effect.succeed("closed")),
    open
  }
})
