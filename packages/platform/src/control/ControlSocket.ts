/**
 * The listening side of a control socket: connections whose other end may be frozen, killed or gone at any moment.
 *
 * Invariants: I4 and I10 (writing to a connection ends when the connection does, so no answer keeps the process alive; of what
 * a client may cost, each thing has a limit: `limits`).
 *
 * Gotchas: Node reports the end of a connection by events, once. A write that begins after them would wait for room in a
 * buffer that nobody empties; as an answer it can't be interrupted either, and the server that sends it never closes.
 *
 * Not here: what is said (`ControlProtocol.ts`), who answers (`ControlServer.ts`).
 */
import { NodeSocket, NodeSocketServer } from "@effect/platform-node"
import { Cause, Effect, Option } from "effect"
import type { Scope } from "effect"
import { Socket, SocketServer } from "effect/socket"
import type { Socket as NetSocket } from "node:net"

/** A client that is well asks a few things in a hundred bytes each, reads the answers, and pings every five seconds. */
export const limits = {
  /** Connections at once; more are closed at once. Several commands at a time need one each. */
  connections: 32,
  /** Characters of one request; the connection of a longer one is closed. */
  requestLength: 16_384,
  /** Bytes of answers that wait in this process for a client to read them; then it reads none. */
  unreadBytes: 262_144,
  /** Bytes that are read from a connection before nothing is, for `pauseMillis`. */
  burstBytes: 65_536,
  pauseMillis: 1_000,
  /** Without a byte in either direction: six pings that didn't come. */
  idleMillis: 30_000
}

const gone = new Socket.SocketError({
  reason: new Socket.SocketWriteError({ cause: new Error("the connection is closed") })
})

/** Fails once the connection has ended, also when that was before. */
const untilGone = (connection: NetSocket): Effect.Effect<never, Socket.SocketError> =>
  Effect.callback((resume) => {
    const fail = (): void => resume(Effect.fail(gone))
    if (connection.destroyed) return fail()
    connection.once("close", fail)
    return Effect.sync(() => connection.off("close", fail))
  })

/** Reads no faster than a client needs, and nothing more from one that doesn't read its answers. */
const patiently = (connection: NetSocket, reader: Socket.Reader): Socket.Reader => {
  let sinceRest = 0
  return {
    upgrade: reader.upgrade,
    pull: Effect.tap(reader.pull, (chunks) => {
      if (connection.writableLength > limits.unreadBytes) {
        // At once, since an end in good order would wait for it to read.
        connection.destroy()
        return Effect.fail(gone)
      }
      sinceRest += chunks.reduce((bytes, chunk) => bytes + chunk.length, 0)
      if (sinceRest < limits.burstBytes) return Effect.void
      sinceRest = 0
      return Effect.timeoutOrElse(untilGone(connection), {
        duration: limits.pauseMillis,
        orElse: () => Effect.void
      })
    })
  }
}

/** The same socket, read within limits; a write that the connection's end would leave waiting fails instead. */
const endingWith = (connection: NetSocket, socket: Socket.Socket): Socket.Socket => {
  const bounded = (write: Effect.Effect<void, Socket.SocketError>) => Effect.raceFirst(write, untilGone(connection))
  return Socket.make({
    reader: Effect.map(socket.reader, (reader) => patiently(connection, reader)),
    writer: Effect.map(socket.writer, (writer) => ({
      write: (chunk) => bounded(writer.write(chunk)),
      writeAll: (chunks) => bounded(writer.writeAll(chunks))
    }))
  })
}

/** That a client went away in the middle of a word is its own affair; anything else is a fault of ours. */
const quietly = <A, E, R>(handling: Effect.Effect<A, E, R>): Effect.Effect<A | void, E, R> =>
  Effect.catchCauseIf(
    handling,
    (cause) => Socket.isSocketError(Cause.squash(cause)),
    () => Effect.logDebug("A client left the control socket before its answer")
  )

/** Listens on a path until the scope ends, and waits for no client then. Fails when the path can't be used. */
export const make = Effect.fnUntraced(function* (
  path: string
): Effect.fn.Return<SocketServer.SocketServer["Service"], SocketServer.SocketServerError, Scope.Scope> {
  const server = yield* NodeSocketServer.make({ path })
  const connections = new Set<NetSocket>()
  // Closing the server waits for its connections; one whose client doesn't read would never end by itself.
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      for (const connection of connections) connection.destroy()
    })
  )
  const handled = Effect.fnUntraced(function* <A, E, R>(
    socket: Socket.Socket,
    handler: (socket: Socket.Socket) => Effect.Effect<A, E, R>
  ) {
    const connection = Option.getOrThrow(yield* Effect.serviceOption(NodeSocket.NetSocket))
    if (connections.size >= limits.connections) {
      connection.destroy()
      return
    }
    connections.add(connection)
    connection.once("close", () => connections.delete(connection))
    // Every answer that waits to be read listens for the end; what they are limited by is their bytes.
    connection.setMaxListeners(0)
    connection.setTimeout(limits.idleMillis, () => connection.destroy())
    return yield* quietly(handler(endingWith(connection, socket)))
  })
  return SocketServer.SocketServer.of({
    address: server.address,
    run: (handler) => server.run((socket) => handled(socket, handler))
  })
})
