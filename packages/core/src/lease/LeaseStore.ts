/**
 * Port to where leases live. Each call is atomic against every other process that uses the same store.
 *
 * Adapters: `layerMemory` (here, for tests and single processes), `SqliteLeaseStore` (platform). All pass the contract
 * suite `leaseStoreContract` of `@twinloop/core/testing`.
 *
 * Invariants: I1.
 */
import { Context } from "effect"
import type { Effect } from "effect"
import type { StoreError } from "../sync/StoreError.ts"
import type {
  Fence,
  LeaseTable,
  ReleaseOutcome,
  ReleaseRequest,
  RenewOutcome,
  RenewRequest,
  TakeOutcome,
  TakeRequest
} from "./Lease.ts"

export class LeaseStore extends Context.Service<
  LeaseStore,
  {
    /** Takes `count` permits, all or none; when refused and asked to, queues. */
    take(request: TakeRequest): Effect.Effect<TakeOutcome, StoreError>
    /**
     * Extends a lease if it is still this holder's under this generation; gives the new expiry in Unix milliseconds, and
     * whether somebody waits who needs it soon.
     */
    renew(request: RenewRequest): Effect.Effect<RenewOutcome, StoreError>
    /** Frees a lease, or hands it to the first waiter. */
    release(request: ReleaseRequest): Effect.Effect<ReleaseOutcome, StoreError>
    /** Gives up a place in the queue; a lease that was handed to this waiter meanwhile is passed on. */
    leave(request: {
      readonly name: string
      readonly holder: string
      readonly nowMillis: number
      readonly handoverMillis: number
    }): Effect.Effect<ReleaseOutcome, StoreError>
    /** What is known about a name, for `status` and tests. */
    inspect(name: string): Effect.Effect<LeaseTable, StoreError>
    /** Whether the fence still stands: the lease is this holder's under this generation. For tests and diagnosis; commits check by themselves. */
    holds(fence: Fence): Effect.Effect<boolean, StoreError>
  }
>()("@twinloop/core/LeaseStore") {}
