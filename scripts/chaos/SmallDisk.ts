/**
 * A disk of a few megabytes that can be filled: a tmpfs in a mount namespace of this process and those that it starts.
 *
 * What a program meets on it when it is full is the real thing, ENOSPC from the kernel, in whatever it writes: the database, its
 * logs, the file of notifications, a socket. It is memory, though: nothing here tells what survives a loss of power.
 *
 * Needs Linux, and the right to mount: root, or a user who may make user namespaces. Elsewhere there is none. Others than this
 * process and its children don't see what is on it, so whoever fails copies it away.
 *
 * Gotchas: a limit by `ulimit -f` would be no full disk: SQLite takes its EFBIG for a broken one, and rightly gives up.
 */
import { Effect } from "effect"
import { spawnSync } from "node:child_process"
import { closeSync, ftruncateSync, mkdirSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"

export interface Place {
  /** Everything that is kept of a run. */
  readonly directory: string
  /** Where the account is: on the small disk, if there is one. */
  readonly disk: string
  readonly isSmall: boolean
}

const VARIABLE = "TWINLOOP_SMALL_DISK"
const MIB = 1_048_576

const namespaces = [["--mount"], ["--user", "--map-root-user", "--mount"]]

const mount = 'mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@"'

const pathOf = (program: string): string | undefined => {
  const { status, stdout } = spawnSync("sh", ["-c", `command -v ${program}`], { encoding: "utf8" })
  return status === 0 ? stdout.trim() : undefined
}

/**
 * Makes the directory of a run with the small disk in it, and begins this program again inside; comes back when it is there, or
 * can't be had.
 */
export const enter = (prefix: string, megabytes: number): Place => {
  const known = process.env[VARIABLE]
  if (known !== undefined) return { directory: known, disk: join(known, "disk"), isSmall: true }
  const directory = mkdtempSync(join(tmpdir(), prefix))
  const disk = join(directory, "disk")
  mkdirSync(disk, { mode: 0o700 })
  const unshare = pathOf("unshare")
  const inside = (flags: ReadonlyArray<string>, command: ReadonlyArray<string>) => [
    ...flags,
    "sh",
    "-c",
    mount,
    "sh",
    `${megabytes}m`,
    disk,
    ...command
  ]
  const flags =
    unshare === undefined ? undefined : namespaces.find((one) => spawnSync(unshare, inside(one, ["true"])).status === 0)
  if (unshare !== undefined && flags !== undefined) {
    const command = [unshare, ...inside(flags, [process.execPath, ...process.execArgv, ...process.argv.slice(1)])]
    process.execve!(unshare, command, { ...process.env, [VARIABLE]: directory } as Record<string, string>)
  }
  return { directory, disk, isSmall: false }
}

const ballast = (disk: string): string => join(disk, "ballast")

/** Has the database's log begin anew, so that the next commit needs room; what another process keeps it from isn't done. */
const emptyLog = (database: string): void => {
  try {
    const db = new DatabaseSync(database, { timeout: 100 })
    db.exec("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
  } catch {
    // Somebody writes just then, so that the log isn't empty: it is full a little later.
  }
}

/** Writes until nothing more fits. */
const writeAll = (file: number): number => {
  const block = Buffer.alloc(MIB)
  let bytes = 0
  try {
    while (true) bytes += writeSync(file, block)
  } catch {
    return bytes
  }
}

/** Fills the disk but for some bytes. */
export const fill = (disk: string, database: string, freeBytes: number): Effect.Effect<void> =>
  Effect.sync(() => {
    emptyLog(database)
    const file = openSync(ballast(disk), "w")
    ftruncateSync(file, Math.max(0, writeAll(file) - freeBytes))
    closeSync(file)
  })

/** Takes the directory of a run away, and the disk in it. */
export const remove = ({ directory, disk, isSmall }: Place): void => {
  if (isSmall) spawnSync("umount", [disk])
  rmSync(directory, { recursive: true, force: true })
}

/** Makes room again. */
export const free = (disk: string): Effect.Effect<void> => Effect.sync(() => rmSync(ballast(disk), { force: true }))
