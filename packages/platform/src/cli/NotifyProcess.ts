/**
 * A process that resolves pushes, shows them and ends: some events (`mode: "events"`), or what waits in the queue.
 *
 * Invariants: I4 (when it ends, in whatever way it is asked to, the lease is free), I7 (each event has a line or a word, and
 * the exit code says whether all were shown whole), I10 (it ends, whatever hangs: `GRACE_MILLIS`, `END_MILLIS`).
 *
 * Gotchas: a result is shown before the work on the extension stream is done; the process lives until it is.
 *
 * Not here: reading the command line (`NotifyInput.ts`, `NotifyCommand.ts`), starting this process (`PushDaemon.ts`).
 */
import {
  NotificationClient,
  type NotificationItem,
  NotificationSink,
  NotificationText,
  SyncConfig
} from "@twinloop/core"
import { Clock, Console, Effect, Layer, Redacted, Ref, Stream } from "effect"
import { StoreKey } from "../crypto/StoreKey.ts"
import * as Printable from "../Printable.ts"
import { PushQueue } from "../push/PushQueue.ts"
import * as PushWorker from "../push/PushWorker.ts"
import * as ManySinks from "../push/sinks/ManySinks.ts"
import * as SinkChoice from "../push/sinks/SinkChoice.ts"
import * as SinkRecord from "../push/sinks/SinkRecord.ts"
import * as Twinloop from "../Twinloop.ts"
import { CommandFailed, exitCodes } from "./ExitCode.ts"
import * as HardStop from "./HardStop.ts"
import * as KnownAccount from "./KnownAccount.ts"
import type { NotifyInput, Place } from "./NotifyInput.ts"
import * as Parent from "./Parent.ts"
import { peakRssBytes } from "./PeakMemory.ts"

type Resolved = NotificationClient.Resolved

/** How long showing and ending may take beyond the deadline: a webhook that hangs is what takes longest. */
const GRACE_MILLIS = 10_000

/** How long ending may take once it is asked for: several times what closing the database takes. */
const END_MILLIS = 1_000

/** The variable with the secret that signs what is posted to webhooks. */
const WEBHOOK_SECRET = "TWINLOOP_WEBHOOK_SECRET"

type OfEvents = Extract<NotifyInput, { readonly mode: "events" }>
type OfQueue = Extract<NotifyInput, { readonly mode: "queue" }>

// --- telling

/** A line of `--json`: what is shown, how long it took, and how much memory the process had at most. */
export interface NotifyLine extends SinkRecord.SinkRecord {
  /** Until it was known: since the process started, or since the push was accepted. */
  readonly millis: number
  readonly peakRssBytes: number
}

const lineOf = (resolved: Resolved, nowMillis: number, millis: number): string =>
  SinkRecord.stringify({
    ...SinkRecord.recordOf(resolved, nowMillis),
    millis: Math.round(millis),
    peakRssBytes: peakRssBytes()
  } satisfies NotifyLine)

const isToBeShown = ({ result }: Resolved): boolean => result._tag !== "FilteredOut" && result._tag !== "Redacted"

/** Nothing is seen of it on a terminal, so that whoever asked for it is told why. */
const explain = (resolved: Resolved): Effect.Effect<void> => {
  const { request, result } = resolved
  if (NotificationText.textOf(resolved) !== undefined || !("message" in result)) return Effect.void
  return Console.log(Printable.line(`Nothing to show of ${request.eventId}: ${result.message}`))
}

// --- some events

const codeOfFailure = (failure: NotificationItem.NotificationFailure["class"]): number => {
  if (failure === "auth") return exitCodes.login
  return failure === "store" || failure === "storeTerminal" ? exitCodes.database : exitCodes.notification
}

const codeOf = (result: NotificationItem.NotificationResult): number => {
  switch (result._tag) {
    case "Event":
    case "FilteredOut":
    case "Redacted":
      return exitCodes.ok
    case "Failed":
      return codeOfFailure(result.failure.class)
    default:
      return exitCodes.notification
  }
}

/** What is wrong with one event; `exitCode` is 0 when nothing is. */
interface Outcome {
  readonly exitCode: number
  readonly message: string
}

const outcomeOf = ({ request, result }: Resolved): Outcome => ({
  exitCode: codeOf(result),
  message: "message" in result ? `${request.eventId}: ${result.message}` : ""
})

const tell = Effect.fnUntraced(function* (json: boolean, resolved: Resolved) {
  const sink = yield* NotificationSink.NotificationSink
  if (json) yield* Console.log(lineOf(resolved, yield* Clock.currentTimeMillis, performance.now()))
  else yield* explain(resolved)
  const shown = isToBeShown(resolved) ? sink.show(resolved) : Effect.void
  return yield* shown.pipe(
    Effect.as(outcomeOf(resolved)),
    Effect.catch(({ message }) => Effect.succeed<Outcome>({ exitCode: exitCodes.notification, message }))
  )
})

/** One failure for all: nobody logged in comes before a broken database, and that before what could not be shown. */
const failureOf = (outcomes: ReadonlyArray<Outcome>, json: boolean): CommandFailed | undefined => {
  const failed = outcomes.filter(({ exitCode }) => exitCode !== exitCodes.ok)
  if (failed.length === 0) return undefined
  return new CommandFailed({
    message: failed.map(({ message }) => message).join("\n"),
    exitCode: Math.min(...failed.map(({ exitCode }) => exitCode)),
    printed: json
  })
}

const showEvents = Effect.fnUntraced(function* ({ deadlineMillis, eventIds, json, roomId }: OfEvents) {
  const client = yield* NotificationClient.NotificationClient
  const requests = eventIds.map((eventId) => ({ roomId, eventId, isUrgent: true }))
  const options = deadlineMillis === undefined ? {} : { deadline: deadlineMillis }
  const outcomes = yield* client.resolving(requests, options).pipe(
    Stream.mapEffect((resolved) => tell(json, resolved), { concurrency: "unbounded", unordered: true }),
    Stream.runCollect
  )
  yield* client.settled
  const failure = failureOf(outcomes, json)
  if (failure !== undefined) return yield* failure
})

// --- the queue

const workOff = Effect.fnUntraced(function* ({ idleMillis, json, maxRssBytes }: OfQueue) {
  // A process that is too large from the start still shows something, or nobody ever would.
  const hasShown = yield* Ref.make(false)
  const isLarge = Effect.sync(() => process.memoryUsage.rss() > maxRssBytes)
  yield* PushWorker.run({
    idleMillis,
    isEnough: Effect.flatMap(Ref.get(hasShown), (shown) => (shown ? isLarge : Effect.succeed(false))),
    onDone: Effect.fnUntraced(function* (resolved, push) {
      yield* Ref.set(hasShown, true)
      const nowMillis = yield* Clock.currentTimeMillis
      if (json) yield* Console.log(lineOf(resolved, nowMillis, nowMillis - push.receivedAtMillis))
    })
  }).pipe(
    Effect.catchTag("CannotResolve", (error) =>
      Effect.fail(new CommandFailed({ message: error.message, exitCode: codeOfFailure(error.class) }))
    )
  )
})

// --- the process

/** The sinks of a command, all in one; the secret for webhooks comes from the environment, where other users can't read it. */
export const sinkLayer = ({ sinks }: Pick<Place, "sinks">) =>
  Layer.unwrap(
    Effect.sync(() => {
      const secret = process.env[WEBHOOK_SECRET]
      const options = secret === undefined ? {} : { webhookSecret: Redacted.make(secret, { label: "webhook secret" }) }
      return ManySinks.layer(sinks.map((choice) => SinkChoice.layer(choice, options)))
    })
  )

const accountLayer = ({ database, keyFile, sinks }: Place) =>
  Layer.merge(PushQueue.layer, sinkLayer({ sinks })).pipe(
    Layer.provideMerge(Twinloop.layerNotifier({ database, encryption: StoreKey.layerFile(keyFile) }))
  )

/** Whatever hangs when the process is asked to end. */
const armAtSignals = Effect.acquireRelease(
  Effect.sync(() => {
    const arm = (): void => {
      Effect.runSync(
        HardStop.arm(
          END_MILLIS,
          130,
          `it did not end within ${END_MILLIS} ms of being asked to, so it is ended at once`
        )
      )
    }
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, arm)
    return arm
  }),
  (arm) =>
    Effect.sync(() => {
      for (const signal of ["SIGINT", "SIGTERM"] as const) process.removeListener(signal, arm)
    })
)

const deadlineOf = ({ deadlineMillis = SyncConfig.defaults.notificationDeadlineMillis }: OfEvents): number =>
  deadlineMillis + GRACE_MILLIS

/** The parent says nothing; its end is this process's, as a signal is. */
const untilParentEnds = Effect.andThen(
  Parent.lines(() => Effect.void),
  Effect.interrupt
)

const work = Effect.fnUntraced(function* (input: NotifyInput) {
  if (input.mode === "events") yield* showEvents(input)
  else yield* workOff(input)
})

const untilDone = (input: NotifyInput) =>
  input.withParent ? Effect.raceFirst(work(input), untilParentEnds) : work(input)

/**
 * Does what was asked for, until it is done. Fails with `CommandFailed` (8, or 3 and 4) when something could not be shown, or
 * with what kept it from beginning.
 */
export const run = Effect.fnUntraced(function* (input: NotifyInput) {
  yield* armAtSignals
  if (input.mode === "events") {
    const limit = deadlineOf(input)
    yield* HardStop.arm(
      limit,
      exitCodes.notification,
      `it still ran ${limit} ms after its start, so it is ended at once`
    )
  }
  yield* KnownAccount.requireDatabase(input.database)
  const ends = HardStop.arm(
    GRACE_MILLIS,
    exitCodes.failed,
    `it did not end within ${GRACE_MILLIS} ms of its work, so it is ended at once`
  )
  yield* untilDone(input).pipe(
    Effect.ensuring(ends),
    Effect.provide(accountLayer(input)),
    Effect.catchTag("NotLoggedIn", KnownAccount.sayWhere(input.database))
  )
}, Effect.scoped)
