/**
 * The listening side of a control socket: connections whose other end may be frozen, killed or gone at any moment.
 *
 * Invariants: I4 and I10 (writing to a connection ends when the connection does, so no answer keeps the process alive).
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

/** The same socket; a write that the connection's end would leave waiting fails instead. */
const endingWith = (connection: NetSocket, socket: Socket.Socket): Socket.Socket => {
  const bounded = (write: Effect.Effect<void, Socket.SocketError>) => Effect.raceFirst(write, untilGone(connection))
  return Socket.make({
    reader: socket.reader,
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
    connections.add(connection)
    connection.once("close", () => connections.delete(connection))
    return yield* quietly(handler(endingWith(connection, socket)))
  })
  return SocketServer.SocketServer.of({
    address: server.address,
    run: (handler) => server.run((socket) => handled(socket, handler))
  })
})
