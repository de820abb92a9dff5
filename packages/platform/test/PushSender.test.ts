import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Queue, Result, Scope } from "effect"
import { TestClock } from "effect/testing"
import { HomeserverHost, HomeserverModel } from "../src/dev/Model.ts"
import * as PushSender from "../src/dev/PushSender.ts"
import { exchangeFailed, HttpTransport } from "../src/http/HttpTransport.ts"
import type { ExchangeFailed, TransportRequest, TransportResponse } from "../src/http/HttpTransport.ts"

const get = <A>(outcome: HomeserverModel.Outcome<A>): A =>
  Result.getOrThrowWith(outcome, ({ message }) => new Error(message))

const ok: TransportResponse = { status: 200, headers: {}, text: '{"rejected":[]}' }

/** A request that is under way, and how it ends. */
interface Exchange {
  readonly request: TransportRequest
  readonly end: Deferred.Deferred<TransportResponse, ExchangeFailed>
}

/** A transport whose answers the test gives, and the URLs of the exchanges that were interrupted. */
const makeTransport = Effect.gen(function* () {
  const started = yield* Queue.unbounded<Exchange>()
  const aborted: Array<string> = []
  const exchange = Effect.fnUntraced(function* (request: TransportRequest) {
    const end = yield* Deferred.make<TransportResponse, ExchangeFailed>()
    yield* Queue.offer(started, { request, end })
    return yield* Effect.onInterrupt(Deferred.await(end), () => Effect.sync(() => aborted.push(request.url)))
  })
  return { service: HttpTransport.of({ exchange }), started, aborted }
})

const gateway = (name: string) => `https://${name}.test/_matrix/push/v1/notify`

/** Bob in a room of Alice's, with a pusher to each gateway, and the sender in a scope of its own. */
const makeWorld = (gateways: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const host = HomeserverHost.make()
    const { service, started, aborted } = yield* makeTransport
    const scope = yield* Scope.make()
    yield* PushSender.run(host).pipe(Effect.provideService(HttpTransport, service), Scope.provide(scope))
    const bob = yield* host.step((state, now) => {
      const user = get(HomeserverModel.addUser(state, { localpart: "bob" }))
      return get(
        HomeserverModel.authenticate(state, HomeserverModel.startSession(state, user, {}, now).accessToken, now)
      )
    })
    const room = yield* host.step((state, now) => {
      const alice = get(HomeserverModel.addUser(state, { localpart: "alice" }))
      const made = HomeserverModel.createRoom(state, alice, { invite: [bob.user.userId] }, now)
      get(HomeserverModel.join(state, bob.user, made.roomId, now))
      for (const name of gateways) {
        const names = { app_display_name: "Test", device_display_name: "Phone", lang: "en" }
        const data = { url: gateway(name), format: "event_id_only" }
        get(HomeserverModel.setPusher(state, bob, { kind: "http", app_id: name, pushkey: name, ...names, data }, now))
      }
      return made
    })
    const say = (body: string) =>
      host.step(
        (state, now) =>
          HomeserverModel.append(
            state,
            room,
            { type: "m.room.message", sender: "@alice:localhost", content: { msgtype: "m.text", body } },
            now
          ).event.event_id
      )
    const next = Queue.take(started)
    /** The next exchange: where to, and about which event. */
    const seen = Effect.map(next, ({ end, request }) => {
      const { notification } = JSON.parse(request.body ?? "") as {
        readonly notification: { readonly event_id: string }
      }
      return { end, url: request.url, eventId: notification.event_id, request }
    })
    return { host, scope, bob, say, seen, isIdle: Effect.map(Queue.size(started), (size) => size === 0), aborted }
  })

describe("PushSender", () => {
  it.effect("has one push of a pusher under way, and several pushers at once", () =>
    Effect.gen(function* () {
      const { isIdle, say, seen } = yield* makeWorld(["a", "b"])
      const first = yield* say("one")
      const second = yield* say("two")
      const [one, other] = [yield* seen, yield* seen]
      assert.deepStrictEqual([one.url, other.url], [gateway("a"), gateway("b")])
      assert.deepStrictEqual([one.eventId, other.eventId], [first, first])
      assert.isTrue(yield* isIdle)
      yield* Deferred.succeed(other.end, ok)
      const next = yield* seen
      assert.deepStrictEqual([next.url, next.eventId], [gateway("b"), second])
      assert.deepInclude(next.request, { method: "POST" })
      assert.strictEqual(next.request.headers["content-type"], "application/json")
    })
  )

  it.effect("I8: gives up on a gateway that doesn't answer within 8 seconds, and tries again a second later", () =>
    Effect.gen(function* () {
      const { aborted, isIdle, say, seen } = yield* makeWorld(["a"])
      const eventId = yield* say("one")
      yield* seen
      yield* TestClock.adjust("7999 millis")
      assert.deepStrictEqual(aborted, [])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(aborted, [gateway("a")])
      yield* TestClock.adjust("999 millis")
      assert.isTrue(yield* isIdle)
      yield* TestClock.adjust("1 millis")
      assert.strictEqual((yield* seen).eventId, eventId)
    })
  )

  const failures: ReadonlyArray<readonly [name: string, end: Effect.Effect<TransportResponse, ExchangeFailed>]> = [
    ["a refusal", Effect.succeed({ ...ok, status: 502 })],
    ["a redirect", Effect.succeed({ ...ok, status: 302 })],
    ["no JSON", Effect.succeed({ ...ok, text: "<html>" })],
    ["another shape", Effect.succeed({ ...ok, text: '{"rejected":"all"}' })],
    ["no answer", Effect.fail(exchangeFailed(new Error("reset")))]
  ]
  for (const [name, end] of failures) {
    it.effect(`takes ${name} for a failure`, () =>
      Effect.gen(function* () {
        const { say, seen } = yield* makeWorld(["a"])
        const eventId = yield* say("one")
        const first = yield* seen
        yield* Deferred.completeWith(first.end, end)
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* seen).eventId, eventId)
      })
    )
  }

  it.effect("takes an answer that rejects nobody without saying so, and removes the pusher that is rejected", () =>
    Effect.gen(function* () {
      const { bob, host, say, seen } = yield* makeWorld(["a"])
      yield* say("one")
      const second = yield* say("two")
      yield* Deferred.succeed((yield* seen).end, { ...ok, text: "{}" })
      const next = yield* seen
      assert.strictEqual(next.eventId, second)
      yield* Deferred.succeed(next.end, { ...ok, text: '{"rejected":["a"]}' })
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(yield* host.step(() => HomeserverModel.pushers(bob.user)), [])
    })
  )

  it.effect("I4: ends what is under way with its scope, and sends nothing afterwards", () =>
    Effect.gen(function* () {
      const { aborted, isIdle, say, scope, seen } = yield* makeWorld(["a"])
      yield* say("one")
      yield* seen
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(aborted, [gateway("a")])
      yield* say("two")
      yield* TestClock.adjust("1 hour")
      assert.isTrue(yield* isIdle)
    })
  )
})
