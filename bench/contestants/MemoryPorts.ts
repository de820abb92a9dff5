/** The ports of an account in memory: a homeserver that answers each loop once, a store that forgets, a lease. */
import {
  Homeserver,
  LeaseStore,
  LeaseStoreMemory,
  SlidingSyncWire,
  type SlidingSync,
  SyncStore,
  Wake
} from "@twinloop/core"
import { Context, Effect, Layer, Result } from "effect"
import { DEVICE, ME, SyntheticAccount } from "../data/SyntheticAccount.ts"
import { ROOMS } from "./AccountsTask.ts"

const synthetic = new SyntheticAccount(42)
const rooms = Object.fromEntries(Array.from({ length: ROOMS }, () => synthetic.initialRoom(1)))
const list = { count: ROOMS, ops: [{ op: "SYNC", range: [0, ROOMS - 1], room_ids: Object.keys(rooms) }] }

/** First answers, as text, so that no two accounts share what is parsed. */
const firstAnswers = {
  rooms: JSON.stringify({ pos: "1", lists: { rooms: list }, rooms, extensions: {} }),
  extension: JSON.stringify({ pos: "1", rooms: {}, extensions: { to_device: { next_batch: "1", events: [] } } })
}

const decode = (text: string): SlidingSync.SyncResponse =>
  Result.getOrThrow(SlidingSyncWire.decodeResponse(JSON.parse(text)))

const notAsked = Effect.die(new Error("nobody asks this"))

/** Answers the first request of each loop, and holds the second for good. */
const makeHomeserver = Effect.sync(() => {
  const answered = new Set<string>()
  return Homeserver.Homeserver.of({
    session: { userId: ME, deviceId: DEVICE },
    capabilities: notAsked,
    sync: ({ connId, lists }) =>
      Effect.suspend(() => {
        if (answered.has(connId)) return Effect.never
        answered.add(connId)
        return Effect.succeed(decode(Object.keys(lists).length > 0 ? firstAnswers.rooms : firstAnswers.extension))
      }),
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
})

/** As if every commit succeeded. One for all accounts, since it keeps nothing. */
const forgetful = SyncStore.SyncStore.of({
  extensionPosition: Effect.succeed({}),
  commitExtension: () => Effect.succeed([]),
  commitCrypto: () => Effect.void,
  encryptionNews: () => Effect.succeed([]),
  encryptionNewsKept: Effect.succeed({ first: 0, last: 0 }),
  expireExtension: () => Effect.void,
  mainPosition: () => Effect.succeed({ lists: {} }),
  loadMain: () => Effect.succeed({ lists: {}, rooms: [] }),
  commitMain: () => Effect.void,
  expireMain: () => Effect.void,
  room: () => Effect.undefined,
  timeline: () => Effect.succeed([]),
  event: () => Effect.undefined,
  state: () => Effect.succeed([]),
  accountData: () => Effect.undefined,
  readInbox: () => Effect.succeed([]),
  inboxCursor: () => Effect.succeed(0),
  advanceInbox: () => Effect.void,
  forgetConsumer: () => Effect.void,
  quarantine: () => Effect.succeed([]),
  quarantineCount: Effect.succeed(0)
})

export const homeserver = Layer.effect(Homeserver.Homeserver, makeHomeserver)

/** All ports of one account. */
export const layer = Layer.effectContext(
  Effect.gen(function* () {
    return Context.make(Homeserver.Homeserver, yield* makeHomeserver).pipe(
      Context.add(SyncStore.SyncStore, forgetful),
      Context.add(LeaseStore, yield* LeaseStoreMemory.make),
      Context.add(Wake, yield* Wake)
    )
  })
).pipe(Layer.provide(Wake.layerNone))
