/**
 * The control socket of a running process: answers what the `twinloop` command asks it.
 *
 * Only the same user can connect: the socket lies in a private directory (`SocketDirectory.ts`).
 *
 * Gotchas: `stop` answers when the handler has ended, which may also end this server; a client whose connection ends
 * meanwhile looks at whether the process is gone.
 *
 * Not here: what is said (`ControlProtocol.ts`), what a request does (the handlers, which the process brings).
 */
import { NodeSocketServer } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { RpcSerialization, RpcServer } from "effect/rpc"
import { SocketServer } from "effect/socket"
import * as SocketDirectory from "../wake/SocketDirectory.ts"
import { SocketDirectoryError } from "../wake/SocketDirectory.ts"
import { ControlRpcs } from "./ControlProtocol.ts"
import type { ControlRefused, Status, StopReport } from "./ControlProtocol.ts"

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
    NodeSocketServer.make({ path: file.address }),
    (cause) => new SocketDirectoryError({ message: `can't listen on ${file.address}`, directory, cause })
  )
  yield* SocketDirectory.publish(file)
  return server
})

/**
 * Answers requests until the scope ends, in a private directory (`SocketDirectory.forDatabase`). Fails when the directory
 * can't be used.
 */
export const layer = (options: {
  readonly directory: string
  readonly handlers: ControlHandlers
}): Layer.Layer<never, SocketDirectoryError> =>
  RpcServer.layer(ControlRpcs, { disableTracing: true, disableFatalDefects: true }).pipe(
    Layer.provide(layerHandlers(options.handlers)),
    Layer.provide(RpcServer.layerProtocolSocketServer),
    Layer.provide(RpcSerialization.layerNdjson),
    Layer.provide(Layer.effect(SocketServer.SocketServer, listen(options.directory)))
  )
