/**
 * Notifications on a Linux or BSD desktop, by `notify-send` of libnotify.
 *
 * Invariants: I10 (`LIMIT_MILLIS`; the words are bounded).
 *
 * Gotchas: every word is somebody else's. No shell is asked; `--` ends the options; the body is markup for the desktop, and
 * `notify-send` reads backslashes in it (`g_strcompress`), so both are escaped. Directories of `PATH` that aren't absolute
 * aren't searched: anybody may have put a program in the working directory.
 */
import { NotificationSink, NotificationText } from "@twinloop/core"
import { Effect, Layer } from "effect"
import { accessSync, constants, statSync } from "node:fs"
import { delimiter, isAbsolute, join } from "node:path"
import * as Printable from "../../Printable.ts"

const name = "desktop"
const program = "notify-send"

/** A desktop that doesn't answer in this time is no reason to wait longer. */
const LIMIT_MILLIS = 10_000

/** Characters of what `notify-send` says that a message repeats. */
const SAID_CHARACTERS = 300

export interface DesktopOptions {
  /** What the desktop says the notification is of; "Twinloop" if not given. */
  readonly appName?: string
  /** Where `notify-send` is looked for: `PATH` of the process if not given. */
  readonly path?: string
}

const isProgram = (file: string): boolean => {
  try {
    accessSync(file, constants.X_OK)
    return statSync(file).isFile()
  } catch {
    // Not there, or not for this user: the next directory may have it.
    return false
  }
}

const failed = (message: string, cause?: unknown): NotificationSink.SinkError =>
  new NotificationSink.SinkError({
    sink: name,
    message: Printable.line(message),
    ...(cause !== undefined && { cause })
  })

const find = (path: string) =>
  Effect.suspend(() => {
    const file = path
      .split(delimiter)
      .filter(isAbsolute)
      .map((directory) => join(directory, program))
      .find(isProgram)
    return file === undefined
      ? Effect.fail(
          failed(
            `There is no ${program} in a directory of PATH. Install libnotify (Debian and Ubuntu: libnotify-bin, Fedora: libnotify), or choose another sink.`
          )
        )
      : Effect.succeed(file)
  })

/** A body as `notify-send` takes it, so that what is shown is what was written. */
const escaped = (body: string): string =>
  body.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll("\\", "\\\\")

const run = (file: string, args: ReadonlyArray<string>): Effect.Effect<void, NotificationSink.SinkError> =>
  Effect.callback((resume) => {
    // Loaded here: it takes 2 ms, and a process that shows nothing needs none of it.
    const { execFile } = process.getBuiltinModule("node:child_process")
    const child = execFile(file, args, { timeout: LIMIT_MILLIS }, (error, _stdout, stderr) => {
      if (error === null) return resume(Effect.void)
      const why =
        error.killed === true ? `it took longer than ${LIMIT_MILLIS / 1_000} s` : stderr.trim() || error.message
      resume(
        Effect.fail(
          failed(
            `${program} could not show a notification: ${why.slice(0, SAID_CHARACTERS)}. It needs a desktop session with a notification service.`,
            error
          )
        )
      )
    })
    return Effect.sync(() => child.kill())
  })

const showing =
  (file: string, appName: string): NotificationSink.NotificationSink["Service"]["show"] =>
  (resolved) => {
    const text = NotificationText.textOf(resolved)
    if (text === undefined) return Effect.void
    const options = [`--app-name=${appName}`, `--urgency=${text.urgency}`]
    return run(file, [...options, "--", text.title, escaped(text.body)])
  }

/** Shows on the desktop. Fails with a `SinkError` that says what to install where there is no `notify-send`. */
export const layer = ({ appName = "Twinloop", path }: DesktopOptions = {}): Layer.Layer<
  NotificationSink.NotificationSink,
  NotificationSink.SinkError
> =>
  Layer.effect(
    NotificationSink.NotificationSink,
    Effect.map(
      Effect.suspend(() => find(path ?? process.env.PATH ?? "")),
      (file) => ({ name, show: showing(file, appName) })
    )
  )
