/**
 * Looks into a program from within and changes nothing: `node --import inspect.ts PROGRAM`, with a file's name in
 * `BENCH_INSPECT`, to which it writes an `Inspection` when the program ends.
 *
 * Not for a run whose time is taken: loading this takes time, too.
 */
import { writeFileSync } from "node:fs"
import { peakMegabytes } from "../Memory.ts"
import { requests } from "./Requests.ts"

/** What was seen of a program. */
export interface Inspection {
  /** HTTP requests that it had begun when it printed its first line, and in all. */
  readonly requestsUntilLine: number
  readonly requests: number
  /** Of a processor, of all the process's threads, until its first line. */
  readonly processorMillis: number
  readonly peakMegabytes: number
}

const processorMillis = (): number => {
  const { system, user } = process.cpuUsage()
  return (system + user) / 1_000
}

let untilLine: Pick<Inspection, "requestsUntilLine" | "processorMillis"> | undefined
const note = () => (untilLine ??= { requestsUntilLine: requests(), processorMillis: processorMillis() })

const write = process.stdout.write.bind(process.stdout)
process.stdout.write = ((...args: Parameters<typeof write>) => {
  note()
  return write(...args)
}) as typeof process.stdout.write

process.once("exit", () => {
  const seen: Inspection = { ...note(), requests: requests(), peakMegabytes: peakMegabytes() }
  writeFileSync(process.env["BENCH_INSPECT"] ?? "", JSON.stringify(seen))
})
