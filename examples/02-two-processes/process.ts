/**
 * One process of the account. Start it as often as you like, each under a role of its own: one of them owns the extension
 * stream, the others wait for it. All of them follow the rooms.
 *
 *     node examples/02-two-processes/process.ts ROLE DATABASE
 *
 * ^Z suspends it and gives the stream away before the process freezes; `fg` resumes it.
 */
import { SyncService } from "@twinloop/actors"
import type { SyncServiceMachine } from "@twinloop/core"
import { Lifecycle, Twinloop } from "@twinloop/platform"
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Stream } from "effect"

const [, , role = "main", database = "account.db"] = process.argv

/** What becomes of the stream, in this process's eyes. */
const describe = ({ _tag, extension }: SyncServiceMachine.ServiceState): string | undefined => {
  if (_tag === "Suspended") return "is suspended"
  if (extension._tag === "WaitingForLock") return "waits for the stream"
  return extension._tag === "Syncing" ? `owns the stream, generation ${extension.generation}` : undefined
}

const follow = Effect.gen(function* () {
  const service = yield* SyncService.SyncService
  const told = service.changes.pipe(
    Stream.map(describe),
    Stream.filter((text) => text !== undefined),
    Stream.changes
  )
  yield* Effect.forkScoped(Stream.runForEach(told, (text) => Console.log(`${role} ${text}`)))
  yield* service.start
  yield* Lifecycle.run({ suspend: service.suspend(), resume: service.resume(), stop: service.stop() })
}).pipe(Effect.scoped)

follow.pipe(
  Effect.provide([Twinloop.layer({ database, config: { role } }), Lifecycle.layerSignals]),
  NodeRuntime.runMain
)
