import { assert, describe, it } from "@effect/vitest"
import { CryptoTurn, SyncService } from "@twinloop/actors"
import { NotificationClient, Wake } from "@twinloop/core"
import { Effect, Fiber } from "effect"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { HttpTransport } from "../src/http/HttpTransport.ts"
import * as SessionStore from "../src/http/SessionStore.ts"
import * as Twinloop from "../src/Twinloop.ts"
import { hang, scriptedServer, sessionAt, unstablePath, versionsPath, withUnstable } from "./HttpHomeserver.fixture.ts"
import { temporaryDirectory } from "./SqliteKit.ts"

const push = { roomId: "!kitchen:hs", eventId: "$dinner" }

const nextTurn = Effect.promise(() => new Promise<void>((resolve) => void setImmediate(resolve)))

/** An application whose homeserver never answers. */
const setUp = Effect.fnUntraced(function* ({ singleProcess = true } = {}) {
  const server = yield* scriptedServer
  withUnstable(server, hang)
  const database = join(yield* temporaryDirectory, "account.db")
  const options = { database, singleProcess }
  yield* Effect.flatMap(SessionStore.SessionStore, (store) => SessionStore.replace(store, sessionAt(server))).pipe(
    Effect.provide(Twinloop.layerFoundation(options))
  )
  return { server, app: Twinloop.layer(options) }
})

describe("Twinloop.layer", () => {
  it.live("I4: a suspension waits for a push that is being resolved, until its deadline", () =>
    Effect.gen(function* () {
      const { app, server } = yield* setUp()
      yield* Effect.gen(function* () {
        const service = yield* SyncService.SyncService
        const client = yield* NotificationClient.NotificationClient
        yield* service.start
        const resolving = yield* Effect.forkChild(client.resolve(push, { deadline: "1 minute" }))
        // Two loops, and the push.
        yield* Effect.promise(async () => {
          while (server.asked(unstablePath).length < 3) await server.next(unstablePath)
        })
        const late = yield* service.suspend({ deadline: 50 })
        assert.deepStrictEqual(late.unfinished, ["pushes that are being resolved"])
        yield* Fiber.interrupt(resolving)
        const quiet = yield* service.suspend()
        assert.deepStrictEqual({ quiet: quiet.quiet, unfinished: quiet.unfinished }, { quiet: true, unfinished: [] })
      }).pipe(Effect.provide(app))
    }).pipe(Effect.scoped)
  )

  it.live("I4: a suspension closes the connections and the socket for wake-ups", () =>
    Effect.gen(function* () {
      const { app, server } = yield* setUp({ singleProcess: false })
      yield* Effect.gen(function* () {
        const service = yield* SyncService.SyncService
        const { endpoint = "" } = (yield* Wake).self
        const { exchange } = yield* HttpTransport
        const request = { method: "GET", url: `${server.url}${versionsPath}`, headers: {}, maxBytes: 1_000 } as const
        // The connection is free for another request in the next turn of the event loop.
        const ask = Effect.andThen(exchange(request), nextTurn)
        yield* service.start
        // Both loops have their connections then.
        yield* Effect.promise(async () => {
          while (server.asked(unstablePath).length < 2) await server.next(unstablePath)
        })
        yield* ask
        const opened = server.connections()
        yield* ask
        assert.strictEqual(server.connections(), opened, "an idle connection is used again")
        assert.isTrue(existsSync(endpoint))

        assert.isTrue((yield* service.suspend()).quiet)
        assert.isFalse(existsSync(endpoint))
        yield* ask
        assert.strictEqual(server.connections(), opened + 1, "none was left to be used again")
      }).pipe(Effect.provide(app))
    }).pipe(Effect.scoped)
  )

  it.live("I5: loops and pushes share one memory of the end-to-end machine", () =>
    Effect.gen(function* () {
      const { app, server } = yield* setUp()
      yield* Effect.gen(function* () {
        const service = yield* SyncService.SyncService
        const turn = yield* CryptoTurn.CryptoTurn
        yield* service.start
        yield* Effect.promise(() => server.next(unstablePath))
        yield* turn.opened
        assert.isTrue(yield* turn.isOpen)
      }).pipe(Effect.provide(app))
    }).pipe(Effect.scoped)
  )
})
