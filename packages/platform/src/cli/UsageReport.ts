/**
 * What is said of a command line that can't be understood: the help of the command and why, by `effect/cli`.
 *
 * Not here: everything else that goes wrong (`ExitCode.ts`).
 */
import { Console, Effect } from "effect"
import { CliError, CliOutput } from "effect/cli"
import * as ExitCode from "./ExitCode.ts"

/** Whether the command line shows help because it was used wrongly, and not because somebody asked for it. */
const isMisuse = (error: CliError.CliError): boolean => error._tag !== "ShowHelp" || error.errors.length > 0

const reportUsage = Effect.fnUntraced(function* (json: boolean, error: CliError.CliError) {
  const details = error._tag === "ShowHelp" ? error.errors.map(({ message }) => message).join("; ") : ""
  const message = details === "" ? error.message : details
  const exitCode = isMisuse(error) ? ExitCode.exitCodes.usage : ExitCode.exitCodes.ok
  if (json && isMisuse(error)) yield* ExitCode.printJson(message, exitCode)
  return yield* new ExitCode.CommandFailed({ message, exitCode })
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
  (error: unknown): Effect.Effect<never, ExitCode.CommandFailed> =>
    CliError.isCliError(error) ? reportUsage(json, error) : ExitCode.report(json)(error)
