/**
 * Finds the running processes of a database, and asks them things over their control sockets.
 *
 * Invariants: I10 (every request has a limit; a stopped process accepts connections and never answers).
 *
 * Not here: what can be asked (`ControlProtocol.ts`), the answering side (`ControlServer.ts`).
 */
import { NodeSocket } from "@effect/platform-node"
import { Cause, Effect, Layer, Schedule, Schema } from "effect"
import type { Scope } from "effect"
import { RpcClient, RpcSerialization } from "effect/rpc"
import type { RpcClientError } from "effect/rpc"
import * as ProcessIdentity from "../wake/ProcessIdentity.ts"
import * as SocketDirectory from "../wake/SocketDirectory.ts"
import type { SocketFile } from "../wake/SocketDirectory.ts"
import { ControlRefused, ControlRpcs } from "./ControlProtocol.ts"
import type { LeaseStatus, Status, StopReport } from "./ControlProtocol.ts"

/** No process of the database runs, or none with the asked pid. */
export class NotRunning extends Schema.TaggedError<NotRunning>("@twinloop/platform/NotRunning")("NotRunning", {
  message: Schema.String,
  database: Schema.String
}) {}

/** The process lives, but doesn't answer: it is stopped or stalled. */
export class NoAnswer extends Schema.TaggedError<NoAnswer>("@twinloop/platform/NoAnswer")("NoAnswer", {
  message: Schema.String,
  pid: Schema.Finite
}) {}

/** The connection failed, or the process answered what we don't understand; it may be of another version. */
export class ControlBroken extends Schema.TaggedError<ControlBroken>("@twinloop/platform/ControlBroken")(
  "ControlBroken",
  { message: Schema.String, pid: Schema.Finite, cause: Schema.optionalKey(Schema.Defect()) }
) {}

export const ControlErrorReason = Schema.Union([NotRunning, NoAnswer, ControlBroken, ControlRefused])
export type ControlErrorReason = typeof ControlErrorReason.Type

/** A request to a running process failed; the message is fit to be shown to who asked. */
export class ControlError extends Schema.TaggedError<ControlError>("@twinloop/platform/ControlError")("ControlError", {
  reason: ControlErrorReason
}) {
  override get message(): string {
    return this.reason.message
  }
}

/** A running process that can be asked. */
export interface ControlTarget {
  readonly pid: number
  readonly file: SocketFile
}

/** A stalled event loop is well within it, and who types a command waits no longer for nothing. */
const defaultAnswerMillis = 5_000

/** How long a stop may take: what `SyncConfig.stopDeadlineMillis` gives by default, several times over. */
const stopMillis = 30_000

/**
 * The processes with a control socket in a directory (`SocketDirectory.forDatabase`) that live, by pid. A stopped one is
 * among them; one of another container, which can't be judged from here, as well.
 */
export const list = Effect.fnUntraced(function* (directory: string): Effect.fn.Return<ReadonlyArray<ControlTarget>> {
  const files = (yield* SocketDirectory.list(directory)).filter((file) => file.kind === "c")
  const living = yield* Effect.filter(files, (file) =>
    Effect.map(ProcessIdentity.check(file.peer), (liveness) => liveness !== "Dead")
  )
  return living.map((file) => ({ pid: file.peer.pid, file })).sort((a, b) => a.pid - b.pid)
})

/** The running processes of a database file, one or more; fails with `NotRunning` when there is none, or none with `pid`. */
export const find = Effect.fnUntraced(function* (
  database: string,
  pid?: number
): Effect.fn.Return<readonly [ControlTarget, ...Array<ControlTarget>], ControlError> {
  const all = yield* Effect.flatMap(SocketDirectory.forDatabase(database), list)
  const [first, ...others] = pid === undefined ? all : all.filter((target) => target.pid === pid)
  if (first !== undefined) return [first, ...others]
  const who = pid === undefined ? "no twinloop process is running" : `no twinloop process ${pid} is running`
  const running = all.map((target) => target.pid).join(", ")
  const hint = all.length === 0 ? "start one with twinloop run" : `running: ${running}`
  return yield* new ControlError({
    reason: new NotRunning({ message: `${who} on ${database}; ${hint}`, database })
  })
})

/** What can be asked of a process. Every request fails with a `ControlError` within a limit. */
export interface ControlClient {
  readonly status: Effect.Effect<Status, ControlError>
  /** Who owns the extension stream, as the process sees it; part of its status. */
  readonly lease: Effect.Effect<LeaseStatus, ControlError>
  /** Returns when the process is quiet, or at the deadline; without one, at the process's own. */
  readonly suspend: (deadlineMillis?: number) => Effect.Effect<StopReport, ControlError>
  readonly resume: Effect.Effect<void, ControlError>
  /** Returns when the process has stopped what runs in it, or is gone. */
  readonly stop: Effect.Effect<StopReport, ControlError>
}

export interface ConnectOptions {
  /**
   * How long an answer may take where nothing has to be waited for, and on top of a deadline where something has; and how
   * long a process that closed its socket at `stop` may take to end. 5 s if not given.
   */
  readonly answerMillis?: number
}

const fail = (reason: ControlErrorReason): Effect.Effect<never, ControlError> =>
  Effect.fail(new ControlError({ reason }))

const noAnswer = (pid: number, limitMillis: number): Effect.Effect<never, ControlError> =>
  fail(
    new NoAnswer({
      message: `process ${pid} gave no answer within ${limitMillis / 1_000} s; if it is stopped (^Z), continue it with kill -CONT ${pid}: it may then still do what it was asked`,
      pid
    })
  )

const broken = (pid: number, cause: unknown): Effect.Effect<never, ControlError> =>
  fail(
    new ControlBroken({
      message: `process ${pid} can't be asked: ${cause instanceof Error ? cause.message : cause}; it may have just ended, or be of another version`,
      pid,
      cause
    })
  )

/**
 * Bounds a request, and says in our words what went wrong. A defect or an interruption of the other side is an answer, and
 * none of ours.
 */
const ask = <A>(
  pid: number,
  limitMillis: number,
  request: Effect.Effect<A, ControlRefused | RpcClientError.RpcClientError>
): Effect.Effect<A, ControlError> =>
  request.pipe(
    Effect.catchTags({ ControlRefused: fail, RpcClientError: (error) => broken(pid, error) }),
    Effect.catchDefect((defect) => broken(pid, defect)),
    Effect.catchCauseIf(Cause.hasInterruptsOnly, () => broken(pid, "it closed its socket")),
    Effect.timeoutOrElse({ duration: limitMillis, orElse: () => noAnswer(pid, limitMillis) })
  )

/** A stopping process may end before its answer has arrived; that it ends is the answer. */
const orGone = (
  target: ControlTarget,
  limitMillis: number,
  stop: Effect.Effect<StopReport, ControlError>
): Effect.Effect<StopReport, ControlError> =>
  Effect.catchIf(
    stop,
    (error) => error.reason._tag === "ControlBroken",
    (error) =>
      ProcessIdentity.check(target.file.peer).pipe(
        Effect.repeat({ until: (liveness) => liveness === "Dead", schedule: Schedule.spaced("20 millis") }),
        Effect.as({ quiet: true, unfinished: [] }),
        Effect.timeoutOrElse({ duration: limitMillis, orElse: () => Effect.fail(error) })
      )
  )

/**
 * Opens the control socket of a process until the scope ends. A process that went away meanwhile, or doesn't answer, shows at
 * the first request.
 */
export const connect = Effect.fnUntraced(function* (
  target: ControlTarget,
  { answerMillis = defaultAnswerMillis }: ConnectOptions = {}
): Effect.fn.Return<ControlClient, ControlError, Scope.Scope> {
  const { pid } = target
  const context = yield* Layer.build(
    RpcClient.layerProtocolSocket().pipe(
      Layer.provide(NodeSocket.layerNet({ path: target.file.address, openTimeout: answerMillis })),
      Layer.provide(RpcSerialization.layerNdjson)
    )
  ).pipe(Effect.catch((error) => broken(pid, error)))
  const rpc = yield* Effect.provideContext(RpcClient.make(ControlRpcs, { disableTracing: true }), context)
  const status = ask(pid, answerMillis, rpc.Status())
  return {
    status,
    lease: Effect.map(status, (status) => status.lease ?? {}),
    suspend: (deadlineMillis) =>
      deadlineMillis === undefined
        ? ask(pid, stopMillis, rpc.Suspend({}))
        : ask(pid, deadlineMillis + answerMillis, rpc.Suspend({ deadlineMillis })),
    resume: ask(pid, answerMillis, rpc.Resume()),
    stop: orGone(target, answerMillis, ask(pid, stopMillis, rpc.Stop()))
  }
})
