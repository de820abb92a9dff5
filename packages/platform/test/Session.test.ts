import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import type { AccountSession } from "../src/http/Session.ts"
import { tokensOf } from "../src/http/Session.ts"
import * as Kit from "./SqliteKit.ts"
import * as SessionStore from "../src/http/SessionStore.ts"
import * as SqliteSessionStore from "../src/http/SqliteSessionStore.ts"
import * as SqliteStores from "../src/sqlite/SqliteStores.ts"

const session = (token: string, more: Partial<AccountSession> = {}): AccountSession => ({
  homeserver: "https://hs.test",
  userId: "@alice:test",
  deviceId: "DEVICE",
  accessToken: Redacted.make(token),
  ...more
})

const sqlite = (filename: string) => SqliteSessionStore.layer.pipe(Layer.provide(SqliteStores.layer({ filename })))

const tokenOf = (stored: SessionStore.StoredSession | undefined) =>
  stored === undefined ? undefined : Redacted.value(stored.session.accessToken)

const stores: ReadonlyArray<readonly [name: string, layer: Layer.Layer<SessionStore.SessionStore, unknown>]> = [
  ["in memory", SessionStore.layerMemory()],
  ["in SQLite", sqlite(":memory:")]
]

for (const [name, layer] of stores) {
  describe(`SessionStore ${name}`, () => {
    const check = <A, E>(use: (store: SessionStore.SessionStore["Service"]) => Effect.Effect<A, E>) =>
      Effect.flatMap(SessionStore.SessionStore, use).pipe(Effect.provide(layer))

    it.effect("has no login at first", () =>
      check((store) => Effect.map(store.load, (stored) => assert.isUndefined(stored)))
    )

    it.effect("gives back what was saved, with and without what is optional", () =>
      check((store) =>
        Effect.gen(function* () {
          const full = session("a1", { refreshToken: Redacted.make("r1"), expiresAtMillis: 5_000 })
          const saved = yield* store.save(full, undefined)
          assert.deepStrictEqual((yield* store.load)?.revision, saved?.revision)
          const loaded = (yield* store.load)?.session
          assert.deepStrictEqual(loaded?.refreshToken && Redacted.value(loaded.refreshToken), "r1")
          assert.strictEqual(loaded?.expiresAtMillis, 5_000)
          assert.strictEqual(loaded?.homeserver, "https://hs.test")
          yield* store.save(session("a2"), saved?.revision)
          assert.deepStrictEqual(Object.keys((yield* store.load)!.session).sort(), [
            "accessToken",
            "deviceId",
            "homeserver",
            "userId"
          ])
        })
      )
    )

    it.effect("refuses a save on outdated knowledge, and keeps what is newer", () =>
      check((store) =>
        Effect.gen(function* () {
          const first = yield* store.save(session("a1"), undefined)
          assert.isUndefined(yield* store.save(session("a2"), undefined))
          const second = yield* store.save(session("a3"), first?.revision)
          assert.isUndefined(yield* store.save(session("a4"), first?.revision))
          assert.strictEqual(tokenOf(yield* store.load), "a3")
          assert.isAbove(second!.revision, first!.revision)
        })
      )
    )

    it.effect("forgets a login only at its own revision", () =>
      check((store) =>
        Effect.gen(function* () {
          const first = yield* store.save(session("a1"), undefined)
          const second = yield* store.save(session("a2"), first?.revision)
          assert.isFalse(yield* store.clear(first!.revision))
          assert.isTrue(yield* store.clear(second!.revision))
          assert.isUndefined(yield* store.load)
          assert.isUndefined(yield* store.save(session("a3"), second?.revision))
        })
      )
    )

    it.effect("is overwritten by a person who logs in again", () =>
      check((store) =>
        Effect.gen(function* () {
          yield* SessionStore.replace(store, session("a1"))
          yield* SessionStore.replace(store, session("a2"))
          assert.strictEqual(tokenOf(yield* store.load), "a2")
        })
      )
    )

    it.effect("I2: keeps to its first device, also after a logout", () =>
      check((store) =>
        Effect.gen(function* () {
          const { revision } = yield* SessionStore.replace(store, session("a1"))
          const others = [session("b1", { userId: "@bob:test" }), session("a2", { deviceId: "OTHER" })]
          for (const other of others) {
            const refused = yield* Effect.flip(SessionStore.replace(store, other))
            assert.strictEqual(refused._tag, "OtherDevice")
            assert.include(refused.message, "@alice:test")
          }
          assert.strictEqual(tokenOf(yield* store.load), "a1")
          yield* store.clear(revision)
          for (const other of others) yield* Effect.flip(SessionStore.replace(store, other))
          assert.isUndefined(yield* store.load)
          // An account can move to another address; its device and keys stay the same.
          yield* SessionStore.replace(store, session("a3", { homeserver: "https://new.test" }))
          assert.strictEqual(tokenOf(yield* store.load), "a3")
        })
      )
    )

    it.effect("lets exactly one of many savers win", () =>
      check((store) =>
        Effect.gen(function* () {
          const before = yield* store.save(session("a0"), undefined)
          const saves = Array.from({ length: 20 }, (_, n) => store.save(session(`b${n}`), before?.revision))
          const outcomes = yield* Effect.all(saves, { concurrency: "unbounded" })
          const won = outcomes.filter((outcome) => outcome !== undefined)
          assert.strictEqual(won.length, 1)
          assert.strictEqual(tokenOf(yield* store.load), tokenOf(won[0]))
        })
      )
    )
  })
}

describe("SessionStore in SQLite", () => {
  it.live("is shared by processes, and keeps the login when they end", () =>
    Effect.gen(function* () {
      const directory = fs.mkdtempSync(path.join(os.tmpdir(), "twinloop-session-"))
      yield* Effect.addFinalizer(() => Effect.sync(() => fs.rmSync(directory, { recursive: true })))
      const filename = path.join(directory, "account.db")
      const store = (use: (store: SessionStore.SessionStore["Service"]) => Effect.Effect<unknown, unknown>) =>
        Effect.flatMap(SessionStore.SessionStore, use).pipe(Effect.provide(sqlite(filename), { local: true }))
      yield* store((first) =>
        Effect.andThen(
          first.save(session("a1"), undefined),
          store((second) => Effect.map(second.load, (stored) => assert.strictEqual(tokenOf(stored), "a1")))
        )
      )
      yield* store((third) => Effect.map(third.load, (stored) => assert.strictEqual(tokenOf(stored), "a1")))
    })
  )
})

describe("A database of schema version 1", () => {
  it.effect("belongs to the device that is logged in", () =>
    Effect.gen(function* () {
      const directory = fs.mkdtempSync(path.join(os.tmpdir(), "twinloop-session-"))
      yield* Effect.addFinalizer(() => Effect.sync(() => fs.rmSync(directory, { recursive: true })))
      const filename = path.join(directory, "account.db")
      const within = <A, E>(use: (store: SessionStore.SessionStore["Service"]) => Effect.Effect<A, E>) =>
        Effect.flatMap(SessionStore.SessionStore, use).pipe(Effect.provide(sqlite(filename), { local: true }))
      yield* within((store) => SessionStore.replace(store, session("a1")))
      Kit.turnBack(filename, 1)
      const device = yield* within((store) => store.device)
      assert.deepStrictEqual(device, { userId: "@alice:test", deviceId: "DEVICE" })
    })
  )
})

describe("Session", () => {
  it("ends early rather than late, and keeps a refresh token that isn't replaced", () => {
    const previous = session("a1", { refreshToken: Redacted.make("r1"), expiresAtMillis: 10 })
    const tokens = tokensOf({ access_token: "a2", expires_in_ms: 300_000 }, 1_000, previous)
    assert.strictEqual(Redacted.value(tokens.accessToken), "a2")
    assert.strictEqual(tokens.refreshToken && Redacted.value(tokens.refreshToken), "r1")
    assert.strictEqual(tokens.expiresAtMillis, 301_000)
  })

  it("doesn't end at a time that it was not told", () => {
    const previous = session("a1", { expiresAtMillis: 10 })
    assert.notProperty(tokensOf({ access_token: "a2" }, 1_000, previous), "expiresAtMillis")
  })
})
