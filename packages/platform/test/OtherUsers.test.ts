/**
 * What other users of the machine can read, write, connect to, or put in the way.
 *
 * Gotchas: only root can be two users, so that a run as another user skips those that need both, and says so by their names.
 */
import { assert, describe, it } from "@effect/vitest"
import { NotificationSink } from "@twinloop/core"
import { Effect, Layer } from "effect"
import { spawnSync } from "node:child_process"
import {
  chmodSync,
  chownSync,
  lchownSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as ControlServer from "../src/control/ControlServer.ts"
import { StoreKey } from "../src/crypto/StoreKey.ts"
import { JsonLinesSink } from "../src/push/sinks/index.ts"
import * as SocketDirectory from "../src/wake/SocketDirectory.ts"
import * as WakeSocket from "../src/wake/WakeSocket.ts"
import * as SinkKit from "./sinks/SinkKit.ts"
import { storesAt, temporaryDirectory } from "./SqliteKit.ts"

/** Somebody who is neither this user nor root. */
const other = 54_321

const asRoot = it.live.skipIf(process.getuid?.() !== 0)

const modeOf = (path: string): string => (statSync(path).mode & 0o7777).toString(8)

const program = fileURLToPath(new URL("OtherUser.ts", import.meta.url))

/** What another user could do to these paths. */
const attempted = (paths: ReadonlyArray<string>): { readonly uid: number; readonly worked: ReadonlyArray<string> } => {
  const { stderr, stdout } = spawnSync(process.execPath, [program, String(other), ...paths], { encoding: "utf8" })
  assert.strictEqual(stderr, "")
  return JSON.parse(stdout)
}

/** Runs with a umask that gives everybody everything, or nobody anything but what is asked for. */
const withUmask = (umask: number) =>
  Effect.acquireRelease(
    Effect.sync(() => process.umask(umask)),
    (before) => Effect.sync(() => process.umask(before))
  )

/** Everything that a process of an account leaves on a disk. */
const account = Effect.fnUntraced(function* (directory: string) {
  const database = join(directory, "account.db")
  const sockets = yield* SocketDirectory.forDatabase(database)
  const handlers: ControlServer.ControlHandlers = {
    status: Effect.never,
    suspend: () => Effect.never,
    resume: Effect.void,
    stop: Effect.never
  }
  yield* Layer.build(Layer.fresh(storesAt(database)))
  yield* Layer.build(ControlServer.layer({ directory: sockets, handlers }))
  yield* WakeSocket.make({ directory: sockets })
  const keyFile = `${database}.key`
  yield* Effect.provide(
    Effect.flatMap(StoreKey, (store) => store.key({ isNew: true })),
    StoreKey.layerFile(keyFile)
  )
  const lines = join(directory, "notifications.jsonl")
  yield* show(lines)
  const files = ["", "-wal", "-shm", ".key"].map((suffix) => database + suffix).concat(lines)
  return { files, sockets, inSockets: readdirSync(sockets).map((name) => join(sockets, name)) }
})

const show = (file: string) =>
  Effect.provide(
    Effect.flatMap(NotificationSink.NotificationSink, (sink) => sink.show(SinkKit.messageOf("$e"))),
    JsonLinesSink.layer({ file })
  )

/** A directory where everybody may make files, as `/tmp`. */
const sharedDirectory = Effect.tap(temporaryDirectory, (directory) => Effect.sync(() => chmodSync(directory, 0o1777)))

describe("Files and sockets of an account", () => {
  for (const umask of [0o000, 0o022, 0o277]) {
    it.live(`are this user's alone with umask ${umask.toString(8)}`, () =>
      Effect.gen(function* () {
        const directory = yield* sharedDirectory
        yield* withUmask(umask)
        const { files, inSockets, sockets } = yield* account(directory)
        assert.strictEqual(modeOf(sockets), "700")
        assert.lengthOf(inSockets, 2)
        for (const path of [...files, ...inSockets]) assert.strictEqual(statSync(path).mode & 0o077, 0, path)
        for (const path of [...files.slice(0, 3), ...inSockets]) assert.strictEqual(modeOf(path), "600", path)
      }).pipe(Effect.scoped)
    )
  }

  asRoot("can't be read, written or connected to by another user (needs root, to be one)", () =>
    Effect.gen(function* () {
      const directory = yield* sharedDirectory
      yield* withUmask(0)
      const { files, inSockets, sockets } = yield* account(directory)
      // The directory itself is everybody's, which shows that he was let in so far.
      const { uid, worked } = attempted([directory, sockets, ...files, ...inSockets])
      assert.strictEqual(uid, other)
      assert.deepStrictEqual(worked, [`read ${directory}`, `write ${directory}`])
    }).pipe(Effect.scoped)
  )
})

/** A file of somebody else's that anybody may write, and one of ours that he would like to have changed. */
const plant = Effect.fnUntraced(function* (name: string, what: "file" | "link") {
  const directory = yield* sharedDirectory
  const precious = join(yield* temporaryDirectory, "precious")
  writeFileSync(precious, "precious", { mode: 0o644 })
  const path = join(directory, name)
  if (what === "link") symlinkSync(precious, path)
  else {
    writeFileSync(path, "")
    chmodSync(path, 0o666)
  }
  lchownSync(path, other, other)
  const untouched = (): void => {
    assert.strictEqual(readFileSync(precious, "utf8"), "precious")
    assert.strictEqual(modeOf(precious), "644")
    if (what === "file") assert.strictEqual(statSync(path).size, 0)
  }
  return { directory, path, untouched }
})

describe("What another user puts in the way in a shared directory (needs root, to be one)", () => {
  for (const what of ["file", "link"] as const) {
    for (const suffix of ["", "-wal", "-shm"]) {
      asRoot(`as a ${what} under the name of the database${suffix} is refused`, () =>
        Effect.gen(function* () {
          const { directory, untouched } = yield* plant(`account.db${suffix}`, what)
          const error = yield* Effect.flip(Layer.build(Layer.fresh(storesAt(join(directory, "account.db")))))
          assert.include(error.message, `belongs to user ${other}`)
          untouched()
        }).pipe(Effect.scoped)
      )
    }

    asRoot(`as a ${what} under the name of the key is refused`, () =>
      Effect.gen(function* () {
        const { path, untouched } = yield* plant("account.db.key", what)
        const read = Effect.flatMap(StoreKey, (store) => store.key({ isNew: true }))
        const error = yield* Effect.flip(Effect.provide(read, StoreKey.layerFile(path)))
        assert.include(error.message, `belongs to user ${other}`)
        untouched()
      }).pipe(Effect.scoped)
    )

    asRoot(`as a ${what} under the name of the file of notifications is refused`, () =>
      Effect.gen(function* () {
        const { path, untouched } = yield* plant("notifications.jsonl", what)
        const error = yield* Effect.flip(show(path))
        assert.include(error.message, `belongs to user ${other}`)
        untouched()
      }).pipe(Effect.scoped)
    )
  }

  asRoot("as a directory for the sockets is refused", () =>
    Effect.gen(function* () {
      const directory = yield* sharedDirectory
      const sockets = join(directory, "account.db-sockets")
      mkdirSync(sockets, { mode: 0o777 })
      chownSync(sockets, other, other)
      const error = yield* Effect.flip(SocketDirectory.claim(sockets, "c"))
      assert.include(error.message, `belongs to user ${other}`)
      assert.deepStrictEqual(readdirSync(sockets), [])
    }).pipe(Effect.scoped)
  )

  asRoot("as the outer directory for sockets gets nothing made in it", () =>
    Effect.gen(function* () {
      const outer = join(yield* sharedDirectory, `twinloop-${process.getuid?.()}`)
      mkdirSync(outer, { mode: 0o777 })
      chownSync(outer, other, other)
      yield* Effect.flip(SocketDirectory.claim(join(outer, "0123456789ab"), "w"))
      assert.deepStrictEqual(readdirSync(outer), [])
    }).pipe(Effect.scoped)
  )
})
