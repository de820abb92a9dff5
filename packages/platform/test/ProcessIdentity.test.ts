import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFileSync, spawn } from "node:child_process"
import { createInterface } from "node:readline"
import * as ProcessIdentity from "../src/wake/ProcessIdentity.ts"

const isLinux = process.platform === "linux"

/** The pid of a process that has ended. */
const endedPid = Effect.sync(() =>
  Number(execFileSync(process.execPath, ["-e", "console.log(process.pid)"], { encoding: "utf8" }))
)

/** A process whose child nobody waits for: gives the pid of the child, which is killed already. */
const zombie = Effect.acquireRelease(
  Effect.callback<{ readonly pid: number; readonly kill: () => void }>((resume) => {
    const parent = spawn("sh", ["-c", "sleep 60 & echo $!; exec sleep 60"], { stdio: ["ignore", "pipe", "ignore"] })
    createInterface(parent.stdout).once("line", (line) => {
      process.kill(Number(line), "SIGKILL")
      resume(Effect.succeed({ pid: Number(line), kill: () => parent.kill("SIGKILL") }))
    })
  }),
  ({ kill }) => Effect.sync(kill)
)

describe("ProcessIdentity", () => {
  it.live("knows that this process lives", () =>
    Effect.gen(function* () {
      const self = yield* ProcessIdentity.self
      assert.strictEqual(self.pid, process.pid)
      assert.strictEqual(yield* ProcessIdentity.check(self), "Alive")
      assert.isFalse(yield* ProcessIdentity.confirmDead(self))
    })
  )

  it.live("gives a process the same name each time", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* ProcessIdentity.self, yield* ProcessIdentity.self)
    })
  )

  it.live("knows that a process is dead whose pid nobody has", () =>
    Effect.gen(function* () {
      const pid = yield* endedPid
      assert.strictEqual(yield* ProcessIdentity.check({ pid }), "Dead")
      assert.isTrue(yield* ProcessIdentity.confirmDead({ pid }))
    })
  )

  it.live.skipIf(!isLinux)("knows that a process is dead whose pid belongs to another one by now", () =>
    Effect.gen(function* () {
      const self = yield* ProcessIdentity.self
      assert.strictEqual(yield* ProcessIdentity.check({ ...self, startedAt: `${self.startedAt}1` }), "Dead")
    })
  )

  it.live.skipIf(!isLinux)("knows that a zombie is dead", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { pid } = yield* zombie
        assert.isTrue(yield* ProcessIdentity.confirmDead({ pid }))
        assert.isTrue(process.kill(pid, 0), "it is a zombie, not gone")
      })
    )
  )

  it.live("doesn't judge a process of another container or boot, nor one without a pid", () =>
    Effect.gen(function* () {
      const pid = yield* endedPid
      for (const peer of [{ pid, startedAt: "elsewhere.42" }, {}, { endpoint: "/nowhere" }]) {
        assert.strictEqual(yield* ProcessIdentity.check(peer), "Unknown")
        assert.isFalse(yield* ProcessIdentity.confirmDead(peer))
      }
    })
  )
})
