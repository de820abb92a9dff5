/**
 * `npm run chaos`: breaks real processes on purpose, as a seed says, and checks that nothing was lost.
 *
 * `--minutes N` (2) is how long there is trouble, `--homeserver dev|synapse`, `--seed N` plays the same trouble again, `--keep`
 * keeps the database and the logs, which a failure does anyway. `--json` prints a summary as JSON alone. The exit code is 7 when
 * something was not kept, and 1 when it could not be played.
 *
 * What is real: processes and their signals, SQLite, HTTP over TCP, the encryption, and on Linux, where this user may mount, a full
 * disk (`scripts/chaos/SmallDisk.ts`). What isn't: the network is cut at a TCP gate on this host, and no power is lost.
 *
 * Not here: what is done (`scripts/chaos/Schedule.ts`), what must hold (`scripts/chaos/Verdict.ts`).
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Cause, Effect, Exit, Logger } from "effect"
import { cpSync, existsSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { parseArgs } from "node:util"
import * as MonotonicClock from "../packages/platform/src/cli/MonotonicClock.ts"
import * as Output from "../packages/platform/src/cli/Output.ts"
import * as Chaos from "./chaos/Chaos.ts"
import * as Schedule from "./chaos/Schedule.ts"
import * as SmallDisk from "./chaos/SmallDisk.ts"
import * as Verdict from "./chaos/Verdict.ts"

const { values: flags } = parseArgs({
  options: {
    minutes: { type: "string", default: "2" },
    homeserver: { type: "string", default: "dev" },
    seed: { type: "string" },
    keep: { type: "boolean", default: false },
    json: { type: "boolean", default: false }
  }
})

const minutes = Number(flags.minutes)
const seed = flags.seed === undefined ? Math.floor(Math.random() * 1_000_000) : Number(flags.seed)
const homeserver = flags.homeserver === "synapse" ? "synapse" : "dev"
if (!(minutes > 0) || !Number.isSafeInteger(seed) || !["dev", "synapse"].includes(flags.homeserver)) {
  process.stderr.write("npm run chaos -- [--minutes N] [--seed N] [--homeserver dev|synapse] [--keep] [--json]\n")
  process.exit(2)
}

/** Room for an hour's messages, and as much for the log. */
const MEGABYTES = 64 + Math.ceil(16 * minutes)
// The seed is in the command line when this program begins again on the disk.
if (flags.seed === undefined) process.argv.push("--seed", String(seed))
const place = SmallDisk.enter("twinloop-chaos-", MEGABYTES)

const failedCode = 7
const lines: Array<string> = []

const keep = (): string => {
  const kept = join(place.directory, "kept")
  if (existsSync(place.disk)) {
    rmSync(join(place.disk, "ballast"), { force: true })
    cpSync(place.disk, kept, { recursive: true, filter: (path) => !path.includes("-sockets") })
  }
  writeFileSync(join(place.directory, "schedule.txt"), `${lines.join("\n")}\n`)
  return kept
}

const replay = `npm run chaos -- --minutes ${minutes} --homeserver ${homeserver} --seed ${seed}`

const main = Effect.gen(function* () {
  const progress = flags.json ? Output.silent : yield* Output.progress
  const startedAtMillis = yield* MonotonicClock.nowMillis
  const tell = Effect.fnUntraced(function* (text: string) {
    const seconds = ((yield* MonotonicClock.nowMillis) - startedAtMillis) / 1_000
    const line = `${seconds.toFixed(1).padStart(6)} s  ${text}`
    lines.push(line)
    yield* progress.line(line)
  })
  yield* tell(`seed ${seed}; again: ${replay}`)
  const options: Chaos.Options = { seed, minutes, canFill: place.isSmall, homeserver, place, progress, tell }
  const exit = yield* Effect.exit(Chaos.run(options))
  yield* progress.clear
  const failures = Exit.isSuccess(exit) ? Verdict.failures(exit.value) : [Cause.pretty(exit.cause)]
  const ok = failures.length === 0
  const isKept = !ok || flags.keep
  const kept = isKept ? keep() : undefined
  if (!isKept) SmallDisk.remove(place)
  const value = Exit.isSuccess(exit) ? exit.value : { seed, minutes, homeserver }
  const troubles = Schedule.make(options).map(Schedule.describe)
  const where = kept === undefined ? [] : [`database in ${kept}, logs in ${join(place.directory, "logs")}`]
  yield* Output.result(
    flags.json,
    {
      ok,
      ...value,
      failures,
      ...(isKept && { kept, logs: join(place.directory, "logs") }),
      ...(!ok && { troubles, lines })
    },
    [
      ...(Exit.isSuccess(exit) ? Verdict.table(exit.value) : []),
      ...(ok
        ? ["All is well: nothing lost, applied twice, unreadable or left."]
        : [...failures, `seed ${seed}; again: ${replay}`]),
      ...where
    ]
  )
  process.exitCode = ok ? 0 : failedCode
})

main.pipe(Effect.provide(NodeServices.layer), Effect.provideService(Logger.LogToStderr, true), NodeRuntime.runMain)
