/**
 * What `twinloop notify` is asked to do, read from a command line with nothing but Node, since a push waits for it.
 *
 * Includes the rules that the full command line has as well (`of`), so that both refuse the same.
 *
 * Not here: doing it (`NotifyProcess.ts`).
 */
import { Result } from "effect"
import { parseArgs } from "node:util"
import * as SinkChoice from "../push/sinks/SinkChoice.ts"

/** How long a worker of the queue waits for more before it ends, in milliseconds: pushes of one conversation come together. */
export const IDLE_MILLIS = 2_000

/**
 * Resident memory above which a worker of the queue ends in order, for a fresh one to be started. As one file it has 77 MB at
 * most for events in the clear, and 106 MB once it decrypts; about as much again is for batches of large rooms.
 */
export const MAX_RSS_BYTES = 192 * 1024 * 1024

/** As flags and words say it, whoever has read them. */
export interface Raw {
  readonly words: ReadonlyArray<string>
  readonly database: string
  readonly keyFile?: string
  readonly sinks: ReadonlyArray<string>
  readonly json: boolean
  readonly withParent: boolean
  readonly queue: boolean
  readonly deadlineMillis?: number
  readonly idleMillis?: number
  readonly maxRssBytes?: number
}

/** Where the account is, and where its notifications are shown. */
export interface Place {
  readonly database: string
  readonly keyFile: string
  readonly sinks: ReadonlyArray<SinkChoice.SinkChoice>
  readonly json: boolean
}

export type NotifyInput = Place & { readonly withParent: boolean } & (
    | {
        readonly mode: "events"
        readonly roomId: string
        readonly eventIds: ReadonlyArray<string>
        /** `SyncConfig.notificationDeadlineMillis` if not given. */
        readonly deadlineMillis?: number
      }
    | { readonly mode: "queue"; readonly idleMillis: number; readonly maxRssBytes: number }
  )

type Read<A> = Result.Result<A, string>

/** The key file that goes with a database unless another one is named. */
export const keyFileOf = (database: string): string => `${database}.key`

/** The sinks of a command; the terminal if none is named. With `--json`, standard output has no room for a second one. */
export const sinksOf = (names: ReadonlyArray<string>, json: boolean): Read<ReadonlyArray<SinkChoice.SinkChoice>> =>
  Result.gen(function* () {
    if (names.length === 0) return json ? [] : [{ _tag: "Terminal" }]
    const sinks = yield* Result.all(
      names.map((name) => Result.mapError(SinkChoice.parse(name), ({ message }) => message))
    )
    const prints = sinks.some((sink) => sink._tag === "Terminal" || (sink._tag === "JsonLines" && sink.file === "-"))
    if (json && prints)
      return yield* Result.fail("--json and this --sink both write to standard output. Leave one of them out.")
    return sinks
  })

const eventsOf = ({ deadlineMillis, idleMillis, maxRssBytes, words }: Raw) => {
  const [roomId = "", ...eventIds] = words
  if (idleMillis !== undefined || maxRssBytes !== undefined)
    return Result.fail("--idle and --max-rss are for --queue. Leave them out.")
  if (!roomId.startsWith("!") || eventIds.length === 0)
    return Result.fail(
      "Give a room's id (!…) and one event's id or more ($…), in quotes: a shell replaces $ and ! itself."
    )
  if (eventIds.some((id) => !id.startsWith("$")))
    return Result.fail("An event's id begins with $. Give it in quotes, since a shell replaces $ itself.")
  return Result.succeed({
    mode: "events",
    roomId,
    eventIds: [...new Set(eventIds)],
    ...(deadlineMillis !== undefined && { deadlineMillis })
  } as const)
}

const queueOf = ({
  deadlineMillis,
  idleMillis = IDLE_MILLIS,
  json,
  maxRssBytes = MAX_RSS_BYTES,
  sinks,
  words
}: Raw) => {
  if (words.length > 0 || deadlineMillis !== undefined)
    return Result.fail("--queue shows what was pushed, so it takes no room, no event and no --deadline.")
  if (json && sinks.length === 0)
    return Result.fail("With --queue, --json tells what was shown elsewhere. Say where, such as --sink jsonl:FILE.")
  return Result.succeed({ mode: "queue", idleMillis, maxRssBytes } as const)
}

/** What is asked for, or what is wrong with it and what to do instead. */
export const of = (raw: Raw): Read<NotifyInput> =>
  Result.gen(function* () {
    const { database, json, keyFile = keyFileOf(database), withParent } = raw
    const sinks = yield* sinksOf(raw.sinks, json)
    const work = yield* raw.queue ? queueOf(raw) : eventsOf(raw)
    return { database, keyFile, sinks, json, withParent, ...work }
  })

// --- with nothing but Node

const options = {
  database: { type: "string", short: "d", default: "twinloop.db" },
  "key-file": { type: "string" },
  sink: { type: "string", multiple: true },
  json: { type: "boolean", default: false },
  "with-parent": { type: "boolean", default: false },
  queue: { type: "boolean", default: false },
  deadline: { type: "string" },
  idle: { type: "string" },
  "max-rss": { type: "string" }
} as const

const wholeOf = (flag: string, text: string | undefined): Read<number | undefined> => {
  if (text === undefined) return Result.succeed(undefined)
  const value = Number(text)
  return /^\d+$/.test(text) && Number.isSafeInteger(value) && value > 0
    ? Result.succeed(value)
    : Result.fail(`--${flag} takes a whole number above 0.`)
}

const words = (args: ReadonlyArray<string>) =>
  Result.try({
    try: () => parseArgs({ args: [...args], options, allowPositionals: true }),
    catch: (cause) => (cause instanceof Error ? cause.message : String(cause))
  })

/** Reads the arguments after `notify`. */
export const parse = (args: ReadonlyArray<string>): Read<NotifyInput> =>
  Result.gen(function* () {
    const { positionals, values } = yield* words(args)
    const deadlineMillis = yield* wholeOf("deadline", values.deadline)
    const idleMillis = yield* wholeOf("idle", values.idle)
    const maxRssBytes = yield* wholeOf("max-rss", values["max-rss"])
    const keyFile = values["key-file"]
    return yield* of({
      words: positionals,
      database: values.database,
      sinks: values.sink ?? [],
      json: values.json,
      withParent: values["with-parent"],
      queue: values.queue,
      ...(keyFile !== undefined && { keyFile }),
      ...(deadlineMillis !== undefined && { deadlineMillis }),
      ...(idleMillis !== undefined && { idleMillis }),
      ...(maxRssBytes !== undefined && { maxRssBytes })
    })
  })
