/** `twinloop login`: logs a device in, and keeps the login in the database for every process of the account. */
import { Effect, Option, Redacted } from "effect"
import { Argument, Command, Flag, Prompt } from "effect/cli"
import * as Login from "../http/Login.ts"
import type { AccountSession } from "../http/Session.ts"
import * as SessionStore from "../http/SessionStore.ts"
import * as Twinloop from "../Twinloop.ts"
import { CommandFailed, exitCodes } from "./ExitCode.ts"
import * as Flags from "./Flags.ts"
import * as Output from "./Output.ts"

/** All of standard input but the end of its last line: a password may begin and end with blanks. */
const readAll = Effect.promise(async () => {
  process.stdin.setEncoding("utf8")
  let text = ""
  for await (const chunk of process.stdin) text += String(chunk)
  return text.replace(/\r?\n$/, "")
})

/** A secret from standard input, or asked for on a terminal: never from the command line, which every user of the host can read. */
const secret = (what: string, message = what) =>
  process.stdin.isTTY
    ? Prompt.run(Prompt.Password({ message }))
    : Effect.flatMap(readAll, (text) =>
        text === ""
          ? new CommandFailed({
              message: `No ${what.toLowerCase()} came on standard input.`,
              exitCode: exitCodes.usage
            })
          : Effect.succeed(Redacted.make(text))
      )

/** The device of this user to which the database belongs, to be the same one again. */
const knownDevice = Effect.fnUntraced(function* (user: string) {
  const store = yield* SessionStore.SessionStore
  const device = yield* store.device
  if (device === undefined) return undefined
  return device.userId === user || device.userId.startsWith(`@${user}:`) ? device.deviceId : undefined
})

const logIn = Effect.fnUntraced(function* (options: {
  readonly homeserver: string
  readonly user: Option.Option<string>
  readonly how: "password" | "token" | "access-token"
}): Effect.fn.Return<AccountSession, unknown, Twinloop.Foundation | Prompt.Environment> {
  const { homeserver } = options
  const deviceName = "Twinloop"
  if (options.how === "access-token") {
    return yield* Login.useAccessToken({ homeserver, accessToken: yield* secret("Access token") })
  }
  if (options.how === "token")
    return yield* Login.byToken({ homeserver, deviceName, loginToken: yield* secret("Login token") })
  if (Option.isNone(options.user)) {
    return yield* new CommandFailed({
      message: "A password belongs to a user. Say which: twinloop login HOMESERVER --user NAME.",
      exitCode: exitCodes.usage
    })
  }
  const user = options.user.value
  const deviceId = yield* knownDevice(user)
  const password = yield* secret("Password", `Password of ${user}`)
  return yield* Login.byPassword({
    homeserver,
    user,
    password,
    deviceName,
    ...(deviceId === undefined ? {} : { deviceId })
  })
})

export const loginCommand = Command.make(
  "login",
  {
    homeserver: Argument.String("homeserver").pipe(
      Argument.withDescription("Address, such as https://matrix.example.org")
    ),
    user: Flag.String("user").pipe(
      Flag.withAlias("u"),
      Flag.withDescription("User id or name, for a login by password"),
      Flag.optional
    ),
    how: Flag.Literals("by", ["password", "token", "access-token"]).pipe(
      Flag.withDescription("What proves who you are; it is read from standard input, or asked for on a terminal"),
      Flag.withDefault("password" as const)
    ),
    database: Flags.database,
    json: Flags.json
  },
  Effect.fn(function* (input) {
    const session = yield* Effect.gen(function* () {
      const session = yield* logIn(input)
      yield* Effect.tapErrorTag(
        SessionStore.replace(yield* SessionStore.SessionStore, session),
        "OtherDevice",
        // A device that was just made is only untidy if it can't be removed; whoever brings a token has had his before.
        () => (input.how === "access-token" ? Effect.void : Effect.ignore(Login.revoke(session)))
      )
      return session
    }).pipe(Effect.provide(Twinloop.layerFoundation({ database: input.database })))
    const { deviceId, homeserver, userId } = session
    yield* Output.result(input.json, { ok: true, homeserver, userId, deviceId, database: input.database }, [
      `Logged in to ${homeserver} as ${userId} (device ${deviceId}). The login is kept in ${input.database}.`
    ])
  })
).pipe(
  Command.withDescription("Log a device in and keep the login in the database"),
  Command.withExamples([
    { command: "twinloop login https://matrix.example.org --user alice", description: "Ask for the password" },
    {
      command: "twinloop login http://127.0.0.1:8008 --user alice --json < password.txt",
      description: "Read the password from a file"
    }
  ])
)
