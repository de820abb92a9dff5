/**
 * What is said over a control socket: requests to a running process and its answers, as RPC over newline-delimited JSON.
 *
 * Includes `Status`, which is also what `twinloop status --json` prints.
 *
 * Gotchas: the command and the process may be of different versions, so all but the essential is optional, and unknown
 * fields are ignored.
 *
 * Not here: finding the processes (`ControlClient.ts`), answering (`ControlServer.ts`).
 */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"

/** What a process is doing as a whole. `terminal`: it can't go on by itself; `error` says why. */
export const ProcessState = Schema.Literals(["idle", "running", "offline", "suspended", "terminal"])
export type ProcessState = typeof ProcessState.Type

/** One of the two loops. */
export const LoopStatus = Schema.Struct({
  /** The loop's own state, as its machine names it. */
  state: Schema.String,
  /** Main loop while loading: rooms that are there, of all rooms. */
  loaded: Schema.optionalKey(Schema.Finite),
  total: Schema.optionalKey(Schema.Finite),
  /** When it tries again, Unix milliseconds. */
  retryAtMillis: Schema.optionalKey(Schema.Finite),
  error: Schema.optionalKey(Schema.String)
})
export type LoopStatus = typeof LoopStatus.Type

/** Who owns the extension stream, as this process sees it. */
export const LeaseStatus = Schema.Struct({
  name: Schema.optionalKey(Schema.String),
  holder: Schema.optionalKey(Schema.String),
  /** Whether the asked process is the holder. */
  isMine: Schema.optionalKey(Schema.Boolean),
  generation: Schema.optionalKey(Schema.Finite),
  /** Unix milliseconds; 0 when nobody holds it. */
  expiresAtMillis: Schema.optionalKey(Schema.Finite),
  /** Holders that wait, first come first. */
  waiters: Schema.optionalKey(Schema.Array(Schema.String))
})
export type LeaseStatus = typeof LeaseStatus.Type

/** The account's end-to-end encryption on this device. */
export const EncryptionStatus = Schema.Struct({
  /** Where the key to the stored end-to-end keys is. */
  keyFile: Schema.optionalKey(Schema.String),
  /** Ed25519 key of this device, unpadded base64, for people to compare; absent until the first owner of the stream has made it. */
  fingerprint: Schema.optionalKey(Schema.String),
  /** Whether the account's own identity has signed this device. */
  isVerified: Schema.optionalKey(Schema.Boolean),
  /** Keys of rooms that are stored. */
  roomKeys: Schema.optionalKey(Schema.Finite),
  /** Uploads of one-time keys by this process that were refused because the homeserver has others under their ids. */
  oneTimeKeyConflicts: Schema.optionalKey(Schema.Finite),
  /** Why the keys can't be read. */
  error: Schema.optionalKey(Schema.String)
})
export type EncryptionStatus = typeof EncryptionStatus.Type

/** How a process is. */
export const Status = Schema.Struct({
  pid: Schema.Finite,
  role: Schema.String,
  state: ProcessState,
  error: Schema.optionalKey(Schema.String),
  userId: Schema.optionalKey(Schema.String),
  homeserver: Schema.optionalKey(Schema.String),
  /** Unix milliseconds. */
  startedAtMillis: Schema.optionalKey(Schema.Finite),
  main: Schema.optionalKey(LoopStatus),
  extension: Schema.optionalKey(LoopStatus),
  lease: Schema.optionalKey(LeaseStatus),
  /** Rooms that are known. */
  rooms: Schema.optionalKey(Schema.Finite),
  /** To-device events in the inbox that the application has not consumed. */
  inbox: Schema.optionalKey(Schema.Finite),
  /** Things that could not be understood and are kept aside (invariant I7). */
  quarantined: Schema.optionalKey(Schema.Finite),
  /** Absent without end-to-end encryption. */
  encryption: Schema.optionalKey(EncryptionStatus)
})
export type Status = typeof Status.Type

/** How suspending or stopping went (invariant I4), as `SyncService` reports it. */
export const StopReport = Schema.Struct({
  /** Whether nothing of the process's loops runs any more. */
  quiet: Schema.Boolean,
  tookMillis: Schema.optionalKey(Schema.Finite),
  /** What could not be finished within the deadline, in words. */
  unfinished: Schema.Array(Schema.String)
})
export type StopReport = typeof StopReport.Type

/** The process could not do what it was asked to; `message` says why. */
export class ControlRefused extends Schema.TaggedError<ControlRefused>("@twinloop/platform/ControlRefused")(
  "ControlRefused",
  { message: Schema.String }
) {}

/** The requests. `deadlineMillis`: how long it may take; the process has a default. */
export const ControlRpcs = RpcGroup.make(
  Rpc.make("Status", { success: Status, error: ControlRefused }),
  Rpc.make("Suspend", {
    payload: { deadlineMillis: Schema.optionalKey(Schema.Finite) },
    success: StopReport,
    error: ControlRefused
  }),
  Rpc.make("Resume", { error: ControlRefused }),
  Rpc.make("Stop", { success: StopReport, error: ControlRefused })
)
