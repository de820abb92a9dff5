/**
 * What the encryption of each account takes in one process: memory, and time to open it.
 *
 * Gotchas: memory of WebAssembly that is let go of comes back when V8 sees fit. So nothing is closed here, and the first
 * accounts, for which code is compiled, aren't counted.
 */
import { type Figures, nowMillis } from "../Figures.ts"
import * as ManyAccounts from "../ManyAccounts.ts"

/** Accounts that aren't counted. */
const FIRST = 5

/** Opens that many accounts beyond the first ones, by their numbers from 0, and leaves them open. */
export const measure = async (accounts: number, open: (number: number) => Promise<void>): Promise<Figures> => {
  for (let number = 0; number < FIRST; number++) await open(number)
  const before = await ManyAccounts.collect()
  const from = nowMillis()
  for (let number = 0; number < accounts; number++) await open(FIRST + number)
  const openMillis = (nowMillis() - from) / accounts
  const after = await ManyAccounts.collect()
  return {
    residentKilobytes: (after.rss - before.rss) / accounts / 1_000,
    heapKilobytes: (after.heapUsed - before.heapUsed) / accounts / 1_000,
    openMillis
  }
}
