import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawnSync } from "node:child_process"
import * as DevAccounts from "../src/dev/DevAccounts.ts"
import { HomeserverHost, HomeserverModel } from "../src/dev/Model.ts"

describe("DevAccounts", () => {
  it("reads a name with its password, which may have colons, and takes the name for a password that is missing", () => {
    assert.deepStrictEqual(DevAccounts.parse("alice"), { name: "alice", password: "alice" })
    assert.deepStrictEqual(DevAccounts.parse("alice:a:b"), { name: "alice", password: "a:b" })
    assert.deepStrictEqual(DevAccounts.parse("alice:"), { name: "alice", password: "" })
  })

  it.effect("adds accounts that can log in, each with rooms of its own and a message in each", () =>
    Effect.gen(function* () {
      const host = HomeserverHost.make()
      const accounts = ["alice", "bob:secret"].map(DevAccounts.parse)
      assert.deepStrictEqual(yield* DevAccounts.add(host, accounts, 3), ["@alice:localhost", "@bob:localhost"])
      const { userId } = yield* host.attempt((state, now) =>
        HomeserverModel.logIn(state, { user: "bob", password: "secret" }, now)
      )
      const rooms = yield* host.step((state) => [...(state.users.get(userId)?.rooms.values() ?? [])])
      assert.deepStrictEqual(
        rooms.map(({ membership, room }) => [membership, room.joinedCount, room.timeline.at(-1)?.event.type]),
        Array.from({ length: 3 }, () => ["join", 1, "m.room.message"])
      )
    })
  )

  it.effect("refuses a name that can't be one, and one that is there already", () =>
    Effect.gen(function* () {
      for (const [names, errcode] of [
        [["Alice"], "M_INVALID_USERNAME"],
        [[""], "M_INVALID_USERNAME"],
        [["alice", "alice"], "M_USER_IN_USE"]
      ] as const) {
        const refusal = yield* Effect.flip(DevAccounts.add(HomeserverHost.make(), names.map(DevAccounts.parse), 0))
        assert.strictEqual(refusal.errcode, errcode)
      }
    })
  )

  it.skipIf(process.platform === "win32")("says a login that a shell understands, whatever the password", () => {
    for (const password of ["alice", "", "-n", "two  words", `it's "quoted"`, "$HOME `id` \\n\\c", "a;b|c&d#e*"]) {
      const command = DevAccounts.loginCommand("http://127.0.0.1:8008", { name: "a=b/c", password })
      const script = `twinloop() { printf '<%s>' "$@"; cat; }\n${command}`
      const { stderr, stdout } = spawnSync("sh", ["-c", script], { encoding: "utf8" })
      assert.strictEqual(stderr, "")
      assert.strictEqual(stdout, `<login><http://127.0.0.1:8008><--user><a=b/c>${password}\n`)
    }
    const plain = DevAccounts.loginCommand("http://127.0.0.1:8008", DevAccounts.parse("alice"))
    assert.strictEqual(plain, "echo alice | twinloop login http://127.0.0.1:8008 --user alice")
  })
})
