/**
 * Notifications on standard output: the time of day, where, and what; in two lines where one would be too long.
 *
 * Gotchas: a terminal remembers nothing, so what was shown before a kill may be shown again.
 */
import { NotificationSink, NotificationText } from "@twinloop/core"
import { Clock, Console, Effect, Layer } from "effect"
import * as Printable from "../../Printable.ts"

/** Characters of a line, above which the body gets one of its own. */
const LINE_CHARACTERS = 100

const linesOf = ({ body, title }: NotificationText.NotificationText, atMillis: number): ReadonlyArray<string> => {
  const time = new Date(atMillis).toTimeString().slice(0, 8)
  const one = `${time}  ${title}  ${body}`
  return one.length <= LINE_CHARACTERS ? [one] : [`${time}  ${title}`, `${" ".repeat(time.length)}  ${body}`]
}

const show: NotificationSink.NotificationSink["Service"]["show"] = (resolved) => {
  const text = NotificationText.textOf(resolved)
  if (text === undefined) return Effect.void
  return Effect.flatMap(Clock.currentTimeMillis, (now) =>
    Console.log(linesOf(text, now).map(Printable.line).join("\n"))
  )
}

/** Shows on standard output, by `Console`; the time is the local one. */
export const layer: Layer.Layer<NotificationSink.NotificationSink> = Layer.succeed(NotificationSink.NotificationSink, {
  name: "terminal",
  show
})
