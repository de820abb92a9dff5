/**
 * Where the local sockets of a database's processes live: one private directory per database, one file per socket.
 *
 * The name of a file says whose it is (`w-<pid>-<startedAt>-<random>`), so that the running processes of a database can be
 * listed, and what dead ones left can be removed, without asking anybody.
 *
 * Invariants: I10 (`limits`).
 *
 * Gotchas: the operating system cuts or refuses long socket paths (104 bytes on macOS, 108 on Linux), so a database with
 * a long path has its directory under the temporary one, named by a hash. On Windows sockets are named pipes, which
 * belong to no directory: a file of the same name stands for each.
 *
 * Not here: what is said over the sockets (`WakeSocket.ts`, `ControlServer.ts`).
 */
import type { Lease } from "@twinloop/core"
import { Effect, Random, Schema } from "effect"
import type { Scope } from "effect"
import { chmodSync, lstatSync, mkdirSync, readdirSync, realpathSync, rmSync, writeFileSync } from "node:fs"
import { createConnection } from "node:net"
import { tmpdir } from "node:os"
import { basename, dirname, join, resolve } from "node:path"
import { sha256 } from "./Digest.ts"
import * as ProcessIdentity from "./ProcessIdentity.ts"

/** What a socket is for: wake-ups or control. */
export type SocketKind = "w" | "c"

/** A socket of some process, known by its file. */
export interface SocketFile {
  readonly kind: SocketKind
  readonly peer: Lease.Peer & { readonly pid: number }
  /** The file that stands for it. */
  readonly path: string
  /** What to listen on or connect to. */
  readonly address: string
}

/** The directory for sockets can't be used; `message` says why and what to do. */
export class SocketDirectoryError extends Schema.TaggedError<SocketDirectoryError>(
  "@twinloop/platform/SocketDirectoryError"
)("SocketDirectoryError", {
  message: Schema.String,
  directory: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {}

const limits = {
  /** 104 bytes with the closing zero on macOS, the smallest of the platforms. */
  pathBytes: 103,
  /** The longest file name: kind, 7 digits of pid, 8 of place, 12 of start time, 4 random, separators. */
  nameBytes: 38,
  /** A probe of a local socket is answered by the kernel, also for a stopped process. */
  probeMillis: 250
}

const isWindows = process.platform === "win32"
/** The directory of this user under the temporary directory, which everybody can write to. */
const ownName = `twinloop-${process.getuid?.() ?? "user"}`

const namePattern = /^([wc])-(\d+)-([0-9a-z.]*)-[0-9a-z]+$/

const hash = (text: string): string => sha256(text).slice(0, 12)

const addressOf = (path: string): string =>
  isWindows ? `\\\\.\\pipe\\twinloop-${hash(dirname(path))}-${basename(path)}` : path

/** The same for every spelling of a path; a database that doesn't exist yet is named by its directory. */
const canonical = (filename: string): string => {
  const full = resolve(filename)
  for (const [path, rest] of [
    [full, ""],
    [dirname(full), basename(full)]
  ] as const) {
    try {
      return join(realpathSync.native(path), rest)
    } catch {
      // Not there yet: the directory names it, else the path as it was given.
    }
  }
  return full
}

const fits = (directory: string): boolean => Buffer.byteLength(directory) + 1 + limits.nameBytes <= limits.pathBytes

/**
 * The directory for the sockets of a database: `<database>-sockets` beside it, or a short one under the temporary
 * directory when the path would be too long for a socket. Nothing is created. A database in memory belongs to one process,
 * and so does its directory.
 */
export const forDatabase = (filename: string): Effect.Effect<string> =>
  Effect.sync(() => {
    const isMemory = filename === "" || filename === ":memory:"
    const database = isMemory ? `memory of ${process.pid}` : canonical(filename)
    const beside = `${database}-sockets`
    if (!isMemory && (isWindows || fits(beside))) return beside
    const short = join(ownName, hash(database))
    const underTmp = join(tmpdir(), short)
    // The temporary directory of macOS has itself half of the allowed length.
    return isWindows || fits(underTmp) ? underTmp : join("/tmp", short)
  })

const fileOf = (directory: string, name: string): SocketFile | undefined => {
  const match = namePattern.exec(name)
  if (match === null) return undefined
  const path = join(directory, name)
  const peer = match[3] === "" ? { pid: Number(match[2]) } : { pid: Number(match[2]), startedAt: match[3]! }
  return { kind: match[1] === "w" ? "w" : "c", peer, path, address: addressOf(path) }
}

/** The sockets in a directory, of living and dead processes; none when there is no directory. */
export const list = (directory: string): Effect.Effect<ReadonlyArray<SocketFile>> =>
  Effect.sync(() => {
    try {
      return readdirSync(directory).flatMap((name) => fileOf(directory, name) ?? [])
    } catch {
      // No directory, or none that we may read: no process that we could reach.
      return []
    }
  })

/** Whether nobody listens on a socket file of a process that can't be seen from here. */
const isRefused = (file: SocketFile): Effect.Effect<boolean> =>
  Effect.callback<boolean>((resume) => {
    const socket = createConnection({ path: file.address })
    socket.once("connect", () => resume(Effect.succeed(false)))
    socket.once("error", (error: NodeJS.ErrnoException) => resume(Effect.succeed(error.code === "ECONNREFUSED")))
    return Effect.sync(() => socket.destroy())
  }).pipe(Effect.timeoutOrElse({ duration: limits.probeMillis, orElse: () => Effect.succeed(false) }))

const isLeftover = Effect.fnUntraced(function* (file: SocketFile) {
  const liveness = yield* ProcessIdentity.check(file.peer)
  return liveness === "Dead" || (liveness === "Unknown" && (yield* isRefused(file)))
})

const remove = (file: SocketFile): Effect.Effect<void> =>
  // What can't be removed is in nobody's way: its name is never used again.
  Effect.ignore(Effect.try(() => rmSync(file.path, { force: true })))

/** Removes what dead processes left in a directory. */
export const sweep = (directory: string): Effect.Effect<void> =>
  Effect.flatMap(list(directory), (files) =>
    Effect.forEach(files, (file) => Effect.when(remove(file), isLeftover(file)), { concurrency: 8, discard: true })
  )

/**
 * Makes a directory and the missing ones above it. Node's own `recursive` option never returns where the file system answers
 * `ENOENT` for a directory that can't be made (as in /proc).
 */
const makeDirectory = (path: string): void => {
  try {
    mkdirSync(path, 0o700)
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    if (code === "EEXIST") return
    if (code !== "ENOENT" || dirname(path) === path) throw error
    makeDirectory(dirname(path))
    mkdirSync(path, 0o700)
  }
}

/** Who may write to this directory can pose as a process of ours, so it must be ours alone; the outer one is looked at first. */
const insist = (directory: string): void => {
  const parent = dirname(directory)
  const uid = process.getuid?.()
  for (const path of basename(parent) === ownName ? [parent, directory] : [directory]) {
    makeDirectory(path)
    if (isWindows) continue
    const stat = lstatSync(path)
    if (!stat.isDirectory()) throw new Error(`${path} is not a directory`)
    if (stat.uid !== uid) throw new Error(`${path} belongs to user ${stat.uid}, not to ${uid}`)
    if ((stat.mode & 0o777) !== 0o700) chmodSync(path, 0o700)
  }
}

const prepare = (directory: string): Effect.Effect<void, SocketDirectoryError> =>
  Effect.try({
    try: () => insist(directory),
    catch: (cause) =>
      new SocketDirectoryError({
        message: `can't use ${directory} for local sockets: ${cause instanceof Error ? cause.message : cause}; make it a directory of yours, or remove it`,
        directory,
        cause
      })
  })

/**
 * A new place for a socket of this process, in a directory that is made private (0700) and swept first. The file goes with
 * the scope. Fails when the directory can't be made or is somebody else's.
 */
export const claim = Effect.fnUntraced(function* (
  directory: string,
  kind: SocketKind
): Effect.fn.Return<SocketFile, SocketDirectoryError, Scope.Scope> {
  yield* prepare(directory)
  yield* sweep(directory)
  const peer = yield* ProcessIdentity.self
  const random = (yield* Random.nextIntBetween(0, 36 ** 4)).toString(36)
  const path = join(directory, `${kind}-${peer.pid}-${peer.startedAt ?? ""}-${random}`)
  const file: SocketFile = { kind, peer, path, address: addressOf(path) }
  yield* Effect.addFinalizer(() => remove(file))
  return file
})

/** Makes a socket that listens private to the user (0600), and seen by `list`. */
export const publish = (file: SocketFile): Effect.Effect<void, SocketDirectoryError> =>
  Effect.try({
    try: () => (isWindows ? writeFileSync(file.path, "") : chmodSync(file.path, 0o600)),
    catch: (cause) =>
      new SocketDirectoryError({ message: `can't protect ${file.path}`, directory: dirname(file.path), cause })
  })
