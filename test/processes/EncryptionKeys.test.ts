/** What becomes of an account's keys while none of its processes runs, or when a device is deleted on the homeserver. */
import { assert, describe, it } from "@effect/vitest"
import { HomeserverModel } from "@twinloop/core/homeserver"
import { Effect, Result } from "effect"
import * as Encrypted from "./fixtures/EncryptedAccount.ts"
import type { EncryptedLine } from "./fixtures/encrypted.ts"
import * as Peer from "./fixtures/Peer.ts"

/** A process that owns the stream, of a device that others know. */
const startOwner = Effect.fnUntraced(function* (account: Encrypted.Account) {
  const owner = yield* Encrypted.start(account)
  yield* Encrypted.begin(account, owner)
  yield* owner.until("own the stream", Encrypted.owns)
  yield* owner.until("upload keys", (line) => line.event === "uploads")
  return owner
})

/** It says something, which others can read, so that its keys are known by then. */
const sends = Effect.fnUntraced(function* (account: Encrypted.Account, process: Encrypted.Process, body: string) {
  yield* Encrypted.tell(process, { do: "send", messages: Encrypted.want(account, [body]) })
  yield* process.until(`send ${body}`, (line) => line.event === "sent" && line.body === body)
})

describe("The keys of an account", () => {
  it.live("I2: run out while its process is dead, and everything can be read all the same", () =>
    Effect.gen(function* () {
      const account = yield* Encrypted.make
      const dead = yield* startOwner(account)
      yield* sends(account, dead, "bob, before")
      yield* dead.signal("SIGKILL")
      assert.strictEqual(yield* dead.ended, "SIGKILL")
      yield* Encrypted.hear(account, dead)

      for (let device = 0; device < 60; device++) yield* Encrypted.carolSays(account, `carol ${device}`)
      const exhausted = yield* Encrypted.keys(account)
      assert.strictEqual(exhausted.oneTimeKeys.signed_curve25519, 0)
      assert.isAbove(exhausted.fallbackUsed, 5)

      const next = yield* startOwner(account)
      yield* Encrypted.untilApplied(account)
      yield* sends(account, next, "bob, after")
      yield* Encrypted.carolSays(account, "carol, after")
      yield* Encrypted.untilApplied(account)
      const renewed = yield* Encrypted.keys(account)
      assert.isAbove(renewed.oneTimeKeys.signed_curve25519 ?? 0, 40)
      yield* Encrypted.hear(account, next)
      const { conflicts, duplicated, lost } = yield* Encrypted.judge(account, ["bob, before", "bob, after"])
      assert.deepStrictEqual([lost, duplicated, conflicts], [[], [], 0])
    })
  )

  it.live("I9: are given to no device of another user that is deleted, and the others read on", () =>
    Effect.gen(function* () {
      const account = yield* Encrypted.make
      const owner = yield* startOwner(account)
      yield* Encrypted.carolSays(account, "carol, on a device that stays")
      yield* Encrypted.carolSays(account, "carol, on a device that is deleted")
      const [stays, deleted] = account.carols.map(({ peer }) => peer) as [Peer.Peer, Peer.Peer]
      yield* Encrypted.untilApplied(account)
      yield* sends(account, owner, "bob, to all")
      yield* Peer.round(stays)
      yield* Peer.round(deleted)
      const toAll = yield* Encrypted.lastOf(account)
      assert.deepStrictEqual(yield* Peer.read(stays.reader, ...toAll), { body: "bob, to all" })
      assert.deepStrictEqual(yield* Peer.read(deleted.reader, ...toAll), { body: "bob, to all" })

      const since = yield* owner.said
      yield* Peer.logOut(deleted)
      const asksForCarol = (line: EncryptedLine) => line.event === "asks" && line.users.includes(deleted.userId)
      yield* owner.until("ask for Carol's devices", asksForCarol, { since })
      // More than one key is good for.
      const bodies = Array.from({ length: 5 }, (_, index) => `bob, to the others ${index}`)
      for (const body of bodies) {
        yield* sends(account, owner, body)
        yield* Peer.round(stays)
        const event = yield* Encrypted.lastOf(account)
        assert.deepStrictEqual(yield* Peer.read(stays.reader, ...event), { body })
        assert.notProperty(yield* Peer.read(deleted.reader, ...event), "body")
      }
      const given = (yield* owner.lines).slice(since).flatMap((line) => (line.event === "shares" ? line.devices : []))
      assert.includeMembers(given, [`${stays.userId} ${stays.deviceId}`, `${account.alice.userId} ALICE`])
      assert.notInclude(given, `${deleted.userId} ${deleted.deviceId}`)
      yield* Encrypted.aliceSays(account, "alice, after that")
      yield* Encrypted.untilApplied(account)
      yield* Encrypted.hear(account, owner)
      const { conflicts, duplicated, lost } = yield* Encrypted.judge(account, ["bob, to all", ...bodies])
      assert.deepStrictEqual([lost, duplicated, conflicts], [[], [], 0])
    })
  )

  it.live("I9: are of no use once its device is deleted: the process says that the login is lost", () =>
    Effect.gen(function* () {
      const account = yield* Encrypted.make
      const owner = yield* startOwner(account)
      const { host, token } = account
      yield* host.request(token, (state, requester) => Result.succeed(HomeserverModel.logOut(state, requester)))
      const { line } = yield* owner.until(
        "say that the login is lost",
        (line) => line.event === "state" && line.extension === "Failed"
      )
      assert.match(line.event === "state" ? (line.failure ?? "") : "", /^auth: /)
    })
  )
})
