/**
 * What contestants share: how they measure, and how they say what they have measured.
 *
 * A contestant is a process that is given its task as JSON and prints lines of JSON; the last one is its figures.
 */
import { monitorEventLoopDelay } from "node:perf_hooks"
import { setTimeout } from "node:timers/promises"
import type { Answered, Plan, Planned } from "../homeserver/CannedHomeserver.ts"

export { peakMegabytes } from "./Memory.ts"

/** Named numbers; each name ends in its unit. */
export type Figures = { readonly [name: string]: number }

/** The task, from the command line. */
export const task = <A>(): A => JSON.parse(process.argv[2] ?? "{}") as A

/** Prints the figures and ends. */
export const finish = (figures: Figures): void => {
  process.stdout.write(`${JSON.stringify(figures)}\n`, () => process.exit(0))
}

/** Milliseconds on the host's monotonic clock, which all its processes share. */
export const nowMillis = (): number => Number(process.hrtime.bigint()) / 1e6

/** The value below which a share of the values lies; `NaN` of none. */
export const quantile = (values: ReadonlyArray<number>, share: number): number => {
  const sorted = [...values].sort((left, right) => left - right)
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN
}

/** Watches the event loop; gives the longest time that a timer of 1 ms was late, in milliseconds. */
export const watchStalls = (): (() => Promise<number>) => {
  const histogram = monitorEventLoopDelay({ resolution: 1 })
  histogram.enable()
  return async () => {
    // A stall that goes on until now is known once the timer has had its turn.
    await setTimeout(10)
    histogram.disable()
    return histogram.max / 1e6
  }
}

/** Tells the canned homeserver what to answer from now on. */
export const plan = async (baseUrl: string, what: Plan): Promise<Planned> =>
  (await fetch(`${baseUrl}/bench/plan`, { method: "POST", body: JSON.stringify(what) })).json() as Promise<Planned>

/** What the canned homeserver has answered since the last plan. */
export const answered = async (baseUrl: string): Promise<ReadonlyArray<Answered>> =>
  (await fetch(`${baseUrl}/bench/log`)).json() as Promise<ReadonlyArray<Answered>>
