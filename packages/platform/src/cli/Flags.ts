/** Flags that several commands have. */
import { Flag } from "effect/cli"

/** Where the account is kept. */
export const database = Flag.String("database").pipe(
  Flag.withAlias("d"),
  Flag.withMetavar("FILE"),
  Flag.withDescription("SQLite file of the account; every process of the account names the same one"),
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
  Flag.withDescription("How long to wait for quiet, in milliseconds; what isn't finished then is named"),
  Flag.withDefault(5_000)
)

/** Ties the process to the one that started it. */
export const withParent = Flag.Boolean("with-parent").pipe(
  Flag.withDescription(
    "End when standard input ends; `run` takes lines `window START END` from it: the rooms on the screen"
  ),
  Flag.withDefault(false)
)
