/** Flags that several commands have. */
import { Schema } from "effect"
import { Flag } from "effect/cli"

/** Where the account is kept. */
export const database = Flag.String("database").pipe(
  Flag.withAlias("d"),
  Flag.withMetavar("FILE"),
  Flag.withDescription(
    "SQLite file of the account; every process of the account names the same one. Default: twinloop.db"
  ),
  Flag.withDefault("twinloop.db")
)

/** Where the key of the account's end-to-end keys is kept. */
export const keyFile = Flag.String("key-file").pipe(
  Flag.withMetavar("FILE"),
  Flag.withDescription(
    "File with the key under which the end-to-end keys in the database are encrypted; made when there are none yet. Default: the database's name with .key"
  ),
  Flag.optional
)

export { keyFileOf } from "./NotifyInput.ts"

/** Machine-readable output. */
export const json = Flag.Boolean("json").pipe(
  Flag.withDescription("Print JSON instead of text: one object, or one per line while running"),
  Flag.withDefault(false)
)

/** How long stopping or suspending may take. */
export const deadline = Flag.Int("deadline").pipe(
  Flag.withMetavar("MILLIS"),
  Flag.withDescription("How long to wait for quiet, in milliseconds; what isn't finished then is named. Default: 5000"),
  Flag.withSchema(Schema.Int.check(Schema.isGreaterThanOrEqualTo(0, { message: "0 or more milliseconds" }))),
  Flag.withDefault(5_000)
)

/** Where notifications are shown. */
export const sinks = Flag.String("sink").pipe(
  Flag.withMetavar("SINK"),
  Flag.withDescription(
    "Where to show: terminal, desktop, jsonl:FILE or webhook:URL (signed with TWINLOOP_WEBHOOK_SECRET if that is set); repeat it for more. Default: terminal, or nothing but JSON with --json"
  ),
  Flag.atLeast(0)
)

/** Ties the process to the one that started it; `more` says what else standard input is for. */
export const withParent = (more = "") =>
  Flag.Boolean("with-parent").pipe(Flag.withDescription(`End when standard input ends${more}`), Flag.withDefault(false))
