/** What a program of the same user can do to the local sockets of a process (invariant I10). Others can't connect at all. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer } from "effect"
import type { Scope } from "effect"
import { readdirSync } from "node:fs"
import { createConnection, type Socket } from "node:net"
import { join } from "node:path"
import * as ControlClient from "../src/control/ControlClient.ts"
import * as ControlServer from "../src/control/ControlServer.ts"
import { limits } from "../src/control/ControlSocket.ts"
import * as SocketDirectory from "../src/wake/SocketDirectory.ts"
import * as WakeSocket from "../src/wake/WakeSocket.ts"
import { temporaryFile } from "./SqliteKit.ts"

/** A connection that is destroyed with the scope, and never gets in the way by an error. */
const connection = (path: string): Effect.Effect<Socket, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => createConnection(path).on("error", () => {})),
    (socket) => Effect.sync(() => socket.destroy())
  )

const untilClosed = (socket: Socket): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (socket.closed) return resume(Effect.void)
    socket.once("close", () => resume(Effect.void))
  })

/** Waits until only so many of them are open. */
const untilOpen = (sockets: ReadonlyArray<Socket>, count: number): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const look = (): void => {
      if (sockets.filter(({ closed }) => !closed).length <= count) resume(Effect.void)
    }
    for (const socket of sockets) socket.once("close", look).resume()
    look()
  })

/** Serves a control socket whose status takes note of each request. */
const serve = Effect.gen(function* () {
  const database = yield* temporaryFile
  const directory = yield* SocketDirectory.forDatabase(database)
  const asked = { times: 0 }
  const handlers: ControlServer.ControlHandlers = {
    status: Effect.sync(() => {
      asked.times++
      return { pid: process.pid, role: "main", state: "running", homeserver: "x".repeat(2_000) }
    }),
    suspend: () => Effect.never,
    resume: Effect.void,
    stop: Effect.succeed({ quiet: true, unfinished: [] })
  }
  yield* Layer.build(ControlServer.layer({ directory, handlers }))
  const ask = Effect.gen(function* () {
    const [target] = yield* ControlClient.find(database)
    const client = yield* ControlClient.connect(target)
    return (yield* client.status).pid
  }).pipe(Effect.scoped)
  return { ask, asked, path: join(directory, readdirSync(directory)[0]!) }
})

const request = (id: number, tag = "Status"): string =>
  `${JSON.stringify({ _tag: "Request", id: String(id), tag, payload: tag === "Status" ? null : {}, headers: [] })}\n`

const garbage: ReadonlyArray<string | Uint8Array> = [
  new Uint8Array(10_000).map((_, index) => (index * 7_919) % 256),
  "GET / HTTP/1.1\r\nhost: x\r\n\r\n",
  "null\n",
  "[]\n[null]\n7\n",
  `${"[".repeat(30_000)}${"]".repeat(30_000)}\n`,
  `{"_tag":"Request"}\n`,
  `{"_tag":"Request","id":"1","tag":"__proto__","payload":{},"headers":[]}\n`,
  `{"_tag":"Request","id":"1","tag":"constructor","payload":{},"headers":{"__proto__":[]}}\n`,
  `{"_tag":"Request","id":"-1e400","tag":"Suspend","payload":{"deadlineMillis":1e400},"headers":[]}\n`,
  `{"_tag":"Request","id":{"__proto__":null},"tag":"Status","headers":[["a"]]}\n`,
  `{"_tag":"Interrupt","requestId":"9"}\n{"_tag":"Ack","requestId":null}\n{"_tag":"Eof"}\n{"_tag":"toString"}\n`,
  "\ud800\n"
]

describe("The control socket", () => {
  it.live("I7: goes on answering after whatever is no request", () =>
    Effect.gen(function* () {
      const { ask, path } = yield* serve
      for (const bytes of garbage) {
        const socket = yield* connection(path)
        socket.resume().end(bytes)
        yield* untilClosed(socket)
        assert.strictEqual(yield* ask, process.pid)
      }
    }).pipe(Effect.scoped)
  )

  it.live("I10: closes the connection of a request without an end", () =>
    Effect.gen(function* () {
      const { ask, path } = yield* serve
      const socket = yield* connection(path)
      socket.resume().write("x".repeat(limits.requestLength + 1))
      yield* untilClosed(socket)
      assert.strictEqual(yield* ask, process.pid)
    }).pipe(Effect.scoped)
  )

  it.live("I10: has a limit on connections, and answers again when a crowd is gone", () =>
    Effect.gen(function* () {
      const { ask, path } = yield* serve
      const crowd = yield* Effect.forEach(Array.from({ length: 1_000 }), () => connection(path))
      // All but those that there may be are closed by the process.
      yield* untilOpen(crowd, 32)
      yield* Effect.sync(() => crowd.forEach((socket) => socket.destroy()))
      assert.strictEqual(yield* Effect.eventually(ask), process.pid)
    }).pipe(Effect.scoped)
  )

  it.live("I10: answers others while one asks without end and reads nothing, and then no more of him", () =>
    Effect.gen(function* () {
      const { ask, asked, path } = yield* serve
      const socket = yield* connection(path)
      const flood = yield* Effect.forkChild(
        Effect.forever(
          Effect.callback<void>((resume) => {
            const lines = Array.from({ length: 500 }, (_, index) => request(Math.floor(Math.random() * 1e9) + index))
            socket.write(lines.join(""), () => setImmediate(() => resume(Effect.void)))
          })
        )
      )
      assert.strictEqual(yield* ask, process.pid)
      // Nobody reads at the other end, so that only its closing ends it.
      yield* untilClosed(socket)
      yield* Fiber.interrupt(flood)
      assert.strictEqual(yield* ask, process.pid)
      assert.isBelow(asked.times, 5_000)
    }).pipe(Effect.scoped)
  )
})

describe("The wake-up socket", () => {
  it.live("I10: cuts off a crowd that says what it doesn't understand, and signals again afterwards", () =>
    Effect.gen(function* () {
      const database = yield* temporaryFile
      const directory = yield* SocketDirectory.forDatabase(database)
      const wake = yield* WakeSocket.make({ directory })
      const path = join(directory, readdirSync(directory)[0]!)
      const crowd = yield* Effect.forEach(Array.from({ length: 1_000 }), () => connection(path))
      for (const socket of crowd) socket.resume().write("0".repeat(63) + "\u00ff".repeat(10))
      yield* Effect.forEach(crowd, untilClosed, { concurrency: "unbounded", discard: true })
      const watch = yield* wake.subscribe(wake.self, "topic")
      yield* wake.notify("topic")
      assert.strictEqual(yield* watch, "Signalled")
    }).pipe(Effect.scoped)
  )
})
