/** The test kit: memory ports and the contract suites that every adapter of a port must pass. */
export { leaseStoreContract } from "./LeaseStoreContract.ts"
export { syncStoreContract } from "./SyncStoreContract.ts"
export * as SyncStoreMemory from "./SyncStoreMemory.ts"
