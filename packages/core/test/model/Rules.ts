/**
 * The rules that the model runs under: those of the product, each of which a test may replace by a wrong one.
 *
 * Includes the pure functions themselves, and as flags what the interpreters of `packages/actors` and the homeserver do.
 */
import * as Lease from "../../src/lease/Lease.ts"
import * as LeaseMachine from "../../src/lease/LeaseMachine.ts"
import * as NotificationKeysMachine from "../../src/notification/NotificationKeysMachine.ts"
import * as ExtensionLoopMachine from "../../src/sync/ExtensionLoopMachine.ts"
import * as SyncStoreMemoryState from "../../src/testing/SyncStoreMemoryState.ts"

export interface Rules {
  readonly take: typeof Lease.decideTake
  readonly renew: typeof Lease.decideRenew
  readonly release: typeof Lease.decideRelease
  readonly leave: typeof Lease.decideLeave
  /** The fence check in a commit. */
  readonly stands: typeof Lease.stands
  /** The commit after the fence was found to stand. */
  readonly commit: typeof SyncStoreMemoryState.commitExtension
  readonly leaseStep: typeof LeaseMachine.step
  readonly loopStep: typeof ExtensionLoopMachine.step
  readonly keysStep: typeof NotificationKeysMachine.step
  readonly keysConsider: typeof NotificationKeysMachine.consider
  /** The holder's id of a process that was started for the nth time. */
  holderOf(name: string, start: number): string
  /** Whether memory must be loaded again under a grant. */
  isDirty(validGeneration: number | null, generation: number): boolean
  /** Memory is void after a turn that ended otherwise than well (`CryptoTurn`). */
  readonly voids: boolean
  /** What a response brings is acknowledged as soon as it is received. */
  readonly acknowledgesEarly: boolean
  /** The lease is let go before `suspend` returns, and before a process that a push has started ends. */
  readonly releasesOnSuspend: boolean
  /** An event is decrypted once more when what others commit is followed: its key may have come before. */
  readonly triesWhenWatched: boolean
  /** A process that a push has started lets the lease go when the homeserver has answered, before it commits. */
  readonly releasesEarly: boolean
}

/** Those of the product. */
export const real: Rules = {
  take: Lease.decideTake,
  renew: Lease.decideRenew,
  release: Lease.decideRelease,
  leave: Lease.decideLeave,
  stands: Lease.stands,
  commit: SyncStoreMemoryState.commitExtension,
  leaseStep: LeaseMachine.step,
  loopStep: ExtensionLoopMachine.step,
  keysStep: NotificationKeysMachine.step,
  keysConsider: NotificationKeysMachine.consider,
  holderOf: (name, start) => `${name}${"'".repeat(start)}`,
  isDirty: (validGeneration, generation) => validGeneration !== generation,
  voids: true,
  acknowledgesEarly: false,
  releasesOnSuspend: true,
  triesWhenWatched: true,
  releasesEarly: false
}
