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

/** Ties the process to the one that started it; `more` says what else standard input is for. */
export const withParent = (more = "") =>
  Flag.Boolean("with-parent").pipe(Flag.withDescription(`End when standard input ends${more}`), Flag.withDefault(false))
