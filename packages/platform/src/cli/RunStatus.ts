/** What a running process answers to `twinloop status`, gathered from its services. */
import { Encryption, Metrics, SyncService } from "@twinloop/actors"
import { Homeserver, LeaseStore, RoomList, SyncConfig, type SyncServiceMachine, SyncStore } from "@twinloop/core"
import { Effect, Metric } from "effect"
import {
  ControlRefused,
  type EncryptionStatus,
  type LeaseStatus,
  type LoopStatus,
  type ProcessState,
  type Status
} from "../control/ControlProtocol.ts"
import { SessionStore } from "../http/SessionStore.ts"
import * as ExtensionTables from "../sqlite/ExtensionTables.ts"
import * as SqliteClient from "../sqlite/SqliteClient.ts"
import * as StoreFault from "../sqlite/StoreFault.ts"

/** Cursor of `twinloop run`'s own printing, one per role. */
export const consumer = (role: string): string => `run-${role}`

const states: Record<SyncServiceMachine.ServiceState["_tag"], ProcessState> = {
  Idle: "idle",
  Running: "running",
  Offline: "offline",
  Suspended: "suspended",
  Terminal: "terminal"
}

const loopStatus = (status: SyncServiceMachine.LoopStatus): LoopStatus => {
  switch (status._tag) {
    case "BackingOff":
      return { state: status._tag, error: status.failure.message, retryAtMillis: status.untilMillis }
    case "Failed":
      return { state: status._tag, error: status.failure.message }
    case "Loading":
      return {
        state: status._tag,
        ...(status.loaded === undefined ? {} : { loaded: status.loaded }),
        ...(status.total === undefined ? {} : { total: status.total })
      }
    default:
      return { state: status._tag }
  }
}

/** Who owns the extension stream, from the store and from what this process holds. */
const leaseStatus = Effect.gen(function* () {
  const service = yield* SyncService.SyncService
  const table = yield* (yield* LeaseStore).inspect(SyncService.EXTENSION_LEASE)
  const mine = yield* service.lease
  const row = table.rows[0]
  const status: LeaseStatus = {
    name: SyncService.EXTENSION_LEASE,
    isMine: mine._tag === "Held",
    waiters: table.waiters.map((waiter) => waiter.holder),
    ...(row === undefined
      ? {}
      : { holder: row.holder, generation: row.generation, expiresAtMillis: row.expiresAtMillis })
  }
  return status
})

/** How many inbox entries wait for `twinloop run` of this role; counted where they are, since there can be any number. */
const countInbox = Effect.fnUntraced(function* (role: string) {
  const client = yield* SqliteClient.SqliteClient
  return yield* client
    .readSync((reader) => ExtensionTables.countUnread(reader, consumer(role)))
    .pipe(StoreFault.guard(client.config.filename, "count the inbox"))
})

/** Where the key is, and what is under it; why not, when that can't be read. */
const encryptionStatus = Effect.fnUntraced(function* (keyFile: string) {
  const read = yield* Effect.result((yield* Encryption.Encryption).status)
  const { count } = yield* Metric.value(Metrics.oneTimeKeyConflicts)
  const status: EncryptionStatus = { keyFile, oneTimeKeyConflicts: Number(count) }
  if (read._tag === "Failure") return { ...status, error: read.failure.message }
  const { deviceKeys, isDeviceVerified, roomKeys } = read.success
  const known = { ...status, isVerified: isDeviceVerified, roomKeys }
  return deviceKeys === undefined ? known : { ...known, fingerprint: deviceKeys.ed25519 }
})

/** What the status tells of the process itself. */
export interface Running {
  /** Unix milliseconds. */
  readonly startedAtMillis: number
  /** Absent without end-to-end encryption. */
  readonly keyFile?: string
}

/** Gathers the status; a store that can't be read refuses with its reason. */
export const gather = Effect.fn("RunStatus.gather")(
  function* ({ keyFile, startedAtMillis }: Running) {
    const { role } = yield* SyncConfig.SyncConfig
    const state = yield* (yield* SyncService.SyncService).state
    const stored = yield* (yield* SessionStore).load
    const status: Status = {
      pid: process.pid,
      role,
      state: states[state._tag],
      ...(state._tag === "Terminal" ? { error: state.failure.message } : {}),
      userId: (yield* Homeserver.Homeserver).session.userId,
      ...(stored === undefined ? {} : { homeserver: stored.session.homeserver }),
      startedAtMillis,
      main: loopStatus(state.main),
      extension: loopStatus(state.extension),
      lease: yield* leaseStatus,
      rooms: (yield* (yield* RoomList.RoomList).rooms).length,
      inbox: yield* countInbox(role),
      quarantined: yield* (yield* SyncStore.SyncStore).quarantineCount,
      ...(keyFile === undefined ? {} : { encryption: yield* encryptionStatus(keyFile) })
    }
    return status
  },
  Effect.mapError((error) => new ControlRefused({ message: error.message }))
)
