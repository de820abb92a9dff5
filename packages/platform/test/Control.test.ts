import { afterAll, assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Ref, Scope } from "effect"
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs"
import { createConnection, createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as ControlClient from "../src/control/ControlClient.ts"
import { ControlRefused } from "../src/control/ControlProtocol.ts"
import type { Status } from "../src/control/ControlProtocol.ts"
import * as ControlServer from "../src/control/ControlServer.ts"
import * as SocketDirectory from "../src/wake/SocketDirectory.ts"

const root = mkdtempSync(join(tmpdir(), "tl-"))
let databases = 0

afterAll(() => rmSync(root, { recursive: true, force: true }))

const newDatabase = Effect.sync(() => join(root, `${databases++}.db`))

const status: Status = {
  pid: process.pid,
  role: "main",
  state: "running",
  main: { state: "Loading", loaded: 20, total: 200 },
  lease: { holder: "main-1", isMine: true, generation: 7, waiters: ["standby-2"] },
  rooms: 200,
  encryption: { keyFile: "/a.db.key", fingerprint: "abc", isVerified: true, roomKeys: 3, oneTimeKeyConflicts: 0 }
}

const handlers: ControlServer.ControlHandlers = {
  status: Effect.succeed(status),
  suspend: (deadlineMillis) =>
    Effect.succeed({ quiet: false, tookMillis: deadlineMillis ?? -1, unfinished: ["a commit"] }),
  resume: Effect.void,
  stop: Effect.succeed({ quiet: true, tookMillis: 3, unfinished: [] })
}

/** Serves a database's control socket until the scope of the test ends. */
const serve = Effect.fnUntraced(function* (database: string, overrides: Partial<ControlServer.ControlHandlers> = {}) {
  const directory = yield* SocketDirectory.forDatabase(database)
  yield* Layer.build(ControlServer.layer({ directory, handlers: { ...handlers, ...overrides } }))
  return directory
})

/** With a limit far above what an answer takes, and far below what a test may. */
const connect = (database: string) =>
  Effect.flatMap(ControlClient.find(database), ([first]) => ControlClient.connect(first, { answerMillis: 300 }))

describe("Control", () => {
  it.live("asks a running process how it is, and who owns the extension stream", () =>
    Effect.gen(function* () {
      const database = yield* newDatabase
      yield* serve(database)
      const client = yield* connect(database)
      assert.deepStrictEqual(yield* client.status, status)
      assert.deepStrictEqual(yield* client.lease, status.lease)
    })
  )

  it.live("passes on requests with their deadline, and answers what was not finished", () =>
    Effect.gen(function* () {
      const database = yield* newDatabase
      const resumed = yield* Ref.make(0)
      yield* serve(database, { resume: Ref.update(resumed, (count) => count + 1) })
      const client = yield* connect(database)
      assert.deepStrictEqual(yield* client.suspend(1_500), {
        quiet: false,
        tookMillis: 1_500,
        unfinished: ["a commit"]
      })
      assert.strictEqual((yield* client.suspend()).tookMillis, -1)
      yield* client.resume
      assert.strictEqual(yield* Ref.get(resumed), 1)
      assert.deepStrictEqual(yield* client.stop, { quiet: true, tookMillis: 3, unfinished: [] })
    })
  )

  it.live("passes on why a process refuses, and goes on answering after a defect in a handler", () =>
    Effect.gen(function* () {
      const database = yield* newDatabase
      yield* serve(database, {
        resume: new ControlRefused({ message: "suspended by the system" }),
        stop: Effect.die("a broken invariant")
      })
      const client = yield* connect(database)
      assert.strictEqual((yield* Effect.flip(client.resume)).message, "suspended by the system")
      assert.include((yield* Effect.flip(client.stop)).message, "a broken invariant")
      assert.strictEqual((yield* client.status).pid, process.pid)
    })
  )

  it.live("says that no process is running, and what to do", () =>
    Effect.gen(function* () {
      const database = yield* newDatabase
      const error = yield* Effect.flip(ControlClient.find(database))
      assert.strictEqual(error.reason._tag, "NotRunning")
      assert.strictEqual(error.message, `no twinloop process is running on ${database}; start one with twinloop run`)
    })
  )

  it.live("says which processes are running when the asked one isn't", () =>
    Effect.gen(function* () {
      const database = yield* newDatabase
      yield* serve(database)
      assert.strictEqual((yield* ControlClient.find(database, process.pid))[0].pid, process.pid)
      const error = yield* Effect.flip(ControlClient.find(database, 4194305))
      assert.include(error.message, `no twinloop process 4194305 is running on ${database}; running: ${process.pid}`)
    })
  )

  it.live("doesn't list wake-up sockets, nor what dead processes left", () =>
    Effect.gen(function* () {
      const database = yield* newDatabase
      const directory = yield* serve(database)
      const own = readdirSync(directory)
      writeFileSync(join(directory, (own[0] ?? "").replace(/^c-\d+/, "c-4194305")), "")
      writeFileSync(join(directory, (own[0] ?? "").replace(/^c/, "w")), "")
      assert.deepStrictEqual(
        (yield* ControlClient.list(directory)).map((target) => target.pid),
        [process.pid]
      )
    })
  )

  it.live("keeps the socket private, and removes it with its scope, also when a client is connected and silent", () =>
    Effect.gen(function* () {
      const database = yield* newDatabase
      const scope = yield* Scope.make()
      const directory = yield* Scope.provide(serve(database), scope)
      const [name = ""] = readdirSync(directory)
      assert.strictEqual(statSync(join(directory, name)).mode & 0o777, 0o600)

      const silent = createConnection(join(directory, name))
      const closed = new Promise((resolve) => silent.once("close", resolve).resume())
      yield* Effect.promise(() => new Promise((resolve) => silent.once("connect", resolve)))
      yield* Effect.timeout(Scope.close(scope, Exit.void), "2 seconds")
      yield* Effect.promise(() => closed)
      assert.deepStrictEqual(readdirSync(directory), [])
    })
  )

  it.live("I10: gives up on a process that accepts and never answers", () =>
    Effect.gen(function* () {
      const database = yield* newDatabase
      const directory = yield* SocketDirectory.forDatabase(database)
      mkdirSync(directory)
      const file = yield* SocketDirectory.claim(directory, "c")
      const server = createServer(() => {}).listen(file.address)
      yield* Effect.addFinalizer(() => Effect.sync(() => server.close()))
      yield* Effect.promise(() => new Promise((resolve) => server.once("listening", resolve)))
      const client = yield* connect(database)
      const error = yield* Effect.flip(client.status)
      assert.strictEqual(error.reason._tag, "NoAnswer")
      assert.include(error.message, `kill -CONT ${process.pid}`)
    })
  )

  it.live("says that a process has ended between finding and asking it", () =>
    Effect.gen(function* () {
      const database = yield* newDatabase
      const scope = yield* Scope.make()
      yield* Scope.provide(serve(database), scope)
      const [target] = yield* ControlClient.find(database)
      yield* Scope.close(scope, Exit.void)
      const client = yield* ControlClient.connect(target)
      assert.strictEqual((yield* Effect.flip(client.status)).reason._tag, "ControlBroken")
    })
  )

  it.live("tells a client that waits when the process closes its socket", () =>
    Effect.gen(function* () {
      const database = yield* newDatabase
      const scope = yield* Scope.make()
      const asked = yield* Deferred.make<void>()
      const suspend = () => Effect.andThen(Deferred.succeed(asked, undefined), Effect.never)
      yield* Scope.provide(serve(database, { suspend }), scope)
      const client = yield* connect(database)
      const waiting = yield* Effect.forkChild(Effect.flip(client.suspend()))
      yield* Deferred.await(asked)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual((yield* Effect.timeout(Fiber.join(waiting), "2 seconds")).reason._tag, "ControlBroken")
    })
  )
})
