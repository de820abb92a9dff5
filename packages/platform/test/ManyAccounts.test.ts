import { assert, describe, it } from "@effect/vitest"
import { SyncService } from "@twinloop/actors"
import { Homeserver } from "@twinloop/core"
import { Effect, Layer, Redacted } from "effect"
import { join } from "node:path"
import { HttpSockets } from "../src/http/HttpSockets.ts"
import { HttpTransport } from "../src/http/HttpTransport.ts"
import { HttpUsers } from "../src/http/HttpUsers.ts"
import * as SessionStore from "../src/http/SessionStore.ts"
import * as Twinloop from "../src/Twinloop.ts"
import { temporaryDirectory } from "./SqliteKit.ts"

/** A database in which a user is logged in, at a homeserver that nobody asks anything. */
const accountOf = Effect.fnUntraced(function* (directory: string, name: string) {
  const database = join(directory, `${name}.db`)
  yield* Effect.flatMap(SessionStore.SessionStore, (store) =>
    SessionStore.replace(store, {
      homeserver: "http://127.0.0.1:9",
      userId: `@${name}:test`,
      deviceId: name,
      accessToken: Redacted.make(`token of ${name}`)
    })
  ).pipe(Effect.provide(Twinloop.layerFoundation({ database, singleProcess: true })))
  return Twinloop.layer({ database, singleProcess: true })
})

/** What tells two accounts apart, and what they may share. */
const parts = Effect.all({
  homeserver: Homeserver.Homeserver,
  service: SyncService.SyncService,
  transport: HttpTransport
})

describe("Twinloop, several accounts in one process", () => {
  it.effect("keeps an account apart from another one that is provided around it", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const alice = yield* accountOf(directory, "alice")
      const bob = yield* accountOf(directory, "bob")
      const [outside, inside] = yield* Effect.all([parts, Effect.provide(parts, bob)]).pipe(Effect.provide(alice))
      assert.strictEqual(outside.homeserver.session.userId, "@alice:test")
      assert.strictEqual(inside.homeserver.session.userId, "@bob:test")
      assert.notStrictEqual(inside.service, outside.service)
    })
  )

  it.effect("shares the HTTP connections that are provided around the accounts, and nothing else", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const alice = yield* accountOf(directory, "alice")
      const bob = yield* accountOf(directory, "bob")
      const both = Effect.all([Effect.provide(parts, alice), Effect.provide(parts, bob)])
      const [first, second] = yield* Effect.provide(both, Twinloop.layerShared)
      assert.strictEqual(first.transport, second.transport)
      assert.strictEqual(first.homeserver.session.userId, "@alice:test")
      assert.strictEqual(second.homeserver.session.userId, "@bob:test")
      assert.notStrictEqual(first.service, second.service)
      const [alone, other] = yield* both
      assert.notStrictEqual(alone.transport, other.transport, "by itself, an account has its own")
    })
  )

  it.effect("I4: closes the shared connections when the last account falls quiet, and never under another one", () =>
    Effect.gen(function* () {
      let closed = 0
      const sockets = Layer.succeed(HttpSockets, { close: Effect.sync(() => void closed++) })
      yield* Effect.gen(function* () {
        const users = yield* HttpUsers
        const alice = yield* users.join
        yield* Effect.gen(function* () {
          const bob = yield* users.join
          yield* alice.wake
          yield* bob.wake
          yield* alice.quiet
          yield* alice.quiet
          assert.strictEqual(closed, 0, "bob still runs")
          yield* bob.quiet
          assert.strictEqual(closed, 1)
          yield* bob.wake
        }).pipe(Effect.scoped)
        assert.strictEqual(closed, 2, "an account that is taken away is quiet")
        yield* alice.wake
        yield* alice.quiet
        assert.strictEqual(closed, 3)
        yield* alice.quiet
        assert.strictEqual(closed, 4, "who has not woken may have used them all the same")
      }).pipe(Effect.scoped, Effect.provide(Layer.provide(HttpUsers.layer, sockets)))
    })
  )
})
