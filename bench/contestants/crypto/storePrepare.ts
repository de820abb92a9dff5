/**
 * Makes an account with many room keys, and is not measured: `node storePrepare.ts <StoreTask>`. The account is logged in, and
 * has a room with one encrypted message.
 */
import { Homeserver, LeaseStore, SyncStore } from "@twinloop/core"
import { SessionStore, Twinloop } from "@twinloop/platform"
import { Effect, Layer, Redacted } from "effect"
import { statSync, writeFileSync } from "node:fs"
import * as OlmMachine from "../../../packages/platform/src/crypto/OlmMachine.ts"
import { finish, task } from "../Figures.ts"
import * as Account from "./Account.ts"
import { KeyDirectory } from "./KeyDirectory.ts"
import * as MemoryMachine from "./MemoryMachine.ts"
import * as RoomKeys from "./RoomKeys.ts"
import { type RoomEvent, Senders } from "./Senders.ts"
import { databaseIn, EVENTS, eventsIn, exportIn, type StoreTask } from "./StoreTask.ts"

const { directory, roomKeys } = task<StoreTask>()
const database = databaseIn(directory)

/** Keys that are imported and committed at once: all of them would be in memory twice. */
const CHUNK = 2_000

const SEED = 42

/** Real keys with an event each, then the others. */
const makeKeys = async () => {
  const keys = new KeyDirectory()
  await MemoryMachine.open(keys, Account.ME)
  const senders = await Senders.open(keys, Account.ME, 1)
  const { events } = await senders.batch(EVENTS)
  return { events, exported: [...(await senders.exported()), ...RoomKeys.make(roomKeys, SEED)] }
}

const logIn = Effect.flatMap(SessionStore.SessionStore, (store) =>
  SessionStore.replace(store, {
    homeserver: "http://127.0.0.1:9",
    ...Account.ME,
    accessToken: Redacted.make("bench-token")
  })
)

const storeMessage = ({ event, roomId }: RoomEvent) =>
  Effect.flatMap(SyncStore.SyncStore, (store) =>
    store.commitMain({
      connId: "main",
      pos: "1",
      lists: {},
      accountData: [],
      quarantined: [],
      rooms: [
        {
          room: {
            roomId,
            membership: "join",
            displayName: "A room",
            heroes: [],
            joinedCount: 2,
            invitedCount: 0,
            isDm: false,
            isEncrypted: true,
            bumpStamp: 1,
            unread: { notificationCount: 1, highlightCount: 0, markedUnread: false, liveSinceRead: 1 },
            typing: []
          },
          replace: true,
          state: [],
          timeline: [event],
          accountData: []
        }
      ]
    })
  )

const importAll = Effect.fnUntraced(function* (exported: ReadonlyArray<object>) {
  const store = yield* SyncStore.SyncStore
  const fence = yield* Account.own(yield* LeaseStore)
  const { session } = yield* Homeserver.Homeserver
  const machine = yield* OlmMachine.open(yield* OlmMachine.accountOf(session), yield* OlmMachine.makeHost, {
    writable: true
  })
  for (let first = 0; first < exported.length; first += CHUNK) {
    const json = JSON.stringify(exported.slice(first, first + CHUNK))
    yield* machine.call("import room keys", (olm) => olm.importExportedRoomKeys(json, () => {}))
    yield* store.commitCrypto(fence, { crypto: machine.database.writes(), news: [] })
    machine.database.committed()
  }
})

const program = Effect.gen(function* () {
  const { events, exported } = yield* Effect.promise(makeKeys)
  writeFileSync(exportIn(directory), JSON.stringify(exported))
  writeFileSync(eventsIn(directory), JSON.stringify(events))
  const context = yield* Layer.build(
    Layer.mergeAll(Twinloop.layerFoundation({ database }), Account.homeserver, Account.storeKey)
  )
  yield* Effect.provide(Effect.all([logIn, storeMessage(events[0]!), importAll(exported)], { discard: true }), context)
  return exported.length
}).pipe(Effect.scoped)

void Effect.runPromise(program).then((keys) =>
  finish({ filePerKeyKilobytes: statSync(database).size / keys / 1_000, importedCount: keys })
)
