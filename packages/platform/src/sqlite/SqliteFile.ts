/**
 * The database file on disk: made private to the user before SQLite opens it.
 *
 * SQLite gives `-wal` and `-shm` the mode of the database file, so that a file which is created with 0600 keeps all three
 * private.
 *
 * Includes the guard that notices when the file was deleted or replaced while it is in use: SQLite itself, in write-ahead
 * mode, goes on writing to the file that has no name any more, while another process makes a new one under that name. Each
 * would then own the extension stream in a database of its own (invariant I1).
 *
 * Gotchas: closing any descriptor of a database file drops every POSIX lock that this process holds on it
 * (sqlite.org/howtocorrupt.html, section 2.2). So the file is opened here only when this call creates it (`wx`), when
 * nobody can hold a lock on it yet, and an existing one is changed by its path.
 */
import { chmodSync, closeSync, fchmodSync, mkdirSync, openSync, statSync } from "node:fs"
import { dirname, resolve } from "node:path"
import * as Planted from "../Planted.ts"

/** Mode of the database, `-wal` and `-shm` files: this user only. */
const privateFile = 0o600
/** Mode of a directory that had to be made. */
const privateDirectory = 0o700

const codeOf = (cause: unknown): unknown =>
  typeof cause === "object" && cause !== null && "code" in cause ? cause.code : undefined

/** Runs a file system call whose purpose may already be fulfilled. */
const unlessCode = (code: string, action: () => void): void => {
  try {
    action()
  } catch (cause) {
    if (codeOf(cause) !== code) throw cause
  }
}

const makePrivate = (path: string): void => {
  const stat = Planted.noLink(path)
  if (stat?.isFile() === true && (stat.mode & 0o077) !== 0) chmodSync(path, privateFile)
}

/** Makes a file with its mode whatever the umask takes away, unless there is one. */
const create = (path: string): void => {
  const file = openSync(path, "wx", privateFile)
  try {
    fchmodSync(file, privateFile)
  } finally {
    closeSync(file)
  }
}

/** The name to open a database by: a path, whatever it looks like. SQLite would take `file:...` for a URI with options. */
export const nameOf = (filename: string): string => (isMemory(filename) ? filename : resolve(filename))

/** Whether the name stands for a database in memory, which has no file. */
export const isMemory = (filename: string): boolean => filename === ":memory:" || filename === ""

/**
 * Creates the database file with mode 0600 unless it exists, and takes other users' access away if it does. Makes the
 * last component of its directory with mode 0700 when that is missing; a missing parent is an error.
 *
 * What another user put in their place in a shared directory is refused (`EACCES`), and changed in nothing.
 *
 * @throws the file system's error (`ENOENT`, `EACCES`, `EROFS`, ...), with its `code`.
 */
export const prepare = (filename: string): void => {
  // SQLite follows links, and creates what is at their end.
  const path = Planted.targetOf(resolve(filename))
  unlessCode("EEXIST", () => mkdirSync(dirname(path), { mode: privateDirectory }))
  unlessCode("EEXIST", () => create(path))
  for (const file of [path, `${path}-wal`, `${path}-shm`]) makePrivate(file)
}

/** SQLite's own code for a database file that was moved: SQLITE_READONLY_DBMOVED (sqlite.org/rescode.html). */
export const movedCode = 1032

/** The file under the database's name is not the one that was opened. */
class FileMoved extends Error {
  readonly errcode = movedCode
}

const identityOf = (path: string): string | undefined => {
  const stat = statSync(path, { throwIfNoEntry: false, bigint: true })
  return stat === undefined ? undefined : `${stat.dev}:${stat.ino}`
}

/**
 * Remembers which file a name stands for. What it gives throws when that has changed since, with `errcode` {@link movedCode};
 * asking costs microseconds.
 */
export const guard = (filename: string): (() => void) => {
  if (isMemory(filename)) return () => {}
  const path = resolve(filename)
  const opened = identityOf(path)
  return () => {
    if (identityOf(path) !== opened) throw new FileMoved("the file was deleted or replaced since it was opened")
  }
}
