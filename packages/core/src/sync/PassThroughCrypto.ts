/**
 * A `CryptoEngine` that decrypts nothing: to-device events reach the inbox as they come, and encrypted ones say so.
 *
 * For applications without end-to-end encryption, and for whatever is tested about the stream and not about keys. It
 * keeps nothing in memory, uploads no keys, and so never becomes dirty.
 *
 * Invariants: I2 (nothing is written but by the caller's commit), I7 (events of any type pass).
 */
import { Effect, Layer } from "effect"
import type { MatrixEvent } from "../matrix/MatrixEvent.ts"
import { CryptoEngine } from "./CryptoEngine.ts"
import type { InboxEvent } from "./SyncStore.ts"

const toInbox = (event: MatrixEvent): InboxEvent => ({
  type: event.type,
  sender: event.sender,
  event,
  encryption: event.type === "m.room.encrypted" ? "undecryptable" : "none"
})

/** The pass-through engine; it needs nothing. */
export const layer: Layer.Layer<CryptoEngine> = Layer.succeed(
  CryptoEngine,
  CryptoEngine.of({
    reload: () => Effect.void,
    receive: (_fence, batch) => Effect.succeed({ inbox: batch.toDevice.map(toInbox), writes: [], quarantined: [] }),
    committed: Effect.void,
    discard: Effect.void,
    outgoing: () => Effect.succeed([]),
    markSent: () => Effect.succeed([])
  })
)
