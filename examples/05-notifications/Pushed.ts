/** What shows pushes: the gateway, the queue behind it, the client that resolves them, and a sink of one's own. */
import { Homeserver, NotificationSink, NotificationText } from "@twinloop/core"
import { PushGateway, PushQueue, PushWorker, StoreKey, Twinloop } from "@twinloop/platform"
import { Effect, Layer, Queue } from "effect"

/** Shows as text in a queue: a sink is done when what it was given can be seen. */
const sinkTo = (shown: Queue.Queue<string>) =>
  Layer.succeed(NotificationSink.NotificationSink, {
    name: "queue",
    show: (resolved) => {
      const text = NotificationText.textOf(resolved)
      return text === undefined ? Effect.void : Effect.asVoid(Queue.offer(shown, `${text.title}: ${text.body}`))
    }
  })

/** Asks the homeserver to push for the account's device to the gateway. Registered here first, or pushes would be rejected. */
const askForPushes = Effect.gen(function* () {
  const { url } = yield* PushGateway.PushGateway
  const queue = yield* PushQueue.PushQueue
  const homeserver = yield* Homeserver.Homeserver
  const pusher = {
    appId: "org.example.app",
    pushKey: "an unguessable key",
    appDisplayName: "Example",
    deviceDisplayName: "My machine",
    lang: "en",
    url,
    format: "event_id_only"
  } as const
  yield* queue.register(pusher)
  yield* homeserver.setPusher(pusher)
})

/**
 * Takes pushes for an account on a free port of this machine, and shows them until the scope closes. `twinloop push-daemon` is
 * the same with the worker in a process of its own.
 */
export const show = Effect.fnUntraced(function* (database: string, shown: Queue.Queue<string>) {
  const notifier = Twinloop.layerNotifier({ database, encryption: StoreKey.StoreKey.layerFile(`${database}.key`) })
  const pushes = PushGateway.layer({ port: 0 }).pipe(
    Layer.provideMerge(PushQueue.PushQueue.layer),
    Layer.provideMerge(sinkTo(shown)),
    Layer.provideMerge(notifier)
  )
  const context = yield* Layer.build(pushes)
  yield* Effect.provide(askForPushes, context)
  yield* Effect.forkScoped(Effect.provide(PushWorker.run({ idleMillis: 3_600_000 }), context))
})
