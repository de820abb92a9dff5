/**
 * Twinloop as a process that is started by a push, takes the to-device messages if nobody else does, and ends:
 * `node oneShot.cjs <database>`.
 *
 * It opens the account, tries the lease of the extension stream once, asks the homeserver once, makes what came durable in
 * one fenced commit, says so, releases the lease and ends. If another process owns the stream, it asks nothing.
 */
import {
  CryptoEngine,
  DistributedSemaphore,
  ExtensionLoopMachine,
  Homeserver,
  PassThroughCrypto,
  type SlidingSync,
  SyncConfig,
  SyncStore
} from "@twinloop/core"
import { HttpHomeserver, Twinloop } from "@twinloop/platform"
import { Effect, Layer } from "effect"
import { say } from "./StartLine.ts"

const requestFrom = ({ pos, since }: SyncStore.ExtensionPosition, limit: number): SlidingSync.SyncRequest => ({
  connId: ExtensionLoopMachine.EXTENSION_CONN_ID,
  ...(pos === undefined ? {} : { pos }),
  timeoutMillis: 0,
  lists: {},
  roomSubscriptions: {},
  extensions: { e2ee: true, toDevice: { limit, ...(since === undefined ? {} : { since }) } }
})

/** One turn of the extension loop; gives how many messages became durable. */
const syncOnce = Effect.fnUntraced(function* (grant: DistributedSemaphore.Grant) {
  const { toDeviceLimit } = yield* SyncConfig.SyncConfig
  const homeserver = yield* Homeserver.Homeserver
  const crypto = yield* CryptoEngine.CryptoEngine
  const store = yield* SyncStore.SyncStore
  yield* crypto.reload(grant)
  const sent = yield* store.extensionPosition
  const response = yield* homeserver.sync(requestFrom(sent, toDeviceLimit))
  const { e2ee, toDevice } = response.extensions
  const received = yield* crypto.receive(grant, {
    toDevice: toDevice?.events ?? [],
    ...(e2ee === undefined ? {} : { e2ee }),
    fresh: sent.pos === undefined
  })
  const since = toDevice?.nextBatch ?? sent.since
  const entries = yield* store.commitExtension(grant, {
    ...(sent.since === undefined ? {} : { sentSince: sent.since }),
    position: { pos: response.pos, ...(since === undefined ? {} : { since }) },
    inbox: received.value.inbox,
    crypto: received.writes,
    quarantined: [...response.quarantined, ...received.value.quarantined]
  })
  yield* crypto.committed
  return entries.length
})

const program = Effect.gen(function* () {
  const stream = yield* DistributedSemaphore.make({ name: ExtensionLoopMachine.EXTENSION_LEASE, permits: 1 })
  const tried = yield* stream.tryTake
  if (tried._tag === "Busy") return say({ done: "busy" })
  const { grant } = tried
  const messages = yield* Effect.raceFirst(syncOnce(grant), Effect.flatMap(grant.lost, Effect.fail))
  say({ done: "synced", messages })
}).pipe(Effect.scoped)

const account = Layer.mergeAll(HttpHomeserver.layer, PassThroughCrypto.layer).pipe(
  Layer.provideMerge(Twinloop.layerFoundation({ database: process.argv[2] ?? "", config: { role: "push" } }))
)

void Effect.runPromise(Effect.provide(program, account))
