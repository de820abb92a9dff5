/** What contestants with an account of many room keys are given, and where its files are. */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import type { RoomEvent } from "./Senders.ts"

export interface StoreTask {
  /** Where the account's files are, or will be. */
  readonly directory: string
  /** Room keys that are made up, beside those of the events that are decrypted. */
  readonly roomKeys: number
}

/** The account's database. */
export const databaseIn = (directory: string): string => join(directory, "account.db")

/** All room keys, as the specification exports them, in JSON. */
export const exportIn = (directory: string): string => join(directory, "keys.json")

/** Events that can be decrypted, in JSON. */
export const eventsIn = (directory: string): string => join(directory, "events.json")

/** Events that can be decrypted. */
export const events = (directory: string): ReadonlyArray<RoomEvent> =>
  JSON.parse(readFileSync(eventsIn(directory), "utf8")) as ReadonlyArray<RoomEvent>

/** How many there are. */
export const EVENTS = 20
