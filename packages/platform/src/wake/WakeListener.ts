/**
 * The listening side of the wake-ups: this process's own socket, and who watches it.
 *
 * A subscriber connects, sends the key of one topic (`keyOf`), and gets one byte when it is subscribed and one byte per
 * signal; the end of the stream says that this process is gone or listens no more.
 *
 * Invariants: I10. A subscriber that doesn't read (a stopped process) costs at most what the kernel buffers for one socket
 * plus one byte: as long as a byte to it waits in this process, it gets no other, and needs no other, since signals carry no
 * data. Nobody waits for it.
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
import { claim, publish, SocketDirectoryError } from "./SocketDirectory.ts"
import type { SocketFile } from "./SocketDirectory.ts"

/** Ten times the processes of one database that anyone has seen; beyond it, watchers are refused and poll. */
const maxSubscribers = 256

/** How a topic is named on the wire: always 64 characters, whatever it contains. */
export const keyOf = (topic: string): string => sha256(topic)

const keyLength = 64

/** The only thing that this side ever sends: once as the acknowledgement, then per signal. */
const byte = Buffer.of(1)

/** Everybody who watches this process. */
interface Subscribers {
  /** All connections, also those that have not said their topic yet. */
  readonly connections: Set<Socket>
  readonly byKey: Map<string, Set<Socket>>
}

const subscribe = (subscribers: Subscribers, key: string, socket: Socket): void => {
  const others = subscribers.byKey.get(key) ?? new Set()
  subscribers.byKey.set(key, others.add(socket))
  socket.once("close", () => {
    others.delete(socket)
    if (others.size === 0) subscribers.byKey.delete(key)
  })
}

const accept = (subscribers: Subscribers, socket: Socket): void => {
  let received = ""
  const onData = (chunk: string): void => {
    received += chunk
    if (received.length < keyLength) return
    socket.off("data", onData)
    // Whatever follows the key is read and dropped, so that it can't pile up.
    socket.resume()
    subscribe(subscribers, received.slice(0, keyLength), socket)
    socket.write(byte)
  }
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
  /** Stops listening and ends the streams of all subscribers. Closing twice is closing once. */
  readonly close: Effect.Effect<void>
  /** Listens again. Opening twice is opening once. */
  readonly open: Effect.Effect<void, SocketDirectoryError>
}

/** Listens in a private directory until the scope ends, which also removes the file. */
export const make = Effect.fnUntraced(function* (
  directory: string
): Effect.fn.Return<WakeListener, SocketDirectoryError, Scope.Scope> {
  const subscribers: Subscribers = { connections: new Set(), byKey: new Map() }
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
    close: ScopedRef.set(state, Effect.succeed("closed")),
    open
  }
})
