/** What the tests of pushes share: a database with a queue, devices, pushes, and who owns the lease. */
import { assert } from "@effect/vitest"
import { LeaseStore, type PushNotification, type StoreError, SyncConfig, Wake } from "@twinloop/core"
import type { Lease } from "@twinloop/core"
import { Effect, Layer } from "effect"
import { PushQueue } from "../../src/push/PushQueue.ts"
import * as PushTables from "../../src/push/PushTables.ts"
import type { SqliteStores } from "../../src/sqlite/index.ts"
import { storesAt } from "../SqliteKit.ts"

/** Everything that a test of the queue works with. */
export type Queue = PushQueue | SqliteStores.SqliteStores | Wake

/** The queue in a database file, opened anew; without wake-ups to other processes unless they are given. */
export const queueAt = (
  filename: string,
  config: Partial<SyncConfig.SyncConfigShape> = {},
  wake: Layer.Layer<Wake> = Wake.layerNone
): Layer.Layer<Queue, StoreError.StoreError> =>
  Layer.fresh(
    PushQueue.layer.pipe(
      Layer.provideMerge(Layer.merge(storesAt(filename), wake)),
      Layer.provideMerge(SyncConfig.layer(config))
    )
  )

/** Does something with a database that is opened for it, and closed after it. */
export const within =
  (filename: string, config: Partial<SyncConfig.SyncConfigShape> = {}) =>
  <A, E>(use: Effect.Effect<A, E, Queue>): Effect.Effect<A, E | StoreError.StoreError> =>
    Effect.provide(use, queueAt(filename, config), { local: true })

/** The registered device. */
export const device = { appId: "org.example.app", pushKey: "key-1" }
/** Nobody's. */
export const stranger = { appId: "org.example.app", pushKey: "key-2" }

/** Takes pushes for a device. */
export const register = (of: typeof device = device): Effect.Effect<void, StoreError.StoreError, PushQueue> =>
  Effect.flatMap(PushQueue, (queue) =>
    queue.register({ ...of, url: "http://127.0.0.1/_matrix/push/v1/notify", format: "event_id_only" })
  )

/** A push about an event with this number. */
export const push = (
  number: number,
  {
    devices = [device],
    isUrgent = true,
    unread
  }: { readonly devices?: ReadonlyArray<typeof device>; readonly isUrgent?: boolean; readonly unread?: number } = {}
): PushNotification.EventPush => ({
  _tag: "Event",
  request: { roomId: "!r:example.org", eventId: `$${number}`, isUrgent },
  ...(unread === undefined ? {} : { counts: { unread, missedCalls: 0 } }),
  devices: devices.map((of) => ({ ...of, data: {} }))
})

/** A push that has only a count. */
export const badge = (unread: number, devices = [device]): PushNotification.BadgePush => ({
  _tag: "Badge",
  counts: { unread, missedCalls: 0 },
  devices: devices.map((of) => ({ ...of, data: {} }))
})

/** Numbers of the events that are due, in the order in which they are given out. */
export const due = (
  inHand: ReadonlyArray<number> = []
): Effect.Effect<ReadonlyArray<number>, StoreError.StoreError, PushQueue> =>
  Effect.gen(function* () {
    const waiting = yield* Effect.flatMap(PushQueue, (queue) => queue.waiting(1_000, inHand))
    return waiting.map(({ request }) => Number(request.eventId.slice(1)))
  })

/** Takes the lease of those who show; a later round is long after the lease of the one before. */
export const own = (holder: string, round = 0): Effect.Effect<Lease.Fence, StoreError.StoreError, LeaseStore> =>
  Effect.gen(function* () {
    const leases = yield* LeaseStore
    const outcome = yield* leases.take({
      name: PushTables.PUSH_LEASE,
      permits: 1,
      count: 1,
      holder,
      peer: {},
      nowMillis: round * 100_000,
      leaseMillis: 10_000
    })
    if (outcome._tag === "Busy") return assert.fail(`${outcome.blocker.holder} has the lease`)
    return { name: PushTables.PUSH_LEASE, holder, generation: outcome.generation }
  })

// --- over HTTP

/** A device as a homeserver names it. */
export const wireDevice = ({ appId, pushKey } = device) => ({
  app_id: appId,
  pushkey: pushKey,
  pushkey_ts: 1_700_000_000,
  data: { format: "event_id_only" }
})

/** The body of a push about an event with this number. */
export const body = (number: number, change: object = {}): string =>
  JSON.stringify({
    notification: {
      event_id: `$${number}`,
      room_id: "!r:example.org",
      prio: "high",
      counts: { unread: 1 },
      devices: [wireDevice()],
      ...change
    }
  })

/** What a server answered. */
export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly json: { readonly [member: string]: unknown }
}

/** Sends a request, and reads the JSON that answers it. */
export const request = (
  url: string,
  method: string,
  content?: string | Uint8Array<ArrayBuffer>
): Effect.Effect<Answer> =>
  Effect.promise(async (signal) => {
    const response = await fetch(url, { method, signal, ...(content === undefined ? {} : { body: content }) })
    return { status: response.status, headers: response.headers, json: (await response.json()) as Answer["json"] }
  })
