import { afterAll, assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as ControlClient from "../../packages/platform/src/control/ControlClient.ts"
import * as ChildProgram from "./ChildProgram.ts"

const root = mkdtempSync(join(tmpdir(), "tl-"))
const database = join(root, "a.db")

afterAll(() => rmSync(root, { recursive: true, force: true }))

const startProgram = Effect.fnUntraced(function* (...args: ReadonlyArray<string>) {
  const child = yield* ChildProgram.start("lifecycleChild.ts", database, ...args)
  assert.strictEqual(yield* child.line, "ready")
  return child
})

/** Waits until the kernel says that a process is stopped. */
const untilStopped = (pid: number) =>
  Effect.sync(() => readFileSync(`/proc/${pid}/stat`, "utf8").includes(") T ")).pipe(
    Effect.repeat({ until: (isStopped) => isStopped, schedule: Schedule.spaced("5 millis") }),
    Effect.timeout("5 seconds")
  )

const connect = (pid: number) =>
  Effect.flatMap(ControlClient.find(database, pid), ([target]) =>
    ControlClient.connect(target, { answerMillis: 2_000 })
  )

describe("Lifecycle of a process", () => {
  it.live("stops in order at SIGTERM and at SIGINT, and ends with 0", () =>
    Effect.gen(function* () {
      for (const signal of ["SIGTERM", "SIGINT"] as const) {
        const child = yield* startProgram()
        yield* child.signal(signal)
        assert.strictEqual(yield* child.line, "stop")
        assert.strictEqual(yield* child.ended, 0)
      }
    })
  )

  it.live("ends at once at a second signal, with 128 + its number", () =>
    Effect.gen(function* () {
      for (const [signal, code] of [
        ["SIGINT", 130],
        ["SIGTERM", 143]
      ] as const) {
        const child = yield* startProgram("slow")
        yield* child.signal("SIGTERM")
        assert.strictEqual(yield* child.line, "stop")
        yield* child.signal(signal)
        assert.strictEqual(yield* child.ended, code)
      }
    })
  )

  it.live("ends at once at a second signal, also when it has stopped and something never closes", () =>
    Effect.gen(function* () {
      for (const [signal, code] of [
        ["SIGINT", 130],
        ["SIGTERM", 143]
      ] as const) {
        const child = yield* startProgram("hanging")
        yield* child.signal("SIGTERM")
        assert.strictEqual(yield* child.line, "stop")
        assert.strictEqual(yield* child.line, "closing")
        yield* child.signal(signal)
        assert.strictEqual(yield* child.ended, code)
      }
    })
  )

  it.live.skipIf(process.platform !== "linux")("I4: suspends and then stops at SIGTSTP, resumes at SIGCONT", () =>
    Effect.gen(function* () {
      const child = yield* startProgram()
      for (let round = 0; round < 2; round++) {
        yield* child.signal("SIGTSTP")
        assert.strictEqual(yield* child.line, "suspend")
        yield* untilStopped(child.pid)
        yield* child.signal("SIGCONT")
        assert.strictEqual(yield* child.line, "resume")
      }
      yield* child.signal("SIGTERM")
      assert.strictEqual(yield* child.line, "stop")
      assert.strictEqual(yield* child.ended, 0)
    })
  )

  it.live("is found by its database, and is stopped over its control socket", () =>
    Effect.gen(function* () {
      const child = yield* startProgram()
      const client = yield* connect(child.pid)
      assert.strictEqual((yield* client.status).pid, child.pid)
      // The process ends before it can answer; that it is gone is the answer.
      assert.deepStrictEqual(yield* client.stop, { quiet: true, unfinished: [] })
      assert.strictEqual(yield* child.ended, 0)
      assert.strictEqual((yield* Effect.flip(ControlClient.find(database))).reason._tag, "NotRunning")
    })
  )

  it.live.skipIf(process.platform === "win32")("says that a stopped process gives no answer", () =>
    Effect.gen(function* () {
      const child = yield* startProgram()
      yield* child.signal("SIGSTOP")
      const client = yield* connect(child.pid)
      assert.include((yield* Effect.flip(client.status)).message, `kill -CONT ${child.pid}`)
      yield* child.signal("SIGKILL")
      yield* child.ended
      assert.strictEqual((yield* Effect.flip(ControlClient.find(database))).reason._tag, "NotRunning")
    })
  )
})
