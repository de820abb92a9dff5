/**
 * What the process exits with, by what went wrong, and how the message is shown.
 *
 * A failure is one line on standard error: what happened, to what, and what to do next. With `--json` it is a JSON object on
 * standard output as well, so that a script needs to read one stream only.
 */
import { Console, Effect, Predicate, Runtime, Schema } from "effect"
import { CliError, CliOutput } from "effect/cli"
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
  story: 7
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

/** Whether the command line shows help because it was used wrongly, and not because somebody asked for it. */
const isMisuse = (error: CliError.CliError): boolean => error._tag !== "ShowHelp" || error.errors.length > 0

const printJson = (error: string, exitCode: number): Effect.Effect<void> =>
  Console.log(JSON.stringify({ ok: false, error, exitCode }))

const reportUsage = Effect.fnUntraced(function* (json: boolean, error: CliError.CliError) {
  const details = error._tag === "ShowHelp" ? error.errors.map(({ message }) => message).join("; ") : ""
  const message = details === "" ? error.message : details
  const exitCode = isMisuse(error) ? exitCodes.usage : exitCodes.ok
  if (json && isMisuse(error)) yield* printJson(message, exitCode)
  return yield* new CommandFailed({ message, exitCode })
})

/**
 * Shows help where it was asked for on standard output, and with an error on standard error, as all about an error.
 * Standard output belongs to the result, above all to JSON.
 */
export const presenter: CliOutput.Presenter = {
  present: (event) =>
    event._tag === "InvalidInvocation"
      ? Effect.updateService(CliOutput.defaultPresenter.present(event), Console.Console, (console) => ({
          ...console,
          log: (...words: ReadonlyArray<unknown>) => console.error(...words),
          error: (...words: ReadonlyArray<unknown>) => console.error(...words)
        }))
      : CliOutput.defaultPresenter.present(event)
}

/** Says what went wrong, and fails with the exit code. Usage errors have been shown by the command line itself. */
export const report =
  (json: boolean) =>
  (error: unknown): Effect.Effect<never, CommandFailed> =>
    Effect.gen(function* () {
      if (CliError.isCliError(error)) return yield* reportUsage(json, error)
      const failed = new CommandFailed({ message: messageOf(error), exitCode: of(error) })
      yield* Console.error(`twinloop: ${Printable.lines(failed.message)}`)
      const isPrinted = error instanceof CommandFailed && error.printed === true
      if (json && !isPrinted) yield* printJson(failed.message, failed.exitCode)
      return yield* failed
    })
