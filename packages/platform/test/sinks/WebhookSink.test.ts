import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Redacted } from "effect"
import { TestClock } from "effect/testing"
import { createHmac } from "node:crypto"
import { HttpSockets } from "../../src/http/HttpSockets.ts"
import * as HttpTransport from "../../src/http/HttpTransport.ts"
import type { SinkRecord } from "../../src/push/sinks/SinkRecord.ts"
import * as WebhookSink from "../../src/push/sinks/WebhookSink.ts"
import { hookServer, messageOf, sinkOf } from "./SinkKit.ts"

const posting = (options: WebhookSink.WebhookOptions) =>
  sinkOf(WebhookSink.layer(options)).pipe(Effect.provide(HttpSockets.layer))

/** A sink over a simulated transport, and what was asked of it. */
const overTransport = (exchange: HttpTransport.HttpTransport["Service"]["exchange"]) =>
  Effect.gen(function* () {
    const asked: Array<HttpTransport.TransportRequest> = []
    const transport = Layer.succeed(HttpTransport.HttpTransport, {
      exchange: (request) =>
        Effect.suspend(() => {
          asked.push(request)
          return exchange(request)
        })
    })
    const sink = yield* sinkOf(WebhookSink.layer({ url: "https://hook.test/secret" })).pipe(Effect.provide(transport))
    return { sink, asked }
  })

const refused = Effect.fail(HttpTransport.exchangeFailed(new Error("ECONNREFUSED")))

describe("WebhookSink", () => {
  it.live("posts the record, with the event's id as the key and the body's signature", () =>
    Effect.gen(function* () {
      const { posted, url } = yield* hookServer([204])
      const sink = yield* posting({ url, secret: Redacted.make("shh") })
      yield* sink.show(messageOf("$1", "grüße"))
      const [{ body, headers } = assert.fail("nothing was posted")] = posted
      assert.deepInclude(JSON.parse(body) as SinkRecord, { eventId: "$1", title: "Kitchen", body: "Alice: grüße" })
      assert.deepInclude(headers, {
        "content-type": "application/json",
        "idempotency-key": "$1",
        "x-twinloop-signature": `sha256=${createHmac("sha256", "shh").update(body).digest("hex")}`
      })
    })
  )

  it.live("signs nothing without a secret, and digests an id that no header can hold", () =>
    Effect.gen(function* () {
      const { posted, url } = yield* hookServer([200])
      yield* (yield* posting({ url })).show(messageOf("$evil\r\nx-injected: 1"))
      assert.match(`${posted[0]?.headers["idempotency-key"]}`, /^[0-9a-f]{64}$/)
      assert.isUndefined(posted[0]?.headers["x-injected"])
      assert.isUndefined(posted[0]?.headers["x-twinloop-signature"])
    })
  )

  it.live("sends the same again after a 503", () =>
    Effect.gen(function* () {
      const { posted, url } = yield* hookServer([503, 200])
      yield* (yield* posting({ url })).show(messageOf("$1"))
      assert.lengthOf(posted, 2)
      assert.strictEqual(posted[0]?.body, posted[1]?.body)
      assert.strictEqual(posted[1]?.headers["idempotency-key"], "$1")
    })
  )

  for (const [status, words] of [
    [401, "refuses with status 401"],
    [302, "a redirect"]
  ] as const) {
    it.live(`says that a ${status} is one, and doesn't try again`, () =>
      Effect.gen(function* () {
        const { posted, url } = yield* hookServer([status])
        const error = yield* Effect.flip((yield* posting({ url })).show(messageOf("$1")))
        assert.deepInclude(error, { _tag: "SinkError", sink: "webhook" })
        assert.include(error.message, words)
        assert.notInclude(error.message, "hidden")
        assert.lengthOf(posted, 1)
      })
    )
  }

  it.effect("I10: gives up after five attempts that are refused", () =>
    Effect.gen(function* () {
      const { asked, sink } = yield* overTransport(() => refused)
      const fiber = yield* Effect.forkChild(Effect.flip(sink.show(messageOf("$1"))))
      yield* TestClock.adjust("1 minute")
      const { message } = yield* Fiber.join(fiber)
      assert.lengthOf(asked, 5)
      assert.strictEqual(
        message,
        "The notification could not be posted to https://hook.test: ECONNREFUSED (5 attempts)."
      )
    })
  )

  it.effect("I10: waits for no answer for ever", () =>
    Effect.gen(function* () {
      const { asked, sink } = yield* overTransport(() => Effect.never)
      const fiber = yield* Effect.forkChild(Effect.flip(sink.show(messageOf("$1"))))
      yield* TestClock.adjust("5 minutes")
      assert.include((yield* Fiber.join(fiber)).message, "no answer within 10 s")
      assert.lengthOf(asked, 5)
    })
  )

  it.effect("refuses what is no address", () =>
    Effect.gen(function* () {
      for (const url of ["", "example.org", "ftp://example.org/", "file:///etc/passwd"]) {
        assert.include((yield* Effect.flip(posting({ url }))).message, "address")
      }
    })
  )
})
