/**
 * Access tokens that end every few seconds on a real Synapse, through the whole service: two processes' worth of services share
 * one login, each token is renewed once, and a login that is over is a state that says what to do.
 */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, layer } from "@effect/vitest"
import { SyncConfig, type SyncServiceMachine } from "@twinloop/core"
import { Effect, Layer, Stream } from "effect"
import { Synapse } from "../../packages/platform/src/synapse/Synapse.ts"
import * as Kit from "./ServiceKit.ts"
import * as Recorder from "./ServiceRecorder.ts"

/** Short polls, so that tokens end between two of them and not only on their way. */
const config = { pollTimeoutMillis: 1_000 }

/** How long an access token lives. */
const LIFE_MILLIS = 4_000

/** A person with an account whose tokens end, two services of it in two roles, and another person. */
const world = Effect.gen(function* () {
  const [registered, bert] = [yield* Kit.newPerson("Anna"), yield* Kit.newPerson("Bert")]
  const me: Kit.Person = { userId: registered.userId, session: yield* Kit.passwordLogin(registered) }
  const { expiresAtMillis, ...session } = me.session
  assert.isDefined(expiresAtMillis)
  assert.isDefined(session.refreshToken)
  const roomId = yield* Kit.createJoined(bert, [registered], { name: "Talk" })
  // The first token's end isn't known, so it is found out by being refused; the later ones are renewed in time.
  const account = yield* Kit.newAccount({ ...me, session })
  const main = yield* Recorder.run(account, { ...config, role: "main" })
  const standby = yield* Recorder.run(account, { ...config, role: "standby" })
  return { registered, me, bert, roomId, account, services: [main, standby] as const }
})

const isTerminal = ({ _tag }: SyncServiceMachine.ServiceState): boolean => _tag === "Terminal"

/** Waits until every loop of a service that needs the homeserver has given up, since the login is over, and says what to do. */
const untilLoggedOut = Effect.fnUntraced(function* ({ running }: Recorder.Recording) {
  const { extension, main } = yield* Kit.untilState(
    running,
    "the end of the login",
    // The extension loop of one of the two waits for the lock, and needs nothing.
    (state) => isTerminal(state) && state.main._tag === "Failed" && state.extension._tag !== "Syncing"
  )
  const failures = [main, extension].flatMap((loop) => (loop._tag === "Failed" ? [loop.failure] : []))
  assert.isNotEmpty(failures)
  for (const failure of failures) {
    assert.strictEqual(failure.class, "auth")
    assert.match(failure.message, /log in again/i)
  }
})

describe("the service's tokens on Synapse", () => {
  const config = { refreshable_access_token_lifetime: LIFE_MILLIS }
  const synapse = Layer.provideMerge(Synapse.layer({ config }), NodeServices.layer)

  layer(synapse, { excludeTestServices: true, timeout: "10 minutes" })((it) => {
    it.effect("I9: two services share a login over several expiries, and each token is renewed once", () =>
      Effect.gen(function* () {
        const { bert, me, roomId, services } = yield* world
        const [main, standby] = services
        const inbox = yield* Kit.inboxOf(main.running)
        const states = Stream.merge(main.running.service.changes, standby.running.service.changes)
        const terminal = yield* Effect.forkScoped(Stream.runHead(Stream.filter(states, isTerminal)))
        // Both services are woken by every message, so that both find the token ended at the same moment.
        for (let round = 1; (yield* Recorder.renewalsOf(services)).length < 4; round++) {
          const eventId = yield* Kit.say(bert, roomId, `round ${round}`)
          yield* Kit.sendToDevice(bert, me, "com.example.round", { round })
          yield* Effect.forEach(services, ({ running }) =>
            Kit.untilRoom(running, roomId, `round ${round}`, (room) => room.latestEvent?.event_id === eventId)
          )
          assert.deepStrictEqual((yield* inbox.take).event.content, { round })
        }
        const renewals = yield* Recorder.renewalsOf(services)
        assert.isTrue(renewals.every(({ status }) => status === 200))
        const used = renewals.map(({ refreshToken }) => refreshToken)
        assert.strictEqual(new Set(used).size, used.length)
        // A second renewal of the same token would follow the first one at once, and not when the new token ends. Half of
        // that time is enough to tell, and leaves room for a slow machine.
        const leastMillis = (LIFE_MILLIS - SyncConfig.defaults.tokenRenewAheadMillis) / 2
        for (const [index, { askedAtMillis }] of renewals.entries()) {
          const before = renewals[index - 1]?.askedAtMillis ?? Number.NEGATIVE_INFINITY
          assert.isAtLeast(askedAtMillis - before, leastMillis)
        }
        assert.isUndefined(terminal.pollUnsafe())
      })
    )

    it.effect(
      "says in both services that the login is over when the device is removed, and goes on after a new login",
      () =>
        Effect.gen(function* () {
          const synapse = yield* Synapse
          const { account, bert, me, registered, roomId, services } = yield* world
          const { deviceId } = me.session
          const admin = yield* synapse.register({ username: "admin", admin: true })
          const path = `/_synapse/admin/v2/users/${me.userId}/devices/${deviceId}`
          yield* Kit.call({ session: admin, userId: admin.userId }, "DELETE", path)

          yield* Effect.forEach(services, untilLoggedOut)

          // The same device again: the services that are there go on.
          yield* Kit.logIn(account.database, yield* Kit.passwordLogin(registered, deviceId))
          yield* Effect.forEach(services, ({ running }) => running.service.start)
          const eventId = yield* Kit.say(bert, roomId, "welcome back")
          for (const { running } of services) {
            yield* Kit.untilState(running, "running", ({ _tag }) => _tag === "Running")
            yield* Kit.untilRoom(running, roomId, "the message", (room) => room.latestEvent?.event_id === eventId)
          }
          yield* Kit.sendToDevice(bert, me, "com.example.again", { again: true })
          const inbox = yield* Kit.inboxOf(services[0].running)
          assert.deepStrictEqual((yield* inbox.take).event.content, { again: true })
        })
    )

    it.effect("says so too when the account is logged out everywhere from another device", () =>
      Effect.gen(function* () {
        const { registered, services } = yield* world
        yield* Kit.call(registered, "POST", "/_matrix/client/v3/logout/all", {})
        yield* Effect.forEach(services, untilLoggedOut)
      })
    )
  })
})
