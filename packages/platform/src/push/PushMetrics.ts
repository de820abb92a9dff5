/** What the push gateway counts, for Effect's metrics. */
import { Effect, Metric } from "effect"
import type { Answered } from "./PushTables.ts"

/** Pushes by what became of them, one per device. */
export const received = Metric.counter("twinloop.push.received", {
  description: "Pushes that were answered, by outcome: accepted, duplicate, unknown",
  incremental: true
})

/** Requests that were not taken. */
export const refused = Metric.counter("twinloop.push.refused", {
  description: "Requests to the push gateway that were refused, by HTTP status",
  incremental: true
})

/** Counts what became of a request. */
export const countReceived = (answers: ReadonlyArray<Answered>): Effect.Effect<void> =>
  Effect.forEach(answers, ({ outcome }) => Metric.update(Metric.withAttributes(received, { outcome }), 1), {
    discard: true
  })

/** Counts one request that was refused. */
export const countRefused = (status: number): Effect.Effect<void> =>
  Metric.update(Metric.withAttributes(refused, { status: String(status) }), 1)
