/**
 * What `twinloop run --json` prints: one JSON object per line.
 *
 * `atMillis` is the system's monotonic clock in milliseconds with a fraction (`CLOCK_MONOTONIC`), the same for all
 * processes of a host, so that the times of two processes can be compared. It is not a time of day.
 */
import { Schema } from "effect"

const Failure = Schema.Struct({
  class: Schema.String,
  message: Schema.String,
  retryAfterMillis: Schema.optionalKey(Schema.Finite)
})

/** A loop's state; see `SyncServiceMachine.LoopStatus`. */
export const LoopStatus = Schema.Union([
  Schema.TaggedStruct("Stopped", {}),
  Schema.TaggedStruct("TakingLock", {}),
  Schema.TaggedStruct("WaitingForLock", {}),
  Schema.TaggedStruct("Loading", {
    loaded: Schema.optionalKey(Schema.Finite),
    total: Schema.optionalKey(Schema.Finite)
  }),
  Schema.TaggedStruct("Syncing", { generation: Schema.optionalKey(Schema.Finite) }),
  Schema.TaggedStruct("BackingOff", { failure: Failure, untilMillis: Schema.Finite }),
  Schema.TaggedStruct("Failed", { failure: Failure })
])

/** The service's state changed. */
export const StateEvent = Schema.Struct({
  event: Schema.Literal("state"),
  atMillis: Schema.Finite,
  state: Schema.Literals(["Idle", "Running", "Offline", "Suspended", "Terminal"]),
  main: LoopStatus,
  extension: LoopStatus
})

/** A to-device event was made durable, by this process or another. */
export const InboxEvent = Schema.Struct({
  event: Schema.Literal("inbox"),
  atMillis: Schema.Finite,
  sequence: Schema.Finite,
  type: Schema.String,
  sender: Schema.String,
  encryption: Schema.String
})

/** The room list changed: how many rooms it has. */
export const RoomsEvent = Schema.Struct({
  event: Schema.Literal("rooms"),
  atMillis: Schema.Finite,
  rooms: Schema.Finite
})

/** The loops were ended. */
export const QuietEvent = Schema.Struct({
  event: Schema.Literal("quiet"),
  atMillis: Schema.Finite,
  by: Schema.Literals(["stop", "suspend"]),
  quiet: Schema.Boolean,
  tookMillis: Schema.Finite,
  unfinished: Schema.Array(Schema.String)
})

/** End-to-end encryption is on: the first event. */
export const EncryptionEvent = Schema.Struct({
  event: Schema.Literal("encryption"),
  atMillis: Schema.Finite,
  /** The file with the key to the end-to-end keys in the database: of no use without the database, nor that without it. */
  keyFile: Schema.String
})

export const RunEvent = Schema.Union([StateEvent, InboxEvent, RoomsEvent, QuietEvent, EncryptionEvent])
export type RunEvent = typeof RunEvent.Type
