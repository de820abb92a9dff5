/**
 * The lease: who owns a named resource, as rows, and the pure rules by which the rows change.
 *
 * Includes the row types and `decideTake`, `decideRenew`, `decideRelease`, `decideLeave`. Every `LeaseStore` adapter loads
 * the rows of one name, asks these functions, and writes what they return, in one transaction: the rules exist once.
 *
 * Invariants: I1 (the generation grows whenever ownership passes to another holder, and never else).
 *
 * Gotchas: time comes from the caller, in Unix milliseconds of this host; an expiry farther away than the lease that wrote
 * it is a clock step and counts as expired.
 *
 * Not here: when to take, renew or give up (`LeaseMachine.ts`), waiting and signals (`DistributedSemaphore.ts`).
 */

/** How other processes of this host can see whether a holder lives. */
export interface Peer {
  /** Address of the holder's local socket, or absent when it has none. */
  readonly endpoint?: string
  readonly pid?: number
  /** When the process started, as the platform tells it; with `pid` it names a process for good. */
  readonly startedAt?: string
}

/** One permit of a name. The row stays when it is released, since it carries the generation. */
export interface LeaseRow {
  readonly slot: number
  /** role + random instance id, so that two processes can't be the same by accident. */
  readonly holder: string
  readonly generation: number
  /** Unix milliseconds; 0 when released. */
  readonly expiresAtMillis: number
  /** The lease that the holder took, in milliseconds; bounds how far away `expiresAtMillis` can be. */
  readonly leaseMillis: number
  readonly peer: Peer
}

/** A place in the queue for a name: first come, first served. */
export interface Waiter {
  /** Grows with every new waiter of the store. */
  readonly ticket: number
  readonly holder: string
  readonly count: number
  /** Unix milliseconds; a waiter that doesn't refresh its ticket loses its place. */
  readonly expiresAtMillis: number
  readonly ticketMillis: number
  readonly peer: Peer
}

/** Everything known about one name. */
export interface LeaseTable {
  readonly rows: ReadonlyArray<LeaseRow>
  /** By ticket, ascending. */
  readonly waiters: ReadonlyArray<Waiter>
}

/** What a store checks inside the transaction that writes (invariant I1). */
export interface Fence {
  readonly name: string
  readonly holder: string
  readonly generation: number
}

/** Somebody who is known to be dead, so that what he holds can be taken before it expires. */
export interface PresumedDead {
  readonly holder: string
}

export interface TakeRequest {
  readonly name: string
  /** How many permits the name has in all, 1 or more. */
  readonly permits: number
  /** How many are wanted, 1..permits, all or none. */
  readonly count: number
  readonly holder: string
  readonly peer: Peer
  readonly nowMillis: number
  readonly leaseMillis: number
  /** When refused, take (or keep) a place in the queue that lasts this long without a refresh. Absent: try once, don't queue. */
  readonly enqueueMillis?: number
  readonly presumedDead?: PresumedDead
}

/** Who stands in the way, to be watched: the holder of the permit that frees first, or the waiter ahead. */
export interface Blocker {
  readonly kind: "holder" | "waiter"
  readonly holder: string
  readonly peer: Peer
  /** When it gives way by itself at the latest, Unix milliseconds. */
  readonly expiresAtMillis: number
}

export type TakeOutcome =
  | {
      readonly _tag: "Granted"
      readonly generation: number
      readonly slots: ReadonlyArray<number>
      readonly expiresAtMillis: number
    }
  | { readonly _tag: "Busy"; readonly blocker: Blocker }

export interface RenewRequest {
  readonly fence: Fence
  readonly nowMillis: number
  readonly leaseMillis: number
}

export interface ReleaseRequest {
  readonly fence: Fence
  readonly nowMillis: number
  /** How long a waiter that is handed the lease has to confirm it, in milliseconds. */
  readonly handoverMillis: number
}

/** `handedTo` are the waiters that own the permits now. `NotHeld`: somebody else took it before; nothing was changed. */
export type ReleaseOutcome =
  | { readonly _tag: "Released"; readonly handedTo: ReadonlyArray<string> }
  | { readonly _tag: "NotHeld" }
