/**
 * Where notifications are shown, as a command line says it: `terminal`, `desktop`, `jsonl:FILE`, `webhook:URL`.
 *
 * Gotchas: a webhook's address may be a secret, so no message repeats it.
 */
import type { NotificationSink } from "@twinloop/core"
import { type Layer, type Redacted, Result, Schema } from "effect"
import type { HttpTransport } from "../../http/HttpTransport.ts"
import * as Printable from "../../Printable.ts"
import * as DesktopSink from "./DesktopSink.ts"
import * as JsonLinesSink from "./JsonLinesSink.ts"
import * as TerminalSink from "./TerminalSink.ts"
import * as WebhookSink from "./WebhookSink.ts"

/** What was given names no sink; `message` says what is wrong, and which there are. */
export class InvalidSink extends Schema.TaggedError<InvalidSink>("@twinloop/platform/InvalidSink")("InvalidSink", {
  message: Schema.String
}) {}

export type SinkChoice =
  | { readonly _tag: "Terminal" }
  | { readonly _tag: "Desktop" }
  /** `-` is standard output. */
  | { readonly _tag: "JsonLines"; readonly file: string }
  | { readonly _tag: "Webhook"; readonly url: string }

/** Characters of a wrong word that a message repeats. */
const SHOWN_CHARACTERS = 40

const invalid = (what: string): Result.Result<never, InvalidSink> =>
  Result.fail(
    new InvalidSink({
      message: `${what} There are: terminal, desktop, jsonl:FILE (jsonl:- is standard output) and webhook:URL.`
    })
  )

/** Reads one sink as it is given on the command line. */
export const parse = (text: string): Result.Result<SinkChoice, InvalidSink> => {
  const [kind = "", ...rest] = text.split(":")
  const value = rest.join(":")
  const isAlone = rest.length === 0
  if (kind === "terminal" && isAlone) return Result.succeed({ _tag: "Terminal" })
  if (kind === "desktop" && isAlone) return Result.succeed({ _tag: "Desktop" })
  if (kind === "jsonl") {
    return value === "" ? invalid("jsonl needs a file.") : Result.succeed({ _tag: "JsonLines", file: value })
  }
  if (kind === "webhook") {
    return WebhookSink.originOf(value) === undefined
      ? invalid("webhook needs an address with its scheme, like webhook:https://example.org/hook.")
      : Result.succeed({ _tag: "Webhook", url: value })
  }
  return invalid(`"${Printable.line(kind.slice(0, SHOWN_CHARACTERS))}" is no sink, or takes nothing after a colon.`)
}

/** The sink that was chosen. `webhookSecret` signs what is posted. */
export const layer = (
  choice: SinkChoice,
  options: { readonly webhookSecret?: Redacted.Redacted } = {}
): Layer.Layer<NotificationSink.NotificationSink, NotificationSink.SinkError, HttpTransport> => {
  switch (choice._tag) {
    case "Terminal":
      return TerminalSink.layer
    case "Desktop":
      return DesktopSink.layer()
    case "JsonLines":
      return JsonLinesSink.layer({ file: choice.file })
    case "Webhook": {
      const secret = options.webhookSecret
      return WebhookSink.layer({ url: choice.url, ...(secret !== undefined && { secret }) })
    }
  }
}
