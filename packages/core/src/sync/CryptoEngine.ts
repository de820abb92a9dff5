/**
 * Port to the end-to-end machine: turns the events of an extension batch into what the application may see.
 *
 * Adapters: `PassThroughCrypto` (core: applies to-device events as they come, decrypts nothing, and says so).
 *
 * Invariants: I2 (`receive` changes memory only; what must be written travels in `Received.writes` to the fenced commit),
 * I5 (memory is valid only for the generation under which it was loaded or last committed).
 *
 * Gotchas: after `receive`, exactly one of `committed` and `discard` follows. After `discard` the engine must be reloaded
 * before it is used again.
 */
import { Context, Schema } from "effect"
import type { Effect } from "effect"
import type { Fence } from "../lease/Lease.ts"
import type { JsonObject, MatrixEvent, Quarantined } from "../matrix/MatrixEvent.ts"
import type { E2eeUpdate } from "../matrix/SlidingSync.ts"
import type { KeysRequest, SendToDevice } from "./Homeserver.ts"
import type { CryptoWrite, InboxEvent } from "./SyncStore.ts"

/** The engine failed: `message` says at what. Its memory must be discarded. */
export class CryptoError extends Schema.TaggedError<CryptoError>("@twinloop/core/CryptoError")("CryptoError", {
  message: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {}

/** One extension response, as far as it concerns the engine. */
export interface ReceiveBatch {
  readonly toDevice: ReadonlyArray<MatrixEvent>
  readonly e2ee?: E2eeUpdate
  /** True when the request carried no `pos`: the homeserver can't say whose devices changed, so all tracked users are outdated (MSC4186). */
  readonly fresh: boolean
}

/** What came of a batch, in memory only until it is committed. */
export interface Received {
  /** One per to-device event that could be understood, in order. */
  readonly inbox: ReadonlyArray<InboxEvent>
  readonly writes: ReadonlyArray<CryptoWrite>
  readonly quarantined: ReadonlyArray<Quarantined>
}

/** A request that the engine wants sent. */
export interface OutgoingRequest {
  readonly id: string
  readonly request:
    | { readonly _tag: "Keys"; readonly keys: KeysRequest }
    | { readonly _tag: "ToDevice"; readonly toDevice: SendToDevice }
}

export class CryptoEngine extends Context.Service<
  CryptoEngine,
  {
    /** Discards what is in memory and loads what is stored, under this ownership. */
    reload(fence: Fence): Effect.Effect<void, CryptoError>
    /** Takes a batch into memory and says what must become durable. Bad events are reported, never thrown on (invariant I7). */
    receive(fence: Fence, batch: ReceiveBatch): Effect.Effect<Received, CryptoError>
    /** What `receive` or `markSent` returned has been committed. */
    readonly committed: Effect.Effect<void>
    /** What `receive` or `markSent` returned was refused or lost: memory is void. */
    readonly discard: Effect.Effect<void>
    /** Requests that wait to be sent, oldest first. */
    outgoing(fence: Fence): Effect.Effect<ReadonlyArray<OutgoingRequest>, CryptoError>
    /** Takes the response to an outgoing request into memory; the writes are committed by the caller, fenced. */
    markSent(
      fence: Fence,
      request: OutgoingRequest,
      response: JsonObject
    ): Effect.Effect<ReadonlyArray<CryptoWrite>, CryptoError>
  }
>()("@twinloop/core/CryptoEngine") {}
