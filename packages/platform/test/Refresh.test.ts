import { assert, describe, it } from "@effect/vitest"
import {
  Homeserver,
  type HomeserverError,
  LeaseStore,
  LeaseStoreMemory,
  StoreError,
  SyncConfig,
  Wake
} from "@twinloop/core"
import { Context, Deferred, Effect, Fiber, Layer, Redacted } from "effect"
import { TestClock } from "effect/testing"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import * as NodeHomeserver from "../src/http/NodeHomeserver.ts"
import { RefreshLock } from "../src/http/RefreshLock.ts"
import type { AccountSession } from "../src/http/Session.ts"
import * as SessionStore from "../src/http/SessionStore.ts"
import * as SqliteSessionStore from "../src/http/SqliteSessionStore.ts"
import * as SqliteStores from "../src/sqlite/SqliteStores.ts"
import {
  type Answer,
  hang,
  json,
  scriptedServer,
  type ScriptedServer,
  sessionAt,
  syncRequest,
  unstablePath,
  versionsPath,
  withUnstable
} from "./HttpHomeserver.fixture.ts"

const refreshPath = "/_matrix/client/v3/refresh"

/**
 * Makes the server one whose tokens end: access tokens `a1`, `a2`, ... of which only the newest is valid, once it was
 * given out. Refresh tokens `r1`, `r2`, ... are good once. `a0` has ended from the start.
 */
const withTokens = (server: ScriptedServer, options: { readonly softLogout?: boolean } = {}) => {
  const tokens = { issued: 0, expiresInMillis: 300_000 }
  const ended = json(401, {
    errcode: "M_UNKNOWN_TOKEN",
    error: "Access token has expired",
    ...(options.softLogout === undefined ? {} : { soft_logout: options.softLogout })
  })
  const guarded =
    (answer: Answer): Answer =>
    (response, received) =>
      (received.authorization === `Bearer a${tokens.issued}` && tokens.issued > 0 ? answer : ended)(response, received)
  withUnstable(server, guarded(json(200, { pos: "1/s" })))
  server.on(
    `GET ${versionsPath}`,
    guarded(json(200, { versions: [], unstable_features: { "org.matrix.simplified_msc3575": true } }))
  )
  server.on(`POST ${refreshPath}`, (response, received) => {
    const given = (received.body as { refresh_token: string }).refresh_token
    if (given !== `r${tokens.issued}`) {
      return json(403, { errcode: "M_FORBIDDEN", error: "refresh token was used" })(response, received)
    }
    tokens.issued++
    const issued = {
      access_token: `a${tokens.issued}`,
      refresh_token: `r${tokens.issued}`,
      expires_in_ms: tokens.expiresInMillis
    }
    return json(200, issued)(response, received)
  })
  return tokens
}

const endedSession = (server: ScriptedServer, more: Partial<AccountSession> = {}) =>
  sessionAt(server, { accessToken: Redacted.make("a0"), refreshToken: Redacted.make("r0"), ...more })

/** No signals here, so that a waiter for the lock sees by polling that it is free. */
const quickPoll = SyncConfig.layer({ waitPollMillis: 10 })

/** One process: its own client and lock, over a store and leases that others may share. */
const processOver = (store: SessionStore.SessionStore["Service"], leases: LeaseStore["Service"]) =>
  Layer.fresh(
    NodeHomeserver.layer.pipe(
      Layer.provideMerge(Layer.succeed(SessionStore.SessionStore, store)),
      Layer.provide(RefreshLock.layer),
      Layer.provide([Layer.succeed(LeaseStore, leases), Wake.layerNone, quickPoll])
    )
  )

/** A process of its own, with a login that has ended. */
const alone = Effect.fnUntraced(function* (session: AccountSession) {
  const store = yield* SessionStore.makeMemory(session)
  const context = yield* Layer.build(processOver(store, yield* LeaseStoreMemory.make))
  return { store, context }
})

const sync = Effect.flatMap(Homeserver.Homeserver, (homeserver) => homeserver.sync(syncRequest()))

const reasonOf = <A, R>(effect: Effect.Effect<A, HomeserverError.HomeserverError, R>) =>
  Effect.map(Effect.flip(effect), ({ reason }) => reason)

const storedToken = (store: SessionStore.SessionStore["Service"]) =>
  Effect.map(store.load, (stored) => stored && Redacted.value(stored.session.accessToken))

/** Does something to a store in memory at the very moment at which the server answers. */
const meanwhile = (change: Effect.Effect<unknown, StoreError.StoreError | SessionStore.OtherDevice>): void =>
  void Effect.runSync(change)

const busy = new StoreError.StoreError({
  operation: "save",
  reason: new StoreError.StoreBusy({ message: "the database is locked" })
})

describe("Refresh", () => {
  it.live("I9: gets a new token when the homeserver refuses the old one, stores it, and runs the call once more", () =>
    Effect.gen(function* () {
      const server = yield* scriptedServer
      withTokens(server)
      const { store, context } = yield* alone(endedSession(server))
      assert.strictEqual((yield* Effect.provide(sync, context)).pos, "1/s")
      assert.deepStrictEqual(server.asked(refreshPath)[0]?.body, { refresh_token: "r0" })
      assert.isUndefined(server.asked(refreshPath)[0]?.authorization)
      assert.strictEqual(yield* storedToken(store), "a1")
      assert.deepStrictEqual(
        server.asked(unstablePath).map(({ authorization }) => authorization),
        ["Bearer a0", "Bearer a1"]
      )
    })
  )

  const issue = (number: number) => json(200, { access_token: `a${number}`, refresh_token: `r${number}` })

  it.live("I9: is made once more when the new token has ended too, as after a long sleep in between", () =>
    Effect.gen(function* () {
      const server = yield* scriptedServer
      withTokens(server, { softLogout: true }).issued = 2
      server.on(`POST ${refreshPath}`, issue(1), issue(2))
      const { store, context } = yield* alone(endedSession(server))
      assert.strictEqual((yield* Effect.provide(sync, context)).pos, "1/s")
      assert.strictEqual(server.asked(refreshPath).length, 2)
      assert.strictEqual(yield* storedToken(store), "a2")
    })
  )

  it.live("I10: is made twice for a call at most, and once when the homeserver ends the login", () =>
    Effect.gen(function* () {
      for (const softLogout of [true, false]) {
        const server = yield* scriptedServer
        withTokens(server, { softLogout }).issued = 9
        server.on(`POST ${refreshPath}`, issue(1), issue(2), issue(3), issue(4))
        const { context } = yield* alone(endedSession(server))
        const error = yield* Effect.flip(Effect.provide(sync, context))
        assert.strictEqual(error.reason._tag, "Unauthorized")
        assert.strictEqual(server.asked(refreshPath).length, softLogout ? 2 : 1)
      }
    })
  )

  it.live("is made exactly once by two processes over one store whose token has ended", () =>
    Effect.gen(function* () {
      const server = yield* scriptedServer
      withTokens(server)
      const store = yield* SessionStore.makeMemory(endedSession(server))
      const leases = yield* LeaseStoreMemory.make
      const first = yield* Layer.build(processOver(store, leases))
      const second = yield* Layer.build(processOver(store, leases))
      const both = [Effect.provide(sync, first), Effect.provide(sync, second)]
      yield* Effect.all([...both, ...both], { concurrency: "unbounded" })
      assert.strictEqual(server.asked(refreshPath).length, 1)
    })
  )

  it.live("is made exactly once by two processes over one database file", () =>
    Effect.gen(function* () {
      const server = yield* scriptedServer
      withTokens(server)
      const directory = fs.mkdtempSync(path.join(os.tmpdir(), "twinloop-refresh-"))
      yield* Effect.addFinalizer(() => Effect.sync(() => fs.rmSync(directory, { recursive: true })))
      const stores = () =>
        Layer.fresh(
          SqliteSessionStore.layer.pipe(
            Layer.provideMerge(SqliteStores.layer({ filename: path.join(directory, "account.db") }))
          )
        )
      const [one, two] = [yield* Layer.build(stores()), yield* Layer.build(stores())]
      yield* SessionStore.replace(Context.get(one, SessionStore.SessionStore), endedSession(server))
      const processes = [one, two].map((context) =>
        Effect.provide(
          sync,
          processOver(Context.get(context, SessionStore.SessionStore), Context.get(context, LeaseStore))
        )
      )
      yield* Effect.all(processes, { concurrency: "unbounded" })
      assert.strictEqual(server.asked(refreshPath).length, 1)
      assert.strictEqual(yield* storedToken(Context.get(two, SessionStore.SessionStore)), "a1")
    })
  )

  it.live("takes the token that another process has stored meanwhile, without a refresh", () =>
    Effect.gen(function* () {
      const server = yield* scriptedServer
      withTokens(server).issued = 7
      const { store, context } = yield* alone(endedSession(server))
      const other = { ...endedSession(server), accessToken: Redacted.make("a7"), refreshToken: Redacted.make("r7") }
      yield* SessionStore.replace(store, other)
      yield* Effect.provide(sync, context)
      assert.strictEqual(server.asked(refreshPath).length, 0)
    })
  )

  it.live("is shared by the concurrent calls of one process, also when it fails", () =>
    Effect.gen(function* () {
      const server = yield* scriptedServer
      withTokens(server)
      server.on(`POST ${refreshPath}`, json(502, {}), json(500, {}))
      const { context } = yield* alone(endedSession(server))
      const calls = Array.from({ length: 5 }, () => Effect.provide(reasonOf(sync), context))
      const reasons = yield* Effect.all(calls, { concurrency: "unbounded" })
      assert.deepStrictEqual(
        reasons.map((reason) => (reason._tag === "ServerError" ? reason.status : reason._tag)),
        [502, 502, 502, 502, 502]
      )
      assert.strictEqual(server.asked(refreshPath).length, 1)
    })
  )

  it.effect("I8: happens ahead of the token's end, by the Clock, and not before", () =>
    Effect.gen(function* () {
      const server = yield* scriptedServer
      const tokens = withTokens(server)
      tokens.issued = 1
      const session = endedSession(server, {
        accessToken: Redacted.make("a1"),
        refreshToken: Redacted.make("r1"),
        expiresAtMillis: 60_000
      })
      const { store, context } = yield* alone(session)
      yield* TestClock.adjust(60_000 - SyncConfig.defaults.tokenRenewAheadMillis - 1)
      yield* Effect.provide(sync, context)
      assert.strictEqual(server.asked(refreshPath).length, 0)

      yield* TestClock.adjust(1)
      yield* Effect.provide(sync, context)
      assert.strictEqual(server.asked(refreshPath).length, 1)
      const renewed = (yield* store.load)?.session
      assert.strictEqual(
        renewed?.expiresAtMillis,
        60_000 - SyncConfig.defaults.tokenRenewAheadMillis + tokens.expiresInMillis
      )
    })
  )

  const terminal: ReadonlyArray<readonly [status: number, errcode: string]> = [
    [401, "M_UNKNOWN_TOKEN"],
    [403, "M_FORBIDDEN"],
    [404, "M_UNRECOGNIZED"]
  ]
  for (const [status, errcode] of terminal) {
    for (const softLogout of [true, false]) {
      it.live(`that is refused with ${status} ends the login; a soft logout (${softLogout}) is told on`, () =>
        Effect.gen(function* () {
          const server = yield* scriptedServer
          withTokens(server, { softLogout })
          server.on(`POST ${refreshPath}`, json(status, { errcode, error: "no" }))
          const { context } = yield* alone(endedSession(server))
          const reason = yield* Effect.provide(reasonOf(sync), context)
          assert(reason._tag === "Unauthorized")
          assert.strictEqual(reason.softLogout, softLogout)
          assert.include(reason.message, "log in again")
        })
      )
    }
  }

  it.effect("that is refused ahead of time leaves the last word to the answer to the old token", () =>
    Effect.gen(function* () {
      const server = yield* scriptedServer
      withTokens(server, { softLogout: true })
      server.on(`POST ${refreshPath}`, json(403, { errcode: "M_FORBIDDEN", error: "no" }))
      const { context } = yield* alone(endedSession(server, { expiresAtMillis: 0 }))
      const reason = yield* Effect.provide(reasonOf(sync), context)
      assert(reason._tag === "Unauthorized")
      assert.isTrue(reason.softLogout)
    })
  )

  it.live("that gets no answer is a NetworkError, and the next call tries again", () =>
    Effect.gen(function* () {
      const server = yield* scriptedServer
      const tokens = withTokens(server)
      server.on(`POST ${refreshPath}`, (response) => response.destroy())
      const { context } = yield* alone(endedSession(server))
      assert.strictEqual((yield* Effect.provide(reasonOf(sync), context))._tag, "NetworkError")
      server.on(`POST ${refreshPath}`, (response, received) => {
        tokens.issued = 1
        json(200, { access_token: "a1" })(response, received)
      })
      yield* Effect.provide(sync, context)
    })
  )

  it.live("uses no token that could not be stored, so that the old refresh token stays good", () =>
    Effect.gen(function* () {
      const server = yield* scriptedServer
      withTokens(server)
      const memory = yield* SessionStore.makeMemory(endedSession(server))
      const failing = SessionStore.SessionStore.of({ ...memory, save: () => Effect.fail(busy) })
      const context = yield* Layer.build(processOver(failing, yield* LeaseStoreMemory.make))
      const reason = yield* Effect.provide(reasonOf(sync), context)
      assert(reason._tag === "NetworkError")
      assert.include(reason.message, "the database is locked")
      assert.strictEqual(yield* storedToken(memory), "a0")
      const used = server.requests.map(({ authorization }) => authorization)
      assert.notInclude(used, "Bearer a1")
    })
  )

  it.live("never happens without a refresh token: the refusal is told on", () =>
    Effect.gen(function* () {
      const server = yield* scriptedServer
      withTokens(server, { softLogout: true })
      const { context } = yield* alone(sessionAt(server))
      const reason = yield* Effect.provide(reasonOf(sync), context)
      assert(reason._tag === "Unauthorized")
      assert.isTrue(reason.softLogout)
      assert.strictEqual(server.asked(refreshPath).length, 0)
    })
  )

  it.live("never takes the token of another device that has logged in meanwhile", () =>
    Effect.gen(function* () {
      const server = yield* scriptedServer
      withTokens(server).issued = 7
      const { store, context } = yield* alone(endedSession(server))
      const other = { ...endedSession(server), deviceId: "OTHER", accessToken: Redacted.make("a7") }
      yield* Effect.flatMap(store.load, (stored) => store.save(other, stored?.revision))
      const reason = yield* Effect.provide(reasonOf(sync), context)
      assert(reason._tag === "Unauthorized")
      assert.include(reason.message, "OTHER")
      assert.notInclude(
        server.requests.map(({ authorization }) => authorization),
        "Bearer a7"
      )
    })
  )

  it.live("never brings back a login that was ended meanwhile", () =>
    Effect.gen(function* () {
      const server = yield* scriptedServer
      withTokens(server)
      const { store, context } = yield* alone(endedSession(server))
      yield* Effect.flatMap(store.load, (stored) => store.clear(stored!.revision))
      assert.strictEqual((yield* Effect.provide(reasonOf(sync), context))._tag, "Unauthorized")
      assert.isUndefined(yield* store.load)
      assert.strictEqual(server.asked(refreshPath).length, 0)
    })
  )

  it.live("finds a newer token when the one just issued is void already, and asks for no second one", () =>
    Effect.gen(function* () {
      const server = yield* scriptedServer
      withTokens(server)
      const { store, context } = yield* alone(endedSession(server))
      const refused = json(401, { errcode: "M_UNKNOWN_TOKEN", error: "?" })
      // Another process renews while the call is on its way with the token just issued.
      const overtaken: Answer = (response, received) => {
        const newer = { ...endedSession(server), accessToken: Redacted.make("a2") }
        meanwhile(SessionStore.replace(store, newer))
        refused(response, received)
      }
      server.on(`GET ${versionsPath}`, refused, overtaken, json(200, { versions: ["v1.20"] }))
      yield* Effect.provide(
        Effect.flatMap(Homeserver.Homeserver, (homeserver) => homeserver.capabilities),
        context
      )
      assert.deepStrictEqual(
        server.asked(versionsPath).map(({ authorization }) => authorization),
        ["Bearer a0", "Bearer a1", "Bearer a2"]
      )
      assert.strictEqual(server.asked(refreshPath).length, 1)
    })
  )

  it.live("gives way to a login that happened meanwhile, and never uses what was issued", () =>
    Effect.gen(function* () {
      const server = yield* scriptedServer
      const tokens = withTokens(server)
      const { store, context } = yield* alone(endedSession(server))
      server.on(`POST ${refreshPath}`, (response, received) => {
        tokens.issued = 7
        meanwhile(SessionStore.replace(store, { ...endedSession(server), accessToken: Redacted.make("a7") }))
        json(200, { access_token: "a1", refresh_token: "r1" })(response, received)
      })
      yield* Effect.provide(sync, context)
      assert.strictEqual(yield* storedToken(store), "a7")
      const used = server.requests.map(({ authorization }) => authorization)
      assert.notInclude(used, "Bearer a1")
    })
  )

  it.live("gives way to a logout that happened meanwhile", () =>
    Effect.gen(function* () {
      const server = yield* scriptedServer
      withTokens(server)
      const { store, context } = yield* alone(endedSession(server))
      server.on(`POST ${refreshPath}`, (response, received) => {
        meanwhile(Effect.flatMap(store.load, (stored) => store.clear(stored!.revision)))
        json(200, { access_token: "a1", refresh_token: "r1" })(response, received)
      })
      const reason = yield* Effect.provide(reasonOf(sync), context)
      assert.strictEqual(reason._tag, "Unauthorized")
      assert.isUndefined(yield* store.load)
    })
  )

  it.live("I4: is given up when the call is interrupted, and the next call makes it", () =>
    Effect.gen(function* () {
      const server = yield* scriptedServer
      withTokens(server)
      const { context } = yield* alone(endedSession(server))
      server.on(`POST ${refreshPath}`, hang, (response, received) => {
        json(200, { access_token: "a1" })(response, received)
      })
      const asked = server.next(refreshPath)
      const call = yield* Effect.forkChild(Effect.provide(sync, context))
      const received = yield* Effect.promise(() => asked)
      yield* Fiber.interrupt(call)
      yield* Effect.promise(() => received.aborted)
      yield* Effect.flip(Effect.provide(sync, context))
      assert.strictEqual(server.asked(refreshPath).length, 2)
    })
  )

  it.live("waits for the lock that another process holds", () =>
    Effect.gen(function* () {
      const server = yield* scriptedServer
      withTokens(server)
      const store = yield* SessionStore.makeMemory(endedSession(server))
      const leases = yield* LeaseStoreMemory.make
      const held = yield* Deferred.make<void>()
      const others = yield* Layer.build(
        Layer.fresh(RefreshLock.layer.pipe(Layer.provide([Layer.succeed(LeaseStore, leases), Wake.layerNone])))
      )
      const free = yield* Deferred.make<void>()
      const holder = yield* Effect.flatMap(RefreshLock, (lock) =>
        lock.serialize(Effect.andThen(Deferred.succeed(held, undefined), Deferred.await(free)))
      ).pipe(Effect.provide(others), Effect.forkChild)
      yield* Deferred.await(held)

      const context = yield* Layer.build(processOver(store, leases))
      const asked = server.next(unstablePath)
      const call = yield* Effect.forkChild(Effect.provide(sync, context))
      yield* Effect.promise(() => asked)
      yield* Effect.sleep("50 millis")
      assert.strictEqual(server.asked(refreshPath).length, 0)

      yield* Deferred.succeed(free, undefined)
      yield* Fiber.join(holder)
      yield* Fiber.join(call)
      assert.strictEqual(server.asked(refreshPath).length, 1)
    })
  )
})
