/** What the tests of the sinks share: what pushes came to, a sink of a layer, and a real server that is posted to. */
import { type NotificationClient, type NotificationItem, NotificationSink } from "@twinloop/core"
import { Context, Effect, Layer } from "effect"
import type { Scope } from "effect"
import { createServer, type IncomingHttpHeaders } from "node:http"
import type { AddressInfo } from "node:net"

const room = { roomId: "!kitchen:hs", name: "Kitchen", isEncrypted: false, isDirect: false }

const itemOf = (eventId: string, body: string): NotificationItem.NotificationItem => ({
  kind: "message",
  event: { type: "m.room.message", sender: "@alice:hs", event_id: eventId, content: { msgtype: "m.text", body } },
  sender: { userId: "@alice:hs", name: "Alice", isNameAmbiguous: false },
  room,
  isNoisy: false,
  isMention: false,
  missing: [{ part: "pushRules", message: "They aren't known." }]
})

/** Alice's message in the kitchen. */
export const messageOf = (eventId: string, body = "dinner"): NotificationClient.Resolved => ({
  request: { roomId: room.roomId, eventId },
  result: { _tag: "Event", item: itemOf(eventId, body) }
})

export const notFound: NotificationClient.Resolved = {
  request: { roomId: room.roomId, eventId: "$gone" },
  result: { _tag: "NotFound", message: "The homeserver doesn't know it." }
}

type Sink = NotificationSink.NotificationSink["Service"]

/** The sink of a layer, for as long as the scope is open. */
export const sinkOf = <E, R>(
  layer: Layer.Layer<NotificationSink.NotificationSink, E, R>
): Effect.Effect<Sink, E, R | Scope.Scope> =>
  Effect.map(Layer.build(layer), (context) => Context.get(context, NotificationSink.NotificationSink))

/** Whether a sink knows an event of the kitchen; false for one that can't tell. */
export const isKnown = (sink: Sink, eventId: string): Effect.Effect<boolean, NotificationSink.SinkError> =>
  sink.isKnown?.({ roomId: room.roomId, eventId }) ?? Effect.succeed(false)

/** A request as it was posted. */
export interface Posted {
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

/** A real server that answers each request with the next of these statuses, the last one again and again. */
export const hookServer = (statuses: ReadonlyArray<number>) =>
  Effect.gen(function* () {
    const posted: Array<Posted> = []
    const server = createServer((request, response) => {
      const chunks: Array<Buffer> = []
      request.on("data", (chunk: Buffer) => chunks.push(chunk))
      request.on("end", () => {
        const status = statuses[Math.min(posted.length, statuses.length - 1)] ?? 200
        posted.push({ headers: request.headers, body: Buffer.concat(chunks).toString() })
        response.writeHead(status, { location: "/elsewhere" }).end("answer")
      })
    })
    yield* Effect.acquireRelease(
      Effect.promise(() => new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))),
      () => Effect.promise(() => new Promise((resolve) => server.close(resolve) && server.closeAllConnections()))
    )
    return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook?token=hidden`, posted }
  })
