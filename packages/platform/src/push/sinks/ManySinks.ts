/**
 * Several sinks as one.
 *
 * Invariants: I7 (a sink that fails keeps no other from showing, and is named), I10 (`REMEMBERED`).
 *
 * Gotchas: what one sink could not show is tried again by whoever asked, and the others have shown it by then. They are
 * passed over: by what a sink knows itself, and in this process also by what is remembered of one that knows nothing.
 */
import { NotificationSink } from "@twinloop/core"
import type { NotificationClient, NotificationItem } from "@twinloop/core"
import { Cause, Context, Effect, Exit, Layer } from "effect"

type Sink = NotificationSink.NotificationSink["Service"]

/** Notifications that some sinks have shown and others haven't, at most. */
const REMEMBERED = 1_000

const keyOf = ({ eventId, roomId }: NotificationItem.NotificationRequest): string => JSON.stringify([roomId, eventId])

/** Which sinks have shown what another could not show; the oldest is forgotten first. */
const makeMemory = () => {
  const shown = new Map<string, Set<Sink>>()
  return {
    has: (key: string, sink: Sink): boolean => shown.get(key)?.has(sink) === true,
    add: (key: string, sinks: ReadonlyArray<Sink>): void => {
      shown.set(key, new Set([...(shown.get(key) ?? []), ...sinks]))
      const [oldest] = shown.keys()
      if (shown.size > REMEMBERED && oldest !== undefined) shown.delete(oldest)
    },
    remove: (key: string): void => void shown.delete(key)
  }
}

type Memory = ReturnType<typeof makeMemory>
type Outcome = readonly [sink: Sink, exit: Exit.Exit<void, NotificationSink.SinkError>]

const knows = (sink: Sink, request: NotificationItem.NotificationRequest) =>
  sink.isKnown === undefined ? Effect.succeed(false) : sink.isKnown(request)

const showIn = (memory: Memory, sink: Sink, resolved: NotificationClient.Resolved): Effect.Effect<Outcome> => {
  const { request } = resolved
  const shown = memory.has(keyOf(request), sink)
    ? Effect.void
    : Effect.flatMap(knows(sink, request), (known) => (known ? Effect.void : sink.show(resolved)))
  return Effect.map(Effect.exit(shown), (exit) => [sink, exit])
}

/** One failure for all: a bug in a sink stays one, anything else is named with its sink. */
const failureOf = (outcomes: ReadonlyArray<Outcome>): Effect.Effect<void, NotificationSink.SinkError> => {
  const failures = outcomes.flatMap(([sink, exit]) => (Exit.isFailure(exit) ? [{ sink, cause: exit.cause }] : []))
  if (failures.length === 0) return Effect.void
  const bug = failures.find(({ cause }) => Cause.hasDies(cause))
  if (bug !== undefined) return Effect.failCause(bug.cause)
  return Effect.fail(
    new NotificationSink.SinkError({
      sink: failures.map(({ sink }) => sink.name).join(", "),
      message: failures.map(({ cause, sink }) => `${sink.name}: ${messageOf(cause)}`).join(" ")
    })
  )
}

const messageOf = (cause: Cause.Cause<NotificationSink.SinkError>): string =>
  cause.reasons.flatMap((reason) => (Cause.isFailReason(reason) ? [reason.error.message] : [])).join(" ")

const remember = (memory: Memory, key: string, outcomes: ReadonlyArray<Outcome>) =>
  Effect.sync(() => {
    const shown = outcomes.flatMap(([sink, exit]) => (Exit.isSuccess(exit) ? [sink] : []))
    if (shown.length === outcomes.length) memory.remove(key)
    else memory.add(key, shown)
  })

const isKnownOf = (sinks: ReadonlyArray<Sink>): Pick<Sink, "isKnown"> =>
  sinks.length > 0 && sinks.every(({ isKnown }) => isKnown !== undefined)
    ? {
        isKnown: (request) =>
          Effect.map(
            Effect.forEach(sinks, (sink) => knows(sink, request)),
            (known) => known.every(Boolean)
          )
      }
    : {}

/**
 * Shows in all of them at the same time. Fails when all are done, with the names of those that failed. Knows what all of
 * them know; can't tell, where one of them can't.
 */
export const of = (sinks: ReadonlyArray<Sink>): Sink => {
  const memory = makeMemory()
  return {
    name: sinks.map(({ name }) => name).join(", "),
    show: (resolved) =>
      Effect.forEach(sinks, (sink) => showIn(memory, sink, resolved), { concurrency: "unbounded" }).pipe(
        Effect.tap((outcomes) => remember(memory, keyOf(resolved.request), outcomes)),
        Effect.flatMap(failureOf)
      ),
    ...isKnownOf(sinks)
  }
}

/** The same of layers, each built once. */
export const layer = <E, R>(
  sinks: ReadonlyArray<Layer.Layer<NotificationSink.NotificationSink, E, R>>
): Layer.Layer<NotificationSink.NotificationSink, E, R> =>
  Layer.effect(
    NotificationSink.NotificationSink,
    Effect.map(
      Effect.forEach(sinks, (sink) => Layer.build(sink)),
      (built) => of(built.map((context) => Context.get(context, NotificationSink.NotificationSink)))
    )
  )
