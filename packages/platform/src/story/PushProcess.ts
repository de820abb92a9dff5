/**
 * The push daemon of the story: `twinloop push-daemon` on the account's database, which shows notifications in a file of JSON
 * lines, and a pusher of the account that leads to it.
 *
 * Not here: what is pushed (`Notifying.ts`), what the figures are held to (`Report.ts`).
 */
import { Effect, FileSystem, Option, Ref, Schedule, Schema } from "effect"
import { keyFileOf } from "../cli/Flags.ts"
import * as MonotonicClock from "../cli/MonotonicClock.ts"
import type * as Report from "./Report.ts"
import { StoryError } from "./StoryError.ts"
import * as StoryProcess from "./StoryProcess.ts"

/** What `twinloop push-daemon --json` says once homeservers can push to it. */
export const Listening = Schema.Struct({ event: Schema.Literal("listening"), url: Schema.String })

export interface PushProcess {
  /** Everything that it has shown, oldest first, each with the moment at which it was seen, on the monotonic clock. */
  readonly shown: Effect.Effect<ReadonlyArray<Report.Shown>, StoryError>
  /** Waits until each of these events was shown, or the time is over; fails when the daemon ends. */
  untilShown(eventIds: ReadonlyArray<string>, limitMillis: number): Effect.Effect<void, StoryError>
  /** The last lines that it and its workers said on standard error. */
  readonly lastWords: Effect.Effect<ReadonlyArray<string>>
  /** Fails with what is wrong with it, and those. */
  fail(what: string): Effect.Effect<never, StoryError>
  /** Asks it to stop; gives its exit code. */
  readonly stop: Effect.Effect<number, StoryError>
}

/** How long a line may have been in the file before it is seen. */
const LOOK_PAUSE = "5 millis"

/** What counts in a line of the file; `SinkRecord.ts` has all of it. */
const Line = Schema.Struct({
  roomId: Schema.String,
  eventId: Schema.String,
  result: Schema.String,
  body: Schema.optionalKey(Schema.String),
  message: Schema.optionalKey(Schema.String)
})
const decodeLine = Schema.decodeUnknownOption(Schema.fromJsonString(Line))

/** The notifications in the text of such a file, oldest first: what a kill or a full disk tore is none. */
export const linesOf = (text: string): ReadonlyArray<typeof Line.Type> =>
  text
    .slice(0, text.lastIndexOf("\n") + 1)
    .split("\n")
    .flatMap((line) => Option.toArray(decodeLine(line)))

/** Reads the file anew, and stamps the lines that have come since it was read last. */
const look = Effect.fnUntraced(
  function* (file: string, known: Ref.Ref<ReadonlyArray<Report.Shown>>) {
    const fs = yield* FileSystem.FileSystem
    if (!(yield* fs.exists(file))) return []
    const text = yield* fs.readFileString(file)
    const atMillis = yield* MonotonicClock.nowMillis
    const lines = linesOf(text)
    return yield* Ref.updateAndGet(known, (all) => [
      ...all,
      ...lines.slice(all.length).map((line) => ({ ...line, atMillis }))
    ])
  },
  Effect.mapError(({ message }) => new StoryError({ message: `the notifications can't be read: ${message}` }))
)

/** Arguments of a daemon of a database that shows in a file of JSON lines; port 0 takes a free one. */
export const argumentsOf = (database: string, file: string, port = 0): ReadonlyArray<string> => {
  const account = ["--database", database, "--key-file", keyFileOf(database)]
  const where = ["--listen", `127.0.0.1:${port}`, "--sink", `jsonl:${file}`]
  return ["push-daemon", ...where, ...account, "--json", "--with-parent"]
}

/** Starts the daemon on a free port. It is killed when the scope closes, if it still runs. */
export const start = Effect.fn("PushProcess.start")(function* (database: string, file: string) {
  const daemon = yield* StoryProcess.start("push daemon", argumentsOf(database, file), Listening)
  const known = yield* Ref.make<ReadonlyArray<Report.Shown>>([])
  const shown = Effect.provideService(look(file, known), FileSystem.FileSystem, yield* FileSystem.FileSystem)
  const { event } = yield* Effect.raceFirst(
    daemon.until("listen", () => true),
    daemon.ended
  )
  const push: PushProcess = {
    shown,
    untilShown: (eventIds, limitMillis) =>
      shown.pipe(
        Effect.map((all) => new Set(all.map(({ eventId }) => eventId))),
        Effect.repeat({ until: (seen) => eventIds.every((id) => seen.has(id)), schedule: Schedule.spaced(LOOK_PAUSE) }),
        Effect.timeoutOption(limitMillis),
        Effect.asVoid,
        Effect.raceFirst(daemon.ended)
      ),
    lastWords: daemon.lastWords,
    fail: daemon.fail,
    stop: Effect.andThen(daemon.interrupt, daemon.exitCode)
  }
  return { push, url: event.url }
})

/** Has the homeserver push to a URL from now on, for the device that is logged in on a database. */
export const enable = Effect.fn("PushProcess.enable")(function* (database: string, url: string) {
  const args = ["push", "enable", "--url", url, "--database", database]
  const command = yield* StoryProcess.start("push enable", args, Schema.Never)
  const exitCode = yield* command.exitCode
  if (exitCode !== 0) return yield* command.fail(`ended with exit code ${exitCode}`)
}, Effect.scoped)
