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

/** A shell whose child ends and is never waited for: gives the pid of the child. */
const zombie = Effect.acquireRelease(
  Effect.callback<{ readonly pid: number; readonly kill: () => void }>((resume) => {
    const shell = spawn("sh", ["-c", "true & echo $!; exec sleep 60"], { stdio: ["ignore", "pipe", "ignore"] })
    createInterface(shell.stdout).once("line", (line) =>
      resume(Effect.succeed({ pid: Number(line), kill: () => shell.kill("SIGKILL") }))
    )
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
