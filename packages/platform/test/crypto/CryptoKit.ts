/**
 * Devices that talk to one another: each has a database of its own in a real file, an `OlmCrypto` and an `OlmReader` over it, and
 * the homeserver model on the other side.
 *
 * Includes processes of a device (`openProcess`), ownership of the stream (`take`), the rounds of the extension loop (`receive`,
 * `flush`, `settle`), and the steps of sending an encrypted message (`send`).
 *
 * Gotchas: with the live clock or a `TestClock`, whatever the test has; the machine's time is Effect's.
 */
import {
  CryptoEngine,
  type CryptoError,
  EventDecryptor,
  Homeserver,
  type HomeserverError,
  type Lease,
  LeaseStore,
  type MatrixEvent,
  type SlidingSync,
  type StoreError,
  SyncStore
} from "@twinloop/core"
import { HomeserverModel, HomeserverSim } from "@twinloop/core/testing"
import { assert } from "@effect/vitest"
import { Context, Effect, Layer, Redacted, Result } from "effect"
import type { Scope } from "effect"
import * as OlmCrypto from "../../src/crypto/OlmCrypto.ts"
import * as OlmReader from "../../src/crypto/OlmReader.ts"
import { StoreKey } from "../../src/crypto/StoreKey.ts"
import { SqliteClient } from "../../src/sqlite/SqliteClient.ts"
import { storesAt, temporaryFile } from "../SqliteKit.ts"

export type Sim = HomeserverSim.HomeserverSim["Service"]

/** What can go wrong between a device and its homeserver. */
export type Failure = CryptoError.CryptoError | StoreError.StoreError | HomeserverError.HomeserverError

/** The key under which devices of the kit store theirs. */
export const testKey = new Uint8Array(32).fill(7)

/** Each is another key. */
export const keyOf = (fill: number): Layer.Layer<StoreKey> =>
  StoreKey.layer(Redacted.make(new Uint8Array(32).fill(fill)))

/** A homeserver without anybody. */
export const openHomeserver: Effect.Effect<Sim, never, Scope.Scope> = Effect.map(
  Layer.build(HomeserverSim.layer()),
  (context) => Context.get(context, HomeserverSim.HomeserverSim)
)

/** A process of a device: its own connection to the device's database, its own engine and its own reader. */
export interface Process {
  readonly session: HomeserverSim.SimSession
  readonly filename: string
  readonly homeserver: Homeserver.Homeserver["Service"]
  readonly leases: LeaseStore["Service"]
  readonly store: SyncStore.SyncStore["Service"]
  readonly client: SqliteClient
  readonly engine: CryptoEngine.CryptoEngine["Service"]
  readonly reader: EventDecryptor.EventDecryptor["Service"]
  /** Under which it works: the last that it took, whether or not it still stands. */
  fence: Lease.Fence
}

export interface ProcessOptions {
  /** The file of another process of the same device; one of its own if absent. */
  readonly filename?: string
  readonly key?: Layer.Layer<StoreKey>
  /** Puts something between the process and its homeserver. */
  readonly homeserver?: (port: Homeserver.Homeserver["Service"]) => Homeserver.Homeserver["Service"]
}

/** Starts a process of a device, which doesn't own the stream yet. It ends with the scope. */
export const openProcess = Effect.fnUntraced(function* (
  sim: Sim,
  localpart: string,
  deviceId: string,
  options: ProcessOptions = {}
): Effect.fn.Return<Process, StoreError.StoreError, Scope.Scope> {
  const session = yield* sim.session(localpart, deviceId)
  const port = sim.homeserver(session)
  const homeserver = options.homeserver?.(port) ?? port
  const filename = options.filename ?? (yield* temporaryFile)
  const services = Layer.mergeAll(OlmCrypto.layer, OlmReader.layer).pipe(
    Layer.provideMerge(storesAt(filename)),
    Layer.provide(Layer.succeed(Homeserver.Homeserver, homeserver)),
    Layer.provide(options.key ?? StoreKey.layer(Redacted.make(testKey)))
  )
  const context = yield* Layer.build(services)
  return {
    session,
    filename,
    homeserver,
    leases: Context.get(context, LeaseStore),
    store: Context.get(context, SyncStore.SyncStore),
    client: Context.get(context, SqliteClient),
    engine: Context.get(context, CryptoEngine.CryptoEngine),
    reader: Context.get(context, EventDecryptor.EventDecryptor),
    fence: { name: "stream", holder: `${deviceId}#0`, generation: 0 }
  }
})

/** Each lease is taken long after the one before, whoever had it. */
let round = 0

/** Makes the process the owner of its device's stream, without loading anything. */
export const own = Effect.fnUntraced(function* (process: Process): Effect.fn.Return<void, StoreError.StoreError> {
  round++
  const holder = `${process.session.deviceId}#${round}`
  const asked = {
    name: "stream",
    permits: 1,
    count: 1,
    holder,
    peer: {},
    nowMillis: round * 100_000,
    leaseMillis: 10_000
  }
  const outcome = yield* process.leases.take(asked)
  if (outcome._tag === "Busy") return assert.fail(`${outcome.blocker.holder} has the lease`)
  process.fence = { name: "stream", holder, generation: outcome.generation }
})

/** Makes the process the owner, with memory as it is stored. */
export const take = (process: Process): Effect.Effect<void, Failure> =>
  Effect.andThen(
    own(process),
    Effect.suspend(() => process.engine.reload(process.fence))
  )

/** Starts the first process of a device, which owns the stream and has published its keys. */
export const openDevice = (
  sim: Sim,
  localpart: string,
  deviceId: string,
  options?: ProcessOptions
): Effect.Effect<Process, Failure, Scope.Scope> =>
  openProcess(sim, localpart, deviceId, options).pipe(Effect.tap(take), Effect.tap(settle))

/** Logs a device out: the homeserver deletes it with its keys. */
export const logOut = (sim: Sim, { session }: Process): Effect.Effect<void> =>
  Effect.asVoid(
    sim.model((state, nowMillis) =>
      HomeserverModel.logOut(
        state,
        Result.getOrThrow(HomeserverModel.authenticate(state, session.accessToken, nowMillis))
      )
    )
  )

// --- turns

/** What a call gave, made durable. */
export const commit = Effect.fnUntraced(function* <A>(
  { engine, fence, store }: Process,
  { news, value, writes }: CryptoEngine.Changed<A>
): Effect.fn.Return<A, StoreError.StoreError> {
  yield* store.commitCrypto(fence, { crypto: writes, news })
  yield* engine.committed
  return value
})

/** A turn at the engine whose effects are committed. */
export const change = <A>(
  process: Process,
  step: (
    engine: CryptoEngine.CryptoEngine["Service"],
    fence: Lease.Fence
  ) => Effect.Effect<CryptoEngine.Changed<A>, CryptoError.CryptoError>
): Effect.Effect<A, CryptoError.CryptoError | StoreError.StoreError> =>
  Effect.flatMap(step(process.engine, process.fence), (changed) => commit(process, changed))

/** A response, with the position that was sent. */
export interface Polled {
  readonly sent: SyncStore.ExtensionPosition
  readonly response: SlidingSync.SyncResponse
}

/** Asks the homeserver for what is new, without waiting. */
export const poll = Effect.fnUntraced(function* ({ homeserver, store }: Process): Effect.fn.Return<Polled, Failure> {
  const sent = yield* store.extensionPosition
  const response = yield* homeserver.sync({
    connId: "ext",
    ...(sent.pos === undefined ? {} : { pos: sent.pos }),
    timeoutMillis: 0,
    lists: {},
    roomSubscriptions: {},
    extensions: { toDevice: sent.since === undefined ? {} : { since: sent.since }, e2ee: true }
  })
  return { sent, response }
})

/** Takes a response into memory, and gives what is to be committed. */
export const absorb = Effect.fnUntraced(function* (
  { engine, fence }: Process,
  { response, sent }: Polled
): Effect.fn.Return<SyncStore.ExtensionCommit, CryptoError.CryptoError> {
  const { e2ee, toDevice } = response.extensions
  const since = toDevice?.nextBatch ?? sent.since
  const { news, value, writes } = yield* engine.receive(fence, {
    toDevice: toDevice?.events ?? [],
    ...(e2ee === undefined ? {} : { e2ee }),
    fresh: sent.pos === undefined
  })
  return {
    ...(sent.since === undefined ? {} : { sentSince: sent.since }),
    position: { pos: response.pos, ...(since === undefined ? {} : { since }) },
    inbox: value.inbox,
    crypto: writes,
    news,
    quarantined: value.quarantined
  }
})

/** Makes durable what {@link absorb} gave. */
export const commitBatch = (
  { engine, fence, store }: Process,
  batch: SyncStore.ExtensionCommit
): Effect.Effect<void, StoreError.StoreError> => Effect.andThen(store.commitExtension(fence, batch), engine.committed)

/** A round of the extension loop: polls, takes into memory, commits. */
export const receive = Effect.fnUntraced(function* (
  process: Process
): Effect.fn.Return<SyncStore.ExtensionCommit, Failure> {
  const batch = yield* absorb(process, yield* poll(process))
  yield* commitBatch(process, batch)
  return batch
})

// --- requests

/** Sends a request of the machine; gives the answer. */
export const post = (
  { homeserver }: Process,
  { request }: CryptoEngine.OutgoingRequest
): Effect.Effect<MatrixEvent.JsonObject, HomeserverError.HomeserverError> => {
  switch (request._tag) {
    case "Keys":
      return homeserver.keys(request.keys)
    case "ToDevice":
      return Effect.as(homeserver.sendToDevice(request.toDevice), {})
    case "RoomEvent":
      return Effect.map(homeserver.sendEvent(request.event), (eventId) => ({ event_id: eventId }))
  }
}

/** Sends these requests, and tells the machine the answers. */
export const postAll = (
  process: Process,
  requests: ReadonlyArray<CryptoEngine.OutgoingRequest>
): Effect.Effect<void, Failure> =>
  Effect.forEach(
    requests,
    (request) =>
      Effect.flatMap(post(process, request), (answer) =>
        change(process, (engine, fence) => engine.markSent(fence, request, answer))
      ),
    { discard: true }
  )

/** Sends what is queued; gives it. */
export const flush = Effect.fnUntraced(function* (
  process: Process
): Effect.fn.Return<ReadonlyArray<CryptoEngine.OutgoingRequest>, Failure> {
  const requests = yield* change(process, (engine, fence) => engine.outgoing(fence))
  yield* postAll(process, requests)
  return requests
})

/** Rounds of these processes, one after the other, until each has seen what the others sent. */
export const settle = (...processes: ReadonlyArray<Process>): Effect.Effect<void, Failure> =>
  Effect.forEach([1, 2, 3], () => Effect.forEach(processes, (one) => Effect.andThen(receive(one), flush(one))), {
    discard: true
  })

// --- rooms

/** An encrypted room, and who is in it. */
export interface Room {
  readonly roomId: MatrixEvent.RoomId
  readonly users: ReadonlyArray<MatrixEvent.UserId>
}

/** Makes an encrypted room with the users of these processes. */
export const openRoom = (sim: Sim, ...members: readonly [Process, ...ReadonlyArray<Process>]) =>
  Effect.gen(function* () {
    const [first, ...others] = [...new Set(members.map(({ session }) => session.userId))]
    assert.isDefined(first)
    const roomId = yield* sim.addRoom({ members: [first!, ...others], isEncrypted: true })
    const room: Room = { roomId, users: [first!, ...others] }
    return room
  })

/** What an application says when it says nothing about keys. */
export const defaultSettings: CryptoEngine.RoomKeySettings = { historyVisibility: "shared", sharing: "all" }

/** Makes sure that the devices of a room have its key; gives the requests that shared it. */
export const share = Effect.fnUntraced(function* (
  process: Process,
  { roomId, users }: Room,
  settings: Partial<CryptoEngine.RoomKeySettings> = {}
): Effect.fn.Return<ReadonlyArray<CryptoEngine.OutgoingRequest>, Failure> {
  yield* change(process, (engine, fence) => engine.track(fence, users))
  yield* flush(process)
  yield* postAll(process, yield* change(process, (engine, fence) => engine.claim(fence, users)))
  const room = { roomId, users, settings: { ...defaultSettings, ...settings } }
  const requests = yield* change(process, (engine, fence) => engine.shareRoomKey(fence, room))
  yield* postAll(process, requests)
  return requests
})

/** Encrypts a message under the key that the room has, and sends it; gives the event as the homeserver has it. */
export const sendNow = Effect.fnUntraced(function* (
  sim: Sim,
  process: Process,
  { roomId }: Room,
  body: string
): Effect.fn.Return<MatrixEvent.TimelineEvent, Failure> {
  const clear = { roomId, type: "m.room.message", content: { msgtype: "m.text", body } }
  const content = yield* change(process, (engine, fence) => engine.encrypt(fence, clear))
  sent++
  const eventId = yield* process.homeserver.sendEvent({ roomId, type: "m.room.encrypted", content, txnId: `${sent}` })
  return yield* sim.model((state) => state.events.get(eventId)!.stored.event)
})

/** Transaction ids. */
let sent = 0

/** All steps of sending an encrypted message. */
export const send = (
  sim: Sim,
  process: Process,
  room: Room,
  body: string,
  settings?: Partial<CryptoEngine.RoomKeySettings>
): Effect.Effect<MatrixEvent.TimelineEvent, Failure> =>
  Effect.andThen(share(process, room, settings), sendNow(sim, process, room, body))

/** What the reader says of an event, in one word or text: the body of a decrypted message, or why it isn't decrypted. */
export const read = (
  { reader }: Process,
  { roomId }: Room,
  event: MatrixEvent.TimelineEvent
): Effect.Effect<unknown, CryptoError.CryptoError> =>
  Effect.map(reader.decrypt(roomId, event), (answer) =>
    answer._tag === "Decrypted" ? answer.event.content.body : answer.reason
  )

// --- what is stored

/** Every row of the machine's, to be compared. */
export const rows = ({ client }: Process): Effect.Effect<ReadonlyArray<unknown>> =>
  Effect.sync(() => client.now.all(`SELECT collection, hex(key), hex(value) FROM crypto_record ORDER BY 1, 2`))

/** Deletes them all. */
export const clear = ({ client, fence, store }: Process): Effect.Effect<void, StoreError.StoreError> => {
  const all = client.now.all<{ collection: string; key: Uint8Array }>(`SELECT collection, key FROM crypto_record`)
  return store.commitCrypto(fence, { crypto: all.map(({ collection, key }) => ({ collection, key, value: null })) })
}
