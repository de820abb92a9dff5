/**
 * What the loops count, for Effect's metrics: Prometheus, OTLP or `Metric.snapshot`.
 *
 * Names follow OpenTelemetry: a dotted path, with the unit in the description.
 */
import type { SupervisionPolicy } from "@twinloop/core"
import { Effect, Metric } from "effect"

/** To-device events that were made durable in the inbox. */
export const toDeviceApplied = Metric.counter("twinloop.to_device.applied", {
  description: "To-device events committed to the inbox",
  incremental: true
})

/** Things that arrived and could not be understood (invariant I7). */
export const quarantined = Metric.counter("twinloop.quarantined", {
  description: "Malformed events and rooms that were set aside with their raw JSON",
  incremental: true
})

/** Responses of the main loop that were made durable. */
export const pagesCommitted = Metric.counter("twinloop.main.pages", {
  description: "Main-loop responses committed, one transaction each",
  incremental: true
})

/** What pushes came to, by the result's tag. */
export const notifications = Metric.counter("twinloop.notifications", {
  description: "Pushes that were resolved, by result",
  incremental: true
})

/** Counts one resolved push. */
export const resolved = (result: string): Effect.Effect<void> =>
  Metric.update(Metric.withAttributes(notifications, { result }), 1)

/** Who works with the homeserver: a loop, or a notification. */
export type Worker = "main" | "extension" | "notification"

/** Failures of a loop, by loop and error class. */
export const failures = Metric.counter("twinloop.failures", {
  description: "Failed iterations of a loop, by loop and error class",
  incremental: true
})

/** One-time keys that the homeserver refused because it has others under their ids. */
export const oneTimeKeyConflicts = Metric.counter("twinloop.keys.conflicts", {
  description: "Uploads of one-time keys that were refused because the homeserver has other keys under these ids",
  incremental: true
})

/** Counts one refused upload. */
export const oneTimeKeyConflict: Effect.Effect<void> = Metric.update(oneTimeKeyConflicts, 1)

/** Counts one extension commit. */
export const applied = (events: number, malformed: number): Effect.Effect<void> =>
  Effect.andThen(Metric.update(toDeviceApplied, events), Metric.update(quarantined, malformed))

/** Counts one main-loop commit. */
export const committed = (malformed: number): Effect.Effect<void> =>
  Effect.andThen(Metric.update(pagesCommitted, 1), Metric.update(quarantined, malformed))

/** Counts one failed iteration. */
export const failed = (loop: Worker, failure: SupervisionPolicy.Failure): Effect.Effect<void> =>
  Metric.update(Metric.withAttributes(failures, { loop, class: failure.class }), 1)
