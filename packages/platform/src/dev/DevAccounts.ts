/**
 * The accounts that `twinloop homeserver` starts with: somebody to log in as, and rooms to look at.
 *
 * Gotchas: passwords are shown, since the whole homeserver is open to everybody on this machine anyway.
 *
 * Not here: accounts that are made while it runs (`POST /register`, `AdminRoutes.ts`).
 */
import type { Effect } from "effect"
import { Result } from "effect"
import { type HomeserverHost, HomeserverModel } from "./Model.ts"

/** An account to start with. */
export interface DevAccount {
  /** The local part of the user id. */
  readonly name: string
  readonly password: string
}

/** Reads `NAME[:PASSWORD]`; without a password, the name is the password. What can be a name is said by `add`. */
export const parse = (text: string): DevAccount => {
  const colon = text.indexOf(":")
  return colon < 0 ? { name: text, password: text } : { name: text.slice(0, colon), password: text.slice(colon + 1) }
}

/**
 * Adds the accounts, each with so many rooms of its own and a message in each; gives their user ids, in order. Refuses a name
 * that can't be one (`M_INVALID_USERNAME`) and a name that is there already (`M_USER_IN_USE`).
 */
export const add = (
  host: HomeserverHost.HomeserverHost,
  accounts: ReadonlyArray<DevAccount>,
  rooms: number
): Effect.Effect<ReadonlyArray<string>, HomeserverModel.Refusal> =>
  host.attempt((state, nowMillis) =>
    Result.all(
      accounts.map(({ name, password }) =>
        Result.map(HomeserverModel.addUser(state, { localpart: name, password }), (user) => {
          HomeserverModel.addRooms(state, user, { count: rooms }, nowMillis)
          return user.userId
        })
      )
    )
  )

/** Words that a POSIX shell, and `echo`, take as they are. */
const plainWord = /^[\w.=+/@%,][\w.=+/@%,-]*$/

const quote = (word: string): string => (plainWord.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`)

/** The command line for a POSIX shell that logs in as the account. */
export const loginCommand = (baseUrl: string, { name, password }: DevAccount): string => {
  // What `echo` makes of dashes, backslashes and blanks differs between shells.
  const say = plainWord.test(password) ? `echo ${password}` : `printf '%s\\n' ${quote(password)}`
  return `${say} | twinloop login ${baseUrl} --user ${quote(name)}`
}
