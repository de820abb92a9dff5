/**
 * `twinloop push enable`, `disable` and `list`: has the homeserver push to a gateway, or no more.
 *
 * Gotchas: a device is registered in the queue before the homeserver is told of it, and unregistered after the homeserver has
 * forgotten it: what is pushed for a device that isn't registered makes the homeserver delete the pusher.
 *
 * Not here: the gateway (`PushDaemonCommand.ts`).
 */
import { Homeserver, type HomeserverError, Pusher } from "@twinloop/core"
import { Effect, Layer, Result } from "effect"
import { Command, Flag } from "effect/cli"
import { Url } from "effect/http"
import { randomBytes } from "node:crypto"
import { hostname } from "node:os"
import * as HttpHomeserver from "../http/HttpHomeserver.ts"
import { PushQueue, type Registration } from "../push/PushQueue.ts"
import * as Twinloop from "../Twinloop.ts"
import * as ExitCode from "./ExitCode.ts"
import { CommandFailed, exitCodes } from "./ExitCode.ts"
import * as Flags from "./Flags.ts"
import * as KnownAccount from "./KnownAccount.ts"
import * as Output from "./Output.ts"

const APP_ID = "org.twinloop"

/** As many as nobody guesses. */
const KEY_BYTES = 32

/** The queue and the homeserver of an account. */
const withAccount = <A, E>(database: string, use: Effect.Effect<A, E, PushQueue | Homeserver.Homeserver>) => {
  const foundation = Twinloop.layerFoundation({ database, config: { role: "push" } })
  const account = Layer.merge(PushQueue.layer, HttpHomeserver.layer).pipe(Layer.provideMerge(foundation))
  return Effect.andThen(
    KnownAccount.requireDatabase(database),
    use.pipe(Effect.provide(account), Effect.catchTag("NotLoggedIn", KnownAccount.sayWhere(database)))
  )
}

/** What to do next, by what the homeserver said. */
const nextStep = ({ reason }: HomeserverError.HomeserverError): string => {
  switch (reason._tag) {
    case "NetworkError":
    case "RateLimited":
    case "ServerError":
      return "Run the same command again once it answers."
    case "Unauthorized":
      return "Log in again with twinloop login, and run the same command."
    case "BadRequest":
    case "Forbidden":
      return `Give an address that the homeserver may reach, with https unless it allows http, and the path ${Pusher.NOTIFY_PATH}.`
    default:
      return "Ask whoever runs the homeserver whether it offers pushers."
  }
}

const explain = (what: string) => (error: HomeserverError.HomeserverError) =>
  new CommandFailed({
    message: `${what} ${error.message} ${nextStep(error)}`,
    exitCode: error.reason._tag === "Unauthorized" ? exitCodes.login : ExitCode.of(error)
  })

// --- enable

/** The address of a gateway, with the path that every gateway has. */
export const gatewayUrl = (text: string): Result.Result<string, string> => {
  const url = Result.getOrUndefined(Url.fromString(text))
  if (url === undefined || !/^https?:$/.test(url.protocol))
    return Result.fail("--url takes an address with its scheme, such as https://push.example.org.")
  if (url.pathname === "/") url.pathname = Pusher.NOTIFY_PATH
  return url.pathname === Pusher.NOTIFY_PATH
    ? Result.succeed(url.href)
    : Result.fail(
        `The path of a push gateway is ${Pusher.NOTIFY_PATH}. Leave the path out, and have a proxy pass that one on.`
      )
}

/** One key for a database, until pushes are disabled. */
const keyOf = (known: ReadonlyArray<Registration>): string =>
  known[0]?.pushKey ?? randomBytes(KEY_BYTES).toString("base64url")

/** Whether the homeserver has said no, and not only nothing. */
const isRefused = ({ reason }: HomeserverError.HomeserverError): boolean =>
  reason._tag !== "NetworkError" && reason._tag !== "ServerError" && reason._tag !== "BadResponse"

/** As it was before, once the homeserver has refused. What it may have taken all the same stays registered. */
const takeBack = Effect.fnUntraced(function* (pusher: Pusher.Pusher, before: Registration | undefined) {
  const queue = yield* PushQueue
  yield* before === undefined ? queue.unregister(pusher) : queue.register(before)
})

interface EnableInput {
  readonly url: string
  readonly format: Pusher.Pusher["format"]
  readonly appId: string
  readonly appName: string
  readonly deviceName: string
  readonly lang: string
  readonly json: boolean
}

const enable = Effect.fnUntraced(function* (input: EnableInput) {
  const { appId, format, json } = input
  const url = yield* Effect.fromResult(
    Result.mapError(gatewayUrl(input.url), (message) => new CommandFailed({ message, exitCode: exitCodes.usage }))
  )
  const queue = yield* PushQueue
  const homeserver = yield* Homeserver.Homeserver
  const known = yield* queue.registrations
  const before = known.find((one) => one.appId === appId)
  const pusher: Pusher.Pusher = {
    appId,
    pushKey: before?.pushKey ?? keyOf(known),
    appDisplayName: input.appName,
    deviceDisplayName: input.deviceName,
    lang: input.lang,
    url,
    format
  }
  yield* queue.register(pusher)
  yield* homeserver.setPusher(pusher).pipe(
    Effect.tapError((error) => (isRefused(error) ? takeBack(pusher, before) : Effect.void)),
    Effect.catchTag("HomeserverError", explain("The homeserver doesn't push to this address."))
  )
  yield* Output.result(json, { ok: true, appId, url, format }, [
    `The homeserver pushes to ${url} from here on. What comes before twinloop push-daemon runs there is pushed again for a day.`
  ])
})

const text = (name: string, metavar: string, description: string, value: string) =>
  Flag.String(name).pipe(
    Flag.withMetavar(metavar),
    Flag.withDescription(`${description} Default: ${value}`),
    Flag.withDefault(value)
  )

const enableCommand = Command.make(
  "enable",
  {
    database: Flags.database,
    url: Flag.String("url").pipe(
      Flag.withMetavar("URL"),
      Flag.withDescription(
        `Where the homeserver reaches the push daemon, such as https://push.example.org; ${Pusher.NOTIFY_PATH} is appended`
      )
    ),
    format: Flag.Literals("format", ["event_id_only", "full"]).pipe(
      Flag.withDescription(
        "event_id_only: neither words nor names pass through the gateway; full: what the homeserver sees of them. Default: event_id_only"
      ),
      Flag.withDefault("event_id_only" as const)
    ),
    appId: text("app-id", "ID", "What names the application among those of the account.", APP_ID),
    appName: text("app-name", "NAME", "What the account's owner sees of it.", "Twinloop"),
    deviceName: text("device-name", "NAME", "What the account's owner sees of this device.", hostname()),
    lang: text("lang", "LANGUAGE", "Language of what the homeserver words.", "en"),
    json: Flags.json
  },
  (input) => withAccount(input.database, enable(input))
).pipe(Command.withDescription("Have the homeserver push to a gateway, from here on"))

// --- disable

const disable = Effect.fnUntraced(function* (json: boolean) {
  const queue = yield* PushQueue
  const homeserver = yield* Homeserver.Homeserver
  const known = yield* queue.registrations
  for (const id of known) {
    yield* Effect.catchTag(
      homeserver.removePusher(id),
      "HomeserverError",
      explain("The homeserver was not told to stop, so it goes on pushing.")
    )
    yield* queue.unregister(id)
  }
  const removed = known.map(({ appId, url }) => ({ appId, url }))
  const lines = removed.map(({ url }) => `The homeserver doesn't push to ${url} any more.`)
  yield* Output.result(json, { ok: true, removed }, removed.length > 0 ? lines : ["Nothing was pushed from here."])
})

const disableCommand = Command.make("disable", { database: Flags.database, json: Flags.json }, ({ database, json }) =>
  withAccount(database, disable(json))
).pipe(Command.withDescription("Have the homeserver push to the gateway no more"))

// --- list

const isSame = (one: Pusher.PusherId, other: Pusher.PusherId): boolean =>
  one.appId === other.appId && one.pushKey === other.pushKey

/** A pusher without its key, which nobody else may know, and without what applications have added for their gateways. */
const shownOf = ({ pushKey: _key, data: _data, ...shown }: Pusher.Pusher) => shown

const list = Effect.fnUntraced(function* (json: boolean) {
  const queue = yield* PushQueue
  const homeserver = yield* Homeserver.Homeserver
  const known = yield* queue.registrations
  const pushers = yield* Effect.catchTag(
    homeserver.pushers,
    "HomeserverError",
    explain("The homeserver doesn't tell its pushers.")
  )
  const listed = pushers.map((pusher) => ({ ...shownOf(pusher), isOurs: known.some((one) => isSame(one, pusher)) }))
  // The homeserver deletes a pusher whose gateway doesn't know it.
  const missing = known
    .filter((one) => !pushers.some((pusher) => isSame(one, pusher)))
    .map(({ appId, url }) => ({ appId, url }))
  yield* Output.result(json, { pushers: listed, missing }, [
    ...listed.map(
      ({ appDisplayName, appId, deviceDisplayName, format, isOurs, url }) =>
        `${isOurs ? "ours " : "other"}  ${appId} (${appDisplayName}, ${deviceDisplayName})  ${format}  ${url}`
    ),
    ...missing.map(
      ({ appId, url }) => `gone   ${appId}  ${url}  the homeserver has it no more: twinloop push enable --url ${url}`
    ),
    ...(listed.length + missing.length === 0 ? ["The account has no pusher."] : [])
  ])
})

const listCommand = Command.make("list", { database: Flags.database, json: Flags.json }, ({ database, json }) =>
  withAccount(database, list(json))
).pipe(Command.withDescription("Show the account's pushers, and which are of this database"))

export const pushCommand = Command.make("push").pipe(
  Command.withDescription("Have the homeserver push to a gateway, or no more"),
  Command.withExamples([
    {
      command: "twinloop push enable --url https://push.example.org",
      description: "To twinloop push-daemon behind a proxy"
    },
    { command: "twinloop push list", description: "Where the account's pushes go" },
    { command: "twinloop push disable", description: "No more" }
  ]),
  Command.withSubcommands([enableCommand, disableCommand, listCommand])
)
