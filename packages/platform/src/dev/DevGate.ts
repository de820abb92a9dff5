/**
 * Makes the dev homeserver unreachable: connections are accepted and destroyed at once, as by a network that is gone.
 *
 * Includes what ends the server: a server waits for its connections, so long polls would keep it from closing.
 */
import { Effect, FiberHandle } from "effect"
import type { Scope } from "effect"
import type { Server } from "node:http"
import type { Socket } from "node:net"

/** What lets connections through to the server, or not. */
export interface DevGate {
  /** Destroys every connection and every new one, for good. */
  readonly shut: Effect.Effect<void>
  /** Destroys every connection (but the one given) and every new one, for this long. A later call replaces an earlier one. */
  shutFor(millis: number, except?: Socket): Effect.Effect<void>
}

/** A gate on a server. The scope is that of the outages which end by themselves. */
export const make = (server: Server): Effect.Effect<DevGate, never, Scope.Scope> =>
  Effect.gen(function* () {
    const sockets = new Set<Socket>()
    let isShut = false
    server.on("connection", (socket: Socket) => {
      sockets.add(socket)
      socket.once("close", () => sockets.delete(socket))
      if (isShut) socket.destroy()
    })
    const shut = (except?: Socket) =>
      Effect.sync(() => {
        isShut = true
        for (const socket of sockets) if (socket !== except) socket.destroy()
      })
    const reopen = Effect.sync(() => {
      isShut = false
    })
    const outage = yield* FiberHandle.make()
    return {
      shut: shut(),
      shutFor: (millis, except) =>
        Effect.andThen(shut(except), FiberHandle.run(outage, Effect.andThen(Effect.sleep(millis), reopen))).pipe(
          Effect.asVoid
        )
    }
  })
