/**
 * The homeserver of the story, in a process of its own: the embedded one, or a real Synapse.
 */
import { Effect, Option, Schema, Stream } from "effect"
import type { Scope } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import * as Synapse from "../synapse/Synapse.ts"
import { request } from "../synapse/SynapseApi.ts"
import type { AccountSession } from "../http/Session.ts"
import { commandLine } from "./StoryProcess.ts"
import * as StoryAccounts from "./StoryAccounts.ts"
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
  // The story registers its own two, as it does on any homeserver.
  const args = commandLine(["homeserver", "--port", "0", "--no-user", "--json", "--with-parent"])
  const handle = yield* spawner.spawn(
    ChildProcess.make(process.execPath, args, { stdin: "pipe", extendEnv: true, killSignal: "SIGKILL" })
  )
  const decode = Schema.decodeUnknownOption(Schema.fromJsonString(Listening))
  const listening = yield* handle.stdout.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.map((line) => decode(line)),
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

/** A running homeserver. */
export interface StoryHomeserver {
  readonly baseUrl: string
  /** Makes an account with one device; the password is the name. */
  register(username: string): Effect.Effect<AccountSession, StoryError>
  /**
   * How often a device uploaded another one-time key under an id that it had used, refused or not, as the homeserver counts;
   * 0 of one that doesn't count.
   */
  conflicts(device: AccountSession): Effect.Effect<number, StoryError>
}

/** What the embedded homeserver tells of a device's keys. */
const Keys = Schema.Struct({ conflicts: Schema.Finite, reused: Schema.Finite })

const devConflicts = Effect.fnUntraced(
  function* (baseUrl: string, { deviceId, userId }: AccountSession) {
    const query = new URLSearchParams({ user_id: userId, device_id: deviceId })
    const { json } = yield* request(baseUrl, { method: "GET", path: `/_twinloop/keys?${query}` })
    const { conflicts, reused } = yield* Schema.decodeUnknownEffect(Keys)(json)
    return conflicts + reused
  },
  Effect.mapError(({ message }) => new StoryError({ message: `asking the embedded homeserver for keys: ${message}` }))
)

const dev: Effect.Effect<StoryHomeserver, StoryError, ChildProcessSpawner.ChildProcessSpawner | Scope.Scope> =
  Effect.map(startDev, (baseUrl) => ({
    baseUrl,
    register: (username) => StoryAccounts.register(baseUrl, username),
    conflicts: (device) => devConflicts(baseUrl, device)
  }))

const synapse = (onProgress: (text: string) => Effect.Effect<void>) =>
  Effect.map(
    Synapse.make({ onProgress: ({ detail, step }) => onProgress(`synapse: ${step} (${detail})`) }),
    (running): StoryHomeserver => ({
      baseUrl: running.baseUrl,
      register: (username) =>
        Effect.mapError(running.register({ username }), (error) => new StoryError({ message: error.message })),
      conflicts: () => Effect.succeed(0)
    })
  )

/** Starts a homeserver for as long as the scope is open. */
export const start = (kind: Kind, onProgress: (text: string) => Effect.Effect<void>) =>
  kind === "dev" ? dev : synapse(onProgress)
