import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { DevHomeserver } from "@twinloop/platform/dev"
import { Effect, Layer } from "effect"
import { dirname, join } from "node:path"
import * as HttpHomeserver from "../src/http/HttpHomeserver.ts"
import * as NodeHomeserver from "../src/http/NodeHomeserver.ts"
import { RefreshLock } from "../src/http/RefreshLock.ts"
import type { AccountSession } from "../src/http/Session.ts"
import * as SessionStore from "../src/http/SessionStore.ts"
import * as PushProcess from "../src/story/PushProcess.ts"
import * as StoryAccounts from "../src/story/StoryAccounts.ts"
import { StoryError } from "../src/story/StoryError.ts"
import * as Twinloop from "../src/Twinloop.ts"
import { temporaryFile } from "./SqliteKit.ts"

const clientOf = (session: AccountSession) =>
  Effect.provide(HttpHomeserver.make, [
    SessionStore.layerMemory(session),
    RefreshLock.layerSingleProcess,
    NodeHomeserver.layerTransport
  ])

const logIn = (database: string, session: AccountSession) =>
  Effect.flatMap(SessionStore.SessionStore, (store) => SessionStore.replace(store, session)).pipe(
    Effect.provide(Twinloop.layerFoundation({ database }))
  )

const layer = Layer.merge(DevHomeserver.layer({ port: 0 }), NodeServices.layer)

describe("The push daemon of the story", () => {
  it.live("shows what is pushed in a file that is followed, and nothing of a muted room", () =>
    Effect.gen(function* () {
      const { baseUrl } = yield* DevHomeserver.DevHomeserver
      const alice = yield* StoryAccounts.register(baseUrl, "alice")
      const friend = yield* StoryAccounts.register(baseUrl, "bob")
      const room = (name: string) => StoryAccounts.createRoom(baseUrl, { owner: alice, name, guests: [friend] })
      const [loud, muted] = [yield* room("Loud"), yield* room("Muted")]
      yield* StoryAccounts.muteRoom(baseUrl, alice, muted)
      const database = yield* temporaryFile
      yield* logIn(database, alice)
      const { push, url } = yield* PushProcess.start(database, join(dirname(database), "shown.jsonl"))
      assert.deepStrictEqual(yield* push.shown, [])
      yield* PushProcess.enable(database, url)

      const bob = yield* clientOf(friend)
      const say = (roomId: string, txnId: string) =>
        bob.sendEvent({ roomId, type: "m.room.message", txnId, content: { msgtype: "m.text", body: txnId } })
      yield* say(muted, "nobody hears")
      const eventIds = [yield* say(loud, "one"), yield* say(loud, "two")]
      yield* push.untilShown(eventIds, 20_000)
      // What is said in the muted room comes first, and would be among them.
      const shown = yield* push.shown
      assert.sameMembers(
        shown.map(({ eventId }) => eventId),
        eventIds
      )
      for (const { body, result } of shown) {
        assert.strictEqual(result, "Event")
        assert.match(body ?? "", /: (one|two)$/)
      }
      assert.strictEqual(yield* push.stop, 0)
      assert.deepStrictEqual(yield* push.shown, shown)
    }).pipe(Effect.scoped, Effect.provide(layer))
  )

  it.live("says why it could not start, and what could not be enabled", () =>
    Effect.gen(function* () {
      const database = yield* temporaryFile
      const started = yield* Effect.flip(PushProcess.start(database, `${database}.jsonl`))
      assert.instanceOf(started, StoryError)
      assert.include(started.message, "There is no database")
      const enabled = yield* Effect.flip(PushProcess.enable(database, "http://127.0.0.1:1"))
      assert.include(enabled.message, "There is no database")
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))
  )
})
