/**
 * What is told before the judge of logins and pushers: everything that our client asks of a homeserver beside its two loops, and
 * what the homeserver asks of our push gateway.
 *
 * Not here: rooms and encryption (`Stories.ts`).
 */
import { assert } from "@effect/vitest"
import { Homeserver, type Pusher } from "@twinloop/core"
import { Login, NodeHomeserver, PushGateway, RefreshLock, SessionStore } from "@twinloop/platform"
import { Context, Effect, Layer, Queue } from "effect"
import * as DevHarness from "../../../packages/platform/test/DevHarness.ts"
import * as PushKit from "../../../packages/platform/test/push/PushKit.ts"
import { temporaryFile } from "../../../packages/platform/test/SqliteKit.ts"
import * as Kit from "../../synapse/ServiceKit.ts"
import * as Wire from "../../synapse/Wire.ts"
import type * as Judge from "./Judge.ts"
import { HOMESERVER, told } from "./Town.ts"

/** A gateway of ours with one device, and a judge before it; gives the device's pusher and what was pushed. */
const gateway = Effect.fnUntraced(function* (judge: Judge.Judge) {
  const pushes = yield* Queue.unbounded<Wire.Message>()
  const queue = PushKit.queueAt(yield* temporaryFile)
  const context = yield* Layer.build(PushGateway.layer({ port: 0 }).pipe(Layer.provideMerge(queue)))
  yield* Effect.provideContext(PushKit.register(), context)
  const { port } = Context.get(context, PushGateway.PushGateway)
  const baseUrl = yield* Wire.tap(`http://127.0.0.1:${port}`, (message) => {
    judge.note(HOMESERVER, message)
    Queue.offerUnsafe(pushes, message)
  })
  const pusher: Pusher.Pusher = {
    ...PushKit.device,
    appDisplayName: "Test",
    deviceDisplayName: "Phone",
    lang: "en",
    url: `${baseUrl}/_matrix/push/v1/notify`,
    format: "event_id_only"
  }
  return { pusher, pushed: Queue.take(pushes) }
})

/** A login by password, whose token ends and is renewed; what is asked besides; and its end. */
export const account = (gateways: Judge.Judge) =>
  told(({ anybody }) =>
    Effect.gen(function* () {
      const [anna, bert] = [yield* Kit.newPerson("Anna"), yield* Kit.newPerson("Bert")]
      const roomId = yield* Kit.createJoined(anna, [bert], { name: "Kitchen" })
      const session = yield* Kit.passwordLogin(anna)
      const { deviceId: device_id, userId: user_id } = session
      const stored = Layer.mergeAll(
        SessionStore.layerMemory(session),
        RefreshLock.layerSingleProcess,
        NodeHomeserver.layerTransport
      )
      const context = yield* Layer.build(Layer.provideMerge(NodeHomeserver.layer, stored))
      const client = Context.get(context, Homeserver.Homeserver)
      const { pushed, pusher } = yield* gateway(gateways)

      yield* DevHarness.ask(anybody, "/_twinloop/expireTokens", { body: { user_id, device_id } })
      assert.deepStrictEqual(yield* Effect.provideContext(Login.whoami, context), {
        userId: user_id,
        deviceId: device_id
      })
      const verified = yield* Effect.provideContext(Login.useAccessToken(anna.session), context)
      assert.strictEqual(verified.deviceId, anna.session.deviceId)

      assert.isDefined((yield* client.capabilities).slidingSync)
      yield* client.sendState({ roomId, type: "m.room.topic", stateKey: "", content: { topic: "Food" } })
      yield* client.sendState({ roomId, type: "org.twinloop.test", stateKey: "key", content: { value: 1 } })
      assert.lengthOf(yield* client.members(roomId), 2)
      yield* client.setPusher(pusher)
      assert.deepStrictEqual(
        (yield* client.pushers).map(({ pushKey }) => pushKey),
        [pusher.pushKey]
      )

      // The homeserver pushes, and the gateway takes it.
      const rootId = yield* Kit.say(bert, roomId, "dinner")
      const { answered, status } = yield* pushed
      assert.deepStrictEqual([status, JSON.parse(String(answered))], [200, { rejected: [] }])
      // Read, so there is nothing left to count: that is pushed too.
      yield* Kit.call(anna, "POST", Kit.roomPath(roomId, `receipt/m.read/${encodeURIComponent(rootId)}`), {})
      assert.strictEqual((yield* pushed).status, 200)
      assert.strictEqual((yield* client.eventContext(roomId, rootId)).event.event_id, rootId)
      assert.isFalse(yield* client.isThreadSubscribed(roomId, rootId))

      yield* client.removePusher(pusher)
      assert.deepStrictEqual(yield* client.pushers, [])
      yield* Effect.provideContext(Login.logout, context)
      const over = yield* Effect.flip(client.pushers)
      assert.strictEqual(over.reason._tag, "Unauthorized")
    })
  )
