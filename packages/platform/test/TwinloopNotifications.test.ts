import { assert, describe, it } from "@effect/vitest"
import { CryptoTurn, SyncService } from "@twinloop/actors"
import { NotificationClient } from "@twinloop/core"
import { Effect, Fiber } from "effect"
import { join } from "node:path"
import * as SessionStore from "../src/http/SessionStore.ts"
import * as Twinloop from "../src/Twinloop.ts"
import { hang, scriptedServer, sessionAt, unstablePath, withUnstable } from "./HttpHomeserver.fixture.ts"
import { temporaryDirectory } from "./SqliteKit.ts"

const push = { roomId: "!kitchen:hs", eventId: "$dinner" }

/** An application whose homeserver never answers. */
const setUp = Effect.gen(function* () {
  const server = yield* scriptedServer
  withUnstable(server, hang)
  const database = join(yield* temporaryDirectory, "account.db")
  const options = { database, singleProcess: true }
  yield* Effect.flatMap(SessionStore.SessionStore, (store) => SessionStore.replace(store, sessionAt(server))).pipe(
    Effect.provide(Twinloop.layerFoundation(options))
  )
  return { server, app: Twinloop.layer(options) }
})

describe("Twinloop.layer", () => {
  it.live("I4: a suspension waits for a push that is being resolved, until its deadline", () =>
    Effect.gen(function* () {
      const { app, server } = yield* setUp
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
        assert.deepStrictEqual(late.unfinished, ["closing sockets and other resources"])
        yield* Fiber.interrupt(resolving)
        const quiet = yield* service.suspend()
        assert.deepStrictEqual({ quiet: quiet.quiet, unfinished: quiet.unfinished }, { quiet: true, unfinished: [] })
      }).pipe(Effect.provide(app))
    }).pipe(Effect.scoped)
  )

  it.live("I5: loops and pushes share one memory of the end-to-end machine", () =>
    Effect.gen(function* () {
      const { app, server } = yield* setUp
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
