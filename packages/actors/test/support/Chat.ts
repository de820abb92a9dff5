/**
 * Processes that send to rooms and show them, with a simulated cipher: everything between the application and the homeserver is
 * real but the keys.
 *
 * Includes other people's devices, each with a database of its own, and the record of what a process commits and asks for,
 * in order.
 */
import { CryptoEngine, type CryptoError, EventDecryptor, LeaseStore, LeaseStoreMemory, SyncStore } from "@twinloop/core"
import type { Homeserver, MatrixEvent } from "@twinloop/core"
import { SimulatedCrypto, SyncStoreMemory, WakeMemory } from "@twinloop/core/testing"
import { Cause, Context, Effect, Exit, Layer } from "effect"
import type { Fiber } from "effect"
import { Encryption } from "../../src/Encryption.ts"
import { EncryptionNews } from "../../src/EncryptionNews.ts"
import { Rooms, type TimelineItem } from "../../src/Rooms.ts"
import { type ProcessOptions, startProcess, type World } from "../../src/testing/Simulation.ts"
import { settle } from "../../src/testing/Time.ts"

/** What reached the homeserver, or the database (`commit`), in order. Syncs are left out. */
export interface Line {
  readonly what: "commit" | "members" | "send" | "sendToDevice" | `keys/${string}`
  readonly body: unknown
}

/** What a process sees of a device that isn't the world's own: the same homeserver, and everything else its own. */
export const deviceOf = Effect.fnUntraced(function* (world: World, localpart: string, deviceId: string) {
  const database = SyncStoreMemory.layer.pipe(Layer.provideMerge(LeaseStoreMemory.layerMemory), Layer.fresh)
  const context = yield* Layer.build(database)
  const other: World = {
    sim: world.sim,
    session: yield* world.sim.session(localpart, deviceId),
    hub: yield* WakeMemory.makeHub,
    leases: Context.get(context, LeaseStore),
    store: Context.get(context, SyncStore.SyncStore),
    faults: Context.get(context, SyncStoreMemory.SyncStoreMemory)
  }
  return other
})

const recorder = () => {
  const lines: Array<Line> = []
  const noted = <A, E>(what: Line["what"], body: unknown, call: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.suspend(() => {
      lines.push({ what, body })
      return call
    })
  const homeserver = (port: Homeserver.Homeserver["Service"]): Homeserver.Homeserver["Service"] => ({
    ...port,
    members: (roomId) => noted("members", roomId, port.members(roomId)),
    sendEvent: (event) => noted("send", event, port.sendEvent(event)),
    sendToDevice: (messages) => noted("sendToDevice", messages, port.sendToDevice(messages)),
    keys: (request) => noted(`keys/${request.kind}`, request.body, port.keys(request))
  })
  const store = (port: SyncStore.SyncStore["Service"]): SyncStore.SyncStore["Service"] => ({
    ...port,
    // Once it is done.
    commitCrypto: (fence, commit) =>
      Effect.tap(port.commitCrypto(fence, commit), () =>
        Effect.sync(() => lines.push({ what: "commit", body: commit }))
      )
  })
  return { lines, homeserver, store }
}

/** A reader that counts what it decrypts, and fails when it is told to. */
const watchedDecryptor = (world: World) => {
  const reader = SimulatedCrypto.makeDecryptor(world.session, world.faults.cryptoRecords)
  const decrypted: Array<MatrixEvent.EventId> = []
  const failures: Array<CryptoError.CryptoError> = []
  const service = EventDecryptor.EventDecryptor.of({
    ...reader,
    decrypt: (roomId, event) =>
      Effect.suspend(() => {
        decrypted.push(event.event_id)
        const failure = failures.shift()
        return failure === undefined ? reader.decrypt(roomId, event) : Effect.fail(failure)
      })
  })
  return { decrypted, failures, service }
}

/** An engine that remembers how rooms were encrypted, and whom it was told to follow, and refuses to encrypt when it is told to. */
const watchedEngine = (world: World) => {
  const engine = SimulatedCrypto.makeEngine(world.session, world.faults.cryptoRecords)
  const settings: Array<CryptoEngine.RoomKeySettings> = []
  const followed: Array<ReadonlyArray<MatrixEvent.UserId>> = []
  const refusals: Array<CryptoError.CryptoError> = []
  const watched = CryptoEngine.CryptoEngine.of({
    ...engine,
    track: (fence, users) =>
      Effect.suspend(() => {
        followed.push(users)
        return engine.track(fence, users)
      }),
    shareRoomKey: (fence, room) =>
      Effect.suspend(() => {
        settings.push(room.settings)
        return engine.shareRoomKey(fence, room)
      }),
    encrypt: (fence, event) =>
      Effect.suspend(() => {
        const refusal = refusals.shift()
        return refusal === undefined ? engine.encrypt(fence, event) : Effect.fail(refusal)
      })
  })
  return { engine: watched, settings, followed, refusals }
}

/** A process that sends and shows; its loops don't run yet. */
export const openChat = Effect.fnUntraced(function* (world: World, name: string, options: ProcessOptions = {}) {
  const record = recorder()
  const reader = watchedDecryptor(world)
  const { engine, followed, refusals, settings } = watchedEngine(world)
  const process = yield* startProcess(world, name, {
    crypto: Layer.succeed(CryptoEngine.CryptoEngine, engine),
    homeserver: record.homeserver,
    ...options,
    store: (port) => record.store(options.store?.(port) ?? port)
  })
  const context = yield* Layer.build(
    Rooms.layer.pipe(
      Layer.provideMerge(Encryption.layer),
      Layer.provide(Layer.succeed(EventDecryptor.EventDecryptor, reader.service)),
      Layer.provide(Layer.succeedContext(process.context))
    )
  )
  const { rooms: list, ...rest } = process
  return {
    ...rest,
    list,
    rooms: Context.get(context, Rooms),
    encryption: Context.get(context, Encryption),
    news: Context.get(process.context, EncryptionNews),
    settings,
    followed,
    refusals,
    lines: record.lines,
    decrypted: reader.decrypted,
    failures: reader.failures,
    isOwner: Effect.map(process.service.lease, ({ _tag }) => _tag === "Held")
  }
})

export type Chat = Effect.Success<ReturnType<typeof openChat>>

/** A process whose loops run, and are in sync. */
export const startChat = Effect.fnUntraced(function* (world: World, name: string, options: ProcessOptions = {}) {
  const chat = yield* openChat(world, name, options)
  yield* chat.service.start
  yield* settle
  chat.lines.length = 0
  return chat
})

/** Sends a text message. */
export const say = ({ rooms }: Pick<Chat, "rooms">, roomId: string, body: string, txnId?: string) =>
  rooms.send(roomId, "m.room.message", { msgtype: "m.text", body }, txnId === undefined ? {} : { txnId })

/** The names of the lines, the same ones in a row as one. */
export const steps = (lines: ReadonlyArray<Line>): ReadonlyArray<string> =>
  lines.map(({ what }) => what).filter((what, index, all) => what !== all[index - 1])

/** A timeline item as a person reads it. */
export const reading = (item: TimelineItem): unknown => {
  if (item._tag === "Gap") return "gap"
  const { decryption, event } = item
  if (decryption?._tag === "Undecryptable") return decryption.reason
  return event.type === "m.room.message" ? event.content.body : event.type
}

/** What the newest entries of a room say. */
export const read = ({ rooms }: Pick<Chat, "rooms">, roomId: string, limit = 10) =>
  Effect.map(rooms.timeline(roomId, { limit }), (items) => items.map(reading))

/** What became of a call that was started and must be over by now. */
export const outcome = <A, E>(fiber: Fiber.Fiber<A, E>) =>
  Effect.sync(() => {
    const exit = fiber.pollUnsafe()
    if (exit === undefined) return "pending"
    return Exit.isSuccess(exit) ? "sent" : Cause.squash(exit.cause)
  })

/** Starts a call, and lets everybody go as far as he gets. */
export const begin = <A, E>(call: Effect.Effect<A, E>) => Effect.tap(Effect.forkScoped(call), settle)

/** The events that a process sent, whether or not they arrived. */
export const sentBy = ({
  lines
}: Pick<Chat, "lines">): ReadonlyArray<{
  readonly type: string
  readonly content: MatrixEvent.JsonObject
  readonly txnId: string
}> => lines.filter(({ what }) => what === "send").map(({ body }) => body as never)

/** What a ciphertext must never share with another one: a key and an index. */
export const ratchetOf = ({ ciphertext, session_id }: MatrixEvent.JsonObject): string =>
  `${String(session_id)} ${String((JSON.parse(atob(String(ciphertext))) as MatrixEvent.JsonObject).index)}`
