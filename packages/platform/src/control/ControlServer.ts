/**
 * The control socket of a running process: answers what the `twinloop` command asks it.
 *
 * Only the same user can connect: the socket lies in a private directory (`SocketDirectory.ts`).
 *
 * Invariants: I4 and I10 (closing the socket has a limit, whatever its clients do).
 *
 * Gotchas: `stop` answers when the handler has ended, which may also end this server; a client whose connection ends
 * meanwhile looks at whether the process is gone.
 *
 * Not here: what is said (`ControlProtocol.ts`), what a request does (the handlers, which the process brings), connections
 * that break (`ControlSocket.ts`).
 */
import { Effect, Fiber, Layer, Scope } from "effect"
import type { Exit } from "effect"
import { RpcSerialization, RpcServer } from "effect/rpc"
import { SocketServer } from "effect/socket"
import * as SocketDirectory from "../wake/SocketDirectory.ts"
import { SocketDirectoryError } from "../wake/SocketDirectory.ts"
import { ControlRpcs } from "./ControlProtocol.ts"
import type { ControlRefused, Status, StopReport } from "./ControlProtocol.ts"
import * as ControlSocket from "./ControlSocket.ts"

/** What requests do. Each may refuse, with a reason for the human who asked. */
export interface ControlHandlers {
  readonly status: Effect.Effect<Status, ControlRefused>
  /** `deadlineMillis` is absent when the asker has no wish. */
  readonly suspend: (deadlineMillis: number | undefined) => Effect.Effect<StopReport, ControlRefused>
  readonly resume: Effect.Effect<void, ControlRefused>
  readonly stop: Effect.Effect<StopReport, ControlRefused>
}

const layerHandlers = (handlers: ControlHandlers) =>
  ControlRpcs.toLayer({
    Status: () => handlers.status,
    Suspend: ({ deadlineMillis }) => handlers.suspend(deadlineMillis),
    Resume: () => handlers.resume,
    Stop: () => handlers.stop
  })

const listen = Effect.fnUntraced(function* (directory: string) {
  const file = yield* SocketDirectory.claim(directory, "c")
  const server = yield* Effect.mapError(
    ControlSocket.make(file.address),
    (cause) => new SocketDirectoryError({ message: `can't listen on ${file.address}`, directory, cause })
  )
  yield* SocketDirectory.publish(file)
  return server
})

/** A request a line, of at most so many characters. */
const layerLines = Layer.succeed(
  RpcSerialization.RpcSerialization,
  RpcSerialization.makeNdjson({ maxBufferSize: ControlSocket.limits.requestLength })
)

const layerAnswers = (handlers: ControlHandlers): Layer.Layer<never, never, SocketServer.SocketServer> =>
  RpcServer.layer(ControlRpcs, { disableTracing: true, disableFatalDefects: true }).pipe(
    Layer.provide(layerHandlers(handlers)),
    Layer.provide(RpcServer.layerProtocolSocketServer),
    Layer.provide(layerLines)
  )

/** Closing takes a few milliseconds; a process that ends waits no longer than this for what its clients left behind. */
const CLOSING_LIMIT = "1 second"

/** Closes a scope, and goes on without it after the limit. */
const closeWithin = Effect.fnUntraced(function* (scope: Scope.Closeable, exit: Exit.Exit<unknown, unknown>) {
  const closing = yield* Effect.forkDetach(Scope.close(scope, exit))
  yield* Fiber.await(closing).pipe(
    Effect.timeoutOrElse({
      duration: CLOSING_LIMIT,
      orElse: () =>
        Effect.logWarning("What was asked over the control socket did not end in time; its connections are closed.")
    })
  )
})

/**
 * Answers requests until the scope ends, in a private directory (`SocketDirectory.forDatabase`). Fails when the directory
 * can't be used. The end of the scope waits at most a second for the clients.
 */
export const layer = (options: {
  readonly directory: string
  readonly handlers: ControlHandlers
}): Layer.Layer<never, SocketDirectoryError> =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      // The socket belongs to the outer scope: it closes also when answering doesn't end.
      const server = yield* listen(options.directory)
      const scope = yield* Effect.acquireRelease(Scope.make(), closeWithin)
      yield* layerAnswers(options.handlers).pipe(
        Layer.provide(Layer.succeed(SocketServer.SocketServer, server)),
        Layer.buildWithScope(scope)
      )
    })
  )
