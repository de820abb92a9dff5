/**
 * Refuses files and links that another user has put in the way, in a directory where others may write.
 *
 * Whoever finds out under which name a file will be made in such a directory (`/tmp`, say) can be there first: with a file of
 * his own, to read what is written; or with a link, to have something of ours overwritten or its mode changed. So a file or a
 * link there must belong to this user, to who owns the directory, or to root: the rule of Linux's `fs.protected_symlinks` and
 * `fs.protected_regular`, for every system, and for a process of root as well.
 *
 * Gotchas: it looks at a name and at the links behind it, not at the directories above. Whoever owns those can replace
 * everything in them anyway. Windows has no such owners, and nothing is refused there.
 *
 * Not here: the directory for sockets, which must be this user's as a whole (`wake/SocketDirectory.ts`).
 */
import { lstatSync, readlinkSync, statSync, type Stats } from "node:fs"
import { dirname, resolve } from "node:path"

/** Links to follow before a chain of them counts as a loop, as in Linux. */
const maxLinks = 40

/** Somebody else's file or link has the name of ours. */
class Planted extends Error {
  readonly code = "EACCES"
}

/** Write access of the group or of everybody. */
const sharedBits = 0o022

const refusePlanted = (path: string, { uid }: Stats): void => {
  const self = process.getuid?.()
  if (self === undefined || uid === self || uid === 0) return
  const directory = statSync(dirname(path))
  if ((directory.mode & sharedBits) === 0 || uid === directory.uid) return
  throw new Planted(
    `${path} belongs to user ${uid}, in a directory where others may write; choose a directory of this user's`
  )
}

/**
 * Where a path leads by its links, also when nothing is there yet.
 *
 * @throws an error with the code `EACCES` if what is there, or one of the links, is somebody else's (see above).
 */
export const targetOf = (path: string, links = maxLinks): string => {
  const stat = lstatSync(path, { throwIfNoEntry: false })
  if (stat === undefined) return path
  refusePlanted(path, stat)
  return stat.isSymbolicLink() && links > 0 ? targetOf(resolve(dirname(path), readlinkSync(path)), links - 1) : path
}

/**
 * The file under a name that must be no link, or `undefined` when nothing is there.
 *
 * @throws an error with the code `EACCES` if it is a link, or somebody else's (see above).
 */
export const noLink = (path: string): Stats | undefined => {
  const stat = lstatSync(path, { throwIfNoEntry: false })
  if (stat === undefined) return undefined
  refusePlanted(path, stat)
  if (stat.isSymbolicLink()) throw new Planted(`${path} is a link, which nobody but others makes; remove it`)
  return stat
}
