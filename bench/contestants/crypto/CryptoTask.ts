/** What contestants that decrypt are given to do. */
export interface CryptoTask {
  /** A file that doesn't exist yet. */
  readonly database: string
  /** Batches of to-device messages, each message with the key of a room. */
  readonly batches: number
  /** How often an event of each room is decrypted after that. */
  readonly passes: number
}

/** Messages in a batch. */
export const BATCH = 100

/** Devices that send them. */
export const SENDERS = 10

/** Batches that are received before anything is measured, so that V8 has compiled what runs often. */
export const WARM_UP = 3
