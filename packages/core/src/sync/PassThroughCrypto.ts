/**
 * A `CryptoEngine` that encrypts and decrypts nothing: to-device events reach the inbox as they come, and encrypted ones
 * say so.
 *
 * For applications without end-to-end encryption, and for whatever is tested about the stream and not about keys. It
 * keeps nothing in memory, uploads no keys, and so never becomes dirty.
 *
 * Invariants: I2 (nothing is written but by the caller's commit), I7 (events of any type pass).
 */
import { Effect, Layer } from "effect"
import type { MatrixEvent } from "../matrix/MatrixEvent.ts"
import { CryptoEngine, unchanged } from "./CryptoEngine.ts"
import { CryptoError, CryptoUnavailable } from "./CryptoError.ts"
import type { InboxEvent } from "./SyncStore.ts"

const toInbox = (event: MatrixEvent): InboxEvent => ({
  type: event.type,
  sender: event.sender,
  event,
  encryption: event.type === "m.room.encrypted" ? "undecryptable" : "none"
})

const unavailable = (operation: string): Effect.Effect<never, CryptoError> =>
  Effect.fail(
    new CryptoError({
      operation,
      reason: new CryptoUnavailable({
        message:
          "this application was composed without end-to-end encryption; provide an engine that encrypts, such as OlmCrypto of @twinloop/platform"
      })
    })
  )

/** The pass-through engine; it needs nothing. What encrypts fails with `CryptoUnavailable`. */
export const layer: Layer.Layer<CryptoEngine> = Layer.succeed(
  CryptoEngine,
  CryptoEngine.of({
    reload: () => Effect.void,
    committed: Effect.void,
    discard: Effect.void,
    receive: (_fence, batch) => Effect.succeed(unchanged({ inbox: batch.toDevice.map(toInbox), quarantined: [] })),
    outgoing: () => Effect.succeed(unchanged([])),
    markSent: () => Effect.succeed(unchanged(undefined)),
    track: () => Effect.succeed(unchanged(undefined)),
    claim: () => unavailable("claim one-time keys"),
    shareRoomKey: () => unavailable("share a room key"),
    encrypt: () => unavailable("encrypt an event"),
    bootstrapCrossSigning: () => unavailable("make cross-signing keys"),
    setLocalTrust: () => unavailable("set a device's trust")
  })
)
