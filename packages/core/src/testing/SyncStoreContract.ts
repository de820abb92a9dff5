/**
 * What every `SyncStore` adapter must do; run over memory and over SQLite.
 *
 * The layer brings a `LeaseStore` as well: a fenced commit is checked against the very leases that it serves.
 *
 * Not here: faults of a medium (a full disk, a damaged file), which each adapter has its own way to meet.
 */
import { describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Layer } from "effect"
import type { StoreError } from "../sync/StoreError.ts"
import { extensionContract } from "./SyncStoreContractExtension.ts"
import { roomsContract } from "./SyncStoreContractRooms.ts"
import type { Stores, Test } from "./SyncStoreFixtures.ts"

/**
 * Registers the contract's tests for an adapter, under its name. Every test builds the layer afresh, and the stores that it
 * gives must be empty.
 *
 * @example
 * ```ts
 * syncStoreContract("SyncStoreMemory", SyncStoreMemory.layer.pipe(Layer.provideMerge(LeaseStoreMemory.layerMemory)))
 * ```
 */
export const syncStoreContract = (adapter: string, layer: Layer.Layer<Stores, StoreError>): void => {
  const test: Test = (title, body) => it.effect(title, () => Effect.provide(body, layer))
  describe(`${adapter} keeps the contract of SyncStore`, () => {
    extensionContract(test)
    roomsContract(test)
  })
}
