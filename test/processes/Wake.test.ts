import { afterAll, assert, describe, it } from "@effect/vitest"
import type { Lease, WakeSignal } from "@twinloop/core"
import { Effect } from "effect"
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as WakeSocket from "../../packages/platform/src/wake/WakeSocket.ts"
import * as ChildProgram from "./ChildProgram.ts"

const root = mkdtempSync(join(tmpdir(), "tl-"))
let directories = 0

afterAll(() => rmSync(root, { recursive: true, force: true }))

const newDirectory = Effect.sync(() => join(root, `${directories++}`))

/** A process with a socket in a directory, and how to watch it. */
const startPeer = Effect.fnUntraced(function* (directory: string) {
  const child = yield* ChildProgram.start("wakeChild.ts", directory)
  const peer = JSON.parse(yield* child.line) as Lease.Peer
  assert.strictEqual(peer.pid, child.pid)
  return { child, peer }
})

const within = (signal: Effect.Effect<WakeSignal>) => Effect.timeout(signal, "5 seconds")

const nowNanos = Effect.sync(() => process.hrtime.bigint())

const report = (what: string, nanos: ReadonlyArray<bigint>): void => {
  const sorted = nanos.map(Number).sort((a, b) => a - b)
  const at = (quantile: number): string => {
    const value = sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * quantile))] ?? NaN
    return `${(value / 1e6).toFixed(2)} ms`
  }
  console.log(`${what}: p50 ${at(0.5)}, p99 ${at(0.99)}, n=${sorted.length}`)
}

describe("WakeSocket between processes", () => {
  it.live("wakes a waiter when the holder releases", () =>
    Effect.gen(function* () {
      const directory = yield* newDirectory
      const wake = yield* WakeSocket.make({ directory })
      const { child, peer } = yield* startPeer(directory)
      const next = yield* wake.subscribe(peer, "lease")
      const latencies: Array<bigint> = []
      for (let round = 0; round < 200; round++) {
        yield* child.send("notify lease")
        assert.strictEqual(yield* within(next), "Signalled")
        const woken = yield* nowNanos
        latencies.push(woken - BigInt(yield* child.line))
      }
      report("release to wake-up", latencies)
    })
  )

  it.live("knows at once that a killed peer is dead", () =>
    Effect.gen(function* () {
      const directory = yield* newDirectory
      const wake = yield* WakeSocket.make({ directory })
      const latencies: Array<bigint> = []
      for (let round = 0; round < 10; round++) {
        const { child, peer } = yield* startPeer(directory)
        const next = yield* wake.subscribe(peer, "lease")
        const killed = yield* nowNanos
        yield* child.signal("SIGKILL")
        assert.strictEqual(yield* within(next), "Dead")
        latencies.push((yield* nowNanos) - killed)

        // Its socket file is still there: whoever comes later sees it dead as well.
        assert.isTrue(existsSync(peer.endpoint ?? ""))
        assert.strictEqual(yield* within(yield* wake.subscribe(peer, "lease")), "Dead")
      }
      report("SIGKILL to Dead", latencies)

      // The next process to start tidies up after them.
      yield* WakeSocket.make({ directory })
      assert.lengthOf(readdirSync(directory), 2)
    })
  )

  it.live("finds a peer unreachable that closed its socket and lives", () =>
    Effect.gen(function* () {
      const directory = yield* newDirectory
      const wake = yield* WakeSocket.make({ directory })
      const { child, peer } = yield* startPeer(directory)
      const next = yield* wake.subscribe(peer, "lease")
      yield* child.send("close")
      assert.strictEqual(yield* within(next), "Unreachable")
      assert.strictEqual(yield* within(yield* wake.subscribe(peer, "lease")), "Unreachable")
    })
  )

  it.live("finds a stopped peer unreachable, and a stopped peer that is killed dead", () =>
    Effect.gen(function* () {
      const directory = yield* newDirectory
      const wake = yield* WakeSocket.make({ directory })
      const { child, peer } = yield* startPeer(directory)
      const before = yield* wake.subscribe(peer, "lease")
      yield* child.signal("SIGSTOP")
      const during = yield* Effect.timeout(wake.subscribe(peer, "lease"), "5 seconds")
      assert.strictEqual(yield* within(during), "Unreachable")

      yield* child.signal("SIGKILL")
      assert.strictEqual(yield* within(before), "Dead")
      assert.strictEqual(yield* within(yield* wake.subscribe(peer, "lease")), "Dead")
    })
  )

  it.live("keeps a watch over a peer's stop and continuation", () =>
    Effect.gen(function* () {
      const directory = yield* newDirectory
      const wake = yield* WakeSocket.make({ directory })
      const { child, peer } = yield* startPeer(directory)
      const next = yield* wake.subscribe(peer, "lease")
      yield* child.signal("SIGSTOP")
      yield* child.send("notify lease")
      yield* child.signal("SIGCONT")
      assert.strictEqual(yield* within(next), "Signalled")
    })
  )

  it.live("I10: never waits for a stopped subscriber", () =>
    Effect.gen(function* () {
      const directory = yield* newDirectory
      const wake = yield* WakeSocket.make({ directory })
      const stopped = yield* startPeer(directory)
      const running = yield* startPeer(directory)
      for (const { child } of [stopped, running]) {
        yield* child.send(`watch lease ${JSON.stringify(wake.self)}`)
        assert.strictEqual(yield* child.line, "watching")
      }
      yield* stopped.child.signal("SIGSTOP")
      for (let signal = 0; signal < 10_000; signal++) yield* wake.notify("lease")
      assert.strictEqual(yield* running.child.line, "Signalled")

      // What the kernel kept for it is enough to wake it.
      yield* stopped.child.signal("SIGCONT")
      assert.strictEqual(yield* stopped.child.line, "Signalled")
    })
  )

  it.live("doesn't keep a process alive by its sockets", () =>
    Effect.gen(function* () {
      const directory = yield* newDirectory
      const wake = yield* WakeSocket.make({ directory })
      const { child, peer } = yield* startPeer(directory)
      const next = yield* wake.subscribe(peer, "lease")
      yield* child.send(`watch lease ${JSON.stringify(wake.self)}`)
      assert.strictEqual(yield* child.line, "watching")
      yield* child.send("leave")
      assert.strictEqual(yield* Effect.timeout(child.ended, "5 seconds"), 0)
      assert.strictEqual(yield* within(next), "Dead")
    })
  )
})
