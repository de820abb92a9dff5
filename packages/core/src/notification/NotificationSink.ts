/**
 * Port to where notifications are shown: a terminal, a desktop, a webhook, or whatever an integrator provides.
 *
 * Adapters: platform's `TerminalSink`, `DesktopSink`, `WebhookSink`, `JsonLinesSink`.
 *
 * Gotchas: who shows may be killed between showing and having written down that it did. `isKnown` is how nothing is shown
 * twice all the same; a sink that can't tell leaves it out, and may then be asked to show something a second time.
 */
import { Context, Schema } from "effect"
import type { Effect } from "effect"
import type { Resolved } from "./NotificationClient.ts"
import type { NotificationRequest } from "./NotificationItem.ts"

/** A notification could not be shown; it is tried again. `sink` is the sink's name. */
export class SinkError extends Schema.TaggedError<SinkError>("@twinloop/core/SinkError")("SinkError", {
  sink: Schema.String,
  message: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {}

export class NotificationSink extends Context.Service<
  NotificationSink,
  {
    /** For messages: "terminal", "webhook", … */
    readonly name: string
    /**
     * Shows what a push came to; done when it can be seen. It is given everything but what isn't to be shown at all
     * (`FilteredOut`, `Redacted`).
     */
    show(resolved: Resolved): Effect.Effect<void, SinkError>
    /** Whether the sink has shown this before, as far as it can tell by itself, also across restarts. */
    isKnown?(request: NotificationRequest): Effect.Effect<boolean, SinkError>
  }
>()("@twinloop/core/NotificationSink") {}
