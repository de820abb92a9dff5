/**
 * One application process of the story: `twinloop run --json`, and what it says.
 *
 * Not here: what any process of the story has (`StoryProcess.ts`).
 */
import { Effect } from "effect"
import { RunEvent } from "../cli/RunEvent.ts"
import * as StoryProcess from "./StoryProcess.ts"

export interface AppProcess extends StoryProcess.StoryProcess<RunEvent> {
  readonly role: string
  /** Says which rooms are on the screen, 0-based and inclusive. */
  look(start: number, end: number): Effect.Effect<void>
}

/** Starts a process of a role on a database. It is killed when the scope closes, if it still runs. */
export const start = Effect.fn("AppProcess.start")(function* (
  role: string,
  database: string,
  options: StoryProcess.Options = {}
) {
  const args = ["run", "--json", "--with-parent", "--role", role, "--database", database]
  const started = yield* StoryProcess.start(role, args, RunEvent, options)
  const app: AppProcess = { ...started, role, look: (start, end) => started.say(`window ${start} ${end}`) }
  return app
})
