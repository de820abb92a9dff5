/** Every benchmark, in the order in which they run. */
import type { Make } from "../Benchmark.ts"
import * as Accounts from "./Accounts.ts"
import * as Crypto from "./Crypto.ts"
import * as Lock from "./Lock.ts"
import * as Notification from "./Notification.ts"
import * as Start from "./Start.ts"
import * as Sync from "./Sync.ts"

export const all: Make = (options) => [
  ...Sync.make(options),
  ...Start.make(options),
  ...Lock.make(options),
  ...Accounts.make(options),
  ...Crypto.make(options),
  ...Notification.make(options)
]
