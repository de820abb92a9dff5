/** `twinloop notify`: resolves what was pushed, shows it, and ends. */
import { Effect, Option, Result, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { CommandFailed, exitCodes } from "./ExitCode.ts"
import * as Flags from "./Flags.ts"
import * as NotifyInput from "./NotifyInput.ts"
import * as NotifyProcess from "./NotifyProcess.ts"

const whole = (name: string, metavar: string, description: string) =>
  Flag.Int(name).pipe(
    Flag.withMetavar(metavar),
    Flag.withDescription(description),
    Flag.withSchema(Schema.Int.check(Schema.isGreaterThan(0, { message: "a whole number above 0" }))),
    Flag.optional
  )

const given = <Key extends string, A>(key: Key, option: Option.Option<A>): { readonly [K in Key]?: A } =>
  Option.isSome(option) ? ({ [key]: option.value } as { readonly [K in Key]: A }) : {}

export const notifyCommand = Command.make(
  "notify",
  {
    room: Argument.String("room").pipe(
      Argument.withDescription("The room's id, in quotes; none with --queue"),
      Argument.optional
    ),
    events: Argument.String("event").pipe(
      Argument.withDescription("The id of each event, in quotes; none with --queue"),
      Argument.variadic()
    ),
    database: Flags.database,
    keyFile: Flags.keyFile,
    sinks: Flags.sinks,
    deadline: whole(
      "deadline",
      "MILLIS",
      "How long it may take to find out what to show, in milliseconds. Default: 20000"
    ),
    queue: Flag.Boolean("queue").pipe(
      Flag.withDescription("Show what waits in the queue of the push daemon, until nothing comes any more"),
      Flag.withDefault(false)
    ),
    idle: whole(
      "idle",
      "MILLIS",
      `With --queue: how long to wait for more, in milliseconds. Default: ${NotifyInput.IDLE_MILLIS}`
    ),
    maxRss: whole(
      "max-rss",
      "BYTES",
      `With --queue: resident memory above which it ends, in bytes. Default: ${NotifyInput.MAX_RSS_BYTES}`
    ),
    withParent: Flags.withParent(),
    json: Flags.json
  },
  ({ database, deadline, events, idle, json, keyFile, maxRss, queue, room, sinks, withParent }) =>
    Effect.fromResult(
      Result.mapError(
        NotifyInput.of({
          words: [...Option.toArray(room), ...events],
          database,
          sinks,
          json,
          withParent,
          queue,
          ...given("keyFile", keyFile),
          ...given("deadlineMillis", deadline),
          ...given("idleMillis", idle),
          ...given("maxRssBytes", maxRss)
        }),
        (message) => new CommandFailed({ message, exitCode: exitCodes.usage })
      )
    ).pipe(Effect.flatMap(NotifyProcess.run))
).pipe(
  Command.withDescription(
    "Show what a push is about, and end: with the rooms and keys that the application has stored"
  ),
  Command.withExamples([
    { command: "twinloop notify '!kitchen:example.org' '$event'", description: "On the terminal" },
    { command: "twinloop notify --sink desktop '!kitchen:example.org' '$event'", description: "On the desktop" },
    {
      command: "twinloop notify --json '!kitchen:example.org' '$one' '$two'",
      description: "One JSON object per event, as soon as it is known"
    },
    {
      command: "twinloop notify --queue --sink jsonl:shown.jsonl",
      description: "What waits in the queue, as the push daemon has it done"
    }
  ])
)
