/**
 * What can go wrong between us and durable storage: one envelope with a tagged reason.
 *
 * Two reasons are refusals that protect the data (`StaleGeneration`, `Moved`); the others are faults of the storage.
 */
import { Schema } from "effect"

/** The fenced commit was refused: the stream has another owner by now (invariant I1). Nothing was written. */
export class StaleGeneration extends Schema.TaggedError<StaleGeneration>("@twinloop/core/StaleGeneration")(
  "StaleGeneration",
  {
    message: Schema.String,
    name: Schema.String,
    generation: Schema.Finite,
    currentGeneration: Schema.optionalKey(Schema.Finite)
  }
) {}

/**
 * The commit was refused: the stored token is not the one that was sent, so the response was already applied or belongs to
 * another run (invariant I2). Nothing was written.
 */
export class Moved extends Schema.TaggedError<Moved>("@twinloop/core/Moved")("Moved", {
  message: Schema.String,
  token: Schema.Literals(["since", "pos"]),
  sent: Schema.optionalKey(Schema.String),
  stored: Schema.optionalKey(Schema.String)
}) {}

/** Another process was writing for longer than `SyncConfig.storeBusyMillis`. A retry can help. */
export class StoreBusy extends Schema.TaggedError<StoreBusy>("@twinloop/core/StoreBusy")("StoreBusy", {
  message: Schema.String
}) {}

/** The disk is full or a quota is reached. A retry can help once there is room. */
export class StoreFull extends Schema.TaggedError<StoreFull>("@twinloop/core/StoreFull")("StoreFull", {
  message: Schema.String
}) {}

/** The storage can't be written: read-only file, directory or file system, or missing permission. */
export class StoreReadOnly extends Schema.TaggedError<StoreReadOnly>("@twinloop/core/StoreReadOnly")("StoreReadOnly", {
  message: Schema.String
}) {}

/** What is stored can't be read as what it should be: a damaged file, or a file of another kind. */
export class StoreCorrupt extends Schema.TaggedError<StoreCorrupt>("@twinloop/core/StoreCorrupt")("StoreCorrupt", {
  message: Schema.String
}) {}

/** The data was written by a newer version of the software than this one. */
export class StoreNewer extends Schema.TaggedError<StoreNewer>("@twinloop/core/StoreNewer")("StoreNewer", {
  message: Schema.String,
  storedVersion: Schema.Finite,
  knownVersion: Schema.Finite
}) {}

/** The storage can't be opened: the directory is missing, or the operating system refuses. */
export class StoreUnavailable extends Schema.TaggedError<StoreUnavailable>("@twinloop/core/StoreUnavailable")(
  "StoreUnavailable",
  { message: Schema.String, cause: Schema.optionalKey(Schema.Defect()) }
) {}

export const StoreErrorReason = Schema.Union([
  StaleGeneration,
  Moved,
  StoreBusy,
  StoreFull,
  StoreReadOnly,
  StoreCorrupt,
  StoreNewer,
  StoreUnavailable
])
export type StoreErrorReason = typeof StoreErrorReason.Type

/** A storage operation failed. `operation` is what was tried, `reason` why it failed, `message` both in one sentence. */
export class StoreError extends Schema.TaggedError<StoreError>("@twinloop/core/StoreError")("StoreError", {
  operation: Schema.String,
  reason: StoreErrorReason
}) {
  override get message(): string {
    return `${this.operation}: ${this.reason.message}`
  }
}
