/**
 * Starts one account after the other in one process, and measures what each of them costs: time until it is in sync, then
 * memory and work while it idles.
 *
 * Gotchas: the first accounts pay for compiling the code, and V8 goes on compiling for a while; so some are started and
 * stopped before anything is measured, and again after a collection, which also throws compiled code away. Memory is the
 * difference between many accounts and one, divided by how many they are more: what all share isn't in it.
 */
import { setTimeout as sleep } from "node:timers/promises"
import { type Figures, nowMillis } from "./Figures.ts"

/** Accounts that are started and stopped before anything is measured, and then as many whose time alone is measured. */
const WARM_UP = 20

/** How many accounts there must be, so that so many can run at once. */
export const needed = (accounts: number): number => accounts + 2 * WARM_UP

/** How long idling is watched. */
const IDLE_MILLIS = 3_000

/** Starts an account by its number, from 0; done when it is in sync, and gives how to stop it. */
export type Start = (number: number) => Promise<() => Promise<void>>

/** Collects everything that nobody refers to, and gives the memory back to the operating system, as far as V8 does. */
export const collect = async (): Promise<NodeJS.MemoryUsage> => {
  for (let round = 0; round < 4; round++) {
    if (globalThis.gc === undefined) throw new Error("node needs --expose-gc")
    await globalThis.gc({ type: "major", execution: "async", flavor: "last-resort" })
    await sleep(150)
  }
  return process.memoryUsage()
}

/** Mean time to start an account when at most one other runs; each has a number of its own, from this one on. */
const alone = async (start: Start, first: number): Promise<number> => {
  let millis = 0
  for (let index = 0; index < WARM_UP; index++) {
    const from = nowMillis()
    const stop = await start(first + index)
    millis += nowMillis() - from
    await stop()
  }
  return millis / WARM_UP
}

const idle = async (): Promise<number> => {
  const before = process.cpuUsage()
  await sleep(IDLE_MILLIS)
  const { system, user } = process.cpuUsage(before)
  return (system + user) / 10 / IDLE_MILLIS
}

/** Measures; the accounts are left running. */
export const measure = async (accounts: number, start: Start): Promise<Figures> => {
  await alone(start, accounts)
  await start(0)
  const one = await collect()
  await alone(start, accounts)
  const aloneMillis = await alone(start, accounts + WARM_UP)
  const from = nowMillis()
  for (let number = 1; number < accounts; number++) await start(number)
  const more = accounts - 1
  const togetherMillis = (nowMillis() - from) / more
  await sleep(1_000)
  const many = await collect()
  return {
    aloneMillis,
    togetherMillis,
    heapKilobytes: (many.heapUsed - one.heapUsed) / more / 1_000,
    residentKilobytes: (many.rss - one.rss) / more / 1_000,
    idlePercent: await idle()
  }
}
