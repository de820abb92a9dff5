import { afterAll, assert, describe, it } from "@effect/vitest"
import { Wake } from "@twinloop/core"
import { wakeContract } from "@twinloop/core/testing"
import { Context, Effect, Exit, Fiber, Layer, Scope } from "effect"
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs"
import { createConnection, createServer } from "node:net"
import type { Socket } from "node:net"
import { tmpdir } from "node:os"
import { basename, dirname, join } from "node:path"
import * as SocketDirectory from "../src/wake/SocketDirectory.ts"
import { keyOf } from "../src/wake/WakeListener.ts"
import * as WakeSocket from "../src/wake/WakeSocket.ts"

const root = mkdtempSync(join(tmpdir(), "tl-"))
let directories = 0

afterAll(() => rmSync(root, { recursive: true, force: true }))

/** A directory for sockets that doesn't exist yet. */
const newDirectory = Effect.sync(() => join(root, `${directories++}`))

const modeOf = (path: string): number => statSync(path).mode & 0o777

wakeContract("WakeSocket", { clock: "live", open: WakeSocket.make({ directory: join(root, "contract") }) })

/** Something that accepts connections and says what it is told to; gives its address and the connections. */
const peer = (onConnection: (socket: Socket) => void) =>
  Effect.gen(function* () {
    const path = join(root, `peer-${directories++}`)
    const sockets = new Set<Socket>()
    yield* Effect.acquireRelease(
      Effect.callback<ReturnType<typeof createServer>>((resume) => {
        const server = createServer((socket) => {
          sockets.add(socket.on("error", () => {}))
          onConnection(socket)
        })
        server.listen(path, () => resume(Effect.succeed(server)))
      }),
      (server) =>
        Effect.sync(() => {
          sockets.forEach((socket) => socket.destroy())
          server.close()
        })
    )
    return path
  })

describe("WakeSocket", () => {
  it.live("keeps its directory and its socket private to the user", () =>
    Effect.gen(function* () {
      const directory = yield* newDirectory
      mkdirSync(directory, { mode: 0o755 })
      const wake = yield* WakeSocket.make({ directory })
      assert.strictEqual(modeOf(directory), 0o700)
      assert.strictEqual(modeOf(wake.self.endpoint ?? ""), 0o600)
    })
  )

  it.live("removes its socket when its scope ends", () =>
    Effect.gen(function* () {
      const directory = yield* newDirectory
      yield* Effect.scoped(WakeSocket.make({ directory }))
      assert.deepStrictEqual(readdirSync(directory), [])
    })
  )

  it.live("removes the sockets of dead processes when it starts, and nothing else", () =>
    Effect.gen(function* () {
      const directory = yield* newDirectory
      const first = yield* WakeSocket.make({ directory })
      const place = (first.self.startedAt ?? "").split(".")[0]
      // 4194305 is above the highest pid that Linux gives.
      const dead = [`w-4194305-${place}.1-a`, `c-4194305-${place}.1-a`]
      for (const name of [...dead, "notes.txt"]) writeFileSync(join(directory, name), "")

      const second = yield* WakeSocket.make({ directory })
      assert.sameMembers(readdirSync(directory), [
        basename(first.self.endpoint ?? ""),
        basename(second.self.endpoint ?? ""),
        "notes.txt"
      ])
    })
  )

  it.live("I9: goes on without a socket where there can be none", () =>
    Effect.gen(function* () {
      const file = join(root, "file")
      writeFileSync(file, "")
      const reachable = yield* WakeSocket.make({ directory: yield* newDirectory })
      for (const directory of [file, join(file, "below"), "/proc/twinloop"]) {
        const wake = yield* WakeSocket.make({ directory })
        assert.isUndefined(wake.self.endpoint)
        assert.strictEqual(wake.self.pid, process.pid)
        yield* wake.notify("lease")

        // It can still watch others.
        const next = yield* wake.subscribe(reachable.self, "lease")
        yield* reachable.notify("lease")
        assert.strictEqual(yield* next, "Signalled")
      }
    })
  )

  it.live("doesn't follow a link that somebody put in the directory's place", () =>
    Effect.gen(function* () {
      const target = yield* newDirectory
      const directory = yield* newDirectory
      mkdirSync(target)
      symlinkSync(target, directory)
      const wake = yield* WakeSocket.make({ directory })
      assert.isUndefined(wake.self.endpoint)
    })
  )

  it.live("finds a dead peer dead at once, whatever is left of its socket", () =>
    Effect.gen(function* () {
      const wake = yield* WakeSocket.make({ directory: yield* newDirectory })
      const place = (wake.self.startedAt ?? "").split(".")[0]
      const dead = { pid: 4194305, startedAt: `${place}.1` }
      const leftover = join(root, "leftover")
      writeFileSync(leftover, "")
      for (const endpoint of [leftover, join(root, "absent"), `/${"long".repeat(100)}`, "nul\0"]) {
        assert.strictEqual(yield* yield* wake.subscribe({ ...dead, endpoint }, "lease"), "Dead")
        assert.strictEqual(yield* yield* wake.subscribe({ ...wake.self, endpoint }, "lease"), "Unreachable")
      }
      assert.strictEqual(yield* yield* wake.subscribe(dead, "lease"), "Dead")
    })
  )

  it.live("I10: gives up on a peer that accepts and says nothing", () =>
    Effect.gen(function* () {
      const wake = yield* WakeSocket.make({ directory: yield* newDirectory })
      const endpoint = yield* peer(() => {})
      const next = yield* Effect.timeout(wake.subscribe({ ...wake.self, endpoint }, "lease"), "2 seconds")
      assert.strictEqual(yield* next, "Unreachable")
    })
  )

  it.live("I10: hoards no signals for a subscriber that doesn't read", () =>
    Effect.gen(function* () {
      const wake = yield* WakeSocket.make({ directory: yield* newDirectory })
      const next = yield* wake.subscribe(wake.self, "lease")
      const stuck = yield* Effect.acquireRelease(
        Effect.sync(() => createConnection(wake.self.endpoint ?? "")),
        (socket) => Effect.sync(() => socket.destroy())
      )
      stuck.write(keyOf("lease"))
      yield* Effect.promise(() => new Promise((resolve) => stuck.once("readable", resolve)))
      for (let signal = 0; signal < 100_000; signal++) yield* wake.notify("lease")

      // Once it reads, it gets what the kernel kept, some hundred bytes, however many signals there were.
      let received = 0
      stuck.on("data", (chunk: Buffer) => (received += chunk.length))
      for (let round = 0; round < 200; round++) {
        yield* next
        yield* wake.notify("lease")
      }
      assert.isAbove(received, 1)
      assert.isBelow(received, 10_000)
    })
  )

  it.live("I10: cuts off who says nothing, or what it doesn't understand, and goes on", () =>
    Effect.gen(function* () {
      const wake = yield* WakeSocket.make({ directory: yield* newDirectory })
      const heard = yield* wake.asked("lease")
      const watched = yield* wake.subscribe(wake.self, "lease")
      const key = keyOf("lease")
      const garbage = [
        "",
        "?",
        key.slice(1),
        `??${key}`,
        ` ${key}`,
        key.toUpperCase(),
        "\0".repeat(100_000),
        "é".repeat(64)
      ]
      const strangers = garbage.map((said) => {
        const socket = createConnection(wake.self.endpoint ?? "").on("error", () => {})
        const closed = new Promise((resolve) => socket.once("close", resolve))
        let received = 0
        socket.on("data", (chunk: Buffer) => (received += chunk.length)).write(said)
        return { closed, received: () => received }
      })
      yield* Effect.promise(() => Promise.all(strangers.map(({ closed }) => closed)))
      for (const { received } of strangers) assert.strictEqual(received(), 0)

      // Nobody was told anything by them, and who watches silently is kept.
      const waiting = yield* Effect.forkChild(heard, { startImmediately: true })
      assert.isUndefined(waiting.pollUnsafe())
      yield* wake.ask(wake.self, "lease")
      yield* Fiber.join(waiting)
      yield* wake.notify("lease")
      assert.strictEqual(yield* watched, "Signalled")
    })
  )

  it.live("I10: asks a peer that accepts and reads nothing without waiting for it, and one that isn't there", () =>
    Effect.gen(function* () {
      const wake = yield* WakeSocket.make({ directory: yield* newDirectory })
      const deaf = yield* peer((socket) => socket.pause())
      const rude = yield* peer((socket) => socket.destroy())
      for (const endpoint of [deaf, rude, join(root, "absent"), `/${"long".repeat(100)}`, "nul\0", root]) {
        yield* Effect.timeout(wake.ask({ ...wake.self, endpoint }, "lease"), "2 seconds")
      }
      // Each would take a quarter of a second if it were waited for.
      const often = Effect.repeat(wake.ask({ ...wake.self, endpoint: deaf }, "lease"), { times: 80 })
      yield* Effect.timeout(often, "10 seconds")
    })
  )

  it.live("I10: is asked ten thousand times, by many at once, and hears the next one", () =>
    Effect.gen(function* () {
      const wake = yield* WakeSocket.make({ directory: yield* newDirectory })
      const other = yield* WakeSocket.make({ directory: yield* newDirectory })
      const heard = yield* wake.asked("lease")
      yield* Effect.forEach(Array.from({ length: 10_000 }), () => other.ask(wake.self, "lease"), { concurrency: 100 })
      yield* heard
      const again = yield* wake.asked("again")
      yield* other.ask(wake.self, "again")
      yield* again
    })
  )

  it.live("finds a peer unreachable that closes instead of acknowledging, and lives", () =>
    Effect.gen(function* () {
      const wake = yield* WakeSocket.make({ directory: yield* newDirectory })
      const endpoint = yield* peer((socket) => socket.destroy())
      assert.strictEqual(yield* yield* wake.subscribe({ ...wake.self, endpoint }, "lease"), "Unreachable")
    })
  )

  it.live("I4: closes its socket while it is suspended, and is watched again under the same address afterwards", () =>
    Effect.gen(function* () {
      const directory = yield* newDirectory
      const watcher = yield* WakeSocket.make({ directory: yield* newDirectory })
      const context = yield* Layer.build(WakeSocket.layer({ directory }))
      const wake = Context.get(context, Wake)
      const listening = Context.get(context, WakeSocket.WakeListening)
      const before = yield* watcher.subscribe(wake.self, "lease")

      // Closing twice, and opening twice, as if once.
      yield* listening.close
      yield* listening.close
      assert.deepStrictEqual(readdirSync(directory), [])
      assert.strictEqual(yield* before, "Unreachable")
      assert.strictEqual(yield* yield* watcher.subscribe(wake.self, "lease"), "Unreachable")
      yield* wake.notify("lease")
      const heard = yield* wake.asked("lease")
      yield* watcher.ask(wake.self, "lease")

      yield* listening.open
      yield* listening.open
      assert.strictEqual(modeOf(wake.self.endpoint ?? ""), 0o600)
      const after = yield* watcher.subscribe(wake.self, "lease")
      yield* wake.notify("lease")
      assert.strictEqual(yield* after, "Signalled")
      // Who listens listens on; what was asked meanwhile is lost.
      const waiting = yield* Effect.forkChild(heard, { startImmediately: true })
      assert.isUndefined(waiting.pollUnsafe())
      yield* watcher.ask(wake.self, "lease")
      yield* Fiber.join(waiting)
    })
  )

  it.live("ends the watch with its scope", () =>
    Effect.gen(function* () {
      const wake = yield* WakeSocket.make({ directory: yield* newDirectory })
      const scope = yield* Scope.make()
      let closed: () => void = () => {}
      const whenClosed = new Promise<void>((resolve) => (closed = resolve))
      const endpoint = yield* peer((socket) => {
        socket.once("close", closed).write(Buffer.of(1))
        socket.resume()
      })
      yield* Effect.asVoid(Scope.provide(wake.subscribe({ ...wake.self, endpoint }, "lease"), scope))
      yield* Scope.close(scope, Exit.void)
      yield* Effect.promise(() => whenClosed)
    })
  )
})

describe("SocketDirectory", () => {
  it.effect("puts the sockets beside the database", () =>
    Effect.gen(function* () {
      const directory = yield* SocketDirectory.forDatabase(join(root, "a.db"))
      assert.strictEqual(directory, join(root, "a.db-sockets"))
    })
  )

  it.effect("gives one directory for every spelling of a database's path", () =>
    Effect.gen(function* () {
      symlinkSync(root, join(root, "link"))
      const expected = yield* SocketDirectory.forDatabase(join(root, "b.db"))
      for (const spelling of [`${root}/./b.db`, join(root, "link", "b.db"), `${root}/link/link/b.db`]) {
        assert.strictEqual(yield* SocketDirectory.forDatabase(spelling), expected)
      }
      // The same before and after the file is there.
      writeFileSync(join(root, "b.db"), "")
      assert.strictEqual(yield* SocketDirectory.forDatabase(join(root, "link", "b.db")), expected)
    })
  )

  it.live("finds a short directory for a database with a long path, where sockets work", () =>
    Effect.gen(function* () {
      const deep = join(root, "d".repeat(60), "e".repeat(60))
      mkdirSync(deep, { recursive: true })
      const directory = yield* SocketDirectory.forDatabase(join(deep, "a.db"))
      yield* Effect.addFinalizer(() => Effect.sync(() => rmSync(directory, { recursive: true, force: true })))
      assert.notStrictEqual(directory, yield* SocketDirectory.forDatabase(join(deep, "b.db")))
      const wake = yield* WakeSocket.make({ directory })
      assert.isAtMost(Buffer.byteLength(wake.self.endpoint ?? ""), 103)
      assert.strictEqual(modeOf(dirname(directory)), 0o700)
      const next = yield* wake.subscribe(wake.self, "lease")
      yield* wake.notify("lease")
      assert.strictEqual(yield* next, "Signalled")
    })
  )

  it.effect("lists nothing where no process has ever run", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* SocketDirectory.list(join(root, "absent")), [])
    })
  )
})
