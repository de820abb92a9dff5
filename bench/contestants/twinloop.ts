/** Twinloop, as an application that shows its room list and reads its inbox: `node twinloop.ts <SyncTask>`. */
import { Inbox, SyncService } from "@twinloop/actors"
import { type ListDiff, type Room, RoomList } from "@twinloop/core"
import { Deferred, Effect, Stream } from "effect"
import { answered, finish, nowMillis, peakMegabytes, plan, quantile, task, watchStalls } from "./Figures.ts"
import { BATCH } from "../homeserver/CannedHomeserver.ts"
import { PAUSE_MILLIS, type SyncTask } from "./SyncTask.ts"
import * as TwinloopAccount from "./TwinloopAccount.ts"

const { baseUrl, database, latencies, news, rooms, toDevice } = task<SyncTask>()

/** What has been published: a growing number, when it grew, and whoever waits for it to be reached. */
class Progress {
  readonly steps: Array<{ readonly value: number; readonly atMillis: number }> = []
  private wanted = Number.POSITIVE_INFINITY
  private reached = Deferred.makeUnsafe<void>()

  reach(value: number): void {
    this.steps.push({ value, atMillis: nowMillis() })
    if (value >= this.wanted) Deferred.doneUnsafe(this.reached, Effect.void)
  }

  /** Waits for a value that is planned now. */
  until(what: Promise<number>): Effect.Effect<void> {
    this.reached = Deferred.makeUnsafe<void>()
    this.wanted = Number.POSITIVE_INFINITY
    return Effect.flatMap(
      Effect.promise(() => what),
      (wanted) => {
        this.wanted = wanted
        return (this.steps.at(-1)?.value ?? 0) >= wanted ? Effect.void : Deferred.await(this.reached)
      }
    )
  }
}

type Diffs = ReadonlyArray<ListDiff.Diff<Room.Room>>

const stampsOf = (diff: ListDiff.Diff<Room.Room>): ReadonlyArray<number> => {
  if (diff._tag === "Insert" || diff._tag === "Set") return [diff.entry.bumpStamp]
  return diff._tag === "Reset" ? diff.entries.map((room) => room.bumpStamp) : []
}

/** The highest bump stamp that is shown, and the last row that was consumed from the inbox. */
const shown = new Progress()
const applied = new Progress()

const app = Effect.gen(function* () {
  const service = yield* SyncService.SyncService
  const list = yield* RoomList.RoomList
  const inbox = yield* Inbox.Inbox
  const entries = yield* list.entries({ pageSize: 50 })
  yield* Effect.forkScoped(
    Stream.runForEach(entries.stream, (diffs: Diffs) =>
      Effect.sync(() => shown.reach(Math.max(0, ...diffs.flatMap(stampsOf))))
    )
  )
  yield* Effect.forkScoped(inbox.consume("bench", (entry) => Effect.sync(() => applied.reach(entry.sequence))))

  const stalls = watchStalls()
  const startedAt = nowMillis()
  yield* service.start
  yield* Stream.runHead(Stream.filter(service.changes, (state) => state.main._tag === "Syncing"))
  const ingestMillis = nowMillis() - startedAt
  const known = (yield* list.rooms).length
  if (known !== rooms) return yield* Effect.die(new Error(`${known} of ${rooms} rooms are known`))
  const stallMillis = yield* Effect.promise(stalls)
  const figures: Record<string, number> = { ingestMillis, stallMillis, peakMegabytes: peakMegabytes() }

  if (news > 0) {
    const from = nowMillis()
    yield* shown.until(plan(baseUrl, { kind: "news", count: news }).then(({ stamp = 0 }) => stamp))
    figures["responsesPerSecond"] = (news * 1_000) / (nowMillis() - from)
  }
  if (latencies > 0) {
    const asked = plan(baseUrl, { kind: "news", count: latencies, delayMillis: PAUSE_MILLIS })
    yield* shown.until(asked.then(({ stamp = 0 }) => stamp))
    const sent = (yield* Effect.promise(() => answered(baseUrl))).filter(({ planned }) => planned)
    const took = sent.map(({ answeredAtMillis, stamp = 0 }) => {
      const step = shown.steps.find(({ value }) => value >= stamp)
      return step!.atMillis - answeredAtMillis
    })
    figures["latencyP50Millis"] = quantile(took, 0.5)
    figures["latencyP99Millis"] = quantile(took, 0.99)
  }
  if (toDevice > 0) {
    const from = nowMillis()
    yield* applied.until(plan(baseUrl, { kind: "toDevice", count: toDevice }).then(() => toDevice * BATCH))
    figures["toDevicePerSecond"] = (toDevice * BATCH * 1_000) / (nowMillis() - from)
  }
  return figures
}).pipe(Effect.scoped)

void TwinloopAccount.prepare(database, baseUrl)
  .then(() => TwinloopAccount.run(database, app))
  .then(finish)
