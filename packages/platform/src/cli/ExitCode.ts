/**
 * What the process exits with, by what went wrong, and how the message is shown.
 *
 * A failure is one line on standard error: what happened, to what, and what to do next. With `--json` it is a JSON object on
 * standard output as well, so that a script needs to read one stream only.
 *
 * Not here: a command line that can't be understood (`UsageReport.ts`). Programs that must start fast do without.
 */
import { Console, Effect, Predicate, Runtime, Schema } from "effect"
import * as Printable from "../Printable.ts"

/** Exit codes, as `twinloop --help` and the README list them. */
export const exitCodes = {
  ok: 0,
  /** Anything that has no code of its own. */
  failed: 1,
  /** A flag, an argument or a command that doesn't exist, or a value that can't be used. */
  usage: 2,
  /** Nobody is logged in, or the homeserver refused the login. */
  login: 3,
  /** The database can't be used. */
  database: 4,
  /** The homeserver can't be reached, lacks sliding sync, or its port is taken. */
  homeserver: 5,
  /** No twinloop process runs on the database. */
  notRunning: 6,
  /** The story was played, and something was lost, duplicated, late or unreadable. */
  story: 7,
  /** A notification could not be shown whole. */
  notification: 8
} as const

/** A command failed; it ends the process with this code. `printed`: its JSON says so already, and stays the last line. */
export class CommandFailed extends Schema.TaggedError<CommandFailed>("@twinloop/platform/CommandFailed")(
  "CommandFailed",
  { message: Schema.String, exitCode: Schema.Finite, printed: Schema.optionalKey(Schema.Boolean) }
) {
  override readonly [Runtime.errorReported] = false
  override get [Runtime.errorExitCode](): number {
    return this.exitCode
  }
}

const byTag: { readonly [tag: string]: number } = {
  NotLoggedIn: exitCodes.login,
  LoginError: exitCodes.login,
  StoreError: exitCodes.database,
  OtherDevice: exitCodes.database,
  InvalidHomeserverUrl: exitCodes.homeserver,
  HomeserverError: exitCodes.homeserver,
  SynapseError: exitCodes.homeserver,
  CannotListen: exitCodes.homeserver,
  StoryError: exitCodes.story
}

const reasonCodes: { readonly [tag: string]: number } = {
  InvalidHomeserverUrl: exitCodes.homeserver,
  Unreachable: exitCodes.homeserver,
  NoSlidingSync: exitCodes.homeserver,
  NotRunning: exitCodes.notRunning,
  CryptoWrongKey: exitCodes.database,
  CryptoForeignStore: exitCodes.database,
  CryptoStoreNewer: exitCodes.database,
  CryptoStoreFailed: exitCodes.database
}

const tagOf = (value: unknown): string =>
  Predicate.hasProperty(value, "_tag") && typeof value._tag === "string" ? value._tag : ""

/** The exit code for an error of any command. */
export const of = (error: unknown): number => {
  if (error instanceof CommandFailed) return error.exitCode
  const reason = Predicate.hasProperty(error, "reason") ? reasonCodes[tagOf(error.reason)] : undefined
  return reason ?? byTag[tagOf(error)] ?? exitCodes.failed
}

const messageOf = (error: unknown): string =>
  Predicate.hasProperty(error, "message") && typeof error.message === "string" && error.message !== ""
    ? error.message
    : String(error)

/** The last line of a command with `--json` that failed. */
export const printJson = (error: string, exitCode: number): Effect.Effect<void> =>
  Console.log(Printable.json({ ok: false, error, exitCode }))

/** Says what went wrong, and fails with the exit code. */
export const report =
  (json: boolean) =>
  (error: unknown): Effect.Effect<never, CommandFailed> =>
    Effect.gen(function* () {
      const failed = new CommandFailed({ message: messageOf(error), exitCode: of(error) })
      yield* Console.error(`twinloop: ${Printable.lines(failed.message)}`)
      const isPrinted = error instanceof CommandFailed && error.printed === true
      if (json && !isPrinted) yield* printJson(failed.message, failed.exitCode)
      return yield* failed
    })
