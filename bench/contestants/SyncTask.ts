/** What contestants that sync are given to do, in this order; a part with count 0 is left out. */
export interface SyncTask {
  readonly baseUrl: string
  /** A file that doesn't exist yet. */
  readonly database: string
  /** Rooms that the account has: all of them are loaded first. */
  readonly rooms: number
  /** Timeline events per room in the first response. */
  readonly timeline: number
  /** Incremental responses, one right after the other. */
  readonly news: number
  /** Incremental responses with pauses, whose latency is measured. */
  readonly latencies: number
  /** Batches of 100 to-device messages. */
  readonly toDevice: number
}

/** Between two incremental responses whose latency is measured: long enough for the one before to be over. */
export const PAUSE_MILLIS = 15
