/**
 * The end of a process that should have ended by itself: says so, and ends it.
 *
 * Gotchas: what it held is then as if it had been killed. Its lease is taken over, since whoever watches sees the process end.
 */
import { Effect } from "effect"
import * as Printable from "../Printable.ts"

/**
 * Ends the process after so many milliseconds with an exit code, if it still runs. It keeps no process from ending before,
 * and can't be taken back: whatever hangs may be what should have done so.
 */
export const arm = (millis: number, exitCode: number, why: string): Effect.Effect<void> =>
  Effect.sync(() => {
    setTimeout(() => {
      process.stderr.write(`twinloop: ${Printable.line(why)}\n`)
      process.exit(exitCode)
    }, millis).unref()
  })
