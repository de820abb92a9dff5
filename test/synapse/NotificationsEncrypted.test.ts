/**
 * Pushes of encrypted events on a real Synapse, said by matrix-js-sdk: shown whatever the owner of the extension stream is at.
 *
 * Each message has a key of its own, so that none is read without the stream. The owner is `twinloop run`, a process.
 */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import type { RunEvent } from "../../packages/platform/src/cli/RunEvent.ts"
import { Synapse } from "../../packages/platform/src/synapse/Synapse.ts"
import * as Pushed from "../processes/fixtures/PushedAccount.ts"
import * as EncryptionKit from "./EncryptionKit.ts"
import * as JsSdk from "./JsSdk.ts"
import * as Notifying from "./NotificationKit.ts"
import * as Kit from "./ServiceKit.ts"

/** Anna's application, which owns the stream, and Bert with matrix-js-sdk, who knows her device. */
const make = Effect.gen(function* () {
  const [me, theirs] = [yield* Kit.newPerson("Anna"), yield* Kit.newPerson("Bert")]
  const options = EncryptionKit.encrypted({ rotation_period_msgs: 1 }, { name: "Cellar" })
  const roomId = yield* Kit.createRoom(theirs, { ...options, invite: [me.userId] })
  const bert = yield* JsSdk.start(theirs)
  yield* JsSdk.untilEncrypted(bert, roomId)
  const early = yield* JsSdk.say(bert, roomId, "before she came")
  yield* Kit.join(me, roomId)
  const account = yield* Kit.newAccount(me)
  const app = yield* Pushed.startApp(account)
  yield* app.until("own the stream", Pushed.owns)
  yield* JsSdk.untilKnows(bert, me)
  return { account, app, bert, early, me, roomId }
})

type Scene = Effect.Success<typeof make>

const endApp = ({ app }: Scene) => Effect.andThen(app.endInput, app.ended)

const lease = ({ account }: Scene) => Effect.map(Pushed.lease(account), (row) => row!)

const isFree = ({ expiresAtMillis }: Effect.Success<ReturnType<typeof lease>>): boolean => expiresAtMillis === 0

/** Has Bert say something, and finds the push of it whole. */
const assertShown = Effect.fnUntraced(function* ({ account, bert, roomId }: Scene, body: string) {
  const eventId = yield* JsSdk.say(bert, roomId, body)
  const item = Notifying.itemOf(yield* Notifying.resolve(account, roomId, eventId))
  assert.deepInclude(item.event, { event_id: eventId, type: "m.room.message" })
  assert.strictEqual(item.event.content["body"], body)
  assert.deepInclude(item.room, { name: "Cellar", isEncrypted: true, joinedCount: 2 })
  assert.strictEqual(item.sender.name, "Bert")
  assert.deepInclude(item.shield, { color: "red", code: "UnsignedDevice" })
  assert.deepStrictEqual(item.missing, [])
})

describe("notifications of encrypted events on Synapse", () => {
  const synapse = Layer.provideMerge(Synapse.layer({ config: { bcrypt_rounds: 4 } }), NodeServices.layer)

  layer(synapse, { excludeTestServices: true, timeout: "10 minutes" })((it) => {
    it.effect("I4: take the stream for a moment while nobody has it, one after the other and several at once", () =>
      Effect.gen(function* () {
        const scene = yield* make
        const { account, bert, roomId } = scene
        yield* endApp(scene)
        const before = yield* lease(scene)
        assert.isTrue(isFree(before))
        for (const body of ["one", "two"]) yield* assertShown(scene, body)
        const after = yield* lease(scene)
        assert.isTrue(isFree(after))
        assert.isAtLeast(after.generation, before.generation + 2)

        const eventIds = yield* Effect.forEach(["a", "b", "c", "d", "e"], (body) => JsSdk.say(bert, roomId, body))
        const batch = Notifying.resolveMany(
          account,
          eventIds.map((eventId) => ({ roomId, eventId }))
        )
        const all = yield* Effect.replicateEffect(batch, 3, { concurrency: "unbounded" })
        for (const results of all) assert.deepStrictEqual(results.map(Notifying.bodyOf), ["a", "b", "c", "d", "e"])
        assert.isTrue(isFree(yield* lease(scene)))
      })
    )

    it.effect("I3: leave the stream to the application that has it, and are shown by the keys that it commits", () =>
      Effect.gen(function* () {
        const scene = yield* make
        const before = yield* lease(scene)
        for (const body of ["one", "two", "three"]) yield* assertShown(scene, body)
        const { generation, holder } = yield* lease(scene)
        assert.match(holder, /^main#/)
        assert.deepStrictEqual([holder, generation], [before.holder, before.generation])
      })
    )

    it.effect("I4: take the stream over from an application that was killed, and free it", () =>
      Effect.gen(function* () {
        const scene = yield* make
        yield* scene.app.signal("SIGKILL")
        yield* scene.app.ended
        assert.isFalse(isFree(yield* lease(scene)))
        yield* assertShown(scene, "after its end")
        assert.match((yield* lease(scene)).holder, /^notify#/)
        assert.isTrue(isFree(yield* lease(scene)))
      })
    )

    it.effect(
      "I1, I4: take the stream over when the lease of a frozen application is over; it goes on when it thaws",
      () =>
        Effect.gen(function* () {
          const scene = yield* make
          const { app } = scene
          yield* app.signal("SIGSTOP")
          yield* assertShown(scene, "while it is frozen")
          const taken = yield* lease(scene)
          assert.match(taken.holder, /^notify#/)
          assert.isTrue(isFree(taken))
          const since = yield* app.said
          yield* app.signal("SIGCONT")
          const isNewer = (line: RunEvent): boolean =>
            line.event === "state" &&
            line.extension._tag === "Syncing" &&
            (line.extension.generation ?? 0) > taken.generation
          yield* app.until("own the stream again", isNewer, { since })
          const again = yield* lease(scene)
          assert.match(again.holder, /^main#/)
          yield* assertShown(scene, "after the thaw")
          assert.strictEqual((yield* lease(scene)).generation, again.generation)
        })
    )

    it.effect("are judged by what is inside, and say it when that can't be read", () =>
      Effect.gen(function* () {
        const scene = yield* make
        const { account, bert, early, me, roomId } = scene
        const send = (content: object) => JsSdk.send(bert, roomId, "m.room.message", { msgtype: "m.text", ...content })
        const first = yield* send({ body: "dinner" })
        const eventIds = [
          first,
          yield* send({ body: "Anna!", "m.mentions": { user_ids: [me.userId] } }),
          yield* send({ body: "at 8", "m.relates_to": { rel_type: "m.thread", event_id: first } }),
          yield* send({
            body: "* supper",
            "m.new_content": { msgtype: "m.text", body: "supper" },
            "m.relates_to": { rel_type: "m.replace", event_id: first }
          })
        ]
        const requests = eventIds.map((eventId) => ({ roomId, eventId }))
        const results = yield* Notifying.resolveMany(account, requests)
        assert.deepStrictEqual(results.map(Notifying.brief), [
          "message noisy",
          "message noisy mention",
          "message noisy",
          "pushRule .m.rule.suppress_edits"
        ])
        assert.strictEqual(Notifying.itemOf(results[2]!).threadRootId, first)

        const client = yield* Notifying.notifier(account)
        const unread = yield* client.resolve({ roomId, eventId: early }, { deadline: "3 seconds" })
        assert(unread._tag === "Undecrypted", JSON.stringify(unread))
        assert.strictEqual(unread.reason, "MissingRoomKey")
        assert.deepInclude(unread.item.room, { name: "Cellar", isEncrypted: true })
        assert.strictEqual(unread.item.sender.name, "Bert")
      })
    )
  })
})
