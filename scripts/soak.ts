/**
 * `npm run soak`: lets the story's processes run for an hour under a light load and no trouble at all, and looks whether anything
 * grows: memory, open handles, the log, tables. It begins with more than that: in three fifths of the warm-up what has a bound becomes full,
 * as it would in the first hour.
 *
 * `--minutes N` (60), `--out FILE` has everything as JSON, written anew with each sample, `--json` prints it alone. The exit code
 * is 7 when something grew. Slopes are held to their bounds only when there are twenty minutes after the warm-up.
 *
 * The homeserver keeps everything that was ever sent, so its memory grows; it is shown, and not judged.
 *
 * Not here: the bounds and the arithmetic (`scripts/soak/Figures.ts`).
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { SyncStore } from "@twinloop/core"
import { Effect, Fiber, Logger, Ref } from "effect"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { parseArgs } from "node:util"
import * as MonotonicClock from "../packages/platform/src/cli/MonotonicClock.ts"
import * as Output from "../packages/platform/src/cli/Output.ts"
import * as PushProcess from "../packages/platform/src/story/PushProcess.ts"
import * as Report from "../packages/platform/src/story/Report.ts"
import * as Sender from "../packages/platform/src/story/Sender.ts"
import * as Crew from "./chaos/Crew.ts"
import * as Processes from "./chaos/Processes.ts"
import * as Stage from "./chaos/Stage.ts"
import * as Figures from "./soak/Figures.ts"
import * as Heap from "./soak/Heap.ts"
import * as Samples from "./soak/Samples.ts"

const { values: flags } = parseArgs({
  options: {
    minutes: { type: "string", default: "60" },
    out: { type: "string" },
    json: { type: "boolean", default: false }
  }
})

process.env["NODE_OPTIONS"] = `${process.env["NODE_OPTIONS"] ?? ""} ${Heap.portOption}`.trim()

const minutes = Number(flags.minutes)
if (!(minutes > 0)) {
  process.stderr.write("npm run soak -- [--minutes N] [--out FILE] [--json]\n")
  process.exit(2)
}

const FILL_PAUSE_MILLIS = 80
const SEND_PAUSE_MILLIS = 500
const PUSH_PAUSE_MILLIS = 30_000
const SAMPLE_MILLIS = Math.min(30_000, minutes * 3_000)
/** Processes that must not grow. */
const JUDGED = ["main", "standby", "push"]

/** What the application has read of the inbox: it reads all the time, as an application does. */
const consume = Effect.fnUntraced(function* (numbers: Array<number>, position: Ref.Ref<number>) {
  const store = yield* SyncStore.SyncStore
  while (true) {
    const page = yield* store.readInbox({ after: yield* Ref.get(position), limit: 1_000 })
    const last = page.at(-1)
    if (last === undefined) return
    for (const { event, type } of page)
      if (type === Sender.TYPE) numbers.push(Number((event.content as { readonly number?: unknown }).number))
    yield* store.advanceInbox({ consumer: Stage.CONSUMER, sequence: last.sequence, keep: 1_000 })
    yield* Ref.set(position, last.sequence)
  }
})

/** A process; of one that is judged also what it needs, after its garbage is collected. */
const look = Effect.fnUntraced(function* (directory: string, name: string, pid: number | undefined) {
  if (pid === undefined) return []
  const live = JUDGED.includes(name)
    ? yield* Effect.promise(() => Heap.liveMib(pid, join(directory, "logs", `${name}.log`)))
    : undefined
  const one = Samples.ofProcess(pid)
  return one === undefined ? [] : [[name, { ...one, ...(live !== undefined && { liveMib: live }) }] as const]
})

const soak = Effect.gen(function* () {
  const progress = flags.json ? Output.silent : yield* Output.progress
  const directory = mkdtempSync(join(tmpdir(), "twinloop-soak-"))
  yield* Effect.addFinalizer(() => Effect.sync(() => rmSync(directory, { recursive: true, force: true })))
  const disk = join(directory, "disk")
  mkdirSync(disk)
  const pauses = { sendPauseMillis: FILL_PAUSE_MILLIS, pushPauseMillis: PUSH_PAUSE_MILLIS }
  const stage = yield* Stage.make({ homeserver: "dev", directory, disk, progress, ...pauses })
  const db = yield* Effect.acquireRelease(
    Effect.sync(() => new DatabaseSync(stage.database, { timeout: 5_000 })),
    (db) => Effect.sync(() => db.close())
  )
  Samples.countLeaseWrites(db)
  const sending = yield* Effect.forkScoped(stage.sender.sending)
  const crew = yield* Crew.make(stage, () => false)
  yield* stage.bob.untilReachable(stage.alice)
  yield* stage.sender.write
  yield* PushProcess.enable(stage.database, `${stage.pushGate.baseUrl}/_matrix/push/v1/notify`)
  const pushing = yield* Effect.forkScoped(stage.pushing)
  const fromMillis = yield* MonotonicClock.nowMillis
  const fillMillis = Figures.warmUpOf(minutes * 60_000) * 0.6
  yield* Effect.forkScoped(Effect.delay(stage.sender.pace(SEND_PAUSE_MILLIS), fillMillis))
  const samples: Array<Figures.Sample> = []
  const numbers: Array<number> = []
  const position = yield* Ref.make(0)
  const read = Stage.withStores(stage.database, consume(numbers, position))

  const pids = Effect.gen(function* () {
    const members = [crew.main, crew.standby, crew.push]
    const known = yield* Effect.forEach(members, (member) =>
      Effect.map(member.current, (running) => [member.name, running?.pid] as const)
    )
    const ours = known.map(([, pid]) => pid)
    const others = Processes.childrenOf(process.pid).filter((pid) => !ours.includes(pid))
    return [...known, ["homeserver", others[0]] as const]
  })

  const sample = Effect.gen(function* () {
    yield* read
    const found = yield* Effect.forEach(yield* pids, ([name, pid]) => look(stage.directory, name, pid))
    const sent = yield* stage.sender.sent
    samples.push({
      atMillis: (yield* MonotonicClock.nowMillis) - fromMillis,
      processes: Object.fromEntries(found.flat()),
      ...Samples.ofDatabase(db, stage.database),
      messages: sent.messages.length + (yield* stage.pushed).length
    })
  })

  const result = (isOver: boolean, more: ReadonlyArray<string>, sent: number) => {
    const figures = Figures.figures(samples)
    const failures = [...Figures.failures(figures, JUDGED), ...more]
    const toDevice = Report.compare(sent, numbers)
    return { ok: failures.length === 0, isOver, ...figures, bounds: Figures.bounds, toDevice, failures }
  }

  const write = (value: object): void => {
    if (flags.out !== undefined) writeFileSync(flags.out, `${JSON.stringify({ ...value, everySample: samples })}\n`)
  }

  const sampling = Effect.gen(function* () {
    while ((yield* MonotonicClock.nowMillis) - fromMillis < minutes * 60_000) {
      yield* sample
      const { toDevice } = yield* stage.sender.sent
      write(result(false, [], toDevice))
      yield* progress.status(`${(samples.at(-1)!.atMillis / 60_000).toFixed(1)} of ${minutes} minutes`)
      yield* Effect.sleep(SAMPLE_MILLIS)
    }
  })
  yield* Effect.raceFirst(sampling, crew.failed)
  yield* Effect.andThen(stage.sender.finish, stage.finishPushing)
  yield* Effect.andThen(Fiber.join(sending), Fiber.join(pushing))
  const { toDevice: sent } = yield* stage.sender.sent
  const complete = Effect.map(read, () => numbers.length >= sent)
  yield* Effect.timeoutOption(
    Effect.repeat(Effect.delay(complete, "200 millis"), { until: (done) => done }),
    Report.bounds.lastEventMillis
  )
  yield* sample
  const { duplicated, lost, outOfOrder } = Report.compare(sent, numbers)
  const wrong = lost + duplicated + outOfOrder
  const found = result(
    true,
    wrong === 0 ? [] : [`${wrong} to-device events were lost, came twice or out of order`],
    sent
  )
  write(found)
  yield* progress.clear
  yield* Output.result(flags.json, found, [
    ...Figures.table(Figures.figures(samples)),
    ...(found.ok
      ? [found.isJudged ? "Nothing grows." : "Too short to say what grows; everything is within its bounds."]
      : found.failures)
  ])
  process.exitCode = found.ok ? 0 : 7
}).pipe(Effect.scoped)

soak.pipe(Effect.provide(NodeServices.layer), Effect.provideService(Logger.LogToStderr, true), NodeRuntime.runMain)
