/**
 * What can go wrong in the end-to-end machine: one envelope with a tagged reason.
 *
 * Each reason says in words what happened and what to do next. Whatever it is, what was in the machine's memory is void;
 * what is stored is as it was.
 *
 * Not here: an event that can't be decrypted, which is no error but an answer (`EventDecryptor.ts`).
 */
import { Schema } from "effect"
import { StoreError } from "./StoreError.ts"

/** The key that was given doesn't open the stored keys. Nothing was changed: give the key that made the store. */
export class CryptoWrongKey extends Schema.TaggedError<CryptoWrongKey>("@twinloop/core/CryptoWrongKey")(
  "CryptoWrongKey",
  { message: Schema.String }
) {}

/** The stored keys are another user's or another device's. Nothing was changed: use that device's login, or another database. */
export class CryptoForeignStore extends Schema.TaggedError<CryptoForeignStore>("@twinloop/core/CryptoForeignStore")(
  "CryptoForeignStore",
  { message: Schema.String }
) {}

/** The stored keys were written by a newer machine than this one. Nothing was changed: update the software. */
export class CryptoStoreNewer extends Schema.TaggedError<CryptoStoreNewer>("@twinloop/core/CryptoStoreNewer")(
  "CryptoStoreNewer",
  { message: Schema.String }
) {}

/** Nothing is stored yet: the account's first owner of the extension stream makes the store. Reading can be tried again later. */
export class CryptoNoStore extends Schema.TaggedError<CryptoNoStore>("@twinloop/core/CryptoNoStore")("CryptoNoStore", {
  message: Schema.String
}) {}

/** The database failed under the machine: `error` says how. */
export class CryptoStoreFailed extends Schema.TaggedError<CryptoStoreFailed>("@twinloop/core/CryptoStoreFailed")(
  "CryptoStoreFailed",
  { message: Schema.String, error: StoreError }
) {}

/** The WebAssembly code trapped, or didn't answer in time. The machine was thrown away; the next call makes another one. */
export class CryptoTrapped extends Schema.TaggedError<CryptoTrapped>("@twinloop/core/CryptoTrapped")("CryptoTrapped", {
  message: Schema.String,
  /** Rust's panic message or the trap's. Absent when nothing came at all. */
  detail: Schema.optionalKey(Schema.String)
}) {}

/** The homeserver's answer to a request of the machine is not what was asked for; the request stays queued. */
export class CryptoBadAnswer extends Schema.TaggedError<CryptoBadAnswer>("@twinloop/core/CryptoBadAnswer")(
  "CryptoBadAnswer",
  { message: Schema.String }
) {}

/** This engine doesn't encrypt (`PassThroughCrypto`): provide one that does. */
export class CryptoUnavailable extends Schema.TaggedError<CryptoUnavailable>("@twinloop/core/CryptoUnavailable")(
  "CryptoUnavailable",
  { message: Schema.String }
) {}

/** The machine refused or failed for another reason, in its own words. */
export class CryptoFailed extends Schema.TaggedError<CryptoFailed>("@twinloop/core/CryptoFailed")("CryptoFailed", {
  message: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {}

export const CryptoErrorReason = Schema.Union([
  CryptoWrongKey,
  CryptoForeignStore,
  CryptoStoreNewer,
  CryptoNoStore,
  CryptoStoreFailed,
  CryptoTrapped,
  CryptoBadAnswer,
  CryptoUnavailable,
  CryptoFailed
])
export type CryptoErrorReason = typeof CryptoErrorReason.Type

/** A call of the end-to-end machine failed. `operation` is what was tried, `reason` why it failed, `message` both in one sentence. */
export class CryptoError extends Schema.TaggedError<CryptoError>("@twinloop/core/CryptoError")("CryptoError", {
  operation: Schema.String,
  reason: CryptoErrorReason
}) {
  override get message(): string {
    return `${this.operation}: ${this.reason.message}`
  }
}
