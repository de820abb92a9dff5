/** What the simulated engine has in memory, and how it changes it: each change is written with the call's writes. */
import { Result } from "effect"
import type { RoomId, UserId } from "../../matrix/MatrixEvent.ts"
import { CryptoBadAnswer, CryptoFailed } from "../../sync/CryptoError.ts"
import type { DeviceTrust } from "../../sync/EventDecryptor.ts"
import type { Session } from "../../sync/Homeserver.ts"
import type { CryptoWrite, EncryptionNews } from "../../sync/SyncStore.ts"
import * as Records from "./SimulatedRecords.ts"

/** What is in memory. */
export interface Memory {
  readonly records: Records.Records
  readonly writes: Array<CryptoWrite>
  readonly news: Array<EncryptionNews>
  /** Whether the last call waits for its commit. */
  isPending: boolean
  /** Who must have a room's key before one event is encrypted. */
  readonly readers: Map<RoomId, ReadonlyArray<DeviceTrust>>
  /** Who was asked about, and has not changed since. */
  readonly asked: Set<UserId>
  readonly own: Session
  /** How many one-time keys the homeserver is to have. */
  readonly oneTimeKeys: number
}

/** What a call gives, or why it fails. */
export type Answer<A> = Result.Result<A, CryptoFailed | CryptoBadAnswer>

export const failed = (message: string) => Result.fail(new CryptoFailed({ message }))
export const badAnswer = (missing: string) =>
  Result.fail(
    new CryptoBadAnswer({
      message: `the homeserver's answer has no "${missing}"; the request stays queued: look at the homeserver`
    })
  )

/** Changes a record in memory, or deletes it (`undefined`), and writes it down to be stored. */
export const put = <C extends keyof Records.Records>(
  { records, writes }: Memory,
  collection: C,
  key: string,
  value: Parameters<Records.Records[C]["set"]>[1] | undefined
): void => {
  const into = records[collection] as Map<string, unknown>
  if (value === undefined) into.delete(key)
  else into.set(key, value)
  writes.push(Records.writeOf(collection, key, value))
}

/** A number that this device never gave before. */
export const nextNumber = (memory: Memory, more: Partial<Records.Account> = {}): number => {
  const account = Records.accountOf(memory.records)
  put(memory, "account", "account", { ...account, ...more, made: account.made + 1 })
  return account.made + 1
}
