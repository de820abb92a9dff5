/** What processes that take turns at the stream are given, and say. */
import { join } from "node:path"

export interface HandoverTask {
  /** Where the account and the batches are, or will be. */
  readonly directory: string
  /** Batches that are made. */
  readonly batches: number
  /** Messages in each. */
  readonly size: number
}

/** Milliseconds on the host's monotonic clock. */
export type HandoverLine =
  | { readonly event: "ready" | "asked" }
  | {
      readonly event: "committed"
      readonly takenAtMillis: number
      readonly loadedAtMillis: number
      readonly atMillis: number
      /** How often this process has made its machine so far. */
      readonly reloads: number
    }
  | { readonly event: "released"; readonly atMillis: number }

/** Batches of to-device messages, in JSON. */
export const batchesIn = (directory: string): string => join(directory, "batches.json")
