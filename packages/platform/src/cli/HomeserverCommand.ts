/** `twinloop homeserver`: the embedded homeserver by itself, for development. */
import { Deferred, Effect, Layer, Schema } from "effect"
import { Command, Flag } from "effect/cli"
import * as DevAccounts from "../dev/DevAccounts.ts"
import * as DevHomeserver from "../dev/DevHomeserver.ts"
import * as Lifecycle from "../lifecycle/Lifecycle.ts"
import { CommandFailed, exitCodes } from "./ExitCode.ts"
import * as Flags from "./Flags.ts"
import * as Output from "./Output.ts"
import * as Parent from "./Parent.ts"

/** Rooms of one account: as many as the model is tested with. */
const MAX_ROOMS = 10_000

interface Input {
  readonly user: ReadonlyArray<string>
  readonly noUser: boolean
  readonly rooms: number
  readonly withParent: boolean
  readonly json: boolean
}

const misused = (message: string) => new CommandFailed({ message, exitCode: exitCodes.usage })

/** Who is there at the start: those who are named, alice when nobody is, and nobody when that is asked. */
const accountsOf = ({ noUser, user }: Input): Effect.Effect<ReadonlyArray<DevAccounts.DevAccount>, CommandFailed> => {
  if (noUser && user.length > 0) return misused("--no-user and --user contradict each other. Give one of them.")
  return Effect.succeed((noUser || user.length > 0 ? user : ["alice"]).map(DevAccounts.parse))
}

/** Makes the accounts; a name that can't be one, or comes twice, is a wrong use of the command. */
const addAccounts = Effect.fnUntraced(function* (baseUrl: string, input: Input) {
  const { host } = yield* DevHomeserver.DevHomeserver
  const accounts = yield* accountsOf(input)
  const userIds = yield* Effect.mapError(DevAccounts.add(host, accounts, input.rooms), ({ message }) =>
    misused(`--user: ${message}. Give each account once, by a name of lower-case letters, digits and ._=/+-`)
  )
  return accounts.map((account, index) => ({
    userId: userIds[index],
    user: account.name,
    password: account.password,
    rooms: input.rooms,
    login: DevAccounts.loginCommand(baseUrl, account)
  }))
})

/** Serves until the operating system or the parent says stop. */
const serve = Effect.fnUntraced(function* (input: Input) {
  const { baseUrl, port } = yield* DevHomeserver.DevHomeserver
  const users = yield* addAccounts(baseUrl, input)
  const stopped = yield* Deferred.make<void>()
  const stop = Deferred.succeed(stopped, undefined)
  if (input.withParent)
    yield* Effect.forkScoped(
      Effect.andThen(
        Parent.lines(() => Effect.void),
        stop
      )
    )
  yield* Effect.forkScoped(Lifecycle.run({ suspend: Effect.void, resume: Effect.void, stop }))
  yield* Output.result(input.json, { event: "listening", baseUrl, port, users }, [
    `The embedded homeserver listens on ${baseUrl}. It forgets everything when it ends. End it with ^C.`,
    ...users.map(({ login, rooms, userId }) => `Log in as ${userId} (${rooms} rooms):  ${login}`)
  ])
  yield* Deferred.await(stopped)
}, Effect.scoped)

export const homeserverCommand = Command.make(
  "homeserver",
  {
    port: Flag.Int("port").pipe(
      Flag.withDescription("Port of 127.0.0.1; 0 takes a free one. Default: 8008"),
      Flag.withSchema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 65_535 }))),
      Flag.withDefault(8008)
    ),
    user: Flag.String("user").pipe(
      Flag.withAlias("u"),
      Flag.withMetavar("NAME[:PASSWORD]"),
      Flag.withDescription(
        "An account to start with; repeat it for more. Without a password, the name is the password. Default: alice"
      ),
      Flag.atLeast(0)
    ),
    noUser: Flag.Boolean("no-user").pipe(
      Flag.withDescription("Start with no account at all; clients register theirs"),
      Flag.withoutNegation,
      Flag.withDefault(false)
    ),
    rooms: Flag.Int("rooms").pipe(
      Flag.withMetavar("N"),
      Flag.withDescription("Rooms of each account, with a message in each. Default: 5"),
      Flag.withSchema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: MAX_ROOMS }))),
      Flag.withDefault(5)
    ),
    withParent: Flags.withParent(),
    json: Flags.json
  },
  ({ port, ...input }) =>
    serve(input).pipe(Effect.provide(Layer.merge(DevHomeserver.layer({ port }), Lifecycle.layerSignals)))
).pipe(
  Command.withDescription("Serve the embedded homeserver: for development and tests, on this machine only"),
  Command.withExamples([
    {
      command: "twinloop homeserver --port 8008",
      description: "Then: echo alice | twinloop login http://127.0.0.1:8008 --user alice"
    },
    {
      command: "twinloop homeserver --user alice:secret --user bob --rooms 200",
      description: "Two accounts with 200 rooms each; the password of bob is bob"
    }
  ])
)
