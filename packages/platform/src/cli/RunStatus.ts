/** What a running process answers to `twinloop status`, gathered from its services. */
import { SyncService } from "@twinloop/actors"
import { Homeserver, LeaseStore, RoomList, SyncConfig, type SyncServiceMachine, SyncStore } from "@twinloop/core"
import { Effect } from "effect"
import {
  ControlRefused,
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

/** Gathers the status; a store that can't be read refuses with its reason. */
export const gather = Effect.fn("RunStatus.gather")(
  function* (startedAtMillis: number) {
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
      quarantined: yield* (yield* SyncStore.SyncStore).quarantineCount
    }
    return status
  },
  Effect.mapError((error) => new ControlRefused({ message: error.message }))
)
