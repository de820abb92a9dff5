/** `twinloop status`, `lease`, `suspend`, `resume` and `stop`: what an operator asks of the running processes of an account. */
import { Effect, FileSystem, Option, Result } from "effect"
import { Command, Flag } from "effect/cli"
import * as ControlClient from "../control/ControlClient.ts"
import type { EncryptionStatus, LeaseStatus, StopReport, Status } from "../control/ControlProtocol.ts"
import * as ExitCode from "./ExitCode.ts"
import { CommandFailed } from "./ExitCode.ts"
import * as Flags from "./Flags.ts"
import * as Output from "./Output.ts"

const flags = {
  database: Flags.database,
  pid: Flag.Int("pid").pipe(
    Flag.withDescription("Only the process with this number; without it, every process of the account"),
    Flag.optional
  ),
  json: Flags.json
}

interface Input {
  readonly database: string
  readonly pid: Option.Option<number>
  readonly json: boolean
}

/** What a process said, or why it said nothing. */
interface Told<A> {
  readonly pid: number
  readonly answer: Result.Result<A, ControlClient.ControlError>
}

const json = <A extends object>({ answer, pid }: Told<A>): object =>
  Result.isSuccess(answer) ? { ...answer.success, pid } : { pid, error: answer.failure.message }

/** Of a mistyped database nothing runs, either; that it isn't there is the better explanation. */
const explainMissing = Effect.fnUntraced(function* (database: string, error: ControlClient.ControlError) {
  const fs = yield* FileSystem.FileSystem
  if (yield* Effect.orElseSucceed(fs.exists(database), () => true)) return yield* error
  return yield* new CommandFailed({
    message: `There is no database ${database}, so no twinloop process is running on it. Check the name, or log in and start one with twinloop run.`,
    exitCode: ExitCode.of(error)
  })
})

/**
 * Asks every process that is meant, one after the other, and prints what each says; with `--json` as an array. One that does
 * not answer keeps no other from being asked; the command fails for it afterwards.
 */
const askAll = <A extends object>(
  input: Input,
  ask: (client: ControlClient.ControlClient) => Effect.Effect<A, ControlClient.ControlError>,
  text: (pid: number, answer: A) => ReadonlyArray<string>
) =>
  Effect.gen(function* () {
    const targets = yield* ControlClient.find(input.database, Option.getOrUndefined(input.pid)).pipe(
      Effect.catchTag("ControlError", (error) => explainMissing(input.database, error))
    )
    const told: Array<Told<A>> = []
    for (const target of targets) {
      const asked = Effect.scoped(Effect.flatMap(ControlClient.connect(target), ask))
      told.push({ pid: target.pid, answer: yield* Effect.result(asked) })
    }
    const answered = told.flatMap(({ answer, pid }) => (Result.isSuccess(answer) ? text(pid, answer.success) : []))
    const failures = told.flatMap(({ answer }) => (Result.isFailure(answer) ? [answer.failure] : []))
    if (failures.length < told.length) yield* Output.result(input.json, told.map(json), answered)
    const [first] = failures
    if (first !== undefined && failures.length === 1) return yield* first
    if (first !== undefined) {
      return yield* new CommandFailed({
        message: failures.map(({ message }) => message).join("; "),
        exitCode: ExitCode.of(first)
      })
    }
  })

const loopText = (name: string, loop: Status["main"]): ReadonlyArray<string> => {
  if (loop === undefined) return []
  const progress = loop.total === undefined ? "" : `, ${loop.loaded ?? 0} of ${loop.total} rooms`
  return [`  ${name.padEnd(10)} ${loop.state}${progress}${loop.error === undefined ? "" : `: ${loop.error}`}`]
}

const leaseText = (lease: LeaseStatus | undefined): ReadonlyArray<string> =>
  lease?.holder === undefined
    ? ["  lease      nobody has owned the stream yet"]
    : [
        `  lease      ${lease.isMine === true ? "mine" : "not mine"}, generation ${lease.generation ?? "unknown"}, last owner ${lease.holder}`,
        ...(lease.waiters ?? []).map((waiter) => `             waiting: ${waiter}`)
      ]

const encryptionText = (encryption: EncryptionStatus | undefined): ReadonlyArray<string> => {
  if (encryption === undefined) return []
  const { error, fingerprint = "none yet", isVerified, keyFile, oneTimeKeyConflicts, roomKeys } = encryption
  return [
    `  encryption ${error ?? `device ${fingerprint}, ${isVerified === true ? "verified" : "not verified"}`}`,
    `             ${roomKeys ?? 0} room keys, ${oneTimeKeyConflicts ?? 0} one-time key conflicts; key in ${keyFile ?? "an unknown file"}`
  ]
}

const statusText = (pid: number, status: Status): ReadonlyArray<string> => [
  `process ${pid} (${status.role}): ${status.state}${status.error === undefined ? "" : `: ${status.error}`}`,
  `  account    ${status.userId ?? "unknown"} at ${status.homeserver ?? "unknown"}`,
  ...loopText("main", status.main),
  ...loopText("extension", status.extension),
  ...leaseText(status.lease),
  ...encryptionText(status.encryption),
  `  rooms ${status.rooms ?? 0}, inbox ${status.inbox ?? 0}, quarantined ${status.quarantined ?? 0}`
]

const quietText =
  (what: string) =>
  (pid: number, report: StopReport): ReadonlyArray<string> => [
    report.quiet
      ? `process ${pid} ${what}, quiet after ${report.tookMillis ?? 0} ms`
      : `process ${pid} ${what}, but not quiet at the deadline; still ending: ${report.unfinished.join(", ")}`
  ]

export const statusCommand = Command.make("status", flags, (input) =>
  askAll(input, (client) => client.status, statusText)
).pipe(Command.withDescription("Say how the running processes of the account are"))

export const leaseCommand = Command.make("lease", flags, (input) =>
  askAll(
    input,
    (client) => client.lease,
    (pid, lease) => [`process ${pid}`, ...leaseText(lease)]
  )
).pipe(Command.withDescription("Say who owns the extension stream, and who waits for it"))

export const suspendCommand = Command.make("suspend", { ...flags, deadline: Flags.deadline }, (input) =>
  askAll(input, (client) => client.suspend(input.deadline), quietText("suspended"))
).pipe(Command.withDescription("End the loops and free the stream; the process stays, and resume lets it go on"))

export const resumeCommand = Command.make("resume", flags, (input) =>
  askAll(
    input,
    (client) => Effect.as(client.resume, { resumed: true }),
    (pid) => [`process ${pid} resumed`]
  )
).pipe(Command.withDescription("Take back a suspend"))

export const stopCommand = Command.make("stop", flags, (input) =>
  askAll(input, (client) => client.stop, quietText("stopped"))
).pipe(Command.withDescription("End the loops and the process"))
