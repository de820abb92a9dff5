/**
 * What tests of an application look like: act, let virtual time pass, assert. Nothing sleeps, and every run is the same.
 */
import { SyncService } from "@twinloop/actors"
import { type Homeserver, HomeserverError } from "@twinloop/core"
import { HomeserverModel, HomeserverSim } from "@twinloop/core/testing"
import { assert, describe, it } from "@effect/vitest"
import { type Context, Effect, Exit, Layer, Result, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as AutoResponder from "./AutoResponder.ts"
import * as Badge from "./Badge.ts"
import { type AppServices, TestAccount } from "./TestAccount.ts"

/** The account, and a friend on another device. */
const setUp = Effect.gen(function* () {
  const sim = yield* HomeserverSim.HomeserverSim
  const account = yield* TestAccount
  return { sim, account, friend: yield* sim.session("bob", "LAPTOP") }
})

/** Starts the loops of a process, and waits until its main loop is in sync. It ends with the scope. */
const startProcess = Effect.fnUntraced(function* (role: string) {
  const account = yield* TestAccount
  const services = yield* Layer.build(account.process(role))
  yield* Effect.provide(
    Effect.gen(function* () {
      const service = yield* SyncService.SyncService
      yield* service.start
      yield* Stream.runHead(Stream.filter(service.changes, ({ main }) => main._tag === "Syncing"))
    }),
    services
  )
  return services
})

/** A message of the friend in a room, and the receipt that says that we have read it, sent by another device of ours. */
const say = Effect.fnUntraced(function* (roomId: string) {
  const { account, friend, sim } = yield* setUp
  const eventId = yield* sim.sendMessage(roomId, friend.userId, "Dinner is ready")
  const read = sim.model((state, nowMillis) =>
    Result.flatMap(HomeserverModel.authenticate(state, account.session.accessToken, nowMillis), (requester) =>
      HomeserverModel.setReceipt(state, requester, { roomId, type: "m.read", eventId }, nowMillis)
    )
  )
  return { read: Effect.flatMap(read, Effect.fromResult) }
})

describe("Badge", () => {
  it.effect("counts the rooms with something unread, and no longer what another device has read", () =>
    Effect.gen(function* () {
      const { account, friend, sim } = yield* setUp
      const kitchen = yield* sim.addRoom({ members: [account.session.userId, friend.userId], name: "Kitchen" })
      const garden = yield* sim.addRoom({ members: [account.session.userId, friend.userId], name: "Garden" })
      const services = yield* startProcess("app")
      const badge = yield* Stream.toPull(Stream.rechunk(Badge.changes, 1)).pipe(Effect.provide(services))
      assert.deepStrictEqual(yield* badge, [0])

      const first = yield* say(kitchen)
      assert.deepStrictEqual(yield* badge, [1])
      yield* say(garden)
      assert.deepStrictEqual(yield* badge, [2])
      yield* first.read
      assert.deepStrictEqual(yield* badge, [1])
    }).pipe(Effect.provide(TestAccount.layer))
  )
})

/** Sends a ping to the account's device. */
const ping = Effect.fnUntraced(function* (text: string) {
  const { account, friend, sim } = yield* setUp
  const message: Homeserver.SendToDevice = {
    type: AutoResponder.PING,
    txnId: text,
    messages: { [account.session.userId]: { [account.session.deviceId]: { device: friend.deviceId, text } } }
  }
  yield* sim.homeserver(friend).sendToDevice(message)
})

/** The texts of all answers that the homeserver ever took for the friend. */
const answers = Effect.gen(function* () {
  const { friend, sim } = yield* setUp
  const accepted = yield* sim.ledger(friend)
  return accepted.filter(({ type }) => type === AutoResponder.PONG).map(({ content }) => content.text)
})

/** Runs the responder in a process until the scope closes. */
const respond = (services: Context.Context<AppServices>) =>
  Effect.forkScoped(Effect.provide(AutoResponder.run, services))

const noNetwork = new HomeserverError.NetworkError({ message: "no route to the homeserver", timedOut: false })

describe("AutoResponder", () => {
  it.effect("answers each ping once, in order", () =>
    Effect.gen(function* () {
      yield* respond(yield* startProcess("app"))
      yield* ping("one")
      yield* ping("two")
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(yield* answers, ["one", "two"])
    }).pipe(Effect.provide(TestAccount.layer))
  )

  it.effect("answers after an outage of an hour within half a minute", () =>
    Effect.gen(function* () {
      const { sim } = yield* setUp
      yield* respond(yield* startProcess("app"))

      // The ping arrives, and then there is no way out.
      const outage = yield* sim.inject({
        operation: "sendToDevice",
        deviceId: "PHONE",
        effect: { _tag: "Fail", reason: noNetwork }
      })
      yield* ping("are you there?")
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(yield* answers, [])
      assert.isBelow(yield* outage.hits, 200, "it asks with patience")

      yield* outage.remove
      yield* TestClock.adjust("36 seconds")
      assert.deepStrictEqual(yield* answers, ["are you there?"])
    }).pipe(Effect.provide(TestAccount.layer))
  )

  it.effect("answers in the process that takes over, and repeats no answer of the one before", () =>
    Effect.gen(function* () {
      const first = yield* Scope.make()
      yield* Effect.flatMap(startProcess("app"), respond).pipe(Scope.provide(first))
      yield* ping("one")
      yield* TestClock.adjust("10 seconds")

      // The first process ends; the second one, which waited, owns the stream.
      const second = yield* startProcess("standby")
      yield* Scope.close(first, Exit.void)
      yield* respond(second)
      yield* ping("two")
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(yield* answers, ["one", "two"])
    }).pipe(Effect.provide(TestAccount.layer))
  )
})
