/**
 * The homeserver of the story, in a process of its own: the embedded one, or a real Synapse.
 */
import { Effect, Option, Schema, Stream } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import * as Synapse from "../synapse/Synapse.ts"
import { commandLine } from "./AppProcess.ts"
import { StoryError } from "./StoryError.ts"

export type Kind = "dev" | "synapse"

/** What `twinloop homeserver --json` prints once it listens. */
export const Listening = Schema.Struct({
  event: Schema.Literal("listening"),
  baseUrl: Schema.String
})

/** How long the embedded homeserver may take to start on a busy machine. */
const START_LIMIT_MILLIS = 20_000

const startDev = Effect.gen(function* () {
  const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
  const args = commandLine(["homeserver", "--port", "0", "--json", "--with-parent"])
  const handle = yield* spawner.spawn(
    ChildProcess.make(process.execPath, args, { stdin: "pipe", extendEnv: true, killSignal: "SIGKILL" })
  )
  const decode = Schema.decodeUnknownOption(Schema.fromJsonString(Listening))
  const listening = yield* handle.stdout.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.map(decode),
    Stream.filter(Option.isSome),
    Stream.runHead,
    Effect.timeoutOption(START_LIMIT_MILLIS)
  )
  const found = Option.flatten(Option.flatten(listening))
  if (Option.isNone(found)) {
    return yield* new StoryError({ message: "the embedded homeserver did not start; run: twinloop homeserver" })
  }
  return found.value.baseUrl
}).pipe(Effect.catchTag("PlatformError", (error) => new StoryError({ message: error.message })))

/** Starts a homeserver for as long as the scope is open; gives its base URL. */
export const start = (kind: Kind, onProgress: (text: string) => Effect.Effect<void>) =>
  kind === "dev"
    ? startDev
    : Effect.map(Synapse.make({ onProgress: ({ detail }) => onProgress(detail) }), ({ baseUrl }) => baseUrl)
