import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Kit from "./CryptoKit.ts"

/**
 * Alice shares a room's key with Bob and writes. Then she learns that Bob has opened a session of his own with her, after which
 * she gives him the key again, from where it stands by then: one that can't read what she wrote before.
 */
const sharedAgain = Effect.gen(function* () {
  const sim = yield* Kit.openHomeserver
  const alice = yield* Kit.openDevice(sim, "alice", "ALICE")
  const bob = yield* Kit.openDevice(sim, "bob", "BOB")
  const room = yield* Kit.openRoom(sim, alice, bob)
  const other = yield* Kit.openRoom(sim, alice, bob)
  yield* Kit.settle(alice, bob)
  // Both open a session before either has heard of the other's.
  const early = yield* Kit.send(sim, alice, room, "early")
  yield* Kit.share(bob, other)
  yield* Kit.receive(alice)
  assert.isNotEmpty(yield* Kit.share(alice, room), "the key is shared again")
  const late = yield* Kit.sendNow(sim, alice, room, "late")
  assert.strictEqual(late.content.session_id, early.content.session_id)
  return { bob, early, late, room }
})

describe("A room's key that comes twice, the second time from later on", () => {
  it.live("serves from the first message on when both come in one batch", () =>
    Effect.gen(function* () {
      const { bob, early, late, room } = yield* sharedAgain
      const { inbox } = yield* Kit.receive(bob)
      assert.deepStrictEqual(
        inbox.map(({ encryption, type }) => [type, encryption]),
        [
          ["m.room_key", "decrypted"],
          ["m.room_key", "decrypted"]
        ]
      )
      assert.strictEqual(yield* Kit.read(bob, room, late), "late")
      assert.strictEqual(yield* Kit.read(bob, room, early), "early")
    })
  )
})
