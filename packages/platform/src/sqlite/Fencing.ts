/**
 * The check that every fenced commit makes first, in the transaction that writes.
 *
 * Invariants: I1 (whoever has lost the lease writes nothing, whatever he believes).
 *
 * Not here: the lease rows (`SqliteLeaseStore.ts`), what is written under a fence (`ExtensionTables.ts`, and `PushTables.ts` of
 * `push`).
 */
import { StoreError } from "@twinloop/core"
import type { Lease } from "@twinloop/core"
import type { SqliteClientConfig, SyncReader } from "./SqliteClient.ts"
import * as SqliteLeaseStore from "./SqliteLeaseStore.ts"

/** What proves ownership: the lease row, or (`exclusive`) the lock on the file that nobody else can open. */
export type Fencing = "lease" | "exclusive"

/** Which of both it is for a client. */
export const of = ({ exclusive }: SqliteClientConfig): Fencing => (exclusive === true ? "exclusive" : "lease")

/** Why nothing may be written under a fence; `undefined` when it stands. */
export const check = (
  reader: SyncReader,
  fencing: Fencing,
  fence: Lease.Fence
): StoreError.StaleGeneration | undefined => {
  if (fencing === "exclusive" || SqliteLeaseStore.stands(reader, fence)) return undefined
  const { name, holder, generation } = fence
  const currentGeneration = SqliteLeaseStore.generationOf(reader, name)
  return new StoreError.StaleGeneration({
    message: `the lease "${name}" is not ${holder}'s under generation ${generation} any more, nothing was written; take it again and reload before going on`,
    name,
    generation,
    ...(currentGeneration === undefined ? {} : { currentGeneration })
  })
}
