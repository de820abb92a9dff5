/** `twinloop dev`: plays the story, which is also what `npm start` does. */
import { Console, Effect, FileSystem, Path, Schema } from "effect"
import { Command, Flag } from "effect/cli"
import * as Report from "../story/Report.ts"
import * as Story from "../story/Story.ts"
import { CommandFailed, exitCodes } from "./ExitCode.ts"
import * as Flags from "./Flags.ts"
import * as Output from "./Output.ts"

const intro = [
  "One account, two processes, one SQLite file. Another user keeps writing, encrypted; the processes are suspended, killed and cut off.",
  "At the end: is every to-device event in the inbox exactly once, and in order? Can every message be decrypted? Was each push shown?",
  ""
]

const print = (json: boolean, story: Report.Story) => {
  const failures = Report.failures(story)
  const ok = failures.length === 0
  const seconds = Math.round(story.tookMillis / 1_000)
  return Output.result(json, { ok, ...story, failures }, [
    "",
    ...Report.table(story),
    "",
    ok ? `All is well: nothing lost, duplicated, out of order or unreadable, in ${seconds} s.` : "Not all is well."
  ])
}

export const devCommand = Command.make(
  "dev",
  {
    homeserver: Flag.Literals("homeserver", ["dev", "synapse"]).pipe(
      Flag.withDescription("The embedded homeserver, or a real Synapse (needs Python 3.10; made on first use)"),
      Flag.withDefault("dev" as const)
    ),
    rooms: Flag.Int("rooms").pipe(
      Flag.withDescription("Rooms at the start, 1 to 10000. Default: 200"),
      Flag.withSchema(
        Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 10_000 }, { message: "between 1 and 10000" }))
      ),
      Flag.withDefault(200)
    ),
    keep: Flag.Boolean("keep").pipe(Flag.withDescription("Keep everything up afterwards"), Flag.withDefault(false)),
    json: Flags.json
  },
  Effect.fn(function* ({ homeserver, json, keep, rooms }) {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const directory = yield* fs.makeTempDirectoryScoped({ prefix: "twinloop-" })
    const progress = json ? Output.silent : yield* Output.progress
    if (!json) yield* Effect.forEach(intro, (line) => Console.log(line), { discard: true })
    const story = yield* Story.run({
      homeserver,
      rooms,
      database: path.join(directory, "account.db"),
      progress,
      keep,
      report: (story) => Effect.andThen(progress.clear, print(json, story))
    })
    const failures = Report.failures(story)
    if (failures.length > 0) {
      return yield* new CommandFailed({ message: failures.join("; "), exitCode: exitCodes.story, printed: true })
    }
  }, Effect.scoped)
).pipe(Command.withDescription("Play the whole story with real processes, and check that nothing is lost"))
