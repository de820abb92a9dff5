/**
 * The account that a command works on must be there: a mistyped name makes no new database, and nobody's login is explained.
 */
import { Effect } from "effect"
import { statSync } from "node:fs"
import { CommandFailed, exitCodes } from "./ExitCode.ts"

const howToLogIn = (database: string): string =>
  `Check the name, or log in: twinloop login HOMESERVER --user NAME --database ${database}`

/** A path that can't be looked at is explained when it is opened. */
const isThere = (path: string): boolean => {
  try {
    return statSync(path, { throwIfNoEntry: false }) !== undefined
  } catch {
    return true
  }
}

/** Fails when there is no such file. */
export const requireDatabase = (database: string): Effect.Effect<void, CommandFailed> =>
  Effect.suspend(() =>
    isThere(database)
      ? Effect.void
      : new CommandFailed({
          message: `There is no database ${database}, so nobody is logged in there. ${howToLogIn(database)}`,
          exitCode: exitCodes.login
        })
  )

/** What `NotLoggedIn` says where the database is known. */
export const sayWhere = (database: string) => (): Effect.Effect<never, CommandFailed> =>
  new CommandFailed({
    message: `Nobody is logged in here: ${database} holds no login. ${howToLogIn(database)}`,
    exitCode: exitCodes.login
  })
