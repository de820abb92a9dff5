/** `twinloop run`: follows an account until stopped, and prints what happens. */
import { Inbox, SyncService } from "@twinloop/actors"
import { EventDecryptor, RoomList, SupervisionPolicy, type SyncStore } from "@twinloop/core"
import { Clock, Console, Deferred, Effect, Layer, Option, Ref, Schedule, Schema, Stream } from "effect"
import { Command, Flag } from "effect/cli"
import * as ControlServer from "../control/ControlServer.ts"
import { StoreKey } from "../crypto/StoreKey.ts"
import * as Lifecycle from "../lifecycle/Lifecycle.ts"
import * as Printable from "../Printable.ts"
import * as Twinloop from "../Twinloop.ts"
import * as SocketDirectory from "../wake/SocketDirectory.ts"
import { CommandFailed, exitCodes } from "./ExitCode.ts"
import * as Flags from "./Flags.ts"
import * as KnownAccount from "./KnownAccount.ts"
import * as MonotonicClock from "./MonotonicClock.ts"
import * as Output from "./Output.ts"
import * as Parent from "./Parent.ts"
import type { RunEvent } from "./RunEvent.ts"
import * as RunStatus from "./RunStatus.ts"
import * as RunText from "./RunText.ts"

/** Who suspends, so that the terminal's ^Z and an operator's `twinloop suspend` don't undo each other. */
const OPERATOR = "operator"
const TERMINAL = "terminal"

/** How long a stopped process still lives for its answer to reach who asked, in milliseconds. */
const ANSWER_MILLIS = 50

type Unstamped = RunEvent extends infer E ? (E extends RunEvent ? Omit<E, "atMillis"> : never) : never
type Print = (event: Unstamped) => Effect.Effect<void>

/** Everything as JSON; for people only what says something new. */
const printer = Effect.fnUntraced(function* (json: boolean): Effect.fn.Return<Print> {
  const printed = yield* Ref.make(RunText.nothingPrinted)
  const progress = yield* Output.progress
  const say = (event: RunEvent): Effect.Effect<void> => {
    if (json) return Console.log(Printable.json(event))
    if (event.event !== "state") return progress.line(RunText.line(event))
    return Effect.flatMap(
      Ref.modify(printed, (before) => {
        const [after, said] = RunText.ofState(before, event)
        return [said, after]
      }),
      (said) => {
        if (said === undefined) return Effect.void
        return said.isProgress ? progress.status(said.text) : progress.line(said.text)
      }
    )
  }
  return (event) => Effect.flatMap(MonotonicClock.nowMillis, (atMillis) => say({ ...event, atMillis } as RunEvent))
})

const printStates = (print: Print) =>
  Effect.flatMap(SyncService.SyncService, (service) =>
    Stream.runForEach(service.changes, ({ _tag, extension, main }) =>
      print({ event: "state", state: _tag, main, extension })
    )
  )

const printRooms = (print: Print) =>
  Effect.flatMap(RoomList.RoomList, (list) =>
    Stream.runForEach(
      Stream.changes(
        Stream.map(list.loadingState, (loading) => (loading._tag === "Loaded" ? loading.maximumNumberOfRooms : 0))
      ),
      (rooms) => print({ event: "rooms", rooms })
    )
  )

/** How long after a failure the inbox is read again: a full disk or a locked database may be neither by then. */
const INBOX_RETRY = Schedule.spaced("1 second")

const printInbox = (print: Print, role: string) =>
  Effect.flatMap(Inbox.Inbox, (inbox) =>
    inbox.consume(RunStatus.consumer(role), (entry: SyncStore.InboxEntry) =>
      print({
        event: "inbox",
        sequence: entry.sequence,
        type: entry.type,
        sender: entry.sender,
        encryption: entry.encryption
      })
    )
  ).pipe(
    Effect.tapError((error) => Effect.logWarning(`The inbox can't be printed; it is tried again. ${error.message}`)),
    Effect.retry(INBOX_RETRY)
  )

const windowLine = /^window (\d+) (\d+)$/

/** With a parent: its lines `window START END` say what is on the screen. */
const obeyParent = Effect.flatMap(SyncService.SyncService, (service) =>
  Parent.lines((line) => {
    const match = windowLine.exec(line)
    return match === null ? Effect.void : service.setWindow([Number(match[1]), Number(match[2])])
  })
)

const quietOf = (print: Print, by: "stop" | "suspend") =>
  Effect.fnUntraced(function* (ending: Effect.Effect<SyncService.StopReport>) {
    const report = yield* ending
    yield* print({ event: "quiet", by, ...report })
    return report
  })

/**
 * Opens the stored end-to-end keys once, so that a process whose key is not theirs doesn't begin. What may be otherwise in a
 * moment is left to the loops.
 */
const tryKey = Effect.flatMap(EventDecryptor.EventDecryptor, ({ status }) =>
  Effect.catchIf(
    status,
    (error) => SupervisionPolicy.classify(error).class !== "storeTerminal",
    () => Effect.void
  )
)

/** Follows the account until the operating system, an operator or the parent says stop. */
export const follow = Effect.fnUntraced(function* (input: {
  readonly database: string
  readonly json: boolean
  readonly deadline: number
  readonly role: string
  readonly withParent: boolean
  readonly exitOnTerminal?: boolean
  /** Where the key is to the end-to-end keys; absent without end-to-end encryption. */
  readonly keyFile?: string
}) {
  const print = yield* printer(input.json)
  const { keyFile } = input
  yield* tryKey
  if (keyFile !== undefined) yield* print({ event: "encryption", keyFile })
  const service = yield* SyncService.SyncService
  const startedAtMillis = yield* Clock.currentTimeMillis
  const stopped = yield* Deferred.make<void>()
  const { deadline } = input
  const suspend = (by: string, deadline: number) => quietOf(print, "suspend")(service.suspend({ by, deadline }))
  const endLoops = quietOf(print, "stop")(service.stop({ deadline }))
  const stop = Effect.tap(endLoops, () => Deferred.succeed(stopped, undefined))
  const services = yield* Effect.context<Twinloop.Twinloop>()
  // The answer must have left before the socket closes under it.
  const stopSoon = Effect.tap(endLoops, () =>
    Effect.forkDetach(Effect.delay(Deferred.succeed(stopped, undefined), ANSWER_MILLIS))
  )
  const control = ControlServer.layer({
    directory: yield* SocketDirectory.forDatabase(input.database),
    handlers: {
      status: Effect.provide(
        RunStatus.gather({ startedAtMillis, ...(keyFile !== undefined && { keyFile }) }),
        services
      ),
      suspend: (wish) => suspend(OPERATOR, wish ?? deadline),
      resume: service.resume({ by: OPERATOR }),
      stop: stopSoon
    }
  })
  yield* Effect.forkScoped(printStates(print))
  yield* Effect.forkScoped(printRooms(print))
  yield* Effect.forkScoped(printInbox(print, input.role))
  if (input.withParent) yield* Effect.forkScoped(Effect.andThen(obeyParent, stop))
  yield* Effect.forkScoped(
    Lifecycle.run({
      suspend: suspend(TERMINAL, deadline),
      resume: service.resume({ by: TERMINAL }),
      stop
    })
  )
  yield* Layer.build(control)
  yield* service.start
  const ended = Deferred.await(stopped)
  yield* input.exitOnTerminal === true ? Effect.raceFirst(ended, failWhenTerminal(endLoops)) : ended
}, Effect.scoped)

/** What the process ends with when a loop gave up, by the class of the failure. */
const terminalCodes: { readonly [failureClass: string]: number } = {
  auth: exitCodes.login,
  storeTerminal: exitCodes.database,
  unsupported: exitCodes.homeserver
}

/** Stops in order once nothing that the process can do helps, and fails with the reason. */
const failWhenTerminal = Effect.fnUntraced(function* <A>(endLoops: Effect.Effect<A>) {
  const service = yield* SyncService.SyncService
  const terminal = yield* service.changes.pipe(
    Stream.filter((state) => state._tag === "Terminal"),
    Stream.runHead,
    Effect.flatMap(Effect.fromOption),
    // The stream of states ends only with the service.
    Effect.orDie
  )
  const { failure, loop } = terminal
  yield* endLoops
  return yield* new CommandFailed({
    message: `The ${loop} loop has given up: ${failure.message}`,
    exitCode: terminalCodes[failure.class] ?? exitCodes.failed
  })
})

export const runCommand = Command.make(
  "run",
  {
    database: Flags.database,
    role: Flag.String("role").pipe(
      Flag.withDescription(
        "What this process is among those of the account; each needs a role of its own. Default: main"
      ),
      Flag.withSchema(
        Schema.String.check(Schema.isPattern(/^[a-z0-9-]{1,8}$/i, { message: "1 to 8 letters, digits or dashes" }))
      ),
      Flag.withDefault("main")
    ),
    deadline: Flags.deadline,
    withParent: Flags.withParent("; takes lines `window START END` from it: the rooms on the screen"),
    exitOnTerminal: Flag.Boolean("exit-on-terminal").pipe(
      Flag.withDescription("End when it can't go on by itself: 3 logged out, 4 the database, 5 no sliding sync"),
      Flag.withDefault(false)
    ),
    keyFile: Flags.keyFile,
    json: Flags.json
  },
  (input) => {
    const { database, role } = input
    const keyFile = Option.getOrElse(input.keyFile, () => Flags.keyFileOf(database))
    const encryption = StoreKey.layerFile(keyFile)
    return Effect.andThen(
      KnownAccount.requireDatabase(database),
      follow({ ...input, keyFile }).pipe(
        Effect.provide(Layer.merge(Twinloop.layer({ database, encryption, config: { role } }), Lifecycle.layerSignals)),
        Effect.catchTag("NotLoggedIn", KnownAccount.sayWhere(database))
      )
    )
  }
).pipe(
  Command.withDescription(
    "Follow the account until stopped: SIGINT and SIGTERM stop, ^Z suspends, a second SIGINT ends at once"
  ),
  Command.withExamples([
    { command: "twinloop run", description: "The main process" },
    { command: "twinloop run --role standby", description: "A second one, which waits for the extension stream" },
    { command: "twinloop run --json", description: "One JSON object per line, for another program" }
  ])
)
