/**
 * The account's end-to-end encryption as Twinloop has it: `OlmCrypto` and `OlmReader` over a database file, without a
 * homeserver and without the loops.
 */
import { CryptoEngine, EventDecryptor, Homeserver, type Lease, LeaseStore, SyncStore } from "@twinloop/core"
import { OlmCrypto, OlmReader, SqliteStores, StoreKey } from "@twinloop/platform"
import { Context, Effect, Layer, Redacted } from "effect"
import type { Device, KeyDirectory, ToDeviceEvent } from "./KeyDirectory.ts"

/** Who the account is, in each of these benchmarks. */
export const ME: Device = { userId: "@me:bench", deviceId: "MINE" }

const notAsked = Effect.die(new Error("nobody asks this"))

/** Knows whose account it is, and answers nothing. */
export const homeserver = Layer.succeed(
  Homeserver.Homeserver,
  Homeserver.Homeserver.of({
    session: ME,
    capabilities: notAsked,
    sync: () => notAsked,
    sendEvent: () => notAsked,
    sendState: () => notAsked,
    sendToDevice: () => notAsked,
    keys: () => notAsked,
    members: () => notAsked,
    eventContext: () => notAsked,
    pushers: notAsked,
    setPusher: () => notAsked,
    removePusher: () => notAsked,
    isThreadSubscribed: () => notAsked
  })
)

/** The key that the keys are stored under. */
export const storeKey = StoreKey.StoreKey.layer(Redacted.make(new Uint8Array(32).fill(7)))

/** Encryption over stores that are provided. */
export const encryption = Layer.mergeAll(OlmCrypto.layer, OlmReader.layer).pipe(Layer.provide([homeserver, storeKey]))

/** An open account; its stream is ours, and nothing is loaded yet. */
export interface Account {
  readonly engine: CryptoEngine.CryptoEngine["Service"]
  readonly reader: EventDecryptor.EventDecryptor["Service"]
  readonly store: SyncStore.SyncStore["Service"]
  readonly fence: Lease.Fence
}

const STREAM = "extension"

/** Takes the stream's lease for as long as the scope is open. */
export const own = Effect.fnUntraced(function* (leases: LeaseStore["Service"]) {
  const holder = `bench#${process.pid}#${process.hrtime.bigint()}`
  const nowMillis = Date.now()
  const asked = { name: STREAM, permits: 1, count: 1, holder, peer: {}, nowMillis, leaseMillis: 3_600_000 }
  const outcome = yield* leases.take(asked)
  if (outcome._tag === "Busy") return yield* Effect.die(new Error("somebody else owns the stream"))
  const fence: Lease.Fence = { name: STREAM, holder, generation: outcome.generation }
  yield* Effect.addFinalizer(() => Effect.orDie(leases.release({ fence, nowMillis: Date.now(), handoverMillis: 0 })))
  return fence
})

/** Opens the account of a database file, and takes its stream for as long as the scope is open. */
export const open = Effect.fnUntraced(function* (filename: string) {
  const context = yield* Layer.build(Layer.provideMerge(encryption, SqliteStores.layer({ filename })))
  const fence = yield* own(Context.get(context, LeaseStore))
  const account: Account = {
    engine: Context.get(context, CryptoEngine.CryptoEngine),
    reader: Context.get(context, EventDecryptor.EventDecryptor),
    store: Context.get(context, SyncStore.SyncStore),
    fence
  }
  return account
})

/** A turn at the engine whose writes are committed. */
export const change = Effect.fnUntraced(function* <A, E>(
  { engine, fence, store }: Account,
  step: Effect.Effect<CryptoEngine.Changed<A>, E>
) {
  const { news, value, writes } = yield* step
  yield* store.commitCrypto(fence, { crypto: writes, news })
  yield* engine.committed
  return value
})

/** Asks the directory everything that the engine wants to know, and publishes its keys. */
export const flush = Effect.fnUntraced(function* (account: Account, directory: KeyDirectory) {
  const { engine, fence } = account
  for (const request of yield* change(account, engine.outgoing(fence))) {
    if (request.request._tag !== "Keys") return yield* Effect.die(new Error("only keys are asked for"))
    const { body, kind } = request.request.keys
    yield* change(account, engine.markSent(fence, request, directory.answer(ME, kind, body)))
  }
})

/** Takes a batch into memory, and commits it as the extension loop does; gives how many messages were decrypted. */
export const receive = Effect.fnUntraced(function* (
  { engine, fence, store }: Account,
  toDevice: ReadonlyArray<ToDeviceEvent>,
  since: number
) {
  const { news, value, writes } = yield* engine.receive(fence, { toDevice, fresh: false })
  yield* store.commitExtension(fence, {
    ...(since === 0 ? {} : { sentSince: `${since}` }),
    position: { pos: "1", since: `${since + 1}` },
    inbox: value.inbox,
    crypto: writes,
    news,
    quarantined: value.quarantined
  })
  yield* engine.committed
  return value.inbox.filter(({ encryption }) => encryption === "decrypted").length
})
